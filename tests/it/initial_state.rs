//! The weights that a run starts from fit the run: the same vocabulary and rules of words in every form of their files, a row for each
//! token, the same configuration, finite values. Nothing here needs a device.

use std::path::PathBuf;
use std::sync::Arc;

use lambert::bert::{Activation, BertConfig, Head, param_specs_of};
use lambert::checkpoint::{Checkpoint, Keep, RunDirectory, State};
use lambert::data::{PreparedData, TextPair};
use lambert::predict::TextModel;
use lambert::predict::classify::ClassifiedTexts;
use lambert::run::initial_state::{InitialState, Resumable, ResumeOptions, RunOnData};
use lambert::run::weights::{config_json, export_model, import_checkpoint, open_model};
use lambert::run::{Run, preflight};
use lambert::train::evaluate::ModelOnHeldOut;

use crate::common::Workshop;

const RESUME: ResumeOptions = ResumeOptions { resume: true, accept_changes: false };
const ACCEPT: ResumeOptions = ResumeOptions { resume: true, accept_changes: true };

/// A workshop with more data: `swapped` has the same tokens with other ids, `divided` the same vocabulary and other documents in
/// each split, `cased` the same vocabulary and no lower-casing.
struct Files(Workshop);

impl Files {
    fn new() -> Files {
        let files = Files(Workshop::new());
        files.0.run_file("run.toml", "run", |text| text);
        std::fs::create_dir(files.path("swapped-tokenizer")).unwrap();
        let swapped = files.vocabulary().replace("\ncat\n", "\n???\n").replace("\ndog\n", "\ncat\n");
        files.write("swapped-tokenizer/vocab.txt", &swapped.replace("\n???\n", "\ndog\n"));
        for (data, tokenizer, more) in [
            ("swapped", "swapped-tokenizer", &["--held-out", "0.2"][..]),
            ("divided", "tokenizer", &["--held-out", "0.3"]),
            ("cased", "data/tokenizer/vocab.txt", &["--held-out", "0.2", "--cased"]),
        ] {
            files.0.succeed(&[&["prepare", "text.txt", "--tokenizer", tokenizer, "--out", data], more].concat());
        }
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path(name)
    }

    fn write(&self, name: &str, content: &str) {
        std::fs::write(self.path(name), content).unwrap();
    }

    /// Returns the text of the vocabulary of `data`.
    fn vocabulary(&self) -> String {
        std::fs::read_to_string(self.path("data/tokenizer/vocab.txt")).unwrap()
    }

    fn open(&self, overrides: &[&str]) -> anyhow::Result<Run> {
        let absolute = |key: &str, name: &str| format!("{key}={}", self.path(name).display());
        let mut all = vec![absolute("data.path", "data"), absolute("checkpoint.directory", "run")];
        all.extend(overrides.iter().map(|set| match set.split_once("=@") {
            Some((key, name)) => absolute(key, name),
            None => (*set).to_owned(),
        }));
        Run::open(&self.path("run.toml"), &all)
    }

    /// Writes a checkpoint of `model` with the vocabulary `vocabulary` that `run` trained, or that was imported without one. Its
    /// tokenizer lower-cases.
    fn save(&self, name: &str, model: &BertConfig, vocabulary: Option<&str>, run: Option<&Run>) {
        self.save_with_rules(name, model, vocabulary, Some(r#"{"do_lower_case": true}"#), run);
    }

    /// As [`Files::save`], with the content of `tokenizer_config.json`.
    fn save_with_rules(
        &self,
        name: &str,
        model: &BertConfig,
        vocabulary: Option<&str>,
        rules: Option<&str>,
        run: Option<&Run>,
    ) {
        let mut files = vec![(
            "config.json".to_owned(),
            serde_json::to_vec(&config_json(model, &Head::Pretraining).unwrap()).unwrap(),
        )];
        files.extend(vocabulary.map(|text| ("vocab.txt".to_owned(), text.as_bytes().to_vec())));
        files.extend(rules.map(|text| ("tokenizer_config.json".to_owned(), text.as_bytes().to_vec())));
        files.extend(run.map(|run| ("run.toml".to_owned(), run.text.clone().into_bytes())));
        let fingerprint = run.map(|run| {
            let prepared = PreparedData::open(run.data.path.local()).unwrap();
            RunOnData { run, prepared: &prepared }.fingerprint()
        });
        let checkpoint = Checkpoint {
            state: State { run_fingerprint: fingerprint.unwrap_or_default(), ..State::default() },
            model: param_specs_of(model, &Head::Pretraining).iter().map(|s| (s.name.clone(), s.initial(1))).collect(),
            optimizer: Vec::new(),
            files,
        };
        RunDirectory::new(&self.path(name), Keep::ALL).save(&checkpoint).unwrap();
    }

    /// Writes the checkpoint `name` as the Hugging Face directory `out`.
    fn export(&self, name: &str, out: &str) {
        export_model(&self.path(name), None, None, &self.path(out)).unwrap();
    }

    /// Finds the initial state of the run file with `overrides`, and returns the notes or the error, without the directory.
    fn start(&self, overrides: &[&str], options: ResumeOptions) -> Result<Vec<String>, String> {
        let start = || {
            let run = self.open(overrides)?;
            let (prepared, note) = preflight::open_data(&run)?;
            let (_, notes) = InitialState::find(&RunOnData { run: &run, prepared: &prepared }, options)?;
            Ok(note.into_iter().chain(notes).collect::<Vec<_>>())
        };
        let shown = |text: String| text.replace(&format!("{}/", self.path("").display()).replace("//", "/"), "");
        let found: anyhow::Result<Vec<String>> = start();
        found.map(|notes| notes.into_iter().map(shown).collect()).map_err(|error| shown(format!("{error:#}")))
    }

    #[track_caller]
    fn refuses(&self, overrides: &[&str], options: ResumeOptions, expected: &[&str]) {
        let message = self.start(overrides, options).expect_err("an error");
        expected
            .iter()
            .for_each(|part| assert!(message.contains(part), "{overrides:?}: {part:?} is not in: {message}"));
    }

    fn model(&self) -> BertConfig {
        self.open(&[]).unwrap().model
    }
}

const DIFFERENT: &str = "hold different vocabularies: token \"cat\" has id ";

#[test]
fn imported_weights_require_the_vocabulary_of_the_data() {
    let files = Files::new();
    let (model, words) = (files.model(), files.vocabulary());
    files.save("weights", &model, Some(&words), None);
    files.export("weights", "bert");
    let import = ResumeOptions::default();
    for weights in ["weights", "weights/step-00000000", "bert"] {
        let set = format!("import=@{weights}");
        assert_eq!(files.start(&[&set], import), Ok(Vec::new()), "{weights}");
        files.refuses(
            &[&set, "data.path=@swapped"],
            import,
            &[
                "import: ",
                "vocab.txt and swapped/tokenizer/vocab.txt",
                DIFFERENT,
                "and 2 of 118 ids",
                "prepare the data with",
            ],
        );
    }

    // Equal vocabularies in files with other bytes.
    for (name, text) in [("crlf", words.replace('\n', "\r\n")), ("cut", words.trim_end().to_owned())] {
        files.save(name, &model, Some(&text), None);
        assert_eq!(files.start(&[&format!("import=@{name}")], import), Ok(Vec::new()), "{name}");
        let refused = format!("{name}/step-00000000/vocab.txt and swapped/tokenizer/vocab.txt");
        files.refuses(&[&format!("import=@{name}"), "data.path=@swapped"], import, &[&refused, DIFFERENT]);
    }

    // Only tokenizer.json.
    std::fs::copy(files.path("tokenizer/tokenizer.json"), files.path("bert/tokenizer.json")).unwrap();
    std::fs::remove_file(files.path("bert/vocab.txt")).unwrap();
    assert_eq!(files.start(&["import=@bert"], import), Ok(Vec::new()));
    files.refuses(&["import=@bert", "data.path=@swapped"], import, &["bert/tokenizer.json and swapped", DIFFERENT]);

    // No tokenizer.
    std::fs::remove_file(files.path("bert/tokenizer.json")).unwrap();
    let notes = files.start(&["import=@bert"], import).unwrap();
    let unknown = "note: bert holds no tokenizer, so its vocabulary cannot be compared with data/tokenizer/vocab.txt";
    assert_eq!(notes, [unknown]);
}

#[test]
fn rules_of_words_are_compared_wherever_vocabularies_are() {
    let files = Files::new();
    let (model, words) = (files.model(), files.vocabulary());
    let differing = |weights: &str, data: &str| {
        format!(
            "{weights} and {data}/prepared.json state different rules of words: lowercase is true in the first and false in the \
             second, strip_accents is true in the first and false in the second; "
        )
    };
    let import = ResumeOptions::default();
    let refused = differing("weights/step-00000000/tokenizer_config.json", "cased");

    // Imported weights, and a checkpoint that `lambert import` wrote.
    files.save("weights", &model, Some(&words), None);
    files.refuses(&["import=@weights", "data.path=@cased"], import, &["import: ", &refused, "prepare the data with"]);
    files.export("weights", "bert");
    import_checkpoint(&files.path("bert"), &files.path("imported")).unwrap();
    let imported = ["checkpoint.directory=@imported", "data.path=@cased"];
    for options in [RESUME, ACCEPT] {
        let refused = differing(
            "cannot resume from imported/step-00000000: imported/step-00000000/tokenizer_config.json",
            "cased",
        );
        files.refuses(&imported, options, &[&refused, "a run keeps its tokenizer"]);
    }

    // An evaluation.
    let cased = Arc::new(PreparedData::open(&files.path("cased")).unwrap());
    let found = open_model(&files.path("weights")).unwrap();
    let error = format!("{:#}", ModelOnHeldOut::open(found, &cased, Some(24), None).unwrap_err());
    assert!(error.contains("cased/prepared.json state different rules of words: lowercase is true"), "{error}");
    assert!(error.ends_with("; prepare the text with the model's tokenizer"), "{error}");

    // Each setting counts; null follows do_lower_case; a tokenizer that states nothing is noted.
    let start = |name: &str, rules: Option<&str>| {
        files.save_with_rules(name, &model, Some(&words), rules, None);
        files.start(&[&format!("import=@{name}")], import)
    };
    let null = r#"{"do_lower_case": true, "strip_accents": null, "tokenize_chinese_chars": null}"#;
    assert_eq!(start("null", Some(null)), Ok(Vec::new()));
    for (name, config, differing) in [
        (
            "accents",
            r#"{"do_lower_case": true, "strip_accents": false}"#,
            "words: strip_accents is false in the first and true in",
        ),
        (
            "chinese",
            r#"{"do_lower_case": true, "tokenize_chinese_chars": false}"#,
            "words: tokenize_chinese_chars is false in",
        ),
    ] {
        let message = start(name, Some(config)).unwrap_err();
        assert!(message.contains(differing), "{message}");
    }
    let note = "note: silent/step-00000000 states no rules of words (lowercase, strip_accents, tokenize_chinese_chars), so they cannot \
                be compared with data/prepared.json";
    assert_eq!(start("silent", None), Ok(vec![note.to_owned()]));

    // The checkpoint of a run: the settings of the data differ, too.
    let run = files.open(&[]).unwrap();
    files.save("run", &run.model, Some(&words), Some(&run));
    assert_eq!(files.start(&[], RESUME), Ok(Vec::new()));
    for options in [RESUME, ACCEPT] {
        let refused = differing("run/step-00000000/tokenizer_config.json", "cased");
        files.refuses(&["data.path=@cased"], options, &["settings: the data)", &refused, "a run keeps its tokenizer"]);
    }
}

#[test]
fn a_checkpoint_of_an_import_is_resumed_with_its_vocabulary_and_configuration_only() {
    let files = Files::new();
    files.save("weights", &files.model(), Some(&files.vocabulary()), None);
    files.export("weights", "bert");
    let imported = import_checkpoint(&files.path("bert"), &files.path("run")).unwrap();
    assert!(imported.notes.is_empty(), "{:?}", imported.notes);
    let state = open_model(&files.path("run")).unwrap().checkpoint.state;
    let prepared = PreparedData::open(&files.path("data")).unwrap();
    assert_eq!(state.vocabulary_sha256, prepared.vocabulary().sha256());
    for options in [RESUME, ACCEPT] {
        assert_eq!(files.start(&[], options), Ok(Vec::new()));
        let checkpoint =
            "cannot resume from run/step-00000000: run/step-00000000/vocab.txt and swapped/tokenizer/vocab.txt";
        files.refuses(&["data.path=@swapped"], options, &[checkpoint, DIFFERENT, "a run keeps its tokenizer"]);
        files.refuses(
            &["model.num_attention_heads=4"],
            options,
            &[
                "cannot resume from run/step-00000000: [model] requires",
                "num_attention_heads = 2 (got 4); set these keys",
            ],
        );
    }
}

#[test]
fn imported_weights_require_the_configuration_that_they_were_trained_with() {
    let files = Files::new();
    let base = files.model();
    let refused = |change: &dyn Fn(&mut BertConfig), expected: &str| {
        let mut model = base.clone();
        change(&mut model);
        let _ = std::fs::remove_dir_all(files.path("weights"));
        files.save("weights", &model, Some(&files.vocabulary()), None);
        let values = format!("weights/step-00000000/config.json: {expected}; set these keys of [model]");
        files.refuses(
            &["import=@weights"],
            ResumeOptions::default(),
            &["import: [model] requires the values", &values],
        );
    };
    refused(&|c| c.num_attention_heads = 4, "num_attention_heads = 4 (got 2)");
    refused(&|c| c.hidden_act = Activation::GeluTanh, "hidden_act = \"gelu_new\" (got \"gelu\")");
    refused(&|c| c.layer_norm_eps = 0.001, "layer_norm_eps = 0.001 (got 1e-12)");
    refused(&|c| c.type_vocab_size = 3, "type_vocab_size = 3 (got 2)");
    refused(
        &|c| (c.num_hidden_layers, c.intermediate_size) = (2, 64),
        "intermediate_size = 64 (got 32), num_hidden_layers = 2 (got 1)",
    );
    let of_training = BertConfig { hidden_dropout_prob: 0.3, initializer_range: 0.01, ..base.clone() };
    let _ = std::fs::remove_dir_all(files.path("weights"));
    files.save("weights", &of_training, Some(&files.vocabulary()), None);
    assert_eq!(files.start(&["import=@weights"], ResumeOptions::default()), Ok(Vec::new()));
}

#[test]
fn a_resumed_run_keeps_its_vocabulary_and_its_sizes() {
    let files = Files::new();
    let run = files.open(&[]).unwrap();
    files.save("run", &run.model, Some(&files.vocabulary()), Some(&run));
    assert_eq!(files.start(&[], RESUME), Ok(Vec::new()));
    let different =
        ["run/step-00000000/vocab.txt and swapped/tokenizer/vocab.txt", DIFFERENT, "a run keeps its tokenizer"];
    for options in [RESUME, ACCEPT] {
        files.refuses(&["data.path=@swapped"], options, &different);
        files.refuses(
            &["data.path=@swapped", "seed=3"],
            options,
            &[&different[..], &["settings: seed, the data)"]].concat(),
        );
    }
    // Everything that differs is named.
    for (overrides, differing) in [
        (&["seed=3"][..], "seed"),
        (&["data.path=@divided"], "the data"),
        (&["seed=3", "data.path=@divided"], "seed, the data"),
        (&["seed=3", "phase.2.steps=9", "optimizer.beta1=0.5"], "optimizer.beta1, phase.2.steps, seed"),
    ] {
        files.refuses(overrides, RESUME, &[&format!("it was trained with other settings ({differing}); restore them")]);
        let notes = files.start(overrides, ACCEPT).unwrap();
        assert_eq!(notes, [format!("resuming with changed settings: {differing}")]);
    }
    // The padded tensors would fit.
    files.refuses(
        &["model.vocab_size=120"],
        ACCEPT,
        &["cannot resume from run/step-00000000: its weights require vocab_size = 118, got 120; restore the key"],
    );
    let heads = files.start(&["model.num_attention_heads=4"], ACCEPT).unwrap();
    assert_eq!(heads, ["resuming with changed settings: model.num_attention_heads"]);
}

#[test]
fn a_model_has_a_row_for_each_token() {
    let files = Files::new();
    let (base, words) = (files.model(), files.vocabulary());
    assert_eq!(base.vocab_size, 118);
    let import = ResumeOptions::default();
    let fewer =
        "requires word embeddings with a row for each of the 118 tokens in data/tokenizer/vocab.txt, found [40, 16]";
    let rows = |owner: &str| format!("note: {owner} has 127 rows of word embeddings for 118 tokens; 9 are not used");

    // A new model.
    assert_eq!(files.start(&["model.vocab_size=127"], import), Ok(vec![rows("[model]")]));
    files.refuses(&["model.vocab_size=40"], import, &["[model]", fewer, "a larger vocab_size for a new model"]);

    // Weights with more rows than tokens: the run has as many, without vocab_size in its file.
    files.save("wide", &BertConfig { vocab_size: 127, ..base.clone() }, Some(&words), None);
    files.export("wide", "bert");
    for weights in ["wide", "bert"] {
        let set = format!("import=@{weights}");
        assert_eq!(files.open(&[&set]).unwrap().model.vocab_size, 127);
        assert_eq!(files.start(&[&set], import), Ok(vec![rows(&format!("the model of {weights}"))]));
        files.refuses(&[&set, "model.vocab_size=118"], import, &["vocab_size = 127 (got 118)"]);
    }
    let notes = import_checkpoint(&files.path("bert"), &files.path("imported")).unwrap().notes;
    assert_eq!(notes, [rows(&files.path("bert").display().to_string())]);
    let imported = "checkpoint.directory=@imported";
    assert_eq!(files.start(&[imported, "model.vocab_size=127"], RESUME), Ok(vec![rows("[model]")]));
    files.refuses(&[imported], RESUME, &["[model] requires the values", "vocab_size = 127 (got 118)"]);

    let prepared = Arc::new(PreparedData::open(&files.path("data")).unwrap());
    let evaluated = |name: &str, prepared: &Arc<PreparedData>| {
        let model = open_model(&files.path(name)).unwrap();
        let opened = ModelOnHeldOut::open(model, prepared, Some(24), None);
        opened.map(|model| model.notes).map_err(|error| format!("{error:#}"))
    };
    assert_eq!(evaluated("wide", &prepared), Ok(vec![rows(&files.path("wide/step-00000000").display().to_string())]));
    let predicted = |name: &str| {
        let opened = TextModel::open(open_model(&files.path(name)).unwrap(), None);
        opened.map(|model| model.note).map_err(|error| format!("{error:#}"))
    };
    assert_eq!(predicted("bert"), Ok(Some(rows(&files.path("bert").display().to_string()))));

    // Weights with fewer rows.
    files.save("narrow", &BertConfig { vocab_size: 40, ..base }, Some(&words), None);
    let found = "found [40, 16] (vocab_size 40)";
    files.refuses(&["import=@narrow"], import, &["the model of narrow", fewer]);
    for error in [evaluated("narrow", &prepared).unwrap_err(), predicted("narrow").unwrap_err()] {
        assert!(error.contains("a row for each of the 118 tokens") && error.contains(found), "{error}");
    }
    // An export writes no such directory; other programs may.
    std::fs::write(files.path("bert/vocab.txt"), words + &(0..10).map(|i| format!("more{i}\n")).collect::<String>())
        .unwrap();
    let error = import_checkpoint(&files.path("bert"), &files.path("again")).unwrap_err().to_string();
    assert!(error.contains("the id of token \"more9\" requires less than 127, the vocab_size"), "{error}");

    let swapped = Arc::new(PreparedData::open(&files.path("swapped")).unwrap());
    let error = evaluated("wide", &swapped).unwrap_err();
    assert!(error.contains(DIFFERENT) && error.contains("prepare the text with the model's tokenizer"), "{error}");
}

#[test]
fn pairs_require_two_token_types() {
    let files = Files::new();
    let one = "type_vocab_size requires at least 2, a token type for each segment of a sequence, got 1";
    let import = ResumeOptions::default();
    files.refuses(&["model.type_vocab_size=1"], import, &["run.toml", "[model]", one, "\"full_sentences\""]);
    files.refuses(&["model.type_vocab_size=1", "data.mode=sop"], import, &[one]);
    assert_eq!(files.start(&["model.type_vocab_size=1", "data.mode=full_sentences"], import), Ok(Vec::new()));

    let model = BertConfig { type_vocab_size: 1, ..files.model() };
    files.save("single", &model, Some(&files.vocabulary()), None);
    let found = open_model(&files.path("single")).unwrap();
    let prepared = Arc::new(PreparedData::open(&files.path("data")).unwrap());
    let error = format!("{:#}", ModelOnHeldOut::open(found.clone(), &prepared, Some(24), None).unwrap_err());
    assert!(error.contains("step-00000000 takes no pairs of sentences") && error.contains(one), "{error}");

    let classes = Head::SequenceClassification { labels: vec!["a".to_owned(), "b".to_owned()] };
    let model = TextModel::open(found.with_head(classes), None).unwrap();
    let text =
        |text_pair: Option<&str>| TextPair { text: "the cat".to_owned(), text_pair: text_pair.map(str::to_owned) };
    ClassifiedTexts::new(vec![text(None)], &model).unwrap();
    let error = format!("{:#}", ClassifiedTexts::new(vec![text(None), text(Some("a dog"))], &model).unwrap_err());
    assert!(error.contains("takes no pairs of texts") && error.contains(one), "{error}");
}

#[test]
fn a_run_directory_is_imported_without_a_model_table() {
    let files = Files::new();
    let model = BertConfig { layer_norm_eps: 0.001, ..files.model() };
    files.save("weights", &model, Some(&files.vocabulary()), None);
    let text = std::fs::read_to_string(files.path("run.toml")).unwrap();
    let (before, after) = (text.find("[model]").unwrap(), text.find("[optimizer]").unwrap());
    files.write("run.toml", &format!("{}{}", &text[..before], &text[after..]));
    assert_eq!(files.open(&["import=@weights"]).unwrap().model, model);
    assert_eq!(files.start(&["import=@weights"], ResumeOptions::default()), Ok(Vec::new()));
    files.refuses(&["import=@nowhere"], ResumeOptions::default(), &["run.toml", "import: nowhere", "does not exist"]);
}
