//! Steps of a model that is small enough for the evaluator, and their arguments.

use std::sync::Arc;

use lambert::batch::pretraining::RowForm;
use lambert::bert::{Activation, BertConfig, BertPretraining, Kernels, Layers, Preset, Recompute, param_specs};
use lambert::optim::OptimizerConfig;
use lambert::runtime::backend::Backend;
use lambert::shape::HostTensor;
use lambert::step::sharding::Shards;
use lambert::step::{Parallel, Program, Role, StepSpec};
use lambert::task::{Model, Precision, Task};

/// Returns a model small enough for the evaluator, with dropout, a vocabulary that needs padding, and the tanh GELU.
pub fn small() -> BertConfig {
    BertConfig {
        hidden_size: 12,
        num_hidden_layers: 2,
        num_attention_heads: 3,
        intermediate_size: 20,
        max_position_embeddings: 10,
        hidden_act: Activation::GeluTanh,
        initializer_range: 0.2,
        ..Preset::Tiny.config(100)
    }
}

/// Returns the pretraining task of `model` on plain rows of eight positions.
pub fn task(model: &BertConfig) -> BertPretraining {
    BertPretraining {
        model: model.clone(),
        rows: RowForm { sequence_length: 8, max_predictions: 3, sequences_per_row: 1 },
        spare_rows: false,
        sentence_pairs: true,
        recompute: Recompute::default(),
        layers: Layers::default(),
        kernels: Kernels::default(),
    }
}

/// Returns the f64 step of [`task`] on `rows` rows in total.
pub fn spec(model: &BertConfig, rows: usize, accumulation_steps: usize, replicas: usize) -> StepSpec {
    spec_of(task(model), rows, accumulation_steps, replicas)
}

/// Returns the f64 step of `task` on `rows` rows in total.
pub fn spec_of(task: impl Task + 'static, rows: usize, accumulation_steps: usize, replicas: usize) -> StepSpec {
    StepSpec {
        task: Arc::new(task),
        optimizer: OptimizerConfig::default(),
        precision: Precision::F64,
        rows: rows / replicas,
        accumulation_steps,
        replicas,
        parallel: Parallel::default(),
        dropout: true,
        ema_decay: None,
    }
}

/// Returns the arguments of every replica of a program of `small()`: weights from a seed, optimizer state of zeros, and a
/// batch of `rows` rows, some of which have padding, fewer masked positions, or no tokens.
pub fn arguments(program: &Program, model: &BertConfig, rows: usize) -> Vec<Vec<HostTensor>> {
    let mut stream = lambert::rng::Key::new(5).stream();
    let (length, predictions) = (8, 3);
    let mut batch: Vec<Vec<f64>> = vec![Vec::new(); 7];
    for row in 0..rows {
        let tokens = if row == rows - 1 { 0 } else { length - row % 3 };
        for i in 0..length {
            batch[0].push(if i < tokens { stream.below(model.vocab_size as u64) as f64 } else { 0.0 });
            batch[1].push((i < tokens) as u8 as f64);
            batch[2].push((i > 4 && i < tokens) as u8 as f64);
        }
        for i in 0..predictions {
            let used = tokens > 0 && i < 1 + row % 3;
            batch[3].push(if used { (1 + i) as f64 } else { 0.0 });
            batch[4].push(if used { stream.below(model.vocab_size as u64) as f64 } else { 0.0 });
            batch[5].push(used as u8 as f64);
        }
        batch[6].push(stream.below(2) as f64);
    }
    let names: Vec<&str> = task(model).batch().tensors.iter().map(|tensor| tensor.name).collect();
    let (params, numbers) = (param_specs(model), OptimizerConfig::default().hyperparameters());
    (0..program.replicas)
        .map(|replica| {
            let argument = |value: &lambert::step::Value| -> HostTensor {
                let local = rows / program.replicas;
                match value.name.as_str() {
                    "learning_rate" => HostTensor::from_f64(value.shape.clone(), &[0.01]),
                    "optimizer_step" => HostTensor::scalar(1i32),
                    "step" => HostTensor::scalar(3u32),
                    "first_row" => HostTensor::scalar((replica * local) as u32),
                    "seed" => HostTensor::new([2], &[1u32, 2]),
                    name => match value.role {
                        Role::Weight => {
                            let param = params.iter().find(|p| p.name == name).unwrap();
                            let whole =
                                HostTensor::from_f64(param.shape(value.shape.dtype), &param.initial(9).to_f64());
                            match *whole.shape() == value.shape {
                                true => whole,
                                false => Shards { count: program.replicas }.shard(&whole, replica),
                            }
                        }
                        Role::OptimizerState => HostTensor::zeros(value.shape.clone()),
                        // Every optimizer of the tests has the betas and the decay of the default.
                        Role::Scalar => {
                            let number = name.strip_prefix("optimizer.").and_then(|name| numbers.get(name));
                            HostTensor::from_f64(value.shape.clone(), &[number.unwrap()])
                        }
                        _ => {
                            let i = names.iter().position(|own| *own == name).unwrap();
                            let n = value.shape.elements();
                            HostTensor::from_f64(value.shape.clone(), &batch[i][replica * n..(replica + 1) * n])
                        }
                    },
                }
            };
            program.inputs.iter().map(argument).collect()
        })
        .collect()
}

/// Returns the results of every replica.
pub fn run_all(backend: &impl Backend, program: &Program, arguments: &[Vec<HostTensor>]) -> Vec<Vec<Vec<f64>>> {
    run_loaded(backend, &backend.load(program).unwrap(), arguments)
}

/// Like [`run_all`], for a loaded program.
pub fn run_loaded<E: Backend>(
    backend: &E,
    executable: &E::Executable,
    arguments: &[Vec<HostTensor>],
) -> Vec<Vec<Vec<f64>>> {
    let put = |(r, list): (usize, &Vec<HostTensor>)| list.iter().map(|t| backend.put(t, r).unwrap()).collect();
    let arrays: Vec<Vec<_>> = arguments.iter().enumerate().map(put).collect();
    let arrays: Vec<Vec<_>> = arrays.iter().map(|list| list.iter().collect()).collect();
    let outputs = backend.run(executable, &arrays).unwrap();
    outputs.iter().map(|outputs| outputs.iter().map(|x| backend.get(x).unwrap()).collect()).collect()
}

/// Returns the results of the first replica.
pub fn run(backend: &impl Backend, program: &Program, arguments: &[Vec<HostTensor>]) -> Vec<Vec<f64>> {
    run_all(backend, program, arguments).swap_remove(0)
}

pub fn assert_close(a: &[Vec<f64>], b: &[Vec<f64>], tolerance: f64, what: &str) {
    for (i, (x, y)) in a.iter().zip(b).enumerate() {
        for (x, y) in x.iter().zip(y) {
            assert!((x - y).abs() <= tolerance * (1.0 + y.abs()), "{what}, result {i}: {x} and {y}");
        }
    }
}
