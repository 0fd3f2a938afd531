//! Plans a run for absent hardware: compiles the real step of every phase for the target, which shows whether the step fits,
//! and estimates the time from the compiler's statistics and from the rates that vendors publish.
//!
//! A plan keeps measured, counted and estimated values apart. *Measured*: whether the step compiles, and its memory by kind
//! (the compiler's own statistics). *Counted*: the bytes that replicas communicate (in the compiled program and in the graph,
//! [`traffic`]) and the model's floating-point operations. *Estimated*: the time, as the slowest of compute, memory and
//! network at assumed shares of published rates ([`roofline`]). The number of rows that packed sequences take is surveyed in
//! the prepared data, stated by the user, or unknown ([`packing`]); if it is unknown, every sequence counts as one row.
//!
//! [`plan`] compiles one phase after the other ([`phase`]), searching for a micro-batch size ([`search`]) with a [`compiler`]
//! for the [`target`]; [`profile`] costs the kernels of the compiled program, and [`dump`] writes it; [`scaling`] carries the
//! result over to other numbers of the same chips.

pub mod compiler;
pub mod cost;
pub mod dump;
pub mod hardware;
pub mod packing;
pub mod phase;
pub mod profile;
pub mod roofline;
pub mod saved;
pub mod scaling;
pub mod search;
pub mod target;
pub mod traffic;

use std::path::PathBuf;
use std::time::Duration;

use self::compiler::{Compiler, Purpose};
use self::dump::Dump;
use self::packing::RowsPerSequence;
use self::phase::{Candidate, PhasePlanner};
use self::profile::collectives::Collective;
use self::profile::rates::Rates;
use self::profile::{Context, Profile};
use self::roofline::{Demand, Efficiency, Times};
use self::saved::{Manifest, Saver};
use self::search::{MicroBatchChoice, rows_per_device};
use self::target::Target;
use self::traffic::Collectives;
use crate::bert::flops::training_flops;
use crate::pjrt::{CompiledMemoryStats, PlatformChoice};
use crate::run::Run;
use crate::schedule::Phase;

/// The chips on which the paper's largest runs were timed: TPU v3 (arXiv 1904.00962, table 1).
pub const PAPER_CHIPS: usize = 1024;

/// Sequence length, global batch and steps of a phase.
type PhaseShape = (usize, usize, u64);

/// The paper's largest runs of BERT-Large: the minutes, and both phases.
const PAPER_RUNS: [(f64, [PhaseShape; 2]); 2] =
    [(76.19, [(128, 65_536, 7_037), (512, 32_768, 1_562)]), (101.2, [(128, 32_768, 14_063), (512, 32_768, 1_562)])];

/// The settings of a plan.
#[derive(Clone, Debug)]
pub struct PlanOptions {
    /// The hardware to plan for.
    pub target: Target,
    /// The plugin that compiles.
    pub platform: PlatformChoice,
    /// The rule that chooses the micro-batch size of each phase.
    pub micro_batch_size: MicroBatchChoice,
    /// Indices of the phases to compile, from 0.
    pub phases: Vec<usize>,
    /// The rows that packed sequences take.
    pub rows_per_sequence: RowsPerSequence,
    /// The assumed shares of the published rates.
    pub efficiency: Efficiency,
    /// The directory for the compiled steps, if they are to be saved.
    pub save: Option<PathBuf>,
    /// Whether to profile the compiled steps.
    pub profile: bool,
    /// The directory for the optimized programs, if they are to be written.
    pub dump: Option<PathBuf>,
}

/// A run planned for absent hardware.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The planned run.
    pub run: Run,
    /// The hardware that the run is planned for.
    pub target: Target,
    /// The version string of the plugin.
    pub platform_version: String,
    /// The assumed shares of the published rates.
    pub efficiency: Efficiency,
    /// The rows that packed sequences take.
    pub rows_per_sequence: RowsPerSequence,
    /// Bytes that a program may use on one device, if known.
    pub memory_limit: Option<f64>,
    /// The planned phases, in order.
    pub phases: Vec<PhasePlan>,
    /// The manifest of the saved steps, if they were to be saved and all phases fit.
    pub saved: Option<Manifest>,
}

/// One phase of a plan.
#[derive(Clone, Debug)]
pub struct PhasePlan {
    /// The index of the phase, from 0.
    pub index: usize,
    /// The phase of the run.
    pub shape: Phase,
    /// Rows of one device in a step: its share of the global batch, at one sequence per row.
    pub rows: usize,
    /// Every compilation, in order.
    pub attempts: Vec<Attempt>,
    /// The compiled step with the chosen micro-batch size; none if no step compiled and fitted.
    pub fit: Option<Fit>,
    /// The profile of that step, if it was asked for.
    pub profile: Option<Profile>,
}

/// One compilation of a step.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// The compiled micro-batch size.
    pub micro_batch_size: usize,
    /// The compile time.
    pub took: Duration,
    /// The result.
    pub verdict: Verdict,
    /// Peak bytes of one device by the compiler's statistics, if the step compiled.
    pub peak_memory: Option<f64>,
    /// The predicted sequences/s of all devices at the published peak rates, an upper bound to compare sizes with; none if the
    /// step does not fit, or the rates are unknown.
    pub sequences_per_second: Option<f64>,
}

/// The result of one compilation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The step compiles and fits into a device's memory.
    Fits,
    /// The step needs more memory than a device has, with the reason.
    TooLarge(String),
    /// The compiler failed, with the first line of its error.
    Failed(String),
}

/// A compiled step that fits into a device's memory.
#[derive(Clone, Debug)]
pub struct Fit {
    /// Rows per device and micro-batch.
    pub micro_batch_size: usize,
    /// Micro-batches per step on each device.
    pub accumulation_steps: usize,
    /// Maximum number of sequences in a row.
    pub sequences_per_row: usize,
    /// Rows that one device computes in a step. Micro-batches that packing leaves empty are skipped.
    pub rows_computed: usize,
    /// The compiler's memory statistics of one device.
    pub memory: CompiledMemoryStats,
    /// Floating-point operations of a step on one device by the compiler's own count, if the plugin reports it.
    pub compiler_flops: Option<f64>,
    /// The collectives of the compiled program; none if the plugin does not return it.
    pub compiled_collectives: Option<Vec<Collective>>,
    /// The collectives of the graph, which the compiler may replace.
    pub graph_collectives: Collectives,
    /// The work of one step: operations of every computed row by the model's formula
    /// ([`training_flops`] and
    /// [`recomputed_flops`](crate::bert::flops::recomputed_flops)), bytes by the compiler's count, communication of the compiled
    /// program, or of the graph if that is not known.
    pub demand: Demand,
    /// Estimated times, if the target's rates are known.
    pub times: Option<Times>,
}

/// An event of a plan in progress.
#[derive(Clone, Debug)]
pub enum Progress<'a> {
    /// A compilation starts.
    Compiling {
        /// The name of the phase.
        phase: &'a str,
        /// The micro-batch size to compile.
        micro_batch_size: usize,
    },
    /// A compilation has ended.
    Compiled(&'a Attempt),
}

/// Compiles `run` for the target and estimates its time. Calls `progress` before and after every compilation.
///
/// A step that does not fit is a result, not an error.
///
/// # Errors
/// If a global batch does not divide among the devices, no plugin compiles for the target, the steps cannot be saved, or their
/// programs cannot be profiled or written.
pub fn plan(run: &Run, options: &PlanOptions, progress: &mut dyn FnMut(Progress)) -> anyhow::Result<Plan> {
    let PlanOptions { target, efficiency, rows_per_sequence, .. } = options;
    let run = &run.on_platform(target.platform().name());
    let devices = target.devices();
    for &phase in &options.phases {
        let shape = &run.schedule.phases()[phase];
        let micro_batch_size = if let MicroBatchChoice::Size(n) = options.micro_batch_size { n } else { 1 };
        rows_per_device(&shape.name, shape.global_batch, devices, micro_batch_size)?;
    }
    // Before minutes of compilation.
    let dump_name = |phase: &usize| format!("phase-{}", phase + 1);
    let names: Vec<String> = options.phases.iter().map(dump_name).collect();
    let dump = options.dump.as_deref().map(|directory| Dump::begin(directory, &names)).transpose()?;
    let purpose = if options.save.is_some() { Purpose::Run } else { Purpose::Inspect };
    let compiler = Compiler::open(target, &options.platform, purpose)?;
    let mut saver = match &options.save {
        Some(directory) => Some(Saver::begin(directory, target, &compiler.plugin)?),
        None => None,
    };
    let mut phases = Vec::new();
    for &phase in &options.phases {
        let mut planner = PhasePlanner {
            run,
            phase,
            target,
            compiler: &compiler,
            efficiency,
            rows_per_sequence: rows_per_sequence.of(phase),
            attempts: Vec::new(),
            progress,
        };
        let found = planner.choose(options.micro_batch_size)?;
        let attempts = planner.attempts;
        let mut profile = None;
        let fit = match found {
            Some(Candidate { program, compiled, fit, .. }) => {
                if options.profile || dump.is_some() {
                    let optimized = compiled.optimized_program()?;
                    dump.iter().try_for_each(|dump| dump.write(&dump_name(&phase), &optimized))?;
                    let context = context(run, phase, target, &fit);
                    profile = options.profile.then(|| Profile::of(&optimized, &context)).transpose()?;
                }
                if let Some(saver) = &mut saver {
                    saver.add(phase, fit.micro_batch_size, &program, &compiled)?;
                }
                Some(fit)
            }
            None => None,
        };
        let shape = &run.schedule.phases()[phase];
        phases.push(PhasePlan {
            index: phase,
            shape: shape.clone(),
            rows: shape.global_batch / devices,
            attempts,
            fit,
            profile,
        });
    }
    let complete = phases.iter().all(|phase| phase.fit.is_some());
    let saved = match saver {
        Some(saver) if complete => Some(saver.finish()?),
        _ => None,
    };
    Ok(Plan {
        run: run.clone(),
        target: target.clone(),
        platform_version: compiler.platform_version,
        efficiency: *efficiency,
        rows_per_sequence: rows_per_sequence.clone(),
        memory_limit: target.memory_limit(),
        phases,
        saved,
    })
}

/// Returns the facts about a compiled step that its profile needs.
fn context(run: &Run, phase: usize, target: &Target, fit: &Fit) -> Context {
    let shape = &run.schedule.phases()[phase];
    let of_row = training_flops(&run.model, shape.sequence_length, shape.max_predictions_per_seq);
    Context {
        platform: target.platform(),
        rates: Rates::of(target),
        sequence_length: shape.sequence_length,
        layers: run.model.num_hidden_layers,
        micro_batches: (fit.rows_computed / fit.micro_batch_size) as f64,
        model_flops: fit.rows_computed as f64 * of_row,
    }
}

impl Plan {
    /// Returns whether all phases of the run are planned.
    pub fn is_complete(&self) -> bool {
        self.phases.len() == self.run.schedule.phases().len()
    }

    /// Returns the chip-hours of all planned phases, if each has an estimate.
    pub fn chip_hours(&self) -> Option<f64> {
        Some(self.target.chips() as f64 * self.seconds()? / 3600.0)
    }

    /// Returns the minutes that the paper's run took on [`PAPER_CHIPS`] chips, if this is one of its runs: BERT-Large with the
    /// same phases.
    pub fn paper_minutes(&self) -> Option<f64> {
        let phases = self.run.schedule.phases().iter();
        let phases: Vec<_> = phases.map(|phase| (phase.sequence_length, phase.global_batch, phase.steps)).collect();
        let is_large = (self.run.model.num_hidden_layers, self.run.model.hidden_size) == (24, 1024);
        let run = PAPER_RUNS.iter().find(|(_, of_paper)| is_large && phases == of_paper);
        run.map(|&(minutes, _)| minutes)
    }

    /// Returns the seconds of all planned phases, if each has an estimate. Evaluation, checkpoints and compilation are not
    /// included.
    pub fn seconds(&self) -> Option<f64> {
        self.phases.iter().map(PhasePlan::seconds).sum()
    }
}

impl PhasePlan {
    /// Returns the seconds of all steps of the phase.
    pub fn seconds(&self) -> Option<f64> {
        Some(self.shape.full_steps() * self.fit.as_ref()?.times?.step())
    }
}
