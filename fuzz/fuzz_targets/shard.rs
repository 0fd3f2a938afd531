//! Runs the target `shard` with libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    lambert_fuzz::shard(data);
});
