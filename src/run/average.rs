//! The mean of the weights of several checkpoints of one model, saved as a checkpoint of its own (arXiv 1803.05407, 2209.14981).

use std::path::{Path, PathBuf};

use anyhow::ensure;
use rayon::prelude::*;

use super::compatibility::{check_tokenizer, tokenizer_of};
use super::weights::{FoundModel, open_model};
use crate::checkpoint::{Checkpoint, Keep, RunDirectory, RunLock, State, arrange, checkpoint_paths};
use crate::files::check_new_directory;
use crate::shape::{DType, HostTensor, Shape};

/// A saved average.
#[derive(Debug)]
pub struct Average {
    /// The directory of its checkpoint.
    pub path: PathBuf,
    /// The directories of the averaged checkpoints and their steps, in order.
    pub of: Vec<(PathBuf, u64)>,
    /// Messages for the user.
    pub notes: Vec<String>,
}

/// Returns the directories of the `last` newest checkpoints of the run directory `run`, in the order of their steps.
///
/// # Errors
/// If the directory cannot be listed, or holds fewer checkpoints.
pub fn newest_checkpoints(run: &Path, last: usize) -> anyhow::Result<Vec<PathBuf>> {
    let mut paths = checkpoint_paths(run)?;
    ensure!(
        paths.len() >= last,
        "an average of the last {last} checkpoints requires as many step-… directories in {}, found {}; average fewer, or train \
         with [checkpoint] keep = {last}",
        run.display(),
        paths.len()
    );
    Ok(paths.split_off(paths.len() - last))
}

/// Writes the mean of the weights of `checkpoints` as a checkpoint into the new run directory `out`. The mean is computed in f64 and
/// rounded to f32. Step, run file, configuration and tokenizer are those of the last of `checkpoints`. There is no optimizer state
/// and no fingerprint, as after an import, so any run of the model can start from it.
///
/// # Errors
/// If there are fewer than two checkpoints, one cannot be read or is of another model, or `out` is not empty.
pub fn average(checkpoints: &[PathBuf], out: &Path) -> anyhow::Result<Average> {
    let [first, others @ ..] = checkpoints else { return Err(too_few(0)) };
    ensure!(!others.is_empty(), too_few(1));
    check_new_directory(out)?;
    let mut model = open_complete(first)?;
    let mut sum = Sum::of(std::mem::take(&mut model.checkpoint.model));
    let mut of = vec![(model.path.clone(), model.checkpoint.state.step)];
    let mut notes = Vec::new();
    for path in others {
        let mut next = open_complete(path)?;
        notes.extend(check_same_model(&model, &next)?);
        sum.add(&next.path, std::mem::take(&mut next.checkpoint.model))?;
        of.push((next.path.clone(), next.checkpoint.state.step));
        model = next;
    }
    let checkpoint = averaged(model.checkpoint, sum.mean(of.len()));
    let _lock = RunLock::take(out)?;
    let saved = RunDirectory::new(out, Keep::ALL).save(&checkpoint)?;
    notes.extend(saved.notes);
    notes.dedup();
    Ok(Average { path: saved.path, of, notes })
}

fn too_few(found: usize) -> anyhow::Error {
    anyhow::anyhow!("an average requires at least 2 checkpoints, got {found}")
}

/// Opens the model in `path`, which must have all its tensors.
fn open_complete(path: &Path) -> anyhow::Result<FoundModel> {
    let model = open_model(path)?;
    let missing = &model.checkpoint.state.missing;
    ensure!(
        missing.is_empty(),
        "{} lacks {}, which a run that starts from it initialises; train first, then average",
        model.path.display(),
        missing.join(", ")
    );
    Ok(model)
}

/// Checks that `next` has the configuration, the head and the tokenizer of `model`. Returns a note if tokenizers cannot be compared.
fn check_same_model(model: &FoundModel, next: &FoundModel) -> anyhow::Result<Option<String>> {
    let (own, other) = (model.path.display(), next.path.display());
    let differing = model.config.differences(&next.config);
    let differing: Vec<String> =
        differing.into_iter().map(|(key, own, other)| format!("{key} ({own}, {other})")).collect();
    ensure!(
        differing.is_empty(),
        "an average requires checkpoints of one model, but {own} and {other} differ in {}",
        differing.join(", ")
    );
    ensure!(
        model.head == next.head,
        "an average requires checkpoints of one model, but {own} is a {} and {other} a {} (or they have other labels)",
        model.head.architecture(),
        next.head.architecture()
    );
    let Some(tokenizer) = tokenizer_of(&model.checkpoint, &model.path)? else { return Ok(None) };
    Ok(check_tokenizer(&next.checkpoint, &next.path, &tokenizer, "average checkpoints with one tokenizer")?)
}

/// Returns `last` with other weights, and without what is true of its own weights only.
fn averaged(last: Checkpoint, model: Vec<(String, HostTensor)>) -> Checkpoint {
    let State {
        step, phase, step_in_phase, next_example, optimizer_steps, seed, vocabulary_sha256, roll_backs, ..
    } = last.state;
    let state = State {
        step,
        phase,
        step_in_phase,
        next_example,
        optimizer_steps,
        seed,
        vocabulary_sha256,
        roll_backs,
        ..State::default()
    };
    Checkpoint { state, model, optimizer: Vec::new(), files: last.files }
}

/// The sum of the weights of models.
struct Sum {
    /// Names and shapes of the tensors.
    tensors: Vec<(String, Shape)>,
    values: Vec<Vec<f64>>,
}

impl Sum {
    /// Starts with the weights of one model.
    fn of(model: Vec<(String, HostTensor)>) -> Sum {
        let values = model.par_iter().map(|(_, tensor)| tensor.to_f64()).collect();
        Sum { tensors: model.into_iter().map(|(name, tensor)| (name, tensor.shape().clone())).collect(), values }
    }

    /// Adds the weights of another model, which were read from the directory `path`.
    fn add(&mut self, path: &Path, model: Vec<(String, HostTensor)>) -> anyhow::Result<()> {
        let model = arrange(&path.join("model.safetensors"), model, &self.tensors)?;
        self.values.par_iter_mut().zip(model).for_each(|(sum, tensor)| {
            sum.iter_mut().zip(tensor.to_f64()).for_each(|(sum, value)| *sum += value);
        });
        Ok(())
    }

    /// Returns the mean over `count` models, in f32.
    fn mean(self, count: usize) -> Vec<(String, HostTensor)> {
        let mean = |((name, shape), sum): ((String, Shape), Vec<f64>)| {
            let mean: Vec<f64> = sum.into_iter().map(|sum| sum / count as f64).collect();
            (name, HostTensor::from_f64(shape.with_dtype(DType::F32), &mean))
        };
        self.tensors.into_par_iter().zip(self.values).map(mean).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bert::{BertConfig, Head, Preset, param_specs};
    use crate::run::weights::config_json;

    fn config() -> BertConfig {
        BertConfig {
            hidden_size: 4,
            num_hidden_layers: 1,
            num_attention_heads: 2,
            intermediate_size: 6,
            max_position_embeddings: 8,
            ..Preset::Tiny.config(21)
        }
    }

    /// Saves a checkpoint of `step` with the weights that are drawn with `step` as the seed.
    fn save(run: &Path, config: &BertConfig, step: u64) -> Checkpoint {
        let specs = param_specs(config);
        let checkpoint = Checkpoint {
            state: State { step, run_fingerprint: "run".to_owned(), ..State::default() },
            model: specs.iter().map(|spec| (spec.name.clone(), spec.initial(step))).collect(),
            optimizer: specs.iter().map(|spec| (format!("m/{}", spec.name), spec.initial(step))).collect(),
            files: vec![(
                "config.json".to_owned(),
                serde_json::to_vec(&config_json(config, &Head::Pretraining).unwrap()).unwrap(),
            )],
        };
        RunDirectory::new(run, Keep::ALL).save(&checkpoint).unwrap();
        checkpoint
    }

    #[test]
    fn the_average_of_the_last_checkpoints_is_their_mean() {
        let folder = tempfile::tempdir().unwrap();
        let [run, out] = ["run", "out"].map(|name| folder.path().join(name));
        let saved: Vec<Checkpoint> = [10, 20, 30, 40].map(|step| save(&run, &config(), step)).into();
        let last = newest_checkpoints(&run, 3).unwrap();
        let made = average(&last, &out).unwrap();
        assert_eq!(made.path, out.join("step-00000040"));
        assert_eq!(made.of.iter().map(|(_, step)| *step).collect::<Vec<_>>(), [20, 30, 40]);
        let model = open_model(&out).unwrap();
        let state = &model.checkpoint.state;
        assert_eq!((state.step, state.run_fingerprint.as_str()), (40, ""), "any run can start from it");
        for (i, (name, tensor)) in model.checkpoint.model.iter().enumerate() {
            let of: Vec<Vec<f64>> = saved[1..].iter().map(|checkpoint| checkpoint.model[i].1.to_f64()).collect();
            assert_eq!(*name, saved[0].model[i].0);
            for (j, value) in tensor.to_f64().into_iter().enumerate() {
                assert_eq!(value, f64::from(((of[0][j] + of[1][j] + of[2][j]) / 3.0) as f32), "{name}");
            }
        }
    }

    #[test]
    fn averages_of_too_few_or_other_checkpoints_are_refused_and_nothing_is_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let [run, other, out] = ["run", "other", "out"].map(|name| folder.path().join(name));
        [10, 20].into_iter().for_each(|step| drop(save(&run, &config(), step)));
        save(&other, &BertConfig { layer_norm_eps: 1e-5, ..config() }, 20);
        let error = |checkpoints: &[PathBuf]| format!("{:#}", average(checkpoints, &out).unwrap_err());
        let few = newest_checkpoints(&run, 3).unwrap_err().to_string();
        assert!(few.contains("found 2") && few.contains("[checkpoint] keep = 3"), "{few}");
        let [first, second] = [10, 20].map(|step| crate::checkpoint::checkpoint_path(&run, step));
        assert_eq!(error(std::slice::from_ref(&first)), "an average requires at least 2 checkpoints, got 1");
        let differing = error(&[first.clone(), other]);
        assert!(differing.contains("differ in layer_norm_eps (1e-12, 0.00001)"), "{differing}");
        assert!(!out.exists(), "nothing was written");
        average(&[first.clone(), second.clone()], &out).unwrap();
        let refused = error(&[first, second]);
        assert!(
            refused.ends_with("requires a new or empty directory, found other content; choose another"),
            "{refused}"
        );
    }
}
