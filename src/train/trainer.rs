//! The training loop. On accelerators, a step is launched before the metrics of the previous step are read, so that the device never
//! waits for the host. Evaluation, checkpoints and stopping happen between steps, when none is running.

mod reaction;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::checkpointer::Checkpointer;
use super::divergence::Alarm;
use super::evaluator::{Evaluator, Measured};
use super::interrupt::{Interrupt, Request};
use super::job::{Job, Selection};
use super::probe::ProbeEvaluator;
use super::programs::Programs;
use crate::batch::BatchSource;
use crate::checkpoint::{Best, RunLock, Saved, State};
use crate::divergence::RollBacks;
use crate::output::note;
use crate::pjrt::{Buffer, HostTransfer};
use crate::probe::ProbeError;
use crate::report::events::StepEvent;
use crate::report::goodput::EVALUATION;
use crate::report::metrics::{self, MetricsLog};
use crate::report::progress::Progress;
use crate::report::reporter::Reporter;
use crate::report::summary::Summary;
use crate::run::initial_state::InitialState;
use crate::runtime::compile::Compiled;
use crate::runtime::devices::Devices;
use crate::runtime::hosts::{Hosts, Vote};
use crate::runtime::prefetch::{Prefetch, Prefetched, RunInputs, rows_expected};
use crate::runtime::software::software;
use crate::runtime::state::{StateLayout, TrainState};
use crate::schedule::{PhaseWork, StepPlan};
use crate::step::StepSpec;
use crate::task::metric_names;
use crate::units::counted;

/// A run on its devices, with compiled programs.
pub struct Trainer {
    job: Arc<Job>,
    devices: Devices,
    hosts: Hosts,
    /// The step and the evaluation of each phase; phases of one shape share them.
    steps: Vec<Arc<Compiled>>,
    evaluators: Vec<Arc<Evaluator>>,
    inputs: RunInputs,
    /// The rows that an example takes in each phase, by its first batch.
    rows_per_example: Vec<f64>,
    state: TrainState,
    /// Weight updates whose metrics have been read.
    done: u64,
    /// Updates that were skipped because a gradient was not finite.
    skipped: u64,
    last_end: Instant,
    /// None on hosts other than the leader, and for runs without a probe.
    probe: Option<ProbeEvaluator>,
    /// An evaluation had no value of the probe, and the reason was printed.
    missing_probe_reported: bool,
    /// The strongest request on any host that is not fulfilled yet.
    request: Request,
    /// The best evaluation so far, if the run selects a checkpoint by a metric.
    best: Option<Best>,
    alarm: Alarm,
    roll_backs: RollBacks,
    /// The first failure to write a checkpoint or a metric: the run saves its state and ends.
    failure: Option<anyhow::Error>,
    reporter: Reporter,
    /// None on hosts other than the leader.
    checkpointer: Option<Checkpointer>,
}

/// The part of the data that a phase reads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Coverage {
    /// The examples of the phase.
    pub sequences: u64,
    /// The examples of the first epoch.
    pub sequences_per_epoch: u64,
    /// Epochs of the data.
    pub epochs: f64,
    /// The most examples that share a row, and the rows that one example takes.
    pub sequences_per_row: usize,
    /// Rows per sequence.
    pub rows_per_sequence: f64,
}

/// The end of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All steps are done.
    Finished,
    /// Ended before the last step, because the metric of the best checkpoint has not improved.
    StoppedEarly,
    /// Interrupted by Ctrl-C or SIGTERM, with everything saved.
    Interrupted,
    /// Ended at its time limit, with everything saved.
    TimeLimit,
    /// Stopped because training has diverged. Nothing was saved after the last good checkpoint.
    Diverged,
}

impl Outcome {
    /// Returns whether the run ended before its steps were done, and can be resumed.
    pub fn is_incomplete(self) -> bool {
        matches!(self, Outcome::Interrupted | Outcome::TimeLimit | Outcome::Diverged)
    }
}

/// A step that was launched and whose metrics have not been read.
struct Running {
    step: u64,
    plan: StepPlan,
    waited: Duration,
    padding: f64,
    positions: usize,
    /// The vote of the hosts on requests.
    request: Option<Vote>,
    metrics: HostTransfer,
    trust_ratios: HostTransfer,
    finite: HostTransfer,
}

impl Trainer {
    /// Transfers the initial weights to the devices and opens the logs. `programs` are those of `job` on `devices`; the leader
    /// has the `lock` of the run directory. The time of the run counts from `begin`.
    ///
    /// # Errors
    /// If the weights do not fit the model, the devices are out of memory, or a file cannot be opened.
    pub fn new(
        job: Job,
        programs: Programs,
        devices: Devices,
        hosts: Hosts,
        start: InitialState,
        lock: Option<Arc<RunLock>>,
        begin: Instant,
    ) -> anyhow::Result<Trainer> {
        let job = Arc::new(job);
        let Programs { steps, evaluators, took: compiled } = programs;
        let layout = StateLayout::of(&job.steps[0]);
        let done = start.step();
        let best = job.selection.as_ref().and_then(|selection| selection.resumed(start.best()));
        let earlier_software = start.software();
        let roll_backs = start.roll_backs();
        let alarm = Alarm::new(job.alarm.clone(), &job.schedule, start.divergence());
        let state = match start {
            InitialState::Random => TrainState::initial(layout, job.seed, &devices)?,
            InitialState::Imported(found) => {
                TrainState::restore(layout, found.checkpoint, &found.path, job.seed, &devices)?
            }
            InitialState::Resumed { checkpoint, path } => {
                TrainState::restore(layout, *checkpoint, &path, job.seed, &devices)?
            }
        };
        let rows_of =
            |(spec, batches): (&StepSpec, &Arc<dyn BatchSource>)| batches.rows_per_example(spec.rows * spec.replicas);
        let rows_per_example: Vec<f64> = job.steps.iter().zip(&job.batches).map(rows_of).collect();
        let inputs = RunInputs {
            schedule: job.schedule.leaving_out(&roll_backs.skipped),
            seed: job.seed,
            // The phases of a run share its optimizer and its average.
            hyperparameters: job.steps.first().map(StepSpec::hyperparameters).unwrap_or_default(),
            sources: job.batches.clone(),
            values: steps.iter().map(|step| step.step_inputs()).collect(),
        };
        let directory = job.checkpoint.directory.local();
        let mut summary = Summary::new(&job.schedule, directory);
        let open = |lock| {
            let log = MetricsLog::open(directory, done, job.settings()?)?;
            if done > 0
                && let Some(first) = metrics::recorded(directory, EVALUATION, 0)?
            {
                summary.evaluation_before_first_step(first);
            }
            let software = software(&devices.client)?;
            earlier_software.iter().flat_map(|earlier| earlier.changes_to(&software)).for_each(note);
            Ok((log, Checkpointer::new(job.clone(), lock, software)?))
        };
        let (log, checkpointer) = hosts.all_ok(lock.map(open).transpose())?.unzip();
        let progress = Progress::new(work(&job, &rows_per_example), done, hosts.is_leader());
        let tensors = state.layout().specs().iter().map(|spec| spec.name.clone()).collect();
        let task = job.steps[0].task.clone();
        let mut reporter = Reporter::new(log, progress, summary, task, tensors, job.schedule.steps());
        let unwritten = reporter.started(done, begin.elapsed(), compiled).err();
        let probe = job.probe.as_ref().filter(|_| hosts.is_leader()).map(|spec| ProbeEvaluator::new(spec, &devices));
        Ok(Trainer {
            job,
            devices,
            hosts,
            steps,
            evaluators,
            inputs,
            rows_per_example,
            state,
            done,
            skipped: 0,
            last_end: Instant::now(),
            probe,
            missing_probe_reported: false,
            request: Request::Continue,
            best,
            alarm,
            roll_backs,
            failure: unwritten,
            reporter,
            checkpointer,
        })
    }

    /// Returns the compiled step of each phase.
    pub fn steps(&self) -> &[Arc<Compiled>] {
        &self.steps
    }

    /// Returns the hosts of the run.
    pub fn hosts(&self) -> &Hosts {
        &self.hosts
    }

    /// Returns the part of the data that each phase reads.
    pub fn coverage(&self) -> Vec<Coverage> {
        let phases = self.job.schedule.phases().iter().enumerate();
        let coverage = phases.map(|(index, phase)| {
            let (batches, sequences) = (&self.job.batches[index], phase.sequences());
            Coverage {
                sequences,
                sequences_per_epoch: batches.epoch_len(),
                epochs: batches.epochs_covered(sequences),
                sequences_per_row: self.job.steps[index].task.examples_per_row(),
                rows_per_sequence: self.rows_per_example[index],
            }
        });
        coverage.collect()
    }

    /// Returns the best evaluation so far, if the run selects a checkpoint by a metric.
    pub fn best(&self) -> Option<&Best> {
        self.best.as_ref()
    }

    /// Returns the summary of the run so far.
    pub fn summary(&self) -> &Summary {
        self.reporter.summary()
    }

    /// Takes the remaining steps.
    ///
    /// # Errors
    /// If more updates were skipped than the run allows, or data, device or disk fail. Earlier checkpoints remain; if a metric
    /// or a checkpoint could not be written, the state is first saved (once more).
    pub fn train(&mut self, interrupt: Interrupt) -> anyhow::Result<Outcome> {
        let total = self.job.schedule.steps();
        if self.done == 0 {
            self.evaluate(0)?;
        }
        let mut prefetch = Prefetch::start(self.inputs.clone(), &self.devices, self.done..total)?;
        let mut running: Option<Running> = None;
        self.last_end = Instant::now();
        while let Some((inputs, waited)) = prefetch.wait()? {
            let plan = inputs.plan.clone();
            if !self.devices.may_launch_ahead()
                && let Some(before) = running.take()
            {
                self.read(before)?;
            }
            let request = if self.failure.is_some() { Request::Interrupt } else { interrupt.request() };
            let launched = self.launch(inputs, waited, request)?;
            if let Some(before) = running.replace(launched) {
                self.read(before)?;
            }
            let after = self.done + 1;
            let phase = &self.job.schedule.phases()[plan.phase];
            let ends_phase = plan.step_in_phase + 1 == phase.steps;
            let due = |every: u64| ends_phase || (every > 0 && after.is_multiple_of(every));
            let (evaluate, save) = (due(self.job.evaluate_every), due(self.job.checkpoint.every));
            // All hosts must save and stop at the same step, so their vote decides; it is known one step later.
            if self.hosts.len() == 1 {
                self.request = self.request.max(request);
            }
            let request = std::mem::take(&mut self.request);
            if !(evaluate || save || request > Request::Continue || self.alarm.interrupts()) {
                continue;
            }
            if let Some(last) = running.take() {
                self.read(last)?;
            }
            if self.alarm.interrupts() {
                if !self.react_to_divergence()? {
                    self.finish()?;
                    return Ok(Outcome::Diverged);
                }
                prefetch = Prefetch::start(self.inputs.clone(), &self.devices, self.done..total)?;
                self.last_end = Instant::now();
                continue;
            }
            let mut improved = false;
            if evaluate {
                self.evaluate(plan.phase)?;
                improved = self.best.as_ref().is_some_and(|best| best.step == self.done);
            }
            let stops_early =
                evaluate && self.job.selection.as_ref().is_some_and(|select| select.stops(self.best.as_ref()));
            if save || request > Request::Continue || improved || stops_early {
                self.save()?;
            }
            if (stops_early || request.ends()) && self.done < total {
                if stops_early {
                    self.judge_end(plan.phase);
                    self.reporter.stopped_early(self.best.as_ref().map(Selection::sentence));
                }
                self.finish()?;
                return Ok(match request {
                    _ if stops_early => Outcome::StoppedEarly,
                    Request::TimeLimit => Outcome::TimeLimit,
                    _ => Outcome::Interrupted,
                });
            }
            self.last_end = Instant::now();
        }
        self.judge_end(self.job.schedule.phases().len() - 1);
        self.finish()?;
        Ok(Outcome::Finished)
    }

    /// Launches a step and returns while it runs; `request` is the vote of this host.
    fn launch(&mut self, inputs: Prefetched, waited: Duration, request: Request) -> anyhow::Result<Running> {
        let Prefetched { step, plan, buffers, padding, positions } = inputs;
        let phase = &self.job.schedule.phases()[plan.phase];
        if plan.step_in_phase == 0 && plan.phase > 0 && !phase.carry_moments {
            self.state.reset_optimizer_state(&self.devices)?;
        }
        let compiled = &self.steps[plan.phase];
        let mut launched =
            compiled.launch(self.state.buffers(), &buffers).with_context(|| format!("step {}", step + 1))?;
        self.state.replace(std::mem::take(&mut launched.state));
        Ok(Running {
            step,
            plan,
            waited,
            padding,
            positions,
            request: self.hosts.vote(request as u32)?,
            metrics: launched.read("metrics")?,
            trust_ratios: launched.read("trust_ratios")?,
            finite: launched.read("finite")?,
        })
    }

    /// Waits for the metrics of a step and reports them.
    fn read(&mut self, running: Running) -> anyhow::Result<()> {
        let Running { step, plan, waited, padding, positions, .. } = running;
        let failed = || format!("step {} failed on the device", step + 1);
        let metrics = running.metrics.wait().with_context(failed)?.to_f64();
        let trust_ratios = running.trust_ratios.wait().with_context(failed)?.to_f64();
        let finite = running.finite.wait().with_context(failed)?.to_f64();
        let request = running.request.map_or(Ok(0), Vote::max)?;
        self.request = self.request.max(Request::of_vote(request));
        let elapsed = self.last_end.elapsed();
        self.last_end = Instant::now();
        self.done = step + 1;

        let epochs = self.job.batches[plan.phase].epochs_covered(plan.first_example + plan.global_batch as u64);
        let names = metric_names(&*self.job.steps[plan.phase].task);
        let metrics = names.into_iter().zip(metrics).collect();
        let finished =
            StepEvent { done: self.done, plan, metrics, trust_ratios, positions, padding, epochs, elapsed, waited };
        let reported = self.reporter.step(&finished);
        self.note_failure(reported);
        if self.checkpointer.as_ref().is_some_and(Checkpointer::has_ended) {
            let written = self.written();
            self.note_failure(written);
        }
        let loss = finished.metric("loss");
        if finished.metric("skipped") != 0.0 || !loss.is_finite() {
            return self.skip(&finished.plan, loss, &finite);
        }
        if let Some(sign) = self.alarm.observe(&finished) {
            let sentence = self.alarm.sentence(&sign, self.done);
            let reported = self.reporter.diverged(self.done, &sign, sentence);
            self.note_failure(reported);
        }
        Ok(())
    }

    /// Counts a step whose gradient was not finite and which changed neither weights nor optimizer state.
    ///
    /// # Errors
    /// If the run allows no more of them.
    fn skip(&mut self, plan: &StepPlan, loss: f64, finite: &[f64]) -> anyhow::Result<()> {
        self.skipped += 1;
        let specs = self.state.layout().specs();
        let bad = specs.iter().zip(finite).filter(|(_, finite)| **finite == 0.0).map(|(spec, _)| &spec.name);
        let bad: Vec<&String> = bad.collect();
        let what = match bad.as_slice() {
            [] => "the loss is not finite although every gradient is".to_owned(),
            [only] => format!("the gradient of {only} is not finite"),
            [first, rest @ ..] => {
                format!("the gradients of {first} and {} are not finite", counted(rest.len() as u64, "other tensor"))
            }
        };
        let (step, tolerated) = (self.done, self.job.skip_non_finite);
        if self.skipped <= tolerated {
            self.reporter.say(&format!(
                "step {step}: {what} (loss {loss}); update skipped ({} of at most {tolerated})",
                self.skipped
            ));
            return Ok(());
        }
        self.reporter.finish();
        bail!(
            "step {step}: {what} (loss {loss}, learning rate {:.3e}), so the run stopped; the checkpoints in {} are from \
             earlier steps. Resume with a lower learning_rate or a longer warmup (and accept the changed settings), or allow \
             such steps to be skipped with skip_non_finite = {}",
            plan.learning_rate,
            self.job.checkpoint.directory,
            (2 * tolerated).max(10),
        );
    }

    /// Evaluates the model with the evaluation of phase `phase`.
    fn evaluate(&mut self, phase: usize) -> anyhow::Result<()> {
        let begin = Instant::now();
        let evaluator = &self.evaluators[phase];
        let weights = self.state.unsharded_weights()?;
        let measure = |weights: &[Vec<Buffer>]| {
            let Measured { sums, outputs } = evaluator.measure(weights, &self.devices)?;
            evaluator.evaluation(&self.hosts.all_reduce_sum(sums)?, &outputs)
        };
        let mut evaluation = measure(&weights)?;
        if let Some(averages) = self.state.unsharded_averages()? {
            evaluation.push_averaged(&measure(&averages)?);
        }
        if self.job.probe.is_some() {
            let specs = self.state.layout().specs();
            let measured = self.probe.as_mut().map(|probe| probe.evaluate(phase, specs, &weights)).transpose();
            match self.hosts.all_ok(measured)? {
                Some(Ok(metric)) => evaluation.push(metric),
                Some(Err(reason)) => self.report_missing_probe(&reason),
                None => {}
            }
        }
        if let Some(selection) = self.job.selection.as_ref().filter(|_| self.done > 0) {
            let earlier = self.best.take().filter(|best| self.is_evaluated_alike(best.step, phase));
            self.best = selection.updated(earlier, evaluation.value(&selection.metric), self.done);
        }
        self.alarm.evaluated(self.done, |metric| evaluation.value(metric));
        let sequence_length = self.job.schedule.phases()[phase].sequence_length;
        let reported = self.reporter.evaluation(self.done, sequence_length, evaluation, begin.elapsed());
        self.note_failure(reported);
        Ok(())
    }

    /// Reports at the end of the run, in phase `phase`, if the model has learned nothing.
    fn judge_end(&mut self, phase: usize) {
        if let Some(sentence) = self.alarm.nothing_learned(self.done, phase) {
            self.reporter.nothing_learned(sentence);
        }
    }

    /// Returns whether the evaluation after `done` updates was that of phase `phase`. Values on other examples, for example of another
    /// sequence length, cannot be compared.
    fn is_evaluated_alike(&self, done: u64, phase: usize) -> bool {
        let earlier = done.checked_sub(1).and_then(|step| self.job.schedule.at(step).ok());
        earlier.is_some_and(|earlier| Arc::ptr_eq(&self.evaluators[earlier.phase], &self.evaluators[phase]))
    }

    /// Records a failure of this host that ends the run on all hosts, after the next step at the latest.
    fn note_failure(&mut self, result: anyhow::Result<()>) {
        if let Err(error) = result {
            self.failure.get_or_insert(error);
        }
    }

    /// Prints at the first evaluation without a value of the probe that training continues.
    fn report_missing_probe(&mut self, reason: &ProbeError) {
        if !self.missing_probe_reported {
            self.missing_probe_reported = true;
            let missing = format!("step {}: probe_accuracy is missing", self.done);
            self.reporter.say(&format!("{missing}, and training continues: {reason}"));
        }
    }

    /// Starts to write a checkpoint on the leader, when the one before is complete.
    fn save(&mut self) -> anyhow::Result<()> {
        let begin = Instant::now();
        let written = self.written();
        self.note_failure(written);
        // All hosts keep the same record, although only the leader writes.
        self.alarm.saved(self.done, self.job.schedule.at(self.done - 1)?.phase);
        let record = State {
            step: self.done,
            metrics: self.reporter.last_step().clone(),
            best: self.best.clone(),
            divergence: Some(self.alarm.monitor().clone()),
            roll_backs: self.roll_backs.clone(),
            ..State::default()
        };
        let position = self.inputs.schedule.position(self.done)?;
        let started = match &mut self.checkpointer {
            Some(checkpointer) => checkpointer.start(&self.state, position, record),
            None => self.state.participate_in_to_host(),
        };
        let reported = self.reporter.held_up_by_save(self.done, begin.elapsed());
        self.note_failure(reported);
        self.hosts.all_ok(started)
    }

    /// Waits for the save in progress on the leader, and reports it.
    fn written(&mut self) -> anyhow::Result<()> {
        let Some(Saved { path, notes }) = self.checkpointer.as_mut().map_or(Ok(None), Checkpointer::wait)? else {
            return Ok(());
        };
        notes.iter().for_each(|note| self.reporter.say(note));
        self.reporter.newest_checkpoint(Some(path));
        Ok(())
    }

    /// Waits until every checkpoint is saved and uploaded, and uploads the metrics.
    ///
    /// # Errors
    /// The first failure of the run, also an earlier one.
    fn finish(&mut self) -> anyhow::Result<()> {
        let written = self.written();
        self.note_failure(written);
        self.reporter.finish();
        let failure = self.failure.take();
        self.hosts.all_ok(failure.map_or(Ok(()), Err))?;
        let notes = self.checkpointer.as_mut().map_or(Ok(Vec::new()), Checkpointer::finish)?;
        notes.iter().for_each(note);
        self.reporter.ended(self.done)?;
        // A failure loses nothing: the checkpoints are in the bucket, and the next start uploads these lines.
        if let Err(error) = self.checkpointer.as_ref().map_or(Ok(()), Checkpointer::upload_metrics) {
            note(format_args!("{error:#}"));
        }
        Ok(())
    }
}

/// Returns the work of one step of each phase, for the time left: where sequences share rows, fewer rows are computed.
fn work(job: &Job, rows_per_example: &[f64]) -> Vec<PhaseWork> {
    let mut work = job.work.clone();
    for ((work, spec), &rows_per_example) in work.iter_mut().zip(&job.steps).zip(rows_per_example) {
        let computed = rows_expected(spec.rows, rows_per_example, spec.micro_batch_size());
        work.flops_per_step *= computed as f64 / spec.rows as f64;
    }
    work
}
