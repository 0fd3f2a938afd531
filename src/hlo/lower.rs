//! The lowering: one exhaustive match over [`Op`], in the order of its declaration.
//!
//! The requirements of the format beyond the graph, each tested in `tests.rs`:
//!
//! * **Layouts.** Every array shape has one, scalars included; a tuple has none of its own. All are row-major, so a
//!   [`HostTensor`]'s bytes have the logical order of a device buffer.
//! * **Names and ids** are unique in the module, not only within a computation. One counter numbers everything, and a name
//!   ends in its number: `add.12`.
//! * **Callees first.** A computation follows those it calls; the entry computation is the last.
//! * **`while`** lists its body before its condition, has one operand and one result: the state is tupled outside the loop
//!   and untupled inside.
//! * **Collectives over replicas** have empty replica groups ("all"), no channel and no global device ids, because a channel
//!   would make them span partitions. Over one replica they lower to their operand, or to a tuple if they have several.

use std::collections::HashMap;

use prost::Message;

use super::proto::*;
use super::window::{convolution_dimensions, window};
use super::{DotPrecision, HloModule, LowerOptions};
use crate::graph::{Comparison, Computation, Node, Op, Reduction, ValueShape, expanded};
use crate::shape::{DType, Element, HostTensor, Shape};

/// Lowers `computation` to a module whose parameters are separate arrays and whose root is the tuple of its outputs.
///
/// # Panics
/// If a donated pair is out of range, repeats a parameter or an output, or has two shapes, or if a collective was built
/// for another number of replicas. These are bugs in the code that builds the graph.
pub fn lower(computation: &Computation, options: &LowerOptions) -> HloModule {
    let parameters: Vec<Shape> = computation.parameter_shapes().into_iter().cloned().collect();
    let results: Vec<Shape> = computation.output_shapes().into_iter().cloned().collect();
    let computation = &*expanded(computation);
    check_donations(options.donated, &parameters, &results);

    let mut lowering = Lowering { options, computations: Vec::new(), callees: HashMap::new(), last_id: 0 };
    let entry_computation_id = lowering.computation(computation, Interface::Entry);
    let entry = &lowering.computations[lowering.computations.len() - 1];
    let module = HloModuleProto {
        name: options.name.to_string(),
        entry_computation_name: entry.name.clone(),
        entry_computation_id,
        host_program_shape: entry.program_shape.clone(),
        id: 1,
        input_output_alias: (!options.donated.is_empty()).then(|| input_output_alias(options.donated)),
        computations: lowering.computations,
    };
    HloModule {
        name: options.name.to_string(),
        bytes: module.encode_to_vec(),
        parameters,
        results,
        donated: options.donated.to_vec(),
        num_replicas: options.num_replicas,
    }
}

/// The opcode of comparisons.
const COMPARE: &str = "compare";

/// The calling convention of a computation.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Interface {
    /// Separate parameters, and a tuple as root.
    Entry,
    /// The body of a loop: a tuple as parameter, and the same tuple as root.
    Body,
    /// The condition of a loop: the body's tuple as parameter, and a pred scalar as root.
    Condition,
}

/// A module under construction.
struct Lowering<'a> {
    options: &'a LowerOptions<'a>,
    computations: Vec<HloComputationProto>,
    /// Ids of the computations of two scalars, by opcode and type, which all instructions share.
    callees: HashMap<(&'static str, DType), i64>,
    last_id: i64,
}

/// The instructions of one computation under construction.
#[derive(Default)]
struct Instructions {
    list: Vec<HloInstructionProto>,
    /// Ids of the constants that are initial values of reductions.
    identities: HashMap<(Reduction, DType), i64>,
}

impl Lowering<'_> {
    fn next_id(&mut self) -> i64 {
        self.last_id += 1;
        self.last_id
    }

    /// Names, numbers and appends an instruction, and returns its id.
    fn push(&mut self, into: &mut Instructions, mut instruction: HloInstructionProto) -> i64 {
        let id = self.next_id();
        instruction.id = id;
        instruction.name = format!("{}.{id}", instruction.opcode);
        into.list.push(instruction);
        id
    }

    /// Appends `computation` after those it calls, and returns its id.
    fn computation(&mut self, computation: &Computation, interface: Interface) -> i64 {
        let mut into = Instructions::default();
        let parameter_shapes: Vec<ShapeProto> = computation.parameter_shapes().into_iter().map(array_shape).collect();
        let tupled = (interface != Interface::Entry).then(|| {
            let parameter = HloInstructionProto {
                shape: Some(tuple_shape(parameter_shapes.clone())),
                ..plain("parameter", Vec::new())
            };
            self.push(&mut into, parameter)
        });

        let mut ids: Vec<i64> = Vec::with_capacity(computation.nodes.len());
        for node in &computation.nodes {
            let operands: Vec<i64> = node.inputs.iter().map(|input| ids[input.index()]).collect();
            let id = match (&node.op, tupled) {
                (Op::Parameter { index, shape, .. }, Some(tuple)) => {
                    let element = HloInstructionProto {
                        shape: Some(array_shape(shape)),
                        tuple_index: *index as i64,
                        ..plain("get-tuple-element", vec![tuple])
                    };
                    self.push(&mut into, element)
                }
                _ => self.node(&mut into, computation, node, operands),
            };
            ids.push(id);
        }

        let outputs: Vec<i64> = computation.outputs.iter().map(|id| ids[id.index()]).collect();
        let output_shapes: Vec<ShapeProto> = computation.output_shapes().into_iter().map(array_shape).collect();
        let (root_id, result) = match interface {
            Interface::Condition => (outputs[0], output_shapes[0].clone()),
            Interface::Entry | Interface::Body => {
                let shape = tuple_shape(output_shapes);
                let root = HloInstructionProto { shape: Some(shape.clone()), ..plain("tuple", outputs) };
                (self.push(&mut into, root), shape)
            }
        };
        let program_shape = match interface {
            Interface::Entry => ProgramShapeProto {
                parameter_names: computation
                    .parameters
                    .iter()
                    .map(|&id| parameter_name(computation.node(id)))
                    .collect(),
                parameters: parameter_shapes,
                result: Some(result),
            },
            Interface::Body | Interface::Condition => ProgramShapeProto {
                parameter_names: vec!["state".to_string()],
                parameters: vec![tuple_shape(parameter_shapes)],
                result: Some(result),
            },
        };
        let id = self.next_id();
        self.computations.push(HloComputationProto {
            name: format!("{}.{id}", identifier(&computation.name)),
            instructions: into.list,
            program_shape: Some(program_shape),
            id,
            root_id,
        });
        id
    }

    /// Appends the instructions of one node, and returns the id of its value.
    fn node(&mut self, into: &mut Instructions, computation: &Computation, node: &Node, operands: Vec<i64>) -> i64 {
        let mut instruction = HloInstructionProto {
            shape: Some(value_shape(&node.shape)),
            metadata: metadata(node),
            ..plain(node.op.name(), operands)
        };
        let i = &mut instruction;
        let replicas = self.options.num_replicas;
        match &node.op {
            // ---- leaves ----
            Op::Parameter { index, .. } => i.parameter_number = *index as i64,
            Op::Constant(value) => i.literal = Some(literal(value)),
            Op::Iota { dimension, .. } => i.dimensions = vec![*dimension as i64],

            // ---- elementwise, one operand: opcode and shape suffice ----
            Op::Unary(_) | Op::Convert { .. } | Op::BitcastConvert { .. } => {}

            // ---- elementwise, two operands: opcode and shape suffice ----
            Op::Binary(_) => {}

            // ---- compare and select ----
            Op::Compare { direction } => i.comparison_direction = comparison_direction(*direction).to_string(),
            Op::Select => {}

            // ---- shape ----
            Op::Reshape { .. } => {}
            Op::Transpose { permutation } => i.dimensions = int64s(permutation),
            Op::Broadcast { broadcast_dimensions, .. } => i.dimensions = int64s(broadcast_dimensions),
            Op::Concatenate { dimension } => i.dimensions = vec![*dimension as i64],
            Op::Slice { starts, limits, strides } => {
                let bounds = starts.iter().zip(limits).zip(strides);
                let bounds = bounds.map(|((&start, &limit), &stride)| SliceDimensions {
                    start: start as i64,
                    limit: limit as i64,
                    stride: stride as i64,
                });
                i.slice_dimensions = bounds.collect();
            }
            Op::Pad { low, high, interior } => {
                let edges = low.iter().zip(high).zip(interior);
                let edges = edges.map(|((&low, &high), &interior)| PaddingConfigDimension {
                    edge_padding_low: low as i64,
                    edge_padding_high: high as i64,
                    interior_padding: interior as i64,
                });
                i.padding_config = Some(PaddingConfig { dimensions: edges.collect() });
            }

            // ---- reduce ----
            Op::Reduce { reduction, dimensions } => {
                let dtype = computation.array_shape(node.inputs[0]).dtype;
                i.operand_ids.push(self.identity(into, *reduction, dtype));
                i.dimensions = int64s(dimensions);
                i.called_computation_ids = vec![self.reducer(*reduction, dtype)];
            }

            // ---- dot and convolution: the result's element type is the type of accumulation ----
            Op::DotGeneral { dimensions: d, .. } => {
                i.dot_dimension_numbers = Some(DotDimensionNumbers {
                    lhs_contracting_dimensions: int64s(&d.lhs_contracting),
                    rhs_contracting_dimensions: int64s(&d.rhs_contracting),
                    lhs_batch_dimensions: int64s(&d.lhs_batch),
                    rhs_batch_dimensions: int64s(&d.rhs_batch),
                });
                i.precision_config = self.product_precision();
            }

            // ---- windows ----
            Op::Convolution(convolution) => {
                i.window = Some(window(&convolution.window));
                i.convolution_dimension_numbers = Some(convolution_dimensions(&convolution.dimensions));
                i.feature_group_count = convolution.feature_groups as i64;
                i.batch_group_count = convolution.batch_groups as i64;
                i.precision_config = self.product_precision();
            }
            Op::ReduceWindow { reduction, window: dimensions } => {
                let dtype = computation.array_shape(node.inputs[0]).dtype;
                i.operand_ids.push(self.identity(into, *reduction, dtype));
                i.window = Some(window(dimensions));
                i.called_computation_ids = vec![self.reducer(*reduction, dtype)];
            }
            Op::SelectAndScatter { window: dimensions } => {
                let dtype = computation.array_shape(node.inputs[0]).dtype;
                i.operand_ids.push(self.identity(into, Reduction::Sum, dtype));
                i.window = Some(window(dimensions));
                i.called_computation_ids =
                    vec![self.of_two_scalars(COMPARE, dtype), self.reducer(Reduction::Sum, dtype)];
            }
            Op::Reverse { dimensions } => i.dimensions = int64s(dimensions),

            // ---- index ----
            Op::DynamicSlice { sizes } => i.dynamic_slice_sizes = int64s(sizes),
            Op::DynamicUpdateSlice => {}
            Op::Gather(d) => {
                i.gather_dimension_numbers = Some(GatherDimensionNumbers {
                    offset_dims: int64s(&d.offset_dims),
                    collapsed_slice_dims: int64s(&d.collapsed_slice_dims),
                    start_index_map: int64s(&d.start_index_map),
                    index_vector_dim: d.index_vector_dim as i64,
                });
                i.gather_slice_sizes = int64s(&d.slice_sizes);
            }
            Op::ScatterAdd(d) => {
                i.scatter_dimension_numbers = Some(ScatterDimensionNumbers {
                    update_window_dims: int64s(&d.update_window_dims),
                    inserted_window_dims: int64s(&d.inserted_window_dims),
                    scatter_dims_to_operand_dims: int64s(&d.scatter_dims_to_operand_dims),
                    index_vector_dim: d.index_vector_dim as i64,
                });
                let dtype = computation.array_shape(node.inputs[0]).dtype;
                i.called_computation_ids = vec![self.reducer(Reduction::Sum, dtype)];
            }

            // ---- control ----
            Op::While { condition, body } => {
                let state = std::mem::take(&mut i.operand_ids);
                let tuple = HloInstructionProto { shape: i.shape.clone(), ..plain("tuple", state) };
                i.operand_ids = vec![self.push(into, tuple)];
                let body = self.computation(body, Interface::Body);
                let condition = self.computation(condition, Interface::Condition);
                i.called_computation_ids = vec![body, condition];
            }
            Op::Scan(_) => unreachable!("scans are expanded"),
            Op::Composite(composite) => {
                let kernel = composite.kernel.as_ref().expect("composites without a kernel are expanded");
                i.opcode = "custom-call".to_owned();
                i.custom_call_target = kernel.target.clone();
                i.backend_config = kernel.backend_config.clone().into_bytes();
                i.custom_call_api_version = CustomCallApiVersion::TypedFfi.into();
                // The kernel reads and writes arrays in row-major order.
                i.constrain_layout = true;
                i.operand_shapes_with_layout =
                    node.inputs.iter().map(|&input| array_shape(computation.array_shape(input))).collect();
            }
            Op::GetTupleElement { index } => i.tuple_index = *index as i64,
            Op::OptimizationBarrier => {
                // HLO's barrier has one operand: the tuple of several.
                if node.inputs.len() > 1 {
                    let operands = node.inputs.iter().map(|&input| array_shape(computation.array_shape(input)));
                    let shape = Some(tuple_shape(operands.collect()));
                    let tuple = plain("tuple", std::mem::take(&mut i.operand_ids));
                    let tuple = self.push(into, HloInstructionProto { shape: shape.clone(), ..tuple });
                    let barrier = HloInstructionProto { shape, ..plain(node.op.name(), vec![tuple]) };
                    i.operand_ids = vec![self.push(into, barrier)];
                    i.opcode = "get-tuple-element".to_owned();
                }
            }
            Op::StopGradient => return i.operand_ids[0],

            // ---- collective, over all replicas ----
            Op::ReplicaId => {}
            Op::AllReduce { .. } | Op::AllGather { .. } | Op::ReduceScatter { .. } if replicas == 1 => {
                self.check_replicas(node);
                return match i.operand_ids.as_slice() {
                    [only] => *only,
                    _ => self.push(into, HloInstructionProto { opcode: "tuple".to_string(), ..instruction }),
                };
            }
            Op::AllReduce { reduction } => {
                let dtype = computation.array_shape(node.inputs[0]).dtype;
                i.called_computation_ids = vec![self.reducer(*reduction, dtype)];
            }
            Op::AllGather { dimension, .. } => {
                self.check_replicas(node);
                i.dimensions = vec![*dimension as i64];
            }
            Op::ReduceScatter { dimension, .. } => {
                self.check_replicas(node);
                let dtype = computation.array_shape(node.inputs[0]).dtype;
                i.dimensions = vec![*dimension as i64];
                i.called_computation_ids = vec![self.reducer(Reduction::Sum, dtype)];
            }
        }
        self.push(into, instruction)
    }

    /// Returns the precision of a product of this module.
    fn product_precision(&self) -> Option<PrecisionConfig> {
        match self.options.dot_precision {
            DotPrecision::Default => None,
            DotPrecision::Highest => Some(PrecisionConfig { operand_precision: vec![Precision::Highest.into(); 2] }),
        }
    }

    /// Returns the id of the computation that combines two scalars.
    fn reducer(&mut self, reduction: Reduction, dtype: DType) -> i64 {
        let opcode = match reduction {
            Reduction::Sum => "add",
            Reduction::Max => "maximum",
            Reduction::Min => "minimum",
            Reduction::And => "and",
            Reduction::Or => "or",
        };
        self.of_two_scalars(opcode, dtype)
    }

    /// Returns the id of the computation with the operation `opcode` of two scalars; a comparison tests whether the first is at least the
    /// second.
    fn of_two_scalars(&mut self, opcode: &'static str, dtype: DType) -> i64 {
        if let Some(&id) = self.callees.get(&(opcode, dtype)) {
            return id;
        }
        let scalar = array_shape(&Shape::scalar(dtype));
        let (result, direction) = match opcode {
            COMPARE => (array_shape(&Shape::scalar(DType::Pred)), comparison_direction(Comparison::Ge)),
            _ => (scalar.clone(), ""),
        };
        let mut into = Instructions::default();
        let [lhs, rhs] = [0, 1].map(|parameter_number| {
            let shape = Some(scalar.clone());
            self.push(&mut into, HloInstructionProto { shape, parameter_number, ..plain("parameter", Vec::new()) })
        });
        let combined = HloInstructionProto {
            shape: Some(result.clone()),
            comparison_direction: direction.to_owned(),
            ..plain(opcode, vec![lhs, rhs])
        };
        let root_id = self.push(&mut into, combined);
        let id = self.next_id();
        self.computations.push(HloComputationProto {
            name: format!("{opcode}_{dtype}.{id}"),
            instructions: into.list,
            program_shape: Some(ProgramShapeProto {
                parameters: vec![scalar; 2],
                result: Some(result),
                parameter_names: vec!["lhs".to_string(), "rhs".to_string()],
            }),
            id,
            root_id,
        });
        self.callees.insert((opcode, dtype), id);
        id
    }

    /// Returns the id of the constant that is the initial value of `reduction`.
    fn identity(&mut self, into: &mut Instructions, reduction: Reduction, dtype: DType) -> i64 {
        if let Some(&id) = into.identities.get(&(reduction, dtype)) {
            return id;
        }
        let value = identity(reduction, dtype);
        let constant = HloInstructionProto {
            shape: Some(array_shape(value.shape())),
            literal: Some(literal(&value)),
            ..plain("constant", Vec::new())
        };
        let id = self.push(into, constant);
        into.identities.insert((reduction, dtype), id);
        id
    }

    fn check_replicas(&self, node: &Node) {
        let (Op::AllGather { replicas, .. } | Op::ReduceScatter { replicas, .. }) = &node.op else { return };
        let (op, lowered_for) = (node.op.name(), self.options.num_replicas);
        assert!(*replicas == lowered_for, "{op} requires {replicas} replicas, got a module for {lowered_for}");
    }
}

/// Returns the identity element of a reduction.
fn identity(reduction: Reduction, dtype: DType) -> HostTensor {
    let scalar = |value| HostTensor::from_f64(Shape::scalar(dtype), &[value]);
    match (reduction, dtype) {
        // The conversion saturates: an infinity becomes the least or greatest integer.
        (Reduction::Max, _) => scalar(f64::NEG_INFINITY),
        (Reduction::Min, _) => scalar(f64::INFINITY),
        // All bits set: -1 for a signed integer, the greatest value for an unsigned one.
        (Reduction::And, DType::S32) => scalar(-1.0),
        (Reduction::And, _) => scalar(f64::INFINITY),
        (Reduction::Sum | Reduction::Or, _) => scalar(0.0),
    }
}

/// Returns an instruction with an opcode and operands only.
fn plain(opcode: &str, operand_ids: Vec<i64>) -> HloInstructionProto {
    HloInstructionProto { opcode: opcode.to_string(), operand_ids, ..Default::default() }
}

/// Returns the metadata that profiles show: the node's scope, or a parameter's name.
fn metadata(node: &Node) -> Option<OpMetadata> {
    let op_name = match &node.op {
        Op::Parameter { .. } => parameter_name(node),
        _ => node.scope.to_string(),
    };
    (!op_name.is_empty()).then(|| OpMetadata { op_type: node.op.name().to_string(), op_name })
}

fn parameter_name(node: &Node) -> String {
    match &node.op {
        Op::Parameter { name, .. } => name.clone(),
        other => unreachable!("{} is listed as a parameter", other.name()),
    }
}

fn comparison_direction(direction: Comparison) -> &'static str {
    match direction {
        Comparison::Eq => "EQ",
        Comparison::Ne => "NE",
        Comparison::Lt => "LT",
        Comparison::Le => "LE",
        Comparison::Gt => "GT",
        Comparison::Ge => "GE",
    }
}

fn value_shape(shape: &ValueShape) -> ShapeProto {
    match shape {
        ValueShape::Array(shape) => array_shape(shape),
        ValueShape::Tuple(shapes) => tuple_shape(shapes.iter().map(array_shape).collect()),
    }
}

fn array_shape(shape: &Shape) -> ShapeProto {
    let element_type = match shape.dtype {
        DType::Pred => PrimitiveType::Pred,
        DType::U8 => PrimitiveType::U8,
        DType::U16 => PrimitiveType::U16,
        DType::S32 => PrimitiveType::S32,
        DType::U32 => PrimitiveType::U32,
        DType::U64 => PrimitiveType::U64,
        DType::F16 => PrimitiveType::F16,
        DType::BF16 => PrimitiveType::Bf16,
        DType::F32 => PrimitiveType::F32,
        DType::F64 => PrimitiveType::F64,
    };
    ShapeProto {
        element_type: element_type.into(),
        dimensions: int64s(&shape.dims),
        // XLA logs a warning for a shape without this field.
        is_dynamic_dimension: vec![false; shape.rank()],
        tuple_shapes: Vec::new(),
        layout: Some(LayoutProto { minor_to_major: (0..shape.rank() as i64).rev().collect(), ..Default::default() }),
    }
}

fn tuple_shape(tuple_shapes: Vec<ShapeProto>) -> ShapeProto {
    ShapeProto { element_type: PrimitiveType::Tuple.into(), tuple_shapes, ..Default::default() }
}

fn literal(value: &HostTensor) -> LiteralProto {
    fn elements<T: Element>(value: &HostTensor) -> Vec<T> {
        bytemuck::allocation::pod_collect_to_vec(value.bytes())
    }
    let mut literal = LiteralProto { shape: Some(array_shape(value.shape())), ..Default::default() };
    match value.shape().dtype {
        DType::Pred => literal.preds = value.bytes().iter().map(|&b| b != 0).collect(),
        DType::U8 => literal.u8s = value.bytes().to_vec(),
        DType::U16 => literal.u16s = value.bytes().to_vec(),
        DType::S32 => literal.s32s = elements(value),
        DType::U32 => literal.u32s = elements(value),
        DType::U64 => literal.u64s = elements(value),
        DType::F16 => literal.f16s = value.bytes().to_vec(),
        DType::BF16 => literal.bf16s = value.bytes().to_vec(),
        DType::F32 => literal.f32s = elements(value),
        DType::F64 => literal.f64s = elements(value),
    }
    literal
}

fn input_output_alias(donated: &[(usize, usize)]) -> HloInputOutputAliasProto {
    let entries = donated.iter().map(|&(parameter, output)| AliasEntryProto {
        output_shape_index: vec![output as i64],
        parameter_number: parameter as i64,
        parameter_shape_index: Vec::new(),
        kind: AliasKind::May.into(),
    });
    HloInputOutputAliasProto { entries: entries.collect() }
}

fn check_donations(donated: &[(usize, usize)], parameters: &[Shape], results: &[Shape]) {
    let mut donated_parameters = vec![false; parameters.len()];
    let mut aliased_results = vec![false; results.len()];
    for &(p, o) in donated {
        let (Some(parameter), Some(result)) = (parameters.get(p), results.get(o)) else {
            panic!("donation {p} -> {o} requires {} parameters and {} results", parameters.len(), results.len());
        };
        assert!(parameter == result, "donation {p} -> {o} requires equal shapes, got {parameter} and {result}");
        let repeated =
            std::mem::replace(&mut donated_parameters[p], true) | std::mem::replace(&mut aliased_results[o], true);
        assert!(!repeated, "donation {p} -> {o} requires a parameter and a result that no other donation uses");
    }
}

/// Replaces characters that HLO does not allow in a name by `_`.
fn identifier(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' }).collect()
}

fn int64s(values: &[usize]) -> Vec<i64> {
    values.iter().map(|&v| v as i64).collect()
}
