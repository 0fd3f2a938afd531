//! What is planned for: so many chips, connected so. The spelling is `PLATFORM:CHIP:SHAPE`:
//!
//! * `tpu:v3:32x32`, `tpu:v5p:4x4x4`: a slice of a pod, by the chips along each of its dimensions;
//! * `cuda:h200:1x8x8`: groups × hosts of a group × GPUs of a host, as XLA spells it;
//! * `cpu:4`: virtual devices on the cores of this machine. Nothing is known of its rates; but its programs can be saved.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, bail, ensure};

use super::hardware::Chip;
use crate::pjrt::{
    CompileOptions, CreateOption, Environment, ErrorCode, Executable, LoadedExecutable, PjrtError, Platform,
    PlatformChoice, Plugin, Topology,
};
use crate::runtime::devices::{Devices, MOST_OF_A_HOST};

/// Hosts of GPUs are counted up to 2^this.
const MOST_DOUBLINGS: u32 = 10;

/// Devices to compile for.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// None for the cores of a machine.
    pub chip: Option<&'static Chip>,
    shape: Vec<usize>,
}

impl Target {
    pub fn platform(&self) -> Platform {
        self.chip.map_or(Platform::Cpu, |chip| chip.platform)
    }

    pub fn chips(&self) -> usize {
        self.shape.iter().product()
    }

    /// Devices as the plugin counts them; each is a replica.
    pub fn devices(&self) -> usize {
        self.chips() * self.chip.map_or(1, |chip| chip.devices)
    }

    /// Chips that reach each other over links alone, without the network between hosts.
    pub fn linked_chips(&self) -> usize {
        match (self.platform(), self.shape.last()) {
            (Platform::Cuda, Some(&gpus_of_a_host)) => gpus_of_a_host,
            _ => self.chips(),
        }
    }

    /// The sizes in which these chips are offered, smallest first: slices, or GPUs of one host and then, doubling, hosts like
    /// this target's.
    pub fn sizes(&self) -> Vec<Target> {
        let Some(chip) = self.chip else { return Vec::new() };
        let shapes: Vec<Vec<usize>> = match chip.platform {
            Platform::Tpu => chip.slices.iter().filter_map(|slice| dimensions(slice)).collect(),
            _ => {
                let of_host = self.linked_chips();
                let part = [1, 2, 4, 8].into_iter().filter(|&gpus| gpus < of_host).map(|gpus| vec![1, 1, gpus]);
                part.chain((0..=MOST_DOUBLINGS).map(|n| vec![1, 1 << n, of_host])).collect()
            }
        };
        shapes.into_iter().map(|shape| Target { chip: Some(chip), shape }).collect()
    }

    /// The shapes that exist, for the sentence about one that does not.
    fn offered(chip: &Chip) -> String {
        let listed = chip.slices.join(", ");
        match (chip.platform, is_built_of_cubes(chip)) {
            (Platform::Tpu, false) => listed,
            (Platform::Tpu, true) => format!("{listed}, and others of ascending multiples of 4"),
            _ => "1xHOSTSxGPUS with 1, 2, 4 or 8 GPUs a host, as 1x1x8 or 1x8x8".to_owned(),
        }
    }

    fn exists(chip: &Chip, shape: &[usize]) -> bool {
        let Some(chips) = product(shape) else { return false };
        let largest = || chip.slices.last().and_then(|slice| dimensions(slice)).and_then(|slice| product(&slice));
        let of_cubes = || shape.iter().all(|n| n.is_multiple_of(4)) && shape.is_sorted() && Some(chips) <= largest();
        match chip.platform {
            Platform::Tpu => {
                chip.slices.contains(&spell(shape).as_str())
                    || is_built_of_cubes(chip) && shape.len() == 3 && of_cubes()
            }
            _ => matches!(shape, [_, _, 1 | 2 | 4 | 8]),
        }
    }
}

/// Whether slices of more than 64 chips are put together of cubes of 4 × 4 × 4, in more shapes than any table lists
/// (docs.cloud.google.com/tpu/docs/types-topologies, v5p).
fn is_built_of_cubes(chip: &Chip) -> bool {
    chip.slices.contains(&"4x4x4")
}

/// None if it is more than can be counted.
fn product(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1_usize, |product, &n| product.checked_mul(n))
}

/// `4x4x8` as numbers.
fn dimensions(text: &str) -> Option<Vec<usize>> {
    text.split('x').map(|n| n.parse().ok().filter(|&n: &usize| n > 0)).collect()
}

fn spell(shape: &[usize]) -> String {
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
                "topology {text:?}: cpu requires a number of devices from 1 to {MOST_OF_A_HOST}, as in cpu:4"
            );
            return Ok(Target { chip: None, shape: vec![devices] });
        }
        let chips = |of: &str| -> Vec<&'static str> {
            const ALL: &[Chip] = &Chip::ALL;
            ALL.iter().filter(|chip| chip.platform.name() == of).map(|chip| chip.name).collect()
        };
        if !["tpu", "cuda"].contains(&platform) || shape.is_none() || rest.is_some() {
            bail!(
                "topology {text:?}: requires tpu:CHIP:SHAPE (chips {}), cuda:CHIP:SHAPE (chips {}) or cpu:DEVICES, as in \
                 tpu:v3:32x32, cuda:h200:1x8x8, cpu:4",
                chips("tpu").join(", "),
                chips("cuda").join(", ")
            );
        }
        let (chip, shape) = (chip.unwrap_or_default(), shape.unwrap_or_default());
        let known = chips(platform);
        let chip = Chip::named(chip).filter(|_| known.contains(&chip)).with_context(|| {
            format!("topology {text:?}: {platform} has no chip {chip:?} here; the chips are {}", known.join(", "))
        })?;
        dimensions(shape)
            .filter(|shape| Target::exists(chip, shape))
            .map(|shape| Target { chip: Some(chip), shape })
            .with_context(|| {
                format!(
                    "topology {text:?}: there is no {} of shape {shape:?}; there are {}",
                    chip.name,
                    Target::offered(chip)
                )
            })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.chip {
            Some(chip) => write!(f, "{}:{}:{}", chip.platform, chip.name, spell(&self.shape)),
            None => write!(f, "cpu:{}", spell(&self.shape)),
        }
    }
}

/// A plugin that compiles for a [`Target`].
pub struct Compiler {
    target: Target,
    pub plugin: Plugin,
    /// The plugin's own words on what it is, or is for.
    pub platform_version: String,
    means: Means,
}

/// Whether devices are there to compile for.
enum Means {
    Ahead(Topology),
    Here(Devices),
}

/// A program that was compiled, with devices or without.
pub enum Compiled {
    Ahead(Executable),
    Here(LoadedExecutable),
}

impl std::ops::Deref for Compiled {
    type Target = Executable;

    fn deref(&self) -> &Executable {
        match self {
            Compiled::Ahead(executable) => executable,
            Compiled::Here(loaded) => loaded,
        }
    }
}

impl Compiler {
    /// Loads the plugin that `choice` means (under `auto`, the target's platform) and describes the target to it.
    ///
    /// # Errors
    /// If there is no such plugin, it cannot compile for hardware that is absent, or does not know the target.
    pub fn open(target: &Target, choice: &PlatformChoice) -> anyhow::Result<Compiler> {
        let platform = target.platform();
        let choice = match choice {
            PlatformChoice::Auto => &PlatformChoice::Platform(platform),
            choice => choice,
        };
        let Some(chip) = target.chip else {
            let devices = Devices::open(choice, Some(target.devices()))?;
            let platform_version = devices.client.platform_version().to_owned();
            let plugin = devices.client.plugin();
            return Ok(Compiler { target: target.clone(), plugin, platform_version, means: Means::Here(devices) });
        };
        let plugin = Environment::of_process().find(choice)?.item;
        let shape = spell(&target.shape);
        let (name, options) = match (chip.platform, chip.gpu) {
            (_, Some(gpu)) => (
                String::new(),
                vec![
                    CreateOption::new("topology", shape),
                    CreateOption::new("target_config", gpu.target_config(chip.memory_bandwidth)),
                ],
            ),
            // Without this, libtpu shows the two cores of a v4 as two devices, which JAX and we do not use it as.
            _ if chip.name == "v4" => (format!("v4:{shape}"), vec![CreateOption::new("chip_config_name", "megacore")]),
            _ => (format!("{}:{shape}", chip.name), Vec::new()),
        };
        let topology = Topology::new(&plugin, &name, &options).map_err(|error| match &error {
            PjrtError::Call { code: ErrorCode::Unimplemented, .. } | PjrtError::Absent { .. } => anyhow::Error::from(
                error,
            )
            .context(format!(
                "the plugin {} cannot compile for hardware that is absent; {target} requires the plugin of {platform}: \
                     run `lambert plugin install {platform}`",
                plugin.path().display()
            )),
            _ => anyhow::Error::from(error)
                .context(format!("the plugin {} does not know {target}", plugin.path().display())),
        })?;
        let described = topology.device_descriptions()?;
        ensure!(
            described.len() == target.devices()
                && described.iter().all(|device| Chip::of_kind(&device.kind) == Some(chip)),
            "the plugin {} describes {} devices {:?} for {target}, which requires {} devices {:?}: it is not the plugin of \
             {platform}",
            plugin.path().display(),
            described.len(),
            described.first().map_or("", |device| &device.kind),
            target.devices(),
            chip.kind,
        );
        let platform_version = topology.platform_version()?;
        Ok(Compiler { target: target.clone(), plugin, platform_version, means: Means::Ahead(topology) })
    }

    /// Compiles a serialized HloModuleProto into one replica on each device.
    ///
    /// # Errors
    /// What the compiler says.
    pub fn compile(&self, hlo: &[u8]) -> Result<Compiled, anyhow::Error> {
        match &self.means {
            Means::Ahead(topology) => {
                let options =
                    CompileOptions::replicas(self.target.devices()).for_platform(self.target.platform().name());
                Ok(Compiled::Ahead(topology.compile(hlo, &options)?))
            }
            Means::Here(devices) => Ok(Compiled::Here(devices.compile(hlo)?)),
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
    fn a_topology_is_written_as_it_is_read() {
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
    fn chips_devices_and_what_links_reach() {
        let pod = target("tpu:v3:32x32");
        assert_eq!((pod.chips(), pod.devices(), pod.linked_chips()), (1024, 2048, 1024));
        let gpus = target("cuda:h100:1x8x4");
        assert_eq!((gpus.chips(), gpus.devices(), gpus.linked_chips()), (32, 32, 4));
        assert_eq!((target("tpu:v4:4x4x8").devices(), target("cpu:3").devices()), (128, 3));
    }

    #[test]
    fn what_does_not_exist_is_answered_with_what_does() {
        let error = |text: &str| text.parse::<Target>().unwrap_err().to_string();
        assert_eq!(
            error("tpu:v6e:3x3"),
            "topology \"tpu:v6e:3x3\": there is no v6e of shape \"3x3\"; there are 1x1, 2x2, 2x4, 4x4, 4x8, 8x8, 8x16, 16x16"
        );
        assert!(error("tpu:v9:2x2").contains("tpu has no chip \"v9\" here; the chips are v3, v4, v5e, v5p, v6e"));
        assert!(error("cuda:v3:2x2").contains("the chips are a100, h100, h200"));
        for wrong in ["", "tpu", "tpu:v3", "tpu:v3:2x2:1", "amd:mi300:1x1x8", "cpu:2:2"] {
            assert!(error(wrong).contains("requires tpu:CHIP:SHAPE"), "{wrong}");
        }
        for wrong in ["tpu:v4:4x12x8", "tpu:v5p:4x4x6", "tpu:v4:4x8", "tpu:v4:16x16x20", "tpu:v5p:2x2x8"] {
            assert!(error(wrong).ends_with(", and others of ascending multiples of 4"), "{wrong}");
        }
        // Of more chips than a number holds.
        let endless = "cuda:h200:99999999999x99999999999x8";
        for wrong in ["cuda:h200:1x8", "cuda:h200:1x0x8", endless, "cuda:h200:1x8x16", "cuda:h200:1xax8", "cuda:h200:"]
        {
            assert!(error(wrong).contains("1xHOSTSxGPUS"), "{wrong}");
        }
        for wrong in ["cpu:none", "cpu:0", "cpu:1025", "cpu:99999999999999999999"] {
            assert!(error(wrong).contains("cpu requires a number of devices from 1 to 1024, as in cpu:4"));
        }
    }

    #[test]
    fn sizes_ascend_and_exist() {
        for text in ["tpu:v5e:2x2", "tpu:v5p:4x4x4", "cuda:h200:1x2x8", "cuda:a100:1x1x4"] {
            let sizes = target(text).sizes();
            assert!(sizes.is_sorted_by_key(Target::chips));
            assert!(sizes.iter().all(|size| size.to_string().parse::<Target>().unwrap() == *size));
        }
        let gpus: Vec<usize> = target("cuda:h200:1x2x8").sizes().iter().map(Target::chips).collect();
        assert_eq!(gpus[..6], [1, 2, 4, 8, 16, 32]);
    }
}
