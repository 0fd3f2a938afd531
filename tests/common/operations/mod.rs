//! Small computations that together contain every operation, on every element type it is used with. `goldens.rs` prints
//! them and `backend.rs` runs them. A case is one computation and the arguments of each replica. Operations with common
//! operands share a case, because compilation takes longer than execution here.

mod arrays;
mod control;
mod elementwise;
mod windows;

use lambert::graph::{BinaryOp, Computation, Graph, Op, Tensor, UnaryOp};
use lambert::rng::Key;
use lambert::shape::{DType, HostTensor, Shape};

/// One computation and its arguments.
#[derive(Clone)]
pub struct Case {
    /// `family/variant`, such as `dot/bf16`.
    pub name: String,
    pub computation: Computation,
    /// By replica, then by parameter.
    pub arguments: Vec<Vec<HostTensor>>,
    /// Whether its printed form is a golden file under `graphs/ops`: one or a few cases of each family.
    pub golden: bool,
}

impl Case {
    fn golden(self) -> Case {
        Case { golden: true, ..self }
    }
}

/// Returns all cases.
pub fn all() -> Vec<Case> {
    [elementwise::cases(), arrays::cases(), windows::cases(), control::cases()].concat()
}

/// Builds a case on one replica.
fn case(
    name: impl Into<String>,
    arguments: Vec<HostTensor>,
    build: impl for<'g> FnOnce(&'g Graph, &[Tensor<'g>]) -> Vec<Tensor<'g>>,
) -> Case {
    replicated(name, vec![arguments], build)
}

/// Builds a case with one replica for each list of arguments.
fn replicated(
    name: impl Into<String>,
    arguments: Vec<Vec<HostTensor>>,
    build: impl for<'g> FnOnce(&'g Graph, &[Tensor<'g>]) -> Vec<Tensor<'g>>,
) -> Case {
    let name = name.into();
    let graph = Graph::new(name.replace('/', "."));
    let parameter = |(i, x): (usize, &HostTensor)| graph.parameter(format!("x{i}"), x.shape().clone());
    let parameters: Vec<Tensor<'_>> = arguments[0].iter().enumerate().map(parameter).collect();
    let computation = graph.finish(&build(&graph, &parameters));
    Case { name, computation, arguments, golden: false }
}

/// Draws numbers between `low` and `high`, rounded to `dtype`.
fn uniform(seed: u64, dtype: DType, dims: &[usize], low: f64, high: f64) -> HostTensor {
    let shape = Shape::new(dtype, dims);
    let mut draws = Key::new(seed).stream();
    let values: Vec<f64> = (0..shape.elements()).map(|_| low + (high - low) * draws.uniform()).collect();
    HostTensor::from_f64(shape, &values)
}

/// Draws whole numbers between `low` and `high`.
fn whole_numbers(seed: u64, dtype: DType, dims: &[usize], low: f64, high: f64) -> HostTensor {
    let x = uniform(seed, dtype, dims, low, high);
    let whole: Vec<f64> = x.to_f64().into_iter().map(f64::round).collect();
    HostTensor::from_f64(x.shape().clone(), &whole)
}

/// Draws from the whole range of an integer type, or true and false for pred.
fn any_bits(seed: u64, dtype: DType, dims: &[usize]) -> HostTensor {
    let shape = Shape::new(dtype, dims);
    let mut draws = Key::new(seed).stream();
    let mask = if dtype == DType::Pred { 1 } else { 0xff };
    let bytes = (0..shape.bytes()).map(|_| draws.next_u64() as u8 & mask).collect();
    HostTensor::from_bytes(shape, bytes).unwrap()
}

fn values(dtype: DType, values: &[f64]) -> HostTensor {
    HostTensor::from_f64(Shape::new(dtype, [values.len()]), values)
}

/// Returns the operations that no node of any case applies.
pub fn without_a_case(cases: &[Case]) -> Vec<&'static str> {
    let applied: Vec<&str> = cases.iter().flat_map(|c| &c.computation.nodes).map(|node| node.op.name()).collect();
    let unary = UnaryOp::ALL.iter().map(|op| op.name());
    let binary = BinaryOp::ALL.iter().map(|op| op.name());
    unary.chain(binary).chain(Op::OPCODES.iter().copied()).filter(|name| !applied.contains(name)).collect()
}
