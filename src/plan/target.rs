//! The target of a plan: a kind of accelerator and a number of chips, with their interconnect. The syntax is
//! `PLATFORM:CHIP:SHAPE`:
//!
//! * `tpu:v3:32x32`, `tpu:v5p:4x4x4`: a slice of a TPU pod, by the number of chips along each dimension;
//! * `cuda:h200:1x8x8`: partitions × hosts per partition × GPUs per host, as in XLA's topology option;
//! * `cpu:4`: virtual devices on the cores of this machine. Their rates are unknown, but their programs can be saved.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, bail, ensure};

use super::hardware::Accelerator;
use crate::pjrt::{CUDA_MEMORY_FRACTION, Platform};
use crate::runtime::devices::MOST_OF_A_HOST;

/// Offered sizes of GPU clusters go up to 2^10 hosts.
const MAX_DOUBLINGS: u32 = 10;

/// The hardware that a plan compiles for.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// The kind of accelerator; none for virtual CPU devices.
    pub accelerator: Option<&'static Accelerator>,
    shape: Vec<usize>,
}

impl Target {
    /// Describes `devices` devices of one host by the kind that the plugin reports; none if the kind is unknown.
    pub fn of_host(kind: &str, devices: usize) -> Option<Target> {
        let accelerator = Accelerator::of_kind(kind)?;
        let chips = devices.div_ceil(accelerator.devices);
        let shape = if accelerator.platform == Platform::Cuda { vec![1, 1, chips] } else { vec![chips] };
        Some(Target { accelerator: Some(accelerator), shape })
    }

    /// Returns the platform of the target.
    pub fn platform(&self) -> Platform {
        self.accelerator.map_or(Platform::Cpu, |accelerator| accelerator.platform)
    }

    /// Returns the number of chips.
    pub fn chips(&self) -> usize {
        self.shape.iter().product()
    }

    /// Returns the number of devices as the plugin counts them. Each device is a replica.
    pub fn devices(&self) -> usize {
        self.chips() * self.accelerator.map_or(1, |accelerator| accelerator.devices)
    }

    /// Returns the shape as text, as in `4x4x8`.
    pub fn shape(&self) -> String {
        format_shape(&self.shape)
    }

    /// Returns the number of chips that are connected by links alone (ICI, NVLink), without the network between hosts.
    pub fn linked_chips(&self) -> usize {
        match (self.platform(), self.shape.last()) {
            (Platform::Cuda, Some(&gpus_per_host)) => gpus_per_host,
            _ => self.chips(),
        }
    }

    /// Returns the bytes that a program may use on one device, if known: the memory of a TPU, or the share of a GPU's memory
    /// that the runtime allocates. (A TPU's compiler also enforces its own limit.)
    pub fn memory_limit(&self) -> Option<f64> {
        let accelerator = self.accelerator?;
        let share = if accelerator.platform == Platform::Cuda { f64::from(CUDA_MEMORY_FRACTION) } else { 1.0 };
        Some(accelerator.memory as f64 / accelerator.devices as f64 * share)
    }

    /// Returns the offered sizes of the same chips, smallest first: TPU slices; or GPUs of one host, then hosts like this
    /// target's in doubling numbers.
    pub fn sizes(&self) -> Vec<Target> {
        let Some(accelerator) = self.accelerator else { return Vec::new() };
        let shapes: Vec<Vec<usize>> = match accelerator.platform {
            Platform::Tpu => accelerator.slices.iter().filter_map(|slice| parse_shape(slice)).collect(),
            _ => {
                let per_host = self.linked_chips();
                let part = [1, 2, 4, 8].into_iter().filter(|&gpus| gpus < per_host).map(|gpus| vec![1, 1, gpus]);
                part.chain((0..=MAX_DOUBLINGS).map(|n| vec![1, 1 << n, per_host])).collect()
            }
        };
        shapes.into_iter().map(|shape| Target { accelerator: Some(accelerator), shape }).collect()
    }

    /// Returns the list of offered shapes, for the error about a shape that does not exist.
    fn offered(accelerator: &Accelerator) -> String {
        let listed = accelerator.slices.join(", ");
        match (accelerator.platform, is_built_of_cubes(accelerator)) {
            (Platform::Tpu, false) => listed,
            (Platform::Tpu, true) => format!("{listed}, or three ascending multiples of 4"),
            _ => "1xHOSTSxGPUS with 1, 2, 4 or 8 GPUs per host, such as 1x1x8 or 1x8x8".to_owned(),
        }
    }

    fn exists(accelerator: &Accelerator, shape: &[usize]) -> bool {
        let Some(chips) = product(shape) else { return false };
        let largest =
            || accelerator.slices.last().and_then(|slice| parse_shape(slice)).and_then(|slice| product(&slice));
        let of_cubes = || shape.iter().all(|n| n.is_multiple_of(4)) && shape.is_sorted() && Some(chips) <= largest();
        match accelerator.platform {
            Platform::Tpu => {
                accelerator.slices.contains(&format_shape(shape).as_str())
                    || is_built_of_cubes(accelerator) && shape.len() == 3 && of_cubes()
            }
            _ => matches!(shape, [_, _, 1 | 2 | 4 | 8]),
        }
    }
}

/// Returns whether slices of more than 64 chips are assembled from cubes of 4 × 4 × 4, in more shapes than the table lists
/// (docs.cloud.google.com/tpu/docs/types-topologies, v5p).
fn is_built_of_cubes(accelerator: &Accelerator) -> bool {
    accelerator.slices.contains(&"4x4x4")
}

/// Returns the product of the dimensions, or none on overflow.
fn product(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1_usize, |product, &n| product.checked_mul(n))
}

/// Parses `4x4x8` into its dimensions.
fn parse_shape(text: &str) -> Option<Vec<usize>> {
    text.split('x').map(|n| n.parse().ok().filter(|&n: &usize| n > 0)).collect()
}

fn format_shape(shape: &[usize]) -> String {
    shape.iter().map(usize::to_string).collect::<Vec<_>>().join("x")
}

impl FromStr for Target {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Target> {
        let mut parts = text.split(':');
        let platform = parts.next().unwrap_or_default();
        let (chip, shape, rest) = (parts.next(), parts.next(), parts.next());
        if platform == "cpu" && shape.is_none() {
            let devices: usize = chip.unwrap_or("1").parse().unwrap_or(0);
            ensure!(
                (1..=MOST_OF_A_HOST).contains(&devices),
                "topology {text:?}: cpu needs a number of devices from 1 to {MOST_OF_A_HOST}, such as cpu:4"
            );
            return Ok(Target { accelerator: None, shape: vec![devices] });
        }
        let chips = |of: &str| -> Vec<&'static str> {
            const ALL: &[Accelerator] = &Accelerator::ALL;
            ALL.iter().filter(|chip| chip.platform.name() == of).map(|chip| chip.name).collect()
        };
        if !["tpu", "cuda"].contains(&platform) || shape.is_none() || rest.is_some() {
            bail!(
                "topology {text:?}: expected tpu:CHIP:SHAPE (chips {}), cuda:CHIP:SHAPE (chips {}) or cpu:DEVICES, such as \
                 tpu:v3:32x32, cuda:h200:1x8x8 or cpu:4",
                chips("tpu").join(", "),
                chips("cuda").join(", ")
            );
        }
        let (chip, shape) = (chip.unwrap_or_default(), shape.unwrap_or_default());
        let known = chips(platform);
        let accelerator = Accelerator::named(chip).filter(|_| known.contains(&chip)).with_context(|| {
            format!("topology {text:?}: unknown {platform} chip {chip:?}; known chips: {}", known.join(", "))
        })?;
        parse_shape(shape)
            .filter(|shape| Target::exists(accelerator, shape))
            .map(|shape| Target { accelerator: Some(accelerator), shape })
            .with_context(|| {
                format!(
                    "topology {text:?}: {} is not offered in the shape {shape:?}; offered shapes: {}",
                    accelerator.name,
                    Target::offered(accelerator)
                )
            })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.accelerator {
            Some(accelerator) => write!(f, "{}:{}:{}", accelerator.platform, accelerator.name, self.shape()),
            None => write!(f, "cpu:{}", self.shape()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(text: &str) -> Target {
        text.parse().unwrap()
    }

    #[test]
    fn display_and_from_str_agree() {
        for text in [
            "tpu:v3:32x32",
            "tpu:v5p:16x16x24",
            "tpu:v5p:4x4x12",
            "tpu:v4:12x12x24",
            "cuda:h200:1x8x8",
            "cuda:a100:1x1x1",
            "cpu:4",
        ] {
            assert_eq!(target(text).to_string(), text);
        }
        assert_eq!(target("cpu").to_string(), "cpu:1");
    }

    #[test]
    fn chips_devices_and_linked_chips_are_counted() {
        let pod = target("tpu:v3:32x32");
        assert_eq!((pod.chips(), pod.devices(), pod.linked_chips()), (1024, 2048, 1024));
        let gpus = target("cuda:h100:1x8x4");
        assert_eq!((gpus.chips(), gpus.devices(), gpus.linked_chips()), (32, 32, 4));
        assert_eq!((target("tpu:v4:4x4x8").devices(), target("cpu:3").devices()), (128, 3));
        let host = Target::of_host("NVIDIA H200", 8).unwrap();
        assert_eq!((host.to_string().as_str(), host.linked_chips()), ("cuda:h200:1x1x8", 8));
        assert_eq!(Target::of_host("TPU v3", 8).map(|host| host.chips()), Some(4));
        assert_eq!(Target::of_host("cpu", 8), None);
    }

    #[test]
    fn error_for_an_unknown_topology_lists_the_known_ones() {
        let error = |text: &str| text.parse::<Target>().unwrap_err().to_string();
        assert_eq!(
            error("tpu:v6e:3x3"),
            "topology \"tpu:v6e:3x3\": v6e is not offered in the shape \"3x3\"; offered shapes: 1x1, 2x2, 2x4, 4x4, 4x8, 8x8, \
             8x16, 16x16"
        );
        assert!(error("tpu:v9:2x2").contains("unknown tpu chip \"v9\"; known chips: v3, v4, v5e, v5p, v6e"));
        assert!(error("cuda:v3:2x2").contains("known chips: a100, h100, h200"));
        for wrong in ["", "tpu", "tpu:v3", "tpu:v3:2x2:1", "amd:mi300:1x1x8", "cpu:2:2"] {
            assert!(error(wrong).contains("expected tpu:CHIP:SHAPE"), "{wrong}");
        }
        for wrong in ["tpu:v4:4x12x8", "tpu:v5p:4x4x6", "tpu:v4:4x8", "tpu:v4:16x16x20", "tpu:v5p:2x2x8"] {
            assert!(error(wrong).ends_with(", or three ascending multiples of 4"), "{wrong}");
        }
        // The number of chips overflows.
        let overflowing = "cuda:h200:99999999999x99999999999x8";
        for wrong in
            ["cuda:h200:1x8", "cuda:h200:1x0x8", overflowing, "cuda:h200:1x8x16", "cuda:h200:1xax8", "cuda:h200:"]
        {
            assert!(error(wrong).contains("1xHOSTSxGPUS"), "{wrong}");
        }
        for wrong in ["cpu:none", "cpu:0", "cpu:1025", "cpu:99999999999999999999"] {
            assert!(error(wrong).contains("cpu needs a number of devices from 1 to 1024, such as cpu:4"));
        }
    }

    #[test]
    fn offered_sizes_exist_and_ascend() {
        for text in ["tpu:v5e:2x2", "tpu:v5p:4x4x4", "cuda:h200:1x2x8", "cuda:a100:1x1x4"] {
            let sizes = target(text).sizes();
            assert!(sizes.is_sorted_by_key(Target::chips));
            assert!(sizes.iter().all(|size| size.to_string().parse::<Target>().unwrap() == *size));
        }
        let gpus: Vec<usize> = target("cuda:h200:1x2x8").sizes().iter().map(Target::chips).collect();
        assert_eq!(gpus[..6], [1, 2, 4, 8, 16, 32]);
    }
}
