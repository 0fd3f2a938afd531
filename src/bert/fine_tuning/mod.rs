//! Fine-tuning of BERT on labelled rows. An [`Objective`] is the head, the loss and the metrics for one kind of labels;
//! [`FineTuning`] combines it with the encoder to a [`Task`].

mod question_answering;
mod regression;
mod sequence_classification;
mod token_classification;

use std::fmt::Debug;
use std::sync::Arc;

pub use question_answering::QuestionAnswering;
pub use regression::Regression;
pub use sequence_classification::SequenceClassification;
pub use token_classification::TokenClassification;

use super::flops::encoder_flops;
use super::{Bert, BertConfig, EncoderInputs, Head, Recompute, Site, inputs, synthetic};
use crate::batch::fine_tuning::{LabelKind, LabelledForm, LabelledTensors};
use crate::batch::{BatchSpec, HostBatch};
use crate::graph::Tensor;
use crate::rng::{Key, Stream};
use crate::shape::{DType, HostTensor};
use crate::task::{DropoutKey, Model, ParamSpec, Precision, Ratio, Task};

/// Fine-tuning of BERT on rows of one length.
#[derive(Clone, Debug, PartialEq)]
pub struct FineTuning<O> {
    /// The configuration of the model.
    pub model: BertConfig,
    /// S, the positions of a row.
    pub sequence_length: usize,
    /// The activations that the backward pass recomputes.
    pub recompute: Recompute,
    /// The head and its loss.
    pub objective: O,
}

/// The head, the loss and the metrics for one kind of labels.
///
/// Labels are the tensors of a batch behind the encoder's inputs; see [`crate::batch::fine_tuning::Labels`]. Losses and metrics
/// are means over the labels with weight 1.
pub trait Objective: Debug + Send + Sync {
    /// The labels of a row.
    const LABELS: LabelKind;
    /// The names of the outputs.
    const OUTPUTS: &'static [&'static str];
    /// The loss term and the metrics.
    const RATIOS: &'static [Ratio];

    /// Checks the objective itself.
    ///
    /// # Errors
    /// The value that is impossible, with what it requires.
    fn validate(&self) -> anyhow::Result<()> {
        Ok(())
    }

    /// Returns every learned tensor of the model, in declaration order.
    fn parameters(&self, model: &BertConfig) -> Vec<ParamSpec>;

    /// Appends the head: the hidden states x `[B, S, H]` → one tensor for each of [`Objective::OUTPUTS`], of the master type.
    fn outputs<'g>(&self, bert: &Bert<'_, 'g>, x: Tensor<'g>) -> Vec<Tensor<'g>>;

    /// Appends which labels are given, pred of the shape of a label: by default the classes from 0 on.
    fn is_labelled<'g>(labels: &[Tensor<'g>], _sequence_length: usize) -> Tensor<'g> {
        labels[0].ge(labels[0].filled(0.0))
    }

    /// Appends the numerators of [`Objective::RATIOS`] from the outputs, the labels, and the weight of each label.
    fn sums<'g>(&self, outputs: &[Tensor<'g>], labels: &[Tensor<'g>], weights: Tensor<'g>) -> Vec<Tensor<'g>>;

    /// Returns the floating-point operations of the head for one row, forward.
    fn head_flops(&self, model: &BertConfig, sequence_length: usize) -> f64;

    /// Builds random labels.
    fn synthetic_labels(&self, stream: &mut Stream, rows: usize, sequence_length: usize) -> Vec<HostTensor>;
}

/// Returns the task that trains a model with this head; none for [`Head::Pretraining`].
pub fn fine_tuning_task(
    model: &BertConfig,
    head: &Head,
    sequence_length: usize,
    recompute: Recompute,
) -> Option<Arc<dyn Task>> {
    let encoder = FineTuning { model: model.clone(), sequence_length, recompute, objective: () };
    match head {
        Head::Pretraining => None,
        Head::SequenceClassification { labels } => Some(encoder.with(SequenceClassification { classes: labels.len() })),
        Head::Regression => Some(encoder.with(Regression)),
        Head::TokenClassification { labels } => Some(encoder.with(TokenClassification { classes: labels.len() })),
        Head::QuestionAnswering => Some(encoder.with(QuestionAnswering)),
    }
}

impl FineTuning<()> {
    fn with<O: Objective + 'static>(self, objective: O) -> Arc<dyn Task> {
        let FineTuning { model, sequence_length, recompute, .. } = self;
        Arc::new(FineTuning { model, sequence_length, recompute, objective })
    }
}

impl<O: Objective> FineTuning<O> {
    fn form(&self) -> LabelledForm {
        LabelledForm { sequence_length: self.sequence_length, labels: O::LABELS }
    }

    /// Appends the weight of each label, of type `dtype`: 1, or 0 where there is no label or no token in the row.
    fn label_weights<'g>(&self, batch: &LabelledTensors<Tensor<'g>>, dtype: DType) -> Tensor<'g> {
        let has_token = batch.attention_mask.reduce_max(&[1]);
        let is_labelled = O::is_labelled(&batch.labels.into_vec(), self.sequence_length);
        let is_occupied = has_token.gt(has_token.filled(0.0)).broadcast_like(is_labelled, &[0]);
        is_labelled.and(is_occupied).convert(dtype)
    }
}

impl<O: Objective> Model for FineTuning<O> {
    fn validate(&self, rows: usize) -> anyhow::Result<()> {
        self.model.validate()?;
        self.objective.validate()?;
        inputs::validate(&self.model, rows, self.sequence_length)
    }

    fn parameters(&self) -> Vec<ParamSpec> {
        self.objective.parameters(&self.model)
    }

    fn batch(&self) -> BatchSpec {
        self.form().spec()
    }

    /// The tensors of [`Objective::OUTPUTS`]. They do not depend on the labels.
    fn outputs<'g>(
        &self,
        weights: &[Tensor<'g>],
        batch: &[Tensor<'g>],
        precision: Precision,
    ) -> Vec<(&'static str, Tensor<'g>)> {
        let params = self.parameters();
        let bert = Bert::new(&self.model, &params, weights, precision, None, Recompute::default());
        let x = bert.hidden_states(&LabelledTensors::from_vec(batch.to_vec()).encoder_inputs());
        O::OUTPUTS.iter().copied().zip(self.objective.outputs(&bert, x)).collect()
    }
}

impl<O: Objective> Task for FineTuning<O> {
    fn denominators(&self) -> &'static [&'static str] {
        &["labels"]
    }

    fn ratios(&self) -> &'static [Ratio] {
        O::RATIOS
    }

    fn denominator_sums<'g>(&self, batch: &[Tensor<'g>], dtype: DType) -> Vec<Tensor<'g>> {
        vec![self.label_weights(&LabelledTensors::from_vec(batch.to_vec()), dtype).sum()]
    }

    fn sums<'g>(
        &self,
        weights: &[Tensor<'g>],
        batch: &[Tensor<'g>],
        precision: Precision,
        dropout: Option<DropoutKey<'g>>,
    ) -> Vec<Tensor<'g>> {
        let batch = LabelledTensors::from_vec(batch.to_vec());
        let (graph, inputs) = (batch.input_ids.graph(), batch.encoder_inputs());
        let (sites, width) = (Site::count_with_classifier(self.model.num_hidden_layers), self.model.hidden_size);
        let dropout = dropout.map(|key| inputs.dropout(key, sites, width));
        let params = self.parameters();
        let bert = Bert::new(&self.model, &params, weights, precision, dropout, self.recompute).with_fixed_padding();
        let x = bert.hidden_states(&inputs);
        let outputs = graph.scope("head", || self.objective.outputs(&bert, x));
        graph.scope("loss", || {
            let weights = self.label_weights(&batch, precision.master());
            self.objective.sums(&outputs, &batch.labels.into_vec(), weights)
        })
    }

    fn training_flops(&self) -> f64 {
        // The backward pass costs two forward passes.
        let head = self.objective.head_flops(&self.model, self.sequence_length);
        3.0 * (encoder_flops(&self.model, self.sequence_length) + head)
    }

    fn synthetic_batch(&self, rows: usize) -> HostBatch {
        let length = self.sequence_length;
        let mut stream = Key::new(2).stream();
        let dims = [rows, length];
        let mut tensors = vec![
            HostTensor::new(dims, &synthetic::tokens(&mut stream, self.model.vocab_size, rows * length)),
            HostTensor::new(dims, &vec![1i32; rows * length]),
            HostTensor::new(dims, &(0..rows * length).map(|i| (2 * (i % length) >= length) as i32).collect::<Vec<_>>()),
        ];
        tensors.extend(self.objective.synthetic_labels(&mut stream, rows, length));
        let names = self.batch().tensors.into_iter().map(|tensor| tensor.name);
        HostBatch {
            rows,
            tensors: names.zip(tensors.into_iter().map(Arc::new)).collect(),
            row_length: length,
            tokens: rows * length,
            occupied_rows: rows,
            spare_rows: 0,
        }
    }
}

impl<'g> LabelledTensors<Tensor<'g>> {
    /// Returns the tensors that the encoder reads.
    fn encoder_inputs(&self) -> EncoderInputs<'g> {
        let LabelledTensors { input_ids, attention_mask, token_type_ids, .. } = *self;
        EncoderInputs { input_ids, attention_mask, token_type_ids, packed: None }
    }
}

/// Checks that a classifier has classes.
fn validate_classes(classes: usize) -> anyhow::Result<()> {
    anyhow::ensure!(classes > 0, "a classifier requires at least 1 class, got 0");
    Ok(())
}

/// Builds `n` random numbers below `limit`.
fn random_below(stream: &mut Stream, limit: usize, n: usize) -> Vec<i32> {
    (0..n).map(|_| stream.below(limit as u64) as i32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bert::{Preset, param_specs_of};

    fn heads() -> [Head; 4] {
        let labels: Vec<String> = ["a", "b", "c"].map(str::to_owned).to_vec();
        [
            Head::SequenceClassification { labels: labels.clone() },
            Head::Regression,
            Head::TokenClassification { labels },
            Head::QuestionAnswering,
        ]
    }

    fn tasks() -> Vec<Arc<dyn Task>> {
        let model = Preset::Tiny.config(100);
        heads().iter().map(|head| fine_tuning_task(&model, head, 10, Recompute::None).unwrap()).collect()
    }

    #[test]
    fn parameters_are_those_of_the_head() {
        let names = |task: &dyn Task| -> Vec<String> {
            let last = task.parameters().into_iter().rev().take(4).map(|param| param.name);
            last.filter(|name| !name.contains("encoder")).collect()
        };
        for (task, head) in tasks().iter().zip(heads()) {
            assert_eq!(task.parameters(), param_specs_of(&Preset::Tiny.config(100), &head));
        }
        let names: Vec<_> = tasks().iter().map(|task| names(&**task)).collect();
        let pooled = ["classifier.bias", "classifier.weight", "bert.pooler.dense.bias", "bert.pooler.dense.weight"];
        assert_eq!(names[0], pooled);
        assert_eq!(names[1], pooled);
        assert_eq!(names[2], ["classifier.bias", "classifier.weight"]);
        assert_eq!(names[3], ["qa_outputs.bias", "qa_outputs.weight"]);
        assert_eq!(tasks()[1].parameters().last().unwrap().dims, [1]);
    }

    #[test]
    fn synthetic_batch_has_the_tensors_of_the_task() {
        for task in tasks() {
            let batch = task.synthetic_batch(3);
            let found: Vec<_> = batch.tensors.iter().map(|(name, tensor)| (*name, tensor.shape().clone())).collect();
            assert_eq!(found, task.batch().shapes(3).collect::<Vec<_>>());
        }
    }

    #[test]
    fn flops_are_those_of_encoder_and_head() {
        let encoder = encoder_flops(&Preset::Tiny.config(100), 10);
        let pooler = 2.0 * 128.0 * 128.0;
        let heads = [pooler + 6.0 * 128.0, pooler + 2.0 * 128.0, 10.0 * 6.0 * 128.0, 10.0 * 4.0 * 128.0];
        let found: Vec<f64> = tasks().iter().map(|task| task.training_flops()).collect();
        assert_eq!(found, heads.map(|head| 3.0 * (encoder + head)));
    }

    #[test]
    fn impossible_settings_are_rejected() {
        let task = |sequence_length, classes| FineTuning {
            model: Preset::Tiny.config(100),
            sequence_length,
            recompute: Recompute::None,
            objective: SequenceClassification { classes },
        };
        task(512, 2).validate(4).unwrap();
        let error = task(513, 2).validate(4).unwrap_err().to_string();
        assert_eq!(error, "sequence_length requires 1 to max_position_embeddings (512), got 513");
        let error = task(512, 0).validate(4).unwrap_err().to_string();
        assert_eq!(error, "a classifier requires at least 1 class, got 0");
    }
}
