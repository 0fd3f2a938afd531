//! Kinds of kernels.

use serde::Serialize;

use super::products::Product;
use super::program::Program;
use super::shapes::{arrays, memory_space};
use crate::hlo::proto::{HloInstructionProto, ShapeProto};
use crate::triton::TARGET;

/// The kind of a kernel, by the most expensive operation in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Matrix products, alone or fused with other operations, and calls of a library that computes them.
    MatrixProduct,
    /// Calls of other code: lambert's own kernels, and code whose operations are unknown and count as none.
    CustomCall,
    /// Communication between replicas.
    Collective,
    /// Scatters and gathers.
    ScatterOrGather,
    /// Sorts.
    Sort,
    /// Kernels that only move elements: copies, transposes, slices and concatenations.
    Copy,
    /// Kernels that only move elements from one memory to another, without a change of layout: on TPUs, main and vector memory.
    MemoryMove,
    /// Kernels that only change the element type.
    Conversion,
    /// Reductions, alone or fused with elementwise operations.
    Reduction,
    /// Elementwise fusions (`kLoop`).
    LoopFusion,
    /// Fusions around an operand (`kInput`) without a reduction.
    InputFusion,
    /// Fusions around a result (`kOutput`) without a product.
    OutputFusion,
    /// Fusions with their own code (`kCustom`) without a product.
    CustomFusion,
    /// Any other instruction.
    Other,
}

impl Kind {
    /// Returns the name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Kind::MatrixProduct => "matrix products",
            Kind::CustomCall => "custom calls",
            Kind::Collective => "collectives",
            Kind::ScatterOrGather => "scatters and gathers",
            Kind::Sort => "sorts",
            Kind::Copy => "copies and transposes",
            Kind::MemoryMove => "moves between memories",
            Kind::Conversion => "type conversions",
            Kind::Reduction => "reductions",
            Kind::LoopFusion => "loop fusions",
            Kind::InputFusion => "input fusions",
            Kind::OutputFusion => "output fusions",
            Kind::CustomFusion => "custom fusions",
            Kind::Other => "other",
        }
    }

    /// Classifies `kernel`.
    pub fn of(program: &Program, kernel: &HloInstructionProto) -> Kind {
        let interior = program.interior(kernel);
        let contains =
            |opcodes: &[&str]| interior.iter().any(|i| opcodes.contains(&i.opcode.trim_end_matches("-start")));
        let only = |allowed: &[&[&str]]| {
            interior.iter().all(|i| allowed.iter().any(|list| list.contains(&i.opcode.trim_end_matches("-start"))))
        };
        let is_product = interior.iter().any(|i| Product::of(program, i).is_some());
        // These compute more than their products.
        let is_own_kernel = interior.iter().any(|i| i.custom_call_target == TARGET);
        let contents = [
            (is_own_kernel, Kind::CustomCall),
            (is_product, Kind::MatrixProduct),
            (contains(&["custom-call"]), Kind::CustomCall),
            (contains(&COLLECTIVES), Kind::Collective),
            (contains(&["scatter", "select-and-scatter", "gather"]), Kind::ScatterOrGather),
            (contains(&["sort"]), Kind::Sort),
            (is_memory_move(program, kernel), Kind::MemoryMove),
            (contains(&MOVES) && only(&[&MOVES, &FREE, &["convert", "broadcast"]]), Kind::Copy),
            (contains(&["convert"]) && only(&[&FREE, &["convert"]]), Kind::Conversion),
            (contains(&["reduce", "reduce-window"]), Kind::Reduction),
        ];
        let by_contents = contents.into_iter().find_map(|(applies, kind)| applies.then_some(kind));
        by_contents.unwrap_or(match &*kernel.fusion_kind {
            "kLoop" => Kind::LoopFusion,
            "kInput" => Kind::InputFusion,
            "kOutput" => Kind::OutputFusion,
            "kCustom" => Kind::CustomFusion,
            _ => Kind::Other,
        })
    }
}

/// Returns whether `kernel` copies elements of its operand to another memory, in the order in which they are.
fn is_memory_move(program: &Program, kernel: &HloInstructionProto) -> bool {
    let moves = matches!(&*kernel.opcode, "copy-start" | "copy" | "slice");
    let source = program.operand(kernel, 0).and_then(|operand| operand.shape.as_ref());
    let (Some(source), Some(result)) = (source, kernel.shape.as_ref().and_then(|shape| arrays(shape).first().copied()))
    else {
        return false;
    };
    let order = |shape: &ShapeProto| shape.layout.as_ref().map(|layout| layout.minor_to_major.clone());
    moves && memory_space(source) != memory_space(result) && order(source) == order(result)
}

/// Instructions that communicate.
const COLLECTIVES: [&str; 7] = [
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
    "collective-broadcast",
    "ragged-all-to-all",
];

/// Instructions that only move elements.
const MOVES: [&str; 9] =
    ["copy", "transpose", "reshape", "slice", "dynamic-slice", "dynamic-update-slice", "concatenate", "pad", "reverse"];

/// Instructions that are not kernels: they name values, or wait.
pub(super) const FREE: [&str; 17] = [
    "parameter",
    "constant",
    "tuple",
    "get-tuple-element",
    "bitcast",
    "after-all",
    "add-dependency",
    "opt-barrier",
    "domain",
    "partition-id",
    "replica-id",
    "all-reduce-done",
    "all-gather-done",
    "collective-permute-done",
    "copy-done",
    "async-update",
    "async-done",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::profile::tests::{Builder, f32, in_space, tuple};

    #[test]
    fn move_between_memories_is_no_copy() {
        let mut b = Builder::default();
        let (main, vector) = (f32(&[8, 128]), in_space(f32(&[8, 128]), 1));
        let turned = || {
            let mut shape = in_space(f32(&[8, 128]), 1);
            shape.layout.as_mut().unwrap().minor_to_major = vec![0, 1];
            shape
        };
        let x = b.parameter(in_space(main.clone(), 0));
        let start = b.add("copy-start", tuple(&[vector.clone(), main.clone()]), &[x], |_| {});
        let slice = b.add("slice", in_space(f32(&[4, 128]), 1), &[x], |_| {});
        let others = [(main, "copy"), (turned(), "copy"), (turned(), "transpose")];
        let others = others.map(|(shape, opcode)| b.add(opcode, shape, &[x], |_| {}));
        let program = b.program();
        let kind = |id| Kind::of(&program, program.instruction(id).unwrap());
        assert_eq!([start, slice].map(kind), [Kind::MemoryMove; 2]);
        assert_eq!(others.map(kind), [Kind::Copy; 3]);
    }
}
