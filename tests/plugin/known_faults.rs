//! Known faults of XLA:CPU that some plugins still have: programs of this crate must not contain their patterns.
//!
//! * A `dynamic-update-slice` whose update is a shifted slice of the updated array, with a reshape behind it, gives wrong
//!   values: the compiler updates the array in place and reads elements that it has overwritten (openxla/xla#49176).
//! * A `dynamic-update-slice` of less than 256 bytes in a loop rewrites the whole array in each iteration
//!   (jax-ml/jax#40101). The values are right, which the operations' cases `while/small-updates` and `dynamic-slice/gradient`
//!   compare; a step has no such loop.

use crate::common::cpu;
use crate::common::sharding::{SHARDED, model};
use crate::common::steps::spec;
use lambert::graph::{Computation, Graph};
use lambert::hlo::proto::HloInstructionProto;
use lambert::hlo::{LowerOptions, lower};
use lambert::pjrt::LoadedExecutable;
use lambert::plan::profile::program::Program;
use lambert::shape::{DType, Shape};
use lambert::step::{Parallel, StepSpec, TrainStep};

/// Returns the fusions that update an array in place and read other elements of it.
fn updates_from_themselves(executable: &LoadedExecutable) -> Vec<String> {
    let program = Program::decode(&executable.optimized_program().unwrap()).unwrap();
    let fusions = program.module.computations.iter().flat_map(|computation| &computation.instructions);
    let is_faulty = |fusion: &&HloInstructionProto| {
        let interior = program.interior(fusion);
        let updates = interior.iter().filter(|i| i.opcode == "dynamic-update-slice");
        let mut bases = updates.filter_map(|update| updated_array(&program, update));
        fusion.opcode == "fusion"
            && bases.any(|base| {
                program.users(base).any(|(user, _)| ["slice", "dynamic-slice", "gather"].contains(&&*user.opcode))
            })
    };
    fusions.filter(is_faulty).map(|fusion| fusion.name.clone()).collect()
}

/// Returns the array that `update` updates, before any change of its shape.
fn updated_array<'a>(program: &'a Program, update: &'a HloInstructionProto) -> Option<&'a HloInstructionProto> {
    let mut base = program.operand(update, 0)?;
    while ["bitcast", "reshape", "copy"].contains(&&*base.opcode) {
        base = program.operand(base, 0)?;
    }
    Some(base)
}

/// The pattern of the fault: an array of four elements, shifted down by one.
fn pattern() -> Computation {
    let graph = Graph::new("shift");
    let x = graph.parameter("x", Shape::new(DType::S32, [4, 1, 1]));
    let (base, [zero, one]) = (x + 1.0, [0.0, 1.0].map(|start| graph.scalar(start, DType::S32)));
    let shifted = base.dynamic_update_slice(base.slice_in(0, 0, 3), &[one, zero, zero]);
    graph.finish(&[shifted.reshape(&[1, 4, 1])])
}

#[test]
fn no_step_updates_an_array_in_place_from_its_own_elements() {
    let module = lower(&pattern(), &LowerOptions::default());
    let found = updates_from_themselves(&cpu(1).compile(&module.bytes).unwrap());
    assert_eq!(found.len(), 1, "the compiler no longer fuses the pattern, so this test is not needed: {found:?}");
    for (parallel, micro_batches, replicas) in
        [(Parallel::default(), 1, 1), (Parallel::default(), 2, 2), (SHARDED, 2, 2)]
    {
        let spec = StepSpec { parallel, ..spec(&model(), 8, micro_batches, replicas) };
        let program = TrainStep::build(&spec).unwrap().program;
        let executable = cpu(replicas).compile(&program.lower().bytes).unwrap();
        assert_eq!(updates_from_themselves(&executable), [""; 0], "{parallel:?}, {micro_batches} micro-batches");
    }
}
