//! Predictions of a saved model on texts, for each head: masked tokens, labels of texts, labels of words, answers to questions;
//! and embeddings of texts, with the probes that measure them.
//!
//! Each kind has two parts. Texts become token sequences, which needs no device and finds every error of the input; then a
//! [`forward::Forward`] runs the model on them in batches of similar length.

pub mod answer;
pub mod classify;
pub mod embed;
pub mod fill_mask;
pub mod forward;
pub mod inputs;
pub mod lines;
mod npy;
pub mod onnx;
pub mod probe;
pub mod tokens;

use std::sync::Arc;

use anyhow::{Context, ensure};

use self::forward::{Forward, ForwardSettings};
use crate::bert::{Head, Recompute, fine_tuning_task};
use crate::data::{LabelledExamples, Tokenizer, VocabularyFile, WindowOptions};
use crate::run::compatibility::check_rows;
use crate::run::weights::FoundModel;
use crate::runtime::devices::Devices;
use crate::task::Model;

/// A saved model and its tokenizer.
#[derive(Debug)]
pub struct TextModel {
    /// The model and its weights.
    pub model: FoundModel,
    /// The tokenizer in the directory of the model.
    pub tokenizer: Tokenizer,
    /// The longest sequence in tokens, special tokens included. Longer texts are truncated, longer contexts divided.
    pub sequence_length: usize,
    /// A note for the user about the tokens and the rows of the model, if their numbers differ.
    pub note: Option<String>,
}

impl TextModel {
    /// Opens the tokenizer of `model`. Without `sequence_length`, sequences are as long as the model allows, and those of
    /// question answering at most 384 tokens.
    ///
    /// # Errors
    /// If the directory has no tokenizer, the tokenizer has more tokens than the model, or the model has too few positions.
    pub fn open(model: FoundModel, sequence_length: Option<usize>) -> anyhow::Result<TextModel> {
        let tokenizer = Tokenizer::open(&model.path, false)?;
        let vocabulary = VocabularyFile { path: model.path.clone(), vocabulary: tokenizer.vocabulary().clone() };
        let note = check_rows(model.path.display(), &model.config, &vocabulary)?;
        let longest = model.config.max_position_embeddings;
        let default = match model.head {
            Head::QuestionAnswering => WindowOptions::default().sequence_length.min(longest),
            _ => longest,
        };
        let sequence_length = sequence_length.unwrap_or(default);
        model.config.validate_sequence_length(sequence_length)?;
        Ok(TextModel { model, tokenizer, sequence_length, note })
    }

    /// Checks that the model has a token type for each segment of `examples`.
    ///
    /// # Errors
    /// If it has fewer, so that pairs of texts are impossible.
    pub fn check_segments(&self, examples: &LabelledExamples) -> anyhow::Result<()> {
        let checked = self.model.config.validate_segments(examples.segments());
        checked.with_context(|| format!("{} takes no pairs of texts", self.model.path.display()))
    }

    /// Returns the forward pass of the model with its head of fine-tuning.
    ///
    /// # Errors
    /// If the head is that of pretraining, whose predictions are filled masks (see [`fill_mask`]).
    pub fn forward_of_head(&self, devices: &Devices, settings: ForwardSettings) -> anyhow::Result<Forward> {
        let (config, head) = (self.model.config.clone(), self.model.head.clone());
        let of_length = move |length| fine_tuning_task(&config, &head, length, Recompute::default());
        ensure!(
            of_length(self.sequence_length).is_some(),
            "{} requires a fine-tuned head, got {}",
            self.model.path.display(),
            self.model.head.architecture()
        );
        let of_length =
            move |length| -> Arc<dyn Model> { of_length(length).expect("the head has a task at one length") };
        Ok(Forward::new(devices, settings, Box::new(of_length)))
    }
}

/// Returns the probabilities exp(xᵢ) / Σ exp(xⱼ) of logits x.
fn softmax(logits: &[f32]) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exponentials = logits.iter().map(|&logit| f64::from(logit - largest).exp());
    let sum: f64 = exponentials.clone().sum();
    exponentials.map(|exponential| exponential / sum).collect()
}

/// Returns the indices of the `count` largest values, largest first; of equals the first.
fn largest(values: &[f64], count: usize) -> Vec<usize> {
    let mut indices: Vec<usize> = (0..values.len()).collect();
    let falling = |a: &usize, b: &usize| values[*b].total_cmp(&values[*a]).then(a.cmp(b));
    if count < indices.len() {
        indices.select_nth_unstable_by(count, falling);
        indices.truncate(count);
    }
    indices.sort_unstable_by(falling);
    indices
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_do_not_depend_on_a_constant_in_the_logits() {
        for constant in [0.0, 1e4, -1e4] {
            let probabilities = softmax(&[constant, constant + 1.0, constant]);
            assert!((probabilities[1] - 1f64.exp() / (2.0 + 1f64.exp())).abs() < 1e-12);
            assert!((probabilities.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        }
    }

    #[test]
    fn largest_values_come_first_and_equal_ones_in_order() {
        assert_eq!(largest(&[0.1, 0.5, 0.2, 0.5], 3), [1, 3, 2]);
        assert_eq!(largest(&[0.1, 0.5], 5), [1, 0]);
        assert_eq!(largest(&[0.1, 0.5], 0), [0; 0]);
    }
}
