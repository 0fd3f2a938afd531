//! Kinds of kernels.

use serde::Serialize;

use super::products::Product;
use super::program::Program;
use crate::hlo::proto::HloInstructionProto;
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
