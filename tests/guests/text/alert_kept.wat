;; Uses a handle that it never had, as one does that keeps an alert's from an earlier call.
(func $enrich (param $handle i32)
  (if (local.get $handle) (then (call $text (local.get $handle) (i32.const 1152) (i32.const 7) (i32.const 1216)))))
