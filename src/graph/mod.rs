//! The intermediate representation: a computation as data.
//!
//! A computation has three stages. While a [`Graph`] **is built**, [`Tensor`] handles stand for values that do not exist
//! yet; a shape error panics at the caller's line, because it is a bug in the code that builds the graph.
//! [`Graph::finish`] turns the graph into an immutable [`Computation`], a list of nodes in topological order, which can be printed, evaluated
//! ([`eval`](crate::eval)) and lowered ([`hlo`](crate::hlo)). Only a device or the evaluator **runs** it.
//!
//! Nodes are append-only (but [`Graph::extend_scan`] adds results to a scan) and a node's id is its position, so the order of
//! ids is a topological order. A node with the same operation and operands as an earlier node is that node, so there are no
//! common subexpressions. [`Graph::finish`] drops the nodes that no output needs.
//!
//! * [`op`]: the operations
//! * [`infer`]: the shape rule of each operation
//! * [`Scan`]: loops over stacked arrays
//! * [`Composite`]: computations with a derivative or a kernel of their own
//! * [`expanded`]: the operations that HLO does not have, as those that it has
//! * [`Tensor`]: the methods and operators that append nodes

mod composite;
mod expand;
pub mod infer;
pub mod op;
mod scan;
mod tensor;
mod text;
mod window;

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;

pub use composite::{Composite, CustomCall};
pub use expand::expanded;
pub use infer::ShapeError;
pub use op::{BinaryOp, Comparison, DotDimensions, GatherDimensions, Op, Reduction, ScatterDimensions, UnaryOp};
pub use scan::{Scan, ScanInputs, ScanOutputs};
pub use tensor::Tensor;
pub(crate) use window::span;
pub use window::{Convolution, ConvolutionDimensions, WindowDimension};

use crate::shape::Shape;

/// A node's position in its graph; prints as `%12`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u32);

impl NodeId {
    /// Returns the position as an index.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "%{}", self.0)
    }
}

/// The shape of a node's result: an array, or the tuple of a `while` or of a collective with several operands.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ValueShape {
    /// One array.
    Array(Shape),
    /// Several arrays.
    Tuple(Vec<Shape>),
}

impl ValueShape {
    /// Returns the one array, or the elements of the tuple.
    pub fn arrays(&self) -> &[Shape] {
        match self {
            ValueShape::Array(shape) => std::slice::from_ref(shape),
            ValueShape::Tuple(shapes) => shapes,
        }
    }
}

/// A region whose values the backward pass recomputes instead of keeping; see [`Graph::recomputed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Recomputed(u32);

/// One operation applied to earlier nodes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Node {
    /// The operation.
    pub op: Op,
    /// Its operands.
    pub inputs: Vec<NodeId>,
    /// The shape of the result.
    pub shape: ValueShape,
    /// The part of the model that the node belongs to, such as `encoder/layer.3/attention`.
    pub scope: std::sync::Arc<str>,
    /// The recomputed region that the node lies in.
    pub recomputed: Option<Recomputed>,
}

/// A graph under construction. [`Tensor`] handles borrow it; threads cannot share it.
pub struct Graph {
    name: String,
    state: RefCell<State>,
}

struct State {
    nodes: Vec<Node>,
    parameters: Vec<NodeId>,
    interned: HashMap<(Op, Vec<NodeId>), NodeId>,
    scope: std::sync::Arc<str>,
    recomputed: Option<Recomputed>,
    regions: u32,
}

/// A finished graph: nodes in topological order, parameters and outputs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Computation {
    /// Name in printed forms, HLO and errors.
    pub name: String,
    /// Every node after its operands.
    pub nodes: Vec<Node>,
    /// The arguments, by parameter index.
    pub parameters: Vec<NodeId>,
    /// The results, in order.
    pub outputs: Vec<NodeId>,
}

impl Graph {
    /// Creates an empty graph.
    pub fn new(name: impl Into<String>) -> Self {
        Graph {
            name: name.into(),
            state: RefCell::new(State {
                nodes: Vec::new(),
                parameters: Vec::new(),
                interned: HashMap::new(),
                scope: "".into(),
                recomputed: None,
                regions: 0,
            }),
        }
    }

    /// Appends the next parameter of the computation.
    pub fn parameter(&self, name: impl Into<String>, shape: Shape) -> Tensor<'_> {
        let index = self.state.borrow().parameters.len();
        let tensor = self.add(Op::Parameter { index, name: name.into(), shape }, &[]);
        self.state.borrow_mut().parameters.push(tensor.id());
        tensor
    }

    /// Runs `build` with `name` appended to the scope of the nodes it makes. Scopes nest.
    pub fn scope<R>(&self, name: &str, build: impl FnOnce() -> R) -> R {
        let outer = self.state.borrow().scope.clone();
        let inner = if outer.is_empty() { name.into() } else { format!("{outer}/{name}").into() };
        self.state.borrow_mut().scope = inner;
        let result = build();
        self.state.borrow_mut().scope = outer;
        result
    }

    /// Runs `build` with the scope replaced by `scope`: for passes that make nodes on behalf of other nodes.
    pub fn in_scope<R>(&self, scope: std::sync::Arc<str>, build: impl FnOnce() -> R) -> R {
        let outer = std::mem::replace(&mut self.state.borrow_mut().scope, scope);
        let result = build();
        self.state.borrow_mut().scope = outer;
        result
    }

    /// Runs `build` and marks the nodes it makes as a region that the backward pass recomputes from the region's inputs
    /// instead of keeping its values in memory (activation checkpointing). A region within a region belongs to the outer
    /// one. Values and gradients are unchanged.
    pub fn recomputed<R>(&self, build: impl FnOnce() -> R) -> R {
        let outer = self.state.borrow().recomputed;
        if outer.is_none() {
            let mut state = self.state.borrow_mut();
            state.recomputed = Some(Recomputed(state.regions));
            state.regions += 1;
        }
        let result = build();
        self.state.borrow_mut().recomputed = outer;
        result
    }

    /// Appends `op` applied to `inputs`, or returns the equal node that exists already.
    ///
    /// # Panics
    /// If the operands violate the operation's shape rule; the message names the scope, the rule and the operands.
    #[track_caller]
    pub fn add(&self, op: Op, inputs: &[Tensor<'_>]) -> Tensor<'_> {
        let ids: Vec<NodeId> = inputs.iter().map(|t| t.id_in(self)).collect();
        self.add_ids(op, ids)
    }

    /// Appends a node like [`Graph::add`], by node ids, for passes that walk a graph's nodes.
    #[track_caller]
    pub fn add_ids(&self, op: Op, inputs: Vec<NodeId>) -> Tensor<'_> {
        let mut state = self.state.borrow_mut();
        let key = (op, inputs);
        if let Some(&id) = state.interned.get(&key) {
            return Tensor::new(self, id);
        }
        let shapes: Vec<&ValueShape> = key.1.iter().map(|id| &state.nodes[id.index()].shape).collect();
        let shape = match infer::shape(&key.0, &shapes) {
            Ok(shape) => shape,
            Err(e) if state.scope.is_empty() => panic!("{e}"),
            Err(e) => panic!("{}: {e}", state.scope),
        };
        let id = NodeId(state.nodes.len() as u32);
        let (scope, recomputed) = (state.scope.clone(), state.recomputed);
        state.nodes.push(Node { op: key.0.clone(), inputs: key.1.clone(), shape, scope, recomputed });
        if key.0.can_be_shared() {
            state.interned.insert(key, id);
        }
        Tensor::new(self, id)
    }

    /// Replaces the operation of a node by one that gives the same results, and perhaps further ones.
    fn replace(&self, id: NodeId, op: Op) {
        let mut state = self.state.borrow_mut();
        let shapes: Vec<&ValueShape> =
            state.nodes[id.index()].inputs.iter().map(|input| &state.nodes[input.index()].shape).collect();
        let shape = infer::shape(&op, &shapes).unwrap_or_else(|e| panic!("{e}"));
        let node = &mut state.nodes[id.index()];
        (node.op, node.shape) = (op, shape);
    }

    pub(super) fn scope_of_next(&self) -> std::sync::Arc<str> {
        self.state.borrow().scope.clone()
    }

    /// Returns the number of nodes so far.
    pub fn len(&self) -> usize {
        self.state.borrow().nodes.len()
    }

    /// Returns whether the graph has no nodes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns a copy of one node.
    pub fn node(&self, id: NodeId) -> Node {
        self.state.borrow().nodes[id.index()].clone()
    }

    /// Returns the handle of a node of this graph.
    pub fn tensor(&self, id: NodeId) -> Tensor<'_> {
        assert!(id.index() < self.len(), "{id} is not a node of graph {}", self.name);
        Tensor::new(self, id)
    }

    pub(super) fn shape_of(&self, id: NodeId) -> ValueShape {
        self.state.borrow().nodes[id.index()].shape.clone()
    }

    /// Returns the computation that leads from `inputs`, which become its parameters, to `outputs`.
    ///
    /// # Panics
    /// If the outputs need a parameter of the graph that is not an input.
    pub fn between(&self, name: &str, inputs: &[Tensor<'_>], outputs: &[Tensor<'_>]) -> Computation {
        let state = self.state.borrow();
        let mut needed = vec![false; state.nodes.len()];
        outputs.iter().for_each(|output| needed[output.id_in(self).index()] = true);
        let mut renumbered = vec![NodeId(u32::MAX); state.nodes.len()];
        let mut nodes = Vec::new();
        for (index, input) in inputs.iter().enumerate() {
            let id = input.id_in(self).index();
            renumbered[id] = NodeId(index as u32);
            let name = match &state.nodes[id].op {
                Op::Parameter { name, .. } => name.clone(),
                _ => format!("input.{index}"),
            };
            let op = Op::Parameter { index, name, shape: input.shape() };
            nodes.push(Node { op, inputs: Vec::new(), recomputed: None, ..state.nodes[id].clone() });
        }
        let is_input: Vec<bool> = renumbered.iter().map(|id| id.index() < inputs.len()).collect();
        for (i, node) in state.nodes.iter().enumerate().rev().filter(|(i, _)| !is_input[*i]) {
            if needed[i] {
                assert!(!matches!(node.op, Op::Parameter { .. }), "{name} requires {} as an input", NodeId(i as u32));
                node.inputs.iter().for_each(|input| needed[input.index()] = true);
            }
        }
        for (i, node) in state.nodes.iter().enumerate().filter(|(i, _)| needed[*i] && !is_input[*i]) {
            renumbered[i] = NodeId(nodes.len() as u32);
            let inputs = node.inputs.iter().map(|input| renumbered[input.index()]).collect();
            nodes.push(Node { inputs, ..node.clone() });
        }
        let outputs = outputs.iter().map(|output| renumbered[output.id_in(self).index()]).collect();
        let parameters = (0..inputs.len() as u32).map(NodeId).collect();
        Computation { name: name.to_string(), nodes, parameters, outputs }
    }

    /// Returns the computation of `outputs`: all parameters, used or not, and the nodes that the outputs need,
    /// renumbered without gaps.
    pub fn finish(&self, outputs: &[Tensor<'_>]) -> Computation {
        let state = self.state.borrow();
        let outputs: Vec<NodeId> = outputs.iter().map(|t| t.id_in(self)).collect();
        let mut needed = vec![false; state.nodes.len()];
        for id in outputs.iter().chain(&state.parameters) {
            needed[id.index()] = true;
        }
        for (i, node) in state.nodes.iter().enumerate().rev() {
            if needed[i] {
                node.inputs.iter().for_each(|input| needed[input.index()] = true);
            }
        }
        let mut renumbered = vec![NodeId(u32::MAX); state.nodes.len()];
        let mut nodes = Vec::new();
        for (i, node) in state.nodes.iter().enumerate().filter(|(i, _)| needed[*i]) {
            renumbered[i] = NodeId(nodes.len() as u32);
            let inputs = node.inputs.iter().map(|input| renumbered[input.index()]).collect();
            nodes.push(Node { inputs, ..node.clone() });
        }
        let renumber = |ids: &[NodeId]| ids.iter().map(|id| renumbered[id.index()]).collect();
        Computation {
            name: self.name.clone(),
            nodes,
            parameters: renumber(&state.parameters),
            outputs: renumber(&outputs),
        }
    }
}

impl Computation {
    /// Returns a graph with these nodes and parameters, under the same ids, to which others can be added.
    pub fn reopened(&self) -> Graph {
        let of = |(i, node): (usize, &Node)| ((node.op.clone(), node.inputs.clone()), NodeId(i as u32));
        let regions = self.nodes.iter().filter_map(|node| node.recomputed).map(|Recomputed(region)| region + 1).max();
        Graph {
            name: self.name.clone(),
            state: RefCell::new(State {
                nodes: self.nodes.clone(),
                parameters: self.parameters.clone(),
                interned: self.nodes.iter().enumerate().filter(|(_, node)| node.op.can_be_shared()).map(of).collect(),
                scope: "".into(),
                recomputed: None,
                regions: regions.unwrap_or(0),
            }),
        }
    }

    /// Returns one node.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.index()]
    }

    /// Returns the shapes of the parameters, by index.
    pub fn parameter_shapes(&self) -> Vec<&Shape> {
        self.parameters.iter().map(|&id| self.array_shape(id)).collect()
    }

    /// Returns the shapes of the outputs, in order.
    pub fn output_shapes(&self) -> Vec<&Shape> {
        self.outputs.iter().map(|&id| self.array_shape(id)).collect()
    }

    /// Returns whether a composite with a kernel is among the nodes, or in a loop.
    pub fn has_kernels(&self) -> bool {
        self.nodes.iter().any(|node| match &node.op {
            Op::Composite(composite) => composite.kernel.is_some() || composite.definition.has_kernels(),
            Op::While { condition, body } => condition.has_kernels() || body.has_kernels(),
            Op::Scan(scan) => scan.body.has_kernels(),
            _ => false,
        })
    }

    /// Returns the shape of a node that is an array.
    ///
    /// # Panics
    /// If the node is a tuple. Parameters and outputs never are.
    pub fn array_shape(&self, id: NodeId) -> &Shape {
        match &self.node(id).shape {
            ValueShape::Array(shape) => shape,
            ValueShape::Tuple(_) => panic!("{id} of {} is a tuple, not an array", self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::DType;

    fn f32s(dims: &[usize]) -> Shape {
        Shape::new(DType::F32, dims)
    }

    #[test]
    fn equal_nodes_are_merged_except_barriers() {
        let graph = Graph::new("g");
        let x = graph.parameter("x", f32s(&[4]));
        let y = graph.parameter("y", f32s(&[4]));
        assert_eq!((x + y).id(), (x + y).id());
        assert_ne!((x + y).id(), (y + x).id());
        assert_ne!(x.optimization_barrier().id(), x.optimization_barrier().id());
    }

    #[test]
    fn finish_keeps_parameters_and_drops_unused_nodes() {
        let graph = Graph::new("g");
        let x = graph.parameter("x", f32s(&[4]));
        let _unused_parameter = graph.parameter("y", f32s(&[2]));
        let _unused_node = x.exp();
        let computation = graph.finish(&[x.tanh()]);
        let ops: Vec<_> = computation.nodes.iter().map(|n| n.op.name()).collect();
        assert_eq!(ops, ["parameter", "parameter", "tanh"]);
    }

    #[test]
    fn scopes_nest_and_are_restored() {
        let graph = Graph::new("g");
        let x = graph.parameter("x", f32s(&[4]));
        let y = graph.scope("encoder", || graph.scope("layer.0", || x.exp()));
        assert_eq!(&*graph.node(y.id()).scope, "encoder/layer.0");
        assert_eq!(&*graph.node(y.tanh().id()).scope, "");
    }

    #[test]
    #[should_panic(expected = "encoder: add requires operands of equal shape, got f32[4,8] and f32[8,4]")]
    fn shape_error_names_scope_rule_and_operands() {
        let graph = Graph::new("g");
        let x = graph.parameter("x", f32s(&[4, 8]));
        let y = graph.parameter("y", f32s(&[8, 4]));
        graph.scope("encoder", || x + y);
    }
}
