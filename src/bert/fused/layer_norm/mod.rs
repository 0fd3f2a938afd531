//! The end of a sub-layer as one operation: LayerNorm(residual + dropout(x + bias)), a composite whose definition and derivative are
//! written here as graphs, and in `kernels.rs` as Triton kernels, which read and write each hidden state once.
//!
//! The derivative reads the mean and the reciprocal standard deviation of each position, and computes the sum before the
//! normalization again. Dropout has the same masks as elsewhere, computed from the same counters.

mod example;
mod kernels;

use std::sync::Arc;

use super::FusedOperation;
use crate::bert::BertConfig;
use crate::bert::dropout::HiddenWords;
use crate::graph::{Composite, Computation, Graph, Tensor};
use crate::shape::{DType, HostTensor, Shape};
use crate::triton::Launch;

/// The shape of one fused LayerNorm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FusedLayerNorm {
    /// Rows of the micro-batch, B.
    pub rows: usize,
    /// Positions of a row, S.
    pub length: usize,
    /// Width of the hidden states, H.
    pub width: usize,
    /// The probability with which an element of x + bias is dropped.
    pub dropout: f64,
    /// Added to the variance.
    pub epsilon: f64,
    /// The type of x, of the residual and of the output. Kernels require bf16.
    pub dtype: DType,
}

/// The operands of a fused LayerNorm.
#[derive(Clone, Copy)]
pub struct LayerNormInputs<'g> {
    /// `[B, S, H]`, the product of the last linear layer without its bias.
    pub x: Tensor<'g>,
    /// `[B, S, H]`, the input of the sub-layer.
    pub residual: Tensor<'g>,
    /// `[H]`, added to x.
    pub bias: Tensor<'g>,
    /// `[H]`, the factor of the normalized sum.
    pub gamma: Tensor<'g>,
    /// `[H]`, added to the normalized sum.
    pub beta: Tensor<'g>,
    /// The random words of dropout, if there is any.
    pub words: Option<HiddenWords<'g>>,
}

/// The operands that have a gradient.
const DIFFERENTIABLE: [&str; 5] = ["input", "residual", "bias", "gamma", "beta"];

impl<'g> LayerNormInputs<'g> {
    fn from_parameters(all: &[Tensor<'g>]) -> Self {
        let words = match all[5..] {
            [first, second] => Some(HiddenWords { first, second }),
            _ => None,
        };
        LayerNormInputs { x: all[0], residual: all[1], bias: all[2], gamma: all[3], beta: all[4], words }
    }

    fn all(self) -> Vec<Tensor<'g>> {
        let words = self.words.map(|words| [words.first, words.second]);
        let others = [self.x, self.residual, self.bias, self.gamma, self.beta];
        others.into_iter().chain(words.into_iter().flatten()).collect()
    }
}

/// The results of a fused LayerNorm.
#[derive(Clone, Copy)]
struct Normed<'g> {
    /// `[B, S, H]`
    output: Tensor<'g>,
    /// `[B, S]`
    mean: Tensor<'g>,
    /// The reciprocal standard deviation `[B, S]`.
    scale: Tensor<'g>,
}

impl FusedLayerNorm {
    /// Returns the LayerNorm of a layer of `model` in rows of `length`, with dropout.
    pub fn of(model: &BertConfig, rows: usize, length: usize) -> FusedLayerNorm {
        FusedLayerNorm {
            rows,
            length,
            width: model.hidden_size,
            dropout: model.hidden_dropout_prob,
            epsilon: model.layer_norm_eps,
            dtype: DType::BF16,
        }
    }

    /// Returns the requirement that the kernels have on a shape and that this one does not meet; none if they compute it.
    pub fn refusal(&self) -> Option<String> {
        kernels::refusal(self)
    }

    /// Appends the operation: `[B, S, H]`.
    pub fn apply<'g>(&self, inputs: LayerNormInputs<'g>) -> Tensor<'g> {
        inputs.x.graph().composite(&self.composite(), &inputs.all())[0]
    }

    /// Returns the kernels of the definition and of the partial gradients, if they compute this shape.
    pub fn kernels(&self) -> Option<[Launch; 2]> {
        let suits = self.dtype == DType::BF16 && self.refusal().is_none();
        let grid = [self.blocks(), 1, 1];
        suits.then(|| {
            [kernels::forward(self), kernels::backward(self)].map(|program| Launch { program, grid, stages: 1 })
        })
    }

    /// Returns the operation with these kernels of the definition and of the partial gradients.
    fn with_kernels(&self, kernels: Option<[Launch; 2]>) -> Composite {
        let [forward, backward] = match kernels {
            Some(launches) => launches.map(|launch| Some(launch.custom_call())),
            None => [None, None],
        };
        let of = |definition, residuals, derivative, kernel| Composite {
            definition: Arc::new(definition),
            residuals,
            derivative,
            kernel,
        };
        let partial_gradients = of(self.partial_gradients(), 0, None, backward);
        let derivative = of(self.derivative(&partial_gradients), 0, None, None);
        of(self.definition(), 2, Some(Arc::new(derivative)), forward)
    }

    /// Returns (x, residual, bias, γ, β, words) → (output `[B, S, H]`, mean f32`[B, S]`, 1 / standard deviation f32`[B, S]`).
    fn definition(&self) -> Computation {
        let graph = Graph::new("layer_norm");
        let inputs = LayerNormInputs::from_parameters(&self.parameters(&graph));
        let Normed { output, mean, scale } = self.normed(inputs);
        graph.finish(&[output, mean, scale])
    }

    /// Appends the results.
    fn normed<'g>(&self, inputs: LayerNormInputs<'g>) -> Normed<'g> {
        let sum = self.sum(inputs);
        let mean = sum.mean(&[2]);
        let centered = sum - over_width(mean, sum);
        let scale = (centered.square().mean(&[2]) + self.epsilon).rsqrt();
        let normed = centered * over_width(scale, sum);
        let output = normed * over_positions(inputs.gamma, sum) + over_positions(inputs.beta, sum);
        Normed { output: output.convert(self.dtype), mean, scale }
    }

    /// Returns (x, residual, bias, γ, β, words, output, mean, scale, cotangent of the output) → cotangents of x, residual, bias, γ, β.
    fn derivative(&self, partial_gradients: &Composite) -> Computation {
        let graph = Graph::new("layer_norm.gradients");
        let operands = self.parameters(&graph);
        // The output is not read: γ may be zero, and the output is rounded.
        graph.parameter("output", self.hidden_shape());
        let of_results = self.parameters_of_gradients(&graph);
        let found = graph.composite(partial_gradients, &[&operands[..], &of_results].concat());
        let sums = found[2].reduce_sum(&[0]);
        let of_vector = |i: usize| sums.slice_in(0, i, i + 1).reshape(&[self.width]);
        graph.finish(&[found[0], found[1], of_vector(0), of_vector(1), of_vector(2)])
    }

    /// Returns (x, residual, bias, γ, β, words, mean, scale, cotangent of the output) → (cotangents of x and residual, sums of the
    /// cotangents of bias, γ and β over each block of positions f32`[blocks, 3, H]`).
    ///
    /// ```text
    /// x̂ = (sum − mean) · scale;   g = dy · γ;   ds = scale · (g − mean g − x̂ · mean (g · x̂))
    /// residual: ds;   x and bias: dropout(ds);   γ: dy · x̂;   β: dy
    /// ```
    fn partial_gradients(&self) -> Computation {
        let graph = Graph::new("layer_norm.partial_gradients");
        let inputs = LayerNormInputs::from_parameters(&self.parameters(&graph));
        let [mean, scale, cotangent] = self.parameters_of_gradients(&graph);
        let sum = self.sum(inputs);
        let normed = (sum - over_width(mean, sum)) * over_width(scale, sum);
        let of_output = cotangent.convert(self.sum_type());
        let of_normed = of_output * over_positions(inputs.gamma, sum);
        let along = over_width((of_normed * normed).mean(&[2]), sum);
        let of_sum = (of_normed - over_width(of_normed.mean(&[2]), sum) - normed * along) * over_width(scale, sum);
        let of_x = self.dropped(of_sum, inputs);
        let blocks = [of_x, of_output * normed, of_output].map(|of_vector| {
            let positions = self.rows * self.length / self.blocks();
            let sums = of_vector.reshape(&[self.blocks(), positions, self.width]).reduce_sum(&[1]);
            sums.reshape(&[self.blocks(), 1, self.width])
        });
        graph.finish(&[of_x.convert(self.dtype), of_sum.convert(self.dtype), graph.concatenate(&blocks, 1)])
    }

    /// Appends residual + dropout(x + bias), in the type of sums: `[B, S, H]`.
    fn sum<'g>(&self, inputs: LayerNormInputs<'g>) -> Tensor<'g> {
        let x = inputs.x.convert(self.sum_type());
        let x = x + over_positions(inputs.bias, x);
        inputs.residual.convert(self.sum_type()) + self.dropped(x, inputs)
    }

    /// Appends dropout of `x` `[B, S, H]`.
    fn dropped<'g>(&self, x: Tensor<'g>, inputs: LayerNormInputs<'g>) -> Tensor<'g> {
        inputs.words.map_or(x, |words| words.apply(x, self.dropout))
    }

    /// Appends the parameters of the definition.
    fn parameters<'g>(&self, graph: &'g Graph) -> Vec<Tensor<'g>> {
        let hidden = ["x", "residual"].map(|name| graph.parameter(name, self.hidden_shape()));
        let vectors = ["bias", "gamma", "beta"].map(|name| graph.parameter(name, self.vector_shape()));
        let words = if self.dropout > 0.0 { &["first_words", "second_words"][..] } else { &[] };
        let words = words.iter().map(|&name| graph.parameter(name, self.by_position(DType::U32)));
        hidden.into_iter().chain(vectors).chain(words).collect()
    }

    /// Appends the further parameters of the gradients: mean, scale, cotangent of the output.
    fn parameters_of_gradients<'g>(&self, graph: &'g Graph) -> [Tensor<'g>; 3] {
        let statistics = self.by_position(self.sum_type());
        let shapes = [("mean", statistics.clone()), ("scale", statistics), ("cotangent", self.hidden_shape())];
        shapes.map(|(name, shape)| graph.parameter(name, shape))
    }

    /// Returns the number of blocks of positions, of which each program of the kernels computes one.
    fn blocks(&self) -> usize {
        let positions = self.rows * self.length;
        if positions.is_multiple_of(kernels::BLOCK) { positions / kernels::BLOCK } else { 1 }
    }

    /// Returns the type of sums and vectors: f32, or wider if the activations are.
    fn sum_type(&self) -> DType {
        if self.dtype == DType::F64 { DType::F64 } else { DType::F32 }
    }

    fn hidden_shape(&self) -> Shape {
        Shape::new(self.dtype, [self.rows, self.length, self.width])
    }

    fn vector_shape(&self) -> Shape {
        Shape::new(self.sum_type(), [self.width])
    }

    fn by_position(&self, dtype: DType) -> Shape {
        Shape::new(dtype, [self.rows, self.length])
    }
}

impl FusedOperation for FusedLayerNorm {
    fn name(&self) -> String {
        format!("layer_norm {}", self.width)
    }

    fn composed(&self) -> Composite {
        self.with_kernels(None)
    }

    fn composite(&self) -> Composite {
        self.with_kernels(self.kernels())
    }

    fn result(&self) -> &'static str {
        "output"
    }

    fn differentiable(&self) -> &'static [&'static str] {
        &DIFFERENTIABLE
    }

    fn example(&self, seed: u64) -> Vec<HostTensor> {
        example::operands(self, seed)
    }

    fn example_cotangent(&self, seed: u64) -> HostTensor {
        example::cotangent(self, seed)
    }
}

/// Appends a number of each position `[B, S]` as `like` `[B, S, H]`.
fn over_width<'g>(x: Tensor<'g>, like: Tensor<'g>) -> Tensor<'g> {
    x.broadcast_like(like, &[0, 1])
}

/// Appends a vector `[H]` as `like` `[B, S, H]`.
fn over_positions<'g>(x: Tensor<'g>, like: Tensor<'g>) -> Tensor<'g> {
    x.broadcast_like(like, &[2])
}

#[cfg(test)]
mod tests;
