//! BERT pretraining as a [`Task`]: masked language modelling, and next-sentence or sentence-order prediction.
//!
//! Source: google-research/bert `run_pretraining.py`. The loss is Σ w·nll / Σ w over masked tokens plus the mean over
//! sequences of the second label's negative log-likelihood.

use std::ops::Range;
use std::sync::Arc;

use super::flops::training_flops;
use super::loss::weighted_sums;
use super::positions::at_positions;
use super::{Bert, BertConfig, EncoderInputs, Kernels, Layers, Recompute, Site, inputs, param_specs, synthetic};
use crate::batch::pretraining::{PackedTensors, PretrainingTensors, RowForm};
use crate::batch::{BatchSpec, HostBatch};
use crate::graph::Tensor;
use crate::metrics::MetricKind;
use crate::rng::Key;
use crate::shape::{DType, HostTensor, Shape};
use crate::task::{DropoutKey, Model, ParamSpec, Precision, Ratio, Task};

/// The tensors of a batch in a graph.
pub type BatchTensors<'g> = PretrainingTensors<Tensor<'g>>;

/// Sums over a micro-batch, scalars of the master type.
#[derive(Clone, Copy)]
pub struct Sums<'g> {
    /// Σ w·nll over masked positions.
    pub mlm_nll: Tensor<'g>,
    /// Σ w over masked positions whose label has the highest logit (a tie counts).
    pub mlm_correct: Tensor<'g>,
    /// Σ nll over sequences.
    pub nsp_nll: Tensor<'g>,
    /// The number of sequences whose label has the higher logit.
    pub nsp_correct: Tensor<'g>,
}

/// The outputs of the model for a micro-batch.
#[derive(Clone, Copy)]
pub struct Outputs<'g> {
    /// `[B, S, H]`
    pub sequence_output: Tensor<'g>,
    /// `[B, P, V]`, with the padded vocabulary.
    pub masked_lm_logits: Tensor<'g>,
    /// `[B, 2]`, in packed rows `[B, K, 2]`
    pub seq_relationship_logits: Tensor<'g>,
}

/// Pretraining of `BertForPreTraining` on rows of one form.
#[derive(Clone, Debug, PartialEq)]
pub struct BertPretraining {
    /// The configuration of the model.
    pub model: BertConfig,
    /// The form of the rows.
    pub rows: RowForm,
    /// Whether a batch may have fewer examples than rows, as in a ramp of the batch.
    pub spare_rows: bool,
    /// Whether examples are pairs of segments with a label; single segments have none.
    pub sentence_pairs: bool,
    /// The activations that the backward pass recomputes.
    pub recompute: Recompute,
    /// The form of the encoder's layers in the programs of training and evaluation steps.
    pub layers: Layers,
    /// The forms of the operations that have kernels, in these programs.
    pub kernels: Kernels,
}

/// The second denominator: sequences with a label of their second segment.
const SEQUENCES: usize = 1;
/// The first denominator: the weights of masked positions.
const MASKED: usize = 0;

impl Model for BertPretraining {
    fn validate(&self, rows: usize) -> anyhow::Result<()> {
        let RowForm { sequence_length, max_predictions, sequences_per_row } = self.rows;
        self.model.validate()?;
        self.model.validate_batch(sequence_length, max_predictions)?;
        anyhow::ensure!(
            (1..=sequence_length).contains(&sequences_per_row),
            "sequences_per_row requires 1 to sequence_length ({sequence_length}), got {sequences_per_row}"
        );
        inputs::validate(&self.model, rows, sequence_length)
    }

    fn parameters(&self) -> Vec<ParamSpec> {
        param_specs(&self.model)
    }

    fn batch(&self) -> BatchSpec {
        self.rows.spec()
    }

    /// `sequence_output` \[B,S,H\], `masked_lm_logits` \[B,P,V\] without the padded vocabulary, `seq_relationship_logits`
    /// \[B,2\], in packed rows \[B,K,2\].
    fn outputs<'g>(
        &self,
        weights: &[Tensor<'g>],
        batch: &[Tensor<'g>],
        precision: Precision,
    ) -> Vec<(&'static str, Tensor<'g>)> {
        let params = self.parameters();
        let bert = Bert::new(&self.model, &params, weights, precision, None, Recompute::default());
        let outputs = bert.forward(&BatchTensors::from_vec(batch.to_vec()));
        vec![
            ("sequence_output", outputs.sequence_output),
            ("masked_lm_logits", outputs.masked_lm_logits.slice_in(2, 0, self.model.vocab_size)),
            ("seq_relationship_logits", outputs.seq_relationship_logits),
        ]
    }
}

impl Task for BertPretraining {
    fn denominators(&self) -> &'static [&'static str] {
        &["mlm_weight", "nsp_rows"]
    }

    fn ratios(&self) -> &'static [Ratio] {
        &[
            Ratio { name: "mlm_loss", label: "MLM loss", denominator: MASKED, kind: MetricKind::Loss },
            Ratio { name: "mlm_accuracy", label: "MLM accuracy", denominator: MASKED, kind: MetricKind::Share },
            Ratio { name: "nsp_loss", label: "NSP loss", denominator: SEQUENCES, kind: MetricKind::Loss },
            Ratio { name: "nsp_accuracy", label: "NSP accuracy", denominator: SEQUENCES, kind: MetricKind::Share },
        ]
    }

    fn denominator_sums<'g>(&self, batch: &[Tensor<'g>], dtype: DType) -> Vec<Tensor<'g>> {
        let batch = BatchTensors::from_vec(batch.to_vec());
        vec![batch.masked_lm_weights.convert(dtype).sum(), batch.sequence_weights(dtype).sum()]
    }

    fn sums<'g>(
        &self,
        weights: &[Tensor<'g>],
        batch: &[Tensor<'g>],
        precision: Precision,
        dropout: Option<DropoutKey<'g>>,
    ) -> Vec<Tensor<'g>> {
        let batch = BatchTensors::from_vec(batch.to_vec());
        let (sites, width) = (Site::count(self.model.num_hidden_layers), self.model.hidden_size);
        let dropout = dropout.map(|key| batch.encoder_inputs().dropout(key, sites, width));
        let params = self.parameters();
        let bert =
            Bert::new(&self.model, &params, weights, precision, dropout, self.recompute).with_layers(self.layers);
        let sums = bert.with_kernels(self.kernels).sums(&batch);
        vec![sums.mlm_nll, sums.mlm_correct, sums.nsp_nll, sums.nsp_correct]
    }

    /// Packed batches, and those of a ramp of the batch, fill their first rows only; how many is known when the batch is there.
    fn occupied_rows<'g>(&self, batch: &[Tensor<'g>]) -> Option<Tensor<'g>> {
        let batch = BatchTensors::from_vec(batch.to_vec());
        (batch.packed.is_some() || self.spare_rows).then(|| {
            let sequences = batch.attention_mask.reduce_max(&[1]);
            sequences.gt(sequences.filled(0.0))
        })
    }

    fn training_flops(&self) -> f64 {
        let RowForm { sequence_length, max_predictions, sequences_per_row } = self.rows;
        // A full row holds sequences of equal lengths.
        let of_sequence =
            training_flops(&self.model, sequence_length / sequences_per_row, max_predictions / sequences_per_row);
        of_sequence * sequences_per_row as f64
    }

    fn unreported(&self) -> &'static [&'static str] {
        if self.sentence_pairs { &[] } else { &["nsp_loss", "nsp_accuracy"] }
    }

    fn examples_per_row(&self) -> usize {
        self.rows.sequences_per_row
    }

    fn synthetic_batch(&self, rows: usize) -> HostBatch {
        synthetic_batch(self.rows, self.model.vocab_size, rows)
    }
}

impl<'g> Bert<'_, 'g> {
    /// Appends the forward pass; outputs have the master type.
    pub fn forward(&self, batch: &BatchTensors<'g>) -> Outputs<'g> {
        let inputs = batch.encoder_inputs();
        let x = self.hidden_states(&inputs);
        let (masked, first) = (at_positions(x, batch.masked_lm_positions), self.first_tokens(x, &inputs));
        let of_each = |logits: Tensor<'g>, labels: Tensor<'g>| {
            logits.reshape(&[&labels.dims()[..], &logits.dims()[1..]].concat())
        };
        let [masked_lm, seq_relationship] = self.logits(masked, first);
        Outputs {
            sequence_output: self.master(x),
            masked_lm_logits: of_each(masked_lm, batch.masked_lm_ids),
            seq_relationship_logits: of_each(seq_relationship, batch.next_sentence_labels),
        }
    }

    /// Appends the logits of both heads from the hidden states of masked positions `[B·P, H]` and of first tokens `[B·K, H]`.
    fn logits(&self, masked: Tensor<'g>, first: Tensor<'g>) -> [Tensor<'g>; 2] {
        let graph = masked.graph();
        [graph.scope("mlm", || self.mlm_head(masked)), graph.scope("nsp", || self.nsp_head(first))]
    }

    /// Appends both losses and both counts of correct predictions, summed over the micro-batch. The last layer is computed at
    /// the positions that the heads read.
    pub fn sums(&self, batch: &BatchTensors<'g>) -> Sums<'g> {
        let (graph, positions) = (batch.input_ids.graph(), batch.masked_lm_positions);
        let (rows, predictions) = (positions.dims()[0], positions.dims()[1]);
        let first = match batch.packed {
            None => graph.full(0.0, Shape::new(DType::S32, [rows, 1])),
            Some(packed) => packed.cls_positions,
        };
        let read = graph.concatenate(&[positions, first], 1);
        let x = self.hidden_states_at(&batch.encoder_inputs(), read);
        let states = |range: Range<usize>| {
            x.slice_in(1, range.start, range.end).reshape(&[rows * range.len(), self.config.hidden_size])
        };
        let logits = self.logits(states(0..predictions), states(predictions..read.dims()[1]));
        self.sums_of(batch, logits)
    }

    /// Appends the sums from the logits of masked positions `[B·P, V]` and of sequences `[B·K, 2]`.
    fn sums_of(&self, batch: &BatchTensors<'g>, [masked_lm, seq_relationship]: [Tensor<'g>; 2]) -> Sums<'g> {
        batch.input_ids.graph().scope("loss", || {
            let (mlm_nll, mlm_correct) =
                weighted_sums(masked_lm, batch.masked_lm_ids, self.master(batch.masked_lm_weights));
            let sequence_weights = batch.sequence_weights(self.precision.master());
            let (nsp_nll, nsp_correct) = weighted_sums(seq_relationship, batch.next_sentence_labels, sequence_weights);
            Sums { mlm_nll, mlm_correct, nsp_nll, nsp_correct }
        })
    }
}

impl<'g> BatchTensors<'g> {
    /// Returns the tensors that the encoder reads.
    pub fn encoder_inputs(&self) -> EncoderInputs<'g> {
        let BatchTensors { input_ids, attention_mask, token_type_ids, packed, .. } = *self;
        EncoderInputs { input_ids, attention_mask, token_type_ids, packed }
    }

    /// Appends the weight of each sequence in the loss of its second label, of type `dtype`: `[B]`, in packed rows `[B, K]`.
    /// It is 1, or 0 where a row has no sequence (rows of padding fill up a last batch) and where a sequence has no label
    /// (Hugging Face's −100).
    pub fn sequence_weights(&self, dtype: DType) -> Tensor<'g> {
        let sequences = self.attention_mask.reduce_max(&[1]);
        let present = match self.packed {
            None => sequences.gt(sequences.filled(0.0)),
            Some(packed) => {
                let place = sequences.graph().iota(packed.cls_positions.shape(), 1);
                place.lt(sequences.broadcast_like(place, &[0]))
            }
        };
        let (present, labels) = (present.convert(dtype), self.next_sentence_labels);
        labels.ge(labels.filled(0.0)).select(present, present.filled(0.0))
    }
}

/// Builds full rows of random tokens, each with [`RowForm::sequences_per_row`] sequences of equal length.
fn synthetic_batch(form: RowForm, vocab_size: usize, rows: usize) -> HostBatch {
    let RowForm { sequence_length: length, max_predictions: predictions, sequences_per_row: per_row } = form;
    let of_sequence = length / per_row;
    // The last sequence of a row has the remainder.
    let sequence = |position: usize| (position / of_sequence).min(per_row - 1);
    let mut stream = Key::new(2).stream();
    let mut tokens = |n: usize| synthetic::tokens(&mut stream, vocab_size, n);
    let positions = |value: &dyn Fn(usize) -> usize| -> HostTensor {
        HostTensor::new([rows, length], &(0..rows * length).map(|i| value(i % length) as i32).collect::<Vec<_>>())
    };
    let sequences = |value: &dyn Fn(usize) -> usize| -> HostTensor {
        HostTensor::new([rows, per_row], &(0..rows * per_row).map(|i| value(i) as i32).collect::<Vec<_>>())
    };
    let labels = sequences(&|i| i % 2);
    let tensors = PretrainingTensors {
        input_ids: HostTensor::new([rows, length], &tokens(rows * length)),
        attention_mask: positions(&|at| sequence(at) + 1),
        token_type_ids: positions(&|at| (at % of_sequence >= of_sequence / 2) as usize),
        masked_lm_positions: HostTensor::new(
            [rows, predictions],
            &(0..rows * predictions).map(|i| (i % predictions * length / predictions) as i32).collect::<Vec<_>>(),
        ),
        masked_lm_ids: HostTensor::new([rows, predictions], &tokens(rows * predictions)),
        masked_lm_weights: HostTensor::new([rows, predictions], &vec![1.0f32; rows * predictions]),
        next_sentence_labels: match per_row {
            1 => HostTensor::new([rows], &labels.to_vec::<i32>().expect("labels are s32")),
            _ => labels,
        },
        packed: (per_row > 1).then(|| PackedTensors {
            position_ids: positions(&|at| at - sequence(at) * of_sequence),
            cls_positions: sequences(&|i| i % per_row * of_sequence),
            example_ids: sequences(&|i| i),
        }),
    };
    HostBatch {
        rows,
        tensors: form
            .spec()
            .tensors
            .iter()
            .map(|spec| spec.name)
            .zip(tensors.into_vec().into_iter().map(Arc::new))
            .collect(),
        row_length: length,
        tokens: rows * length,
        occupied_rows: rows,
        spare_rows: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autodiff::gradients;
    use crate::bert::{Kernel, Preset};
    use crate::eval::evaluate;
    use crate::graph::Graph;

    /// The same dropout masks too, in plain and in packed rows.
    #[test]
    fn sums_and_gradients_do_not_depend_on_the_form_of_layers_and_operations() {
        for sequences_per_row in [1, 3] {
            let small = BertConfig {
                hidden_size: 8,
                num_hidden_layers: 3,
                num_attention_heads: 2,
                intermediate_size: 12,
                initializer_range: 0.3,
                ..Preset::Tiny.config(60)
            };
            let rows = RowForm { sequence_length: 12, max_predictions: 4, sequences_per_row };
            let task = BertPretraining {
                model: small,
                rows,
                spare_rows: false,
                sentence_pairs: true,
                recompute: Recompute::None,
                layers: Layers::Unrolled,
                kernels: Kernels::default(),
            };
            let (params, graph) = (task.parameters(), Graph::new("sums"));
            let weights: Vec<_> = params.iter().map(|p| graph.parameter(&p.name, p.shape(DType::F64))).collect();
            let batch = task.synthetic_batch(3);
            let batch = batch.tensors.iter().map(|(_, tensor)| graph.constant((**tensor).clone())).collect();
            let batch = BatchTensors::from_vec(batch);
            let word = |value| graph.constant(HostTensor::scalar::<u32>(value));
            let seed = graph.constant(HostTensor::new([2], &[1u32, 2]));
            let key = DropoutKey { seed, step: word(3), first_row: word(7) };
            let sites = Site::count(task.model.num_hidden_layers);
            let dropout = batch.encoder_inputs().dropout(key, sites, task.model.hidden_size);
            let bert = || Bert::new(&task.model, &params, &weights, Precision::F64, Some(dropout), Recompute::None);
            let Outputs { masked_lm_logits, seq_relationship_logits, .. } = bert().forward(&batch);
            let everywhere = bert().sums_of(&batch, [masked_lm_logits, seq_relationship_logits]);
            let composed = Kernels::default();
            let [attention, layer_norm] = Kernel::ALL.map(|kernel| composed.fusing(kernel));
            let forms = [
                (Layers::Unrolled, composed),
                (Layers::Loop, composed),
                (Layers::Unrolled, attention),
                (Layers::Unrolled, layer_norm),
                (Layers::Loop, attention.fusing(Kernel::LayerNorm)),
            ];
            let of_forms = forms.map(|(layers, kernels)| bert().with_layers(layers).with_kernels(kernels).sums(&batch));
            let all = [everywhere].into_iter().chain(of_forms);
            let outputs = all.map(|sums| {
                let loss = sums.mlm_nll + sums.nsp_nll;
                [vec![loss, sums.mlm_correct, sums.nsp_correct], gradients(loss, &weights)].concat()
            });
            let outputs: Vec<_> = outputs.collect();
            let arguments: Vec<HostTensor> =
                params.iter().map(|p| HostTensor::from_f64(p.shape(DType::F64), &p.initial(9).to_f64())).collect();
            let values = evaluate(&graph.finish(&outputs.concat()), &arguments).unwrap();
            let (expected, found) = values.split_at(outputs[0].len());
            for (found, expected) in found.iter().zip(expected.iter().cycle()) {
                for (x, y) in found.to_f64().into_iter().zip(expected.to_f64()) {
                    assert!((x - y).abs() <= 1e-11 * (1.0 + y.abs()), "{x}, expected {y}");
                }
            }
        }
    }

    #[test]
    fn synthetic_batch_has_the_tensors_of_the_task() {
        for sequences_per_row in [1, 3] {
            let rows = RowForm { sequence_length: 10, max_predictions: 4, sequences_per_row };
            let task = BertPretraining {
                model: Preset::Tiny.config(100),
                rows,
                spare_rows: false,
                sentence_pairs: true,
                recompute: Recompute::None,
                layers: Layers::Unrolled,
                kernels: Kernels::default(),
            };
            let batch = task.synthetic_batch(2);
            let found: Vec<_> = batch.tensors.iter().map(|(name, tensor)| (*name, tensor.shape().clone())).collect();
            assert_eq!(found, task.batch().shapes(2).collect::<Vec<_>>());
        }
    }
}
