//! Update rules against independent implementations, in f64 to twelve digits, over several steps on tensors of several
//! kinds: plain arithmetic written here from each rule's source, and trajectories of torch, timm, pytorch_optimizer and optax.

use std::fs;
use std::path::Path;

use crate::common::steps::{small, spec};
use lambert::eval::{Value, evaluate_values};
use lambert::graph::{Graph, Tensor};
use lambert::optim::{Optimizer, OptimizerConfig, Placement, UpdateScalars};
use lambert::shape::{DType, Shape};
use lambert::step::{StepSpec, TrainStep};

/// A weight, a bias, a LayerNorm scale, and a bias that starts at zero.
const NAMES: [&str; 4] = ["a.dense.weight", "a.dense.bias", "a.LayerNorm.weight", "b.dense.bias"];
const SIZES: [usize; 4] = [12, 5, 4, 3];
const STEPS: usize = 5;
const RATE: f64 = 0.01;

type Tensors = Vec<Vec<f64>>;

/// Initial weights that look random; tensor 3 is zero.
fn weights() -> Tensors {
    let value =
        |i: usize, k: usize| if i == 3 { 0.0 } else { (1.3 * (7 * i + k) as f64 + 0.4).sin() * (1.0 + i as f64) };
    (0..4).map(|i| (0..SIZES[i]).map(|k| value(i, k)).collect()).collect()
}

/// Gradients whose size varies from step to step, so that clips act at some steps and not at others.
fn gradients(step: usize) -> Tensors {
    let size = [0.02, 3.0, 0.4, 0.1, 1.7][step];
    let value = |i: usize, k: usize| size * (0.9 * (11 * i + 5 * k + 3 * step) as f64 + 1.1).cos();
    (0..4).map(|i| (0..SIZES[i]).map(|k| value(i, k)).collect()).collect()
}

/// Returns the weights after each step of the optimizer's graph, which starts from `weights` and a state of zeros.
fn trajectory(settings: &str, names: &[&str], weights: &Tensors, gradients: &[Tensors], rate: f64) -> Vec<Tensors> {
    let config: OptimizerConfig = toml::from_str(settings).unwrap();
    let optimizer = Optimizer::new(&config, names).unwrap();
    let graph = Graph::new("update");
    let count = names.len();
    let tensors = |kind: &str| -> Vec<Tensor> {
        let one = |i: usize| graph.parameter(format!("{kind}{i}"), Shape::new(DType::F64, [weights[i].len()]));
        (0..count).map(one).collect()
    };
    let (w, g) = (tensors("w"), tensors("g"));
    let state: Vec<Vec<Tensor>> = config.state_names().iter().map(|name| tensors(name)).collect();
    let state_by_tensor: Vec<Vec<Tensor>> = (0..count).map(|i| state.iter().map(|kind| kind[i]).collect()).collect();
    let scalar = |name: &str| graph.parameter(name, Shape::new(DType::F64, []));
    let scalars = UpdateScalars::constant(scalar("rate"), scalar("t"), config.hyperparameters());
    let update = optimizer.update(&w, &g, &state_by_tensor, &scalars, Placement::Replicated);
    let mut outputs = update.weights.clone();
    (0..state.len()).for_each(|kind| outputs.extend(update.state.iter().map(|tensor| tensor[kind])));
    let computation = graph.finish(&outputs);

    let value = |x: &Vec<f64>| Value::from_f64(Shape::new(DType::F64, [x.len()]), x.clone());
    let scalar = |x: f64| Value::from_f64(Shape::new(DType::F64, []), vec![x]);
    let zeros = weights.iter().map(|w| vec![0.0; w.len()]);
    let mut values: Tensors = weights.iter().cloned().chain((0..state.len()).flat_map(|_| zeros.clone())).collect();
    let step = |(step, gradients): (usize, &Tensors)| {
        let (w, state) = values.split_at(count);
        let mut arguments: Vec<Value> = [w, gradients, state].into_iter().flatten().map(value).collect();
        arguments.extend([scalar(rate), scalar((step + 1) as f64)]);
        values = evaluate_values(&computation, &arguments).unwrap().iter().map(Value::to_f64).collect();
        values[..count].to_vec()
    };
    gradients.iter().enumerate().map(step).collect()
}

/// Returns the weights after [`STEPS`] updates by the graph.
fn by_graph(settings: &str) -> Tensors {
    let gradients: Vec<Tensors> = (0..STEPS).map(gradients).collect();
    trajectory(settings, &NAMES, &weights(), &gradients, RATE).pop().unwrap()
}

fn norm(x: &[f64]) -> f64 {
    x.iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// Returns the global norm.
fn norm_of<'a>(all: impl Iterator<Item = &'a Vec<f64>>) -> f64 {
    all.map(|x| norm(x).powi(2)).sum::<f64>().sqrt()
}

fn decays(i: usize) -> bool {
    i == 0
}

/// Returns ‖w‖ / ‖u‖, and 1 where a norm is 0.
fn ratio(w_norm: f64, u_norm: f64) -> f64 {
    if w_norm > 0.0 && u_norm > 0.0 { w_norm / u_norm } else { 1.0 }
}

/// The optimizer state of one tensor.
struct Moments<'a> {
    m: &'a mut Vec<f64>,
    v: &'a mut Vec<f64>,
}

impl Moments<'_> {
    /// m ← β1·m + β3·g, v ← β2·v + (1 − β2)·g²
    fn update(&mut self, g: &[f64], beta3: f64) {
        for (k, g) in g.iter().enumerate() {
            self.m[k] = 0.9 * self.m[k] + beta3 * g;
            self.v[k] = 0.999 * self.v[k] + (1.0 - 0.999) * g * g;
        }
    }

    /// Returns `of(m, v)` for each element.
    fn direction(&self, of: impl Fn(f64, f64) -> f64) -> Vec<f64> {
        self.m.iter().zip(self.v.iter()).map(|(m, v)| of(*m, *v)).collect()
    }
}

/// Returns the divisors of Adam's bias correction at update `t`.
fn corrected(t: f64) -> (f64, f64) {
    (1.0 - 0.9f64.powf(t), 1.0 - 0.999f64.powf(t))
}

/// Returns the weights after [`STEPS`] updates w − η·`one(i, t, w, g, moments)` of each tensor i, where g is a gradient
/// that `clip` returned and t counts from 1.
fn by_hand(
    clip: impl Fn(Tensors) -> Tensors,
    one: impl Fn(usize, f64, &[f64], &[f64], &mut Moments) -> Vec<f64>,
) -> Tensors {
    let zeros: Tensors = SIZES.map(|size| vec![0.0; size]).to_vec();
    let (mut w, mut m, mut v) = (weights(), zeros.clone(), zeros);
    for step in 0..STEPS {
        let g = clip(gradients(step));
        for i in 0..4 {
            let mut moments = Moments { m: &mut m[i], v: &mut v[i] };
            let u = one(i, (step + 1) as f64, &w[i], &g[i], &mut moments);
            w[i].iter_mut().zip(u).for_each(|(w, u)| *w -= RATE * u);
        }
    }
    w
}

fn scaled(x: &[f64], factor: f64) -> Vec<f64> {
    x.iter().map(|x| factor * x).collect()
}

/// u + λ·w
fn plus(u: Vec<f64>, lambda: f64, w: &[f64]) -> Vec<f64> {
    u.iter().zip(w).map(|(u, w)| u + lambda * w).collect()
}

fn unclipped(g: Tensors) -> Tensors {
    g
}

/// Clips the global norm to 1: tf.clip_by_global_norm; apex's g / (n / c) if n > c is the same number.
fn clipped_globally(g: Tensors) -> Tensors {
    let n = norm_of(g.iter());
    g.iter().map(|g| scaled(g, if n > 1.0 { 1.0 / n } else { 1.0 })).collect()
}

#[track_caller]
fn agree(settings: &str, expected: Tensors) {
    let found = by_graph(settings);
    for (name, (found, expected)) in NAMES.iter().zip(found.iter().zip(&expected)) {
        for (a, b) in found.iter().zip(expected) {
            assert!((a - b).abs() <= 1e-12 * (1.0 + b.abs()), "{settings}: {name} {found:?}, expected {expected:?}");
        }
    }
}

#[test]
fn albert_preset_has_no_bias_correction_and_excludes_biases_and_layer_norm() {
    agree(
        "preset = 'albert'",
        by_hand(clipped_globally, |i, _, w, g, moments| {
            moments.update(g, 1.0 - 0.9);
            let u = moments.direction(|m, v| m / (v.sqrt() + 1e-6));
            if !decays(i) {
                return u;
            }
            let u = plus(u, 0.01, w);
            scaled(&u, ratio(norm(w), norm(&u)))
        }),
    );
}

#[test]
fn paper_mlperf_apex_nvlamb_and_optax_presets_correct_the_bias_and_differ_in_the_adapted_tensors() {
    let lamb = |decay: f64, adapted: fn(usize) -> bool| {
        move |i: usize, t: f64, w: &[f64], g: &[f64], moments: &mut Moments| {
            moments.update(g, 1.0 - 0.9);
            let (c1, c2) = corrected(t);
            let u = moments.direction(|m, v| (m / c1) / ((v / c2).sqrt() + 1e-6));
            let u = if decays(i) { plus(u, decay, w) } else { u };
            if adapted(i) { scaled(&u, ratio(norm(w), norm(&u))) } else { u }
        }
    };
    agree("preset = 'paper'", by_hand(unclipped, lamb(0.01, decays)));
    agree("preset = 'mlperf'", by_hand(clipped_globally, lamb(0.01, decays)));
    agree("preset = 'apex'", by_hand(clipped_globally, lamb(0.01, decays)));
    agree("preset = 'apex'\nweight_decay = 0", by_hand(clipped_globally, lamb(0.0, |_| false)));
    agree("preset = 'nvlamb'", by_hand(clipped_globally, lamb(0.01, |_| true)));
    agree("preset = 'optax'", by_hand(unclipped, lamb(0.0, |_| true)));
    agree("adaptation = { exclude = ['*LayerNorm*', 'b.*'] }", by_hand(unclipped, lamb(0.01, |i| i < 2)));
}

#[test]
fn deepspeed_preset_corrects_the_learning_rate_and_clamps_the_ratio() {
    let kernel = |low: f64, high: f64, corrects: bool| {
        move |i: usize, t: f64, w: &[f64], g: &[f64], moments: &mut Moments| {
            moments.update(g, 1.0 - 0.9);
            let u = moments.direction(|m, v| m / (v.sqrt() + 1e-8));
            let u = if decays(i) { plus(u, 0.01, w) } else { u };
            let (c1, c2) = corrected(t);
            let rate = if corrects { c2.sqrt() / c1 } else { 1.0 };
            let both = norm(w) > 0.0 && norm(&u) > 0.0;
            scaled(&u, rate * if both { (norm(w) / norm(&u)).clamp(low, high) } else { 1.0 })
        }
    };
    agree("preset = 'deepspeed'", by_hand(unclipped, kernel(0.01, 10.0, true)));
    // DeepSpeed's BERT recipe, with gradients clipped by parameter group.
    let by_group = |g: Tensors| -> Tensors {
        let factor = |group: bool| {
            let members = g.iter().enumerate().filter(|(i, _)| decays(*i) == group).map(|(_, g)| g);
            (1.0 / (norm_of(members) + 1e-6)).min(1.0)
        };
        g.iter().enumerate().map(|(i, g)| scaled(g, factor(decays(i)))).collect()
    };
    agree(
        "preset = 'deepspeed_bert'\n\
         gradient_clip = { per_group = { max = 1.0, formula = 'distributed_fused_lamb' } }",
        by_hand(by_group, kernel(0.01, 0.3, false)),
    );
}

#[test]
fn l2_mode_adds_the_decay_to_the_gradient_and_gradient_averaging_can_be_off() {
    // DistributedFusedLAMB's clip: c / (n + 1e-6), at most 1.
    let clip = |g: Tensors| -> Tensors {
        let n = norm_of(g.iter());
        g.iter().map(|g| scaled(g, (0.5 / (n + 1e-6)).min(1.0))).collect()
    };
    agree(
        "preset = 'apex'\nweight_decay_mode = 'l2'\ngrad_averaging = false\n\
         gradient_clip = { global_norm = { max = 0.5, formula = 'distributed_fused_lamb' } }",
        by_hand(clip, |i, t, w, g, moments| {
            let g = if decays(i) { plus(g.to_vec(), 0.01, w) } else { g.to_vec() };
            moments.update(&g, 1.0);
            let (c1, c2) = corrected(t);
            let u = moments.direction(|m, v| (m / c1) / ((v / c2).sqrt() + 1e-6));
            if decays(i) { scaled(&u, ratio(norm(w), norm(&u))) } else { u }
        }),
    );
}

#[test]
fn phi_clamps_the_weight_norm_and_ratio_clamp_the_trust_ratio() {
    // dmlc/gluon-nlp with bias correction: ε inside the root, ‖w‖ in [1e-3, 10].
    agree(
        "preset = 'optax'\nepsilon_place = 'inside_sqrt'\nphi = { clamp = { min = 0.001, max = 10.0 } }",
        by_hand(unclipped, |_, t, w, g, moments| {
            moments.update(g, 1.0 - 0.9);
            let (c1, c2) = corrected(t);
            let u = moments.direction(|m, v| (m / c1) / (v / c2 + 1e-6).sqrt());
            let both = norm(w) > 0.0 && norm(&u) > 0.0;
            scaled(&u, if both { norm(w).clamp(1e-3, 10.0) / norm(&u) } else { 1.0 })
        }),
    );
    // cybertronai/pytorch-lamb: no correction, ‖w‖ at most 10; here at most 2, so that the bound acts.
    agree(
        "preset = 'cybertronai'\nphi = { clamp = { min = 0.0, max = 2.0 } }",
        by_hand(unclipped, |_, _, w, g, moments| {
            moments.update(g, 1.0 - 0.9);
            let u = moments.direction(|m, v| m / (v.sqrt() + 1e-6));
            scaled(&u, ratio(norm(w).min(2.0), norm(&u)))
        }),
    );
    // timm's LAMBC: the ratio is at most 1.
    agree(
        "preset = 'apex'\nratio_clamp = { min = 0.0, max = 1.0 }",
        by_hand(clipped_globally, |i, t, w, g, moments| {
            moments.update(g, 1.0 - 0.9);
            let (c1, c2) = corrected(t);
            let u = moments.direction(|m, v| (m / c1) / ((v / c2).sqrt() + 1e-6));
            if !decays(i) {
                return u;
            }
            let u = plus(u, 0.01, w);
            scaled(&u, ratio(norm(w), norm(&u)).min(1.0))
        }),
    );
}

#[test]
fn lans_adds_momentum_and_gradient_each_with_its_trust_ratio() {
    let normalised = |g: Tensors| -> Tensors { g.iter().map(|g| scaled(g, 1.0 / (norm(g) + 1e-6))).collect() };
    let lans = |beta3: f64| {
        move |i: usize, t: f64, w: &[f64], g: &[f64], moments: &mut Moments| {
            moments.update(g, beta3);
            let (c1, c2) = corrected(t);
            let lambda = if decays(i) { 0.01 } else { 0.0 };
            let denominators: Vec<f64> = moments.v.iter().map(|v| (v / c2).sqrt() + 1e-6).collect();
            let over = |x: Vec<f64>| -> Vec<f64> { x.iter().zip(&denominators).map(|(x, d)| x / d).collect() };
            let u_m = plus(over(moments.m.iter().map(|m| m / c1).collect()), lambda, w);
            let u_g = plus(over(g.to_vec()), lambda, w);
            let (r_m, r_g) = (ratio(norm(w), norm(&u_m)), ratio(norm(w), norm(&u_g)));
            u_m.iter().zip(&u_g).map(|(m, g)| 0.9 * r_m * m + beta3 * r_g * g).collect()
        }
    };
    agree("preset = 'lans'", by_hand(normalised, lans(1.0 - 0.9)));
    agree("preset = 'lans'\ngrad_averaging = false", by_hand(normalised, lans(1.0)));
    // With β1 = 0 the direction is the gradient's alone.
    let gradient_only = by_graph("preset = 'lans'\nbeta1 = 0.0");
    agree("preset = 'lans'\nbeta1 = 0.0\ndirection = 'momentum'", gradient_only);
}

#[test]
fn sgd_has_classical_or_nesterov_momentum_and_coupled_or_decoupled_decay() {
    let sgd = |momentum: f64, dampening: f64, nesterov: bool, coupled: f64, decoupled: f64| {
        move |i: usize, t: f64, w: &[f64], g: &[f64], moments: &mut Moments| {
            let decayed = |u: Vec<f64>, lambda: f64| if decays(i) { plus(u, lambda, w) } else { u };
            let g = decayed(g.to_vec(), coupled);
            let entering = if t == 1.0 { 1.0 } else { 1.0 - dampening };
            let b = &mut *moments.m;
            b.iter_mut().zip(&g).for_each(|(b, g)| *b = momentum * *b + entering * g);
            let d = match (momentum == 0.0, nesterov) {
                (true, _) => g,
                (false, true) => plus(g, momentum, b),
                (false, false) => b.clone(),
            };
            decayed(d, decoupled)
        }
    };
    let settings = "kind = 'sgd'\nweight_decay = 0.1\n";
    let agree = |others: &str, expected| agree(&format!("{settings}{others}"), expected);
    agree("", by_hand(unclipped, sgd(0.9, 0.0, false, 0.1, 0.0)));
    agree("momentum = 0", by_hand(unclipped, sgd(0.0, 0.0, false, 0.1, 0.0)));
    agree("momentum = 0.8\ndampening = 0.3", by_hand(unclipped, sgd(0.8, 0.3, false, 0.1, 0.0)));
    agree("nesterov = true", by_hand(unclipped, sgd(0.9, 0.0, true, 0.1, 0.0)));
    agree("weight_decay_mode = 'decoupled'", by_hand(unclipped, sgd(0.9, 0.0, false, 0.0, 0.1)));
    agree("nesterov = true\nweight_decay_mode = 'decoupled'", by_hand(unclipped, sgd(0.9, 0.0, true, 0.0, 0.1)));
    agree(
        "nesterov = true\ngradient_clip = { global_norm = { max = 1.0 } }",
        by_hand(clipped_globally, sgd(0.9, 0.0, true, 0.1, 0.0)),
    );
}

#[test]
fn n_lamb_and_nn_lamb_look_ahead_with_the_moments_of_nadam() {
    let ahead = |both: bool| {
        move |i: usize, t: f64, w: &[f64], g: &[f64], moments: &mut Moments| {
            moments.update(g, 1.0 - 0.9);
            let ((c1, c2), (next1, next2)) = (corrected(t), corrected(t + 1.0));
            let direction = |k: usize| {
                let (m, v) = (moments.m[k], moments.v[k]);
                let m_hat = 0.9 * m / next1 + (1.0 - 0.9) * g[k] / c1;
                let v_hat = match both {
                    true => 0.999 * v / next2 + (1.0 - 0.999) * g[k] * g[k] / c2,
                    false => 0.999 * v / c2,
                };
                m_hat / (v_hat.sqrt() + 1e-6)
            };
            let u: Vec<f64> = (0..g.len()).map(direction).collect();
            if !decays(i) {
                return u;
            }
            let u = plus(u, 0.01, w);
            scaled(&u, ratio(norm(w), norm(&u)))
        }
    };
    agree("preset = 'n_lamb'", by_hand(unclipped, ahead(false)));
    agree("preset = 'nn_lamb'", by_hand(unclipped, ahead(true)));
}

#[test]
fn adamw_of_google_and_of_transformers_4_have_the_places_of_their_sources() {
    agree(
        "kind = 'adamw'\npreset = 'bert'",
        by_hand(clipped_globally, |i, _, w, g, moments| {
            moments.update(g, 1.0 - 0.9);
            let u = moments.direction(|m, v| m / (v.sqrt() + 1e-6));
            if decays(i) { plus(u, 0.01, w) } else { u }
        }),
    );
    agree(
        "kind = 'adamw'\npreset = 'hugging_face_v4'\nweight_decay = 0.5",
        by_hand(unclipped, |_, t, w, g, moments| {
            moments.update(g, 1.0 - 0.9);
            let (c1, c2) = corrected(t);
            let u = scaled(&moments.direction(|m, v| m / (v.sqrt() + 1e-6)), c2.sqrt() / c1);
            // (w − η·u)·(1 − η·λ) = w − η·(u + λ·(w − η·u))
            let updated = plus(w.to_vec(), -RATE, &u);
            plus(u, 0.5, &updated)
        }),
    );
}

#[test]
fn lars_can_normalise_the_momentum() {
    let lars = |entering: f64, coefficient: f64, nesterov: bool, adapted: fn(usize) -> bool, decay: f64| {
        move |i: usize, _: f64, w: &[f64], g: &[f64], moments: &mut Moments| {
            let g = if decays(i) { plus(g.to_vec(), decay, w) } else { g.to_vec() };
            let b = &mut *moments.m;
            b.iter_mut().zip(&g).for_each(|(b, g)| *b = 0.9 * *b + entering * g);
            let d = if nesterov { plus(g, 0.9, b) } else { b.clone() };
            let both = norm(w) > 0.0 && norm(&d) > 0.0;
            scaled(&d, if adapted(i) && both { coefficient * norm(w) / norm(&d) } else { 1.0 })
        }
    };
    agree("kind = 'lars'\npreset = 'paper'", by_hand(unclipped, lars(1.0 - 0.9, 1.0, false, decays, 1e-4)));
    let popular = "kind = 'lars'\npreset = 'tensorflow_popular'\n";
    agree(popular, by_hand(unclipped, lars(1.0, 0.001, false, |_| true, 0.0)));
    agree(&format!("{popular}nesterov = true"), by_hand(unclipped, lars(1.0, 0.001, true, |_| true, 0.0)));
}

/// Returns the program of a step with the optimizer of these settings, as a compiler gets it.
fn program(settings: &str) -> Vec<u8> {
    let spec = StepSpec { optimizer: toml::from_str(settings).unwrap(), ..spec(&small(), 2, 1, 1) };
    TrainStep::build(&spec).unwrap().program.lower().bytes
}

#[test]
fn optimizers_that_differ_in_numbers_have_one_program() {
    let lamb = "beta1 = 0.8\nbeta2 = 0.98\nepsilon = 1e-7\nweight_decay = 0.1\n";
    let clip = |max: f64, formula: &str| {
        format!("gradient_clip = {{ global_norm = {{ max = {max}, formula = '{formula}' }} }}")
    };
    let clamps = |max: f64| {
        format!("ratio_clamp = {{ min = 0.01, max = {max} }}\nphi = {{ clamp = {{ min = 0.0, max = {max} }} }}")
    };
    for (settings, same) in [
        (String::new(), lamb.to_owned()),
        (clip(1.0, "apex"), lamb.to_owned() + &clip(0.5, "apex")),
        (clamps(1.0), lamb.to_owned() + &clamps(10.0)),
        ("kind = 'adamw'".to_owned(), format!("kind = 'adamw'\n{lamb}")),
        ("kind = 'sgd'".to_owned(), "kind = 'sgd'\nmomentum = 0.8\nweight_decay = 0.1".to_owned()),
        (
            "kind = 'lars'".to_owned(),
            "kind = 'lars'\ntrust_coefficient = 0.1\nmomentum = 0.8\nweight_decay = 0.1".to_owned(),
        ),
    ] {
        assert!(program(&settings) == program(&same), "{settings} and {same}");
    }
    let paper = program("");
    for other in ["weight_decay = 0.0", "bias_correction = 'none'", "adaptation = 'all'", "ratio_epsilon = 1e-6"] {
        assert!(paper != program(other), "{other}");
    }
    assert!(program(&clip(1.0, "apex")) != program(&clip(1.0, "tensorflow")));
}

/// Trajectories of other implementations, written by `scripts/check/optimizer_trajectories.py`.
#[derive(serde::Deserialize)]
struct Trajectories {
    names: Vec<String>,
    learning_rate: f64,
    weights: Tensors,
    /// By step.
    gradients: Vec<Tensors>,
    cases: Vec<Case>,
}

#[derive(serde::Deserialize)]
struct Case {
    /// The implementation that computed the case.
    peer: String,
    settings: String,
    /// After each step.
    weights: Vec<Tensors>,
}

#[test]
fn optimizers_take_the_steps_of_torch_timm_pytorch_optimizer_and_optax() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/optimizer_trajectories.json");
    let file: Trajectories = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let names: Vec<&str> = file.names.iter().map(String::as_str).collect();
    for Case { peer, settings, weights } in &file.cases {
        let found = trajectory(settings, &names, &file.weights, &file.gradients, file.learning_rate);
        assert_eq!(found.len(), weights.len());
        for (step, (found, expected)) in found.iter().zip(weights).enumerate() {
            for (a, b) in found.iter().flatten().zip(expected.iter().flatten()) {
                let close = (a - b).abs() <= 1e-12 * (1.0 + b.abs());
                assert!(close, "{peer}: {settings}, step {step}: {found:?}, {expected:?}");
            }
        }
    }
}

/// Presets whose implementation is not in a package registry: the tests above compare them with plain arithmetic.
const BY_HAND: [(&str, &str); 13] = [
    ("lamb", "paper"),
    ("lamb", "albert"),
    ("lamb", "deepspeed"),
    ("lamb", "mlperf"),
    ("lamb", "lans"),
    ("lamb", "n_lamb"),
    ("lamb", "nn_lamb"),
    ("lamb", "cybertronai"),
    ("lamb", "deepspeed_bert"),
    ("lars", "paper"),
    ("lars", "tensorflow_popular"),
    ("adamw", "bert"),
    ("adamw", "hugging_face_v4"),
];

#[test]
fn every_preset_is_compared_with_its_source() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/optimizer_trajectories.json");
    let file: Trajectories = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    for entry in OptimizerConfig::catalogue() {
        let kind = if entry.kind == "lamb" { String::new() } else { format!("kind = '{}'\n", entry.kind) };
        let settings = format!("{kind}preset = '{}'", entry.name);
        let of_peer = file.cases.iter().any(|case| case.settings == settings);
        let by_hand = BY_HAND.contains(&(entry.kind, entry.name));
        assert!(of_peer != by_hand, "{settings} requires one comparison: by a peer {of_peer}, by hand {by_hand}");
    }
}
