//! How fast tokens become batches. The text is random words, or, for numbers worth quoting, the files of
//! `LAMBERT_BENCH_TEXT`. How fast text becomes tokens, `tokens.rs` measures.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use lambert::data::{
    ExampleConfig, Examples, Preparation, PrepareOptions, Prepared, Split, Tokenizer, VocabularyOptions, WordRules,
    find_inputs, prepare, train_vocabulary,
};
use lambert::rng::Key;

/// Documents of random words, some of which are frequent.
fn random_text(path: &Path) {
    let mut stream = Key::new(1).stream();
    let words: Vec<String> = (0..20_000)
        .map(|_| (0..stream.between(2, 9)).map(|_| (b'a' + stream.below(26) as u8) as char).collect())
        .collect();
    let mut text = String::new();
    for _ in 0..2000 {
        for _ in 0..stream.between(3, 40) {
            for _ in 0..stream.between(4, 30) {
                let rank = (words.len() as f64).powf(stream.uniform()) as usize;
                text += &words[rank.min(words.len() - 1)];
                text.push(' ');
            }
            text += "End. ";
        }
        text += "\n\n";
    }
    std::fs::write(path, text).expect("a temporary directory takes files");
}

fn data(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let text = match std::env::var_os("LAMBERT_BENCH_TEXT") {
        Some(path) => PathBuf::from(path),
        None => {
            random_text(&directory.path().join("text.txt"));
            directory.path().join("text.txt")
        }
    };
    let inputs = find_inputs(&[text]).expect("the text is there");
    let vocabulary = train_vocabulary(&inputs, &VocabularyOptions::new(30_522, true), &|_| ()).expect("a vocabulary");
    let tokenizer = Tokenizer::new(vocabulary, WordRules { lowercase: true });
    let options = PrepareOptions::default();
    let out = directory.path().join("prepared");
    let preparation = Preparation { inputs: &inputs, tokenizer: &tokenizer, options: &options, out: &out, force: true };
    prepare(&preparation, &|_, _| ()).expect("the text is long enough");
    let prepared = Arc::new(Prepared::open(&out).expect("it was just made"));
    let mut group = criterion.benchmark_group("sequences");
    let rows = 4096;
    group.sample_size(10).throughput(Throughput::Elements(rows as u64));
    for (length, predictions) in [(128, 20), (512, 80)] {
        let config = ExampleConfig::bert(length, predictions);
        let examples = Examples::new(prepared.clone(), Split::Train, config).expect("there are documents");
        let mut first = 0;
        group.bench_function(format!("batch of {length}"), |bench| {
            bench.iter(|| {
                first += rows as u64;
                examples.batch(first, rows).expect("the shards are there")
            })
        });
    }
}

criterion_group!(benches, data);
criterion_main!(benches);
