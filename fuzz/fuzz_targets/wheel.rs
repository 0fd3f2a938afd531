//! Runs the target `wheel` with libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    lambert_fuzz::wheel(data);
});
