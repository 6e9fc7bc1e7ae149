;; Imports a table look-up, which an operator has to grant.
(import "dossier:plugin/tables@1.0.0" "lookup" (func $lookup (param i32 i32 i32 i32 i32)))
(func $enrich (param i32))
