//! What must hold on this machine before any long work: data that fits the model, batches that divide among the devices,
//! a run directory that can be written, and room for the checkpoints. All of it takes well under a second.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail, ensure};

use super::Run;
use crate::bert::param_specs;
use crate::data::{Dataset, PreparedData, Split};
use crate::schedule::Phase;
use crate::units::quantity;

/// Bytes of one checkpoint: weights and the slots of the optimizer, in f32.
pub fn checkpoint_bytes(run: &Run) -> u64 {
    let elements: usize = param_specs(&run.model).iter().map(|spec| spec.dims.iter().product::<usize>()).sum();
    (1 + run.optimizer.state_names().len() as u64) * 4 * elements as u64
}

/// Opens the prepared data of a run and checks that it is in the model's vocabulary.
///
/// # Errors
/// What is wrong with the data, or both sizes if the vocabularies differ.
pub fn open_data(run: &Run) -> anyhow::Result<Arc<PreparedData>> {
    let path = run.data.path.local();
    ensure!(
        path.exists(),
        "[data] path: {} does not exist; make it with `lambert prepare --out {} …` or name another directory",
        path.display(),
        path.display()
    );
    let prepared = Arc::new(PreparedData::open(path)?);
    let (model, data) = (run.model.vocab_size, prepared.vocabulary().len());
    ensure!(
        model == data,
        "[model] vocab_size requires the vocabulary of the data ({data} entries in {}), got {model}; leave the key out to \
         take the data's, or prepare the data with the model's tokenizer",
        path.display()
    );
    Ok(prepared)
}

/// The training examples of every phase, and the held-out ones of every phase's shape.
///
/// # Errors
/// If a split has too few documents, or a setting is impossible for the data.
pub fn examples(run: &Run, prepared: &Arc<PreparedData>, split: Split) -> anyhow::Result<Vec<Arc<Dataset>>> {
    let phases = 0..run.schedule.phases().len();
    let of_phase = |phase| Ok(Arc::new(Dataset::new(prepared.clone(), split, run.examples(phase))?));
    phases.map(of_phase).collect()
}

/// Checks that every phase's batch divides into equal micro-batches on each of `replicas` devices.
///
/// # Errors
/// With the nearest batches that do.
pub fn check_batches(run: &Run, replicas: usize) -> anyhow::Result<()> {
    run.schedule.phases().iter().try_for_each(|phase| check_batch(phase, replicas))
}

fn check_batch(phase: &Phase, replicas: usize) -> anyhow::Result<()> {
    let unit = phase.micro_batch_size * replicas;
    if phase.global_batch.is_multiple_of(unit) {
        return Ok(());
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

/// Makes the run directory and checks that it can be written and has room for what the run will keep there.
///
/// # Errors
/// Which directory, how much is needed and how much is free.
pub fn check_directory(run: &Run) -> anyhow::Result<()> {
    let directory = run.checkpoint.directory.local();
    std::fs::create_dir_all(directory)
        .with_context(|| format!("[checkpoint] directory: cannot make {}", directory.display()))?;
    let probe = directory.join(format!(".writable-{}", std::process::id()));
    std::fs::write(&probe, b"")
        .and_then(|()| std::fs::remove_file(&probe))
        .with_context(|| format!("[checkpoint] directory: cannot write into {}", directory.display()))?;

    let steps = run.schedule.steps();
    let saves = if run.checkpoint.every == 0 { 1 } else { steps.div_ceil(run.checkpoint.every) };
    // The oldest is removed after the newest is whole.
    let at_once = if run.checkpoint.keep == 0 { saves } else { saves.min(run.checkpoint.keep as u64 + 1) };
    let held = held_bytes(directory);
    let required = (at_once * checkpoint_bytes(run)).saturating_sub(held);
    let free = fs4::available_space(directory)
        .with_context(|| format!("cannot ask for the free space of {}", directory.display()))?;
    ensure!(
        free >= required,
        "[checkpoint] directory: {} requires {}B free for {at_once} checkpoints, found {}B; make room, choose another \
         directory, or lower `keep`",
        directory.display(),
        quantity(required as f64),
        quantity(free as f64)
    );
    Ok(())
}

/// Bytes of the checkpoints that a resumed run already has there.
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
    fn a_batch_that_does_not_divide_is_answered_with_its_neighbours() {
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
}
