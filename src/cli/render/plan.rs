//! A plan as people and as programs read it. Every number of the table stands beside where it comes from.

use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Value, json};

use crate::bert::Recompute;
use crate::plan::hardware::Chip;
use crate::plan::roofline::seconds as as_duration;
use crate::plan::rows::RowsPerSequence;
use crate::plan::{Fit, PAPER_MINUTES, PhasePlan, Plan, Verdict};
use crate::task::Precision;
use crate::units::{byte_size, duration, quantity, thousands};

/// One row: what it is, its value in every phase, and where that comes from.
type Row = (&'static str, Vec<String>, String);

/// The table and the lines around it.
pub fn to_text(plan: &Plan, target_time: Option<f64>) -> String {
    let mut lines = vec![headline(plan)];
    lines.push(table(plan));
    lines.extend(upper_bound(plan));
    lines.extend(plan.target.chip.and_then(|chip| rates(chip, plan.run.precision)));
    lines.extend(whole_run(plan));
    lines.extend(target_time.map(|seconds| chips_for(plan, seconds)));
    lines.join("\n") + "\n"
}

fn headline(plan: &Plan) -> String {
    let (chips, devices) = (plan.target.chips(), plan.target.devices());
    let kind = plan.target.chip.map_or("cpu", |chip| chip.kind);
    let hardware = match devices == chips {
        true => format!("{} × {kind}", thousands(chips as u64)),
        false => format!("{} × {kind}, {} devices", thousands(chips as u64), thousands(devices as u64)),
    };
    let version = plan.platform_version.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    format!("{} on {}: {hardware}; recompute {}; compiled by {version}", plan.run.name, plan.target, plan.run.recompute)
}

fn table(plan: &Plan) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    let mut header = vec![String::new()];
    header.extend(plan.phases.iter().map(|phase| format!("phase {}", phase.shape.name)));
    header.push("from".to_owned());
    table.set_header(header);
    for (name, values, source) in rows(plan) {
        table.add_row([name.to_owned()].into_iter().chain(values).chain([source]));
    }
    table
        .column_iter_mut()
        .skip(1)
        .take(plan.phases.len())
        .for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    table.to_string()
}

fn rows(plan: &Plan) -> Vec<Row> {
    let phases = &plan.phases;
    let each = |value: &dyn Fn(&PhasePlan) -> String| -> Vec<String> { phases.iter().map(value).collect() };
    let of_fit = |value: &dyn Fn(&Fit) -> Option<String>| -> Vec<String> {
        let text = |phase: &PhasePlan| phase.fits.as_ref().and_then(value).unwrap_or_else(|| "–".to_owned());
        phases.iter().map(text).collect()
    };
    let bytes = |n: i64| Some(byte_size(n as f64));
    let memory = |value: fn(&Fit) -> i64| of_fit(&|fit| bytes(value(fit)));
    let seconds = |value: fn(&Fit) -> Option<f64>| of_fit(&|fit| value(fit).map(of_step));
    let compiler = || "the compiler".to_owned();
    let share = |share: f64, of: &str| format!("{:.0} % of {of}, assumed", 100.0 * share);
    let efficiency = &plan.efficiency;
    let devices = thousands(plan.target.devices() as u64);
    vec![
        ("compiles and fits", each(&verdict), "this machine's processor".to_owned()),
        (
            "sequences a device",
            of_rows(phases),
            format!("global batch over {devices} devices; micro-batches × rows of one"),
        ),
        ("of these computed", each(&|phase| of_rows_computed(plan, phase)), rows_source(plan)),
        ("arguments", memory(|fit| fit.memory.argument), compiler()),
        ("outputs", memory(|fit| fit.memory.output), compiler()),
        ("of these in place", memory(|fit| fit.memory.alias), compiler()),
        ("temporaries", memory(|fit| fit.memory.temp), compiler()),
        ("code", of_fit(&|fit| bytes(fit.memory.generated_code).filter(|_| fit.memory.generated_code > 0)), compiler()),
        ("peak", memory(|fit| fit.memory.peak_estimate()), peak_source(plan)),
        ("FLOP of a step", of_fit(&|fit| Some(quantity(fit.demand.flops))), flops_source(plan)),
        ("FLOP on a device", of_fit(&|fit| fit.compiler_flops.map(quantity)), cost_source(plan)),
        (
            "bytes moved on a device",
            of_fit(&|fit| fit.demand.bytes.map(byte_size)),
            format!("at most; {}", cost_source(plan)),
        ),
        (
            "bytes a device sends",
            of_fit(&|fit| Some(byte_size(fit.demand.collectives.sent_in_ring(plan.target.devices())))),
            "the graph; in a ring of n, sums 2(n−1)/n, parts (n−1)/n".to_owned(),
        ),
        ("arithmetic", seconds(|fit| Some(fit.times?.compute)), share(efficiency.compute, "the peak")),
        ("memory", seconds(|fit| fit.times?.memory), share(efficiency.memory, "its bandwidth")),
        ("network", seconds(|fit| Some(fit.times?.network)), share(efficiency.network, "its bandwidth")),
        (
            "step",
            of_fit(&|fit| fit.times.map(|t| format!("{} ({})", of_step(t.step()), t.bound()))),
            "the slowest of the three".to_owned(),
        ),
        ("steps", each(&|phase| thousands(phase.shape.steps)), "the run file".to_owned()),
        (
            "phase",
            each(&|phase| phase.seconds().map_or("–".to_owned(), |s| duration(as_duration(s)))),
            "steps × step".to_owned(),
        ),
    ]
}

fn of_rows(phases: &[PhasePlan]) -> Vec<String> {
    let text = |phase: &PhasePlan| match &phase.fits {
        Some(fit) => format!("{} = {} × {}", phase.rows, fit.micro_batches, fit.micro_batch),
        None => phase.rows.to_string(),
    };
    phases.iter().map(text).collect()
}

/// `36, at 0.549 rows a sequence`; of plain rows all.
fn of_rows_computed(plan: &Plan, phase: &PhasePlan) -> String {
    match &phase.fits {
        Some(fit) if fit.sequences_per_row > 1 => {
            format!("{}, at {:.3} rows a sequence", fit.rows_computed, plan.rows_per_sequence.of(phase.index))
        }
        Some(fit) => fit.rows_computed.to_string(),
        None => "–".to_owned(),
    }
}

/// Whether several sequences share a row in the step of `phase` that fits.
fn is_packed(phase: &&PhasePlan) -> bool {
    phase.fits.as_ref().is_some_and(|fit| fit.sequences_per_row > 1)
}

fn rows_source(plan: &Plan) -> String {
    if !plan.phases.iter().any(|phase| is_packed(&phase)) {
        return "each sequence has a row of its own".to_owned();
    }
    match plan.rows_per_sequence {
        RowsPerSequence::Surveyed(_) => format!("whole micro-batches; the first sequences of {}", plan.run.data.path),
        RowsPerSequence::Stated(_) => "whole micro-batches; --rows-per-sequence".to_owned(),
        RowsPerSequence::Unknown => "an upper bound, see below".to_owned(),
    }
}

/// What follows from not knowing the text.
fn upper_bound(plan: &Plan) -> Option<String> {
    let packed: Vec<&str> = plan.phases.iter().filter(is_packed).map(|phase| phase.shape.name.as_str()).collect();
    (plan.rows_per_sequence == RowsPerSequence::Unknown && !packed.is_empty()).then(|| {
        format!(
            "phase {}: sequences share rows, but how many they take is not known, because there are no prepared data at {}: \
             FLOP, bytes and times are an upper bound, a row for each sequence; --rows-per-sequence states it",
            packed.join(", "),
            plan.run.data.path
        )
    })
}

fn verdict(phase: &PhasePlan) -> String {
    let took = phase.attempts.last().map_or(String::new(), |last| duration(last.took));
    match (&phase.fits, phase.attempts.last().map(|last| &last.verdict)) {
        (Some(fit), _) => {
            let of = phase.attempts.iter().find(|attempt| attempt.micro_batch == fit.micro_batch);
            format!("yes, in {}", of.map_or(took, |attempt| duration(attempt.took)))
        }
        (None, Some(Verdict::Refused(_))) => "does not compile".to_owned(),
        (None, _) => "does not fit".to_owned(),
    }
}

fn peak_source(plan: &Plan) -> String {
    match plan.memory_limit {
        Some(limit) => format!("the compiler; a device has {}", byte_size(limit)),
        None => "the compiler".to_owned(),
    }
}

fn flops_source(plan: &Plan) -> String {
    let again = if plan.run.recompute == Recompute::None { "" } else { " and what it computes again" };
    format!("counted from the model{again}, all devices")
}

/// Not every plugin analyses what it compiled for absent devices. One that does may count reads of what is kept on the chip,
/// so memory sees no more than it says.
fn cost_source(plan: &Plan) -> String {
    let answers = plan.phases.iter().filter_map(|phase| phase.fits.as_ref()).any(|fit| fit.demand.bytes.is_some());
    match answers {
        true => "the compiler's cost analysis".to_owned(),
        false => "the compiler's cost analysis, which this plugin does not give".to_owned(),
    }
}

/// The rates that the times are computed from.
fn rates(chip: &Chip, precision: Precision) -> Option<String> {
    let rate = |rate: f64| format!("{}B/s", quantity(rate));
    let network = match chip.network_bandwidth {
        Some(network) => format!("links {}, network {}", rate(chip.link_bandwidth), rate(network)),
        None => format!("links {}", rate(chip.link_bandwidth)),
    };
    let devices = if chip.devices == 1 { String::new() } else { format!(" ({} devices)", chip.devices) };
    Some(format!(
        "rates of a {} chip{devices}: {}FLOP/s in {}, memory {} of {}, {network} each way ({})",
        chip.kind,
        quantity(chip.peak(precision)?),
        precision.compute(),
        rate(chip.memory_bandwidth),
        byte_size(chip.memory as f64),
        chip.source()
    ))
}

fn whole_run(plan: &Plan) -> Option<String> {
    let seconds = plan.seconds()?;
    let chip_hours = |chips: f64, seconds: f64| thousands((chips * seconds / 3600.0).round() as u64);
    Some(format!(
        "whole run: {:.2} minutes, {} chip-hours, and on top evaluation, checkpoints and start-up. The paper's mixed run: \
         {PAPER_MINUTES} minutes, {} chip-hours of TPU v3",
        seconds / 60.0,
        chip_hours(plan.target.chips() as f64, seconds),
        chip_hours(1024.0, 60.0 * PAPER_MINUTES),
    ))
}

fn chips_for(plan: &Plan, wanted: f64) -> String {
    let asked = duration(as_duration(wanted));
    let Some((target, seconds)) = plan.target_for(wanted) else {
        let why = if plan.target.chip.is_none() { "no rates are stated of a CPU" } else { "not every phase fits" };
        return format!("for {asked}: nothing can be said, because {why}");
    };
    let (chips, takes) = (thousands(target.chips() as u64), duration(as_duration(seconds)));
    match seconds <= wanted {
        true => format!("for {asked}: {chips} chips ({target}), which take {takes}"),
        false => format!(
            "for {asked}: no number of these chips; {chips} ({target}), the most that is offered and divides the batches, take {takes}"
        ),
    }
}

/// One object: the same numbers, in bytes, seconds and operations, under the names of the table.
pub fn to_json(plan: &Plan, target_time: Option<f64>) -> Value {
    let chip = plan.target.chip;
    let phases: Vec<Value> = plan.phases.iter().map(|phase| phase_json(plan, phase)).collect();
    let wanted = target_time.and_then(|wanted| {
        let (target, seconds) = plan.target_for(wanted)?;
        Some(json!({
            "seconds": wanted,
            "reached": seconds <= wanted,
            "topology": target.to_string(),
            "chips": target.chips(),
            "takes_seconds": seconds,
        }))
    });
    json!({
        "run": plan.run.name,
        "topology": plan.target.to_string(),
        "chips": plan.target.chips(),
        "devices": plan.target.devices(),
        "recompute": plan.run.recompute,
        "platform_version": plan.platform_version,
        "memory_limit_bytes": plan.memory_limit,
        "rows_per_sequence_from": match plan.rows_per_sequence {
            RowsPerSequence::Surveyed(_) => "the prepared data",
            RowsPerSequence::Stated(_) => "--rows-per-sequence",
            RowsPerSequence::Unknown => "an upper bound",
        },
        "assumed_efficiency": {
            "compute": plan.efficiency.compute,
            "memory": plan.efficiency.memory,
            "network": plan.efficiency.network,
        },
        "stated_rates_of_a_chip": chip.map(|chip| json!({
            "kind": chip.kind,
            "peak_flops": chip.peak(plan.run.precision),
            "memory_bytes": chip.memory,
            "memory_bandwidth": chip.memory_bandwidth,
            "link_bandwidth": chip.link_bandwidth,
            "network_bandwidth": chip.network_bandwidth,
            "source": chip.source(),
        })),
        "phases": phases,
        "seconds": plan.seconds(),
        "paper_seconds": PAPER_MINUTES * 60.0,
        "target_time": wanted,
        "saved": plan.saved,
    })
}

fn phase_json(plan: &Plan, phase: &PhasePlan) -> Value {
    let attempts = phase.attempts.iter().map(|attempt| {
        let (verdict, reason) = match &attempt.verdict {
            Verdict::Fits => ("fits", None),
            Verdict::TooLarge(reason) => ("does not fit", Some(reason)),
            Verdict::Refused(reason) => ("does not compile", Some(reason)),
        };
        json!({
            "micro_batch_size": attempt.micro_batch,
            "seconds": attempt.took.as_secs_f64(),
            "verdict": verdict,
            "reason": reason,
        })
    });
    let fit = phase.fits.as_ref().map(|fit| {
        let memory = &fit.memory;
        json!({
            "micro_batch_size": fit.micro_batch,
            "accumulation_steps": fit.micro_batches,
            "sequences_per_row": fit.sequences_per_row,
            "rows_per_sequence": if fit.sequences_per_row > 1 { plan.rows_per_sequence.of(phase.index) } else { 1.0 },
            "rows_computed_of_a_device": fit.rows_computed,
            "flops_of_a_step": fit.demand.flops,
            "argument_bytes": memory.argument,
            "output_bytes": memory.output,
            "alias_bytes": memory.alias,
            "temporary_bytes": memory.temp,
            "code_bytes": memory.generated_code,
            "peak_bytes": memory.peak_estimate(),
            "compiler_flops_of_a_device": fit.compiler_flops,
            "bytes_moved_of_a_device": fit.demand.bytes,
            "exchanged_bytes": {
                "all_reduce": fit.demand.collectives.all_reduce,
                "reduce_scatter": fit.demand.collectives.reduce_scatter,
                "all_gather": fit.demand.collectives.all_gather,
            },
            "sent_bytes_of_a_device": fit.demand.collectives.sent_in_ring(plan.target.devices()),
            "step_seconds": fit.times.map(|times| json!({
                "compute": times.compute,
                "memory": times.memory,
                "network": times.network,
                "step": times.step(),
                "bound": times.bound(),
            })),
        })
    });
    json!({
        "phase": phase.index + 1,
        "name": phase.shape.name,
        "sequence_length": phase.shape.sequence_length,
        "global_batch": phase.shape.global_batch,
        "rows_of_a_device": phase.rows,
        "steps": phase.shape.steps,
        "attempts": attempts.collect::<Vec<_>>(),
        "fit": fit,
        "seconds": phase.seconds(),
    })
}

/// The time of a step or of a part of it, in three digits at least.
fn of_step(seconds: f64) -> String {
    match seconds {
        s if s < 1.0 => format!("{:.3} ms", 1e3 * s),
        s if s < 100.0 => format!("{s:.3} s"),
        s => duration(as_duration(s)),
    }
}
