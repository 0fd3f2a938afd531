//! Counts the communication of a step: from the collectives of the compiled program, and from those of its graph, which the
//! compiler may replace.

use super::profile::collectives::{Collective, CollectiveKind};
use crate::graph::{Computation, Node, NodeId, Op, ValueShape};

/// Bytes of one replica's arrays that pass through collectives in a step, by kind. [`Collectives::sent_in_ring`] converts them
/// to the bytes sent.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Collectives {
    /// Operands of all-reduces.
    pub all_reduce: f64,
    /// Operand bytes of reduce-scatters (unsharded).
    pub reduce_scatter: f64,
    /// Result bytes of all-gathers (unsharded).
    pub all_gather: f64,
    /// Operands of all-to-alls, and of collective-permutes, which send all of them. A graph has none.
    pub all_to_all: f64,
}

impl Collectives {
    /// Counts the collectives of `step`, whose loops have `trips` iterations each.
    pub fn of(step: &Computation, trips: usize) -> Collectives {
        let mut sum = Collectives::default();
        sum.add(step, 1.0, trips as f64);
        sum
    }

    /// Sums the collectives of a program that is compiled for `replicas`. Of one within smaller groups, the bytes count with
    /// which a ring of all replicas would send as much.
    pub fn of_compiled(collectives: &[Collective], replicas: usize) -> Collectives {
        let mut sum = Collectives::default();
        for collective in collectives {
            let share = match (collective.kind, collective.group_size) {
                // It sends all of its operand.
                (CollectiveKind::CollectivePermute, _) if replicas > 1 => 1.0 / share_sent(replicas),
                (_, Some(members)) if replicas > 1 => share_sent(members) / share_sent(replicas),
                _ => 1.0,
            };
            let kind = match collective.kind {
                CollectiveKind::AllReduce => &mut sum.all_reduce,
                CollectiveKind::ReduceScatter => &mut sum.reduce_scatter,
                CollectiveKind::AllGather => &mut sum.all_gather,
                CollectiveKind::AllToAll | CollectiveKind::CollectivePermute => &mut sum.all_to_all,
            };
            *kind += share * collective.executions * collective.bytes;
        }
        sum
    }

    /// Returns the bytes that each of `members` sends in a ring. In a ring of n, a reduce-scatter sends (n−1)/n of its operand,
    /// an all-gather (n−1)/n of its result; an all-reduce is both. An all-to-all keeps 1/n of its operand.
    pub fn sent_in_ring(&self, members: usize) -> f64 {
        let passes = 2.0 * self.all_reduce + self.reduce_scatter + self.all_gather + self.all_to_all;
        passes * share_sent(members)
    }

    /// Returns the bytes that each of `members` moves between its memory and its cores: operands are read, results written.
    pub fn moved(&self, members: usize) -> f64 {
        let whole_and_shard = self.reduce_scatter + self.all_gather;
        2.0 * (self.all_reduce + self.all_to_all) + whole_and_shard + whole_and_shard / members as f64
    }

    fn add(&mut self, computation: &Computation, times: f64, trips: f64) {
        let operand = |id: &NodeId| times * bytes(&computation.node(*id).shape);
        let operands = |node: &Node| node.inputs.iter().map(operand).sum::<f64>();
        for node in &computation.nodes {
            match &node.op {
                Op::AllReduce { .. } => self.all_reduce += operands(node),
                Op::ReduceScatter { .. } => self.reduce_scatter += operands(node),
                Op::AllGather { .. } => self.all_gather += times * bytes(&node.shape),
                Op::While { body, .. } => self.add(body, times * trips, trips),
                Op::Scan(scan) => self.add(&scan.body, times * scan.length as f64, trips),
                _ => {}
            }
        }
    }
}

/// Returns the share of an array that each of `members` sends in one pass around their ring.
fn share_sent(members: usize) -> f64 {
    (members as f64 - 1.0) / members as f64
}

fn bytes(shape: &ValueShape) -> f64 {
    match shape {
        ValueShape::Array(shape) => shape.bytes() as f64,
        ValueShape::Tuple(shapes) => shapes.iter().map(|shape| shape.bytes() as f64).sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Graph, Reduction};
    use crate::shape::{DType, Shape};

    #[test]
    fn every_kind_is_counted_and_loops_by_their_trip_count() {
        let graph = Graph::new("collectives");
        let x = graph.parameter("x", Shape::new(DType::F32, [8, 3]));
        let outside = x.all_reduce(Reduction::Sum);
        let loops = graph.while_loop(
            "loop",
            &[graph.scalar(0.0, DType::S32), outside],
            |_, state| state[0].lt(state[0].filled(5.0)),
            |_, state| {
                vec![state[0] + 1.0, state[1].convert(DType::BF16).all_reduce(Reduction::Sum).convert(DType::F32)]
            },
        );
        let scattered = graph.add(Op::ReduceScatter { dimension: 0, replicas: 4 }, &[loops[1]]);
        let gathered = graph.all_gather(&[scattered, scattered.convert(DType::BF16)], 0, 4);
        let collectives = Collectives::of(&graph.finish(&gathered), 5);
        let expected =
            Collectives { all_reduce: 96.0 + 5.0 * 48.0, reduce_scatter: 96.0, all_gather: 144.0, all_to_all: 0.0 };
        assert_eq!(collectives, expected);
        // With two members, each sends half of the 336 all-reduced bytes twice, and half of the other 240 bytes once.
        assert_eq!([1, 2, 4].map(|members| collectives.sent_in_ring(members)), [0.0, 456.0, 684.0]);
        assert_eq!(collectives.moved(4), 672.0 + 240.0 + 60.0);
    }
}
