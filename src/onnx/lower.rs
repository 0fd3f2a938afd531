//! One ONNX node or a few for each node of a graph.

use std::collections::HashMap;

use prost::Message;

use super::dims::Dim;
use super::proto::{
    AttributeProto, DimensionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
    TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto,
};
use super::{OPSET, Source};
use crate::graph::{BinaryOp, Comparison, DotDimensions, GatherDimensions, Op, Reduction, UnaryOp};
use crate::shape::{DType, HostTensor, Shape};

/// The version of the file format that belongs to [`OPSET`].
const IR_VERSION: i64 = 8;
/// The type of inputs and shapes (`TensorProto.DataType`).
const INT64: i32 = 7;

/// The error of a computation with an operation that has no ONNX form here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{scope}: {operation} cannot be exported to ONNX")]
pub struct NotSupported {
    operation: String,
    scope: String,
}

/// Returns `source` as the bytes of a `ModelProto`.
///
/// # Errors
/// If an operation has no ONNX form here.
pub fn model(source: &Source<'_>) -> Result<Vec<u8>, NotSupported> {
    let mut writer = Writer::new(source);
    let mut values: Vec<Option<Value>> = Vec::with_capacity(source.computation.nodes.len());
    for node in &source.computation.nodes {
        writer.scope = node.scope.to_string();
        let operands: Option<Vec<Value>> = node.inputs.iter().map(|input| values[input.index()].clone()).collect();
        let shape = node.shape.arrays().first();
        let value = match (operands, shape) {
            (Some(operands), Some(shape)) => writer.node(&node.op, &operands, shape)?,
            _ => return Err(writer.unsupported(node.op.name())),
        };
        values.push(value);
    }
    writer.scope = String::new();
    let mut outputs = Vec::new();
    for (&id, name) in source.computation.outputs.iter().zip(source.outputs) {
        let value = values[id.index()].clone().ok_or_else(|| writer.unsupported("an unused parameter as an output"))?;
        let whole = writer.whole(&value);
        writer.nodes.push(NodeProto {
            input: vec![whole],
            output: vec![name.clone()],
            name: format!("Identity_{name}"),
            op_type: "Identity".to_owned(),
            attribute: Vec::new(),
        });
        outputs.push(writer.value_info(name, type_code(value.dtype), &value.dims));
    }
    let graph = GraphProto {
        node: writer.nodes,
        name: source.computation.name.clone(),
        initializer: writer.initializers,
        input: writer.inputs,
        output: outputs,
    };
    let model = ModelProto {
        ir_version: IR_VERSION,
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: OPSET }],
        producer_name: "lambert".to_owned(),
        producer_version: env!("CARGO_PKG_VERSION").to_owned(),
        graph: Some(graph),
    };
    Ok(model.encode_to_vec())
}

/// The tensor that stands for a value of the graph.
#[derive(Clone, Debug)]
struct Value {
    /// The name of the tensor.
    name: String,
    dtype: DType,
    /// The dimensions of the value.
    dims: Vec<usize>,
    /// For each of them whether the tensor has it; where it has not, its size is 1, and elementwise operations broadcast it.
    has: Vec<bool>,
    /// The tensor has no dimensions at all.
    is_scalar: bool,
}

impl Value {
    fn whole(name: String, shape: &Shape) -> Value {
        let Shape { dtype, dims } = shape.clone();
        Value { name, dtype, has: vec![true; dims.len()], is_scalar: dims.is_empty(), dims }
    }
}

struct Writer<'a> {
    source: &'a Source<'a>,
    nodes: Vec<NodeProto>,
    initializers: Vec<TensorProto>,
    inputs: Vec<ValueInfoProto>,
    /// Constants by type, dimensions and bytes.
    constants: HashMap<(i32, Vec<i64>, Vec<u8>), String>,
    /// Tensors int64\[1\] with the value of a dimension.
    sizes: HashMap<Dim, String>,
    scope: String,
}

impl<'a> Writer<'a> {
    fn new(source: &'a Source<'a>) -> Writer<'a> {
        Writer {
            source,
            nodes: Vec::new(),
            initializers: Vec::new(),
            inputs: Vec::new(),
            constants: HashMap::new(),
            sizes: HashMap::new(),
            scope: String::new(),
        }
    }

    fn unsupported(&self, operation: &str) -> NotSupported {
        NotSupported { operation: operation.to_owned(), scope: self.scope.clone() }
    }

    /// Appends the form of one node of the graph; none for a parameter without a value, which nothing may use.
    fn node(&mut self, op: &Op, operands: &[Value], shape: &Shape) -> Result<Option<Value>, NotSupported> {
        let whole = |name: String| Value::whole(name, shape);
        let value = match op {
            // ---- leaves ----
            Op::Parameter { name, .. } => return Ok(self.parameter(name, shape)),
            Op::Constant(tensor) => {
                if shape.dims.iter().any(|&size| !self.source.symbols.dim(size).is_constant()) {
                    return Err(self.unsupported("a constant of the size of a batch"));
                }
                whole(self.constant(tensor))
            }
            Op::Iota { dimension, .. } => self.iota(shape, *dimension),

            // ---- elementwise ----
            Op::Unary(unary) => {
                let name = self.unary(*unary, &operands[0])?;
                Value { name, dtype: shape.dtype, ..operands[0].clone() }
            }
            Op::Convert { dtype } => {
                let name = self.cast(&operands[0].name, type_code(*dtype));
                Value { name, dtype: *dtype, ..operands[0].clone() }
            }
            Op::Binary(binary) => self.elementwise(self.binary(*binary, shape.dtype)?, operands, shape.dtype),
            Op::Compare { direction } => self.compare(*direction, operands),
            Op::Select => self.elementwise("Where", operands, shape.dtype),

            // ---- shape ----
            Op::Reshape { dims } => {
                let operand = self.whole(&operands[0]);
                whole(self.reshaped(operand, &operands[0].dims, dims))
            }
            Op::Transpose { permutation } => {
                let operand = self.whole(&operands[0]);
                whole(self.transposed(operand, permutation))
            }
            Op::Broadcast { dims, broadcast_dimensions } => self.broadcast(&operands[0], dims, broadcast_dimensions),
            Op::Concatenate { dimension } => {
                let operands: Vec<String> = operands.iter().map(|operand| self.whole(operand)).collect();
                whole(self.emit("Concat", &operands, &[integer("axis", *dimension as i64)]))
            }
            Op::Slice { starts, limits, strides } => whole(self.slice(&operands[0], starts, limits, strides)),
            Op::Pad { low, high, interior } if interior.iter().all(|&n| n == 0) => {
                let pads = self.shape(&[low.as_slice(), high].concat());
                let operand = self.whole(&operands[0]);
                whole(self.emit("Pad", &[&operand, &pads, &operands[1].name], &[]))
            }

            // ---- reduce, dot, index ----
            Op::Reduce { reduction, dimensions } => {
                let kind = match reduction {
                    Reduction::Sum => "ReduceSum",
                    Reduction::Max => "ReduceMax",
                    Reduction::Min => "ReduceMin",
                    Reduction::And | Reduction::Or => return Err(self.unsupported("a logical reduction")),
                };
                let (operand, axes) = (self.whole(&operands[0]), self.integers(dimensions));
                whole(self.emit(kind, &[operand, axes], &[integer("keepdims", 0)]))
            }
            Op::DotGeneral { dimensions, dtype } if *dtype == operands[0].dtype => {
                whole(self.dot(&operands[0], &operands[1], dimensions, shape))
            }
            Op::Gather(dimensions) if takes_rows(dimensions, &operands[0], &operands[1]) => {
                let [table, rows] = [0, 1].map(|i| self.whole(&operands[i]));
                whole(self.emit("Gather", &[table, rows], &[integer("axis", 0)]))
            }

            // ---- the identity ----
            Op::OptimizationBarrier | Op::StopGradient => operands[0].clone(),
            other => return Err(self.unsupported(other.name())),
        };
        Ok(Some(value))
    }

    fn parameter(&mut self, name: &str, shape: &Shape) -> Option<Value> {
        if self.source.inputs.contains(&name) {
            let input = self.value_info(name, INT64, &shape.dims);
            self.inputs.push(input);
            return Some(Value::whole(self.cast(name, type_code(shape.dtype)), shape));
        }
        let (_, value) = self.source.weights.iter().find(|(own, _)| own == name)?;
        self.initializers.push(tensor(name, value));
        Some(Value::whole(name.to_owned(), shape))
    }

    fn iota(&mut self, shape: &Shape, dimension: usize) -> Value {
        let size = self.source.symbols.dim(shape.dims[dimension]);
        let counted = if size.is_constant() {
            let numbers: Vec<f64> = (0..size.constant).map(|n| n as f64).collect();
            self.constant(&HostTensor::from_f64(Shape::new(shape.dtype, [size.constant]), &numbers))
        } else {
            let (zero, one) = (self.constant_integer(0), self.constant_integer(1));
            let size = self.size(size);
            let size = self.emit("Squeeze", &[size], &[]);
            let range = self.emit("Range", &[zero, size, one], &[]);
            self.cast(&range, type_code(shape.dtype))
        };
        let dims = [shape.dims[dimension]];
        let operand = Value::whole(counted, &Shape::new(shape.dtype, dims));
        self.broadcast(&operand, &shape.dims, &[dimension])
    }

    fn unary(&mut self, unary: UnaryOp, operand: &Value) -> Result<String, NotSupported> {
        let kind = match unary {
            UnaryOp::Abs => "Abs",
            UnaryOp::Negate => "Neg",
            UnaryOp::Sign => "Sign",
            UnaryOp::Floor => "Floor",
            UnaryOp::Exp => "Exp",
            UnaryOp::Log => "Log",
            UnaryOp::Tanh => "Tanh",
            UnaryOp::Sqrt => "Sqrt",
            UnaryOp::Erf => "Erf",
            UnaryOp::Not if operand.dtype == DType::Pred => "Not",
            UnaryOp::Rsqrt => {
                let root = self.emit("Sqrt", &[&operand.name], &[]);
                return Ok(self.emit("Reciprocal", &[root], &[]));
            }
            UnaryOp::Log1p => {
                let one = self.constant(&HostTensor::from_f64(Shape::scalar(operand.dtype), &[1.0]));
                let sum = self.emit("Add", &[&operand.name, &one], &[]);
                return Ok(self.emit("Log", &[sum], &[]));
            }
            UnaryOp::Not | UnaryOp::IsFinite => return Err(self.unsupported(unary.name())),
        };
        Ok(self.emit(kind, &[&operand.name], &[]))
    }

    fn binary(&self, binary: BinaryOp, dtype: DType) -> Result<&'static str, NotSupported> {
        Ok(match binary {
            BinaryOp::Add => "Add",
            BinaryOp::Subtract => "Sub",
            BinaryOp::Multiply => "Mul",
            BinaryOp::Divide => "Div",
            BinaryOp::Power => "Pow",
            BinaryOp::Maximum => "Max",
            BinaryOp::Minimum => "Min",
            BinaryOp::And if dtype == DType::Pred => "And",
            BinaryOp::Or if dtype == DType::Pred => "Or",
            BinaryOp::Xor if dtype == DType::Pred => "Xor",
            other => return Err(self.unsupported(other.name())),
        })
    }

    fn compare(&mut self, direction: Comparison, operands: &[Value]) -> Value {
        let kind = match direction {
            Comparison::Eq | Comparison::Ne => "Equal",
            Comparison::Lt => "Less",
            Comparison::Le => "LessOrEqual",
            Comparison::Gt => "Greater",
            Comparison::Ge => "GreaterOrEqual",
        };
        let value = self.elementwise(kind, operands, DType::Pred);
        match direction {
            Comparison::Ne => Value { name: self.emit("Not", &[value.name], &[]), ..value },
            _ => value,
        }
    }

    /// Appends an operation that broadcasts its operands.
    fn elementwise(&mut self, kind: &str, operands: &[Value], dtype: DType) -> Value {
        let names: Vec<&String> = operands.iter().map(|operand| &operand.name).collect();
        let dims = operands[0].dims.clone();
        Value {
            name: self.emit(kind, &names, &[]),
            dtype,
            has: (0..dims.len()).map(|dim| operands.iter().any(|operand| operand.has[dim])).collect(),
            is_scalar: operands.iter().all(|operand| operand.is_scalar),
            dims,
        }
    }

    /// Gives a tensor new dimensions, of size 1 where `operand` is to be repeated.
    fn broadcast(&mut self, operand: &Value, dims: &[usize], broadcast_dimensions: &[usize]) -> Value {
        let mut has = vec![false; dims.len()];
        broadcast_dimensions.iter().zip(&operand.has).for_each(|(&dim, &had)| has[dim] = had);
        let new: Vec<usize> = (0..dims.len()).filter(|dim| !broadcast_dimensions.contains(dim)).collect();
        let name = if operand.is_scalar || new.is_empty() {
            operand.name.clone()
        } else {
            let axes = self.integers(&new);
            self.emit("Unsqueeze", &[&operand.name, &axes], &[])
        };
        Value { name, dtype: operand.dtype, dims: dims.to_vec(), has, is_scalar: operand.is_scalar }
    }

    /// Returns the tensor with all dimensions of a value.
    fn whole(&mut self, value: &Value) -> String {
        if value.has.iter().all(|&has| has) {
            return value.name.clone();
        }
        let shape = self.shape(&value.dims);
        self.emit("Expand", &[&value.name, &shape], &[])
    }

    fn reshaped(&mut self, operand: String, from: &[usize], to: &[usize]) -> String {
        if from == to {
            return operand;
        }
        let symbols = self.source.symbols;
        let unknown: Vec<bool> = to.iter().map(|&size| !symbols.dim(size).is_constant()).collect();
        // Reshape itself computes one dimension.
        let shape = if unknown.iter().filter(|&&unknown| unknown).count() == 1 {
            let sizes = to.iter().zip(unknown).map(|(&size, unknown)| if unknown { -1 } else { size as i64 });
            let sizes: Vec<i64> = sizes.collect();
            self.constant_integers(&sizes)
        } else {
            self.shape(to)
        };
        self.emit("Reshape", &[operand, shape], &[])
    }

    fn transposed(&mut self, operand: String, permutation: &[usize]) -> String {
        match permutation.iter().enumerate().all(|(i, &dim)| i == dim) {
            true => operand,
            false => self.emit("Transpose", &[operand], &[integers("perm", permutation)]),
        }
    }

    fn slice(&mut self, operand: &Value, starts: &[usize], limits: &[usize], strides: &[usize]) -> String {
        let is_cut = |&dim: &usize| (starts[dim], limits[dim], strides[dim]) != (0, operand.dims[dim], 1);
        let axes: Vec<usize> = (0..operand.dims.len()).filter(is_cut).collect();
        let whole = self.whole(operand);
        if axes.is_empty() {
            return whole;
        }
        let of_axes = |values: &[usize]| axes.iter().map(|&axis| values[axis]).collect::<Vec<_>>();
        let [starts, limits] = [starts, limits].map(|values| self.shape(&of_axes(values)));
        let steps = self.integers(&of_axes(strides));
        let axes = self.integers(&axes);
        self.emit("Slice", &[whole, starts, limits, axes, steps], &[])
    }

    /// Appends a product as MatMul, which multiplies the last two dimensions.
    fn dot(&mut self, lhs: &Value, rhs: &Value, dimensions: &DotDimensions, shape: &Shape) -> String {
        let DotDimensions { lhs_batch, rhs_batch, lhs_contracting, rhs_contracting } = dimensions;
        let free = |value: &Value, batch: &[usize], contracting: &[usize]| -> Vec<usize> {
            (0..value.dims.len()).filter(|dim| !batch.contains(dim) && !contracting.contains(dim)).collect()
        };
        let (lhs_free, rhs_free) = (free(lhs, lhs_batch, lhs_contracting), free(rhs, rhs_batch, rhs_contracting));
        let [mut left, mut right] = [lhs, rhs].map(|value| self.whole(value));
        left = self.transposed(left, &[&lhs_batch[..], &lhs_free, lhs_contracting].concat());
        right = self.transposed(right, &[&rhs_batch[..], rhs_contracting, &rhs_free].concat());
        // Without batch dimensions, MatMul takes any number of rows' dimensions.
        let rows_fit = lhs_free.len() == 1 || lhs_batch.is_empty();
        if rows_fit && lhs_contracting.len() == 1 && rhs_free.len() == 1 {
            return self.emit("MatMul", &[left, right], &[]);
        }
        let sizes = |value: &Value, of: &[usize]| of.iter().map(|&dim| value.dims[dim]).collect::<Vec<_>>();
        let product = |value: &Value, of: &[usize]| sizes(value, of).iter().product::<usize>();
        let batch = sizes(lhs, lhs_batch);
        let [rows, columns] = [product(lhs, &lhs_free), product(rhs, &rhs_free)];
        let depth = product(lhs, lhs_contracting);
        left = self.reshaped(left, &[], &[&batch[..], &[rows, depth]].concat());
        right = self.reshaped(right, &[], &[&batch[..], &[depth, columns]].concat());
        let product = self.emit("MatMul", &[left, right], &[]);
        self.reshaped(product, &[&batch[..], &[rows, columns]].concat(), &shape.dims)
    }

    /// Returns a tensor int64\[1\] with a dimension.
    fn size(&mut self, dim: Dim) -> String {
        if dim.is_constant() {
            return self.constant_integers(&[dim.constant as i64]);
        }
        if let Some(known) = self.sizes.get(&dim) {
            return known.clone();
        }
        let of_input = |axis: i64| [integer("start", axis), integer("end", axis + 1)];
        let name = match (dim.constant, dim.batch, dim.length) {
            (1, 1, 0) => self.emit("Shape", &[self.source.inputs[0]], &of_input(0)),
            (1, 0, 1) => self.emit("Shape", &[self.source.inputs[0]], &of_input(1)),
            (constant, batch, length) => {
                // One factor, and the rest.
                let (factor, rest) = if batch > 0 {
                    (Dim { constant: 1, batch: 1, length: 0 }, Dim { constant, batch: batch - 1, length })
                } else {
                    (Dim { constant: 1, batch: 0, length: 1 }, Dim { constant, batch, length: length - 1 })
                };
                let factors = [self.size(factor), self.size(rest)];
                self.emit("Mul", &factors, &[])
            }
        };
        self.sizes.insert(dim, name.clone());
        name
    }

    /// Returns a tensor int64 with dimensions.
    fn shape(&mut self, dims: &[usize]) -> String {
        let symbols = self.source.symbols;
        if dims.iter().all(|&size| symbols.dim(size).is_constant()) {
            return self.integers(dims);
        }
        let sizes: Vec<String> = dims.iter().map(|&size| self.size(symbols.dim(size))).collect();
        if sizes.len() == 1 {
            return sizes[0].clone();
        }
        self.emit("Concat", &sizes, &[integer("axis", 0)])
    }

    fn integers(&mut self, values: &[usize]) -> String {
        let values: Vec<i64> = values.iter().map(|&value| value as i64).collect();
        self.constant_integers(&values)
    }

    fn constant_integers(&mut self, values: &[i64]) -> String {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant_bytes(INT64, vec![values.len() as i64], bytes)
    }

    fn constant_integer(&mut self, value: i64) -> String {
        self.constant_bytes(INT64, Vec::new(), value.to_le_bytes().to_vec())
    }

    fn constant(&mut self, value: &HostTensor) -> String {
        let TensorProto { dims, data_type, raw_data, .. } = tensor("", value);
        self.constant_bytes(data_type, dims, raw_data)
    }

    fn constant_bytes(&mut self, data_type: i32, dims: Vec<i64>, raw_data: Vec<u8>) -> String {
        let key = (data_type, dims, raw_data);
        if let Some(known) = self.constants.get(&key) {
            return known.clone();
        }
        let name = format!("constant_{}", self.constants.len());
        let (data_type, dims, raw_data) = key.clone();
        self.initializers.push(TensorProto { dims, data_type, name: name.clone(), raw_data });
        self.constants.insert(key, name.clone());
        name
    }

    fn cast(&mut self, operand: &str, to: i32) -> String {
        self.emit("Cast", &[operand], &[integer("to", i64::from(to))])
    }

    /// Appends a node with one output and returns its name.
    fn emit<S: AsRef<str>>(&mut self, kind: &str, inputs: &[S], attributes: &[AttributeProto]) -> String {
        let name = match self.scope.as_str() {
            "" => format!("{kind}_{}", self.nodes.len()),
            scope => format!("{scope}/{kind}_{}", self.nodes.len()),
        };
        self.nodes.push(NodeProto {
            input: inputs.iter().map(|input| input.as_ref().to_owned()).collect(),
            output: vec![name.clone()],
            name: name.clone(),
            op_type: kind.to_owned(),
            attribute: attributes.to_vec(),
        });
        name
    }

    fn value_info(&self, name: &str, elem_type: i32, dims: &[usize]) -> ValueInfoProto {
        let dimension = |&size: &usize| {
            let dim = self.source.symbols.dim(size);
            DimensionProto {
                dim_value: dim.is_constant().then_some(size as i64),
                dim_param: dim.name().map(str::to_owned),
            }
        };
        let shape = TensorShapeProto { dim: dims.iter().map(dimension).collect() };
        let tensor_type = Some(TensorTypeProto { elem_type, shape: Some(shape) });
        ValueInfoProto { name: name.to_owned(), r#type: Some(TypeProto { tensor_type }) }
    }
}

/// Returns whether a gather takes rows of a table: one for each index.
fn takes_rows(dimensions: &GatherDimensions, table: &Value, indices: &Value) -> bool {
    let GatherDimensions { offset_dims, collapsed_slice_dims, start_index_map, index_vector_dim, slice_sizes } =
        dimensions;
    let rank = indices.dims.len();
    let behind: Vec<usize> = (rank..rank + table.dims.len() - 1).collect();
    (collapsed_slice_dims.as_slice(), start_index_map.as_slice()) == (&[0], &[0])
        && *offset_dims == behind
        && *index_vector_dim == rank
        && slice_sizes[1..] == table.dims[1..]
}

fn integer(name: &str, i: i64) -> AttributeProto {
    AttributeProto { name: name.to_owned(), i, ints: Vec::new(), kind: 2 }
}

fn integers(name: &str, values: &[usize]) -> AttributeProto {
    let ints = values.iter().map(|&value| value as i64).collect();
    AttributeProto { name: name.to_owned(), i: 0, ints, kind: 7 }
}

fn tensor(name: &str, value: &HostTensor) -> TensorProto {
    TensorProto {
        dims: value.shape().dims.iter().map(|&size| size as i64).collect(),
        data_type: type_code(value.shape().dtype),
        name: name.to_owned(),
        raw_data: value.bytes().to_vec(),
    }
}

/// Returns ONNX's number of an element type (`TensorProto.DataType`).
const fn type_code(dtype: DType) -> i32 {
    match dtype {
        DType::F32 => 1,
        DType::U8 => 2,
        DType::U16 => 4,
        DType::S32 => 6,
        DType::Pred => 9,
        DType::F16 => 10,
        DType::F64 => 11,
        DType::U32 => 12,
        DType::U64 => 13,
        DType::BF16 => 16,
    }
}
