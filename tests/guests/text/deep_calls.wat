;; Calls itself as deep as it is asked to, and needs no memory for that.
(func $deeper (param $left i32) (result i32)
  (if (result i32) (local.get $left)
    (then (i32.add (call $deeper (i32.sub (local.get $left) (i32.const 1))) (i32.const 1)))
    (else (i32.const 0))))
(func $enrich (param $amount i32) (call $saw (i64.extend_i32_u (call $deeper (local.get $amount)))))
