;; A guest that does what the alert's "/program" says, in hexadecimal digits: calls the host with whatever pointers, lengths and handles
;; stand there. Texts are parts of the program itself, so they hold any bytes.
;;
;; A place is a byte, an offset into the program, or 255 and four bytes, any address; a length is a byte, or 255 and four bytes.
(module
  (import "dossier:plugin/types@1.0.0" "[resource-drop]alert" (func $drop (param i32)))
  (import "dossier:plugin/types@1.0.0" "[method]alert.id" (func $id (param i32 i32)))
  (import "dossier:plugin/types@1.0.0" "[method]alert.received" (func $received (param i32) (result i64)))
  (import "dossier:plugin/types@1.0.0" "[method]alert.json" (func $json (param i32 i32)))
  (import "dossier:plugin/types@1.0.0" "[method]alert.get" (func $get (param i32 i32 i32 i32)))
  (import "dossier:plugin/types@1.0.0" "[method]alert.text" (func $text (param i32 i32 i32 i32)))
  (import "dossier:plugin/types@1.0.0" "[method]alert.steps" (func $steps (param i32 i32)))
  (import "dossier:plugin/types@1.0.0" "[method]alert.enrichment" (func $enrichment (param i32 i32 i32 i32 i32 i32)))
  (import "dossier:plugin/types@1.0.0" "[method]alert.enrichment-text"
    (func $enrichment_text (param i32 i32 i32 i32 i32 i32)))
  (import "dossier:plugin/types@1.0.0" "[method]alert.observables" (func $observables (param i32 i32 i32 i32 i32)))
  (import "dossier:plugin/tables@1.0.0" "lookup" (func $lookup (param i32 i32 i32 i32 i32)))
  (import "dossier:plugin/tables@1.0.0" "text" (func $row_text (param i32 i32 i32 i32 i32 i32 i32)))
  (import "dossier:plugin/http@1.0.0" "send"
    (func $send (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)))
  (import "dossier:plugin/http@1.0.0" "send-all" (func $send_all (param i32 i32 i32)))
  (import "dossier:plugin/log@1.0.0" "log" (func $log (param i32 i32 i32)))
  (memory (export "memory") 3 8)
  (global $free (mut i32) (i32.const 131072))
  (global $at (mut i32) (i32.const 65536))
  (global $end (mut i32) (i32.const 65536))
  (global $alert (mut i32) (i32.const 0))
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (global.set $free (i32.and (i32.add (global.get $free) (i32.const 7)) (i32.const -8)))
    (global.get $free)
    (global.set $free (i32.add (global.get $free) (local.get 3))))

  (data (i32.const 1024) "caller")
  (data (i32.const 1056) "1.0.0")
  (data (i32.const 1088) "calls")
  (data (i32.const 1120) "{}")
  (data (i32.const 1152) "/program")
  (data (i32.const 2048) "\00\04\00\00\06\00\00\00\20\04\00\00\05\00\00\00\40\04\00\00\05\00\00\00\01")
  (data (i32.const 2304) "\00\00\00\00\60\04\00\00\02\00\00\00")

  (func $digit (param $byte i32) (result i32)
    (select
      (i32.sub (local.get $byte) (i32.const 48))
      (i32.sub (local.get $byte) (i32.const 87))
      (i32.lt_u (local.get $byte) (i32.const 58))))

  (func $byte (result i32)
    (if (i32.ge_u (global.get $at) (global.get $end)) (then (return (i32.const 0))))
    (i32.load8_u (global.get $at))
    (global.set $at (i32.add (global.get $at) (i32.const 1))))

  (func $word (result i32)
    (i32.or
      (i32.or (call $byte) (i32.shl (call $byte) (i32.const 8)))
      (i32.or (i32.shl (call $byte) (i32.const 16)) (i32.shl (call $byte) (i32.const 24)))))

  (func $place (result i32) (local $offset i32)
    (local.set $offset (call $byte))
    (if (result i32) (i32.eq (local.get $offset) (i32.const 255))
      (then (call $word))
      (else (i32.add (local.get $offset) (i32.const 65536)))))

  (func $length (result i32) (local $length i32)
    (local.set $length (call $byte))
    (if (result i32) (i32.eq (local.get $length) (i32.const 255))
      (then (call $word))
      (else (local.get $length))))

  (func $handle (result i32) (local $handle i32)
    (local.set $handle (call $byte))
    (if (result i32) (i32.eq (local.get $handle) (i32.const 255))
      (then (call $word))
      (else (global.get $alert))))

  (func (export "dossier:plugin/enricher@1.0.0#describe") (result i32) (i32.const 2048))
  (func (export "dossier:plugin/enricher@1.0.0#configure") (param i32 i32) (result i32) (i32.const 2176))
  (func (export "dossier:plugin/enricher@1.0.0#enrich") (param $given i32) (result i32)
    (local $from i32) (local $last i32) (local $op i32)
    (global.set $alert (local.get $given))
    (call $text (local.get $given) (i32.const 1152) (i32.const 8) (i32.const 4096))
    (local.set $from (i32.load (i32.const 4100)))
    (local.set $last (i32.add (local.get $from) (i32.load (i32.const 4104))))
    (block $decoded (loop $next
      (br_if $decoded (i32.ge_u (local.get $from) (local.get $last)))
      (i32.store8 (global.get $end) (i32.or
        (i32.shl (call $digit (i32.load8_u (local.get $from))) (i32.const 4))
        (call $digit (i32.load8_u offset=1 (local.get $from)))))
      (global.set $end (i32.add (global.get $end) (i32.const 1)))
      (local.set $from (i32.add (local.get $from) (i32.const 2)))
      (br $next)))
    (block $over (loop $next
      (br_if $over (i32.ge_u (global.get $at) (global.get $end)))
      (local.set $op (i32.and (call $byte) (i32.const 15)))
      (if (i32.eq (local.get $op) (i32.const 0)) (then
        (call $get (call $handle) (call $place) (call $length) (i32.const 4096))))
      (if (i32.eq (local.get $op) (i32.const 1)) (then
        (call $text (call $handle) (call $place) (call $length) (i32.const 4096))))
      (if (i32.eq (local.get $op) (i32.const 2)) (then (call $id (call $handle) (i32.const 4096))))
      (if (i32.eq (local.get $op) (i32.const 3)) (then (call $json (call $handle) (i32.const 4096))))
      (if (i32.eq (local.get $op) (i32.const 4)) (then (drop (call $received (call $handle)))))
      (if (i32.eq (local.get $op) (i32.const 5)) (then (call $steps (call $handle) (i32.const 4096))))
      (if (i32.eq (local.get $op) (i32.const 6)) (then
        (call $enrichment (call $handle) (call $place) (call $length) (call $place) (call $length) (i32.const 4096))))
      (if (i32.eq (local.get $op) (i32.const 7)) (then
        (call $enrichment_text
          (call $handle) (call $place) (call $length) (call $place) (call $length) (i32.const 4096))))
      (if (i32.eq (local.get $op) (i32.const 8)) (then
        (call $observables (call $handle) (call $byte) (call $place) (call $length) (i32.const 4096))))
      (if (i32.eq (local.get $op) (i32.const 9)) (then
        (call $lookup (call $place) (call $length) (call $place) (call $length) (i32.const 4096))))
      (if (i32.eq (local.get $op) (i32.const 10)) (then
        (call $row_text
          (call $place) (call $length) (call $place) (call $length) (call $place) (call $length) (i32.const 4096))))
      (if (i32.eq (local.get $op) (i32.const 11)) (then (call $log (call $byte) (call $place) (call $length))))
      (if (i32.eq (local.get $op) (i32.const 12)) (then
        (call $send
          (call $place) (call $length) (call $place) (call $length) (call $place) (call $length)
          (call $byte) (call $place) (call $length) (call $byte) (call $word) (i32.const 4096))))
      (if (i32.eq (local.get $op) (i32.const 13)) (then
        (call $send_all (call $place) (call $length) (i32.const 4096))))
      (if (i32.eq (local.get $op) (i32.const 14)) (then (call $drop (call $handle))))
      ;; The answer as it stands in the program, or anywhere.
      (if (i32.eq (local.get $op) (i32.const 15)) (then (return (i32.and (call $place) (i32.const -4)))))
      (br $next)))
    (call $drop (local.get $given))
    (i32.const 2304)))
