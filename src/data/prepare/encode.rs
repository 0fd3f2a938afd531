//! Encodes a block of text: filters, sentences, tokens, and the split of each document.

use std::collections::BTreeMap;

use crate::rng::Key;

use super::blocks::{TextBlock, TextDocument};
use super::signature::{length, signature};
use super::token_block::{TokenBlock, TokenForm};
use crate::data::corpus::SentenceMode;
use crate::data::corpus::filter::first_rejection;
use crate::data::corpus::sentences::sentences;
use crate::data::error::Result;
use crate::data::store::manifest::{PrepareOptions, Removed};
use crate::data::store::shard::Split;
use crate::data::tokenizer::encode::Tokenizer;

/// The encoded documents of a text block.
pub(super) struct Encoded {
    pub train: TokenBlock,
    pub held_out: TokenBlock,
    /// Documents longer than a shard, which are split.
    pub overlong_documents: u64,
    /// Documents removed by filters, by the filter's name.
    pub removed: BTreeMap<String, Removed>,
}

/// Returns the format of the token blocks of a preparation.
pub(super) fn form(tokenizer: &Tokenizer, options: &PrepareOptions) -> TokenForm {
    let token_size = if tokenizer.vocabulary().len() > 1 << 16 { 4 } else { 2 };
    TokenForm { signature: length(options.duplicates), token_size }
}

/// Returns `true` if the document is held out: a pure function of the text, independent of all other documents. Equal
/// documents are in the same split, so the model is never evaluated on memorised text.
fn is_held_out(seed: u64, fingerprint: u128, share: f64) -> bool {
    let key = Key::new(seed).fold_in((fingerprint >> 64) as u64).fold_in(fingerprint as u64);
    key.stream().uniform() < share
}

/// Tokenizes a block on the current thread.
///
/// # Errors
/// If the tokenizer cannot split a text into words.
pub(super) fn encode(block: &TextBlock, tokenizer: &Tokenizer, options: &PrepareOptions) -> Result<Encoded> {
    let empty = || TokenBlock::new(form(tokenizer, options));
    let mut encoded = Encoded { train: empty(), held_out: empty(), overlong_documents: 0, removed: BTreeMap::new() };
    let mut tokens = DocumentTokens::default();
    for document in block.documents() {
        if let Some(filter) = first_rejection(&options.filters, document.lines()) {
            *encoded.removed.entry(filter.name().to_owned()).or_default() +=
                Removed { documents: 1, bytes: document.bytes() as u64 };
            continue;
        }
        tokens.of(document, tokenizer, options.reading.sentences)?;
        let split = match options.held_out > 0.0 && is_held_out(options.seed, document.origin(), options.held_out) {
            true => Split::HeldOut,
            false => Split::Train,
        };
        let into = match split {
            Split::Train => &mut encoded.train,
            Split::HeldOut => &mut encoded.held_out,
        };
        encoded.overlong_documents +=
            tokens.push_into(into, options.shard_tokens, document, &signature(document, options.duplicates));
    }
    Ok(encoded)
}

/// The token ids of a document, and the number of them in each sentence.
#[derive(Default)]
struct DocumentTokens {
    ids: Vec<u32>,
    sentence_lengths: Vec<u32>,
}

impl DocumentTokens {
    fn of(&mut self, document: TextDocument, tokenizer: &Tokenizer, form: SentenceMode) -> Result<()> {
        self.ids.clear();
        self.sentence_lengths.clear();
        for line in document.lines() {
            match form {
                SentenceMode::Split | SentenceMode::Wrapped => {
                    let mut before = "";
                    for sentence in sentences(line) {
                        // In Chinese and Japanese, no space follows the end of a sentence.
                        let is_adjacent = before.as_bytes().as_ptr_range().end == sentence.as_ptr();
                        self.sentence(sentence, is_adjacent, tokenizer)?;
                        before = sentence;
                    }
                }
                SentenceMode::Lines => self.sentence(line, false, tokenizer)?,
            }
        }
        Ok(())
    }

    /// Adds a sentence, as it is encoded within its document: after a space, unless it `is_adjacent` to the sentence before. One
    /// without tokens is dropped.
    fn sentence(&mut self, sentence: &str, is_adjacent: bool, tokenizer: &Tokenizer) -> Result<()> {
        let before = self.ids.len();
        tokenizer.encode_part(sentence, before > 0 && !is_adjacent, &mut self.ids)?;
        if self.ids.len() > before {
            self.sentence_lengths.push((self.ids.len() - before) as u32);
        }
        Ok(())
    }

    /// Adds these tokens to a block as one document, or as several if they reach `limit`, because a document is never
    /// split between shards. A document without tokens is dropped. Returns the number of cuts.
    fn push_into(&self, block: &mut TokenBlock, limit: usize, document: TextDocument, signature: &[u64]) -> u64 {
        let (mut rest, mut lengths) = (self.ids.as_slice(), self.sentence_lengths.as_slice());
        let (mut pieces, mut bytes) = (0_u64, document.bytes());
        while !lengths.is_empty() {
            let mut tokens = 0;
            let sentences = lengths.iter().take_while(|&&length| {
                let has_room = tokens < limit;
                tokens += if has_room { length as usize } else { 0 };
                has_room
            });
            let sentences = sentences.count();
            // The pieces of a document are not duplicates of each other, but of the pieces of an equal document.
            let signature: Vec<u64> = signature.iter().map(|word| word.wrapping_add(pieces)).collect();
            block.push(&rest[..tokens], &lengths[..sentences], std::mem::take(&mut bytes), &signature);
            (rest, lengths) = (&rest[tokens..], &lengths[sentences..]);
            pieces += 1;
        }
        pieces.saturating_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn held_out_share_is_met_and_a_document_keeps_its_split() {
        let chosen: Vec<u128> = (0..50_000).filter(|&i| is_held_out(3, i << 57, 0.02)).collect();
        // Five standard deviations of a binomial(50000, 0.02) are 157.
        assert!(chosen.len().abs_diff(1000) < 158, "{}", chosen.len());
        // A larger share holds out a superset of the documents.
        assert!(chosen.iter().all(|&i| is_held_out(3, i << 57, 0.05)));
        assert!(!(0..1000).any(|i| is_held_out(3, i, 0.0)));
    }
}
