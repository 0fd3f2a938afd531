//! Runs the target `tokenizer_json` with libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    lambert_fuzz::tokenizer_json(data);
});
