//! [`ProgramBuilder`] and the handles of its values.

use std::cell::RefCell;
use std::ops::{Add, Div, Mul, Sub};

use super::ir::{
    Binary, Block, Comparison, Element, Instruction, MemoryElement, Op, Program, Reduction, Type, Unary, Value,
};

/// A program under construction. [`Tile`] handles borrow it.
pub struct ProgramBuilder {
    state: RefCell<State>,
}

struct State {
    types: Vec<Type>,
    arguments: Vec<Value>,
    /// The instructions of the program, and of each loop under construction within it.
    open: Vec<Vec<Instruction>>,
}

/// A value of a program: a tile, or a scalar, which has no dimensions. Elementwise operations require equal types;
/// [`Tile::spread`] gives a tile the dimensions of another.
#[derive(Clone, Copy)]
pub struct Tile<'p> {
    program: &'p ProgramBuilder,
    value: Value,
}

impl Default for ProgramBuilder {
    fn default() -> Self {
        ProgramBuilder::new()
    }
}

impl ProgramBuilder {
    /// Creates an empty program.
    pub fn new() -> ProgramBuilder {
        let state = State { types: Vec::new(), arguments: Vec::new(), open: vec![Vec::new()] };
        ProgramBuilder { state: RefCell::new(state) }
    }

    /// Adds an array in memory, and returns the pointer to its first element.
    pub fn argument(&self, element: MemoryElement) -> Tile<'_> {
        let argument = self.value(Element::Pointer(element), &[]);
        self.state.borrow_mut().arguments.push(argument.value);
        argument
    }

    /// Returns the index of the program along `axis` of the grid, 0 to 2.
    pub fn program_id(&self, axis: usize) -> Tile<'_> {
        self.add(Op::ProgramId(axis), &[], Element::I32, &[])
    }

    /// Returns an i32 scalar.
    pub fn integer(&self, value: u32) -> Tile<'_> {
        self.add(Op::Integer(value.into()), &[], Element::I32, &[])
    }

    /// Returns an f32 tile with `value` in every element.
    pub fn full(&self, value: f32, dims: &[usize]) -> Tile<'_> {
        self.add(Op::Float(value), &[], Element::F32, dims)
    }

    /// Returns the i32 tile 0, 1, …, `count` − 1. Triton requires powers of two.
    pub fn range(&self, count: usize) -> Tile<'_> {
        self.add(Op::Range, &[], Element::I32, &[count])
    }

    /// Runs `body` `count` times, with the number of the iteration and the values that it carries; returns the last ones.
    pub fn repeat<'p, const N: usize>(
        &'p self,
        count: usize,
        initial: [Tile<'p>; N],
        body: impl FnOnce(Tile<'p>, [Tile<'p>; N]) -> [Tile<'p>; N],
    ) -> [Tile<'p>; N] {
        let array = |tiles: &[Tile<'p>]| <[Tile<'p>; N]>::try_from(tiles).expect("a loop carries as many values");
        array(&self.repeat_many(count, &initial, |iteration, carried| body(iteration, array(carried)).to_vec()))
    }

    /// Runs a loop like [`ProgramBuilder::repeat`], with a number of carried values that is not known to the compiler.
    pub fn repeat_many<'p>(
        &'p self,
        count: usize,
        initial: &[Tile<'p>],
        body: impl FnOnce(Tile<'p>, &[Tile<'p>]) -> Vec<Tile<'p>>,
    ) -> Vec<Tile<'p>> {
        let alike = || initial.iter().map(|tile| self.value(tile.element(), &tile.dims())).collect::<Vec<_>>();
        let (iteration, carried) = (self.value(Element::I32, &[]), alike());
        self.state.borrow_mut().open.push(Vec::new());
        let next = body(iteration, &carried);
        let instructions = self.state.borrow_mut().open.pop().expect("the loop was opened above");
        let kinds = |tiles: &[Tile<'p>]| tiles.iter().map(|tile| tile.kind()).collect::<Vec<_>>();
        assert!(kinds(initial) == kinds(&next), "a loop carries values of the same types");
        let parameters = [&[iteration][..], &carried].concat().iter().map(|tile| tile.value).collect();
        let block = Block { parameters, instructions, results: next.iter().map(|tile| tile.value).collect() };
        let results = alike();
        self.push(Op::Loop { count, body: block }, initial, &results);
        results
    }

    /// Returns the finished program.
    pub fn finish(self, name: &str) -> Program {
        let State { types, arguments, mut open } = self.state.into_inner();
        let instructions = open.pop().expect("a program has its own instructions");
        Program { name: name.to_owned(), types, arguments, instructions }
    }

    fn value(&self, element: Element, dims: &[usize]) -> Tile<'_> {
        let mut state = self.state.borrow_mut();
        state.types.push(Type { element, dims: dims.to_vec() });
        Tile { program: self, value: Value(state.types.len() - 1) }
    }

    fn push(&self, op: Op, operands: &[Tile<'_>], results: &[Tile<'_>]) {
        let values = |tiles: &[Tile<'_>]| tiles.iter().map(|tile| tile.value).collect();
        let instruction = Instruction { op, operands: values(operands), results: values(results) };
        self.state.borrow_mut().open.last_mut().expect("a program has its own instructions").push(instruction);
    }

    fn add<'p>(&'p self, op: Op, operands: &[Tile<'p>], element: Element, dims: &[usize]) -> Tile<'p> {
        let result = self.value(element, dims);
        self.push(op, operands, &[result]);
        result
    }
}

impl<'p> Tile<'p> {
    /// Returns the dimensions; none for a scalar.
    pub fn dims(self) -> Vec<usize> {
        self.kind().dims
    }

    fn element(self) -> Element {
        self.kind().element
    }

    fn kind(self) -> Type {
        self.program.state.borrow().types[self.value.0].clone()
    }

    /// Returns the value stretched to `dims`: a scalar fills them; a tile has dimension `axis` of them, the others are new.
    pub fn spread(self, axis: usize, dims: &[usize]) -> Tile<'p> {
        let own = self.dims();
        if own.is_empty() {
            return self.program.add(Op::Splat, &[self], self.element(), dims);
        }
        assert!(
            own.len() == 1 && own[0] == dims[axis],
            "a tile of {own:?} has no place in dimension {axis} of {dims:?}"
        );
        let mut tile = self;
        for other in (0..dims.len()).filter(|&other| other != axis) {
            let mut dims = tile.dims();
            dims.insert(other, 1);
            tile = self.program.add(Op::ExpandDims { axis: other }, &[tile], self.element(), &dims);
        }
        if tile.dims() == dims { tile } else { self.program.add(Op::Broadcast, &[tile], self.element(), dims) }
    }

    /// Returns the matrix with its dimensions exchanged.
    pub fn transpose(self) -> Tile<'p> {
        let dims = self.dims();
        self.program.add(Op::Transpose, &[self], self.element(), &[dims[1], dims[0]])
    }

    /// Returns eˣ.
    pub fn exp(self) -> Tile<'p> {
        self.unary(Unary::Exp)
    }

    /// Returns the natural logarithm.
    pub fn log(self) -> Tile<'p> {
        self.unary(Unary::Log)
    }

    /// Returns 1 / √x.
    pub fn rsqrt(self) -> Tile<'p> {
        self.unary(Unary::Rsqrt)
    }

    /// Returns the larger operand.
    pub fn maximum(self, other: Tile<'p>) -> Tile<'p> {
        self.binary(Binary::Maximum, other)
    }

    /// Returns the bits that differ.
    pub fn xor(self, other: Tile<'p>) -> Tile<'p> {
        self.binary(Binary::Xor, other)
    }

    /// Returns the integers shifted right by `bits`, filled with zeros.
    pub fn shift_right(self, bits: u32) -> Tile<'p> {
        self.binary(Binary::ShiftRight, self.like(bits))
    }

    /// Returns where the integers are equal.
    pub fn equal(self, other: Tile<'p>) -> Tile<'p> {
        self.compare(Comparison::Equal, other)
    }

    /// Returns where the integers, read without a sign, are at least `least`.
    pub fn at_least(self, least: u32) -> Tile<'p> {
        self.compare(Comparison::AtLeastUnsigned, self.like(least))
    }

    /// Returns `on_true` where the truth value holds, else `on_false`.
    pub fn select(self, on_true: Tile<'p>, on_false: Tile<'p>) -> Tile<'p> {
        self.program.add(Op::Select, &[self, on_true, on_false], on_true.element(), &on_true.dims())
    }

    /// Returns the float rounded to bf16.
    pub fn to_bf16(self) -> Tile<'p> {
        self.program.add(Op::Convert, &[self], Element::BF16, &self.dims())
    }

    /// Returns the float widened to f32.
    pub fn to_f32(self) -> Tile<'p> {
        self.program.add(Op::Convert, &[self], Element::F32, &self.dims())
    }

    /// Returns the pointer `count` · `stride` elements behind this one; `count` is an i32 scalar. Neither has a limit.
    pub fn advance(self, count: Tile<'p>, stride: usize) -> Tile<'p> {
        let count = self.program.add(Op::Extend, &[count], Element::I64, &[]);
        let stride = self.program.add(Op::Integer(stride as u64), &[], Element::I64, &[]);
        let elements = count.binary(Binary::Multiply, stride);
        self.program.add(Op::AddPointer, &[self, elements], self.element(), &[])
    }

    /// Returns the elements of this array, of which this is the pointer, at `offsets`.
    pub fn load(self, offsets: Tile<'p>) -> Tile<'p> {
        let Element::Pointer(element) = self.element() else { panic!("a load requires a pointer") };
        self.program.add(Op::Load, &[self.at(offsets)], element.loaded(), &offsets.dims())
    }

    /// Writes `values` to the elements of this array at `offsets`.
    pub fn store(self, offsets: Tile<'p>, values: Tile<'p>) {
        self.program.push(Op::Store, &[self.at(offsets), values], &[]);
    }

    /// Returns x·y + `sum` for matrices of one type, in f32.
    pub fn dot(self, other: Tile<'p>, sum: Tile<'p>) -> Tile<'p> {
        let (x, y) = (self.dims(), other.dims());
        assert!(x[1] == y[0] && sum.dims() == [x[0], y[1]], "a dot of {x:?}, {y:?} into {:?}", sum.dims());
        self.program.add(Op::Dot, &[self, other, sum], Element::F32, &sum.dims())
    }

    /// Returns the sums along `axis`.
    pub fn sum(self, axis: usize) -> Tile<'p> {
        self.reduce(Reduction::Sum, axis)
    }

    /// Returns the maxima along `axis`.
    pub fn max(self, axis: usize) -> Tile<'p> {
        self.reduce(Reduction::Maximum, axis)
    }

    fn at(self, offsets: Tile<'p>) -> Tile<'p> {
        let dims = offsets.dims();
        let pointers = self.program.add(Op::Splat, &[self], self.element(), &dims);
        self.program.add(Op::AddPointer, &[pointers, offsets], self.element(), &dims)
    }

    /// Returns an i32 tile of these dimensions with `value` in every element.
    fn like(self, value: u32) -> Tile<'p> {
        self.program.add(Op::Integer(value.into()), &[], Element::I32, &self.dims())
    }

    fn unary(self, op: Unary) -> Tile<'p> {
        self.program.add(Op::Unary(op), &[self], self.element(), &self.dims())
    }

    fn binary(self, op: Binary, other: Tile<'p>) -> Tile<'p> {
        let (own, others) = (self.kind(), other.kind());
        assert!(own == others, "{op:?} requires operands of one type, got {own:?} and {others:?}");
        self.program.add(Op::Binary(op), &[self, other], own.element, &own.dims)
    }

    fn compare(self, op: Comparison, other: Tile<'p>) -> Tile<'p> {
        let (own, others) = (self.kind(), other.kind());
        assert!(own == others, "{op:?} requires operands of one type, got {own:?} and {others:?}");
        self.program.add(Op::Compare(op), &[self, other], Element::I1, &own.dims)
    }

    fn reduce(self, reduction: Reduction, axis: usize) -> Tile<'p> {
        let mut dims = self.dims();
        dims.remove(axis);
        self.program.add(Op::Reduce { reduction, axis }, &[self], self.element(), &dims)
    }
}

/// Declares an operator between tiles, and between a tile and a number: an integer for i32, a float for f32.
macro_rules! operator {
    ($trait:ident, $method:ident, $op:expr) => {
        impl<'p> $trait for Tile<'p> {
            type Output = Tile<'p>;

            fn $method(self, other: Tile<'p>) -> Tile<'p> {
                self.binary($op, other)
            }
        }

        impl<'p> $trait<u32> for Tile<'p> {
            type Output = Tile<'p>;

            fn $method(self, other: u32) -> Tile<'p> {
                self.binary($op, self.like(other))
            }
        }

        impl<'p> $trait<f32> for Tile<'p> {
            type Output = Tile<'p>;

            fn $method(self, other: f32) -> Tile<'p> {
                self.binary($op, self.program.full(other, &self.dims()))
            }
        }
    };
}

operator!(Add, add, Binary::Add);
operator!(Sub, sub, Binary::Subtract);
operator!(Mul, mul, Binary::Multiply);
operator!(Div, div, Binary::Divide);
