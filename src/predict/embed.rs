//! Embeddings of texts: the hidden states after the last layer, pooled over the tokens of a text, as sentence-transformers'.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

use anyhow::{bail, ensure};
use serde::Serialize;

use super::forward::{Examples, Forward, ForwardSettings, Weights};
use super::npy::write_npy;
use crate::bert::{BertConfig, Encoder, EncoderOutput};
use crate::checkpoint::write_tensors;
use crate::data::{LabelledExamples, LabelledTexts, TextPair, Tokenizer};
use crate::files::write_atomically;
use crate::runtime::devices::Devices;
use crate::shape::HostTensor;
use crate::task::Model;

/// The format of a file of embeddings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EmbeddingFormat {
    /// A JSON object for each text: `{"text": …, "embedding": […]}`.
    JsonLines,
    /// A tensor `embeddings`, f32\[N,H\].
    Safetensors,
    /// An array of NumPy, f32\[N,H\].
    Npy,
}

impl EmbeddingFormat {
    /// Returns the format of a file by its name.
    ///
    /// # Errors
    /// If the name ends otherwise than in `.jsonl`, `.safetensors` or `.npy`.
    pub fn of(path: &Path) -> anyhow::Result<EmbeddingFormat> {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("jsonl") => Ok(EmbeddingFormat::JsonLines),
            Some("safetensors") => Ok(EmbeddingFormat::Safetensors),
            Some("npy") => Ok(EmbeddingFormat::Npy),
            _ => {
                bail!("{} requires a name that ends in .jsonl, .safetensors or .npy; rename the output", path.display())
            }
        }
    }
}

/// Tokenizes texts without labels; longer ones are truncated to `sequence_length` tokens.
///
/// # Errors
/// If `sequence_length` is below 5.
pub fn tokenize(
    texts: Vec<TextPair>,
    tokenizer: &Tokenizer,
    sequence_length: usize,
) -> anyhow::Result<LabelledExamples> {
    Ok(LabelledExamples::regression(&LabelledTexts::from(texts), tokenizer, sequence_length)?)
}

/// Returns the forward pass of an encoder with the output `pooling` on `devices`.
pub fn encoder(config: &BertConfig, pooling: EncoderOutput, devices: &Devices, settings: ForwardSettings) -> Forward {
    let config = config.clone();
    let of_length = move |length| -> Arc<dyn Model> {
        Arc::new(Encoder { model: config.clone(), sequence_length: length, outputs: vec![pooling] })
    };
    Forward::new(devices, settings, Box::new(of_length))
}

/// Computes the embeddings of all examples: f32\[N,H\]. `forward` is an [`encoder`] with a pooled output.
///
/// # Errors
/// If there is no example; as [`Forward::map`].
pub fn embeddings(forward: &mut Forward, weights: &Weights, examples: &dyn Examples) -> anyhow::Result<HostTensor> {
    ensure!(examples.count() > 0, "embeddings require at least one text, got none");
    let rows: Vec<Vec<f32>> = forward.map(weights, examples, |_, outputs| Ok(outputs[0].to_vec()))?;
    Ok(HostTensor::new([rows.len(), rows[0].len()], &rows.concat()))
}

/// Divides each row of f32\[N,H\] by its Euclidean norm; rows of zeros stay.
///
/// # Errors
/// If the tensor is not f32.
pub fn normalized(embeddings: &HostTensor) -> anyhow::Result<HostTensor> {
    let dims = embeddings.shape().dims.clone();
    let mut values = embeddings.to_vec::<f32>()?;
    for row in values.chunks_mut(dims[1]) {
        let norm = row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
        if norm > 0.0 {
            row.iter_mut().for_each(|x| *x = (f64::from(*x) / norm) as f32);
        }
    }
    Ok(HostTensor::new(dims, &values))
}

/// A line of JSON. Its numbers are the shortest that give the same f32.
#[derive(Serialize)]
struct EmbeddingLine<'a> {
    #[serde(flatten)]
    text: &'a TextPair,
    embedding: &'a [f32],
}

/// Calls `each` with the JSON of each text and its embedding.
///
/// # Errors
/// Those of `each`; if the tensor is not f32.
pub fn each_json(
    texts: &[TextPair],
    embeddings: &HostTensor,
    mut each: impl FnMut(String) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let values = embeddings.to_vec::<f32>()?;
    let mut rows = texts.iter().zip(values.chunks(embeddings.shape().dims[1]));
    rows.try_for_each(|(text, row)| each(serde_json::to_string(&EmbeddingLine { text, embedding: row })?))
}

/// Writes embeddings f32\[N,H\] to a new file, in the format that its name gives.
///
/// # Errors
/// If the name gives no format, or the file cannot be written.
pub fn write(path: &Path, texts: &[TextPair], embeddings: &HostTensor) -> anyhow::Result<()> {
    let format = EmbeddingFormat::of(path)?;
    write_atomically(path, |partial| match format {
        EmbeddingFormat::Safetensors => Ok(write_tensors(partial, &[("embeddings", embeddings)]).map(drop)?),
        EmbeddingFormat::Npy => {
            let mut out = BufWriter::new(File::create(partial)?);
            write_npy(&mut out, embeddings)?;
            Ok(out.flush()?)
        }
        EmbeddingFormat::JsonLines => {
            let mut out = BufWriter::new(File::create(partial)?);
            each_json(texts, embeddings, |line| Ok(writeln!(out, "{line}")?))?;
            Ok::<_, anyhow::Error>(out.flush()?)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalized_rows_have_norm_one_and_zeros_stay() {
        let normalized = normalized(&HostTensor::new([2, 2], &[3f32, -4.0, 0.0, 0.0])).unwrap();
        assert_eq!(normalized.to_vec::<f32>().unwrap(), [0.6, -0.8, 0.0, 0.0]);
    }

    #[test]
    fn formats_are_given_by_names() {
        assert_eq!(EmbeddingFormat::of(Path::new("a.npy")).unwrap(), EmbeddingFormat::Npy);
        let message = EmbeddingFormat::of(Path::new("a.bin")).unwrap_err().to_string();
        assert_eq!(message, "a.bin requires a name that ends in .jsonl, .safetensors or .npy; rename the output");
    }
}
