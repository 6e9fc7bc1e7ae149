;; Makes as many handles of a resource of its own as it is asked to, and gives none back.
(import "[export]test:guest/things" "[resource-new]thing" (func $new (param i32) (result i32)))
(func $enrich (param $amount i32)
  (loop $again (if (local.get $amount) (then
    (drop (call $new (i32.const 1)))
    (local.set $amount (i32.sub (local.get $amount) (i32.const 1)))
    (br $again)))))
