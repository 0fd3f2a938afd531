//! Roofline times of kernels: the time of the slowest resource at the full published rates.

use super::costs::Cost;
use crate::plan::hardware::Accelerator;
use crate::plan::roofline::network_seconds;
use crate::plan::target::Target;
use crate::plan::traffic::Collectives;

/// The published rates of one device of a target.
#[derive(Clone, Debug)]
pub struct Rates {
    target: Target,
    chip: &'static Accelerator,
}

impl Rates {
    /// Returns the rates of a target; none for the CPU, whose rates are unknown.
    pub fn of(target: &Target) -> Option<Rates> {
        Some(Rates { target: target.clone(), chip: target.accelerator? })
    }

    /// Returns the number of devices of the target.
    pub fn devices(&self) -> usize {
        self.target.devices()
    }

    /// Returns the peak FLOP/s of products of narrow types and of f32, and the bytes/s of the memory, for one device.
    pub fn per_device(&self) -> [f64; 3] {
        let Accelerator { peak_flops, peak_flops_f32, memory_bandwidth, devices, .. } = self.chip;
        [peak_flops, peak_flops_f32, memory_bandwidth].map(|rate| rate / *devices as f64)
    }

    /// Returns the time of one execution of a kernel in seconds: the longest of its matrix products, its memory traffic, and its
    /// communication. Elementwise arithmetic has no published rate and is left out.
    pub fn seconds(&self, cost: &Cost, collectives: &Collectives) -> f64 {
        let [narrow, f32, memory] = self.per_device();
        let products = cost.narrow_products / narrow + cost.f32_products / f32;
        products.max(cost.bytes() / memory).max(network_seconds(collectives, &self.target, self.chip))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(target: &str, cost: Cost, all_reduce: f64) -> f64 {
        let collectives = Collectives { all_reduce, ..Collectives::default() };
        Rates::of(&target.parse().unwrap()).unwrap().seconds(&cost, &collectives)
    }

    #[test]
    fn kernel_takes_the_time_of_its_slowest_resource() {
        let read = Cost { read: 4.8e12, written: 4.8e12, narrow_products: 989e12, ..Cost::default() };
        assert_eq!(seconds("cuda:h200:1x1x1", read, 0.0), 2.0);
        let products = Cost { read: 1.0, narrow_products: 989e12, f32_products: 67e12, ..Cost::default() };
        assert_eq!(seconds("cuda:h200:1x1x1", products, 0.0), 2.0);
        // Two devices share the memory and the peak of a TPU v3 chip.
        assert_eq!(seconds("tpu:v3:2x2", Cost { read: 900e9, ..Cost::default() }, 0.0), 2.0);
        // 2 · 7/8 of 900 GB over links of 450 GB/s.
        assert_eq!(seconds("cuda:h200:1x1x8", Cost::default(), 900e9), 3.5);
        assert!(Rates::of(&"cpu:1".parse().unwrap()).is_none());
    }
}
