//! The instructions of a program.

/// The type of the elements of a tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Element {
    /// A truth value.
    I1,
    /// A 32-bit integer; the operation decides whether it has a sign.
    I32,
    /// A 64-bit integer, to count elements of large arrays.
    I64,
    /// bfloat16.
    BF16,
    /// 32-bit float.
    F32,
    /// A pointer to an element of an array in memory.
    Pointer(MemoryElement),
}

/// The type of the elements of an array in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MemoryElement {
    /// A 32-bit integer.
    I32,
    /// bfloat16.
    BF16,
    /// 32-bit float.
    F32,
}

impl MemoryElement {
    /// Returns the type of a loaded element.
    pub(super) fn loaded(self) -> Element {
        match self {
            MemoryElement::I32 => Element::I32,
            MemoryElement::BF16 => Element::BF16,
            MemoryElement::F32 => Element::F32,
        }
    }
}

/// The type of a value: a tile, or a scalar if it has no dimensions.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Type {
    pub element: Element,
    pub dims: Vec<usize>,
}

/// The number of a value. A value is defined once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Value(pub usize);

/// An elementwise operation of one operand, on floats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Unary {
    Exp,
    Log,
    /// 1 / √x
    Rsqrt,
}

/// An elementwise operation of two operands of one type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Binary {
    Add,
    Subtract,
    Multiply,
    Divide,
    Maximum,
    Xor,
    /// Shifts zeros in.
    ShiftRight,
}

/// A comparison of integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Comparison {
    Equal,
    /// ≥ of numbers without a sign.
    AtLeastUnsigned,
}

/// The combining operation of a reduction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Reduction {
    Sum,
    Maximum,
}

/// An operation. Its operands are named in their order.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Op {
    /// The index of the program along an axis of the grid, 0 to 2.
    ProgramId(usize),
    /// An integer.
    Integer(u64),
    /// An i32 as an i64 of the same value.
    Extend,
    /// A float.
    Float(f32),
    /// 0, 1, 2, …
    Range,
    /// The scalar in every element.
    Splat,
    /// The tile with a further dimension of size 1.
    ExpandDims {
        axis: usize,
    },
    /// The tile with its dimensions of size 1 stretched.
    Broadcast,
    /// The matrix with its dimensions exchanged.
    Transpose,
    Unary(Unary),
    Binary(Binary),
    Compare(Comparison),
    /// predicate, value if true, value if false
    Select,
    /// A float rounded or widened to the type of the result.
    Convert,
    /// pointer, number of elements
    AddPointer,
    /// The elements at the pointers.
    Load,
    /// pointer, value; no result
    Store,
    /// x `[M, K]`, y `[K, N]`, sum `[M, N]`: x·y + sum, in f32
    Dot,
    Reduce {
        reduction: Reduction,
        axis: usize,
    },
    /// Runs the block `count` times. The operands are the initial values that it carries, the results are the last ones.
    Loop {
        count: usize,
        body: Block,
    },
}

/// The body of a loop. Its parameters are the number of the iteration, an i32, and the carried values.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Block {
    pub parameters: Vec<Value>,
    pub instructions: Vec<Instruction>,
    /// The carried values of the next iteration.
    pub results: Vec<Value>,
}

/// An operation applied to values.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Instruction {
    pub op: Op,
    pub operands: Vec<Value>,
    pub results: Vec<Value>,
}

/// A finished program.
#[derive(Clone, Debug, PartialEq)]
pub struct Program {
    pub(super) name: String,
    /// The type of each value.
    pub(super) types: Vec<Type>,
    /// The arrays in memory, as pointers to their first elements.
    pub(super) arguments: Vec<Value>,
    pub(super) instructions: Vec<Instruction>,
}

impl Program {
    /// Returns the name.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn type_of(&self, value: Value) -> &Type {
        &self.types[value.0]
    }
}
