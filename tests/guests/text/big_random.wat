;; Asks for as many random bytes at once as it is asked to.
(import "wasi:random/random@0.2.6" "get-random-bytes" (func $random (param i64 i32)))
(func $enrich (param $amount i32)
  (if (local.get $amount) (then (call $random (i64.extend_i32_u (local.get $amount)) (i32.const 1216)))))
