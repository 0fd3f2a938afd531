//! The options that `predict` and `embed` share: the model, its input, and how it runs.

use std::path::PathBuf;

use anyhow::ensure;
use clap::Args;

use super::device::DeviceArgs;
use crate::output::note;
use crate::predict::TextModel;
use crate::predict::forward::ForwardSettings;
use crate::predict::lines::{Lines, is_json_lines, path_of};
use crate::run::buckets::fetch_model;
use crate::run::weights::open_model;
use crate::storage::Location;
use crate::task::Precision;
use crate::units::counted;

#[derive(Debug, Args)]
pub struct PredictionArgs {
    /// Checkpoint (step-…), run directory (its best or newest checkpoint) or Hugging Face directory; s3:// or gs:// for a run
    model: Location,
    /// File with one input per line, or - for standard input
    #[arg(default_value = "-", value_name = "INPUT")]
    input: PathBuf,
    /// Read each line as a JSON object; the default for files that end in .jsonl
    #[arg(long)]
    jsonl: bool,
    /// Tokens per sequence, at most [default: as many as the model has positions]
    #[arg(long, value_name = "TOKENS")]
    sequence_length: Option<usize>,
    /// Sequences per device and batch
    #[arg(long, default_value_t = 32, value_name = "N")]
    micro_batch_size: usize,
    /// Precision of matrix products
    #[arg(long, value_enum, default_value_t = Precision::F32)]
    precision: Precision,
    #[command(flatten)]
    pub devices: DeviceArgs,
}

impl PredictionArgs {
    /// Opens the model and reads the whole input.
    ///
    /// # Errors
    /// If an option is not possible, or the model or the input cannot be read.
    pub fn open(&self) -> anyhow::Result<(TextModel, Lines)> {
        ensure!(self.micro_batch_size > 0, "--micro-batch-size requires at least 1, got 0");
        ensure!(self.precision != Precision::F64, "--precision requires f32 or bf16, got f64");
        let model = open_model(&fetch_model(&self.model)?)?;
        model.checkpoint_notes().iter().for_each(note);
        let model = TextModel::open(model, self.sequence_length)?;
        model.note.iter().for_each(note);
        Ok((model, Lines::read(path_of(&self.input).as_deref())?))
    }

    /// Returns whether the lines of the input are JSON objects.
    pub fn is_json(&self) -> bool {
        self.jsonl || is_json_lines(&self.input)
    }

    pub fn settings(&self) -> ForwardSettings {
        ForwardSettings { precision: self.precision, micro_batch_size: self.micro_batch_size }
    }
}

/// Prints how many texts of more than `longest` tokens were truncated, if any were. `what` names one of them.
pub fn note_truncated(truncated: usize, what: &str, longest: usize) {
    if truncated > 0 {
        note(format_args!("note: truncated {} of more than {longest} tokens", counted(truncated as u64, what)));
    }
}
