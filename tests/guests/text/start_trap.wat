;; Has a start function that traps.
(func $start unreachable)
(start $start)
(func $enrich (param i32))
