//! A preparation in parts. Any machine that sees the inputs and the directory of the output tokenizes one part, in `OUT.parts/3-of-64`;
//! when all are complete, one machine joins them. The result is the same as that of one machine, byte for byte: blocks of text,
//! signatures and shards depend on the text and the options only.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::blocks::BlockId;
use super::journal::{Done, Journal, JournalRecord};
use super::sorted::{SortedRun, SortedSignatures};
use super::spool::Spools;
use super::staging::Staging;
use super::{Interrupted, PartOfInput, Preparation, PrepareProgress, encode, staging, tokenize};
use crate::data::corpus::Input;
use crate::data::error::{DataError, Result};
use crate::data::store::shard::Split;

/// A part of a preparation: its number from 1, and the number of parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Part {
    number: u32,
    of: u32,
}

impl FromStr for Part {
    type Err = String;

    /// Reads `NUMBER/PARTS`.
    fn from_str(text: &str) -> std::result::Result<Part, String> {
        let parsed = text.split_once('/').and_then(|(number, of)| Some((number.parse().ok()?, of.parse().ok()?)));
        match parsed {
            Some((number, of)) if (1..=of).contains(&number) => Ok(Part { number, of }),
            _ => Err("requires NUMBER/PARTS with a number from 1 to the number of parts, for example 3/64".to_owned()),
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.of)
    }
}

impl Part {
    fn all(of: u32) -> impl Iterator<Item = Part> {
        (1..=of).map(move |number| Part { number, of })
    }

    /// Returns the name of its directory.
    pub(super) fn directory_name(self) -> String {
        format!("{}-of-{}", self.number, self.of)
    }

    /// Returns the part whose directory has this name.
    pub(super) fn of_directory(name: &str) -> Option<Part> {
        name.replacen("-of-", "/", 1).parse().ok().filter(|part: &Part| part.directory_name() == name)
    }

    fn directory(self, out: &Path) -> PathBuf {
        parts_directory(out).join(self.directory_name())
    }

    /// Returns the bytes of input that this part reads.
    pub fn bytes(self, inputs: &[Input]) -> u64 {
        let places = places(inputs);
        let taken = self.taken(inputs, &places);
        taken.into_iter().map(|(_, place)| inputs[place.input].bytes_of_part(place.part)).sum()
    }

    /// Returns the parts of inputs that this part reads, with their numbers.
    fn taken(self, inputs: &[Input], places: &[PartOfInput]) -> Vec<(u32, PartOfInput)> {
        let assigned = assign(inputs, places, self.of).into_iter().zip(places).enumerate();
        assigned.filter(|(_, (part, _))| *part == self).map(|(index, (_, &place))| (index as u32, place)).collect()
    }
}

/// Returns the parts of all inputs, in the order of the text.
pub(super) fn places(inputs: &[Input]) -> Vec<PartOfInput> {
    let of = |(input, file): (usize, &Input)| (0..file.parts()).map(move |part| PartOfInput { input, part });
    inputs.iter().enumerate().flat_map(of).collect()
}

/// Returns the expected bytes of text of a part of an input.
fn text(inputs: &[Input], place: &PartOfInput) -> u64 {
    let input = &inputs[place.input];
    let times = input.expected_text() as f64 / input.bytes.max(1) as f64;
    (input.bytes_of_part(place.part) as f64 * times) as u64
}

/// Returns the part that reads each of `places`: the largest places first, each goes to the part with the least text.
fn assign(inputs: &[Input], places: &[PartOfInput], of: u32) -> Vec<Part> {
    let text = |place: usize| text(inputs, &places[place]);
    let mut largest_first: Vec<usize> = (0..places.len()).collect();
    largest_first.sort_by_key(|&place| Reverse(text(place)));
    let mut least: BinaryHeap<Reverse<(u64, Part)>> = Part::all(of).map(|part| Reverse((0, part))).collect();
    let mut assigned = vec![Part { number: 1, of }; places.len()];
    for place in largest_first {
        if let Some(mut least) = least.peek_mut() {
            assigned[place] = least.0.1;
            // A file without text is work, too.
            least.0.0 += text(place).max(1);
        }
    }
    assigned
}

/// The result of [`prepare_part`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartOutcome {
    /// The part was prepared now.
    Prepared {
        /// Tokens of both splits.
        tokens: u64,
    },
    /// The part, or the whole data, was complete already.
    UpToDate,
}

/// Tokenizes one part of the text into `OUT.parts`, for [`join`](super::join()). Resumes a part that was killed.
///
/// # Errors
/// As [`prepare`](super::prepare()).
pub fn prepare_part(preparation: &Preparation, part: Part, progress: PrepareProgress) -> Result<PartOutcome> {
    preparation.check_options()?;
    let out = &staging::resolve(preparation.out)?;
    let preparation = &Preparation { out, ..*preparation };
    if preparation.up_to_date(&preparation.existing()?, progress)?.is_some() {
        return Ok(PartOutcome::UpToDate);
    }
    let places = part.taken(preparation.inputs, &preparation.places());
    let inputs: BTreeSet<usize> = places.iter().map(|(_, place)| place.input).collect();
    let inputs = || inputs.iter().map(|&input| &preparation.inputs[input]);
    inputs().try_for_each(|input| input.check_beginning(&preparation.options.reading))?;

    let directory = part.directory(out);
    fs::create_dir_all(parts_directory(out)).map_err(DataError::io("create", out))?;
    let staging = Staging::at(directory.clone())?;
    let Interrupted::Resumable(journal) = preparation.resume_or_start(&staging, None, progress)? else {
        let next = "move it away, and prepare this part again";
        return Err(DataError::file(directory, "a part of a preparation", "complete prepared data", next));
    };
    let spools = preparation.spools_in(&directory, &journal);
    tokenize::forget_lost_blocks(&journal, &spools);
    let is_complete = |done: &Done| {
        let is_sorted = done.sorted.as_ref().is_some_and(|runs| SortedSignatures::are_complete(runs, &directory));
        is_sorted && places.iter().all(|&(place, _)| done.has_part(place))
    };
    if journal.read(is_complete) {
        return Ok(PartOutcome::UpToDate);
    }
    preparation.report_resumed(&journal, progress);
    let work = || {
        let text = places.iter().map(|(_, place)| text(preparation.inputs, place)).sum();
        preparation.check_space(&directory, text)?;
        tokenize::tokenize(preparation, &places, &journal, &spools, progress)?;
        inputs().try_for_each(Input::check_unchanged)?;
        let blocks = journal.read(Done::places);
        spools.to_disk(&blocks)?;
        let sorted = preparation.sort_signatures(&blocks, &spools, &directory)?;
        journal.record(JournalRecord::Sorted(sorted.runs))?;
        journal.to_disk()?;
        Ok(PartOutcome::Prepared { tokens: blocks.iter().map(|(.., place)| place.tokens).sum() })
    };
    work().map_err(|error| preparation.handle_failure(error, &staging, &journal))
}

/// A complete part.
struct FinishedPart {
    /// Holds the lock of its directory.
    staging: Staging,
    done: Done,
    runs: Vec<SortedRun>,
}

impl FinishedPart {
    /// Opens a part that reads the numbered parts of inputs `taken`. Returns `None` if it is missing or incomplete.
    fn open(
        preparation: &Preparation,
        part: Part,
        mut taken: impl Iterator<Item = u32>,
    ) -> Result<Option<FinishedPart>> {
        let directory = part.directory(preparation.out);
        if !directory.is_dir() {
            return Ok(None);
        }
        let staging = Staging::at(directory)?;
        let found = preparation.find_interrupted(staging.path(), None, &|_, _| ())?;
        let Some(Interrupted::Resumable(journal)) = found else { return Ok(None) };
        let mut done = journal.into_done();
        let is_there = |done: &Done| done.places().iter().all(|(_, split, place)| place.is_in(staging.path(), *split));
        let is_complete = taken.all(|place| done.has_part(place)) && is_there(&done);
        let runs = done.sorted.take().filter(|_| is_complete);
        Ok(runs.map(|runs| FinishedPart { staging, done, runs }))
    }
}

/// The complete parts of a preparation.
pub(super) struct FinishedParts {
    number: u32,
    /// The text of all parts, with blocks in their spools.
    done: Done,
    pub spools: Spools,
    pub sorted: Vec<SortedSignatures>,
    /// Held until the data is complete.
    _stagings: Vec<Staging>,
}

impl FinishedParts {
    /// Finds the parts of a preparation.
    ///
    /// # Errors
    /// If parts are missing or incomplete, each named, or of another preparation.
    pub fn open(preparation: &Preparation) -> Result<FinishedParts> {
        let directory = parts_directory(preparation.out);
        let number = number_of_parts(&directory)?;
        let assigned = assign(preparation.inputs, &preparation.places(), number);
        let (mut parts, mut missing) = (Vec::new(), Vec::new());
        for part in Part::all(number) {
            let taken = (0..).zip(&assigned).filter(|(_, assigned)| **assigned == part).map(|(place, _)| place);
            match FinishedPart::open(preparation, part, taken)? {
                Some(part) => parts.push(part),
                None => missing.push(part),
            }
        }
        if !missing.is_empty() {
            return Err(incomplete(&directory, number, &missing));
        }
        let (mut all, mut spools) =
            (Done::default(), Spools::new(encode::form(preparation.tokenizer, preparation.options)));
        let (mut sorted, mut blocks, mut stagings) = (Vec::new(), Vec::new(), Vec::new());
        for FinishedPart { staging, done, runs } in parts {
            let directory = staging.path().to_owned();
            blocks.push(done.places().into_iter().map(|(id, split, _)| (id, split)).collect::<Vec<_>>());
            let first_file = spools.push_directory(&directory, done.next_file());
            all.absorb(done, first_file);
            sorted.push(SortedSignatures { directory, runs, blocks: Vec::new() });
            stagings.push(staging);
        }
        let numbers: BTreeMap<(BlockId, Split), u32> =
            all.places().iter().zip(0..).map(|(&(id, split, _), number)| ((id, split), number)).collect();
        for (sorted, blocks) in sorted.iter_mut().zip(blocks) {
            sorted.blocks = blocks.iter().map(|block| numbers[block]).collect();
        }
        Ok(FinishedParts { number, done: all, spools, sorted, _stagings: stagings })
    }

    /// Returns the number of parts.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Adds the work of all parts to the journal of the preparation that joins them, for this run.
    pub fn add_to(&mut self, journal: &Journal) {
        journal.absorb(std::mem::take(&mut self.done));
    }
}

/// Removes the parts of the preparation of `out`.
pub(super) fn remove_parts(out: &Path) -> Result<()> {
    let directory = parts_directory(out);
    fs::remove_dir_all(&directory).map_err(DataError::io("remove", &directory))
}

/// Returns the directory of all parts of the preparation of `out`.
pub(super) fn parts_directory(out: &Path) -> PathBuf {
    let mut name = out.file_name().map(OsString::from).unwrap_or_default();
    name.push(".parts");
    out.with_file_name(name)
}

/// Returns the number of parts that the directories in `directory` state.
fn number_of_parts(directory: &Path) -> Result<u32> {
    let mut numbers = BTreeSet::new();
    if directory.is_dir() {
        for entry in fs::read_dir(directory).map_err(DataError::io("list", directory))? {
            let name = entry.map_err(DataError::io("list", directory))?.file_name();
            numbers.extend(name.to_str().and_then(Part::of_directory).map(|part| part.of));
        }
    }
    let shown: Vec<String> = numbers.iter().map(|number| format!("of {number} parts")).collect();
    match numbers.iter().collect::<Vec<_>>()[..] {
        [number] => Ok(*number),
        [] => Err(DataError::file(
            directory,
            "the parts of a preparation",
            "none",
            "prepare them with part set to 1/N, 2/N … N/N",
        )),
        _ => {
            let next = "remove those that you do not need";
            Err(DataError::file(directory, "parts of one preparation", shown.join(" and "), next))
        }
    }
}

/// Returns the error about parts that are missing or incomplete.
fn incomplete(directory: &Path, of: u32, missing: &[Part]) -> DataError {
    const SHOWN: usize = 20;
    let mut numbers: Vec<String> = missing.iter().take(SHOWN).map(Part::to_string).collect();
    if missing.len() > SHOWN {
        numbers.push(format!("{} more", missing.len() - SHOWN));
    }
    let found = format!("{} without {}", of as usize - missing.len(), numbers.join(", "));
    let next = "prepare these parts, again if they were interrupted, and then join";
    DataError::file(directory, format!("{of} complete parts"), found, next)
}
