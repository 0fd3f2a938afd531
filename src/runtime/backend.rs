//! Two ways to run a [`Program`] behind one trait, so that the same code verifies a device and the evaluator: [`Devices`]
//! runs it through PJRT, [`Evaluator`] in the f64 interpreter.

use anyhow::{Context, Result};

use super::devices::Devices;
use crate::eval::{self, evaluate_replicas};
use crate::graph::Computation;
use crate::pjrt::{Buffer, LoadedExecutable};
use crate::shape::HostTensor;
use crate::step::program::Program;

/// Runs programs on a number of replicas.
pub trait Backend {
    /// A compiled program.
    type Executable;
    /// An array that programs can read.
    type Array;

    /// Returns the number of replicas.
    fn replicas(&self) -> usize;

    /// Compiles a program.
    ///
    /// # Errors
    /// If the compiler refuses it.
    fn load(&self, program: &Program) -> Result<Self::Executable>;

    /// Transfers a tensor to a replica.
    ///
    /// # Errors
    /// If the device is out of memory.
    fn put(&self, tensor: &HostTensor, replica: usize) -> Result<Self::Array>;

    /// Reads the elements, widened to f64.
    ///
    /// # Errors
    /// If the program that computes the array failed.
    fn get(&self, array: &Self::Array) -> Result<Vec<f64>>;

    /// Runs a program with one list of arguments for each replica and returns the results of each. Donated arguments are
    /// consumed.
    ///
    /// # Errors
    /// If the program fails.
    fn run(&self, executable: &Self::Executable, arguments: &[Vec<&Self::Array>]) -> Result<Vec<Vec<Self::Array>>>;
}

impl Backend for Devices {
    type Executable = LoadedExecutable;
    type Array = Buffer;

    fn replicas(&self) -> usize {
        self.len()
    }

    fn load(&self, program: &Program) -> Result<LoadedExecutable> {
        self.compile(&self.lower(program)?.bytes)
    }

    fn put(&self, tensor: &HostTensor, replica: usize) -> Result<Buffer> {
        self.client
            .buffer_from_host(tensor.bytes(), tensor.shape(), &self.devices[replica])
            .with_context(|| format!("cannot transfer a tensor {} to device {replica}", tensor.shape()))
    }

    fn get(&self, array: &Buffer) -> Result<Vec<f64>> {
        Ok(array.to_host()?.to_f64())
    }

    fn run(&self, executable: &LoadedExecutable, arguments: &[Vec<&Buffer>]) -> Result<Vec<Vec<Buffer>>> {
        Ok(executable.execute(arguments)?)
    }
}

/// The f64 interpreter with a number of replicas.
#[derive(Clone, Copy, Debug)]
pub struct Evaluator {
    /// The number of replicas.
    pub replicas: usize,
}

impl Backend for Evaluator {
    type Executable = Computation;
    type Array = eval::Value;

    fn replicas(&self) -> usize {
        self.replicas
    }

    fn load(&self, program: &Program) -> Result<Computation> {
        Ok(program.computation.clone())
    }

    fn put(&self, tensor: &HostTensor, _replica: usize) -> Result<eval::Value> {
        Ok(eval::Value::from(tensor))
    }

    fn get(&self, array: &eval::Value) -> Result<Vec<f64>> {
        Ok(array.to_f64())
    }

    fn run(&self, computation: &Computation, arguments: &[Vec<&eval::Value>]) -> Result<Vec<Vec<eval::Value>>> {
        let owned: Vec<Vec<eval::Value>> =
            arguments.iter().map(|replica| replica.iter().map(|&value| value.clone()).collect()).collect();
        Ok(evaluate_replicas(computation, &owned)?)
    }
}
