//! An optimized program with its instructions by id, users of values, and computations by id.

use std::borrow::Cow;
use std::collections::HashMap;

use anyhow::{Context, bail};
use prost::Message;

use crate::hlo::proto::{HloComputationProto, HloInstructionProto, HloModuleProto, HloModuleProtoWithConfig};
use crate::pjrt::OptimizedProgram;

const DAMAGED: &str = "the plugin's optimized program is not a protobuf message of an HLO module";

/// The position of a computation in its module, and of an instruction in the computation.
type Position = (usize, usize);

/// A module, indexed. Ids are unique over the whole module.
pub struct Program {
    /// The decoded module.
    pub module: HloModuleProto,
    instructions: HashMap<i64, Position>,
    computations: HashMap<i64, usize>,
    /// The users of each instruction, with the number of the operand.
    users: HashMap<i64, Vec<(Position, usize)>>,
}

impl Program {
    /// Decodes the program that a plugin returns.
    ///
    /// # Errors
    /// If the program is not an HLO module, or is damaged.
    pub fn decode(program: &OptimizedProgram) -> anyhow::Result<Program> {
        let module = HloModuleProto::decode(&*module_bytes(program)?).context(DAMAGED)?;
        Ok(Program::new(module))
    }

    /// Indexes `module`.
    pub fn new(module: HloModuleProto) -> Program {
        let (mut instructions, mut users) = (HashMap::new(), HashMap::<_, Vec<_>>::new());
        for (c, computation) in module.computations.iter().enumerate() {
            for (i, instruction) in computation.instructions.iter().enumerate() {
                instructions.insert(instruction.id, (c, i));
                for (position, operand) in instruction.operand_ids.iter().enumerate() {
                    users.entry(*operand).or_default().push(((c, i), position));
                }
            }
        }
        let computations = module.computations.iter().enumerate().map(|(i, c)| (c.id, i)).collect();
        Program { module, instructions, computations, users }
    }

    /// Returns the computation with which the program starts.
    pub fn entry(&self) -> Option<&HloComputationProto> {
        self.computation(self.module.entry_computation_id)
    }

    /// Returns the computation with this id.
    pub fn computation(&self, id: i64) -> Option<&HloComputationProto> {
        self.module.computations.get(*self.computations.get(&id)?)
    }

    /// Returns the instruction with this id.
    pub fn instruction(&self, id: i64) -> Option<&HloInstructionProto> {
        Some(self.at(*self.instructions.get(&id)?))
    }

    fn at(&self, (computation, position): Position) -> &HloInstructionProto {
        &self.module.computations[computation].instructions[position]
    }

    /// Returns the operand of `instruction` at `position`.
    pub fn operand(&self, instruction: &HloInstructionProto, position: usize) -> Option<&HloInstructionProto> {
        self.instruction(*instruction.operand_ids.get(position)?)
    }

    /// Returns the operands of `instruction`.
    pub fn operands<'a>(&'a self, of: &'a HloInstructionProto) -> impl Iterator<Item = &'a HloInstructionProto> {
        of.operand_ids.iter().filter_map(|&id| self.instruction(id))
    }

    /// Returns the instructions that read `value`, each with the position of the operand.
    pub fn users(&self, value: &HloInstructionProto) -> impl Iterator<Item = (&HloInstructionProto, usize)> {
        self.users.get(&value.id).into_iter().flatten().map(|&(user, position)| (self.at(user), position))
    }

    /// Returns the computations that `instruction` calls.
    pub fn called<'a>(&'a self, by: &'a HloInstructionProto) -> impl Iterator<Item = &'a HloComputationProto> {
        by.called_computation_ids.iter().filter_map(|&id| self.computation(id))
    }

    /// Returns the parameter of `computation` at `position`.
    pub fn parameter<'a>(&self, computation: &'a HloComputationProto, at: usize) -> Option<&'a HloInstructionProto> {
        computation.instructions.iter().find(|i| i.opcode == "parameter" && i.parameter_number == at as i64)
    }

    /// Returns the result of `computation`.
    pub fn root(&self, computation: &HloComputationProto) -> Option<&HloInstructionProto> {
        self.instruction(computation.root_id)
    }

    /// Returns `instruction` and, if it is a fusion, everything inside it.
    pub fn interior<'a>(&'a self, of: &'a HloInstructionProto) -> Vec<&'a HloInstructionProto> {
        if !is_fused(&of.opcode) {
            return vec![of];
        }
        let inside = self.called(of).flat_map(|computation| &computation.instructions);
        inside.flat_map(|instruction| self.interior(instruction)).collect()
    }
}

/// Returns the serialized HloModuleProto of the program that a plugin returns.
///
/// # Errors
/// If the program is not an HLO module, or is damaged.
pub fn module_bytes(program: &OptimizedProgram) -> anyhow::Result<Cow<'_, [u8]>> {
    match program.format.as_str() {
        "hlo" => Ok(Cow::Borrowed(&program.code)),
        "hlo_with_config" => {
            let module = HloModuleProtoWithConfig::decode(&*program.code).context(DAMAGED)?;
            Ok(Cow::Owned(module.hlo_module))
        }
        format => bail!(
            "the optimized program is required in the format hlo or hlo_with_config, but the plugin returns {format:?}; use \
             the plugin of `lambert plugin install`"
        ),
    }
}

/// Returns whether the computations that an instruction calls are its body, not a function of scalars such as a reducer.
pub(super) fn is_fused(opcode: &str) -> bool {
    matches!(opcode, "fusion" | "call" | "async-start")
}
