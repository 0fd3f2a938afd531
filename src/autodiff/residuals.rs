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
    // Each value is an edge from its entry to its exit, of its size.
    let (entry, exit) = (|i: usize| 2 * i, |i: usize| 2 * i + 1);
    let (source, sink) = (2 * nodes.len(), 2 * nodes.len() + 1);
    let mut network = Network::new(2 * nodes.len() + 2);
    outputs.iter().map(|output| output.id().index()).filter(|&i| !backward[i]).for_each(|i| {
        network.edge(exit(i), sink, UNLIMITED);
    });
    for (i, node) in nodes.iter().enumerate().rev() {
        if !needed[i] {
            continue;
        }
        let inputs = node.inputs.iter().map(|input| input.index());
        inputs.clone().for_each(|input| needed[input] = true);
        if backward[i] {
            inputs.filter(|&input| !backward[input]).for_each(|input| network.edge(exit(input), sink, UNLIMITED));
            continue;
        }
        let size = match &node.shape {
            ValueShape::Array(_) if available[i] => 0,
            ValueShape::Array(shape) => shape.bytes() as u64,
            ValueShape::Tuple(_) => UNLIMITED,
        };
        network.edge(entry(i), exit(i), size);
        if is_repeated(&node.op) {
            inputs.for_each(|input| network.edge(exit(input), entry(i), UNLIMITED));
        } else {
            network.edge(source, entry(i), UNLIMITED);
        }
    }
    network.saturate(source, sink);
    // Of several minimum cuts, the one after which least is computed again.
    let reaches = network.reaching(sink);
    let is_cut = |&i: &usize| needed[i] && !backward[i] && reaches[exit(i)] && !reaches[entry(i)];
    (0..nodes.len()).filter(is_cut).map(|i| NodeId(i as u32)).collect()
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
        | Op::Reverse { .. }
        | Op::DynamicSlice { .. }
        | Op::DynamicUpdateSlice
        | Op::GetTupleElement { .. }
        | Op::OptimizationBarrier
        | Op::StopGradient
        | Op::ReplicaId => true,
        Op::Parameter { .. }
        | Op::Reduce { .. }
        | Op::DotGeneral { .. }
        | Op::Convolution(_)
        | Op::ReduceWindow { .. }
        | Op::SelectAndScatter { .. }
        | Op::Gather(_)
        | Op::ScatterAdd(_)
        | Op::While { .. }
        | Op::Scan(_)
        | Op::Composite(_)
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

#[cfg(test)]
mod tests {
    use crate::autodiff::gradients;
    use crate::graph::{Graph, Op, ScanInputs, ScanOutputs};
    use crate::shape::{DType, Shape};

    #[test]
    fn layers_store_their_inputs_and_rounded_products() {
        let graph = Graph::new("layers");
        let x = graph.parameter("x", Shape::new(DType::BF16, [8, 4]));
        let weights = graph.parameter("weights", Shape::new(DType::F32, [3, 4, 4]));
        let stacked = vec![weights.convert(DType::BF16)];
        let inputs = ScanInputs { constants: Vec::new(), carried: vec![x], stacked };
        let last = graph.scan("layers", 3, &inputs, |ScanInputs { carried, stacked, .. }| {
            let product = carried[0].matmul(stacked[0], DType::F32).convert(DType::BF16).convert(DType::F32);
            let activation = product * (1.0 + product.tanh());
            ScanOutputs { carried: vec![activation.convert(DType::BF16)], stacked: Vec::new() }
        });
        let loss = last.carried[0].convert(DType::F32).square().sum();
        let gradient = gradients(loss, &[weights])[0];
        let computation = graph.finish(&[loss, gradient]);
        let scans: Vec<_> = computation
            .nodes
            .iter()
            .filter_map(|node| if let Op::Scan(scan) = &node.op { Some(scan) } else { None })
            .collect();
        assert_eq!(scans.iter().map(|scan| scan.reverse).collect::<Vec<_>>(), [false, true]);
        let rounded = Shape::new(DType::BF16, [8, 4]);
        assert_eq!(scans[0].body.output_shapes(), [&rounded; 3]);
        // The gradients of the weights are sums in f32.
        assert_eq!(scans[1].body.output_shapes()[1], &Shape::new(DType::F32, [4, 4]));
    }
}
