//! The values that the backward body of a scan reads of the forward iteration.
//!
//! Every value that the derivative reads could be stacked. But many are cheap functions of others: a bf16 activation widened to
//! f32, a mean broadcast to all elements, the GELU of a stored product. The derivative computes such values again, from the set
//! of values with the fewest bytes: a minimum cut of the forward computation, between what is not computed again and what is
//! read, where the capacity of a value is its size (the method of PyTorch's min-cut partitioner).

use std::collections::VecDeque;

use crate::graph::{Graph, Node, NodeId, Op, Tensor, ValueShape};

/// Larger than any sum of sizes.
const UNLIMITED: u64 = u64::MAX / 4;

/// Returns the values from which, with the values `given` to the backward iteration, all of `outputs` are computed. Values that
/// are `available` to it anyway need no bytes.
pub(super) fn residuals(
    graph: &Graph,
    given: &[Tensor<'_>],
    available: &[Tensor<'_>],
    outputs: &[Tensor<'_>],
) -> Vec<NodeId> {
    let nodes: Vec<Node> = (0..graph.len()).map(|i| graph.node(NodeId(i as u32))).collect();
    let marked = |tensors: &[Tensor<'_>]| {
        let mut marks = vec![false; nodes.len()];
        tensors.iter().for_each(|t| marks[t.id().index()] = true);
        marks
    };
    let (mut needed, mut backward, available) = (marked(outputs), marked(given), marked(available));
    for (i, node) in nodes.iter().enumerate() {
        backward[i] |= node.inputs.iter().any(|input| backward[input.index()]);
    }
    let mut network = Network::new(2 * nodes.len() + 2);
    let (source, sink) = (2 * nodes.len(), 2 * nodes.len() + 1);
    let (entry, exit) = (|i: usize| 2 * i, |i: usize| 2 * i + 1);
    for output in outputs.iter().filter(|output| !backward[output.id().index()]) {
        network.edge(exit(output.id().index()), sink, UNLIMITED);
    }
    for i in (0..nodes.len()).rev() {
        let node = &nodes[i];
        if !needed[i] {
            continue;
        }
        node.inputs.iter().for_each(|input| needed[input.index()] = true);
        if backward[i] {
            let read = node.inputs.iter().filter(|input| !backward[input.index()]);
            read.for_each(|input| network.edge(exit(input.index()), sink, UNLIMITED));
            continue;
        }
        let bytes = match &node.shape {
            ValueShape::Array(_) if available[i] => 0,
            ValueShape::Array(shape) => shape.bytes() as u64,
            ValueShape::Tuple(_) => UNLIMITED,
        };
        network.edge(entry(i), exit(i), bytes);
        if is_repeated(&node.op) {
            node.inputs.iter().for_each(|input| network.edge(exit(input.index()), entry(i), UNLIMITED));
        } else {
            network.edge(source, entry(i), UNLIMITED);
        }
    }
    network.saturate(source, sink);
    // Of several minimum cuts, the one that computes least again.
    let reaches = network.reaching(sink);
    let cut = (0..nodes.len()).filter(|&i| reaches[exit(i)] && !reaches[entry(i)] && !backward[i]);
    cut.filter(|&i| needed[i]).map(|i| NodeId(i as u32)).collect()
}

/// Returns whether the operation is computed again instead of storing its result: it moves or maps elements.
fn is_repeated(op: &Op) -> bool {
    match op {
        Op::Constant(_)
        | Op::Iota { .. }
        | Op::Unary(_)
        | Op::Convert { .. }
        | Op::BitcastConvert { .. }
        | Op::Binary(_)
        | Op::Compare { .. }
        | Op::Select
        | Op::Reshape { .. }
        | Op::Transpose { .. }
        | Op::Broadcast { .. }
        | Op::Concatenate { .. }
        | Op::Slice { .. }
        | Op::Pad { .. }
        | Op::DynamicSlice { .. }
        | Op::DynamicUpdateSlice
        | Op::GetTupleElement { .. }
        | Op::OptimizationBarrier
        | Op::StopGradient
        | Op::ReplicaId => true,
        Op::Parameter { .. }
        | Op::Reduce { .. }
        | Op::DotGeneral { .. }
        | Op::Gather(_)
        | Op::ScatterAdd(_)
        | Op::While { .. }
        | Op::Scan(_)
        | Op::AllReduce { .. }
        | Op::AllGather { .. }
        | Op::ReduceScatter { .. } => false,
    }
}

/// A flow network. Edge `e` and its reverse edge `e ^ 1` are neighbours.
struct Network {
    /// The target of each edge.
    targets: Vec<usize>,
    /// The capacity that each edge has left.
    left: Vec<u64>,
    /// The edges of each vertex.
    edges: Vec<Vec<usize>>,
}

impl Network {
    fn new(vertices: usize) -> Network {
        Network { targets: Vec::new(), left: Vec::new(), edges: vec![Vec::new(); vertices] }
    }

    fn edge(&mut self, from: usize, to: usize, capacity: u64) {
        for (from, to, capacity) in [(from, to, capacity), (to, from, 0)] {
            self.edges[from].push(self.targets.len());
            self.targets.push(to);
            self.left.push(capacity);
        }
    }

    /// Sends the maximum flow from `source` to `sink` along shortest paths (Edmonds and Karp, 1972).
    fn saturate(&mut self, source: usize, sink: usize) {
        while let Some(path) = self.shortest_path(source, sink) {
            let flow = path.iter().map(|&edge| self.left[edge]).min().unwrap_or(0);
            for edge in path {
                self.left[edge] -= flow;
                self.left[edge ^ 1] += flow;
            }
        }
    }

    /// Returns the edges of a shortest path with capacity left.
    fn shortest_path(&self, source: usize, sink: usize) -> Option<Vec<usize>> {
        let mut arrived_by: Vec<Option<usize>> = vec![None; self.edges.len()];
        let mut queue = VecDeque::from([source]);
        while let Some(vertex) = queue.pop_front() {
            for &edge in self.edges[vertex].iter().filter(|&&edge| self.left[edge] > 0) {
                let target = self.targets[edge];
                if target != source && arrived_by[target].is_none() {
                    arrived_by[target] = Some(edge);
                    queue.push_back(target);
                }
            }
        }
        let mut path = Vec::new();
        let mut vertex = sink;
        while vertex != source {
            let edge = arrived_by[vertex]?;
            path.push(edge);
            vertex = self.targets[edge ^ 1];
        }
        Some(path)
    }

    /// Returns the vertices from which `sink` is reached along edges with capacity left.
    fn reaching(&self, sink: usize) -> Vec<bool> {
        let mut reaches = vec![false; self.edges.len()];
        let mut queue = VecDeque::from([sink]);
        reaches[sink] = true;
        while let Some(vertex) = queue.pop_front() {
            for &edge in &self.edges[vertex] {
                let from = self.targets[edge];
                if self.left[edge ^ 1] > 0 && !reaches[from] {
                    reaches[from] = true;
                    queue.push_back(from);
                }
            }
        }
        reaches
    }
}
