;; Opens its standard output while it configures itself, and writes to it when it is called.
(import "wasi:cli/stdout@0.2.6" "get-stdout" (func $get_stdout (result i32)))
(import "wasi:io/streams@0.2.6" "[method]output-stream.blocking-write-and-flush" (func $write (param i32 i32 i32 i32)))
(global $stdout (mut i32) (i32.const 0))
(func $configure (global.set $stdout (call $get_stdout)))
(func $enrich (param i32) (call $write (global.get $stdout) (i32.const 1088) (i32.const 5) (i32.const 1216)))
