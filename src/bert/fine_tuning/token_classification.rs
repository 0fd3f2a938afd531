//! Classification of tokens: transformers' `BertForTokenClassification`, which has no pooler.

use super::{Objective, random_below, validate_classes};
use crate::batch::fine_tuning::LabelKind;
use crate::bert::loss::weighted_sums;
use crate::bert::params::Specs;
use crate::bert::{Bert, BertConfig};
use crate::graph::Tensor;
use crate::metrics::MetricKind;
use crate::rng::Stream;
use crate::shape::HostTensor;
use crate::task::{ParamSpec, Ratio};

/// One of `classes` classes for each position: logits = classifier(dropout(x)), loss = mean cross entropy over the labelled
/// positions of all rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenClassification {
    /// C, the number of classes.
    pub classes: usize,
}

impl Objective for TokenClassification {
    const LABELS: LabelKind = LabelKind::TokenClass;
    /// `[B, S, C]`
    const OUTPUTS: &'static [&'static str] = &["logits"];
    const RATIOS: &'static [Ratio] = &[
        Ratio { name: "token_loss", label: "classification loss", denominator: 0, kind: MetricKind::Loss },
        Ratio { name: "token_accuracy", label: "token accuracy", denominator: 0, kind: MetricKind::Share },
    ];

    fn validate(&self) -> anyhow::Result<()> {
        validate_classes(self.classes)
    }

    fn parameters(&self, model: &BertConfig) -> Vec<ParamSpec> {
        Specs::encoder(model).classifier(self.classes).list
    }

    fn outputs<'g>(&self, bert: &Bert<'_, 'g>, x: Tensor<'g>) -> Vec<Tensor<'g>> {
        vec![bert.classifier(x)]
    }

    fn sums<'g>(&self, outputs: &[Tensor<'g>], labels: &[Tensor<'g>], weights: Tensor<'g>) -> Vec<Tensor<'g>> {
        let (nll, correct) = weighted_sums(outputs[0], labels[0], weights);
        vec![nll, correct]
    }

    fn head_flops(&self, model: &BertConfig, sequence_length: usize) -> f64 {
        let [h, classes, s] = [model.hidden_size, self.classes, sequence_length].map(|n| n as f64);
        2.0 * h * classes * s
    }

    fn synthetic_labels(&self, stream: &mut Stream, rows: usize, sequence_length: usize) -> Vec<HostTensor> {
        let labels = random_below(stream, self.classes, rows * sequence_length);
        vec![HostTensor::new([rows, sequence_length], &labels)]
    }
}
