//! Predictions as text: the input, and below it the predictions with their probabilities. Labels of words are printed as columns
//! that are separated by tabs, with an empty line between texts.

use std::fmt::Write;

use crate::data::TextPair;
use crate::predict::answer::QuestionAnswer;
use crate::predict::classify::{LabelOrValue, TextPrediction};
use crate::predict::fill_mask::FilledText;
use crate::predict::inputs::Predictions;
use crate::predict::tokens::WordsPrediction;

/// Formats predictions for the terminal.
pub fn to_text(predictions: &Predictions) -> String {
    match predictions {
        Predictions::Masks(texts) => texts.iter().map(filled).collect(),
        Predictions::Texts(texts) => texts.iter().map(labelled).collect(),
        Predictions::Words(texts) => texts.iter().map(words).collect(),
        Predictions::Answers(answers) => answers.iter().map(answered).collect(),
    }
}

fn filled(prediction: &FilledText) -> String {
    let mut text = format!("{}\n", prediction.text);
    let fills = prediction.masks.iter().flatten();
    let width = fills.clone().map(|fill| fill.token.chars().count()).max().unwrap_or(0);
    for fill in fills {
        let _ = writeln!(text, "{}  {:<width$}  {}", percent(fill.probability), fill.token, fill.text);
    }
    text
}

fn labelled(prediction: &TextPrediction) -> String {
    let TextPair { text, text_pair } = &prediction.text;
    let pair = text_pair.as_ref().map(|pair| format!("\t{pair}")).unwrap_or_default();
    let mut text = format!("{text}{pair}\n");
    match &prediction.prediction {
        LabelOrValue::Value(value) => drop(writeln!(text, "{value:>10.4}")),
        LabelOrValue::Labels(labels) => {
            for label in labels {
                let _ = writeln!(text, "{}  {}", percent(label.probability), label.label);
            }
        }
    }
    text
}

fn words(prediction: &WordsPrediction) -> String {
    let line = |word: &crate::predict::tokens::WordPrediction| {
        format!("{}\t{}\t{:.4}\n", word.word, word.label, word.probability)
    };
    prediction.words.iter().map(line).chain(["\n".to_owned()]).collect()
}

fn answered(prediction: &QuestionAnswer) -> String {
    let mut text = format!("{}\n", prediction.question);
    for candidate in &prediction.candidates {
        let place = candidate.start.map(|start| format!("  (character {start})")).unwrap_or_default();
        let _ = writeln!(text, "{}  {}{place}", percent(candidate.probability), candidate.text);
    }
    text
}

fn percent(probability: f64) -> String {
    format!("{:>8.2} %", 100.0 * probability)
}
