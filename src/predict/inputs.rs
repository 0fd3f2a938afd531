//! The inputs and predictions of a model, whichever head it has.

use serde_json::Value;

use super::TextModel;
use super::answer::{AskedQuestions, QuestionAnswer};
use super::classify::{ClassifiedTexts, TextPrediction};
use super::fill_mask::{FilledText, MaskedTexts};
use super::forward::ForwardSettings;
use super::lines::{LineFormat, Lines};
use super::tokens::{LabelledWordTexts, WordsPrediction};
use crate::bert::Head;
use crate::runtime::devices::Devices;

/// Tokenized inputs of a model.
#[derive(Clone, Debug)]
pub enum Inputs {
    /// Texts with masks, for a model of pretraining.
    Masks(MaskedTexts),
    /// Texts for a classifier or a regression.
    Texts(ClassifiedTexts),
    /// Texts for a token classifier.
    Words(LabelledWordTexts),
    /// Questions with contexts.
    Questions(AskedQuestions),
}

/// The predictions of a model, in the order of the input.
#[derive(Clone, Debug, PartialEq)]
pub enum Predictions {
    /// Tokens at masks.
    Masks(Vec<FilledText>),
    /// Labels or numbers of texts.
    Texts(Vec<TextPrediction>),
    /// Labels of words.
    Words(Vec<WordsPrediction>),
    /// Answers to questions.
    Answers(Vec<QuestionAnswer>),
}

impl Inputs {
    /// Tokenizes the lines of an input for the head of `model`. Lines are JSON if `is_json`; questions always are.
    ///
    /// # Errors
    /// If a line does not have the form that the head requires, or a text is empty.
    pub fn new(lines: &Lines, is_json: bool, model: &TextModel) -> anyhow::Result<Inputs> {
        Ok(match model.model.head {
            Head::Pretraining => Inputs::Masks(MaskedTexts::new(lines, lines.single_texts(is_json)?, model)?),
            Head::SequenceClassification { .. } | Head::Regression => {
                let format = if is_json { LineFormat::JsonLines } else { LineFormat::TabSeparated };
                Inputs::Texts(ClassifiedTexts::new(lines.texts(format)?, model)?)
            }
            Head::TokenClassification { .. } => {
                Inputs::Words(LabelledWordTexts::new(lines.single_texts(is_json)?, model)?)
            }
            Head::QuestionAnswering => Inputs::Questions(AskedQuestions::new(lines.questions()?, model)?),
        })
    }

    /// Returns the number of inputs that were longer than the sequence length; of questions, those that were cut off.
    pub fn truncated(&self) -> usize {
        match self {
            Inputs::Masks(texts) => texts.truncated(),
            Inputs::Texts(texts) => texts.truncated(),
            Inputs::Words(texts) => texts.truncated(),
            Inputs::Questions(questions) => questions.truncated(),
        }
    }

    /// Loads the weights of `model`, for which these inputs were tokenized, and predicts: at most `top_k` tokens of a mask,
    /// labels of a text, or answers to a question.
    ///
    /// # Errors
    /// If the model lacks a tensor of its head, a program cannot be compiled, or a device fails.
    pub fn predict(
        &self,
        model: TextModel,
        devices: &Devices,
        settings: ForwardSettings,
        top_k: usize,
    ) -> anyhow::Result<Predictions> {
        let mut forward = match self {
            Inputs::Masks(texts) => texts.forward(&model, devices, settings),
            _ => model.forward_of_head(devices, settings)?,
        };
        let (tokenizer, weights) = (model.tokenizer, forward.load(model.model)?);
        Ok(match self {
            Inputs::Masks(texts) => Predictions::Masks(texts.predict(&mut forward, &weights, &tokenizer, top_k)?),
            Inputs::Texts(texts) => Predictions::Texts(texts.predict(&mut forward, &weights, top_k)?),
            Inputs::Words(texts) => Predictions::Words(texts.predict(&mut forward, &weights)?),
            Inputs::Questions(questions) => {
                Predictions::Answers(questions.predict(&mut forward, &weights, &tokenizer, top_k)?)
            }
        })
    }
}

impl Predictions {
    /// Returns a JSON object for each line of the input.
    ///
    /// # Errors
    /// If a number has no JSON form.
    pub fn to_json(&self) -> serde_json::Result<Vec<Value>> {
        match self {
            Predictions::Masks(list) => list.iter().map(serde_json::to_value).collect(),
            Predictions::Texts(list) => list.iter().map(serde_json::to_value).collect(),
            Predictions::Words(list) => list.iter().map(serde_json::to_value).collect(),
            Predictions::Answers(list) => list.iter().map(serde_json::to_value).collect(),
        }
    }
}
