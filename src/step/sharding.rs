//! Sharding of one tensor over all replicas: its elements in row-major order, padded with zeros to a multiple of the number
//! of replicas, are split into equal shards.
//!
//! ```text
//! f32[3,2] in 4 shards     a b c d e f 0 0   →   [a b] [c d] [e f] [0 0]
//! ```
//! The flat elements are split and not a dimension, because 2,048 replicas divide no dimension of BERT. The padding stays
//! zero: a zero gradient changes neither a zero weight nor a zero moment. (This is weight-update sharding, arXiv 2004.13336;
//! stage 1 of ZeRO, arXiv 1910.02054.)

use crate::graph::Tensor;
use crate::shape::{HostTensor, Shape};

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

    /// Appends one reduce-scatter: the sum of each of `tensors` over the replicas, of which every replica gets its shard.
    pub fn reduce_scatter<'g>(self, tensors: &[Tensor<'g>]) -> Vec<Tensor<'g>> {
        let Some(first) = tensors.first() else { return Vec::new() };
        // One shard a row, all tensors side by side.
        let parts = |&tensor: &Tensor<'g>| {
            let row = self.row(tensor);
            row.reshape(&[self.count, row.dims()[0] / self.count])
        };
        let parts: Vec<Tensor<'g>> = tensors.iter().map(parts).collect();
        let own = first.graph().concatenate(&parts, 1).reduce_scatter(0, self.count);
        let mut start = 0;
        let part = |parts: &Tensor<'g>| {
            let length = parts.dims()[1];
            let part = own.slice_in(1, start, start + length).reshape(&[length]);
            start += length;
            part
        };
        parts.iter().map(part).collect()
    }

    /// Appends one all-gather: tensors with the dimensions of `shapes` from the `shards` of the replicas.
    pub fn all_gather<'g>(self, shards: &[Tensor<'g>], shapes: &[Shape]) -> Vec<Tensor<'g>> {
        let Some(first) = shards.first() else { return Vec::new() };
        let rows = first.graph().all_gather(shards, 0, self.count);
        rows.into_iter().zip(shapes).map(|(row, shape)| self.unsharded(row, shape)).collect()
    }

    /// Appends the elements of `tensor` with their padding, in one dimension.
    fn row(self, tensor: Tensor<'_>) -> Tensor<'_> {
        let shape = tensor.shape();
        let row = tensor.reshape(&[shape.elements()]);
        match self.padding(&shape) {
            0 => row,
            padding => row.pad(row.graph().scalar(0.0, shape.dtype), &[0], &[padding], &[0]),
        }
    }

    /// Appends the tensor of shape `shape` whose padded elements are `row`.
    fn unsharded<'g>(self, row: Tensor<'g>, shape: &Shape) -> Tensor<'g> {
        let row = match self.padding(shape) {
            0 => row,
            _ => row.slice_in(0, 0, shape.elements()),
        };
        row.reshape(&shape.dims)
    }

    /// Returns the number of padding elements of a tensor of shape `unsharded`.
    fn padding(self, unsharded: &Shape) -> usize {
        self.shard_shape(unsharded).elements() * self.count - unsharded.elements()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::{Value, evaluate_replicas};
    use crate::graph::Graph;
    use crate::shape::DType;

    #[test]
    fn host_and_graph_split_a_tensor_alike_and_gather_restores_it() {
        for (dims, count) in [(vec![3, 2], 4), (vec![3, 2], 3), (vec![5], 8), (vec![2, 2, 2], 1)] {
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
}
