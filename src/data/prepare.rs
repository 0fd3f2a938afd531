//! Text to a directory of prepared data, as three threads of work that overlap: one reads, all cores split sentences
//! and look up tokens, one gathers shards and writes them. Memory holds a few batches of text and a shard of each split.
//!
//! The directory is made beside its name and renamed when it is whole, so that a directory of that name is always
//! complete. One that is already what was asked for is left as it is.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};

use rayon::prelude::*;

use crate::rng::Key;

use super::corpus::{Input, Piece, ReadCounts, Sentences, TextBatch, read_text};
use super::error::{DataError, Result};
use super::prepared::{MANIFEST, Manifest, PrepareOptions, ShardEntry, SourceEntry, Split, TOKENIZER_DIRECTORY};
use super::sentences::sentences;
use super::shard::{Counts, SHARD_FORMAT, ShardBuilder, ShardHeader};
use super::wordpiece::Tokenizer;

/// Batches that may wait between two threads.
const WAITING: usize = 4;

/// What is being done, for a progress bar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Reading inputs for their sha256.
    Hashing,
    /// Reading, splitting, tokenizing and writing.
    Tokenizing,
}

/// What to prepare, from what, to where.
#[derive(Debug)]
pub struct Preparation<'a> {
    pub inputs: &'a [Input],
    pub tokenizer: &'a Tokenizer,
    pub options: &'a PrepareOptions,
    pub out: &'a Path,
    /// Replace prepared data that differs.
    pub force: bool,
}

/// What was done.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    Prepared(Manifest),
    /// The directory already was what was asked for.
    UpToDate(Manifest),
}

/// Prepares data, unless it is there. `progress` hears of the bytes of input that each stage has read.
///
/// # Errors
/// If `out` holds something else, the inputs cannot be read or hold too little, or the disk is too small. `out` is then
/// as it was.
pub fn prepare(preparation: &Preparation, progress: &(dyn Fn(Stage, u64) + Sync)) -> Result<Outcome> {
    preparation.check_options()?;
    let (staging_path, existing) = preparation.examine_out()?;
    if let Some(manifest) = existing {
        let difference = preparation.difference(&manifest, progress)?;
        match difference {
            None => return Ok(Outcome::UpToDate(manifest)),
            Some(_) if preparation.force => {}
            Some((required, found)) => {
                let next = "choose another directory, or replace this one with --force";
                return Err(DataError::file(preparation.out, required, found, next));
            }
        }
    }
    let staging = Staging::create(staging_path)?;
    preparation.check_space(&staging.path)?;

    let hashing = |bytes| progress(Stage::Hashing, bytes);
    let sources: Vec<SourceEntry> =
        preparation.inputs.par_iter().map(|input| input.entry(&hashing)).collect::<Result<_>>()?;
    let manifest = preparation.write_shards(&staging.path, sources, progress)?;
    for input in preparation.inputs {
        input.check_unchanged()?;
    }
    check_enough(&manifest)?;

    let tokenizer_directory = staging.path.join(TOKENIZER_DIRECTORY);
    fs::create_dir(&tokenizer_directory).map_err(DataError::io("create", &tokenizer_directory))?;
    for (name, content) in preparation.tokenizer.files() {
        let path = tokenizer_directory.join(name);
        fs::write(&path, &content).map_err(DataError::write(&path, content.len()))?;
    }
    let path = staging.path.join(MANIFEST);
    let json = serde_json::to_string_pretty(&manifest).map_err(|e| DataError::io("write", &path)(e.into()))? + "\n";
    fs::write(&path, &json).map_err(DataError::write(&path, json.len()))?;
    staging.rename_to(preparation.out)?;
    Ok(Outcome::Prepared(manifest))
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

    /// Where to stage, and the manifest of what `out` holds. An error if it holds anything else.
    fn examine_out(&self) -> Result<(PathBuf, Option<Manifest>)> {
        let Some(name) = self.out.file_name() else {
            let found = self.out.display().to_string();
            return Err(DataError::setting("out", "the name of a directory to make", found));
        };
        let mut partial = std::ffi::OsString::from(".");
        partial.push(name);
        partial.push(".partial");
        let staging = self.out.with_file_name(partial);
        if self.out.join(MANIFEST).exists() {
            // Another format, or a damaged manifest, is replaced only on request.
            return match Manifest::read(self.out) {
                Ok(manifest) => Ok((staging, Some(manifest))),
                Err(_) if self.force => Ok((staging, None)),
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
        Ok((staging, None))
    }

    /// The first thing in which existing data differs from what is asked for, as (required, found).
    fn difference(
        &self,
        manifest: &Manifest,
        progress: &(dyn Fn(Stage, u64) + Sync),
    ) -> Result<Option<(String, String)>> {
        let vocabulary = self.tokenizer.vocabulary();
        let differs = |required: String, found: String| Ok(Some((required, format!("prepared data {found}"))));
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
        let names = |inputs: &mut dyn Iterator<Item = String>| inputs.collect::<Vec<_>>();
        let asked = names(&mut self.inputs.iter().map(Input::name));
        let there = names(&mut manifest.inputs.iter().map(|entry| entry.name.clone()));
        if asked != there {
            return differs(format!("the inputs {asked:?}"), format!("from {there:?}"));
        }
        for (input, entry) in self.inputs.iter().zip(&manifest.inputs) {
            if !input.is_still(entry, &|bytes| progress(Stage::Hashing, bytes))? {
                return differs(format!("{} as it is now", entry.name), "from an earlier content of it".into());
            }
        }
        for shard in &manifest.shards {
            let size = fs::metadata(self.out.join(&shard.file)).map(|m| m.len()).ok();
            if size != Some(shard.bytes) {
                return differs(
                    format!("{} of {} bytes", shard.file, shard.bytes),
                    size.map_or("without it".into(), |size| format!("with {size} bytes of it")),
                );
            }
        }
        Ok(None)
    }

    /// About a token for every four bytes of text, two or four bytes a token, and a start for every sentence.
    fn check_space(&self, directory: &Path) -> Result<()> {
        let text: u64 = self.inputs.iter().map(Input::expected_text).sum();
        let token_size = if self.tokenizer.vocabulary().len() > 1 << 16 { 4 } else { 2 };
        let required = text / 4 * token_size + text / 25;
        let found = fs4::available_space(directory).map_err(DataError::io("ask for the free space of", directory))?;
        match required > found {
            true => Err(DataError::Space { path: self.out.to_owned(), required, found }),
            false => Ok(()),
        }
    }

    fn write_shards(
        &self,
        directory: &Path,
        sources: Vec<SourceEntry>,
        progress: &(dyn Fn(Stage, u64) + Sync),
    ) -> Result<Manifest> {
        let manifest = Manifest {
            format: SHARD_FORMAT,
            vocabulary_sha256: self.tokenizer.vocabulary().sha256().to_owned(),
            vocabulary_size: self.tokenizer.vocabulary().len(),
            lowercase: self.tokenizer.rules().lowercase,
            options: self.options.clone(),
            train: Counts::default(),
            held_out: Counts::default(),
            reading: ReadCounts::default(),
            cut_documents: 0,
            inputs: sources,
            shards: Vec::new(),
        };
        let writer = ShardWriter::new(directory, self.tokenizer, manifest);
        let reading = |bytes| progress(Stage::Tokenizing, bytes);
        std::thread::scope(|scope| {
            let (send_text, texts) = sync_channel::<TextBatch>(WAITING);
            let (send_tokens, tokens) = sync_channel::<TokenBatch>(WAITING);
            let reader = scope.spawn(|| {
                // `send_text` must be dropped here, for its end is how the next thread knows the end.
                let send_text = send_text;
                let mut sink = |batch| send_text.send(batch).is_ok();
                read_text(self.inputs, &self.options.reading, &reading, &mut sink)
            });
            let writer = scope.spawn(move || writer.run(tokens));
            let encode_all = || {
                for text in &texts {
                    // A writer that failed has stopped listening; its own error is the one to tell.
                    if send_tokens.send(self.encode(text)?).is_err() {
                        break;
                    }
                }
                Ok(())
            };
            let encoded = encode_all();
            drop((texts, send_tokens));
            let read = join(reader);
            let written = join(writer);
            encoded.and(read).and(written)
        })
    }

    /// Splits and tokenizes the lines of a batch on all cores.
    fn encode(&self, batch: TextBatch) -> Result<TokenBatch> {
        let TextBatch { text, pieces, counts } = batch;
        let lines = pieces.par_iter().map(|piece| {
            let Piece::Line(range) = piece else { return Ok(None) };
            let line = &text[range.clone()];
            // English has about 4.5 bytes a token.
            let mut tokens = LineTokens { ids: Vec::with_capacity(line.len() / 4), ends: Vec::new() };
            match self.options.reading.sentences {
                Sentences::Split | Sentences::Wrapped => {
                    sentences(line).try_for_each(|sentence| tokens.push(self.tokenizer, sentence))
                }
                Sentences::Lines => tokens.push(self.tokenizer, line),
            }?;
            Ok(Some(tokens))
        });
        Ok(TokenBatch { lines: lines.collect::<Result<_>>()?, counts })
    }
}

/// A thread's result; its panic goes on in this thread.
fn join<T>(handle: std::thread::ScopedJoinHandle<'_, T>) -> T {
    handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// The tokens of a line, and where its sentences end among them.
struct LineTokens {
    ids: Vec<u32>,
    ends: Vec<usize>,
}

impl LineTokens {
    fn push(&mut self, tokenizer: &Tokenizer, sentence: &str) -> Result<()> {
        tokenizer.encode(sentence, &mut self.ids)?;
        self.ends.push(self.ids.len());
        Ok(())
    }
}

/// A [`TextBatch`] as tokens; `None` is the end of a document.
struct TokenBatch {
    lines: Vec<Option<LineTokens>>,
    counts: ReadCounts,
}

/// True if document `index` of a corpus is held out: a pure function, whatever the other documents are.
fn is_held_out(seed: u64, index: u64, share: f64) -> bool {
    Key::new(seed).fold_in(index).stream().uniform() < share
}

/// Gathers documents into the shards of both splits.
struct ShardWriter<'a> {
    directory: &'a Path,
    tokenizer: &'a Tokenizer,
    manifest: Manifest,
    train: ShardBuilder,
    held_out: ShardBuilder,
    /// Split of the document at hand.
    split: Split,
    /// Documents begun and ended so far.
    documents: u64,
}

impl<'a> ShardWriter<'a> {
    fn new(directory: &'a Path, tokenizer: &'a Tokenizer, manifest: Manifest) -> Self {
        let builder = || ShardBuilder::new(tokenizer.vocabulary());
        let (train, held_out) = (builder(), builder());
        let mut writer =
            ShardWriter { directory, tokenizer, manifest, train, held_out, split: Split::Train, documents: 0 };
        writer.choose_split();
        writer
    }

    fn run(mut self, batches: Receiver<TokenBatch>) -> Result<Manifest> {
        for batch in batches {
            self.manifest.reading += batch.counts;
            for line in batch.lines {
                match line {
                    Some(tokens) => self.push(&tokens)?,
                    None => self.end_document()?,
                }
            }
        }
        self.end_document()?;
        self.close(Split::Train)?;
        self.close(Split::HeldOut)?;
        Ok(self.manifest)
    }

    fn builder(&mut self) -> &mut ShardBuilder {
        match self.split {
            Split::Train => &mut self.train,
            Split::HeldOut => &mut self.held_out,
        }
    }

    fn choose_split(&mut self) {
        let PrepareOptions { seed, held_out, .. } = self.manifest.options;
        self.split = if is_held_out(seed, self.documents, held_out) { Split::HeldOut } else { Split::Train };
    }

    fn push(&mut self, line: &LineTokens) -> Result<()> {
        let limit = self.manifest.options.shard_tokens;
        let mut start = 0;
        for &end in &line.ends {
            // A document that would fill a shard by itself is cut; what remains of it stays in its split.
            if self.builder().document_tokens() >= limit {
                self.manifest.cut_documents += 1;
                self.builder().end_document();
                self.close(self.split)?;
            }
            self.builder().push_sentence(&line.ids[start..end]);
            start = end;
        }
        Ok(())
    }

    fn end_document(&mut self) -> Result<()> {
        if self.builder().document_tokens() > 0 {
            self.builder().end_document();
            if self.builder().tokens() >= self.manifest.options.shard_tokens {
                self.close(self.split)?;
            }
            self.documents += 1;
            self.choose_split();
        }
        Ok(())
    }

    /// Writes the shard at hand of a split and begins another.
    fn close(&mut self, split: Split) -> Result<()> {
        let fresh = ShardBuilder::new(self.tokenizer.vocabulary());
        let (slot, sum) = match split {
            Split::Train => (&mut self.train, &mut self.manifest.train),
            Split::HeldOut => (&mut self.held_out, &mut self.manifest.held_out),
        };
        let shard = std::mem::replace(slot, fresh);
        let counts = shard.counts();
        if counts.documents == 0 {
            return Ok(());
        }
        *sum += counts;
        let header = ShardHeader {
            format: SHARD_FORMAT,
            split,
            vocabulary_sha256: self.manifest.vocabulary_sha256.clone(),
            vocabulary_size: self.manifest.vocabulary_size,
            counts,
            sources: self
                .manifest
                .inputs
                .iter()
                .map(|e| (e.name.clone(), e.sha256.clone()))
                .collect::<BTreeMap<_, _>>(),
        };
        let number = self.manifest.shards.iter().filter(|entry| entry.split == split).count();
        let file = format!("{split}-{number:05}.safetensors");
        let path = self.directory.join(&file);
        let (bytes, sha256) = shard.write(&path, &header).map_err(DataError::write(&path, shard.bytes()))?;
        self.manifest.shards.push(ShardEntry { file, split, bytes, sha256, counts });
        Ok(())
    }
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
    if train + held_out == 0 {
        return too_few("documents", "none: there is no text in it".into(), "name inputs with text");
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

/// A directory being made; removed again if it is not renamed.
struct Staging {
    path: PathBuf,
    /// Held while the work goes on, so that a second run does not take the directory for a dead one's.
    lock: Option<fs::File>,
}

const LOCK: &str = "lock";

impl Staging {
    fn create(path: PathBuf) -> Result<Self> {
        fs::create_dir_all(&path).map_err(DataError::io("create", &path))?;
        let lock_path = path.join(LOCK);
        let lock = fs::File::create(&lock_path).map_err(DataError::io("create", &lock_path))?;
        if let Err(error) = lock.try_lock() {
            let found = match error {
                fs::TryLockError::WouldBlock => "another preparation that is writing it".to_owned(),
                fs::TryLockError::Error(error) => error.to_string(),
            };
            return Err(DataError::file(&path, "the directory for itself", found, "wait for it to end"));
        }
        // What a killed run left.
        for entry in fs::read_dir(&path).map_err(DataError::io("list", &path))? {
            let left = entry.map_err(DataError::io("list", &path))?.path();
            if left != lock_path {
                let removed = if left.is_dir() { fs::remove_dir_all(&left) } else { fs::remove_file(&left) };
                removed.map_err(DataError::io("remove", &left))?;
            }
        }
        Ok(Staging { path, lock: Some(lock) })
    }

    /// Puts the directory in the place of `out`, which is empty, absent, or prepared data to be replaced.
    fn rename_to(mut self, out: &Path) -> Result<()> {
        let lock_path = self.path.join(LOCK);
        fs::remove_file(&lock_path).map_err(DataError::io("remove", &lock_path))?;
        self.lock = None;
        let old = self.path.with_extension("replaced");
        let replaces = out.join(MANIFEST).exists();
        if replaces {
            fs::rename(out, &old).map_err(DataError::io("move away", out))?;
        }
        fs::rename(&self.path, out).map_err(DataError::io("put the prepared data at", out))?;
        if replaces {
            fs::remove_dir_all(&old).map_err(DataError::io("remove", &old))?;
        }
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // After a rename there is nothing here; after an error, what cannot be removed is left for the next run.
        if self.lock.take().is_some() {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_held_out_share_is_met_and_a_document_keeps_its_split() {
        let chosen: Vec<u64> = (0..50_000).filter(|&i| is_held_out(3, i, 0.02)).collect();
        // Five standard deviations of a binomial(50000, 0.02) are 157.
        assert!(chosen.len().abs_diff(1000) < 158, "{}", chosen.len());
        // A larger share holds out more documents, and these as well.
        assert!(chosen.iter().all(|&i| is_held_out(3, i, 0.05)));
        assert!(!(0..1000).any(|i| is_held_out(3, i, 0.0)));
    }
}
