//! Regression of rows: transformers' `BertForSequenceClassification` with `regression` and one output.

use super::Objective;
use super::sequence_classification::pooled_flops;
use crate::batch::fine_tuning::LabelKind;
use crate::bert::params::Specs;
use crate::bert::{Bert, BertConfig};
use crate::graph::Tensor;
use crate::metrics::MetricKind;
use crate::rng::Stream;
use crate::shape::HostTensor;
use crate::task::{ParamSpec, Ratio};

/// One number for each row: ŷ = classifier(dropout(pooler(first token))), loss = mean of (y − ŷ)².
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Regression;

impl Objective for Regression {
    const LABELS: LabelKind = LabelKind::Value;
    /// `[B, 1]`
    const OUTPUTS: &'static [&'static str] = &["logits"];
    const RATIOS: &'static [Ratio] = &[Ratio {
        name: "mean_squared_error",
        label: "mean squared error",
        denominator: 0,
        kind: MetricKind::SquaredError,
    }];

    fn parameters(&self, model: &BertConfig) -> Vec<ParamSpec> {
        Specs::encoder(model).pooler().classifier(1).list
    }

    fn outputs<'g>(&self, bert: &Bert<'_, 'g>, x: Tensor<'g>) -> Vec<Tensor<'g>> {
        vec![bert.classifier(bert.pooler(bert.first_token(x)))]
    }

    /// A missing number is NaN.
    fn is_labelled<'g>(labels: &[Tensor<'g>], _sequence_length: usize) -> Tensor<'g> {
        labels[0].is_finite()
    }

    fn sums<'g>(&self, outputs: &[Tensor<'g>], labels: &[Tensor<'g>], weights: Tensor<'g>) -> Vec<Tensor<'g>> {
        let predicted = outputs[0].reshape(&weights.dims());
        let labels = labels[0].convert(weights.dtype());
        // A product with weight 0 would keep NaN.
        let error = weights.gt(weights.filled(0.0)).select(labels - predicted, weights.filled(0.0));
        vec![error.square().sum()]
    }

    fn head_flops(&self, model: &BertConfig, _sequence_length: usize) -> f64 {
        pooled_flops(model, 1)
    }

    fn synthetic_labels(&self, stream: &mut Stream, rows: usize, _sequence_length: usize) -> Vec<HostTensor> {
        vec![HostTensor::new([rows], &(0..rows).map(|_| stream.normal() as f32).collect::<Vec<_>>())]
    }
}
