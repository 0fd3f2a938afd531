//! The programs without gradients: [`EvalStep`] for numbers to be averaged over many batches, [`ForwardStep`] for what the
//! model says about one.

use anyhow::{Result, ensure};

use super::program::{Arguments, Program, Results, Role};
use super::train_step::{check_positions, vector};
use crate::bert::{BatchForm, Bert, BertConfig, Examples, ParamSpec, Precision, Recompute, param_specs};
use crate::graph::Graph;

/// A forward pass over `rows` rows, without dropout.
#[derive(Clone, Debug, PartialEq)]
pub struct EvalSpec {
    pub model: BertConfig,
    pub precision: Precision,
    pub sequence_length: usize,
    pub predictions: usize,
    pub rows: usize,
    /// Replicas run the same program on batches of their own and exchange nothing.
    pub replicas: usize,
}

/// The elements of [`EvalStep`]'s result `sums`, in order. They are sums and not means so that batches and replicas
/// add up: loss is Σ `mlm_nll` / Σ `mlm_weight`, and so on. Rows of padding only count nowhere.
pub const SUMS: [&str; 6] = ["mlm_nll", "mlm_weight", "mlm_correct", "nsp_nll", "nsp_rows", "nsp_correct"];

/// Losses and right answers of one batch. Arguments: weights, batch. Result: `sums` ([`SUMS`]).
#[derive(Clone, Debug, PartialEq)]
pub struct EvalStep {
    pub program: Program,
    pub params: Vec<ParamSpec>,
}

/// What the model says about one batch. Arguments: weights, batch. Results: `sequence_output` \[B,S,H\],
/// `masked_lm_logits` \[B,P,V\] without the padded vocabulary, `seq_relationship_logits` \[B,2\].
#[derive(Clone, Debug, PartialEq)]
pub struct ForwardStep {
    pub program: Program,
    pub params: Vec<ParamSpec>,
}

impl EvalStep {
    /// # Errors
    /// If the spec contradicts itself.
    pub fn build(spec: &EvalSpec) -> Result<EvalStep> {
        let (program, params) = spec.build("eval_step", |bert, examples, results| {
            let (sums, master) = (bert.sums(examples), spec.precision.master());
            let sums = [
                sums.mlm_nll,
                examples.masked_lm_weights.convert(master).sum(),
                sums.mlm_correct,
                sums.nsp_nll,
                examples.sequence_weights(master).sum(),
                sums.nsp_correct,
            ];
            results.add("sums", Role::Report, vector(&sums));
        })?;
        Ok(EvalStep { program, params })
    }
}

impl ForwardStep {
    /// # Errors
    /// If the spec contradicts itself.
    pub fn build(spec: &EvalSpec) -> Result<ForwardStep> {
        let (program, params) = spec.build("forward_step", |bert, examples, results| {
            let outputs = bert.forward(examples);
            let logits = outputs.masked_lm_logits.slice_in(2, 0, spec.model.vocab_size);
            results.add("sequence_output", Role::Batch, outputs.sequence_output);
            results.add("masked_lm_logits", Role::Batch, logits);
            results.add("seq_relationship_logits", Role::Batch, outputs.seq_relationship_logits);
        })?;
        Ok(ForwardStep { program, params })
    }
}

impl EvalSpec {
    fn build(
        &self,
        name: &str,
        body: impl for<'g> FnOnce(&Bert<'_, 'g>, &Examples<'g>, &mut Results<'g>),
    ) -> Result<(Program, Vec<ParamSpec>)> {
        self.model.validate()?;
        self.model.validate_batch(self.sequence_length, self.predictions)?;
        ensure!(self.rows > 0 && self.replicas > 0, "rows and replicas require at least 1, got 0");
        check_positions(self.rows, self.sequence_length)?;
        let params = param_specs(&self.model);
        let graph = Graph::new(name);
        let mut arguments = Arguments::new(&graph);
        let weights = arguments.weights(&params, |param| param.shape(self.precision.master()));
        let EvalSpec { rows, sequence_length, predictions, .. } = *self;
        let form = BatchForm { rows, sequence_length, predictions, sequences_per_row: 1 };
        let batch = Examples::new(&arguments.batch(form));
        let bert = Bert::new(&self.model, &params, &weights, self.precision, None, Recompute::default());
        let mut results = Results::default();
        body(&bert, &batch, &mut results);
        Ok((Program::new(arguments, results, Vec::new(), self.replicas), params))
    }
}
