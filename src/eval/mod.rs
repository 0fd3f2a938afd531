//! The slow interpreter in plain Rust: the oracle that every other way of running a graph is compared with.
//!
//! Two kinds of number are told apart. *Floating-point* values are computed in f64 whatever type the graph declares: a
//! conversion between float types is the identity here, and nothing is rounded before [`Value::to_host`]. So the result
//! is what the formula means, not what f32 or bf16 makes of it, and central differences of it are derivatives to nine
//! digits. *Integers* and truth values are exact: they wrap around in their declared width, and a bitcast between floats
//! and integers goes through the declared float type, so that counter-based random bits are those of every device. (A
//! float made from a 32-bit integer keeps all 32 bits here; compare random bits as integers. A constant is what its
//! declared type holds: 0.1 in an f32 graph is f32's 0.1.)
//!
//! [`evaluate_replicas`] runs one computation on several replicas in lock-step, so that collectives have a meaning.

mod arrays;
mod elementwise;
mod interpret;
mod value;

use crate::graph::{Computation, Op};
use crate::shape::{HostTensor, Shape};

pub use value::Value;

/// Why a computation could not be evaluated on the arguments given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    #[error(
        "computation {computation} requires {required} arguments, got {found}: pass one for each parameter, in order"
    )]
    ArgumentCount { computation: String, required: usize, found: usize },
    #[error(
        "argument {index} ({name:?}) of computation {computation} requires {required}, got {found}: \
         pass a tensor of that shape"
    )]
    ArgumentShape { computation: String, index: usize, name: String, required: Shape, found: Shape },
    #[error(
        "{operation} in computation {computation} requires {required} replicas, got {found}: \
         evaluate with arguments for {required} replicas"
    )]
    ReplicaCount { computation: String, operation: &'static str, required: usize, found: usize },
    #[error(
        "the loop {body} holds collectives and requires all replicas to go round equally often, \
         got replicas that disagree in round {round}: derive the condition from values that all replicas share"
    )]
    Divergence { body: String, round: usize },
}

/// The outputs of `computation` on one replica, given one argument for each parameter.
///
/// # Errors
/// If number or shapes of the arguments are not those of the parameters, or a collective asks for more than one replica.
pub fn evaluate(computation: &Computation, arguments: &[HostTensor]) -> Result<Vec<Value>, EvalError> {
    evaluate_values(computation, &arguments.iter().map(Value::from).collect::<Vec<_>>())
}

/// [`evaluate`] with arguments that need not be representable in the parameters' float types.
///
/// # Errors
/// As [`evaluate`].
pub fn evaluate_values(computation: &Computation, arguments: &[Value]) -> Result<Vec<Value>, EvalError> {
    let mut outputs = evaluate_replicas(computation, &[arguments.to_vec()])?;
    Ok(outputs.swap_remove(0))
}

/// The outputs of `computation` on each of `arguments.len()` replicas; replica `r` gets `arguments[r]`.
///
/// # Errors
/// As [`evaluate`], or if replicas part ways in a loop that holds collectives.
pub fn evaluate_replicas(computation: &Computation, arguments: &[Vec<Value>]) -> Result<Vec<Vec<Value>>, EvalError> {
    for arguments in arguments {
        check_arguments(computation, arguments)?;
    }
    let replicas: Vec<usize> = (0..arguments.len()).collect();
    interpret::run(computation, arguments, &replicas)
}

fn check_arguments(computation: &Computation, arguments: &[Value]) -> Result<(), EvalError> {
    let shapes = computation.parameter_shapes();
    if shapes.len() != arguments.len() {
        return Err(EvalError::ArgumentCount {
            computation: computation.name.clone(),
            required: shapes.len(),
            found: arguments.len(),
        });
    }
    for (index, (required, argument)) in shapes.into_iter().zip(arguments).enumerate() {
        if argument.shape() != required {
            return Err(EvalError::ArgumentShape {
                computation: computation.name.clone(),
                index,
                name: parameter_name(computation, index),
                required: required.clone(),
                found: argument.shape().clone(),
            });
        }
    }
    Ok(())
}

fn parameter_name(computation: &Computation, index: usize) -> String {
    match &computation.node(computation.parameters[index]).op {
        Op::Parameter { name, .. } => name.clone(),
        op => unreachable!("{} is listed among the parameters", op.name()),
    }
}

#[cfg(test)]
mod tests;
