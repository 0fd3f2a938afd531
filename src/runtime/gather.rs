//! All-gather of a sharded state, for evaluation and checkpoints.
//!
//! Separate programs gather one group of tensors each, so a device holds at most one unsharded group in addition to the
//! training state. The programs are collectives, so shards may be on other hosts.

use super::devices::Devices;
use crate::graph::Graph;
use crate::pjrt::{Buffer, LoadedExecutable};
use crate::shape::DType;
use crate::step::program::{Arguments, Program, Results, Role};
use crate::step::sharding::Shards;
use crate::task::ParamSpec;

/// Maximum bytes of the unsharded tensors of a group. A larger tensor forms a separate group.
const GROUP_BYTES: usize = 256 << 20;

/// Programs that gather weights, or the optimizer state of one kind.
#[derive(Debug)]
pub struct Gather {
    /// For each group in order, its number of tensors and its program.
    groups: Vec<(usize, LoadedExecutable)>,
}

impl Gather {
    /// Compiles the programs for tensors of the shapes of `params`, in f32.
    ///
    /// # Errors
    /// If the compiler refuses one.
    pub fn new(params: &[ParamSpec], shards: Shards, devices: &Devices) -> anyhow::Result<Gather> {
        let compile = |group: &[ParamSpec]| {
            let executable = devices.compile(&program(group, shards).lower().bytes)?;
            Ok((group.len(), executable))
        };
        Ok(Gather { groups: groups(params).into_iter().map(compile).collect::<anyhow::Result<_>>()? })
    }

    /// Calls `take` with the unsharded tensors, `[device][tensor]`, group after group in the order of the parameters. `shards`
    /// is `[device][tensor]`. All hosts of a run must call this at the same point.
    ///
    /// # Errors
    /// If the plugin fails, and those of `take`.
    pub fn run(
        &self,
        shards: &[&[Buffer]],
        mut take: impl FnMut(Vec<Vec<Buffer>>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut first = 0;
        for (length, executable) in &self.groups {
            let arguments: Vec<Vec<&Buffer>> =
                shards.iter().map(|shards| shards[first..first + length].iter().collect()).collect();
            take(executable.execute(&arguments)?)?;
            first += length;
        }
        Ok(())
    }
}

/// Splits `params` into groups of at most [`GROUP_BYTES`].
fn groups(params: &[ParamSpec]) -> Vec<&[ParamSpec]> {
    let mut groups = Vec::new();
    let (mut first, mut bytes) = (0, 0);
    for (i, param) in params.iter().enumerate() {
        let more = param.shape(DType::F32).bytes();
        if bytes > 0 && bytes + more > GROUP_BYTES {
            groups.push(&params[first..i]);
            (first, bytes) = (i, 0);
        }
        bytes += more;
    }
    groups.push(&params[first..]);
    groups
}

/// Builds the program with the shards of `params` as arguments and the unsharded tensors as results.
fn program(params: &[ParamSpec], shards: Shards) -> Program {
    let graph = Graph::new("gather");
    let mut arguments = Arguments::new(&graph);
    let inputs = arguments.weights(params, |param| shards.shard_shape(&param.shape(DType::F32)));
    let shapes: Vec<_> = params.iter().map(|param| param.shape(DType::F32)).collect();
    let mut results = Results::default();
    for (param, tensor) in params.iter().zip(shards.all_gather(&inputs, &shapes)) {
        results.add(&param.name, Role::Weight, tensor);
    }
    Program::new(arguments, results, Vec::new(), shards.count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bert::{Preset, param_specs};

    #[test]
    fn groups_are_bounded_and_complete() {
        let params = param_specs(&Preset::Large.config(30_522));
        let groups = groups(&params);
        assert_eq!(groups.concat(), params);
        let bytes = |group: &[ParamSpec]| group.iter().map(|param| param.shape(DType::F32).bytes()).sum::<usize>();
        assert!(groups.iter().all(|group| bytes(group) <= GROUP_BYTES));
        assert!(
            groups.windows(2).all(|pair| bytes(pair[0]) + bytes(&pair[1][..1]) > GROUP_BYTES),
            "no group could take the next tensor"
        );
    }
}
