;; Asks for a page of random bytes as often as it is asked to.
(import "wasi:random/random@0.2.6" "get-random-bytes" (func $random (param i64 i32)))
(func $enrich (param $amount i32)
  (loop $again (if (local.get $amount) (then
    (global.set $free (i32.const 16384))
    (call $random (i64.const 4096) (i32.const 1216))
    (local.set $amount (i32.sub (local.get $amount) (i32.const 1)))
    (br $again)))))
