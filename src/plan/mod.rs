//! Planning a run for hardware that is not here: the real step of every phase is compiled for it, which answers whether it
//! fits; and from what the compiler says, and from rates that vendors state, follows how long it would take.
//!
//! What is known and what is guessed are kept apart. *Known*: that it compiles, its bytes by kind (the compiler's own
//! statistics), what replicas exchange (read off the graph). *Counted*: the model's floating-point operations. *Guessed*:
//! the time, as the slowest of arithmetic, memory and network at stated shares of stated rates (`roofline.rs`). How many rows
//! packed sequences take is looked up in the data, stated, or not known (`rows.rs`): then all is counted as if none was packed.

pub mod hardware;
pub mod micro_batch;
pub mod roofline;
pub mod rows;
pub mod saved;
pub mod target;
pub mod traffic;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;

use self::micro_batch::{Choice, Tried, divisors, expected_bytes, first, largest, rows};
use self::roofline::{Demand, Efficiency, Times};
use self::rows::{RowsPerSequence, rows_computed};
use self::saved::{Manifest, Saver};
use self::target::{Compiled, Compiler, Target};
use self::traffic::Collectives;
use crate::bert::flops::{recomputed_flops, training_flops};
use crate::bert::{BertConfig, param_specs};
use crate::hlo::HloModule;
use crate::pjrt::{CUDA_MEMORY_FRACTION, CompiledMemoryStats, ErrorCode, PjrtError, Platform, PlatformChoice};
use crate::run::Run;
use crate::schedule::{Phase, Schedule};
use crate::shape::DType;
use crate::step::train_step::{StepSpec, TrainStep};
use crate::units::byte_size;

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
    pub rows_per_sequence: RowsPerSequence,
    pub efficiency: Efficiency,
    /// Where the compiled steps go, if they are to be kept.
    pub save: Option<PathBuf>,
}

/// A run on hardware that is not here.
#[derive(Clone, Debug)]
pub struct Plan {
    pub run: Run,
    pub target: Target,
    /// The plugin's own words on what it is, or is for.
    pub platform_version: String,
    pub efficiency: Efficiency,
    pub rows_per_sequence: RowsPerSequence,
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
    pub shape: Phase,
    /// Rows of one device in a step: room for its share of the sequences, one a row.
    pub rows: usize,
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
    /// Sequences that a row holds at most.
    pub sequences_per_row: usize,
    /// Rows of one device that a step computes: packed sequences leave micro-batches empty, which are left out.
    pub rows_computed: usize,
    pub memory: CompiledMemoryStats,
    /// Floating-point operations of a step on one device as the compiler counts its own program, if it says.
    pub compiler_flops: Option<f64>,
    /// Operations by [`training_flops`] and [`recomputed_flops`], of every row that is computed; bytes from the compiler's
    /// count.
    pub demand: Demand,
    /// Estimates, where rates are stated.
    pub times: Option<Times>,
}

/// Compiles and estimates. `progress` is told before and after every compilation.
///
/// # Errors
/// If the batch does not divide, or no plugin compiles for the target. That a step does not fit is an answer, no error.
pub fn plan(run: &Run, options: &PlanOptions, progress: &mut dyn FnMut(Progress)) -> anyhow::Result<Plan> {
    let PlanOptions { target, efficiency, rows_per_sequence, .. } = options;
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
            shape: shape.clone(),
            rows: shape.global_batch / devices,
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
        run: run.clone(),
        target: target.clone(),
        platform_version: compiler.platform_version,
        efficiency: *efficiency,
        rows_per_sequence: rows_per_sequence.clone(),
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
    phases[phase].micro_batch_size = micro_batch;
    Ok(Run { schedule: Schedule::new(phases)?, ..run.clone() })
}

struct PhasePlanner<'a> {
    run: &'a Run,
    phase: usize,
    target: &'a Target,
    compiler: &'a Compiler,
    efficiency: &'a Efficiency,
    /// Where rows are packed.
    rows_per_sequence: f64,
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
        let run = self.run;
        let shape = &run.schedule.phases()[self.phase];
        let of_device = shape.global_batch / self.target.devices();
        let all = divisors(of_device);
        let found = match choice {
            Choice::Rows(micro_batch) => first([micro_batch], |n| self.attempt(n))?,
            Choice::Auto => {
                let powers: Vec<usize> = all.into_iter().filter(|n| n.is_power_of_two()).collect();
                let expected = self.expected(&powers)?;
                let smaller = powers.into_iter().filter(|&n| n <= expected).rev();
                // Rows that are left out save more than larger products of matrices.
                let leaves_out = |n: &usize| rows_computed(shape, self.rows_per_sequence, of_device, *n) < of_device;
                let (packed, plain): (Vec<usize>, Vec<usize>) = smaller.partition(leaves_out);
                first(packed.into_iter().chain(plain), |n| self.attempt(n))?
            }
            Choice::Largest => {
                let expected = self.expected(&all)?;
                largest(&all, expected, |n| self.attempt(n))?
            }
        };
        Ok(found)
    }

    /// The largest of `candidates` (ascending, from 1) that is expected to fit; the largest if nothing limits it.
    fn expected(&self, candidates: &[usize]) -> anyhow::Result<usize> {
        let spec = self.spec(1)?;
        let task = self.run.task(self.phase, spec.task.examples_per_row());
        let parameters = parameters(&self.run.model);
        let limit = memory_limit(self.target).unwrap_or(f64::INFINITY);
        let fits = |n: &&usize| expected_bytes(&task, &spec, parameters, **n) <= limit;
        Ok(candidates.iter().take_while(fits).last().copied().unwrap_or(1))
    }

    fn spec(&self, micro_batch: usize) -> anyhow::Result<StepSpec> {
        with_micro_batch(self.run, self.phase, micro_batch)?.step_spec(self.phase, self.target.devices())
    }

    /// Compiles the step cut into micro-batches of `micro_batch`.
    fn attempt(&mut self, micro_batch: usize) -> anyhow::Result<Tried<Stepped>> {
        let name = &self.run.schedule.phases()[self.phase].name;
        (self.progress)(Progress::Compiling { phase: name, micro_batch });
        let spec = self.spec(micro_batch)?;
        let step = TrainStep::build(&spec)?.program;
        let program = step.lower();
        let begin = Instant::now();
        let compiled = self.compiler.compile(&program.bytes);
        let took = begin.elapsed();
        let collectives = Collectives::of(&step.computation, spec.accumulation_steps);
        let (verdict, tried) = match compiled {
            Err(error) => match verdict(&error) {
                Verdict::TooLarge(reason) => (Verdict::TooLarge(reason), Tried::TooLarge),
                refused => (refused, Tried::Refused),
            },
            Ok(compiled) => {
                let memory = compiled.memory_stats().context("the plugin does not tell what a program needs")?;
                match memory_limit(self.target).filter(|&limit| memory.peak_estimate() as f64 > limit) {
                    Some(limit) => {
                        let peak = memory.peak_estimate() as f64;
                        let reason = format!("needs {} of {}", byte_size(peak), byte_size(limit));
                        (Verdict::TooLarge(reason), Tried::TooLarge)
                    }
                    None => {
                        let fit = self.fit(&spec, memory, &compiled, collectives);
                        (Verdict::Fits, Tried::Fits(Stepped { program, compiled, fit }))
                    }
                }
            }
        };
        self.attempts.push(Attempt { micro_batch, took, verdict });
        if let Some(last) = self.attempts.last() {
            (self.progress)(Progress::Compiled(last));
        }
        Ok(tried)
    }

    fn fit(&self, spec: &StepSpec, memory: CompiledMemoryStats, compiled: &Compiled, collectives: Collectives) -> Fit {
        let (shape, devices) = (&self.run.schedule.phases()[self.phase], self.target.devices());
        let micro_batch = spec.rows / spec.accumulation_steps;
        let rows_computed = rows_computed(shape, self.rows_per_sequence, spec.rows, micro_batch);
        let (model, length) = (&self.run.model, shape.sequence_length);
        let flops_of_row = training_flops(model, length, shape.max_predictions_per_seq)
            + recomputed_flops(model, length, self.run.recompute);

        let costs = compiled.cost_analysis().unwrap_or_default();
        let cost = |name: &str| costs.get(name).and_then(|value| value.as_f64()).filter(|&x| x > 0.0);
        let of_loop = LoopCost { flops: spec.rows as f64 * flops_of_row, rounds: spec.accumulation_steps };
        let counted = cost("flops");
        let computed = (rows_computed / micro_batch) as f64;
        let rounds_of_one = counted.map_or(1.0, |counted| computed / of_loop.counted_rounds(counted));
        let once = bytes_moved_once(self.run, &collectives, devices);
        let bytes = cost("bytes accessed").map(|bytes| once + (bytes - once).max(0.0) * rounds_of_one);
        let flops = (devices * rows_computed) as f64 * flops_of_row;
        let demand = Demand { flops, precision: spec.precision, bytes, collectives };
        Fit {
            micro_batch,
            micro_batches: spec.accumulation_steps,
            sequences_per_row: spec.task.examples_per_row(),
            rows_computed,
            memory,
            compiler_flops: counted.map(|counted| counted * rounds_of_one),
            demand,
            times: self.target.chip.and_then(|chip| Times::of(&demand, self.target, chip, self.efficiency)),
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
    /// How many rounds are in the count.
    fn counted_rounds(&self, counted: f64) -> f64 {
        let rounds = self.rounds as f64;
        let distance = |expected: f64| (counted / expected).ln().abs();
        if distance(self.flops / rounds) < distance(self.flops) { 1.0 } else { rounds }
    }
}

/// Bytes that a step of `run` moves on each of `devices` once, however large the batch is. The update reads and writes weights
/// and slots, and reads their gradients twice, for norms and for moments; a device that holds a part of them moves that part.
/// Gradients, and weights that are held in parts, are also moved to be exchanged.
fn bytes_moved_once(run: &Run, collectives: &Collectives, devices: usize) -> f64 {
    let in_parts = run.parallel.resolve(&param_specs(&run.model), &run.optimizer, devices).shard_optimizer;
    let numbers = 2 * (1 + run.optimizer.state_names().len()) + 2;
    let update = (numbers * DType::F32.size() * parameters(&run.model)) as f64;
    update / if in_parts { devices as f64 } else { 1.0 } + collectives.moved(devices)
}

/// Numbers that a model learns.
fn parameters(model: &BertConfig) -> usize {
    param_specs(model).iter().map(|param| param.dims.iter().product::<usize>()).sum()
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
    /// Arithmetic and what micro-batches move shrink with a device's share of the batch; the exchange does not, and the update
    /// only if the devices hold the optimizer in parts.
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
            let demand = self.demand_on(phase, target)?;
            Some(phase.shape.steps as f64 * Times::of(&demand, target, chip, &self.efficiency)?.step())
        };
        self.phases.iter().map(of_phase).sum()
    }

    /// What a step of `phase` asks of another number of the same chips, from what it asks of those it was compiled for.
    fn demand_on(&self, phase: &PhasePlan, target: &Target) -> Option<Demand> {
        let PhasePlan { index, shape, fits, .. } = phase;
        let Fit { micro_batch, rows_computed: rows_here, demand, .. } = fits.as_ref()?;
        let (here, there) = (self.target.devices(), target.devices());
        if !shape.global_batch.is_multiple_of(there) {
            return None;
        }
        let rows = rows_computed(shape, self.rows_per_sequence.of(*index), shape.global_batch / there, *micro_batch);
        let share = rows as f64 / *rows_here as f64;
        let once = |devices| bytes_moved_once(&self.run, &demand.collectives, devices);
        Some(Demand {
            flops: demand.flops * share * there as f64 / here as f64,
            bytes: demand.bytes.map(|bytes| once(there) + (bytes - once(here)) * share),
            ..*demand
        })
    }
}

impl PhasePlan {
    /// Seconds of all its steps.
    pub fn seconds(&self) -> Option<f64> {
        Some(self.shape.steps as f64 * self.fits.as_ref()?.times?.step())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bert::{Preset, Recompute};
    use crate::optim::OptimizerConfig;
    use crate::run::EvaluateSettings;
    use crate::step::parallel::{OptimizerSharding, ParallelSettings};
    use crate::task::Precision;

    #[test]
    fn a_loop_counted_once_is_told_from_one_counted_whole() {
        let step = LoopCost { flops: 8e12, rounds: 8 };
        assert_eq!(step.counted_rounds(1.1e12), 1.0);
        assert_eq!(step.counted_rounds(8.4e12), 8.0);
        assert_eq!(LoopCost { flops: 8e12, rounds: 1 }.counted_rounds(8.4e12), 1.0);
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

    /// Two phases on 64 chips of v5p, with micro-batches of four rows: bound by arithmetic in the first, whose 4,096
    /// sequences of 512 are packed; in the second by the exchange.
    fn plan(rows_per_sequence: f64, optimizer_sharding: OptimizerSharding) -> Plan {
        let target: Target = "tpu:v5p:4x4x4".parse().unwrap();
        let efficiency = Efficiency { compute: 0.5, memory: 1.0, network: 1.0 };
        let shape = |length: usize, steps: u64| -> Phase {
            let text = format!(
                "sequence_length = {length}\nmax_predictions_per_seq = 20\nglobal_batch = 4096\nmicro_batch_size = 4\nsteps = {steps}\n\
                 learning_rate = 1.0"
            );
            toml::from_str(&text).unwrap()
        };
        let schedule = Schedule::new(vec![shape(512, 100), shape(128, 10)]).unwrap();
        let phase = |index: usize, flops_of_row: f64, all_reduce: f64| {
            let shape = schedule.phases()[index].clone();
            let rows_computed = rows_computed(&shape, rows_per_sequence, 64, 4);
            let collectives = Collectives { all_reduce, ..Collectives::default() };
            let flops = (64 * rows_computed) as f64 * flops_of_row;
            let demand = Demand { flops, precision: Precision::Bf16, bytes: Some(5e9), collectives };
            let fit = Fit {
                micro_batch: 4,
                micro_batches: 16,
                sequences_per_row: shape.sequences_per_row(16),
                rows_computed,
                memory: CompiledMemoryStats::default(),
                compiler_flops: None,
                demand,
                times: Times::of(&demand, &target, target.chip.unwrap(), &efficiency),
            };
            PhasePlan { index, shape, rows: 64, attempts: Vec::new(), fits: Some(fit) }
        };
        // 459 TFLOP/s · 64 · 0.5 = 14.688 PFLOP a second; 2 · 63/64 of 600 GB over 600 GB/s.
        let phases = vec![phase(0, 14.688e15 / 4096.0, 0.0), phase(1, 1.0, 600e9)];
        let run = Run {
            name: String::new(),
            seed: 0,
            precision: Precision::Bf16,
            recompute: Recompute::None,
            skip_non_finite: 0,
            model: Preset::Base.config(30_522),
            import: None,
            optimizer: OptimizerConfig::default(),
            schedule,
            data: toml::from_str("path = 'data'").unwrap(),
            parallel: ParallelSettings { optimizer_sharding, ..ParallelSettings::default() },
            evaluate: EvaluateSettings::default(),
            checkpoint: toml::from_str("directory = 'run'").unwrap(),
            text: String::new(),
        };
        Plan {
            run,
            target,
            platform_version: String::new(),
            efficiency,
            rows_per_sequence: RowsPerSequence::Stated(rows_per_sequence),
            memory_limit: None,
            phases,
            saved: None,
        }
    }

    #[test]
    fn a_run_is_the_sum_of_its_steps() {
        let mut plan = plan(1.0, OptimizerSharding::None);
        assert!((plan.seconds().unwrap() - (100.0 + 19.6875)).abs() < 1e-9);
        plan.phases[1].fits = None;
        assert_eq!(plan.seconds(), None);
    }

    #[test]
    fn chips_for_a_time_are_the_smallest_slice_that_reaches_it() {
        let plan = plan(1.0, OptimizerSharding::None);
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

    #[test]
    fn packed_rows_take_their_share_of_the_time_in_whole_micro_batches() {
        // Of 64 rows of a device 0.55 are 35.2: 36 in nine micro-batches of four, 36/64 of 100 seconds.
        let plan = plan(0.55, OptimizerSharding::None);
        assert!((plan.seconds().unwrap() - (56.25 + 19.6875)).abs() < 1e-9);
        let seconds = |text: &str| plan.seconds_on(&text.parse().unwrap()).unwrap();
        assert!((seconds("tpu:v5p:4x4x4") - plan.seconds().unwrap()).abs() < 1e-9);
        // On twice the chips 17.6 of 32 rows: 20, in five micro-batches. On eight times as many, two micro-batches are
        // too few to pack: all of a device's eight rows.
        assert!((seconds("tpu:v5p:4x4x8") - (50.0 * 20.0 / 32.0 + 19.84375)).abs() < 1e-9);
        assert!((seconds("tpu:v5p:8x8x8") - (12.5 + 20.0 * 511.0 / 512.0)).abs() < 1e-9);
    }

    #[test]
    fn an_optimizer_in_parts_moves_fewer_bytes_on_more_devices() {
        // Weight, m and v are read and written and the gradient is read twice: eight numbers of four bytes for each parameter.
        let whole = plan(1.0, OptimizerSharding::None);
        let parameters = parameters(&whole.run.model) as f64;
        let once = |plan: &Plan, devices| bytes_moved_once(&plan.run, &Collectives::default(), devices);
        assert_eq!([1, 64].map(|devices| once(&whole, devices)), [32.0 * parameters; 2]);
        let parts = plan(1.0, OptimizerSharding::Sharded);
        assert_eq!([1, 64, 128].map(|devices| once(&parts, devices) * devices as f64), [32.0 * parameters; 3]);
        // What is exchanged is moved once, too: a whole gradient is read and a part of the sum written, and the reverse for weights.
        let exchange = Collectives { all_reduce: 0.0, reduce_scatter: 4.0 * parameters, all_gather: 2.0 * parameters };
        let moved = bytes_moved_once(&parts.run, &exchange, 64) - once(&parts, 64);
        assert!((moved - 6.0 * parameters * (1.0 + 1.0 / 64.0)).abs() < 1e-3 * parameters);

        // On twice the chips, half of what the micro-batches move, and of the update all or half.
        let target: Target = "tpu:v5p:4x4x8".parse().unwrap();
        let bytes = |plan: &Plan| plan.demand_on(&plan.phases[0], &target).unwrap().bytes.unwrap();
        assert!((bytes(&parts) - 2.5e9).abs() < 1e-3);
        assert!((bytes(&whole) - (2.5e9 + 16.0 * parameters)).abs() < 1e-3);
    }
}
