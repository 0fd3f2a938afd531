//! The training loop. A step is launched before the one before it has been read, so that the device never waits for the
//! host; everything else (evaluation, saving, stopping) happens between two steps, when none is under way.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::compile::Compiled;
use super::devices::Devices;
use super::evaluate::{EvaluateOptions, Evaluation, Evaluator};
use super::feed::{Fed, Feed, Source, rows_expected};
use super::hosts::{Hosts, Vote};
use super::interrupt::Interrupt;
use super::metrics::MetricsLog;
use super::plan::saved::SavedSteps;
use super::preflight;
use super::progress::{PhaseWork, Progress, Report, duration};
use super::run::Run;
use super::start::{Start, data_fingerprint};
use super::state::{StateLayout, TrainState};
use super::step::{METRICS, StepSpec, TrainStep};
use super::summary::Summary;
use super::uploader::Uploader;
use crate::checkpoint::{COPIED_FILES, Checkpoint, State, save};
use crate::data::{Examples, Prepared, Split, predictions_of_row};
use crate::output::note;
use crate::pjrt::{Buffer, HostTransfer};
use crate::schedule::StepPlan;

/// A run on its devices, compiled and ready.
pub struct Trainer {
    run: Run,
    devices: Devices,
    hosts: Hosts,
    prepared: Arc<Prepared>,
    /// One step and one evaluation for each phase; phases of one shape share them.
    steps: Vec<Arc<Compiled>>,
    evaluators: Vec<Arc<Evaluator>>,
    source: Source,
    /// Of each phase, by its first sequences.
    rows_per_sequence: Vec<f64>,
    state: TrainState,
    /// Weight updates done and read.
    done: u64,
    /// Updates left out because a gradient was not finite.
    skipped: u64,
    last_metrics: serde_json::Map<String, serde_json::Value>,
    last_end: Instant,
    /// Someone has interrupted the run, on whichever host.
    stop: bool,
    /// The leading host's alone.
    log: Option<MetricsLog>,
    /// Of a run in a bucket, on the leading host.
    uploader: Option<Uploader>,
    progress: Progress,
    summary: Summary,
}

/// How much of the prepared text a phase sees.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Coverage {
    /// Examples of the whole phase.
    pub sequences: u64,
    /// Examples that the first epoch has.
    pub an_epoch: u64,
    pub epochs: f64,
    /// How many of them share a row at most, and how many rows one takes.
    pub sequences_per_row: usize,
    pub rows_per_sequence: f64,
}

/// How a run ended.
#[derive(Debug)]
pub enum Outcome {
    Finished,
    /// By Ctrl-C or SIGTERM, with everything saved.
    Interrupted,
}

/// A step that was launched and not yet read.
struct Running {
    step: u64,
    plan: StepPlan,
    waited: Duration,
    padding: f64,
    positions: usize,
    /// Whether any host is to stop.
    stop: Option<Vote>,
    metrics: HostTransfer,
    trust_ratios: HostTransfer,
    finite: HostTransfer,
}

impl Trainer {
    /// Compiles every phase (its step is taken from `saved` instead, if there is one), and puts the first weights on the
    /// devices.
    ///
    /// # Errors
    /// If a program cannot be compiled or `saved` is for others, the weights do not fit the model, or the devices have no
    /// room.
    pub fn new(
        run: Run,
        prepared: Arc<Prepared>,
        devices: Devices,
        hosts: Hosts,
        start: Start,
        saved: Option<&SavedSteps>,
    ) -> anyhow::Result<Trainer> {
        let begin = Instant::now();
        let examples = preflight::examples(&run, &prepared, Split::Train)?;
        let mut steps: Vec<Arc<Compiled>> = Vec::new();
        let mut evaluators: Vec<Arc<Evaluator>> = Vec::new();
        let specs = (0..run.schedule.phases().len()).map(|phase| step_spec(&run, phase, devices.len()));
        let specs: Vec<StepSpec> = specs.collect::<anyhow::Result<_>>()?;
        for (phase, spec) in specs.iter().enumerate() {
            let equal = specs[..phase].iter().position(|earlier| earlier == spec);
            steps.push(match equal {
                Some(earlier) => steps[earlier].clone(),
                None => {
                    let build = || Ok(TrainStep::build(spec)?.program);
                    Arc::new(match saved {
                        Some(saved) => saved.load(phase, &devices, build)?,
                        None => Compiled::new(&devices, build)?,
                    })
                }
            });
            let options: Vec<EvaluateOptions> = (0..=phase).map(|phase| evaluate_options(&run, phase)).collect();
            let equal = options[..phase].iter().position(|earlier| *earlier == options[phase]);
            evaluators.push(match equal {
                Some(earlier) => evaluators[earlier].clone(),
                None => Arc::new(Evaluator::new(&run.model, &prepared, &options[phase], &devices)?),
            });
        }
        let compiled = begin.elapsed();

        let layout = StateLayout::of(&specs[0]);
        let done = start.step();
        let state = match start {
            Start::Fresh => TrainState::initial(layout, run.seed, &devices)?,
            Start::Import(found) => TrainState::restore(layout, found.checkpoint, &found.path, run.seed, &devices)?,
            Start::Resume { checkpoint, path } => TrainState::restore(layout, *checkpoint, &path, run.seed, &devices)?,
        };
        let rows_of = |(spec, examples): (&StepSpec, &Arc<Examples>)| {
            examples.rows_per_sequence(spec.rows * spec.replicas, spec.sequences_per_row)
        };
        let rows_per_sequence: Vec<f64> = specs.iter().zip(&examples).map(rows_of).collect();
        let source = Source {
            schedule: run.schedule.clone(),
            seed: run.seed,
            examples,
            sequences_per_row: specs.iter().map(|spec| spec.sequences_per_row).collect(),
            inputs: steps.iter().map(|step| step.fed_inputs()).collect(),
        };
        let open_log = || MetricsLog::open(run.checkpoint.directory.local(), done);
        let log = hosts.together(hosts.leads().then(open_log).transpose())?;
        let progress = Progress::new(work(&run, &specs, &rows_per_sequence), done, hosts.leads());
        let summary = Summary::new(&run, compiled);
        let uploader = if hosts.leads() { Uploader::new(&run.checkpoint)? } else { None };
        let (last_end, last_metrics) = (Instant::now(), serde_json::Map::new());
        Ok(Trainer {
            run,
            devices,
            hosts,
            prepared,
            steps,
            evaluators,
            source,
            rows_per_sequence,
            state,
            done,
            skipped: 0,
            last_metrics,
            last_end,
            stop: false,
            log,
            uploader,
            progress,
            summary,
        })
    }

    /// The compiled steps, one a phase.
    pub fn steps(&self) -> &[Arc<Compiled>] {
        &self.steps
    }

    pub fn hosts(&self) -> &Hosts {
        &self.hosts
    }

    /// How much of the data each phase will see, and in how many rows.
    pub fn coverage(&self) -> Vec<Coverage> {
        let phases = self.run.schedule.phases().iter().enumerate();
        let coverage = phases.map(|(index, phase)| {
            let (examples, sequences) = (&self.source.examples[index], phase.steps * phase.global_batch as u64);
            Coverage {
                sequences,
                an_epoch: examples.epoch_len(0),
                epochs: examples.epochs_covered(sequences),
                sequences_per_row: self.source.sequences_per_row[index],
                rows_per_sequence: self.rows_per_sequence[index],
            }
        });
        coverage.collect()
    }

    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    /// Takes the steps that are left.
    ///
    /// # Errors
    /// If more updates had to be left out than the run tolerates, or data, device or disk fail. What was saved before
    /// stays.
    pub fn train(&mut self, interrupt: Interrupt) -> anyhow::Result<Outcome> {
        let total = self.run.schedule.steps();
        if self.done == 0 {
            self.evaluate(0)?;
        }
        let mut feed = Feed::start(self.source.clone(), &self.devices, self.done..total)?;
        let mut running: Option<Running> = None;
        self.last_end = Instant::now();
        while let Some((fed, waited)) = feed.wait()? {
            let plan = fed.plan.clone();
            let launched = self.launch(fed, waited, interrupt.asked())?;
            if let Some(before) = running.replace(launched) {
                self.read(before)?;
            }
            let after = self.done + 1;
            let phase = &self.run.schedule.phases()[plan.phase];
            let ends_phase = plan.step_in_phase + 1 == phase.steps;
            let due = |every: u64| ends_phase || (every > 0 && after.is_multiple_of(every));
            let (evaluate, save) = (due(self.run.evaluate.every), due(self.run.checkpoint.every));
            // All hosts must stop at the same step: what they have told each other counts, and lags one step behind.
            let stop = self.stop || self.hosts.len() == 1 && interrupt.asked();
            if !(evaluate || save || stop) {
                continue;
            }
            if let Some(last) = running.take() {
                self.read(last)?;
            }
            if evaluate {
                self.evaluate(plan.phase)?;
            }
            if save || stop {
                self.save()?;
            }
            if stop && self.done < total {
                self.finish_upload()?;
                return Ok(Outcome::Interrupted);
            }
            self.last_end = Instant::now();
        }
        self.finish_upload()?;
        Ok(Outcome::Finished)
    }

    /// Starts a step and returns while it runs; `stop` is whether this host was asked to stop.
    fn launch(&mut self, fed: Fed, waited: Duration, stop: bool) -> anyhow::Result<Running> {
        let phase = &self.run.schedule.phases()[fed.plan.phase];
        if fed.plan.step_in_phase == 0 && fed.plan.phase > 0 && !phase.carry_moments {
            self.state.reset_slots(&self.devices)?;
        }
        let arguments: Vec<Vec<&Buffer>> = self
            .state
            .buffers()
            .iter()
            .zip(&fed.buffers)
            .map(|(state, fed)| state.iter().chain(fed).collect())
            .collect();
        let step = &self.steps[fed.plan.phase];
        let mut outputs = step.executable.execute(&arguments).with_context(|| format!("step {}", fed.step + 1))?;
        drop(arguments);

        let held = self.state.layout().len();
        let reports = outputs.iter_mut().map(|outputs| outputs.split_off(held));
        // Every replica reports the same.
        let reports: Vec<Buffer> = reports.take(self.devices.devices.len()).next().unwrap_or_default();
        outputs.iter_mut().for_each(|outputs| outputs.truncate(held));
        self.state.replace(outputs);
        let report = |name: &str| {
            let at = step.outputs[held..].iter().position(|value| value.name == name);
            let buffer = at.and_then(|at| reports.get(at)).with_context(|| format!("the step reports no {name}"))?;
            Ok::<_, anyhow::Error>(buffer.to_host_async()?)
        };
        Ok(Running {
            step: fed.step,
            plan: fed.plan,
            waited,
            padding: fed.padding,
            positions: fed.positions,
            stop: self.hosts.ask(stop)?,
            metrics: report("metrics")?,
            trust_ratios: report("trust_ratios")?,
            finite: report("finite")?,
        })
    }

    /// Waits for a step and tells what it reports.
    fn read(&mut self, running: Running) -> anyhow::Result<()> {
        let Running { step, plan, waited, padding, positions, .. } = running;
        let failed = || format!("step {} failed on the device", step + 1);
        let metrics = running.metrics.wait().with_context(failed)?.to_f64();
        let trust_ratios = running.trust_ratios.wait().with_context(failed)?.to_f64();
        let finite = running.finite.wait().with_context(failed)?.to_f64();
        self.stop |= running.stop.map_or(Ok(false), Vote::any)?;
        let elapsed = self.last_end.elapsed();
        self.last_end = Instant::now();
        self.done = step + 1;

        let behind = plan.first_example + plan.global_batch as u64;
        let epochs = self.source.examples[plan.phase].epochs_covered(behind);
        let value = |name: &str| METRICS.iter().position(|metric| *metric == name).map_or(f64::NAN, |at| metrics[at]);
        let seconds = elapsed.as_secs_f64();
        let mut scalars: Vec<(&str, f64)> = METRICS.iter().copied().zip(metrics.iter().copied()).collect();
        // Single segments have no second one to predict.
        scalars.retain(|(name, _)| self.run.data.mode.is_pair() || !name.starts_with("nsp_"));
        scalars.extend([
            ("learning_rate", plan.learning_rate),
            ("phase", (plan.phase + 1) as f64),
            ("epoch", epochs),
            ("sequences_per_second", plan.global_batch as f64 / seconds),
            ("tokens_per_second", positions as f64 / seconds),
            ("padding", padding),
            ("waiting_for_data", (waited.as_secs_f64() / seconds).min(1.0)),
        ]);
        scalars.extend(spread(&trust_ratios));
        if let Some(log) = &mut self.log {
            log.record("train", self.done, &scalars)?;
        }
        self.last_metrics = scalars.iter().map(|(name, value)| (name.to_string(), (*value).into())).collect();
        let report = Report {
            step: self.done,
            phase: plan.phase,
            loss: value("loss"),
            mlm_accuracy: value("mlm_accuracy"),
            sequences: plan.global_batch,
            tokens: positions,
            elapsed,
            waited,
            epochs,
        };
        self.progress.step(&report);
        self.summary.step(&report);
        if value("skipped") != 0.0 || !value("loss").is_finite() {
            self.skip(&plan, value("loss"), &finite)?;
        }
        Ok(())
    }

    /// A step whose gradient was not finite: weights and slots are as before it.
    fn skip(&mut self, plan: &StepPlan, loss: f64, finite: &[f64]) -> anyhow::Result<()> {
        self.skipped += 1;
        let specs = self.state.layout().specs();
        let bad = specs.iter().zip(finite).filter(|(_, finite)| **finite == 0.0).map(|(spec, _)| &spec.name);
        let bad: Vec<&String> = bad.collect();
        let what = match bad.as_slice() {
            [] => "the loss is not finite although every gradient is".to_owned(),
            [only] => format!("the gradient of {only} is not finite"),
            [first, rest @ ..] => format!("the gradients of {first} and {} more tensors are not finite", rest.len()),
        };
        let (step, tolerated) = (self.done, self.run.skip_non_finite);
        if self.skipped <= tolerated {
            self.progress
                .say(&format!("step {step}: {what} (loss {loss}); no update ({} of {tolerated})", self.skipped));
            return Ok(());
        }
        self.progress.finish();
        bail!(
            "step {step}: {what} (loss {loss}, learning rate {:.3e}); nothing was updated or saved since. Checkpoints in {} \
             are from before. Try a lower learning_rate or a longer warmup (with --resume --accept-changes), or tolerate \
             some such steps with skip_non_finite = {}",
            plan.learning_rate,
            self.run.checkpoint.directory,
            (2 * tolerated).max(10),
        );
    }

    /// Measures the model on the held-out examples in the shape of phase `phase`.
    fn evaluate(&mut self, phase: usize) -> anyhow::Result<Evaluation> {
        let begin = Instant::now();
        let evaluator = &self.evaluators[phase];
        let sums = self.hosts.sum(evaluator.sums(&self.state.whole_weights()?, &self.devices)?)?;
        let evaluation = evaluator.evaluation(sums);
        if let Some(log) = &mut self.log {
            log.record("evaluation", self.done, &evaluation.scalars())?;
        }
        let nsp = match evaluation.of_pairs() {
            true => format!(", NSP accuracy {:.2} %", 100.0 * evaluation.nsp_accuracy),
            false => String::new(),
        };
        self.progress.say(&format!(
            "step {}: held-out MLM loss {:.4}, MLM accuracy {:.2} %{nsp} ({} examples of length {}, {})",
            self.done,
            evaluation.mlm_loss,
            100.0 * evaluation.mlm_accuracy,
            evaluation.examples,
            self.run.schedule.phases()[phase].sequence_length,
            duration(begin.elapsed()),
        ));
        self.summary.evaluation(self.done, evaluation, begin.elapsed());
        Ok(evaluation)
    }

    /// Writes a checkpoint of the steps done: the leading host does, and the others wait to hear that it could.
    fn save(&mut self) -> anyhow::Result<()> {
        let begin = Instant::now();
        let written = match self.hosts.leads() {
            true => self.write_checkpoint().map(Some),
            false => self.state.lend_to_host().map(|()| None),
        };
        if let Some(path) = self.hosts.together(written)? {
            self.summary.saved(path, begin.elapsed());
        }
        Ok(())
    }

    fn write_checkpoint(&mut self) -> anyhow::Result<PathBuf> {
        let (model, optimizer) = self.state.to_host()?;
        let not_finite = |(_, tensor): &&(String, crate::shape::HostTensor)| {
            tensor.bytes().chunks_exact(4).any(|b| !f32::from_le_bytes([b[0], b[1], b[2], b[3]]).is_finite())
        };
        if let Some((name, _)) = model.iter().chain(&optimizer).find(not_finite) {
            bail!(
                "step {}: {name} holds a value that is not finite, so nothing was saved; the checkpoints in {} are from \
                 before. Try a lower learning_rate (with --resume --accept-changes)",
                self.done,
                self.run.checkpoint.directory
            );
        }
        let checkpoint = Checkpoint { state: self.position()?, model, optimizer, files: self.copied_files()? };
        // Saving removes old checkpoints: not while one of them is being sent.
        self.tell_of_upload();
        let saved = save(self.run.checkpoint.directory.local(), &checkpoint, self.run.checkpoint.keep)?;
        saved.notes.iter().for_each(|note| self.progress.say(note));
        if let Some(uploader) = &mut self.uploader {
            uploader.start()?;
        }
        Ok(saved.path)
    }

    /// Waits for the upload under way and says what it did. That it failed stops no training: the next one sends what it
    /// could not.
    fn tell_of_upload(&mut self) {
        let Some(uploader) = &mut self.uploader else { return };
        match uploader.wait() {
            Ok(notes) => notes.iter().for_each(|note| self.progress.say(note)),
            Err(error) => self.progress.say(&format!("{error:#}")),
        }
    }

    /// Waits until everything that was saved is in the bucket.
    fn finish_upload(&mut self) -> anyhow::Result<()> {
        self.progress.finish();
        let Some(uploader) = &mut self.uploader else { return Ok(()) };
        uploader.wait()?.iter().for_each(note);
        Ok(())
    }

    /// Everything that the next step depends on and that is no tensor.
    fn position(&self) -> anyhow::Result<State> {
        let schedule = &self.run.schedule;
        let state = State {
            step: self.done,
            seed: self.run.seed,
            run_fingerprint: self.run.fingerprint(&data_fingerprint(self.prepared.manifest())),
            vocabulary_sha256: self.prepared.vocabulary().sha256().to_owned(),
            metrics: self.last_metrics.clone(),
            ..State::default()
        };
        if self.done < schedule.steps() {
            let next = schedule.at(self.done)?;
            return Ok(State {
                phase: next.phase,
                step_in_phase: next.step_in_phase,
                next_example: next.first_example,
                optimizer_steps: next.optimizer_step - 1,
                ..state
            });
        }
        let last = schedule.at(self.done - 1)?;
        Ok(State {
            phase: last.phase,
            step_in_phase: last.step_in_phase + 1,
            next_example: last.first_example + last.global_batch as u64,
            optimizer_steps: last.optimizer_step,
            ..state
        })
    }

    /// The run file, the model's configuration and the tokenizer, as they go into a checkpoint.
    fn copied_files(&self) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
        let mut config = serde_json::to_value(&self.run.model)?;
        config["model_type"] = "bert".into();
        config["architectures"] = serde_json::json!(["BertForPreTraining"]);
        let mut files = vec![
            ("run.toml".to_owned(), self.run.text.clone().into_bytes()),
            ("config.json".to_owned(), serde_json::to_vec_pretty(&config)?),
        ];
        let tokenizer = self.prepared.tokenizer_directory();
        for name in COPIED_FILES {
            let path = tokenizer.join(name);
            if files.iter().all(|(taken, _)| taken != name) && path.exists() {
                let content = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
                files.push((name.to_owned(), content));
            }
        }
        Ok(files)
    }
}

/// The phases as the progress display weighs them: where sequences share rows, there are fewer rows to compute.
fn work(run: &Run, specs: &[StepSpec], rows_per_sequence: &[f64]) -> Vec<PhaseWork> {
    let mut work = run.work();
    for ((work, spec), &rows_per_sequence) in work.iter_mut().zip(specs).zip(rows_per_sequence) {
        let computed = rows_expected(spec.rows, rows_per_sequence, spec.rows / spec.micro_batches);
        work.flops_a_step *= computed as f64 / spec.rows as f64;
    }
    work
}

/// What phase `phase`'s step depends on, with `replicas` devices.
///
/// # Errors
/// If the batch does not divide.
pub fn step_spec(run: &Run, phase: usize, replicas: usize) -> anyhow::Result<StepSpec> {
    let shape = &run.schedule.phases()[phase];
    let micro_batches = shape.micro_batches(replicas)?;
    let sequences_per_row = shape.sequences_per_row(micro_batches);
    Ok(StepSpec {
        model: run.model.clone(),
        optimizer: run.optimizer.clone(),
        precision: run.precision,
        sequence_length: shape.sequence_length,
        predictions: predictions_of_row(&run.examples(phase), sequences_per_row),
        sequences_per_row,
        rows: shape.global_batch / replicas,
        micro_batches,
        replicas,
        parallel: run.parallel.resolve(&run.model, &run.optimizer, replicas),
        dropout: true,
        recompute: run.recompute,
    })
}

fn evaluate_options(run: &Run, phase: usize) -> EvaluateOptions {
    let shape = &run.schedule.phases()[phase];
    EvaluateOptions {
        precision: run.precision,
        config: run.data.held_out(shape.sequence_length, shape.predictions),
        examples: run.evaluate.examples,
        batch: run.evaluate.batch,
    }
}

/// Smallest, middle and largest trust ratio.
fn spread(ratios: &[f64]) -> [(&'static str, f64); 3] {
    let mut sorted = ratios.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |share: usize| sorted.get(share.min(sorted.len().saturating_sub(1))).copied().unwrap_or(f64::NAN);
    [("trust_ratio_min", at(0)), ("trust_ratio_median", at(sorted.len() / 2)), ("trust_ratio_max", at(usize::MAX))]
}
