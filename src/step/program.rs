//! A computation together with what its arguments and results *mean*: their order is the contract between the graphs of
//! this room and whoever feeds them.

use crate::bert::{BatchForm, Examples, ParamSpec};
use crate::graph::{Computation, Graph, Tensor};
use crate::hlo::{self, DotPrecision, HloModule, LowerOptions};
use crate::shape::Shape;

/// What an argument or a result is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// A parameter tensor, or a replica's part of it.
    Weight,
    /// A tensor of the optimizer, named `m/<parameter>` and so on.
    Slot,
    Scalar,
    /// A tensor of the batch, or what the model says about one.
    Batch,
    Gradient,
    /// Numbers to be read by people.
    Report,
}

/// One argument or result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    pub name: String,
    pub shape: Shape,
    pub role: Role,
}

/// A computation, and what its arguments and results are, in order.
#[derive(Clone, Debug, PartialEq)]
pub struct Program {
    pub computation: Computation,
    pub inputs: Vec<Value>,
    pub outputs: Vec<Value>,
    /// (input, output) pairs: the output may take the input's memory.
    pub donated: Vec<(usize, usize)>,
    pub replicas: usize,
}

impl Program {
    pub fn new(arguments: Arguments<'_>, results: Results<'_>, donated: Vec<(usize, usize)>, replicas: usize) -> Self {
        let computation = arguments.graph.finish(&results.tensors);
        Program { computation, inputs: arguments.values, outputs: results.values, donated, replicas }
    }

    /// The module for the compiler.
    pub fn lower(&self) -> HloModule {
        hlo::lower(
            &self.computation,
            &LowerOptions {
                name: &self.computation.name,
                donated: &self.donated,
                num_replicas: self.replicas,
                // Products that may be rounded have bf16 operands already; where operands are f32, f32 was meant.
                dot_precision: DotPrecision::Highest,
            },
        )
    }

    /// Indices of the inputs of `role`, in order.
    pub fn inputs_of(&self, role: Role) -> Vec<usize> {
        (0..self.inputs.len()).filter(|&i| self.inputs[i].role == role).collect()
    }

    /// Index of the input called `name`.
    pub fn input(&self, name: &str) -> Option<usize> {
        self.inputs.iter().position(|value| value.name == name)
    }

    /// Index of the output called `name`.
    pub fn output(&self, name: &str) -> Option<usize> {
        self.outputs.iter().position(|value| value.name == name)
    }
}

/// The arguments of a program that is being built.
pub struct Arguments<'g> {
    graph: &'g Graph,
    values: Vec<Value>,
}

impl<'g> Arguments<'g> {
    pub fn new(graph: &'g Graph) -> Self {
        Arguments { graph, values: Vec::new() }
    }

    pub fn add(&mut self, name: &str, role: Role, shape: Shape) -> Tensor<'g> {
        self.values.push(Value { name: name.to_string(), shape: shape.clone(), role });
        self.graph.parameter(name, shape)
    }

    /// The parameters, of the shapes that `held` gives them.
    pub fn weights(&mut self, params: &[ParamSpec], held: impl Fn(&ParamSpec) -> Shape) -> Vec<Tensor<'g>> {
        params.iter().map(|p| self.add(&p.name, Role::Weight, held(p))).collect()
    }

    /// One optimizer tensor `slot/<parameter>` for each parameter.
    pub fn slots(&mut self, slot: &str, params: &[ParamSpec], held: impl Fn(&ParamSpec) -> Shape) -> Vec<Tensor<'g>> {
        params.iter().map(|p| self.add(&format!("{slot}/{}", p.name), Role::Slot, held(p))).collect()
    }

    /// The tensors of a batch, in the order of [`Examples::NAMES`].
    pub fn batch(&mut self, form: BatchForm) -> Vec<Tensor<'g>> {
        let shapes = Examples::shapes(form).into_iter();
        Examples::NAMES.iter().zip(shapes).map(|(name, shape)| self.add(name, Role::Batch, shape)).collect()
    }
}

/// The results of a program that is being built.
#[derive(Default)]
pub struct Results<'g> {
    tensors: Vec<Tensor<'g>>,
    values: Vec<Value>,
}

impl<'g> Results<'g> {
    pub fn add(&mut self, name: &str, role: Role, tensor: Tensor<'g>) {
        self.values.push(Value { name: name.to_string(), shape: tensor.shape(), role });
        self.tensors.push(tensor);
    }

    pub fn len(&self) -> usize {
        self.values.len()
    }
}
