//! Where a run begins: at its seed's first values, at imported weights, or where an earlier part of it stopped.

use std::path::PathBuf;

use anyhow::{Context, bail, ensure};

use super::Run;
use super::weights::{FoundModel, open_model};
use crate::checkpoint::METRICS_FILE;
use crate::checkpoint::{Checkpoint, Contents, Loaded, load_latest};
use crate::data::{Manifest, Split};
use crate::settings::differing_settings;

/// The beginning of a run, or of the rest of one.
#[derive(Debug)]
pub enum Start {
    Fresh,
    Import(Box<FoundModel>),
    Resume { checkpoint: Box<Checkpoint>, path: PathBuf },
}

/// What a user allows.
#[derive(Clone, Copy, Debug, Default)]
pub struct StartOptions {
    /// Go on from the newest checkpoint, if there is one.
    pub resume: bool,
    /// Go on although settings differ from those of the checkpoint.
    pub accept_changes: bool,
}

impl Start {
    /// Finds where `run` begins. The notes are sentences that a user should see.
    ///
    /// # Errors
    /// If there is something in the run directory and `resume` was not asked for; if the checkpoint is of another run,
    /// with the names of the settings that differ; if it is damaged.
    pub fn find(
        run: &Run,
        data_fingerprint: &str,
        options: StartOptions,
        run_of_text: impl Fn(&str) -> anyhow::Result<Run>,
    ) -> anyhow::Result<(Start, Vec<String>)> {
        let directory = run.checkpoint.directory.local();
        let shown = directory.display();
        let begun = directory.join(METRICS_FILE).exists();
        let latest = load_latest(directory, if options.resume { Contents::All } else { Contents::ModelOnly });
        if !options.resume {
            // A damaged checkpoint is something to lose, too.
            let holds = !matches!(latest, Ok(None));
            ensure!(
                !holds && !begun,
                "{shown} holds a run already; add --resume to go on with it, or set another [checkpoint] directory \
                 (--set checkpoint.directory=…) to start anew"
            );
        } else if let Some(Loaded { path, checkpoint, mut notes }) = latest? {
            check_fingerprint(run, data_fingerprint, options, &checkpoint, run_of_text, &mut notes)
                .with_context(|| format!("cannot resume from {}", path.display()))?;
            return Ok((Start::Resume { checkpoint: Box::new(checkpoint), path }, notes));
        }
        let Some(import) = &run.import else { return Ok((Start::Fresh, Vec::new())) };
        let found = open_model(import).with_context(|| format!("`import` names {}", import.display()))?;
        let notes = found.notes.clone();
        Ok((Start::Import(Box::new(found)), notes))
    }

    /// Weight updates done before.
    pub fn step(&self) -> u64 {
        match self {
            Start::Fresh | Start::Import(_) => 0,
            Start::Resume { checkpoint, .. } => checkpoint.state.step,
        }
    }
}

fn check_fingerprint(
    run: &Run,
    data_fingerprint: &str,
    options: StartOptions,
    checkpoint: &Checkpoint,
    run_of_text: impl Fn(&str) -> anyhow::Result<Run>,
    notes: &mut Vec<String>,
) -> anyhow::Result<()> {
    let state = &checkpoint.state;
    // A checkpoint that `lambert import` made fits any run of its model.
    if state.run_fingerprint.is_empty() || state.run_fingerprint == run.fingerprint(data_fingerprint) {
        return Ok(());
    }
    let earlier = checkpoint.file("run.toml").and_then(|text| std::str::from_utf8(text).ok());
    let differing = match earlier.map(run_of_text) {
        Some(Ok(earlier)) => differing_settings(&earlier.settings(), &run.settings()),
        _ => Vec::new(),
    };
    let what = if differing.is_empty() { "the prepared data".to_owned() } else { differing.join(", ") };
    if !options.accept_changes {
        bail!(
            "it was trained with other settings ({what}); restore them, or add --accept-changes to go on with those of \
             the run file"
        );
    }
    ensure!(
        state.step <= run.schedule.steps(),
        "it is at step {}, the run file's schedule ends at step {}",
        state.step,
        run.schedule.steps()
    );
    notes.push(format!("going on with changed settings: {what}"));
    Ok(())
}

/// Names the prepared data: its vocabulary, and the content of every shard that is trained on.
pub fn data_fingerprint(manifest: &Manifest) -> String {
    let shards = manifest.shards.iter().filter(|shard| shard.split == Split::Train);
    let mut text = manifest.vocabulary_sha256.clone();
    shards.for_each(|shard| text += &format!("\n{}", shard.sha256));
    crate::digest::sha256_hex(text.as_bytes())
}
