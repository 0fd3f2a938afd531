//! Packed rows on a real plugin: gradients as those of plain rows, no attention across examples, and runs that resume exactly.

use crate::common::cpu;
use crate::common::packing::*;
use crate::common::{Workshop, metrics};
use lambert::bert::{BatchTensors, Bert, BertConfig, Recompute, param_specs};
use lambert::graph::{Computation, Graph};
use lambert::hlo;
use lambert::runtime::backend::Backend;
use lambert::shape::{DType, HostTensor};
use lambert::task::Precision;

#[test]
fn packed_gradients_match_plain_rows_on_the_plugin() {
    let samples = samples(8, small().vocab_size);
    let expected = gradients(&cpu(1), Precision::F32, [8, 2], false, &batch(&plain_rows(&samples), false));
    for (replicas, micro_batches) in [(1, 1), (1, 4), (2, 2)] {
        let packed = batch(&packed_rows(&samples, replicas), true);
        let found = gradients(&cpu(replicas), Precision::F32, [8, micro_batches], true, &packed);
        assert_close(&found, &expected, 1e-5);
    }
}

/// Builds the forward pass on packed rows, without dropout: `[sequence_output, MLM logits, NSP logits]`.
fn forward(model: &BertConfig, rows: usize) -> Computation {
    let (graph, params) = (Graph::new("packed_forward"), param_specs(model));
    let weights: Vec<_> = params.iter().map(|p| graph.parameter(&p.name, p.shape(DType::F32))).collect();
    let tensors: Vec<_> = form(true).spec().shapes(rows).map(|(name, shape)| graph.parameter(name, shape)).collect();
    let bert = Bert::new(model, &params, &weights, Precision::F32, None, Recompute::default());
    let outputs = bert.forward(&BatchTensors::from_vec(tensors));
    graph.finish(&[outputs.sequence_output, outputs.masked_lm_logits, outputs.seq_relationship_logits])
}

#[test]
fn packed_examples_do_not_attend_to_each_other() {
    let (model, count) = (small(), 8);
    let samples = samples(count, model.vocab_size);
    let rows = packed_rows(&samples, 1);
    let (row, place) = (0..count).find_map(|r| (rows[r].len() > 2).then_some((r, 1))).expect("a row of three");
    let changed = rows[row][place].0;
    let mut others = samples.clone();
    others[changed].tokens.iter_mut().for_each(|token| *token = (*token + 7.0) % model.vocab_size as f64);

    let backend = cpu(1);
    let computation = forward(&model, count);
    let executable = backend.compile(&hlo::lower(&computation, &hlo::LowerOptions::default()).bytes).unwrap();
    let outputs = |samples: &[Sample]| -> Vec<Vec<f64>> {
        let tensors = batch(&packed_rows(samples, 1), true);
        let mut inputs = weights(&param_specs(&model), DType::F32);
        let spec = form(true).spec();
        inputs.extend(spec.shapes(count).map(|(name, shape)| HostTensor::from_f64(shape, &tensors[name])));
        let buffers: Vec<_> = inputs.iter().map(|tensor| backend.put(tensor, 0).unwrap()).collect();
        let outputs = executable.execute(&[buffers.iter().collect()]).unwrap();
        outputs[0].iter().map(|buffer| buffer.to_host().unwrap().to_f64()).collect()
    };
    let (before, after) = (outputs(&samples), outputs(&others));

    let start: usize = rows[row][..place].iter().map(|(_, sample)| sample.tokens.len()).sum();
    let own = start..start + samples[changed].tokens.len();
    let differs = |output: usize, width: usize, at: usize| {
        before[output][at * width..][..width] != after[output][at * width..][..width]
    };
    // The padding after the last example belongs to no example, so it is not compared.
    for (r, row_of) in rows.iter().enumerate() {
        let used: usize = row_of.iter().map(|(_, sample)| sample.tokens.len()).sum();
        for position in 0..used {
            let is_own = r == row && own.contains(&position);
            assert_eq!(differs(0, model.hidden_size, r * LENGTH + position), is_own, "row {r}, position {position}");
        }
        for k in 0..row_of.len() {
            assert_eq!(differs(2, 2, r * PER_ROW + k), (r, k) == (row, place), "row {r}, sequence {k}");
        }
    }
}

/// Returns the losses of the training steps of a run.
fn losses(workshop: &Workshop, run: &str) -> Vec<f64> {
    let metrics = metrics(&workshop.path(run));
    metrics.iter().filter(|((kind, _), _)| kind == "train").map(|(_, line)| line["loss"].as_f64().unwrap()).collect()
}

#[test]
fn packed_run_matches_plain_run_and_resumes_bit_identically() {
    let workshop = Workshop::new();
    let short = |text: String| {
        let text = text.replace("path = \"data\"", "path = \"data\"\nshort_seq_prob = 0.8");
        text.replace("global_batch = 4", "global_batch = 8").replace("micro_batch_size = 4", "micro_batch_size = 1")
    };
    let rows_of = |sequences: usize| {
        move |text: String| short(text).replace("\nsteps = ", &format!("\nsequences_per_row = {sequences}\nsteps = "))
    };
    for (name, devices, sequences) in [("plain", "1", 1), ("packed", "1", 4), ("spread", "2", 4)] {
        workshop.run_file(&format!("{name}.toml"), name, rows_of(sequences));
        workshop.succeed(&["pretrain", &format!("{name}.toml"), "--platform", "cpu", "--devices", devices]);
    }
    let expected = losses(&workshop, "plain");
    assert_eq!(expected.len(), 10);
    for other in ["packed", "spread"] {
        for (step, (a, b)) in expected.iter().zip(losses(&workshop, other)).enumerate() {
            assert!((a - b).abs() < 1e-4, "{other}, step {}: {a} and {b}", step + 1);
        }
    }
    let padding =
        |run: &str, step| metrics(&workshop.path(run))[&("train".to_owned(), step)]["padding"].as_f64().unwrap();
    assert!(
        (1..=10).all(|step| padding("packed", step) <= padding("plain", step)),
        "packed rows never have more padding"
    );
    assert!(
        (1..=10).any(|step| padding("packed", step) < 0.7 * padding("plain", step)),
        "in some steps packed rows have much less padding"
    );

    // A packed run resumes bit-identically, and can also resume without packing.
    let tensors = |run: &str| std::fs::read(workshop.path(run).join("step-00000010/model.safetensors")).unwrap();
    let straight = tensors("packed");
    workshop.run_file("stopped.toml", "stopped", |text| rows_of(4)(text).replace("every = 0", "every = 1"));
    workshop.succeed(&["pretrain", "stopped.toml", "--platform", "cpu"]);
    for step in 5..=10 {
        std::fs::remove_dir_all(workshop.path("stopped").join(format!("step-{step:08}"))).unwrap();
    }
    workshop.succeed(&["pretrain", "stopped.toml", "--platform", "cpu", "--resume"]);
    assert!(tensors("stopped") == straight, "weights differ");
    let plainly = ["--set", "phase.1.sequences_per_row=1", "--set", "phase.2.sequences_per_row=1"];
    std::fs::remove_dir_all(workshop.path("stopped").join("step-00000010")).unwrap();
    workshop.succeed(&[&["pretrain", "stopped.toml", "--platform", "cpu", "--resume"][..], &plainly].concat());
}
