//! Cases of loops, barriers and collectives, and a layer with its gradients.

use std::sync::Arc;

use lambert::autodiff::gradients;
use lambert::graph::{Composite, Graph, Op, Reduction, Scan, ScanInputs, ScanOutputs};
use lambert::shape::{DType, HostTensor};

use super::{Case, any_bits, case, replicated, uniform, whole_numbers};

const REPLICAS: usize = 4;

pub fn cases() -> Vec<Case> {
    let cases = vec![
        loops(),
        nested_loops(),
        small_updates_in_a_loop(),
        scans(),
        scans_and_gradients(),
        composites(),
        moved_gradient(),
        barriers(),
        collectives(),
        collectives_of_other_types(),
    ];
    [cases, vec![collectives_of_several(), collective_in_a_loop(), layer_and_gradients()]]
        .concat()
        .into_iter()
        .map(|case| if case.name.contains('/') { case } else { case.golden() })
        .collect()
}

/// A loop over rows: a counter, a running sum over a dynamic slice, and an unchanged value.
fn loops() -> Case {
    let arguments = vec![uniform(41, DType::F32, &[5, 3], -2.0, 2.0), HostTensor::scalar(4i32)];
    case("while", arguments, |g, x| {
        let zero = g.scalar(0.0, DType::S32);
        let sum = g.scalar(0.0, DType::F32).broadcast(&[1, 3], &[]);
        g.while_loop(
            "rows",
            &[zero, x[1], x[0], sum],
            |_, state| state[0].lt(state[1]),
            |g, state| {
                let row = state[2].dynamic_slice(&[state[0], g.scalar(0.0, DType::S32)], &[1, 3]);
                vec![state[0] + 1.0, state[1], state[2], state[3] + row * row]
            },
        )
    })
}

/// Powers of two in u64 until they wrap to zero, and a loop with no iterations.
fn nested_loops() -> Case {
    case("while/nested", vec![HostTensor::scalar(3u64), HostTensor::scalar(0u64)], |g, x| {
        let outer = g.while_loop(
            "outer",
            &[x[0], x[1]],
            |g, state| state[0].gt(g.scalar(0.0, DType::U64)),
            |g, state| {
                let one = g.scalar(1.0, DType::U64);
                let inner = g.while_loop(
                    "inner",
                    &[one, g.scalar(0.0, DType::U64)],
                    |g, state| state[0].ne(g.scalar(0.0, DType::U64)),
                    |_, state| vec![state[0] + state[0], state[1] + 1.0],
                );
                vec![state[0] - 1.0, state[1] + inner[1]]
            },
        );
        let never = g.while_loop("never", &[x[0]], |_, state| state[0].ne(state[0]), |_, state| vec![state[0] + 1.0]);
        [outer, never].concat()
    })
}

/// A recurrence with a constant, in both directions, and one inside another.
fn scans() -> Case {
    let arguments = vec![
        uniform(45, DType::F32, &[3, 2], -2.0, 2.0),
        uniform(46, DType::F32, &[2], -1.0, 1.0),
        any_bits(47, DType::U32, &[3]),
    ];
    case("scan", arguments, |g, x| {
        let inputs = ScanInputs { constants: vec![x[1]], carried: vec![x[1], x[2]], stacked: vec![x[0], x[2]] };
        let forward = g.scan("forward", 3, &inputs, |ScanInputs { constants, carried, stacked }| {
            let state = carried[0] * constants[0] + stacked[0];
            let sum = carried[1] + stacked[1].broadcast_like(carried[1], &[]);
            ScanOutputs { carried: vec![state, sum], stacked: vec![carried[0], stacked[1]] }
        });
        let Op::Scan(scan) = g.node(g.node(forward.carried[0].id()).inputs[0]).op else { panic!("not a scan") };
        let reverse = g.add_scan(Scan { reverse: true, ..scan }, &inputs);
        let outer = ScanInputs { constants: Vec::new(), carried: vec![x[1]], stacked: vec![x[0]] };
        let nested = g.scan("outer", 3, &outer, |ScanInputs { carried, stacked, .. }| {
            let graph = carried[0].graph();
            let inner = ScanInputs { constants: Vec::new(), carried: carried.clone(), stacked: vec![stacked[0]] };
            let sums = graph.scan("inner", 2, &inner, |ScanInputs { carried, stacked, .. }| {
                let sum = carried[0] + stacked[0].broadcast_like(carried[0], &[]);
                ScanOutputs { carried: vec![sum], stacked: vec![sum] }
            });
            ScanOutputs { carried: sums.carried, stacked: sums.stacked }
        });
        [forward.all(), reverse.all(), nested.all()].concat()
    })
}

/// Gradients through a scan with bf16 weights, whose sums are f32. Whole numbers have exact sums, so that a device and the evaluator
/// round the same values to bf16.
fn scans_and_gradients() -> Case {
    let arguments =
        vec![whole_numbers(48, DType::F32, &[3, 4, 4], -2.0, 2.0), whole_numbers(49, DType::BF16, &[2, 4], -2.0, 2.0)];
    case("scan/gradients", arguments, |g, x| {
        let weights = x[0].convert(DType::BF16);
        let inputs = ScanInputs { constants: Vec::new(), carried: vec![x[1]], stacked: vec![weights] };
        let last = g.scan("layers", 3, &inputs, |ScanInputs { carried, stacked, .. }| {
            let y = carried[0].matmul(stacked[0], DType::F32) + carried[0].convert(DType::F32);
            ScanOutputs { carried: vec![y.convert(DType::BF16)], stacked: Vec::new() }
        });
        let loss = last.carried[0].convert(DType::F32).square().sum();
        [vec![loss], gradients(loss, &[x[0]])].concat()
    })
}

/// Composites without a kernel, with one and with two results.
fn composites() -> Case {
    let arguments = vec![uniform(51, DType::F32, &[3, 2], -2.0, 2.0), uniform(52, DType::F32, &[3, 2], -2.0, 2.0)];
    case("composite", arguments, |g, x| {
        let of = |count: usize| {
            let graph = Graph::new(format!("polynomials.{count}"));
            let [a, b] = ["a", "b"].map(|name| graph.parameter(name, x[0].shape()));
            let definition = Arc::new(graph.finish(&[a * b, a - b][..count]));
            g.composite(&Composite { definition, residuals: 0, derivative: None, kernel: None }, &[x[0], x[1]])
        };
        [of(1), of(2)].concat()
    })
}

/// A loop that writes one element of an array in each iteration, and reads it in the next.
fn small_updates_in_a_loop() -> Case {
    case("while/small-updates", vec![uniform(44, DType::F32, &[300], -2.0, 2.0)], |g, x| {
        g.while_loop(
            "elements",
            &[g.scalar(1.0, DType::S32), x[0]],
            |g, state| state[0].lt(g.scalar(300.0, DType::S32)),
            |_, state| {
                let before = state[1].dynamic_slice(&[state[0] - 1.0], &[1]);
                let here = state[1].dynamic_slice(&[state[0]], &[1]);
                vec![state[0] + 1.0, state[1].dynamic_update_slice(here + before * 0.5, &[state[0]])]
            },
        )
    })
}

/// Gradients of slices whose places differ, behind a reshape.
fn moved_gradient() -> Case {
    let arguments = vec![uniform(45, DType::F32, &[8, 16], -2.0, 2.0), HostTensor::scalar(1i32)];
    case("dynamic-slice/gradient", arguments, |g, x| {
        let zero = g.scalar(0.0, DType::S32);
        let rows = x[0].reshape(&[1, 8, 16]).reshape(&[8, 16]);
        let [first, second] = [zero, x[1]].map(|start| rows.dynamic_slice(&[start, zero], &[7, 16]));
        let gradient = gradients((first * second).sum(), &[x[0]])[0];
        vec![gradient, gradient.reshape(&[1, 8, 16])]
    })
}

fn barriers() -> Case {
    case("barrier", vec![uniform(42, DType::F32, &[2, 3], -2.0, 2.0)], |_, x| {
        let again = x[0].optimization_barrier();
        let late = x[0].optimization_barrier_after(again.tanh());
        vec![x[0].exp() + again.exp(), x[0].stop_gradient().tanh(), x[0].stop_gradient(), late.square()]
    })
}

/// Returns different arguments for each replica.
fn on_replicas(argument: impl Fn(u64) -> HostTensor) -> Vec<Vec<HostTensor>> {
    (0..REPLICAS as u64).map(|replica| vec![argument(replica)]).collect()
}

fn collectives() -> Case {
    replicated("collective", on_replicas(|r| uniform(43 + r, DType::F32, &[4, 3], -2.0, 2.0)), |g, x| {
        let x = x[0];
        vec![
            g.replica_id(),
            x.all_reduce(Reduction::Sum),
            x.all_reduce(Reduction::Max),
            x.all_reduce(Reduction::Min),
            x.all_gather(1, REPLICAS),
            x.reduce_scatter(0, REPLICAS),
            x.sum().all_reduce(Reduction::Sum),
        ]
    })
}

fn collectives_of_other_types() -> Case {
    let argument = |r| {
        vec![
            uniform(50 + r, DType::BF16, &[8], -2.0, 2.0),
            any_bits(60 + r, DType::U32, &[8]),
            any_bits(70 + r, DType::Pred, &[8]),
            any_bits(80 + r, DType::S32, &[8]),
        ]
    };
    replicated("collective/types", (0..REPLICAS as u64).map(argument).collect(), |_, x| {
        vec![
            x[0].all_reduce(Reduction::Sum),
            x[0].all_gather(0, REPLICAS),
            x[1].all_reduce(Reduction::Sum),
            x[1].reduce_scatter(0, REPLICAS),
            x[2].all_reduce(Reduction::And),
            x[2].all_reduce(Reduction::Or),
            x[3].all_reduce(Reduction::Max),
            x[3].all_gather(0, REPLICAS),
        ]
    })
}

/// Several arrays in one communication; the gathered ones have several types.
fn collectives_of_several() -> Case {
    let argument = |r| {
        vec![
            uniform(100 + r, DType::F32, &[4, 3], -2.0, 2.0),
            uniform(110 + r, DType::F32, &[8], -2.0, 2.0),
            uniform(120 + r, DType::BF16, &[2], -2.0, 2.0),
        ]
    };
    replicated("collective.several", (0..REPLICAS as u64).map(argument).collect(), |g, x| {
        let same_type = [x[0], x[1], x[0].sum()];
        [
            g.all_reduce(&same_type, Reduction::Sum),
            g.all_reduce(&same_type[..2], Reduction::Max),
            g.all_gather(x, 0, REPLICAS),
        ]
        .concat()
    })
}

fn collective_in_a_loop() -> Case {
    replicated("collective/loop", on_replicas(|r| uniform(90 + r, DType::F32, &[3], 0.5, 1.0)), |g, x| {
        g.while_loop(
            "halve",
            &[g.scalar(0.0, DType::S32), x[0]],
            |g, state| state[0].lt(g.scalar(3.0, DType::S32)),
            |_, state| vec![state[0] + 1.0, state[1].all_reduce(Reduction::Sum) * (0.5 / REPLICAS as f64)],
        )
    })
}

/// The loss and both gradients of a dense layer with tanh that the backward pass recomputes; the loss is its squared
/// output.
fn layer_and_gradients() -> Case {
    let arguments = vec![
        uniform(95, DType::F32, &[2, 3], -2.0, 2.0),
        uniform(96, DType::F32, &[3, 4], -1.0, 1.0),
        uniform(97, DType::F32, &[4], -1.0, 1.0),
    ];
    case("layer", arguments, |g, p| {
        let (x, weight, bias) = (p[0], p[1], p[2]);
        let y =
            g.scope("layer", || g.recomputed(|| (x.matmul(weight, DType::F32) + bias.broadcast(&[2, 4], &[1])).tanh()));
        let loss = g.scope("loss", || y.square().mean(&[0, 1]));
        [vec![loss], gradients(loss, &[weight, bias])].concat()
    })
}
