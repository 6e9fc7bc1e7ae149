;; What a guest written as text stands in: what the contract wants, so that the guest itself says only what it does wrong.
;;
;; Put together by dossier_tests::guest, which puts in the name of the guest, its length as a byte, and its text. The guest may
;; define $configure, and must define $enrich, which is called with the number at "/amount" of the alert, 0 where there is none.
;; The answer is {} unless the guest calls $saw with a number, or writes another place and length to 2308 and 2312.
(module
  (import "dossier:plugin/types@1.0.0" "[resource-drop]alert" (func $drop (param i32)))
  (import "dossier:plugin/types@1.0.0" "[method]alert.text" (func $text (param i32 i32 i32 i32)))
  GUEST
  (memory (export "memory") 1)
  (global $free (mut i32) (i32.const 16384))
  (func $realloc (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (global.set $free (i32.and (i32.add (global.get $free) (i32.const 7)) (i32.const -8)))
    (global.get $free)
    (global.set $free (i32.add (global.get $free) (local.get 3))))

  (data (i32.const 1024) "NAME")
  (data (i32.const 1088) "1.0.0")
  (data (i32.const 1104) "misbehaves")
  (data (i32.const 1136) "{}")
  (data (i32.const 1152) "/amount")
  ;; A description: name, version, summary, stage 1, no schema.
  (data (i32.const 2048) "\00\04\00\00LENGTH\00\00\00\40\04\00\00\05\00\00\00\50\04\00\00\0a\00\00\00\01")
  ;; An answer: fields, no observables, no verdict.
  (data (i32.const 2304) "\00\00\00\00\70\04\00\00\02\00\00\00")

  ;; The number at "/amount".
  (func $amount (param $alert i32) (result i32) (local $at i32) (local $end i32) (local $number i32)
    (call $text (local.get $alert) (i32.const 1152) (i32.const 7) (i32.const 1216))
    (if (i32.load8_u (i32.const 1216)) (then
      (local.set $at (i32.load (i32.const 1220)))
      (local.set $end (i32.add (local.get $at) (i32.load (i32.const 1224))))
      (loop $digit (if (i32.lt_u (local.get $at) (local.get $end)) (then
        (local.set $number (i32.add
          (i32.mul (local.get $number) (i32.const 10))
          (i32.sub (i32.load8_u (local.get $at)) (i32.const 48))))
        (local.set $at (i32.add (local.get $at) (i32.const 1)))
        (br $digit))))))
    (local.get $number))

  ;; Answers with {"saw":NUMBER}.
  (func $saw (param $number i64) (local $at i32)
    (local.set $at (i32.const 3072))
    (i32.store8 (local.get $at) (i32.const 125))
    (loop $digit
      (local.set $at (i32.sub (local.get $at) (i32.const 1)))
      (i32.store8 (local.get $at) (i32.add (i32.wrap_i64 (i64.rem_u (local.get $number) (i64.const 10))) (i32.const 48)))
      (local.set $number (i64.div_u (local.get $number) (i64.const 10)))
      (br_if $digit (i64.ne (local.get $number) (i64.const 0))))
    (local.set $at (i32.sub (local.get $at) (i32.const 7)))
    ;; {"saw": as little-endian bytes.
    (i64.store (local.get $at) (i64.or
      (i64.const 0x003a22776173227b)
      (i64.shl (i64.extend_i32_u (i32.load8_u offset=7 (local.get $at))) (i64.const 56))))
    (i32.store (i32.const 2308) (local.get $at))
    (i32.store (i32.const 2312) (i32.sub (i32.const 3073) (local.get $at))))

  (func (export "dossier:plugin/enricher@1.0.0#describe") (result i32) (i32.const 2048))
  (func (export "dossier:plugin/enricher@1.0.0#configure") (param i32 i32) (result i32)
    (call $configure)
    (i32.const 2176))
  (func (export "dossier:plugin/enricher@1.0.0#enrich") (param $alert i32) (result i32) (local $amount i32)
    (local.set $amount (call $amount (local.get $alert)))
    (call $drop (local.get $alert))
    (call $enrich (local.get $amount))
    (i32.const 2304)))
