//! Invalid run files and labelled files of `lambert finetune`: each gives one sentence that names the file or key, what it
//! requires and what was found, before anything is compiled.

use crate::common::labelled::{KINDS, LabelledFiles};
use lambert::checkpoint::{Checkpoint, Keep, RunDirectory, State, TensorFile, write_tensors};
use lambert::run::fine_tuning::FineTuning;
use lambert::run::initial_state::{InitialState, Resumable, ResumeOptions};
use lambert::run::weights::export_model;
use lambert::shape::HostTensor;
use lambert::train::evaluator::Scorer;
use lambert::train::fine_tuning::scorer::TaskScorer;
use serde_json::{Value, json};

const ACCEPT: ResumeOptions = ResumeOptions { resume: true, accept_changes: true };
const CLASSES: &str = KINDS[0];
const NUMBERS: &str = KINDS[1];
const WORDS: &str = KINDS[2];
const ANSWERS: &str = KINDS[3];

/// Opens a run with overrides, whose paths are relative to the directory, and returns the error.
fn error(files: &LabelledFiles, kind: &str, overrides: &[&str]) -> String {
    let absolute = |set: &&str| match set.split_once('=') {
        Some((key @ ("task.train" | "task.dev" | "import"), name)) => format!("{key}={}", files.path(name).display()),
        _ => (*set).to_owned(),
    };
    let overrides: Vec<String> = overrides.iter().map(absolute).collect();
    let overrides: Vec<&str> = overrides.iter().map(String::as_str).collect();
    let opened = files.open(kind, &overrides).and_then(FineTuning::open).map(drop);
    let message = format!("{:#}", opened.expect_err(&format!("{kind} {overrides:?}")));
    message.replace(&files.path("").display().to_string(), "")
}

#[track_caller]
fn fails(files: &LabelledFiles, kind: &str, overrides: &[&str], expected: &str) {
    let message = error(files, kind, overrides);
    assert!(message.contains(expected), "{kind} {overrides:?} requires {expected:?}, got\n{message}");
    assert_eq!(message.lines().count(), 1, "{message}");
}

#[test]
fn valid_files_of_every_task_are_opened() {
    let files = LabelledFiles::new();
    for kind in KINDS {
        let run = FineTuning::open(files.open(kind, &[]).unwrap()).unwrap_or_else(|error| panic!("{kind}: {error:#}"));
        assert_eq!((run.data.train.len(), run.data.dev.len(), run.schedule.steps()), (64, 27, 24), "{kind}");
    }
}

#[test]
fn invalid_labelled_files_are_refused_with_their_line() {
    let files = LabelledFiles::new();
    let table = |name: &str, rows: &str| files.write(name, &format!("text\tlabel\n{rows}"));
    table("unknown.tsv", "the house\tyes\na river\tmaybe\n");
    table("one.tsv", "the house\tyes\na river\tyes\n");
    table("blank.tsv", "the house\tyes\n \tno\n");
    table("nan.tsv", "the house\t1\na river\tNaN\n");
    table("uneven.tsv", "the house\tyes\na\triver\tno\n");
    table("header.tsv", "");
    files.write("empty.tsv", "");
    files.write("short.conll", "the O\nhouse\n");
    files.write("other.conll", "the O\nanna B-ORG\n");
    let cases: [(&str, &[&str], &str); 12] = [
        (
            CLASSES,
            &["task.dev=unknown.tsv"],
            "unknown.tsv: requires one of the labels \"no\", \"yes\" on line 3, got \"maybe\"",
        ),
        (CLASSES, &["task.train=one.tsv"], "one.tsv: requires labels of at least two classes, got only \"yes\""),
        (
            CLASSES,
            &["task.dev=blank.tsv"],
            "blank.tsv: requires a text in the column \"text\" on line 3, got an empty text",
        ),
        (CLASSES, &["task.dev=uneven.tsv"], "uneven.tsv: requires 2 columns on line 3"),
        (CLASSES, &["task.dev=header.tsv"], "header.tsv: requires at least one row, got none"),
        (CLASSES, &["task.dev=empty.tsv"], "empty.tsv: requires at least one row, got none"),
        (CLASSES, &["task.dev=none.tsv"], "none.tsv"),
        (CLASSES, &["task.text=sentence"], "requires a column \"sentence\", got the columns \"text\", \"label\""),
        (CLASSES, &["task.labels=[\"a\", \"b\"]"], "requires one of the labels \"a\", \"b\" on line 2"),
        (NUMBERS, &["task.dev=nan.tsv"], "nan.tsv: requires a finite number as label on line 3, got \"NaN\""),
        (WORDS, &["task.dev=short.conll"], "short.conll: requires at least 2 columns on line 2, got 1"),
        (
            WORDS,
            &["task.dev=other.conll"],
            "other.conll: requires one of the labels \"B-LOC\", \"B-PER\", \"O\" on line 2",
        ),
    ];
    for (kind, overrides, expected) in cases {
        fails(&files, kind, overrides, expected);
    }
}

#[test]
fn invalid_questions_are_refused_with_their_id() {
    let files = LabelledFiles::new();
    let squad = |name: &str, change: &dyn Fn(&mut Value)| {
        let answers = json!([{"text": "anna", "answer_start": 4}]);
        let mut entry = json!({"id": "q7", "question": "who is it", "answers": answers});
        change(&mut entry);
        let paragraph = json!({"context": "the anna sees", "qas": [entry]});
        files.write(name, &json!({"data": [{"paragraphs": [paragraph]}]}).to_string());
    };
    squad("elsewhere.json", &|entry| entry["answers"][0]["text"] = "paul".into());
    squad("outside.json", &|entry| entry["answers"][0]["answer_start"] = json!(u64::MAX >> 1));
    squad("long.json", &|entry| entry["question"] = "who ".repeat(40).into());
    squad("unanswerable.json", &|entry| {
        entry["answers"] = json!([]);
        entry["is_impossible"] = true.into();
    });
    squad("blank.json", &|entry| entry["question"] = " ".into());
    files.write("none.json", "{\"data\": []}");
    files.write("cut.json", "{\"data\": [");
    let cases: [(&[&str], &str); 8] = [
        (&["task.dev=elsewhere.json"], "requires the answer \"paul\" of question \"q7\" at character 4, got \"anna\""),
        (&["task.dev=outside.json"], "requires the answer \"anna\" of question \"q7\""),
        (&["task.dev=long.json"], "requires questions shorter than sequence_length, 16 tokens"),
        (&["task.dev=unanswerable.json"], "got is_impossible; set version to \"2.0\""),
        (&["task.dev=blank.json"], "requires a question with the id \"q7\", got an empty text"),
        (&["task.dev=none.json"], "none.json: requires at least one question, got none"),
        (&["task.dev=cut.json"], "cut.json: requires the JSON of SQuAD"),
        (&["task.dev=sequence_classification.dev.tsv"], "requires the JSON of SQuAD"),
    ];
    for (overrides, expected) in cases {
        fails(&files, ANSWERS, overrides, expected);
    }
}

#[test]
fn metrics_of_squad_v2_are_those_of_all_questions_and_of_those_with_and_without_an_answer() {
    let files = LabelledFiles::new();
    let entry = |(id, has_answer): (&str, bool)| match has_answer {
        true => json!({"id": id, "question": "who is it", "answers": [{"text": "anna sees", "answer_start": 4}]}),
        false => json!({"id": id, "question": "who is it", "answers": [], "is_impossible": true}),
    };
    let entries: Vec<Value> = [("a", true), ("b", true), ("c", false), ("d", false), ("e", false)].map(entry).into();
    let paragraph = json!({"context": "the anna sees a house", "qas": entries});
    files.write("squad.json", &json!({"data": [{"paragraphs": [paragraph]}]}).to_string());
    let file = files.path("squad.json").display().to_string();
    let sets = [format!("task.train={file}"), format!("task.dev={file}"), "task.version=\"2.0\"".to_owned()];
    let run = files.open(ANSWERS, &sets.each_ref().map(String::as_str)).unwrap();
    let scorer = TaskScorer::new(&FineTuning::open(run).unwrap().data).unwrap();

    // [CLS] who is it [SEP] the anna sees a house [SEP]; [CLS] means that there is no answer.
    let logits = |positions: [usize; 5]| -> Vec<f32> {
        positions.into_iter().flat_map(|at| (0..16).map(move |i| if i == at { 5.0 } else { 0.0 })).collect()
    };
    let metrics = scorer.score(&[logits([6, 6, 0, 0, 7]), logits([7, 6, 0, 0, 7])]).unwrap();
    let found = |name: &str| {
        let metric = metrics.iter().find(|metric| metric.name == name).unwrap_or_else(|| panic!("no {name}"));
        (metric.value, metric.baseline)
    };
    for (name, value, baseline) in [
        ("exact_match", 3.0 / 5.0, Some(3.0 / 5.0)),
        // "anna" for "anna sees": precision 1, recall 1/2.
        ("f1", (1.0 + 2.0 / 3.0 + 2.0) / 5.0, Some(3.0 / 5.0)),
        ("total", 5.0, None),
        ("HasAns_exact", 1.0 / 2.0, Some(0.0)),
        ("HasAns_f1", f64::midpoint(1.0, 2.0 / 3.0), Some(0.0)),
        ("HasAns_total", 2.0, None),
        ("NoAns_exact", 2.0 / 3.0, Some(1.0)),
        ("NoAns_f1", 2.0 / 3.0, Some(1.0)),
        ("NoAns_total", 3.0, None),
    ] {
        let (measured, of_constant) = found(name);
        assert!((measured - value).abs() < 1e-12, "{name}: {measured}, expected {value}");
        assert_eq!(of_constant, baseline, "baseline of {name}");
    }
    assert_eq!(metrics.len(), 9);
}

#[test]
fn a_resumed_run_keeps_the_tokenizer_of_its_model() {
    let files = LabelledFiles::new();
    let open = |import: &str| {
        let set = format!("import={}", files.path(import).display());
        FineTuning::open(files.open(CLASSES, &[&set]).unwrap()).unwrap()
    };
    let run = open("model");
    let state = State { run_fingerprint: run.fingerprint(), seed: run.run.seed, ..State::default() };
    let checkpoint = Checkpoint { state, files: run.copied_files().unwrap(), ..Checkpoint::default() };
    RunDirectory::new(run.directory(), Keep::ALL).save(&checkpoint).unwrap();
    assert!(InitialState::find(&run, ACCEPT).unwrap().1.is_empty());

    // The same model with the ids of two tokens swapped.
    export_model(&files.path("model"), None, None, &files.path("swapped")).unwrap();
    let words = std::fs::read_to_string(files.path("swapped/vocab.txt")).unwrap();
    let swapped = words.replace("\ngood\n", "\n???\n").replace("\nbad\n", "\ngood\n").replace("\n???\n", "\nbad\n");
    files.write("swapped/vocab.txt", &swapped);
    let message = format!("{:#}", InitialState::find(&open("swapped"), ACCEPT).unwrap_err());
    let expected = [
        "cannot resume from ",
        "/run/step-00000000/vocab.txt and ",
        "/swapped hold different vocabularies: token \"good\" has id 17 in the first and id 18 in the second, and 2 of 22 ids",
        "a run keeps its tokenizer",
    ];
    expected.iter().for_each(|part| assert!(message.contains(part), "{part:?} is not in: {message}"));

    // The same model with accents.
    export_model(&files.path("model"), None, None, &files.path("accents")).unwrap();
    files.write("accents/tokenizer_config.json", r#"{"do_lower_case": true, "strip_accents": false}"#);
    let message = format!("{:#}", InitialState::find(&open("accents"), ACCEPT).unwrap_err());
    let expected = [
        "/run/step-00000000/tokenizer_config.json and ",
        "/accents state different rules of words: strip_accents is true in the first and false in the second; a run keeps its tokenizer",
    ];
    expected.iter().for_each(|part| assert!(message.contains(part), "{part:?} is not in: {message}"));
}

#[test]
fn pairs_require_two_token_types() {
    let files = LabelledFiles::new();
    export_model(&files.path("model"), None, None, &files.path("single")).unwrap();
    let config = std::fs::read_to_string(files.path("single/config.json")).unwrap();
    files.write("single/config.json", &config.replace("\"type_vocab_size\": 2", "\"type_vocab_size\": 1"));
    let weights = files.path("single/model.safetensors");
    let mut file = TensorFile::open(&weights).unwrap();
    let names: Vec<String> = file.names().map(str::to_owned).collect();
    let mut tensors: Vec<(String, HostTensor)> =
        names.into_iter().map(|name| (name.clone(), file.read(&name).unwrap())).collect();
    let types = tensors.iter_mut().find(|(name, _)| name.ends_with("token_type_embeddings.weight")).unwrap();
    types.1 = types.1.rows(0, 1);
    std::fs::remove_file(&weights).unwrap();
    write_tensors(&weights, &tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect::<Vec<_>>()).unwrap();

    files.write("pairs.tsv", "text\tother\tlabel\nthe house\ta river\tyes\na river\tthe house\tno\n");
    let pairs = ["import=single", "task.train=pairs.tsv", "task.dev=pairs.tsv", "task.text_pair=other"];
    let one = "import: single: type_vocab_size requires at least 2, a token type for each segment of a sequence, got 1";
    fails(&files, CLASSES, &pairs, one);
    fails(&files, ANSWERS, &pairs[..1], one);
    FineTuning::open(files.open(CLASSES, &[&format!("import={}", files.path("single").display())]).unwrap()).unwrap();
}

#[test]
fn impossible_settings_and_models_are_refused() {
    let files = LabelledFiles::new();
    files.write_model("words", &["more"]);
    std::fs::create_dir(files.path("nothing")).unwrap();
    export_model(&files.path("model"), None, None, &files.path("bare")).unwrap();
    std::fs::remove_file(files.path("bare/vocab.txt")).unwrap();
    let cases: [(&[&str], &str); 28] = [
        (&["import=nowhere"], "import: nowhere"),
        (&["import=nothing"], "import: nothing"),
        (&["import=run.toml"], "run.toml is not a checkpoint: it is not a directory"),
        (&["import=bare"], "import: bare requires the tokenizer of the model"),
        (
            &["import=words"],
            "import: words requires word embeddings with a row for each of the 23 tokens in words/step-00000000, found [22, 16]",
        ),
        (&["task.sequence_length=25"], "sequence_length requires 1 to max_position_embeddings (24), got 25"),
        (&["task.sequence_length=9223372036854775807"], "sequence_length requires 1 to max_position_embeddings (24)"),
        (&["task.sequence_length=4"], "sequence_length: requires at least 5, got 4"),
        (&["task.sequence_length=0"], "`sequence_length` requires at least 1, got 0"),
        (&["task.labels=[\"yes\"]"], "labels: requires at least two names, got only \"yes\""),
        (&["task.stride=4"], "`stride` has no meaning for kind = \"sequence_classification\""),
        (&["train.global_batch=12"], "global_batch requires a multiple of micro_batch_size (8), got 12"),
        (&["train.global_batch=0"], "`global_batch` requires at least 1, got 0"),
        (&["train.micro_batch_size=0"], "micro_batch_size requires at least 1, got 0"),
        (&["train.micro_batch_size=9223372036854775807"], "rows × sequence_length requires less than 2^31"),
        (&["train.warmup={steps=25}"], "warmup requires between none and all of the phase's steps, got 25 of 24"),
        (&["train.epochs=0"], "`epochs` requires a positive number, got 0"),
        (&["train.epochs=-1"], "`epochs` requires a positive number, got -1"),
        (&["train.epochs=nan"], "`epochs` requires a positive number, got NaN"),
        (&["train.epochs=inf"], "`epochs` requires a positive number, got inf"),
        (&["train.epochs=1e18"], "steps requires"),
        (&["train.learning_rate=0"], "`learning_rate` requires a positive number, got 0"),
        (&["train.learning_rate=nan"], "`learning_rate` requires a positive number, got NaN"),
        (&["model.hidden_dropout_prob=1.5"], "[model]: hidden_dropout_prob requires a probability"),
        (
            &["evaluate.metric=f1"],
            "`metric` requires accuracy or macro_f1 or matthews for kind = \"sequence_classification\"",
        ),
        (&["evaluate.micro_batch_size=0"], "micro_batch_size requires at least 1, got 0"),
        (&["evaluate.patience=-1"], "evaluate.patience requires a whole number from 0, got -1"),
        (&["task.lables=[]"], "unknown key `lables` in [task]; did you mean `labels`?"),
    ];
    for (overrides, expected) in cases {
        fails(&files, CLASSES, overrides, expected);
    }
    let run = FineTuning::open(files.open(CLASSES, &[]).unwrap()).unwrap();
    let message = format!("{:#}", run.step_spec(3).unwrap_err());
    assert!(
        message.contains("global_batch requires a multiple of micro_batch_size × replicas (8 × 3), got 16"),
        "{message}"
    );
}
