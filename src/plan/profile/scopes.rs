//! The place of a kernel in the model, from the metadata that the graph gives each operation.

use std::collections::HashSet;

use super::program::Program;
use crate::hlo::proto::HloInstructionProto;

/// The label of kernels that the compiler adds without naming their origin.
const UNNAMED: &str = "(no scope)";
/// The label of kernels that copy or convert an argument of the step, named after the argument.
const ARGUMENTS: &str = "(arguments)";
/// The part of a scope that the body of a loop over layers has in place of `layer.3`.
const LOOPED: &str = "layers";

/// Finds the scopes of kernels.
pub struct Scopes {
    arguments: HashSet<String>,
}

impl Scopes {
    /// Reads the names of the program's arguments.
    pub fn new(program: &Program) -> Scopes {
        let parameters = program.entry().map_or(&[][..], |entry| &entry.instructions);
        let parameters = parameters.iter().filter(|instruction| instruction.opcode == "parameter");
        Scopes { arguments: parameters.filter_map(op_name).map(str::to_owned).collect() }
    }

    /// Returns the scope of `kernel`: its own, or of the last operation inside that has one.
    pub fn of(&self, program: &Program, kernel: &HloInstructionProto) -> String {
        let interior = program.interior(kernel);
        let mut named = interior.iter().rev().filter(|inner| inner.opcode != "parameter").filter_map(|i| op_name(i));
        match op_name(kernel).or_else(|| named.next()) {
            None => UNNAMED.to_owned(),
            Some(name) if self.arguments.contains(name) => ARGUMENTS.to_owned(),
            Some(name) => name.to_owned(),
        }
    }
}

/// Returns the operation's name; the first, where the compiler has merged several.
fn op_name(instruction: &HloInstructionProto) -> Option<&str> {
    let name = instruction.metadata.as_ref()?.op_name.split(';').next()?;
    (!name.is_empty()).then_some(name)
}

/// Replaces the number of a layer by `*`: `encoder/layer.*/attention`. The layers of a loop have that name too.
pub fn over_layers(scope: &str) -> String {
    let part = |part: &str| if is_layer(part) { "layer.*".to_owned() } else { part.to_owned() };
    scope.split('/').map(part).collect::<Vec<_>>().join("/")
}

/// Returns whether a scope is that of a layer: `gradients/encoder/layer.3/attention`, or `encoder/layers/attention` in a loop.
pub fn is_of_layer(scope: &str) -> bool {
    scope.split('/').any(is_layer)
}

/// Returns whether an instruction has the scope of the body of a loop over layers.
pub fn is_in_layer_loop(instruction: &HloInstructionProto) -> bool {
    op_name(instruction).is_some_and(|scope| scope.split('/').any(|part| part == LOOPED))
}

fn is_layer(part: &str) -> bool {
    part == LOOPED || part.strip_prefix("layer.").is_some_and(|number| number.parse::<usize>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_aggregated() {
        assert_eq!(over_layers("gradients/encoder/layer.11/attention"), "gradients/encoder/layer.*/attention");
        assert_eq!(over_layers("gradients/encoder/layers/attention"), "gradients/encoder/layer.*/attention");
        assert_eq!(over_layers("encoder/layer.norm"), "encoder/layer.norm");
        assert_eq!(["encoder/layer.11/attention", "encoder/layers", "mlm"].map(is_of_layer), [true, true, false]);
    }
}
