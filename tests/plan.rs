//! `lambert plan` as a user meets it, and the steps it saves: used in the place of compiling, they give the same run, bit for
//! bit, and they are refused for anything that they were not compiled for.
//!
//! Needs a CPU plugin, found as a user's is: `lambert plugin install cpu`, or `LAMBERT_PLUGIN`. What needs libtpu or the CUDA
//! plugin is shown in the README.

mod common;

use common::{Workshop, metrics, text};
use lambert::pjrt::{Environment, Platform, PlatformChoice};
use serde_json::Value;

#[track_caller]
fn fails(workshop: &Workshop, arguments: &[&str], code: i32, said: &[&str]) {
    let output = workshop.lambert(arguments);
    let text = text(&output);
    assert_eq!(output.status.code(), Some(code), "lambert {arguments:?}\n{text}");
    for words in said {
        assert!(text.contains(words), "lambert {arguments:?} requires {words:?}, got\n{text}");
    }
    assert!(!text.contains("panicked"), "{text}");
}

fn plan<'a>(topology: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["plan", "run.toml", "--topology", topology], more].concat()
}

#[test]
fn mistakes_are_answered_with_one_sentence() {
    let workshop = Workshop::new();
    workshop.run_file("run.toml", "run", |text| text);
    let fails = |topology, more: &[&str], code, said: &[&str]| fails(&workshop, &plan(topology, more), code, said);

    fails(
        "tpu:v3:31x7",
        &[],
        1,
        &["there is no v3 of shape \"31x7\"; there are 2x2, 4x4, 4x8, 8x8, 8x16, 16x16, 16x32, 32x32"],
    );
    fails("tpu:v5p:4x4", &[], 1, &["there is no v5p of shape \"4x4\"", "4x4x4"]);
    fails("cuda:h200:8", &[], 1, &["there is no h200 of shape \"8\"", "1x8x8"]);
    fails("cuda:h200:1x8x3", &[], 1, &["1, 2, 4 or 8 GPUs a host"]);
    fails("tpu:h200:2x2", &[], 1, &["tpu has no chip \"h200\" here; the chips are v3, v4, v5e, v5p, v6e"]);
    fails("gpu:h200:1x1x8", &[], 1, &["requires tpu:CHIP:SHAPE", "cuda:CHIP:SHAPE", "a100, h100, h200", "cpu:DEVICES"]);
    fails("cpu:0", &[], 1, &["cpu requires a number of devices from 1"]);
    fails(
        "cpu:3",
        &[],
        1,
        &[
            "[[phase]] \"1\": global_batch requires a multiple of devices × micro-batch (3 × 1 = 3), got 8; the nearest are 6 and 9",
        ],
    );
    fails(
        "cpu:2",
        &["--micro-batch", "3"],
        1,
        &["(2 × 3 = 6), got 8; the nearest are 6 and 12; micro-batches that divide a device's 4 rows are 1, 2, 4"],
    );
    fails("cpu:1", &["--phase", "3"], 1, &["--phase requires 1 to 2 (the phases of run.toml), got 3"]);
    fails("cpu:1", &["--efficiency", "1.5"], 1, &["--efficiency requires a share above 0 and up to 1, got 1.5"]);
    fails("cpu:1", &["--micro-batch", "0"], 2, &["requires auto or a number from 1"]);
    fails("cpu:1", &["--target-time", "60"], 2, &["as 90s, 60m, 1.5h or 2d"]);
    fails("cpu:1", &["--save", "."], 1, &["--save .: requires an empty directory or one of compiled steps, found"]);
}

#[test]
fn a_plugin_of_other_hardware_is_told_so() {
    let workshop = Workshop::new();
    workshop.run_file("run.toml", "run", |text| text);
    let cpu = Environment::of_process().find(&PlatformChoice::Platform(Platform::Cpu)).expect("a CPU plugin").path;
    let cpu = cpu.display().to_string();
    let more = ["--platform", &cpu, "--set", "phase.1.global_batch=64", "--set", "phase.2.global_batch=64"];
    for (topology, platform) in [("tpu:v3:2x2", "tpu"), ("cuda:h100:1x8x8", "cuda")] {
        let install = format!("lambert plugin install {platform}");
        fails(&workshop, &plan(topology, &more), 1, &[topology, &install, &cpu]);
    }
}

#[test]
fn a_plan_tells_what_the_compiler_says() {
    let workshop = Workshop::new();
    workshop.run_file("run.toml", "run", |text| text);
    let output = workshop.succeed(&plan("cpu:2", &["--micro-batch", "2", "--json"]));
    let planned: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    assert_eq!((&planned["chips"], &planned["devices"], &planned["topology"]), (&2.into(), &2.into(), &"cpu:2".into()));
    assert_eq!(planned["phases"].as_array().map(Vec::len), Some(2));
    for (phase, rows) in planned["phases"].as_array().unwrap().iter().zip([4, 2]) {
        let fit = &phase["fit"];
        assert_eq!((&phase["rows_of_a_device"], &fit["micro_batch"]), (&rows.into(), &2.into()));
        // Weights, m and v are the arguments that come back in place; gradients and a few scalars are exchanged, in f32.
        let (state, exchanged) =
            (fit["alias_bytes"].as_f64().unwrap(), fit["exchanged_bytes"]["all_reduce"].as_f64().unwrap());
        assert!(exchanged > state / 3.0 && exchanged < state / 3.0 + 100.0, "{exchanged} of {state}");
        assert!(fit["argument_bytes"].as_f64().unwrap() > state && fit["temporary_bytes"].as_f64().unwrap() > 0.0);
        assert!(fit["peak_bytes"].as_f64().unwrap() >= state);
        assert!(fit["step_seconds"].is_null(), "nothing is known of a CPU's rates");
        assert!(phase["flops_of_a_step"].as_f64().unwrap() > 1e6);
    }
    let table = text(&workshop.succeed(&plan("cpu:1", &["--find-micro-batch", "--phase", "1"])));
    for words in ["phase 1", "8 = 1 × 8", "temporaries", "the compiler", "counted from the model"] {
        assert!(table.contains(words), "requires {words:?}, got\n{table}");
    }
}

#[test]
fn saved_steps_give_the_same_run_and_are_refused_for_another() {
    let workshop = Workshop::new();
    workshop.run_file("run.toml", "run", |text| text);
    workshop.run_file("loaded.toml", "loaded", |text| text);
    workshop.succeed(&plan("cpu:2", &["--micro-batch", "2", "--save", "steps"]));
    let pretrain = |file: &'static str, more: &[&'static str]| -> Vec<&'static str> {
        let common =
            ["--platform", "cpu", "--devices", "2", "--set", "phase.1.micro_batch=2", "--set", "phase.2.micro_batch=2"];
        [&["pretrain", file], common.as_slice(), more].concat()
    };
    workshop.succeed(&pretrain("run.toml", &[]));
    let said = text(&workshop.succeed(&pretrain("loaded.toml", &["--compiled", "steps"])));
    assert!(said.contains("phase 1 loaded") && said.contains("phase 2 loaded"), "{said}");
    assert_eq!(metrics(&workshop.path("run")), metrics(&workshop.path("loaded")));

    let refused = |more: &[&'static str], said: &[&str]| {
        fails(&workshop, &pretrain("loaded.toml", &[&["--set", "checkpoint.directory=other"], more].concat()), 1, said);
        assert!(!workshop.path("other/metrics.jsonl").exists(), "nothing was begun");
    };
    refused(&["--compiled", "nowhere"], &["cannot read nowhere/manifest.json", "lambert plan RUN.toml"]);
    let other_program = ["compiled from another program", "--set phase.1.micro_batch=2"];
    refused(&["--compiled", "steps", "--set", "phase.1.micro_batch=4"], &other_program);
    refused(&["--compiled", "steps", "--set", "optimizer.weight_decay=0.5"], &other_program);

    let one_device =
        ["pretrain", "loaded.toml", "--platform", "cpu", "--compiled", "steps", "--set", "checkpoint.directory=other"];
    fails(&workshop, &one_device, 1, &["compiled for the topology \"cpu:2 (2 devices)\", and this is \"1 devices"]);

    let manifest = std::fs::read_to_string(workshop.path("steps/manifest.json")).unwrap();
    let with_manifest = |from: &str, to: &str| {
        assert!(manifest.contains(from));
        std::fs::write(workshop.path("steps/manifest.json"), manifest.replace(from, to)).unwrap();
    };
    with_manifest("\"plugin\": \"", "\"plugin\": \"older ");
    refused(&["--compiled", "steps"], &["compiled for the plugin \"older PJRT C API"]);
    with_manifest("\"format\": 1", "\"format\": 2");
    refused(&["--compiled", "steps"], &["requires format 1, found 2"]);
    with_manifest("{", "");
    refused(&["--compiled", "steps"], &["steps/manifest.json is no manifest of compiled steps"]);
    with_manifest("{", "{");

    let step = workshop.path("steps/phase-2.executable");
    let mut bytes = std::fs::read(&step).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&step, bytes).unwrap();
    refused(&["--compiled", "steps"], &["phase-2.executable is damaged"]);

    // Saving again over one's own repairs it; only the phase that is planned is then there.
    workshop.succeed(&plan("cpu:2", &["--micro-batch", "2", "--phase", "1", "--save", "steps"]));
    refused(&["--compiled", "steps"], &["holds no step of phase 2"]);
}
