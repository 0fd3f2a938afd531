//! How one tensor is held in equal parts by all replicas: laid out as one row, filled up with zeros until the number of
//! parts divides it, and cut.
//!
//! ```text
//! f32[3,2] in 4 parts      a b c d e f 0 0   →   [a b] [c d] [e f] [0 0]
//! ```
//! A row and not a dimension of its own is cut, because 2,048 replicas divide no dimension of BERT. Zeros stay zeros: a
//! gradient that is zero moves neither a weight nor a moment that is. (Cutting optimizer and weights this way is
//! *weight-update sharding*, arXiv 2004.13336; ZeRO calls its stage 1 so, arXiv 1910.02054.)

use crate::graph::Tensor;
use crate::shape::{HostTensor, Shape};

/// Into how many parts tensors are cut: one for each replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shards {
    pub count: usize,
}

impl Shards {
    /// The shape of a part of a tensor of shape `whole`.
    pub fn shard_shape(self, whole: &Shape) -> Shape {
        Shape::new(whole.dtype, [whole.elements().div_ceil(self.count)])
    }

    /// Part number `index` of `whole`.
    pub fn shard(self, whole: &HostTensor, index: usize) -> HostTensor {
        let shape = self.shard_shape(whole.shape());
        let (start, end) = (index * shape.bytes(), (index + 1) * shape.bytes());
        let bytes = whole.bytes();
        let mut part = bytes[start.min(bytes.len())..end.min(bytes.len())].to_vec();
        part.resize(shape.bytes(), 0);
        HostTensor::from_bytes(shape, part).expect("resized to the shape's bytes")
    }

    /// Sums each of `tensors` over the replicas and leaves every replica its part of the sum, in one exchange.
    pub fn reduce_scatter<'g>(self, tensors: &[Tensor<'g>]) -> Vec<Tensor<'g>> {
        let Some(first) = tensors.first() else { return Vec::new() };
        // A part a row, all tensors side by side.
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

    /// Puts tensors of `shapes` (of which only the dimensions count) together from the replicas' `parts`, in one
    /// exchange.
    pub fn all_gather<'g>(self, parts: &[Tensor<'g>], shapes: &[Shape]) -> Vec<Tensor<'g>> {
        let Some(first) = parts.first() else { return Vec::new() };
        let rows = first.graph().all_gather(parts, 0, self.count);
        rows.into_iter().zip(shapes).map(|(row, shape)| self.whole(row, shape)).collect()
    }

    /// All parts of `tensor`, one after the other.
    fn row(self, tensor: Tensor<'_>) -> Tensor<'_> {
        let shape = tensor.shape();
        let row = tensor.reshape(&[shape.elements()]);
        match self.padding(&shape) {
            0 => row,
            padding => row.pad(row.graph().scalar(0.0, shape.dtype), &[0], &[padding], &[0]),
        }
    }

    /// The tensor of shape `shape` whose parts are in `row`.
    fn whole<'g>(self, row: Tensor<'g>, shape: &Shape) -> Tensor<'g> {
        let row = match self.padding(shape) {
            0 => row,
            _ => row.slice_in(0, 0, shape.elements()),
        };
        row.reshape(&shape.dims)
    }

    /// Elements of all parts that the tensor of shape `whole` does not have.
    fn padding(self, whole: &Shape) -> usize {
        self.shard_shape(whole).elements() * self.count - whole.elements()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::{Value, evaluate_replicas};
    use crate::graph::Graph;
    use crate::shape::DType;

    #[test]
    fn parts_of_the_host_are_those_of_the_graph_and_make_up_the_whole() {
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
