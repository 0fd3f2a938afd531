//! Classification of rows: transformers' `BertForSequenceClassification` with `single_label_classification`.

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

/// One of `classes` classes for each row: logits = classifier(dropout(pooler(first token))), loss = mean cross entropy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SequenceClassification {
    /// C, the number of classes.
    pub classes: usize,
}

impl Objective for SequenceClassification {
    const LABELS: LabelKind = LabelKind::Class;
    /// `[B, C]`
    const OUTPUTS: &'static [&'static str] = &["logits"];
    const RATIOS: &'static [Ratio] = &[
        Ratio { name: "classification_loss", label: "classification loss", denominator: 0, kind: MetricKind::Loss },
        Ratio { name: "accuracy", label: "accuracy", denominator: 0, kind: MetricKind::Share },
    ];

    fn validate(&self) -> anyhow::Result<()> {
        validate_classes(self.classes)
    }

    fn parameters(&self, model: &BertConfig) -> Vec<ParamSpec> {
        Specs::encoder(model).pooler().classifier(self.classes).list
    }

    fn outputs<'g>(&self, bert: &Bert<'_, 'g>, x: Tensor<'g>) -> Vec<Tensor<'g>> {
        vec![bert.classifier(bert.pooler(bert.first_token(x)))]
    }

    fn sums<'g>(&self, outputs: &[Tensor<'g>], labels: &[Tensor<'g>], weights: Tensor<'g>) -> Vec<Tensor<'g>> {
        let (nll, correct) = weighted_sums(outputs[0], labels[0], weights);
        vec![nll, correct]
    }

    fn head_flops(&self, model: &BertConfig, _sequence_length: usize) -> f64 {
        pooled_flops(model, self.classes)
    }

    fn synthetic_labels(&self, stream: &mut Stream, rows: usize, _sequence_length: usize) -> Vec<HostTensor> {
        vec![HostTensor::new([rows], &random_below(stream, self.classes, rows))]
    }
}

/// Returns the floating-point operations of pooler and classifier for one row.
pub(super) fn pooled_flops(model: &BertConfig, outputs: usize) -> f64 {
    let [h, outputs] = [model.hidden_size, outputs].map(|n| n as f64);
    2.0 * h * h + 2.0 * h * outputs
}
