//! The settings that determine the examples: lengths, the kind of example, masking, the seed.

use serde::{Deserialize, Serialize};

use super::mask::{MaskConfig, MaskShares, SpanMask, prediction_count};
use crate::data::error::{DataError, Result};

/// The special tokens of `[CLS] a [SEP] b [SEP]`.
pub(super) const SPECIAL_TOKENS_OF_A_PAIR: usize = 3;

/// The kind of example, and the meaning of its label.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ExampleMode {
    /// Next sentence prediction (BERT): `b` follows `a` (label 0), or is text of another document (label 1).
    #[default]
    #[serde(rename = "nsp")]
    NextSentence,
    /// Sentence order prediction (ALBERT): `a` and `b` are consecutive, in this order (label 0) or swapped (label 1).
    #[serde(rename = "sop")]
    SentenceOrder,
    /// One segment of consecutive sentences up to the sequence length, which continues into the next document after a
    /// `[SEP]` (RoBERTa's FULL-SENTENCES). No label.
    #[serde(rename = "full_sentences")]
    FullSentences,
    /// One segment of consecutive sentences of one document (RoBERTa's DOC-SENTENCES). No label.
    #[serde(rename = "doc_sentences")]
    DocSentences,
}

impl ExampleMode {
    /// Returns `true` if examples are two segments with a label.
    pub fn is_pair(self) -> bool {
        matches!(self, ExampleMode::NextSentence | ExampleMode::SentenceOrder)
    }

    /// Returns the number of segments of an example.
    pub fn segments(self) -> usize {
        if self.is_pair() { 2 } else { 1 }
    }
}

/// Dynamic or static masking (RoBERTa, section 4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Masking {
    /// Masks, random segments and the order of examples are drawn again in every epoch.
    #[default]
    Dynamic,
    /// They are drawn `duplicates` times (`dupe_factor` of create_pretraining_data: 10) and then repeated, in another
    /// order.
    Static {
        /// Number of different draws.
        duplicates: u32,
    },
}

/// A linear change of the share of masked tokens, from [`ExampleConfig::masked_lm_prob`] in example 0 to `to` in example `examples`
/// and all later ones. The share depends on the number of the example alone, so a batch remains a pure function of its numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MaskingRamp {
    /// The share at the end.
    pub to: f64,
    /// The examples of the ramp.
    pub examples: u64,
}

/// The settings that determine the examples.
#[derive(Clone, Debug, PartialEq)]
pub struct ExampleConfig {
    /// The kind of example.
    pub mode: ExampleMode,
    /// Positions per example.
    pub sequence_length: usize,
    /// Maximum number of masked positions per sequence: 20 at length 128 and 80 at 512 in BERT.
    pub max_predictions_per_seq: usize,
    /// Share of masked tokens: 0.15 for BERT.
    pub masked_lm_prob: f64,
    /// A change of this share with the number of the example.
    pub masking_ramp: Option<MaskingRamp>,
    /// The shares of replacements of masked tokens: 80 % `[MASK]`, 10 % random and 10 % kept for BERT.
    pub mask_shares: MaskShares,
    /// Share of documents that are split for a shorter length: 0.1 for BERT. Pairs only.
    pub short_seq_prob: f64,
    /// Mask all pieces of a word together.
    pub whole_word_mask: bool,
    /// Mask spans of whole words.
    pub span_mask: Option<SpanMask>,
    /// Dynamic or static masking.
    pub masking: Masking,
    /// The seed of all draws.
    pub seed: u64,
    /// Index of the training phase. Each phase draws other examples.
    pub phase: u32,
}

impl ExampleConfig {
    /// Returns BERT's settings at this length: 15 % of the tokens masked, and 10 % of the documents split shorter.
    pub fn bert(sequence_length: usize, max_predictions_per_seq: usize) -> Self {
        ExampleConfig {
            mode: ExampleMode::NextSentence,
            sequence_length,
            max_predictions_per_seq,
            masked_lm_prob: 0.15,
            masking_ramp: None,
            mask_shares: MaskShares::BERT,
            short_seq_prob: 0.1,
            whole_word_mask: false,
            span_mask: None,
            masking: Masking::Dynamic,
            seed: 0,
            phase: 0,
        }
    }

    /// Returns the settings with the fraction `masked_lm_prob` of tokens masked, and as many masked positions per sequence as the
    /// longest one requires.
    #[must_use]
    pub fn masked_at(self, masked_lm_prob: f64) -> Self {
        let most = self.sequence_length.saturating_sub(SPECIAL_TOKENS_OF_A_PAIR);
        let masked = ExampleConfig { masked_lm_prob, masking_ramp: None, max_predictions_per_seq: most, ..self };
        ExampleConfig { max_predictions_per_seq: prediction_count(masked.sequence_length, &masked.mask(0)), ..masked }
    }

    /// Returns the share of masked tokens in example `number`.
    pub fn masked_share(&self, number: u64) -> f64 {
        let Some(MaskingRamp { to, examples }) = self.masking_ramp else { return self.masked_lm_prob };
        let progress = (number as f64 / examples.max(1) as f64).min(1.0);
        self.masked_lm_prob + (to - self.masked_lm_prob) * progress
    }

    /// Returns the largest share of masked tokens in any example.
    pub fn largest_masked_share(&self) -> f64 {
        self.masking_ramp.map_or(self.masked_lm_prob, |ramp| ramp.to.max(self.masked_lm_prob))
    }

    /// Returns the settings of masking of example `number`.
    pub(super) fn mask(&self, number: u64) -> MaskConfig {
        MaskConfig {
            max_predictions_per_seq: self.max_predictions_per_seq,
            masked_lm_prob: self.masked_share(number),
            shares: self.mask_shares,
            whole_word_mask: self.whole_word_mask,
            span_mask: self.span_mask,
        }
    }

    /// Checks all settings.
    ///
    /// # Errors
    /// The first invalid setting, with its requirement.
    pub fn check(&self) -> Result<()> {
        let most = 1 << 20;
        if self.sequence_length < SPECIAL_TOKENS_OF_A_PAIR + 2 || self.sequence_length > most {
            let required = format!("5 ([CLS] a [SEP] b [SEP]) to {most} tokens");
            return Err(DataError::setting("sequence_length", required, self.sequence_length));
        }
        if self.max_predictions_per_seq == 0
            || self.max_predictions_per_seq > self.sequence_length - SPECIAL_TOKENS_OF_A_PAIR
        {
            let required = format!(
                "1 to {} masked positions at a sequence length of {}",
                self.sequence_length - SPECIAL_TOKENS_OF_A_PAIR,
                self.sequence_length
            );
            return Err(DataError::setting("max_predictions_per_seq", required, self.max_predictions_per_seq));
        }
        let shares = [Some(self.masked_lm_prob), self.masking_ramp.map(|ramp| ramp.to)];
        if let Some(share) = shares.into_iter().flatten().find(|share| !(*share > 0.0 && *share < 1.0)) {
            return Err(DataError::setting("masked_lm_prob", "a number between 0 and 1", share));
        }
        if !self.mask_shares.is_valid() {
            return Err(DataError::setting("mask_shares", "shares from 0 to 1 whose sum is 1", self.mask_shares));
        }
        if !(0.0..=1.0).contains(&self.short_seq_prob) {
            return Err(DataError::setting("short_seq_prob", "a number from 0 to 1", self.short_seq_prob));
        }
        if let Some(SpanMask { geometric_p, span_upper }) = self.span_mask {
            if !(geometric_p > 0.0 && geometric_p < 1.0) {
                return Err(DataError::setting("span_mask.geometric_p", "a number between 0 and 1", geometric_p));
            }
            if !(1..=1000).contains(&span_upper) {
                return Err(DataError::setting("span_mask.span_upper", "1 to 1000 words", span_upper));
            }
        }
        if let Masking::Static { duplicates } = self.masking
            && !(1..=1000).contains(&duplicates)
        {
            return Err(DataError::setting("masking.static.duplicates", "1 to 1000 draws", duplicates));
        }
        Ok(())
    }
}
