//! Measures the rate of building batches from tokens, by sequence length, kind of example and masking; and the time to build
//! the table of an epoch. The text is random words in documents of encyclopedic lengths, or the files of
//! `LAMBERT_BENCH_TEXT`. For a rate per core, set RAYON_NUM_THREADS=1. `tokens.rs` measures
//! tokenization.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use lambert::data::{Dataset, ExampleConfig, ExampleMode, PreparedData, SpanMask, Split};
use lambert::rng::Key;

const ROWS: usize = 4096;

/// Documents of 3 to 40 sentences of 6 to 47 words. Each sentence begins with a capital letter, or it would continue
/// the previous one.
fn random_text(path: &Path) {
    let mut stream = Key::new(1).stream();
    let words: Vec<String> = (0..20_000)
        .map(|_| (0..stream.between(2, 9)).map(|_| (b'a' + stream.below(26) as u8) as char).collect())
        .collect();
    let mut text = String::new();
    for _ in 0..8000 {
        for _ in 0..stream.between(3, 40) {
            text += "The ";
            for _ in 0..stream.between(4, 45) {
                let rank = (words.len() as f64).powf(stream.uniform()) as usize;
                text += &words[rank.min(words.len() - 1)];
                text.push(' ');
            }
            text += "end. ";
        }
        text += "\n\n";
    }
    std::fs::write(path, text).expect("a temporary directory is writable");
}

/// Runs the command-line program.
fn lambert(verb: &[&str], options: &[(&str, &Path)], text: &Path) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lambert"));
    command.args(verb).arg(text);
    for (option, path) in options {
        command.arg(option).arg(path);
    }
    let output = command.output().expect("the program starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn batches(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let text = match std::env::var_os("LAMBERT_BENCH_TEXT") {
        Some(path) => PathBuf::from(path),
        None => {
            let path = directory.path().join("text.txt");
            random_text(&path);
            path
        }
    };
    let (tokenizer, out) = (directory.path().join("tokenizer"), directory.path().join("prepared"));
    lambert(&["tokenizer", "train", "--vocab-size", "30522"], &[("--out", &tokenizer)], &text);
    lambert(&["prepare"], &[("--tokenizer", &tokenizer), ("--out", &out)], &text);
    let prepared = Arc::new(PreparedData::open(&out).expect("it was just made"));

    let mut group = criterion.benchmark_group("sequences");
    group.sample_size(10).throughput(Throughput::Elements(ROWS as u64));
    for (length, predictions) in [(128, 20), (512, 80)] {
        let tokens = ExampleConfig::bert(length, predictions);
        let words = ExampleConfig { whole_word_mask: true, ..tokens.clone() };
        let spans = ExampleConfig { span_mask: Some(SpanMask::default()), ..tokens.clone() };
        let order = ExampleConfig { mode: ExampleMode::SentenceOrder, ..tokens.clone() };
        let single = ExampleConfig { mode: ExampleMode::FullSentences, ..tokens.clone() };
        for (name, config) in [
            ("nsp, tokens masked", tokens),
            ("nsp, whole words masked", words),
            ("nsp, spans masked", spans),
            ("sop, tokens masked", order),
            ("full sentences, tokens masked", single),
        ] {
            let examples = Dataset::new(prepared.clone(), Split::Train, config).expect("there are documents");
            let mut first = 0;
            group.bench_function(format!("{length}: {name}"), |bench| {
                bench.iter(|| {
                    first += ROWS as u64;
                    examples.batch(first, ROWS).expect("the shards are there")
                });
            });
        }
    }
    group.finish();

    let mut group = criterion.benchmark_group("sentences");
    group.sample_size(10).throughput(Throughput::Elements(prepared.manifest().train.sentences));
    let config = ExampleConfig::bert(128, 20);
    group.bench_function("table of an epoch", |bench| {
        bench.iter(|| Dataset::new(prepared.clone(), Split::Train, config.clone()).expect("there are documents"));
    });
    // Counts all chunkings and builds the table of one.
    group.bench_function("start at step 10⁹ of batches of 65,536", |bench| {
        bench.iter(|| {
            let examples = Dataset::new(prepared.clone(), Split::Train, config.clone()).expect("there are documents");
            examples.window(1_000_000_000 * 65_536, 1).length(0)
        });
    });
    group.finish();
}

criterion_group!(benches, batches);
criterion_main!(benches);
