//! [`Tensor`]: the handle in which formulas are written.
//!
//! A handle is a graph and a node id. It is `Copy`, and arithmetic on it appends nodes: `0.5 * x * (1.0 + y.tanh())`.
//! Operators panic at the caller's line on a shape error, because that is a bug in the formula. Only scalars written as
//! Rust numbers are broadcast implicitly; every other broadcast is an explicit [`Tensor::broadcast`].

use std::fmt;
use std::ops::{Add, Div, Mul, Neg, Sub};
use std::sync::Arc;

use super::{
    BinaryOp, Comparison, DotDimensions, GatherDimensions, Graph, NodeId, Op, Reduction, ScatterDimensions, UnaryOp,
    ValueShape,
};
use crate::shape::{DType, HostTensor, Shape};

/// A value in a graph under construction. See [`Op`] for the semantics of each method's operation.
#[derive(Clone, Copy)]
pub struct Tensor<'g> {
    graph: &'g Graph,
    id: NodeId,
}

/// Declares one method for each operation without attributes.
macro_rules! plain {
    (unary: $($(#[$doc:meta])* $method:ident => $op:ident;)*) => {
        $($(#[$doc])* #[track_caller] pub fn $method(self) -> Self { self.graph.add(Op::Unary(UnaryOp::$op), &[self]) })*
    };
    (binary: $($(#[$doc:meta])* $method:ident => $op:ident;)*) => {
        $($(#[$doc])* #[track_caller] pub fn $method(self, rhs: Self) -> Self {
            self.graph.add(Op::Binary(BinaryOp::$op), &[self, rhs])
        })*
    };
    (compare: $($(#[$doc:meta])* $method:ident => $direction:ident;)*) => {
        $($(#[$doc])* #[track_caller] pub fn $method(self, rhs: Self) -> Self {
            self.graph.add(Op::Compare { direction: Comparison::$direction }, &[self, rhs])
        })*
    };
}

#[expect(clippy::should_implement_trait, reason = "`not` and `rem` are HLO's names, as are those of the other methods")]
impl<'g> Tensor<'g> {
    pub(super) fn new(graph: &'g Graph, id: NodeId) -> Self {
        Tensor { graph, id }
    }

    /// Returns the graph.
    pub fn graph(self) -> &'g Graph {
        self.graph
    }

    /// Returns the node's id.
    pub fn id(self) -> NodeId {
        self.id
    }

    /// Returns this tensor's id.
    ///
    /// # Panics
    /// If the tensor does not belong to `graph`.
    #[track_caller]
    pub(super) fn id_in(self, graph: &Graph) -> NodeId {
        assert!(std::ptr::eq(self.graph, graph), "{} belongs to another graph", self.id);
        self.id
    }

    /// Returns the shape.
    ///
    /// # Panics
    /// If this is a tuple, which only [`Op::GetTupleElement`] reads.
    #[track_caller]
    pub fn shape(self) -> Shape {
        match self.graph.shape_of(self.id) {
            ValueShape::Array(shape) => shape,
            ValueShape::Tuple(_) => panic!("{} is a tuple, not an array: read its elements", self.id),
        }
    }

    /// Returns the element type.
    #[track_caller]
    pub fn dtype(self) -> DType {
        self.shape().dtype
    }

    /// Returns the dimensions.
    #[track_caller]
    pub fn dims(self) -> Vec<usize> {
        self.shape().dims
    }

    /// Returns a scalar of this tensor's type, broadcast to its dimensions.
    #[track_caller]
    pub fn filled(self, value: f64) -> Self {
        let shape = self.shape();
        self.graph.full(value, shape)
    }

    plain! { unary:
        /// |x|
        abs => Abs;
        /// −1, 0 or 1.
        sign => Sign;
        /// The largest whole number that is not above x.
        floor => Floor;
        /// eˣ
        exp => Exp;
        /// Natural logarithm.
        log => Log;
        /// log(1 + x), exact for small x.
        log1p => Log1p;
        /// Hyperbolic tangent.
        tanh => Tanh;
        /// √x
        sqrt => Sqrt;
        /// 1 / √x
        rsqrt => Rsqrt;
        /// The error function.
        erf => Erf;
        /// Logical for pred, bitwise for integers.
        not => Not;
        /// True where the value is neither infinite nor NaN.
        is_finite => IsFinite;
    }

    plain! { binary:
        /// x − trunc(x / y) · y, with the sign of x.
        rem => Remainder;
        /// xʸ
        pow => Power;
        /// The larger operand; NaN if either is.
        maximum => Maximum;
        /// The smaller operand; NaN if either is.
        minimum => Minimum;
        /// Logical for pred, bitwise for integers.
        and => And;
        /// Logical for pred, bitwise for integers.
        or => Or;
        /// Logical for pred, bitwise for integers.
        xor => Xor;
        /// x · 2ʸ
        shift_left => ShiftLeft;
        /// x shifted right by y bits, filled with zeros.
        shift_right_logical => ShiftRightLogical;
    }

    plain! { compare:
        /// x = y
        eq => Eq;
        /// x ≠ y
        ne => Ne;
        /// x < y
        lt => Lt;
        /// x ≤ y
        le => Le;
        /// x > y
        gt => Gt;
        /// x ≥ y
        ge => Ge;
    }

    /// Appends [`Op::OptimizationBarrier`]: the same value, across which XLA moves no operation.
    #[track_caller]
    pub fn optimization_barrier(self) -> Self {
        self.graph.add(Op::OptimizationBarrier, &[self])
    }

    /// Appends [`Op::StopGradient`]: the same value, with derivative zero.
    #[track_caller]
    pub fn stop_gradient(self) -> Self {
        self.graph.add(Op::StopGradient, &[self])
    }

    /// Appends [`Op::OptimizationBarrier`] with two operands: the same value, unavailable until `other` is.
    #[track_caller]
    pub fn optimization_barrier_after(self, other: Self) -> Self {
        self.graph.add(Op::OptimizationBarrier, &[self, other])
    }

    /// Returns x².
    #[track_caller]
    pub fn square(self) -> Self {
        self * self
    }

    /// Returns `on_true` where `self` (pred) is true and `on_false` elsewhere; all three have equal dimensions.
    #[track_caller]
    pub fn select(self, on_true: Self, on_false: Self) -> Self {
        self.graph.add(Op::Select, &[self, on_true, on_false])
    }

    /// Converts to another element type; the identity if the type is the same.
    #[track_caller]
    pub fn convert(self, dtype: DType) -> Self {
        if self.dtype() == dtype { self } else { self.graph.add(Op::Convert { dtype }, &[self]) }
    }

    /// Reads the same bits as another element type of the same size.
    #[track_caller]
    pub fn bitcast_convert(self, dtype: DType) -> Self {
        if self.dtype() == dtype { self } else { self.graph.add(Op::BitcastConvert { dtype }, &[self]) }
    }

    /// Returns the same elements in the same order under other dimensions.
    #[track_caller]
    pub fn reshape(self, dims: &[usize]) -> Self {
        if self.dims() == dims { self } else { self.graph.add(Op::Reshape { dims: dims.to_vec() }, &[self]) }
    }

    /// Permutes the dimensions: result dimension `i` is this tensor's dimension `permutation[i]`.
    #[track_caller]
    pub fn transpose(self, permutation: &[usize]) -> Self {
        if permutation.iter().copied().eq(0..self.dims().len()) {
            return self;
        }
        self.graph.add(Op::Transpose { permutation: permutation.to_vec() }, &[self])
    }

    /// Broadcasts to `dims`: dimension `i` of this tensor becomes dimension `broadcast_dimensions[i]` of the result, and
    /// the value repeats along the other dimensions.
    #[track_caller]
    pub fn broadcast(self, dims: &[usize], broadcast_dimensions: &[usize]) -> Self {
        if self.dims() == dims {
            return self;
        }
        let op = Op::Broadcast { dims: dims.to_vec(), broadcast_dimensions: broadcast_dimensions.to_vec() };
        self.graph.add(op, &[self])
    }

    /// Broadcasts to the dimensions of `other`; see [`Tensor::broadcast`].
    #[track_caller]
    pub fn broadcast_like(self, other: Self, broadcast_dimensions: &[usize]) -> Self {
        self.broadcast(&other.dims(), broadcast_dimensions)
    }

    /// Returns the elements `starts..limits`, one in `strides`, along every dimension.
    #[track_caller]
    pub fn slice(self, starts: &[usize], limits: &[usize], strides: &[usize]) -> Self {
        let op = Op::Slice { starts: starts.to_vec(), limits: limits.to_vec(), strides: strides.to_vec() };
        self.graph.add(op, &[self])
    }

    /// Returns the elements `start..limit` along one dimension; the tensor itself if these are all.
    #[track_caller]
    pub fn slice_in(self, dimension: usize, start: usize, limit: usize) -> Self {
        let dims = self.dims();
        if (start, limit) == (0, dims[dimension]) {
            return self;
        }
        let mut starts = vec![0; dims.len()];
        let mut limits = dims.clone();
        (starts[dimension], limits[dimension]) = (start, limit);
        self.slice(&starts, &limits, &vec![1; dims.len()])
    }

    /// Pads with `value`: `low` and `high` elements at the edges, `interior` between neighbours.
    #[track_caller]
    pub fn pad(self, value: Self, low: &[usize], high: &[usize], interior: &[usize]) -> Self {
        let op = Op::Pad { low: low.to_vec(), high: high.to_vec(), interior: interior.to_vec() };
        self.graph.add(op, &[self, value])
    }

    /// Reduces over `dimensions`, strictly increasing.
    #[track_caller]
    pub fn reduce(self, reduction: Reduction, dimensions: &[usize]) -> Self {
        if dimensions.is_empty() {
            return self;
        }
        self.graph.add(Op::Reduce { reduction, dimensions: dimensions.to_vec() }, &[self])
    }

    /// Sums over `dimensions`, strictly increasing.
    #[track_caller]
    pub fn reduce_sum(self, dimensions: &[usize]) -> Self {
        self.reduce(Reduction::Sum, dimensions)
    }

    /// Takes the maximum over `dimensions`, strictly increasing.
    #[track_caller]
    pub fn reduce_max(self, dimensions: &[usize]) -> Self {
        self.reduce(Reduction::Max, dimensions)
    }

    /// Returns the sum of all elements, a scalar.
    #[track_caller]
    pub fn sum(self) -> Self {
        let all: Vec<usize> = (0..self.dims().len()).collect();
        self.reduce_sum(&all)
    }

    /// Returns the mean over `dimensions`.
    #[track_caller]
    pub fn mean(self, dimensions: &[usize]) -> Self {
        let dims = self.dims();
        let count: usize = dimensions.iter().map(|&d| dims[d]).product();
        self.reduce_sum(dimensions) * (1.0 / count as f64)
    }

    /// Appends HLO's dot; see [`Op::DotGeneral`].
    #[track_caller]
    pub fn dot_general(self, rhs: Self, dimensions: DotDimensions, dtype: DType) -> Self {
        self.graph.add(Op::DotGeneral { dimensions, dtype }, &[self, rhs])
    }

    /// Returns the matrix product `[…, K] · [K, N] → […, N]`, accumulated in and returned as `dtype`.
    #[track_caller]
    pub fn matmul(self, rhs: Self, dtype: DType) -> Self {
        let last = self.dims().len().checked_sub(1).expect("matmul requires a left operand of rank 1 or more");
        let dimensions = DotDimensions { lhs_contracting: vec![last], rhs_contracting: vec![0], ..Default::default() };
        self.dot_general(rhs, dimensions, dtype)
    }

    /// Returns `sizes` elements from the scalar s32 `starts`, which are clamped.
    #[track_caller]
    pub fn dynamic_slice(self, starts: &[Self], sizes: &[usize]) -> Self {
        let inputs: Vec<Self> = std::iter::once(self).chain(starts.iter().copied()).collect();
        self.graph.add(Op::DynamicSlice { sizes: sizes.to_vec() }, &inputs)
    }

    /// Replaces the elements from the scalar s32 `starts`, which are clamped, by `update`.
    #[track_caller]
    pub fn dynamic_update_slice(self, update: Self, starts: &[Self]) -> Self {
        let inputs: Vec<Self> = [self, update].into_iter().chain(starts.iter().copied()).collect();
        self.graph.add(Op::DynamicUpdateSlice, &inputs)
    }

    /// Appends HLO's gather; see [`Op::Gather`].
    #[track_caller]
    pub fn gather(self, start_indices: Self, dimensions: GatherDimensions) -> Self {
        self.graph.add(Op::Gather(dimensions), &[self, start_indices])
    }

    /// Appends HLO's scatter with addition; see [`Op::ScatterAdd`].
    #[track_caller]
    pub fn scatter_add(self, scatter_indices: Self, updates: Self, dimensions: ScatterDimensions) -> Self {
        self.graph.add(Op::ScatterAdd(dimensions), &[self, scatter_indices, updates])
    }

    /// Looks up rows of a table: `self` `[N, D]` at `indices` s32 `[…]` gives `[…, D]`.
    #[track_caller]
    pub fn take_rows(self, indices: Self) -> Self {
        let (table, index_rank) = (self.dims(), indices.dims().len());
        let dimensions = GatherDimensions {
            offset_dims: vec![index_rank],
            collapsed_slice_dims: vec![0],
            start_index_map: vec![0],
            index_vector_dim: index_rank,
            slice_sizes: vec![1, table[1]],
        };
        self.gather(indices, dimensions)
    }

    /// Reduces over replicas.
    #[track_caller]
    pub fn all_reduce(self, reduction: Reduction) -> Self {
        self.graph.add(Op::AllReduce { reduction }, &[self])
    }

    /// Concatenates the operands of all replicas along `dimension`.
    #[track_caller]
    pub fn all_gather(self, dimension: usize, replicas: usize) -> Self {
        self.graph.add(Op::AllGather { dimension, replicas }, &[self])
    }

    /// Sums over replicas and returns this replica's slice along `dimension`.
    #[track_caller]
    pub fn reduce_scatter(self, dimension: usize, replicas: usize) -> Self {
        self.graph.add(Op::ReduceScatter { dimension, replicas }, &[self])
    }
}

impl Graph {
    /// Appends a literal.
    #[track_caller]
    pub fn constant(&self, value: HostTensor) -> Tensor<'_> {
        self.add(Op::Constant(value), &[])
    }

    /// Appends a scalar literal, rounded to `dtype`.
    #[track_caller]
    pub fn scalar(&self, value: f64, dtype: DType) -> Tensor<'_> {
        self.constant(HostTensor::from_f64(Shape::scalar(dtype), &[value]))
    }

    /// Returns an array of shape `shape` whose elements are `value`.
    #[track_caller]
    pub fn full(&self, value: f64, shape: Shape) -> Tensor<'_> {
        self.scalar(value, shape.dtype).broadcast(&shape.dims, &[])
    }

    /// Returns an array whose elements are their own indices along `dimension`.
    #[track_caller]
    pub fn iota(&self, shape: Shape, dimension: usize) -> Tensor<'_> {
        self.add(Op::Iota { shape, dimension }, &[])
    }

    /// Joins the operands along `dimension`.
    #[track_caller]
    pub fn concatenate<'g>(&'g self, operands: &[Tensor<'g>], dimension: usize) -> Tensor<'g> {
        if let [only] = operands {
            return *only;
        }
        self.add(Op::Concatenate { dimension }, operands)
    }

    /// Returns the replica's number, a u32 scalar.
    #[track_caller]
    pub fn replica_id(&self) -> Tensor<'_> {
        self.add(Op::ReplicaId, &[])
    }

    /// Appends `while condition(state) { state = body(state) }` and returns the final state.
    ///
    /// Each closure gets a graph of its own, whose parameters are the state. A value from outside must be part of the
    /// state.
    #[track_caller]
    pub fn while_loop<'g>(
        &'g self,
        name: &str,
        initial: &[Tensor<'g>],
        condition: impl for<'b> FnOnce(&'b Graph, &[Tensor<'b>]) -> Tensor<'b>,
        body: impl for<'b> FnOnce(&'b Graph, &[Tensor<'b>]) -> Vec<Tensor<'b>>,
    ) -> Vec<Tensor<'g>> {
        let shapes: Vec<Shape> = initial.iter().map(|t| t.shape()).collect();
        fn state<'b>(graph: &'b Graph, shapes: &[Shape]) -> Vec<Tensor<'b>> {
            shapes.iter().enumerate().map(|(i, s)| graph.parameter(format!("state.{i}"), s.clone())).collect()
        }
        let graph = Graph::new(format!("{name}.condition"));
        let condition = graph.finish(&[condition(&graph, &state(&graph, &shapes))]);
        let graph = Graph::new(format!("{name}.body"));
        let body = graph.finish(&body(&graph, &state(&graph, &shapes)));
        let result = self.add(Op::While { condition: Arc::new(condition), body: Arc::new(body) }, initial);
        self.elements(result, initial.len())
    }

    /// Reduces each of `tensors`, of one element type, over replicas in one communication.
    #[track_caller]
    pub fn all_reduce<'g>(&'g self, tensors: &[Tensor<'g>], reduction: Reduction) -> Vec<Tensor<'g>> {
        self.collective(Op::AllReduce { reduction }, tensors)
    }

    /// Gathers each of `tensors` from all replicas in one communication; see [`Tensor::all_gather`].
    #[track_caller]
    pub fn all_gather<'g>(&'g self, tensors: &[Tensor<'g>], dimension: usize, replicas: usize) -> Vec<Tensor<'g>> {
        self.collective(Op::AllGather { dimension, replicas }, tensors)
    }

    #[track_caller]
    fn collective<'g>(&'g self, op: Op, tensors: &[Tensor<'g>]) -> Vec<Tensor<'g>> {
        match tensors {
            [] => Vec::new(),
            [only] => vec![self.add(op, &[*only])],
            several => self.elements(self.add(op, several), several.len()),
        }
    }

    /// Appends the elements of a tuple.
    pub(super) fn elements<'g>(&'g self, tuple: Tensor<'g>, count: usize) -> Vec<Tensor<'g>> {
        (0..count).map(|index| self.add(Op::GetTupleElement { index }, &[tuple])).collect()
    }
}

impl fmt::Debug for Tensor<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.graph.shape_of(self.id) {
            ValueShape::Array(shape) => write!(f, "{}: {shape}", self.id),
            ValueShape::Tuple(_) => write!(f, "{}: tuple", self.id),
        }
    }
}

/// Implements `tensor ∘ tensor`, `tensor ∘ number` and `number ∘ tensor`.
macro_rules! operators {
    ($($trait:ident $method:ident $op:ident;)*) => { $(
        impl<'g> $trait for Tensor<'g> {
            type Output = Tensor<'g>;
            #[track_caller]
            fn $method(self, rhs: Tensor<'g>) -> Tensor<'g> {
                self.graph.add(Op::Binary(BinaryOp::$op), &[self, rhs])
            }
        }
        impl<'g> $trait<f64> for Tensor<'g> {
            type Output = Tensor<'g>;
            #[track_caller]
            fn $method(self, rhs: f64) -> Tensor<'g> {
                self.graph.add(Op::Binary(BinaryOp::$op), &[self, self.filled(rhs)])
            }
        }
        impl<'g> $trait<Tensor<'g>> for f64 {
            type Output = Tensor<'g>;
            #[track_caller]
            fn $method(self, rhs: Tensor<'g>) -> Tensor<'g> {
                rhs.graph.add(Op::Binary(BinaryOp::$op), &[rhs.filled(self), rhs])
            }
        }
    )* };
}
operators! {
    Add add Add;
    Sub sub Subtract;
    Mul mul Multiply;
    Div div Divide;
}

impl<'g> Neg for Tensor<'g> {
    type Output = Tensor<'g>;
    #[track_caller]
    fn neg(self) -> Tensor<'g> {
        self.graph.add(Op::Unary(UnaryOp::Negate), &[self])
    }
}
