//! Fuzz targets: each function reads arbitrary bytes as one kind of file, as lambert does with a user's file, and returns whether
//! they were accepted. It must not panic, hang, or use memory out of proportion to the input.
//!
//! The programs in `fuzz_targets/` run them with libFuzzer, and `tests/it/fuzz.rs` with mutations of valid files.

use std::fs;
use std::path::Path;

use lambert::bert::Preset;
use lambert::checkpoint::{Contents, TensorFile};
use lambert::data::{
    LabelledTexts, Manifest, ReadOptions, Shard, Split, TextColumns, Tokenizer, Vocabulary, find_inputs, read_text,
};
use lambert::digest::seal;
use lambert::pjrt::Platform;
use lambert::plugins::wheels::unpack;
use lambert::run::Run;
use lambert::run::fine_tuning::FineTuningRun;
use tempfile::TempDir;

/// A target.
pub type Target = fn(&[u8]) -> bool;

/// All targets by name; `fuzz_targets/` has a program of each name.
pub const TARGETS: [(&str, Target); 11] = [
    ("safetensors", safetensors),
    ("tokenizer_json", tokenizer_json),
    ("vocab_txt", vocab_txt),
    ("run_file", run_file),
    ("shard", shard),
    ("manifest", manifest),
    ("wheel", wheel),
    ("wikitext", wikitext),
    ("wikimedia_dump", wikimedia_dump),
    ("jsonl", jsonl),
    ("parquet", parquet),
];

/// The text that an accepted tokenizer encodes.
const TEXT: &str = "The caf\u{e9} \u{4e2d}\u{6587} [MASK] sees 3\u{bd} bread-and-butter\u{200d}\u{1f600}.";

/// Reads a safetensors file with all its tensors.
pub fn safetensors(data: &[u8]) -> bool {
    with_file("model.safetensors", data, |path| {
        let Ok(mut file) = TensorFile::open(path) else { return false };
        let names: Vec<String> = file.names().map(str::to_owned).collect();
        names.iter().all(|name| file.describe(name).is_some() && file.read(name).is_ok())
    })
}

/// Reads a `tokenizer.json` and encodes a text.
pub fn tokenizer_json(data: &[u8]) -> bool {
    with_file("tokenizer.json", data, encodes)
}

/// Reads a `vocab.txt` and encodes a text.
pub fn vocab_txt(data: &[u8]) -> bool {
    with_file("vocab.txt", data, encodes)
}

fn encodes(path: &Path) -> bool {
    let Ok(tokenizer) = Tokenizer::open(path, false) else { return false };
    let mut ids = Vec::new();
    let encoded = tokenizer.encode(TEXT, &mut ids).is_ok();
    assert!(ids.iter().all(|&id| (id as usize) < tokenizer.vocabulary().len()), "an id is outside the vocabulary");
    encoded
}

/// Reads a run file of pretraining, for data of 8,192 tokens, and one of fine-tuning.
pub fn run_file(data: &[u8]) -> bool {
    let opened = with_file("run.toml", data, |path| {
        Run::open(path, &["phase.1.steps=3".to_owned()]).is_ok() || FineTuningRun::open(path, &[]).is_ok()
    });
    let Ok(text) = std::str::from_utf8(data) else { return opened };
    let origin = Path::new("run.toml");
    let Ok(run) = Run::from_checkpoint(origin, text, &Preset::Tiny.config(8192)) else {
        return opened | FineTuningRun::from_checkpoint(origin, text).is_ok();
    };
    let last = run.schedule.steps().saturating_sub(1);
    assert!([0, last].into_iter().all(|step| run.schedule.at(step).is_ok()), "a step of a valid run has no plan");
    run.settings();
    true
}

/// The vocabulary of the shards that [`shard`] accepts.
pub fn vocabulary() -> Vocabulary {
    let tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "##c"].map(str::to_owned);
    Vocabulary::new(tokens.into()).expect("the tokens are a vocabulary")
}

/// Reads a shard with all its documents.
pub fn shard(data: &[u8]) -> bool {
    with_file("train-00000.safetensors", data, |path| {
        let Ok(shard) = Shard::open(path, Split::Train, &vocabulary()) else { return false };
        let documents = 0..shard.counts().documents as usize;
        let complete = documents.into_iter().all(|document| {
            let starts = shard.starts_of(document);
            let read = starts.windows(2).all(|ends| shard.read_tokens(ends[0]..ends[1]).is_ok());
            read && shard.document_of(shard.sentences_of(document).start) == document
        });
        complete && shard.token_counts().iter().max().is_some()
    })
}

/// Reads a manifest of prepared data or of a checkpoint. A text whose first `sha256` is empty is sealed before, so that what it says
/// is read, too.
pub fn manifest(data: &[u8]) -> bool {
    let sealed = std::str::from_utf8(data).map_or_else(|_| data.to_vec(), |text| seal(text).into_bytes());
    let prepared = with_file("prepared.json", &sealed, |path| {
        let parsed = Manifest::parse(path, &sealed);
        parsed.is_ok_and(|manifest| manifest.to_text().is_ok())
    });
    // The files of the checkpoint do not exist: a manifest that is accepted misses them.
    let checkpoint = with_file("state.json", &sealed, |path| {
        let loaded = lambert::checkpoint::load(path.parent().expect("a file is in a directory"), Contents::All);
        loaded.is_err_and(|error| error.to_string().contains("missing, although"))
    });
    prepared || checkpoint
}

/// Unpacks a wheel with the CPU plugin.
pub fn wheel(data: &[u8]) -> bool {
    with_file("plugin.whl", data, |path| {
        let directory = path.with_file_name("unpacked");
        let unpacked = unpack(Platform::Cpu, path, &directory, &|_| ()).is_ok();
        let _ = fs::remove_dir_all(&directory);
        unpacked
    })
}

/// Reads a text as the article of a Wikimedia dump.
pub fn wikitext(data: &[u8]) -> bool {
    let escaped = String::from_utf8_lossy(data).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let page = format!(
        "<mediawiki xml:lang=\"en\"><page><title>T</title><ns>0</ns><id>1</id><revision><text>{escaped}</text></revision></page>\
         </mediawiki>"
    );
    wikimedia_dump(page.as_bytes())
}

/// Reads a Wikimedia dump.
pub fn wikimedia_dump(data: &[u8]) -> bool {
    with_file("dump.xml", data, is_read)
}

/// Reads JSON lines.
pub fn jsonl(data: &[u8]) -> bool {
    with_file("text.jsonl", data, is_read)
}

/// Reads a Parquet file, as labelled examples and as training text.
pub fn parquet(data: &[u8]) -> bool {
    with_file("text.parquet", data, |path| {
        let columns = TextColumns { label: None, ..TextColumns::default() };
        let labelled = LabelledTexts::read(path, &columns).is_ok();
        is_read(path) || labelled
    })
}

/// Reads a file as training text; it may yield in proportion to its size only, but for compression.
fn is_read(path: &Path) -> bool {
    let Ok(found) = find_inputs(&[path.to_owned()]) else { return false };
    read_text(&found.inputs, &ReadOptions::default(), &|_| (), &mut |_| true).is_ok()
}

/// Calls `read` with a file of these bytes, in a directory of this thread in memory.
fn with_file<T>(name: &str, data: &[u8], read: impl FnOnce(&Path) -> T) -> T {
    thread_local! {
        static DIRECTORY: TempDir = {
            let memory = Path::new("/dev/shm");
            let directory = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
            directory.expect("a temporary directory")
        };
    }
    DIRECTORY.with(|directory| {
        let path = directory.path().join(name);
        fs::write(&path, data).expect("the file is written");
        let result = read(&path);
        fs::remove_file(&path).expect("the file is removed");
        result
    })
}
