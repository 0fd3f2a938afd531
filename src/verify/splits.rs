//! Verifies a case with its batch split over devices and into micro-batches.

use anyhow::Result;

use super::check::Check;
use super::reference::ReferenceCase;
use super::{VerifyOptions, dropout, verify};
use crate::runtime::backend::Backend;

/// One way of splitting the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Split {
    /// The number of devices.
    pub devices: usize,
    /// Micro-batches that each device splits its rows into.
    pub micro_batches: usize,
}

impl Split {
    const UNSPLIT: Split = Split { devices: 1, micro_batches: 1 };

    /// Returns every number of devices with every number of micro-batches.
    pub fn all(devices: &[usize], micro_batches: &[usize]) -> Vec<Split> {
        let of_devices = |&devices| micro_batches.iter().map(move |&micro_batches| Split { devices, micro_batches });
        devices.iter().flat_map(of_devices).collect()
    }

    /// Returns the rows of padding after which devices × micro-batches divide `rows`.
    pub fn padding(self, rows: usize) -> usize {
        rows.next_multiple_of(self.devices * self.micro_batches) - rows
    }
}

/// The comparisons of one split.
#[derive(Clone, Debug)]
pub struct SplitChecks {
    /// The split.
    pub split: Split,
    /// The checks.
    pub checks: Vec<Check>,
}

impl SplitChecks {
    /// Returns the number of failed checks.
    pub fn misses(&self) -> usize {
        self.checks.iter().filter(|check| !check.ok).count()
    }
}

/// [`verify`] under every split, and with dropout on the losses of a few steps against those of the uncut batch.
/// `backend` gives an backend of so many replicas; `report` hears of each check as it is made.
///
/// # Errors
/// If an backend fails. A miss is not an error.
pub fn verify_splits<E: Backend>(
    case: &ReferenceCase,
    backend: impl Fn(usize) -> E,
    splits: &[Split],
    options: &VerifyOptions,
    mut report: impl FnMut(Split, &Check),
) -> Result<Vec<SplitChecks>> {
    let of = |split: Split| VerifyOptions { micro_batches: split.micro_batches, ..options.clone() };
    let unsplit = dropout::losses(case, &backend(Split::UNSPLIT.devices), &of(Split::UNSPLIT))?;
    let mut all = Vec::new();
    for &split in splits {
        let (backend, options) = (backend(split.devices), of(split));
        let mut checks = verify(case, &backend, &options, |check| report(split, check))?;
        let check = dropout::same_losses(&dropout::losses(case, &backend, &options)?, &unsplit, options.precision);
        report(split, &check);
        checks.push(check);
        all.push(SplitChecks { split, checks });
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_are_all_pairs_with_their_padding() {
        let splits = Split::all(&[1, 3], &[1, 4]);
        let numbers: Vec<_> = splits.iter().map(|s| (s.devices, s.micro_batches, s.padding(8))).collect();
        assert_eq!(numbers, [(1, 1, 0), (1, 4, 0), (3, 1, 1), (3, 4, 4)]);
    }
}
