//! [`Tensor`]: the handle that formulas are written with.
//!
//! A handle is a graph and a node id; it is `Copy`, and arithmetic on it appends nodes: `0.5 * x * (1.0 + y.tanh())`.
//! Operators never fail softly: a shape mistake is a fault in our formula, found while the graph is built, and panics at
//! the caller's line. Only scalars written as Rust numbers are broadcast for the caller; every other broadcast is said
//! aloud with [`Tensor::broadcast`].

use std::fmt;
use std::ops::{Add, Div, Mul, Neg, Sub};
use std::sync::Arc;

use super::{
    BinaryOp, Comparison, DotDimensions, GatherDimensions, Graph, NodeId, Op, Reduction, ScatterDimensions, UnaryOp,
    ValueShape,
};
use crate::shape::{DType, HostTensor, Shape};

/// A value in a graph under construction.
#[derive(Clone, Copy)]
pub struct Tensor<'g> {
    graph: &'g Graph,
    id: NodeId,
}

/// Operations without attributes: one method, one [`Op`].
macro_rules! plain {
    (unary: $($(#[$doc:meta])* $method:ident => $op:ident;)*) => {
        $($(#[$doc])* #[track_caller] pub fn $method(self) -> Self { self.graph.add(Op::Unary(UnaryOp::$op), &[self]) })*
    };
    (binary: $($(#[$doc:meta])* $method:ident => $op:ident;)*) => {
        $($(#[$doc])* #[track_caller] pub fn $method(self, rhs: Self) -> Self {
            self.graph.add(Op::Binary(BinaryOp::$op), &[self, rhs])
        })*
    };
    (compare: $($method:ident => $direction:ident;)*) => {
        $(#[track_caller] pub fn $method(self, rhs: Self) -> Self {
            self.graph.add(Op::Compare { direction: Comparison::$direction }, &[self, rhs])
        })*
    };
}

#[expect(
    clippy::should_implement_trait,
    reason = "`not` and `rem` are HLO's names, and written as methods like its others"
)]
impl<'g> Tensor<'g> {
    pub(super) fn new(graph: &'g Graph, id: NodeId) -> Self {
        Tensor { graph, id }
    }

    pub fn graph(self) -> &'g Graph {
        self.graph
    }

    pub fn id(self) -> NodeId {
        self.id
    }

    /// This tensor's id, after making sure that it belongs to `graph`.
    #[track_caller]
    pub(super) fn id_in(self, graph: &Graph) -> NodeId {
        assert!(std::ptr::eq(self.graph, graph), "{} belongs to another graph", self.id);
        self.id
    }

    /// # Panics
    /// If this is a tuple, which only [`Op::GetTupleElement`] reads.
    #[track_caller]
    pub fn shape(self) -> Shape {
        match self.graph.shape_of(self.id) {
            ValueShape::Array(shape) => shape,
            ValueShape::Tuple(_) => panic!("{} is a tuple: read its elements", self.id),
        }
    }

    #[track_caller]
    pub fn dtype(self) -> DType {
        self.shape().dtype
    }

    #[track_caller]
    pub fn dims(self) -> Vec<usize> {
        self.shape().dims
    }

    /// A scalar of this tensor's type, broadcast to its dimensions.
    #[track_caller]
    pub fn filled(self, value: f64) -> Self {
        let shape = self.shape();
        self.graph.full(value, shape)
    }

    plain! { unary:
        abs => Abs; sign => Sign; floor => Floor; exp => Exp; log => Log;
        /// log(1 + x), exact for small x.
        log1p => Log1p;
        tanh => Tanh; sqrt => Sqrt;
        /// 1 / sqrt(x)
        rsqrt => Rsqrt;
        /// The error function.
        erf => Erf;
        /// Logical for pred, bitwise for integers.
        not => Not;
        is_finite => IsFinite;
    }

    plain! { binary:
        rem => Remainder; pow => Power; maximum => Maximum; minimum => Minimum; and => And; or => Or; xor => Xor;
        shift_left => ShiftLeft; shift_right_logical => ShiftRightLogical;
    }

    plain! { compare: eq => Eq; ne => Ne; lt => Lt; le => Le; gt => Gt; ge => Ge; }

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

    /// The same value, which is not there before `other` is.
    #[track_caller]
    pub fn not_before(self, other: Self) -> Self {
        self.graph.add(Op::OptimizationBarrier, &[self, other])
    }

    /// x²
    #[track_caller]
    pub fn square(self) -> Self {
        self * self
    }

    /// Where `self` (pred) holds, `on_true`, elsewhere `on_false`; all three of equal dimensions.
    #[track_caller]
    pub fn select(self, on_true: Self, on_false: Self) -> Self {
        self.graph.add(Op::Select, &[self, on_true, on_false])
    }

    /// Itself if it already has that type.
    #[track_caller]
    pub fn convert(self, dtype: DType) -> Self {
        if self.dtype() == dtype { self } else { self.graph.add(Op::Convert { dtype }, &[self]) }
    }

    #[track_caller]
    pub fn bitcast_convert(self, dtype: DType) -> Self {
        if self.dtype() == dtype { self } else { self.graph.add(Op::BitcastConvert { dtype }, &[self]) }
    }

    /// The same elements in the same order under other dimensions.
    #[track_caller]
    pub fn reshape(self, dims: &[usize]) -> Self {
        if self.dims() == dims { self } else { self.graph.add(Op::Reshape { dims: dims.to_vec() }, &[self]) }
    }

    /// Result dimension `i` is this tensor's dimension `permutation[i]`.
    #[track_caller]
    pub fn transpose(self, permutation: &[usize]) -> Self {
        if permutation.iter().copied().eq(0..self.dims().len()) {
            return self;
        }
        self.graph.add(Op::Transpose { permutation: permutation.to_vec() }, &[self])
    }

    /// Dimension `i` of this tensor becomes dimension `broadcast_dimensions[i]` of the result; along the other
    /// dimensions of `dims` the value repeats.
    #[track_caller]
    pub fn broadcast(self, dims: &[usize], broadcast_dimensions: &[usize]) -> Self {
        if self.dims() == dims {
            return self;
        }
        let op = Op::Broadcast { dims: dims.to_vec(), broadcast_dimensions: broadcast_dimensions.to_vec() };
        self.graph.add(op, &[self])
    }

    /// [`Tensor::broadcast`] to the dimensions of `other`.
    #[track_caller]
    pub fn broadcast_like(self, other: Self, broadcast_dimensions: &[usize]) -> Self {
        self.broadcast(&other.dims(), broadcast_dimensions)
    }

    /// Elements `starts..limits`, one in `strides`, along every dimension.
    #[track_caller]
    pub fn slice(self, starts: &[usize], limits: &[usize], strides: &[usize]) -> Self {
        let op = Op::Slice { starts: starts.to_vec(), limits: limits.to_vec(), strides: strides.to_vec() };
        self.graph.add(op, &[self])
    }

    /// Elements `start..limit` along one dimension, all of the others.
    #[track_caller]
    pub fn slice_in(self, dimension: usize, start: usize, limit: usize) -> Self {
        let dims = self.dims();
        let mut starts = vec![0; dims.len()];
        let mut limits = dims.clone();
        (starts[dimension], limits[dimension]) = (start, limit);
        self.slice(&starts, &limits, &vec![1; dims.len()])
    }

    /// Surrounds the tensor with `value`: `low` and `high` elements at the edges, `interior` between neighbours.
    #[track_caller]
    pub fn pad(self, value: Self, low: &[usize], high: &[usize], interior: &[usize]) -> Self {
        let op = Op::Pad { low: low.to_vec(), high: high.to_vec(), interior: interior.to_vec() };
        self.graph.add(op, &[self, value])
    }

    #[track_caller]
    pub fn reduce(self, reduction: Reduction, dimensions: &[usize]) -> Self {
        if dimensions.is_empty() {
            return self;
        }
        self.graph.add(Op::Reduce { reduction, dimensions: dimensions.to_vec() }, &[self])
    }

    #[track_caller]
    pub fn reduce_sum(self, dimensions: &[usize]) -> Self {
        self.reduce(Reduction::Sum, dimensions)
    }

    #[track_caller]
    pub fn reduce_max(self, dimensions: &[usize]) -> Self {
        self.reduce(Reduction::Max, dimensions)
    }

    /// The sum of all elements, a scalar.
    #[track_caller]
    pub fn sum(self) -> Self {
        let all: Vec<usize> = (0..self.dims().len()).collect();
        self.reduce_sum(&all)
    }

    /// The mean over `dimensions`.
    #[track_caller]
    pub fn mean(self, dimensions: &[usize]) -> Self {
        let dims = self.dims();
        let count: usize = dimensions.iter().map(|&d| dims[d]).product();
        self.reduce_sum(dimensions) * (1.0 / count as f64)
    }

    /// HLO's dot; see [`Op::DotGeneral`].
    #[track_caller]
    pub fn dot_general(self, rhs: Self, dimensions: DotDimensions, dtype: DType) -> Self {
        self.graph.add(Op::DotGeneral { dimensions, dtype }, &[self, rhs])
    }

    /// Matrix product `[…, K] · [K, N] → […, N]`, accumulated in and returned as `dtype`.
    #[track_caller]
    pub fn matmul(self, rhs: Self, dtype: DType) -> Self {
        let last = self.dims().len().checked_sub(1).expect("matmul requires an operand of rank 1 or more");
        let dimensions = DotDimensions { lhs_contracting: vec![last], rhs_contracting: vec![0], ..Default::default() };
        self.dot_general(rhs, dimensions, dtype)
    }

    /// `sizes` elements from the (clamped) scalar s32 `starts`.
    #[track_caller]
    pub fn dynamic_slice(self, starts: &[Self], sizes: &[usize]) -> Self {
        let inputs: Vec<Self> = std::iter::once(self).chain(starts.iter().copied()).collect();
        self.graph.add(Op::DynamicSlice { sizes: sizes.to_vec() }, &inputs)
    }

    #[track_caller]
    pub fn dynamic_update_slice(self, update: Self, starts: &[Self]) -> Self {
        let inputs: Vec<Self> = [self, update].into_iter().chain(starts.iter().copied()).collect();
        self.graph.add(Op::DynamicUpdateSlice, &inputs)
    }

    #[track_caller]
    pub fn gather(self, start_indices: Self, dimensions: GatherDimensions) -> Self {
        self.graph.add(Op::Gather(dimensions), &[self, start_indices])
    }

    #[track_caller]
    pub fn scatter_add(self, scatter_indices: Self, updates: Self, dimensions: ScatterDimensions) -> Self {
        self.graph.add(Op::ScatterAdd(dimensions), &[self, scatter_indices, updates])
    }

    /// Rows of a table: `self` `[N, D]` at `indices` s32 `[…]` gives `[…, D]`.
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

    #[track_caller]
    pub fn all_reduce(self, reduction: Reduction) -> Self {
        self.graph.add(Op::AllReduce { reduction }, &[self])
    }

    #[track_caller]
    pub fn all_gather(self, dimension: usize, replicas: usize) -> Self {
        self.graph.add(Op::AllGather { dimension, replicas }, &[self])
    }

    #[track_caller]
    pub fn reduce_scatter(self, dimension: usize, replicas: usize) -> Self {
        self.graph.add(Op::ReduceScatter { dimension, replicas }, &[self])
    }
}

impl Graph {
    #[track_caller]
    pub fn constant(&self, value: HostTensor) -> Tensor<'_> {
        self.add(Op::Constant(value), &[])
    }

    /// A scalar constant, rounded to `dtype`.
    #[track_caller]
    pub fn scalar(&self, value: f64, dtype: DType) -> Tensor<'_> {
        self.constant(HostTensor::from_f64(Shape::scalar(dtype), &[value]))
    }

    /// Every element `value`.
    #[track_caller]
    pub fn full(&self, value: f64, shape: Shape) -> Tensor<'_> {
        self.scalar(value, shape.dtype).broadcast(&shape.dims, &[])
    }

    /// Element value = index along `dimension`.
    #[track_caller]
    pub fn iota(&self, shape: Shape, dimension: usize) -> Tensor<'_> {
        self.add(Op::Iota { shape, dimension }, &[])
    }

    #[track_caller]
    pub fn concatenate<'g>(&'g self, parts: &[Tensor<'g>], dimension: usize) -> Tensor<'g> {
        if let [only] = parts {
            return *only;
        }
        self.add(Op::Concatenate { dimension }, parts)
    }

    /// u32 scalar: which replica runs this.
    #[track_caller]
    pub fn replica_id(&self) -> Tensor<'_> {
        self.add(Op::ReplicaId, &[])
    }

    /// `while condition(state) { state = body(state) }`. Both closures get a graph of their own whose parameters are the
    /// state: what they need from outside must be part of the state.
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
        let test = Graph::new(format!("{name}.condition"));
        let condition = test.finish(&[condition(&test, &state(&test, &shapes))]);
        let step = Graph::new(format!("{name}.body"));
        let body = step.finish(&body(&step, &state(&step, &shapes)));
        let result = self.add(Op::While { condition: Arc::new(condition), body: Arc::new(body) }, initial);
        self.elements(result, initial.len())
    }

    /// [`Tensor::all_reduce`] of each, in one exchange. They are of one type.
    #[track_caller]
    pub fn all_reduce<'g>(&'g self, tensors: &[Tensor<'g>], reduction: Reduction) -> Vec<Tensor<'g>> {
        self.exchange(Op::AllReduce { reduction }, tensors)
    }

    /// [`Tensor::all_gather`] of each, in one exchange.
    #[track_caller]
    pub fn all_gather<'g>(&'g self, tensors: &[Tensor<'g>], dimension: usize, replicas: usize) -> Vec<Tensor<'g>> {
        self.exchange(Op::AllGather { dimension, replicas }, tensors)
    }

    #[track_caller]
    fn exchange<'g>(&'g self, collective: Op, tensors: &[Tensor<'g>]) -> Vec<Tensor<'g>> {
        match tensors {
            [] => Vec::new(),
            [only] => vec![self.add(collective, &[*only])],
            several => self.elements(self.add(collective, several), several.len()),
        }
    }

    fn elements<'g>(&'g self, tuple: Tensor<'g>, count: usize) -> Vec<Tensor<'g>> {
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

/// `tensor ∘ tensor`, `tensor ∘ number`, `number ∘ tensor`.
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
