;; Takes a random number to configure itself and answers with the next; holds a handle, so that it cannot be copied.
(import "wasi:random/random@0.2.6" "get-random-u64" (func $random (result i64)))
(import "wasi:cli/stdout@0.2.6" "get-stdout" (func $get_stdout (result i32)))
(func $configure (drop (call $random)) (drop (call $get_stdout)))
(func $enrich (param i32) (call $saw (call $random)))
