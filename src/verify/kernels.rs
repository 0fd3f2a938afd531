//! Comparison of the kernels of fused self-attention with the composed form, both on the device that is to run them.

use anyhow::{Result, ensure};

use super::check::{Check, Quantity, Tolerances, distance, length};
use crate::autodiff::gradients;
use crate::bert::FusedAttention;
use crate::graph::{Composite, Graph};
use crate::runtime::backend::Backend;
use crate::runtime::devices::Devices;
use crate::step::program::{Arguments, Program, Results, Role};
use crate::task::Precision;

/// The rows of a comparison.
const ROWS: usize = 2;
/// The seed of the operands.
const SEED: u64 = 12_440;

/// Compares context and gradient of the kernels of `attention` with those of the composed form.
///
/// # Errors
/// If the backend cannot compile or run one of them. A difference is not an error.
pub fn check_attention<E: Backend>(backend: &E, attention: &FusedAttention) -> Result<Vec<Check>> {
    let attention = FusedAttention { rows: ROWS, ..*attention };
    let kernels = run(backend, &attention, &attention.composite())?;
    let composed = run(backend, &attention, &attention.composed())?;
    let tolerances = Tolerances::of(Precision::Bf16);
    let group = format!("attention {} {}", if attention.packed { "packed" } else { "plain" }, attention.length);
    let quantities = [
        (Quantity::Forward, "context", tolerances.forward),
        (Quantity::Gradient, "query, key, value", tolerances.gradient),
    ];
    let check = |((quantity, name, tolerance), (found, expected)): (_, (&Vec<f64>, &Vec<f64>))| {
        Check::new(quantity, &group, name, distance(found, expected) / length(expected), tolerance)
    };
    Ok(quantities.into_iter().zip(kernels.iter().zip(&composed)).map(check).collect())
}

/// Checks that `devices` compute each of `attentions` with its kernels as the composed form does, up to rounding.
///
/// # Errors
/// Otherwise; the message has the reason.
pub fn check_kernels(devices: &Devices, attentions: &[FusedAttention]) -> Result<()> {
    let device = devices.first(1);
    for attention in attentions {
        for Check { ok, name, group, error, tolerance, .. } in check_attention(&device, attention)? {
            ensure!(
                ok,
                "{group}: {name} differs by {error:.1e} from the composed form; rounding explains {tolerance:.0e}"
            );
        }
    }
    Ok(())
}

/// Runs one form of the attention on the example; returns the context and the cotangent of queries, keys and values.
fn run<E: Backend>(backend: &E, attention: &FusedAttention, composite: &Composite) -> Result<Vec<Vec<f64>>> {
    let graph = Graph::new("attention_check");
    let mut tensors = attention.example(SEED);
    tensors.push(attention.example_cotangent(SEED + 1));
    let mut arguments = Arguments::new(&graph);
    let parameters: Vec<_> = tensors
        .iter()
        .enumerate()
        .map(|(i, tensor)| arguments.add(&format!("operand.{i}"), Role::Batch, tensor.shape().clone()))
        .collect();
    let (cotangent, operands) = parameters.split_last().expect("a cotangent follows the operands");
    let context = graph.composite(composite, operands)[0];
    let product = context.convert(attention.sum_type()) * cotangent.convert(attention.sum_type());
    let gradient = gradients(product.sum(), &operands[..1])[0];
    let mut results = Results::default();
    results.add("context", Role::Report, context);
    results.add("gradient", Role::Report, gradient);
    let program = Program::new(arguments, results, Vec::new(), 1);
    let executable = backend.load(&program)?;
    let arrays = tensors.iter().map(|tensor| backend.put(tensor, 0)).collect::<Result<Vec<_>>>()?;
    let outputs = backend.run(&executable, &[arrays.iter().collect()])?;
    outputs[0].iter().map(|array| backend.get(array)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bert::Preset;
    use crate::runtime::backend::Evaluator;

    #[test]
    fn both_forms_are_compared_with_dropout() {
        let model = Preset::Tiny.config(64);
        let attention = FusedAttention { heads: 1, size: 16, ..FusedAttention::of(&model, 8, 64) };
        assert!(attention.dropout > 0.0);
        // The evaluator computes a kernel by its definition, so nothing differs.
        let checks = check_attention(&Evaluator { replicas: 1 }, &attention).unwrap();
        assert_eq!(checks.iter().map(|check| (check.ok, check.error)).collect::<Vec<_>>(), [(true, 0.0); 2]);

        // Without dropout, the context is another one.
        let [with, without] = [attention, FusedAttention { dropout: 0.0, ..attention }].map(|attention| {
            let attention = FusedAttention { rows: ROWS, ..attention };
            run(&Evaluator { replicas: 1 }, &attention, &attention.composed()).unwrap()
        });
        assert!(distance(&with[0], &without[0]) > 0.1 * length(&without[0]));
    }
}
