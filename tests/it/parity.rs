//! The step in the f64 evaluator against the reference values of `fixtures/bert_small`, to at least nine digits. The step
//! does not depend on micro-batches, replicas, recomputation and padded vocabulary rows.

use crate::common::parity::*;
use std::sync::Arc;

use crate::common::steps::{arguments, assert_close, run, small, spec, spec_of, task};
use lambert::bert::{AttentionForm, BertConfig, BertPretraining, Kernels, Layers, Recompute};
use lambert::optim::OptimizerConfig;
use lambert::runtime::backend::Evaluator;
use lambert::shape::{DType, HostTensor, Shape};
use lambert::step::{ForwardSpec, ForwardStep, GradientStep, Program, Role, StepSpec, TrainStep};
use lambert::task::Precision;
use lambert::verify::VerifyOptions;

#[test]
fn evaluator_matches_the_reference_in_f64() {
    let checks =
        assert_parity(&Evaluator { replicas: 1 }, &VerifyOptions { steps: Some(2), ..options(Precision::F64) });
    // 3 forward, 39 gradients, 5 numbers for each of 5 optimizers.
    assert_eq!(checks.len(), 3 + 5 + 2 * 16 + 2 + 7 + 25);
}

#[test]
fn step_with_dropout_is_independent_of_micro_batches_replicas_and_recomputation() {
    let (model, rows) = (small(), 8);
    let step = |micro_batches, replicas, recompute| {
        let program =
            TrainStep::build(&spec_of(BertPretraining { recompute, ..task(&model) }, rows, micro_batches, replicas))
                .unwrap()
                .program;
        run(&Evaluator { replicas }, &program, &arguments(&program, &model, rows))
    };
    let whole = step(1, 1, Recompute::None);
    for (micro_batches, replicas, recompute) in [
        (2, 1, Recompute::None),
        (4, 1, Recompute::None),
        (1, 2, Recompute::None),
        (2, 2, Recompute::None),
        (1, 1, Recompute::Attention),
        (2, 1, Recompute::Layer),
    ] {
        let split = step(micro_batches, replicas, recompute);
        assert_close(
            &split,
            &whole,
            1e-9,
            &format!("{micro_batches} micro-batches, {replicas} replicas, {recompute:?}"),
        );
    }
    let other_masks = {
        let program = TrainStep::build(&spec(&model, rows, 1, 1)).unwrap().program;
        let mut arguments = arguments(&program, &model, rows);
        arguments[0][program.input("step").unwrap()] = HostTensor::scalar(4u32);
        run(&Evaluator { replicas: 1 }, &program, &arguments)
    };
    let metrics = whole.len() - 3;
    assert!((other_masks[metrics][0] - whole[metrics][0]).abs() > 1e-4, "another step has other dropout masks");
}

#[test]
fn layers_in_a_loop_take_the_step_of_unrolled_layers() {
    let (model, rows) = (BertConfig { num_hidden_layers: 4, ..small() }, 4);
    let step = |layers, recompute, micro_batches| {
        let task = BertPretraining { recompute, layers, ..task(&model) };
        let program = TrainStep::build(&spec_of(task, rows, micro_batches, 1)).unwrap().program;
        run(&Evaluator { replicas: 1 }, &program, &arguments(&program, &model, rows))
    };
    let unrolled = step(Layers::Unrolled, Recompute::None, 1);
    for recompute in Recompute::ALL {
        let looped = step(Layers::Loop, recompute, 2);
        assert_close(&looped, &unrolled, 1e-9, &format!("a loop, {recompute:?}"));
    }
}

#[test]
fn separate_attention_takes_the_step_of_composed_attention() {
    let (model, rows) = (BertConfig { num_hidden_layers: 3, ..small() }, 4);
    let step = |attention, layers, recompute| {
        let task =
            BertPretraining { kernels: Kernels { attention, ..Kernels::default() }, layers, recompute, ..task(&model) };
        let program = TrainStep::build(&spec_of(task, rows, 1, 1)).unwrap().program;
        run(&Evaluator { replicas: 1 }, &program, &arguments(&program, &model, rows))
    };
    let composed = step(AttentionForm::Composed, Layers::Unrolled, Recompute::None);
    for (layers, recompute) in [
        (Layers::Unrolled, Recompute::None),
        (Layers::Unrolled, Recompute::Attention),
        (Layers::Loop, Recompute::None),
        (Layers::Loop, Recompute::Layer),
    ] {
        let separate = step(AttentionForm::Separate, layers, recompute);
        assert_close(&separate, &composed, 1e-9, &format!("separate, {layers:?}, {recompute:?}"));
    }
}

/// Returns the loss of a model without padded vocabulary rows, computed from the logits without dropout.
fn loss_without_padding(model: &BertConfig, rows: usize, change: impl Fn(&mut [HostTensor], &Program)) -> f64 {
    let spec = ForwardSpec { model: Arc::new(task(model)), precision: Precision::F64, rows, replicas: 1 };
    let program = ForwardStep::build(&spec).unwrap().program;
    let mut arguments = arguments(&program, model, rows);
    change(&mut arguments[0], &program);
    let outputs = run(&Evaluator { replicas: 1 }, &program, &arguments);
    let batch = |name: &str| arguments[0][program.input(name).unwrap()].to_f64();
    let nll = |logits: &[f64], label: f64| logits.iter().map(|x| x.exp()).sum::<f64>().ln() - logits[label as usize];
    let (ids, weights, mask) = (batch("masked_lm_ids"), batch("masked_lm_weights"), batch("attention_mask"));
    let mlm: f64 =
        outputs[1].chunks(model.vocab_size).zip(&ids).zip(&weights).map(|((x, id), w)| w * nll(x, *id)).sum();
    let real: Vec<f64> = mask.chunks(8).map(|row| row[0]).collect();
    let labels = batch("next_sentence_labels");
    let nsp: f64 = outputs[2].chunks(2).zip(&labels).zip(&real).map(|((x, label), w)| w * nll(x, *label)).sum();
    mlm / weights.iter().sum::<f64>() + nsp / real.iter().sum::<f64>()
}

#[test]
fn padded_vocabulary_rows_change_neither_loss_nor_gradients() {
    let (model, rows) = (small(), 4);
    let program = GradientStep::build(&StepSpec { dropout: false, ..spec(&model, rows, 1, 1) }).unwrap().program;
    let outputs = run(&Evaluator { replicas: 1 }, &program, &arguments(&program, &model, rows));
    let metrics = program.output("metrics").unwrap();
    let loss = loss_without_padding(&model, rows, |_, _| {});
    assert!((outputs[metrics][0] - loss).abs() < 1e-12, "{} {loss}", outputs[metrics][0]);

    for (name, element) in [
        ("bert.embeddings.word_embeddings.weight", 17),
        ("bert.embeddings.word_embeddings.weight", 99 * 12 + 5),
        ("cls.predictions.bias", 40),
        ("bert.encoder.layer.1.output.dense.weight", 33),
        ("bert.embeddings.token_type_embeddings.weight", 14),
    ] {
        let moved = |by: f64| {
            loss_without_padding(&model, rows, |arguments, program| {
                let at = program.input(name).unwrap();
                let mut values = arguments[at].to_f64();
                values[element] += by;
                arguments[at] = HostTensor::from_f64(arguments[at].shape().clone(), &values);
            })
        };
        let expected = (moved(1e-5) - moved(-1e-5)) / 2e-5;
        let found = outputs[program.output(&format!("grad/{name}")).unwrap()][element];
        assert!((found - expected).abs() < 1e-8, "{name}[{element}]: {found}, by finite differences {expected}");
    }
    for (name, published) in [("bert.embeddings.word_embeddings.weight", 1200), ("cls.predictions.bias", 100)] {
        let gradient = &outputs[program.output(&format!("grad/{name}")).unwrap()];
        assert!(gradient[published..].iter().all(|g| *g == 0.0), "{name}");
    }
}

#[test]
fn non_finite_gradients_change_no_state_and_are_named() {
    let (model, rows) = (small(), 4);
    let program = TrainStep::build(&spec(&model, rows, 2, 1)).unwrap().program;
    let mut arguments = arguments(&program, &model, rows);
    let bad = program.input("cls.seq_relationship.bias").unwrap();
    arguments[0][bad] = HostTensor::new([2], &[f64::INFINITY, 0.0]);
    let outputs = run(&Evaluator { replicas: 1 }, &program, &arguments);
    for (i, value) in
        program.outputs.iter().enumerate().filter(|(_, v)| matches!(v.role, Role::Weight | Role::OptimizerState))
    {
        assert_eq!(outputs[i], arguments[0][i].to_f64(), "{}", value.name);
    }
    assert_eq!(outputs[program.output("metrics").unwrap()][6], 1.0);
    let finite = &outputs[program.output("finite").unwrap()];
    assert_eq!(finite[bad], 0.0);
    assert_eq!(finite[program.input("cls.predictions.bias").unwrap()], 1.0, "the gradient of the other head is finite");
}

#[test]
fn donated_pairs_have_equal_shapes_and_inputs_are_weights_state_scalars_batch() {
    let program = TrainStep::build(&spec(&small(), 4, 2, 1)).unwrap().program;
    for &(input, output) in &program.donated {
        assert_eq!(program.inputs[input].shape, program.outputs[output].shape);
        assert_eq!(program.inputs[input].name, program.outputs[output].name);
    }
    assert_eq!(program.donated.len(), 3 * 46);
    let names: Vec<&str> = program.inputs[3 * 46..].iter().map(|v| v.name.as_str()).collect();
    let numbers: Vec<String> =
        OptimizerConfig::default().hyperparameters().names().map(|name| format!("optimizer.{name}")).collect();
    assert_eq!(numbers.first().map(String::as_str), Some("optimizer.beta1"));
    let (before, after) = (["learning_rate", "optimizer_step"], ["step", "first_row", "seed", "input_ids"]);
    let scalars = before.into_iter().chain(numbers.iter().map(String::as_str)).chain(after);
    assert_eq!(names[..6 + numbers.len()], scalars.collect::<Vec<_>>());
    assert_eq!(program.inputs[46].name, "m/bert.embeddings.word_embeddings.weight");
    assert_eq!(program.inputs[46].shape, Shape::new(DType::F64, [128, 12]));
}
