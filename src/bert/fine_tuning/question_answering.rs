//! Extractive question answering: transformers' `BertForQuestionAnswering`, which has no pooler and no dropout in its head.
//!
//! Source: google-research/bert `run_squad.py`, model_fn_builder. Positions of padding take part in the softmax, as there.

use super::{Objective, random_below};
use crate::batch::fine_tuning::LabelKind;
use crate::bert::loss::weighted_sums;
use crate::bert::params::Specs;
use crate::bert::{Bert, BertConfig};
use crate::graph::Tensor;
use crate::metrics::MetricKind;
use crate::rng::Stream;
use crate::shape::HostTensor;
use crate::task::{ParamSpec, Ratio};

/// The first and the last token of an answer: the loss is the mean cross entropy over the positions of a row, averaged over the
/// two ends. Rows whose answer is not completely at positions `0..S` have no weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuestionAnswering;

impl Objective for QuestionAnswering {
    const LABELS: LabelKind = LabelKind::Span;
    /// `[B, S]` each
    const OUTPUTS: &'static [&'static str] = &["start_logits", "end_logits"];
    const RATIOS: &'static [Ratio] = &[
        Ratio { name: "span_loss", label: "span loss", denominator: 0, kind: MetricKind::Loss },
        Ratio { name: "start_accuracy", label: "start accuracy", denominator: 0, kind: MetricKind::Share },
        Ratio { name: "end_accuracy", label: "end accuracy", denominator: 0, kind: MetricKind::Share },
    ];

    fn parameters(&self, model: &BertConfig) -> Vec<ParamSpec> {
        Specs::encoder(model).span_head().list
    }

    fn outputs<'g>(&self, bert: &Bert<'_, 'g>, x: Tensor<'g>) -> Vec<Tensor<'g>> {
        bert.span_head(x).to_vec()
    }

    fn is_labelled<'g>(labels: &[Tensor<'g>], sequence_length: usize) -> Tensor<'g> {
        let is_in_row = |position: Tensor<'g>| {
            position.ge(position.filled(0.0)).and(position.lt(position.filled(sequence_length as f64)))
        };
        is_in_row(labels[0]).and(is_in_row(labels[1]))
    }

    fn sums<'g>(&self, outputs: &[Tensor<'g>], labels: &[Tensor<'g>], weights: Tensor<'g>) -> Vec<Tensor<'g>> {
        let (start_nll, start_correct) = weighted_sums(outputs[0], labels[0], weights);
        let (end_nll, end_correct) = weighted_sums(outputs[1], labels[1], weights);
        vec![(start_nll + end_nll) * 0.5, start_correct, end_correct]
    }

    fn head_flops(&self, model: &BertConfig, sequence_length: usize) -> f64 {
        let [h, s] = [model.hidden_size, sequence_length].map(|n| n as f64);
        4.0 * h * s
    }

    fn synthetic_labels(&self, stream: &mut Stream, rows: usize, sequence_length: usize) -> Vec<HostTensor> {
        let mut positions = || HostTensor::new([rows], &random_below(stream, sequence_length, rows));
        vec![positions(), positions()]
    }
}
