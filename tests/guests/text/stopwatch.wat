;; Counts how often it can look at a timer of a millisecond before that is over: a clock, if waiting takes real time.
(import "wasi:clocks/monotonic-clock@0.2.6" "now" (func $now (result i64)))
(import "wasi:clocks/monotonic-clock@0.2.6" "subscribe-duration" (func $subscribe (param i64) (result i32)))
(import "wasi:io/poll@0.2.6" "[method]pollable.ready" (func $ready (param i32) (result i32)))
(func $enrich (param i32) (local $timer i32) (local $count i64)
  (local.set $timer (call $subscribe (i64.const 1000000)))
  (loop $again
    (local.set $count (i64.add (local.get $count) (i64.const 1)))
    (br_if $again (i32.eqz (call $ready (local.get $timer)))))
  (call $saw (i64.add (i64.mul (local.get $count) (i64.const 1000000000)) (call $now))))
