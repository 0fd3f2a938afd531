//! A builder of small optimized programs, and profiles whose values are computed by hand.

use std::mem;

use super::*;
use crate::hlo::proto::{
    DotDimensionNumbers, HloComputationProto, HloInstructionProto, HloModuleProto, LayoutProto, LiteralProto,
    OpMetadata, PrimitiveType,
};

/// Builds a module; instructions are added to the entry computation.
#[derive(Default)]
pub(super) struct Builder {
    finished: Vec<HloComputationProto>,
    instructions: Vec<HloInstructionProto>,
    last_id: i64,
}

impl Builder {
    pub(super) fn parameter(&mut self, shape: ShapeProto) -> i64 {
        let number = self.instructions.iter().filter(|i| i.opcode == "parameter").count() as i64;
        self.add("parameter", shape, &[], |i| i.parameter_number = number)
    }

    /// Appends an instruction that `edit` completes, and returns its id.
    pub(super) fn add(
        &mut self,
        opcode: &str,
        shape: ShapeProto,
        operands: &[i64],
        edit: impl FnOnce(&mut HloInstructionProto),
    ) -> i64 {
        self.last_id += 1;
        let mut instruction = HloInstructionProto {
            name: format!("{opcode}.{}", self.last_id),
            opcode: opcode.to_owned(),
            shape: Some(shape),
            operand_ids: operands.to_vec(),
            id: self.last_id,
            ..HloInstructionProto::default()
        };
        edit(&mut instruction);
        self.instructions.push(instruction);
        self.last_id
    }

    pub(super) fn fusion(&mut self, computation: i64, shape: ShapeProto, operands: &[i64]) -> i64 {
        self.add("fusion", shape, operands, |i| {
            i.called_computation_ids = vec![computation];
            i.fusion_kind = "kLoop".to_owned();
        })
    }

    /// Appends a computation whose root is the instruction that `build` returns, and returns its id.
    pub(super) fn computation(&mut self, build: impl FnOnce(&mut Builder) -> i64) -> i64 {
        let outer = mem::take(&mut self.instructions);
        let root_id = build(self);
        let instructions = mem::replace(&mut self.instructions, outer);
        self.last_id += 1;
        let (id, name) = (self.last_id, format!("computation.{}", self.last_id));
        self.finished.push(HloComputationProto { name, instructions, id, root_id, ..HloComputationProto::default() });
        id
    }

    pub(super) fn program(mut self) -> Program {
        let instructions = mem::take(&mut self.instructions);
        let root_id = instructions.last().map_or(0, |last| last.id);
        let entry_computation_id = self.last_id + 1;
        let name = "entry".to_owned();
        let entry = HloComputationProto {
            name,
            instructions,
            id: entry_computation_id,
            root_id,
            ..HloComputationProto::default()
        };
        self.finished.push(entry);
        Program::new(HloModuleProto { entry_computation_id, computations: self.finished, ..HloModuleProto::default() })
    }
}

fn array(element_type: PrimitiveType, dimensions: &[i64]) -> ShapeProto {
    ShapeProto { element_type: element_type.into(), dimensions: dimensions.to_vec(), ..ShapeProto::default() }
}

pub(super) fn f32(dimensions: &[i64]) -> ShapeProto {
    array(PrimitiveType::F32, dimensions)
}

pub(super) fn bf16(dimensions: &[i64]) -> ShapeProto {
    array(PrimitiveType::Bf16, dimensions)
}

pub(super) fn tuple(shapes: &[ShapeProto]) -> ShapeProto {
    ShapeProto { tuple_shapes: shapes.to_vec(), ..array(PrimitiveType::Tuple, &[]) }
}

pub(super) fn in_space(shape: ShapeProto, memory_space: i64) -> ShapeProto {
    ShapeProto { layout: Some(LayoutProto { memory_space, ..LayoutProto::default() }), ..shape }
}

fn context(target: &str) -> Context {
    let target: crate::plan::target::Target = target.parse().unwrap();
    Context {
        platform: target.platform(),
        rates: Rates::of(&target),
        sequence_length: 64,
        layers: 2,
        micro_batches: 7.0,
        model_flops: 1e6,
    }
}

fn named(instruction: &mut HloInstructionProto, op_name: &str) {
    instruction.metadata = Some(OpMetadata { op_name: op_name.to_owned(), ..OpMetadata::default() });
}

/// Appends a product and a transpose of the activation `x` in each of `scopes`, and returns the last.
fn add_layers(b: &mut Builder, w: i64, x: i64, scopes: &[&str]) -> i64 {
    scopes.iter().fold(x, |x, scope| {
        let numbers = DotDimensionNumbers {
            lhs_contracting_dimensions: vec![2],
            rhs_contracting_dimensions: vec![0],
            ..DotDimensionNumbers::default()
        };
        let y = b.add("dot", bf16(&[8, 64, 64]), &[x, w], |i| {
            i.dot_dimension_numbers = Some(numbers);
            named(i, scope);
        });
        b.add("transpose", bf16(&[8, 64, 64]), &[y], |i| named(i, scope))
    })
}

/// Appends a loop over a counter, a weight and an activation, of which `inside` returns the next, and returns its id.
fn add_loop(b: &mut Builder, annotation: &str, inside: impl FnOnce(&mut Builder, i64, i64) -> i64) -> i64 {
    let s32 = array(PrimitiveType::S32, &[]);
    let state = tuple(&[s32.clone(), bf16(&[64, 64]), bf16(&[8, 64, 64])]);
    let body = b.computation(|b| {
        let state_in = b.parameter(state.clone());
        let count = b.add("get-tuple-element", s32.clone(), &[state_in], |_| {});
        let w = b.add("get-tuple-element", bf16(&[64, 64]), &[state_in], |i| i.tuple_index = 1);
        let x = b.add("get-tuple-element", bf16(&[8, 64, 64]), &[state_in], |i| i.tuple_index = 2);
        let x = inside(b, w, x);
        b.add("tuple", state.clone(), &[count, w, x], |_| {})
    });
    let condition = b.computation(|b| {
        let state = b.parameter(state.clone());
        let count = b.add("get-tuple-element", s32.clone(), &[state], |_| {});
        let bound = b.add("constant", s32.clone(), &[], |i| i.literal = Some(number(5)));
        b.add("compare", array(PrimitiveType::Pred, &[]), &[count, bound], |i| {
            i.comparison_direction = "LT".to_owned();
        })
    });
    let zero = b.add("constant", s32, &[], |i| i.literal = Some(number(0)));
    let (w, x) = (b.parameter(bf16(&[64, 64])), b.parameter(bf16(&[8, 64, 64])));
    let initial = b.add("tuple", state.clone(), &[zero, w, x], |_| {});
    b.add("while", state, &[initial], |i| {
        i.called_computation_ids = vec![body, condition];
        i.backend_config = annotation.as_bytes().to_vec();
    })
}

fn number(n: i32) -> LiteralProto {
    LiteralProto { s32s: vec![n], ..LiteralProto::default() }
}

#[test]
fn kernels_in_a_loop_count_for_each_iteration() {
    let mut b = Builder::default();
    let scopes = ["encoder/layer.0/attention", "encoder/layer.1/attention"];
    add_loop(&mut b, r#"{"known_trip_count":{"n":"3"}}"#, |b, w, x| add_layers(b, w, x, &scopes));
    let profile = Profile::of_program(&b.program(), &context("cuda:h200:1x1x1"));
    assert_eq!(
        profile.loops.iter().map(|l| (l.iterations, l.source)).collect::<Vec<_>>(),
        [(3.0, executions::TripCount::Compiler)]
    );
    // Two layers and three iterations: the product reads activation and weight and writes the result.
    let (activation, weight, product) = (65_536.0, 8_192.0, 2.0 * 8.0 * 64.0 * 64.0 * 64.0);
    let expected = [
        (Kind::Copy, 6.0 * 2.0 * activation, 0.0),
        (Kind::MatrixProduct, 6.0 * (2.0 * activation + weight), 6.0 * product),
    ];
    for (kind, bytes, flops) in expected {
        let sum = profile.kinds.iter().find(|(k, _)| *k == kind).unwrap().1;
        assert_eq!((sum.kernels, sum.bytes(), sum.products), (6.0, bytes, flops), "{kind:?}");
        assert!((sum.seconds - bytes / 4.8e12).abs() < 1e-15, "all of it is bound by memory");
    }
    assert_eq!(profile.total.kernels, 12.0);
    assert_eq!(profile.executed_over_model(), 6.0 * product / 1e6);
    let scopes: Vec<&str> = profile.scopes.iter().map(|(scope, _)| scope.as_str()).collect();
    assert_eq!(scopes, ["encoder/layer.*/attention"]);
    // Once per layer, whatever the number of iterations.
    let layer = Layer { kernels: 2.0, product_bytes: 2.0 * activation + weight, other_bytes: 2.0 * activation };
    assert_eq!(profile.layer, layer);
    let costliest: Vec<_> = profile.costliest.iter().map(|k| (k.kind, k.scope.as_str(), k.executions)).collect();
    let attention = "encoder/layer.*/attention";
    assert_eq!(costliest, [(Kind::MatrixProduct, attention, 6.0), (Kind::Copy, attention, 6.0)]);
}

/// Three of four layers are in a loop, with instructions of the loop itself. One that the compiler has moved out of it counts
/// once for all of them.
#[test]
fn layer_of_a_loop_counts_as_one_of_unrolled_layers() {
    let layer = |inside: &dyn Fn(&mut Builder, i64, i64) -> i64| {
        let mut b = Builder::default();
        add_loop(&mut b, r#"{"known_trip_count":{"n":"7"}}"#, inside);
        Profile::of_program(&b.program(), &Context { layers: 4, ..context("cuda:h200:1x1x1") }).layer
    };
    let last = "encoder/layer.3/attention";
    let unrolled = ["encoder/layer.0/attention", "encoder/layer.1/attention", "encoder/layer.2/attention", last];
    let looped = |scopes: &[&str], moved: &[&str]| {
        layer(&|b, w, _| {
            let iterated = add_loop(b, r#"{"known_trip_count":{"n":"3"}}"#, |b, w, x| add_layers(b, w, x, scopes));
            let x = b.add("get-tuple-element", bf16(&[8, 64, 64]), &[iterated], |i| i.tuple_index = 2);
            let x = add_layers(b, w, x, moved);
            add_layers(b, w, x, &[last])
        })
    };
    let expected = layer(&|b, w, x| add_layers(b, w, x, &unrolled));
    assert_eq!(looped(&["encoder/layers/attention"], &[]), expected);
    let of_loop = looped(&["encoder/layers/attention", "encoder"], &["encoder/layers/attention"]);
    let times = (3.0 * 2.0 + 1.0 + 1.0) / 4.0;
    let Layer { kernels, product_bytes, other_bytes } = expected;
    let scaled =
        Layer { kernels: times * kernels, product_bytes: times * product_bytes, other_bytes: times * other_bytes };
    assert_eq!(of_loop, scaled);
}

#[test]
fn trip_count_is_annotated_or_compared_or_expected() {
    let iterations = |annotation, edit: &dyn Fn(&mut HloModuleProto)| {
        let mut b = Builder::default();
        add_loop(&mut b, annotation, |b, w, x| add_layers(b, w, x, &["encoder/layer.0/attention"]));
        let mut module = b.program().module;
        edit(&mut module);
        let profile = Profile::of_program(&Program::new(module), &context("cpu:1"));
        (profile.loops[0].iterations, profile.loops[0].source)
    };
    let greater = |module: &mut HloModuleProto| {
        let compare = module.computations.iter_mut().flat_map(|c| &mut c.instructions).find(|i| i.opcode == "compare");
        compare.unwrap().comparison_direction = "GT".to_owned();
    };
    // A compiler may copy the initial counter to where the loop keeps it.
    let copied = |module: &mut HloModuleProto| {
        let entry = module.computations.last_mut().unwrap();
        let initial = entry.instructions.iter_mut().find(|i| i.opcode == "tuple").unwrap();
        let operand_ids = vec![std::mem::replace(&mut initial.operand_ids[0], 1_000)];
        let copy = HloInstructionProto { opcode: "copy".to_owned(), operand_ids, id: 1_000, ..Default::default() };
        entry.instructions.push(copy);
    };
    assert_eq!(iterations("{}", &|_| {}), (5.0, executions::TripCount::Condition));
    assert_eq!(iterations("{}", &copied), (5.0, executions::TripCount::Condition));
    assert_eq!(iterations("not JSON", &greater), (7.0, executions::TripCount::Expected));
    assert_eq!(iterations(r#"{"known_trip_count":{"n":"4"}}"#, &greater), (4.0, executions::TripCount::Compiler));
}

#[test]
fn all_reduce_takes_the_time_of_its_links() {
    let mut b = Builder::default();
    let sum = b.computation(|b| {
        let (x, y) = (b.parameter(f32(&[])), b.parameter(f32(&[])));
        b.add("add", f32(&[]), &[x, y], |_| {})
    });
    let gradient = b.parameter(f32(&[1_000_000]));
    let reduced = b.add("all-reduce-start", f32(&[1_000_000]), &[gradient], |i| i.called_computation_ids = vec![sum]);
    b.add("all-reduce-done", f32(&[1_000_000]), &[reduced], |_| {});
    let profile = Profile::of_program(&b.program(), &context("cuda:h200:1x1x8"));
    let [(Kind::Collective, all_reduce)] = profile.kinds.as_slice() else { panic!("{:?}", profile.kinds) };
    assert_eq!((all_reduce.kernels, all_reduce.bytes(), all_reduce.elementwise), (1.0, 8e6, 0.0));
    // 2 · 7/8 · 4 MB over 450 GB/s, more than 8 MB over 4.8 TB/s.
    assert!((all_reduce.seconds - 7e6 / 450e9).abs() < 1e-15);
}

#[test]
fn arrays_of_squared_length_copies_and_f32_products_are_listed() {
    let mut b = Builder::default();
    let fused = b.computation(|b| {
        let x = b.parameter(f32(&[8, 64, 64]));
        let e = b.add("exponential", f32(&[8, 64, 64]), &[x], |i| named(i, "gradients/encoder/layer.1/attention"));
        let narrow = b.add("convert", bf16(&[8, 64, 64]), &[e], |_| {});
        b.add("tuple", tuple(&[f32(&[8, 64, 64]), bf16(&[8, 64, 64]), f32(&[8])]), &[e, narrow, x], |_| {})
    });
    let (x, w) = (b.parameter(f32(&[8, 64, 32])), b.parameter(f32(&[32, 64])));
    let dot = b.add("dot", f32(&[8, 64, 64]), &[x, w], |i| {
        let contracted = DotDimensionNumbers { lhs_contracting_dimensions: vec![2], ..DotDimensionNumbers::default() };
        i.dot_dimension_numbers = Some(contracted);
        named(i, "encoder/layer.0/attention");
    });
    b.fusion(fused, tuple(&[f32(&[8, 64, 64]), bf16(&[8, 64, 64]), f32(&[8])]), &[dot]);
    b.add("convert", bf16(&[32, 64]), &[w], |_| {});
    let profile = Profile::of_program(&b.program(), &context("cpu:1"));
    let lines = |lines: &[(Place, Sum)]| -> Vec<(String, String, f64)> {
        lines.iter().map(|(place, sum)| (place.scope.clone(), place.shape.clone(), sum.written)).collect()
    };
    let line = |scope: &str, shape: &str, bytes: f64| (scope.to_owned(), shape.to_owned(), bytes);
    let attention = "encoder/layer.*/attention";
    assert_eq!(
        lines(&profile.squares),
        [
            line(attention, "f32[8,64,64]", 131_072.0),
            line(&format!("gradients/{attention}"), "f32[8,64,64]", 131_072.0),
            line(&format!("gradients/{attention}"), "bf16[8,64,64]", 65_536.0),
        ]
    );
    assert_eq!(lines(&profile.copies), [line("(no scope)", "bf16[32,64]", 4_096.0)]);
    assert_eq!(lines(&profile.f32_products), [line(attention, "f32[8,64,64]", 131_072.0)]);
    assert_eq!(profile.f32_products[0].1.products, 2.0 * 8.0 * 64.0 * 64.0 * 32.0);
    assert_eq!(profile.rates, None);
}
