//! Compares the curves with published numbers, and tests the rejection of invalid phases.

use crate::divergence::SkippedRange;
use crate::schedule::*;

fn phase(text: &str) -> Phase {
    toml::from_str(text).unwrap()
}

fn nvidia() -> Schedule {
    let one = phase(
        "sequence_length = 128\nmax_predictions_per_seq = 20\nglobal_batch = 65536\nmicro_batch_size = 64\nsteps = 7038\n\
         learning_rate = 6e-3\nwarmup = { proportion = 0.2843 }\ndecay = { polynomial = { power = 0.5 } }\n\
         curve = 'nvidia'",
    );
    let two = phase(
        "sequence_length = 512\nmax_predictions_per_seq = 80\nglobal_batch = 32768\nmicro_batch_size = 8\nsteps = 1563\n\
         learning_rate = 4e-3\nwarmup = { proportion = 0.128 }\ndecay = { polynomial = { power = 0.5 } }\n\
         curve = 'nvidia'\ncarry_step = false",
    );
    Schedule::new(vec![one, two]).unwrap()
}

#[test]
fn nvidias_two_phases() {
    let schedule = nvidia();
    assert_eq!((schedule.steps(), schedule.start_of(1)), (8601, 7038));
    let rate = |n| schedule.at(n).unwrap().learning_rate;
    let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "{a} {b}");
    // The warm-up is 0.2843 · 7038 = 2000.9 steps long; the first update is not wasted.
    close(rate(0), 6e-3 / (0.2843 * 7038.0));
    close(rate(1999), 6e-3 * 2000.0 / (0.2843 * 7038.0));
    // Then the rate jumps to peak · √(1 − progress) and reaches zero at the last step.
    close(rate(2000), 6e-3 * (1.0 - 2001.0 / 7038.0f64).sqrt());
    close(rate(7037), 0.0);
    // Phase 2 warms up again and its count restarts.
    let plan = schedule.at(7038).unwrap();
    assert_eq!((plan.phase, plan.step_in_phase), (1, 0));
    assert_eq!((plan.global_batch, plan.first_example, plan.optimizer_step), (32768, 0, 1));
    close(plan.learning_rate, 4e-3 / (0.128 * 1563.0));
    assert_eq!(schedule.at(7037).unwrap().optimizer_step, 7038);
    assert_eq!(schedule.at(8600).unwrap().first_example, 1562 * 32768);
    let position = |phase, step_in_phase, optimizer_steps| {
        let next_example = step_in_phase * 32768 * if phase == 0 { 2 } else { 1 };
        Position { phase, step_in_phase, next_example, optimizer_steps }
    };
    assert_eq!(schedule.position(0).unwrap(), position(0, 0, 0));
    assert_eq!(schedule.position(7037).unwrap(), position(0, 7037, 7037));
    assert_eq!(schedule.position(7038).unwrap(), position(1, 0, 0));
    assert_eq!(schedule.position(8600).unwrap(), position(1, 1562, 1562));
    assert_eq!(schedule.position(8601).unwrap(), position(1, 1563, 1563));
    assert!(schedule.position(8602).is_err() && schedule.position(u64::MAX).is_err());
    let e = schedule.at(8601).unwrap_err();
    assert_eq!(e.to_string(), "step 8601 is past the end: the schedule has 8601 steps (0 to 8600)");
}

#[test]
fn the_papers_phases_restart_the_warm_up_and_carry_the_count() {
    let text = |length: usize, batch: usize, steps: u64| {
        format!(
            "sequence_length = {length}\nmax_predictions_per_seq = 20\nglobal_batch = {batch}\nmicro_batch_size = 64\nsteps = {steps}\n\
             sqrt_scaled = {{ base_rate = 0.000625, base_batch = 512 }}\n\
             warmup = {{ linear_epoch = {{ base_proportion = 0.003125, base_batch = 512 }} }}\ncurve = 'google'"
        )
    };
    let schedule = Schedule::new(vec![phase(&text(128, 32768, 14063)), phase(&text(512, 32768, 1562))]).unwrap();
    assert_eq!(schedule.steps(), 15625);
    let [one, two] = schedule.phases() else { panic!("two phases") };
    // The table of untuned LAMB: 5/10³ and a fifth of the steps at 32,768.
    assert!((one.peak() - 0.005).abs() < 1e-15);
    assert_eq!((one.warmup_steps(), two.warmup_steps()), (2813.0, 312.0));
    assert_eq!(one.choices().len(), 2);
    let rate = |n| schedule.at(n).unwrap().learning_rate;
    assert_eq!((rate(0), rate(14063)), (0.0, 0.0));
    assert!((rate(2812) - 0.005 * 2812.0 / 2813.0).abs() < 1e-15);
    assert!((rate(2813) - 0.005 * (1.0 - 2813.0 / 14063.0)).abs() < 1e-15);
    assert_eq!(schedule.at(14063).unwrap().optimizer_step, 14064);
}

#[test]
fn steps_continue_behind_skipped_examples() {
    let text = "sequence_length = 8\nmax_predictions_per_seq = 2\nglobal_batch = 4\nmicro_batch_size = 4\nsteps = 5\nlearning_rate = 1.0";
    let whole = Schedule::new(vec![phase(text), phase(text)]).unwrap();
    let mut skipped = SkippedExamples::default();
    skipped.add(SkippedRange { phase: 1, from: 8, to: 20 });
    let schedule = whole.leaving_out(&skipped);
    let first_examples: Vec<u64> = (0..10).map(|step| schedule.at(step).unwrap().first_example).collect();
    assert_eq!(first_examples, [0, 4, 8, 12, 16, 0, 4, 20, 24, 28]);
    assert_eq!([7, 10].map(|done| schedule.position(done).unwrap().next_example), [20, 32]);
    let others = |schedule: &Schedule| (0..10).map(|step| schedule.at(step).unwrap().learning_rate).collect::<Vec<_>>();
    assert_eq!(others(&schedule), others(&whole));
}

#[test]
fn the_tables_of_the_scaling_rules() {
    for (batch, rate, warmup) in [
        (512, 0.000625, 1.0 / 320.0),
        (1024, 0.000884, 1.0 / 160.0),
        (2048, 0.00125, 1.0 / 80.0),
        (4096, 0.001768, 1.0 / 40.0),
        (8192, 0.0025, 1.0 / 20.0),
        (16384, 0.003536, 1.0 / 10.0),
        (32768, 0.005, 1.0 / 5.0),
    ] {
        assert!((sqrt_batch_scaling(0.000625, 512, batch).value - rate).abs() < 5e-7, "{batch}");
        assert!((linear_epoch_warmup(1.0 / 320.0, 512, batch).value - warmup).abs() < 1e-12, "{batch}");
    }
    let chosen = sqrt_batch_scaling(0.000625, 512, 32768).explanation;
    assert_eq!(chosen, "learning rate 0.005000 at batch 32768: 0.000625 at batch 512, scaled by the square root");
}

#[test]
fn the_continuous_curve_wastes_no_step_and_does_not_jump() {
    let phase = phase(
        "sequence_length = 8\nmax_predictions_per_seq = 2\nglobal_batch = 4\nmicro_batch_size = 4\nsteps = 10\nlearning_rate = 1.0\n\
         warmup = { steps = 4 }\ndecay = { polynomial = { power = 2.0, end = 0.1 } }",
    );
    let rates: Vec<f64> = (0..10).map(|t| phase.learning_rate_at(t)).collect();
    assert_eq!(rates[..5], [0.25, 0.5, 0.75, 1.0, 1.0]);
    assert!((rates[9] - (0.1 + 0.9 / 36.0)).abs() < 1e-15);
    let constant = Phase { decay: Decay::Constant, ..phase };
    assert_eq!((constant.learning_rate_at(1), constant.learning_rate_at(9)), (0.5, 1.0));
}

/// The recipes of MLPerf Training BERT at 8192 and 6144 (its reference convergence points): the ramp is entered at step
/// 76 of 287, or was left long ago.
#[test]
fn a_warm_up_may_have_begun_before_the_phase() {
    let recipe = |batch: usize, steps: u64, rate: f64, warmup: u64, start: i64, curve: &str| {
        phase(&format!(
            "sequence_length = 512\nmax_predictions_per_seq = 76\nglobal_batch = {batch}\nmicro_batch_size = 64\nsteps = {steps}\n\
             learning_rate = {rate}\nwarmup = {{ steps = {warmup} }}\nwarmup_start = {start}\ncurve = '{curve}'"
        ))
    };
    let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-15, "{a} {b}");
    let google = recipe(8192, 600, 0.00288293, 287, -76, "google");
    close(google.learning_rate_at(0), 0.00288293 * 76.0 / 287.0);
    close(google.learning_rate_at(210), 0.00288293 * 286.0 / 287.0);
    close(google.learning_rate_at(211), 0.00288293 * 389.0 / 600.0);
    let long_ago = recipe(6144, 700, 0.0029293, 0, -700, "google");
    (0..700).for_each(|t| close(long_ago.learning_rate_at(t), 0.0029293 * (700.0 - t as f64) / 700.0));
    // The continuous curve reaches its peak where the shortened ramp ends, and decays over what is left.
    let continuous = recipe(8192, 600, 1.0, 287, -76, "continuous");
    close(continuous.learning_rate_at(0), 77.0 / 287.0);
    close(continuous.learning_rate_at(210), 1.0);
    close(continuous.learning_rate_at(211), 1.0);
    close(continuous.learning_rate_at(599), 1.0 / 389.0);
    close(recipe(8192, 600, 1.0, 287, -76, "nvidia").learning_rate_at(0), 77.0 / 287.0);
    let late = Phase { warmup_start: 5, ..continuous };
    assert!(late.validate().unwrap_err().to_string().contains("warmup_start requires 0 or a negative step, got 5"));
}

#[test]
fn long_rows_with_many_micro_batches_are_packed_by_default() {
    let [short, long] = [0, 1].map(|i| nvidia().phases()[i].clone());
    assert_eq!([short.sequences_per_row(512), long.sequences_per_row(512), long.sequences_per_row(3)], [1, 8, 1]);
    let given = |most| Phase { sequences_per_row: Some(most), ..short.clone() };
    assert_eq!(given(3).sequences_per_row(1), 3);
    let refused = given(129).validate().unwrap_err().to_string();
    assert!(refused.contains("sequences_per_row requires 1 to sequence_length (128), got 129"), "{refused}");
}

#[test]
fn invalid_phases_are_rejected_by_name_and_key() {
    let good = nvidia().phases()[0].clone();
    let refusal = |change: fn(&mut Phase)| {
        let mut phase = good.clone();
        change(&mut phase);
        phase.validate().unwrap_err().to_string()
    };
    assert_eq!(
        refusal(|p| p.micro_batch_size = 48),
        "phase \"1\": global_batch requires a multiple of micro_batch_size (48), got 65536"
    );
    assert_eq!(
        refusal(|p| p.max_predictions_per_seq = 129),
        "phase \"1\": max_predictions_per_seq requires at most sequence_length (128), got 129"
    );
    assert!(refusal(|p| p.learning_rate = None).contains("given once"));
    assert!(refusal(|p| p.warmup = Warmup::Steps(7039)).contains("warmup requires between none and all"));
    // The sign counts even if the proportion rounds to no step.
    for (proportion, found) in [(-1e-9, "-0.000000001"), (1.5, "1.5"), (f64::NAN, "NaN")] {
        let phase = Phase { warmup: Warmup::Proportion(proportion), ..good.clone() };
        let expected = format!("phase \"1\": warmup.proportion requires a number from 0 to 1, got {found}");
        assert_eq!(phase.validate().unwrap_err().to_string(), expected);
    }
    let epochs = |base_proportion, base_batch| Warmup::LinearEpoch { base_proportion, base_batch };
    for (warmup, expected) in [
        (epochs(-1e-9, 512), "warmup.linear_epoch.base_proportion requires a number of at least 0, got -0.000000001"),
        (epochs(0.1, 0), "warmup.linear_epoch.base_batch requires at least 1, got 0"),
    ] {
        let message = Phase { warmup, ..good.clone() }.validate().unwrap_err().to_string();
        assert!(message.ends_with(expected), "{message}");
    }
    let most = "steps × global_batch × sequence_length of at most 9007199254740992, got ";
    assert!(refusal(|p| p.global_batch = 64 << 50).contains(most));
    let long = Phase { steps: 1 << 30, global_batch: 64, ..good.clone() };
    let refused = Schedule::new(vec![long.clone(), long]).unwrap_err().to_string();
    assert!(refused.ends_with("steps requires at most 2147483647 in all phases, got 2147483648"), "{refused}");
    assert!(refusal(|p| p.decay = Decay::Polynomial { power: 1.0, end: 1.0 }).contains("end requires a rate"));
    assert_eq!(good.accumulation_steps(8).unwrap(), 128);
    assert!(good.accumulation_steps(3).unwrap_err().to_string().contains("micro_batch_size × replicas (64 × 3)"));
    assert_eq!(Schedule::new(vec![]).unwrap_err(), ScheduleError::Empty);
    let short = Phase { name: String::new(), steps: 1, warmup: Warmup::default(), ..good.clone() };
    assert_eq!(Schedule::new(vec![short.clone(); 1000]).unwrap().steps(), 1000);
    let refused = Schedule::new(vec![short; 20_000]).unwrap_err().to_string();
    assert_eq!(refused, "a schedule requires at most 1000 [[phase]] tables, because each is compiled, got 20000");
}

#[test]
fn learning_rate_curves_are_described_in_words() {
    let [nvidia, _] = nvidia().phases().to_vec().try_into().unwrap();
    assert_eq!(
        nvidia.describe_learning_rate(),
        "linear warm-up to 6e-3 over 2,001 steps, then polynomial decay (power 0.5) to 0 at step 7,038 (curve nvidia)"
    );
    let linear = Phase {
        steps: 840,
        learning_rate: Some(0.008),
        warmup: Warmup::Proportion(0.1),
        decay: Decay::default(),
        curve: Curve::Continuous,
        ..nvidia
    };
    assert_eq!(
        linear.describe_learning_rate(),
        "linear warm-up to 8e-3 over 84 steps, then linear decay to 0 at step 840"
    );
    let constant = Phase { warmup: Warmup::Steps(0), decay: Decay::Constant, ..linear };
    assert_eq!(constant.describe_learning_rate(), "8e-3, constant to step 840");
}

#[test]
fn a_trapezoid_is_constant_and_then_cools_down() {
    let text = |decay: &str| {
        format!(
            "sequence_length = 16\nmax_predictions_per_seq = 3\nglobal_batch = 8\nmicro_batch_size = 8\nsteps = 1000\n\
             learning_rate = 0.1\nwarmup = {{ proportion = 0.1 }}\ndecay = {decay}"
        )
    };
    let rate = |decay: &str, t: u64| phase(&text(decay)).learning_rate_at(t);
    // The square root of a rounding error is 1e-8.
    let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-8, "{a} {b}");
    // A fifth of all steps cools down, whatever the length of the warm-up.
    for (shape, middle) in [("linear", 0.5), ("one_minus_sqrt", 1.0 - 0.5f64.sqrt()), ("cosine", 0.5)] {
        let decay = format!("{{ trapezoid = {{ cooldown = 0.2, shape = '{shape}' }} }}");
        [100, 500, 800].into_iter().for_each(|t| close(rate(&decay, t), 0.1));
        assert!(rate(&decay, 801) < 0.1);
        close(rate(&decay, 900), 0.1 * middle);
        let google = phase(&(text(&decay) + "\ncurve = 'google'"));
        close(google.learning_rate_at(800), 0.1);
        close(google.learning_rate_at(900), 0.1 * middle);
    }
    close(rate("{ trapezoid = { cooldown = 0.9, end = 0.02 } }", 1000), 0.02);
    close(rate("{ cosine = {} }", 550), 0.05);
    close(rate("{ cosine = { end = 0.02 } }", 1000), 0.02);
    let described = phase(&text("{ trapezoid = { cooldown = 0.2 } }")).describe_learning_rate();
    let words = "then constant, and in the last 20.0 % 1 − √progress decay to 0 at step 1,000";
    assert!(described.ends_with(words), "{described}");
    for (decay, key) in [
        ("{ trapezoid = { cooldown = 0.95 } }", "decay.trapezoid.cooldown requires a number above 0 and at most 0.9"),
        ("{ trapezoid = { cooldown = 0.0 } }", "decay.trapezoid.cooldown"),
        (
            "{ trapezoid = { cooldown = 0.2, end = 1.0 } }",
            "decay.trapezoid.end requires a rate from 0 to the peak (0.1)",
        ),
        ("{ cosine = { end = -1.0 } }", "decay.cosine.end"),
    ] {
        let error = phase(&text(decay)).validate().unwrap_err().to_string();
        assert!(error.contains(key), "{error}");
    }
}
