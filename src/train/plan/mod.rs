//! Planning a run for hardware that is not here: the real step of every phase is compiled for it, which answers whether it
//! fits; and from what the compiler says, and from rates that vendors state, follows how long it would take.
//!
//! What is known and what is guessed are kept apart. *Known*: that it compiles, its bytes by kind (the compiler's own
//! statistics), what replicas exchange (read off the graph). *Counted*: the model's floating-point operations. *Guessed*:
//! the time, as the slowest of arithmetic, memory and network at stated shares of stated rates (`roofline.rs`).

pub mod micro_batch;
pub mod roofline;
pub mod saved;
pub mod target;
pub mod traffic;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;

use self::micro_batch::{Choice, divisors, expected_bytes, largest, rows};
use self::roofline::{Demand, Efficiency, Times};
use self::saved::{Manifest, Saver};
use self::target::{Compiled, Compiler, Target};
use self::traffic::Collectives;
use super::flops::training_flops;
use super::run::Run;
use super::step::{StepSpec, TrainStep};
use super::trainer::step_spec;
use crate::bert::{Recompute, param_specs};
use crate::hlo::HloModule;
use crate::pjrt::{CUDA_MEMORY_FRACTION, CompiledMemoryStats, ErrorCode, PjrtError, Platform, PlatformChoice};
use crate::schedule::Schedule;

/// Minutes that the paper's mixed 64k/32k run took on 1,024 TPU v3 chips (arXiv 1904.00962, table 1).
pub const PAPER_MINUTES: f64 = 76.19;

/// What to plan, and how.
#[derive(Clone, Debug)]
pub struct PlanOptions {
    pub target: Target,
    pub platform: PlatformChoice,
    pub micro_batch: Choice,
    /// Phases to compile, from 0.
    pub phases: Vec<usize>,
    pub efficiency: Efficiency,
    /// Where the compiled steps go, if they are to be kept.
    pub save: Option<PathBuf>,
}

/// A run on hardware that is not here.
#[derive(Clone, Debug)]
pub struct Plan {
    pub run: String,
    pub recompute: Recompute,
    pub target: Target,
    /// The plugin's own words on what it is, or is for.
    pub platform_version: String,
    pub efficiency: Efficiency,
    /// Bytes that a program may take on one device, where that is known.
    pub memory_limit: Option<f64>,
    pub phases: Vec<PhasePlan>,
    pub saved: Option<Manifest>,
}

/// One phase of it.
#[derive(Clone, Debug)]
pub struct PhasePlan {
    /// From 0.
    pub index: usize,
    pub name: String,
    pub sequence_length: usize,
    pub global_batch: usize,
    pub steps: u64,
    /// Sequences of one device in a step.
    pub rows: usize,
    /// Floating-point operations of a step over all devices, by [`training_flops`].
    pub flops: f64,
    /// Every micro-batch that was compiled, in the order tried.
    pub attempts: Vec<Attempt>,
    /// The micro-batch to train with, and what its program needs; none if none can be compiled.
    pub fits: Option<Fit>,
}

/// One compilation.
#[derive(Clone, Debug)]
pub struct Attempt {
    pub micro_batch: usize,
    pub took: Duration,
    pub verdict: Verdict,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Fits,
    /// The reason, in the compiler's words or ours.
    TooLarge(String),
    Refused(String),
}

/// A program that fits.
#[derive(Clone, Debug)]
pub struct Fit {
    pub micro_batch: usize,
    pub micro_batches: usize,
    pub memory: CompiledMemoryStats,
    /// Floating-point operations of a step on one device as the compiler counts its own program, if it says.
    pub compiler_flops: Option<f64>,
    /// Bytes that a step moves on one device, from the compiler's count, if it says.
    pub bytes: Option<f64>,
    /// What of that the update moves, whatever the batch is.
    pub update_bytes: f64,
    pub collectives: Collectives,
    /// Estimates, where rates are stated.
    pub times: Option<Times>,
}

/// Compiles and estimates. `progress` is told before and after every compilation.
///
/// # Errors
/// If the batch does not divide, or no plugin compiles for the target. That a step does not fit is an answer, no error.
pub fn plan(run: &Run, options: &PlanOptions, progress: &mut dyn FnMut(Progress)) -> anyhow::Result<Plan> {
    let PlanOptions { target, efficiency, .. } = options;
    let devices = target.devices();
    for &phase in &options.phases {
        let shape = &run.schedule.phases()[phase];
        let micro_batch = if let Choice::Rows(n) = options.micro_batch { n } else { 1 };
        rows(&shape.name, shape.global_batch, devices, micro_batch)?;
    }
    let compiler = Compiler::open(target, &options.platform)?;
    let mut saver = match &options.save {
        Some(directory) => Some(Saver::begin(directory, target, &compiler.plugin)?),
        None => None,
    };
    let mut phases = Vec::new();
    for &phase in &options.phases {
        let mut planner =
            PhasePlanner { run, phase, target, compiler: &compiler, efficiency, attempts: Vec::new(), progress };
        let found = planner.choose(options.micro_batch)?;
        let attempts = planner.attempts;
        let fits = match found {
            Some(Stepped { program, compiled, fit }) => {
                if let Some(saver) = &mut saver {
                    saver.add(phase, fit.micro_batch, &program, &compiled)?;
                }
                Some(fit)
            }
            None => None,
        };
        let shape = &run.schedule.phases()[phase];
        phases.push(PhasePlan {
            index: phase,
            name: shape.name.clone(),
            sequence_length: shape.sequence_length,
            global_batch: shape.global_batch,
            steps: shape.steps,
            rows: shape.global_batch / devices,
            flops: step_flops(run, phase),
            attempts,
            fits,
        });
    }
    let complete = phases.iter().all(|phase| phase.fits.is_some());
    let saved = match saver {
        Some(saver) if complete => Some(saver.finish()?),
        _ => None,
    };
    Ok(Plan {
        run: run.name.clone(),
        recompute: run.recompute,
        target: target.clone(),
        platform_version: compiler.platform_version,
        efficiency: *efficiency,
        memory_limit: memory_limit(target),
        phases,
        saved,
    })
}

/// What the planning is at.
#[derive(Clone, Debug)]
pub enum Progress<'a> {
    Compiling { phase: &'a str, micro_batch: usize },
    Compiled(&'a Attempt),
}

/// Floating-point operations of one step of `phase` over all devices.
fn step_flops(run: &Run, phase: usize) -> f64 {
    let shape = &run.schedule.phases()[phase];
    shape.global_batch as f64 * training_flops(&run.model, shape.sequence_length, shape.predictions)
}

/// Bytes for programs on one device. A TPU's compiler knows its own limit and refuses what goes beyond; on a GPU it is what
/// the runtime takes of the card.
fn memory_limit(target: &Target) -> Option<f64> {
    let chip = target.chip?;
    let share = if chip.platform == Platform::Cuda { f64::from(CUDA_MEMORY_FRACTION) } else { 1.0 };
    Some(chip.memory as f64 / chip.devices as f64 * share)
}

/// `run` with another micro-batch in `phase`.
fn with_micro_batch(run: &Run, phase: usize, micro_batch: usize) -> anyhow::Result<Run> {
    let mut phases = run.schedule.phases().to_vec();
    // The schedule demands it of the global batch; whether devices divide it too was checked before.
    phases[phase].micro_batch = micro_batch;
    Ok(Run { schedule: Schedule::new(phases)?, ..run.clone() })
}

struct PhasePlanner<'a> {
    run: &'a Run,
    phase: usize,
    target: &'a Target,
    compiler: &'a Compiler,
    efficiency: &'a Efficiency,
    attempts: Vec<Attempt>,
    progress: &'a mut dyn FnMut(Progress),
}

/// A step that was compiled and fits.
struct Stepped {
    program: HloModule,
    compiled: Compiled,
    fit: Fit,
}

impl PhasePlanner<'_> {
    fn choose(&mut self, choice: Choice) -> anyhow::Result<Option<Stepped>> {
        let all = divisors(self.run.schedule.phases()[self.phase].global_batch / self.target.devices());
        let found = match choice {
            Choice::Rows(micro_batch) => self.attempt(micro_batch)?,
            Choice::Auto => {
                let powers: Vec<usize> = all.into_iter().filter(|n| n.is_power_of_two()).collect();
                let first = self.expected(&powers)?;
                let mut smaller = powers.into_iter().filter(|&n| n <= first).rev();
                smaller.find_map(|n| self.attempt(n).transpose()).transpose()?
            }
            Choice::Largest => {
                let first = self.expected(&all)?;
                largest(&all, first, |n| self.attempt(n))?.map(|(_, stepped)| stepped)
            }
        };
        Ok(found)
    }

    /// The largest of `candidates` (ascending, from 1) that is expected to fit; the largest if nothing limits it.
    fn expected(&self, candidates: &[usize]) -> anyhow::Result<usize> {
        let spec = self.spec(1)?;
        let parameters = parameters(&spec);
        let limit = memory_limit(self.target).unwrap_or(f64::INFINITY);
        let fits = |n: &&usize| expected_bytes(&spec, parameters, **n) <= limit;
        Ok(candidates.iter().take_while(fits).last().copied().unwrap_or(1))
    }

    fn spec(&self, micro_batch: usize) -> anyhow::Result<StepSpec> {
        step_spec(&with_micro_batch(self.run, self.phase, micro_batch)?, self.phase, self.target.devices())
    }

    /// Compiles the step cut into micro-batches of `micro_batch`; none if it does not fit or is refused.
    fn attempt(&mut self, micro_batch: usize) -> anyhow::Result<Option<Stepped>> {
        let name = &self.run.schedule.phases()[self.phase].name;
        (self.progress)(Progress::Compiling { phase: name, micro_batch });
        let spec = self.spec(micro_batch)?;
        let step = TrainStep::build(&spec)?.program;
        let program = step.lower();
        let begin = Instant::now();
        let compiled = self.compiler.compile(&program.bytes);
        let took = begin.elapsed();
        let collectives = Collectives::of(&step.computation, spec.micro_batches);
        let (verdict, stepped) = match compiled {
            Err(error) => (verdict(&error), None),
            Ok(compiled) => {
                let memory = compiled.memory_stats().context("the plugin does not tell what a program needs")?;
                match memory_limit(self.target).filter(|&limit| memory.peak_estimate() as f64 > limit) {
                    Some(limit) => {
                        let peak = memory.peak_estimate() as f64;
                        let reason = format!("needs {:.2} GB of {:.2} GB", peak / 1e9, limit / 1e9);
                        (Verdict::TooLarge(reason), None)
                    }
                    None => {
                        let fit = self.fit(&spec, memory, &compiled, collectives);
                        (Verdict::Fits, Some(Stepped { program, compiled, fit }))
                    }
                }
            }
        };
        self.attempts.push(Attempt { micro_batch, took, verdict });
        if let Some(last) = self.attempts.last() {
            (self.progress)(Progress::Compiled(last));
        }
        Ok(stepped)
    }

    fn fit(&self, spec: &StepSpec, memory: CompiledMemoryStats, compiled: &Compiled, collectives: Collectives) -> Fit {
        let costs = compiled.cost_analysis().unwrap_or_default();
        let cost = |name: &str| costs.get(name).and_then(|value| value.as_f64()).filter(|&x| x > 0.0);
        let flops = step_flops(self.run, self.phase);
        let of_loop = LoopCost { flops: flops / self.target.devices() as f64, rounds: spec.micro_batches };
        let counted = cost("flops");
        let rounds = counted.map_or(1.0, |counted| of_loop.uncounted_rounds(counted));
        // Outside the loop: the update reads and writes the state and reads its gradients twice, for norms and for moments.
        let parts = spec.shards().map_or(1.0, |shards| shards.count as f64);
        let update = 2.0 * memory.alias as f64 + 8.0 * parameters(spec) as f64 / parts;
        let bytes = cost("bytes accessed").map(|bytes| update + (bytes - update).max(0.0) * rounds);
        let demand = Demand { flops, bytes, collectives };
        let times = self.target.chip.map(|chip| Times::of(&demand, self.target, chip, self.efficiency));
        Fit {
            micro_batch: spec.rows / spec.micro_batches,
            micro_batches: spec.micro_batches,
            memory,
            compiler_flops: counted.map(|counted| counted * rounds),
            bytes,
            update_bytes: update,
            collectives,
            times,
        }
    }
}

/// How a compiler's count relates to a step whose micro-batches are the rounds of a loop. Most count a loop's body once,
/// however often it turns; which of the two a count is shows by comparing it with the model's own operations.
struct LoopCost {
    /// Of the step on one device.
    flops: f64,
    rounds: usize,
}

impl LoopCost {
    /// By what the loop's part of a count must be multiplied.
    fn uncounted_rounds(&self, counted: f64) -> f64 {
        let rounds = self.rounds as f64;
        let distance = |expected: f64| (counted / expected).ln().abs();
        if distance(self.flops / rounds) < distance(self.flops) { rounds } else { 1.0 }
    }
}

/// Numbers that the step learns.
fn parameters(spec: &StepSpec) -> usize {
    param_specs(&spec.model).iter().map(|param| param.dims.iter().product::<usize>()).sum()
}

/// Whether the compiler found no room, or something else wrong.
fn verdict(error: &anyhow::Error) -> Verdict {
    let reason = error.root_cause().to_string();
    let mut lines = reason.lines().map(str::trim).filter(|line| !line.is_empty());
    let first: String = lines.next().unwrap_or_default().chars().take(300).collect();
    match error.downcast_ref::<PjrtError>() {
        Some(PjrtError::Call { code: ErrorCode::ResourceExhausted, .. }) => Verdict::TooLarge(first),
        _ => Verdict::Refused(first),
    }
}

impl Plan {
    /// Seconds of all planned phases, if each has an estimate. Evaluation, checkpoints and compiling are not in it.
    pub fn seconds(&self) -> Option<f64> {
        self.phases.iter().map(PhasePlan::seconds).sum()
    }

    /// The smallest offered target of the same chips on which the planned phases take at most `seconds`, and how long
    /// they take there; without one, the largest that divides the batches.
    ///
    /// Arithmetic and what a micro-batch moves shrink with a device's share of the batch; the update and the exchange do
    /// not.
    pub fn target_for(&self, seconds: f64) -> Option<(Target, f64)> {
        let mut best = None;
        for target in self.target.sizes() {
            let Some(time) = self.seconds_on(&target) else { continue };
            best = Some((target, time));
            if time <= seconds {
                break;
            }
        }
        best
    }

    /// [`Plan::seconds`] on another number of the same chips; none if the batches do not divide among its devices.
    pub fn seconds_on(&self, target: &Target) -> Option<f64> {
        let chip = target.chip?;
        let of_phase = |phase: &PhasePlan| {
            let fit = phase.fits.as_ref()?;
            if !phase.global_batch.is_multiple_of(target.devices()) {
                return None;
            }
            let share = (phase.global_batch / target.devices()) as f64 / phase.rows as f64;
            let bytes = fit.bytes.map(|bytes| {
                let update = fit.update_bytes.min(bytes);
                update + (bytes - update) * share
            });
            let demand = Demand { flops: phase.flops, bytes, collectives: fit.collectives };
            Some(phase.steps as f64 * Times::of(&demand, target, chip, &self.efficiency).step())
        };
        self.phases.iter().map(of_phase).sum()
    }
}

impl PhasePlan {
    /// Seconds of all its steps.
    pub fn seconds(&self) -> Option<f64> {
        Some(self.steps as f64 * self.fits.as_ref()?.times?.step())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_counted_once_is_told_from_one_counted_whole() {
        let step = LoopCost { flops: 8e12, rounds: 8 };
        assert_eq!(step.uncounted_rounds(1.1e12), 8.0);
        assert_eq!(step.uncounted_rounds(8.4e12), 1.0);
        assert_eq!(LoopCost { flops: 8e12, rounds: 1 }.uncounted_rounds(8.4e12), 1.0);
    }

    #[test]
    fn no_room_is_told_from_other_refusals() {
        let error = |code, message: &str| {
            anyhow::Error::from(PjrtError::Call { function: "PJRT_Compile", code, message: message.to_owned() })
        };
        let exhausted =
            verdict(&error(ErrorCode::ResourceExhausted, "Used 20G of 16G hbm.\n\nTotal usage …").context("x"));
        assert_eq!(exhausted, Verdict::TooLarge("PJRT_Compile: Used 20G of 16G hbm.".to_owned()));
        assert!(matches!(verdict(&error(ErrorCode::Internal, "no")), Verdict::Refused(_)));
    }

    /// Two phases on 64 chips of v5p, bound by arithmetic in the first and by the exchange in the second.
    fn plan() -> Plan {
        let target: Target = "tpu:v5p:4x4x4".parse().unwrap();
        let efficiency = Efficiency { compute: 0.5, memory: 1.0, network: 1.0 };
        let phase = |flops: f64, all_reduce: f64, steps| {
            let collectives = Collectives { all_reduce, ..Collectives::default() };
            let demand = Demand { flops, bytes: Some(1e9), collectives };
            let fit = Fit {
                micro_batch: 4,
                micro_batches: 16,
                memory: CompiledMemoryStats::default(),
                compiler_flops: None,
                bytes: Some(1e9),
                update_bytes: 1e8,
                collectives,
                times: Some(Times::of(&demand, &target, target.chip.unwrap(), &efficiency)),
            };
            PhasePlan {
                index: 0,
                name: String::new(),
                sequence_length: 128,
                global_batch: 4096,
                steps,
                rows: 64,
                flops,
                attempts: Vec::new(),
                fits: Some(fit),
            }
        };
        // 459 TFLOP/s · 64 · 0.5 = 14.688 PFLOP a second; 2 · 63/64 of 600 GB over 600 GB/s.
        let phases = vec![phase(14.688e15, 0.0, 100), phase(1.0, 600e9, 10)];
        let (run, platform_version) = (String::new(), String::new());
        Plan {
            run,
            recompute: Recompute::None,
            target,
            platform_version,
            efficiency,
            memory_limit: None,
            phases,
            saved: None,
        }
    }

    #[test]
    fn a_run_is_the_sum_of_its_steps() {
        assert!((plan().seconds().unwrap() - (100.0 + 19.6875)).abs() < 1e-9);
        let mut unfit = plan();
        unfit.phases[1].fits = None;
        assert_eq!(unfit.seconds(), None);
    }

    #[test]
    fn chips_for_a_time_are_the_smallest_slice_that_reaches_it() {
        let plan = plan();
        let (target, seconds) = plan.target_for(200.0).unwrap();
        assert_eq!(target.to_string(), "tpu:v5p:4x4x4");
        assert!((seconds - plan.seconds().unwrap()).abs() < 1e-9);
        // Twice the chips halve the arithmetic, not the exchange: 50 + 10 · 2 · 127/128.
        let (target, seconds) = plan.target_for(75.0).unwrap();
        assert_eq!(target.to_string(), "tpu:v5p:4x4x8");
        assert!((seconds - (50.0 + 19.84375)).abs() < 1e-9);
        // No number of chips brings it below the exchange; the answer is the largest that divides the batch.
        let (target, seconds) = plan.target_for(1.0).unwrap();
        assert!(seconds > 1.0 && target.chips() == 4096, "{target} {seconds}");
    }
}
