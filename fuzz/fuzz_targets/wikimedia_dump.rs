//! Runs the target `wikimedia_dump` with libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    lambert_fuzz::wikimedia_dump(data);
});
