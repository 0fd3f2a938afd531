//! Shape rules: the shapes of results, and the errors.

use super::*;
use crate::graph::{Comparison, Graph, Reduction};
use DType::*;

/// An operation, its operands, and the shape of the result or the error.
type Row<'a> = (Op, &'a [(DType, &'a [usize])], &'a str);

fn infer(op: Op, operands: &[(DType, &[usize])]) -> Result<String, String> {
    let shapes: Vec<ValueShape> =
        operands.iter().map(|&(dtype, dims)| ValueShape::Array(Shape::new(dtype, dims))).collect();
    match shape(&op, &shapes.iter().collect::<Vec<_>>()) {
        Ok(shape) => Ok(shape.to_string()),
        Err(e) => Err(e.to_string()),
    }
}

fn gather() -> GatherDimensions {
    GatherDimensions {
        offset_dims: vec![2],
        collapsed_slice_dims: vec![0],
        start_index_map: vec![0],
        index_vector_dim: 2,
        slice_sizes: vec![1, 8],
    }
}

fn scatter() -> ScatterDimensions {
    ScatterDimensions {
        update_window_dims: vec![1],
        inserted_window_dims: vec![0],
        scatter_dims_to_operand_dims: vec![0],
        index_vector_dim: 1,
    }
}

fn dot(batch: (usize, usize), contracting: (usize, usize)) -> Op {
    let dimensions = DotDimensions {
        lhs_batch: vec![batch.0],
        rhs_batch: vec![batch.1],
        lhs_contracting: vec![contracting.0],
        rhs_contracting: vec![contracting.1],
    };
    Op::DotGeneral { dimensions, dtype: F32 }
}

#[test]
fn valid_operands_give_the_shape_of_the_result() {
    let slice = Op::Slice { starts: vec![1, 0], limits: vec![4, 5], strides: vec![2, 3] };
    let pad = Op::Pad { low: vec![1], high: vec![2], interior: vec![3] };
    let broadcast = Op::Broadcast { dims: vec![4, 3, 2], broadcast_dimensions: vec![0, 2] };
    #[rustfmt::skip]
    let table: [Row; 17] = [
        (Op::Unary(UnaryOp::IsFinite), &[(BF16, &[2])], "pred[2]"),
        (Op::Compare { direction: Comparison::Lt }, &[(U32, &[2]), (U32, &[2])], "pred[2]"),
        (Op::Select, &[(Pred, &[2]), (F32, &[2]), (F32, &[2])], "f32[2]"),
        (Op::Reshape { dims: vec![6] }, &[(S32, &[2, 3])], "s32[6]"),
        (Op::Transpose { permutation: vec![2, 0, 1] }, &[(F32, &[5, 6, 7])], "f32[7,5,6]"),
        (broadcast, &[(F32, &[4, 2])], "f32[4,3,2]"),
        (Op::Concatenate { dimension: 1 }, &[(F32, &[2, 3]), (F32, &[2, 4])], "f32[2,7]"),
        (slice, &[(F32, &[4, 6])], "f32[2,2]"),
        (pad, &[(F32, &[3]), (F32, &[])], "f32[12]"),
        (Op::Reduce { reduction: Reduction::Max, dimensions: vec![0, 2] }, &[(F32, &[2, 3, 4])], "f32[3]"),
        (dot((2, 0), (1, 2)), &[(BF16, &[5, 3, 2]), (BF16, &[2, 7, 3])], "f32[2,5,7]"),
        (Op::Gather(gather()), &[(F32, &[100, 8]), (S32, &[4, 6])], "f32[4,6,8]"),
        (Op::ScatterAdd(scatter()), &[(F32, &[9, 8]), (S32, &[4]), (F32, &[4, 8])], "f32[9,8]"),
        (Op::AllGather { dimension: 0, replicas: 4 }, &[(F32, &[3])], "f32[12]"),
        (Op::ReduceScatter { dimension: 0, replicas: 3 }, &[(F32, &[12])], "f32[4]"),
        (Op::AllReduce { reduction: Reduction::Sum }, &[(F32, &[3]), (F32, &[])], "(f32[3], f32[])"),
        (Op::AllGather { dimension: 0, replicas: 4 }, &[(F32, &[3]), (BF16, &[2])], "(f32[12], bf16[8])"),
    ];
    for (op, operands, expected) in table {
        assert_eq!(infer(op, operands).as_deref(), Ok(expected));
    }
}

#[test]
fn errors_name_requirement_and_operands() {
    let slice = Op::Slice { starts: vec![1], limits: vec![5], strides: vec![1] };
    let pad = Op::Pad { low: vec![1], high: vec![2], interior: vec![0] };
    let stretch = Op::Broadcast { dims: vec![4], broadcast_dimensions: vec![0] };
    let sum = Op::Reduce { reduction: Reduction::Sum, dimensions: vec![0] };
    let or = Op::Reduce { reduction: Reduction::Or, dimensions: vec![0] };
    let twice = Op::Reduce { reduction: Reduction::Sum, dimensions: vec![1, 1] };
    #[rustfmt::skip]
    let table: [Row; 31] = [
        (Op::Iota { shape: Shape::new(F32, [2]), dimension: 1 }, &[], "iota requires a dimension of its shape, got 1 of f32[2]"),
        (Op::Unary(UnaryOp::Negate), &[(Pred, &[2])], "negate requires a numeric operand, got pred[2]"),
        (Op::Unary(UnaryOp::Exp), &[(S32, &[2])], "exponential requires a floating-point operand, got s32[2]"),
        (Op::Unary(UnaryOp::Exp), &[(F32, &[2]), (F32, &[2])], "exponential requires 1 operands, got f32[2] and f32[2]"),
        (Op::Unary(UnaryOp::Not), &[(F32, &[2])], "not requires a pred or integer operand, got f32[2]"),
        (Op::BitcastConvert { dtype: U32 }, &[(BF16, &[2])], "bitcast-convert requires an operand whose elements have the size of the result's, got bf16[2]"),
        (Op::Binary(BinaryOp::Add), &[(F32, &[2]), (F32, &[])], "add requires operands of equal shape, got f32[2] and f32[]"),
        (Op::Binary(BinaryOp::Add), &[(F32, &[2]), (BF16, &[2])], "add requires operands of equal shape, got f32[2] and bf16[2]"),
        (Op::Binary(BinaryOp::Add), &[(Pred, &[2]), (Pred, &[2])], "add requires numeric operands, got pred[2] and pred[2]"),
        (Op::Binary(BinaryOp::Power), &[(S32, &[2]), (S32, &[2])], "power requires floating-point operands, got s32[2] and s32[2]"),
        (Op::Binary(BinaryOp::Xor), &[(F32, &[2]), (F32, &[2])], "xor requires pred or integer operands, got f32[2] and f32[2]"),
        (Op::Binary(BinaryOp::ShiftLeft), &[(Pred, &[2]), (Pred, &[2])], "shift-left requires integer operands, got pred[2] and pred[2]"),
        (Op::Select, &[(Pred, &[]), (F32, &[2]), (F32, &[2])], "select requires a pred and two operands of equal shape, got pred[] and f32[2] and f32[2]"),
        (Op::Reshape { dims: vec![5] }, &[(F32, &[2, 3])], "reshape requires as many elements as before, got f32[2,3] to f32[5]"),
        (Op::Transpose { permutation: vec![0, 0] }, &[(F32, &[2, 3])], "transpose requires a permutation of the dimensions, got [0, 0] of f32[2,3]"),
        (stretch, &[(F32, &[1])], "broadcast requires increasing dimensions of equal size, one for each of the operand's, got f32[1] to [4] by [0]"),
        (Op::Concatenate { dimension: 0 }, &[], "concatenate requires operands of one type that differ in the concatenated dimension only, got none"),
        (Op::Concatenate { dimension: 0 }, &[(F32, &[2, 3]), (F32, &[2, 4])], "concatenate requires operands of one type that differ in the concatenated dimension only, got f32[2,3] and f32[2,4] along 0"),
        (slice, &[(F32, &[4])], "slice requires start ≤ limit ≤ size and a stride for every dimension, got [1]..[5] by [1] of f32[4]"),
        (pad, &[(F32, &[4]), (F32, &[1])], "pad requires a scalar of the operand's type and padding for every dimension, got f32[4] and f32[1] with low [1], high [2], interior [0]"),
        (sum, &[(Pred, &[4])], "reduce requires a numeric operand for sum, max and min, a pred or integer operand for and and or, got Sum of pred[4]"),
        (or, &[(F32, &[4])], "reduce requires a numeric operand for sum, max and min, a pred or integer operand for and and or, got Or of f32[4]"),
        (twice, &[(F32, &[4, 4])], "reduce requires increasing dimensions of the operand, got [1, 1] of f32[4,4]"),
        (Op::DynamicSlice { sizes: vec![2] }, &[(F32, &[4]), (U32, &[])], "dynamic-slice requires starts of shape s32[], got u32[]"),
        (Op::DynamicSlice { sizes: vec![5] }, &[(F32, &[4]), (S32, &[])], "dynamic-slice requires a start and a fitting size for every dimension, got [5] with 1 starts of f32[4]"),
        (Op::DynamicUpdateSlice, &[(F32, &[4]), (F32, &[5]), (S32, &[])], "dynamic-update-slice requires an update that fits and a start for every dimension, got f32[4] and f32[5] and s32[]"),
        (Op::Gather(gather()), &[(F32, &[100, 8]), (F32, &[4, 6])], "gather requires s32 or u32 indices, got f32[100,8] at f32[4,6] with offset=[2], collapsed=[0], map=[0], vector=2, sizes=[1, 8]"),
        (Op::ScatterAdd(scatter()), &[(F32, &[9, 8]), (S32, &[4]), (F32, &[5, 8])], "scatter requires updates of the indices' and the window's size, got f32[5,8] into f32[9,8] at s32[4] with window=[1], inserted=[0], map=[0], vector=1"),
        (Op::GetTupleElement { index: 0 }, &[(F32, &[4])], "get-tuple-element requires a tuple of more than 0 elements, got f32[4]"),
        (Op::AllReduce { reduction: Reduction::Sum }, &[(F32, &[4]), (BF16, &[4])], "all-reduce requires operands of one type, got f32[4] and bf16[4]"),
        (Op::ReduceScatter { dimension: 0, replicas: 3 }, &[(F32, &[4])], "reduce-scatter requires a dimension that the replicas divide, got 0 of f32[4] over 3 replicas"),
    ];
    for (op, operands, expected) in table {
        assert_eq!(infer(op, operands).unwrap_err(), expected);
    }
}

#[test]
fn each_kind_of_dot_mismatch_has_its_own_error() {
    let operands = [(F32, &[2, 3, 4][..]), (F32, &[2, 4, 5][..])];
    let error = |op, operands: &[_]| infer(op, operands).unwrap_err().split(", got").next().map(str::to_string);
    for (op, expected) in [
        (dot((0, 0), (0, 1)), "dot requires batch and contracting dimensions that are distinct and exist"),
        (dot((0, 0), (3, 1)), "dot requires batch and contracting dimensions that are distinct and exist"),
        (dot((1, 0), (2, 1)), "dot requires batch dimensions of equal size"),
        (dot((0, 0), (1, 1)), "dot requires contracting dimensions of equal size"),
    ] {
        assert_eq!(error(op, &operands).as_deref(), Some(expected));
    }
    let mixed = error(dot((0, 0), (2, 1)), &[(BF16, &[2, 3, 4]), (F32, &[2, 4, 5])]);
    assert_eq!(mixed.as_deref(), Some("dot requires numeric operands of one type"));
}

#[test]
#[should_panic(expected = "while requires body results of the initial state's shapes (s32[]), got f32[]")]
fn while_body_must_keep_the_state_shapes() {
    let graph = Graph::new("g");
    let start = graph.scalar(0.0, S32);
    graph.while_loop("loop", &[start], |_, s| s[0].lt(s[0]), |_, s| vec![s[0].convert(F32)]);
}
