;; Has a start function that never ends.
(func $start (loop $again (br $again)))
(start $start)
(func $enrich (param i32))
