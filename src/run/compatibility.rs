//! Checks that saved weights and a run, data or a tokenizer belong together: equal vocabularies and rules of words, a row of the
//! embedding for each token, and a configuration with which the weights compute the same function.

use std::fmt::Display;
use std::path::Path;

use anyhow::ensure;

use crate::bert::BertConfig;
use crate::checkpoint::Checkpoint;
use crate::data::{self, RulesFile, TokenizerFiles, VocabularyFile};

/// Returns the vocabulary and the rules of words of the tokenizer in `checkpoint`, which was read from `directory`; none if it holds
/// no tokenizer.
///
/// # Errors
/// If the tokenizer is not BERT's WordPiece, or its files contradict each other.
pub fn tokenizer_of(checkpoint: &Checkpoint, directory: &Path) -> data::Result<Option<TokenizerFiles>> {
    TokenizerFiles::read(directory, |name| checkpoint.file(name))
}

/// Checks that `checkpoint`, which was read from `directory`, has the vocabulary and the rules of words that are `used`. `next` is the
/// next step if it has not. Returns a note if the checkpoint holds no tokenizer or states no rules of words.
///
/// # Errors
/// If the vocabularies differ, with the first difference; if the rules differ, with the settings; as [`tokenizer_of`].
pub fn check_tokenizer(
    checkpoint: &Checkpoint,
    directory: &Path,
    used: &TokenizerFiles,
    next: &str,
) -> data::Result<Option<String>> {
    let Some(own) = tokenizer_of(checkpoint, directory)? else {
        return Ok(Some(format!(
            "note: {} holds no tokenizer, so its vocabulary cannot be compared with {}",
            directory.display(),
            used.vocabulary.path.display()
        )));
    };
    own.check_equal(used, next)?;
    let unknown = |used: &RulesFile| {
        format!(
            "note: {} states no rules of words (lowercase, strip_accents, tokenize_chinese_chars), so they cannot be compared with {}",
            directory.display(),
            used.path.display()
        )
    };
    Ok(used.rules.as_ref().filter(|_| own.rules.is_none()).map(unknown))
}

/// Checks that the model of `owner` has a row of the word embeddings for each token. Returns a note if it has more rows, as many
/// models have: their number is often a multiple of 8 or 64.
///
/// # Errors
/// If it has fewer.
pub fn check_rows(owner: impl Display, model: &BertConfig, used: &VocabularyFile) -> anyhow::Result<Option<String>> {
    let (rows, tokens) = (model.vocab_size, used.vocabulary.len());
    ensure!(
        tokens <= rows,
        "{owner} requires word embeddings with a row for each of the {tokens} tokens in {}, found [{rows}, {}] (vocab_size \
         {rows}); choose the tokenizer that belongs to the model, or a larger vocab_size for a new model",
        used.path.display(),
        model.hidden_size
    );
    let more = rows - tokens;
    Ok((more > 0)
        .then(|| format!("note: {owner} has {rows} rows of word embeddings for {tokens} tokens; {more} are not used")))
}

/// Checks that weights with the configuration `found` compute the same function in a run with the configuration `run`: all keys
/// are equal but those of training and of new weights. `directory` holds the weights.
///
/// # Errors
/// Every key that differs, with both values.
pub fn check_model(directory: &Path, found: &BertConfig, run: &BertConfig) -> anyhow::Result<()> {
    let differing: Vec<String> =
        found.differences(run).into_iter().map(|(key, found, run)| format!("{key} = {found} (got {run})")).collect();
    ensure!(
        differing.is_empty(),
        "[model] requires the values with which the weights were trained, those of {}: {}; set these keys of [model]",
        directory.join("config.json").display(),
        differing.join(", ")
    );
    Ok(())
}
