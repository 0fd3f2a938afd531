//! `lambert tokenizer`: trains and extends a tokenizer, and encodes text with it.

mod extend;

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};

use crate::cli::args::read::{FORMS, ReadArgs, note_skipped};
use crate::data::{
    self, FoundInputs, Input, LONGEST_WORD, LeftOut, ReadOptions, SentenceMode, TokenizerModel, TrainedTokenizer,
    VocabularyOptions, WordRules, find_inputs, train_tokenizer,
};
use crate::files::{self, write_atomically};
use crate::output::byte_progress::ByteProgress;
use crate::output::{note, print};
use crate::units::{counted, duration, thousands};

const TRAIN_EXAMPLES: &str = "

Examples:
  lambert tokenizer train books/ wiki.jsonl.gz --out data/my/tokenizer
  lambert tokenizer train \"dumps/*.bz2\" --vocab-size 50000 --cased --out data/wiki/tokenizer
  lambert tokenizer train hindi/ --strip-accents false --out data/hindi/tokenizer
  lambert tokenizer train books/ --model bpe --cased --vocab-size 50265 --out data/my/bpe";

/// Train or extend a tokenizer, and encode text with it
#[derive(Debug, Subcommand)]
pub enum Tokenizer {
    Encode(Encode),
    Extend(extend::Extend),
    Train(Train),
}

/// Encode each line of a text file
///
/// Prints one JSON object per line, {"text": …, "ids": […]}, without special tokens.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lambert tokenizer encode text.txt --tokenizer data/quickstart/tokenizer
  lambert tokenizer encode text.txt --tokenizer vocab.txt --cased --out ids.jsonl")]
pub struct Encode {
    /// Text file in UTF-8
    file: PathBuf,
    /// Tokenizer: a directory with tokenizer.json or vocab.txt, or one of these files
    #[arg(long, value_name = "PATH")]
    tokenizer: PathBuf,
    /// Output file [default: standard output]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Keep upper case and accents; only for a vocab.txt without tokenizer_config.json
    #[arg(long)]
    cased: bool,
}

/// Train a tokenizer on text
///
/// Writes tokenizer.json, tokenizer_config.json and, for WordPiece, vocab.txt. Equal text gives equal files.
#[derive(Debug, Args)]
#[command(after_help = [FORMS, TRAIN_EXAMPLES].concat())]
pub struct Train {
    /// Files, directories or patterns ("dumps/*.bz2"); see the formats below
    #[arg(required = true, value_name = "INPUT")]
    inputs: Vec<PathBuf>,
    /// Model of the tokenizer
    #[arg(long, value_enum, default_value_t, value_name = "MODEL")]
    model: Model,
    /// Tokens in the vocabulary, including the five special tokens
    #[arg(long, default_value_t = 30_522, value_name = "N")]
    vocab_size: usize,
    /// Output directory
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Keep upper case and, unless --strip-accents is given, accents
    #[arg(long)]
    cased: bool,
    /// Remove accents [default: false with --cased, else true]
    ///
    /// This decomposes characters and drops nonspacing marks. In many scripts of Asia these are vowel signs: use false for Hindi,
    /// Tamil, Thai, Japanese and others.
    #[arg(long, value_name = "BOOL")]
    strip_accents: Option<bool>,
    /// Make every Chinese character a word [default: true for WordPiece, else false]
    #[arg(long, value_name = "BOOL")]
    tokenize_chinese_chars: Option<bool>,
    /// Occurrences that a pair of pieces needs to be merged
    #[arg(long, default_value_t = 2, value_name = "N")]
    min_frequency: u64,
    /// Characters in the alphabet, at most; the most frequent ones are kept. BPE keeps all
    #[arg(long, default_value_t = 1000, value_name = "N")]
    limit_alphabet: usize,
    #[command(flatten)]
    reading: ReadArgs,
    /// Overwrite an existing tokenizer
    #[arg(long)]
    force: bool,
}

/// The values of `--model`.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Model {
    /// BERT's: [MASK], and ## before pieces that continue a word
    #[default]
    Wordpiece,
    /// Byte-level BPE, RoBERTa's: <mask>, and every text can be encoded
    Bpe,
    /// SentencePiece's, XLM-RoBERTa's: <mask>, also for languages without spaces between words
    Unigram,
}

impl From<Model> for TokenizerModel {
    fn from(model: Model) -> Self {
        match model {
            Model::Wordpiece => TokenizerModel::WordPiece,
            Model::Bpe => TokenizerModel::Bpe,
            Model::Unigram => TokenizerModel::Unigram,
        }
    }
}

pub fn run(verb: Tokenizer) -> anyhow::Result<ExitCode> {
    match verb {
        Tokenizer::Encode(args) => encode(&args),
        Tokenizer::Extend(args) => extend::run(args),
        Tokenizer::Train(args) => train(args),
    }
}

fn encode(args: &Encode) -> anyhow::Result<ExitCode> {
    let tokenizer = data::Tokenizer::open(&args.tokenizer, args.cased)?;
    match &args.out {
        None => each_line(&tokenizer, &args.file, |line| Ok(print(line)?))?,
        Some(out) => write_atomically(out, |partial| {
            let mut writer = BufWriter::new(File::create(partial)?);
            each_line(&tokenizer, &args.file, |line| Ok(writeln!(writer, "{line}")?))?;
            Ok::<_, anyhow::Error>(writer.flush()?)
        })?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Calls `each` with the JSON of each line of `file`, without its line feed.
fn each_line(
    tokenizer: &data::Tokenizer,
    file: &Path,
    mut each: impl FnMut(serde_json::Value) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let cannot_read = || format!("cannot read {}", file.display());
    let reader = BufReader::new(files::open(file).with_context(cannot_read)?);
    let mut ids = Vec::new();
    for (i, line) in reader.split(b'\n').enumerate() {
        let text = String::from_utf8(line.with_context(cannot_read)?).ok();
        let text = text.with_context(|| {
            format!("{}: line {} requires UTF-8; convert the file, for instance with iconv", file.display(), i + 1)
        })?;
        ids.clear();
        tokenizer.encode(&text, &mut ids)?;
        each(serde_json::json!({ "text": text, "ids": ids }))?;
    }
    Ok(())
}

fn train(args: Train) -> anyhow::Result<ExitCode> {
    let FoundInputs { inputs, skipped } = find_inputs(&args.inputs)?;
    note_skipped(&skipped);
    let model = TokenizerModel::from(args.model);
    let chinese = args.tokenize_chinese_chars.unwrap_or(model.tokenizes_chinese_chars());
    let options = VocabularyOptions {
        model,
        min_frequency: args.min_frequency,
        alphabet: args.limit_alphabet,
        reading: ReadOptions { sentences: SentenceMode::Lines, ..args.reading.options() },
        rules: WordRules::from_settings(!args.cased, args.strip_accents, Some(chinese)),
        ..VocabularyOptions::new(args.vocab_size, !args.cased)
    };
    let started = Instant::now();
    // Each input is read twice, for its sha256 and for its words. The merges that follow have no progress bar.
    let progress = ByteProgress::new("words", 2 * inputs.iter().map(|input: &Input| input.bytes).sum::<u64>());
    let trained = train_tokenizer(&inputs, &options, &args.out, args.force, &|bytes| progress.add(bytes));
    progress.finish();
    let out = args.out.display();
    match trained? {
        TrainedTokenizer::UpToDate(tokenizer) => {
            print(format_args!("{out}: up to date, {} tokens", tokenizer.vocabulary().len()))?;
        }
        TrainedTokenizer::New { tokenizer, left_out } => {
            let found = tokenizer.vocabulary().len();
            print(format_args!("{out}: {found} tokens in {}", duration(started.elapsed())))?;
            if found < args.vocab_size {
                note(format_args!("note: the text yields only {found} of the {} tokens requested", args.vocab_size));
            }
            note_left_out(left_out, model);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints what the training or the extension left out of the text.
fn note_left_out(LeftOut { overlong_words, signs, rare_words }: LeftOut, model: TokenizerModel) {
    if overlong_words > 0 {
        let words = counted(overlong_words, "word");
        match model {
            TokenizerModel::WordPiece => note(format_args!(
                "note: left out {words} of more than {LONGEST_WORD} characters, which become [UNK] in every text"
            )),
            _ => {
                let longest = thousands(model.longest_word() as u64);
                note(format_args!("note: left out {words} of more than {longest} characters"));
            }
        }
    }
    if rare_words > 0 {
        note(format_args!(
            "note: left out {} of rare words, because the text has too many",
            counted(rare_words, "occurrence")
        ));
    }
    if signs > 0 {
        note(format_args!(
            "note: removed {} as accents, which makes other words of Indic, Thai, Japanese and similar text; to keep them, \
             train again with --strip-accents false",
            counted(signs, "vowel or voicing sign")
        ));
    }
}
