;; Answers with bytes that are no text.
(func $enrich (param $amount i32)
  (if (local.get $amount) (then
    (i32.store (i32.const 3000) (i32.const 0xff7b7d7b))
    (i32.store (i32.const 2308) (i32.const 3000))
    (i32.store (i32.const 2312) (i32.const 4)))))
