//! The fixtures of `fixtures/fine_tuning`: a small BERT with a head for each task, its batches, and the logits and losses of
//! transformers with torch's AdamW.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lambert::batch::HostBatch;
use lambert::bert::{BertConfig, Head, Recompute, fine_tuning_task};
use lambert::checkpoint::TensorFile;
use lambert::optim::OptimizerConfig;
use lambert::runtime::backend::Backend;
use lambert::shape::HostTensor;
use lambert::step::{
    ForwardSpec, ForwardStep, Parallel, Program, Role, Scalars, StepInputs, StepSpec, TrainStep, Value,
};
use lambert::task::{ParamSpec, Precision, Task};
use serde_json::Value as Json;

/// Rows of a batch; the fixture has fewer, and the last rows are empty.
const ROWS: usize = 8;

/// The files of the fixture.
pub struct Fixture {
    pub config: BertConfig,
    weights: Vec<(String, HostTensor)>,
    batches: Vec<(String, HostTensor)>,
    expected: Json,
}

/// Reads the fixture.
pub fn fixture() -> Fixture {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/fine_tuning");
    let text = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    Fixture {
        config: BertConfig::from_json(&text("config.json")).unwrap(),
        weights: tensors(folder.join("weights.safetensors")),
        batches: tensors(folder.join("batches.safetensors")),
        expected: serde_json::from_str(&text("expected.json")).unwrap(),
    }
}

fn tensors(path: PathBuf) -> Vec<(String, HostTensor)> {
    let mut file = TensorFile::open(&path).unwrap();
    let names: Vec<String> = file.names().map(str::to_owned).collect();
    names.into_iter().map(|name| (name.clone(), file.read(&name).unwrap())).collect()
}

fn find<'a>(list: &'a [(String, HostTensor)], name: &str) -> &'a HostTensor {
    &list.iter().find(|(own, _)| own == name).unwrap_or_else(|| panic!("the fixture has no {name}")).1
}

impl Fixture {
    /// Returns the heads by the names of the fixture's tasks.
    pub fn heads(&self) -> [(&'static str, Head); 4] {
        let labels = |key: &str| (0..self.expected[key].as_u64().unwrap()).map(|i| format!("L{i}")).collect();
        [
            ("sequence_classification", Head::SequenceClassification { labels: labels("classes") }),
            ("regression", Head::Regression),
            ("token_classification", Head::TokenClassification { labels: labels("token_classes") }),
            ("question_answering", Head::QuestionAnswering),
        ]
    }

    /// Returns the task of `head`.
    pub fn task(&self, head: &Head) -> Arc<dyn Task> {
        fine_tuning_task(&self.config, head, 12, Recompute::None).unwrap()
    }

    /// Builds the batch of step `step`, filled up with empty rows.
    pub fn batch(&self, task: &dyn Task, step: usize) -> HostBatch {
        let tensor = |spec: &lambert::batch::TensorSpec| {
            let name = match (spec.name, spec.dtype.is_float(), spec.row_dims.len()) {
                ("labels", true, _) => "values",
                ("labels", false, 0) => "classes",
                ("labels", false, _) => "token_classes",
                (name, ..) => name,
            };
            (spec.name, Arc::new(find(&self.batches, &format!("{step}/{name}")).clone()))
        };
        let tensors: Vec<_> = task.batch().tensors.iter().map(tensor).collect();
        let [rows, row_length] = <[usize; 2]>::try_from(tensors[0].1.shape().dims.clone()).unwrap();
        let mut batch = HostBatch { rows, tensors, row_length, tokens: 0, occupied_rows: rows, spare_rows: 0 };
        batch.pad_to(ROWS);
        batch
    }

    /// Returns the first weights of a task in the type of `precision`.
    fn weights(&self, name: &str, params: &[ParamSpec], precision: Precision) -> Vec<HostTensor> {
        let weight = |param: &ParamSpec| {
            let key =
                if param.name.starts_with("bert.") { param.name.clone() } else { format!("{name}/{}", param.name) };
            let padded = param.pad(find(&self.weights, &key));
            HostTensor::from_f64(param.shape(precision.master()), &padded.to_f64())
        };
        params.iter().map(weight).collect()
    }

    /// Asserts that the outputs for the first batch are those of transformers.
    pub fn assert_outputs(&self, backend: &impl Backend, precision: Precision, tolerance: f64) {
        for (name, head) in self.heads() {
            let task = self.task(&head);
            let spec = ForwardSpec { model: task.clone(), precision, rows: ROWS, replicas: 1 };
            let program = ForwardStep::build(&spec).unwrap().program;
            let batch = self.batch(&*task, 0);
            let mut arguments = put(backend, self.weights(name, &task.parameters(), precision));
            arguments.extend(put(backend, others(&program, &batch, Scalars::FORWARD)));
            let outputs = run(backend, &backend.load(&program).unwrap(), &arguments);
            for (value, output) in program.outputs.iter().zip(&outputs) {
                let expected = numbers(&self.expected["tasks"][name]["outputs"][&value.name]);
                let found = backend.get(output).unwrap();
                assert!(!expected.is_empty() && found.len() * 6 == expected.len() * ROWS, "{name}: {}", value.name);
                for (x, y) in found.iter().zip(expected) {
                    assert!((x - y).abs() <= tolerance * (1.0 + y.abs()), "{name}, {}: {x} and {y}", value.name);
                }
            }
        }
    }

    /// Asserts that the losses of the first `steps` steps are those of transformers, within a relative `tolerance`.
    pub fn assert_losses(&self, backend: &impl Backend, precision: Precision, steps: usize, tolerance: f64) {
        let optimizer: OptimizerConfig = toml::from_str(self.expected["optimizer"].as_str().unwrap()).unwrap();
        for (name, head) in self.heads() {
            let task = self.task(&head);
            let spec = StepSpec {
                task: task.clone(),
                optimizer: optimizer.clone(),
                precision,
                rows: ROWS,
                accumulation_steps: 2,
                replicas: 1,
                parallel: Parallel::default(),
                dropout: false,
                ema_decay: None,
            };
            let program = TrainStep::build(&spec).unwrap().program;
            let executable = backend.load(&program).unwrap();
            let mut initial = self.weights(name, &task.parameters(), precision);
            let state = program.inputs.iter().filter(|value| value.role == Role::OptimizerState);
            initial.extend(state.map(|value| HostTensor::zeros(value.shape.clone())));
            let (mut state, metrics) = (put(backend, initial), program.output("metrics").unwrap());
            let expected = numbers(&self.expected["tasks"][name]["losses"]);
            assert!(steps <= expected.len());
            for (step, expected) in expected.into_iter().enumerate().take(steps) {
                let scalars = Scalars {
                    learning_rate: self.expected["learning_rate"].as_f64().unwrap(),
                    optimizer_step: step as u64 + 1,
                    step: step as u64,
                    seed: 0,
                    first_row: 0,
                    hyperparameters: &optimizer.hyperparameters(),
                };
                let size = state.len();
                state.extend(put(backend, others(&program, &self.batch(&*task, step), scalars)));
                let mut outputs = run(backend, &executable, &state);
                let loss = backend.get(&outputs[metrics]).unwrap()[0];
                let error = (loss - expected).abs() / expected;
                assert!(error <= tolerance, "{name}, step {step}: {loss}, transformers {expected}");
                outputs.truncate(size);
                state = outputs;
            }
        }
    }
}

fn numbers(list: &Json) -> Vec<f64> {
    list.as_array().into_iter().flatten().map(|number| number.as_f64().unwrap()).collect()
}

/// Returns the arguments behind weights and optimizer state.
pub fn others(program: &Program, batch: &HostBatch, scalars: Scalars) -> Vec<HostTensor> {
    let inputs = StepInputs { batch, scalars, replicas: 1 };
    let is_other = |value: &&Value| !matches!(value.role, Role::Weight | Role::OptimizerState);
    program.inputs.iter().filter(is_other).map(|value| (*inputs.tensor(value, 0).unwrap()).clone()).collect()
}

fn put<E: Backend>(backend: &E, tensors: Vec<HostTensor>) -> Vec<E::Array> {
    tensors.iter().map(|tensor| backend.put(tensor, 0).unwrap()).collect()
}

fn run<E: Backend>(backend: &E, executable: &E::Executable, arguments: &[E::Array]) -> Vec<E::Array> {
    backend.run(executable, &[arguments.iter().collect()]).unwrap().swap_remove(0)
}
