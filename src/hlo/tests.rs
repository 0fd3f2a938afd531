//! Decodes the emitted bytes and checks each requirement of the format that `lower.rs` states, and the printed form.

use std::collections::HashSet;

use prost::Message;

use super::proto::*;
use crate::graph::{Computation, Graph, Reduction, Tensor};
use crate::hlo::*;
use crate::shape::{DType, HostTensor};

fn f32s(dims: &[usize]) -> Shape {
    Shape::new(DType::F32, dims)
}

fn decode(module: &HloModule) -> HloModuleProto {
    HloModuleProto::decode(&*module.bytes).unwrap()
}

fn lowered(build: impl for<'g> FnOnce(&'g Graph, Tensor<'g>) -> Vec<Tensor<'g>>) -> HloModuleProto {
    let graph = Graph::new("test");
    let x = graph.parameter("x", f32s(&[2, 3]));
    let outputs = build(&graph, x);
    decode(&lower(&graph.finish(&outputs), &LowerOptions { num_replicas: 4, ..Default::default() }))
}

fn instructions(module: &HloModuleProto) -> impl Iterator<Item = &HloInstructionProto> {
    module.computations.iter().flat_map(|c| &c.instructions)
}

fn only<'m>(module: &'m HloModuleProto, opcode: &str) -> &'m HloInstructionProto {
    let mut found = instructions(module).filter(|i| i.opcode == opcode);
    let first = found.next().unwrap_or_else(|| panic!("no {opcode}"));
    assert!(found.next().is_none(), "more than one {opcode}");
    first
}

/// Returns a loop that counts to ten while it sums, and a reduction outside the loop: five computations.
fn counting_loop() -> Computation {
    let graph = Graph::new("main");
    let x = graph.parameter("x", f32s(&[2, 3]));
    let start = graph.scalar(0.0, DType::S32);
    let last = graph.while_loop(
        "count",
        &[start, x],
        |g, state| state[0].lt(g.scalar(10.0, DType::S32)),
        |_, state| {
            let total = state[1].sum().broadcast(&[2, 3], &[]);
            vec![state[0] + 1.0, total]
        },
    );
    graph.finish(&[last[1].sum(), x.reduce_max(&[0])])
}

#[test]
fn lowering_is_deterministic() {
    let options = LowerOptions::default();
    assert_eq!(lower(&counting_loop(), &options), lower(&counting_loop(), &options));
}

#[test]
fn array_shapes_have_row_major_layouts_and_tuples_none() {
    fn check(shape: &ShapeProto) {
        if shape.element_type() == PrimitiveType::Tuple {
            assert_eq!(shape.layout, None);
            return shape.tuple_shapes.iter().for_each(check);
        }
        let rank = shape.dimensions.len();
        let row_major: Vec<i64> = (0..rank as i64).rev().collect();
        assert_eq!(shape.layout.as_ref().unwrap().minor_to_major, row_major);
        assert_eq!(shape.is_dynamic_dimension, vec![false; rank]);
    }
    let module = decode(&lower(&counting_loop(), &LowerOptions::default()));
    let program_shapes = module.computations.iter().map(|c| c.program_shape.as_ref().unwrap());
    for shape in program_shapes.chain(&module.host_program_shape) {
        shape.parameters.iter().chain(&shape.result).for_each(check);
    }
    instructions(&module).for_each(|i| check(i.shape.as_ref().unwrap()));
    let literals: Vec<_> = instructions(&module).filter_map(|i| i.literal.as_ref()).collect();
    assert!(literals.len() >= 3);
    literals.iter().for_each(|l| check(l.shape.as_ref().unwrap()));
}

#[test]
fn names_and_ids_are_unique_in_the_module() {
    let module = decode(&lower(&counting_loop(), &LowerOptions::default()));
    let computations = module.computations.iter().map(|c| (&c.name, c.id));
    let all: Vec<_> = instructions(&module).map(|i| (&i.name, i.id)).chain(computations).collect();
    assert!(all.len() > 20);
    assert_eq!(all.iter().map(|(name, _)| name).collect::<HashSet<_>>().len(), all.len());
    assert_eq!(all.iter().map(|(_, id)| id).collect::<HashSet<_>>().len(), all.len());
}

#[test]
fn operands_and_callees_come_first_and_the_entry_last() {
    let module = decode(&lower(&counting_loop(), &LowerOptions::default()));
    let mut computations = HashSet::new();
    for computation in &module.computations {
        let mut known = HashSet::new();
        for i in &computation.instructions {
            assert!(i.operand_ids.iter().all(|id| known.contains(id)), "{}", i.name);
            assert!(i.called_computation_ids.iter().all(|id| computations.contains(id)), "{}", i.name);
            known.insert(i.id);
        }
        assert!(known.contains(&computation.root_id));
        computations.insert(computation.id);
    }
    let entry = module.computations.last().unwrap();
    assert_eq!((entry.id, &entry.name), (module.entry_computation_id, &module.entry_computation_name));
    assert_eq!(entry.program_shape, module.host_program_shape);
}

#[test]
fn while_lists_body_before_condition_and_has_one_tuple_operand() {
    let module = decode(&lower(&counting_loop(), &LowerOptions::default()));
    let i = only(&module, "while");
    let called = |place: usize| {
        let id = i.called_computation_ids[place];
        module.computations.iter().find(|c| c.id == id).unwrap()
    };
    let (body, condition) = (called(0), called(1));
    assert!(body.name.starts_with("count.body."), "{}", body.name);
    assert!(condition.name.starts_with("count.condition."), "{}", condition.name);
    let state = i.shape.as_ref().unwrap();
    assert_eq!(state.tuple_shapes.len(), 2);
    assert_eq!(i.operand_ids.len(), 1);
    for computation in [body, condition] {
        assert_eq!(computation.program_shape.as_ref().unwrap().parameters, std::slice::from_ref(state));
        assert_eq!(computation.instructions.iter().filter(|i| i.opcode == "parameter").count(), 1);
    }
    assert_eq!(body.program_shape.as_ref().unwrap().result.as_ref(), Some(state));
    let result = condition.program_shape.as_ref().unwrap().result.as_ref().unwrap();
    assert_eq!(result.element_type(), PrimitiveType::Pred);
}

#[test]
fn reducers_are_shared_by_reduction_and_type() {
    let module = decode(&lower(&counting_loop(), &LowerOptions::default()));
    let reducers: Vec<&str> = module.computations.iter().map(|c| &*c.name).filter(|n| n.contains("_f32.")).collect();
    assert_eq!(reducers.len(), 2, "{reducers:?}");
}

#[test]
fn reduction_starts_from_its_identity_element() {
    let start = |reduction, dtype| {
        let graph = Graph::new("test");
        let x = graph.parameter("x", Shape::new(dtype, [4]));
        let module = decode(&lower(&graph.finish(&[x.reduce(reduction, &[0])]), &LowerOptions::default()));
        only(&module, "constant").literal.clone().unwrap()
    };
    assert_eq!(start(Reduction::Sum, DType::F32).f32s, [0.0]);
    assert_eq!(start(Reduction::Max, DType::F32).f32s, [f32::NEG_INFINITY]);
    assert_eq!(start(Reduction::Max, DType::S32).s32s, [i32::MIN]);
    assert_eq!(start(Reduction::Max, DType::U32).u32s, [0]);
    assert_eq!(start(Reduction::Min, DType::BF16).bf16s, [0x80, 0x7f]);
    assert_eq!(start(Reduction::Min, DType::U64).u64s, [u64::MAX]);
    assert_eq!(start(Reduction::And, DType::S32).s32s, [-1]);
    assert_eq!(start(Reduction::And, DType::U16).u16s, [0xff, 0xff]);
    assert_eq!(start(Reduction::And, DType::Pred).preds, [true]);
    assert_eq!(start(Reduction::Or, DType::Pred).preds, [false]);
}

#[test]
fn constant_uses_the_literal_field_of_its_type() {
    for dtype in DType::ALL {
        let graph = Graph::new("test");
        let values = HostTensor::from_f64(Shape::new(dtype, [2]), &[1.0, 0.0]);
        let module = decode(&lower(&graph.finish(&[graph.constant(values.clone())]), &LowerOptions::default()));
        let literal = only(&module, "constant").literal.clone().unwrap();
        let bytes: Vec<u8> = match dtype {
            DType::Pred => literal.preds.iter().map(|&b| b as u8).collect(),
            DType::U8 => literal.u8s,
            DType::U16 => literal.u16s,
            DType::S32 => literal.s32s.iter().flat_map(|x| x.to_le_bytes()).collect(),
            DType::U32 => literal.u32s.iter().flat_map(|x| x.to_le_bytes()).collect(),
            DType::U64 => literal.u64s.iter().flat_map(|x| x.to_le_bytes()).collect(),
            DType::F16 => literal.f16s,
            DType::BF16 => literal.bf16s,
            DType::F32 => literal.f32s.iter().flat_map(|x| x.to_le_bytes()).collect(),
            DType::F64 => literal.f64s.iter().flat_map(|x| x.to_le_bytes()).collect(),
        };
        assert_eq!(bytes, values.bytes(), "{dtype}");
    }
}

#[test]
fn collective_over_one_replica_lowers_to_its_operand() {
    let graph = Graph::new("test");
    let x = graph.parameter("x", f32s(&[4]));
    let sum = x.all_reduce(Reduction::Sum).all_gather(0, 1).reduce_scatter(0, 1);
    let module = decode(&lower(&graph.finish(&[sum]), &LowerOptions::default()));
    let opcodes: Vec<&str> = instructions(&module).map(|i| &*i.opcode).collect();
    assert_eq!(opcodes, ["parameter", "tuple"]);
}

#[test]
fn collective_of_several_over_one_replica_lowers_to_a_tuple() {
    let graph = Graph::new("test");
    let x = graph.parameter("x", f32s(&[4]));
    let sums = graph.all_reduce(&[x, x.exp()], Reduction::Sum);
    let module = decode(&lower(&graph.finish(&sums), &LowerOptions::default()));
    let opcodes: Vec<&str> = instructions(&module).map(|i| &*i.opcode).collect();
    assert_eq!(opcodes, ["parameter", "exponential", "tuple", "get-tuple-element", "get-tuple-element", "tuple"]);
}

#[test]
fn stop_gradient_lowers_to_its_operand() {
    let module = lowered(|_, x| vec![x.stop_gradient().exp()]);
    assert_eq!(only(&module, "exponential").operand_ids, [only(&module, "parameter").id]);
}

#[test]
fn metadata_is_the_scope_or_the_parameter_name() {
    let module = lowered(|g, x| vec![g.scope("encoder", || g.scope("layer.0", || x.exp()))]);
    assert_eq!(only(&module, "exponential").metadata.as_ref().unwrap().op_name, "encoder/layer.0");
    assert_eq!(only(&module, "parameter").metadata.as_ref().unwrap().op_name, "x");
}

#[test]
fn dot_has_a_precision_config_only_for_highest() {
    let graph = Graph::new("test");
    let x = graph.parameter("x", f32s(&[2, 3]));
    let y = graph.parameter("y", f32s(&[3, 4]));
    let computation = graph.finish(&[x.matmul(y, DType::F32)]);
    let with = |dot_precision| {
        let module = decode(&lower(&computation, &LowerOptions { dot_precision, ..Default::default() }));
        only(&module, "dot").precision_config.clone()
    };
    assert_eq!(with(DotPrecision::Default), None);
    assert_eq!(with(DotPrecision::Highest).unwrap().operand_precision, [Precision::Highest as i32; 2]);
}

#[test]
fn donation_is_an_input_output_alias() {
    let graph = Graph::new("test");
    let x = graph.parameter("x", f32s(&[2]));
    let y = graph.parameter("y", f32s(&[2]));
    let computation = graph.finish(&[x + y, x - y]);
    let module = lower(&computation, &LowerOptions { donated: &[(1, 0)], ..Default::default() });
    let entries = decode(&module).input_output_alias.unwrap().entries;
    assert_eq!(entries.len(), 1);
    assert_eq!((entries[0].parameter_number, &*entries[0].output_shape_index), (1, &[0][..]));
    assert_eq!(entries[0].kind(), AliasKind::May);
    assert_eq!(module.donated, [(1, 0)]);
}

#[test]
#[should_panic(expected = "donation 0 -> 0 requires equal shapes, got f32[2,3] and f32[2]")]
fn donation_requires_equal_shapes() {
    let graph = Graph::new("test");
    let x = graph.parameter("x", f32s(&[2, 3]));
    lower(&graph.finish(&[x.reduce_sum(&[1])]), &LowerOptions { donated: &[(0, 0)], ..Default::default() });
}

#[test]
#[should_panic(expected = "all-gather requires 2 replicas, got a module for 4")]
fn collective_requires_the_number_of_replicas_it_was_built_for() {
    lowered(|_, x| vec![x.all_gather(0, 2)]);
}

#[test]
fn printed_form_is_hlo_text() {
    let graph = Graph::new("main");
    let x = graph.parameter("x", f32s(&[2, 3]));
    let y = graph.scope("encoder", || (2.0 * x).reduce_sum(&[1]));
    let module = lower(&graph.finish(&[y]), &LowerOptions { name: "step", ..Default::default() });
    let expected = r#"HloModule step

%add_f32.9 (lhs: f32[], rhs: f32[]) -> f32[] {
  %parameter.6 = f32[] parameter(0)
  %parameter.7 = f32[] parameter(1)
  ROOT %add.8 = f32[] add(%parameter.6, %parameter.7)
}

ENTRY %main.12 (x: f32[2,3]{1,0}) -> (f32[2]{0}) {
  %parameter.1 = f32[2,3]{1,0} parameter(0), metadata={op_name="x"}
  %constant.2 = f32[] constant(2), metadata={op_name="encoder"}
  %broadcast.3 = f32[2,3]{1,0} broadcast(%constant.2), dimensions={}, metadata={op_name="encoder"}
  %multiply.4 = f32[2,3]{1,0} multiply(%broadcast.3, %parameter.1), metadata={op_name="encoder"}
  %constant.5 = f32[] constant(0)
  %reduce.10 = f32[2]{0} reduce(%multiply.4, %constant.5), dimensions={1}, to_apply=%add_f32.9, metadata={op_name="encoder"}
  ROOT %tuple.11 = (f32[2]{0}) tuple(%reduce.10)
}
"#;
    assert_eq!(text(&module.bytes).unwrap(), expected);
    assert!(text(b"not a module").is_err());
}

#[test]
fn printed_form_of_an_optimized_program_has_fusions_layouts_and_settings() {
    let dimension = WindowDimension { size: 3, stride: 1, window_dilation: 1, base_dilation: 2, ..Default::default() };
    let convolution = HloInstructionProto {
        name: "convolution".to_owned(),
        opcode: "convolution".to_owned(),
        window: Some(Window {
            dimensions: vec![WindowDimension { padding_low: 1, window_reversal: true, ..dimension }],
        }),
        convolution_dimension_numbers: Some(ConvolutionDimensionNumbers {
            input_batch_dimension: 1,
            input_feature_dimension: 2,
            input_spatial_dimensions: vec![0],
            kernel_input_feature_dimension: 1,
            kernel_output_feature_dimension: 2,
            kernel_spatial_dimensions: vec![0],
            output_batch_dimension: 0,
            output_feature_dimension: 1,
            output_spatial_dimensions: vec![2],
        }),
        id: 1,
        ..Default::default()
    };
    let tiles = vec![TileProto { dimensions: vec![8, 128] }, TileProto { dimensions: vec![2, 1] }];
    let layout = LayoutProto { minor_to_major: vec![1, 0], tiles, memory_space: 1 };
    let fusion = HloInstructionProto {
        name: "fusion".to_owned(),
        opcode: "fusion".to_owned(),
        shape: Some(ShapeProto {
            element_type: PrimitiveType::Bf16.into(),
            dimensions: vec![4, 6],
            layout: Some(layout),
            ..Default::default()
        }),
        fusion_kind: "kOutput".to_owned(),
        called_computation_ids: vec![9],
        backend_config: br#"{"n":"3"}"#.to_vec(),
        id: 2,
        ..Default::default()
    };
    let fused =
        HloComputationProto { name: "fused".to_owned(), instructions: vec![convolution], id: 9, ..Default::default() };
    let main =
        HloComputationProto { name: "main".to_owned(), instructions: vec![fusion], id: 10, ..Default::default() };
    let module = HloModuleProto { computations: vec![fused, main], entry_computation_id: 10, ..Default::default() };
    let printed = text(&module.encode_to_vec()).unwrap();
    for line in [
        "%convolution = ? convolution(), window={size=3 pad=1_0 lhs_dilate=2 rhs_reversal=1}, dim_labels=0bf_0io->bf0",
        r#"%fusion = bf16[4,6]{1,0:T(8,128)(2,1)S(1)} fusion(), kind=kOutput, calls=%fused, backend_config={"n":"3"}"#,
    ] {
        assert!(printed.contains(line), "{line}\n{printed}");
    }
}
