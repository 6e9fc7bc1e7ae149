;; Grows a table by as many elements as it is asked to, and traps when it may not.
(table $table 1 funcref)
(func $enrich (param $amount i32)
  (if (i32.eq (table.grow $table (ref.null func) (local.get $amount)) (i32.const -1)) (then unreachable)))
