//! Invalid files: truncated, changed, empty, of another format version or vocabulary. Each gives a one-line error before any
//! long work, and existing files are kept.

use std::path::Path;

use crate::common::{Workshop, text};

/// Copies a directory and its contents.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("writable");
    for entry in std::fs::read_dir(from).expect("a directory") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, &target).expect("copied");
        }
    }
}

#[track_caller]
fn fails(workshop: &Workshop, arguments: &[&str], expected: &[&str]) {
    let output = workshop.lambert(arguments);
    let words = text(&output);
    assert_eq!(output.status.code(), Some(1), "lambert {arguments:?}\n{words}");
    expected.iter().for_each(|part| assert!(words.contains(part), "{arguments:?} requires {part:?}, got\n{words}"));
    assert!(!words.contains("panicked"), "{words}");
    let errors = words.lines().filter(|line| line.starts_with("error: ")).count();
    assert_eq!((errors, words.lines().last().is_some_and(|line| line.starts_with("error: "))), (1, true), "{words}");
}

fn cut(path: &Path, bytes: u64) {
    let length = path.metadata().expect("it is there").len();
    let file = std::fs::File::options().write(true).open(path).expect("writable");
    file.set_len(length - bytes).expect("cut");
}

/// Flips one bit of the byte at offset `from_end` from the end.
fn flip(path: &Path, from_end: usize) {
    let mut bytes = std::fs::read(path).expect("readable");
    let at = bytes.len() - from_end;
    bytes[at] ^= 1;
    std::fs::write(path, bytes).expect("writable");
}

const TRAIN: [&str; 4] = ["pretrain", "run.toml", "--platform", "cpu"];

#[test]
fn damaged_data_is_rejected_before_compilation() {
    let workshop = Workshop::new();
    workshop.run_file("run.toml", "run", |text| text.replace("path = \"data\"", "path = \"copy\""));
    let again = "set force";
    let damaged = |damage: &dyn Fn(&Path), expected: &[&str]| {
        let directory = workshop.path("copy");
        let _ = std::fs::remove_dir_all(&directory);
        copy(&workshop.path("data"), &directory);
        damage(&directory);
        fails(&workshop, &TRAIN, expected);
    };
    let shard = |directory: &Path| directory.join("train-00000.safetensors");
    let file = "copy/train-00000.safetensors: requires";
    damaged(&|d| cut(&shard(d), 100), &[file, again]);
    damaged(&|d| flip(&shard(d), 51), &[file, "sha256", again]);
    damaged(&|d| std::fs::write(shard(d), "").expect("writable"), &[file, "got 0 bytes", again]);
    damaged(&|d| std::fs::remove_file(shard(d)).expect("removed"), &[file, "no such file", again]);
    damaged(&|d| flip(&d.join("held_out-00000.safetensors"), 3), &["copy/held_out-00000.safetensors", "sha256", again]);
    damaged(
        &|d| {
            let text = std::fs::read_to_string(d.join("prepared.json")).expect("readable");
            std::fs::write(d.join("prepared.json"), text.replace("\"seed\": ", "\"seed\": 1")).expect("writable");
        },
        &["copy/prepared.json: requires the content that it was written with, got another sha256", again],
    );
    damaged(&|d| cut(&d.join("prepared.json"), 40), &["copy/prepared.json: requires a manifest"]);
    damaged(
        &|d| {
            let text = std::fs::read_to_string(d.join("prepared.json")).expect("readable");
            std::fs::write(d.join("prepared.json"), text.replace("\"format\": 2", "\"format\": 1")).expect("writable");
        },
        &["copy/prepared.json: requires format 2, got format 1; run `lambert prepare` again", again],
    );
    damaged(
        &|d| cut(&d.join("tokenizer/vocab.txt"), 20),
        &["copy/tokenizer/vocab.txt: requires the vocabulary", again],
    );
    damaged(&|d| cut(&d.join("tokenizer/tokenizer.json"), 20), &["copy/tokenizer/tokenizer.json: requires sha256"]);
    damaged(
        &|d| std::fs::remove_dir_all(d.join("tokenizer")).expect("removed"),
        &["copy/tokenizer/vocab.txt: requires a vocabulary", "no such file"],
    );
    assert!(!workshop.path("run").exists(), "no run was started");
}

#[test]
fn damaged_or_incompatible_tokenizers_are_rejected() {
    let workshop = Workshop::new();
    let damaged = |content: &[u8], expected: &[&str]| {
        std::fs::create_dir_all(workshop.path("words")).expect("writable");
        std::fs::write(workshop.path("words/vocab.txt"), content).expect("writable");
        fails(&workshop, &["prepare", "text.txt", "--tokenizer", "words", "--out", "more"], expected);
    };
    damaged(b"", &["words/vocab.txt: requires the token [PAD]", "lambert tokenizer train"]);
    damaged(b"one\ntwo\n", &["words/vocab.txt: requires the token [PAD]", "got 2 tokens without it"]);
    let without_mask = b"[PAD]\n[UNK]\n[CLS]\n[SEP]\nword\n";
    damaged(without_mask, &["words/vocab.txt: requires the token [MASK], got 5 tokens without it; name a WordPiece"]);
    damaged(b"[PAD]\n\xff\xfe\n", &["words/vocab.txt: requires UTF-8 text, one token a line"]);
    fails(
        &workshop,
        &["prepare", "text.txt", "--tokenizer", "nowhere", "--out", "more"],
        &["nowhere: requires a tokenizer, got no such file or directory", "lambert tokenizer train"],
    );
    copy(&workshop.path("tokenizer"), &workshop.path("cut"));
    cut(&workshop.path("cut/tokenizer.json"), 30);
    fails(
        &workshop,
        &["tokenizer", "encode", "text.txt", "--tokenizer", "cut", "--out", "ids.jsonl"],
        &["cut/tokenizer.json: requires JSON, got EOF"],
    );
    std::fs::write(workshop.path("latin.txt"), b"fine\ncaf\xe9\n").expect("writable");
    fails(
        &workshop,
        &["tokenizer", "encode", "latin.txt", "--tokenizer", "tokenizer", "--out", "ids.jsonl"],
        &["latin.txt: line 2 requires UTF-8"],
    );
    assert!(!workshop.path("more").exists() && !workshop.path("ids.jsonl").exists());
    assert!(!workshop.path(".ids.jsonl.partial").exists());
}

#[test]
fn too_little_text_is_rejected() {
    let workshop = Workshop::new();
    let prepare = |name: &str, content: &[u8], more: &[&str], expected: &[&str]| {
        std::fs::write(workshop.path(name), content).expect("writable");
        fails(&workshop, &[&["prepare", name, "--tokenizer", "tokenizer", "--out", "more"], more].concat(), expected);
    };
    prepare("empty.txt", b"", &[], &["empty.txt: requires documents, got none", "name inputs with text"]);
    prepare("blank.txt", b" \n\n \t\n", &[], &["blank.txt: requires documents, got none"]);
    let next = ["requires at least 2 documents to train on, because a random next sentence", "empty lines"];
    prepare("one.txt", b"The cat sees.\nIt finds.\n", &["--held-out", "0"], &next);
    let wrapped = ["--held-out", "0", "--sentences", "wrapped"];
    prepare("two.txt", b"The cat sees.\n\nIt finds.\n", &wrapped, &[next[0], "by two empty lines"]);
    prepare(
        "three.txt",
        b"One.\n\nTwo.\n\nThree.\n",
        &["--held-out", "0.01"],
        &["at least 2 documents held out", "held_out"],
    );
    prepare("a.jsonl", b"{\"text\": \"One.\"}\n{\"body\": \"Two.\"}\n", &[], &["a.jsonl", "on line 2", "text_field"]);
    let rare = ["prepare", "--source", "rare:0.000001=text.txt", "--tokenizer", "tokenizer", "--out", "more"];
    fails(
        &workshop,
        &rare,
        &["text.txt: requires at least 2 documents to train on, got 0, which the weights", "raise"],
    );
    let thin = ["prepare", "text.txt", "--source", "rare:0.000001=three.txt", "--tokenizer", "tokenizer"];
    let output = workshop.succeed(&[&thin[..], &["--held-out", "0", "--out", "thin"]].concat());
    let message = text(&output);
    let note = "note: the source \"rare\" has no document to train on: 3 were read, with weight 0.000001";
    assert!(message.contains(note) && !message.contains("the source \"text\""), "{message}");
    prepare("a.txt.gz", b"not gzip", &[], &["a.txt.gz: requires a whole gzip file, got"]);
    fails(
        &workshop,
        &["tokenizer", "train", "empty.txt", "--out", "words"],
        &["requires text to train a vocabulary on"],
    );
    assert!(!workshop.path("more").exists());

    // Data without held-out documents cannot be used by a run that evaluates.
    workshop.succeed(&["prepare", "text.txt", "--tokenizer", "tokenizer", "--held-out", "0", "--out", "all"]);
    workshop.run_file("run.toml", "run", |text| text);
    fails(&workshop, &[&TRAIN[..], &["--set", "data.path=all"]].concat(), &["held", "at least 2 documents"]);
    assert!(!workshop.path("run/metrics.jsonl").exists());
}

#[test]
fn damaged_checkpoints_and_other_vocabularies_are_rejected() {
    let workshop = Workshop::new();
    workshop.run_file("run.toml", "run", |text| text);
    workshop.succeed(&TRAIN);
    workshop.run_file("copy.toml", "copy", |text| text);
    let resume = ["pretrain", "copy.toml", "--platform", "cpu", "--resume"];
    let fresh = || {
        let directory = workshop.path("copy");
        let _ = std::fs::remove_dir_all(&directory);
        copy(&workshop.path("run"), &directory);
        directory
    };
    // The newest checkpoint is damaged: loading it by name fails; loading the run uses the previous one, with a message.
    let run = fresh();
    cut(&run.join("step-00000010/model.safetensors"), 10);
    fails(
        &workshop,
        &["export", "copy/step-00000010", "--out", "exported"],
        &["copy/step-00000010/model.safetensors is damaged (requires ", "use another checkpoint"],
    );
    let output = workshop.succeed(&["export", "copy", "--out", "exported"]);
    let words = text(&output);
    assert!(words.contains("checkpoint copy/step-00000010: model.safetensors is damaged (requires "), "{words}");
    assert!(words.contains("exported copy/step-00000006 (step 6"), "{words}");
    assert!(words.contains("); using step-00000006"), "{words}");
    // All checkpoints are damaged.
    flip(&run.join("step-00000006/optimizer.safetensors"), 9);
    fails(&workshop, &resume, &["copy/step-00000010/model.safetensors is damaged"]);
    assert!(run.join("step-00000010").exists() && run.join("step-00000006").exists(), "nothing is removed");

    let run = fresh();
    std::fs::write(run.join("step-00000010/state.json"), "{").expect("writable");
    let evaluate = |model: &'static str| ["evaluate", model, "--data", "data", "--platform", "cpu"];
    fails(&workshop, &evaluate("copy/step-00000010"), &["copy/step-00000010/state.json is damaged (invalid JSON: "]);
    let run = fresh();
    let state = run.join("step-00000010/state.json");
    let newer =
        std::fs::read_to_string(&state).expect("readable").replace("\"format_version\": 1", "\"format_version\": 7");
    std::fs::write(&state, newer).expect("writable");
    fails(&workshop, &resume, &["requires checkpoint format version 1, found 7"]);
    fails(&workshop, &evaluate("nowhere"), &["nowhere", "does not exist"]);

    // Another vocabulary, for each way of using the model.
    workshop.succeed(&["tokenizer", "train", "text.txt", "--vocab-size", "90", "--out", "words"]);
    workshop.succeed(&["prepare", "text.txt", "--tokenizer", "words", "--held-out", "0.2", "--out", "other"]);
    fails(
        &workshop,
        &["evaluate", "run", "--data", "other", "--platform", "cpu"],
        &["vocab.txt and other/tokenizer/vocab.txt hold different vocabularies", "with the model's tokenizer"],
    );
    let other = ["--resume", "--set", "data.path=other", "--set", "model.vocab_size=118", "--set", "seed=3"];
    let refused = "cannot resume from run/step-00000010 (it was trained with other settings: seed, the data): run/step-00000010/\
                   vocab.txt and other/tokenizer/vocab.txt hold different vocabularies";
    fails(&workshop, &[&TRAIN[..], &other].concat(), &[refused]);
    fails(&workshop, &[&TRAIN[..], &other, &["--accept-changes"]].concat(), &[refused]);
}

#[test]
fn invalid_settings_are_rejected_before_compilation() {
    let workshop = Workshop::new();
    workshop.run_file("run.toml", "run", |text| text);
    let with = |set: &'static str| [&TRAIN[..], &["--set", set]].concat();
    fails(&workshop, &with("phase.1.learning_rate=nan"), &["learning_rate requires a positive number", "got NaN"]);
    fails(&workshop, &with("phase.1.global_batch=0"), &["global_batch requires at least 1, got 0"]);
    let f32 = "requires a number in the range of f32, which computes it (magnitudes from 1.2e-38 to 3.4e38), got";
    fails(&workshop, &with("phase.1.learning_rate=1e300"), &["phase.1.learning_rate", f32, "got 1e300"]);
    fails(&workshop, &with("optimizer.epsilon=1e-60"), &["optimizer.epsilon", f32, "got 1e-60"]);
    fails(
        &workshop,
        &with("model.initializer_range=1e30"),
        &["initializer_range requires a number from 1.1e-19", "got 1e30"],
    );
    fails(
        &workshop,
        &with("phase.1.warmup={proportion=-0.01}"),
        &["warmup.proportion requires a number from 0 to 1, got -0.01"],
    );
    fails(
        &workshop,
        &with("seed=9223372036854775808"),
        &["seed requires a whole number of at most 9223372036854775807"],
    );
    fails(
        &workshop,
        &with("checkpoint.directory="),
        &["checkpoint.directory requires a text with at least one character"],
    );
    fails(
        &workshop,
        &with("name=\"a\\u001bb\""),
        &["name requires a text without control characters, got \"a\\u{1b}b\""],
    );
    fails(
        &workshop,
        &with("model.type_vocab_size=1"),
        &["[model]: type_vocab_size requires at least 2", "got 1; raise it"],
    );
    let phase = "[[phase]]\nsequence_length=24\nmax_predictions_per_seq=4\nglobal_batch=8\nmicro_batch_size=4\nsteps=1\nlearning_rate=1\n";
    workshop.run_file("many.toml", "run", |text| text + &phase.repeat(19_998));
    fails(
        &workshop,
        &["pretrain", "many.toml"],
        &["many.toml: [[phase]]: a schedule requires at most 1000", "got 20000"],
    );
    std::fs::write(workshop.path("latin.toml"), b"name = \"caf\xe9\"").expect("writable");
    fails(
        &workshop,
        &["pretrain", "latin.toml"],
        &["latin.toml:1: requires UTF-8 text, got the byte 0xe9 in column 12"],
    );
    fails(&workshop, &with("phase.1.warmup_start=3"), &["warmup_start requires 0 or a negative step, got 3"]);
    fails(&workshop, &with("optimizer.wieght_decay=1"), &["unknown key `wieght_decay`", "`weight_decay`?"]);
    fails(&workshop, &with("import=nowhere"), &["import: nowhere"]);
    // A model of a hundred terabytes does not fit on the disk.
    let huge = [
        "--set",
        "model.hidden_size=262144",
        "--set",
        "model.num_hidden_layers=24",
        "--set",
        "model.intermediate_size=1048576",
    ];
    fails(&workshop, &[&TRAIN[..], &huge].concat(), &["[checkpoint] directory: run requires", "free space"]);
    fails(&workshop, &["pretrain", "run.toml", "--platform", "./text.txt"], &["text.txt cannot be opened"]);
    // The micro-batch size of an evaluation is limited to its number of rows; XLA would crash on so many.
    let sharing = ["--set", "evaluate.micro_batch_size=2147483648", "--set", "checkpoint.directory=sharing"];
    workshop.succeed(&[&TRAIN[..], &sharing].concat());
    std::fs::write(workshop.path("broken.toml"), "name = ").expect("writable");
    fails(&workshop, &["pretrain", "broken.toml"], &["broken.toml:1"]);
    fails(&workshop, &["graph", "none.toml"], &["cannot read the run file none.toml"]);
    fails(&workshop, &["verify", "data"], &["cannot read data/config.json", "reference values"]);
    fails(&workshop, &["import", "data", "--out", "imported"], &["cannot read data/config.json"]);
    let bench =
        |option: &'static str, value: &'static str| ["bench", "--model", "tiny", "--platform", "cpu", option, value];
    fails(&workshop, &bench("--steps", "0"), &["steps requires 1 to 1000000, got 0"]);
    fails(&workshop, &bench("--steps", "18446744073709551615"), &["steps requires 1 to 1000000"]);
    fails(&workshop, &bench("--devices", "2147483648"), &["the number of devices requires 1 to 1024, got 2147483648"]);
    fails(
        &workshop,
        &bench("--max-predictions-per-seq", "200"),
        &["max_predictions_per_seq requires 1 to sequence_length (128), got 200"],
    );
    fails(&workshop, &bench("--dropout", "1.5"), &["hidden_dropout_prob requires a probability", "got 1.5"]);
    fails(&workshop, &bench("--micro-batch-size", "0"), &["rows requires", "got 0"]);
    assert!(!workshop.path("run/metrics.jsonl").exists() && !workshop.path("imported").exists());
}

#[cfg(unix)]
#[test]
fn gigabyte_lines_are_split_or_rejected_within_1_5_gb_of_memory() {
    let workshop = Workshop::new();
    // The file on disk has a few kilobytes: concatenated zstandard frames.
    let frame = |text: &str| zstd::encode_all(text.as_bytes(), 1).expect("it is compressed");
    let gigabyte = frame(&"x".repeat(1 << 24)).repeat(64);
    let prepare = |file: &str, start: &str, end: &str| {
        let bytes = [frame(start), gigabyte.clone(), frame(end)].concat();
        std::fs::write(workshop.path(file), bytes).expect("the file is written");
        let out = file.replace('.', "-");
        let mut command = std::process::Command::new("sh");
        command.args(["-c", "ulimit -v 1500000; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_lambert"), "prepare"]);
        command.args(["text.txt", file, "--tokenizer", "tokenizer", "--held-out", "0", "--out", &out]);
        command.current_dir(workshop.path("."));
        let output = command.output().expect("a shell starts");
        (output.status.code(), text(&output))
    };
    let (code, message) = prepare("line.txt.zst", "", "");
    assert!(code == Some(0) && message.contains("split 1 line of more than 1 MiB"), "{message}");
    let record = prepare("record.jsonl.zst", "{\"text\": \"", "\"}\n");
    let page =
        prepare("page.xml.zst", "<mediawiki><page><title>Huge</title><ns>0</ns><text>", "</text></page></mediawiki>");
    for ((code, message), required) in
        [(record, "a line of more than 67108864 bytes"), (page, "a page of at most 128 MiB")]
    {
        assert!(code == Some(1) && message.contains(required), "{code:?}: {message}");
    }
}
