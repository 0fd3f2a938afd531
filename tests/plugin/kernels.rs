//! The kernels of fused operations: refused where they cannot run, and compiled for an absent GPU.

use std::sync::Arc;

use crate::common::{Workshop, text};
use lambert::batch::pretraining::RowForm;
use lambert::bert::{BertConfig, BertPretraining, Kernel, Kernels, Layers, Preset, Recompute};
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
    let forms =
        [("attention", "`auto`, `composed`, `separate`, `triton`"), ("layer_norm", "`auto`, `composed`, `triton`")];
    for (kernel, forms) in forms {
        let triton = &*format!("kernels.{kernel}=triton");
        let with = |requirement: &str| format!("{kernel} = \"triton\" requires {requirement}");
        refused(&[triton], &with(&format!("precision \"bf16\", got \"f32\"; set {kernel} to \"composed\"")));
        let wide = "model.hidden_size=128";
        refused(&[triton, wide, "precision=bf16"], &with("a sequence_length that is a multiple of 64"));
        refused(&[&format!("kernels.{kernel}=cudnn")], &format!("requires one of {forms}"));
        let option = &*format!("--{}", kernel.replace('_', "-"));
        let fails = |arguments: &[&str], flag: &str| {
            let output = workshop.lambert(&[arguments, &["--platform", "cpu"]].concat());
            assert_eq!(output.status.code(), Some(1), "{}", text(&output));
            let expected = format!("{flag}: a Triton kernel requires the platform cuda, got cpu; use an NVIDIA GPU");
            assert!(text(&output).contains(&expected), "{}", text(&output));
        };
        fails(&["bench", "--model", "tiny", option, "triton", "--precision", "bf16"], option);
        fails(&["verify", "--kernels", kernel], "--kernels");
    }
    let narrow = ["kernels.layer_norm=triton", "precision=bf16"];
    refused(&narrow, "requires a hidden_size that is a multiple of 128 and at most 2048, got 16");
}

#[test]
fn verify_requires_a_directory_or_kernels_by_name() {
    let workshop = Workshop::new();
    for (arguments, expected) in [
        (&["verify"][..], "<DIRECTORY>"),
        (&["verify", "reference", "--kernels", "attention"], "cannot be used with"),
        (&["verify", "--kernels", "softmax"], "kernels requires one of attention, layer_norm, got \"softmax\""),
    ] {
        let output = workshop.lambert(arguments);
        assert_eq!(output.status.code(), Some(2), "{}", text(&output));
        assert!(text(&output).contains(expected), "requires {expected:?}, got\n{}", text(&output));
    }
}

#[test]
fn cuda_compiler_compiles_the_kernels_with_the_step() {
    if Environment::of_process().plugin_files(Platform::Cuda).is_empty() {
        eprintln!("skipped: no plugin for cuda; run `lambert plugin install cuda`");
        return;
    }
    let target: Target = "cuda:h200:1x1x1".parse().unwrap();
    let compiler = Compiler::open(&target, &PlatformChoice::Auto, Purpose::Inspect).unwrap();
    let kernels = Kernel::ALL.into_iter().fold(Kernels::default(), |all, one| all.fusing(one));
    for sequences_per_row in [1, 4] {
        let model = BertConfig { num_hidden_layers: 2, num_attention_heads: 2, ..Preset::Tiny.config(128) };
        let task = BertPretraining {
            model,
            rows: RowForm { sequence_length: 128, max_predictions: 8, sequences_per_row },
            spare_rows: false,
            sentence_pairs: true,
            recompute: Recompute::None,
            layers: Layers::Unrolled,
            kernels,
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
            ema_decay: None,
        };
        let module = lower_for(&TrainStep::build(&spec).unwrap().program, Platform::Cuda.name()).unwrap();
        let optimized = compiler.compile(&module.bytes).unwrap().optimized_program().unwrap();
        // Forward and backward, of attention and of two LayerNorms in the first layer; the last layer is computed at masked positions
        // only.
        let text = hlo::text(&module_bytes(&optimized).unwrap()).unwrap();
        assert_eq!(text.matches(TARGET).count(), 6, "{text}");
    }
}
