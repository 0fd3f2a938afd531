//! Readers of users' files on mutations of valid files: no panic, no hang, bounded memory. `LAMBERT_FUZZ_EXECUTIONS` is the
//! number of executions of each target (a few hundred without it), and `LAMBERT_FUZZ_SEED` selects other ones.

use std::collections::BTreeMap;
use std::io::{Cursor, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use ::parquet::basic::{Compression, Encoding};
use ::parquet::data_type::{ByteArray, ByteArrayType};
use ::parquet::file::properties::WriterProperties;
use ::parquet::file::writer::SerializedFileWriter;
use ::parquet::schema::parser::parse_message_type;
use lambert::checkpoint::write_tensors;
use lambert::data::{SHARD_FORMAT, ShardBuilder, ShardHeader, Split, Tokenizer, WordRules};
use lambert::pjrt::Platform;
use lambert::rng::Key;
use lambert::shape::{DType, HostTensor, Shape};

use crate::common::Workshop;
use crate::common::labelled::LabelledFiles;

mod mutations;
#[path = "../../fuzz/src/lib.rs"]
mod targets;

use mutations::{mutated, structure_of};
use targets::TARGETS;

/// Executions of each target without `LAMBERT_FUZZ_EXECUTIONS`.
const EXECUTIONS: u64 = 300;
/// An execution that takes longer counts as a hang; most take less than a millisecond.
const LONGEST: Duration = Duration::from_secs(10);
/// The least share of the inputs of a target that it accepts.
const LEAST_ACCEPTED: f64 = 0.1;
/// The most resident memory of a process that runs these tests only, in bytes.
const MEMORY: u64 = 1 << 30;
fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name} requires a number")))
}

/// Returns valid inputs of a target.
fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let read = |name: &str| std::fs::read(path(name)).unwrap();
    match target {
        "safetensors" => {
            let tensor = |dtype, dims: &[usize]| HostTensor::zeros(Shape::new(dtype, dims.to_vec()));
            let (a, b) = (tensor(DType::F32, &[3, 2]), tensor(DType::U16, &[5]));
            write_tensors(&path("a"), &[("bert.embeddings.weight", &a), ("b", &b)]).unwrap();
            write_tensors(&path("b"), &[]).unwrap();
            vec![read("a"), read("b")]
        }
        "tokenizer_json" => {
            let workshop = Workshop::new();
            let trained = |model: &str| {
                let size = if model == "bpe" { "270" } else { "60" };
                let train = ["tokenizer", "train", "text.txt", "--model", model, "--vocab-size", size, "--out", model];
                workshop.succeed(&train);
                std::fs::read(workshop.path(model).join("tokenizer.json")).unwrap()
            };
            vec![tokenizer_file("tokenizer.json"), trained("bpe"), trained("unigram")]
        }
        "vocab_txt" => {
            vec![tokenizer_file("vocab.txt"), b"[PAD]\r\n[UNK]\r\n[CLS]\r\n[SEP]\r\n[MASK]\r\na\r\n".to_vec()]
        }
        "run_file" => {
            let runs = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/runs");
            let entries =
                [runs.join("fine-tuning"), runs].into_iter().flat_map(|runs| std::fs::read_dir(runs).unwrap());
            let files = entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
            files.map(|path| std::fs::read(path).unwrap()).collect()
        }
        "shard" => {
            let vocabulary = targets::vocabulary();
            let mut builder = ShardBuilder::new(&vocabulary);
            for document in 1..4 {
                (0..document).for_each(|sentence| builder.push_sentence(&[5, 6, 7][..=sentence]));
                builder.end_document();
            }
            let header = ShardHeader {
                format: SHARD_FORMAT,
                split: Split::Train,
                vocabulary_sha256: vocabulary.sha256().to_owned(),
                vocabulary_size: vocabulary.len(),
                counts: builder.counts(),
                sources: BTreeMap::new(),
            };
            builder.write(&path("shard"), &header).unwrap();
            vec![read("shard")]
        }
        "manifest" => {
            let (workshop, files) = (Workshop::new(), LabelledFiles::new());
            let run = std::fs::read_dir(files.path("model")).unwrap().map(|entry| entry.unwrap().path());
            let state = run.map(|path| path.join("state.json")).find(|path| path.is_file()).unwrap();
            let texts = [workshop.path("data/prepared.json"), state].map(|path| std::fs::read_to_string(path).unwrap());
            texts.map(|text| unsealed(&text).into_bytes()).into()
        }
        "wheel" => {
            let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
            for name in [Platform::Cpu.plugin_paths()[0], "tiny/more.py"] {
                zip.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
                zip.write_all(&b"some content ".repeat(20)).unwrap();
            }
            vec![zip.finish().unwrap().into_inner()]
        }
        "wikitext" => vec![ARTICLE.into()],
        "wikimedia_dump" => vec![DUMP.into()],
        "jsonl" => {
            vec!["{\"text\": \"One. Two.\\n\\u00e9\", \"id\": [1, {\"a\": null}]}\n\n{\"text\": \" \"}\n".into()]
        }
        "parquet" => {
            let texts = ["One. Two.", "Three."].map(|text| Some(text.to_owned()));
            let file = |encoding| [false, true].map(|is_compressed| parquet_file(is_compressed, encoding, &texts));
            STRING_ENCODINGS.into_iter().flat_map(file).collect()
        }
        other => panic!("{other} has no inputs"),
    }
}

const ARTICLE: &str = "'''Amber''' is a [[stone|stones]].<ref name=\"a\">gone</ref> {{convert|5|ft|11|in|cm}} tall\n\n== Use ==\n* one\n* \
                       two\n{| class=\"wikitable\"\n! a\n|-\n| b || c\n|}\n[[File:x.jpg|thumb|a [[b]] c]]\n<!-- no --> &nbsp;&amp;eacute; \
                       <math>x</math> [http://a.b c] {{lang|fr|mot}} <nowiki>[[x]]</nowiki>\n";

const DUMP: &str = "<mediawiki version=\"0.11\" xml:lang=\"en\">\n<siteinfo><namespaces><namespace key=\"6\">File</namespace></namespaces>\
                    </siteinfo>\n<page><title>Amber</title><ns>0</ns><id>1</id><revision><text bytes=\"9\">'''Amber''' &amp; \
                    [[stone|stones]].</text></revision></page>\n<page><title>Ambre</title><ns>0</ns><redirect title=\"Amber\" />\
                    <revision><text>#REDIRECT [[Amber]]</text></revision></page>\n</mediawiki>\n";

fn tokenizer_file(name: &str) -> Vec<u8> {
    let tokenizer = Tokenizer::new(
        targets::vocabulary(),
        WordRules { lowercase: true, strip_accents: true, tokenize_chinese_chars: true },
    );
    let files = tokenizer.files();
    files.into_iter().find(|(file, _)| *file == name).map(|(_, text)| text.into_bytes()).unwrap()
}

/// Empties the first `sha256` of a sealed text.
fn unsealed(text: &str) -> String {
    let key = "\"sha256\": \"";
    let start = text.find(key).unwrap() + key.len();
    format!("{}{}", &text[..start], &text[start + 64..])
}

/// The encodings of strings in Parquet files; a dictionary without one.
const STRING_ENCODINGS: [Option<Encoding>; 4] =
    [None, Some(Encoding::PLAIN), Some(Encoding::DELTA_LENGTH_BYTE_ARRAY), Some(Encoding::DELTA_BYTE_ARRAY)];

/// Returns a Parquet file with the column `text`.
fn parquet_file(is_compressed: bool, encoding: Option<Encoding>, texts: &[Option<String>]) -> Vec<u8> {
    let compression = if is_compressed { Compression::SNAPPY } else { Compression::UNCOMPRESSED };
    let schema = Arc::new(parse_message_type("message rows { OPTIONAL BYTE_ARRAY text (STRING); }").unwrap());
    let properties = WriterProperties::builder().set_compression(compression);
    let properties = match encoding {
        None => properties,
        Some(encoding) => properties.set_dictionary_enabled(false).set_encoding(encoding),
    };
    let properties = Arc::new(properties.build());
    let mut file = Vec::new();
    let mut writer = SerializedFileWriter::new(&mut file, schema, properties).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    let values: Vec<ByteArray> = texts.iter().flatten().map(|text| ByteArray::from(text.as_str())).collect();
    let levels: Vec<i16> = texts.iter().map(|text| i16::from(text.is_some())).collect();
    column.typed::<ByteArrayType>().write_batch(&values, Some(&levels), None).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
    file
}

#[test]
fn mutated_files_cause_no_panic_and_no_hang() {
    let (executions, seed) = (setting("LAMBERT_FUZZ_EXECUTIONS"), setting("LAMBERT_FUZZ_SEED").unwrap_or(1));
    let only = std::env::var("LAMBERT_FUZZ_TARGET").ok();
    let chosen = TARGETS.iter().enumerate().filter(|(_, (name, _))| only.as_deref().is_none_or(|only| only == *name));
    for (number, (name, target)) in chosen {
        let seeds = seeds(name);
        for (index, seed) in seeds.iter().enumerate() {
            assert!(target(seed), "{name}: the valid input {index} is refused");
        }
        let key = Key::new(seed).fold_in(number as u64);
        run(name, *target, &seeds, key, executions.unwrap_or(EXECUTIONS));
        if executions.is_some() {
            let peak = peak_memory();
            assert!(peak < MEMORY, "{name}: {peak} bytes of memory");
        }
    }
}

/// Runs a target on mutations; another thread ends the process if one of them hangs.
fn run(name: &str, target: targets::Target, seeds: &[Vec<u8>], key: Key, executions: u64) {
    let keep = |data: &[u8]| {
        let path = std::env::temp_dir().join(format!("lambert-fuzz-{name}"));
        std::fs::write(&path, data).unwrap();
        path
    };
    let (begin, mut accepted, mut longest) = (Instant::now(), 0u64, Duration::ZERO);
    let structure = structure_of(name);
    std::thread::scope(|scope| {
        let (send, receive) = channel::<Vec<u8>>();
        scope.spawn(move || {
            let mut current = Vec::new();
            loop {
                match receive.recv_timeout(LONGEST) {
                    Ok(data) => current = data,
                    Err(RecvTimeoutError::Disconnected) => return,
                    Err(RecvTimeoutError::Timeout) => {
                        eprintln!("{name} hangs on the input {}", keep(&current).display());
                        std::process::abort();
                    }
                }
            }
        });
        for execution in 0..executions {
            let data = mutated(structure, seeds, &mut key.fold_in(execution).stream());
            send.send(data.clone()).unwrap();
            let started = Instant::now();
            match catch_unwind(AssertUnwindSafe(|| target(&data))) {
                Ok(is_accepted) => accepted += u64::from(is_accepted),
                Err(_) => panic!("{name}: execution {execution} panics on the input {}", keep(&data).display()),
            }
            longest = longest.max(started.elapsed());
        }
    });
    let seconds = begin.elapsed().as_secs_f64();
    let share = accepted as f64 / executions.max(1) as f64;
    println!(
        "{name}: {executions} executions in {seconds:.0} s, {:.1} % accepted, longest {longest:.1?}, peak {}",
        100.0 * share,
        peak_memory()
    );
    // Inputs that a reader refuses at once test only its first checks.
    assert!(executions < 100 || share > LEAST_ACCEPTED, "{name}: only {accepted} of {executions} inputs are accepted");
}

/// Returns the peak resident memory of this process in bytes; 0 where the system does not report it.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()).unwrap_or(0) * 1024
}

#[test]
fn every_target_has_a_program() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap();
    for (name, _) in TARGETS {
        assert!(manifest.contains(&format!("name = \"{name}\"\npath = \"fuzz_targets/{name}.rs\"")), "{name}");
        let program = std::fs::read_to_string(folder.join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(program.contains(&format!("lambert_fuzz::{name}(data)")), "{name}");
    }
}
