//! `lambert verify`: does this build, on this device, compute what it should?

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use comfy_table::{CellAlignment, Table, presets};
use indicatif::ProgressBar;

use crate::bert::{Precision, Recompute};
use crate::output::{note, print};
use crate::pjrt::PlatformChoice;
use crate::train::devices::Devices;
use crate::train::reference::ReferenceCase;
use crate::train::verify::{Check, VerifyOptions, verify};

/// Check this build on this device against a directory of reference values: forward pass, gradients, optimizers.
///
/// Exits with 1 if a number is off by more than its tolerance. Errors of tensors are relative to the tensor's norm, those
/// of losses are absolute; tolerances are those that a correct build reaches in the chosen precision.
#[derive(Debug, Args)]
pub struct Verify {
    /// The directory: config.json, model.safetensors, batches.safetensors, expected_*.safetensors and two .json files.
    directory: PathBuf,
    /// auto, cpu, cuda, tpu, or the path of a PJRT plugin.
    #[arg(long, default_value = "auto")]
    platform: PlatformChoice,
    /// On how many devices to run, each with an equal share of the batch.
    #[arg(long, default_value_t = 1)]
    devices: usize,
    /// Into how many micro-batches each device cuts its share.
    #[arg(long, default_value_t = 1)]
    micro_batches: usize,
    #[arg(long, value_enum, default_value_t = PrecisionName::F32)]
    precision: PrecisionName,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum PrecisionName {
    F32,
    Bf16,
    /// Where the device has it: the tightest tolerances.
    F64,
}

impl From<PrecisionName> for Precision {
    fn from(name: PrecisionName) -> Precision {
        match name {
            PrecisionName::F32 => Precision::F32,
            PrecisionName::Bf16 => Precision::Bf16,
            PrecisionName::F64 => Precision::F64,
        }
    }
}

pub fn run(args: Verify) -> anyhow::Result<ExitCode> {
    let case = ReferenceCase::read(&args.directory)?;
    let devices = Devices::open(&args.platform, Some(args.devices))?;
    let options = VerifyOptions {
        precision: args.precision.into(),
        micro_batches: args.micro_batches,
        recompute: Recompute::default(),
        steps: None,
        optimizer: None,
    };
    let spinner = ProgressBar::new_spinner();
    let checks = verify(&case, &devices, &options, |check| {
        spinner.set_message(format!("{} {}", check.group, check.name));
        spinner.tick();
    });
    spinner.finish_and_clear();
    let checks = checks?;
    let misses = checks.iter().filter(|c| !c.ok).count();
    if args.json {
        let result = serde_json::json!({
            "ok": misses == 0,
            "directory": args.directory,
            "device": devices.describe(),
            "micro_batches": args.micro_batches,
            "precision": options.precision,
            "checks": checks,
        });
        print(format_args!("{result:#}"))?;
    } else {
        devices.passed_over.iter().for_each(|reason| note(format_args!("not used: {reason}")));
        print(table(&checks))?;
        let verdict = if misses == 0 { "all ok".to_string() } else { format!("{misses} MISS") };
        print(format_args!("{} checks on {}, {:?}: {verdict}", checks.len(), devices.describe(), options.precision))?;
    }
    Ok(if misses == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn table(checks: &[Check]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["", "check", "max error", "tolerance", ""]);
    for check in checks {
        let verdict = if check.ok { "ok" } else { "MISS" };
        let numbers = [format!("{:.2e}", check.error), format!("{:.1e}", check.tolerance)];
        table.add_row([
            check.group.clone(),
            check.name.clone(),
            numbers[0].clone(),
            numbers[1].clone(),
            verdict.into(),
        ]);
    }
    for column in [2, 3] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}
