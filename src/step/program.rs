//! A computation together with the names and roles of its arguments and results. Their order is the interface between
//! graphs and the code that launches them.

use super::reproducible::with_reproducible_scatters;
use crate::batch::BatchSpec;
use crate::graph::{Computation, Graph, Tensor};
use crate::hlo::{self, DotPrecision, HloModule, LowerOptions};
use crate::shape::Shape;
use crate::task::ParamSpec;

/// The meaning of an argument or a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// A parameter tensor, or a replica's shard of it.
    Weight,
    /// A tensor of the optimizer state, named `m/<parameter>` and so on.
    OptimizerState,
    /// A scalar argument, such as the learning rate.
    Scalar,
    /// A tensor of the batch, or an output of the model for its rows.
    Batch,
    /// The gradient of a parameter.
    Gradient,
    /// Numbers that the host reads back: metrics.
    Report,
}

/// An argument or a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// The name.
    pub name: String,
    /// The shape on one replica.
    pub shape: Shape,
    /// The role in the step.
    pub role: Role,
}

/// A computation, and its arguments and results in order.
#[derive(Clone, Debug, PartialEq)]
pub struct Program {
    /// The computation.
    pub computation: Computation,
    /// The arguments, in order.
    pub inputs: Vec<Value>,
    /// The results, in order.
    pub outputs: Vec<Value>,
    /// (input, output) pairs: the output may reuse the memory of the input.
    pub donated: Vec<(usize, usize)>,
    /// The number of replicas.
    pub replicas: usize,
}

impl Program {
    /// Finishes the graph of the arguments with `results` as outputs.
    pub fn new(arguments: Arguments<'_>, results: Results<'_>, donated: Vec<(usize, usize)>, replicas: usize) -> Self {
        let computation = arguments.graph.finish(&results.tensors);
        Program { computation, inputs: arguments.values, outputs: results.values, donated, replicas }
    }

    /// Lowers the computation to the module that a compiler takes.
    pub fn lower(&self) -> HloModule {
        hlo::lower(
            &self.computation,
            &LowerOptions {
                name: &self.computation.name,
                donated: &self.donated,
                num_replicas: self.replicas,
                // Products that may be rounded have bf16 operands already; f32 operands mean an f32 product.
                dot_precision: DotPrecision::Highest,
            },
        )
    }

    /// Returns the program with scatters that give the same bits in any order of addition.
    pub fn with_reproducible_scatters(&self) -> Program {
        Program { computation: with_reproducible_scatters(&self.computation), ..self.clone() }
    }

    /// Returns the indices of the inputs of `role`, in order.
    pub fn inputs_of(&self, role: Role) -> Vec<usize> {
        (0..self.inputs.len()).filter(|&i| self.inputs[i].role == role).collect()
    }

    /// Returns the index of the input called `name`.
    pub fn input(&self, name: &str) -> Option<usize> {
        self.inputs.iter().position(|value| value.name == name)
    }

    /// Returns the index of the output called `name`.
    pub fn output(&self, name: &str) -> Option<usize> {
        self.outputs.iter().position(|value| value.name == name)
    }
}

/// The arguments of a program under construction.
pub struct Arguments<'g> {
    graph: &'g Graph,
    values: Vec<Value>,
}

impl<'g> Arguments<'g> {
    /// Starts a list of arguments of `graph`.
    pub fn new(graph: &'g Graph) -> Self {
        Arguments { graph, values: Vec::new() }
    }

    /// Adds a parameter of the graph.
    pub fn add(&mut self, name: &str, role: Role, shape: Shape) -> Tensor<'g> {
        self.values.push(Value { name: name.to_string(), shape: shape.clone(), role });
        self.graph.parameter(name, shape)
    }

    /// Adds the parameters, in the shapes that `shape` gives them.
    pub fn weights(&mut self, params: &[ParamSpec], shape: impl Fn(&ParamSpec) -> Shape) -> Vec<Tensor<'g>> {
        params.iter().map(|p| self.add(&p.name, Role::Weight, shape(p))).collect()
    }

    /// Adds the optimizer tensor `kind/<parameter>` of each parameter.
    pub fn optimizer_state(
        &mut self,
        kind: &str,
        params: &[ParamSpec],
        shape: impl Fn(&ParamSpec) -> Shape,
    ) -> Vec<Tensor<'g>> {
        params.iter().map(|p| self.add(&format!("{kind}/{}", p.name), Role::OptimizerState, shape(p))).collect()
    }

    /// Adds the tensors of a batch of `rows` rows.
    pub fn batch(&mut self, spec: &BatchSpec, rows: usize) -> Vec<Tensor<'g>> {
        spec.shapes(rows).map(|(name, shape)| self.add(name, Role::Batch, shape)).collect()
    }
}

/// The results of a program under construction.
#[derive(Default)]
pub struct Results<'g> {
    tensors: Vec<Tensor<'g>>,
    values: Vec<Value>,
}

impl<'g> Results<'g> {
    /// Adds a result of the graph.
    pub fn add(&mut self, name: &str, role: Role, tensor: Tensor<'g>) {
        self.values.push(Value { name: name.to_string(), shape: tensor.shape(), role });
        self.tensors.push(tensor);
    }

    /// Returns whether there are no results.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// Returns the number of results.
    pub fn len(&self) -> usize {
        self.values.len()
    }
}
