//! Labelled files, from bytes on disk to batches and answers.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lambert::batch::{BatchSource, HostBatch, IGNORED_LABEL};
use lambert::data::{
    AnswerOptions, Column, DataError, ExampleLabels, Gold, LabelledExamples, LabelledSentences, LabelledTexts,
    Questions, SpanLogits, SquadVersion, TextColumns, TokenColumns, Tokenizer, Vocabulary, WindowOptions, WordRules,
    fingerprint,
};
use serde_json::json;

fn tokenizer() -> Tokenizer {
    let specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(String::from);
    let letters = "abcdefghijklmnopqrstuvwxyz0123456789".chars().flat_map(|c| [c.to_string(), format!("##{c}")]);
    let others = "good bad film the a . , ( ) -".split(' ').filter(|token| *token != "a").map(str::to_owned);
    let tokens = specials.into_iter().chain(letters).chain(others).collect();
    Tokenizer::new(Vocabulary::new(tokens).unwrap(), WordRules::bert(true))
}

fn write(directory: &Path, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
    let path = directory.join(name);
    std::fs::write(&path, content).unwrap();
    path
}

fn compressed(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

fn columns() -> TextColumns {
    TextColumns { text_pair: Some(Column::Name("text_pair".into())), ..TextColumns::default() }
}

fn ints(batch: &HostBatch, name: &str) -> Vec<i32> {
    batch.tensor(name).unwrap().to_vec().unwrap()
}

#[test]
fn formats_and_compressions_give_the_same_batches() {
    let directory = tempfile::tempdir().unwrap();
    let tsv = "label\ttext\ttext_pair\ngood\ta good film\tthe film\nbad\tbad, bad\ta \"film\"\n";
    let csv = "text_pair,text,label\nthe film,a good film,good\r\n\"a \"\"film\"\"\",\"bad, bad\",bad\r\n";
    let jsonl = [
        json!({"label": "good", "text": "a good film", "text_pair": "the film", "id": [1]}),
        json!({"label": "bad", "text": "bad, bad", "text_pair": "a \"film\""}),
    ];
    let jsonl = jsonl.map(|line| line.to_string()).join("\n");
    let files = [
        ("a.tsv", tsv.as_bytes().to_vec()),
        ("a.tsv.gz", compressed(tsv)),
        ("a.csv.zst", zstd::encode_all(csv.as_bytes(), 1).unwrap()),
        ("a.jsonl", jsonl.into_bytes()),
    ];
    let batches = files.map(|(name, content)| {
        let texts = LabelledTexts::read(&write(directory.path(), name, content), &columns()).unwrap();
        let names = texts.label_names(None).unwrap();
        assert_eq!(names.names(), ["bad", "good"]);
        LabelledExamples::classification(&texts, &names, &tokenizer(), 16).unwrap().rows(0, 2).unwrap()
    });
    assert_eq!(ints(&batches[0], "labels"), [1, 0]);
    assert!(batches.iter().all(|batch| batch == &batches[0]));
}

#[test]
fn labels_of_the_dev_file_must_occur_in_the_training_file() {
    let directory = tempfile::tempdir().unwrap();
    let train = write(directory.path(), "train.tsv", "text\tlabel\na\tgood\nb\tbad\n");
    let dev = write(directory.path(), "dev.tsv", "text\tlabel\na\tgood\nb\tfair\n");
    let names = LabelledTexts::read(&train, &TextColumns::default()).unwrap().label_names(None).unwrap();
    let dev_texts = LabelledTexts::read(&dev, &TextColumns::default()).unwrap();
    let error = LabelledExamples::classification(&dev_texts, &names, &tokenizer(), 16).map(drop).unwrap_err();
    let expected = format!(
        "{}: requires one of the labels \"bad\", \"good\" on line 3, got \"fair\"; correct it, or add examples with it to {}",
        dev.display(),
        train.display()
    );
    assert_eq!(error.to_string(), expected);
}

#[test]
fn regression_takes_numbers_and_counts_truncated_texts() {
    let directory = tempfile::tempdir().unwrap();
    let path = write(directory.path(), "train.tsv", "0.5\tgood film\n-2\tthe bad film\n");
    let columns = TextColumns { text: Column::Number(2), text_pair: None, label: Some(Column::Number(1)) };
    let texts = LabelledTexts::read(&path, &columns).unwrap();
    let examples = LabelledExamples::regression(&texts, &tokenizer(), 5).unwrap();
    assert_eq!(*examples.labels(), ExampleLabels::Values(vec![0.5, -2.0]));
    assert_eq!((examples.truncated(), examples.len()), (0, 2));
    let longer = write(directory.path(), "dev.tsv", "0.5\tgood film\n-2\tthe bad bad film\n");
    let texts = LabelledTexts::read(&longer, &columns).unwrap();
    assert_eq!(LabelledExamples::regression(&texts, &tokenizer(), 5).unwrap().truncated(), 1);
    let batch = examples.shuffled(1).rows(7, 3).unwrap();
    assert_eq!(batch.tensor("labels").unwrap().to_vec::<f32>().unwrap().len(), 3);
}

#[test]
fn words_of_conll_files_have_labels_on_their_first_piece() {
    let directory = tempfile::tempdir().unwrap();
    let path = write(directory.path(), "train.conll", "-DOCSTART- O\n\nGood NNP B-X\nab NN I-X\n. . O\n\nbad JJ O\n");
    let sentences = LabelledSentences::read(&path, &TokenColumns::default()).unwrap();
    let names = sentences.label_names(None).unwrap();
    let examples = LabelledExamples::token_classification(&sentences, &names, &tokenizer(), 8).unwrap();
    let ignored = IGNORED_LABEL;
    let expected = [[ignored, 0, 1, ignored, 2, ignored, ignored, ignored], [ignored; 8]].concat();
    let mut labels = ints(&examples.rows(0, 2).unwrap(), "labels");
    assert_eq!(std::mem::replace(&mut labels[9], ignored), 2);
    assert_eq!(labels, expected);
    assert_eq!(examples.labels().class_counts(names.len()), [1, 1, 2]);
}

/// Writes a file with a context of several windows and one question about it.
fn squad(directory: &Path) -> PathBuf {
    let context = format!("{} the \"Film\" of Émile (1999-2001), good. {}", "a b c ".repeat(9), "d e f ".repeat(9));
    let start = context.chars().position(|c| c == 'É').unwrap();
    let answers =
        json!([{"text": "Émile (1999-2001", "answer_start": start}, {"text": "Émile", "answer_start": start}]);
    let qas = json!([
        {"id": "one", "question": "Who?", "answers": answers},
        {"id": "two", "question": "Where?", "answers": [], "is_impossible": true}
    ]);
    let file = json!({"version": "v2.0", "data": [{"paragraphs": [{"context": context, "qas": qas}]}]});
    write(directory, "dev.json", file.to_string())
}

#[test]
fn logits_at_the_labels_give_back_the_answers() {
    let directory = tempfile::tempdir().unwrap();
    let path = squad(directory.path());
    let questions = Arc::new(Questions::read(&path, SquadVersion::V2).unwrap());
    let options = WindowOptions { sequence_length: 40, stride: 10, question_length: 8 };
    let (examples, windows) = LabelledExamples::question_answering(questions.clone(), &tokenizer(), options).unwrap();
    assert!(windows.examples_of(0).len() > 3, "the context takes several windows");
    let batch = examples.rows(0, examples.len()).unwrap();
    let logits = ["start_positions", "end_positions"].map(|name| {
        let positions = ints(&batch, name);
        let one_hot = |&position: &i32| (0..40).map(|i| if i == position { 5.0 } else { 0.0 }).collect();
        positions.iter().map(one_hot).collect::<Vec<Vec<f32>>>()
    });
    let [starts, ends] = &logits;
    let logits: Vec<SpanLogits> = starts.iter().zip(ends).map(|(start, end)| SpanLogits { start, end }).collect();
    let answers =
        windows.answers(&tokenizer(), &logits, AnswerOptions { null_threshold: Some(0.0), ..Default::default() });
    let answers = answers.unwrap();
    let Gold::Answers(gold) = &questions.questions()[0].gold else { panic!("question one has answers") };
    assert_eq!((&answers[0].text, answers[0].start), (&gold[0].text, Some(gold[0].start)));
    assert!(answers[0].null_score_difference.unwrap() < 0.0);
    assert_eq!((answers[1].text.as_str(), answers[1].start), ("", None));
    assert!(answers[1].null_score_difference.unwrap() > 0.0);
}

#[test]
fn the_version_of_squad_must_be_that_of_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let error = Questions::read(&squad(directory.path()), SquadVersion::V1).map(drop).unwrap_err();
    assert!(matches!(error, DataError::File { .. }));
    assert!(error.to_string().contains("question \"two\""), "{error}");
}

#[test]
fn a_fingerprint_depends_on_the_bytes_and_order_of_files() {
    let directory = tempfile::tempdir().unwrap();
    let [a, b, copy] = [("a", "1"), ("b", "2"), ("c", "1")].map(|(name, text)| write(directory.path(), name, text));
    let of = |files: [&Path; 2]| fingerprint(files).unwrap();
    assert_eq!(of([&a, &b]), of([&copy, &b]));
    assert_ne!(of([&a, &b]), of([&b, &a]));
}
