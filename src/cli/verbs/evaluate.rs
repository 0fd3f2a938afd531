//! `lambert evaluate`: how well a model predicts held-out text.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, ensure};
use clap::Args;
use serde_json::json;

use crate::batch::pretraining::RowForm;
use crate::bert::{BertPretraining, Recompute, param_specs};
use crate::checkpoint::write_tensors;
use crate::cli::args::device::DeviceArgs;
use crate::data::{Batch, ExampleConfig, PreparedData, unigram_baseline};
use crate::files::write_atomically;
use crate::output::{note, print};
use crate::run::Run;
use crate::run::buckets::{fetch_data, fetch_model};
use crate::run::weights::{FoundModel, open_model};
use crate::runtime::compile::Compiled;
use crate::runtime::devices::Devices;
use crate::runtime::state::{StateLayout, TrainState};
use crate::shape::HostTensor;
use crate::step::{EvalSpec, ForwardStep};
use crate::step::{Scalars, StepInputs};
use crate::storage::Location;
use crate::task::Precision;
use crate::train::evaluator::Evaluator;
use crate::train::pretraining::EvaluateOptions;

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
    let found = open_model(&fetch_model(&args.model)?)?;
    found.notes.iter().for_each(note);
    let prepared = Arc::new(PreparedData::open(fetch_data(&args.data)?)?);
    check_vocabulary(&found, &prepared, args.data.local())?;
    let options = args.options(&found);
    found.config.validate_batch(options.config.sequence_length, options.config.max_predictions_per_seq)?;
    ensure!(
        options.examples > 0 && options.micro_batch_size > 0,
        "--examples and --micro-batch-size require at least 1, got 0"
    );
    let devices = args.devices.open()?;
    if let Some(file) = &args.logits {
        return write_logits(file, args.logits_examples, found, &prepared, &options, &devices);
    }

    let examples = Arc::new(options.held_out(&prepared)?);
    let evaluator = Evaluator::new(&options.evaluation(&found.config, examples.clone()), &devices)?;
    let model = found.path.display().to_string();
    let step = found.checkpoint.state.step;
    let state = TrainState::restore(
        StateLayout::replicated(param_specs(&found.config), &[]),
        found.checkpoint,
        &found.path,
        0,
        &devices,
    )?;
    let evaluation = evaluator.evaluate(&state.whole_weights()?, &devices)?;
    let baseline = unigram_baseline(&examples, evaluator.count())?;
    if args.json {
        let mut object = json!({ "model": model, "step": step, "sequence_length": options.config.sequence_length });
        for (name, value) in evaluation.scalars() {
            object[name] = value.into();
        }
        object["examples"] = evaluation.examples.into();
        object["unigram_loss"] = baseline.into();
        print(object)?;
        return Ok(ExitCode::SUCCESS);
    }
    print(format_args!(
        "{model} (step {step}) on {} held-out examples of length {}",
        evaluation.examples, options.config.sequence_length
    ))?;
    print(format_args!("MLM loss      {:.4}   guessing by frequency: {baseline:.4}", evaluation.value("mlm_loss")))?;
    print(format_args!("MLM accuracy  {:.2} %", 100.0 * evaluation.value("mlm_accuracy")))?;
    if options.config.mode.is_pair() {
        print(format_args!(
            "NSP loss      {:.4}   guessing: {:.4}",
            evaluation.value("nsp_loss"),
            std::f64::consts::LN_2
        ))?;
        print(format_args!("NSP accuracy  {:.2} %", 100.0 * evaluation.value("nsp_accuracy")))?;
    }
    Ok(ExitCode::SUCCESS)
}

impl Evaluate {
    /// The run's own settings if the model came from a run, changed by what was typed.
    fn options(&self, found: &FoundModel) -> EvaluateOptions {
        let run = found.checkpoint.file("run.toml").and_then(|text| std::str::from_utf8(text).ok());
        let run =
            run.and_then(|text| Run::from_checkpoint(&found.path.join("run.toml"), text, found.config.vocab_size).ok());
        let last = run.as_ref().and_then(|run| run.schedule.phases().last());
        let length = last.map_or(128, |phase| phase.sequence_length);
        let sequence_length = self.sequence_length.unwrap_or(length.min(found.config.max_position_embeddings));
        // 15.6 %: 20 of 128, 80 of 512.
        let usual = (sequence_length * 5 / 32).max(1);
        let predictions =
            last.filter(|_| self.sequence_length.is_none()).map_or(usual, |phase| phase.max_predictions_per_seq);
        let predictions = self.max_predictions_per_seq.unwrap_or(predictions);
        EvaluateOptions {
            precision: run.as_ref().map_or(Precision::F32, |run| run.precision),
            config: match &run {
                Some(run) => run.data.examples(sequence_length, predictions),
                None => ExampleConfig::bert(sequence_length, predictions),
            },
            examples: self.examples,
            micro_batch_size: self.micro_batch_size,
        }
    }
}

fn check_vocabulary(found: &FoundModel, prepared: &PreparedData, data: &Path) -> anyhow::Result<()> {
    let (model, vocabulary) = (&found.checkpoint.state.vocabulary_sha256, prepared.vocabulary());
    let same = model.is_empty() || model == vocabulary.sha256();
    ensure!(
        same && found.config.vocab_size == vocabulary.len(),
        "{} requires data in its own vocabulary ({} entries), {} is in another ({} entries); prepare the text with the \
         model's tokenizer",
        found.path.display(),
        found.config.vocab_size,
        data.display(),
        vocabulary.len()
    );
    Ok(())
}

/// Writes `input_ids`, `attention_mask`, `token_type_ids` s32\[B,S\], `prediction_logits` f32\[B,S,V\] and
/// `seq_relationship_logits` f32\[B,2\] of the first `rows` held-out examples.
fn write_logits(
    file: &Path,
    rows: usize,
    found: FoundModel,
    prepared: &Arc<PreparedData>,
    options: &EvaluateOptions,
    devices: &Devices,
) -> anyhow::Result<ExitCode> {
    ensure!(devices.len() == 1, "--logits requires one device, got {}; add --devices 1", devices.len());
    ensure!(rows > 0, "--logits-examples requires at least 1, got 0");
    ensure!(!file.exists(), "--logits {} is there already; name another file or remove it", file.display());
    let length = options.config.sequence_length;
    let batch = options.held_out(prepared)?.batch(0, rows)?;
    // The head runs on predicted positions: here, on all of them.
    let everywhere = Batch {
        max_predictions: length,
        masked_lm_positions: (0..rows * length).map(|i| (i % length) as i32).collect(),
        masked_lm_ids: vec![0; rows * length],
        masked_lm_weights: vec![0.0; rows * length],
        ..batch
    };
    let batch = everywhere.into_host(1);
    let task = BertPretraining {
        model: found.config.clone(),
        rows: RowForm { sequence_length: length, max_predictions: length, sequences_per_row: 1 },
        sentence_pairs: true,
        recompute: Recompute::default(),
    };
    let spec = EvalSpec { task: Arc::new(task), precision: options.precision, rows, replicas: 1 };
    let forward = Compiled::new(devices, || Ok(ForwardStep::build(&spec)?.program))?;
    let layout = StateLayout::replicated(param_specs(&found.config), &[]);
    let state = TrainState::restore(layout, found.checkpoint, &found.path, 0, devices)?;
    let inputs = StepInputs { batch: &batch, scalars: Scalars::FORWARD, replicas: 1 };
    let launched = forward.run(devices, state.buffers(), &inputs)?;
    let output = |name: &str| -> anyhow::Result<HostTensor> { Ok(launched.read(name)?.wait()?) };
    let taken = |name: &str| {
        batch.tensor(name).map(|tensor| HostTensor::clone(tensor)).with_context(|| format!("a batch has no {name}"))
    };
    let mut tensors = Vec::new();
    for name in ["input_ids", "attention_mask", "token_type_ids"] {
        tensors.push((name.to_owned(), taken(name)?));
    }
    tensors.push(("prediction_logits".to_owned(), output("masked_lm_logits")?));
    tensors.push(("seq_relationship_logits".to_owned(), output("seq_relationship_logits")?));
    let tensors: Vec<(&str, &HostTensor)> = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    write_atomically(file, |partial| write_tensors(partial, &tensors).map(drop))?;
    print(format_args!("wrote the logits of {rows} examples to {}", file.display()))?;
    Ok(ExitCode::SUCCESS)
}
