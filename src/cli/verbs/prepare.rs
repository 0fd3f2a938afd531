//! `lambert prepare`: tokenizes text into shards; `--check` compares prepared data and its inputs with their hashes.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::OnceLock;
use std::time::Instant;

use clap::{Args, ValueEnum};
use comfy_table::{CellAlignment, Table};
use serde_json::json;

use crate::cli::args::read::{FORMS, ReadArgs, note_skipped};
use crate::data::store::check::check;
use crate::data::{
    CheckReport, Counts, DataError, Deduplication, Filter, FoundInputs, InputEntry, InputState, MANIFEST, Manifest,
    Part, PartOutcome, PartUpload, PartsDownload, Preparation, PrepareOptions, PrepareOutcome, PrepareStage,
    PreparedData, ReadOptions, SentenceMode, Source, SourcePath, Split, Tokenizer, find_sources, join, prepare,
    prepare_part, remove_remote_parts,
};
use crate::output::byte_progress::ByteProgress;
use crate::output::{note, print, table};
use crate::run::buckets::{claim_copy, upload_data};
use crate::storage::Location;
use crate::units::{byte_size, counted, duration};

/// The exit code of `--check` if the data is intact but an input has changed.
const INPUTS_CHANGED: u8 = 3;

const EXAMPLES: &str = "

Filters (--filter NAME=VALUE):
  language=en (ISO 639), min_words, max_words, min_mean_word_length, max_mean_word_length,
  max_symbol_share, min_alphabetic_share, min_stop_words, max_bullet_line_share,
  max_ellipsis_line_share, max_repeated_line_share, max_repeated_text_share;
  gopher sets all of these except language, to the limits of Gopher (arXiv 2112.11446)

Examples:
  lambert prepare books/ wiki.jsonl.gz --tokenizer data/my/tokenizer --out data/my/prepared
  lambert prepare web/ --tokenizer data/my/tokenizer --out data/web \\
      --filter language=en --filter gopher --remove-duplicates near
  lambert prepare --source wiki=wiki/ --source books:2.5=books/ \\
      --tokenizer data/my/tokenizer --out data/mixed
  lambert prepare web/ --tokenizer data/my/tokenizer --out data/web --part 3/64    # on any machine
  lambert prepare web/ --tokenizer data/my/tokenizer --out data/web --join         # after all parts
  lambert prepare --check data/my/prepared

Exit codes of --check: 0 unchanged; 1 the data is damaged; 3 an input has changed.";

/// Prepare text for training: tokenize it into shards
///
/// Memory use does not depend on the size of the corpus. After an interruption (Ctrl-C, a kill, a full disk), the same
/// command resumes the preparation; the result is byte-identical to an uninterrupted one.
#[derive(Debug, Args)]
#[command(after_help = [FORMS, EXAMPLES].concat())]
pub struct Prepare {
    /// Files, directories or patterns ("dumps/*.bz2"); see the formats below
    #[arg(required_unless_present_any = ["check", "sources"], value_name = "INPUT")]
    inputs: Vec<PathBuf>,
    /// Named input with a weight; repeatable
    ///
    /// The weight is the number of times that each of its documents is in the training data: 2 repeats each document, 0.25
    /// keeps one in four. The default is 1.
    #[arg(long = "source", value_name = "NAME[:WEIGHT]=PATH")]
    sources: Vec<SourcePath>,
    /// Tokenizer: a directory with tokenizer.json or vocab.txt, or one of these files
    #[arg(long, required_unless_present = "check", value_name = "PATH")]
    tokenizer: Option<PathBuf>,
    /// Output directory; data for s3:// or gs:// is prepared in a local directory and then uploaded
    #[arg(long, required_unless_present = "check", value_name = "DIR")]
    out: Option<Location>,
    /// Fraction of documents to hold out for evaluation
    #[arg(long, default_value_t = PrepareOptions::default().held_out, value_name = "FRACTION")]
    held_out: f64,
    /// Meaning of a line of text
    #[arg(long, value_enum, default_value_t = LineForm::Split)]
    sentences: LineForm,
    #[command(flatten)]
    reading: ReadArgs,
    /// Keep upper case and accents; only for a vocab.txt without tokenizer_config.json
    #[arg(long)]
    cased: bool,
    /// Seed of the choice of held-out documents
    #[arg(long, default_value_t = 0, value_name = "SEED")]
    seed: u64,
    /// Remove documents that do not satisfy this rule; repeatable
    #[arg(long = "filter", value_name = "RULE", value_parser = filters)]
    filters: Vec<FilterList>,
    /// Remove documents that duplicate an earlier one [default: keep all]
    #[arg(long, value_enum, value_name = "WHICH")]
    remove_duplicates: Option<RemoveDuplicates>,
    /// Tokens per shard, at most; all shards have about the same size
    #[arg(long, default_value_t = PrepareOptions::default().shard_tokens, value_name = "TOKENS")]
    shard_tokens: usize,
    /// Overwrite existing output, even if it was made with other options
    #[arg(long)]
    force: bool,
    /// Tokenize one part of the text only, for example 3/64; any machines prepare the others
    ///
    /// The parts are in DIR.parts (of a bucket: in PREFIX.parts), which all machines must see. They read the same inputs with the
    /// same options. A part that was interrupted is resumed by the same command.
    #[arg(long, value_name = "NUMBER/PARTS", conflicts_with_all = ["join", "check"])]
    part: Option<Part>,
    /// Put the parts together, when all are complete: the same command with --join in place of --part
    ///
    /// The data is the same, byte for byte, as that of one machine.
    #[arg(long, conflicts_with = "check")]
    join: bool,
    /// Print the manifest as JSON; with --check, the result
    #[arg(long)]
    json: bool,
    /// Check prepared data, and its inputs if they still exist, for changes
    #[arg(long, value_name = "DIR", conflicts_with_all = ["inputs", "sources", "tokenizer", "out", "force"])]
    check: Option<PathBuf>,
}

/// The filters of one `--filter`.
type FilterList = Vec<Filter>;

fn filters(text: &str) -> Result<FilterList, String> {
    if text == "gopher" { Ok(Filter::gopher().collect()) } else { text.parse().map(|filter| vec![filter]) }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum RemoveDuplicates {
    /// Identical documents
    Exact,
    /// Near duplicates too: MinHash of 5-word shingles, 14 bands of 8 (finds 92 % of pairs of similarity 0.8)
    Near,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LineForm {
    /// A paragraph, which is split into sentences
    Split,
    /// A sentence
    Lines,
    /// A part of a wrapped paragraph, as in books; an empty line ends a paragraph, two end a document
    Wrapped,
}

pub fn run(args: Prepare) -> anyhow::Result<ExitCode> {
    if let Some(directory) = &args.check {
        return run_check(directory, args.json);
    }
    let (Some(tokenizer), Some(out)) = (&args.tokenizer, &args.out) else {
        anyhow::bail!("--tokenizer and --out are required, unless --check is given");
    };
    claim_copy(out)?;
    let FoundInputs { inputs, skipped } = find_sources(&args.inputs, &args.sources)?;
    note_skipped(&skipped);
    let tokenizer = Tokenizer::open(tokenizer, args.cased)?;
    let options = PrepareOptions {
        reading: ReadOptions {
            sentences: match args.sentences {
                LineForm::Split => SentenceMode::Split,
                LineForm::Lines => SentenceMode::Lines,
                LineForm::Wrapped => SentenceMode::Wrapped,
            },
            ..args.reading.options()
        },
        held_out: args.held_out,
        seed: args.seed,
        shard_tokens: args.shard_tokens,
        filters: args.filters.into_iter().flatten().collect(),
        duplicates: match args.remove_duplicates {
            None => Deduplication::Keep,
            Some(RemoveDuplicates::Exact) => Deduplication::Exact,
            Some(RemoveDuplicates::Near) => Deduplication::Near,
        },
    };
    let preparation =
        Preparation { inputs: &inputs, tokenizer: &tokenizer, options: &options, out: out.local(), force: args.force };
    let started = Instant::now();
    if let Some(part) = args.part {
        return run_part(&preparation, part, out, args.json);
    }
    if args.join
        && let Some(address) = out.address()
    {
        let parts = PartsDownload::plan(out.local(), address)?;
        ByteProgress::during("downloading parts", parts.bytes(), |progress| parts.run(progress))?;
    }
    let bars = StageBars::new(inputs.iter().map(|input| input.bytes).sum());
    let make = if args.join { join } else { prepare };
    let outcome = make(&preparation, &|stage, bytes| bars.report(stage, bytes));
    bars.finish();
    let shown = out.local().display();
    match outcome? {
        PrepareOutcome::UpToDate(manifest) if args.json => print(json!(manifest))?,
        PrepareOutcome::UpToDate(manifest) => print(format_args!("{shown}: up to date, {}", summary(&manifest)))?,
        PrepareOutcome::Prepared(manifest) => {
            let took = started.elapsed();
            let rate = (manifest.train.tokens + manifest.held_out.tokens) as f64 / took.as_secs_f64();
            if args.json {
                print(json!(manifest))?;
            } else {
                if !args.sources.is_empty() {
                    print(table_of_sources(&manifest))?;
                }
                if !manifest.removed.is_empty() {
                    print(table_of_removals(&manifest))?;
                }
                print(format_args!("{shown}: {} in {} ({rate:.0} tokens/s)", summary(&manifest), duration(took)))?;
            }
            notes(&manifest);
            note_single_sentences(&PreparedData::open(out.local())?);
        }
    }
    if let (Some(address), Some(bytes)) = (out.address(), upload_data(out, args.force)?) {
        if args.join {
            remove_remote_parts(out.local(), address)?;
        }
        print(format_args!("{address}: uploaded {}", byte_size(bytes as f64)))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs `lambert prepare --part`.
fn run_part(preparation: &Preparation, part: Part, out: &Location, as_json: bool) -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    let bars = StageBars::new(part.bytes(preparation.inputs));
    let outcome = prepare_part(preparation, part, &|stage, bytes| bars.report(stage, bytes));
    bars.finish();
    let outcome = outcome?;
    // Data that is complete has no parts.
    if let Some(address) = out.address()
        && !out.local().join(MANIFEST).exists()
    {
        let upload = PartUpload::plan(out.local(), part, address)?;
        ByteProgress::during("uploading", upload.bytes(), |progress| upload.run(progress))?;
    }
    let shown = out.local().display();
    match outcome {
        PartOutcome::Prepared { tokens } if as_json => print(json!({ "part": part.to_string(), "tokens": tokens }))?,
        PartOutcome::UpToDate if as_json => print(json!({ "part": part.to_string(), "tokens": null }))?,
        PartOutcome::UpToDate => print(format_args!("{shown}: part {part} is up to date"))?,
        PartOutcome::Prepared { tokens } => {
            let took = started.elapsed();
            let rate = tokens as f64 / took.as_secs_f64();
            let tokens = counted(tokens, "token");
            print(format_args!("{shown}: part {part}, {tokens} in {} ({rate:.0} tokens/s)", duration(took)))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The progress bars of a preparation. The bar of a stage appears with the first progress of the stage.
struct StageBars {
    /// Bytes of the inputs.
    total: u64,
    comparing: OnceLock<ByteProgress>,
    tokenizing: OnceLock<ByteProgress>,
    writing: OnceLock<ByteProgress>,
}

impl StageBars {
    fn new(total: u64) -> StageBars {
        StageBars { total, comparing: OnceLock::new(), tokenizing: OnceLock::new(), writing: OnceLock::new() }
    }

    fn report(&self, stage: PrepareStage, bytes: u64) {
        let total = self.total;
        match stage {
            PrepareStage::Comparing => {
                self.comparing.get_or_init(|| ByteProgress::new("comparing", total)).add(bytes);
            }
            PrepareStage::Resuming => {
                let done = byte_size(bytes as f64);
                note(format_args!("resuming an interrupted preparation: {done} of its inputs are done"));
                self.tokenizing.get_or_init(|| ByteProgress::new("tokenizing", total.saturating_sub(bytes)));
            }
            PrepareStage::Tokenizing => {
                self.tokenizing.get_or_init(|| ByteProgress::new("tokenizing", total)).add(bytes);
            }
            PrepareStage::Writing { bytes: total } => {
                self.writing.get_or_init(|| ByteProgress::new("writing", total)).add(bytes);
            }
        }
    }

    fn finish(&self) {
        let bars = [&self.comparing, &self.tokenizing, &self.writing];
        bars.into_iter().filter_map(OnceLock::get).for_each(ByteProgress::finish);
    }
}

/// The documents of one source.
struct SourceSummary<'a> {
    source: &'a Source,
    files: u64,
    read: u64,
    to_train_on: u64,
}

/// Returns the sources in the order of the command line.
fn sources_of(manifest: &Manifest) -> Vec<SourceSummary<'_>> {
    let mut sources: Vec<SourceSummary> = Vec::new();
    for InputEntry { source, reading, train_documents, .. } in &manifest.inputs {
        let index = sources.iter().position(|other| other.source == source).unwrap_or(sources.len());
        if index == sources.len() {
            sources.push(SourceSummary { source, files: 0, read: 0, to_train_on: 0 });
        }
        sources[index].files += 1;
        sources[index].read += reading.documents;
        sources[index].to_train_on += train_documents;
    }
    sources
}

/// Returns a table of the documents that were read of each source, and those to train on.
fn table_of_sources(manifest: &Manifest) -> Table {
    let mut table = table::plain();
    table.set_header(["source", "weight", "files", "documents read", "to train on"]);
    for SourceSummary { source, files, read, to_train_on } in sources_of(manifest) {
        let numbers = [files, read, to_train_on].map(|number| number.to_string());
        table.add_row([source.name.clone(), source.weight.to_string()].into_iter().chain(numbers));
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// Returns a table of the documents that each filter removed, and those that remain.
fn table_of_removals(manifest: &Manifest) -> Table {
    let mut table = table::plain();
    table.set_header(["removed by", "documents", "text"]);
    for (name, removed) in &manifest.removed {
        table.add_row([name.clone(), removed.documents.to_string(), byte_size(removed.bytes as f64)]);
    }
    let Counts { documents, .. } = manifest.train;
    table.add_row(["kept", &(documents + manifest.held_out.documents).to_string(), ""]);
    for column in [1, 2] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// Runs `lambert prepare --check DIR`.
fn run_check(directory: &Path, as_json: bool) -> anyhow::Result<ExitCode> {
    let manifest = Manifest::read(directory)?;
    let sizes = manifest.shards.iter().map(|shard| shard.bytes).chain(manifest.inputs.iter().map(|input| input.bytes));
    let checked = ByteProgress::during("checking", sizes.sum(), |progress| check(directory, progress));
    let CheckReport { manifest, faults, inputs } = checked?;
    let states = || manifest.inputs.iter().map(|entry| &entry.name).zip(&inputs);
    let named = |selects: fn(&InputState) -> bool| -> Vec<&String> {
        states().filter(|(_, state)| selects(state)).map(|(name, _)| name).collect()
    };
    let changed = named(|state| matches!(state, InputState::Changed));
    if as_json {
        let faults: Vec<String> = faults.iter().map(in_full).collect();
        let absent = named(|state| matches!(state, InputState::Absent));
        let unreadable = named(|state| matches!(state, InputState::Unreadable(_)));
        let inputs = [("changed_inputs", &changed), ("absent_inputs", &absent), ("unreadable_inputs", &unreadable)];
        let mut found = json!({ "faults": faults });
        inputs.into_iter().for_each(|(key, names)| found[key] = json!(names));
        print(found)?;
    } else {
        for fault in &faults {
            print(in_full(fault))?;
        }
        for (name, state) in states() {
            match state {
                InputState::Unchanged => {}
                InputState::Changed => print(format_args!("{name}: changed since it was prepared"))?,
                InputState::Absent => print(format_args!(
                    "{name}: not found (removed, or relative to another directory); the data does not need it"
                ))?,
                InputState::Unreadable(error) => {
                    print(format_args!("{}; the data does not need it", in_full(error)))?;
                }
            }
        }
        let state = if faults.is_empty() { "undamaged" } else { "damaged" };
        print(format_args!(
            "{}: {state}, {}; {} shards, {} of {} inputs unchanged",
            directory.display(),
            summary(&manifest),
            manifest.shards.len(),
            named(|state| matches!(state, InputState::Unchanged)).len(),
            inputs.len()
        ))?;
    }
    Ok(match (faults.is_empty(), changed.is_empty()) {
        (false, _) => ExitCode::FAILURE,
        (true, false) => ExitCode::from(INPUTS_CHANGED),
        (true, true) => ExitCode::SUCCESS,
    })
}

/// Formats an error with its cause.
fn in_full(error: &DataError) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

fn summary(manifest: &Manifest) -> String {
    let (train, held_out) = (manifest.train, manifest.held_out);
    format!(
        "{}, {}, {} to train on; {}, {} held out",
        counted(train.documents, "document"),
        counted(train.sentences, "sentence"),
        counted(train.tokens, "token"),
        counted(held_out.documents, "document"),
        counted(held_out.tokens, "token")
    )
}

/// Prints a note if most documents have one sentence only.
fn note_single_sentences(prepared: &PreparedData) {
    let documents = prepared.documents(Split::Train);
    let (single, all) = (documents.of_one_sentence(), documents.len());
    if 2 * single > all {
        note(format_args!(
            "note: {single} of the {all} documents to train on have one sentence only, of which the modes \"nsp\" and \"sop\" \
             make no pair of consecutive sentences; train with mode = \"full_sentences\", or split the text into one sentence a \
             line and prepare it with --sentences lines"
        ));
    }
}

/// Prints notes about the text.
fn notes(manifest: &Manifest) {
    let unknown = manifest.train.unknown_tokens + manifest.held_out.unknown_tokens;
    let tokens = manifest.train.tokens + manifest.held_out.tokens;
    if unknown > 0 {
        note(format_args!(
            "note: {} ({:.3} %)",
            counted(unknown, "[UNK] token"),
            100.0 * unknown as f64 / tokens as f64
        ));
    }
    for SourceSummary { source, read, .. } in sources_of(manifest).iter().filter(|source| source.to_train_on == 0) {
        note(format_args!(
            "note: the source {:?} has no document to train on: {read} were read, with weight {}",
            source.name, source.weight
        ));
    }
    let reading = &manifest.reading;
    for (count, action, noun, which) in [
        (reading.empty_documents, "skipped", "record", " with an empty text"),
        (reading.without_text, "skipped", "record", " without a text field"),
        (reading.redirects, "skipped", "redirect", ""),
        (reading.disambiguations, "skipped", "disambiguation page", ""),
        (reading.other_pages, "skipped", "page", " outside of the articles"),
        (reading.replaced_bytes, "removed", "byte", " of invalid UTF-8"),
        (reading.nul_bytes, "removed", "NUL character", ""),
        (reading.overlong_lines, "split", "line", " of more than 1 MiB"),
        (manifest.overlong_documents, "split", "document", " of more than a shard or 16 MiB"),
    ] {
        if count > 0 {
            note(format_args!("note: {action} {}{which}", counted(count, noun)));
        }
    }
}
