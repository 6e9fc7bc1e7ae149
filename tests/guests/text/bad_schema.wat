;; Declares a schema for its results that leads somewhere else.
(data (i32.const 1248) "{\22$ref\22:\22http://evil/\22}")
(data (i32.const 2076) "\01\00\00\00\e0\04\00\00\17\00\00\00")
(func $enrich (param i32))
