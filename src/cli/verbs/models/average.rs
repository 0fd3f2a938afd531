//! `lambert average`: averages the weights of checkpoints, and compares the average with the last of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::ensure;
use clap::Args;
use serde_json::{Value, json};

use crate::bert::Head;
use crate::cli::args::device::DeviceArgs;
use crate::data::PreparedData;
use crate::output::{note, print};
use crate::report::evaluation::Evaluation;
use crate::run::EvaluateSettings;
use crate::run::average::{Average, average, newest_checkpoints};
use crate::run::buckets::fetch_data;
use crate::run::weights::{FoundModel, open_model};
use crate::runtime::devices::Devices;
use crate::storage::Location;
use crate::train::evaluate::ModelOnHeldOut;
use crate::units::{counted, thousands};

/// Average the weights of checkpoints
///
/// Writes the mean of the weights as a checkpoint without optimizer state, which evaluate, export, predict, embed, finetune and the
/// key `import` of a run file accept. The mean is computed in f64 and rounded to f32. Then the last checkpoint and the average are
/// evaluated on the same held-out examples, and shown side by side. A mean over the end of a run often has a lower held-out loss
/// than its last checkpoint, most of all if the learning rate has not decayed.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lambert average checkpoints/quickstart --last 3 --out checkpoints/quickstart-average
  lambert average checkpoints/mine/step-00000800 checkpoints/mine/step-00001000 --out averaged
  lambert average checkpoints/mine --last 5 --out averaged --data data/mine --examples 4096 --json
  lambert export checkpoints/quickstart-average --out my-bert")]
pub struct AverageCheckpoints {
    /// Checkpoints (step-…) of one model, the last one named last; with --last, a run directory
    #[arg(required = true, value_name = "RUN_OR_CHECKPOINTS")]
    sources: Vec<PathBuf>,
    /// Average the K newest checkpoints of the run
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(2..))]
    last: Option<u32>,
    /// Run directory for the average: new or empty
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Data for the comparison: a directory, s3:// or gs:// [default: that of the run, if it is there]
    #[arg(long, value_name = "DIR")]
    data: Option<Location>,
    /// Write the average only
    #[arg(long, conflicts_with = "data")]
    no_evaluation: bool,
    /// Held-out examples, at most
    #[arg(long, default_value_t = 1024, value_name = "N")]
    examples: usize,
    /// Examples per device and micro-batch
    #[arg(long, default_value_t = 32, value_name = "N")]
    micro_batch_size: usize,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub devices: DeviceArgs,
}

/// The evaluations of the last checkpoint and of the average.
struct Comparison {
    last: Evaluation,
    average: Evaluation,
    sequence_length: usize,
}

pub fn run(args: AverageCheckpoints) -> anyhow::Result<ExitCode> {
    ensure!(
        args.examples > 0 && args.micro_batch_size > 0,
        "--examples and --micro-batch-size require at least 1, got 0"
    );
    let Average { path, of, notes } = average(&checkpoints(&args)?, &args.out)?;
    notes.iter().for_each(note);
    let (last, step) = of.last().expect("an average is of at least two checkpoints");
    if !args.json {
        let steps = of.iter().map(|(_, step)| thousands(*step)).collect::<Vec<_>>().join(", ");
        let count = counted(of.len() as u64, "checkpoint");
        print(format_args!("averaged {count} (steps {steps}) into {}", path.display()))?;
    }
    let compared = compare(&args, last, &path)?;
    if args.json {
        let of: Vec<Value> = of.iter().map(|(path, step)| json!({ "checkpoint": path, "step": step })).collect();
        let mut object = json!({ "average": path, "checkpoints": of });
        if let Some(Comparison { last, average, sequence_length }) = &compared {
            object["sequence_length"] = json!(sequence_length);
            object["last_evaluation"] = json!(scalars(last));
            object["average_evaluation"] = json!(scalars(average));
        }
        print(object)?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(Comparison { last, average, sequence_length }) = compared {
        let examples = counted(average.examples, "held-out example");
        print(format_args!("{examples} of length {sequence_length}"))?;
        print(average.to_table_beside("average", (format!("step {}", thousands(*step)), &last.scalars())))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns the directories of the checkpoints to average.
fn checkpoints(args: &AverageCheckpoints) -> anyhow::Result<Vec<PathBuf>> {
    let Some(last) = args.last else { return Ok(args.sources.clone()) };
    let [run] = args.sources.as_slice() else {
        anyhow::bail!("--last requires one run directory, got {} paths", args.sources.len());
    };
    newest_checkpoints(run, last as usize)
}

/// Evaluates the checkpoints `last` and `average` on the held-out examples, if there are any.
fn compare(args: &AverageCheckpoints, last: &Path, average: &Path) -> anyhow::Result<Option<Comparison>> {
    if args.no_evaluation {
        return Ok(None);
    }
    let model = open_model(last)?;
    let Some(data) = data(args, &model) else {
        let show = average.display();
        note(format_args!("note: not evaluated: no prepared data is known; run `lambert evaluate {show} --data DIR`"));
        return Ok(None);
    };
    ensure!(
        model.head == Head::Pretraining,
        "--data requires models with the heads of pretraining, but {} is a {}; the average is complete",
        last.display(),
        model.head.architecture()
    );
    let prepared = Arc::new(PreparedData::open(fetch_data(&data)?)?);
    let devices = args.devices.open()?;
    let (last, sequence_length) = evaluate(args, model, &prepared, &devices)?;
    let (average, _) = evaluate(args, open_model(average)?, &prepared, &devices)?;
    Ok(Some(Comparison { last, average, sequence_length }))
}

/// Returns the data of the comparison: the one that is named, or that of the run of `model` if it is on this machine.
fn data(args: &AverageCheckpoints, model: &FoundModel) -> Option<Location> {
    let of_run =
        || model.run().map(|run| run.data.path).filter(|path| path.address().is_none() && path.local().exists());
    args.data.clone().or_else(of_run)
}

/// Evaluates `model`, and returns the length of the examples too.
fn evaluate(
    args: &AverageCheckpoints,
    model: FoundModel,
    prepared: &Arc<PreparedData>,
    devices: &Devices,
) -> anyhow::Result<(Evaluation, usize)> {
    let held_out = ModelOnHeldOut::open(model, prepared, None, None)?;
    let sequence_length = held_out.dataset.config().sequence_length;
    let settings = EvaluateSettings {
        examples: args.examples,
        micro_batch_size: args.micro_batch_size,
        ..EvaluateSettings::default()
    };
    Ok((held_out.evaluate(&settings, devices)?, sequence_length))
}

/// Returns the metrics of an evaluation and their baselines by name.
fn scalars(evaluation: &Evaluation) -> BTreeMap<String, f64> {
    evaluation.scalars().into_iter().collect()
}
