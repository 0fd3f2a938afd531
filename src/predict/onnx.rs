//! A saved model as an ONNX model: the encoder, with or without pooling, or the encoder with the head of its task.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, ensure};

use crate::batch::prediction::PredictionForm;
use crate::bert::{BertConfig, Encoder, EncoderOutput, Head, Recompute, fine_tuning_task, param_specs_of};
use crate::checkpoint::Checkpoint;
use crate::checkpoint::hugging_face::Architecture;
use crate::graph::expanded;
use crate::onnx::{Source, Symbols, model as to_bytes};
use crate::run::weights::configuration_in;
use crate::shape::DType;
use crate::step::{ForwardSpec, ForwardStep};
use crate::task::{Model, Precision};

/// The name of pooled hidden states, that of sentence-transformers.
const SENTENCE_EMBEDDING: &str = "sentence_embedding";
/// The most bytes of a protobuf message.
const MOST_BYTES: usize = i32::MAX as usize;

/// Returns the checkpoint in `directory` as the bytes of an ONNX model for the class `architecture`. A fine-tuned class has its outputs
/// in transformers (`logits`; `start_logits` and `end_logits`); any other has `last_hidden_state` and, with `pooling`,
/// `sentence_embedding`. Inputs are int64 of any batch and any length up to the positions of the model.
///
/// # Errors
/// If the checkpoint has no configuration, a class with a head is to be pooled, or the model has 2 GB or more.
pub fn onnx_model(
    directory: &Path,
    checkpoint: &Checkpoint,
    architecture: Architecture,
    pooling: Option<EncoderOutput>,
) -> anyhow::Result<Vec<u8>> {
    let (config, head) = configuration_in(checkpoint, directory)?;
    let symbols = symbols(&config, &head).with_context(|| {
        format!("an export to ONNX requires more than {} positions", config.max_position_embeddings)
    })?;
    let model = model(&config, &head, architecture, pooling, symbols)?;
    let bytes: usize = model.parameters().iter().map(|param| param.shape(DType::F32).bytes()).sum();
    ensure!(bytes < MOST_BYTES, "an export to ONNX requires less than 2 GB of weights, got {} bytes", bytes);

    let spec = ForwardSpec { model, precision: Precision::F32, rows: symbols.batch, replicas: 1 };
    let program = ForwardStep::build(&spec)?.program;
    let pooled = pooling.map(EncoderOutput::name);
    let name = |name: &str| if pooled == Some(name) { SENTENCE_EMBEDDING.to_owned() } else { name.to_owned() };
    let outputs: Vec<String> = program.outputs.iter().map(|output| name(&output.name)).collect();
    // Every encoder reads the tensors of a prediction; the labels of a fine-tuned one are no inputs.
    let inputs = PredictionForm { sequence_length: symbols.length, masked_positions: None }.spec();
    let inputs: Vec<&str> = inputs.tensors.iter().map(|tensor| tensor.name).collect();
    Ok(to_bytes(&Source {
        computation: &expanded(&program.computation),
        symbols,
        inputs: &inputs,
        weights: &checkpoint.model,
        outputs: &outputs,
    })?)
}

/// Returns the model of a class, with rows of the symbolic length.
fn model(
    config: &BertConfig,
    head: &Head,
    architecture: Architecture,
    pooling: Option<EncoderOutput>,
    symbols: Symbols,
) -> anyhow::Result<Arc<dyn Model>> {
    if architecture.name() == head.architecture()
        && let Some(task) = fine_tuning_task(config, head, symbols.length, Recompute::default())
    {
        ensure!(
            pooling.is_none(),
            "pooling requires an encoder, got {}; export the architecture BertModel, or leave pooling out",
            architecture.name()
        );
        return Ok(task);
    }
    let outputs = [EncoderOutput::LastHiddenState].into_iter().chain(pooling).collect();
    Ok(Arc::new(Encoder { model: config.clone(), sequence_length: symbols.length, outputs }))
}

/// Returns symbols that no dimension of the model is a multiple of.
fn symbols(config: &BertConfig, head: &Head) -> Option<Symbols> {
    let of_parameters = param_specs_of(config, head).into_iter().flat_map(|param| param.dims);
    // Heads and their size divide the hidden size. Factors of its own: three joined weights, two token types, two ends of an answer.
    let dims: Vec<usize> = of_parameters.chain([2, 3]).collect();
    Symbols::for_model(&dims, config.max_position_embeddings)
}
