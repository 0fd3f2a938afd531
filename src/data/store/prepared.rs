//! A directory of prepared data: `prepared.json` lists options, inputs and shards; `tokenizer/` is a copy of the
//! tokenizer that encoded the text; the shards of both splits hold the documents.
//!
//! [`PreparedData::open`] checks everything but the tokens themselves; [`PreparedData::verify`] reads every byte.

use std::path::{Path, PathBuf};

use super::documents::Documents;
use super::manifest::Manifest;
use super::shard::Split;
use super::shard_reader::Shard;
use crate::data::error::{DataError, Result};
use crate::data::files::{MANIFEST, TOKENIZER_DIRECTORY};
use crate::data::tokenizer::comparison::{RulesFile, TokenizerFiles, VocabularyFile};
use crate::data::tokenizer::encode::Tokenizer;
use crate::data::tokenizer::rules::TokenizerRules;
use crate::data::tokenizer::vocabulary::Vocabulary;

/// An opened directory of prepared data.
#[derive(Debug)]
pub struct PreparedData {
    directory: PathBuf,
    manifest: Manifest,
    vocabulary: Vocabulary,
    vocabulary_path: PathBuf,
    train: Documents,
    held_out: Documents,
}

impl PreparedData {
    /// Opens a directory written by [`prepare`](crate::data::prepare()). Reads the manifest, the vocabulary and the
    /// starts of all sentences (4 bytes per sentence), and checks each shard's size, counts and vocabulary.
    ///
    /// # Errors
    /// If a file is missing, truncated, of another format, or belongs to another vocabulary.
    pub fn open(directory: &Path) -> Result<Self> {
        let manifest = Manifest::read(directory)?;
        let tokenizer = directory.join(TOKENIZER_DIRECTORY);
        let (vocabulary, vocabulary_path) = match manifest.rules() {
            TokenizerRules::WordPiece(_) => {
                (Vocabulary::read(&tokenizer.join("vocab.txt"))?, tokenizer.join("vocab.txt"))
            }
            TokenizerRules::Pipeline(_) => {
                (Tokenizer::open(&tokenizer, false)?.vocabulary().clone(), tokenizer.join("tokenizer.json"))
            }
        };
        if vocabulary.sha256() != manifest.vocabulary_sha256 {
            return Err(DataError::file(
                &vocabulary_path,
                format!(
                    "the vocabulary with sha256 {} ({} tokens)",
                    manifest.vocabulary_sha256, manifest.vocabulary_size
                ),
                format!("one with sha256 {} ({} tokens)", vocabulary.sha256(), vocabulary.len()),
                "restore the vocabulary of the prepared data, or run `lambert prepare` again (set force to overwrite the data)",
            ));
        }
        let open = |split: Split| -> Result<Documents> {
            let mut shards = Vec::new();
            for entry in manifest.shards.iter().filter(|entry| entry.split == split) {
                let shard = Shard::open(&directory.join(&entry.file), split, &vocabulary)?;
                if shard.counts() != entry.counts {
                    return Err(DataError::file(
                        shard.path(),
                        format!("the counts in {MANIFEST}, {}", entry.counts),
                        shard.counts().to_string(),
                        "the directory mixes two preparations: run `lambert prepare` again (set force to overwrite the data)",
                    ));
                }
                shards.push(shard);
            }
            let documents = Documents::new(shards);
            // The table of an epoch holds 32-bit sentence numbers.
            if documents.sentences() > u32::MAX as usize {
                return Err(DataError::file(
                    directory,
                    format!("at most {} sentences in a split", u32::MAX),
                    documents.sentences().to_string(),
                    "split the inputs over several directories",
                ));
            }
            Ok(documents)
        };
        let (train, held_out) = (open(Split::Train)?, open(Split::HeldOut)?);
        Ok(PreparedData { directory: directory.to_owned(), manifest, vocabulary, vocabulary_path, train, held_out })
    }

    /// Returns the directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Returns the directory of the tokenizer that encoded the data, which an export copies.
    pub fn tokenizer_directory(&self) -> PathBuf {
        self.directory.join(TOKENIZER_DIRECTORY)
    }

    /// Returns the manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Returns the vocabulary.
    pub fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }

    /// Returns the vocabulary and its file.
    pub fn vocabulary_file(&self) -> VocabularyFile {
        VocabularyFile { path: self.vocabulary_path.clone(), vocabulary: self.vocabulary.clone() }
    }

    /// Returns the vocabulary and the rules of the tokenizer of the data, for comparisons with those of a model.
    pub fn tokenizer_files(&self) -> TokenizerFiles {
        let rules = RulesFile { path: self.directory.join(MANIFEST), rules: self.manifest.rules() };
        TokenizerFiles { vocabulary: self.vocabulary_file(), rules: Some(rules) }
    }

    /// Returns the documents of a split.
    pub fn documents(&self, split: Split) -> &Documents {
        match split {
            Split::Train => &self.train,
            Split::HeldOut => &self.held_out,
        }
    }

    /// Returns how often each token of the vocabulary occurs in a split.
    pub fn token_counts(&self, split: Split) -> Vec<u64> {
        self.documents(split).token_counts(self.vocabulary.len())
    }
}
