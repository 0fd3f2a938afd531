//! Labels of texts and pairs of texts with their probabilities, as the text-classification pipeline of transformers; for a
//! regression, one number.

use serde::Serialize;

use super::forward::{Forward, Weights};
use super::{TextModel, largest, softmax};
use crate::bert::Head;
use crate::data::{LabelNames, LabelledExamples, LabelledTexts, TextPair};

/// Tokenized texts, and the labels of their classifier.
#[derive(Clone, Debug)]
pub struct ClassifiedTexts {
    texts: Vec<TextPair>,
    /// None for a regression.
    labels: Option<Vec<String>>,
    examples: LabelledExamples,
}

/// The prediction for a text.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TextPrediction {
    /// The text, or the pair of texts.
    #[serde(flatten)]
    pub text: TextPair,
    /// The prediction.
    #[serde(flatten)]
    pub prediction: LabelOrValue,
}

/// The labels of a classifier, or the number of a regression.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LabelOrValue {
    /// The most probable labels, most probable first.
    Labels(Vec<LabelProbability>),
    /// The number.
    Value(f64),
}

/// A label and its probability.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LabelProbability {
    /// The name of the class.
    pub label: String,
    /// The softmax of the logits.
    pub probability: f64,
}

impl ClassifiedTexts {
    /// Tokenizes texts; longer ones are truncated to the sequence length of `model`.
    ///
    /// # Errors
    /// If the labels of the model are fewer than two or not unique, the sequence length is below 5, or
    /// there are pairs and the model has one token type.
    pub fn new(texts: Vec<TextPair>, model: &TextModel) -> anyhow::Result<ClassifiedTexts> {
        let labelled = LabelledTexts::from(texts.clone());
        let (tokenizer, length) = (&model.tokenizer, model.sequence_length);
        let labels = match &model.model.head {
            Head::SequenceClassification { labels } => Some(labels.clone()),
            _ => None,
        };
        let examples = match &labels {
            Some(labels) => {
                LabelledExamples::classification(&labelled, &LabelNames::new(labels.clone())?, tokenizer, length)?
            }
            None => LabelledExamples::regression(&labelled, tokenizer, length)?,
        };
        model.check_segments(&examples)?;
        Ok(ClassifiedTexts { texts, labels, examples })
    }

    /// Returns the number of texts that were longer than the sequence length.
    pub fn truncated(&self) -> usize {
        self.examples.truncated()
    }

    /// Predicts the labels or the number of each text: at most `top_k` labels.
    ///
    /// # Errors
    /// As [`Forward::map`].
    pub fn predict(
        &self,
        forward: &mut Forward,
        weights: &Weights,
        top_k: usize,
    ) -> anyhow::Result<Vec<TextPrediction>> {
        forward.map(weights, &self.examples, |example, outputs| {
            let prediction = match &self.labels {
                Some(labels) => LabelOrValue::Labels(most_probable(labels, outputs[0], top_k)),
                None => LabelOrValue::Value(f64::from(outputs[0][0])),
            };
            Ok(TextPrediction { text: self.texts[example].clone(), prediction })
        })
    }
}

/// Returns the `top_k` most probable labels, most probable first.
fn most_probable(labels: &[String], logits: &[f32], top_k: usize) -> Vec<LabelProbability> {
    let probabilities = softmax(logits);
    let best = largest(&probabilities, top_k).into_iter();
    best.map(|class| LabelProbability { label: labels[class].clone(), probability: probabilities[class] }).collect()
}
