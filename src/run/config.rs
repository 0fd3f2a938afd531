//! The typed tables of a run file, and their conversion into a [`Run`]. Every check that needs neither data nor devices
//! happens here; `preflight.rs` has the others. When they fail, no file has been written and no step compiled.

use std::path::PathBuf;

use anyhow::{Context, bail, ensure};
use serde::Deserialize;

use super::file::RunFile;
use super::weights::open_configuration;
use super::{
    CheckpointSettings, CompileSettings, DataSettings, DivergenceSettings, EmaSettings, EvaluateSettings, Run,
};
use crate::bert::{BertConfig, BertSettings, Kernels, Recompute};
use crate::optim::OptimizerConfig;
use crate::schedule::{Phase, Schedule};
use crate::step::ParallelSettings;
use crate::task::Precision;

/// The keys of a run file. Paths are relative to the working directory.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    name: String,
    /// Seeds the first weights, dropout, the order of the data and the masks.
    #[serde(default)]
    seed: u64,
    #[serde(default)]
    precision: Precision,
    /// The activations that the backward pass recomputes instead of storing: `none`, `attention` or `layer`.
    #[serde(default)]
    recompute: Recompute,
    #[serde(default)]
    compile: CompileSettings,
    #[serde(default)]
    kernels: Kernels,
    #[serde(default)]
    skip_non_finite: u64,
    /// Start from the weights in this directory instead of random ones.
    import: Option<PathBuf>,
    pub(super) data: DataSettings,
    #[serde(default)]
    model: Option<BertSettings>,
    optimizer: OptimizerConfig,
    ema: Option<EmaSettings>,
    #[serde(default)]
    parallel: ParallelSettings,
    #[serde(default)]
    evaluate: EvaluateSettings,
    #[serde(default)]
    divergence: DivergenceSettings,
    checkpoint: CheckpointSettings,
    phase: Vec<Phase>,
}

impl RunConfig {
    /// Returns the configuration of the weights that the run starts from, if it imports any.
    ///
    /// # Errors
    /// If it cannot be read. A directory that does not exist is reported later, by the caller that needs the weights, if the
    /// file has a `[model]`: the run can be planned without them.
    pub fn configuration_of_import(&self, file: &RunFile) -> anyhow::Result<Option<BertConfig>> {
        match &self.import {
            Some(import) if import.exists() || self.model.is_none() => {
                let config = open_configuration(import).with_context(|| format!("{}: import", file.path.display()));
                config.map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Converts the tables of `file` into a run. `weights` is the configuration of the weights that the run starts from, `tokens`
    /// the number of tokens of the prepared data; without both the file must state a vocabulary size.
    ///
    /// # Errors
    /// If a value is not allowed; the message names the file, the table, the key, the requirement and the value.
    pub fn into_run(self, file: &RunFile, weights: Option<&BertConfig>, tokens: Option<usize>) -> anyhow::Result<Run> {
        let path = file.path.display();
        ensure!(!self.name.trim().is_empty(), "{path}: `name` requires a name, as in name = \"quickstart\"");
        ensure!(self.precision != Precision::F64, "{path}: `precision` requires \"f32\" or \"bf16\", got \"f64\"");
        let (mut data, mut checkpoint) = (self.data.clone(), self.checkpoint.clone());
        let cached = data.path.cached_in(data.cache.as_deref());
        data.path = cached.with_context(|| format!("{path}: [data] cache"))?;
        let cached = checkpoint.directory.cached_in(checkpoint.cache.as_deref());
        checkpoint.directory = cached.with_context(|| format!("{path}: [checkpoint] cache"))?;
        let model = self.model(weights, tokens).with_context(|| format!("{path}: [model]"))?;
        if let Err(error) = model.validate_segments(data.mode.segments()) {
            bail!("{path}: [model]: {error}; raise it, or set [data] mode to \"full_sentences\" or \"doc_sentences\"");
        }

        let schedule = Schedule::new(self.phase).with_context(|| format!("{path}: [[phase]]"))?;
        for phase in schedule.phases() {
            model
                .validate_batch(phase.sequence_length, phase.max_predictions_per_seq)
                .with_context(|| format!("{path}: [[phase]] {:?}", phase.name))?;
        }
        for kernel in self.kernels.fused() {
            for phase in schedule.phases() {
                kernel
                    .check(&model, phase.sequence_length, self.precision)
                    .with_context(|| format!("{path}: [kernels], for [[phase]] {:?}", phase.name))?;
            }
        }
        ensure!(self.evaluate.micro_batch_size > 0, "{path}: [evaluate] micro_batch_size requires at least 1, got 0");
        if let Some(EmaSettings { decay }) = self.ema {
            ensure!(decay > 0.0 && decay < 1.0, "{path}: [ema] decay requires a number between 0 and 1, got {decay}");
        }
        ensure!(self.evaluate.examples > 0, "{path}: [evaluate] examples requires at least 1, got 0");
        ensure!(
            self.evaluate.patience == 0 || self.evaluate.metric.is_some(),
            "{path}: [evaluate] patience requires `metric`, as in metric = \"mlm_loss\"; add it, or remove patience"
        );
        if let Some(column) = self.evaluate.column_without_probe() {
            bail!(
                "{path}: [evaluate] {column} requires `probe`, as in probe = \"reviews.tsv\"; add it, or remove {column}"
            );
        }
        let run = Run {
            name: self.name,
            seed: self.seed,
            precision: self.precision,
            recompute: self.recompute,
            compile: self.compile,
            kernels: self.kernels,
            skip_non_finite: self.skip_non_finite,
            model,
            import: self.import,
            optimizer: self.optimizer,
            ema: self.ema,
            schedule,
            data,
            parallel: self.parallel,
            evaluate: self.evaluate,
            divergence: self.divergence,
            checkpoint,
            text: file.text.clone(),
        };
        for (index, phase) in run.schedule.phases().iter().enumerate() {
            run.training_examples(index)
                .check()
                .with_context(|| format!("{path}: examples of phase {:?}", phase.name))?;
            run.held_out_examples(index)
                .check()
                .with_context(|| format!("{path}: [evaluate], for the held-out examples of phase {:?}", phase.name))?;
        }
        run.selection_metric().with_context(|| path.to_string())?;
        Ok(run)
    }

    /// Returns the model of `[model]` or, without that table, that of the weights.
    fn model(&self, weights: Option<&BertConfig>, tokens: Option<usize>) -> anyhow::Result<BertConfig> {
        let Some(settings) = &self.model else {
            let weights = weights.context(
                "requires this table, as in [model] preset = \"base\", or `import` with the directory of a model",
            )?;
            return Ok(weights.clone());
        };
        let vocab_size = settings.vocab_size.or(weights.map(|weights| weights.vocab_size)).or(tokens);
        let vocab_size = vocab_size.with_context(|| {
            let data = &self.data.path;
            format!(
                "requires vocab_size, because there is no prepared data at {data}; set vocab_size, or prepare the data with \
                 `lambert prepare`"
            )
        })?;
        Ok(settings.resolve(vocab_size)?)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::bert::Preset;
    use crate::schedule::Curve;

    fn shipped() -> Vec<(PathBuf, String, Run)> {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/runs");
        let mut files: Vec<PathBuf> = std::fs::read_dir(directory).unwrap().map(|e| e.unwrap().path()).collect();
        files.retain(|path| path.extension().is_some_and(|e| e == "toml"));
        files.sort();
        let read = |path: PathBuf| {
            let file = RunFile::read(&path, &[]).unwrap();
            // The quickstart leaves its vocabulary to the data, which scripts/quickstart gives 8,192 entries, and continue.toml its
            // model to the weights that it imports.
            let config: RunConfig = file.parse().unwrap_or_else(|e| panic!("{e:#}"));
            let weights = config.import.as_ref().map(|_| Preset::Base.config(30_522));
            let run = config.into_run(&file, weights.as_ref(), Some(8192)).unwrap_or_else(|e| panic!("{e:#}"));
            (path, file.text, run)
        };
        files.into_iter().map(read).collect()
    }

    #[test]
    fn run_files_state_the_arithmetic_of_their_settings() {
        let shipped = shipped();
        assert_eq!(shipped.len(), 7);
        for (path, text, run) in &shipped {
            for line in run.arithmetic_table() {
                assert!(text.contains(&format!("# {line}\n")), "{} lacks\n# {line}", path.display());
            }
            if let Some((_, stated)) = text.split_once("(H200, bf16): ") {
                let flops: f64 = run.arithmetic().iter().map(|a| a.flops).sum();
                let hours = format!("{:.0} chip-hours.", flops / (0.5 * 989e12) / 3600.0);
                assert!(stated.starts_with(&hours), "{} requires {hours}", path.display());
            }
        }
    }

    #[test]
    fn the_published_recipes_have_their_published_numbers() {
        let run = |name: &str| shipped().into_iter().find(|(_, _, run)| run.name == name).unwrap().2;
        let paper = run("bert-large-64k-paper");
        assert_eq!(paper.schedule.steps(), 8599);
        assert!((paper.schedule.phases()[1].peak() - 0.005).abs() < 1e-12);
        assert_eq!(run("bert-large-32k-paper").schedule.steps(), 15_625);

        let nvidia = run("bert-large-nvidia");
        let [one, two] = nvidia.schedule.phases() else { panic!("two phases") };
        assert_eq!(
            (one.steps, one.global_batch, one.max_predictions_per_seq, one.learning_rate),
            (7038, 65_536, 20, Some(6e-3))
        );
        assert_eq!(
            (two.steps, two.global_batch, two.max_predictions_per_seq, two.learning_rate),
            (1563, 32_768, 80, Some(4e-3))
        );
        assert_eq!(
            (one.curve, two.curve, two.carry_step, two.carry_moments),
            (Curve::Nvidia, Curve::Nvidia, false, true)
        );
        let sequences: Vec<u64> = nvidia.arithmetic().iter().map(|a| a.sequences).collect();
        assert_eq!(sequences, [461_242_368, 51_216_384]);
    }

    /// Reads the run file of a checkpoint with 8,192 tokens.
    fn read(name: &str, text: &str) -> anyhow::Result<Run> {
        Run::from_checkpoint(Path::new(name), text, &Preset::Tiny.config(8192))
    }

    /// The values are those of version 0.1.0, which wrote `predictions`, `micro_batch` and `[evaluate] batch`.
    #[test]
    fn fingerprints_of_renamed_settings_are_those_of_earlier_checkpoints() {
        for (text, fingerprint) in [
            (
                include_str!("testdata/fingerprint-plain.toml"),
                "0d1a5e4b1e9d13474585e8ece082777da420deca94ef7838f3d4865921b73deb",
            ),
            (
                include_str!("testdata/fingerprint-full.toml"),
                "3ac93c157444f5089b3c4df00bf7f4759b3dcf294d0e9d5e64028b95b98e25c9",
            ),
        ] {
            let run = read("run.toml", text).unwrap();
            assert_eq!(run.fingerprint("d"), fingerprint);
            // A checkpoint holds the run file as it was written.
            let renamed = text
                .replace("max_predictions_per_seq", "predictions")
                .replace("micro_batch_size", "micro_batch")
                .replace("gradient_reduce_dtype", "gradient_exchange");
            let earlier = renamed.replace("[evaluate]", "[evaluate]\nbatch = 8");
            let earlier = read("run.toml", &earlier).unwrap();
            assert_eq!(earlier.settings(), run.settings());
            assert_eq!(earlier.schedule, run.schedule);
        }
    }

    /// A run file of two phases, which the tests below change.
    const TWO_PHASES: &str = "\
name = \"small\"
seed = 12439
[data]
path = \"data\"
[model]
preset = \"tiny\"
[optimizer]
preset = \"paper\"
[checkpoint]
directory = \"run\"
keep = 2
[[phase]]
name = \"128\"
sequence_length = 128
max_predictions_per_seq = 20
global_batch = 32
micro_batch_size = 16
steps = 840
learning_rate = 0.008
warmup = { proportion = 0.1 }
[[phase]]
name = \"512\"
sequence_length = 512
max_predictions_per_seq = 76
global_batch = 8
micro_batch_size = 4
steps = 40
learning_rate = 0.002
";

    #[test]
    fn shares_of_masked_tokens_are_part_of_the_fingerprint_unless_they_are_berts() {
        let run = |shares: &str| {
            let text = TWO_PHASES.replacen("[data]", &format!("[data]\n{shares}"), 1);
            read("run.toml", &text).unwrap()
        };
        let plain = run("");
        let same = run("mask_shares = { masked = 0.8, random = 0.1, kept = 0.1 }");
        assert_eq!(same.fingerprint("d"), plain.fingerprint("d"));
        let other = run("mask_shares = { masked = 1.0, random = 0.0, kept = 0.0 }");
        assert_ne!(other.fingerprint("d"), plain.fingerprint("d"));
        assert_eq!(other.training_examples(0).mask_shares.masked, 1.0);
        assert_eq!(other.held_out_examples(0), plain.held_out_examples(0));
    }

    #[test]
    fn a_ramp_of_the_masking_rate_spans_the_sequences_of_its_phase() {
        let with = |rate: &str| {
            let text = TWO_PHASES.replacen("_per_seq = 20", &format!("_per_seq = 40\nmasked_lm_prob = {rate}"), 1);
            read("q.toml", &text)
        };
        let run = with("{ from = 0.3, to = 0.15 }").unwrap();
        let [one, two] = [0, 1].map(|phase| run.training_examples(phase));
        assert_eq!(one.masking_ramp.map(|ramp| (ramp.to, ramp.examples)), Some((0.15, 840 * 32)));
        for (number, share) in [(0, 0.3), (420 * 32, 0.225), (840 * 32, 0.15), (1 << 40, 0.15)] {
            assert!((one.masked_share(number) - share).abs() < 1e-12, "{number}");
        }
        assert_eq!((one.largest_masked_share(), two.masking_ramp, two.masked_lm_prob), (0.3, None, 0.15));
        // The evaluation is that of a run at 15 %, with as many masked positions as it requires.
        assert_eq!(run.held_out_examples(0).max_predictions_per_seq, 19);
        assert_ne!(run.fingerprint("d"), with("0.3").unwrap().fingerprint("d"));
        assert_eq!(with("{ from = 0.3, to = 0.15 }").unwrap().settings(), run.settings());
        for (rate, said) in [
            ("{ from = 0.3 }", "missing field `to`"),
            ("{ from = 0.3, to = 0.0 }", "masked_lm_prob: requires a number between 0 and 1, got 0"),
            ("{ from = 0.3, too = 0.1 }", "unknown key `too`"),
            ("'much'", "a number, or { from, to }"),
        ] {
            let error = format!("{:#}", with(rate).unwrap_err());
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn held_out_examples_are_masked_at_one_rate_whatever_that_of_training() {
        let held_out = |data: &str, most: &str, evaluate: &str| {
            let text = TWO_PHASES.replacen("[data]", &format!("[evaluate]\n{evaluate}\n[data]\n{data}"), 1);
            let run = read("run.toml", &text.replacen("_per_seq = 20", &format!("_per_seq = {most}"), 1)).unwrap();
            let [one, two] = [0, 1].map(|phase| run.held_out_examples(phase));
            assert_eq!(
                (one.masked_lm_prob, two.masked_lm_prob),
                (run.evaluate.masked_lm_prob, run.evaluate.masked_lm_prob)
            );
            (one, two.max_predictions_per_seq)
        };
        // The longest sequences have round(128 · 0.15) = 19 and round(512 · 0.15) = 77 masked positions.
        let (plain, most) = held_out("", "20", "");
        assert_eq!((plain.max_predictions_per_seq, most), (19, 76), "the second phase has at most 76");
        let (more, most) = held_out("masked_lm_prob = 0.4", "52", "");
        assert_eq!((&more, most), (&plain, 77));
        let (fewer, most) = held_out("masked_lm_prob = 0.05", "7", "");
        assert_eq!((&fewer, most), (&plain, 77));
        let (other, most) = held_out("masked_lm_prob = 0.4", "52", "masked_lm_prob = 0.4");
        assert_eq!((other.max_predictions_per_seq, most), (51, 76));
        assert_eq!(held_out("", "20", "masked_lm_prob = 0.4").1, 205);
    }

    #[test]
    fn a_run_with_layers_in_a_loop_does_not_resume_one_with_unrolled_layers() {
        let fingerprint = |form: &str| {
            let text = format!("{TWO_PHASES}[compile]\nlayers = \"{form}\"\n");
            read("run.toml", &text).unwrap().fingerprint("d")
        };
        assert_eq!(fingerprint("unrolled"), fingerprint("auto"));
        assert_ne!(fingerprint("loop"), fingerprint("auto"));
    }

    /// Returns the error about [`TWO_PHASES`] with the first `change.0` replaced by `change.1`.
    fn message(change: (&str, &str)) -> String {
        assert!(TWO_PHASES.contains(change.0));
        let text = TWO_PHASES.replacen(change.0, change.1, 1);
        format!("{:#}", read("q.toml", &text).unwrap_err())
    }

    #[test]
    fn invalid_settings_are_rejected_with_table_and_key() {
        assert_eq!(
            message(("preset = \"tiny\"", "preset = \"tiny\"\nnum_attention_heads = 3")),
            "q.toml: [model]: hidden_size requires a multiple of num_attention_heads (3), got 128"
        );
        assert_eq!(
            message(("max_predictions_per_seq = 20", "max_predictions_per_seq = 129")),
            "q.toml: [[phase]]: phase \"128\": max_predictions_per_seq requires at most sequence_length (128), got 129"
        );
        assert_eq!(
            message(("sequence_length = 512", "sequence_length = 513")),
            "q.toml: [[phase]] \"512\": sequence_length requires 1 to max_position_embeddings (512), got 513"
        );
        for (change, said) in [
            (("[data]", "[data]\nmasked_lm_prob = 0.0"), "examples of phase \"128\": masked_lm_prob: requires"),
            (
                ("[data]", "[data]\nmask_shares = { masked = 0.8, random = 0.1, kept = 0.2 }"),
                "mask_shares: requires shares from 0 to 1 whose sum is 1, got masked = 0.8, random = 0.1, kept = 0.2",
            ),
            (("[data]", "[data]\nshort_seq_prob = nan"), "examples of phase \"128\": short_seq_prob: requires"),
            (
                ("[data]", "[evaluate]\nmasked_lm_prob = 1.0\n[data]"),
                "[evaluate], for the held-out examples of phase \"128\": masked_lm_prob: requires a number between 0 and 1, got 1",
            ),
            (
                ("max_predictions_per_seq = 20", "max_predictions_per_seq = 20\nmasked_lm_prob = 1.0"),
                "phase \"128\": masked_lm_prob: requires",
            ),
        ] {
            assert!(message(change).contains(said), "{}", message(change));
        }
        let segments = "[model]: type_vocab_size requires at least 2, a token type for each segment of a sequence, got 1; raise \
                        it, or set [data] mode to \"full_sentences\" or \"doc_sentences\"";
        let one_type = ("preset = \"tiny\"", "preset = \"tiny\"\ntype_vocab_size = 1");
        assert_eq!(message(one_type), format!("q.toml: {segments}"));
        let single = TWO_PHASES.replacen(one_type.0, one_type.1, 1).replace("[data]", "[data]\nmode = 'doc_sentences'");
        assert_eq!(read("q.toml", &single).unwrap().model.type_vocab_size, 1);
        let f32 = "requires a number in the range of f32, which computes it (magnitudes from 1.2e-38 to 3.4e38), got";
        for (change, key) in [
            (("learning_rate = 0.008", "learning_rate = 1e-50"), "phase.1.learning_rate"),
            (("preset = \"paper\"", "preset = \"paper\"\nepsilon = 1e-50"), "optimizer.epsilon"),
            (("preset = \"tiny\"", "preset = \"tiny\"\ninitializer_range = 1e-50"), "model.initializer_range"),
            (("[data]", "[data]\nshort_seq_prob = 1e-50"), "data.short_seq_prob"),
        ] {
            let message = message(change);
            assert!(message.ends_with(&format!("{key} {f32} 1e-50")), "{message}");
        }
        assert!(message(("\"run\"", "\"\"")).contains("checkpoint.directory requires a text with at least one"));
        assert_eq!(
            message(("[data]", "[evaluate]\nmetric = \"f1\"\n[data]")),
            "q.toml: [evaluate] metric requires one of mlm_loss, mlm_accuracy, nsp_loss, nsp_accuracy, got \"f1\""
        );
        assert_eq!(
            message(("[data]", "[evaluate]\npatience = 2\n[data]")),
            "q.toml: [evaluate] patience requires `metric`, as in metric = \"mlm_loss\"; add it, or remove patience"
        );
        let single = message(("[data]", "[evaluate]\nmetric = \"nsp_loss\"\n[data]\nmode = \"full_sentences\""));
        assert!(single.contains("one of mlm_loss, mlm_accuracy, got"), "{single}");
        let unknown = [
            (("preset = \"paper\"", "preset = \"paper\"\nwieght_decay = 0.1"), "`wieght_decay`", "`weight_decay`"),
            (("preset = \"tiny\"", "hiden_size = 64"), "`hiden_size`", "`hidden_size`"),
            (("keep = 2", "keeep = 2"), "`keeep` in [checkpoint]", "`keep`"),
            (("learning_rate = ", "learning_rat = "), "`learning_rat` in [[phase]]", "`learning_rate`"),
            (("{ proportion = 0.1 }", "{ proportoin = 0.1 }"), "`proportoin`", "`proportion`"),
        ];
        for (change, unknown, near) in unknown {
            let message = message(change);
            assert!(message.contains(unknown) && message.contains(near), "{message}");
        }
        assert!(message(("seed = 12439", "seed = -1")).starts_with("q.toml:"));
    }
}
