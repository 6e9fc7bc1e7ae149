;; Prints as many lines as it is asked to.
(import "wasi:cli/stderr@0.2.6" "get-stderr" (func $get_stderr (result i32)))
(import "wasi:io/streams@0.2.6" "[method]output-stream.blocking-write-and-flush" (func $write (param i32 i32 i32 i32)))
(data (i32.const 1280) "a line of 32 bytes, with its end\n")
(func $enrich (param $amount i32) (local $stderr i32)
  (local.set $stderr (call $get_stderr))
  (loop $again (if (local.get $amount) (then
    (call $write (local.get $stderr) (i32.const 1280) (i32.const 33) (i32.const 1216))
    (local.set $amount (i32.sub (local.get $amount) (i32.const 1)))
    (br $again)))))
