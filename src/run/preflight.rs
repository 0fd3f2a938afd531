//! The checks of a run on this machine before any long work: the data fits the model, the batches divide among the devices,
//! the run directory is writable, and the disk has space for the checkpoints. They take less than a second.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail, ensure};

use super::compatibility::check_rows;
use super::{CheckpointSettings, Run};
use crate::checkpoint::Keep;
use crate::data::{Dataset, PreparedData, Split};
use crate::schedule::Phase;
use crate::task::ParamSpec;
use crate::units::quantity;

/// Returns the bytes of one checkpoint: weights and `kinds` tensors of state for each, in f32.
pub fn checkpoint_bytes(params: &[ParamSpec], kinds: usize) -> u64 {
    let elements: usize = params.iter().map(|spec| spec.dims.iter().product::<usize>()).sum();
    (1 + kinds as u64) * 4 * elements as u64
}

/// Opens the prepared data of a run, and checks that the model has a row of the word embeddings for each token of the data, and
/// the same padding token. Also returns a note if it has more rows.
///
/// # Errors
/// If the data is damaged or does not exist, or does not fit the model.
pub fn open_data(run: &Run) -> anyhow::Result<(Arc<PreparedData>, Option<String>)> {
    let path = run.data.path.local();
    ensure!(
        path.exists(),
        "[data] path: {} does not exist; prepare the data with `lambert prepare`, or name another directory",
        path.display()
    );
    let prepared = Arc::new(PreparedData::open(path)?);
    let vocabulary = prepared.vocabulary_file();
    let model = match &run.import {
        Some(import) => format!("the model of {}", import.display()),
        None => "[model]".to_owned(),
    };
    let note = check_rows(&model, &run.model, &vocabulary)?;
    let (pad, found) = (vocabulary.vocabulary.special().pad, run.model.pad_token_id);
    ensure!(
        pad as usize == found,
        "{model} requires pad_token_id {pad}, the id of the padding token in {}, got {found}; set pad_token_id in [model]",
        vocabulary.path.display()
    );
    Ok((prepared, note))
}

/// Opens the training examples of every phase.
///
/// # Errors
/// If there are too few training documents, or a setting is not possible for the data.
pub fn training_datasets(run: &Run, prepared: &Arc<PreparedData>) -> anyhow::Result<Vec<Arc<Dataset>>> {
    let phases = 0..run.schedule.phases().len();
    let of_phase = |phase| Ok(Arc::new(Dataset::new(prepared.clone(), Split::Train, run.training_examples(phase))?));
    phases.map(of_phase).collect()
}

/// Checks that the global batch of each phase divides into equal micro-batches on `replicas` devices.
///
/// # Errors
/// If one does not, with the nearest batch sizes that do.
pub fn check_batches(run: &Run, replicas: usize) -> anyhow::Result<()> {
    run.schedule.phases().iter().try_for_each(|phase| check_batch(phase, replicas))
}

fn check_batch(phase: &Phase, replicas: usize) -> anyhow::Result<()> {
    let unit = phase.micro_batch_size * replicas;
    if phase.global_batch.is_multiple_of(unit) {
        return Ok(phase.accumulation_steps(replicas).map(drop)?);
    }
    let below = phase.global_batch / unit * unit;
    let above = below + unit;
    let nearest = if below == 0 { above.to_string() } else { format!("{below} and {above}") };
    bail!(
        "[[phase]] {:?}: global_batch requires a multiple of devices × micro_batch_size ({replicas} × {} = {unit}), got {}; the \
         nearest are {nearest}",
        phase.name,
        phase.micro_batch_size,
        phase.global_batch
    )
}

/// The checkpoints that a run writes into its directory.
#[derive(Clone, Copy, Debug)]
pub struct CheckpointSeries<'a> {
    /// The `[checkpoint]` table.
    pub settings: &'a CheckpointSettings,
    /// The steps of the run.
    pub steps: u64,
    /// Steps between evaluations of a run that also saves and keeps its best checkpoint.
    pub best_of_every: Option<u64>,
    /// The bytes of one checkpoint.
    pub bytes: u64,
}

impl CheckpointSeries<'_> {
    /// Returns the number of saves, at most: one after each evaluation could be the best so far.
    fn saves(&self) -> u64 {
        let scheduled = if self.settings.every == 0 { 1 } else { self.steps.div_ceil(self.settings.every) };
        scheduled + self.best_of_every.map_or(0, |every| self.steps.div_ceil(every))
    }

    /// Returns the number of checkpoints that stay, at most: the newest ones, those of every `keep_every` steps, the best one and the
    /// last good one.
    fn kept(&self) -> u64 {
        let Keep { newest, every } = self.settings.kept();
        let of_steps = self.steps.checked_div(every).unwrap_or(0);
        match newest {
            0 => self.saves(),
            newest => self.saves().min(newest as u64 + of_steps + u64::from(self.best_of_every.is_some()) + 1),
        }
    }

    /// Returns the number of checkpoints in the directory at once: the oldest is removed after the newest is complete.
    fn at_once(&self) -> u64 {
        self.saves().min(self.kept() + 1)
    }

    /// Returns the bytes by which the directory grows until the end of the run.
    pub fn bytes_to_come(&self) -> u64 {
        self.missing_bytes(self.kept())
    }

    /// Returns the bytes that `checkpoints` checkpoints take beside those in the directory of a resumed run.
    fn missing_bytes(&self, checkpoints: u64) -> u64 {
        (checkpoints * self.bytes).saturating_sub(held_bytes(self.settings.directory.local()))
    }
}

/// Creates the run directory and checks that it is writable and that its disk has space for the checkpoints of `series`, and for
/// `reserved` bytes that other runs will write.
///
/// # Errors
/// If the directory cannot be created or written, or the space is too small, with the required and the free bytes.
pub fn check_directory(series: &CheckpointSeries, reserved: u64) -> anyhow::Result<()> {
    let directory = series.settings.directory.local();
    std::fs::create_dir_all(directory)
        .with_context(|| format!("[checkpoint] directory: cannot create {}", directory.display()))?;
    let probe = directory.join(format!(".writable-{}", std::process::id()));
    std::fs::write(&probe, b"")
        .and_then(|()| std::fs::remove_file(&probe))
        .with_context(|| format!("[checkpoint] directory: cannot write into {}", directory.display()))?;

    let required = series.missing_bytes(series.at_once()) + reserved;
    let free = fs4::available_space(directory)
        .with_context(|| format!("cannot determine the free space of {}", directory.display()))?;
    let others = if reserved > 0 { " and those of the seeds after it" } else { "" };
    ensure!(
        free >= required,
        "[checkpoint] directory: {} requires {}B of free space for {} checkpoints{others}, found {}B; free space, choose another \
         directory, or {} `keep`",
        directory.display(),
        quantity(required as f64),
        series.at_once(),
        quantity(free as f64),
        if series.settings.keep == 0 { "set" } else { "lower" }
    );
    Ok(())
}

/// Returns the bytes of the checkpoints in the directory of a resumed run.
fn held_bytes(directory: &Path) -> u64 {
    let entries = |path: &Path| -> Vec<PathBuf> {
        std::fs::read_dir(path).map(|e| e.flatten().map(|e| e.path()).collect()).unwrap_or_default()
    };
    let files = entries(directory).into_iter().filter(|path| path.is_dir()).flat_map(|path| entries(&path));
    files.filter_map(|file| file.metadata().ok()).map(|metadata| metadata.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_about_an_indivisible_batch_names_the_nearest_divisible_ones() {
        let phase: Phase = toml::from_str(
            "name = 'short'\nsequence_length = 8\nmax_predictions_per_seq = 2\nglobal_batch = 96\nmicro_batch_size = 16\nsteps = 1\n\
             learning_rate = 1.0",
        )
        .unwrap();
        check_batch(&phase, 3).unwrap();
        assert_eq!(
            check_batch(&phase, 4).unwrap_err().to_string(),
            "[[phase]] \"short\": global_batch requires a multiple of devices × micro_batch_size (4 × 16 = 64), got 96; the \
             nearest are 64 and 128"
        );
        assert!(check_batch(&phase, 8).unwrap_err().to_string().ends_with("the nearest are 128"));
    }

    #[test]
    fn saves_of_the_best_checkpoint_are_counted() {
        let counts = |every: u64, keep: usize, best_of_every: Option<u64>| {
            let settings: CheckpointSettings =
                toml::from_str(&format!("directory = 'nowhere'\nevery = {every}\nkeep = {keep}")).unwrap();
            let series = CheckpointSeries { settings: &settings, steps: 100, best_of_every, bytes: 7 };
            assert_eq!(series.bytes_to_come(), 7 * series.kept());
            (series.saves(), series.kept(), series.at_once())
        };
        assert_eq!(counts(0, 3, None), (1, 1, 1));
        assert_eq!(counts(30, 3, None), (4, 4, 4));
        assert_eq!(counts(10, 3, None), (10, 4, 5));
        assert_eq!(counts(30, 0, None), (4, 4, 4));
        assert_eq!(counts(0, 1, Some(25)), (5, 3, 4));
        assert_eq!(counts(0, 0, Some(25)), (5, 5, 5));
    }

    #[test]
    fn space_that_other_runs_need_is_required_too() {
        let directory = tempfile::tempdir().unwrap();
        let settings: CheckpointSettings =
            toml::from_str(&format!("directory = '{}'\nkeep = 1", directory.path().display())).unwrap();
        let series = CheckpointSeries { settings: &settings, steps: 100, best_of_every: Some(25), bytes: 1000 };
        check_directory(&series, 0).unwrap();
        let message = check_directory(&series, 1 << 60).unwrap_err().to_string();
        assert!(message.contains("for 4 checkpoints and those of the seeds after it, found"), "{message}");
    }
}
