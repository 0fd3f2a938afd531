//! The rule on synthetic runs: healthy ones raise no alarm, and diverging ones do within a few steps.

use std::f64::consts::LN_2;

use super::*;

/// The references of a vocabulary of 30,522 tokens.
const BERT: References = References { uniform: Some(10.33), baseline: Some(7.2) };
/// The references of two classes of equal frequency.
const TWO_CLASSES: References = References { uniform: Some(LN_2), baseline: Some(LN_2) };

/// A run of steps that a test describes as a function.
struct Simulated {
    monitor: Monitor,
    references: References,
    /// The last step of the warm-up.
    warmup: u64,
    /// Steps between checkpoints.
    save_every: u64,
}

impl Simulated {
    fn new(references: References) -> Simulated {
        Simulated { monitor: Monitor::default(), references, warmup: 100, save_every: 100 }
    }

    /// Runs steps 1 to `last`; returns the first sign and its step.
    fn run(&mut self, last: u64, numbers: impl Fn(u64) -> Numbers) -> Option<(u64, Divergence)> {
        for step in 1..=last {
            let sign = self.monitor.observe(step, numbers(step), self.references, step <= self.warmup);
            if let Some(sign) = sign {
                return Some((step, sign));
            }
            if step.is_multiple_of(self.save_every) {
                self.monitor.saved(step, None, self.references);
            }
        }
        None
    }
}

/// Returns a number between -1 and 1 that differs from step to step.
fn noise(step: u64) -> f64 {
    let hash = (step + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    2.0 * ((hash ^ (hash >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 11) as f64 / (1u64 << 53) as f64 - 1.0
}

/// Returns the numbers of a step with `loss` that is healthy otherwise.
fn with_loss(step: u64, loss: f64) -> Numbers {
    Numbers { loss, gradient_norm: 2.0 + noise(step), trust_ratio: 0.05 }
}

/// The loss of a healthy pretraining run: above a uniform guess at first, then on the plateau of the unigram loss, then falling; at
/// step 7,001 the sequences become longer.
fn pretraining_loss(step: u64) -> f64 {
    let t = step as f64;
    let mean = match step {
        ..=200 => 13.0 - 5.6 * t / 200.0,
        201..=1000 => 7.4 - 0.2 * (t - 200.0) / 800.0,
        1001..=7000 => 1.6 + 5.6 * (-(t - 1000.0) / 600.0).exp(),
        _ => 1.5 + 2.5 * (-(t - 7000.0) / 50.0).exp(),
    };
    mean * (1.0 + 0.03 * noise(step))
}

#[test]
fn healthy_runs_raise_no_alarm() {
    // Pretraining with two phases. Gradients shrink by a factor of 30, and ratios of LARS grow by as much.
    let mut two_phases = Simulated::new(BERT);
    let shrinking = |step: u64| Numbers {
        loss: pretraining_loss(step),
        gradient_norm: 9.0 / (1.0 + step as f64 / 250.0),
        trust_ratio: 0.05 * (1.0 + step as f64 / 250.0),
    };
    assert_eq!(two_phases.run(9000, shrinking), None);
    assert_eq!(two_phases.monitor.last_good(), Some(8900));

    // A small model with small batches that never leaves the plateau.
    let plateau = |step: u64| with_loss(step, 7.1 * (1.0 + 0.2 * noise(step)));
    assert_eq!(Simulated::new(BERT).run(20_000, plateau), None);

    // Bad batches: one in 40, and three in a row.
    let spikes = |step: u64| match step % 40 {
        0 => Numbers { loss: 3e12, gradient_norm: 1e20, trust_ratio: 1e9 },
        17..=19 => with_loss(step, 40.0),
        _ => with_loss(step, pretraining_loss(step)),
    };
    let mut with_spikes = Simulated::new(BERT);
    assert_eq!(with_spikes.run(7000, spikes), None);
    assert_eq!(with_spikes.monitor.last_good(), Some(6900));

    // Fine-tuning with batches of eight, and a task without references.
    let fine_tuning =
        |step: u64| with_loss(step, (0.55 - 0.4 * (step as f64 / 2000.0) + 0.35 * noise(step)).max(0.001));
    assert_eq!(Simulated { warmup: 0, ..Simulated::new(TWO_CLASSES) }.run(2000, fine_tuning), None);
    let regression = |step: u64| with_loss(step, 4000.0 / step as f64);
    assert_eq!(Simulated::new(References::default()).run(500, regression), None);
}

#[test]
fn a_loss_far_above_that_of_a_uniform_guess_raises_the_alarm_and_the_checkpoint_before_is_good() {
    for onset in [150, 201, 395, 403] {
        let mut run = Simulated::new(BERT);
        let loss = |step: u64| if step < onset { pretraining_loss(step) } else { 3e12 };
        let (step, sign) = run.run(1000, |step| with_loss(step, loss(step))).expect("it diverges");
        assert_eq!(step, onset + 4, "the median of nine steps");
        assert_eq!(sign, Divergence::Loss { loss: 3e12, uniform: 10.33 });
        // A checkpoint is proven by the nine steps after it.
        let expected = (onset - 10) / 100 * 100;
        assert_eq!(run.monitor.last_good(), Some(expected).filter(|step| *step > 0), "from step {onset} on");
    }
    // At any time, also in the first steps.
    let (step, _) = Simulated::new(BERT).run(100, |step| with_loss(step, 25.0)).expect("it diverges");
    assert_eq!(step, 5);
}

#[test]
fn a_model_that_is_back_at_the_unigram_loss_raises_the_alarm() {
    // The divergences of AdamW and LARS in the paper: a loss near 8 from the first steps of length 512 on.
    let mut run = Simulated { save_every: 1000, ..Simulated::new(BERT) };
    let loss = |step: u64| if step <= 7000 { pretraining_loss(step) } else { 7.35 + 0.2 * noise(step) };
    let (step, sign) = run.run(9000, |step| with_loss(step, loss(step))).expect("it diverges");
    assert_eq!(step, 7025);
    let Divergence::Baseline { loss, baseline, lowest } = sign else { panic!("{sign:?}") };
    assert!((loss - 7.35).abs() < 0.2 && baseline == 7.2 && lowest < 1.8, "{sign:?}");
    assert_eq!(run.monitor.last_good(), Some(6000), "nothing after step 7000 is calm");

    // A slow divergence within a phase. Checkpoints of the way up are not good.
    let mut run = Simulated::new(BERT);
    let up = |step: u64| pretraining_loss(step.min(3000)) + 5.6 * ((step.max(3000) - 3000) as f64 / 400.0).min(1.0);
    let (step, sign) = run.run(9000, |step| with_loss(step, up(step))).expect("it diverges");
    assert!((3380..3450).contains(&step) && matches!(sign, Divergence::Baseline { .. }), "{step}: {sign:?}");
    assert_eq!(run.monitor.last_good(), Some(3100));

    // During the first warm-up, a loss may come back.
    let unstable = |step: u64| with_loss(step, if step.is_multiple_of(400) || step % 400 > 200 { 4.0 } else { 7.3 });
    assert_eq!(Simulated { warmup: 2000, ..Simulated::new(BERT) }.run(2000, unstable), None);
    assert!(Simulated { warmup: 100, ..Simulated::new(BERT) }.run(2000, unstable).is_some());
}

#[test]
fn norms_far_above_those_of_the_start_raise_the_alarm() {
    let jump = |step: u64, factor: f64| if step < 500 { 1.0 } else { factor };
    let numbers = |gradient_norm: f64, trust_ratio: f64| Numbers { loss: 5.0, gradient_norm, trust_ratio };
    let mut run = Simulated::new(BERT);
    let (step, sign) = run.run(1000, |step| numbers(3.0 * jump(step, 200.0), 0.1)).expect("it diverges");
    assert_eq!((step, sign), (504, Divergence::GradientNorm { norm: 600.0, largest: 3.0 }));
    let mut run = Simulated::new(BERT);
    let (step, sign) = run.run(1000, |step| numbers(3.0, 0.1 * jump(step, 2e4))).expect("it diverges");
    assert_eq!((step, sign), (504, Divergence::TrustRatio { ratio: 0.1 * 2e4, largest: 0.1 }));
    // Growth by less is no sign, nor are norms of zero at the start.
    assert_eq!(Simulated::new(BERT).run(1000, |step| numbers(3.0 * jump(step, 50.0), 0.1 * jump(step, 500.0))), None);
    assert_eq!(Simulated::new(BERT).run(1000, |step| numbers(jump(step, 1e9) - 1.0, 0.1)), None);
}

#[test]
fn an_alarm_is_raised_once_until_the_run_is_calm_again() {
    let mut monitor = Monitor::default();
    let mut signs = Vec::new();
    for step in 1..=300 {
        let loss = if (100..150).contains(&step) || step >= 250 { 100.0 } else { 5.0 };
        signs.extend(monitor.observe(step, with_loss(step, loss), BERT, false).map(|_| step));
    }
    assert_eq!(signs, [104, 254]);
}

#[test]
fn a_checkpoint_with_a_calm_evaluation_is_good_at_once() {
    let mut monitor = Monitor::default();
    for step in 1..=20 {
        monitor.observe(step, with_loss(step, 5.0), BERT, false);
    }
    monitor.saved(20, Some(5.1), BERT);
    assert_eq!(monitor.last_good(), Some(20));
    // The last update before the evaluation has wrecked the weights.
    monitor.observe(21, with_loss(21, 5.0), BERT, false);
    monitor.saved(21, Some(130.0), BERT);
    assert_eq!(monitor.last_good(), Some(20));
}

#[test]
fn a_resumed_run_remembers_what_it_learned_and_which_checkpoints_are_good() {
    let mut run = Simulated { save_every: 1000, ..Simulated::new(BERT) };
    assert_eq!(run.run(7000, |step| with_loss(step, pretraining_loss(step))), None);
    let text = serde_json::to_string(&run.monitor).unwrap();
    let mut resumed: Monitor = serde_json::from_str(&text).unwrap();
    assert_eq!((resumed.last_good(), &resumed), (Some(6000), &run.monitor));
    let mut sign = None;
    for step in 7001..=7030 {
        sign = sign.or(resumed.observe(step, with_loss(step, 8.0), BERT, false));
    }
    assert!(matches!(sign, Some(Divergence::Baseline { .. })), "{sign:?}");
    assert_eq!(Monitor::from_checkpoint(0).last_good(), Some(0));
}

#[test]
fn a_run_that_stays_diverged_remembers_few_checkpoints() {
    let mut monitor = Monitor::default();
    for step in 1..=10_000 {
        let loss = if step <= 500 { 5.0 } else { 40.0 };
        monitor.observe(step, with_loss(step, loss), BERT, false);
        monitor.saved(step, None, BERT);
        assert!(monitor.unproven.len() <= SHORT + 1, "{} checkpoints at step {step}", monitor.unproven.len());
    }
    let before = monitor.last_good().expect("a good checkpoint");
    assert!(before < 520, "{before}");
    // Calm again: the newest checkpoint that is old enough is good, as if all had been remembered.
    let calm = (10_001..10_100).find(|&step| {
        monitor.observe(step, with_loss(step, 5.0), BERT, false);
        monitor.last_good() != Some(before)
    });
    let calm = calm.expect("the run is calm again");
    assert_eq!(monitor.last_good(), Some((calm - SHORT as u64).min(10_000)));
}

#[test]
fn sentences_name_step_value_reference_and_setting() {
    let signs = [
        Divergence::Loss { loss: 3.1e12, uniform: 10.33 },
        Divergence::Baseline { loss: 7.35, baseline: 7.2, lowest: 1.63 },
        Divergence::GradientNorm { norm: 600.0, largest: 3.0 },
        Divergence::TrustRatio { ratio: 2000.0, largest: 0.1 },
    ];
    assert_eq!(
        signs[0].sentence(312, "MLM loss"),
        "step 312: training has diverged: the MLM loss is 3.100e12 (median of 9 steps), above 2 times the 10.3300 of a uniform guess; \
         lower learning_rate, lengthen warmup, or set gradient_clip"
    );
    for (sign, parts) in signs.iter().zip([["3.100e12", "10.33"], ["7.35", "7.2"], ["600", "3.0"], ["2000", "0.1"]]) {
        let sentence = sign.sentence(312, "MLM loss");
        assert!(parts.iter().all(|part| sentence.contains(part)) && sentence.contains("learning_rate"), "{sentence}");
        assert_eq!(sentence.matches(". ").count(), 0, "{sentence}");
    }
}

#[test]
fn a_run_that_ends_without_having_learned_anything_is_judged() {
    let ended = |last: u64, loss: &dyn Fn(u64) -> f64| {
        let mut run = Simulated::new(BERT);
        assert_eq!(run.run(last, |step| with_loss(step, loss(step))), None);
        run.monitor
    };
    let stuck = |step: u64| 7.5 + 0.1 * noise(step);
    let found = ended(500, &stuck).nothing_learned(7.6, BERT).unwrap();
    assert!(found.held_out == 7.6 && found.baseline == 7.2 && (7.4..7.6).contains(&found.lowest), "{found:?}");
    let expected = "the model has learned nothing beyond the label frequencies: the held-out MLM loss is 7.6000 at the end and was 7.";
    assert!(found.sentence("MLM loss").starts_with(expected), "{}", found.sentence("MLM loss"));
    // At the baseline exactly, and without a number.
    assert!(ended(500, &stuck).nothing_learned(7.2, BERT).is_some());
    assert!(ended(500, &stuck).nothing_learned(f64::NAN, BERT).is_some());
    // Better than the baseline, too few steps, no baseline, or a model that has learned something and overfits.
    assert_eq!(ended(500, &stuck).nothing_learned(7.1, BERT), None);
    assert_eq!(ended(24, &stuck).nothing_learned(7.6, BERT), None);
    assert_eq!(ended(500, &stuck).nothing_learned(7.6, References::default()), None);
    assert_eq!(ended(5000, &pretraining_loss).nothing_learned(7.6, BERT), None);
}
