//! Gives a model more positions, so that it can be trained on longer texts: rows of the position embeddings, made from those that it
//! has. Nothing else in the encoder depends on the number of positions.

use std::path::Path;

use anyhow::{Context, ensure};
use serde_json::{Map, Value, json};

use super::weights::{complete_architecture, open_model, published_model};
use crate::bert::BertConfig;
use crate::checkpoint::Checkpoint;
use crate::checkpoint::hugging_face::{Architecture, check_replaceable, export};
use crate::shape::HostTensor;

const POSITION_EMBEDDINGS: &str = "bert.embeddings.position_embeddings.weight";

/// The settings of a tokenizer, which repeat the number of positions.
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";

/// The rows of new positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewPositions {
    /// Row i is row i mod n of the n old ones. Distances below n look as before, and so do the old positions (Longformer, arXiv
    /// 2004.05150, section 5).
    Tile,
    /// The old rows are spread evenly over all positions, with linear interpolation between them (as for position indices in arXiv
    /// 2306.15595). Every row changes but the first and the last.
    Interpolate,
}

/// A model with more positions.
#[derive(Debug)]
pub struct Extended {
    /// The numbers of positions before and after.
    pub positions: [usize; 2],
    /// The class of the model that was written.
    pub architecture: Architecture,
    /// Messages for the user.
    pub notes: Vec<String>,
}

/// Writes the model in `source` with `positions` positions to the Hugging Face directory `out`. `source` is a Hugging Face
/// directory, a checkpoint or a run directory.
///
/// # Errors
/// If `source` is no model, or has as many positions; if `out` holds something else than an unchanged export.
pub fn extend(source: &Path, positions: usize, rows: NewPositions, out: &Path) -> anyhow::Result<Extended> {
    check_replaceable(out)?;
    let found = open_model(source)?;
    let old = found.config.max_position_embeddings;
    ensure!(
        positions > old,
        "max_position_embeddings requires more positions than {} has, {old}, got {positions}; texts up to {old} tokens need no extension",
        source.display()
    );
    let config = BertConfig { max_position_embeddings: positions, ..found.config.clone() };
    config.validate()?;
    let published = published_model(&config, &found.head)?;
    let mut notes = found.checkpoint_notes().to_vec();
    let Checkpoint { mut model, mut files, state, .. } = found.checkpoint;
    let architecture = complete_architecture(&found.path, &published, &state.missing, None)?;
    let (_, table) = model
        .iter_mut()
        .find(|(name, _)| name == POSITION_EMBEDDINGS)
        .with_context(|| format!("{} requires the tensor {POSITION_EMBEDDINGS}", found.path.display()))?;
    *table = with_rows(table, old, positions, rows);
    for (_, content) in files.iter_mut().filter(|(name, _)| name == TOKENIZER_CONFIG) {
        if let Some(longer) = with_length(content, old, positions) {
            *content = longer;
        }
    }
    let checkpoint = Checkpoint { state, model, optimizer: Vec::new(), files };
    notes.extend(export(&found.path, checkpoint, &published, architecture, Vec::new(), out)?);
    Ok(Extended { positions: [old, positions], architecture, notes })
}

/// Returns a table of `new` positions from the first `old` rows of `table`.
fn with_rows(table: &HostTensor, old: usize, new: usize, rows: NewPositions) -> HostTensor {
    let values = table.to_f64();
    let width = table.shape().dims[1];
    let row = |position: usize| &values[position * width..][..width];
    let of = |position: usize| -> Vec<f32> {
        match rows {
            NewPositions::Tile => row(position % old).iter().map(|&value| value as f32).collect(),
            NewPositions::Interpolate => {
                let place = position as f64 * (old - 1) as f64 / (new - 1) as f64;
                let (below, share) = (place.floor() as usize, place.fract());
                let above = row((below + 1).min(old - 1));
                row(below).iter().zip(above).map(|(a, b)| (a + share * (b - a)) as f32).collect()
            }
        }
    };
    HostTensor::new([new, width], &(0..new).flat_map(of).collect::<Vec<_>>())
}

/// Returns the settings of a tokenizer for texts of `new` tokens; none if their length is not `old`.
fn with_length(settings: &[u8], old: usize, new: usize) -> Option<Vec<u8>> {
    const KEY: &str = "model_max_length";
    let mut settings: Map<String, Value> = serde_json::from_slice(settings).ok()?;
    if settings.get(KEY) != Some(&json!(old)) {
        return None;
    }
    settings.insert(KEY.to_owned(), json!(new));
    Some(format!("{:#}\n", Value::Object(settings)).into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_repeated_or_interpolated() {
        let table = HostTensor::new([3, 2], &[0.0f32, 1.0, 2.0, 5.0, 4.0, 3.0]);
        let values = |new, rows| with_rows(&table, 3, new, rows).to_f64();
        assert_eq!(values(7, NewPositions::Tile), [0., 1., 2., 5., 4., 3., 0., 1., 2., 5., 4., 3., 0., 1.]);
        assert_eq!(values(5, NewPositions::Interpolate), [0., 1., 1., 3., 2., 5., 3., 4., 4., 3.]);
        // Of the rows, the last is padding.
        let values = with_rows(&table, 2, 3, NewPositions::Interpolate).to_f64();
        assert_eq!(values, [0., 1., 1., 3., 2., 5.]);
    }

    #[test]
    fn the_length_of_a_tokenizer_is_changed_if_it_is_that_of_the_model() {
        let length = |settings: &str| {
            with_length(settings.as_bytes(), 512, 1024).map(|text| serde_json::from_slice::<Value>(&text).unwrap())
        };
        assert_eq!(length(r#"{"model_max_length": 512, "a": 1}"#), Some(json!({ "model_max_length": 1024, "a": 1 })));
        assert_eq!(length(r#"{"model_max_length": 128}"#), None);
        assert_eq!(length("{}"), None);
    }
}
