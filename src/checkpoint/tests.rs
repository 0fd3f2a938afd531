//! Saving, damaging and loading checkpoints: the result is bit-identical, or an error that names the file.

use std::fs;
use std::path::Path;

use crate::checkpoint::*;
use crate::digest::sha256_hex;
use crate::divergence::{Monitor, RollBacks};
use crate::shape::Shape;

/// Returns a checkpoint whose values depend on `step`; they include NaN and negative zero, to compare bits.
fn checkpoint(step: u64) -> Checkpoint {
    let tensor = |name: &str, dims: &[usize]| {
        let n: usize = dims.iter().product();
        let mut values: Vec<f32> = (0..n).map(|i| (step as f32 + 0.1).powi(i as i32 % 7)).collect();
        values[0] = f32::from_bits(0x7fc0_0001 + step as u32);
        values[1] = -0.0;
        (name.to_owned(), HostTensor::new(dims, &values))
    };
    let metrics = serde_json::json!({"loss": 7.25 + 0.1 * step as f64, "phase": "one"});
    Checkpoint {
        state: State {
            step,
            phase: 1,
            step_in_phase: step / 2,
            next_example: u64::MAX - step,
            optimizer_steps: step,
            seed: u64::MAX,
            run_fingerprint: "f00d".into(),
            vocabulary_sha256: sha256_hex(b"[PAD]\n"),
            metrics: metrics.as_object().cloned().unwrap_or_default(),
            missing: Vec::new(),
            best: None,
            divergence: None,
            roll_backs: RollBacks::default(),
            software: None,
        },
        model: vec![tensor("z.weight", &[3, 5]), tensor("a.bias", &[4])],
        optimizer: vec![tensor("m/z.weight", &[3, 5]), tensor("v/z.weight", &[3, 5])],
        files: vec![("run.toml".into(), b"seed = 1\n".to_vec()), ("vocab.txt".into(), b"[PAD]\n".to_vec())],
    }
}

/// Saves as a run that keeps the newest `newest` checkpoints and has just started.
fn save(run: &Path, checkpoint: &Checkpoint, newest: usize) -> Result<Saved, CheckpointError> {
    RunDirectory::new(run, Keep { newest, every: 0 }).save(checkpoint)
}

/// Changes a file without changing its size.
fn damage(path: &Path) {
    let mut content = fs::read(path).unwrap();
    *content.last_mut().unwrap() ^= 0x20;
    fs::write(path, content).unwrap();
}

fn listing(run: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(run).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn latest_step(run: &Path) -> u64 {
    load_latest(run, Contents::All).unwrap().unwrap().checkpoint.state.step
}

#[test]
fn a_loaded_checkpoint_is_bit_identical_to_the_saved_one() {
    let run = tempfile::tempdir().unwrap();
    for step in [0, 7, 4200, 123_456_789] {
        let saved = save(run.path(), &checkpoint(step), 0).unwrap();
        assert!(saved.notes.is_empty());
        assert_eq!(load(&saved.path, Contents::All).unwrap(), checkpoint(step));
        let model_only = Checkpoint { optimizer: Vec::new(), ..checkpoint(step) };
        assert_eq!(load(&saved.path, Contents::ModelOnly).unwrap(), model_only);
        assert_eq!(latest_step(run.path()), step);
    }
    assert_eq!(listing(run.path()), ["step-00000000", "step-00000007", "step-00004200", "step-123456789"]);
}

#[test]
fn an_empty_or_missing_run_has_no_checkpoint() {
    let run = tempfile::tempdir().unwrap();
    assert!(load_latest(run.path(), Contents::All).unwrap().is_none());
    assert!(load_latest(&run.path().join("nowhere"), Contents::All).unwrap().is_none());
    let error = open(run.path(), Contents::ModelOnly).unwrap_err().to_string();
    assert!(error.contains("it holds no step-… directory"), "{error}");
}

#[test]
fn the_newest_checkpoints_are_kept_and_user_files_never_removed() {
    let run = tempfile::tempdir().unwrap();
    fs::create_dir(run.path().join("step-best")).unwrap();
    fs::create_dir(run.path().join("step-00000000")).unwrap(); // incomplete: not removed
    save(run.path(), &checkpoint(1), 2).unwrap();
    fs::write(run.path().join("step-00000001/notes.txt"), "mine").unwrap();
    for step in [2, 3, 4] {
        let saved = save(run.path(), &checkpoint(step), 2).unwrap();
        assert_eq!(saved.notes.len(), (step >= 3) as usize, "{:?}", saved.notes);
    }
    let left = ["step-00000000", "step-00000001", "step-00000003", "step-00000004", "step-best"];
    assert_eq!(listing(run.path()), left);
    // A save of an earlier step is not removed by itself.
    let saved = save(run.path(), &checkpoint(2), 1).unwrap();
    assert_eq!(load(&saved.path, Contents::All).unwrap(), checkpoint(2));
}

#[test]
fn checkpoints_of_every_nth_step_are_kept_beside_the_newest() {
    let run = tempfile::tempdir().unwrap();
    let mut directory = RunDirectory::new(run.path(), Keep { newest: 2, every: 30 });
    for step in (10..=80).step_by(10) {
        directory.save(&checkpoint(step)).unwrap();
    }
    assert_eq!(listing(run.path()), ["step-00000030", "step-00000060", "step-00000070", "step-00000080"]);
}

#[test]
fn a_damaged_checkpoint_is_saved_again_and_does_not_count_among_those_to_keep() {
    let run = tempfile::tempdir().unwrap();
    let path = |step: u64| run.path().join(step_name(step));
    for step in [1, 2, 3] {
        save(run.path(), &checkpoint(step), 0).unwrap();
    }
    damage(&path(3).join(MODEL));
    damage(&path(2).join(OPTIMIZER));
    assert_eq!(latest_step(run.path()), 1);

    // A resumed run trains step 2 and 3 again.
    let mut resumed = RunDirectory::new(run.path(), Keep { newest: 2, every: 0 });
    let saved = resumed.save(&checkpoint(2)).unwrap();
    let [renamed, uncounted] = &saved.notes[..] else { panic!("{:?}", saved.notes) };
    assert!(renamed.contains("a damaged checkpoint, was renamed to") && renamed.contains("step-00000002.replaced-1"));
    assert!(uncounted.contains("step-00000003 is damaged, so it does not count"), "{uncounted}");
    assert_eq!(load(&path(2), Contents::All).unwrap(), checkpoint(2));
    assert!(path(1).exists(), "one of the two newest checkpoints is damaged");

    let saved = resumed.save(&checkpoint(3)).unwrap();
    assert_eq!((saved.notes.len(), latest_step(run.path())), (1, 3), "{:?}", saved.notes);
    let left = ["step-00000002", "step-00000002.replaced-1", "step-00000003", "step-00000003.replaced-1"];
    assert_eq!(listing(run.path()), left);
}

#[test]
fn a_manifest_with_other_files_or_another_step_than_its_directory_is_damaged() {
    let run = tempfile::tempdir().unwrap();
    let path = save(run.path(), &checkpoint(1), 0).unwrap().path;
    for name in ["../../secret", "/etc/passwd", STATE, "notes.txt"] {
        let mut manifest = Manifest::read(&path).unwrap();
        manifest.files.insert(name.to_owned(), FileRecord { bytes: 1, sha256: String::new() });
        let text = manifest.to_text().unwrap();
        let error = Manifest::parse(&path.join(STATE), &text).err().unwrap();
        assert!(error.is_damage() && error.to_string().contains(name), "{error}");
    }
    let renamed = run.path().join(step_name(99));
    fs::rename(&path, &renamed).unwrap();
    let error = load(&renamed, Contents::All).unwrap_err();
    assert!(error.is_damage() && error.to_string().contains("step 1, in a directory named for step 99"), "{error}");
    // Under a name without a step it is an ordinary copy.
    let copy = run.path().join("best so far");
    fs::rename(&renamed, &copy).unwrap();
    assert_eq!(load(&copy, Contents::All).unwrap(), checkpoint(1));
}

#[test]
#[cfg(unix)]
fn a_run_directory_that_was_moved_or_replaced_is_noticed() {
    let parent = tempfile::tempdir().unwrap();
    let [run, elsewhere] = ["run", "elsewhere"].map(|name| parent.path().join(name));
    let lock = RunLock::take(&run).unwrap();
    lock.check().unwrap();
    fs::rename(&run, &elsewhere).unwrap();
    let moved = lock.check().unwrap_err().to_string();
    assert!(moved.contains("run was moved or deleted"), "{moved}");
    let other = RunLock::take(&run).unwrap();
    assert!(matches!(lock.check(), Err(CheckpointError::Moved { .. })));
    other.check().unwrap();
}

#[test]
fn the_best_checkpoint_is_kept_and_opened_for_its_weights() {
    let run = tempfile::tempdir().unwrap();
    for step in 1..=5 {
        let best = Best { metric: "f1".to_owned(), value: 0.75, step: 2.min(step), evaluations_since: 0 };
        let mut checkpoint = checkpoint(step);
        checkpoint.state.best = Some(best);
        save(run.path(), &checkpoint, 1).unwrap();
    }
    assert_eq!(listing(run.path()), ["step-00000002", "step-00000005"]);
    let opened = open(run.path(), Contents::ModelOnly).unwrap();
    assert_eq!((opened.checkpoint.state.step, opened.path), (2, run.path().join("step-00000002")));
    assert!(opened.notes[0].contains("step 2 has the best f1 (0.7500)"), "{:?}", opened.notes);
    assert_eq!(open(run.path(), Contents::All).unwrap().checkpoint.state.step, 5, "a run resumes from the newest");
}

/// Returns a checkpoint of a run whose last good one is that of step `good`.
fn with_last_good(step: u64, good: u64) -> Checkpoint {
    let mut checkpoint = checkpoint(step);
    checkpoint.state.divergence = Some(Monitor::from_checkpoint(good));
    checkpoint
}

#[test]
fn the_last_good_checkpoint_is_kept_until_another_one_is_good() {
    for keep in [Keep { newest: 1, every: 0 }, Keep { newest: 2, every: 0 }, Keep { newest: 1, every: 4 }] {
        let run = tempfile::tempdir().unwrap();
        let mut directory = RunDirectory::new(run.path(), keep);
        let mut left = |step: u64, good: u64| {
            directory.save(&with_last_good(step, good)).unwrap();
            steps_in(run.path()).unwrap()
        };
        let always = |step: u64| keep.every > 0 && step.is_multiple_of(keep.every);
        for (step, good) in [(1, 1), (2, 1), (3, 1), (4, 1), (5, 1), (6, 5), (7, 5), (8, 5), (9, 9)] {
            let newest = step + 1 - keep.newest as u64;
            let expected: Vec<u64> = (1..=step).filter(|&s| s >= newest || s == good || always(s)).collect();
            assert_eq!(left(step, good), expected, "{keep:?}, step {step}");
        }
    }
}

#[test]
fn checkpoints_after_the_last_good_one_are_set_aside_whole() {
    let run = tempfile::tempdir().unwrap();
    let mut directory = RunDirectory::new(run.path(), Keep::ALL);
    for step in 1..=4 {
        directory.save(&with_last_good(step, 2)).unwrap();
    }
    fs::write(run.path().join("step-00000003/notes.txt"), "mine").unwrap();
    let notes = directory.set_aside_after(Some(2)).unwrap();
    assert_eq!(notes.len(), 2);
    assert!(notes[0].contains("step-00000003 was renamed to ") && notes[0].ends_with("step-00000003.diverged-1"));
    let aside = ["step-00000003.diverged-1", "step-00000004.diverged-1"];
    assert_eq!(listing(run.path()), [&["step-00000001", "step-00000002"], &aside[..]].concat());
    assert_eq!(latest_step(run.path()), 2);
    assert_eq!(fs::read_to_string(run.path().join("step-00000003.diverged-1/notes.txt")).unwrap(), "mine");
    fs::remove_file(run.path().join("step-00000003.diverged-1/notes.txt")).unwrap();
    // They can still be read by name, under another name than their step's.
    assert_eq!(load(&run.path().join(aside[1]), Contents::All).unwrap(), with_last_good(4, 2));
    assert!(directory.set_aside_after(Some(2)).unwrap().is_empty());

    // The same steps, trained and set aside once more. Those that were set aside do not count among the newest.
    let mut again = RunDirectory::new(run.path(), Keep { newest: 2, every: 0 });
    for step in [3, 4] {
        again.save(&with_last_good(step, 2)).unwrap();
    }
    assert_eq!(steps_in(run.path()).unwrap(), [2, 3, 4]);
    again.set_aside_after(Some(2)).unwrap();
    assert!(
        run.path().join("step-00000003.diverged-1").exists() && run.path().join("step-00000003.diverged-2").exists()
    );
    assert_eq!(latest_step(run.path()), 2);

    // Without a good checkpoint, all of them; a directory of the user is left.
    fs::create_dir(run.path().join("step-best")).unwrap();
    assert_eq!(again.set_aside_after(None).unwrap().len(), 1);
    assert!(load_latest(run.path(), Contents::All).unwrap().is_none());
    assert!(run.path().join("step-best").exists());
}

#[test]
fn files_of_an_interrupted_save_are_ignored_then_removed_unless_a_user_added_files() {
    let run = tempfile::tempdir().unwrap();
    save(run.path(), &checkpoint(5), 0).unwrap();
    for (partial, file) in [(".step-00000006.partial", MODEL), (".step-00000007.partial", "thesis.tex")] {
        fs::create_dir(run.path().join(partial)).unwrap();
        fs::write(run.path().join(partial).join(file), "half").unwrap();
    }
    assert_eq!(latest_step(run.path()), 5);
    let saved = save(run.path(), &checkpoint(8), 0).unwrap();
    assert!(saved.notes[0].contains(".step-00000007.partial"), "{:?}", saved.notes);
    assert_eq!(listing(run.path()), [".step-00000007.partial", "step-00000005", "step-00000008"]);
}

#[test]
fn saving_a_step_again_changes_nothing_and_a_different_checkpoint_is_renamed() {
    let run = tempfile::tempdir().unwrap();
    save(run.path(), &checkpoint(9), 0).unwrap();
    assert!(save(run.path(), &checkpoint(9), 0).unwrap().notes.is_empty());
    assert_eq!(listing(run.path()), ["step-00000009"]);

    let mut other = checkpoint(9);
    other.model[0].1 = HostTensor::zeros(other.model[0].1.shape().clone());
    let saved = save(run.path(), &other, 0).unwrap();
    assert!(saved.notes[0].contains("step-00000009.replaced-1"), "{:?}", saved.notes);
    assert_eq!(load(&saved.path, Contents::All).unwrap(), other);
    assert_eq!(load(&run.path().join("step-00000009.replaced-1"), Contents::All).unwrap(), checkpoint(9));
}

#[test]
fn any_flipped_or_missing_byte_is_detected_and_the_previous_checkpoint_is_loaded() {
    let run = tempfile::tempdir().unwrap();
    save(run.path(), &checkpoint(1), 0).unwrap();
    let newest = save(run.path(), &checkpoint(2), 0).unwrap().path;
    for name in [MODEL, OPTIMIZER, STATE, "run.toml", "vocab.txt"] {
        let path = newest.join(name);
        let whole = fs::read(&path).unwrap();
        let mut damages: Vec<Vec<u8>> = [0, 1, whole.len() / 2].map(|n| whole[..n].to_vec()).into();
        for at in (0..whole.len()).step_by(7).chain([whole.len() - 1]) {
            let mut flipped = whole.clone();
            flipped[at] ^= 0x01;
            damages.push(flipped);
        }
        for damage in damages {
            fs::write(&path, &damage).unwrap();
            let error = load(&newest, Contents::All).unwrap_err();
            let version = matches!(error, CheckpointError::Version { .. });
            assert!(error.is_damage() || version && name == STATE, "{name}: {error}");
            assert!(error.to_string().contains(name), "{name}: {error}");
            // A named checkpoint is not replaced by another one; the newest of a run is, with a message.
            assert!(open(&newest, Contents::All).is_err());
            if !version {
                let loaded = load_latest(run.path(), Contents::All).unwrap().unwrap();
                assert_eq!(loaded.checkpoint, checkpoint(1));
                assert!(loaded.notes[0].contains(name), "{:?}", loaded.notes);
                assert!(loaded.notes[0].ends_with("; using step-00000001"), "{:?}", loaded.notes);
            }
        }
        fs::remove_file(&path).unwrap();
        assert!(load(&newest, Contents::ModelOnly).unwrap_err().is_damage(), "{name}");
        fs::write(&path, whole).unwrap();
        assert_eq!(load(&newest, Contents::All).unwrap(), checkpoint(2));
    }
}

#[test]
fn if_all_checkpoints_are_damaged_the_error_of_the_newest_is_returned() {
    let run = tempfile::tempdir().unwrap();
    for step in [1, 2] {
        let saved = save(run.path(), &checkpoint(step), 0).unwrap();
        fs::write(saved.path.join(MODEL), "not a model").unwrap();
    }
    let error = load_latest(run.path(), Contents::All).unwrap_err().to_string();
    assert!(error.contains("step-00000002") && error.contains(MODEL), "{error}");
}

#[test]
fn another_format_version_is_an_error_and_no_earlier_checkpoint_is_loaded() {
    let run = tempfile::tempdir().unwrap();
    save(run.path(), &checkpoint(1), 0).unwrap();
    let state = save(run.path(), &checkpoint(2), 0).unwrap().path.join(STATE);
    let text = fs::read_to_string(&state).unwrap().replace("\"format_version\": 1", "\"format_version\": 2");
    fs::write(&state, text).unwrap();
    let error = load_latest(run.path(), Contents::All).unwrap_err();
    assert!(matches!(error, CheckpointError::Version { found: 2, supported: 1, .. }), "{error}");
}

#[test]
fn a_failed_save_leaves_earlier_checkpoints_unchanged() {
    let run = tempfile::tempdir().unwrap();
    save(run.path(), &checkpoint(1), 1).unwrap();
    let mut twice = checkpoint(2);
    twice.optimizer.push(twice.optimizer[0].clone());
    assert!(matches!(save(run.path(), &twice, 1), Err(CheckpointError::TensorTwice { .. })));
    let mut unknown = checkpoint(2);
    unknown.files.push(("../run.toml".into(), Vec::new()));
    assert!(matches!(save(run.path(), &unknown, 1), Err(CheckpointError::UnknownFile { .. })));
    assert_eq!(listing(run.path()), ["step-00000001"]);
    assert_eq!(load_latest(run.path(), Contents::All).unwrap().unwrap().checkpoint, checkpoint(1));
}

#[test]
fn tensors_of_another_model_are_rejected_with_name_and_shapes() {
    let f32s = |dims: &[usize]| Shape::new(crate::shape::DType::F32, dims);
    let file = Path::new("run/step-00000001/model.safetensors");
    let arranged = |required: &[(&str, Shape)]| {
        let required: Vec<_> = required.iter().map(|(n, s)| (n.to_string(), s.clone())).collect();
        arrange(file, checkpoint(1).model, &required)
    };
    let found = arranged(&[("a.bias", f32s(&[4])), ("z.weight", f32s(&[3, 5]))]).unwrap();
    assert_eq!(found[0], checkpoint(1).model[1].1);

    let shape = arranged(&[("a.bias", f32s(&[4])), ("z.weight", f32s(&[5, 3]))]).unwrap_err().to_string();
    assert!(shape.contains("z.weight requires f32[5,3], found f32[3,5]"), "{shape}");
    let missing = arranged(&[("b.bias", f32s(&[4]))]).unwrap_err().to_string();
    assert!(missing.contains("model.safetensors: requires a tensor b.bias of f32[4], found none"), "{missing}");
    let unexpected = arranged(&[("a.bias", f32s(&[4]))]).unwrap_err().to_string();
    assert!(unexpected.contains("tensor z.weight is not in the model"), "{unexpected}");
}
