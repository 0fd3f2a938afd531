//! The fine-tuning tasks and prediction models in the f64 evaluator: transformers' logits and losses, gradients by finite
//! differences, independence of the split, missing labels, dropout, and pooling.

use std::sync::Arc;

use crate::common::fine_tuning::{Fixture, fixture, others};
use crate::common::steps::{assert_close, small};
use crate::common::task_steps::{assert_results_close, unsharded};
use lambert::batch::HostBatch;
use lambert::bert::{
    BertConfig, Encoder, EncoderOutput, FineTuning, Head, MaskedLanguageModel, Recompute, SequenceClassification,
    fine_tuning_task,
};
use lambert::eval::evaluate;
use lambert::optim::OptimizerConfig;
use lambert::rng::Key;
use lambert::runtime::backend::{Backend, Evaluator};
use lambert::shape::{DType, HostTensor};
use lambert::step::sharding::Shards;
use lambert::step::{
    ForwardSpec, ForwardStep, GradientStep, Parallel, Program, Role, Scalars, StepInputs, StepSpec, TrainStep,
};
use lambert::task::{Model, Precision, Task};

const ROWS: usize = 6;

#[test]
fn outputs_equal_those_of_transformers() {
    fixture().assert_outputs(&Evaluator { replicas: 1 }, Precision::F64, 1e-10);
}

#[test]
fn losses_of_adamw_steps_equal_those_of_transformers() {
    fixture().assert_losses(&Evaluator { replicas: 1 }, Precision::F64, 20, 1e-8);
}

/// A model of one layer, so that finite differences are fast.
fn model() -> BertConfig {
    BertConfig { num_hidden_layers: 1, hidden_size: 6, num_attention_heads: 2, intermediate_size: 8, ..small() }
}

fn heads() -> [Head; 4] {
    let labels: Vec<String> = ["a", "b", "c"].map(str::to_owned).to_vec();
    [
        Head::SequenceClassification { labels: labels.clone() },
        Head::Regression,
        Head::TokenClassification { labels },
        Head::QuestionAnswering,
    ]
}

/// Returns a random batch in which the first row has no label, the second has padding, and the last is empty.
fn batch(task: &dyn Task) -> HostBatch {
    let mut batch = task.synthetic_batch(ROWS);
    let length = batch.row_length;
    for (name, tensor) in &mut batch.tensors {
        let (mut values, width) = (tensor.to_f64(), tensor.shape().elements() / ROWS);
        let is_label = name.contains("labels") || name.contains("positions");
        if is_label {
            let none = if tensor.shape().dtype.is_float() { f64::NAN } else { -100.0 };
            values[..width].fill(none);
        } else {
            values[2 * length - 3..2 * length].fill(0.0);
        }
        values[(ROWS - 1) * width..].fill(0.0);
        *tensor = Arc::new(HostTensor::from_f64(tensor.shape().clone(), &values));
    }
    batch
}

fn weights(params: &[lambert::task::ParamSpec]) -> Vec<HostTensor> {
    params.iter().map(|param| HostTensor::from_f64(param.shape(DType::F64), &param.initial(7).to_f64())).collect()
}

fn spec(task: Arc<dyn Task>, accumulation_steps: usize, replicas: usize) -> StepSpec {
    StepSpec {
        task,
        optimizer: OptimizerConfig::default(),
        precision: Precision::F64,
        rows: ROWS / replicas,
        accumulation_steps,
        replicas,
        parallel: Parallel::default(),
        dropout: false,
        ema_decay: None,
    }
}

#[test]
fn gradients_equal_finite_differences() {
    for head in heads() {
        let task = fine_tuning_task(&model(), &head, 8, Recompute::None).unwrap();
        let program = GradientStep::build(&spec(task.clone(), 1, 1)).unwrap().program;
        let others = others(&program, &batch(&*task), Scalars::FORWARD);
        let weights = weights(&task.parameters());
        let outputs = |weights: &[HostTensor]| -> Vec<Vec<f64>> {
            let arguments: Vec<HostTensor> = weights.iter().chain(&others).cloned().collect();
            evaluate(&program.computation, &arguments).unwrap().iter().map(|value| value.to_f64()).collect()
        };
        let gradients = outputs(&weights);
        let (step, mut stream) = (1e-5, Key::new(3).stream());
        for (i, weight) in weights.iter().enumerate() {
            let name = &program.inputs[i].name;
            // The embedding of padding is fixed, so it is left out.
            let first = if name.contains("word_embeddings") { weight.shape().dims[1] as u64 } else { 0 };
            for _ in 0..4 {
                let element = (first + stream.below(weight.shape().elements() as u64 - first)) as usize;
                let loss = |by: f64| {
                    let (mut moved, mut values) = (weights.clone(), weight.to_f64());
                    values[element] += by;
                    moved[i] = HostTensor::from_f64(weight.shape().clone(), &values);
                    outputs(&moved)[weights.len()][0]
                };
                let difference = (loss(step) - loss(-step)) / (2.0 * step);
                let gradient = gradients[i][element];
                assert!((gradient - difference).abs() < 1e-8, "{head:?}, {name}: {gradient} and {difference}");
            }
        }
        let padding = &gradients[0][..model().hidden_size];
        assert!(padding.iter().all(|gradient| *gradient == 0.0), "{head:?}: {padding:?}");
    }
}

/// Runs a train step with dropout from random weights. Returns the results of every replica.
fn train(spec: &StepSpec, batch: &HostBatch) -> Vec<Vec<f64>> {
    let program = TrainStep::build(spec).unwrap().program;
    let (backend, replicas) = (Evaluator { replicas: spec.replicas }, spec.replicas);
    let hyperparameters = &spec.optimizer.hyperparameters();
    let scalars = Scalars { learning_rate: 0.02, optimizer_step: 1, step: 3, seed: 5, first_row: 0, hyperparameters };
    let inputs = StepInputs { batch, scalars, replicas };
    let whole = weights(&spec.task.parameters());
    let argument = |replica: usize, i: usize| {
        let value = &program.inputs[i];
        match value.role {
            Role::Weight if *whole[i].shape() == value.shape => whole[i].clone(),
            Role::Weight => Shards { count: replicas }.shard(&whole[i], replica),
            Role::OptimizerState => HostTensor::zeros(value.shape.clone()),
            _ => (*inputs.tensor(value, replica).unwrap()).clone(),
        }
    };
    let of_replica = |r| (0..program.inputs.len()).map(|i| backend.put(&argument(r, i), r).unwrap()).collect();
    let arguments: Vec<Vec<_>> = (0..replicas).map(of_replica).collect();
    let arguments: Vec<Vec<_>> = arguments.iter().map(|list| list.iter().collect()).collect();
    let outputs = backend.run(&backend.load(&program).unwrap(), &arguments).unwrap();
    let outputs: Vec<Vec<Vec<f64>>> =
        outputs.iter().map(|list| list.iter().map(|array| backend.get(array).unwrap()).collect()).collect();
    unsharded(spec, &outputs)
}

#[test]
fn a_step_with_dropout_is_independent_of_splits_sharding_and_recomputation() {
    for head in heads() {
        let step = |accumulation_steps, replicas, shard_optimizer, recompute| {
            let task = fine_tuning_task(&model(), &head, 8, recompute).unwrap();
            let batch = batch(&*task);
            let parallel = Parallel { shard_optimizer, ..Parallel::default() };
            train(&StepSpec { dropout: true, parallel, ..spec(task, accumulation_steps, replicas) }, &batch)
        };
        let whole = step(1, 1, false, Recompute::None);
        for (accumulation_steps, replicas, sharded, recompute) in [
            (3, 1, false, Recompute::Layer),
            (1, 2, false, Recompute::Attention),
            (3, 2, false, Recompute::None),
            (1, 3, true, Recompute::None),
        ] {
            let what = format!("{head:?}, {accumulation_steps} × {replicas}, sharded: {sharded}, {recompute:?}");
            assert_results_close(&step(accumulation_steps, replicas, sharded, recompute), &whole, 1e-9, &what);
        }
    }
}

#[test]
fn classifier_dropout_has_its_own_probability() {
    let loss = |hidden: f64, classifier: Option<f64>| {
        let model = BertConfig {
            hidden_dropout_prob: hidden,
            attention_probs_dropout_prob: 0.0,
            classifier_dropout: classifier,
            ..model()
        };
        let objective = SequenceClassification { classes: 3 };
        let task = Arc::new(FineTuning { model, sequence_length: 8, recompute: Recompute::None, objective });
        let batch = batch(&*task);
        let spec = StepSpec { dropout: true, ..spec(task, 1, 1) };
        let metrics = TrainStep::build(&spec).unwrap().program.output("metrics").unwrap();
        train(&spec, &batch)[metrics][0]
    };
    let none = loss(0.0, None);
    assert_eq!(loss(0.0, Some(0.0)), none);
    assert_ne!(loss(0.0, Some(0.5)), none);
    assert_eq!(loss(0.5, None), loss(0.5, Some(0.5)));
    assert_ne!(loss(0.5, Some(0.0)), loss(0.5, None));
}

/// Runs a model on a batch and returns its outputs in the order of the program.
fn forward(model: impl Model + 'static, batch: &HostBatch) -> Vec<Vec<f64>> {
    let params = model.parameters();
    let spec = ForwardSpec { model: Arc::new(model), precision: Precision::F64, rows: batch.rows, replicas: 1 };
    let program: Program = ForwardStep::build(&spec).unwrap().program;
    let arguments: Vec<HostTensor> =
        weights(&params).into_iter().chain(others(&program, batch, Scalars::FORWARD)).collect();
    evaluate(&program.computation, &arguments).unwrap().iter().map(|value| value.to_f64()).collect()
}

#[test]
fn pooled_outputs_are_means_and_maxima_over_tokens() {
    let task = fine_tuning_task(&model(), &Head::Regression, 8, Recompute::None).unwrap();
    let mut batch = batch(&*task);
    batch.tensors.truncate(3);
    let outputs = [
        EncoderOutput::LastHiddenState,
        EncoderOutput::Cls,
        EncoderOutput::Mean,
        EncoderOutput::Max,
        EncoderOutput::PoolerOutput,
    ];
    let encoder = Encoder { model: model(), sequence_length: 8, outputs: outputs.to_vec() };
    let [x, cls, mean, max, pooled] = <[Vec<f64>; 5]>::try_from(forward(encoder.clone(), &batch)).unwrap();
    let (hidden, mask) = (model().hidden_size, batch.tensor("attention_mask").unwrap().to_f64());
    for row in 0..ROWS - 1 {
        for unit in 0..hidden {
            let tokens = (0..8).filter(|s| mask[row * 8 + s] == 1.0);
            let values: Vec<f64> = tokens.map(|s| x[(row * 8 + s) * hidden + unit]).collect();
            let at = row * hidden + unit;
            assert_eq!(values.len(), if row == 1 { 5 } else { 8 });
            assert_eq!((cls[at], max[at]), (values[0], values.iter().copied().fold(f64::MIN, f64::max)));
            assert!((mean[at] - values.iter().sum::<f64>() / values.len() as f64).abs() < 1e-12);
        }
    }
    assert!(mean[(ROWS - 1) * hidden..].iter().all(|x| *x == 0.0), "a row without tokens");
    assert!(pooled.iter().all(|x| x.abs() < 1.0));

    let without_pooler = Encoder { outputs: vec![EncoderOutput::Mean], ..encoder };
    assert!(without_pooler.parameters().iter().all(|param| !param.name.contains("pooler")));
    assert_eq!(forward(without_pooler, &batch), [mean]);
}

#[test]
fn masked_tokens_are_predicted_as_in_pretraining() {
    let task = crate::common::steps::task(&model());
    let pretraining = task.synthetic_batch(ROWS);
    let expected = forward(task, &pretraining);
    let mut batch = pretraining.clone();
    batch.tensors.truncate(4);
    let model = MaskedLanguageModel { model: model(), sequence_length: 8, masked_positions: 3 };
    assert!(model.parameters().iter().all(|param| !param.name.contains("pooler") && !param.name.contains("seq_")));
    assert_close(&forward(model, &batch), &expected[1..2], 1e-12, "logits");
}

#[test]
fn programs_of_every_precision_are_well_typed() {
    for precision in [Precision::Bf16, Precision::F32] {
        for head in heads() {
            let task = fine_tuning_task(&model(), &head, 8, Recompute::Layer).unwrap();
            TrainStep::build(&StepSpec { precision, dropout: true, ..spec(task.clone(), 2, 1) }).unwrap();
            let step = ForwardStep::build(&ForwardSpec { model: task, precision, rows: ROWS, replicas: 1 }).unwrap();
            assert!(step.program.outputs.iter().all(|output| output.shape.dtype == DType::F32));
        }
        let outputs = vec![EncoderOutput::PoolerOutput, EncoderOutput::Mean, EncoderOutput::Max];
        let encoder = Encoder { model: model(), sequence_length: 8, outputs };
        let mlm = MaskedLanguageModel { model: model(), sequence_length: 8, masked_positions: 3 };
        for model in [Arc::new(encoder) as Arc<dyn Model>, Arc::new(mlm)] {
            ForwardStep::build(&ForwardSpec { model, precision, rows: ROWS, replicas: 1 }).unwrap();
        }
    }
}

#[test]
fn metrics_are_named_by_the_objective() {
    let fixture: Fixture = fixture();
    for (name, head) in fixture.heads() {
        let task = fixture.task(&head);
        let names = lambert::task::metric_names(&*task);
        let expected: &[&str] = match name {
            "sequence_classification" => &["classification_loss", "accuracy"],
            "regression" => &["mean_squared_error"],
            "token_classification" => &["token_loss", "token_accuracy"],
            _ => &["span_loss", "start_accuracy", "end_accuracy"],
        };
        assert_eq!(names[1..names.len() - 2], *expected);
    }
}
