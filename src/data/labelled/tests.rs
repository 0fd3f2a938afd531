//! Compares the windows and answers of questions with those of transformers, which scripts/check/squad_features_reference.py
//! writes.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use super::{AnswerOptions, ExampleLabels, LabelledExamples, Questions, SpanLogits, SquadVersion, WindowOptions};
use crate::data::tokenizer::encode::Tokenizer;
use crate::data::tokenizer::vocabulary::Vocabulary;
use crate::data::tokenizer::wordpiece::WordRules;

#[derive(Deserialize)]
struct Fixture {
    options: Options,
    vocabulary: Vec<String>,
    squad: Value,
    windows: Vec<WindowFixture>,
    logits: Vec<[Vec<f32>; 2]>,
    answers: Vec<AnswerFixture>,
    answers_with_null: Vec<AnswerFixture>,
}

#[derive(Deserialize)]
struct Options {
    sequence_length: usize,
    stride: usize,
    question_length: usize,
    n_best: usize,
    longest_answer: usize,
    null_threshold: f64,
}

#[derive(Deserialize)]
struct WindowFixture {
    id: String,
    input_ids: Vec<u32>,
    second: usize,
    most_context: Vec<usize>,
    span: [i32; 2],
}

#[derive(Deserialize)]
struct AnswerFixture {
    id: String,
    text: String,
    null_score_difference: Option<f64>,
    candidates: Vec<(String, f64)>,
}

fn fixture() -> Fixture {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/squad_features.json"));
    serde_json::from_str(&text.unwrap()).unwrap()
}

/// Reads the questions of the fixture from a file.
fn questions(fixture: &Fixture) -> Arc<Questions> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("dev.json");
    std::fs::write(&path, fixture.squad.to_string()).unwrap();
    Arc::new(Questions::read(&path, SquadVersion::V2).unwrap())
}

fn tokenizer(fixture: &Fixture) -> Tokenizer {
    Tokenizer::new(Vocabulary::new(fixture.vocabulary.clone()).unwrap(), WordRules::bert(true))
}

fn window_options(options: &Options) -> WindowOptions {
    let &Options { sequence_length, stride, question_length, .. } = options;
    WindowOptions { sequence_length, stride, question_length }
}

#[test]
fn windows_equal_those_of_transformers() {
    let fixture = fixture();
    let (examples, windows) = LabelledExamples::question_answering(
        questions(&fixture),
        &tokenizer(&fixture),
        window_options(&fixture.options),
    )
    .unwrap();
    assert_eq!(examples.len(), fixture.windows.len());
    assert_eq!(examples.truncated(), 6, "questions with more tokens than question_length");
    let ExampleLabels::Spans(spans) = examples.labels() else { panic!("questions have spans") };
    for (question, of_question) in windows.of_question.iter().enumerate() {
        for window in of_question.clone() {
            let expected = &fixture.windows[window];
            let sequence = examples.sequence(window);
            let id = &expected.id;
            assert_eq!(&windows.questions().questions()[question].id, id, "window {window}");
            assert_eq!(*sequence.ids, expected.input_ids, "window {window} of {id}");
            assert_eq!(sequence.first, expected.second, "window {window} of {id}");
            assert_eq!(spans[window], expected.span, "window {window} of {id}");
            let has_most_context = |&position: &usize| {
                let token = windows.token_at(window, position);
                token.is_some_and(|token| windows.has_most_context(question, window, token))
            };
            let most_context: Vec<usize> = (0..fixture.options.sequence_length).filter(has_most_context).collect();
            assert_eq!(most_context, expected.most_context, "window {window} of {id}");
        }
    }
}

#[test]
fn answers_equal_those_of_transformers() {
    let fixture = fixture();
    let (questions, tokenizer) = (questions(&fixture), tokenizer(&fixture));
    let (_, windows) =
        LabelledExamples::question_answering(questions.clone(), &tokenizer, window_options(&fixture.options)).unwrap();
    let logits: Vec<SpanLogits> = fixture.logits.iter().map(|[start, end]| SpanLogits { start, end }).collect();
    let Options { n_best, longest_answer, null_threshold, .. } = fixture.options;
    for (null_threshold, expected) in [(None, &fixture.answers), (Some(null_threshold), &fixture.answers_with_null)] {
        let options = AnswerOptions { n_best, longest_answer, null_threshold };
        let answers = windows.answers(&tokenizer, &logits, options).unwrap();
        assert_eq!(answers.len(), expected.len());
        for ((answer, expected), question) in answers.iter().zip(expected).zip(questions.questions()) {
            let id = &expected.id;
            assert_eq!((&answer.id, &answer.text), (id, &expected.text));
            match (answer.null_score_difference, expected.null_score_difference) {
                (Some(found), Some(expected)) => assert!((found - expected).abs() < 1e-5, "{id}: {found}, {expected}"),
                (found, expected) => assert_eq!(found, expected, "{id}"),
            }
            assert_eq!(answer.candidates.len(), expected.candidates.len(), "{id}");
            for (candidate, (text, probability)) in answer.candidates.iter().zip(&expected.candidates) {
                assert_eq!(&candidate.text, text, "{id}");
                assert!((candidate.probability - probability).abs() < 1e-6, "{id}: {text:?}");
                // The text stands in the context, with any white space between its words.
                let rest = questions.contexts()[question.context].text().chars().skip(candidate.start.unwrap_or(0));
                let [rest, text] =
                    [rest.collect(), text.clone()].map(|text: String| text.replace(char::is_whitespace, ""));
                assert!(rest.starts_with(&text), "{id}: {text:?} at {:?}", candidate.start);
            }
        }
    }
}
