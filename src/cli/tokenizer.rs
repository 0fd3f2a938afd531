//! `lambert tokenizer`: a WordPiece vocabulary from text.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::{Args, Subcommand};

use super::byte_progress::ByteProgress;
use crate::data::{Input, Trained, VocabularyOptions, find_inputs, train_tokenizer};
use crate::output::{note, print};

/// Make tokenizers.
#[derive(Debug, Subcommand)]
pub enum Tokenizer {
    Train(Train),
}

/// Train a WordPiece vocabulary; write tokenizer.json, vocab.txt and tokenizer_config.json.
#[derive(Debug, Args)]
pub struct Train {
    /// Text files (.txt, .jsonl, also .gz or .zst) or directories of them.
    #[arg(required = true, value_name = "INPUT")]
    inputs: Vec<PathBuf>,
    /// Entries of the vocabulary, the five special tokens included.
    #[arg(long, default_value_t = 30_522)]
    vocab_size: usize,
    /// The directory to write.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Keep upper case and accents.
    #[arg(long)]
    cased: bool,
    /// Pairs of pieces that occur less often are not joined.
    #[arg(long, default_value_t = 2)]
    min_frequency: u64,
    /// Characters to keep, the most frequent first.
    #[arg(long, default_value_t = 1000)]
    alphabet: usize,
    /// Key of the text in each JSONL record.
    #[arg(long, default_value = "text", value_name = "KEY")]
    jsonl_field: String,
    /// Replace a tokenizer that is there.
    #[arg(long)]
    force: bool,
}

pub fn run(verb: Tokenizer) -> anyhow::Result<ExitCode> {
    let Tokenizer::Train(args) = verb;
    let inputs = find_inputs(&args.inputs)?;
    let options = VocabularyOptions {
        min_frequency: args.min_frequency,
        alphabet: args.alphabet,
        jsonl_field: args.jsonl_field,
        ..VocabularyOptions::new(args.vocab_size, !args.cased)
    };
    let started = Instant::now();
    // Every input is read for its sha256 and again for its words; the merges that follow show no progress of their own.
    let progress = ByteProgress::new("words", 2 * inputs.iter().map(|input: &Input| input.bytes).sum::<u64>());
    let trained = train_tokenizer(&inputs, &options, &args.out, args.force, &|bytes| progress.add(bytes));
    progress.finish();
    let out = args.out.display();
    match trained? {
        Trained::UpToDate(tokenizer) => {
            print(format_args!("{out}: up to date, {} tokens", tokenizer.vocabulary().len()))?;
        }
        Trained::New(tokenizer) => {
            let found = tokenizer.vocabulary().len();
            print(format_args!("{out}: {found} tokens in {:.1} s", started.elapsed().as_secs_f64()))?;
            if found < args.vocab_size {
                note(format_args!(
                    "note: the text gives no more than {found} of the {} tokens asked for",
                    args.vocab_size
                ));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
