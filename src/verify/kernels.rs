//! Comparison of the kernels of fused operations with the composed forms, both on the device that is to run them.

use anyhow::{Result, ensure};

use super::check::{Check, Quantity, Tolerances, distance, length};
use crate::autodiff::gradients;
use crate::bert::{BertConfig, FusedOperation, Kernel};
use crate::graph::{Composite, Graph};
use crate::runtime::backend::Backend;
use crate::runtime::devices::{Devices, check_runs_kernels};
use crate::shape::DType;
use crate::step::program::{Arguments, Program, Results, Role};
use crate::task::Precision;

/// The seed of the operands.
const SEED: u64 = 12_440;

/// Compares the result and the gradients of the kernels of `operation` with those of its composed form.
///
/// # Errors
/// If the backend cannot compile or run one of them. A difference is not an error.
pub fn check_operation<E: Backend>(backend: &E, operation: &dyn FusedOperation) -> Result<Vec<Check>> {
    let kernels = run(backend, operation, &operation.composite())?;
    let composed = run(backend, operation, &operation.composed())?;
    let tolerances = Tolerances::of(Precision::Bf16);
    let result = (Quantity::Forward, operation.result(), tolerances.forward);
    let gradients = operation.differentiable().iter().map(|&name| (Quantity::Gradient, name, tolerances.gradient));
    let check = |((quantity, name, tolerance), (found, expected)): (_, (&Vec<f64>, &Vec<f64>))| {
        let error = distance(found, expected) / length(expected);
        Check::new(quantity, &operation.name(), name, error, tolerance)
    };
    Ok([result].into_iter().chain(gradients).zip(kernels.iter().zip(&composed)).map(check).collect())
}

/// Compares the kernels of `kernel`, for `model` in rows of `lengths`, on the first of `devices`.
///
/// # Errors
/// If the platform does not run kernels, or the device cannot compile or run one of the forms. A difference is not an error.
pub fn check_kernel(devices: &Devices, kernel: Kernel, model: &BertConfig, lengths: &[usize]) -> Result<Vec<Check>> {
    check_runs_kernels(devices.client.platform_name())?;
    let device = devices.first(1);
    let operations = kernel.operations(model, lengths);
    let checks = operations.iter().map(|operation| check_operation(&device, &**operation));
    Ok(checks.collect::<Result<Vec<_>>>()?.concat())
}

/// Requires that every check is within its tolerance.
///
/// # Errors
/// Otherwise; the message has the first miss.
pub fn require_all(checks: &[Check]) -> Result<()> {
    for Check { ok, name, group, error, tolerance, .. } in checks {
        ensure!(
            *ok,
            "{group}: {name} differs by {error:.1e} from the composed form; rounding explains {tolerance:.0e}"
        );
    }
    Ok(())
}

/// Runs one form of the operation on its example; returns the first result, and the gradients of the operands that have one.
fn run<E: Backend>(backend: &E, operation: &dyn FusedOperation, composite: &Composite) -> Result<Vec<Vec<f64>>> {
    let graph = Graph::new("kernel_check");
    let mut tensors = operation.example(SEED);
    tensors.push(operation.example_cotangent(SEED + 1));
    let mut arguments = Arguments::new(&graph);
    let parameters: Vec<_> = tensors
        .iter()
        .enumerate()
        .map(|(i, tensor)| arguments.add(&format!("operand.{i}"), Role::Batch, tensor.shape().clone()))
        .collect();
    let (cotangent, operands) = parameters.split_last().expect("a cotangent follows the operands");
    let result = graph.composite(composite, operands)[0];
    let product = result.convert(DType::F32) * cotangent.convert(DType::F32);
    let names = operation.differentiable();
    let gradients = gradients(product.sum(), &operands[..names.len()]);
    let mut results = Results::default();
    results.add(operation.result(), Role::Report, result);
    names.iter().zip(gradients).for_each(|(name, gradient)| results.add(name, Role::Report, gradient));
    let program = Program::new(arguments, results, Vec::new(), 1);
    let executable = backend.load(&program)?;
    let arrays = tensors.iter().map(|tensor| backend.put(tensor, 0)).collect::<Result<Vec<_>>>()?;
    let outputs = backend.run(&executable, &[arrays.iter().collect()])?;
    outputs[0].iter().map(|array| backend.get(array)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bert::{FusedAttention, FusedLayerNorm, Preset};
    use crate::runtime::backend::Evaluator;

    /// An operation whose kernels compute another one.
    struct Faulty<'a> {
        operation: &'a dyn FusedOperation,
        other: &'a dyn FusedOperation,
    }

    impl FusedOperation for Faulty<'_> {
        fn name(&self) -> String {
            self.operation.name()
        }

        fn composed(&self) -> Composite {
            self.operation.composed()
        }

        fn composite(&self) -> Composite {
            self.other.composed()
        }

        fn result(&self) -> &'static str {
            self.operation.result()
        }

        fn differentiable(&self) -> &'static [&'static str] {
            self.operation.differentiable()
        }

        fn example(&self, seed: u64) -> Vec<crate::shape::HostTensor> {
            self.operation.example(seed)
        }

        fn example_cotangent(&self, seed: u64) -> crate::shape::HostTensor {
            self.operation.example_cotangent(seed)
        }
    }

    #[test]
    fn result_and_all_gradients_are_compared() {
        let model = Preset::Tiny.config(64);
        let attention = FusedAttention { heads: 1, size: 16, ..FusedAttention::of(&model, 2, 64) };
        let other_attention = FusedAttention { dropout: 0.5, ..attention };
        let norm = FusedLayerNorm { width: 128, ..FusedLayerNorm::of(&model, 1, 64) };
        let other_norm = FusedLayerNorm { dropout: 0.5, ..norm };
        assert!(attention.dropout > 0.0 && norm.dropout > 0.0);
        let device = Evaluator { replicas: 1 };
        let cases: [[&dyn FusedOperation; 2]; 2] = [[&attention, &other_attention], [&norm, &other_norm]];
        for [operation, other] in cases {
            let name = operation.name();
            // The evaluator computes a kernel by its definition, so nothing differs.
            let checks = check_operation(&device, operation).unwrap();
            assert_eq!(checks.len(), 1 + operation.differentiable().len());
            assert!(checks.iter().all(|check| check.ok && check.error == 0.0), "{name}: {checks:?}");
            require_all(&checks).unwrap();

            // The sum of dy does not depend on dropout.
            let checks = check_operation(&device, &Faulty { operation, other }).unwrap();
            let misses: Vec<&str> = checks.iter().filter(|check| !check.ok).map(|check| &*check.name).collect();
            let expected: Vec<&str> = checks.iter().map(|check| &*check.name).filter(|name| *name != "beta").collect();
            assert_eq!(misses, expected, "{name}: {checks:?}");
            let error = require_all(&checks).unwrap_err().to_string();
            assert!(error.contains(&format!("{name}: {} differs by", operation.result())), "{error}");
        }
    }
}
