//! Formats a plan as a table for people and as JSON for programs. Every row of the table names the source of its values.

use comfy_table::CellAlignment;
use serde_json::{Value, json};

use super::profile;
use crate::bert::Recompute;
use crate::output::table;
use crate::plan::hardware::Accelerator;
use crate::plan::packing::RowsPerSequence;
use crate::plan::profile::collectives::{Collective, CollectiveKind};
use crate::plan::roofline::seconds as as_duration;
use crate::plan::traffic::Collectives;
use crate::plan::{Attempt, Fit, PAPER_CHIPS, PhasePlan, Plan, Verdict};
use crate::task::Precision;
use crate::units::{byte_size, counted, duration, quantity, step_time, thousands};

/// One row: its name, its value in every phase, and the source of the values.
type Row = (&'static str, Vec<String>, String);

/// Formats the table and the lines around it.
pub fn to_text(plan: &Plan, target_time: Option<f64>, price: Option<f64>) -> String {
    let mut lines = vec![headline(plan)];
    lines.push(table(plan));
    lines.extend(plan.phases.iter().filter(|phase| phase.attempts.len() > 1).map(candidates));
    lines.extend(upper_bound(plan));
    lines.extend(plan.target.accelerator.and_then(|accelerator| rates(accelerator, plan.run.precision)));
    lines.extend(whole_run(plan, price));
    lines.extend(target_time.map(|seconds| chips_for(plan, seconds)));
    lines.join("\n") + "\n"
}

fn headline(plan: &Plan) -> String {
    let (chips, devices) = (plan.target.chips(), plan.target.devices());
    let kind = plan.target.accelerator.map_or("cpu", |accelerator| accelerator.kind);
    let hardware = match devices == chips {
        true => format!("{} × {kind}", thousands(chips as u64)),
        false => format!("{} × {kind}, {} devices", thousands(chips as u64), thousands(devices as u64)),
    };
    let version = plan.platform_version.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    format!(
        "{} on {}: {hardware}; recompute {}; compiled with {version}",
        plan.run.name, plan.target, plan.run.recompute
    )
}

fn table(plan: &Plan) -> String {
    let mut table = table::ruled();
    let mut header = vec![String::new()];
    header.extend(plan.phases.iter().map(|phase| format!("phase {}", phase.shape.name)));
    header.push("source".to_owned());
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

/// Formats the micro-batch sizes of a phase that were compiled, ascending.
fn candidates(phase: &PhasePlan) -> String {
    let mut attempts: Vec<&Attempt> = phase.attempts.iter().collect();
    attempts.sort_by_key(|attempt| attempt.micro_batch_size);
    let chosen = phase.fit.as_ref().map(|fit| fit.micro_batch_size);
    let mut table = table::ruled();
    table.set_header([
        format!("phase {}: micro-batch size", phase.shape.name),
        "result".to_owned(),
        "peak memory per device".to_owned(),
        "sequences/s, at most".to_owned(),
    ]);
    let known = |value: Option<String>| value.unwrap_or_else(|| "–".to_owned());
    for attempt in attempts {
        let size = attempt.micro_batch_size;
        table.add_row([
            if chosen == Some(size) { format!("{size} (chosen)") } else { size.to_string() },
            verdict_name(&attempt.verdict).to_owned(),
            known(attempt.peak_memory.map(byte_size)),
            known(attempt.sequences_per_second.map(|rate| thousands(rate.round() as u64))),
        ]);
    }
    table.column_iter_mut().skip(2).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    table.to_string()
}

/// Returns the name of a compilation's result.
fn verdict_name(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Fits => "fits",
        Verdict::TooLarge(_) => "does not fit",
        Verdict::Failed(_) => "does not compile",
    }
}

fn rows(plan: &Plan) -> Vec<Row> {
    let phases = &plan.phases;
    let each = |value: &dyn Fn(&PhasePlan) -> String| -> Vec<String> { phases.iter().map(value).collect() };
    let of_fit = |value: &dyn Fn(&Fit) -> Option<String>| -> Vec<String> {
        let text = |phase: &PhasePlan| phase.fit.as_ref().and_then(value).unwrap_or_else(|| "–".to_owned());
        phases.iter().map(text).collect()
    };
    let sent = |collectives: &dyn Fn(&Fit) -> Collectives| {
        of_fit(&|fit| Some(byte_size(collectives(fit).sent_in_ring(plan.target.devices()))))
    };
    let bytes = |n: i64| Some(byte_size(n as f64));
    let memory = |value: fn(&Fit) -> i64| of_fit(&|fit| bytes(value(fit)));
    let seconds = |value: fn(&Fit) -> Option<f64>| of_fit(&|fit| value(fit).map(step_time));
    let compiler = || "compiler".to_owned();
    let assumed = |share: f64, of: &str| format!("estimate at {:.0} % of {of}", 100.0 * share);
    let efficiency = &plan.efficiency;
    let devices = counted(plan.target.devices() as u64, "device");
    vec![
        ("fits", each(&verdict), "compiled on this machine".to_owned()),
        (
            "rows per device",
            rows_per_device(phases),
            format!("global batch / {devices} = accumulation steps × micro-batch size"),
        ),
        ("rows computed", each(&|phase| rows_computed(plan, phase)), rows_source(plan)),
        ("arguments", memory(|fit| fit.memory.argument), compiler()),
        ("outputs", memory(|fit| fit.memory.output), compiler()),
        ("donated arguments", memory(|fit| fit.memory.alias), "compiler; outputs that reuse their memory".to_owned()),
        ("temporaries", memory(|fit| fit.memory.temp), compiler()),
        ("code", of_fit(&|fit| bytes(fit.memory.generated_code).filter(|_| fit.memory.generated_code > 0)), compiler()),
        ("peak memory per device", memory(|fit| fit.memory.peak_estimate()), peak_source(plan)),
        ("FLOP per step", of_fit(&|fit| Some(quantity(fit.demand.flops))), flops_source(plan)),
        ("FLOP per device", of_fit(&|fit| fit.compiler_flops.map(quantity)), cost_source(plan).to_owned()),
        (
            "bytes accessed per device",
            of_fit(&|fit| fit.demand.bytes.map(byte_size)),
            format!("upper bound; {}", cost_source(plan)),
        ),
        (
            "collectives",
            of_fit(&|fit| Some(collectives_text(fit.compiled_collectives.as_ref()?))),
            format!("{}; executions, bytes of the whole arrays", collectives_source(plan)),
        ),
        (
            "bytes sent per device",
            sent(&|fit| fit.demand.collectives),
            format!("{}; ring: all-reduce 2(n−1)/n, permutes 1, others (n−1)/n", collectives_source(plan)),
        ),
        ("bytes sent, by the graph", sent(&|fit| fit.graph_collectives), "collectives before compilation".to_owned()),
        ("compute time", seconds(|fit| Some(fit.times?.compute)), assumed(efficiency.compute, "peak FLOP/s")),
        ("memory time", seconds(|fit| fit.times?.memory), assumed(efficiency.memory, "memory bandwidth")),
        ("network time", seconds(|fit| Some(fit.times?.network)), assumed(efficiency.network, "network bandwidth")),
        (
            "step time",
            of_fit(&|fit| fit.times.map(|t| format!("{} ({})", step_time(t.step()), t.bound()))),
            "slowest of the three".to_owned(),
        ),
        ("steps", each(&|phase| thousands(phase.shape.steps)), "run file".to_owned()),
        (
            "phase time",
            each(&|phase| phase.seconds().map_or("–".to_owned(), |s| duration(as_duration(s)))),
            "steps × step time".to_owned(),
        ),
    ]
}

fn rows_per_device(phases: &[PhasePlan]) -> Vec<String> {
    let text = |phase: &PhasePlan| match &phase.fit {
        Some(fit) => format!("{} = {} × {}", phase.rows, fit.accumulation_steps, fit.micro_batch_size),
        None => phase.rows.to_string(),
    };
    phases.iter().map(text).collect()
}

/// Formats the rows that a device computes: `36, at 0.549 rows per sequence` if sequences are packed.
fn rows_computed(plan: &Plan, phase: &PhasePlan) -> String {
    match &phase.fit {
        Some(fit) if fit.sequences_per_row > 1 => {
            format!("{}, at {:.3} rows per sequence", fit.rows_computed, plan.rows_per_sequence.of(phase.index))
        }
        Some(fit) => fit.rows_computed.to_string(),
        None => "–".to_owned(),
    }
}

/// Returns whether the fitting step of `phase` packs several sequences into a row.
fn is_packed(phase: &&PhasePlan) -> bool {
    phase.fit.as_ref().is_some_and(|fit| fit.sequences_per_row > 1)
}

fn rows_source(plan: &Plan) -> String {
    if !plan.phases.iter().any(|phase| is_packed(&phase)) {
        return "one sequence per row".to_owned();
    }
    match plan.rows_per_sequence {
        RowsPerSequence::Surveyed(_) => format!("whole micro-batches; first sequences of {}", plan.run.data.path),
        RowsPerSequence::Stated(_) => "whole micro-batches; --rows-per-sequence".to_owned(),
        RowsPerSequence::Unknown => "upper bound, see below".to_owned(),
    }
}

/// Explains the upper bound of a plan without prepared data.
fn upper_bound(plan: &Plan) -> Option<String> {
    let packed: Vec<&str> = plan.phases.iter().filter(is_packed).map(|phase| phase.shape.name.as_str()).collect();
    (plan.rows_per_sequence == RowsPerSequence::Unknown && !packed.is_empty()).then(|| {
        format!(
            "phase {}: sequences are packed, but without prepared data at {} the number of rows is unknown. FLOP, bytes and \
             times are upper bounds (one row per sequence); set --rows-per-sequence for an estimate",
            packed.join(", "),
            plan.run.data.path
        )
    })
}

fn verdict(phase: &PhasePlan) -> String {
    let took = phase.attempts.last().map_or(String::new(), |last| duration(last.took));
    match (&phase.fit, phase.attempts.last().map(|last| &last.verdict)) {
        (Some(fit), _) => {
            let fitting = phase.attempts.iter().find(|attempt| attempt.micro_batch_size == fit.micro_batch_size);
            format!("yes, compiled in {}", fitting.map_or(took, |attempt| duration(attempt.took)))
        }
        (None, Some(Verdict::Failed(_))) => "does not compile".to_owned(),
        (None, _) => "no, too large".to_owned(),
    }
}

fn peak_source(plan: &Plan) -> String {
    match plan.memory_limit {
        Some(limit) => format!("compiler; a device has {}", byte_size(limit)),
        None => "compiler".to_owned(),
    }
}

fn flops_source(plan: &Plan) -> String {
    let recomputation = if plan.run.recompute == Recompute::None { "" } else { ", with recomputation" };
    format!("counted from the model{recomputation}; all devices")
}

/// Returns the source of the costs. Not every plugin analyses programs for absent devices. A cost analysis may count reads
/// of data that stays on the chip, so its bytes are an upper bound.
fn cost_source(plan: &Plan) -> &'static str {
    let reported = plan.phases.iter().filter_map(|phase| phase.fit.as_ref()).any(|fit| fit.demand.bytes.is_some());
    match reported {
        true => "compiler's cost analysis",
        false => "compiler's cost analysis (not available in this plugin)",
    }
}

/// Formats the collectives of a compiled step by kind: `1 reduce-scatter, 1.36 GB`. Those during which the device computes are
/// named asynchronous.
fn collectives_text(found: &[Collective]) -> String {
    let mut groups: Vec<(CollectiveKind, bool)> = found.iter().map(|c| (c.kind, c.asynchronous)).collect();
    groups.sort();
    groups.dedup();
    let group = |(kind, asynchronous): (CollectiveKind, bool)| {
        let members = || found.iter().filter(move |c| (c.kind, c.asynchronous) == (kind, asynchronous));
        let executions = members().map(|c| c.executions).sum::<f64>().round() as u64;
        let bytes = byte_size(members().map(|c| c.executions * c.bytes).sum());
        let manner = if asynchronous { "asynchronous " } else { "" };
        format!("{} {manner}{}, {bytes}", thousands(executions), kind.name())
    };
    match groups.as_slice() {
        [] => "none".to_owned(),
        _ => groups.into_iter().map(group).collect::<Vec<_>>().join("\n"),
    }
}

/// Returns the source of the communication. Not every plugin returns its programs.
fn collectives_source(plan: &Plan) -> &'static str {
    let mut fits = plan.phases.iter().filter_map(|phase| phase.fit.as_ref());
    match fits.all(|fit| fit.compiled_collectives.is_some()) {
        true => "compiled program",
        false => "graph (this plugin does not return the compiled program)",
    }
}

/// Formats the published rates that the times are computed from.
fn rates(accelerator: &Accelerator, precision: Precision) -> Option<String> {
    let rate = |rate: f64| format!("{}B/s", quantity(rate));
    let network = match accelerator.network_bandwidth {
        Some(network) => format!("links {}, network {}", rate(accelerator.link_bandwidth), rate(network)),
        None => format!("links {}", rate(accelerator.link_bandwidth)),
    };
    let devices = if accelerator.devices == 1 { String::new() } else { format!(" ({} devices)", accelerator.devices) };
    Some(format!(
        "peak rates of one {} chip{devices}: {}FLOP/s in {}, memory {} at {}, {network} in each direction (source: {})",
        accelerator.kind,
        quantity(accelerator.peak(precision)?),
        precision.compute(),
        byte_size(accelerator.memory as f64),
        rate(accelerator.memory_bandwidth),
        accelerator.source()
    ))
}

/// Formats the time, the chip-hours and, with the `price` of one, the cost.
fn whole_run(plan: &Plan, price: Option<f64>) -> Option<String> {
    let (seconds, hours) = (plan.seconds()?, plan.chip_hours()?);
    let rounded = |hours: f64| thousands(hours.round() as u64);
    let what = if plan.is_complete() { "whole run" } else { "planned phases" };
    let mut text = format!("{what}: {:.2} minutes, {} chip-hours", seconds / 60.0, rounded(hours));
    if let Some(price) = price {
        text += &format!(", {} at {price} per chip-hour", money(hours * price));
    }
    text += ", without evaluation, checkpoints and start-up";
    if let Some(minutes) = plan.paper_minutes().filter(|_| plan.is_complete()) {
        let hours = PAPER_CHIPS as f64 * minutes / 60.0;
        text += &format!(". The paper's run: {minutes} minutes, {} chip-hours of TPU v3", rounded(hours));
    }
    Some(text)
}

/// Formats an amount of money in the currency of the price: `1,234.50`.
fn money(amount: f64) -> String {
    let cents = (100.0 * amount).round() as u64;
    format!("{}.{:02}", thousands(cents / 100), cents % 100)
}

fn chips_for(plan: &Plan, target_seconds: f64) -> String {
    let target_time = duration(as_duration(target_seconds));
    let Some((target, seconds)) = plan.target_for(target_seconds) else {
        let why =
            if plan.target.accelerator.is_none() { "the rates of a CPU are unknown" } else { "not every phase fits" };
        return format!("target time {target_time}: no estimate, because {why}");
    };
    let (chips, takes) = (counted(target.chips() as u64, "chip"), duration(as_duration(seconds)));
    match seconds <= target_seconds {
        true => format!("target time {target_time}: {takes} with {chips} ({target})"),
        false => format!(
            "target time {target_time}: not reachable with these chips; the largest offered number that divides the batches, \
             {chips} ({target}), takes {takes}"
        ),
    }
}

/// Formats the values of the table as one JSON object, in bytes, seconds and operations.
pub fn to_json(plan: &Plan, target_time: Option<f64>, price: Option<f64>) -> Value {
    let accelerator = plan.target.accelerator;
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
        "rows_per_sequence_source": match plan.rows_per_sequence {
            RowsPerSequence::Surveyed(_) => "prepared data",
            RowsPerSequence::Stated(_) => "--rows-per-sequence",
            RowsPerSequence::Unknown => "upper bound",
        },
        "assumed_efficiency": {
            "compute": plan.efficiency.compute,
            "memory": plan.efficiency.memory,
            "network": plan.efficiency.network,
        },
        "peak_rates_per_chip": accelerator.map(|chip| json!({
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
        "chip_hours": plan.chip_hours(),
        "price_per_chip_hour": price,
        "price": price.and_then(|price| Some(price * plan.chip_hours()?)),
        "paper_seconds": plan.paper_minutes().map(|minutes| minutes * 60.0),
        "target_time": wanted,
        "saved": plan.saved,
    })
}

fn collective_bytes(collectives: &Collectives) -> Value {
    json!({
        "all_reduce": collectives.all_reduce,
        "reduce_scatter": collectives.reduce_scatter,
        "all_gather": collectives.all_gather,
        "all_to_all": collectives.all_to_all,
    })
}

fn phase_json(plan: &Plan, phase: &PhasePlan) -> Value {
    let attempts = phase.attempts.iter().map(|attempt| {
        let reason = match &attempt.verdict {
            Verdict::Fits => None,
            Verdict::TooLarge(reason) | Verdict::Failed(reason) => Some(reason),
        };
        json!({
            "micro_batch_size": attempt.micro_batch_size,
            "seconds": attempt.took.as_secs_f64(),
            "verdict": verdict_name(&attempt.verdict),
            "reason": reason,
            "peak_bytes": attempt.peak_memory,
            "sequences_per_second_at_most": attempt.sequences_per_second,
        })
    });
    let fit = phase.fit.as_ref().map(|fit| {
        let memory = &fit.memory;
        json!({
            "micro_batch_size": fit.micro_batch_size,
            "accumulation_steps": fit.accumulation_steps,
            "sequences_per_row": fit.sequences_per_row,
            "rows_per_sequence": if fit.sequences_per_row > 1 { plan.rows_per_sequence.of(phase.index) } else { 1.0 },
            "rows_computed_per_device": fit.rows_computed,
            "flops_per_step": fit.demand.flops,
            "argument_bytes": memory.argument,
            "output_bytes": memory.output,
            "alias_bytes": memory.alias,
            "temporary_bytes": memory.temp,
            "code_bytes": memory.generated_code,
            "peak_bytes": memory.peak_estimate(),
            "compiler_flops_per_device": fit.compiler_flops,
            "bytes_accessed_per_device": fit.demand.bytes,
            "collectives": fit.compiled_collectives,
            "collective_bytes": collective_bytes(&fit.demand.collectives),
            "collective_bytes_source": collectives_source(plan),
            "sent_bytes_per_device": fit.demand.collectives.sent_in_ring(plan.target.devices()),
            "graph_collective_bytes": collective_bytes(&fit.graph_collectives),
            "graph_sent_bytes_per_device": fit.graph_collectives.sent_in_ring(plan.target.devices()),
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
        "rows_per_device": phase.rows,
        "steps": phase.shape.steps,
        "attempts": attempts.collect::<Vec<_>>(),
        "fit": fit,
        "profile": phase.profile.as_ref().map(profile::to_json),
        "seconds": phase.seconds(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collectives_are_listed_by_kind_with_executions_and_bytes() {
        let collective = |kind, bytes, asynchronous, executions| Collective {
            kind,
            bytes,
            group_size: None,
            asynchronous,
            executions,
        };
        let found = [
            collective(CollectiveKind::AllGather, 1e9, true, 1.0),
            collective(CollectiveKind::AllReduce, 16.0, false, 4.0),
            collective(CollectiveKind::AllReduce, 936.0, false, 1.0),
        ];
        assert_eq!(collectives_text(&found), "5 all-reduce, 1.0 kB\n1 asynchronous all-gather, 1.00 GB");
        assert_eq!(collectives_text(&[]), "none");
    }

    #[test]
    fn money_has_cents() {
        assert_eq!([0.0, 0.999, 1234.5].map(money), ["0.00", "1.00", "1,234.50"]);
    }
}
