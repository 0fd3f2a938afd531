//! Regions of `Graph::recomputed` give the same numbers, without keeping forward values for the backward pass.
//!
//! The formula resembles an encoder with dropout: residual layers, each a region, with a mask of integer random bits in a
//! region of its own, which then belongs to the region of the layer.

use lambert::autodiff::gradients;
use lambert::eval::{Value, evaluate_values};
use lambert::graph::{Graph, NodeId, Op, Tensor};
use lambert::rng::Key;
use lambert::shape::{DType, Shape};

/// The regions under `recomputed`.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Regions {
    None,
    Masks,
    LayersAndMasks,
}

const LAYERS: usize = 3;

/// Returns the loss and its parameters: a seed, the input, and one weight for each layer.
fn encoder(graph: &Graph, regions: Regions) -> (Tensor<'_>, Vec<Tensor<'_>>) {
    let seed = graph.parameter("seed", Shape::scalar(DType::U32));
    let input = graph.parameter("input", Shape::new(DType::F32, [6, 4]));
    let weights: Vec<Tensor> =
        (0..LAYERS).map(|i| graph.parameter(format!("w{i}"), Shape::new(DType::F32, [4, 4]))).collect();
    let mut x = input;
    for (i, &w) in weights.iter().enumerate() {
        let layer = || {
            let mask = || {
                let indices = Shape::new(DType::U32, x.dims());
                let counter = graph.iota(indices.clone(), 0) * 4.0 + graph.iota(indices, 1);
                let key = (seed + i as f64).broadcast_like(counter, &[]);
                let bits = (counter.xor(key) * 2_654_435_761.0).xor(key);
                bits.ge(bits.filled(0.25 * 2f64.powi(32)))
            };
            let kept = if regions == Regions::None { mask() } else { graph.recomputed(mask) };
            let hidden = x.matmul(w, DType::F32).tanh();
            x + kept.select(hidden / 0.75, hidden.filled(0.0))
        };
        x = if regions == Regions::LayersAndMasks { graph.recomputed(layer) } else { layer() };
    }
    (x.square().sum(), [&[seed, input], &weights[..]].concat())
}

fn loss_and_gradients(regions: Regions) -> Vec<Value> {
    let graph = Graph::new("encoder");
    let (loss, parameters) = encoder(&graph, regions);
    let found = gradients(loss, &parameters[1..]);
    let mut stream = Key::new(5).stream();
    let mut draw = |t: &Tensor| {
        let shape = t.shape();
        let values = (0..shape.elements()).map(|_| stream.normal()).collect();
        Value::from_f64(shape, values)
    };
    let mut values = vec![Value::from_f64(Shape::scalar(DType::U32), vec![77.0])];
    values.extend(parameters[1..].iter().map(&mut draw));
    evaluate_values(&graph.finish(&[&[loss], &found[..]].concat()), &values).unwrap()
}

#[test]
fn losses_and_gradients_are_bit_identical() {
    let plain = loss_and_gradients(Regions::None);
    assert_eq!(plain, loss_and_gradients(Regions::Masks));
    assert_eq!(plain, loss_and_gradients(Regions::LayersAndMasks));
}

/// Returns the operations that the backward pass adds, and the forward operations that they read outside of barriers.
fn backward(regions: Regions) -> (Vec<Op>, Vec<Op>) {
    let graph = Graph::new("encoder");
    let (loss, parameters) = encoder(&graph, regions);
    let forward = graph.len();
    gradients(loss, &parameters[1..]);
    // Values computed from constants alone need not be kept.
    fn varies(graph: &Graph, id: NodeId) -> bool {
        let node = graph.node(id);
        matches!(node.op, Op::Parameter { .. }) || node.inputs.iter().any(|&input| varies(graph, input))
    }
    let (mut added, mut kept) = (Vec::new(), Vec::new());
    for id in (forward..graph.len()).map(|i| NodeId(i as u32)) {
        let node = graph.node(id);
        if node.op != Op::OptimizationBarrier {
            let read = node.inputs.iter().filter(|input| input.index() < forward && varies(&graph, **input));
            kept.extend(read.map(|&input| graph.node(input).op));
        }
        added.push(node.op);
    }
    (added, kept)
}

fn count(ops: &[Op], name: &str) -> usize {
    ops.iter().filter(|op| op.name() == name).count()
}

#[test]
fn without_regions_all_values_are_kept_and_none_recomputed() {
    let (added, kept) = backward(Regions::None);
    assert_eq!([count(&added, "tanh"), count(&added, "xor"), count(&added, "opt-barrier")], [0, 0, 0]);
    assert!(count(&kept, "compare") > 0 && count(&kept, "tanh") > 0);
}

#[test]
fn masks_are_recomputed_from_the_seed() {
    let (added, kept) = backward(Regions::Masks);
    // One barrier for each region, on the seed.
    let recomputed =
        [count(&added, "compare"), count(&added, "xor"), count(&added, "opt-barrier"), count(&added, "tanh")];
    assert_eq!(recomputed, [LAYERS, 2 * LAYERS, LAYERS, 0]);
    assert_eq!([count(&kept, "compare"), count(&kept, "xor")], [0, 0]);
}

#[test]
fn layers_are_recomputed_from_their_inputs() {
    let (added, kept) = backward(Regions::LayersAndMasks);
    // Three barriers for each region, on the seed, x and the weight.
    assert_eq!([count(&added, "tanh"), count(&added, "opt-barrier")], [LAYERS, 3 * LAYERS]);
    // The square of the loss is outside all regions but reads the output of the last layer, which is recomputed too.
    assert_eq!(kept, []);
}

/// Otherwise XLA could recompute the values of all regions right after the forward pass and hold them all.
#[test]
fn recomputation_waits_for_the_cotangent() {
    let graph = Graph::new("encoder");
    let (loss, parameters) = encoder(&graph, Regions::LayersAndMasks);
    let forward = graph.len();
    gradients(loss, &parameters[1..]);
    let ids = |range: std::ops::Range<usize>| range.map(|i| NodeId(i as u32));
    let barriers: Vec<_> =
        ids(forward..graph.len()).map(|id| graph.node(id)).filter(|node| node.op == Op::OptimizationBarrier).collect();
    assert_eq!(barriers.len(), 3 * LAYERS);
    for barrier in &barriers {
        let [value, cotangent] = barrier.inputs[..] else { panic!("a barrier of {:?}", barrier.inputs) };
        assert!(value.index() < forward && cotangent.index() >= forward);
    }
    // All inputs of a region wait for the same cotangent, and different regions for different cotangents.
    let mut awaited: Vec<NodeId> = barriers.iter().map(|barrier| barrier.inputs[1]).collect();
    awaited.dedup();
    assert_eq!(awaited.len(), LAYERS);
}
