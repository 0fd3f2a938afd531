//! Scales a plan to other numbers of the same chips without compiling again.

use super::cost::bytes_per_update;
use super::packing::rows_computed;
use super::roofline::{Demand, Times};
use super::target::Target;
use super::{Fit, PhasePlan, Plan};

impl Plan {
    /// Finds the smallest offered target of the same chips on which the planned phases take at most `seconds`, and their time
    /// there; if there is none, the largest target that divides the batches.
    ///
    /// Compute and the bytes of the micro-batches shrink with a device's share of the batch. Communication does not; the bytes
    /// of the update shrink only if the devices shard the optimizer. The collectives are those of the compiled target; the compiler may
    /// replace others on another slice.
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

    /// Returns [`Plan::seconds`] on another number of the same chips; none if the batches do not divide among its devices.
    pub fn seconds_on(&self, target: &Target) -> Option<f64> {
        let accelerator = target.accelerator?;
        let of_phase = |phase: &PhasePlan| {
            let demand = self.demand_on(phase, target)?;
            Some(phase.shape.full_steps() * Times::of(&demand, target, accelerator, &self.efficiency)?.step())
        };
        self.phases.iter().map(of_phase).sum()
    }

    /// Returns the demand of a step of `phase` on another number of the same chips, derived from the compiled one.
    fn demand_on(&self, phase: &PhasePlan, target: &Target) -> Option<Demand> {
        let PhasePlan { index, shape, fit, .. } = phase;
        let Fit { micro_batch_size, rows_computed: rows_here, demand, .. } = fit.as_ref()?;
        let (here, there) = (self.target.devices(), target.devices());
        if !shape.global_batch.is_multiple_of(there) {
            return None;
        }
        let rows_per_sequence = self.rows_per_sequence.of(*index);
        let rows = rows_computed(shape, rows_per_sequence, shape.global_batch / there, *micro_batch_size);
        let share = rows as f64 / *rows_here as f64;
        let once = |devices| bytes_per_update(&self.run, &demand.collectives, devices);
        Some(Demand {
            flops: demand.flops * share * there as f64 / here as f64,
            bytes: demand.bytes.map(|bytes| once(there) + (bytes - once(here)) * share),
            ..*demand
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::bert::{Kernels, Preset, Recompute};
    use crate::optim::OptimizerConfig;
    use crate::pjrt::CompiledMemoryStats;
    use crate::plan::cost::parameters;
    use crate::plan::packing::RowsPerSequence;
    use crate::plan::roofline::Efficiency;
    use crate::plan::traffic::Collectives;
    use crate::run::{CompileSettings, DivergenceSettings, EvaluateSettings, Run};
    use crate::schedule::{Phase, Schedule};
    use crate::step::parallel::{OptimizerSharding, ParallelSettings};
    use crate::task::Precision;

    /// Returns a plan of two phases on 64 chips of v5p with micro-batches of four rows. The first, with 4,096 packed sequences
    /// of 512, is bound by compute; the second by communication.
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
                micro_batch_size: 4,
                accumulation_steps: 16,
                sequences_per_row: shape.sequences_per_row(16),
                rows_computed,
                memory: CompiledMemoryStats::default(),
                compiler_flops: None,
                compiled_collectives: None,
                graph_collectives: collectives,
                demand,
                times: Times::of(&demand, &target, target.accelerator.unwrap(), &efficiency),
            };
            PhasePlan { index, shape, rows: 64, attempts: Vec::new(), fit: Some(fit), profile: None }
        };
        // 459 TFLOP/s · 64 · 0.5 = 14.688 PFLOP a second; 2 · 63/64 of 600 GB over 600 GB/s.
        let phases = vec![phase(0, 14.688e15 / 4096.0, 0.0), phase(1, 1.0, 600e9)];
        let run = Run {
            name: String::new(),
            seed: 0,
            precision: Precision::Bf16,
            recompute: Recompute::None,
            compile: CompileSettings::default(),
            kernels: Kernels::default(),
            skip_non_finite: 0,
            model: Preset::Base.config(30_522),
            import: None,
            optimizer: OptimizerConfig::default(),
            ema: None,
            schedule,
            data: toml::from_str("path = 'data'").unwrap(),
            parallel: ParallelSettings { optimizer_sharding, ..ParallelSettings::default() },
            evaluate: EvaluateSettings::default(),
            divergence: DivergenceSettings::default(),
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
    fn run_time_is_the_sum_of_its_step_times() {
        let mut plan = plan(1.0, OptimizerSharding::None);
        assert!((plan.seconds().unwrap() - (100.0 + 19.6875)).abs() < 1e-9);
        plan.phases[1].fit = None;
        assert_eq!(plan.seconds(), None);
    }

    #[test]
    fn only_the_runs_of_the_paper_have_its_time() {
        let mut plan = plan(1.0, OptimizerSharding::None);
        assert_eq!((plan.paper_minutes(), plan.is_complete()), (None, true));
        let hours = plan.chip_hours().unwrap();
        assert!((hours - 64.0 * 119.6875 / 3600.0).abs() < 1e-9, "{hours}");
        let file = |name: &str, more: &[String]| {
            Run::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/runs").join(name), more).unwrap()
        };
        let mut minutes = |name, more: &[String]| {
            plan.run = file(name, more);
            plan.paper_minutes()
        };
        assert_eq!(minutes("bert-large-64k-paper.toml", &[]), Some(76.19));
        assert_eq!(minutes("bert-large-32k-paper.toml", &[]), Some(101.2));
        assert_eq!(minutes("bert-large-nvidia.toml", &[]), None);
        assert_eq!(minutes("bert-large-64k-paper.toml", &["phase.1.steps=7000".to_owned()]), None);
    }

    #[test]
    fn target_for_a_time_is_the_smallest_slice_that_reaches_it() {
        let plan = plan(1.0, OptimizerSharding::None);
        let (target, seconds) = plan.target_for(200.0).unwrap();
        assert_eq!(target.to_string(), "tpu:v5p:4x4x4");
        assert!((seconds - plan.seconds().unwrap()).abs() < 1e-9);
        // Twice the chips halve the compute time, not the communication: 50 + 10 · 2 · 127/128.
        let (target, seconds) = plan.target_for(75.0).unwrap();
        assert_eq!(target.to_string(), "tpu:v5p:4x4x8");
        assert!((seconds - (50.0 + 19.84375)).abs() < 1e-9);
        // No number of chips reaches a time below that of communication; the result is the largest that divides the batch.
        let (target, seconds) = plan.target_for(1.0).unwrap();
        assert!(seconds > 1.0 && target.chips() == 4096, "{target} {seconds}");
    }

    #[test]
    fn time_of_packed_rows_scales_in_complete_micro_batches() {
        // 0.55 of a device's 64 rows are 35.2, rounded up to 36 in nine micro-batches of four: 36/64 of 100 seconds.
        let plan = plan(0.55, OptimizerSharding::None);
        assert!((plan.seconds().unwrap() - (56.25 + 19.6875)).abs() < 1e-9);
        let seconds = |text: &str| plan.seconds_on(&text.parse().unwrap()).unwrap();
        assert!((seconds("tpu:v5p:4x4x4") - plan.seconds().unwrap()).abs() < 1e-9);
        // On twice the chips, 17.6 of 32 rows, rounded up to 20 in five micro-batches. On eight times as many, packing is off
        // with only two micro-batches: all of a device's eight rows.
        assert!((seconds("tpu:v5p:4x4x8") - (50.0 * 20.0 / 32.0 + 19.84375)).abs() < 1e-9);
        assert!((seconds("tpu:v5p:8x8x8") - (12.5 + 20.0 * 511.0 / 512.0)).abs() < 1e-9);
    }

    #[test]
    fn sharded_optimizer_moves_fewer_bytes_on_more_devices() {
        // The update reads and writes weight, m and v, and reads the gradient twice: eight values of four bytes per parameter.
        let replicated = plan(1.0, OptimizerSharding::None);
        let parameters = parameters(&replicated.run.model) as f64;
        let once = |plan: &Plan, devices| bytes_per_update(&plan.run, &Collectives::default(), devices);
        assert_eq!([1, 64].map(|devices| once(&replicated, devices)), [32.0 * parameters; 2]);
        let sharded = plan(1.0, OptimizerSharding::Sharded);
        assert_eq!([1, 64, 128].map(|devices| once(&sharded, devices) * devices as f64), [32.0 * parameters; 3]);
        // Communication moves bytes once, too: it reads a whole gradient and writes a shard of the sum; for weights the reverse.
        let collectives =
            Collectives { reduce_scatter: 4.0 * parameters, all_gather: 2.0 * parameters, ..Collectives::default() };
        let moved = bytes_per_update(&sharded.run, &collectives, 64) - once(&sharded, 64);
        assert!((moved - 6.0 * parameters * (1.0 + 1.0 / 64.0)).abs() < 1e-3 * parameters);

        // On twice the chips: half of the bytes of the micro-batches, and all (replicated) or half (sharded) of the update.
        let target: Target = "tpu:v5p:4x4x8".parse().unwrap();
        let bytes = |plan: &Plan| plan.demand_on(&plan.phases[0], &target).unwrap().bytes.unwrap();
        assert!((bytes(&sharded) - 2.5e9).abs() < 1e-3);
        assert!((bytes(&replicated) - (2.5e9 + 16.0 * parameters)).abs() < 1e-3);
    }
}
