//! Text to a directory of prepared data, out of core: memory holds a few blocks of text for every thread, whatever the
//! corpus.
//!
//! ```text
//!  parts of the inputs ─ blocks of documents ─ filters, sentences, tokens ─ spool │ selection ─ shards ─ manifest
//!  read side by side       of about 4 MiB         a block a thread                │ duplicates, weights; then evenly cut
//! ```
//!
//! What each stage makes depends on the text and the options alone, never on threads or their order. Every step that is done
//! stands in a journal, so that a preparation that was interrupted goes on, and ends with the same bytes. The directory is
//! made beside its name and renamed when it is whole, so that a directory of that name is always complete. One that is
//! already what was asked for is left as it is.

mod blocks;
mod encode;
mod journal;
mod selection;
mod shards;
mod signature;
mod spool;
mod staging;
mod token_block;
mod tokenize;

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::Path;

use super::corpus::{Input, InputEntry, ReadCounts, SentenceMode, Source};
use super::error::{DataError, Result};
use super::files::{MANIFEST, TOKENIZER_DIRECTORY};
use super::store::manifest::{MANIFEST_FORMAT, Manifest, PrepareOptions, Removed};
use super::store::shard::{Counts, Split};
use super::tokenizer::files::TOKENIZER_FILES;
use super::tokenizer::wordpiece::Tokenizer;
use crate::digest::sha256_hex;
use journal::{Done, JOURNAL, Journal, Step};
use spool::Spool;
use staging::{Staging, write_to_disk};

/// What is being done, for a progress bar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrepareStage {
    /// Comparing inputs with those of prepared data that is there: bytes of input.
    Comparing,
    /// What an interrupted preparation has done already: bytes of input, once.
    Resuming,
    /// Reading, splitting and tokenizing: bytes of input.
    Tokenizing,
    /// Writing shards: bytes of tokens, of so many in all.
    Writing { bytes: u64 },
}

/// Hears of the work done in each stage.
pub type PrepareProgress<'a> = &'a (dyn Fn(PrepareStage, u64) + Sync);

/// What to prepare, from what, to where.
#[derive(Debug)]
pub struct Preparation<'a> {
    pub inputs: &'a [Input],
    pub tokenizer: &'a Tokenizer,
    pub options: &'a PrepareOptions,
    pub out: &'a Path,
    /// Replace prepared data that differs, and forget an interrupted preparation that does.
    pub force: bool,
}

/// What was done.
#[derive(Clone, Debug, PartialEq)]
pub enum PrepareOutcome {
    Prepared(Manifest),
    /// The directory already was what was asked for.
    UpToDate(Manifest),
}

/// A part of one of the inputs.
#[derive(Clone, Copy, Debug)]
struct PartOfInput {
    input: usize,
    part: u32,
}

/// The spools of both splits.
struct Spools {
    train: Spool,
    held_out: Spool,
}

impl Spools {
    fn of(&self, split: Split) -> &Spool {
        match split {
            Split::Train => &self.train,
            Split::HeldOut => &self.held_out,
        }
    }
}

/// Prepares data, unless it is there. A preparation that was killed, or stopped by a full disk, is gone on with. Runs on as
/// many threads as the rayon pool at hand has, and some that read.
///
/// # Errors
/// If `out` holds something else, the inputs cannot be read or hold too little, or the disk is too small. `out` is then
/// as it was.
pub fn prepare(preparation: &Preparation, progress: PrepareProgress) -> Result<PrepareOutcome> {
    preparation.check_options()?;
    let out = &staging::resolve(preparation.out)?;
    let preparation = &Preparation { out, ..*preparation };
    staging::end_replacement(out)?;
    let there = preparation.existing()?;
    if let Some(manifest) = preparation.up_to_date(&there, progress)? {
        return Ok(PrepareOutcome::UpToDate(manifest));
    }
    preparation.inputs.iter().try_for_each(|input| input.check_beginning(&preparation.options.reading))?;
    let staging = Staging::open(out)?;
    // Another preparation may have ended just before.
    let now = preparation.existing()?;
    if now != there
        && let Some(manifest) = preparation.up_to_date(&now, progress)?
    {
        return Ok(PrepareOutcome::UpToDate(manifest));
    }
    let manifest = match preparation.take_up(&staging, progress)? {
        Left::Whole(manifest) => *manifest,
        Left::Begun(journal) => {
            let worked = preparation.work(staging.path(), &journal, progress);
            worked.map_err(|error| preparation.stopped(error, &staging, &journal))?
        }
    };
    shards::clear(staging.path())?;
    staging.rename_to(out)?;
    Ok(PrepareOutcome::Prepared(manifest))
}

/// What an interrupted preparation left.
enum Left {
    /// Everything, but not under its name.
    Whole(Box<Manifest>),
    /// A journal that tells what is done.
    Begun(Journal),
}

impl Preparation<'_> {
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

    /// The manifest of what `out` holds. An error if it holds anything else.
    fn existing(&self) -> Result<Option<Manifest>> {
        if self.out.join(MANIFEST).exists() {
            // Another format, or a damaged manifest, is replaced only on request.
            return match Manifest::read(self.out) {
                Ok(manifest) => Ok(Some(manifest)),
                Err(_) if self.force => Ok(None),
                Err(error) => Err(error),
            };
        }
        staging::check_is_free(self.out).map(|()| None)
    }

    /// The manifest of `there`, if that is what is asked for. An error if it is something else that is not to be replaced.
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
                let next = "choose another directory, or replace this one with --force";
                Err(DataError::file(self.out, required, format!("prepared data {found}"), next))
            }
        }
    }

    /// The first thing in which a manifest differs from what is asked for, as (required, found).
    fn difference(&self, manifest: &Manifest, hashing: &(dyn Fn(u64) + Sync)) -> Result<Option<(String, String)>> {
        let vocabulary = self.tokenizer.vocabulary();
        let differs = |required: String, found: String| Ok(Some((required, found)));
        if manifest.vocabulary_sha256 != vocabulary.sha256() {
            let (new, old) = (vocabulary.len(), manifest.vocabulary_size);
            return differs(format!("the vocabulary asked for, of {new} tokens"), format!("with another, of {old}"));
        }
        let lowercase = self.tokenizer.rules().lowercase;
        if manifest.lowercase != lowercase {
            return differs(format!("lower-casing {lowercase}"), format!("with {}", manifest.lowercase));
        }
        if let Some((asked, there)) = differing_settings(self.options, &manifest.options) {
            return differs(asked, format!("with {there}"));
        }
        if let Some((asked, there)) = differing_inputs(self.inputs, &manifest.inputs) {
            return differs(asked, there);
        }
        for (input, entry) in self.inputs.iter().zip(&manifest.inputs) {
            // That of an interrupted preparation may not be hashed yet.
            let is_still = match entry.sha256.is_empty() {
                true => (input.bytes, input.modified) == (entry.bytes, entry.modified),
                false => input.is_still(entry, hashing)?,
            };
            if !is_still {
                return differs(format!("{} as it is now", entry.name), "from an earlier content of it".into());
            }
        }
        Ok(None)
    }

    /// The parts of all inputs, in the order of the text.
    fn parts(&self) -> Vec<PartOfInput> {
        let of = |(input, file): (usize, &Input)| (0..file.parts()).map(move |part| PartOfInput { input, part });
        self.inputs.iter().enumerate().flat_map(of).collect()
    }

    /// What is asked for, as a manifest without results.
    fn manifest(&self) -> Manifest {
        Manifest {
            format: MANIFEST_FORMAT,
            vocabulary_sha256: self.tokenizer.vocabulary().sha256().to_owned(),
            vocabulary_size: self.tokenizer.vocabulary().len(),
            tokenizer: BTreeMap::new(),
            lowercase: self.tokenizer.rules().lowercase,
            options: self.options.clone(),
            train: Counts::default(),
            held_out: Counts::default(),
            reading: ReadCounts::default(),
            cut_documents: 0,
            removed: BTreeMap::new(),
            inputs: self.inputs.iter().map(Input::unread_entry).collect(),
            shards: Vec::new(),
        }
    }

    /// Goes on with an interrupted preparation of the same, or begins one.
    fn take_up(&self, staging: &Staging, progress: PrepareProgress) -> Result<Left> {
        match self.left_in(staging.path(), progress) {
            // What cannot be read now may be good later.
            Err(error) if !self.force || error.is_system_error() => Err(error),
            Ok(Some(left)) => {
                if let Left::Begun(journal) = &left {
                    let parts = self.parts().into_iter().enumerate();
                    let done = parts.filter(|&(part, _)| journal.ask(|done| done.has_part(part as u32)));
                    let bytes = done.map(|(_, place)| self.inputs[place.input].bytes_of_part(place.part)).sum();
                    progress(PrepareStage::Resuming, bytes);
                }
                Ok(left)
            }
            Ok(None) | Err(_) => {
                staging.clear()?;
                let journal = Journal::open(staging.path())?;
                journal.note(Step::Begun(Box::new(self.manifest())))?;
                Ok(Left::Begun(journal))
            }
        }
    }

    /// What is left in `directory`, unless there is nothing, or nothing that was worth the work. An error if it is of another
    /// preparation.
    fn left_in(&self, directory: &Path, progress: PrepareProgress) -> Result<Option<Left>> {
        let check =
            |manifest: &Manifest| match self.difference(manifest, &|bytes| progress(PrepareStage::Comparing, bytes))? {
                None => Ok(()),
                Some((required, found)) => Err(DataError::file(
                    directory,
                    required,
                    format!("an interrupted preparation {found}"),
                    "ask for the same again to go on with it, or forget it with --force",
                )),
            };
        if staging::is_whole(directory) {
            let manifest = Manifest::read(directory)?;
            check(&manifest)?;
            return Ok(Some(Left::Whole(Box::new(manifest))));
        }
        let path = directory.join(JOURNAL);
        if !path.try_exists().map_err(DataError::io("look for", &path))? {
            return Ok(None);
        }
        let journal = Journal::open(directory)?;
        let Some(begun) = journal.ask(Done::begun_from) else { return Ok(None) };
        match check(&begun).and_then(|()| shards::check_plan(directory)) {
            Err(error) if journal.ask(|done| done.blocks.is_empty()) && !error.is_system_error() => Ok(None),
            checked => checked.map(|()| Some(Left::Begun(journal))),
        }
    }

    /// Decides what becomes of what is done, after an error. If that may pass, as a full disk or an input that is out of reach,
    /// it is kept. It is of no use if the text is at fault: one that was mended is another.
    fn stopped(&self, error: DataError, staging: &Staging, journal: &Journal) -> DataError {
        let inputs = || self.inputs.iter().map(Input::check_unchanged);
        let may_pass = |error: &DataError| error.is_system_error();
        if may_pass(&error) || inputs().any(|checked| checked.is_err_and(|error| may_pass(&error))) {
            return match journal.ask(|done| done.blocks.is_empty()) {
                true => error,
                false => DataError::Stopped(Box::new(error)),
            };
        }
        if inputs().all(|checked| checked.is_ok()) {
            // The error that matters is the first one; what cannot be removed is left for the next run.
            let _ = staging.clear();
        }
        error
    }

    /// All the work, in the directory `staging`: whatever of it is not done.
    fn work(&self, staging: &Path, journal: &Journal, progress: PrepareProgress) -> Result<Manifest> {
        let form = encode::form(self.tokenizer, self.options);
        let spools = journal.ask(|done| {
            let places = done.blocks.values().flat_map(|record| [&record.train, &record.held_out]).flatten();
            let next_file = places.map(|place| place.file + 1).max().unwrap_or(0);
            let spool = |split| Spool::new(staging, split, form, next_file);
            Spools { train: spool(Split::Train), held_out: spool(Split::HeldOut) }
        });
        if !shards::are_planned(staging) {
            self.check_space(staging)?;
            tokenize::tokenize(self, journal, &spools, progress)?;
            for input in self.inputs {
                input.check_unchanged()?;
            }
        }
        let mut manifest = self.manifest();
        journal.ask(|done| {
            for (input, sha256) in &done.hashed {
                manifest.inputs[*input].sha256.clone_from(sha256);
            }
            let parts = self.parts();
            for (id, record) in &done.blocks {
                manifest.reading += record.counts;
                manifest.inputs[parts[id.part as usize].input].reading += record.counts;
                manifest.cut_documents += record.cut_documents;
                for (name, removed) in &record.removed {
                    *manifest.removed.entry(name.clone()).or_default() += *removed;
                }
            }
        });
        shards::write(self, staging, journal, &spools, &mut manifest, progress)?;
        check_enough(&manifest)?;

        let tokenizer_directory = staging.join(TOKENIZER_DIRECTORY);
        fs::create_dir_all(&tokenizer_directory).map_err(DataError::io("create", &tokenizer_directory))?;
        for (name, content) in self.tokenizer.files() {
            let path = tokenizer_directory.join(name);
            write_to_disk(&path, content.as_bytes())?;
            manifest.tokenizer.insert(name.to_owned(), sha256_hex(content.as_bytes()));
        }
        let path = staging.join(MANIFEST);
        let json = serde_json::to_string_pretty(&manifest).map_err(|e| DataError::io("write", &path)(e.into()))? + "\n";
        write_to_disk(&path, json.as_bytes())?;
        Ok(manifest)
    }

    /// About a token for every four bytes of text, two or four bytes a token, and a start for every sentence; less what is
    /// there already. The spool goes as the shards come, but for what is to be taken again.
    fn check_space(&self, directory: &Path) -> Result<()> {
        let times = |weight: f64| if weight > 1.0 { weight + 1.0 } else { 1.0 };
        let text: u64 =
            self.inputs.iter().map(|input| (input.expected_text() as f64 * times(input.source.weight)) as u64).sum();
        let token_size = if self.tokenizer.vocabulary().len() > 1 << 16 { 4 } else { 2 };
        let list = fs::read_dir(directory).map_err(DataError::io("list", directory))?;
        let there: u64 = list.filter_map(|entry| entry.ok()?.metadata().ok()).map(|metadata| metadata.len()).sum();
        let required = (text / 4 * token_size + text / 25).saturating_sub(there);
        let found = fs4::available_space(directory).map_err(DataError::io("ask for the free space of", directory))?;
        match required > found {
            true => Err(DataError::Space { path: self.out.to_owned(), required, found }),
            false => Ok(()),
        }
    }
}

/// The settings that differ, as they are asked for and as they are there.
fn differing_settings(asked: &PrepareOptions, there: &PrepareOptions) -> Option<(String, String)> {
    let flat = |options: &PrepareOptions| {
        let mut settings = serde_json::json!(options);
        let reading = settings["reading"].take();
        let of = |value: serde_json::Value| value.as_object().cloned().unwrap_or_default();
        of(settings).into_iter().chain(of(reading)).collect::<BTreeMap<String, serde_json::Value>>()
    };
    let (asked, there) = (flat(asked), flat(there));
    let differing = || asked.keys().filter(|key| asked.get(*key) != there.get(*key));
    let shown = |settings: &BTreeMap<String, serde_json::Value>| {
        differing().map(|key| format!("{key}: {}", settings[key])).collect::<Vec<_>>().join(", ")
    };
    differing().next().map(|_| (shown(&asked), shown(&there)))
}

/// How the inputs differ, in their names, order or weights: those asked for, and those there.
fn differing_inputs(asked: &[Input], there: &[InputEntry]) -> Option<(String, String)> {
    let named = |name: String, source: &Source| match *source == Source::default() {
        true => name,
        false => format!("{}:{}={name}", source.name, source.weight),
    };
    let asked: Vec<String> = asked.iter().map(|input| named(input.name(), &input.source)).collect();
    let there: Vec<String> = there.iter().map(|entry| named(entry.name.clone(), &entry.source)).collect();
    if asked == there {
        return None;
    }
    let first_foreign = |these: &[String], those: &[String]| {
        let those: HashSet<&String> = those.iter().collect();
        these.iter().find(|name| !those.contains(name)).cloned()
    };
    let numbers = (format!("the {} inputs asked for", asked.len()), format!("from {}", there.len()));
    Some(match (first_foreign(&asked, &there), first_foreign(&there, &asked)) {
        (Some(new), _) => (format!("{}, with {new}", numbers.0), format!("{} without it", numbers.1)),
        (None, Some(old)) => (numbers.0, format!("{}, with {old}", numbers.1)),
        (None, None) => (format!("{} in their order", numbers.0), "from the same in another".into()),
    })
}

/// The first shard that does not have the size that the manifest gives, or file of the tokenizer that is gone, as (required,
/// found).
fn files_differ(manifest: &Manifest, directory: &Path) -> Option<(String, String)> {
    let shard = manifest.shards.iter().find_map(|shard| {
        let size = fs::metadata(directory.join(&shard.file)).map(|metadata| metadata.len()).ok();
        let found = size.map_or("without it".into(), |size| format!("with {size} bytes of it"));
        (size != Some(shard.bytes)).then(|| (format!("{} of {} bytes", shard.file, shard.bytes), found))
    });
    let tokenizer = || {
        let mut names = TOKENIZER_FILES.iter().map(|name| Path::new(TOKENIZER_DIRECTORY).join(name));
        let gone = names.find(|name| !directory.join(name).is_file())?;
        Some((gone.display().to_string(), "without it".into()))
    };
    shard.or_else(tokenizer)
}

/// An error if there is too little text to train on.
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
        let found = format!("{train}, which the weights of the sources left of {before_weights}");
        return too_few("at least 2 documents to train on", found, "raise the weights");
    }
    if train + held_out == 0 {
        return match removed {
            0 => too_few("documents", "none: there is no text in it".into(), "name inputs with text"),
            _ => too_few("documents", format!("none: all {removed} were left out"), "ask less of them by --filter"),
        };
    }
    let next = match manifest.options.reading.sentences {
        SentenceMode::Wrapped => "add documents, or part the text into documents by two empty lines",
        _ => "add documents, or part the text into documents by empty lines",
    };
    if train < 2 {
        let required = "at least 2 documents to train on, for a random next sentence comes from another one";
        return too_few(required, format!("{train}"), next);
    }
    if manifest.options.held_out > 0.0 && held_out < 2 {
        let found = format!("{held_out} of {}", train + held_out);
        return too_few("at least 2 documents held out", found, "add documents, raise --held-out, or set it to 0");
    }
    Ok(())
}
