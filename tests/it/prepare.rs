//! Preparing data and training vocabularies: the output, the rejected inputs, and the safety of existing files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use lambert::data::{
    Dataset, ExampleConfig, MANIFEST, Manifest, Preparation, PrepareOptions, PrepareOutcome, PreparedData, ReadOptions,
    SentenceMode, Source, SourcePath, Split, Tokenizer, TrainedTokenizer, VocabularyOptions, WordRules, find_inputs,
    find_sources, prepare, train_tokenizer, train_vocabulary,
};
use lambert::rng::Key;

const WORDS: [&str; 12] =
    ["river", "stone", "Mountain", "light", "walked", "singing", "under", "the", "a", "café", "quiet", "houses"];

/// Documents of one to six lines of up to four sentences.
fn corpus(documents: usize, seed: u64) -> String {
    let mut stream = Key::new(seed).stream();
    let mut text = String::new();
    for document in 0..documents {
        for _ in 0..stream.between(1, 6) {
            for _ in 0..stream.between(1, 4) {
                let words: Vec<&str> =
                    (0..stream.between(3, 12)).map(|_| WORDS[stream.below(WORDS.len() as u64) as usize]).collect();
                text += &format!("Document{document} {}. ", words.join(" "));
            }
            text += "\n";
        }
        text += "\n";
    }
    text
}

struct Place {
    directory: tempfile::TempDir,
    tokenizer: Tokenizer,
}

impl Place {
    /// A directory with `text.txt` and a vocabulary trained on it.
    fn new(text: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("text.txt"), text).unwrap();
        let training = directory.path().join("training.txt");
        fs::write(&training, corpus(50, 1)).unwrap();
        let inputs = find_inputs(&[training]).unwrap().inputs;
        let vocabulary = train_vocabulary(&inputs, &VocabularyOptions::new(150, true), &|_| ()).unwrap().vocabulary;
        Place { directory, tokenizer: Tokenizer::new(vocabulary, WordRules::bert(true)) }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn prepare(&self, out: &str, options: &PrepareOptions, force: bool) -> lambert::data::Result<PrepareOutcome> {
        let inputs = find_inputs(&[self.at("text.txt")])?.inputs;
        let out = self.at(out);
        prepare(&Preparation { inputs: &inputs, tokenizer: &self.tokenizer, options, out: &out, force }, &|_, _| ())
    }

    /// Returns the error of a preparation that must fail and leave no files behind.
    fn refused(&self, out: &str, options: &PrepareOptions) -> String {
        let before = files(self.directory.path());
        let message = self.prepare(out, options, false).unwrap_err().to_string();
        assert_eq!(files(self.directory.path()), before, "after: {message}");
        message
    }

    /// The documents of a split, each as the words of its sentences.
    fn documents(&self, out: &str, split: Split) -> Vec<Vec<String>> {
        let prepared = PreparedData::open(&self.at(out)).unwrap();
        let documents = prepared.documents(split);
        let text = |ids: Vec<u32>| {
            let pieces = ids.iter().map(|&id| prepared.vocabulary().token(id).unwrap());
            pieces.collect::<Vec<_>>().join(" ").replace(" ##", "")
        };
        let document = |index| {
            let document = documents.get(index);
            let sentences = document.starts.windows(2);
            sentences.map(|s| text(document.shard.read_tokens(s[0]..s[1]).unwrap())).collect()
        };
        (0..documents.len()).map(document).collect()
    }
}

/// All files below a directory, with their content.
fn files(directory: &Path) -> BTreeSet<(PathBuf, Vec<u8>)> {
    let mut all = BTreeSet::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => all.extend(files(&path)),
            false => drop(all.insert((path.clone(), fs::read(path).unwrap()))),
        }
    }
    all
}

fn sentences_as(sentences: SentenceMode) -> PrepareOptions {
    PrepareOptions { reading: ReadOptions { sentences, ..ReadOptions::default() }, ..options() }
}

fn options() -> PrepareOptions {
    PrepareOptions { held_out: 0.0, ..PrepareOptions::default() }
}

#[test]
fn a_wrong_file_kind_is_reported_before_any_input_is_read() {
    let place = Place::new(&corpus(40, 1));
    for (name, content) in [
        ("last.txt", &b"PK\x03\x04\x14\0"[..]),
        ("last.txt", b"\xff\xfea\0"),
        ("last.txt.bz2", b""),
        ("last.jsonl.gz", b"{\"text\": \"one\"}"),
        ("last.parquet", b"PAR1 and no more"),
    ] {
        fs::write(place.at(name), content).unwrap();
        let inputs = find_inputs(&[place.at("text.txt"), place.at(name)]).unwrap().inputs;
        let out = place.at("data");
        let preparation =
            Preparation { inputs: &inputs, tokenizer: &place.tokenizer, options: &options(), out: &out, force: false };
        let message = prepare(&preparation, &|stage, _| panic!("{stage:?}")).unwrap_err().to_string();
        assert!(message.contains(name), "{message}");
        let read = |bytes| panic!("{bytes} bytes were read");
        let options = VocabularyOptions::new(150, true);
        let trained = train_tokenizer(&inputs, &options, &out, false, &read).unwrap_err().to_string();
        assert_eq!(trained, message);
        assert!(!out.exists());
        fs::remove_file(place.at(name)).unwrap();
    }
}

#[test]
fn prepared_data_and_tokenizers_among_the_inputs_are_skipped() {
    let place = Place::new(&corpus(40, 1));
    let inputs = || find_inputs(&[place.directory.path().to_owned()]).unwrap().inputs;
    let names = |inputs: &[lambert::data::Input]| inputs.iter().map(|input| input.name()).collect::<Vec<_>>();
    let first = names(&inputs());
    assert_eq!(first.len(), 2, "{first:?}");
    train_tokenizer(&inputs(), &VocabularyOptions::new(150, true), &place.at("words"), false, &|_| ()).unwrap();
    let out = place.at("prepared");
    let prepare_all = |inputs: &[lambert::data::Input]| {
        let options = &options();
        prepare(&Preparation { inputs, tokenizer: &place.tokenizer, options, out: &out, force: false }, &|_, _| ())
    };
    assert!(matches!(prepare_all(&inputs()).unwrap(), PrepareOutcome::Prepared(_)));
    // The files of an interrupted preparation.
    fs::create_dir(place.at(".prepared.partial")).unwrap();
    fs::write(place.at(".prepared.partial/journal.jsonl"), "{}\n").unwrap();
    assert_eq!(names(&inputs()), first);
    assert!(matches!(prepare_all(&inputs()).unwrap(), PrepareOutcome::UpToDate(_)));
}

#[test]
fn sentences_and_documents_match_the_text() {
    let place = Place::new("The river. A stone!\nThe light.\n\n\n\u{7}\n\nHouses under the Mountain\r\n");
    place.prepare("split", &options(), false).unwrap();
    let expected = vec![vec!["the river .", "a stone [UNK]", "the light ."], vec!["houses under the mountain"]];
    assert_eq!(place.documents("split", Split::Train), expected);

    let lines = sentences_as(SentenceMode::Lines);
    place.prepare("lines", &lines, false).unwrap();
    let expected = vec![vec!["the river . a stone [UNK]", "the light ."], vec!["houses under the mountain"]];
    assert_eq!(place.documents("lines", Split::Train), expected);

    let wrapped = sentences_as(SentenceMode::Wrapped);
    let place = Place::new("The river. A\nstone! The light.\n\nHouses under the\nMountain\n\n\nThe\r\nlight.\r\n");
    place.prepare("wrapped", &wrapped, false).unwrap();
    let expected =
        vec![vec!["the river .", "a stone [UNK]", "the light .", "houses under the mountain"], vec!["the light ."]];
    assert_eq!(place.documents("wrapped", Split::Train), expected);
}

#[test]
fn equal_text_gives_equal_files_and_splits_are_disjoint() {
    let place = Place::new(&corpus(400, 2));
    let options = PrepareOptions { held_out: 0.1, shard_tokens: 4096, seed: 9, ..options() };
    let PrepareOutcome::Prepared(manifest) = place.prepare("one", &options, false).unwrap() else { panic!("not new") };
    let one_thread = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    one_thread.install(|| place.prepare("two", &options, false)).unwrap();
    assert!(manifest.shards.len() > 3);
    for entry in &manifest.shards {
        assert_eq!(
            fs::read(place.at("one").join(&entry.file)).unwrap(),
            fs::read(place.at("two").join(&entry.file)).unwrap()
        );
    }
    let names = |split| -> Vec<String> {
        let documents = place.documents("one", split);
        documents.iter().map(|d| d[0].split(' ').take_while(|w| !WORDS.contains(w)).collect()).collect()
    };
    let (train, held_out) = (names(Split::Train), names(Split::HeldOut));
    let all: BTreeSet<&String> = train.iter().chain(&held_out).collect();
    assert_eq!((train.len() + held_out.len(), all.len()), (400, 400), "each document is in one split, once");
    // Five standard deviations of a binomial(400, 0.1) are 30.
    assert!(held_out.len().abs_diff(40) < 30, "{} held out", held_out.len());

    let prepared = Arc::new(PreparedData::open(&place.at("one")).unwrap());
    prepared.verify(&|_| ()).unwrap();
    let counted: u64 = prepared.token_counts(Split::Train).iter().sum();
    assert_eq!(counted, manifest.train.tokens);
    let examples = Dataset::new(prepared, Split::Train, ExampleConfig::bert(64, 9)).unwrap();
    assert_eq!(examples.batch(0, 100).unwrap().rows, 100);
}

#[test]
fn a_document_longer_than_a_shard_is_divided_and_keeps_its_split() {
    let long = corpus(60, 3).replace("\n\n", "\n");
    let place = Place::new(&format!("{long}\n\nThe end.\n"));
    let options = PrepareOptions { shard_tokens: 1024, ..options() };
    let PrepareOutcome::Prepared(manifest) = place.prepare("out", &options, false).unwrap() else { panic!("not new") };
    // The keys of format 2, by which data of earlier builds is read.
    let keys: serde_json::Value = serde_json::to_value(&manifest).unwrap();
    assert_eq!(keys["cut_documents"], manifest.overlong_documents);
    assert_eq!(keys["reading"]["cut_lines"], manifest.reading.overlong_lines);
    assert!(manifest.overlong_documents >= 3, "{}", manifest.overlong_documents);
    assert_eq!(manifest.train.documents, manifest.overlong_documents + 2);
    let sentences: usize = place.documents("out", Split::Train).iter().map(Vec::len).sum();
    assert_eq!(sentences, long.matches(". ").count() + 1);
}

#[test]
fn existing_data_is_kept_unless_forced() {
    let place = Place::new(&corpus(40, 4));
    place.prepare("out", &options(), false).unwrap();
    let before = files(&place.at("out"));
    assert!(matches!(place.prepare("out", &options(), false).unwrap(), PrepareOutcome::UpToDate(_)));
    // Text that was read by other rules; earlier versions did not record them.
    let manifest = fs::read_to_string(place.at("out").join(MANIFEST)).unwrap();
    let mut edited: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    edited.as_object_mut().unwrap().remove("sha256");
    edited["text_rules"] = 0.into();
    fs::write(place.at("out").join(MANIFEST), edited.to_string()).unwrap();
    assert!(
        place
            .refused("out", &options())
            .contains("of the rules for documents and sentences, got prepared data by version 0")
    );
    edited.as_object_mut().unwrap().remove("text_rules");
    fs::write(place.at("out").join(MANIFEST), edited.to_string()).unwrap();
    assert!(matches!(place.prepare("out", &options(), false).unwrap(), PrepareOutcome::UpToDate(_)));
    fs::write(place.at("out").join(MANIFEST), manifest).unwrap();
    // Touched but equal: read again, and up to date.
    fs::write(place.at("text.txt"), corpus(40, 4)).unwrap();
    assert!(matches!(place.prepare("out", &options(), false).unwrap(), PrepareOutcome::UpToDate(_)));

    let other = PrepareOptions { seed: 5, ..options() };
    assert!(place.refused("out", &other).contains("set force"));
    fs::write(place.at("text.txt"), corpus(40, 5)).unwrap();
    assert!(place.refused("out", &options()).contains("text.txt as it is now"));
    assert_eq!(files(&place.at("out")), before);
    assert!(matches!(place.prepare("out", &options(), true).unwrap(), PrepareOutcome::Prepared(_)));
    assert_ne!(files(&place.at("out")), before);

    // Other files are never replaced, even with force.
    fs::create_dir(place.at("mine")).unwrap();
    fs::write(place.at("mine").join("thesis.txt"), "years of work").unwrap();
    let message = place.prepare("mine", &options(), true).unwrap_err().to_string();
    assert!(message.contains("other files"), "{message}");
    assert_eq!(fs::read_to_string(place.at("mine").join("thesis.txt")).unwrap(), "years of work");
}

#[test]
fn data_with_missing_files_is_not_up_to_date() {
    let place = Place::new(&corpus(40, 6));
    let PrepareOutcome::Prepared(manifest) = place.prepare("out", &options(), false).unwrap() else {
        panic!("not new")
    };
    fs::write(place.at("out").join(&manifest.shards[0].file), "short").unwrap();
    assert!(place.refused("out", &options()).contains("5 bytes"));
    place.prepare("out", &options(), true).unwrap();
    for name in ["tokenizer.json", "vocab.txt", "tokenizer_config.json"] {
        let path = place.at("out").join("tokenizer").join(name);
        let content = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        assert!(place.refused("out", &options()).contains(&format!("tokenizer/{name}, got prepared data without it")));
        fs::write(&path, content).unwrap();
    }
    fs::write(place.at("out").join(MANIFEST), "{").unwrap();
    assert!(place.refused("out", &options()).contains(MANIFEST));
    assert!(matches!(place.prepare("out", &options(), true).unwrap(), PrepareOutcome::Prepared(_)));
    Manifest::read(&place.at("out")).unwrap();
}

#[test]
fn too_little_text_is_reported() {
    assert!(Place::new(" \n\n\r\n").refused("out", &options()).contains("there is no text in it"));
    assert!(Place::new("One. Two.\nThree.").refused("out", &options()).contains("at least 2 documents to train on"));
    let held_out = PrepareOptions { held_out: 0.02, ..options() };
    assert!(Place::new(&corpus(10, 7)).refused("out", &held_out).contains("increase held_out"));
    for bad in [-0.1, 0.9, f64::NAN] {
        let message = Place::new("One.").refused("out", &PrepareOptions { held_out: bad, ..options() });
        assert!(message.contains("held_out"), "{message}");
    }
}

#[test]
fn a_vocabulary_depends_on_the_text_alone() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("text.txt");
    fs::write(&file, corpus(300, 8)).unwrap();
    let inputs = find_inputs(&[file]).unwrap().inputs;
    let options = VocabularyOptions::new(180, false);
    let train = || train_vocabulary(&inputs, &options, &|_| ()).unwrap().vocabulary;
    let first = train();
    for threads in [1, 2, 5] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        assert_eq!(pool.install(train), first, "{threads} threads");
    }
    assert_eq!(first.len(), 180);
    assert_eq!(first.tokens()[..5], ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]);
    assert!(first.tokens().iter().any(|t| t == "Mountain"), "frequent words are whole and keep their case");

    for size in [20, usize::MAX] {
        let message = train_vocabulary(&inputs, &VocabularyOptions::new(size, false), &|_| ()).unwrap_err().to_string();
        assert!(message.contains("vocab_size") && message.contains(&format!("got {size}")), "{message}");
    }
    fs::write(inputs[0].path(), " \n").unwrap();
    let message = train_vocabulary(&inputs, &options, &|_| ()).unwrap_err().to_string();
    assert!(message.contains("none"), "{message}");
}

#[test]
fn a_tokenizer_is_trained_once_and_never_silently_replaced() {
    let place = Place::new(&corpus(100, 9));
    let train = |size, force| {
        let inputs = find_inputs(&[place.at("text.txt")]).unwrap().inputs;
        train_tokenizer(&inputs, &VocabularyOptions::new(size, true), &place.at("tokenizer"), force, &|_| ())
    };
    assert!(matches!(train(120, false).unwrap(), TrainedTokenizer::New { .. }));
    assert!(matches!(train(120, false).unwrap(), TrainedTokenizer::UpToDate(_)));
    let before = files(&place.at("tokenizer"));
    assert!(train(130, false).unwrap_err().to_string().contains("set force"));
    assert_eq!(files(&place.at("tokenizer")), before);
    let again = train(130, true).unwrap();
    assert!(matches!(again, TrainedTokenizer::New { tokenizer, .. } if tokenizer.vocabulary().len() == 130));
}

#[test]
fn overlong_words_take_no_part_in_training() {
    let directory = tempfile::tempdir().unwrap();
    let train = |name: &str, text: &str, options: &VocabularyOptions| {
        let file = directory.path().join(name);
        fs::write(&file, text).unwrap();
        train_vocabulary(&find_inputs(&[file]).unwrap().inputs, options, &|_| ()).unwrap()
    };
    let words = corpus(100, 8);
    // Each word of 120 letters is more frequent than any other, and a line of 300,000 letters is one word.
    let [long, longest] = ["qvw".repeat(40), "xyz".repeat(100_000)];
    let overlong = format!("{words}\n{longest} {long}\n") + &format!("{long}\n").repeat(500);
    for options in [VocabularyOptions::new(150, true), VocabularyOptions::new(150, false)] {
        let expected = train("words.txt", &words, &options);
        let started = std::time::Instant::now();
        let found = train("overlong.txt", &overlong, &options);
        assert_eq!(found.vocabulary, expected.vocabulary);
        assert_eq!((expected.left_out.overlong_words, found.left_out.overlong_words), (0, 502));
        // With training on the long word, this took minutes.
        assert!(started.elapsed().as_secs() < 10, "{:?}", started.elapsed());
    }
    let file = directory.path().join("only.txt");
    fs::write(&file, "x".repeat(101)).unwrap();
    let inputs = find_inputs(&[file]).unwrap().inputs;
    let message = train_vocabulary(&inputs, &VocabularyOptions::new(150, true), &|_| ()).unwrap_err().to_string();
    assert!(message.contains("got 1 words, all above 100 characters"), "{message}");
}

#[test]
fn texts_that_lose_sentences_or_signs_are_reported() {
    let place = Place::new(&"कुछ शब्द हैं\n\n".repeat(30));
    let lambert = |arguments: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_lambert"))
            .args(arguments.split(' '))
            .current_dir(place.directory.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let train = "tokenizer train text.txt --vocab-size 60 --out";
    // Of each line, the signs of "ku", "bda" and "hain" (two).
    let notes = lambert(&format!("{train} stripped"));
    assert!(notes.contains("removed 120 vowel or voicing signs") && notes.contains("--strip-accents false"), "{notes}");
    let notes = lambert(&format!("{train} whole --strip-accents false"));
    assert!(!notes.contains("signs"), "{notes}");
    let vocabulary = |name: &str| fs::read_to_string(place.at(name).join("vocab.txt")).unwrap();
    assert!(vocabulary("whole").lines().any(|token| token == "कुछ") && !vocabulary("stripped").contains("कुछ"));

    let prepare = "prepare text.txt --tokenizer whole --held-out 0 --out";
    let notes = lambert(&format!("{prepare} single"));
    assert!(notes.contains("30 of the 30 documents to train on have one sentence only"), "{notes}");
    fs::write(place.at("text.txt"), "कुछ शब्द हैं। कुछ शब्द।\n\n".repeat(30)).unwrap();
    let notes = lambert(&format!("{prepare} several"));
    assert!(!notes.contains("one sentence"), "{notes}");
}

#[test]
fn commands_train_prepare_and_inspect() {
    let place = Place::new(&corpus(200, 10));
    let lambert = |arguments: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_lambert"))
            .args(arguments.split(' '))
            .current_dir(place.directory.path())
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let (code, out, error) = lambert("tokenizer train text.txt --vocab-size 160 --out tokenizer");
    assert_eq!((code, out.contains("160 tokens")), (Some(0), true), "{out}{error}");
    let (code, out, error) = lambert("prepare text.txt --tokenizer tokenizer --out prepared --held-out 0.1");
    assert_eq!((code, out.contains("tokens/s")), (Some(0), true), "{out}{error}");
    let (code, out, _) = lambert("prepare text.txt --tokenizer tokenizer --out prepared --held-out 0.1");
    assert_eq!((code, out.contains("up to date")), (Some(0), true), "{out}");
    let (code, out, error) = lambert("inspect prepared --sequence-length 32 --examples 2 --check");
    assert!(code == Some(0) && out.contains("→") && out.contains("padding"), "{out}{error}");
    let (code, out, _) = lambert("inspect prepared --sequence-length 32 --examples 2 --json --split held-out");
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, json["examples"].as_array().unwrap().len()), (Some(0), 2));

    for (arguments, named) in [
        ("prepare text.txt --tokenizer nowhere --out new", "nowhere"),
        ("prepare nothing.txt --tokenizer tokenizer --out new", "nothing.txt"),
        ("prepare text.txt --tokenizer tokenizer --out prepared", "set force"),
        ("inspect tokenizer", "prepared.json"),
        ("inspect prepared --sequence-length 3", "sequence_length"),
        ("inspect prepared --max-predictions-per-seq 126", "max_predictions"),
    ] {
        let (code, _, error) = lambert(arguments);
        assert!(code == Some(1) && error.contains(named), "{arguments}: {error}");
        assert!(!error.contains("panicked"), "{error}");
    }
}

#[test]
fn shards_are_even_and_copies_far_apart_for_any_weights() {
    let place = Place::new(&corpus(60, 11));
    fs::write(place.at("few.txt"), corpus(9, 12)).unwrap();
    fs::write(place.at("long.txt"), corpus(14, 13).replace("\n\n", "\n") + "\n\n" + &corpus(3, 14)).unwrap();
    let options = PrepareOptions { shard_tokens: 1024, ..options() };
    let once = mixed(&place, "once", &options, [1.0, 1.0]);
    for (out, weights) in
        [("half", [0.5, 1.0]), ("twice", [2.0, 1.0]), ("between", [2.5, 7.25]), ("many", [50.0, 100.0])]
    {
        let manifest = mixed(&place, out, &options, weights);
        let tokens: Vec<u64> = manifest.shards.iter().map(|shard| shard.counts.tokens).collect();
        let share = manifest.train.tokens as f64 / tokens.len() as f64;
        let longest = longest_document(&place, out);
        let uneven = tokens.iter().find(|&&tokens| (tokens as f64 - share).abs() > longest as f64);
        assert!(uneven.is_none(), "{weights:?}: {uneven:?} of {share}, {longest} the longest document: {tokens:?}");

        let taken = manifest.inputs.iter().map(|input| input.train_documents);
        assert_eq!(taken.sum::<u64>(), manifest.train.documents, "{weights:?}");

        let documents = place.documents(out, Split::Train);
        let beside = documents.windows(2).filter(|pair| pair[0] == pair[1]).count();
        assert_eq!(beside, 0, "{weights:?}: adjacent copies");
        let mut times: BTreeMap<&Vec<String>, u64> = BTreeMap::new();
        documents.iter().for_each(|document| *times.entry(document).or_default() += 1);
        let allowed = [1.0, weights[0], weights[1]].map(|weight: f64| weight.floor() as u64..=weight.ceil() as u64);
        assert!(times.values().all(|n| allowed.iter().any(|allowed| allowed.contains(n))), "{weights:?}: {times:?}");
        assert!(manifest.train.documents >= once.train.documents || weights[0] < 1.0);
        PreparedData::open(&place.at(out)).unwrap().verify(&|_| ()).unwrap();
    }
}

/// Prepares `text.txt` with `few.txt` and `long.txt` at these weights.
fn mixed(place: &Place, out: &str, options: &PrepareOptions, [few, long]: [f64; 2]) -> Manifest {
    let source = |name: &str, weight: f64| SourcePath {
        source: Source { name: name.to_owned(), weight },
        path: place.at(&format!("{name}.txt")),
    };
    let inputs = find_sources(&[place.at("text.txt")], &[source("few", few), source("long", long)]).unwrap().inputs;
    let out = place.at(out);
    let preparation = Preparation { inputs: &inputs, tokenizer: &place.tokenizer, options, out: &out, force: false };
    let PrepareOutcome::Prepared(manifest) = prepare(&preparation, &|_, _| ()).unwrap() else { panic!("not new") };
    manifest
}

/// Returns the tokens of the longest training document.
fn longest_document(place: &Place, out: &str) -> u32 {
    let prepared = PreparedData::open(&place.at(out)).unwrap();
    let documents = prepared.documents(Split::Train);
    let tokens = |starts: &[u32]| starts[starts.len() - 1] - starts[0];
    (0..documents.len()).map(|index| tokens(documents.get(index).starts)).max().unwrap()
}
