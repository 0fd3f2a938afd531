//! Runs the target `parquet` with libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    lambert_fuzz::parquet(data);
});
