//! The interpreter of programs: each operation on f64 values, with the roundings that the program writes. It is the reference that
//! tests compare with the formula of a kernel; a GPU adds the rounding of f32.

use half::bf16;

use super::ir::{Binary, Comparison, Element, Instruction, Op, Program, Reduction, Type, Unary, Value};

/// Runs the program once for each point of `grid` on `arrays`, the elements of its arguments. An i32 is held as the number
/// without a sign that has its bits.
///
/// # Panics
/// If the program reads or writes outside of an array.
pub fn interpret(program: &Program, grid: [usize; 3], arrays: &mut [Vec<f64>]) {
    for z in 0..grid[2] {
        for y in 0..grid[1] {
            for x in 0..grid[0] {
                let mut run =
                    Run { program, id: [x, y, z], arrays: &mut *arrays, values: vec![None; program.types.len()] };
                for (i, &argument) in program.arguments.iter().enumerate() {
                    run.values[argument.0] = Some(Data::Pointers { array: i, offsets: vec![0] });
                }
                run.all(&program.instructions);
            }
        }
    }
}

/// The elements of a value, in row-major order.
#[derive(Clone, Debug)]
enum Data {
    Flags(Vec<bool>),
    /// Numbers without a sign that have the bits of the i32 or i64.
    Integers(Vec<u64>),
    Floats(Vec<f64>),
    Pointers {
        array: usize,
        offsets: Vec<usize>,
    },
}

/// The program at one point of the grid.
struct Run<'a> {
    program: &'a Program,
    id: [usize; 3],
    arrays: &'a mut [Vec<f64>],
    values: Vec<Option<Data>>,
}

impl Run<'_> {
    fn all(&mut self, instructions: &[Instruction]) {
        instructions.iter().for_each(|instruction| self.instruction(instruction));
    }

    fn kind(&self, value: Value) -> &Type {
        self.program.type_of(value)
    }

    fn data(&self, value: Value) -> &Data {
        self.values[value.0].as_ref().expect("a value is defined before it is used")
    }

    fn integers(&self, value: Value) -> &[u64] {
        let Data::Integers(elements) = self.data(value) else { panic!("{value} requires integers") };
        elements
    }

    fn floats(&self, value: Value) -> &[f64] {
        let Data::Floats(elements) = self.data(value) else { panic!("{value} requires floats") };
        elements
    }

    fn instruction(&mut self, instruction: &Instruction) {
        let Instruction { op, operands, results } = instruction;
        match op {
            Op::Loop { count, body } => {
                let mut carried: Vec<Data> = operands.iter().map(|&value| self.data(value).clone()).collect();
                for iteration in 0..*count {
                    self.values[body.parameters[0].0] = Some(Data::Integers(vec![iteration as u64]));
                    for (parameter, data) in body.parameters[1..].iter().zip(carried) {
                        self.values[parameter.0] = Some(data);
                    }
                    self.all(&body.instructions);
                    carried = body.results.iter().map(|&value| self.data(value).clone()).collect();
                }
                results.iter().zip(carried).for_each(|(result, data)| self.values[result.0] = Some(data));
            }
            Op::Store => {
                let Data::Pointers { array, offsets } = self.data(operands[0]).clone() else {
                    panic!("a store requires pointers")
                };
                let values: Vec<f64> = match self.data(operands[1]) {
                    Data::Floats(values) => values.clone(),
                    Data::Integers(values) => values.iter().map(|&value| value as f64).collect(),
                    other => panic!("a store requires numbers, got {other:?}"),
                };
                offsets.iter().zip(values).for_each(|(&offset, value)| self.arrays[array][offset] = value);
            }
            _ => self.values[results[0].0] = Some(self.value(op, operands, results[0])),
        }
    }

    /// Returns the result of an operation that has one.
    fn value(&self, op: &Op, operands: &[Value], result: Value) -> Data {
        let dims = self.kind(result).dims.clone();
        let count: usize = dims.iter().product();
        match op {
            Op::ProgramId(axis) => Data::Integers(vec![self.id[*axis] as u64]),
            Op::Integer(value) => Data::Integers(vec![*value; count]),
            Op::Float(value) => Data::Floats(vec![f64::from(*value); count]),
            Op::Range => Data::Integers((0..count as u64).collect()),
            Op::Extend => self.data(operands[0]).clone(),
            Op::Splat => self.data(operands[0]).gathered(&vec![0; count]),
            Op::ExpandDims { .. } => self.data(operands[0]).clone(),
            Op::Broadcast => {
                let own = &self.kind(operands[0]).dims;
                let source = |i| index(&coordinates(i, &dims), own);
                self.data(operands[0]).gathered(&(0..count).map(source).collect::<Vec<_>>())
            }
            Op::Transpose => {
                let source = |i| (i % dims[1]) * dims[0] + i / dims[1];
                self.data(operands[0]).gathered(&(0..count).map(source).collect::<Vec<_>>())
            }
            Op::Unary(op) => {
                let of = |x: &f64| match op {
                    Unary::Exp => x.exp(),
                    Unary::Log => x.ln(),
                    Unary::Rsqrt => x.sqrt().recip(),
                };
                Data::Floats(self.floats(operands[0]).iter().map(of).collect())
            }
            Op::Binary(op) => {
                let bits = if self.kind(result).element == Element::I64 { u64::MAX } else { u32::MAX.into() };
                binary(*op, self.data(operands[0]), self.data(operands[1]), bits)
            }
            Op::Compare(comparison) => {
                let of = |(x, y): (&u64, &u64)| match comparison {
                    Comparison::Equal => x == y,
                    Comparison::AtLeastUnsigned => x >= y,
                };
                Data::Flags(self.integers(operands[0]).iter().zip(self.integers(operands[1])).map(of).collect())
            }
            Op::Select => {
                let Data::Flags(flags) = self.data(operands[0]) else { panic!("a select requires truth values") };
                let (on_true, on_false) = (self.floats(operands[1]), self.floats(operands[2]));
                let of = |(i, &flag): (usize, &bool)| if flag { on_true[i] } else { on_false[i] };
                Data::Floats(flags.iter().enumerate().map(of).collect())
            }
            Op::Convert => {
                let rounds = self.kind(result).element == Element::BF16;
                let of = |&x: &f64| if rounds { bf16::from_f64(x).to_f64() } else { x };
                Data::Floats(self.floats(operands[0]).iter().map(of).collect())
            }
            Op::AddPointer => {
                let Data::Pointers { array, offsets } = self.data(operands[0]) else { panic!("requires pointers") };
                let sum = |(&offset, &more): (&usize, &u64)| offset + more as usize;
                Data::Pointers {
                    array: *array,
                    offsets: offsets.iter().zip(self.integers(operands[1])).map(sum).collect(),
                }
            }
            Op::Load => {
                let Data::Pointers { array, offsets } = self.data(operands[0]) else { panic!("requires pointers") };
                let loaded = offsets.iter().map(|&offset| self.arrays[*array][offset]);
                match self.kind(result).element {
                    Element::I32 => Data::Integers(loaded.map(|value| value as u64).collect()),
                    _ => Data::Floats(loaded.collect()),
                }
            }
            Op::Dot => {
                let (x, y, sum) = (self.floats(operands[0]), self.floats(operands[1]), self.floats(operands[2]));
                let (inner, columns) = (self.kind(operands[0]).dims[1], dims[1]);
                let element = |i: usize| {
                    let (row, column) = (i / columns, i % columns);
                    sum[i] + (0..inner).map(|k| x[row * inner + k] * y[k * columns + column]).sum::<f64>()
                };
                Data::Floats((0..count).map(element).collect())
            }
            Op::Reduce { reduction, axis } => {
                let (elements, own) = (self.floats(operands[0]), &self.kind(operands[0]).dims);
                let element = |i: usize| {
                    let mut at = coordinates(i, &dims);
                    at.insert(*axis, 0);
                    let along = (0..own[*axis]).map(|k| {
                        at[*axis] = k;
                        elements[index(&at, own)]
                    });
                    match reduction {
                        Reduction::Sum => along.sum(),
                        Reduction::Maximum => along.fold(f64::NEG_INFINITY, f64::max),
                    }
                };
                Data::Floats((0..count).map(element).collect())
            }
            Op::Store | Op::Loop { .. } => unreachable!("handled by `instruction`"),
        }
    }
}

/// Returns the result of `op`; `bits` are those of an integer.
fn binary(op: Binary, x: &Data, y: &Data, bits: u64) -> Data {
    match (x, y) {
        (Data::Floats(x), Data::Floats(y)) => {
            let of = |(x, y): (&f64, &f64)| match op {
                Binary::Add => x + y,
                Binary::Subtract => x - y,
                Binary::Multiply => x * y,
                Binary::Divide => x / y,
                Binary::Maximum => x.max(*y),
                Binary::Xor | Binary::ShiftRight => panic!("{op:?} requires integers"),
            };
            Data::Floats(x.iter().zip(y).map(of).collect())
        }
        (Data::Integers(x), Data::Integers(y)) => {
            let of = |(&x, &y): (&u64, &u64)| match op {
                Binary::Add => x.wrapping_add(y) & bits,
                Binary::Subtract => x.wrapping_sub(y) & bits,
                Binary::Multiply => x.wrapping_mul(y) & bits,
                Binary::Xor => x ^ y,
                Binary::ShiftRight => x >> y,
                Binary::Divide | Binary::Maximum => panic!("{op:?} requires floats"),
            };
            Data::Integers(x.iter().zip(y).map(of).collect())
        }
        (x, y) => panic!("{op:?} requires numbers of one type, got {x:?} and {y:?}"),
    }
}

impl Data {
    /// Returns the elements at `indices`.
    fn gathered(&self, indices: &[usize]) -> Data {
        fn of<T: Copy>(elements: &[T], indices: &[usize]) -> Vec<T> {
            indices.iter().map(|&i| elements[i]).collect()
        }
        match self {
            Data::Flags(elements) => Data::Flags(of(elements, indices)),
            Data::Integers(elements) => Data::Integers(of(elements, indices)),
            Data::Floats(elements) => Data::Floats(of(elements, indices)),
            Data::Pointers { array, offsets } => Data::Pointers { array: *array, offsets: of(offsets, indices) },
        }
    }
}

/// Returns the coordinates of element `i` of a tile of `dims`.
fn coordinates(i: usize, dims: &[usize]) -> Vec<usize> {
    let mut rest = i;
    let mut at: Vec<usize> = dims
        .iter()
        .rev()
        .map(|&size| {
            let coordinate = rest % size;
            rest /= size;
            coordinate
        })
        .collect();
    at.reverse();
    at
}

/// Returns the number of the element at `at` in a tile of `dims`; dimensions of size 1 are stretched.
fn index(at: &[usize], dims: &[usize]) -> usize {
    at.iter().zip(dims).fold(0, |sum, (&coordinate, &size)| sum * size + if size == 1 { 0 } else { coordinate })
}
