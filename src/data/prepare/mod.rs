//! Prepares data: turns text into a directory of token shards, out of core. Memory holds a few blocks of text per
//! thread, for a corpus of any size.
//!
//! ```text
//!  parts of the inputs ─ blocks of documents ─ filters, sentences, tokens ─ spool │ selection ─ shards ─ manifest
//!  read in parallel        of about 4 MiB         one thread per block            │ duplicates, weights; equal sizes
//! ```
//!
//! Repeated documents are found by merging files of sorted signatures (`sorted.rs`). Several machines can do the work left of the bar in
//! parts (`parts.rs`, through a bucket with `remote_parts.rs`); one of them joins the parts.
//!
//! The output of each stage depends only on the text and the options, never on threads or their order. A journal
//! records finished work, so an interrupted preparation resumes and ends with the same bytes. The directory is built
//! under a temporary name and renamed when it is complete, so a directory of the final name is always complete. An
//! output that is already up to date is left as it is.

mod blocks;
mod compare;
mod encode;
mod journal;
mod parts;
mod remote_parts;
mod selection;
mod shards;
mod signature;
mod sorted;
mod spool;
mod staging;
mod token_block;
mod tokenize;
mod work_files;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::data::corpus::{Input, ReadCounts, SentenceMode, TEXT_RULES};
use crate::data::error::{DataError, Result};
use crate::data::files::{MANIFEST, TOKENIZER_DIRECTORY};
use crate::data::store::manifest::{Deduplication, MANIFEST_FORMAT, Manifest, PrepareOptions, Removed};
use crate::data::store::shard::{Counts, Split};
use crate::data::tokenizer::encode::Tokenizer;
use crate::data::tokenizer::rules::TokenizerRules;
use crate::data::tokenizer::wordpiece::WordRules;
use crate::digest::sha256_hex;
use blocks::BlockId;
use compare::{differing_inputs, differing_settings, files_differ};
use journal::{Done, Journal, JournalRecord};
use parts::{FinishedParts, remove_parts};
use sorted::SortedSignatures;
use spool::{Spool, Spooled, Spools};
use staging::{Staging, write_to_disk};
use work_files::JOURNAL;

pub use parts::{Part, PartOutcome, prepare_part};
pub use remote_parts::{PartUpload, PartsDownload, remove_remote_parts};

/// The current stage, for a progress bar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrepareStage {
    /// Comparing the inputs with those of the existing data: bytes of input.
    Comparing,
    /// Work that an interrupted preparation has finished: bytes of input, reported once.
    Resuming,
    /// Reading, splitting and tokenizing: bytes of input.
    Tokenizing,
    /// Writing shards: bytes of tokens, with the total.
    Writing {
        /// Total bytes of tokens.
        bytes: u64,
    },
}

/// A callback with the stage and the work done in it.
pub type PrepareProgress<'a> = &'a (dyn Fn(PrepareStage, u64) + Sync);

/// The inputs, tokenizer, options and output directory of a preparation.
#[derive(Debug)]
pub struct Preparation<'a> {
    /// The input files, in order.
    pub inputs: &'a [Input],
    /// The tokenizer that encodes the text.
    pub tokenizer: &'a Tokenizer,
    /// The options that determine the data.
    pub options: &'a PrepareOptions,
    /// The output directory.
    pub out: &'a Path,
    /// Replace other prepared data, and discard an interrupted preparation of other data.
    pub force: bool,
}

/// The result of [`prepare`].
#[derive(Clone, Debug, PartialEq)]
pub enum PrepareOutcome {
    /// The data was prepared now.
    Prepared(Manifest),
    /// The directory already held the requested data.
    UpToDate(Manifest),
}

/// A part of one of the inputs.
#[derive(Clone, Copy, Debug)]
struct PartOfInput {
    input: usize,
    part: u32,
}

/// Prepares data, unless it exists already. Resumes a preparation that was killed or stopped by a full disk. Uses all
/// threads of the current rayon pool, and additional threads for reading.
///
/// # Errors
/// If `out` holds something else, the inputs cannot be read or hold too little text, or the disk is too small. `out`
/// then stays as it was.
pub fn prepare(preparation: &Preparation, progress: PrepareProgress) -> Result<PrepareOutcome> {
    preparation.build(TextSource::Inputs, progress)
}

/// Prepares data from the parts that [`prepare_part`] made on any machines, and removes these. The data is the same as that of
/// [`prepare`], byte for byte.
///
/// # Errors
/// As [`prepare`]; if a part is missing or incomplete.
pub fn join(preparation: &Preparation, progress: PrepareProgress) -> Result<PrepareOutcome> {
    let outcome = preparation.build(TextSource::Parts, progress)?;
    let out = &staging::resolve(preparation.out)?;
    // A join that was killed at its end leaves the parts of data that is up to date; others may be those of other data.
    let is_joined = match &outcome {
        PrepareOutcome::Prepared(_) => true,
        PrepareOutcome::UpToDate(_) => FinishedParts::open(&Preparation { out, ..*preparation }).is_ok(),
    };
    if is_joined { remove_parts(out).map(|()| outcome) } else { Ok(outcome) }
}

/// The origin of the tokenized text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TextSource {
    /// The inputs, which are read now.
    Inputs,
    /// The parts of the preparation, which are complete.
    Parts,
}

/// The state of an interrupted preparation.
enum Interrupted {
    /// Complete, but not yet renamed.
    Complete(Box<Manifest>),
    /// A journal of the finished work.
    Resumable(Journal),
}

impl Preparation<'_> {
    /// Makes the directory of the prepared data, unless it exists already.
    fn build(&self, source: TextSource, progress: PrepareProgress) -> Result<PrepareOutcome> {
        self.check_options()?;
        let out = &staging::resolve(self.out)?;
        let preparation = &Preparation { out, ..*self };
        staging::end_replacement(out)?;
        let there = preparation.existing()?;
        if let Some(manifest) = preparation.up_to_date(&there, progress)? {
            return Ok(PrepareOutcome::UpToDate(manifest));
        }
        if source == TextSource::Inputs {
            preparation.inputs.iter().try_for_each(|input| input.check_beginning(&preparation.options.reading))?;
        }
        let staging = Staging::open(out)?;
        // Another preparation may have finished in between.
        let now = preparation.existing()?;
        if now != there
            && let Some(manifest) = preparation.up_to_date(&now, progress)?
        {
            return Ok(PrepareOutcome::UpToDate(manifest));
        }
        let mut parts = match source {
            TextSource::Parts => Some(FinishedParts::open(preparation)?),
            TextSource::Inputs => None,
        };
        let joined = parts.as_ref().map(FinishedParts::number);
        let manifest = match preparation.resume_or_start(&staging, joined, progress)? {
            Interrupted::Complete(manifest) => *manifest,
            Interrupted::Resumable(journal) => {
                preparation.report_resumed(&journal, progress);
                let worked = preparation.work(staging.path(), &journal, parts.as_mut(), progress);
                worked.map_err(|error| preparation.handle_failure(error, &staging, &journal))?
            }
        };
        shards::clear(staging.path())?;
        staging.rename_to(out)?;
        Ok(PrepareOutcome::Prepared(manifest))
    }

    fn check_options(&self) -> Result<()> {
        let PrepareOptions { held_out, shard_tokens, .. } = *self.options;
        if !(0.0..=0.5).contains(&held_out) {
            return Err(DataError::setting("held_out", "a share from 0 to 0.5", held_out));
        }
        // Starts are 32-bit numbers, and a shard may exceed its size by one document of that size and one sentence.
        if !(1 << 10..=1 << 30).contains(&shard_tokens) {
            return Err(DataError::setting("shard_tokens", "1024 to 1073741824 tokens", shard_tokens));
        }
        Ok(())
    }

    /// Returns the manifest in `out`. Fails if `out` holds anything else.
    fn existing(&self) -> Result<Option<Manifest>> {
        if self.out.join(MANIFEST).exists() {
            // Data of another format, or with a damaged manifest, is replaced only on request.
            return match Manifest::read(self.out) {
                Ok(manifest) => Ok(Some(manifest)),
                Err(_) if self.force => Ok(None),
                Err(error) => Err(error),
            };
        }
        staging::check_is_free(self.out).map(|()| None)
    }

    /// Returns the manifest `there` if it is the requested data. Fails if it is other data that must not be replaced.
    fn up_to_date(&self, there: &Option<Manifest>, progress: PrepareProgress) -> Result<Option<Manifest>> {
        let Some(manifest) = there else { return Ok(None) };
        let difference = match self.difference(manifest, &|bytes| progress(PrepareStage::Comparing, bytes))? {
            None => files_differ(manifest, self.out),
            found => found,
        };
        match difference {
            None => Ok(Some(manifest.clone())),
            Some(_) if self.force => Ok(None),
            Some((required, found)) => {
                let next = "choose another directory, or set force to replace this one";
                Err(DataError::file(self.out, required, format!("prepared data {found}"), next))
            }
        }
    }

    /// Returns the first difference between a manifest and the requested data, as (required, found).
    fn difference(&self, manifest: &Manifest, hashing: &(dyn Fn(u64) + Sync)) -> Result<Option<(String, String)>> {
        let vocabulary = self.tokenizer.vocabulary();
        let differs = |required: String, found: String| Ok(Some((required, found)));
        if manifest.vocabulary_sha256 != vocabulary.sha256() {
            let (new, old) = (vocabulary.len(), manifest.vocabulary_size);
            return differs(
                format!("the requested vocabulary of {new} tokens"),
                format!("with another one of {old} tokens"),
            );
        }
        let (rules, existing) = (self.tokenizer.rules(), manifest.rules());
        if rules != existing {
            return differs(rules.to_string(), format!("with {existing}"));
        }
        if let Some(existing) = manifest.text_rules.filter(|&existing| existing != TEXT_RULES) {
            return differs(text_rules(), format!("by version {existing} of them"));
        }
        if let Some((requested, existing)) = differing_settings(self.options, &manifest.options) {
            return differs(requested, format!("with {existing}"));
        }
        if let Some((requested, existing)) = differing_inputs(self.inputs, &manifest.inputs) {
            return differs(requested, existing);
        }
        for (input, entry) in self.inputs.iter().zip(&manifest.inputs) {
            // The inputs of an interrupted preparation may not be hashed yet.
            let is_still = match entry.sha256.is_empty() {
                true => (input.bytes, input.modified) == (entry.bytes, entry.modified),
                false => input.is_still(entry, hashing)?,
            };
            if !is_still {
                return differs(format!("{} as it is now", entry.name), "from its earlier content".into());
            }
        }
        Ok(None)
    }

    /// Returns the parts of all inputs, in the order of the text.
    fn places(&self) -> Vec<PartOfInput> {
        parts::places(self.inputs)
    }

    /// Returns the manifest of the request, without results.
    fn manifest(&self) -> Manifest {
        let (words, pipeline) = match self.tokenizer.rules() {
            TokenizerRules::WordPiece(words) => (words, None),
            TokenizerRules::Pipeline(rules) => (WordRules::bert(false), Some(rules)),
        };
        Manifest {
            format: MANIFEST_FORMAT,
            sha256: None,
            vocabulary_sha256: self.tokenizer.vocabulary().sha256().to_owned(),
            vocabulary_size: self.tokenizer.vocabulary().len(),
            tokenizer: BTreeMap::new(),
            pipeline,
            lowercase: words.lowercase,
            strip_accents: words.written_strip_accents(),
            tokenize_chinese_chars: (!words.tokenize_chinese_chars).then_some(false),
            text_rules: Some(TEXT_RULES),
            options: self.options.clone(),
            train: Counts::default(),
            held_out: Counts::default(),
            reading: ReadCounts::default(),
            overlong_documents: 0,
            removed: BTreeMap::new(),
            inputs: self.inputs.iter().map(Input::unread_entry).collect(),
            shards: Vec::new(),
        }
    }

    /// Resumes an interrupted preparation of the same data, or starts a new one; `joined` is the number of parts from which it comes.
    fn resume_or_start(
        &self,
        staging: &Staging,
        joined: Option<u32>,
        progress: PrepareProgress,
    ) -> Result<Interrupted> {
        match self.find_interrupted(staging.path(), joined, progress) {
            // A file that cannot be read now may be readable later.
            Err(error) if !self.force || error.is_system_error() => Err(error),
            Ok(Some(left)) => Ok(left),
            Ok(None) | Err(_) => {
                staging.clear()?;
                let journal = Journal::open(staging.path())?;
                journal.record(JournalRecord::Begun(Box::new(self.manifest())))?;
                joined.map_or(Ok(()), |parts| journal.record(JournalRecord::Joined { parts }))?;
                Ok(Interrupted::Resumable(journal))
            }
        }
    }

    /// Reports the inputs that an interrupted preparation has read, if there are any.
    fn report_resumed(&self, journal: &Journal, progress: PrepareProgress) {
        let done = |&(part, _): &(u32, PartOfInput)| journal.read(|done| done.has_part(part));
        let done = (0..).zip(self.places()).filter(done);
        let bytes = done.map(|(_, place)| self.inputs[place.input].bytes_of_part(place.part)).sum();
        if bytes > 0 {
            progress(PrepareStage::Resuming, bytes);
        }
    }

    /// Returns the state of an interrupted preparation in `directory`; `None` if there is none, or nothing worth
    /// resuming. Fails if it is a preparation of other data.
    fn find_interrupted(
        &self,
        directory: &Path,
        joined: Option<u32>,
        progress: PrepareProgress,
    ) -> Result<Option<Interrupted>> {
        let check =
            |manifest: &Manifest| match self.difference(manifest, &|bytes| progress(PrepareStage::Comparing, bytes))? {
                None => Ok(()),
                Some((required, found)) => Err(DataError::file(
                    directory,
                    required,
                    format!("an interrupted preparation {found}"),
                    "repeat that preparation to resume it, or set force to discard it",
                )),
            };
        if staging::is_complete(directory) {
            let manifest = Manifest::read(directory)?;
            check(&manifest)?;
            return Ok(Some(Interrupted::Complete(Box::new(manifest))));
        }
        let path = directory.join(JOURNAL);
        if !path.try_exists().map_err(DataError::io("look for", &path))? {
            return Ok(None);
        }
        let journal = Journal::open(directory)?;
        let Some(begun) = journal.read(Done::begun_from) else { return Ok(None) };
        check_origin(joined, journal.read(|done| done.joined), directory)?;
        match check_text_rules(&begun, directory)
            .and_then(|()| check(&begun))
            .and_then(|()| shards::check_plan(directory))
        {
            Err(error) if journal.read(|done| done.blocks.is_empty()) && !error.is_system_error() => Ok(None),
            checked => checked.map(|()| Some(Interrupted::Resumable(journal))),
        }
    }

    /// Decides after an error whether finished work is kept. It is kept if the error may pass, as with a full disk or
    /// an unreachable input. If the text is at fault, the work is useless, because the corrected text is another input.
    fn handle_failure(&self, error: DataError, staging: &Staging, journal: &Journal) -> DataError {
        let inputs = || self.inputs.iter().map(Input::check_unchanged);
        let may_pass = |error: &DataError| error.is_system_error();
        if may_pass(&error) || inputs().any(|checked| checked.is_err_and(|error| may_pass(&error))) {
            return match journal.read(|done| done.blocks.is_empty()) {
                true => error,
                false => DataError::Stopped(Box::new(error)),
            };
        }
        if inputs().all(|checked| checked.is_ok()) {
            // Report the first error; files that cannot be removed are left for the next run.
            let _ = staging.clear();
        }
        error
    }

    /// Does all unfinished work in the directory `staging`; the tokens are those of `parts`, if these are given.
    fn work(
        &self,
        staging: &Path,
        journal: &Journal,
        parts: Option<&mut FinishedParts>,
        progress: PrepareProgress,
    ) -> Result<Manifest> {
        let own;
        let (spools, sorted) = match parts {
            Some(parts) => {
                parts.add_to(journal);
                (&parts.spools, Some(parts.sorted.as_slice()))
            }
            None => {
                own = self.tokenize_inputs(staging, journal, progress)?;
                (&own, None)
            }
        };
        let mut manifest = self.manifest();
        journal.read(|done| {
            for (input, sha256) in &done.hashed {
                manifest.inputs[*input].sha256.clone_from(sha256);
            }
            let places = self.places();
            for (id, record) in &done.blocks {
                manifest.reading += record.counts;
                manifest.inputs[places[id.part as usize].input].reading += record.counts;
                manifest.overlong_documents += record.overlong_documents;
                for (name, removed) in &record.removed {
                    *manifest.removed.entry(name.clone()).or_default() += *removed;
                }
            }
        });
        shards::write(self, staging, journal, spools, sorted, &mut manifest, progress)?;
        check_enough(&manifest)?;

        let tokenizer_directory = staging.join(TOKENIZER_DIRECTORY);
        fs::create_dir_all(&tokenizer_directory).map_err(DataError::io("create", &tokenizer_directory))?;
        for (name, content) in self.tokenizer.files() {
            let path = tokenizer_directory.join(name);
            write_to_disk(&path, content.as_bytes())?;
            manifest.tokenizer.insert(name.to_owned(), sha256_hex(content.as_bytes()));
        }
        let path = staging.join(MANIFEST);
        let text = manifest.to_text().map_err(|e| DataError::io("write", &path)(e.into()))?;
        write_to_disk(&path, text.as_bytes())?;
        Ok(manifest)
    }

    /// Returns the spools in `directory`, with the files that the journal lists.
    fn spools_in(&self, directory: &Path, journal: &Journal) -> Spools {
        let mut spools = Spools::new(encode::form(self.tokenizer, self.options));
        spools.push_directory(directory, journal.read(Done::next_file));
        spools
    }

    /// Sorts the signatures of the documents of these blocks into files in `directory`.
    fn sort_signatures(
        &self,
        blocks: &[(BlockId, Split, Spooled)],
        spools: &Spools,
        directory: &Path,
    ) -> Result<SortedSignatures> {
        let blocks: Vec<(Spooled, &Spool)> =
            blocks.iter().map(|&(_, split, place)| (place, spools.of(split))).collect();
        SortedSignatures::sort(&blocks, self.options.duplicates, directory)
    }

    /// Tokenizes all text that the journal does not list, and returns the spools in `staging`.
    fn tokenize_inputs(&self, staging: &Path, journal: &Journal, progress: PrepareProgress) -> Result<Spools> {
        let spools = self.spools_in(staging, journal);
        if !shards::are_planned(staging) {
            let times = |weight: f64| if weight > 1.0 { weight + 1.0 } else { 1.0 };
            let text = |input: &Input| (input.expected_text() as f64 * times(input.source.weight)) as u64;
            self.check_space(staging, self.inputs.iter().map(text).sum())?;
            tokenize::forget_lost_blocks(journal, &spools);
            let places: Vec<(u32, PartOfInput)> = (0..).zip(self.places()).collect();
            tokenize::tokenize(self, &places, journal, &spools, progress)?;
            self.inputs.iter().try_for_each(Input::check_unchanged)?;
        }
        Ok(spools)
    }

    /// Fails if the disk is too small for `text` bytes of text. Estimates one token per four bytes at two or four bytes each, the
    /// starts of the sentences, and the signatures of a document per 2.5 kB; minus the files that exist already. The spool shrinks as
    /// shards are written, except for documents that are used again.
    fn check_space(&self, directory: &Path, text: u64) -> Result<()> {
        let token_size = if self.tokenizer.vocabulary().len() > 1 << 16 { 4 } else { 2 };
        let signatures = match self.options.duplicates {
            Deduplication::Keep => 0,
            Deduplication::Exact => text / 100,
            Deduplication::Near => text / 10,
        };
        let list = fs::read_dir(directory).map_err(DataError::io("list", directory))?;
        let there: u64 = list.filter_map(|entry| entry.ok()?.metadata().ok()).map(|metadata| metadata.len()).sum();
        let required = (text / 4 * token_size + text / 25 + signatures).saturating_sub(there);
        let found = fs4::available_space(directory).map_err(DataError::io("query the free space of", directory))?;
        match required > found {
            true => Err(DataError::Space { path: self.out.to_owned(), required, found }),
            false => Ok(()),
        }
    }
}

/// Fails if an interrupted preparation in `directory` has its tokens from elsewhere: from a number of parts, or from the inputs.
fn check_origin(requested: Option<u32>, found: Option<u32>, directory: &Path) -> Result<()> {
    if requested == found {
        return Ok(());
    }
    let described = |joined: Option<u32>| match joined {
        Some(parts) => format!("an interrupted join of {parts} parts"),
        None => "an interrupted preparation without parts".to_owned(),
    };
    let next = "repeat the command that began it to resume it, or set force to discard it";
    Err(DataError::file(directory, described(requested), described(found), next))
}

/// Describes the rules of text that this program has.
fn text_rules() -> String {
    format!("text read by version {TEXT_RULES} of the rules for documents and sentences")
}

/// Fails if an interrupted preparation in `directory`, which began as `begun`, reads text by other rules than this program: its data
/// would mix both.
fn check_text_rules(begun: &Manifest, directory: &Path) -> Result<()> {
    let found = match begun.text_rules {
        Some(TEXT_RULES) => return Ok(()),
        Some(other) => format!("an interrupted preparation by version {other} of them"),
        None => "an interrupted preparation by earlier ones".to_owned(),
    };
    let next = "resume it with the program that began it, or set force to discard it and start again";
    Err(DataError::file(directory, text_rules(), found, next))
}

/// Fails if there is too little text to train on.
fn check_enough(manifest: &Manifest) -> Result<()> {
    let (train, held_out) = (manifest.train.documents, manifest.held_out.documents);
    let subject = || match manifest.inputs.as_slice() {
        [one] => one.name.clone(),
        all => format!("the {} input files", all.len()),
    };
    let too_few = |required: &str, found: String, next: &str| {
        Err(DataError::Corpus { subject: subject(), required: required.into(), found, next: next.into() })
    };
    let removed: u64 = manifest.removed.values().map(|Removed { documents, .. }| documents).sum();
    let before_weights = manifest.reading.documents.saturating_sub(removed + held_out);
    if train < 2 && before_weights > train && manifest.inputs.iter().any(|input| input.source.weight < 1.0) {
        let found = format!("{train}, which the weights of the sources select from {before_weights}");
        return too_few("at least 2 documents to train on", found, "raise the weights");
    }
    if train + held_out == 0 {
        return match removed {
            0 => too_few("documents", "none: there is no text in it".into(), "name inputs with text"),
            _ => too_few("documents", format!("none: all {removed} were removed"), "relax the filters"),
        };
    }
    let next = match manifest.options.reading.sentences {
        SentenceMode::Wrapped => "add documents, or separate the documents by two empty lines",
        _ => "add documents, or separate the documents by empty lines",
    };
    if train < 2 {
        let required = "at least 2 documents to train on, because a random next sentence comes from another document";
        return too_few(required, format!("{train}"), next);
    }
    if manifest.options.held_out > 0.0 && held_out < 2 {
        let found = format!("{held_out} of {}", train + held_out);
        return too_few("at least 2 documents held out", found, "add documents, increase held_out, or set it to 0");
    }
    Ok(())
}
