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

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::corpus::{Input, ReadCounts, Sentences, Source};
use super::error::{DataError, Result};
use super::prepared::{MANIFEST, MANIFEST_FORMAT, Manifest, PrepareOptions, Removed, SourceEntry, TOKENIZER_DIRECTORY};
use super::shard::{Counts, Split};
use super::wordpiece::Tokenizer;
use journal::{JOURNAL, Journal, Step};
use spool::Spool;
use staging::{Staging, end_replacement};

/// What is being done, for a progress bar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
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
pub type Progress<'a> = &'a (dyn Fn(Stage, u64) + Sync);

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
pub enum Outcome {
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
pub fn prepare(preparation: &Preparation, progress: Progress) -> Result<Outcome> {
    preparation.check_options()?;
    end_replacement(preparation.out)?;
    if let Some(manifest) = preparation.existing()? {
        let hashing = |bytes| progress(Stage::Comparing, bytes);
        let difference = match preparation.difference(&manifest, &hashing)? {
            None => shards_differ(&manifest, preparation.out),
            found => found,
        };
        match difference {
            None => return Ok(Outcome::UpToDate(manifest)),
            Some(_) if preparation.force => {}
            Some((required, found)) => {
                let next = "choose another directory, or replace this one with --force";
                return Err(DataError::file(preparation.out, required, format!("prepared data {found}"), next));
            }
        }
    }
    let staging = Staging::open(preparation.out)?;
    let journal = match preparation.take_up(&staging, progress) {
        Ok(journal) => journal,
        // What is there belongs to another preparation.
        Err(error) => {
            staging.keep();
            return Err(error);
        }
    };
    match preparation.work(staging.path(), &journal, progress) {
        Ok(manifest) => {
            staging.rename_to(preparation.out)?;
            Ok(Outcome::Prepared(manifest))
        }
        Err(error) => {
            // What is done is good, and there may soon be room for the rest.
            if matches!(error, DataError::Full { .. } | DataError::Space { .. }) {
                staging.keep();
            }
            Err(error)
        }
    }
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
        let occupied = match fs::read_dir(self.out) {
            Ok(mut entries) => entries.next().is_some(),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => false,
            Err(e) => return Err(DataError::io("list", self.out)(e)),
        };
        if occupied {
            let found = "a directory with other files";
            let next = "choose another directory: nothing but prepared data is ever replaced";
            return Err(DataError::file(self.out, "a new or empty directory, or prepared data", found, next));
        }
        Ok(None)
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
        if manifest.options != *self.options {
            return differs(format!("{:?}", self.options), format!("with {:?}", manifest.options));
        }
        let named = |name: String, source: &Source| match *source == Source::default() {
            true => name,
            false => format!("{}:{}={name}", source.name, source.weight),
        };
        let asked: Vec<String> = self.inputs.iter().map(|input| named(input.name(), &input.source)).collect();
        let there: Vec<String> = manifest.inputs.iter().map(|entry| named(entry.name.clone(), &entry.source)).collect();
        if asked != there {
            return differs(format!("the inputs {asked:?}"), format!("from {there:?}"));
        }
        for (input, entry) in self.inputs.iter().zip(&manifest.inputs) {
            if !input.is_still(entry, hashing)? {
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
        let entry = |input: &Input| SourceEntry {
            name: input.name(),
            bytes: input.bytes,
            modified: input.modified,
            sha256: String::new(),
            source: input.source.clone(),
            reading: ReadCounts::default(),
        };
        Manifest {
            format: MANIFEST_FORMAT,
            vocabulary_sha256: self.tokenizer.vocabulary().sha256().to_owned(),
            vocabulary_size: self.tokenizer.vocabulary().len(),
            lowercase: self.tokenizer.rules().lowercase,
            options: self.options.clone(),
            train: Counts::default(),
            held_out: Counts::default(),
            reading: ReadCounts::default(),
            cut_documents: 0,
            removed: BTreeMap::new(),
            inputs: self.inputs.iter().map(entry).collect(),
            shards: Vec::new(),
        }
    }

    /// Opens the journal of an interrupted preparation of the same, or begins one.
    fn take_up(&self, staging: &Staging, progress: Progress) -> Result<Journal> {
        if self.force {
            // A journal that does not fit is no obstacle then.
            let fits = Journal::open(staging.path()).and_then(|journal| self.fits(&journal, staging.path()));
            let fits = fits.and_then(|()| shards::check_plan(staging.path()));
            if fits.is_err() {
                staging.clear()?;
            }
        }
        if !staging.path().join(JOURNAL).exists() {
            staging.clear()?;
        }
        let journal = Journal::open(staging.path())?;
        if journal.ask(|done| done.begun.is_none()) {
            journal.note(Step::Begun(Box::new(self.manifest())))?;
        } else {
            self.fits(&journal, staging.path())?;
            let parts = self.parts().into_iter().enumerate();
            let done = parts.filter(|&(part, _)| journal.ask(|done| done.has_part(part as u32)));
            progress(Stage::Resuming, done.map(|(_, place)| self.inputs[place.input].bytes_of_part(place.part)).sum());
        }
        Ok(journal)
    }

    /// An error if the journal is that of another preparation.
    fn fits(&self, journal: &Journal, directory: &Path) -> Result<()> {
        let Some(begun) = journal.ask(|done| done.begun.clone()) else { return Ok(()) };
        match self.difference(&begun, &|_| ())? {
            None => Ok(()),
            Some((required, found)) => Err(DataError::file(
                directory,
                required,
                format!("an interrupted preparation {found}"),
                "ask for the same again to go on with it, or forget it with --force",
            )),
        }
    }

    /// All the work, in the directory `staging`: whatever of it is not done.
    fn work(&self, staging: &Path, journal: &Journal, progress: Progress) -> Result<Manifest> {
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
            fs::write(&path, &content).map_err(DataError::write(&path, content.len()))?;
        }
        let path = staging.join(MANIFEST);
        let json = serde_json::to_string_pretty(&manifest).map_err(|e| DataError::io("write", &path)(e.into()))? + "\n";
        fs::write(&path, &json).map_err(DataError::write(&path, json.len()))?;
        shards::clear(staging)?;
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

/// The first shard that does not have the size that the manifest gives, as (required, found).
fn shards_differ(manifest: &Manifest, directory: &Path) -> Option<(String, String)> {
    manifest.shards.iter().find_map(|shard| {
        let size = fs::metadata(directory.join(&shard.file)).map(|metadata| metadata.len()).ok();
        let found = size.map_or("without it".into(), |size| format!("with {size} bytes of it"));
        (size != Some(shard.bytes)).then(|| (format!("{} of {} bytes", shard.file, shard.bytes), found))
    })
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
    if train + held_out == 0 {
        return match removed {
            0 => too_few("documents", "none: there is no text in it".into(), "name inputs with text"),
            _ => too_few("documents", format!("none: all {removed} were left out"), "ask less of them by --filter"),
        };
    }
    let next = match manifest.options.reading.sentences {
        Sentences::Wrapped => "add documents, or part the text into documents by two empty lines",
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
