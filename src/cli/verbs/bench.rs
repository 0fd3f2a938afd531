//! `lambert bench`: measures the speed of a training step on the devices of this machine.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};
use comfy_table::CellAlignment;
use serde_json::json;

use crate::batch::pretraining::RowForm;
use crate::bert::{AttentionForm, BertPretraining, KernelChoice, Kernels, Layers, Preset, Recompute};
use crate::cli::args::device::DeviceArgs;
use crate::cli::render::profile::{to_json as profile_to_json, to_text as profile_to_text};
use crate::cli::render::run::compile_times;
use crate::optim::OptimizerConfig;
use crate::output::{note, print, print_text, table};
use crate::pjrt::Platform;
use crate::plan::dump::Dump;
use crate::plan::profile::rates::Rates;
use crate::plan::profile::{Context, Profile};
use crate::plan::target::Target;
use crate::runtime::compilation_cache::Origin;
use crate::runtime::devices::Devices;
use crate::runtime::processor::faster_precision;
use crate::step::{GradientReduceDtype, OptimizerSharding, ParallelSettings, StepSpec};
use crate::task::{Model, Precision};
use crate::train::bench::{Measured, Tried, find_micro_batch_size, measure};
use crate::units::{byte_size, counted, quantity};
use crate::verify::kernels::{check_kernel, require_all};

/// Measure the speed of a training step
///
/// Compiles and runs the forward pass, the backward pass and the LAMB update as training does. The batch is synthetic: full
/// rows of random tokens. FLOP/s count the operations of the model (a multiply-add is two, the backward pass twice the
/// forward pass, the MLM head on masked positions only) without recomputation.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lambert bench
  lambert bench --model large --sequence-length 512 --precision bf16 --platform cuda
  lambert bench --sequence-length 512 --recompute layer
  lambert bench --model large --precision bf16 --platform cuda --find-micro-batch-size
  lambert bench --devices 2 --platform cpu --gradient-reduce-dtype bf16 --optimizer-sharding none
  lambert bench --model large --precision bf16 --profile
  lambert bench --json | jq .sequences_per_second

scripts/bench/ times the same step in PyTorch and JAX.")]
pub struct Bench {
    /// Model: tiny, mini, small, medium, base or large
    #[arg(long, default_value = "base")]
    model: Preset,
    /// Tokens of a row
    #[arg(long, default_value_t = 128, value_name = "TOKENS")]
    sequence_length: usize,
    /// Masked positions of a row, at most [default: 15.6 % of the sequence length: 20 of 128, 80 of 512]
    #[arg(long, value_name = "N")]
    max_predictions_per_seq: Option<usize>,
    /// Rows per device and micro-batch
    #[arg(long, default_value_t = 8, value_name = "ROWS")]
    micro_batch_size: usize,
    /// Measure several micro-batch sizes, and report the smallest one within 1 % of the most sequences/s
    ///
    /// Sizes are powers of two. The search starts at --micro-batch-size, tries larger ones while each is faster and fits, then smaller
    /// ones until one is slower, and prints a table of them.
    #[arg(long, conflicts_with_all = ["profile", "dump"])]
    find_micro_batch_size: bool,
    /// Micro-batches per step, computed one after the other
    #[arg(long, default_value_t = 1, value_name = "N")]
    accumulation_steps: usize,
    /// Sequences of equal length packed into each row
    #[arg(long, default_value_t = 1, value_name = "N")]
    sequences_per_row: usize,
    /// Number format in which gradients are summed over the devices
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    gradient_reduce_dtype: GradientReduceDtype,
    /// Sharding of weights and optimizer state over the devices; auto shards if that frees enough memory
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    optimizer_sharding: OptimizerSharding,
    /// Precision of the step
    #[arg(long, value_enum, default_value_t)]
    precision: Precision,
    /// Tokens in the vocabulary
    #[arg(long, default_value_t = 30_522, value_name = "N")]
    vocab_size: usize,
    /// Activations to recompute in the backward pass: none, attention or layer
    ///
    /// attention recomputes the attention probabilities: one more matmul per layer, and no stored activation grows with the
    /// square of the sequence length. layer recomputes each layer: one more forward pass, and only the inputs of the layers
    /// are stored.
    #[arg(long, default_value_t, value_name = "POLICY")]
    recompute: Recompute,
    /// Form of the encoder's layers: auto, unrolled or loop
    ///
    /// loop compiles one layer for all layers but the last: less compilation, more time in a step.
    #[arg(long, default_value_t, value_name = "FORM")]
    layers: Layers,
    /// Form of self-attention: auto, composed, separate or triton
    ///
    /// triton is experimental. It requires an NVIDIA GPU and bf16; the kernels are compared with the composed form first.
    #[arg(long, default_value_t, value_name = "KERNEL")]
    attention: AttentionForm,
    /// Kernel of bias, dropout, residual and LayerNorm: auto, composed or triton
    ///
    /// triton is experimental, with the same requirements.
    #[arg(long, default_value_t, value_name = "KERNEL")]
    layer_norm: KernelChoice,
    /// Dropout probability of hidden states and attention
    #[arg(long, default_value_t = 0.1)]
    dropout: f64,
    /// Measured steps, after two warm-up steps
    #[arg(long, default_value_t = 5)]
    steps: usize,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
    /// Also print the kernels of the compiled step, as `lambert plan --profile` does
    #[arg(long)]
    profile: bool,
    /// Write the optimized HLO of the step to this directory: step.hlo.txt (text) and step.hlo.pb (protobuf)
    #[arg(long, value_name = "DIR")]
    dump: Option<PathBuf>,
    #[command(flatten)]
    pub devices: DeviceArgs,
}

impl ValueEnum for GradientReduceDtype {
    fn value_variants<'a>() -> &'a [Self] {
        &GradientReduceDtype::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name()))
    }
}

impl ValueEnum for OptimizerSharding {
    fn value_variants<'a>() -> &'a [Self] {
        &OptimizerSharding::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name()))
    }
}

pub fn run(args: Bench) -> anyhow::Result<ExitCode> {
    let devices = args.devices.open()?;
    faster_precision(&devices, args.precision).iter().for_each(note);
    let task = args.task(&devices);
    for kernel in task.kernels.fused() {
        let correct = || {
            kernel.check(&task.model, args.sequence_length, args.precision)?;
            require_all(&check_kernel(&devices, kernel, &task.model, &[args.sequence_length])?)
        };
        correct().with_context(|| format!("--{}", kernel.name().replace('_', "-")))?;
    }
    let task = Arc::new(task);
    match args.find_micro_batch_size {
        true => run_several(&args, &task, &devices),
        false => run_one(&args, &task, &devices),
    }
}

/// Measures the given micro-batch size.
fn run_one(args: &Bench, task: &Arc<BertPretraining>, devices: &Devices) -> anyhow::Result<ExitCode> {
    let spec = args.spec(task, devices, args.micro_batch_size);
    let dump = args.dump.as_deref().map(|directory| Dump::begin(directory, &["step".to_owned()])).transpose()?;
    let mut profile = None;
    let measured = measure(&spec, devices, args.steps, |compiled| {
        if args.profile || dump.is_some() {
            let program = compiled.executable.optimized_program()?;
            dump.iter().try_for_each(|dump| dump.write("step", &program))?;
            profile = args.profile.then(|| Profile::of(&program, &args.context(&spec, devices))).transpose()?;
        }
        Ok(())
    })?;
    if args.json {
        let mut report = to_json(args, &spec, &measured, &devices.describe());
        report["profile"] = json!(profile.as_ref().map(profile_to_json));
        print(report)?;
    } else {
        print_text(to_text(args, &spec, &measured, &devices.describe()))?;
        if let Some(profile) = &profile {
            print_text(profile_to_text(profile, "the step"))?;
        }
    }
    if let Some(directory) = &args.dump {
        note(format_args!("wrote the optimized HLO to {}", directory.display()));
    }
    Ok(ExitCode::SUCCESS)
}

/// Measures several micro-batch sizes, and reports the fastest.
fn run_several(args: &Bench, task: &Arc<BertPretraining>, devices: &Devices) -> anyhow::Result<ExitCode> {
    let (tried, fastest) = find_micro_batch_size(args.micro_batch_size, |micro_batch_size| {
        note(format_args!("measuring a micro-batch size of {micro_batch_size}"));
        measure(&args.spec(task, devices, micro_batch_size), devices, args.steps, |_| Ok(()))
    })?;
    let found =
        fastest.and_then(|position| Some((tried[position].micro_batch_size, tried[position].measured.as_ref()?)));
    let (micro_batch_size, measured) =
        found.context("no micro-batch size fits; choose a smaller --model or --sequence-length")?;
    let spec = args.spec(task, devices, micro_batch_size);
    if args.json {
        let mut report = to_json(args, &spec, measured, &devices.describe());
        report["tried"] = tried_to_json(&tried);
        print(report)?;
    } else {
        print_text(tried_to_text(&tried, micro_batch_size))?;
        print_text(to_text(args, &spec, measured, &devices.describe()))?;
    }
    Ok(ExitCode::SUCCESS)
}

impl Bench {
    /// Returns the task of the step.
    fn task(&self, devices: &Devices) -> BertPretraining {
        let mut model = self.model.config(self.vocab_size);
        model.hidden_dropout_prob = self.dropout;
        model.attention_probs_dropout_prob = self.dropout;
        model.max_position_embeddings = model.max_position_embeddings.max(self.sequence_length);
        BertPretraining {
            model,
            rows: RowForm {
                sequence_length: self.sequence_length,
                max_predictions: self.max_predictions_per_seq.unwrap_or((self.sequence_length * 5 / 32).max(1)),
                sequences_per_row: self.sequences_per_row,
            },
            spare_rows: false,
            sentence_pairs: true,
            recompute: self.recompute,
            layers: self.layers,
            kernels: Kernels { attention: self.attention, layer_norm: self.layer_norm }
                .on(devices.client.platform_name()),
        }
    }

    /// Returns the step of `task` with micro-batches of a size.
    fn spec(&self, task: &Arc<BertPretraining>, devices: &Devices, micro_batch_size: usize) -> StepSpec {
        let optimizer = OptimizerConfig::default();
        StepSpec {
            parallel: self.parallel().resolve(&task.parameters(), optimizer.state_names().len(), devices.len()),
            task: task.clone(),
            optimizer,
            precision: self.precision,
            rows: micro_batch_size.saturating_mul(self.accumulation_steps),
            accumulation_steps: self.accumulation_steps,
            replicas: devices.len(),
            dropout: self.dropout > 0.0,
            ema_decay: None,
        }
    }

    fn parallel(&self) -> ParallelSettings {
        ParallelSettings {
            gradient_reduce_dtype: self.gradient_reduce_dtype,
            optimizer_sharding: self.optimizer_sharding,
        }
    }

    /// Returns the facts about the step that its profile needs.
    fn context(&self, spec: &StepSpec, devices: &Devices) -> Context {
        let target = Target::of_host(devices.devices[0].kind(), devices.len());
        Context {
            platform: target.as_ref().map_or(Platform::Cpu, Target::platform),
            rates: target.as_ref().and_then(Rates::of),
            sequence_length: self.sequence_length,
            layers: self.model.config(self.vocab_size).num_hidden_layers,
            micro_batches: self.accumulation_steps as f64,
            model_flops: spec.rows as f64 * spec.task.training_flops(),
        }
    }

    /// Describes the sharding of the optimizer, if there are several devices.
    fn sharding(&self, spec: &StepSpec) -> Option<String> {
        let kinds = spec.optimizer.state_names().len();
        self.parallel().describe(&spec.task.parameters(), kinds, spec.replicas)
    }
}

fn to_text(args: &Bench, spec: &StepSpec, measured: &Measured, devices: &str) -> String {
    let [median, shortest, longest] = measured.seconds();
    let rate = |seconds: f64| quantity(measured.sequences as f64 / seconds);
    let flops = measured.flops / median;
    let rows = match args.sequences_per_row {
        1 => measured.sequences.to_string(),
        packed => format!("{} of {packed} sequences", counted((measured.sequences / packed) as u64, "row")),
    };
    let share = measured.peak_flops.map(|peak| format!(", {:.1} % of peak", 100.0 * flops / peak)).unwrap_or_default();
    let mut lines = vec![
        format!("BERT-{} {}, {rows} × {} on {devices}", args.model, args.precision.compute(), args.sequence_length),
        format!(
            "{} sequences/s, median of {} (range {} to {}; {median:.4} s per step), {}FLOP/s{share}",
            rate(median),
            counted(measured.steps.len() as u64, "step"),
            rate(longest),
            rate(shortest),
            quantity(flops),
        ),
        format!("{}; loss {:.4}", compile_times(&measured.times), measured.loss),
    ];
    if let Some(sharding) = args.sharding(spec) {
        lines.push(format!("gradients all-reduced in {}; {sharding}", args.gradient_reduce_dtype.name()));
    }
    let bytes = |bytes: i64| format!("{}B", quantity(bytes as f64));
    if let Some(memory) = &measured.memory {
        lines.push(format!(
            "program per device: arguments {} ({} of them weights and optimizer state), temporaries {}, peak {} (recompute {})",
            bytes(memory.argument),
            bytes(memory.alias),
            bytes(memory.temp),
            bytes(memory.peak_estimate()),
            args.recompute,
        ));
    }
    if let Some(peak) = measured.device_peak {
        lines.push(format!("peak device memory: {}", bytes(peak)));
    }
    if let Some(peak) = measured.host_peak {
        lines.push(format!("peak host memory: {}", bytes(peak as i64)));
    }
    lines.join("\n") + "\n"
}

fn to_json(args: &Bench, spec: &StepSpec, measured: &Measured, devices: &str) -> serde_json::Value {
    let [median, shortest, longest] = measured.seconds();
    let rate = |seconds: f64| measured.sequences as f64 / seconds;
    json!({
        "model": args.model,
        "recompute": args.recompute,
        "layers": args.layers,
        "attention": args.attention,
        "layer_norm": args.layer_norm,
        "precision": args.precision,
        "sequence_length": args.sequence_length,
        "sequences_per_row": args.sequences_per_row,
        "global_batch": measured.sequences,
        "micro_batch_size": spec.micro_batch_size(),
        "accumulation_steps": args.accumulation_steps,
        "gradient_reduce_dtype": args.gradient_reduce_dtype,
        "optimizer_sharding": args.optimizer_sharding,
        "optimizer_is_sharded": spec.shards().is_some(),
        "devices": devices,
        "sequences_per_second": rate(median),
        "sequences_per_second_min": rate(longest),
        "sequences_per_second_max": rate(shortest),
        "seconds_per_step": median,
        "flops_per_second": measured.flops / median,
        "share_of_peak": measured.peak_flops.map(|peak| measured.flops / median / peak),
        "build_seconds": measured.times.build.as_secs_f64(),
        "lower_seconds": measured.times.lower.as_secs_f64(),
        "compile_seconds": measured.times.compile.as_secs_f64(),
        "loaded_from_cache": measured.times.origin == Origin::Cache,
        "loss": measured.loss,
        "program_argument_bytes": measured.memory.map(|memory| memory.argument),
        "program_state_bytes": measured.memory.map(|memory| memory.alias),
        "program_temporary_bytes": measured.memory.map(|memory| memory.temp),
        "program_peak_bytes": measured.memory.map(|memory| memory.peak_estimate()),
        "device_peak_bytes": measured.device_peak,
        "host_peak_bytes": measured.host_peak,
        "page_faults_per_step": measured.page_faults.map(|faults| faults as f64 / measured.steps.len() as f64),
    })
}

/// Formats the micro-batch sizes of a search, of which one is chosen.
fn tried_to_text(tried: &[Tried], chosen: usize) -> String {
    let mut table = table::ruled();
    table.set_header(["micro-batch size", "sequences/s", "s per step", "temporaries"]);
    for Tried { micro_batch_size: size, measured } in tried {
        let name = if *size == chosen { format!("{size} (chosen)") } else { size.to_string() };
        let cells = match measured {
            None => ["does not fit".to_owned(), "–".to_owned(), "–".to_owned()],
            Some(measured) => [
                quantity(measured.sequences_per_second()),
                format!("{:.4}", measured.seconds()[0]),
                measured.memory.map_or("–".to_owned(), |memory| byte_size(memory.temp as f64)),
            ],
        };
        table.add_row([name].into_iter().chain(cells));
    }
    table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    format!("{table}\n")
}

fn tried_to_json(tried: &[Tried]) -> serde_json::Value {
    let each = tried.iter().map(|Tried { micro_batch_size, measured }| {
        let measured = measured.as_ref();
        json!({
            "micro_batch_size": micro_batch_size,
            "fits": measured.is_some(),
            "sequences_per_second": measured.map(Measured::sequences_per_second),
            "seconds_per_step": measured.map(|measured| measured.seconds()[0]),
            "program_temporary_bytes": measured.and_then(|measured| measured.memory).map(|memory| memory.temp),
        })
    });
    each.collect()
}
