//! Measures the rate of `lambert prepare` from text to shards, including reading, splitting and writing. Compares it with
//! `encode_batch_fast` of the `tokenizers` crate in the same run: the same text, already in memory, and the same
//! threads.
//!
//! ```text
//! LAMBERT_BENCH_TEXT=corpus.txt LAMBERT_BENCH_VOCABULARY=vocab.txt cargo bench --bench tokens
//! ```
//!
//! Prints a line of JSON per measurement, the best of `LAMBERT_BENCH_ROUNDS` (3). `scripts/bench/data.py` formats a
//! table of them and adds Python measurements.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lambert::data::{
    Manifest, Preparation, PrepareOptions, PrepareOutcome, ReadOptions, TextBatch, TextEvent, Tokenizer, find_inputs,
    prepare, read_text,
};

fn setting(name: &str) -> PathBuf {
    let required = || panic!("{name} requires a file; see the documentation at the start of benches/tokens.rs");
    std::env::var_os(name).map(PathBuf::from).unwrap_or_else(required)
}

/// Prepares `text` into a new directory.
fn prepared(text: &Path, tokenizer: &Tokenizer, out: &Path) -> Manifest {
    let inputs = find_inputs(&[text.to_owned()]).expect("the text is there").inputs;
    let options = PrepareOptions::default();
    let preparation = Preparation { inputs: &inputs, tokenizer, options: &options, out, force: false };
    match prepare(&preparation, &|_, _| ()).expect("the text is long enough") {
        PrepareOutcome::Prepared(manifest) | PrepareOutcome::UpToDate(manifest) => manifest,
    }
}

fn main() {
    let text = setting("LAMBERT_BENCH_TEXT");
    let tokenizer = Tokenizer::open(&setting("LAMBERT_BENCH_VOCABULARY"), false).expect("a BERT vocabulary");
    let rounds = std::env::var("LAMBERT_BENCH_ROUNDS").map_or(3, |rounds| rounds.parse().expect("a number"));
    let reference = tokenizers::Tokenizer::from_bytes(&tokenizer.files()[0].1).expect("our own file");
    let megabytes = std::fs::metadata(&text).expect("the text is there").len() as f64 / 1e6;
    let mut lines = Vec::new();
    let mut sink = |batch: TextBatch| {
        lines.extend(batch.events.iter().filter_map(|piece| match piece {
            TextEvent::Line(range) => Some(batch.text[range.clone()].to_owned()),
            TextEvent::DocumentEnd => None,
        }));
        true
    };
    let inputs = find_inputs(std::slice::from_ref(&text)).expect("the text is there").inputs;
    read_text(&inputs, &ReadOptions::default(), &|_| (), &mut sink).expect("the text can be read");

    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut counts = vec![1];
    while counts[counts.len() - 1] * 2 <= cores {
        counts.push(counts[counts.len() - 1] * 2);
    }
    for threads in counts {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        let (mut ours, mut theirs) = (Duration::MAX, Duration::MAX);
        let (mut documents, mut tokens) = (0, 0);
        // Alternating, so that a busy machine affects both.
        for _ in 0..rounds {
            let directory = tempfile::tempdir().expect("a temporary directory");
            let started = Instant::now();
            let manifest = pool.install(|| prepared(&text, &tokenizer, &directory.path().join("out")));
            ours = ours.min(started.elapsed());
            documents = manifest.train.documents + manifest.held_out.documents;
            tokens = manifest.train.tokens + manifest.held_out.tokens;

            let mut found = 0;
            let started = Instant::now();
            pool.install(|| {
                for lines in lines.chunks(8192) {
                    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
                    let encodings = reference.encode_batch_fast(lines, false).expect("text can be tokenized");
                    found += encodings.iter().map(|encoding| encoding.len() as u64).sum::<u64>();
                }
            });
            theirs = theirs.min(started.elapsed());
            assert_eq!(found, tokens, "both produce the same tokens");
        }
        for (name, time) in [("tokenizers crate, encode_batch_fast", theirs), ("lambert prepare", ours)] {
            let seconds = time.as_secs_f64();
            println!(
                r#"{{"name": "{name}", "threads": {threads}, "seconds": {seconds:.3}, "documents": {documents}, "tokens": {tokens}, "megabytes": {megabytes:.2}}}"#
            );
        }
    }
}
