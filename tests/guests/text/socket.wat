;; Asks for a TCP socket, a UDP socket and a name, and answers with the three refusals as digits: 1 and the error's number.
(import "wasi:sockets/tcp-create-socket@0.2.6" "create-tcp-socket" (func $tcp (param i32 i32)))
(import "wasi:sockets/udp-create-socket@0.2.6" "create-udp-socket" (func $udp (param i32 i32)))
(import "wasi:sockets/instance-network@0.2.6" "instance-network" (func $network (result i32)))
(import "wasi:sockets/ip-name-lookup@0.2.6" "resolve-addresses" (func $resolve (param i32 i32 i32 i32)))
(data (i32.const 1280) "127.0.0.1")
;; The result at an address as a number of three digits: 0, or 100 and the error's number.
(func $refusal (param $at i32) (result i64)
  (i64.add
    (i64.mul (i64.extend_i32_u (i32.load8_u (local.get $at))) (i64.const 100))
    (i64.extend_i32_u (i32.load8_u offset=4 (local.get $at)))))
(func $enrich (param i32)
  (call $tcp (i32.const 0) (i32.const 1216))
  (call $udp (i32.const 0) (i32.const 1232))
  (call $resolve (call $network) (i32.const 1280) (i32.const 9) (i32.const 1248))
  (call $saw (i64.add
    (i64.mul (call $refusal (i32.const 1216)) (i64.const 1000000))
    (i64.add
      (i64.mul (call $refusal (i32.const 1232)) (i64.const 1000))
      (call $refusal (i32.const 1248))))))
