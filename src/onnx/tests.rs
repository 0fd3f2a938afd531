//! The nodes of small models. `scripts/check/onnx_models.py` compares the outputs of whole models.

use prost::Message;

use super::lower::{NotSupported, model};
use super::proto::{ModelProto, ValueInfoProto};
use super::{Source, Symbols};
use crate::graph::{Graph, Tensor};
use crate::shape::{DType, HostTensor, Shape};

const SYMBOLS: Symbols = Symbols { batch: 10_007, length: 11 };

/// Returns the model of the graph that `build` makes from `ids`, s32\[batch, length\], and a weight `w`, f32\[5, 4\].
fn export(build: impl for<'g> Fn(Tensor<'g>, Tensor<'g>) -> Tensor<'g>) -> Result<ModelProto, NotSupported> {
    let graph = Graph::new("test");
    let ids = graph.parameter("ids", Shape::new(DType::S32, [SYMBOLS.batch, SYMBOLS.length]));
    let w = graph.parameter("w", Shape::new(DType::F32, [5, 4]));
    graph.parameter("unused", Shape::new(DType::S32, [SYMBOLS.batch]));
    let output = graph.scope("head", || build(ids, w));
    let computation = graph.finish(&[output]);
    let weights = [("w".to_owned(), HostTensor::new([5, 4], &[0.5f32; 20]))];
    let outputs = ["y".to_owned()];
    let source =
        Source { computation: &computation, symbols: SYMBOLS, inputs: &["ids"], weights: &weights, outputs: &outputs };
    Ok(ModelProto::decode(&*model(&source)?).unwrap())
}

fn kinds(model: &ModelProto) -> Vec<&str> {
    model.graph.as_ref().unwrap().node.iter().map(|node| node.op_type.as_str()).collect()
}

#[test]
fn dimensions_of_inputs_and_outputs_have_names() {
    let model = export(|ids, w| w.take_rows(ids)).unwrap();
    let graph = model.graph.as_ref().unwrap();
    assert_eq!(kinds(&model), ["Cast", "Gather", "Identity"]);
    let dims = |value: &ValueInfoProto| -> Vec<String> {
        let dims = value.r#type.clone().unwrap().tensor_type.unwrap().shape.unwrap().dim;
        dims.into_iter().map(|dim| dim.dim_param.unwrap_or_else(|| dim.dim_value.unwrap().to_string())).collect()
    };
    assert_eq!(graph.input.len(), 1, "a parameter that nothing uses is no input");
    assert_eq!(dims(&graph.input[0]), ["batch_size", "sequence_length"]);
    assert_eq!(
        (graph.output[0].name.as_str(), dims(&graph.output[0]).join(" ")),
        ("y", "batch_size sequence_length 4".into())
    );
    assert_eq!((graph.initializer[0].name.as_str(), graph.initializer[0].raw_data.len()), ("w", 80));
}

#[test]
fn elementwise_operations_broadcast_and_others_get_the_whole_array() {
    // One number for each row, added to each position: no array of the repeated numbers.
    let model = export(|ids, _| {
        let rows = ids.reduce_sum(&[1]);
        ids + rows.broadcast_like(ids, &[0])
    });
    assert_eq!(kinds(&model.unwrap()), ["Cast", "ReduceSum", "Unsqueeze", "Add", "Identity"]);
    let model = export(|ids, _| ids.reduce_sum(&[1]).broadcast_like(ids, &[0]));
    let expected = ["Cast", "ReduceSum", "Unsqueeze", "Shape", "Shape", "Concat", "Expand", "Identity"];
    assert_eq!(kinds(&model.unwrap()), expected);
}

#[test]
fn one_unknown_dimension_of_a_reshape_is_computed_by_it_and_two_come_from_the_input() {
    let model = export(|ids, w| w.take_rows(ids.reshape(&[SYMBOLS.batch * SYMBOLS.length]))).unwrap();
    assert_eq!(kinds(&model), ["Cast", "Reshape", "Gather", "Identity"]);
    let graph = model.graph.unwrap();
    let shape = graph.initializer.iter().find(|tensor| tensor.name == graph.node[1].input[1]).unwrap();
    assert_eq!(shape.raw_data, (-1i64).to_le_bytes());
    let model = export(|ids, _| ids.transpose(&[1, 0]).reshape(&[SYMBOLS.batch, SYMBOLS.length])).unwrap();
    assert_eq!(kinds(&model), ["Cast", "Transpose", "Shape", "Shape", "Concat", "Reshape", "Identity"]);
}

#[test]
fn an_operation_without_a_form_is_named_with_its_scope() {
    let error = export(|ids, _| ids.convert(DType::F32).is_finite().convert(DType::F32)).unwrap_err();
    assert_eq!(error.to_string(), "head: is-finite cannot be exported to ONNX");
}
