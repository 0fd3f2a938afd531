//! A directory of prepared data: `prepared.json` says what was made from what, `tokenizer/` is a copy of the tokenizer
//! that made the ids, and the shards of the two splits hold the documents.
//!
//! [`PreparedData::open`] checks everything but the tokens themselves; [`PreparedData::verify`] also reads every byte.

use std::path::{Path, PathBuf};

use super::documents::Documents;
use super::manifest::Manifest;
use super::shard::Split;
use super::shard_reader::Shard;
use crate::data::error::{DataError, Result};
use crate::data::files::{MANIFEST, TOKENIZER_DIRECTORY};
use crate::data::tokenizer::vocabulary::Vocabulary;

/// A directory of prepared data, opened.
#[derive(Debug)]
pub struct PreparedData {
    directory: PathBuf,
    manifest: Manifest,
    vocabulary: Vocabulary,
    train: Documents,
    held_out: Documents,
}

impl PreparedData {
    /// Opens a directory that `prepare` made. Reads the manifest, the vocabulary and the starts of all sentences
    /// (4 bytes a sentence), and checks each shard's size, counts and vocabulary.
    ///
    /// # Errors
    /// If a file is missing, truncated, of another format, or belongs to another vocabulary.
    pub fn open(directory: &Path) -> Result<Self> {
        let manifest = Manifest::read(directory)?;
        let vocabulary_file = directory.join(TOKENIZER_DIRECTORY).join("vocab.txt");
        let vocabulary = Vocabulary::read(&vocabulary_file)?;
        if vocabulary.sha256() != manifest.vocabulary_sha256 {
            return Err(DataError::file(
                &vocabulary_file,
                format!(
                    "the vocabulary with sha256 {} ({} tokens)",
                    manifest.vocabulary_sha256, manifest.vocabulary_size
                ),
                format!("one with sha256 {} ({} tokens)", vocabulary.sha256(), vocabulary.len()),
                "put the vocabulary back that the data was prepared with, or run `lambert prepare` again with --force",
            ));
        }
        let open = |split: Split| -> Result<Documents> {
            let mut shards = Vec::new();
            for entry in manifest.shards.iter().filter(|entry| entry.split == split) {
                let shard = Shard::open(&directory.join(&entry.file), split, &vocabulary)?;
                if shard.counts() != entry.counts {
                    return Err(DataError::file(
                        shard.path(),
                        format!("the counts that {MANIFEST} gives, {:?}", entry.counts),
                        format!("{:?}", shard.counts()),
                        "the directory mixes two preparations: run `lambert prepare` again with --force",
                    ));
                }
                shards.push(shard);
            }
            let documents = Documents::new(shards);
            // An epoch's table holds sentence numbers in 32 bits.
            if documents.sentences() > u32::MAX as usize {
                return Err(DataError::file(
                    directory,
                    format!("at most {} sentences in a split", u32::MAX),
                    documents.sentences().to_string(),
                    "prepare the inputs as several directories",
                ));
            }
            Ok(documents)
        };
        let (train, held_out) = (open(Split::Train)?, open(Split::HeldOut)?);
        Ok(PreparedData { directory: directory.to_owned(), manifest, vocabulary, train, held_out })
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The tokenizer that made the data, ready to be copied beside an exported model.
    pub fn tokenizer_directory(&self) -> PathBuf {
        self.directory.join(TOKENIZER_DIRECTORY)
    }

    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    pub fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }

    pub fn documents(&self, split: Split) -> &Documents {
        match split {
            Split::Train => &self.train,
            Split::HeldOut => &self.held_out,
        }
    }

    /// How often each token of the vocabulary stands in a split.
    pub fn token_counts(&self, split: Split) -> Vec<u64> {
        self.documents(split).token_counts(self.vocabulary.len())
    }
}
