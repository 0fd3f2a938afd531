//! Trains a tokenizer into a directory: the files of Hugging Face, and `trained_from.json`, which records the options
//! and inputs so that an unchanged training is skipped.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::options::{TokenizerModel, VocabularyOptions};
use super::subwords::train_subwords;
use super::word_counts::LeftOut;
use super::wordpiece::{TrainedVocabulary, train_vocabulary};
use crate::data::corpus::{Input, InputEntry};
use crate::data::error::{DataError, Result};
use crate::data::tokenizer::encode::Tokenizer;
use crate::data::tokenizer::files::TOKENIZER_FILES;
use crate::data::tokenizer::rules::TokenizerRules;
use crate::files::{self, partial_path, replace_file};

const RECORD: &str = "trained_from.json";

/// The record of a training.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    vocabulary_sha256: String,
    /// The sha256 of the rules of a tokenizer that is not WordPiece.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pipeline_sha256: Option<String>,
    options: VocabularyOptions,
    inputs: Vec<InputEntry>,
}

/// The result of [`train_tokenizer`].
#[derive(Debug)]
pub enum TrainedTokenizer {
    /// The tokenizer was trained now.
    New {
        /// The tokenizer.
        tokenizer: Tokenizer,
        /// The words and signs that the training left out.
        left_out: LeftOut,
    },
    /// The directory already held the requested tokenizer.
    UpToDate(Tokenizer),
}

/// Trains a vocabulary and writes it to the directory `out` with the other tokenizer files. Calls `progress` with the
/// bytes of input read: each input is read once for its sha256 and once for its words.
///
/// # Errors
/// As [`train_vocabulary`], or if `out` holds another tokenizer and `force` is not set. Other files are left alone.
pub fn train_tokenizer(
    inputs: &[Input],
    options: &VocabularyOptions,
    out: &Path,
    force: bool,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<TrainedTokenizer> {
    if let Some(tokenizer) = up_to_date(inputs, options, out)? {
        return Ok(TrainedTokenizer::UpToDate(tokenizer));
    }
    if let Some(name) = TOKENIZER_FILES.iter().chain(&[RECORD]).find(|name| out.join(name).exists() && !force) {
        return Err(DataError::file(
            out,
            "a directory without a tokenizer, or with the requested one",
            format!("{name} with other content"),
            "choose another directory, or set force to replace the tokenizer",
        ));
    }
    inputs.iter().try_for_each(|input| input.check_beginning(&options.reading))?;
    fs::create_dir_all(out).map_err(DataError::io("create", out))?;

    let entries = inputs.iter().map(|input| input.entry(progress)).collect::<Result<Vec<_>>>()?;
    let (tokenizer, left_out) = match options.model {
        TokenizerModel::WordPiece => {
            let TrainedVocabulary { vocabulary, left_out } = train_vocabulary(inputs, options, progress)?;
            (Tokenizer::new(vocabulary, options.rules), left_out)
        }
        TokenizerModel::Bpe | TokenizerModel::Unigram => train_subwords(inputs, options, progress)?,
    };
    for input in inputs {
        input.check_unchanged()?;
    }
    let vocabulary_sha256 = tokenizer.vocabulary().sha256().to_owned();
    let pipeline_sha256 = pipeline_sha256(&tokenizer);
    let record = Record { vocabulary_sha256, pipeline_sha256, options: options.clone(), inputs: entries };
    let record = serde_json::to_string_pretty(&record).map_err(|e| DataError::io("write", out)(e.into()))?;
    // The old record is removed first and the new one written last: an existing record always describes the files
    // beside it.
    let record_path = out.join(RECORD);
    if record_path.exists() {
        fs::remove_file(&record_path).map_err(DataError::io("remove", &record_path))?;
    }
    for (name, content) in tokenizer.files().into_iter().chain([(RECORD, record + "\n")]) {
        let path = out.join(name);
        let written = replace_file(&path, &partial_path(&path), content.as_bytes());
        written.map_err(DataError::write(&path, content.len()))?;
    }
    Ok(TrainedTokenizer::New { tokenizer, left_out })
}

/// Returns the tokenizer in `out` if it was trained from these inputs with these options.
fn up_to_date(inputs: &[Input], options: &VocabularyOptions, out: &Path) -> Result<Option<Tokenizer>> {
    let Ok(text) = files::read(out.join(RECORD)) else { return Ok(None) };
    let Ok(record) = serde_json::from_slice::<Record>(&text) else { return Ok(None) };
    if record.options != *options || record.inputs.len() != inputs.len() {
        return Ok(None);
    }
    for (input, entry) in inputs.iter().zip(&record.inputs) {
        if input.name() != entry.name || !input.is_still(entry, &|_| ())? {
            return Ok(None);
        }
    }
    let tokenizer = Tokenizer::open(out, !options.rules.lowercase)?;
    let has_rules = match tokenizer.rules() {
        TokenizerRules::WordPiece(rules) => rules == options.rules && options.model == TokenizerModel::WordPiece,
        TokenizerRules::Pipeline(rules) => Some(rules.sha256) == record.pipeline_sha256,
    };
    let is_requested = has_rules && tokenizer.vocabulary().sha256() == record.vocabulary_sha256;
    Ok(is_requested.then_some(tokenizer))
}

/// Returns the sha256 of the rules of a tokenizer that is not BERT's WordPiece.
fn pipeline_sha256(tokenizer: &Tokenizer) -> Option<String> {
    match tokenizer.rules() {
        TokenizerRules::WordPiece(_) => None,
        TokenizerRules::Pipeline(rules) => Some(rules.sha256),
    }
}
