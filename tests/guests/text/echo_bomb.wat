;; Answers with as many observables as it is asked to, all of them at the same 4 KiB: little memory there, much here.
(func $enrich (param $amount i32) (local $at i32)
  (if (local.get $amount) (then
    (if (i32.eq (memory.grow (i32.const 100)) (i32.const -1)) (then unreachable))
    (memory.fill (i32.const 32768) (i32.const 120) (i32.const 4096))
    (i32.store (i32.const 2316) (i32.const 65536))
    (i32.store (i32.const 2320) (local.get $amount))
    (local.set $at (i32.const 65536))
    (loop $again (if (local.get $amount) (then
      (i32.store offset=0 (local.get $at) (i32.const 32768))
      (i32.store offset=4 (local.get $at) (i32.const 2))
      (i32.store offset=8 (local.get $at) (i32.const 32768))
      (i32.store offset=12 (local.get $at) (i32.const 2))
      (i32.store offset=16 (local.get $at) (i32.const 32768))
      (i32.store offset=20 (local.get $at) (i32.const 4096))
      (local.set $at (i32.add (local.get $at) (i32.const 24)))
      (local.set $amount (i32.sub (local.get $amount) (i32.const 1)))
      (br $again)))))))
