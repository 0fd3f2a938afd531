//! The text that `lambert pretrain` prints about a run: its settings, compilation times and data coverage before training, and the
//! reason of an early end.

use crate::bert::param_specs;
use crate::data::{ExampleMode, MaskShares, Masking};
use crate::output::table;
use crate::run::initial_state::InitialState;
use crate::run::{EmaSettings, Run, SHOWN_PHASES};
use crate::runtime::compilation_cache::Origin;
use crate::runtime::compile::CompileTimes;
use crate::runtime::devices::Devices;
use crate::schedule::Phase;
use crate::train::divergence::DIVERGED;
use crate::train::interrupt::{INTERRUPTED, TIME_LIMIT};
use crate::train::trainer::{Coverage, Outcome};
use crate::units::{counted, duration, thousands};

/// Formats compilation times: `compile: build 0.0 s, lower 0.0 s, XLA 3.2 s`, or `loaded from the cache: build 0.0 s, lower
/// 0.0 s, load 0.4 s`.
pub fn compile_times(times: &CompileTimes) -> String {
    let (how, last) = match times.origin {
        Origin::Compiler => ("compile", "XLA"),
        Origin::Cache => ("loaded from the cache", "load"),
        Origin::SavedSteps => ("loaded from saved steps", "load"),
    };
    let (build, lower) = (duration(times.build), duration(times.lower));
    format!("{how}: build {build}, lower {lower}, {last} {}", duration(times.compile))
}

/// Returns the exit code of a run that ended before its steps were done, and how to resume it with `command`.
pub fn early_end(outcome: Outcome, command: &str) -> Option<(u8, String)> {
    let (code, end) = match outcome {
        Outcome::Finished | Outcome::StoppedEarly => return None,
        Outcome::Interrupted => (INTERRUPTED, "interrupted; everything is saved"),
        Outcome::TimeLimit => (TIME_LIMIT, "the time limit is reached; everything is saved"),
        Outcome::Diverged => {
            let next = "training has diverged; change the settings, then resume from the last good checkpoint";
            return Some((DIVERGED, format!("{next}:\n  {command} --accept-changes")));
        }
    };
    Some((code, format!("{end}. To resume:\n  {command}")))
}

/// Returns the command that continues a run that has ended by itself; `command` resumes it.
pub fn extension(outcome: Outcome, run: &Run, command: &str) -> Option<String> {
    let phases = run.schedule.phases();
    let (number, steps) = (phases.len(), phases.last()?.steps);
    match outcome {
        Outcome::Finished => Some(format!(
            "To extend the run, raise the steps of phase {number} (now {}) or add a [[phase]] to the run file, and resume with the \
             change:\n  {command} --accept-changes --set phase.{number}.steps={}",
            thousands(steps),
            2 * steps
        )),
        Outcome::StoppedEarly => Some(format!(
            "To continue training, raise patience:\n  {command} --set evaluate.patience={}",
            2 * run.evaluate.patience
        )),
        Outcome::Interrupted | Outcome::TimeLimit | Outcome::Diverged => None,
    }
}

/// Formats how often a phase visits the examples: `4,096 sequences, 4.10 epochs of 1,000 examples, each visited 4 or 5
/// times; packed: up to 8 sequences per row, 0.513 rows per sequence`.
pub fn coverage(coverage: &Coverage) -> String {
    let sequences = counted(coverage.sequences, "sequence");
    let per_epoch = counted(coverage.sequences_per_epoch, "example");
    let visits = match coverage.epochs {
        epochs if epochs < 1.0 => "at most once".to_owned(),
        epochs if epochs.fract() == 0.0 => counted(epochs as u64, "time"),
        epochs => format!("{} or {} times", epochs.floor(), epochs.ceil()),
    };
    let packing = match coverage.sequences_per_row {
        1 => String::new(),
        most => {
            format!("; packed: up to {most} sequences per row, {:.3} rows per sequence", coverage.rows_per_sequence)
        }
    };
    format!("{sequences}, {:.2} epochs of {per_epoch}, each visited {visits}{packing}", coverage.epochs)
}

/// Formats every setting of `run`, line by line.
pub fn settings(run: &Run, devices: &Devices, initial_state: &InitialState) -> String {
    let mut lines = vec![format!("{} on {}", run.name, devices.describe()), model(run), data(run)];
    if let Some(sharding) = run.parallel.describe(&param_specs(&run.model), run.state_kinds(), devices.len()) {
        lines.push(format!("devices: {sharding}"));
    }
    lines.push(weights(initial_state, run.seed));
    lines.push("optimizer:".to_owned());
    let mut knobs = table::plain();
    run.optimizer.describe().into_iter().for_each(|(name, value)| {
        knobs.add_row([name.to_owned(), value]);
    });
    lines.push(knobs.to_string());
    lines.extend(
        run.ema.map(|EmaSettings { decay }| format!("ema: decay {decay}, at step n at most (1 + n) / (10 + n)")),
    );
    lines.push(String::new());
    lines.extend(run.arithmetic_table());
    let phases = run.schedule.phases();
    for shape in phases.iter().take(SHOWN_PHASES) {
        lines.push(phase(shape));
        lines.extend(shape.choices().into_iter().map(|choice| format!("  {choice}")));
    }
    if let Some(more @ 1..) = phases.len().checked_sub(SHOWN_PHASES) {
        lines.push(format!("and {more} more phases"));
    }
    lines.join("\n") + "\n"
}

/// Formats the weights that a run starts from.
pub fn weights(initial_state: &InitialState, seed: u64) -> String {
    match initial_state {
        InitialState::Random => format!("weights: random initialisation (seed {seed})"),
        InitialState::Imported(found) => format!("weights: imported from {}", found.path.display()),
        InitialState::Resumed { checkpoint, path } => {
            format!("weights: resumed from {} (step {})", path.display(), thousands(checkpoint.state.step))
        }
    }
}

fn model(run: &Run) -> String {
    let model = &run.model;
    format!(
        "model: {}, hidden size {}, {}, vocabulary size {}, dropout {} (hidden) and {} (attention), \
         precision {}",
        counted(model.num_hidden_layers as u64, "layer"),
        model.hidden_size,
        counted(model.num_attention_heads as u64, "attention head"),
        thousands(model.vocab_size as u64),
        model.hidden_dropout_prob,
        model.attention_probs_dropout_prob,
        run.precision.compute(),
    )
}

fn data(run: &Run) -> String {
    let examples = match run.data.mode {
        ExampleMode::NextSentence => "next sentence pairs",
        ExampleMode::SentenceOrder => "sentence order pairs",
        ExampleMode::FullSentences => "full sentences across documents",
        ExampleMode::DocSentences => "full sentences of one document",
    };
    let unit = match (run.data.span_mask, run.data.whole_word_mask) {
        (Some(spans), _) => format!(" in spans of up to {}", counted(spans.span_upper as u64, "word")),
        (None, true) => " by whole words".to_owned(),
        (None, false) => String::new(),
    };
    let masking = match run.data.masking {
        Masking::Dynamic => "new masks in every epoch".to_owned(),
        Masking::Static { duplicates } => format!("{}, repeated", counted(duplicates as u64, "mask set")),
    };
    let masked = 100.0 * run.data.masked_lm_prob;
    let shares = match run.data.mask_shares {
        MaskShares::BERT => String::new(),
        MaskShares { masked, random, kept } => {
            let [masked, random, kept] = [masked, random, kept].map(|share| 100.0 * share);
            format!(" ({masked:.0} % become [MASK], {random:.0} % random, {kept:.0} % kept)")
        }
    };
    format!("data: {}: {examples}, {masked:.0} % of tokens masked{unit}{shares}, {masking}", run.data.path)
}

fn phase(phase: &Phase) -> String {
    let masked = phase.masked_lm_prob.map_or(String::new(), |masked| format!("; {masked} of tokens masked"));
    format!(
        "phase {}: learning rate: {}; micro-batch size {}{masked}{}{}",
        phase.name,
        phase.describe_learning_rate(),
        phase.micro_batch_size,
        if phase.carry_moments { "" } else { "; moments reset to zero" },
        if phase.carry_step { "" } else { "; bias correction restarts at step 1" },
    )
}
