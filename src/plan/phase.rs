//! Compiles the step of one phase with different micro-batch sizes, and analyses the one that fits.

use std::time::Instant;

use anyhow::Context;

use super::compiler::{Compiled, Compiler};
use super::cost::{LoopCost, bytes_per_update, parameters};
use super::packing::rows_computed;
use super::profile::Profile;
use super::profile::collectives::Collective;
use super::profile::program::Program;
use super::roofline::{Demand, Efficiency, Times};
use super::search::{MicroBatchChoice, Trial, divisors, doubling_divisors, expected_bytes, fastest_fit, first_fit};
use super::target::Target;
use super::traffic::Collectives;
use super::{Attempt, Fit, Progress, Verdict, context};
use crate::bert::flops::{recomputed_flops, training_flops};
use crate::hlo::HloModule;
use crate::pjrt::{CompiledMemoryStats, PjrtError};
use crate::run::Run;
use crate::runtime::devices::lower_for;
use crate::schedule::Schedule;
use crate::step::{StepSpec, TrainStep};
use crate::units::byte_size;

/// Chooses the micro-batch size of one phase by compiling its step.
pub(super) struct PhasePlanner<'a> {
    pub(super) run: &'a Run,
    /// The index of the phase, from 0.
    pub(super) phase: usize,
    pub(super) target: &'a Target,
    pub(super) compiler: &'a Compiler,
    pub(super) efficiency: &'a Efficiency,
    /// Rows per sequence where sequences are packed.
    pub(super) rows_per_sequence: f64,
    pub(super) attempts: Vec<Attempt>,
    pub(super) progress: &'a mut dyn FnMut(Progress),
}

/// A compiled step that fits, with its program.
pub(super) struct Candidate {
    pub(super) program: HloModule,
    pub(super) compiled: Compiled,
    pub(super) fit: Fit,
    /// The predicted rate of all devices at the published peak rates, an upper bound; none if these are unknown.
    pub(super) sequences_per_second: Option<f64>,
}

impl PhasePlanner<'_> {
    /// Compiles until `choice` is satisfied. Returns none if no tried size fits.
    pub(super) fn choose(&mut self, choice: MicroBatchChoice) -> anyhow::Result<Option<Candidate>> {
        let run = self.run;
        let shape = &run.schedule.phases()[self.phase];
        let rows = shape.global_batch / self.target.devices();
        let found = match choice {
            MicroBatchChoice::Size(size) => first_fit([size], |n| self.attempt(n))?,
            MicroBatchChoice::Auto => {
                let powers: Vec<usize> = divisors(rows).into_iter().filter(|n| n.is_power_of_two()).collect();
                let expected = self.expected_size(&powers)?;
                let candidates = powers.into_iter().filter(|&n| n <= expected).rev();
                // Skipping empty micro-batches saves more than larger matrix products do.
                let skips_rows = |n: &usize| rows_computed(shape, self.rows_per_sequence, rows, *n) < rows;
                let (skipping, others): (Vec<usize>, Vec<usize>) = candidates.partition(skips_rows);
                first_fit(skipping.into_iter().chain(others), |n| self.attempt(n))?
            }
            MicroBatchChoice::Fastest => {
                let sizes = doubling_divisors(rows);
                let expected = self.expected_size(&sizes)?;
                fastest_fit(
                    &sizes,
                    expected,
                    |candidate: &Candidate| candidate.sequences_per_second,
                    |n| self.attempt(n),
                )?
            }
        };
        Ok(found)
    }

    /// Returns the largest of `sizes` (ascending, from 1) whose expected memory is within the limit; the largest of all if the
    /// target has no known limit.
    fn expected_size(&self, sizes: &[usize]) -> anyhow::Result<usize> {
        let spec = self.spec(1)?;
        let task = self.run.task(self.phase, spec.task.examples_per_row());
        let parameters = parameters(&self.run.model);
        let limit = self.target.memory_limit().unwrap_or(f64::INFINITY);
        let fits = |n: &&usize| expected_bytes(&task, &spec, parameters, **n) <= limit;
        Ok(sizes.iter().take_while(fits).last().copied().unwrap_or(1))
    }

    fn spec(&self, micro_batch_size: usize) -> anyhow::Result<StepSpec> {
        with_micro_batch_size(self.run, self.phase, micro_batch_size)?.step_spec(self.phase, self.target.devices())
    }

    /// Compiles the step with `micro_batch_size`.
    fn attempt(&mut self, micro_batch_size: usize) -> anyhow::Result<Trial<Candidate>> {
        let name = &self.run.schedule.phases()[self.phase].name;
        (self.progress)(Progress::Compiling { phase: name, micro_batch_size });
        let spec = self.spec(micro_batch_size)?;
        let step = TrainStep::build(&spec)?.program;
        let program = lower_for(&step, self.target.platform().name())?;
        let begin = Instant::now();
        let compiled = self.compiler.compile(&program.bytes);
        let took = begin.elapsed();
        let collectives = Collectives::of(&step.computation, spec.accumulation_steps);
        let mut peak_memory = None;
        let (verdict, trial) = match compiled {
            Err(error) => match verdict(&error) {
                Verdict::TooLarge(reason) => (Verdict::TooLarge(reason), Trial::TooLarge),
                failed => (failed, Trial::Failed),
            },
            Ok(compiled) => {
                let memory =
                    compiled.memory_stats().context("the plugin does not report the memory of a compiled program")?;
                let peak = memory.peak_estimate() as f64;
                peak_memory = Some(peak);
                match self.target.memory_limit().filter(|&limit| peak > limit) {
                    Some(limit) => {
                        let reason = format!("needs {} of {}", byte_size(peak), byte_size(limit));
                        (Verdict::TooLarge(reason), Trial::TooLarge)
                    }
                    None => {
                        let fit = self.fit(&spec, memory, &compiled, collectives);
                        let sequences_per_second = self.sequences_per_second(&compiled, &fit);
                        (Verdict::Fits, Trial::Fits(Candidate { program, compiled, fit, sequences_per_second }))
                    }
                }
            }
        };
        let sequences_per_second = match &trial {
            Trial::Fits(candidate) => candidate.sequences_per_second,
            Trial::TooLarge | Trial::Failed => None,
        };
        self.attempts.push(Attempt { micro_batch_size, took, verdict, peak_memory, sequences_per_second });
        if let Some(last) = self.attempts.last() {
            (self.progress)(Progress::Compiled(last));
        }
        Ok(trial)
    }

    /// Predicts the sequences/s of a compiled step on all devices: the roofline time of each of its kernels, or of the whole step
    /// if the plugin does not return the program. Returns none if the rates of the target are unknown.
    fn sequences_per_second(&self, compiled: &Compiled, fit: &Fit) -> Option<f64> {
        let context = context(self.run, self.phase, self.target, fit);
        context.rates.as_ref()?;
        let profile = compiled.optimized_program().ok().and_then(|program| Profile::of(&program, &context).ok());
        let of_kernels = profile.map(|profile| profile.total.seconds).filter(|&seconds| seconds > 0.0);
        let seconds = of_kernels.or_else(|| Some(fit.times?.step()))?;
        Some(self.run.schedule.phases()[self.phase].global_batch as f64 / seconds)
    }

    fn fit(
        &self,
        spec: &StepSpec,
        memory: CompiledMemoryStats,
        compiled: &Compiled,
        graph_collectives: Collectives,
    ) -> Fit {
        let (shape, devices) = (&self.run.schedule.phases()[self.phase], self.target.devices());
        let micro_batch_size = spec.rows / spec.accumulation_steps;
        let rows_computed = rows_computed(shape, self.rows_per_sequence, spec.rows, micro_batch_size);
        let (model, length) = (&self.run.model, shape.sequence_length);
        let flops_per_row = training_flops(model, length, shape.max_predictions_per_seq)
            + recomputed_flops(model, length, self.run.recompute);

        let costs = compiled.cost_analysis().unwrap_or_default();
        let cost = |name: &str| costs.get(name).and_then(|value| value.as_f64()).filter(|&x| x > 0.0);
        let loop_cost = LoopCost { flops: spec.rows as f64 * flops_per_row, iterations: spec.accumulation_steps };
        let counted = cost("flops");
        let computed = (rows_computed / micro_batch_size) as f64;
        let compiled_collectives = collectives_of(compiled, computed);
        let collectives = match &compiled_collectives {
            Some(found) => Collectives::of_compiled(found, devices),
            None => graph_collectives,
        };
        let repeats = counted.map_or(1.0, |counted| computed / loop_cost.counted_iterations(counted));
        let once = bytes_per_update(self.run, &collectives, devices);
        let bytes = cost("bytes accessed").map(|bytes| once + (bytes - once).max(0.0) * repeats);
        let flops = (devices * rows_computed) as f64 * flops_per_row;
        let demand = Demand { flops, precision: spec.precision, bytes, collectives };
        Fit {
            micro_batch_size,
            accumulation_steps: spec.accumulation_steps,
            sequences_per_row: spec.task.examples_per_row(),
            rows_computed,
            memory,
            compiler_flops: counted.map(|counted| counted * repeats),
            compiled_collectives,
            graph_collectives,
            demand,
            times: self.target.accelerator.and_then(|chip| Times::of(&demand, self.target, chip, self.efficiency)),
        }
    }
}

/// Lists the collectives of a compiled step with `micro_batches`; none if the plugin does not return the program.
fn collectives_of(compiled: &Compiled, micro_batches: f64) -> Option<Vec<Collective>> {
    let program = Program::decode(&compiled.optimized_program().ok()?).ok()?;
    Some(Collective::of_program(&program, micro_batches))
}

/// Returns `run` with another micro-batch size in `phase`.
fn with_micro_batch_size(run: &Run, phase: usize, micro_batch_size: usize) -> anyhow::Result<Run> {
    let mut phases = run.schedule.phases().to_vec();
    // The schedule requires that the size divides the global batch; `plan` has checked that the devices divide it too.
    phases[phase].micro_batch_size = micro_batch_size;
    Ok(Run { schedule: Schedule::new(phases)?, ..run.clone() })
}

/// Classifies a compiler's error: out of memory, or any other failure.
fn verdict(error: &anyhow::Error) -> Verdict {
    let reason = error.root_cause().to_string();
    let mut lines = reason.lines().map(str::trim).filter(|line| !line.is_empty());
    let first: String = lines.next().unwrap_or_default().chars().take(300).collect();
    match error.downcast_ref().is_some_and(PjrtError::is_out_of_memory) {
        true => Verdict::TooLarge(first),
        false => Verdict::Failed(first),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pjrt::ErrorCode;

    #[test]
    fn resource_exhausted_means_too_large_and_other_errors_mean_failed() {
        let error = |code, message: &str| {
            anyhow::Error::from(PjrtError::Call { function: "PJRT_Compile", code, message: message.to_owned() })
        };
        let exhausted =
            verdict(&error(ErrorCode::ResourceExhausted, "Used 20G of 16G hbm.\n\nTotal usage …").context("x"));
        assert_eq!(exhausted, Verdict::TooLarge("PJRT_Compile: Used 20G of 16G hbm.".to_owned()));
        assert!(matches!(verdict(&error(ErrorCode::Internal, "no")), Verdict::Failed(_)));
    }
}
