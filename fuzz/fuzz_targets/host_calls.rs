//! libFuzzer on `dossier_fuzz::host_calls`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| dossier_fuzz::host_calls::run(data));
