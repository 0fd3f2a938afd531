//! The kernels of self-attention: refused where they cannot run, and compiled for an absent GPU.

use std::sync::Arc;

use crate::common::{Workshop, text};
use lambert::batch::pretraining::RowForm;
use lambert::bert::{AttentionKernel, BertConfig, BertPretraining, Layers, Preset, Recompute};
use lambert::hlo;
use lambert::optim::OptimizerConfig;
use lambert::pjrt::{Environment, Platform, PlatformChoice};
use lambert::plan::compiler::{Compiler, Purpose};
use lambert::plan::profile::program::module_bytes;
use lambert::plan::target::Target;
use lambert::runtime::devices::lower_for;
use lambert::step::{Parallel, StepSpec, TrainStep};
use lambert::task::Precision;
use lambert::triton::TARGET;

#[test]
fn runs_that_kernels_do_not_fit_are_refused() {
    let workshop = Workshop::new();
    workshop.run_file("run.toml", "run", |text| text);
    let refused = |settings: &[&str], expected: &str| {
        let sets = settings.iter().flat_map(|setting| ["--set", setting]);
        let arguments: Vec<&str> = ["pretrain", "run.toml", "--platform", "cpu"].into_iter().chain(sets).collect();
        let output = workshop.lambert(&arguments);
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        assert!(text(&output).contains(expected), "requires {expected:?}, got\n{}", text(&output));
        assert!(!workshop.path("run").exists());
    };
    let triton = "kernels.attention=triton";
    refused(
        &[triton],
        "attention = \"triton\" requires precision \"bf16\", got \"f32\"; set attention to \"composed\"",
    );
    refused(&[triton, "precision=bf16"], "attention = \"triton\" requires a sequence_length that is a multiple of 64");
    refused(&["kernels.attention=cudnn"], "requires one of `auto`, `composed`, `triton`");
    let bench = ["bench", "--platform", "cpu", "--model", "tiny", "--attention", "triton", "--precision", "bf16"];
    let output = workshop.lambert(&bench);
    assert!(text(&output).contains("requires the platform cuda, got cpu"), "{}", text(&output));
}

#[test]
fn cuda_compiler_compiles_the_kernels_with_the_step() {
    if Environment::of_process().plugin_files(Platform::Cuda).is_empty() {
        eprintln!("skipped: no plugin for cuda; run `lambert plugin install cuda`");
        return;
    }
    let target: Target = "cuda:h200:1x1x1".parse().unwrap();
    let compiler = Compiler::open(&target, &PlatformChoice::Auto, Purpose::Inspect).unwrap();
    for sequences_per_row in [1, 4] {
        let model = BertConfig { num_hidden_layers: 2, num_attention_heads: 2, ..Preset::Tiny.config(128) };
        let task = BertPretraining {
            model,
            rows: RowForm { sequence_length: 128, max_predictions: 8, sequences_per_row },
            sentence_pairs: true,
            recompute: Recompute::None,
            layers: Layers::Unrolled,
            attention: AttentionKernel::Triton,
        };
        let spec = StepSpec {
            task: Arc::new(task),
            optimizer: OptimizerConfig::default(),
            precision: Precision::Bf16,
            rows: 4,
            accumulation_steps: 2,
            replicas: 1,
            parallel: Parallel::default(),
            dropout: true,
        };
        let module = lower_for(&TrainStep::build(&spec).unwrap().program, Platform::Cuda.name()).unwrap();
        let optimized = compiler.compile(&module.bytes).unwrap().optimized_program().unwrap();
        // Forward and backward of the first layer; the last one is computed at masked positions only.
        let text = hlo::text(&module_bytes(&optimized).unwrap()).unwrap();
        assert_eq!(text.matches(TARGET).count(), 2, "{text}");
    }
}
