//! The list of primitive operations: HLO's names, HLO's meaning, nothing implicit.
//!
//! Four interpreters read this list: shape rules (`infer.rs`), derivatives (`autodiff/vjp.rs`), values (`eval.rs`) and
//! lowering (`hlo/lower.rs`). Each is one exhaustive `match` under the section headings used here, so a new variant
//! fails to compile in exactly those four places.
//!
//! No operation broadcasts: binary operations demand equal shapes, and [`Op::Broadcast`] is an operation of its own
//! with its own derivative. Semantics: openxla.org, "Operation Semantics".

use std::sync::Arc;

use super::Computation;
use crate::shape::{DType, HostTensor, Shape};

/// A primitive operation with its attributes; operands are the node's inputs, in HLO's order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    // ---- leaves ----
    /// The `index`-th argument of the computation.
    Parameter {
        index: usize,
        name: String,
        shape: Shape,
    },
    Constant(HostTensor),
    /// Element value = its index along `dimension`.
    Iota {
        shape: Shape,
        dimension: usize,
    },

    // ---- elementwise, one operand ----
    Abs,
    Negate,
    Sign,
    Floor,
    Exp,
    Log,
    Log1p,
    Tanh,
    Sqrt,
    Rsqrt,
    /// The error function, for the exact GELU.
    Erf,
    /// Logical for pred, bitwise for integers.
    Not,
    /// True where the operand is neither infinite nor NaN.
    IsFinite,
    Convert {
        dtype: DType,
    },
    /// The same bits read as another type of the same size.
    BitcastConvert {
        dtype: DType,
    },

    // ---- elementwise, two operands ----
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    Power,
    Maximum,
    Minimum,
    And,
    Or,
    Xor,
    ShiftLeft,
    ShiftRightLogical,

    // ---- compare and select ----
    Compare {
        direction: Comparison,
    },
    /// `select(pred, on_true, on_false)`; the predicate has the operands' dimensions.
    Select,

    // ---- shape ----
    Reshape {
        dims: Vec<usize>,
    },
    /// Result dimension `i` is operand dimension `permutation[i]`.
    Transpose {
        permutation: Vec<usize>,
    },
    /// HLO's broadcast with `broadcast_dimensions`: operand dimension `i` becomes result dimension
    /// `broadcast_dimensions[i]` (strictly increasing, equal sizes; size-1 dimensions do not stretch).
    Broadcast {
        dims: Vec<usize>,
        broadcast_dimensions: Vec<usize>,
    },
    Concatenate {
        dimension: usize,
    },
    Slice {
        starts: Vec<usize>,
        limits: Vec<usize>,
        strides: Vec<usize>,
    },
    /// `pad(operand, scalar)` with `low` and `high` elements at the edges and `interior` between neighbours.
    Pad {
        low: Vec<usize>,
        high: Vec<usize>,
        interior: Vec<usize>,
    },

    // ---- reduce ----
    /// Reduces over `dimensions` (strictly increasing), which disappear from the shape.
    Reduce {
        reduction: Reduction,
        dimensions: Vec<usize>,
    },

    // ---- dot ----
    /// HLO's dot: result dimensions are batch, then lhs free, then rhs free. `dtype` is the type of the result and of
    /// the accumulation (`preferred_element_type`); bf16 operands with an f32 result is the usual case.
    DotGeneral {
        dimensions: DotDimensions,
        dtype: DType,
    },

    // ---- index ----
    /// `dynamic-slice(operand, start_0, start_1, …)`: scalar s32 starts, clamped so that the slice fits.
    DynamicSlice {
        sizes: Vec<usize>,
    },
    /// `dynamic-update-slice(operand, update, start_0, …)`, starts clamped alike.
    DynamicUpdateSlice,
    /// `gather(operand, start_indices)`.
    Gather(GatherDimensions),
    /// `scatter(operand, scatter_indices, updates)` that adds: out-of-range updates are dropped.
    ScatterAdd(ScatterDimensions),

    // ---- control ----
    /// `while condition(state) { state = body(state) }`; the operands are the initial state, the result is the tuple of
    /// the last one. Not differentiable: gradients are taken inside a body.
    While {
        condition: Arc<Computation>,
        body: Arc<Computation>,
    },
    /// One element of a tuple-shaped operand.
    GetTupleElement {
        index: usize,
    },
    /// The first operand, which the compiler may neither look into nor take before all operands are there: keeps
    /// recomputation from being merged with what it repeats, and from being done early.
    OptimizationBarrier,
    /// Identity whose derivative is zero. The one word here that is not HLO's: it lowers to nothing.
    StopGradient,

    // ---- collective, over all replicas ----
    // One operand gives an array. An all-reduce or all-gather of several exchanges them at once and gives the tuple of what
    // each would give alone; of a reduce-scatter the TPU's compiler takes one operand only.
    ReplicaId,
    AllReduce {
        reduction: Reduction,
    },
    /// Concatenates the replicas' operands along `dimension`.
    AllGather {
        dimension: usize,
        replicas: usize,
    },
    /// Sums over replicas and leaves each its own slice along `dimension`.
    ReduceScatter {
        dimension: usize,
        replicas: usize,
    },
}

/// What [`Op::Compare`] asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Comparison {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

/// The associative operation of a reduction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reduction {
    Sum,
    Max,
    Min,
    /// Logical for pred.
    And,
    Or,
}

/// Which dimensions a dot contracts and which run in parallel; lists of equal length pair up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct DotDimensions {
    pub lhs_batch: Vec<usize>,
    pub rhs_batch: Vec<usize>,
    pub lhs_contracting: Vec<usize>,
    pub rhs_contracting: Vec<usize>,
}

impl DotDimensions {
    /// The same pairs for the dot with its operands exchanged.
    pub fn swapped(self) -> Self {
        DotDimensions {
            lhs_batch: self.rhs_batch,
            rhs_batch: self.lhs_batch,
            lhs_contracting: self.rhs_contracting,
            rhs_contracting: self.lhs_contracting,
        }
    }
}

/// HLO's GatherDimensionNumbers and slice sizes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GatherDimensions {
    pub offset_dims: Vec<usize>,
    pub collapsed_slice_dims: Vec<usize>,
    pub start_index_map: Vec<usize>,
    pub index_vector_dim: usize,
    pub slice_sizes: Vec<usize>,
}

/// HLO's ScatterDimensionNumbers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ScatterDimensions {
    pub update_window_dims: Vec<usize>,
    pub inserted_window_dims: Vec<usize>,
    pub scatter_dims_to_operand_dims: Vec<usize>,
    pub index_vector_dim: usize,
}

impl Op {
    /// HLO's opcode, as printed.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Parameter { .. } => "parameter",
            Op::Constant(_) => "constant",
            Op::Iota { .. } => "iota",
            Op::Abs => "abs",
            Op::Negate => "negate",
            Op::Sign => "sign",
            Op::Floor => "floor",
            Op::Exp => "exponential",
            Op::Log => "log",
            Op::Log1p => "log-plus-one",
            Op::Tanh => "tanh",
            Op::Sqrt => "sqrt",
            Op::Rsqrt => "rsqrt",
            Op::Erf => "erf",
            Op::Not => "not",
            Op::IsFinite => "is-finite",
            Op::Convert { .. } => "convert",
            Op::BitcastConvert { .. } => "bitcast-convert",
            Op::Add => "add",
            Op::Subtract => "subtract",
            Op::Multiply => "multiply",
            Op::Divide => "divide",
            Op::Remainder => "remainder",
            Op::Power => "power",
            Op::Maximum => "maximum",
            Op::Minimum => "minimum",
            Op::And => "and",
            Op::Or => "or",
            Op::Xor => "xor",
            Op::ShiftLeft => "shift-left",
            Op::ShiftRightLogical => "shift-right-logical",
            Op::Compare { .. } => "compare",
            Op::Select => "select",
            Op::Reshape { .. } => "reshape",
            Op::Transpose { .. } => "transpose",
            Op::Broadcast { .. } => "broadcast",
            Op::Concatenate { .. } => "concatenate",
            Op::Slice { .. } => "slice",
            Op::Pad { .. } => "pad",
            Op::Reduce { .. } => "reduce",
            Op::DotGeneral { .. } => "dot",
            Op::DynamicSlice { .. } => "dynamic-slice",
            Op::DynamicUpdateSlice => "dynamic-update-slice",
            Op::Gather(_) => "gather",
            Op::ScatterAdd(_) => "scatter",
            Op::While { .. } => "while",
            Op::GetTupleElement { .. } => "get-tuple-element",
            Op::OptimizationBarrier => "opt-barrier",
            Op::StopGradient => "stop-gradient",
            Op::ReplicaId => "replica-id",
            Op::AllReduce { .. } => "all-reduce",
            Op::AllGather { .. } => "all-gather",
            Op::ReduceScatter { .. } => "reduce-scatter",
        }
    }

    /// Whether two nodes with this operation and the same operands may be merged into one.
    pub(super) fn can_be_shared(&self) -> bool {
        // A barrier exists to keep two equal computations apart; parameters are told apart by their index anyway.
        !matches!(self, Op::OptimizationBarrier | Op::Parameter { .. })
    }
}
