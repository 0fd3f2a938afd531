//! The collectives of an optimized program. They may differ from those of the graph: libtpu makes all-reduces of an all-gather
//! or a reduce-scatter that it cannot keep, and every compiler joins and splits collectives. libtpu also writes a reduce-scatter
//! as a fusion of an all-reduce and the slice of it that a replica keeps (`all-reduce-scatter`), for the same algorithm.

use serde::Serialize;
use serde_json::Value;

use super::executions::{Execution, Schedule};
use super::program::Program;
use super::shapes::bytes;
use crate::hlo::proto::{HloInstructionProto, ReplicaGroup};

/// The kind of a collective.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CollectiveKind {
    /// The operands reduced over replicas.
    AllReduce,
    /// The operands reduced over replicas, of which each replica gets its part.
    ReduceScatter,
    /// The parts of all replicas.
    AllGather,
    /// A part of the operands for each replica.
    AllToAll,
    /// The operands sent to one other replica.
    CollectivePermute,
}

impl CollectiveKind {
    /// Returns the name in tables, HLO's opcode.
    pub fn name(self) -> &'static str {
        match self {
            CollectiveKind::AllReduce => "all-reduce",
            CollectiveKind::ReduceScatter => "reduce-scatter",
            CollectiveKind::AllGather => "all-gather",
            CollectiveKind::AllToAll => "all-to-all",
            CollectiveKind::CollectivePermute => "collective-permute",
        }
    }

    /// Returns the kind of an instruction that communicates, or starts to; none for any other instruction.
    fn of(opcode: &str) -> Option<CollectiveKind> {
        use CollectiveKind::*;
        let opcode = opcode.strip_suffix("-start").unwrap_or(opcode);
        let kinds = [AllReduce, ReduceScatter, AllGather, AllToAll, CollectivePermute];
        kinds.into_iter().find(|kind| kind.name() == opcode)
    }
}

/// A collective of an optimized program.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Collective {
    /// The kind.
    pub kind: CollectiveKind,
    /// Bytes of one replica's unsharded arrays: the results of an all-gather, the operands of any other kind.
    pub bytes: f64,
    /// The number of replicas that communicate with each other; none if all do.
    pub group_size: Option<usize>,
    /// The device computes while it communicates.
    pub asynchronous: bool,
    /// Executions in a step.
    pub executions: f64,
}

impl Collective {
    /// Lists the collectives of `program`. A loop whose number of iterations depends on the data has `expected` iterations.
    pub fn of_program(program: &Program, expected: f64) -> Vec<Collective> {
        let executions = Schedule::of(program, expected).executions;
        executions.iter().flat_map(|execution| of_execution(program, execution)).collect()
    }
}

/// Lists the collectives in one instruction that a device executes: itself, or those in a fusion.
pub(super) fn of_execution(program: &Program, execution: &Execution<'_>) -> Vec<Collective> {
    let interior = program.interior(execution.instruction);
    let starts = interior.iter().any(|instruction| instruction.custom_call_target == "AsyncCollectiveStart");
    let collective = |instruction: &&HloInstructionProto| {
        let kind = match CollectiveKind::of(&instruction.opcode)? {
            CollectiveKind::AllReduce if is_only_sliced(program, execution.instruction, instruction) => {
                CollectiveKind::ReduceScatter
            }
            kind => kind,
        };
        let in_steps = is_computed_in_steps(instruction);
        (starts || !in_steps).then(|| Collective {
            kind,
            bytes: unsharded_bytes(program, instruction, kind),
            group_size: group_size(instruction),
            asynchronous: execution.asynchronous || in_steps || instruction.opcode.ends_with("-start"),
            executions: execution.times,
        })
    };
    interior.iter().filter_map(collective).collect()
}

/// Returns whether `all_reduce` is inside the fusion `kernel`, which keeps only a slice of its result.
fn is_only_sliced(program: &Program, kernel: &HloInstructionProto, all_reduce: &HloInstructionProto) -> bool {
    let mut users = program.users(all_reduce).map(|(user, _)| &*user.opcode).peekable();
    kernel.id != all_reduce.id && users.peek().is_some() && users.all(|user| user == "dynamic-slice")
}

/// Returns whether libtpu has spread a collective over several fusions, with matrix products beside it. It is then written in
/// each of them; the first has a call of `AsyncCollectiveStart`.
fn is_computed_in_steps(instruction: &HloInstructionProto) -> bool {
    let config = serde_json::from_slice::<Value>(&instruction.backend_config);
    config.is_ok_and(|config| config.get("async_collective_fusion_config").is_some())
}

fn unsharded_bytes(program: &Program, instruction: &HloInstructionProto, kind: CollectiveKind) -> f64 {
    let Some(shape) = &instruction.shape else { return 0.0 };
    match (kind, &*instruction.opcode) {
        // Its result is a tuple of operands and results, for the instruction that waits.
        (CollectiveKind::AllGather, "all-gather-start") => shape.tuple_shapes.get(1).map_or(0.0, bytes),
        (CollectiveKind::AllGather, _) => bytes(shape),
        _ => program.operands(instruction).filter_map(|operand| operand.shape.as_ref()).map(bytes).sum(),
    }
}

fn group_size(instruction: &HloInstructionProto) -> Option<usize> {
    let first = |groups: &[ReplicaGroup]| groups.first().map(|group| group.replica_ids.len());
    let iota = instruction.iota_collective_device_list.as_ref();
    let listed = instruction.collective_device_list.as_ref();
    iota.and_then(|list| usize::try_from(list.num_devices_per_group).ok())
        .or_else(|| listed.and_then(|list| first(&list.replica_groups)))
        .or_else(|| first(&instruction.replica_groups))
        .filter(|&replicas| replicas > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hlo::proto::{CollectiveDeviceListProto, IotaReplicaGroupListProto};
    use crate::plan::profile::tests::{Builder, bf16, f32, tuple};
    use crate::plan::traffic::Collectives;

    fn groups(sizes: &[usize]) -> Vec<ReplicaGroup> {
        let mut next = 0..;
        sizes.iter().map(|&size| ReplicaGroup { replica_ids: next.by_ref().take(size).collect() }).collect()
    }

    #[test]
    fn collectives_are_found_with_their_bytes_and_groups() {
        let mut b = Builder::default();
        let (x, y) = (b.parameter(f32(&[8, 100])), b.parameter(bf16(&[50])));
        b.add("all-reduce", tuple(&[f32(&[8, 100]), bf16(&[50])]), &[x, y], |_| {});
        b.add("reduce-scatter", f32(&[2, 100]), &[x], |i| {
            i.replica_groups = groups(&[4, 4]);
        });
        let start = b.add("all-gather-start", tuple(&[bf16(&[50]), bf16(&[400])]), &[y], |i| {
            i.collective_device_list = Some(CollectiveDeviceListProto { replica_groups: groups(&[8]) });
        });
        b.add("all-gather-done", bf16(&[400]), &[start], |_| {});
        b.add("all-to-all", f32(&[8, 100]), &[x], |i| {
            let list = IotaReplicaGroupListProto { num_replica_groups: 4, num_devices_per_group: 2 };
            i.iota_collective_device_list = Some(list);
        });
        b.add("collective-permute", f32(&[8, 100]), &[x], |_| {});
        use CollectiveKind::*;
        let collective = |kind, bytes, group_size, asynchronous| Collective {
            kind,
            bytes,
            group_size,
            asynchronous,
            executions: 1.0,
        };
        let expected = [
            collective(AllReduce, 3300.0, None, false),
            collective(ReduceScatter, 3200.0, Some(4), false),
            collective(AllGather, 800.0, Some(8), true),
            collective(AllToAll, 3200.0, Some(2), false),
            collective(CollectivePermute, 3200.0, None, false),
        ];
        let found = Collective::of_program(&b.program(), 1.0);
        assert_eq!(found, expected);
        // Three quarters of 3,200 bytes are sent in each group of four: as much as 7/8 of 2,743 bytes.
        let sum = Collectives::of_compiled(&found[1..3], 8);
        assert!((sum.sent_in_ring(8) - (2400.0 + 700.0)).abs() < 1e-9, "{sum:?}");
        // An all-to-all in pairs sends half of its operand, a permute all of it.
        let sum = Collectives::of_compiled(&found[3..], 8);
        assert!((sum.sent_in_ring(8) - (1600.0 + 3200.0)).abs() < 1e-9, "{sum:?}");
    }

    #[test]
    fn collective_beside_products_counts_once() {
        let in_steps = |b: &mut Builder, operand| {
            b.add("all-gather", bf16(&[400]), &[operand], |i| {
                i.backend_config = br#"{"async_collective_fusion_config":{"flag_start":"2"}}"#.to_vec();
            })
        };
        let mut b = Builder::default();
        let first = b.computation(|b| {
            let x = b.parameter(bf16(&[50]));
            let gathered = in_steps(b, x);
            b.add("custom-call", bf16(&[400]), &[gathered], |i| {
                i.custom_call_target = "AsyncCollectiveStart".to_owned();
            })
        });
        let others = b.computation(|b| {
            let x = b.parameter(bf16(&[50]));
            in_steps(b, x)
        });
        let x = b.parameter(bf16(&[50]));
        for computation in [first, others, others] {
            b.fusion(computation, bf16(&[400]), &[x]);
        }
        let expected = Collective {
            kind: CollectiveKind::AllGather,
            bytes: 800.0,
            group_size: None,
            asynchronous: true,
            executions: 1.0,
        };
        assert_eq!(Collective::of_program(&b.program(), 1.0), [expected]);
    }

    #[test]
    fn all_reduce_fused_with_the_slice_of_a_replica_is_a_reduce_scatter() {
        let sliced = |b: &mut Builder| {
            let (x, at) = (b.parameter(f32(&[8, 100])), b.parameter(f32(&[])));
            let sum = b.add("all-reduce", f32(&[8, 100]), &[x], |_| {});
            b.add("dynamic-slice", f32(&[1, 100]), &[sum, at, at], |_| {})
        };
        let mut b = Builder::default();
        let fused = b.computation(sliced);
        let (x, at) = (b.parameter(f32(&[8, 100])), b.parameter(f32(&[])));
        b.fusion(fused, f32(&[1, 100]), &[x, at]);
        let fused = Collective::of_program(&b.program(), 1.0);
        let mut b = Builder::default();
        sliced(&mut b);
        let separate = Collective::of_program(&b.program(), 1.0);
        let facts = |found: &[Collective]| found.iter().map(|c| (c.kind, c.bytes)).collect::<Vec<_>>();
        assert_eq!(facts(&fused), [(CollectiveKind::ReduceScatter, 3200.0)]);
        assert_eq!(facts(&separate), [(CollectiveKind::AllReduce, 3200.0)]);
    }

    #[test]
    fn asynchronous_call_and_loop_are_entered() {
        let mut b = Builder::default();
        let called = b.computation(|b| {
            let x = b.parameter(f32(&[8]));
            b.add("reduce-scatter", f32(&[1]), &[x], |_| {})
        });
        let body = b.computation(|b| {
            let x = b.parameter(f32(&[8]));
            let start = b.add("async-start", f32(&[1]), &[x], |i| i.called_computation_ids = vec![called]);
            b.add("async-done", f32(&[1]), &[start], |_| {})
        });
        let x = b.parameter(f32(&[8]));
        b.add("while", f32(&[8]), &[x], |i| {
            i.called_computation_ids = vec![body, body];
            i.backend_config = br#"{"known_trip_count":{"n":"3"}}"#.to_vec();
        });
        let found = Collective::of_program(&b.program(), 1.0);
        let facts: Vec<_> = found.iter().map(|c| (c.kind.name(), c.bytes, c.asynchronous, c.executions)).collect();
        assert_eq!(facts, [("reduce-scatter", 32.0, true, 3.0)]);
    }
}
