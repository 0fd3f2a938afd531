//! The golden files under `graphs/`: the graph and the HLO of every family of operations, so that a change of graph
//! construction, differentiation or lowering is a readable diff. `UPDATE_GRAPHS=1` rewrites them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::common::operations;
use lambert::batch::pretraining::RowForm;
use lambert::bert::{BertConfig, BertPretraining, FusedAttention, FusedLayerNorm, Kernels, Layers, Preset, Recompute};
use lambert::graph::Computation;
use lambert::hlo::{self, LowerOptions};
use lambert::optim::OptimizerConfig;
use lambert::step::{Parallel, StepSpec, TrainStep};
use lambert::task::Precision;

/// Prints the graph and the module that it lowers to.
fn print(computation: &Computation, options: &LowerOptions<'_>) -> String {
    let module = hlo::lower(computation, options);
    let text = hlo::text(&module.bytes).unwrap();
    format!("{computation}\n---- lowered ----\n\n{text}")
}

/// Compares `prints` (file stem → content) with the golden files of `folder`, or rewrites them.
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
    let mut complaints: Vec<String> = stale.map(|path| format!("{} has no case", path.display())).collect();
    for (stem, content) in &prints {
        let path = path(stem);
        let golden = fs::read_to_string(&path).unwrap_or_default().replace("\r\n", "\n");
        if let Some((line, (was, is))) = first_difference(&golden, content) {
            complaints.push(format!("{}:{line}\n  golden: {was}\n  now:    {is}", path.display()));
        }
    }
    let next = "review the differences with `UPDATE_GRAPHS=1 cargo test --test it goldens` and `git diff graphs`";
    assert!(complaints.is_empty(), "\n{}\n{next}\n", complaints.join("\n"));
}

/// Returns the first line that differs, numbered from 1, in both texts.
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
fn operations_match_their_golden_files() {
    let cases = operations::all();
    assert_eq!(operations::without_a_case(&cases), [""; 0], "operations without a case");
    let golden = cases.into_iter().filter(|case| case.golden);
    let prints = golden.map(|case| {
        let options = LowerOptions { name: &case.name, num_replicas: case.arguments.len(), ..Default::default() };
        (case.name.replace('/', "."), print(&case.computation, &options))
    });
    let prints: BTreeMap<String, String> = prints.collect();
    check("ops", prints);
}

#[test]
fn donated_argument_prints_as_an_alias() {
    let case = operations::all().into_iter().find(|case| case.name == "float-binary/f32").unwrap();
    let donated = [(0, 2), (1, 0)];
    let print = print(&case.computation, &LowerOptions { name: "step", donated: &donated, ..Default::default() });
    let head = "HloModule step, input_output_alias={ {2}: (0, {}, may-alias), {0}: (1, {}, may-alias) }\n";
    assert!(print.contains(head), "{print}");
}

/// The Triton programs of fused self-attention, in plain rows and, with dropout, in packed ones; and those of fused LayerNorm, with
/// hidden states of one chunk and, with dropout, of three.
#[test]
fn kernels_match_their_golden_files() {
    let plain =
        FusedAttention { heads: 2, size: 16, dropout: 0.0, ..FusedAttention::of(&Preset::Tiny.config(32), 2, 128) };
    let packed = FusedAttention { packed: true, dropout: 0.1, ..plain };
    let one = FusedLayerNorm { width: 128, dropout: 0.0, ..FusedLayerNorm::of(&Preset::Tiny.config(32), 2, 64) };
    let three = FusedLayerNorm { width: 384, dropout: 0.1, ..one };
    let kernels = [
        ("plain", plain.kernels()),
        ("packed", packed.kernels()),
        ("one_chunk", one.kernels()),
        ("three_chunks", three.kernels()),
    ];
    let prints = kernels.into_iter().flat_map(|(form, kernels)| {
        kernels
            .expect("the kernels compute this shape")
            .map(|kernel| (format!("{}.{form}", kernel.program.name()), kernel.program.to_string()))
    });
    check("kernels", prints.collect());
}

/// The complete train step on the smallest shapes: one layer, dropout, micro-batches in a loop, two replicas, donation.
#[test]
fn tiny_train_step_matches_its_golden_files() {
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
        spare_rows: false,
        sentence_pairs: true,
        recompute: Recompute::default(),
        layers: Layers::default(),
        kernels: Kernels::default(),
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
        ema_decay: None,
    };
    let step = TrainStep::build(&spec).unwrap();
    let module = step.program.lower();
    let prints = [
        ("train_step.graph".to_string(), step.program.computation.to_string()),
        ("train_step.hlo".to_string(), hlo::text(&module.bytes).unwrap()),
    ];
    check("tiny", prints.into());
}
