//! The interpreter loop: evaluates a computation node by node, on all replicas in lockstep.

use super::value::Value;
use super::{EvalError, arrays, elementwise, windows};
use crate::graph::{BinaryOp, Computation, Node, Op, Scan, ScanInputs, ValueShape};
use crate::shape::{DType, Shape};

/// Returns the outputs of `computation` for each replica; `replicas` are their ids.
pub(super) fn run(
    computation: &Computation,
    arguments: &[Vec<Value>],
    replicas: &[usize],
) -> Result<Vec<Vec<Value>>, EvalError> {
    let last_reader = last_readers(computation);
    // By node, then by replica: the elements of the tuple, or the one array.
    let mut results: Vec<Vec<Vec<Value>>> = Vec::with_capacity(computation.nodes.len());
    for (i, node) in computation.nodes.iter().enumerate() {
        // By replica: the operands, with tuples flattened.
        let operands: Vec<Vec<&Value>> = (0..replicas.len())
            .map(|r| node.inputs.iter().flat_map(|input| &results[input.index()][r]).collect())
            .collect();
        let result = match &node.op {
            Op::While { condition, body } => run_loop(condition, body, &operands, replicas)?,
            Op::Scan(scan) => run_scan(scan, &operands, replicas)?,
            Op::Composite(composite) => {
                let owned = |values: &Vec<&Value>| values.iter().map(|&value| value.clone()).collect();
                run(&composite.definition, &operands.iter().map(owned).collect::<Vec<Vec<Value>>>(), replicas)?
            }
            Op::AllReduce { .. } | Op::AllGather { .. } | Op::ReduceScatter { .. } => {
                let mut results: Vec<Vec<Value>> = vec![Vec::new(); replicas.len()];
                for operand in 0..node.inputs.len() {
                    let operands: Vec<&Value> = operands.iter().map(|operands| operands[operand]).collect();
                    let values = collective(computation, node, operand, &operands)?;
                    results.iter_mut().zip(values).for_each(|(elements, value)| elements.push(value));
                }
                results
            }
            Op::Parameter { index, .. } => arguments.iter().map(|values| vec![values[*index].clone()]).collect(),
            Op::ReplicaId => {
                let id = |&replica: &usize| vec![Value::from_f64(Shape::scalar(DType::U32), vec![replica as f64])];
                replicas.iter().map(id).collect()
            }
            _ => operands.iter().map(|operands| vec![apply(node, operands)]).collect(),
        };
        results.push(result);
        for input in node.inputs.iter().filter(|input| last_reader[input.index()] == i) {
            results[input.index()] = Vec::new();
        }
    }
    let outputs = |r: usize| computation.outputs.iter().map(|id| results[id.index()][r][0].clone()).collect();
    Ok((0..replicas.len()).map(outputs).collect())
}

/// Returns the last node that reads each node's value; past the end for outputs.
fn last_readers(computation: &Computation) -> Vec<usize> {
    let mut last: Vec<usize> = (0..computation.nodes.len()).collect();
    for (i, node) in computation.nodes.iter().enumerate() {
        node.inputs.iter().for_each(|input| last[input.index()] = i);
    }
    computation.outputs.iter().for_each(|output| last[output.index()] = usize::MAX);
    last
}

/// Applies one operation to the operands of one replica.
fn apply(node: &Node, operands: &[&Value]) -> Value {
    let shape = match &node.shape {
        ValueShape::Array(shape) => shape,
        ValueShape::Tuple(_) => unreachable!("{} requires the operands of all replicas", node.op.name()),
    };
    let x = |i: usize| operands[i];
    match &node.op {
        // ---- leaves ----
        Op::Constant(value) => Value::from(value),
        Op::Iota { shape, dimension } => arrays::iota(shape, *dimension),

        // ---- elementwise, one operand ----
        Op::Unary(op) => elementwise::unary(*op, x(0)),
        Op::Convert { dtype } => elementwise::convert(x(0), *dtype),
        Op::BitcastConvert { dtype } => x(0).bitcast(*dtype),

        // ---- elementwise, two operands ----
        Op::Binary(op) => elementwise::binary(*op, x(0), x(1)),

        // ---- compare and select ----
        Op::Compare { direction } => elementwise::compare(*direction, x(0), x(1)),
        Op::Select => elementwise::select(x(0), x(1), x(2)),

        // ---- shape ----
        Op::Reshape { dims } => x(0).with_dims(dims),
        Op::Transpose { permutation } => arrays::transpose(x(0), permutation),
        Op::Broadcast { dims, broadcast_dimensions } => arrays::broadcast(x(0), dims, broadcast_dimensions),
        Op::Concatenate { dimension } => arrays::concatenate(operands, *dimension, shape),
        Op::Slice { starts, strides, .. } => arrays::slice(x(0), starts, strides, &shape.dims),
        Op::Pad { low, interior, .. } => arrays::pad(x(0), x(1), low, interior, shape),

        // ---- reduce ----
        Op::Reduce { reduction, dimensions } => arrays::reduce(x(0), *reduction, dimensions, shape),

        // ---- dot ----
        Op::DotGeneral { dimensions, .. } => arrays::dot(x(0), x(1), dimensions, shape),

        // ---- windows ----
        Op::Convolution(convolution) => windows::convolution(x(0), x(1), convolution, shape),
        Op::ReduceWindow { reduction, window } => windows::reduce_window(x(0), *reduction, window, shape),
        Op::SelectAndScatter { window } => windows::select_and_scatter(x(0), x(1), window),
        Op::Reverse { dimensions } => windows::reverse(x(0), dimensions),

        // ---- index ----
        Op::DynamicSlice { sizes } => {
            let starts = arrays::clamp_starts(&operands[1..], &x(0).shape().dims, sizes);
            arrays::slice(x(0), &starts, &vec![1; sizes.len()], sizes)
        }
        Op::DynamicUpdateSlice => {
            let starts = arrays::clamp_starts(&operands[2..], &shape.dims, &x(1).shape().dims);
            let mut result = x(0).clone();
            arrays::update(&mut result, x(1), &starts, &vec![1; shape.rank()]);
            result
        }
        Op::Gather(dimensions) => arrays::gather(x(0), x(1), dimensions, shape),
        Op::ScatterAdd(dimensions) => arrays::scatter_add(x(0), x(1), x(2), dimensions),

        // ---- control ----
        Op::GetTupleElement { index } => x(*index).clone(),
        Op::OptimizationBarrier | Op::StopGradient => x(0).clone(),

        // ---- handled by `run` ----
        Op::Parameter { .. }
        | Op::While { .. }
        | Op::Scan(_)
        | Op::Composite(_)
        | Op::ReplicaId
        | Op::AllReduce { .. }
        | Op::AllGather { .. }
        | Op::ReduceScatter { .. } => unreachable!("{} requires the operands of all replicas", node.op.name()),
    }
}

/// Applies a collective: maps operand number `operand` of each replica to its result on each replica.
fn collective(
    computation: &Computation,
    node: &Node,
    operand: usize,
    operands: &[&Value],
) -> Result<Vec<Value>, EvalError> {
    let shape = match &node.shape {
        ValueShape::Array(shape) => shape,
        ValueShape::Tuple(shapes) => &shapes[operand],
    };
    let require = |replicas: usize| match operands.len() == replicas {
        true => Ok(()),
        false => Err(EvalError::ReplicaCount {
            computation: computation.name.clone(),
            operation: node.op.name(),
            required: replicas,
            found: operands.len(),
        }),
    };
    let combined = |op: BinaryOp| {
        let mut all = operands.iter();
        let first = all.next().map(|&first| first.clone());
        all.fold(first, |sum, next| sum.map(|sum| elementwise::binary(op, &sum, next)))
    };
    match &node.op {
        Op::AllReduce { reduction } => {
            let result = combined(elementwise::reducer(*reduction));
            Ok(result.into_iter().cycle().take(operands.len()).collect())
        }
        Op::AllGather { dimension, replicas } => {
            require(*replicas)?;
            Ok(vec![arrays::concatenate(operands, *dimension, shape); *replicas])
        }
        Op::ReduceScatter { dimension, replicas } => {
            require(*replicas)?;
            let sum = combined(BinaryOp::Add);
            let shard = |(r, sum): (usize, Value)| {
                let mut starts = vec![0; shape.rank()];
                starts[*dimension] = r * shape.dims[*dimension];
                arrays::slice(&sum, &starts, &vec![1; shape.rank()], &shape.dims)
            };
            Ok(sum.into_iter().cycle().take(*replicas).enumerate().map(shard).collect())
        }
        _ => unreachable!("{} is not a collective", node.op.name()),
    }
}

/// Runs `while condition(state) { state = body(state) }` on every replica.
fn run_loop(
    condition: &Computation,
    body: &Computation,
    initial: &[Vec<&Value>],
    replicas: &[usize],
) -> Result<Vec<Vec<Value>>, EvalError> {
    // Without collectives, replicas may iterate different numbers of times.
    if replicas.len() > 1 && !has_collectives(condition) && !has_collectives(body) {
        let run_one = |(state, &replica): (&Vec<&Value>, &usize)| {
            Ok(run_loop(condition, body, std::slice::from_ref(state), &[replica])?.swap_remove(0))
        };
        return initial.iter().zip(replicas).map(run_one).collect();
    }
    let mut state: Vec<Vec<Value>> = initial.iter().map(|s| s.iter().map(|&value| value.clone()).collect()).collect();
    for iteration in 0.. {
        let continues: Vec<bool> =
            run(condition, &state, replicas)?.iter().map(|outputs| outputs[0].integer() != 0).collect();
        if continues.iter().any(|&b| b != continues[0]) {
            return Err(EvalError::Divergence { body: body.name.clone(), iteration });
        }
        if !continues.first().is_some_and(|&b| b) {
            break;
        }
        state = run(body, &state, replicas)?;
    }
    Ok(state)
}

/// Runs the iterations of a scan on every replica.
fn run_scan(scan: &Scan, operands: &[Vec<&Value>], replicas: &[usize]) -> Result<Vec<Vec<Value>>, EvalError> {
    let operands: Vec<ScanInputs<&Value>> = operands.iter().map(|all| scan.inputs(all)).collect();
    let owned = |values: &[&Value]| values.iter().map(|&value| value.clone()).collect::<Vec<Value>>();
    let mut carried: Vec<Vec<Value>> = operands.iter().map(|inputs| owned(&inputs.carried)).collect();
    // By replica, output and slice.
    let outputs = scan.body.outputs.len() - scan.carried;
    let mut slices: Vec<Vec<Vec<Value>>> = vec![vec![Vec::new(); outputs]; replicas.len()];
    for iteration in 0..scan.length {
        let of_replica = |(inputs, carried): (&ScanInputs<&Value>, Vec<Value>)| {
            let stacked = inputs.stacked.iter().map(|value| {
                let dims = [&[1], &value.shape().dims[1..]].concat();
                let starts = [vec![scan.slice(iteration)], vec![0; dims.len() - 1]].concat();
                arrays::slice(value, &starts, &vec![1; dims.len()], &dims).with_dims(&dims[1..])
            });
            ScanInputs { constants: owned(&inputs.constants), carried, stacked: stacked.collect() }.all()
        };
        let arguments: Vec<Vec<Value>> = operands.iter().zip(carried).map(of_replica).collect();
        let results = run(&scan.body, &arguments, replicas)?.into_iter().map(|all| scan.outputs(&all));
        let (next, written): (Vec<_>, Vec<_>) = results.map(|results| (results.carried, results.stacked)).unzip();
        carried = next;
        for (slices, written) in slices.iter_mut().zip(written) {
            slices.iter_mut().zip(written).for_each(|(slices, slice)| slices.push(slice));
        }
    }
    let stacked = |mut slices: Vec<Value>| {
        if scan.reverse {
            slices.reverse();
        }
        let shape = slices[0].shape().clone();
        let slices: Vec<Value> = slices.iter().map(|s| s.with_dims(&[&[1], &shape.dims[..]].concat())).collect();
        let shape = Shape::new(shape.dtype, [&[scan.length], &shape.dims[..]].concat());
        arrays::concatenate(&slices.iter().collect::<Vec<_>>(), 0, &shape)
    };
    let results = carried.into_iter().zip(slices);
    Ok(results.map(|(carried, slices)| carried.into_iter().chain(slices.into_iter().map(stacked)).collect()).collect())
}

fn has_collectives(computation: &Computation) -> bool {
    computation.nodes.iter().any(|node| match &node.op {
        Op::AllReduce { .. } | Op::AllGather { .. } | Op::ReduceScatter { .. } => true,
        Op::While { condition, body } => has_collectives(condition) || has_collectives(body),
        Op::Scan(scan) => has_collectives(&scan.body),
        Op::Composite(composite) => has_collectives(&composite.definition),
        _ => false,
    })
}
