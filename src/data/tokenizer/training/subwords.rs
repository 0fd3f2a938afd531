//! Trains byte-level BPE and Unigram tokenizers by the `tokenizers` library, so that equal text gives equal files.
//!
//! Both have BERT's normalizer, so the settings of case and accents mean the same for every model. Unigram normalizes to NFKC first,
//! as SentencePiece does. A sequence is surrounded as BERT's, with the names of RoBERTa: `<s> a </s> b </s>`.

use std::collections::HashMap;
use std::path::Path;

use serde_json::{Value, json};
use tokenizers::models::unigram::{Unigram, UnigramTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::tokenizer::{
    AddedToken, NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer,
};
use tokenizers::{NormalizerWrapper, PreTokenizerWrapper};

use super::merges::{check_size, invalid_vocabulary, no_text, tokens_of, train_merges, training_failed};
use super::options::{TokenizerModel, VocabularyOptions};
use super::word_counts::{LeftOut, SplitWords, WordCounts, count_words};
use super::wordpiece::alphabet;
use crate::data::corpus::Input;
use crate::data::error::{DataError, Result};
use crate::data::tokenizer::encode::Tokenizer;
use crate::data::tokenizer::names::{CONFIG, TOKENIZER_JSON};
use crate::data::tokenizer::parts::{added_token, normalizer, post_processor, vocabulary_json};
use crate::data::tokenizer::pipeline::Pipeline;
use crate::data::tokenizer::special_tokens::{PairForm, ROBERTA_TOKENS, ROLES};
use crate::data::tokenizer::vocabulary::Vocabulary;
use crate::data::tokenizer::word_mark::WordMark;

/// The score of a special token in a Unigram model: so low that no text is encoded as one.
const SPECIAL_SCORE: f64 = -1e4;

/// The step by which the library lowers the scores of characters without a piece.
const PENALTY: f64 = 0.0001;

/// Trains a tokenizer on the text of `inputs`. The distinct words of the text are held in memory.
///
/// # Errors
/// If the inputs cannot be read or hold no text, or if the size is too large or too small for the characters.
pub(super) fn train_subwords(
    inputs: &[Input],
    options: &VocabularyOptions,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<(Tokenizer, LeftOut)> {
    check_size(options.size)?;
    let words = PreTokenization::new(options)?;
    let [WordCounts { counts, left_out, .. }] =
        count_words(inputs, &options.reading, &words, usize::MAX, &|_| 0, progress)?;
    if counts.is_empty() {
        return Err(no_text(left_out.overlong_words, options.model.longest_word()));
    }
    let json = match options.model {
        TokenizerModel::Unigram => unigram(&counts, options)?,
        _ => byte_level_bpe(&counts, options)?,
    };
    let mask = json!({
        "__type": "AddedToken", "content": ROBERTA_TOKENS[4], "lstrip": true, "normalized": false, "rstrip": false,
        "single_word": false, "special": true,
    });
    let mut config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 512,
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
    });
    ROLES.into_iter().zip(ROBERTA_TOKENS).for_each(|(role, token)| config[role] = json!(token));
    config["mask_token"] = mask;
    let (vocabulary, pipeline) =
        Pipeline::parse(Path::new(TOKENIZER_JSON), json.as_bytes(), &[(config, CONFIG.into())])?;
    Ok((Tokenizer::of_pipeline(vocabulary, pipeline), left_out))
}

/// The normalizer and the pre-tokenizer of a model.
struct PreTokenization {
    normalizer: NormalizerWrapper,
    pre_tokenizer: PreTokenizerWrapper,
    strips_accents: bool,
    longest: usize,
}

impl PreTokenization {
    fn new(options: &VocabularyOptions) -> Result<Self> {
        let (normalizer, pre_tokenizer) = parts(options);
        let invalid = |error: serde_json::Error| training_failed(&error.into());
        Ok(PreTokenization {
            normalizer: serde_json::from_value(normalizer).map_err(invalid)?,
            pre_tokenizer: serde_json::from_value(pre_tokenizer).map_err(invalid)?,
            strips_accents: options.rules.strip_accents,
            longest: options.model.longest_word(),
        })
    }
}

impl SplitWords for PreTokenization {
    fn strips_accents(&self) -> bool {
        self.strips_accents
    }

    fn longest(&self) -> usize {
        self.longest
    }

    fn split(&self, line: &str, mut each: impl FnMut(&str)) -> Result<()> {
        let mut normalized = NormalizedString::from(line);
        let failed = |error: tokenizers::Error| training_failed(&error);
        self.normalizer.normalize(&mut normalized).map_err(failed)?;
        let mut words = PreTokenizedString::from(normalized);
        self.pre_tokenizer.pre_tokenize(&mut words).map_err(failed)?;
        let splits = words.get_splits(OffsetReferential::Normalized, OffsetType::Byte);
        splits.into_iter().for_each(|(word, ..)| each(word));
        Ok(())
    }
}

/// Returns normalizer and pre-tokenizer as JSON.
fn parts(options: &VocabularyOptions) -> (Value, Value) {
    let of_bert = normalizer(options.rules);
    match options.model {
        TokenizerModel::Unigram => {
            (json!({ "type": "Sequence", "normalizers": [{ "type": "NFKC" }, of_bert] }), metaspace())
        }
        _ => (of_bert, byte_level()),
    }
}

fn metaspace() -> Value {
    json!({ "type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true })
}

fn byte_level() -> Value {
    json!({ "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true })
}

/// Returns a `tokenizer.json` of a model and a decoder. The special tokens have the first ids, in the order of their roles.
fn tokenizer_json(options: &VocabularyOptions, model: Value, decoder: Value) -> Value {
    let (normalizer, pre_tokenizer) = parts(options);
    let added = ROBERTA_TOKENS.into_iter().zip(0..).map(|(token, id)| added_token(token, id, id == 4));
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added.collect::<Vec<_>>(),
        "normalizer": normalizer, "pre_tokenizer": pre_tokenizer,
        "post_processor": post_processor((ROBERTA_TOKENS[2], 2), (ROBERTA_TOKENS[3], 3)),
        "decoder": decoder, "model": model,
    })
}

/// Trains byte-level BPE: special tokens, then the characters of all bytes, then merges.
fn byte_level_bpe(counts: &HashMap<String, u64>, options: &VocabularyOptions) -> Result<String> {
    let mut bytes: Vec<char> = ByteLevel::alphabet().into_iter().collect();
    bytes.sort_unstable();
    let bytes = bytes.into_iter().map(String::from);
    let tokens: Vec<String> = ROBERTA_TOKENS.into_iter().map(str::to_owned).chain(bytes).collect();
    if options.size < tokens.len() {
        let required = format!("at least {} tokens, for the special ones and all bytes", tokens.len());
        return Err(DataError::setting("vocab_size", required, options.size));
    }
    let model = train_merges(counts.iter(), &tokens, options, None)?;
    let form = (PairForm::BERT, WordMark::ByteLevelSpace);
    let vocabulary = Vocabulary::with_forms(tokens_of(&model), ROBERTA_TOKENS, form.0, form.1);
    let model = serde_json::to_value(&model).map_err(|error| training_failed(&error.into()))?;
    Ok(vocabulary_json(tokenizer_json(options, model, byte_level()), &vocabulary.map_err(invalid_vocabulary)?))
}

/// Trains Unigram on one thread: sums of several would be rounded in another order each time.
fn unigram(counts: &HashMap<String, u64>, options: &VocabularyOptions) -> Result<String> {
    let (alphabet, _) = alphabet(counts, options.alphabet);
    let least = alphabet.len() + ROBERTA_TOKENS.len();
    if options.size < least {
        let required = format!("at least {least} tokens, for the characters of this text alone");
        return Err(DataError::setting("vocab_size", required, options.size));
    }
    let known = counts.iter().filter(|(word, _)| word.chars().all(|c| alphabet.binary_search(&c).is_ok()));
    let mut words: Vec<(String, u32)> =
        known.map(|(word, &count)| (word.clone(), count.try_into().unwrap_or(u32::MAX))).collect();
    words.sort_unstable();
    let special = ROBERTA_TOKENS.map(|token| AddedToken::from(token, true));
    let trainer = UnigramTrainer::builder()
        .vocab_size(options.size as u32)
        .show_progress(false)
        .special_tokens(special.into())
        .unk_token(Some(ROBERTA_TOKENS[1].to_owned()))
        .build()
        .map_err(|error| training_failed(&error.to_string().into()))?;
    let mut model = Unigram::default();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build();
    let pool = pool.map_err(|error| training_failed(&error.to_string().into()))?;
    pool.install(|| trainer.do_train(words, &mut model)).map_err(|error| training_failed(&error))?;
    let pieces = model.iter().skip(ROBERTA_TOKENS.len()).cloned().collect();
    let special = ROBERTA_TOKENS.map(|token| (token.to_owned(), SPECIAL_SCORE));
    let vocab: Vec<(String, f64)> = special.into_iter().chain(in_order(pieces)).collect();
    let model = json!({ "type": "Unigram", "unk_id": 1, "vocab": vocab, "byte_fallback": false });
    Ok(tokenizer_json(options, model, metaspace()).to_string() + "\n")
}

/// Returns pieces by falling score. The library gives each character without a piece a score of its own, in the order of a hash
/// table: the lowest score of all pieces, plus a multiple of a penalty. Here these scores are given out by code point.
fn in_order(mut pieces: Vec<(String, f64)>) -> Vec<(String, f64)> {
    let lowest = pieces.iter().map(|(_, score)| *score).fold(f64::INFINITY, f64::min);
    // Added up as the library does, so that the scores are equal.
    let multiples = std::iter::successors(Some(0.0), |penalty| Some(penalty + PENALTY)).map(|penalty| lowest + penalty);
    let given: Vec<f64> = multiples.take(pieces.len()).collect();
    let is_given = |(piece, score): &(String, f64)| piece.chars().count() == 1 && given.contains(score);
    let mut characters: Vec<&mut (String, f64)> = pieces.iter_mut().filter(|piece| is_given(piece)).collect();
    let mut scores: Vec<f64> = characters.iter().map(|(_, score)| *score).collect();
    scores.sort_unstable_by(f64::total_cmp);
    characters.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    characters.into_iter().zip(scores).for_each(|(piece, score)| piece.1 = score);
    pieces.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_scores_and_given_ones_are_ordered_by_text() {
        let lowest = -9.0;
        let pieces = [("b", lowest + PENALTY), ("the", -2.0), ("a", -3.0), ("c", lowest), ("an", -2.0)];
        let pieces = pieces.map(|(piece, score)| (piece.to_owned(), score)).into();
        let expected = [("an", -2.0), ("the", -2.0), ("a", -3.0), ("c", lowest + PENALTY), ("b", lowest)];
        assert_eq!(in_order(pieces), expected.map(|(piece, score)| (piece.to_owned(), score)));
    }
}
