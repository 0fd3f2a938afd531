//! Fills the masks of texts: the most probable tokens at each `[MASK]`, as the fill-mask pipeline of transformers. Each mask is
//! predicted with all other masks of its text in place.

use std::sync::Arc;

use serde::Serialize;

use super::forward::{Examples, Forward, ForwardSettings, Weights};
use super::lines::Lines;
use super::{TextModel, largest, softmax};
use crate::batch::HostBatch;
use crate::batch::prediction::{PredictionForm, PredictionTensors};
use crate::bert::MaskedLanguageModel;
use crate::data::Tokenizer;
use crate::runtime::devices::Devices;
use crate::shape::HostTensor;
use crate::task::Model;

/// Tokenized texts with masks.
#[derive(Clone, Debug)]
pub struct MaskedTexts {
    texts: Vec<String>,
    sequences: Vec<MaskedSequence>,
    longest: usize,
    vocab_size: usize,
    pad: u32,
    truncated: usize,
}

/// `[CLS] text [SEP]`, and the positions of its masks.
#[derive(Clone, Debug)]
struct MaskedSequence {
    ids: Vec<u32>,
    masks: Vec<usize>,
}

/// The predictions for a text.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FilledText {
    /// The text with its masks.
    pub text: String,
    /// For each mask the most probable tokens, most probable first.
    pub masks: Vec<Vec<Fill>>,
}

/// A token for a mask.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Fill {
    /// The token, with the mark of its vocabulary: `##` for one that continues a word, or `Ġ` or `▁` for a space.
    pub token: String,
    /// Its id.
    pub token_id: u32,
    /// Its probability, by the softmax over the vocabulary.
    pub probability: f64,
    /// The text with this token at this mask.
    pub text: String,
}

impl MaskedTexts {
    /// Tokenizes texts in which the mask token, such as `[MASK]`, stands for a masked token. Longer texts are truncated to the sequence
    /// length of `model`.
    ///
    /// # Errors
    /// If a text has no mask, or one behind the end of the sequence.
    pub fn new(lines: &Lines, texts: Vec<String>, model: &TextModel) -> anyhow::Result<MaskedTexts> {
        let (tokenizer, longest) = (&model.tokenizer, model.sequence_length);
        let mut all = MaskedTexts {
            texts,
            sequences: Vec::new(),
            longest,
            vocab_size: model.model.config.vocab_size,
            pad: tokenizer.vocabulary().special().pad,
            truncated: 0,
        };
        let mask = tokenizer.mask_token();
        for (line, text) in all.texts.iter().enumerate() {
            let mut sequence = MaskedSequence::new(text, tokenizer)?;
            let Some(&last) = sequence.masks.last() else {
                return Err(lines.wrong(line, mask, "a text without it", "mark the token to predict"));
            };
            if sequence.ids.len() > longest {
                all.truncated += 1;
                sequence.truncate(longest);
            }
            if last + 1 >= longest {
                let required = format!("each {mask} among the first {} tokens", longest.saturating_sub(2));
                return Err(lines.wrong(
                    line,
                    &required,
                    &format!("one at token {last}"),
                    "shorten the text before it",
                ));
            }
            all.sequences.push(sequence);
        }
        Ok(all)
    }

    /// Returns the number of texts that were longer than the sequence length.
    pub fn truncated(&self) -> usize {
        self.truncated
    }

    /// Returns a forward pass that predicts tokens at the masks of these texts.
    pub fn forward(&self, model: &TextModel, devices: &Devices, settings: ForwardSettings) -> Forward {
        let (config, most) = (model.model.config.clone(), self.most_masks());
        let of_length = move |length| -> Arc<dyn Model> {
            let masked_positions = most.min(length);
            Arc::new(MaskedLanguageModel { model: config.clone(), sequence_length: length, masked_positions })
        };
        Forward::new(devices, settings, Box::new(of_length))
    }

    /// Predicts the `top_k` most probable tokens of each mask.
    ///
    /// # Errors
    /// As [`Forward::map`].
    pub fn predict(
        &self,
        forward: &mut Forward,
        weights: &Weights,
        tokenizer: &Tokenizer,
        top_k: usize,
    ) -> anyhow::Result<Vec<FilledText>> {
        forward.map(weights, self, |example, outputs| {
            let (text, masks) = (&self.texts[example], &self.sequences[example].masks);
            let of_mask = |(mask, logits): (usize, &[f32])| {
                let best = most_probable(logits, tokenizer.vocabulary().len(), top_k).into_iter();
                best.filter_map(|(id, probability)| Fill::new(text, mask, id, probability, tokenizer)).collect()
            };
            let logits = outputs[0].chunks(self.vocab_size).take(masks.len());
            Ok(FilledText { text: text.clone(), masks: logits.enumerate().map(of_mask).collect() })
        })
    }

    fn most_masks(&self) -> usize {
        self.sequences.iter().map(|sequence| sequence.masks.len()).max().unwrap_or(1)
    }
}

impl Examples for MaskedTexts {
    fn count(&self) -> usize {
        self.sequences.len()
    }

    fn tokens(&self, example: usize) -> usize {
        self.sequences[example].ids.len()
    }

    fn longest(&self) -> usize {
        self.longest
    }

    fn select(&self, examples: &[usize], row_length: usize) -> HostBatch {
        let masked_positions = self.most_masks().min(row_length);
        let form = PredictionForm { sequence_length: row_length, masked_positions: Some(masked_positions) };
        let rows = examples.len();
        let mut input_ids = vec![self.pad as i32; rows * row_length];
        let mut attention_mask = vec![0; rows * row_length];
        let mut positions = vec![0; rows * masked_positions];
        for (row, &example) in examples.iter().enumerate() {
            let MaskedSequence { ids, masks } = &self.sequences[example];
            let start = row * row_length;
            input_ids[start..].iter_mut().zip(ids).for_each(|(input, &id)| *input = id as i32);
            attention_mask[start..start + ids.len()].fill(1);
            let start = row * masked_positions;
            positions[start..].iter_mut().zip(masks).for_each(|(position, &mask)| *position = mask as i32);
        }
        let tensors = PredictionTensors {
            input_ids: HostTensor::new([rows, row_length], &input_ids),
            attention_mask: HostTensor::new([rows, row_length], &attention_mask),
            token_type_ids: HostTensor::new([rows, row_length], &vec![0i32; rows * row_length]),
            masked_lm_positions: Some(HostTensor::new([rows, masked_positions], &positions)),
        };
        let names = form.spec().tensors.into_iter().map(|tensor| tensor.name);
        HostBatch {
            rows,
            tensors: names.zip(tensors.into_vec().into_iter().map(Arc::new)).collect(),
            row_length,
            tokens: attention_mask.iter().filter(|&&mask| mask > 0).count(),
            occupied_rows: rows,
            spare_rows: 0,
        }
    }
}

impl MaskedSequence {
    fn new(text: &str, tokenizer: &Tokenizer) -> anyhow::Result<MaskedSequence> {
        let special = tokenizer.vocabulary().special();
        let ids = [&[special.cls][..], &tokenizer.encode_masked(text)?, &[special.sep]].concat();
        let masks = ids.iter().enumerate().filter(|(_, id)| **id == special.mask).map(|(position, _)| position);
        Ok(MaskedSequence { masks: masks.collect(), ids })
    }

    /// Removes tokens before `[SEP]`.
    fn truncate(&mut self, length: usize) {
        let excess = self.ids.len() - length;
        let end = self.ids.len() - 1;
        self.ids.drain(end - excess..end);
    }
}

impl Fill {
    /// Returns none for a logit without a token: a model may have more embeddings than its tokenizer has tokens.
    fn new(text: &str, mask: usize, id: usize, probability: f64, tokenizer: &Tokenizer) -> Option<Fill> {
        let vocabulary = tokenizer.vocabulary();
        let (has_space, piece) = vocabulary.text(id as u32)?;
        let filled = filled(text, tokenizer.mask_token(), mask, has_space, &piece);
        Some(Fill { token: vocabulary.token(id as u32)?.to_owned(), token_id: id as u32, probability, text: filled })
    }
}

/// Replaces the mask `number` of a text by a piece. One without a space before it is joined to the text before it.
fn filled(text: &str, mask_token: &str, number: usize, has_space: bool, piece: &str) -> String {
    let Some((start, _)) = text.match_indices(mask_token).nth(number) else { return text.to_owned() };
    let (before, after) = (&text[..start], &text[start + mask_token.len()..]);
    let before = if has_space { before } else { before.trim_end() };
    format!("{before}{piece}{after}")
}

/// Returns the `count` most probable of the first `tokens` ids with their probabilities. A model may have more rows than tokens.
fn most_probable(logits: &[f32], tokens: usize, count: usize) -> Vec<(usize, f64)> {
    let probabilities = softmax(logits);
    largest(&probabilities[..tokens.min(logits.len())], count).into_iter().map(|id| (id, probabilities[id])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{SPECIAL_TOKENS, Vocabulary, WordRules};

    fn tokenizer() -> Tokenizer {
        let tokens = SPECIAL_TOKENS.into_iter().chain("the cat play ##ing .".split(' ')).map(str::to_owned).collect();
        Tokenizer::new(Vocabulary::new(tokens).unwrap(), WordRules::bert(true))
    }

    #[test]
    fn rows_without_a_token_fill_no_mask() {
        let best =
            |tokens| most_probable(&[0.0, 2.0, 1.0, 3.0], tokens, 2).into_iter().map(|(id, _)| id).collect::<Vec<_>>();
        assert_eq!((best(4), best(3)), (vec![3, 1], vec![1, 2]));
    }

    #[test]
    fn masks_in_a_text_are_masks() {
        let sequence = MaskedSequence::new("The [MASK] play[MASK].", &tokenizer()).unwrap();
        assert_eq!(sequence.ids, [2, 5, 4, 7, 4, 9, 3]);
        assert_eq!(sequence.masks, [2, 4]);
        let mut shorter = sequence.clone();
        shorter.truncate(5);
        assert_eq!(shorter.ids, [2, 5, 4, 7, 3]);
    }

    #[test]
    fn a_filled_text_keeps_its_other_masks() {
        let text = "The [MASK] is play [MASK].";
        assert_eq!(filled(text, "[MASK]", 0, true, "cat"), "The cat is play [MASK].");
        assert_eq!(filled(text, "[MASK]", 1, false, "ing"), "The [MASK] is playing.");
    }
}
