//! The reference interpreter, in plain Rust and f64: every other execution of a graph is tested against it.
//!
//! *Floating-point* values are computed in f64, whatever type the graph declares: a conversion between float types is
//! the identity, and nothing is rounded before [`Value::to_host`]. The result is that of the formula, without the
//! rounding of f32 or bf16, so central differences of it approximate derivatives to nine digits.
//!
//! *Integers* and truth values are exact. They wrap around in their declared width, and a bitcast between floats and
//! integers goes through the declared float type, so counter-based random bits equal those of every device. A float
//! converted from a 32-bit integer keeps all 32 bits; compare random bits as integers. A constant has the value that its
//! declared type represents: 0.1 in an f32 graph is the f32 nearest to 0.1.
//!
//! [`evaluate_replicas`] runs one computation on several replicas in lockstep, for computations with collectives.

mod arrays;
mod elementwise;
mod interpret;
mod value;
mod windows;

use crate::graph::{Computation, Op};
use crate::shape::{HostTensor, Shape};

pub use value::Value;

/// An error of evaluating a computation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the message explains the fields")]
pub enum EvalError {
    /// The number of arguments is not that of the parameters.
    #[error(
        "computation {computation} requires {required} arguments, got {found}: pass one for each parameter, in order"
    )]
    ArgumentCount { computation: String, required: usize, found: usize },
    /// An argument does not have the shape of its parameter.
    #[error(
        "argument {index} ({name:?}) of computation {computation} requires {required}, got {found}: \
         pass a tensor of that shape"
    )]
    ArgumentShape { computation: String, index: usize, name: String, required: Shape, found: Shape },
    /// A collective was built for another number of replicas.
    #[error(
        "{operation} in computation {computation} requires {required} replicas, got {found}: \
         evaluate with arguments for {required} replicas"
    )]
    ReplicaCount { computation: String, operation: &'static str, required: usize, found: usize },
    /// Replicas disagree on the condition of a loop that contains collectives.
    #[error(
        "the loop {body} contains collectives and requires the same number of iterations on all replicas, \
         got replicas whose conditions differ at iteration {iteration}: compute the condition from replicated values"
    )]
    Divergence { body: String, iteration: usize },
}

/// Evaluates `computation` on one replica with one argument for each parameter, and returns its outputs.
///
/// # Errors
/// If the number or shapes of the arguments differ from those of the parameters, or a collective was built for more than
/// one replica.
pub fn evaluate(computation: &Computation, arguments: &[HostTensor]) -> Result<Vec<Value>, EvalError> {
    evaluate_values(computation, &arguments.iter().map(Value::from).collect::<Vec<_>>())
}

/// Evaluates like [`evaluate`], with arguments that need not be representable in the parameters' float types.
///
/// # Errors
/// As [`evaluate`].
pub fn evaluate_values(computation: &Computation, arguments: &[Value]) -> Result<Vec<Value>, EvalError> {
    let mut outputs = evaluate_replicas(computation, &[arguments.to_vec()])?;
    Ok(outputs.swap_remove(0))
}

/// Evaluates `computation` on `arguments.len()` replicas and returns the outputs of each; replica `r` gets
/// `arguments[r]`.
///
/// # Errors
/// As [`evaluate`], or if replicas disagree on the condition of a loop that contains collectives.
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
