//! Matrix products: their floating-point operations (dots, the convolutions to which TPU compilers turn them, calls of cuBLAS,
//! and those of lambert's own kernels), and those that are Triton kernels.

use serde_json::Value;

use super::program::Program;
use super::shapes::{arrays, elements};
use crate::hlo::proto::{HloInstructionProto, PrimitiveType, ShapeProto, WindowDimension};
use crate::triton::{TARGET, product_flops};

/// A matrix product.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Product {
    /// Floating-point operations; a multiply-add counts as two.
    pub flops: f64,
    /// Whether an operand is f32 or wider.
    pub is_f32: bool,
}

impl Product {
    /// Returns the product that `instruction` computes by itself; none for any other instruction and for fusions.
    pub fn of(program: &Program, instruction: &HloInstructionProto) -> Option<Product> {
        let flops = match &*instruction.opcode {
            "dot" => {
                dot(program, instruction, &instruction.dot_dimension_numbers.as_ref()?.lhs_contracting_dimensions)?
            }
            "convolution" => convolution(program, instruction)?,
            "custom-call" if instruction.custom_call_target == TARGET => {
                // All operands of these products are bf16, whatever other arrays the kernel reads.
                let flops = product_flops(std::str::from_utf8(&instruction.backend_config).ok()?)?;
                return Some(Product { flops, is_f32: false });
            }
            "custom-call" => dot(program, instruction, &contracting_dimensions(&instruction.backend_config)?)?,
            _ => return None,
        };
        let wide = |operand: &HloInstructionProto| {
            let element_type = operand.shape.as_ref().map(ShapeProto::element_type);
            matches!(element_type, Some(PrimitiveType::F32 | PrimitiveType::F64))
        };
        Some(Product { flops, is_f32: program.operands(instruction).take(2).any(wide) })
    }
}

/// Counts the fusions of `program` that are Triton kernels and contain a dot. XLA's settings of such a fusion are
/// `{"fusion_backend_config": {"kind": "__triton_nested_gemm_fusion", …}, …}`.
pub fn triton_products(program: &Program) -> usize {
    let is_triton = |fusion: &HloInstructionProto| {
        let config: Option<Value> = serde_json::from_slice(&fusion.backend_config).ok();
        let kind = config.as_ref().and_then(|config| config.pointer("/fusion_backend_config/kind")?.as_str());
        kind.is_some_and(|kind| kind.starts_with("__triton"))
    };
    let has_dot = |fusion: &HloInstructionProto| program.interior(fusion).iter().any(|inside| inside.opcode == "dot");
    let fusions = program.module.computations.iter().flat_map(|computation| &computation.instructions);
    fusions.filter(|fusion| fusion.opcode == "fusion" && is_triton(fusion) && has_dot(fusion)).count()
}

/// Counts 2 · elements of the result · elements of the contracted dimensions.
fn dot(program: &Program, instruction: &HloInstructionProto, contracting: &[i64]) -> Option<f64> {
    let lhs = program.operand(instruction, 0)?.shape.as_ref()?;
    let result = *arrays(instruction.shape.as_ref()?).first()?;
    let size = |&dimension: &i64| lhs.dimensions.get(usize::try_from(dimension).ok()?).map(|&n| n as f64);
    let contracted: f64 = contracting.iter().map(size).product::<Option<f64>>()?;
    Some(2.0 * elements(result) * contracted)
}

/// Counts one multiply-add for each pair of an input feature and an output feature, each row of the batch, and each position of
/// the window that lies on the input and not between or beside its elements.
fn convolution(program: &Program, instruction: &HloInstructionProto) -> Option<f64> {
    let d = instruction.convolution_dimension_numbers.as_ref()?;
    let lhs = program.operand(instruction, 0)?.shape.as_ref()?;
    let result = *arrays(instruction.shape.as_ref()?).first()?;
    let size = |shape: &ShapeProto, dimension: i64| -> Option<i64> {
        shape.dimensions.get(usize::try_from(dimension).ok()?).copied()
    };
    let windows = instruction.window.iter().flat_map(|window| &window.dimensions);
    let spatial = d.input_spatial_dimensions.iter().zip(&d.output_spatial_dimensions).zip(windows);
    let positions = spatial
        .map(|((&input, &output), window)| Some(positions(size(lhs, input)?, size(result, output)?, window) as f64))
        .product::<Option<f64>>()?;
    let features = size(lhs, d.input_feature_dimension)? * size(result, d.output_feature_dimension)?;
    let batch = size(lhs, d.input_batch_dimension)?;
    let groups = (instruction.feature_group_count.max(1) * instruction.batch_group_count.max(1)) as f64;
    Some(2.0 * features as f64 * batch as f64 * positions / groups)
}

/// Counts the pairs of an output element and an element of the window that meet an element of the input, along one dimension.
fn positions(input: i64, output: i64, window: &WindowDimension) -> usize {
    let [stride, dilation, spacing] = [window.stride, window.window_dilation, window.base_dilation].map(|n| n.max(1));
    let meets = |out: i64, tap: i64| {
        let at = out * stride + tap * dilation - window.padding_low;
        at >= 0 && at % spacing == 0 && at / spacing < input
    };
    (0..output).map(|out| (0..window.size).filter(|&tap| meets(out, tap)).count()).sum()
}

/// Returns the dimensions that a custom call contracts, from its settings: those of cuBLAS contain `dot_dimension_numbers`.
fn contracting_dimensions(backend_config: &[u8]) -> Option<Vec<i64>> {
    let config: Value = serde_json::from_slice(backend_config).ok()?;
    let settings = config.get("gemm_backend_config").unwrap_or(&config);
    let numbers: &Value = settings.get("dot_dimension_numbers")?;
    let dimensions = numbers.get("lhs_contracting_dimensions")?.as_array()?;
    // Protobuf's JSON form of an int64 is a string.
    dimensions.iter().map(|n| n.as_i64().or_else(|| n.as_str()?.parse().ok())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bert::{FusedAttention, FusedOperation, Preset};
    use crate::hlo::proto::{ConvolutionDimensionNumbers, DotDimensionNumbers, Window};
    use crate::plan::profile::tests::{Builder, bf16, f32};

    #[test]
    fn own_kernels_have_narrow_products() {
        let mut b = Builder::default();
        let (x, mask) = (b.parameter(bf16(&[1, 64, 3, 1, 16])), b.parameter(f32(&[1, 64])));
        let attention =
            FusedAttention { heads: 1, size: 16, dropout: 0.0, ..FusedAttention::of(&Preset::Tiny.config(8), 1, 64) };
        let kernel = attention.composite().kernel.unwrap();
        let call = b.add("custom-call", bf16(&[1, 64, 1, 16]), &[x, mask], |i| {
            i.custom_call_target = kernel.target;
            i.backend_config = kernel.backend_config.into_bytes();
        });
        let program = b.program();
        let product = Product::of(&program, program.instruction(call).unwrap());
        assert_eq!(product, Some(Product { flops: 2.0 * 2.0 * 64.0 * 64.0 * 16.0, is_f32: false }));
    }

    #[test]
    fn dot_counts_two_operations_per_multiply_add() {
        let mut b = Builder::default();
        let (x, w) = (b.parameter(bf16(&[4, 8, 16])), b.parameter(bf16(&[4, 16, 32])));
        let numbers = DotDimensionNumbers {
            lhs_contracting_dimensions: vec![2],
            rhs_contracting_dimensions: vec![1],
            lhs_batch_dimensions: vec![0],
            rhs_batch_dimensions: vec![0],
        };
        let dot = b.add("dot", f32(&[4, 8, 32]), &[x, w], |i| i.dot_dimension_numbers = Some(numbers));
        let program = b.program();
        let product = Product::of(&program, program.instruction(dot).unwrap());
        assert_eq!(product, Some(Product { flops: 2.0 * 4.0 * 8.0 * 32.0 * 16.0, is_f32: false }));
    }

    #[test]
    fn custom_call_of_a_product_has_its_dimensions_in_the_settings() {
        let mut b = Builder::default();
        let (x, w) = (b.parameter(f32(&[8, 16])), b.parameter(f32(&[16, 32])));
        let config = r#"{"gemm_backend_config":{"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"]}}}"#;
        let call = b.add("custom-call", f32(&[8, 32]), &[x, w], |i| i.backend_config = config.into());
        let other = b.add("custom-call", f32(&[8, 32]), &[x, w], |i| i.backend_config = b"text".to_vec());
        let program = b.program();
        let of = |id| Product::of(&program, program.instruction(id).unwrap());
        assert_eq!(of(call), Some(Product { flops: 2.0 * 8.0 * 32.0 * 16.0, is_f32: true }));
        assert_eq!(of(other), None);
    }

    #[test]
    fn triton_kernels_with_a_dot_are_counted() {
        let mut b = Builder::default();
        let product = b.computation(|b| {
            let (x, w) = (b.parameter(bf16(&[8, 16])), b.parameter(bf16(&[16, 32])));
            b.add("dot", bf16(&[8, 32]), &[x, w], |_| {})
        });
        let softmax = b.computation(|b| {
            let x = b.parameter(bf16(&[8, 32]));
            b.add("exponential", bf16(&[8, 32]), &[x], |_| {})
        });
        let (x, w) = (b.parameter(bf16(&[8, 16])), b.parameter(bf16(&[16, 32])));
        let mut fuse = |computation, operands: &[i64], kind: &str| {
            b.add("fusion", bf16(&[8, 32]), operands, |i| {
                i.called_computation_ids = vec![computation];
                i.backend_config = format!(r#"{{"fusion_backend_config":{{"kind":"{kind}"}}}}"#).into();
            })
        };
        let y = fuse(product, &[x, w], "__triton_nested_gemm_fusion");
        fuse(softmax, &[y], "__triton");
        fuse(product, &[x, w], "__triton_gemm");
        fuse(product, &[x, w], "__cudnn$fusion");
        assert_eq!(triton_products(&b.program()), 2);
    }

    /// TPU compilers write the batch of a batched product as a spatial dimension: a window over the whole, padded, input, of
    /// which each output element meets one element.
    #[test]
    fn batched_product_as_a_convolution_counts_what_the_dot_counts() {
        let mut b = Builder::default();
        let (x, w) = (b.parameter(bf16(&[4, 8, 16])), b.parameter(bf16(&[4, 32, 16])));
        let window = WindowDimension {
            size: 4,
            stride: 3,
            padding_low: 0,
            padding_high: 0,
            window_dilation: 1,
            base_dilation: 4,
            window_reversal: false,
        };
        let numbers = ConvolutionDimensionNumbers {
            input_batch_dimension: 1,
            input_feature_dimension: 2,
            input_spatial_dimensions: vec![0],
            kernel_input_feature_dimension: 2,
            kernel_output_feature_dimension: 1,
            kernel_spatial_dimensions: vec![0],
            output_batch_dimension: 1,
            output_feature_dimension: 2,
            output_spatial_dimensions: vec![0],
        };
        let convolution = b.add("convolution", f32(&[4, 8, 32]), &[x, w], |i| {
            i.window = Some(Window { dimensions: vec![window] });
            i.convolution_dimension_numbers = Some(numbers);
        });
        let program = b.program();
        let product = Product::of(&program, program.instruction(convolution).unwrap()).unwrap();
        assert_eq!(product.flops, 2.0 * 4.0 * 8.0 * 32.0 * 16.0);
    }
}
