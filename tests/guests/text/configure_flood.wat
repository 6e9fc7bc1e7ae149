;; Logs without end while it configures itself.
(import "dossier:plugin/log@1.0.0" "log" (func $log (param i32 i32 i32)))
(func $configure (loop $again (call $log (i32.const 1) (i32.const 1088) (i32.const 5)) (br $again)))
(func $enrich (param i32))
