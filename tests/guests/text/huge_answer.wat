;; Answers with a text of as many KiB as it is asked to: of spaces, and of memory that it never touched.
(func $enrich (param $kib i32)
  (if (local.get $kib) (then
    (if (i32.eq (memory.grow (i32.shr_u (local.get $kib) (i32.const 6))) (i32.const -1)) (then unreachable))
    ;; An object at its beginning, so that a short one is a good answer.
    (i64.store (i32.const 65536) (i64.const 0x2020202020207d7b))
    (memory.fill (i32.const 65544) (i32.const 32) (i32.const 65528))
    (i32.store (i32.const 2308) (i32.const 65536))
    (i32.store (i32.const 2312) (i32.shl (local.get $kib) (i32.const 10))))))
