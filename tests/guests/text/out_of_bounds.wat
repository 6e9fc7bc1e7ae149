;; Answers with a text that lies outside of its memory.
(func $enrich (param $amount i32)
  (if (local.get $amount) (then (i32.store (i32.const 2308) (i32.const -16)))))
