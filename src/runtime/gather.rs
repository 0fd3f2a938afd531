//! Sharded tensors put together again, for those who want whole ones: evaluation, checkpoints, export.
//!
//! It is done by programs of their own, a group of tensors each, so that no device has to hold more than a group beside
//! what it trains with; and by collectives, so that it does not matter whether all parts are within this process's reach.

use super::devices::Devices;
use crate::graph::Graph;
use crate::pjrt::{Buffer, LoadedExecutable};
use crate::shape::DType;
use crate::step::program::{Arguments, Program, Results, Role};
use crate::step::sharding::Shards;
use crate::task::ParamSpec;

/// Bytes of whole tensors in a group; a larger tensor is a group by itself.
const GROUP_BYTES: usize = 256 << 20;

/// Programs that make whole tensors of the parts of weights, or of the slots of one kind.
#[derive(Debug)]
pub struct Gather {
    /// Each for as many tensors as its number says, following those of the group before.
    groups: Vec<(usize, LoadedExecutable)>,
}

impl Gather {
    /// Compiles the programs for tensors of the shapes of `params`, in f32.
    ///
    /// # Errors
    /// What the compiler says.
    pub fn new(params: &[ParamSpec], shards: Shards, devices: &Devices) -> anyhow::Result<Gather> {
        let compile = |group: &[ParamSpec]| {
            let executable = devices.compile(&program(group, shards).lower().bytes)?;
            Ok((group.len(), executable))
        };
        Ok(Gather { groups: groups(params).into_iter().map(compile).collect::<anyhow::Result<_>>()? })
    }

    /// Hands the whole tensors to `take`, `[device][tensor]`, group after group in the order of the parameters. `parts` is
    /// `[device][tensor]`. All processes of a run must ask for it at the same point.
    ///
    /// # Errors
    /// What the plugin says, or `take`.
    pub fn run(
        &self,
        parts: &[&[Buffer]],
        mut take: impl FnMut(Vec<Vec<Buffer>>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut first = 0;
        for (length, executable) in &self.groups {
            let arguments: Vec<Vec<&Buffer>> =
                parts.iter().map(|parts| parts[first..first + length].iter().collect()).collect();
            take(executable.execute(&arguments)?)?;
            first += length;
        }
        Ok(())
    }
}

/// `params` cut where [`GROUP_BYTES`] are full.
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

/// Arguments: the parts of `params`. Results: the whole tensors.
fn program(params: &[ParamSpec], shards: Shards) -> Program {
    let graph = Graph::new("gather");
    let mut arguments = Arguments::new(&graph);
    let parts = arguments.weights(params, |param| shards.shard_shape(&param.shape(DType::F32)));
    let shapes: Vec<_> = params.iter().map(|param| param.shape(DType::F32)).collect();
    let mut results = Results::default();
    for (param, whole) in params.iter().zip(shards.all_gather(&parts, &shapes)) {
        results.add(&param.name, Role::Weight, whole);
    }
    Program::new(arguments, results, Vec::new(), shards.count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bert::{Preset, param_specs};

    #[test]
    fn groups_are_small_and_leave_no_tensor_out() {
        let params = param_specs(&Preset::Large.config(30_522));
        let groups = groups(&params);
        assert_eq!(groups.concat(), params);
        let bytes = |group: &[ParamSpec]| group.iter().map(|param| param.shape(DType::F32).bytes()).sum::<usize>();
        assert!(groups.iter().all(|group| bytes(group) <= GROUP_BYTES));
        assert!(groups.windows(2).all(|pair| bytes(pair[0]) + bytes(&pair[1][..1]) > GROUP_BYTES), "not one too many");
    }
}
