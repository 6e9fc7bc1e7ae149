;; Answers with a random number of the insecure kind, and of its seed.
(import "wasi:random/insecure@0.2.6" "get-insecure-random-u64" (func $random (result i64)))
(import "wasi:random/insecure-seed@0.2.6" "insecure-seed" (func $seed (param i32)))
(func $enrich (param i32)
  (call $seed (i32.const 1216))
  (call $saw (i64.xor (call $random) (i64.load (i32.const 1216)))))
