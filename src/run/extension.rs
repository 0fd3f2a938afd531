//! Extends the vocabulary of a model or a tokenizer: new pieces of a text, a row of the word embeddings and a bias of the MLM head for each,
//! and a directory that Hugging Face and `import` load like any other.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

use super::weights::{FoundModel, complete_architecture, is_model, open_model, published_model, tokenizer_files};
use crate::bert::{BertConfig, VOCABULARY_SIZED, param_specs_of};
use crate::checkpoint::hugging_face::{Architecture, check_replaceable, export};
use crate::checkpoint::{Checkpoint, State};
use crate::data::{
    AddedPiece, Extension, ExtensionOptions, Input, Tokenizer, extend_tokenizer, extended_files, reserved_tokens,
};
use crate::files::{check_new_directory, partial_path, replace_file};
use crate::shape::HostTensor;
use crate::task::ParamSpec;

/// The rows of the word embeddings and the biases of the MLM head that new pieces start with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewRows {
    /// The mean of the rows of the pieces that the old vocabulary has for the new one, and the mean of their biases. A logit is linear
    /// in both, so the first logit of a new piece is the mean of those of its old pieces in every context: the piece starts about as
    /// likely as they are.
    Pieces,
    /// The mean of all rows and biases, as `resize_token_embeddings` of transformers, without its noise of 1e-9.
    Vocabulary,
    /// Random rows as for a new model, drawn with this seed, and biases of 0.
    Random(u64),
}

/// A directory with an extended vocabulary.
#[derive(Debug)]
pub struct Extended {
    /// The new pieces and what they save.
    pub extension: Extension,
    /// The number of tokens before and after.
    pub tokens: [usize; 2],
    /// The class of the model that was written; none for a tokenizer alone.
    pub architecture: Option<Architecture>,
    /// Messages for the user.
    pub notes: Vec<String>,
}

/// Extends the vocabulary of the model or the tokenizer in the directory `source` by pieces of `inputs`, and writes a Hugging Face
/// directory of the same kind to `out`. `source` is a Hugging Face directory, a checkpoint, a run directory, or a directory
/// with a tokenizer alone.
///
/// # Errors
/// If `source` has no WordPiece tokenizer or its weights cannot be read; if the inputs cannot be read or yield no piece; if `out`
/// holds something else than an unchanged export.
pub fn extend(
    source: &Path,
    inputs: &[Input],
    options: &ExtensionOptions,
    rows: NewRows,
    out: &Path,
    progress: &(dyn Fn(u64) + Sync),
) -> anyhow::Result<Extended> {
    ensure!(source.is_dir(), "{} requires a directory with a model or a tokenizer; name one", source.display());
    let found = if is_model(source) { Some(open_model(source)?) } else { None };
    match &found {
        Some(_) => check_replaceable(out)?,
        None => check_new_directory(out)?,
    }
    let directory = found.as_ref().map_or(source, |found| &found.path);
    let (old, files) = (Tokenizer::open(directory, false)?, tokenizer_files(directory)?);
    let extension = extend_tokenizer(&old, &reserved_tokens(directory, &files)?, inputs, options, progress)?;
    ensure!(
        !extension.pieces.is_empty(),
        "the inputs require words of several pieces that occur at least {} times, found none; name more text, or lower min_frequency",
        options.min_frequency
    );
    let files = extended_files(directory, &files, &extension.tokenizer)?;
    let tokens = [old.vocabulary().len(), extension.tokenizer.vocabulary().len()];
    let (mut architecture, mut notes) = (None, Vec::new());
    match found {
        Some(found) => {
            notes.extend(found.checkpoint_notes().iter().cloned());
            let (class, more) = export_extended(found, &extension, files, rows, out)?;
            architecture = Some(class);
            notes.extend(more);
        }
        None => write_directory(out, &files)?,
    }
    Ok(Extended { extension, tokens, architecture, notes })
}

/// Writes the model with new rows and the `files` of its new tokenizer to `out`; returns its class, and messages for the user.
fn export_extended(
    found: FoundModel,
    extension: &Extension,
    files: Vec<(String, Vec<u8>)>,
    rows: NewRows,
    out: &Path,
) -> anyhow::Result<(Architecture, Vec<String>)> {
    let tokens = extension.tokenizer.vocabulary();
    let config = BertConfig { vocab_size: found.config.vocab_size.max(tokens.len()), ..found.config.clone() };
    let published = published_model(&config, &found.head)?;
    let Checkpoint { mut model, files: others, state, .. } = found.checkpoint;
    let architecture = complete_architecture(&found.path, &published, &state.missing, None)?;
    for spec in param_specs_of(&config, &found.head) {
        let tensor = model.iter_mut().find(|(name, _)| *name == spec.name);
        if VOCABULARY_SIZED.contains(&spec.name.as_str())
            && let Some((_, tensor)) = tensor
        {
            *tensor = with_rows(&spec, tensor, found.config.vocab_size, &extension.pieces, rows);
        }
    }
    let others = others.into_iter().filter(|(name, _)| files.iter().all(|(new, _)| new != name));
    let files = others.chain(files.iter().cloned()).collect();
    let state = State { vocabulary_sha256: tokens.sha256().to_owned(), ..state };
    let checkpoint = Checkpoint { state, model, optimizer: Vec::new(), files };
    let notes = export(&found.path, checkpoint, &published, architecture, Vec::new(), out)?;
    Ok((architecture, notes))
}

/// Returns the first `old_rows` rows of `tensor` in the published shape of `spec`, with rows for `pieces`.
fn with_rows(
    spec: &ParamSpec,
    tensor: &HostTensor,
    old_rows: usize,
    pieces: &[AddedPiece],
    rows: NewRows,
) -> HostTensor {
    let width = spec.published_dims[1..].iter().product::<usize>();
    let mut values = values_of(tensor);
    values.truncate(old_rows * width);
    let new: Vec<Vec<f32>> = match rows {
        NewRows::Pieces => pieces.iter().map(|piece| mean_row(&values, width, &piece.old_pieces)).collect(),
        NewRows::Vocabulary => {
            let all: Vec<u32> = (0..old_rows as u32).collect();
            vec![mean_row(&values, width, &all); pieces.len()]
        }
        NewRows::Random(seed) => {
            let random = values_of(&spec.initial(seed));
            pieces.iter().map(|piece| row(&random, width, piece.id).to_vec()).collect()
        }
    };
    values.resize(spec.published_dims[0] * width, 0.0);
    for (piece, new) in pieces.iter().zip(new) {
        values[piece.id as usize * width..][..width].copy_from_slice(&new);
    }
    HostTensor::new(spec.published_dims.clone(), &values)
}

/// Returns the values of an f32 tensor, as all tensors of a model are.
fn values_of(tensor: &HostTensor) -> Vec<f32> {
    tensor.to_f64().into_iter().map(|value| value as f32).collect()
}

fn row(values: &[f32], width: usize, id: u32) -> &[f32] {
    &values[id as usize * width..][..width]
}

/// Returns the mean of the rows `ids`, summed in f64.
fn mean_row(values: &[f32], width: usize, ids: &[u32]) -> Vec<f32> {
    let column = |column: usize| ids.iter().map(|&id| f64::from(row(values, width, id)[column])).sum::<f64>();
    (0..width).map(|c| (column(c) / ids.len() as f64) as f32).collect()
}

/// Writes files into the new or empty directory `out`, which appears complete or not at all.
fn write_directory(out: &Path, files: &[(String, Vec<u8>)]) -> anyhow::Result<()> {
    let write = || -> std::io::Result<()> {
        let out: PathBuf = if out.exists() { fs::canonicalize(out)? } else { std::path::absolute(out)? };
        let partial = partial_path(&out);
        fs::create_dir_all(&partial)?;
        for (name, content) in files {
            let path = partial.join(name);
            replace_file(&path, &partial_path(&path), content)?;
        }
        if out.exists() {
            fs::remove_dir(&out)?;
        }
        fs::rename(&partial, &out)
    };
    write().with_context(|| format!("cannot write {}", out.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::Init;

    fn pieces(added: &[(u32, &[u32])]) -> Vec<AddedPiece> {
        let piece = |&(id, old_pieces): &(u32, &[u32])| AddedPiece {
            token: format!("new{id}"),
            id,
            old_pieces: old_pieces.to_vec(),
            saved: 0,
            occurrences: 0,
        };
        added.iter().map(piece).collect()
    }

    fn spec(dims: &[usize], padded: usize, init: Init) -> ParamSpec {
        let dims_on_device = [&[padded], &dims[1..]].concat();
        ParamSpec { name: "w".into(), published_dims: dims.to_vec(), dims: dims_on_device, init, matmul_only: false }
    }

    #[test]
    fn new_rows_are_means_and_the_others_stay() {
        // Three rows and one of padding; the new pieces take row 1 and a row behind the last.
        let tensor = HostTensor::new([4, 2], &[1.0f32, 10.0, 2.0, 20.0, 6.0, 60.0, 9.0, 9.0]);
        let added = pieces(&[(1, &[0, 2]), (3, &[2, 2, 1])]);
        let words = spec(&[4, 2], 8, Init::TruncatedNormal { std: 0.02 });
        let values = |rows| values_of(&with_rows(&words, &tensor, 3, &added, rows));
        // Row 1 counts with its old value for the other new piece.
        assert_eq!(values(NewRows::Pieces), [1.0, 10.0, 3.5, 35.0, 6.0, 60.0, 14.0 / 3.0, 140.0 / 3.0]);
        assert_eq!(values(NewRows::Vocabulary), [1.0, 10.0, 3.0, 30.0, 6.0, 60.0, 3.0, 30.0]);
        let random = values(NewRows::Random(5));
        assert_eq!((&random[..2], &random[4..6]), (&[1.0, 10.0][..], &[6.0, 60.0][..]));
        assert!(
            random[2..4].iter().chain(&random[6..]).all(|value| *value != 0.0 && value.abs() <= 0.04),
            "{random:?}"
        );
        assert_ne!(random, values(NewRows::Random(6)));

        let bias = HostTensor::new([4], &[-1.0f32, -2.0, -6.0, 0.0]);
        let biases = spec(&[4], 8, Init::Zeros);
        let values = |rows| values_of(&with_rows(&biases, &bias, 3, &added, rows));
        assert_eq!(values(NewRows::Pieces), [-1.0, -3.5, -6.0, -14.0 / 3.0]);
        assert_eq!(values(NewRows::Random(5)), [-1.0, 0.0, -6.0, 0.0]);
    }
}
