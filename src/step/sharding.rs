//! Sharding of one tensor over all replicas: its elements in row-major order, padded with zeros to a multiple of the number
//! of replicas, are split into equal shards.
//!
//! ```text
//! f32[3,2] in 4 shards     a b c d e f 0 0   →   [a b] [c d] [e f] [0 0]
//! ```
//! The flat elements are split and not a dimension, because 2,048 replicas divide no dimension of BERT. The padding stays
//! zero: a zero gradient changes neither a zero weight nor a zero moment. (This is weight-update sharding, arXiv 2004.13336;
//! stage 1 of ZeRO, arXiv 1910.02054.)
//!
//! Shards are communicated together, in rows of 128 elements. libtpu 0.0.52 keeps all-gathers of whole rows, except small ones
//! over hundreds of devices, and replaces those of shards that end within a row by all-reduces of padded arrays, which send twice
//! the bytes. On slices that are one ring (2x4, 4x8) it keeps a reduce-scatter of any number of rows, but may pad the shards and
//! then move them into place with permutes; multiples of a tile (16 rows) need fewer of them. On square slices of more than
//! four devices it replaces every reduce-scatter by an all-reduce, whatever its shape. `lambert plan` prints the collectives of
//! the compiled program.

use crate::graph::Tensor;
use crate::shape::{HostTensor, Shape};

/// Elements of a row in which shards are communicated: the number of lanes of a TPU's vector register.
const LANES: usize = 128;
/// The rows of a shard in a reduce-scatter are padded to a multiple of this number. It does not appear in the state or in
/// checkpoints.
const TILE_ROWS: usize = 16;

/// The number of shards of a tensor: one for each replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shards {
    /// The number of shards.
    pub count: usize,
}

impl Shards {
    /// Returns the shape of a shard of a tensor of shape `unsharded`.
    pub fn shard_shape(self, unsharded: &Shape) -> Shape {
        Shape::new(unsharded.dtype, [unsharded.elements().div_ceil(self.count)])
    }

    /// Returns shard number `index` of `unsharded`.
    pub fn shard(self, unsharded: &HostTensor, index: usize) -> HostTensor {
        let shape = self.shard_shape(unsharded.shape());
        let (start, end) = (index * shape.bytes(), (index + 1) * shape.bytes());
        let bytes = unsharded.bytes();
        let mut shard = bytes[start.min(bytes.len())..end.min(bytes.len())].to_vec();
        shard.resize(shape.bytes(), 0);
        HostTensor::from_bytes(shape, shard).expect("resized to the shape's bytes")
    }

    /// Appends one reduce-scatter: the sum of each of `tensors`, of one element type, over the replicas, of which every replica
    /// gets its shard.
    pub fn reduce_scatter<'g>(self, tensors: &[Tensor<'g>]) -> Vec<Tensor<'g>> {
        let by_replica = |&tensor: &Tensor<'g>| {
            let elements = self.padded(tensor);
            elements.reshape(&[self.count, elements.dims()[0] / self.count])
        };
        let shards: Vec<Tensor<'g>> = tensors.iter().map(by_replica).collect();
        let sums = together(&shards, |all| in_whole_tiles(all).reduce_scatter(0, self.count));
        sums.into_iter().map(|sum| sum.reshape(&sum.dims()[1..])).collect()
    }

    /// Appends one all-gather for each element type: tensors with the dimensions of `shapes` from the `shards` of the replicas.
    pub fn all_gather<'g>(self, shards: &[Tensor<'g>], shapes: &[Shape]) -> Vec<Tensor<'g>> {
        let mut order: Vec<usize> = (0..shards.len()).collect();
        order.sort_by_key(|&i| shards[i].dtype());
        let of_one_type = |members: &[usize]| -> Vec<(usize, Tensor<'g>)> {
            let own: Vec<Tensor<'g>> = members.iter().map(|&i| shards[i].reshape(&[1, shards[i].dims()[0]])).collect();
            let all = together(&own, |own| own.all_gather(0, self.count));
            members.iter().zip(all).map(|(&i, all)| (i, self.unsharded(all, &shapes[i]))).collect()
        };
        in_order(order.chunk_by(|&i, &j| shards[i].dtype() == shards[j].dtype()).flat_map(of_one_type))
    }

    /// Appends the elements of `tensor` with their padding, in one dimension.
    fn padded(self, tensor: Tensor<'_>) -> Tensor<'_> {
        let shape = tensor.shape();
        let length = self.shard_shape(&shape).elements() * self.count;
        padded_to(tensor.reshape(&[shape.elements()]), 0, length)
    }

    /// Appends the tensor with the dimensions of `shape` whose shards are the rows of `shards`.
    fn unsharded<'g>(self, shards: Tensor<'g>, shape: &Shape) -> Tensor<'g> {
        let padded = shards.reshape(&[shards.shape().elements()]);
        padded.slice_in(0, 0, shape.elements()).reshape(&shape.dims)
    }
}

/// Appends one communication of all `parts`, [n, length] of one element type, and returns its result for each of them, [m,
/// length]. `communicate` maps the joined parts, [n, rows, [`LANES`]], to [m, rows, [`LANES`]]; it may add rows at the end.
///
/// A part of whole rows is joined as it is, so that XLA:TPU moves no element to another lane; the others share the last rows.
fn together<'g>(parts: &[Tensor<'g>], communicate: impl FnOnce(Tensor<'g>) -> Tensor<'g>) -> Vec<Tensor<'g>> {
    let Some(first) = parts.first() else { return Vec::new() };
    let blocks = Block::of(parts);
    let joined: Vec<Tensor<'g>> = blocks.iter().map(|block| block.join(parts)).collect();
    let result = communicate(first.graph().concatenate(&joined, 1));
    let mut start = 0;
    let of_blocks = blocks.iter().flat_map(|block| {
        let rows = start..start + block.rows();
        start = rows.end;
        block.split(result.slice_in(1, rows.start, rows.end))
    });
    in_order(of_blocks)
}

/// Some of the parts, side by side in whole rows.
struct Block {
    /// The numbers of the parts.
    members: Vec<usize>,
    /// The length of each.
    lengths: Vec<usize>,
}

impl Block {
    /// Divides `parts`: each part of whole rows is a block, and the others are one.
    fn of(parts: &[Tensor<'_>]) -> Vec<Block> {
        let length = |i: usize| parts[i].dims()[1];
        let (whole, others): (Vec<usize>, Vec<usize>) =
            (0..parts.len()).partition(|&i| length(i).is_multiple_of(LANES));
        let others = Some(others).filter(|others| !others.is_empty());
        let members = whole.into_iter().map(|i| vec![i]).chain(others);
        members.map(|members| Block { lengths: members.iter().map(|&i| length(i)).collect(), members }).collect()
    }

    fn rows(&self) -> usize {
        self.lengths.iter().sum::<usize>().div_ceil(LANES)
    }

    /// Appends the members, of `[n, length]` each, as `[n, rows, LANES]`.
    fn join<'g>(&self, parts: &[Tensor<'g>]) -> Tensor<'g> {
        let members: Vec<Tensor<'g>> = self.members.iter().map(|&i| parts[i]).collect();
        let elements = members[0].graph().concatenate(&members, 1);
        padded_to(elements, 1, self.rows() * LANES).reshape(&[elements.dims()[0], self.rows(), LANES])
    }

    /// Appends the parts `[m, length]` of `[m, rows, LANES]`, with their numbers.
    fn split<'g>(&self, joined: Tensor<'g>) -> Vec<(usize, Tensor<'g>)> {
        let elements = joined.reshape(&[joined.dims()[0], self.rows() * LANES]);
        let mut start = 0;
        let part = |(&i, &length): (&usize, &usize)| {
            start += length;
            (i, elements.slice_in(1, start - length, start))
        };
        self.members.iter().zip(&self.lengths).map(part).collect()
    }
}

/// Returns the tensors in the order of their numbers.
fn in_order<'g>(numbered: impl Iterator<Item = (usize, Tensor<'g>)>) -> Vec<Tensor<'g>> {
    let mut numbered: Vec<(usize, Tensor<'g>)> = numbered.collect();
    numbered.sort_by_key(|&(number, _)| number);
    numbered.into_iter().map(|(_, tensor)| tensor).collect()
}

/// Appends the joined shards [n, rows, [`LANES`]] with rows of zeros up to a multiple of [`TILE_ROWS`].
fn in_whole_tiles(joined: Tensor<'_>) -> Tensor<'_> {
    padded_to(joined, 1, joined.dims()[1].next_multiple_of(TILE_ROWS))
}

/// Appends `x` with zeros at the end of `dimension`, which then has `length` elements.
fn padded_to(x: Tensor<'_>, dimension: usize, length: usize) -> Tensor<'_> {
    let dims = x.dims();
    let (none, mut high) = (vec![0; dims.len()], vec![0; dims.len()]);
    high[dimension] = length - dims[dimension];
    match high[dimension] {
        0 => x,
        _ => x.pad(x.graph().scalar(0.0, x.dtype()), &none, &high, &none),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::{Value, evaluate_replicas};
    use crate::graph::{Graph, Op};
    use crate::shape::DType;

    #[test]
    fn host_and_graph_split_a_tensor_alike_and_gather_restores_it() {
        let cases =
            [(vec![3, 2], 4), (vec![3, 2], 3), (vec![5], 8), (vec![2, 2, 2], 1), (vec![4, 128], 2), (vec![300], 2)];
        for (dims, count) in cases {
            let shards = Shards { count };
            let shape = Shape::new(DType::F32, dims);
            let numbers: Vec<f64> = (1..=shape.elements()).map(|n| n as f64).collect();
            let whole = HostTensor::from_f64(shape.clone(), &numbers);
            let parts: Vec<HostTensor> = (0..count).map(|index| shards.shard(&whole, index)).collect();
            assert!(parts.iter().all(|part| *part.shape() == shards.shard_shape(&shape)));

            let graph = Graph::new("shards");
            let x = graph.parameter("x", shape.clone());
            let summed = shards.reduce_scatter(&[x, x])[1];
            let gathered = shards.all_gather(&[summed], std::slice::from_ref(&shape))[0];
            let arguments = vec![vec![Value::from(&whole)]; count];
            let outputs = evaluate_replicas(&graph.finish(&[summed, gathered]), &arguments).unwrap();
            for (part, outputs) in parts.iter().zip(&outputs) {
                let times = |tensor: &HostTensor| tensor.to_f64().iter().map(|x| count as f64 * x).collect::<Vec<_>>();
                assert_eq!(outputs[0].to_f64(), times(part), "{shape} in {count}");
                assert_eq!((outputs[1].shape(), outputs[1].to_f64()), (&shape, times(&whole)));
            }
        }
    }

    #[test]
    fn tensors_are_communicated_together_in_whole_rows() {
        // In two shards, the first and the last fill whole rows; the others share rows with tensors of their type.
        let dims: [&[usize]; 5] = [&[2, 128], &[7, 3], &[130], &[9], &[512]];
        let dtypes = [DType::F32, DType::BF16, DType::F32, DType::F32, DType::BF16];
        let (count, shards) = (2, Shards { count: 2 });
        let shapes: Vec<Shape> = dims.iter().map(|&dims| Shape::new(DType::F32, dims)).collect();
        let whole: Vec<HostTensor> = shapes
            .iter()
            .enumerate()
            .map(|(i, shape)| {
                let numbers: Vec<f64> = (0..shape.elements()).map(|n| (n % 64 + i) as f64).collect();
                HostTensor::from_f64(shape.clone(), &numbers)
            })
            .collect();

        let graph = Graph::new("shards");
        let tensors: Vec<Tensor> = shapes.iter().map(|shape| graph.parameter("x", shape.clone())).collect();
        let sums = shards.reduce_scatter(&tensors);
        let read: Vec<Tensor> = sums.iter().zip(dtypes).map(|(sum, dtype)| sum.convert(dtype)).collect();
        let gathered = shards.all_gather(&read, &shapes);
        let computation = graph.finish(&[sums, gathered].concat());
        let communicated: Vec<String> = computation
            .nodes
            .iter()
            .filter(|node| matches!(node.op, Op::ReduceScatter { .. } | Op::AllGather { .. }))
            .map(|node| format!("{} {}", node.op.name(), node.shape))
            .collect();
        // 128 + 256, 11 + 65 + 5 in a row of 128, and 12 rows of padding; by type, 128 with 65 + 5, and 256 with 11.
        let expected = ["reduce-scatter f32[1,16,128]", "all-gather bf16[2,3,128]", "all-gather f32[2,2,128]"];
        assert_eq!(communicated, expected);

        let arguments = vec![whole.iter().map(Value::from).collect(); count];
        let outputs = evaluate_replicas(&computation, &arguments).unwrap();
        for (replica, outputs) in outputs.iter().enumerate() {
            let (sums, gathered) = outputs.split_at(whole.len());
            for (tensor, (sum, gathered)) in whole.iter().zip(sums.iter().zip(gathered)) {
                let twice = |tensor: &HostTensor| tensor.to_f64().iter().map(|x| 2.0 * x).collect::<Vec<_>>();
                assert_eq!(sum.to_f64(), twice(&shards.shard(tensor, replica)));
                assert_eq!(gathered.to_f64(), twice(tensor));
            }
        }
    }
}
