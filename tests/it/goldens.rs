//! The reviewed prints under `graphs/`: the graph of every family of operations and the HLO it lowers to. A change to
//! building, differentiating or lowering shows there as a readable difference. `UPDATE_GRAPHS=1` writes them anew.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::common::cases;
use lambert::batch::pretraining::RowForm;
use lambert::bert::{BertConfig, BertPretraining, Preset, Recompute};
use lambert::graph::Computation;
use lambert::hlo::{self, LowerOptions};
use lambert::optim::OptimizerConfig;
use lambert::step::{Parallel, StepSpec, TrainStep};
use lambert::task::Precision;

/// What a reviewer reads: the graph as built, and the module as the compiler receives it.
fn print(computation: &Computation, options: &LowerOptions<'_>) -> String {
    let module = hlo::lower(computation, options);
    let text = hlo::text(&module.bytes).unwrap();
    format!("{computation}\n---- lowered ----\n\n{text}")
}

/// Compares `prints` (file stem → content) with the text files of `folder`, or writes them.
fn check(folder: &str, prints: BTreeMap<String, String>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("graphs").join(folder);
    let path = |stem: &str| folder.join(format!("{stem}.txt"));
    let found: Vec<PathBuf> = fs::read_dir(&folder).into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
    let expected: Vec<PathBuf> = prints.keys().map(|stem| path(stem)).collect();
    let stale = found.iter().filter(|path| !expected.contains(path));
    if std::env::var_os("UPDATE_GRAPHS").is_some() {
        stale.for_each(|path| fs::remove_file(path).unwrap());
        fs::create_dir_all(&folder).unwrap();
        prints.iter().for_each(|(stem, content)| fs::write(path(stem), content).unwrap());
        return;
    }
    let mut complaints: Vec<String> = stale.map(|path| format!("{} belongs to no case", path.display())).collect();
    for (stem, content) in &prints {
        let path = path(stem);
        let reviewed = fs::read_to_string(&path).unwrap_or_default().replace("\r\n", "\n");
        if let Some((line, (was, is))) = first_difference(&reviewed, content) {
            complaints.push(format!("{}:{line}\n  reviewed: {was}\n  now:      {is}", path.display()));
        }
    }
    let next = "look at the differences with `UPDATE_GRAPHS=1 cargo test --test it goldens` and `git diff graphs`";
    assert!(complaints.is_empty(), "\n{}\n{next}\n", complaints.join("\n"));
}

/// The first line that differs, numbered from 1, in both texts.
fn first_difference<'a>(left: &'a str, right: &'a str) -> Option<(usize, (&'a str, &'a str))> {
    if left == right {
        return None;
    }
    let end = "(end of file)";
    let padded = |text: &'a str| text.lines().chain(std::iter::repeat(end));
    let length = left.lines().count().max(right.lines().count()) + 1;
    let mut pairs = (1..).zip(padded(left).zip(padded(right))).take(length);
    Some(pairs.find(|(_, (left, right))| left != right).unwrap_or((length, (end, end))))
}

#[test]
fn every_family_of_operations_prints_as_reviewed() {
    let cases = cases::all();
    assert_eq!(cases::operations_without_a_case(&cases), [""; 0], "operations that no case applies");
    let reviewed = cases.into_iter().filter(|case| case.reviewed);
    let prints = reviewed.map(|case| {
        let options = LowerOptions { name: &case.name, num_replicas: case.arguments.len(), ..Default::default() };
        (case.name.replace('/', "."), print(&case.computation, &options))
    });
    let prints: BTreeMap<String, String> = prints.collect();
    check("ops", prints);
}

#[test]
fn a_donated_argument_prints_as_an_alias() {
    let case = cases::all().into_iter().find(|case| case.name == "float-binary/f32").unwrap();
    let donated = [(0, 2), (1, 0)];
    let print = print(&case.computation, &LowerOptions { name: "step", donated: &donated, ..Default::default() });
    let head = "HloModule step, input_output_alias={ {2}: (0, {}, may-alias), {0}: (1, {}, may-alias) }\n";
    assert!(print.contains(head), "{print}");
}

/// All that a step can hold, on the smallest shapes: one layer, dropout, micro-batches in a loop, two replicas, donation.
#[test]
fn the_tiny_training_step_prints_as_reviewed() {
    let task = BertPretraining {
        model: BertConfig {
            hidden_size: 8,
            num_hidden_layers: 1,
            num_attention_heads: 2,
            intermediate_size: 16,
            max_position_embeddings: 16,
            ..Preset::Tiny.config(32)
        },
        rows: RowForm { sequence_length: 6, max_predictions: 2, sequences_per_row: 1 },
        sentence_pairs: true,
        recompute: Recompute::default(),
    };
    let spec = StepSpec {
        task: Arc::new(task),
        optimizer: OptimizerConfig::default(),
        precision: Precision::Bf16,
        rows: 4,
        accumulation_steps: 2,
        replicas: 2,
        parallel: Parallel::default(),
        dropout: true,
    };
    let step = TrainStep::build(&spec).unwrap();
    let module = step.program.lower();
    let prints = [
        ("train_step.graph".to_string(), step.program.computation.to_string()),
        ("train_step.hlo".to_string(), hlo::text(&module.bytes).unwrap()),
    ];
    check("tiny", prints.into());
}
