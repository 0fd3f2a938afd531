//! How long a step takes if nothing but the slowest of three resources counts: arithmetic, memory, network. An estimate
//! from above said rates and assumed shares of them, before anything was run; every part of it is kept, so that it can be
//! printed and doubted.

use std::time::Duration;

use super::hardware::Chip;
use super::target::Target;
use super::traffic::Collectives;
use crate::task::Precision;

/// Shares of a chip's stated rates that a program is assumed to reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Efficiency {
    pub compute: f64,
    pub memory: f64,
    pub network: f64,
}

impl Default for Efficiency {
    /// Half the arithmetic: MLPerf's best runs of BERT-Large on A100, H100, H200 and small slices of TPU v3 and v4 reached
    /// 48 to 63 % of the bf16 peak (mlcommons/training_results_v0.7 to v5.0, own arithmetic). The other two are assumptions.
    fn default() -> Self {
        Efficiency { compute: 0.5, memory: 0.8, network: 0.8 }
    }
}

/// What one step asks of the hardware.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Demand {
    /// Floating-point operations of the whole step, over all devices.
    pub flops: f64,
    /// What its matrix products, which are most of them, multiply.
    pub precision: Precision,
    /// Bytes that one device moves between its memory and its cores, if that is known.
    pub bytes: Option<f64>,
    /// What the replicas exchange.
    pub collectives: Collectives,
}

/// Seconds that one step keeps each resource busy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Times {
    pub compute: f64,
    /// None where nobody says how many bytes a step moves; the step then counts as if they were hidden.
    pub memory: Option<f64>,
    pub network: f64,
}

impl Times {
    /// Of `demand` on `target`, whose chips are `chip`; none if nobody says how fast they are in its precision.
    pub fn of(demand: &Demand, target: &Target, chip: &Chip, efficiency: &Efficiency) -> Option<Times> {
        let peak = target.chips() as f64 * chip.peak(demand.precision)?;
        // The devices of a chip share its memory's bandwidth.
        let bytes_of_chip = demand.bytes.map(|bytes| bytes * chip.devices as f64);
        Some(Times {
            compute: demand.flops / (peak * efficiency.compute),
            memory: bytes_of_chip.map(|bytes| bytes / (chip.memory_bandwidth * efficiency.memory)),
            network: network_seconds(&demand.collectives, target, chip) / efficiency.network,
        })
    }

    /// The step: what is slowest, the others hidden behind it.
    pub fn step(&self) -> f64 {
        self.compute.max(self.memory.unwrap_or(0.0)).max(self.network)
    }

    /// The name of what is slowest.
    pub fn bound(&self) -> &'static str {
        match self.step() {
            slowest if slowest == self.compute => "compute",
            slowest if Some(slowest) == self.memory => "memory",
            _ => "network",
        }
    }
}

/// Seconds for the exchange at the full rate of links and network.
///
/// Linked chips stand in a ring (on a torus, in rings of every dimension at once). Between hosts every chip exchanges only its
/// own share of what its host has reduced.
fn network_seconds(collectives: &Collectives, target: &Target, chip: &Chip) -> f64 {
    let linked = target.linked_chips();
    let hosts = target.chips() / linked;
    let over_links = collectives.sent_in_ring(linked) / chip.link_bandwidth;
    let over_network = match chip.network_bandwidth {
        Some(bandwidth) => collectives.sent_in_ring(hosts) / linked as f64 / bandwidth,
        None => 0.0,
    };
    over_links + over_network
}

/// Seconds as a duration; the longest there is if they are no such number.
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
        Times::of(demand, &target, target.chip.unwrap(), &efficiency)
    }

    #[test]
    fn the_slowest_resource_is_the_step() {
        // 64 GPUs of 989 TFLOP/s at half their rate: 31.648 PFLOP take one second.
        let t = times("cuda:h200:1x8x8", 31.648e15, 2.4e12, 0.0);
        assert!((t.compute - 1.0).abs() < 1e-12 && (t.memory.unwrap() - 0.5).abs() < 1e-12 && t.network == 0.0);
        assert_eq!((t.step(), t.bound()), (t.compute, "compute"));
        let t = times("cuda:h200:1x8x8", 1.0, 9.6e12, 1e9);
        assert_eq!((t.step(), t.bound()), (2.0, "memory"));
    }

    #[test]
    fn an_exchange_takes_links_and_between_hosts_the_network() {
        // Within a host: 2 · 7/8 · 450 GB over 450 GB/s. Eight hosts: an eighth of it, 2 · 7/8 · 56.25 GB over 50 GB/s.
        assert!((times("cuda:h200:1x1x8", 1.0, 1.0, 450e9).network - 1.75).abs() < 1e-12);
        assert!((times("cuda:h200:1x8x8", 1.0, 1.0, 450e9).network - (1.75 + 1.96875)).abs() < 1e-12);
        assert_eq!(times("cuda:h200:1x1x1", 1.0, 1.0, 450e9).network, 0.0);
        // A slice has links everywhere: 2 · 1023/1024 · 340/1024 TB over 340/1024 TB/s.
        let v3 = times("tpu:v3:32x32", 1.0, 1.0, 340e12 / 1024.0);
        assert!((v3.network - 2.0 * 1023.0 / 1024.0).abs() < 1e-12);
    }

    #[test]
    fn arithmetic_in_f32_is_as_slow_as_its_products() {
        let compute = |topology, precision| {
            let demand = Demand { flops: 123e12, precision, bytes: None, collectives: Collectives::default() };
            of(topology, &demand).map(|times| times.compute)
        };
        // A TPU makes a product of all bits of f32 from six in bf16; a GPU leaves its tensor cores for it.
        assert!((compute("tpu:v3:2x2", Precision::Bf16).unwrap() - 0.5).abs() < 1e-12);
        assert!((compute("tpu:v3:2x2", Precision::F32).unwrap() - 3.0).abs() < 1e-12);
        assert!((compute("cuda:h200:1x1x1", Precision::F32).unwrap() - 123.0 / 33.5).abs() < 1e-12);
        assert_eq!(compute("tpu:v3:2x2", Precision::F64), None);
    }

    #[test]
    fn devices_of_a_chip_share_its_memory() {
        assert!((times("tpu:v3:2x2", 1.0, 450e9, 0.0).memory.unwrap() - 1.0).abs() < 1e-12);
    }
}
