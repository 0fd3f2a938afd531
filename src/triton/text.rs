//! The text of a program: a module with one function, in the syntax of MLIR.

use std::fmt::{self, Display, Formatter, Write};

use super::ir::{
    Binary, Block, Comparison, Element, Instruction, MemoryElement, Op, Program, Reduction, Type, Unary, Value,
};

impl Display for Program {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "module {{")?;
        write!(f, "  tt.func public @{}(", self.name)?;
        for (i, &argument) in self.arguments.iter().enumerate() {
            let separator = if i > 0 { ", " } else { "" };
            // XLA aligns arrays at more than this.
            write!(f, "{separator}{argument}: {} {{tt.divisibility = 16 : i32}}", self.type_of(argument))?;
        }
        writeln!(f, ") attributes {{noinline = false}} {{")?;
        self.instructions(f, &self.instructions, 4)?;
        writeln!(f, "    tt.return\n  }}\n}}")
    }
}

impl Program {
    fn instructions(&self, f: &mut Formatter<'_>, instructions: &[Instruction], indent: usize) -> fmt::Result {
        instructions.iter().try_for_each(|instruction| self.instruction(f, instruction, indent))
    }

    fn instruction(&self, f: &mut Formatter<'_>, instruction: &Instruction, indent: usize) -> fmt::Result {
        let Instruction { op, operands, results } = instruction;
        let kind = |value: Value| self.type_of(value);
        let (x, y) = (operands.first().copied(), operands.get(1).copied());
        let result = results.first().copied();
        // The types that the syntax of an operation requires.
        let of_x = || x.map(|x| kind(x).to_string()).unwrap_or_default();
        let of_result = || result.map(|result| kind(result).to_string()).unwrap_or_default();
        let is_float = |value: Option<Value>| {
            value.is_some_and(|value| matches!(kind(value).element, Element::BF16 | Element::F32))
        };
        write!(f, "{:indent$}", "")?;
        if let (Some(result), false) = (result, matches!(op, Op::Loop { .. })) {
            write!(f, "{result} = ")?;
        }
        match op {
            Op::ProgramId(axis) => writeln!(f, "tt.get_program_id {} : i32", ["x", "y", "z"][*axis]),
            Op::Integer(value) => self.constant(f, result, &integer(*value, result.map(|result| kind(result).element))),
            Op::Float(value) => self.constant(f, result, &float(*value)),
            Op::Extend => writeln!(f, "arith.extsi {} : i32 to i64", List(operands)),
            Op::Range => {
                let end = result.map_or(0, |result| kind(result).dims[0]);
                writeln!(f, "tt.make_range {{end = {end} : i32, start = 0 : i32}} : {}", of_result())
            }
            Op::Splat => writeln!(f, "tt.splat {} : {} -> {}", List(operands), of_x(), of_result()),
            Op::ExpandDims { axis } => {
                let (list, from, to) = (List(operands), of_x(), of_result());
                writeln!(f, "tt.expand_dims {list} {{axis = {axis} : i32}} : {from} -> {to}")
            }
            Op::Broadcast => writeln!(f, "tt.broadcast {} : {} -> {}", List(operands), of_x(), of_result()),
            Op::Transpose => {
                let (list, from, to) = (List(operands), of_x(), of_result());
                writeln!(f, "tt.trans {list} {{order = array<i32: 1, 0>}} : {from} -> {to}")
            }
            Op::Unary(op) => {
                let name = match op {
                    Unary::Exp => "math.exp",
                    Unary::Log => "math.log",
                    Unary::Rsqrt => "math.rsqrt",
                };
                writeln!(f, "{name} {} : {}", List(operands), of_x())
            }
            Op::Binary(op) => writeln!(f, "{} {} : {}", binary(*op, is_float(x)), List(operands), of_x()),
            Op::Compare(comparison) => {
                let predicate = match comparison {
                    Comparison::Equal => "eq",
                    Comparison::AtLeastUnsigned => "uge",
                };
                writeln!(f, "arith.cmpi {predicate}, {} : {}", List(operands), of_x())
            }
            Op::Select => writeln!(f, "arith.select {} : {}, {}", List(operands), of_x(), of_result()),
            Op::Convert => {
                let narrows = result.is_some_and(|result| kind(result).element == Element::BF16);
                let name = if narrows { "arith.truncf" } else { "arith.extf" };
                writeln!(f, "{name} {} : {} to {}", List(operands), of_x(), of_result())
            }
            Op::AddPointer => {
                let offsets = y.map(|y| kind(y).to_string()).unwrap_or_default();
                writeln!(f, "tt.addptr {} : {}, {offsets}", List(operands), of_x())
            }
            Op::Load | Op::Store => {
                let name = if *op == Op::Load { "tt.load" } else { "tt.store" };
                writeln!(f, "{name} {} : {}", List(operands), of_x())
            }
            Op::Dot => {
                let y = y.map(|y| kind(y).to_string()).unwrap_or_default();
                writeln!(f, "tt.dot {} : {} * {y} -> {}", List(operands), of_x(), of_result())
            }
            Op::Reduce { reduction, axis } => {
                let combined = match reduction {
                    Reduction::Sum => "arith.addf",
                    Reduction::Maximum => "arith.maxnumf",
                };
                writeln!(f, "\"tt.reduce\"({}) <{{axis = {axis} : i32}}> ({{", List(operands))?;
                writeln!(f, "{:indent$}^bb0(%left: f32, %right: f32):", "")?;
                writeln!(f, "{:indent$}  %both = {combined} %left, %right : f32", "")?;
                writeln!(f, "{:indent$}  tt.reduce.return %both : f32", "")?;
                writeln!(f, "{:indent$}}}) : ({}) -> {}", "", of_x(), of_result())
            }
            Op::Loop { count, body } => self.repeated(f, *count, body, instruction, indent),
        }
    }

    fn constant(&self, f: &mut Formatter<'_>, result: Option<Value>, value: &str) -> fmt::Result {
        let Some(result) = result else { return Ok(()) };
        let kind = self.type_of(result);
        match kind.dims.is_empty() {
            true => writeln!(f, "arith.constant {value} : {kind}"),
            false => writeln!(f, "arith.constant dense<{value}> : {kind}"),
        }
    }

    /// Writes a loop. Its results have the name of the first one and their place in the list; the bounds have names of their own.
    fn repeated(
        &self,
        f: &mut Formatter<'_>,
        count: usize,
        body: &Block,
        instruction: &Instruction,
        indent: usize,
    ) -> fmt::Result {
        let id = body.parameters[0].0;
        let types = instruction.results.iter().map(|&result| self.type_of(result).to_string());
        let types = types.collect::<Vec<_>>().join(", ");
        let mut carried = String::new();
        for (i, (parameter, initial)) in body.parameters[1..].iter().zip(&instruction.operands).enumerate() {
            write!(carried, "{}{parameter} = {initial}", if i > 0 { ", " } else { "" })?;
        }
        // The position at which the caller stands is indented.
        writeln!(f, "%from{id} = arith.constant 0 : i32")?;
        writeln!(f, "{:indent$}%to{id} = arith.constant {count} : i32", "")?;
        writeln!(f, "{:indent$}%by{id} = arith.constant 1 : i32", "")?;
        let iteration = format!("scf.for {} = %from{id} to %to{id} step %by{id}", body.parameters[0]);
        if instruction.results.is_empty() {
            writeln!(f, "{:indent$}{iteration} : i32 {{", "")?;
            self.instructions(f, &body.instructions, indent + 2)?;
        } else {
            let names = List(&instruction.results);
            writeln!(f, "{:indent$}{names} = {iteration} iter_args({carried}) -> ({types}) : i32 {{", "")?;
            self.instructions(f, &body.instructions, indent + 2)?;
            writeln!(f, "{:indent$}  scf.yield {} : {types}", "", List(&body.results))?;
        }
        writeln!(f, "{:indent$}}}", "")
    }
}

fn binary(op: Binary, is_float: bool) -> &'static str {
    match (op, is_float) {
        (Binary::Add, true) => "arith.addf",
        (Binary::Add, false) => "arith.addi",
        (Binary::Subtract, true) => "arith.subf",
        (Binary::Subtract, false) => "arith.subi",
        (Binary::Multiply, true) => "arith.mulf",
        (Binary::Multiply, false) => "arith.muli",
        (Binary::Divide, _) => "arith.divf",
        (Binary::Maximum, _) => "arith.maxnumf",
        (Binary::Xor, _) => "arith.xori",
        (Binary::ShiftRight, _) => "arith.shrui",
    }
}

/// Returns an integer as MLIR writes it, with a sign.
fn integer(value: u64, element: Option<Element>) -> String {
    if element == Some(Element::I64) { value.to_string() } else { (value as u32 as i32).to_string() }
}

/// Returns a float with all of its digits. MLIR requires a decimal point.
fn float(value: f32) -> String {
    format!("{value:.8e}")
}

/// Values, separated by commas.
struct List<'a>(&'a [Value]);

impl Display for List<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (i, value) in self.0.iter().enumerate() {
            write!(f, "{}{value}", if i > 0 { ", " } else { "" })?;
        }
        Ok(())
    }
}

impl Display for Value {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "%v{}", self.0)
    }
}

impl Display for Element {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Element::I1 => "i1",
            Element::I32 => "i32",
            Element::I64 => "i64",
            Element::BF16 => "bf16",
            Element::F32 => "f32",
            Element::Pointer(MemoryElement::I32) => "!tt.ptr<i32>",
            Element::Pointer(MemoryElement::BF16) => "!tt.ptr<bf16>",
            Element::Pointer(MemoryElement::F32) => "!tt.ptr<f32>",
        })
    }
}

impl Display for Type {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.dims.is_empty() {
            return write!(f, "{}", self.element);
        }
        write!(f, "tensor<")?;
        self.dims.iter().try_for_each(|size| write!(f, "{size}x"))?;
        write!(f, "{}>", self.element)
    }
}
