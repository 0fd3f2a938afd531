//! Merges of pairs by the `tokenizers` library, of which WordPiece and BPE are made, and the errors of training.

use tokenizers::AddedToken;
use tokenizers::models::bpe::{BPE, BpeTrainer};

use super::options::VocabularyOptions;
use crate::data::error::{DataError, Result};

/// Largest vocabulary size: the trainer allocates all tokens at the start.
const MAX_SIZE: usize = 1 << 24;

/// Requires a vocabulary size that the trainer can allocate.
pub(super) fn check_size(size: usize) -> Result<()> {
    match size > MAX_SIZE {
        true => Err(DataError::setting("vocab_size", format!("at most {MAX_SIZE} tokens"), size)),
        false => Ok(()),
    }
}

/// The error for inputs of which no word takes part; `overlong` words are above `longest` characters.
pub(super) fn no_text(overlong: u64, longest: usize) -> DataError {
    DataError::Corpus {
        subject: "the inputs".into(),
        required: "text to train a vocabulary on".into(),
        found: match overlong {
            0 => "none".into(),
            _ => format!("{overlong} words, all above {longest} characters"),
        },
        next: "name inputs with text".into(),
    }
}

/// The error for a trained vocabulary that is none.
pub(super) fn invalid_vocabulary((required, found): (String, String)) -> DataError {
    DataError::Corpus {
        subject: "the trained vocabulary".into(),
        required,
        found,
        next: "please report this error".into(),
    }
}

/// The error for a training that the library ends.
pub(super) fn training_failed(error: &tokenizers::Error) -> DataError {
    DataError::Corpus {
        subject: "vocabulary training".into(),
        required: "a vocabulary of the text's words".into(),
        found: error.to_string(),
        next: "please report this error with the text".into(),
    }
}

/// Merges the most frequent pairs in `words` until the vocabulary, which begins with `tokens`, is complete. With a `prefix`, pieces
/// that continue a word have it.
pub(super) fn train_merges<'w>(
    words: impl Iterator<Item = (&'w String, &'w u64)>,
    tokens: &[String],
    options: &VocabularyOptions,
    prefix: Option<&str>,
) -> Result<BPE> {
    let mut trainer = BpeTrainer::builder()
        .vocab_size(options.size)
        .min_frequency(options.min_frequency)
        .show_progress(false)
        // The trainer assigns these ids in this order. With an alphabet limit of 0 it adds no other character.
        .special_tokens(tokens.iter().map(|token| AddedToken::from(token.clone(), true)).collect())
        .limit_alphabet(0);
    if let Some(prefix) = prefix {
        trainer = trainer.continuing_subword_prefix(prefix.into());
    }
    let mut model = BPE::default();
    let words = words.map(|(word, &count)| (word.as_str().into(), count)).collect();
    trainer.build().do_train(&words, &mut model).map_err(|error| training_failed(&error))?;
    Ok(model)
}

/// Returns the tokens of a model by id.
pub(super) fn tokens_of(model: &BPE) -> Vec<String> {
    let mut by_id: Vec<(u32, String)> = model.get_vocab().into_iter().map(|(token, id)| (id, token)).collect();
    by_id.sort_unstable();
    by_id.into_iter().map(|(_, token)| token).collect()
}
