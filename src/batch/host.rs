//! A batch in host memory.

use std::sync::Arc;

use super::BatchSpec;
use crate::shape::HostTensor;

/// The rows of a batch in host memory, all tensors of a [`BatchSpec`], and the numbers that rates are computed from.
#[derive(Clone, Debug, PartialEq)]
pub struct HostBatch {
    /// Number of rows.
    pub rows: usize,
    /// Names and values, in the order of the specification.
    pub tensors: Vec<(&'static str, Arc<HostTensor>)>,
    /// Positions of a row, padding included: the sequence length. 1 for tasks without sequences.
    pub row_length: usize,
    /// Positions of all rows that hold a token.
    pub tokens: usize,
    /// Rows of a replica up to the last one that holds a token, on the replica of this host that has most of them.
    pub occupied_rows: usize,
    /// Rows at the end of each replica's share that never hold an example: the next replica is numbered without them.
    pub spare_rows: usize,
}

impl HostBatch {
    /// Builds a batch of `rows` rows in which every element is zero: padding.
    pub fn zeros(spec: &BatchSpec, rows: usize, row_length: usize) -> HostBatch {
        let tensors = spec.shapes(rows).map(|(name, shape)| (name, Arc::new(HostTensor::zeros(shape)))).collect();
        HostBatch { rows, tensors, row_length, tokens: 0, occupied_rows: 0, spare_rows: 0 }
    }

    /// Returns the tensor `name`, if the batch has it.
    pub fn tensor(&self, name: &str) -> Option<&Arc<HostTensor>> {
        self.tensors.iter().find(|(own, _)| *own == name).map(|(_, tensor)| tensor)
    }

    /// Appends rows of zeros (no token, no label) until there are `rows` rows. Such rows carry no weight in any loss.
    pub fn pad_to(&mut self, rows: usize) {
        if rows <= self.rows {
            return;
        }
        for (_, tensor) in &mut self.tensors {
            *tensor = Arc::new(tensor.rows(0, rows));
        }
        self.rows = rows;
    }

    /// Appends rows of zeros to the share of each of `replicas` replicas until it has `rows` rows: a batch of fewer examples than the
    /// program has rows for.
    pub fn pad_shares_to(&mut self, replicas: usize, rows: usize) {
        let share = self.rows / replicas;
        if share < rows {
            for (_, tensor) in &mut self.tensors {
                let shares = (0..replicas).map(|replica| tensor.rows(replica * share, share).rows(0, rows));
                *tensor = Arc::new(HostTensor::concatenate(shares));
            }
            (self.rows, self.spare_rows) = (replicas * rows, rows - share);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::TensorSpec;
    use crate::shape::DType;

    #[test]
    fn padding_appends_rows_of_zeros() {
        let spec =
            BatchSpec { tensors: vec![TensorSpec::new("x", DType::S32, [2]), TensorSpec::new("y", DType::F32, [])] };
        let mut batch = HostBatch::zeros(&spec, 1, 2);
        batch.tensors[0].1 = Arc::new(HostTensor::new([1, 2], &[3i32, 4]));
        batch.pad_to(2);
        assert_eq!(batch.rows, 2);
        assert_eq!(**batch.tensor("x").unwrap(), HostTensor::new([2, 2], &[3i32, 4, 0, 0]));
        assert_eq!(**batch.tensor("y").unwrap(), HostTensor::new([2], &[0f32, 0.0]));
        assert_eq!(batch.tensor("z"), None);
    }

    #[test]
    fn the_share_of_each_replica_is_padded() {
        let spec = BatchSpec { tensors: vec![TensorSpec::new("x", DType::S32, [2])] };
        let mut batch = HostBatch::zeros(&spec, 2, 2);
        batch.tensors[0].1 = Arc::new(HostTensor::new([2, 2], &[1i32, 2, 3, 4]));
        batch.pad_shares_to(2, 1);
        assert_eq!((batch.rows, batch.spare_rows), (2, 0));
        batch.pad_shares_to(2, 3);
        assert_eq!((batch.rows, batch.spare_rows), (6, 2));
        let expected = [1i32, 2, 0, 0, 0, 0, 3, 4, 0, 0, 0, 0];
        assert_eq!(**batch.tensor("x").unwrap(), HostTensor::new([6, 2], &expected));
    }
}
