//! `lambert prepare`: text to token ids in shards, once for every corpus and vocabulary.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::{Args, ValueEnum};

use super::buckets::{claim_copy, send_data};
use super::byte_progress::ByteProgress;
use super::read_args::{FORMS, ReadArgs};
use crate::data::{
    Input, Manifest, Outcome, Preparation, PrepareOptions, ReadOptions, Sentences, Stage, Tokenizer, find_inputs,
    prepare,
};
use crate::output::{note, print};
use crate::storage::Location;

/// Turn text into shards of token ids that training reads.
#[derive(Debug, Args)]
#[command(after_help = FORMS)]
pub struct Prepare {
    /// Files, directories or patterns ("dumps/*.bz2"); see the forms below.
    #[arg(required = true, value_name = "INPUT")]
    inputs: Vec<PathBuf>,
    /// A directory with tokenizer.json or vocab.txt, or such a file.
    #[arg(long, value_name = "PATH")]
    tokenizer: PathBuf,
    /// The directory to make; at s3:// or gs://, the data is made in a copy here and sent there.
    #[arg(long, value_name = "DIR")]
    out: Location,
    /// Share of the documents that is kept apart to evaluate on.
    #[arg(long, default_value_t = PrepareOptions::default().held_out, value_name = "SHARE")]
    held_out: f64,
    /// Whether a line is a paragraph to split, a sentence, or a part of a paragraph.
    #[arg(long, value_enum, default_value_t = LineForm::Split)]
    sentences: LineForm,
    #[command(flatten)]
    reading: ReadArgs,
    /// A vocab.txt without tokenizer_config.json keeps upper case and accents.
    #[arg(long)]
    cased: bool,
    /// Chooses which documents are held out.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Tokens of a shard.
    #[arg(long, default_value_t = PrepareOptions::default().shard_tokens)]
    shard_tokens: usize,
    /// Replace prepared data that was made otherwise.
    #[arg(long)]
    force: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LineForm {
    /// A line is a paragraph, to be split into sentences.
    Split,
    /// A line is a sentence.
    Lines,
    /// Books wrapped at 80 columns: lines are joined up to an empty one; two empty lines end a document.
    Wrapped,
}

pub fn run(args: Prepare) -> anyhow::Result<ExitCode> {
    claim_copy(&args.out)?;
    let inputs = find_inputs(&args.inputs)?;
    let tokenizer = Tokenizer::open(&args.tokenizer, args.cased)?;
    let options = PrepareOptions {
        reading: ReadOptions {
            sentences: match args.sentences {
                LineForm::Split => Sentences::Split,
                LineForm::Lines => Sentences::Lines,
                LineForm::Wrapped => Sentences::Wrapped,
            },
            ..args.reading.options()
        },
        held_out: args.held_out,
        seed: args.seed,
        shard_tokens: args.shard_tokens,
    };
    let preparation = Preparation {
        inputs: &inputs,
        tokenizer: &tokenizer,
        options: &options,
        out: args.out.local(),
        force: args.force,
    };
    let started = Instant::now();
    let total = inputs.iter().map(|input: &Input| input.bytes).sum::<u64>();
    let (hashing, tokenizing) = (ByteProgress::new("checking", total), ByteProgress::new("tokenizing", total));
    let outcome = prepare(&preparation, &|stage, bytes| match stage {
        Stage::Hashing => hashing.add(bytes),
        Stage::Tokenizing => tokenizing.add(bytes),
    });
    hashing.finish();
    tokenizing.finish();
    let out = args.out.local().display();
    match outcome? {
        Outcome::UpToDate(manifest) => print(format_args!("{out}: up to date, {}", summary(&manifest)))?,
        Outcome::Prepared(manifest) => {
            let seconds = started.elapsed().as_secs_f64();
            let rate = (manifest.train.tokens + manifest.held_out.tokens) as f64 / seconds;
            print(format_args!("{out}: {} in {seconds:.1} s ({rate:.0} tokens/s)", summary(&manifest)))?;
            notes(&manifest);
        }
    }
    send_data(&args.out, args.force)?;
    Ok(ExitCode::SUCCESS)
}

fn summary(manifest: &Manifest) -> String {
    let (train, held_out) = (manifest.train, manifest.held_out);
    format!(
        "{} documents, {} sentences, {} tokens to train on; {} documents, {} tokens held out",
        train.documents, train.sentences, train.tokens, held_out.documents, held_out.tokens
    )
}

/// What a person should know of the text.
fn notes(manifest: &Manifest) {
    let unknown = manifest.train.unknown_tokens + manifest.held_out.unknown_tokens;
    let tokens = manifest.train.tokens + manifest.held_out.tokens;
    if unknown > 0 {
        note(format_args!("note: {unknown} tokens are [UNK] ({:.3} %)", 100.0 * unknown as f64 / tokens as f64));
    }
    let reading = &manifest.reading;
    for (count, what) in [
        (reading.empty_documents, "records have an empty text and were passed over"),
        (reading.without_text, "records have no text field and were passed over"),
        (reading.redirects, "pages are redirects and were passed over"),
        (reading.disambiguations, "pages are disambiguations and were passed over"),
        (reading.other_pages, "pages are no articles and were passed over"),
        (reading.replaced_bytes, "bytes are not UTF-8 and were dropped"),
        (reading.nul_bytes, "NUL characters were dropped"),
        (reading.cut_lines, "lines are longer than a mebibyte and were cut"),
        (manifest.cut_documents, "documents are longer than a shard and were cut"),
    ] {
        if count > 0 {
            note(format_args!("note: {count} {what}"));
        }
    }
}
