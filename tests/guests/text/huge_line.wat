;; Logs a line of as many KiB as it is asked to: a text that the host copies before it can cut it.
(import "dossier:plugin/log@1.0.0" "log" (func $log (param i32 i32 i32)))
(func $enrich (param $kib i32)
  (if (local.get $kib) (then
    (if (i32.eq (memory.grow (i32.shr_u (local.get $kib) (i32.const 6))) (i32.const -1)) (then unreachable))
    (call $log (i32.const 1) (i32.const 65536) (i32.shl (local.get $kib) (i32.const 10))))))
