//! `lambert evaluate`: how well a model predicts held-out text.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::ensure;
use clap::Args;
use serde_json::json;

use crate::cli::args::device::DeviceArgs;
use crate::data::PreparedData;
use crate::output::{note, print};
use crate::run::EvaluateSettings;
use crate::run::buckets::{fetch_data, fetch_model};
use crate::run::weights::open_model;
use crate::storage::Location;
use crate::train::evaluate::ModelOnHeldOut;

/// Measure a model on held-out text: MLM loss and accuracy, NSP accuracy, and the loss of guessing by frequency.
///
/// The held-out examples and their masks are the same for every model and run, so numbers can be compared. Sequence length,
/// predictions and masking are those of the run's last phase, or 128 and 20 for a Hugging Face directory.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lambert evaluate checkpoints/quickstart --data data/quickstart
  lambert evaluate checkpoints/quickstart/step-00000200 --data data/quickstart --examples 512 --json
  lambert evaluate exported/ --data data/quickstart --sequence-length 128 --logits logits.safetensors")]
pub struct Evaluate {
    /// A step-… directory or a run directory (its newest checkpoint), also in a bucket, or a Hugging Face directory
    model: Location,
    /// What `lambert prepare` made with the model's tokenizer: a directory, or s3:// or gs://
    #[arg(long, value_name = "DIR")]
    data: Location,
    /// Held-out examples; fewer if there are not so many
    #[arg(long, default_value_t = 1024)]
    examples: usize,
    /// Examples that a device evaluates at a time
    #[arg(long, default_value_t = 32, value_name = "N")]
    micro_batch_size: usize,
    /// Tokens of an example, at most [default: that of the run's last phase, or 128]
    #[arg(long, value_name = "TOKENS")]
    sequence_length: Option<usize>,
    /// Masked positions of an example, at most [default: that of the run's last phase, or 15.6 % of the sequence length]
    #[arg(long, value_name = "N")]
    max_predictions_per_seq: Option<usize>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Instead: write what the model says about every position of the first examples, as safetensors
    #[arg(long, value_name = "FILE")]
    logits: Option<PathBuf>,
    /// With --logits: examples to write
    #[arg(long, default_value_t = 4, requires = "logits", value_name = "N")]
    logits_examples: usize,
    #[command(flatten)]
    devices: DeviceArgs,
}

pub fn run(args: Evaluate) -> anyhow::Result<ExitCode> {
    let model = open_model(&fetch_model(&args.model)?)?;
    model.notes.iter().for_each(note);
    let prepared = Arc::new(PreparedData::open(fetch_data(&args.data)?)?);
    let settings =
        EvaluateSettings { examples: args.examples, micro_batch_size: args.micro_batch_size, ..Default::default() };
    ensure!(
        settings.examples > 0 && settings.micro_batch_size > 0,
        "--examples and --micro-batch-size require at least 1, got 0"
    );
    let (path, step) = (model.path.display().to_string(), model.checkpoint.state.step);
    let model = ModelOnHeldOut::open(model, &prepared, args.sequence_length, args.max_predictions_per_seq)?;
    let examples = model.dataset.config().clone();
    let devices = args.devices.open()?;
    if let Some(file) = &args.logits {
        model.write_logits(file, args.logits_examples, &devices)?;
        print(format_args!("wrote the logits of {} examples to {}", args.logits_examples, file.display()))?;
        return Ok(ExitCode::SUCCESS);
    }
    let (evaluation, unigram_loss) = model.evaluate(&settings, &devices)?;
    if args.json {
        let mut object = json!({ "model": path, "step": step, "sequence_length": examples.sequence_length });
        for (name, value) in evaluation.scalars() {
            object[name] = value.into();
        }
        object["examples"] = evaluation.examples.into();
        object["unigram_loss"] = unigram_loss.into();
        print(object)?;
        return Ok(ExitCode::SUCCESS);
    }
    let value = |name| evaluation.value(name);
    print(format_args!(
        "{path} (step {step}) on {} held-out examples of length {}",
        evaluation.examples, examples.sequence_length
    ))?;
    print(format_args!("MLM loss      {:.4}   unigram baseline: {unigram_loss:.4}", value("mlm_loss")))?;
    print(format_args!("MLM accuracy  {:.2} %", 100.0 * value("mlm_accuracy")))?;
    if examples.mode.is_pair() {
        print(format_args!("NSP loss      {:.4}   chance: {:.4}", value("nsp_loss"), std::f64::consts::LN_2))?;
        print(format_args!("NSP accuracy  {:.2} %", 100.0 * value("nsp_accuracy")))?;
    }
    Ok(ExitCode::SUCCESS)
}
