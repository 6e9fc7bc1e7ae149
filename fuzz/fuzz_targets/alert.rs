//! libFuzzer on `dossier_fuzz::alert`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| dossier_fuzz::alert::run(data));
