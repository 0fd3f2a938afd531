//! `lambert verify`: compares this build on this device with reference values.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, ValueEnum};
use comfy_table::{Cell, CellAlignment, Table};
use indicatif::{ProgressBar, ProgressStyle};

use crate::bert::{Kernel, Layers, Preset, Recompute};
use crate::output::{note, print, table};
use crate::pjrt::PlatformChoice;
use crate::runtime::devices::Devices;
use crate::task::Precision;
use crate::verify::kernels::check_kernel;
use crate::verify::reference::ReferenceCase;
use crate::verify::{Check, Quantity, Split, SplitChecks, VerifyOptions, verify_splits};

/// Rows of BERT-Large whose kernels `--kernels` compares.
const KERNEL_LENGTHS: [usize; 2] = [128, 512];
/// A vocabulary size, which no kernel depends on.
const VOCABULARY: usize = 30_522;

/// Compare this build on this device with a directory of reference values
///
/// Checks the forward pass, every gradient, the trajectory of every optimizer, and dropout. The exit code is 1 if an error
/// exceeds its tolerance. Errors of tensors are relative to the norm of the tensor, errors of losses are absolute. Each
/// precision has its own tolerances. With dropout, the losses must equal those of the unsplit batch. If --devices or
/// --micro-batches has several values, all pairs are checked; a batch that does not divide evenly gets padding rows.
///
/// --kernels compares lambert's own GPU kernels with the composed forms on the device, in the shapes of BERT-Large. It needs an
/// NVIDIA GPU and no directory.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lambert verify tests/fixtures/bert_small
  lambert verify tests/fixtures/bert_small --platform cpu --devices 1,2,4,8 --micro-batches 1,2,4
  lambert verify tests/fixtures/bert_small --precision bf16 --recompute layer --json
  lambert verify --kernels attention,layer_norm --platform cuda")]
pub struct Verify {
    /// Reference directory: config.json, model.safetensors, batches.safetensors, expected_*.safetensors and two .json files
    #[arg(required_unless_present = "kernels")]
    directory: Option<PathBuf>,
    /// GPU kernels to compare with the composed forms: attention, layer_norm; several separated by commas
    #[arg(long, value_delimiter = ',', value_name = "NAME,…", conflicts_with = "directory")]
    kernels: Vec<Kernel>,
    /// Platform to use: auto, cpu, cuda, tpu, or the path of a PJRT plugin
    #[arg(long, default_value = "auto", value_name = "PLATFORM")]
    platform: PlatformChoice,
    /// Number of devices, each with an equal share of the batch; several values separated by commas
    #[arg(long, default_value = "1", value_delimiter = ',', value_name = "N,…", value_parser = from_one)]
    devices: Vec<usize>,
    /// Number of micro-batches per step on each device (accumulation steps); several values separated by commas
    #[arg(long, default_value = "1", value_delimiter = ',', value_name = "N,…", value_parser = from_one)]
    micro_batches: Vec<usize>,
    /// Precision of the step
    #[arg(long, value_enum, default_value_t)]
    precision: Precision,
    /// Activations to recompute in the backward pass: none, attention or layer
    #[arg(long, default_value_t, value_name = "POLICY")]
    recompute: Recompute,
    /// Form of the encoder's layers: auto, unrolled or loop
    #[arg(long, default_value_t, value_name = "FORM")]
    layers: Layers,
    /// Sharding of weights and optimizer state over the devices
    #[arg(long, value_enum, default_value_t = Sharding::None, value_name = "HOW")]
    optimizer_sharding: Sharding,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

fn from_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|&n| n > 0).ok_or_else(|| format!("requires whole numbers from 1, got {text:?}"))
}

/// The values of `[parallel] optimizer_sharding` that do not depend on the number of devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Sharding {
    None,
    Sharded,
}

pub fn run(args: Verify) -> anyhow::Result<ExitCode> {
    let case = args.directory.as_deref().map(ReferenceCase::read).transpose()?;
    let devices = Devices::open(&args.platform, args.devices.iter().copied().max())?;
    devices.passed_over.iter().for_each(|reason| note(format_args!("not used: {reason}")));
    let of_kernels = checks_of_kernels(&args.kernels, &devices).context("--kernels")?;
    let of_splits = case.as_ref().map_or(Ok(Vec::new()), |case| checks_of_splits(&args, case, &devices))?;
    let checks = || of_splits.iter().flat_map(|split| &split.checks).chain(&of_kernels);
    let misses = checks().filter(|check| !check.ok).count();
    let rows = case.as_ref().map_or(0, |case| case.batch_form().0);
    if args.json {
        let result = serde_json::json!({
            "ok": misses == 0,
            "directory": args.directory,
            "device": devices.describe(),
            "optimizer_sharding": args.optimizer_sharding.to_possible_value().map(|value| value.get_name().to_owned()),
            "precision": args.precision,
            "recompute": args.recompute,
            "layers": args.layers,
            "splits": of_splits.iter().map(|checks| json(checks, rows)).collect::<Vec<_>>(),
            "kernels": of_kernels,
        });
        print(format_args!("{result:#}"))?;
    } else {
        match of_splits.as_slice() {
            [] => {}
            [one] => print(table(&one.checks))?,
            several => print(matrix(several, rows))?,
        }
        if !of_kernels.is_empty() {
            print(table(&of_kernels))?;
        }
        let verdict = if misses == 0 { "all ok".to_string() } else { format!("{misses} MISS") };
        let count = checks().count();
        let precision = if of_kernels.is_empty() { args.precision } else { Precision::Bf16 };
        print(format_args!("{count} checks on {}, {}: {verdict}", devices.describe(), precision.compute()))?;
    }
    Ok(if misses == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Compares `kernels` with the composed forms.
fn checks_of_kernels(kernels: &[Kernel], devices: &Devices) -> anyhow::Result<Vec<Check>> {
    let model = Preset::Large.config(VOCABULARY);
    let checks = kernels.iter().map(|&kernel| check_kernel(devices, kernel, &model, &KERNEL_LENGTHS));
    Ok(checks.collect::<anyhow::Result<Vec<_>>>()?.concat())
}

/// Compares the steps of all splits with `case`.
fn checks_of_splits(args: &Verify, case: &ReferenceCase, devices: &Devices) -> anyhow::Result<Vec<SplitChecks>> {
    let options = VerifyOptions {
        precision: args.precision,
        micro_batches: 1,
        recompute: args.recompute,
        layers: args.layers,
        shard_optimizer: args.optimizer_sharding == Sharding::Sharded,
        steps: None,
        optimizer: None,
    };
    let splits = Split::all(&args.devices, &args.micro_batches);
    let progress = Progress::over(&splits);
    let checked = verify_splits(
        case,
        |count| devices.first(count),
        &splits,
        &options,
        |split, check| {
            progress.show(split, check);
        },
    );
    progress.bar.finish_and_clear();
    checked
}

/// A progress bar over the splits, with the current check.
struct Progress {
    bar: ProgressBar,
    splits: Vec<Split>,
}

impl Progress {
    fn over(splits: &[Split]) -> Progress {
        // The names of tensors are cut at the width of the terminal.
        let form = "{spinner} split {pos} of {len}  {elapsed}  {wide_msg}";
        let style = ProgressStyle::with_template(form).unwrap_or_else(|_| ProgressStyle::default_bar());
        Progress { bar: ProgressBar::new(splits.len() as u64).with_style(style), splits: splits.to_vec() }
    }

    fn show(&self, split: Split, check: &Check) {
        let done = self.splits.iter().position(|&other| other == split).unwrap_or_default();
        self.bar.set_position(done as u64);
        let Split { devices, micro_batches } = split;
        self.bar.set_message(format!("{devices} × {micro_batches}: {} {}", check.group, check.name));
    }
}

fn json(checked: &SplitChecks, rows: usize) -> serde_json::Value {
    serde_json::json!({
        "devices": checked.split.devices,
        "accumulation_steps": checked.split.micro_batches,
        "padding_rows": checked.split.padding(rows),
        "ok": checked.misses() == 0,
        "checks": checked.checks,
    })
}

/// Returns a table with a line for each split: the largest error of each quantity.
fn matrix(all: &[SplitChecks], rows: usize) -> Table {
    let mut table = table::plain();
    let mut header = ["devices", "accumulation steps", "padding rows"].map(str::to_owned).to_vec();
    header.extend(Quantity::ALL.map(|quantity| quantity.name().to_owned()));
    table.set_header(header);
    let mut tolerances = vec!["tolerance".to_owned(), String::new(), String::new()];
    tolerances.extend(Quantity::ALL.map(|quantity| {
        let of_quantity = all.iter().flat_map(|split| &split.checks).filter(|check| check.quantity == quantity);
        of_quantity.map(|check| check.tolerance).reduce(f64::min).map_or("–".to_owned(), |t| format!("{t:.1e}"))
    }));
    for split in all {
        let Split { devices, micro_batches } = split.split;
        let mut row = [devices, micro_batches, split.split.padding(rows)].map(|n| n.to_string()).to_vec();
        row.extend(Quantity::ALL.map(|quantity| worst(split, quantity)));
        row.push(if split.misses() == 0 { "ok".to_owned() } else { format!("{} MISS", split.misses()) });
        table.add_row(row.into_iter().map(right_aligned));
    }
    table.add_row(tolerances.into_iter().map(right_aligned));
    table
}

/// Returns the largest error of `quantity`; NaN counts as the largest.
fn worst(split: &SplitChecks, quantity: Quantity) -> String {
    let errors = split.checks.iter().filter(|check| check.quantity == quantity).map(|check| check.error);
    errors.max_by(f64::total_cmp).map_or("–".to_owned(), |error| format!("{error:.2e}"))
}

fn right_aligned(text: String) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}

fn table(checks: &[Check]) -> Table {
    let mut table = table::plain();
    table.set_header(["", "check", "max error", "tolerance", ""]);
    for check in checks {
        let verdict = if check.ok { "ok" } else { "MISS" };
        let [error, tolerance] =
            [format!("{:.2e}", check.error), format!("{:.1e}", check.tolerance)].map(right_aligned);
        table.add_row([Cell::new(&check.group), Cell::new(&check.name), error, tolerance, Cell::new(verdict)]);
    }
    table
}
