//! The list of primitive operations, with HLO's names and HLO's semantics.
//!
//! Every interpreter of the graph is an exhaustive `match` over [`Op`], in the order and under the headings used here:
//! the shape rules ([`infer`](super::infer)), the derivatives ([`autodiff::vjp`](crate::autodiff::vjp)), the evaluator
//! ([`eval`](crate::eval)), the lowering ([`hlo`](crate::hlo)) and the printed form. A new variant does not compile until
//! each of them handles it. Elementwise operations without attributes are the variants of [`UnaryOp`] and [`BinaryOp`];
//! lowering and printing handle each of these groups in one arm.
//!
//! No operation broadcasts implicitly: binary operations require equal shapes, and [`Op::Broadcast`] is an operation of
//! its own with its own derivative. The semantics are those of
//! [XLA's Operation Semantics](https://openxla.org/xla/operation_semantics).

use std::sync::Arc;

use super::{Composite, Computation, Convolution, Scan, WindowDimension};
use crate::shape::{DType, HostTensor, Shape};

/// A primitive operation with its attributes. The operands are the node's inputs, in HLO's order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    // ---- leaves ----
    /// The `index`-th argument of the computation.
    Parameter {
        /// Position in the argument list.
        index: usize,
        /// Name in printed forms and errors.
        name: String,
        /// Shape of the argument.
        shape: Shape,
    },
    /// A literal.
    Constant(HostTensor),
    /// An array whose elements are their own indices along `dimension`. The type is numeric.
    Iota {
        /// Shape of the result.
        shape: Shape,
        /// Dimension along which the elements count up from 0.
        dimension: usize,
    },

    // ---- elementwise, one operand ----
    /// An elementwise operation of one operand.
    Unary(UnaryOp),
    /// The value converted to another element type: float to integer truncates, anything to pred tests for non-zero.
    Convert {
        /// Element type of the result.
        dtype: DType,
    },
    /// The same bits read as another element type of the same size.
    BitcastConvert {
        /// Element type of the result.
        dtype: DType,
    },

    // ---- elementwise, two operands ----
    /// An elementwise operation of two operands of equal shape.
    Binary(BinaryOp),

    // ---- compare and select ----
    /// The comparison of two operands of equal shape; the result is pred.
    Compare {
        /// The relation that is tested.
        direction: Comparison,
    },
    /// `select(pred, on_true, on_false)`. The three operands have equal dimensions.
    Select,

    // ---- shape ----
    /// The same elements in row-major order under other dimensions.
    Reshape {
        /// Dimensions of the result; their product is the operand's.
        dims: Vec<usize>,
    },
    /// Result dimension `i` is operand dimension `permutation[i]`.
    Transpose {
        /// A permutation of the operand's dimensions.
        permutation: Vec<usize>,
    },
    /// HLO's broadcast: operand dimension `i` becomes result dimension `broadcast_dimensions[i]`. Sizes are equal;
    /// dimensions of size 1 do not stretch.
    Broadcast {
        /// Dimensions of the result.
        dims: Vec<usize>,
        /// One result dimension for each operand dimension, strictly increasing.
        broadcast_dimensions: Vec<usize>,
    },
    /// The operands joined along `dimension`; they have one element type and otherwise equal dimensions.
    Concatenate {
        /// Dimension that grows.
        dimension: usize,
    },
    /// Elements `starts..limits` with a stride, along every dimension.
    Slice {
        /// First index, by dimension.
        starts: Vec<usize>,
        /// One past the last index, by dimension.
        limits: Vec<usize>,
        /// Distance between neighbours, by dimension; at least 1.
        strides: Vec<usize>,
    },
    /// `pad(operand, value)`: the operand surrounded by, and interspersed with, a scalar of its type.
    Pad {
        /// Elements before the first, by dimension.
        low: Vec<usize>,
        /// Elements after the last, by dimension.
        high: Vec<usize>,
        /// Elements between neighbours, by dimension.
        interior: Vec<usize>,
    },

    // ---- reduce ----
    /// Reduces over `dimensions`, which the result does not have.
    Reduce {
        /// The combining operation.
        reduction: Reduction,
        /// Dimensions of the operand, strictly increasing.
        dimensions: Vec<usize>,
    },

    // ---- dot ----
    /// HLO's dot. The result dimensions are batch, then the free ones of lhs, then the free ones of rhs.
    DotGeneral {
        /// Batch and contracting dimensions.
        dimensions: DotDimensions,
        /// Type of the result and of the accumulation (`preferred_element_type`), usually f32 for bf16 operands.
        dtype: DType,
    },

    // ---- windows ----
    /// HLO's convolution of an input with a kernel.
    Convolution(Convolution),
    /// The reduction of each position of a window on the operand; padding is the identity of the reduction.
    ReduceWindow {
        /// The combining operation.
        reduction: Reduction,
        /// The window along each dimension.
        window: Vec<WindowDimension>,
    },
    /// `select-and-scatter(operand, source)`: zeros in the shape of the operand, to which each element of the source is added in the
    /// place of the largest element of its window, the first of several.
    SelectAndScatter {
        /// The window along each dimension, without dilation.
        window: Vec<WindowDimension>,
    },
    /// The elements in reverse order along `dimensions`.
    Reverse {
        /// Dimensions of the operand, strictly increasing.
        dimensions: Vec<usize>,
    },

    // ---- index ----
    /// `dynamic-slice(operand, start_0, start_1, …)` with scalar s32 starts, clamped so that the slice fits.
    DynamicSlice {
        /// Dimensions of the result.
        sizes: Vec<usize>,
    },
    /// `dynamic-update-slice(operand, update, start_0, …)`, with starts clamped so that the update fits.
    DynamicUpdateSlice,
    /// `gather(operand, start_indices)`. Start indices are clamped so that the slice fits.
    Gather(GatherDimensions),
    /// `scatter(operand, scatter_indices, updates)` that adds. Updates that are out of bounds are dropped.
    ScatterAdd(ScatterDimensions),

    // ---- control ----
    /// `while condition(state) { state = body(state) }`. The operands are the initial state, the result is the tuple of
    /// the final state. Not differentiable: take gradients inside the body.
    While {
        /// State → pred scalar.
        condition: Arc<Computation>,
        /// State → state.
        body: Arc<Computation>,
    },
    /// A body applied to the slices of stacked operands, one after the other; see [`Scan`]. The result is the tuple of the
    /// carried values and the stacked outputs. HLO has no such operation: it lowers to a while.
    Scan(Scan),
    /// A computation that is one node; see [`Composite`]. It lowers to a custom call if it has a kernel, else to its definition.
    Composite(Composite),
    /// One element of a tuple-shaped operand.
    GetTupleElement {
        /// Position in the tuple.
        index: usize,
    },
    /// The first operand, unavailable until all operands are. XLA does not move operations across it, so it prevents
    /// that recomputed values are merged with the originals or computed early.
    OptimizationBarrier,
    /// The identity, with derivative zero. HLO has no such operation: it lowers to its operand.
    StopGradient,

    // ---- collective, over all replicas ----
    // One operand gives an array. An all-reduce or all-gather of several operands is one communication and gives the
    // tuple of the results that each operand would give alone. A reduce-scatter has one operand: XLA:TPU accepts no more.
    /// The replica's number, a u32 scalar.
    ReplicaId,
    /// The operand reduced over replicas, elementwise.
    AllReduce {
        /// The combining operation.
        reduction: Reduction,
    },
    /// The replicas' operands concatenated along `dimension`.
    AllGather {
        /// Dimension that grows.
        dimension: usize,
        /// Number of replicas.
        replicas: usize,
    },
    /// The sum over replicas, of which each replica keeps its own slice along `dimension`.
    ReduceScatter {
        /// Dimension that shrinks.
        dimension: usize,
        /// Number of replicas, a divisor of the dimension.
        replicas: usize,
    },
}

/// Declares an enum of operations without attributes: each variant with its opcode.
macro_rules! opcodes {
    ($(#[$enum_doc:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $opcode:literal,)* }) => {
        $(#[$enum_doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$doc])* $variant,)* }

        impl $name {
            /// Every operation of this kind, in declaration order.
            pub const ALL: &[$name] = &[$($name::$variant),*];

            /// HLO's opcode.
            pub const fn name(self) -> &'static str {
                match self { $($name::$variant => $opcode,)* }
            }
        }
    };
}

opcodes! {
    /// The elementwise operations of one operand without attributes; see [`Op::Unary`].
    UnaryOp {
        /// |x|
        Abs = "abs",
        /// −x
        Negate = "negate",
        /// −1, 0 or 1; a NaN and a signed zero stay as they are.
        Sign = "sign",
        /// The largest whole number that is not above x.
        Floor = "floor",
        /// eˣ
        Exp = "exponential",
        /// Natural logarithm.
        Log = "log",
        /// log(1 + x), exact for small x.
        Log1p = "log-plus-one",
        /// Hyperbolic tangent.
        Tanh = "tanh",
        /// √x
        Sqrt = "sqrt",
        /// 1 / √x
        Rsqrt = "rsqrt",
        /// The error function, as in the exact GELU.
        Erf = "erf",
        /// Logical for pred, bitwise for integers.
        Not = "not",
        /// True where a float is neither infinite nor NaN; the result is pred.
        IsFinite = "is-finite",
    }
}

opcodes! {
    /// The elementwise operations of two operands without attributes; see [`Op::Binary`].
    BinaryOp {
        /// x + y
        Add = "add",
        /// x − y
        Subtract = "subtract",
        /// x · y
        Multiply = "multiply",
        /// x / y; for integers truncated towards zero.
        Divide = "divide",
        /// x − trunc(x / y) · y, with the sign of x.
        Remainder = "remainder",
        /// xʸ, for floats.
        Power = "power",
        /// The larger operand; NaN if either is.
        Maximum = "maximum",
        /// The smaller operand; NaN if either is.
        Minimum = "minimum",
        /// Logical for pred, bitwise for integers.
        And = "and",
        /// Logical for pred, bitwise for integers.
        Or = "or",
        /// Logical for pred, bitwise for integers.
        Xor = "xor",
        /// x · 2ʸ for integers; 0 if y is the width or more.
        ShiftLeft = "shift-left",
        /// x shifted right by y bits, filled with zeros; 0 if y is the width or more.
        ShiftRightLogical = "shift-right-logical",
    }
}

/// The relation that [`Op::Compare`] tests. Comparisons with NaN are false, except [`Comparison::Ne`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Comparison {
    /// x = y
    Eq,
    /// x ≠ y
    Ne,
    /// x < y
    Lt,
    /// x ≤ y
    Le,
    /// x > y
    Gt,
    /// x ≥ y
    Ge,
}

/// The associative operation of a reduction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reduction {
    /// Addition, of numbers.
    Sum,
    /// Maximum, of numbers.
    Max,
    /// Minimum, of numbers.
    Min,
    /// Logical for pred, bitwise for integers.
    And,
    /// Logical for pred, bitwise for integers.
    Or,
}

/// HLO's DotDimensionNumbers. Lists of one kind have equal length and pair up; all other dimensions are free.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct DotDimensions {
    /// Batch dimensions of the left operand.
    pub lhs_batch: Vec<usize>,
    /// Batch dimensions of the right operand.
    pub rhs_batch: Vec<usize>,
    /// Contracting dimensions of the left operand.
    pub lhs_contracting: Vec<usize>,
    /// Contracting dimensions of the right operand.
    pub rhs_contracting: Vec<usize>,
}

impl DotDimensions {
    /// Returns the same pairs for the dot with its operands swapped.
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
    /// Result dimensions that run within a slice, strictly increasing.
    pub offset_dims: Vec<usize>,
    /// Operand dimensions of slice size 1 that the result does not have, strictly increasing.
    pub collapsed_slice_dims: Vec<usize>,
    /// The operand dimension that each component of an index vector indexes.
    pub start_index_map: Vec<usize>,
    /// Dimension of the indices that holds the components; the indices' rank if the vectors have one component.
    pub index_vector_dim: usize,
    /// Size of the slice, by operand dimension.
    pub slice_sizes: Vec<usize>,
}

/// HLO's ScatterDimensionNumbers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ScatterDimensions {
    /// Dimensions of the updates that run within a window, strictly increasing.
    pub update_window_dims: Vec<usize>,
    /// Operand dimensions of window size 1 that the updates do not have, strictly increasing.
    pub inserted_window_dims: Vec<usize>,
    /// The operand dimension that each component of an index vector indexes.
    pub scatter_dims_to_operand_dims: Vec<usize>,
    /// Dimension of the indices that holds the components; the indices' rank if the vectors have one component.
    pub index_vector_dim: usize,
}

/// Declares [`Op::name`] and [`Op::OPCODES`] from one match, so that a new operation does not compile until it is listed.
macro_rules! names {
    ($($pattern:pat => $opcode:literal,)*) => {
        impl Op {
            /// The opcodes of the operations that are neither [`UnaryOp`] nor [`BinaryOp`].
            pub const OPCODES: &[&str] = &[$($opcode),*];

            /// Returns HLO's opcode, as printed.
            pub fn name(&self) -> &'static str {
                match self {
                    Op::Unary(op) => op.name(),
                    Op::Binary(op) => op.name(),
                    $($pattern => $opcode,)*
                }
            }
        }
    };
}

names! {
    Op::Parameter { .. } => "parameter",
    Op::Constant(_) => "constant",
    Op::Iota { .. } => "iota",
    Op::Convert { .. } => "convert",
    Op::BitcastConvert { .. } => "bitcast-convert",
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
    Op::Convolution(_) => "convolution",
    Op::ReduceWindow { .. } => "reduce-window",
    Op::SelectAndScatter { .. } => "select-and-scatter",
    Op::Reverse { .. } => "reverse",
    Op::DynamicSlice { .. } => "dynamic-slice",
    Op::DynamicUpdateSlice => "dynamic-update-slice",
    Op::Gather(_) => "gather",
    Op::ScatterAdd(_) => "scatter",
    Op::While { .. } => "while",
    Op::Scan(_) => "scan",
    Op::Composite(_) => "composite",
    Op::GetTupleElement { .. } => "get-tuple-element",
    Op::OptimizationBarrier => "opt-barrier",
    Op::StopGradient => "stop-gradient",
    Op::ReplicaId => "replica-id",
    Op::AllReduce { .. } => "all-reduce",
    Op::AllGather { .. } => "all-gather",
    Op::ReduceScatter { .. } => "reduce-scatter",
}

impl Op {
    /// Returns whether two nodes with this operation and the same operands may be merged into one.
    pub(super) fn can_be_shared(&self) -> bool {
        // A barrier keeps two equal computations apart; parameters differ by their index anyway.
        !matches!(self, Op::OptimizationBarrier | Op::Parameter { .. })
    }
}
