//! The same case however its batch is cut: among devices, and on each into micro-batches.

use anyhow::Result;

use super::check::Check;
use super::reference::ReferenceCase;
use super::{VerifyOptions, dropout, verify};
use crate::runtime::backend::Backend;

/// One way of cutting the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Split {
    pub devices: usize,
    /// Into how many slices, taken one after the other, each device cuts its rows.
    pub micro_batches: usize,
}

impl Split {
    const UNCUT: Split = Split { devices: 1, micro_batches: 1 };

    /// Every number of devices with every number of micro-batches.
    pub fn all(devices: &[usize], micro_batches: &[usize]) -> Vec<Split> {
        let of_devices = |&devices| micro_batches.iter().map(move |&micro_batches| Split { devices, micro_batches });
        devices.iter().flat_map(of_devices).collect()
    }

    /// Rows of padding that make `rows` divide among devices and micro-batches.
    pub fn padding(self, rows: usize) -> usize {
        rows.next_multiple_of(self.devices * self.micro_batches) - rows
    }
}

/// What came of one split.
#[derive(Clone, Debug)]
pub struct SplitChecks {
    pub split: Split,
    pub checks: Vec<Check>,
}

impl SplitChecks {
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
    let uncut = dropout::losses(case, &backend(Split::UNCUT.devices), &of(Split::UNCUT))?;
    let mut all = Vec::new();
    for &split in splits {
        let (backend, options) = (backend(split.devices), of(split));
        let mut checks = verify(case, &backend, &options, |check| report(split, check))?;
        let check = dropout::same_losses(&dropout::losses(case, &backend, &options)?, &uncut, options.precision);
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
    fn splits_are_all_pairs_and_padding_fills_the_last_one() {
        let splits = Split::all(&[1, 3], &[1, 4]);
        let numbers: Vec<_> = splits.iter().map(|s| (s.devices, s.micro_batches, s.padding(8))).collect();
        assert_eq!(numbers, [(1, 1, 0), (1, 4, 0), (3, 1, 1), (3, 4, 4)]);
    }
}
