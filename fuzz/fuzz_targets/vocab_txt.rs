//! Runs the target `vocab_txt` with libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    lambert_fuzz::vocab_txt(data);
});
