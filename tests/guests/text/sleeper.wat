;; Waits for as many seconds as it is asked to, and answers with the time that has passed, in nanoseconds.
(import "wasi:clocks/monotonic-clock@0.2.6" "now" (func $now (result i64)))
(import "wasi:clocks/monotonic-clock@0.2.6" "subscribe-duration" (func $subscribe (param i64) (result i32)))
(import "wasi:io/poll@0.2.6" "[method]pollable.block" (func $block (param i32)))
(func $enrich (param $seconds i32) (local $before i64)
  (local.set $before (call $now))
  (call $block (call $subscribe (i64.mul (i64.extend_i32_u (local.get $seconds)) (i64.const 1000000000))))
  (call $saw (i64.sub (call $now) (local.get $before))))
