//! The roofline estimate: a step takes the time of its slowest resource (compute, memory or network), at assumed shares of the
//! published rates. All three times are kept, so that a report shows where the estimate comes from.

use std::time::Duration;

use super::hardware::Accelerator;
use super::target::Target;
use super::traffic::Collectives;
use crate::task::Precision;

/// Shares of the published rates that a program is assumed to reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Efficiency {
    /// Share of the peak FLOP/s.
    pub compute: f64,
    /// Share of the memory bandwidth.
    pub memory: f64,
    /// Share of the link and network bandwidth.
    pub network: f64,
}

impl Default for Efficiency {
    /// Returns 50 % of the peak FLOP/s: MLPerf's best BERT-Large runs on A100, H100, H200 and small slices of TPU v3 and v4
    /// reached 48 to 63 % of the bf16 peak (computed from mlcommons/training_results_v0.7 to v5.0). The shares of memory and
    /// network bandwidth, 80 %, are assumptions.
    fn default() -> Self {
        Efficiency { compute: 0.5, memory: 0.8, network: 0.8 }
    }
}

/// The work of one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Demand {
    /// Floating-point operations of the step, summed over all devices.
    pub flops: f64,
    /// The precision of the matrix products, which are most of the operations.
    pub precision: Precision,
    /// Bytes that one device moves between its memory and its cores, if known.
    pub bytes: Option<f64>,
    /// The communication between replicas.
    pub collectives: Collectives,
}

/// Seconds that one step occupies each resource.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Times {
    /// Seconds of arithmetic.
    pub compute: f64,
    /// Seconds of memory traffic; none if the plugin does not report the bytes moved. The step time then ignores memory.
    pub memory: Option<f64>,
    /// Seconds of communication.
    pub network: f64,
}

impl Times {
    /// Estimates the times of `demand` on `target`, whose chips are `chip`; none if the peak in its precision is unknown.
    pub fn of(demand: &Demand, target: &Target, chip: &Accelerator, efficiency: &Efficiency) -> Option<Times> {
        let peak = target.chips() as f64 * chip.peak(demand.precision)?;
        // The devices of a chip share its memory bandwidth.
        let bytes_per_chip = demand.bytes.map(|bytes| bytes * chip.devices as f64);
        Some(Times {
            compute: demand.flops / (peak * efficiency.compute),
            memory: bytes_per_chip.map(|bytes| bytes / (chip.memory_bandwidth * efficiency.memory)),
            network: network_seconds(&demand.collectives, target, chip) / efficiency.network,
        })
    }

    /// Returns the time of the step: that of the slowest resource; the others overlap with it.
    pub fn step(&self) -> f64 {
        self.compute.max(self.memory.unwrap_or(0.0)).max(self.network)
    }

    /// Returns the name of the slowest resource.
    pub fn bound(&self) -> &'static str {
        match self.step() {
            slowest if slowest == self.compute => "compute",
            slowest if Some(slowest) == self.memory => "memory",
            _ => "network",
        }
    }
}

/// Returns the seconds of communication at the full rates of links and network.
///
/// Linked chips form a ring (on a torus, rings along all dimensions at once). Between hosts, each chip communicates only its
/// share of what its host has reduced.
pub(super) fn network_seconds(collectives: &Collectives, target: &Target, chip: &Accelerator) -> f64 {
    let linked = target.linked_chips();
    let hosts = target.chips() / linked;
    let over_links = collectives.sent_in_ring(linked) / chip.link_bandwidth;
    let over_network = match chip.network_bandwidth {
        Some(bandwidth) => collectives.sent_in_ring(hosts) / linked as f64 / bandwidth,
        None => 0.0,
    };
    over_links + over_network
}

/// Converts seconds to a duration; the longest duration if the number is out of range.
pub fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(topology: &str, flops: f64, bytes: f64, all_reduce: f64) -> Times {
        let collectives = Collectives { all_reduce, ..Collectives::default() };
        let demand = Demand { flops, precision: Precision::Bf16, bytes: Some(bytes), collectives };
        of(topology, &demand).unwrap()
    }

    fn of(topology: &str, demand: &Demand) -> Option<Times> {
        let target: Target = topology.parse().unwrap();
        let efficiency = Efficiency { compute: 0.5, memory: 1.0, network: 1.0 };
        Times::of(demand, &target, target.accelerator.unwrap(), &efficiency)
    }

    #[test]
    fn step_time_is_the_time_of_the_slowest_resource() {
        // 64 GPUs at half of 989 TFLOP/s: 31.648 PFLOP take one second.
        let t = times("cuda:h200:1x8x8", 31.648e15, 2.4e12, 0.0);
        assert!((t.compute - 1.0).abs() < 1e-12 && (t.memory.unwrap() - 0.5).abs() < 1e-12 && t.network == 0.0);
        assert_eq!((t.step(), t.bound()), (t.compute, "compute"));
        let t = times("cuda:h200:1x8x8", 1.0, 9.6e12, 1e9);
        assert_eq!((t.step(), t.bound()), (2.0, "memory"));
    }

    #[test]
    fn communication_uses_links_and_between_hosts_the_network() {
        // Within a host: 2 · 7/8 · 450 GB over 450 GB/s. Between eight hosts: an eighth of that, 2 · 7/8 · 56.25 GB over 50 GB/s.
        assert!((times("cuda:h200:1x1x8", 1.0, 1.0, 450e9).network - 1.75).abs() < 1e-12);
        assert!((times("cuda:h200:1x8x8", 1.0, 1.0, 450e9).network - (1.75 + 1.96875)).abs() < 1e-12);
        assert_eq!(times("cuda:h200:1x1x1", 1.0, 1.0, 450e9).network, 0.0);
        // Links connect all chips of a slice: 2 · 1023/1024 · 340/1024 TB over 340/1024 TB/s.
        let v3 = times("tpu:v3:32x32", 1.0, 1.0, 340e12 / 1024.0);
        assert!((v3.network - 2.0 * 1023.0 / 1024.0).abs() < 1e-12);
    }

    #[test]
    fn compute_time_depends_on_the_precision_of_matrix_products() {
        let compute = |topology, precision| {
            let demand = Demand { flops: 123e12, precision, bytes: None, collectives: Collectives::default() };
            of(topology, &demand).map(|times| times.compute)
        };
        // A TPU computes one full f32 product as six bf16 products; a GPU computes it outside its tensor cores.
        assert!((compute("tpu:v3:2x2", Precision::Bf16).unwrap() - 0.5).abs() < 1e-12);
        assert!((compute("tpu:v3:2x2", Precision::F32).unwrap() - 3.0).abs() < 1e-12);
        assert!((compute("cuda:h200:1x1x1", Precision::F32).unwrap() - 123.0 / 33.5).abs() < 1e-12);
        assert_eq!(compute("tpu:v3:2x2", Precision::F64), None);
    }

    #[test]
    fn devices_of_a_chip_share_its_memory_bandwidth() {
        assert!((times("tpu:v3:2x2", 1.0, 450e9, 0.0).memory.unwrap() - 1.0).abs() < 1e-12);
    }
}
