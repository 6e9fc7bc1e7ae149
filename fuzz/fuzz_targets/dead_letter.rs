//! libFuzzer on `dossier_fuzz::dead_letter`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| dossier_fuzz::dead_letter::run(data));
