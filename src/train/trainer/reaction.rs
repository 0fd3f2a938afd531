//! The reaction of the trainer to a divergence: it stops, or goes back to the last good checkpoint and leaves out the examples
//! since then. All hosts have the same numbers, so all of them react alike.

use anyhow::{Context, ensure};

use super::Trainer;
use crate::checkpoint::{Contents, checkpoint_path, load_latest};
use crate::divergence::{Monitor, SkippedRange};
use crate::run::buckets::fetch_run;
use crate::runtime::state::TrainState;
use crate::schedule::StepPlan;

impl Trainer {
    /// Sets the checkpoints from after the last good one aside, and goes back to that one if the run does so. Returns whether
    /// training goes on; if not, a resumed run starts from the last good checkpoint.
    ///
    /// # Errors
    /// If a checkpoint cannot be renamed or loaded, or the log cannot be written.
    pub(super) fn react_to_divergence(&mut self) -> anyhow::Result<bool> {
        let written = self.written();
        self.note_failure(written);
        let good = self.alarm.monitor().last_good();
        let renamed = self.checkpointer.as_mut().map_or(Ok(Vec::new()), |leader| leader.set_aside_after(good));
        self.hosts.all_ok(renamed)?.iter().for_each(|note| self.reporter.say(note));
        let path = good.map(|step| checkpoint_path(self.job.checkpoint.directory.local(), step));
        self.reporter.newest_checkpoint(path.clone());
        let (Some(step), Some(path)) = (good, path) else {
            self.reporter
                .say("the run stops without saving; there is no good checkpoint, so a resumed run starts from step 0");
            return Ok(false);
        };
        if !self.alarm.rolls_back(self.roll_backs.count) {
            self.reporter.say(&format!("the run stops without saving; the last good checkpoint is {}", path.display()));
            return Ok(false);
        }
        self.roll_back(step)?;
        Ok(true)
    }

    /// Goes back to the checkpoint of `step`, the newest one, and leaves out the examples of the steps after it.
    fn roll_back(&mut self, step: u64) -> anyhow::Result<()> {
        // As at the start of a resumed run: the leader may upload, then the other hosts download.
        let (settings, is_leader) = (&self.job.checkpoint, self.hosts.is_leader());
        let fetch = || fetch_run(settings, true, is_leader).context("[checkpoint] directory");
        self.hosts.all_ok(if is_leader { fetch() } else { Ok(()) })?;
        self.hosts.all_ok(if is_leader { Ok(()) } else { fetch() })?;
        let loaded = load_latest(settings.directory.local(), Contents::All).map_err(anyhow::Error::from);
        let loaded = self.hosts.all_ok(loaded.and_then(|loaded| loaded.context("it does not exist any more")));
        let loaded = loaded.with_context(|| format!("cannot go back to the checkpoint of step {step}"))?;
        let found = loaded.checkpoint.state.step;
        ensure!(
            found == step,
            "cannot go back to the checkpoint of step {step}: the newest undamaged one is of step {found}"
        );

        let skipped = self.examples_since(step)?;
        skipped.iter().for_each(|range| self.roll_backs.skipped.add(*range));
        self.roll_backs.count += 1;
        let reported = self.reporter.rolled_back(self.done, step, &skipped);
        self.note_failure(reported);
        self.inputs.schedule = self.job.schedule.leaving_out(&self.roll_backs.skipped);
        let state = &loaded.checkpoint.state;
        self.alarm.restart(state.divergence.clone().unwrap_or_else(|| Monitor::from_checkpoint(step)));
        self.best = self.job.selection.as_ref().and_then(|selection| selection.resumed(state.best.clone()));
        self.done = step;
        // The memory of the devices is freed first.
        let layout = self.state.layout().clone();
        self.state.replace(Vec::new());
        self.state = TrainState::restore(layout, loaded.checkpoint, &loaded.path, self.job.seed, &self.devices)?;
        Ok(())
    }

    /// Returns the examples of the updates after `step`, phase by phase.
    fn examples_since(&self, step: u64) -> anyhow::Result<Vec<SkippedRange>> {
        let schedule = &self.inputs.schedule;
        let mut ranges = Vec::new();
        for (phase, settings) in schedule.phases().iter().enumerate() {
            let start = schedule.start_of(phase);
            let (first, end) = (step.max(start), self.done.min(start + settings.steps));
            if first < end {
                let from = schedule.at(first)?.first_example;
                let StepPlan { first_example, global_batch, .. } = schedule.at(end - 1)?;
                let to = first_example + global_batch as u64;
                ranges.push(SkippedRange { phase, from, to });
            }
        }
        Ok(ranges)
    }
}
