//! Byte-level BPE and Unigram: training, encoding, prepared data, and which tokenizers belong together. The `tokenizers` library is
//! the reference.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lambert::data::{
    Dataset, ExampleConfig, ExampleMode, PairForm, PreparedData, SpecialIds, Split, Tokenizer, TokenizerFiles,
    TokenizerRules, WordMark,
};
use serde_json::{Value, json};

use crate::common::{Workshop, refused, text};

/// A text of several scripts, as JSON of documents.
fn documents() -> Vec<String> {
    let languages: Value =
        serde_json::from_str(include_str!("../fixtures/languages.json")).expect("the fixture is JSON");
    let texts = languages.as_array().unwrap().iter().map(|language| language["text"].as_str().unwrap().to_owned());
    texts.chain(["Two  spaces, a tab\tand an emoji 🙂; e\u{301}.".to_owned()]).collect()
}

struct Subwords(Workshop);

impl Subwords {
    fn new() -> Subwords {
        let subwords = Subwords(Workshop::new());
        let text: String = documents().iter().map(|document| format!("{document}\n\n").repeat(3)).collect();
        fs::write(subwords.path("text.txt"), text).unwrap();
        subwords
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path(name)
    }

    fn train(&self, model: &str, out: &str, more: &[&str]) -> String {
        let size = if model == "bpe" { "600" } else { "1200" };
        let train = ["tokenizer", "train", "text.txt", "--model", model, "--vocab-size", size, "--out", out];
        text(&self.0.succeed(&[&train[..], more].concat()))
    }

    fn open(&self, name: &str) -> Tokenizer {
        Tokenizer::open(&self.path(name), false).unwrap()
    }

    /// Returns the tokenizer of the library for a directory, for which special tokens in a text are plain text.
    fn reference(&self, name: &str) -> tokenizers::Tokenizer {
        let mut reference = tokenizers::Tokenizer::from_file(self.path(name).join("tokenizer.json")).unwrap();
        reference.set_encode_special_tokens(true);
        reference
    }

    /// Writes a copy of a tokenizer whose `tokenizer.json` is edited.
    fn edited(&self, from: &str, to: &str, edit: impl FnOnce(&mut Value)) {
        fs::create_dir_all(self.path(to)).unwrap();
        fs::copy(self.path(from).join("tokenizer_config.json"), self.path(to).join("tokenizer_config.json")).unwrap();
        let mut json: Value = read_json(&self.path(from).join("tokenizer.json"));
        edit(&mut json);
        fs::write(self.path(to).join("tokenizer.json"), json.to_string()).unwrap();
    }
}

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn encode(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    let mut ids = Vec::new();
    tokenizer.encode(text, &mut ids).unwrap();
    ids
}

#[test]
fn equal_text_gives_equal_tokenizers_that_encode_as_the_library() {
    let subwords = Subwords::new();
    for (model, mark, more) in [
        ("bpe", WordMark::ByteLevelSpace, &["--cased"][..]),
        ("bpe", WordMark::ByteLevelSpace, &["--tokenize-chinese-chars", "true"]),
        ("unigram", WordMark::Space, &["--cased"]),
        ("unigram", WordMark::Space, &[]),
    ] {
        let [first, second] = ["first", "second"].map(|name| format!("{model}-{}-{name}", more.len()));
        subwords.train(model, &first, more);
        subwords.train(model, &second, more);
        assert!(subwords.train(model, &first, more).contains("up to date"));
        for file in ["tokenizer.json", "tokenizer_config.json"] {
            let [first, second] = [&first, &second].map(|name| fs::read(subwords.path(name).join(file)).unwrap());
            assert_eq!(first, second, "{model}: {file}");
        }
        let (tokenizer, reference) = (subwords.open(&first), subwords.reference(&first));
        let vocabulary = tokenizer.vocabulary();
        assert_eq!(vocabulary.special(), SpecialIds { pad: 0, unk: 1, cls: 2, sep: 3, mask: 4 });
        assert_eq!((vocabulary.pair_form(), vocabulary.word_mark()), (PairForm::BERT, mark));
        assert!(matches!(tokenizer.rules(), TokenizerRules::Pipeline(_)));
        for text in documents().iter().flat_map(|document| [document.as_str(), &document[..0]]) {
            let expected = reference.encode_fast(text, false).unwrap();
            assert_eq!(encode(&tokenizer, text), expected.get_ids(), "{model}: {text}");
        }
        let special = "a <s> b</s><mask> <pad>";
        assert!(encode(&tokenizer, special).iter().all(|&id| id == 1 || id > 4), "a text has no special token");
    }
    // The lengths of a vocabulary are those of the files.
    let tokenizer = subwords.open("bpe-1-first");
    assert_eq!(tokenizer.vocabulary().len(), 600);
    assert!(tokenizer.vocabulary().text(encode(&tokenizer, "It")[0]).unwrap().0, "a word has a space before it");
}

#[test]
fn sentences_are_encoded_as_in_their_document() {
    let subwords = Subwords::new();
    subwords.train("bpe", "bpe", &["--cased"]);
    // As RoBERTa's, which has no space before the first word of a text.
    subwords.edited("bpe", "without", |json| json["pre_tokenizer"]["add_prefix_space"] = false.into());
    let document = "Oranges are fruit. They grow on trees. \"Why?\" he asked.";
    fs::write(subwords.path("one.txt"), format!("{document}\n\n{document}\nApples too.\n\n")).unwrap();
    for (number, tokenizer) in ["bpe", "without"].into_iter().enumerate() {
        let out = format!("prepared{number}");
        let (_, directory) = (&tokenizer, subwords.path(&out));
        subwords.0.succeed(&["prepare", "one.txt", "--tokenizer", tokenizer, "--held-out", "0", "--out", &out]);
        let prepared = PreparedData::open(&directory).unwrap();
        let tokenizer = subwords.open(tokenizer);
        let documents = prepared.documents(Split::Train);
        for (index, text) in [document.to_owned(), format!("{document} Apples too.")].into_iter().enumerate() {
            let found = documents.get(index);
            let starts = found.starts;
            assert!(starts.len() > 3, "several sentences");
            let ids = found.shard.read_tokens(starts[0]..starts[starts.len() - 1]).unwrap();
            assert_eq!(ids, encode(&tokenizer, &text), "{text}");
        }
        text(&subwords.0.succeed(&["prepare", "--check", &out]));
        fs::remove_file(directory.join("tokenizer/tokenizer_config.json")).unwrap();
        refused(
            &subwords.0.lambert(&["prepare", "--check", &out]),
            &["tokenizer_config.json", "a file of the tokenizer"],
        );
    }
}

#[test]
fn whole_words_are_masked_together() {
    let subwords = Subwords::new();
    for model in ["bpe", "unigram"] {
        subwords.train(model, model, &["--cased"]);
        let out = format!("{model}-data");
        subwords.0.succeed(&["prepare", "text.txt", "--tokenizer", model, "--held-out", "0", "--out", &out]);
        let prepared = Arc::new(PreparedData::open(&subwords.path(&out)).unwrap());
        let mut config = ExampleConfig { whole_word_mask: true, ..ExampleConfig::bert(64, 10) };
        for mode in [ExampleMode::NextSentence, ExampleMode::FullSentences] {
            config.mode = mode;
            let dataset = Dataset::new(prepared.clone(), Split::Train, config.clone()).unwrap();
            let vocabulary = prepared.vocabulary();
            let (mut words, mut pieces) = (0, 0);
            for number in 0..40 {
                let example = dataset.example(number).unwrap();
                let masked = |position: usize| example.targets.positions.contains(&position);
                for (position, &token) in example.tokens.iter().enumerate() {
                    let original = example.targets.positions.iter().position(|&at| at == position);
                    let id = original.map_or(token, |at| example.targets.ids[at]);
                    let special = vocabulary.special();
                    let before = example.tokens[position.saturating_sub(1)];
                    if vocabulary.is_continuation(id) && before != special.cls && before != special.sep {
                        assert_eq!(masked(position), masked(position - 1), "{model}: a word is masked as a whole");
                        pieces += usize::from(masked(position));
                    } else if masked(position) {
                        words += 1;
                    }
                }
            }
            assert!(words > 50 && pieces > 20, "{model}: {words} words, {pieces} more pieces");
        }
    }
    // Without marks, no word is known.
    subwords.edited("bpe", "unmarked", |json| {
        json["pre_tokenizer"] = json!({ "type": "Whitespace" });
        json["decoder"] = Value::Null;
    });
    let prepare = ["prepare", "text.txt", "--tokenizer", "unmarked", "--held-out", "0", "--out", "unmarked-data"];
    subwords.0.succeed(&prepare);
    let prepared = Arc::new(PreparedData::open(&subwords.path("unmarked-data")).unwrap());
    assert_eq!(prepared.vocabulary().word_mark(), WordMark::None);
    let config = ExampleConfig { whole_word_mask: true, ..ExampleConfig::bert(64, 10) };
    let error = Dataset::new(prepared, Split::Train, config).unwrap_err().to_string();
    assert!(error.contains("whole_word_mask: requires a tokenizer whose tokens mark"), "{error}");
}

#[test]
fn pairs_have_the_form_of_the_post_processor() {
    let subwords = Subwords::new();
    subwords.train("bpe", "bpe", &["--cased"]);
    subwords.0.succeed(&["prepare", "text.txt", "--tokenizer", "bpe", "--held-out", "0", "--out", "bpe-data"]);
    subwords.edited("bpe", "roberta", |json| {
        json["post_processor"] = json!({
            "type": "RobertaProcessing", "sep": ["</s>", 3], "cls": ["<s>", 2], "trim_offsets": true, "add_prefix_space": true,
        });
    });
    subwords.0.succeed(&["prepare", "text.txt", "--tokenizer", "roberta", "--held-out", "0", "--out", "roberta-data"]);
    let reference = subwords.reference("roberta");
    assert_eq!(
        subwords.open("roberta").vocabulary().pair_form(),
        PairForm { separators: 2, second_type: 0 },
        "as RoBERTa"
    );
    let prepared = Arc::new(PreparedData::open(&subwords.path("roberta-data")).unwrap());
    let dataset = Dataset::new(prepared, Split::Train, ExampleConfig::bert(48, 7)).unwrap();
    for number in 0..20 {
        let example = dataset.example(number).unwrap();
        let [a, b] = [0, 1].map(|i| example.layout.segments[i].tokens.len());
        assert_eq!(example.tokens.len(), a + b + 4);
        let separators: Vec<usize> = (0..example.tokens.len()).filter(|&at| example.tokens[at] == 3).collect();
        assert_eq!(separators, [a + 1, a + 2, a + b + 3]);
        let pair = reference.encode(("a", "b"), true).unwrap();
        assert_eq!(pair.get_ids().iter().filter(|&&id| id == 3).count(), 3);
        let row = dataset.batch(number, 1).unwrap();
        assert!(row.token_type_ids.iter().all(|&kind| kind == 0));
    }
    let short = Dataset::new(dataset.prepared().clone(), Split::Train, ExampleConfig::bert(5, 1)).unwrap_err();
    assert!(short.to_string().contains("sequence_length: requires at least 6 tokens"), "{short}");

    // As XLNet's, with [CLS] at the end.
    subwords.edited("bpe", "xlnet", |json| {
        for key in ["single", "pair"] {
            let template = json["post_processor"][key].as_array_mut().unwrap();
            let cls = template.remove(0);
            template.push(cls);
        }
    });
    subwords.edited("bpe", "random", |json| json["model"]["dropout"] = 0.1.into());
    let error = Tokenizer::open(&subwords.path("random"), false).unwrap_err().to_string();
    assert!(
        error.contains("requires model.dropout to be null, so that a text always has the same ids, got 0.1"),
        "{error}"
    );
    subwords.edited("bpe", "none", |json| json["post_processor"] = Value::Null);
    for name in ["xlnet", "none"] {
        let error = Tokenizer::open(&subwords.path(name), false).unwrap_err().to_string();
        assert!(error.contains("requires a post_processor that writes [CLS] a [SEP] b [SEP], got"), "{error}");
    }
}

#[test]
fn tokenizers_with_other_rules_or_roles_are_told_apart() {
    let subwords = Subwords::new();
    subwords.train("bpe", "bpe", &["--cased"]);
    subwords.train("unigram", "unigram", &["--cased"]);
    subwords.edited("bpe", "lower", |json| json["normalizer"]["lowercase"] = true.into());
    // The order of keys, and merges as older versions write them, make no difference.
    subwords.edited("bpe", "same", |json| {
        let merges = json["model"]["merges"].as_array_mut().unwrap();
        let joined =
            |pair: &mut Value| *pair = format!("{} {}", pair[0].as_str().unwrap(), pair[1].as_str().unwrap()).into();
        merges.iter_mut().for_each(joined);
    });
    let files = |name: &str| {
        let contents = ["tokenizer.json", "tokenizer_config.json"]
            .map(|file| (file, fs::read(subwords.path(name).join(file)).unwrap()));
        let content =
            |file: &str| contents.iter().find(|(name, _)| *name == file).map(|(_, content)| content.as_slice());
        TokenizerFiles::read(Path::new(name), content).unwrap().unwrap()
    };
    files("bpe").check_equal(&files("same"), "choose one").unwrap();
    let error = files("bpe").check_equal(&files("lower"), "choose one").unwrap_err().to_string();
    assert!(error.contains("the sha256 of normalizer, pre-tokenizer and merges is"), "{error}");
    assert!(files("bpe").check_equal(&files("unigram"), "choose one").is_err());
    assert_eq!(subwords.open("same").rules(), subwords.open("bpe").rules());

    let config = |name: &str, edit: &dyn Fn(&mut Value)| {
        subwords.edited("bpe", name, |_| ());
        let path = subwords.path(name).join("tokenizer_config.json");
        let mut json = read_json(&path);
        edit(&mut json);
        fs::write(path, json.to_string()).unwrap();
        Tokenizer::open(&subwords.path(name), false).map_or_else(|error| error.to_string(), |_| "opened".to_owned())
    };
    let gone = |json: &mut Value| *json = json!({});
    assert_eq!(config("usual", &gone), "opened", "the usual names need no setting");
    let error = config("absent", &|json| json["mask_token"] = "<blank>".into());
    assert!(error.contains("mask_token to name a token of the vocabulary, got <blank>"), "{error}");
    let error = config("twice", &|json| json["cls_token"] = "</s>".into());
    assert!(error.contains("sep_token to be another token than those of other roles"), "{error}");
    let other = subwords.path("usual").join("special_tokens_map.json");
    fs::write(other, json!({ "cls_token": { "content": "</s>" } }).to_string()).unwrap();
    let error = config("usual", &|json| json["cls_token"] = "<s>".into());
    assert!(error.contains("special_tokens_map.json: requires cls_token to be \"<s>\""), "{error}");
    // Extension is for WordPiece.
    refused(
        &subwords.0.lambert(&["tokenizer", "extend", "bpe", "text.txt", "--out", "more"]),
        &["requires BERT's WordPiece, got a BPE tokenizer"],
    );
    refused(
        &subwords.0.lambert(&[
            "tokenizer",
            "train",
            "text.txt",
            "--model",
            "bpe",
            "--vocab-size",
            "200",
            "--out",
            "small",
        ]),
        &["vocab_size: requires at least 261 tokens"],
    );
}
