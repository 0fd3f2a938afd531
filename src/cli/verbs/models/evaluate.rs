//! `lambert evaluate`: measures a model on held-out examples.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::ensure;
use clap::Args;
use serde_json::json;

use crate::bert::Head;
use crate::cli::args::device::DeviceArgs;
use crate::cli::args::probe::ProbeArgs;
use crate::cli::args::weights::Weights;
use crate::data::PreparedData;
use crate::output::{note, print};
use crate::report::baselines::Baselines;
use crate::report::evaluation::Evaluation;
use crate::run::EvaluateSettings;
use crate::run::buckets::{fetch_data, fetch_model};
use crate::run::weights::{FoundModel, open_model};
use crate::storage::Location;
use crate::train::evaluate::ModelOnHeldOut;
use crate::train::probe::probe_metric;
use crate::units::counted;

/// Measure a model on held-out examples
///
/// Prints loss and accuracy of MLM and NSP with their baselines: the values of a model that knows only the label frequencies
/// of the same examples. A head that is no better than its baseline is reported as having learned nothing. Examples and masks
/// are the same for every model and run, so that results can be compared. Sequence length is that of the last phase of the run
/// that trained the model, and the masking rate that of its `[evaluate]` table (15 % by default); a Hugging Face model uses 128
/// tokens and 20 masked positions.
///
/// --probe measures how well a linear classifier predicts labels from frozen embeddings of texts: logistic regression on
/// standardised features, by 5-fold cross-validation or on the rows of --probe-dev.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lambert evaluate checkpoints/quickstart --data data/quickstart
  lambert evaluate checkpoints/quickstart/step-00000200 --data data/quickstart --examples 512 --json
  lambert evaluate my-bert --probe reviews.tsv --probe-text sentence --probe-label label
  lambert evaluate checkpoints/mine --data data/mine --weights ema
  lambert evaluate my-bert --probe reviews.tsv --random-weights 1
  lambert evaluate exported/ --data data/mine --sequence-length 128 --logits logits.safetensors")]
pub struct Evaluate {
    /// Checkpoint (step-…), run directory (its best checkpoint if it selects one, else its newest) or Hugging Face directory;
    /// s3:// or gs:// for a run
    model: Location,
    /// Data prepared with the tokenizer of the model: a directory, s3:// or gs://; optional with --probe
    #[arg(long, value_name = "DIR", required_unless_present = "probe")]
    data: Option<Location>,
    /// Held-out examples, at most
    #[arg(long, default_value_t = 1024, value_name = "N")]
    examples: usize,
    /// Examples per device and micro-batch
    #[arg(long, default_value_t = 32, value_name = "N")]
    micro_batch_size: usize,
    /// Tokens per example [default: as in the last phase of the run, else 128]
    #[arg(long, value_name = "TOKENS")]
    sequence_length: Option<usize>,
    /// Masked positions per example, at most [default: as many as the masking rate requires]
    #[arg(long, value_name = "N")]
    max_predictions_per_seq: Option<usize>,
    /// Weights to evaluate: those of the step, or their exponential moving average (of a run with [ema])
    #[arg(long, value_enum, default_value_t = Weights::Model, value_name = "WEIGHTS")]
    weights: Weights,
    /// Evaluate the same model with random weights drawn with this seed, for comparison with the trained weights
    #[arg(long, value_name = "SEED", conflicts_with = "weights")]
    random_weights: Option<u64>,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
    /// Write the logits of the first examples to this safetensors file instead of measuring
    #[arg(long, requires = "data", conflicts_with_all = ["probe", "json"], value_name = "FILE")]
    logits: Option<PathBuf>,
    /// With --logits: number of examples
    #[arg(long, default_value_t = 4, requires = "logits", value_name = "N")]
    logits_examples: usize,
    #[command(flatten)]
    probe: ProbeArgs,
    #[command(flatten)]
    pub devices: DeviceArgs,
}

pub fn run(args: Evaluate) -> anyhow::Result<ExitCode> {
    ensure!(
        args.examples > 0 && args.micro_batch_size > 0,
        "--examples and --micro-batch-size require at least 1, got 0"
    );
    let mut model = open_model(&fetch_model(&args.model)?)?;
    if args.weights == Weights::Ema {
        model = model.with_averages()?;
    }
    if let Some(seed) = args.random_weights {
        model = model.with_random_weights(seed);
    }
    let (path, step) = (model.path.display().to_string(), model.checkpoint.state.step);
    model.checkpoint_notes().iter().for_each(note);
    let probe = args.probe.open(&model, args.sequence_length)?;
    let held_out = args.data.as_ref().map(|data| open_held_out(&args, model, data)).transpose()?;
    let mut notes: Vec<&String> = held_out.iter().flat_map(|held_out| &held_out.notes).collect();
    notes.extend(probe.iter().filter_map(|probe| probe.model.note.as_ref()));
    notes.dedup();
    notes.into_iter().for_each(note);
    let devices = args.devices.open()?;

    let mut object = json!({ "model": path, "step": step, "random_weights": args.random_weights });
    let mut lines = Vec::new();
    let mut evaluation = Evaluation::new(&[], &[], &Baselines::default(), 0);
    if let Some(held_out) = held_out {
        if let Some(file) = &args.logits {
            held_out.write_logits(file, args.logits_examples, &devices)?;
            let examples = counted(args.logits_examples as u64, "example");
            print(format_args!("wrote the logits of {examples} to {}", file.display()))?;
            return Ok(ExitCode::SUCCESS);
        }
        let settings = EvaluateSettings {
            examples: args.examples,
            micro_batch_size: args.micro_batch_size,
            ..EvaluateSettings::default()
        };
        let length = held_out.dataset.config().sequence_length;
        evaluation = held_out.evaluate(&settings, &devices)?;
        object["sequence_length"] = length.into();
        let examples = counted(evaluation.examples, "held-out example");
        lines.push(format!("{path} (step {step}) on {examples} of length {length}"));
    }
    if let Some(probe) = probe {
        let length = probe.model.sequence_length;
        let measured = probe.measure(args.probe.pooling(), args.micro_batch_size, &devices)?;
        evaluation.push(probe_metric(&measured));
        object["probe_rows"] = measured.rows.into();
        object["probe_sequence_length"] = length.into();
        object["probe_deviation"] = measured.deviation.into();
        let folds = measured.deviation.map_or(String::new(), |deviation| {
            format!(", standard deviation over the folds {:.2} points", 100.0 * deviation)
        });
        let texts = counted(measured.rows as u64, "text");
        lines.push(format!("{path} (step {step}) probed on {texts} of up to {length} tokens{folds}"));
    }
    if args.json {
        for (name, value) in evaluation.scalars() {
            object[name.as_str()] = value.into();
        }
        object["examples"] = evaluation.examples.into();
        object["learned_nothing"] = evaluation.heads_without_gain().into();
        print(object)?;
        return Ok(ExitCode::SUCCESS);
    }
    lines.push(evaluation.to_table());
    lines.extend(evaluation.verdicts());
    lines.into_iter().try_for_each(print)?;
    Ok(ExitCode::SUCCESS)
}

fn open_held_out(args: &Evaluate, model: FoundModel, data: &Location) -> anyhow::Result<ModelOnHeldOut> {
    ensure!(
        model.head == Head::Pretraining,
        "--data requires a model with the heads of pretraining, but {} is a {}; `lambert finetune` prints the metrics on its \
         dev file, and --probe measures its embeddings",
        model.path.display(),
        model.head.architecture()
    );
    model.missing_note().iter().for_each(note);
    let prepared = Arc::new(PreparedData::open(fetch_data(data)?)?);
    ModelOnHeldOut::open(model, &prepared, args.sequence_length, args.max_predictions_per_seq)
}
