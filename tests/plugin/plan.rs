//! `lambert plan` from the command line, and its saved steps: a run that loads them in place of compiling is bit-identical,
//! and they are refused for any other plugin, topology or program.
//!
//! Needs a CPU plugin (`lambert plugin install cpu`, or `LAMBERT_PLUGIN`). No test needs libtpu or the CUDA plugin.

use crate::common::{Workshop, metrics, text};
use lambert::pjrt::{Environment, Platform, PlatformChoice};
use serde_json::Value;

#[track_caller]
fn fails(workshop: &Workshop, arguments: &[&str], code: i32, expected: &[&str]) {
    let output = workshop.lambert(arguments);
    let text = text(&output);
    assert_eq!(output.status.code(), Some(code), "lambert {arguments:?}\n{text}");
    for words in expected {
        assert!(text.contains(words), "lambert {arguments:?} requires {words:?}, got\n{text}");
    }
    assert!(!text.contains("panicked"), "{text}");
}

fn plan<'a>(topology: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["plan", "run.toml", "--topology", topology], more].concat()
}

#[test]
fn user_errors_name_the_setting_and_the_accepted_values() {
    let workshop = Workshop::new();
    workshop.run_file("run.toml", "run", |text| text);
    let fails =
        |topology, more: &[&str], code, expected: &[&str]| fails(&workshop, &plan(topology, more), code, expected);

    fails(
        "tpu:v3:31x7",
        &[],
        1,
        &["v3 is not offered in the shape \"31x7\"; offered shapes: 2x2, 4x4, 4x8, 8x8, 8x16, 16x16, 16x32, 32x32"],
    );
    fails("tpu:v5p:4x4", &[], 1, &["v5p is not offered in the shape \"4x4\"", "4x4x4"]);
    fails("cuda:h200:8", &[], 1, &["h200 is not offered in the shape \"8\"", "1x8x8"]);
    fails("cuda:h200:1x8x3", &[], 1, &["1, 2, 4 or 8 GPUs per host"]);
    fails("cuda:h200:99999999999x99999999999x8", &[], 1, &["1, 2, 4 or 8 GPUs per host"]);
    fails("tpu:h200:2x2", &[], 1, &["unknown tpu chip \"h200\"; known chips: v3, v4, v5e, v5p, v6e"]);
    fails("gpu:h200:1x1x8", &[], 1, &["expected tpu:CHIP:SHAPE", "cuda:CHIP:SHAPE", "a100, h100, h200", "cpu:DEVICES"]);
    fails("cpu:0", &[], 1, &["cpu needs a number of devices from 1"]);
    fails(
        "cpu:3",
        &[],
        1,
        &[
            "[[phase]] \"1\": global_batch must be a multiple of devices × micro-batch size (3 × 1 = 3), got 8; the nearest are 6 and 9",
        ],
    );
    fails(
        "cpu:2",
        &["--micro-batch-size", "3"],
        1,
        &["(2 × 3 = 6), got 8; the nearest are 6 and 12; with 4 rows on each device, micro-batch sizes can be 1, 2, 4"],
    );
    fails("cpu:2", &["--micro-batch-size", "9223372036854775808"], 1, &["got 8", "with 4 rows on each device"]);
    fails("cpu:1", &["--phase", "3"], 1, &["--phase requires 1 to 2 (the phases of run.toml), got 3"]);
    fails("cpu:1", &["--efficiency", "1.5"], 1, &["--efficiency requires a fraction above 0 and up to 1, got 1.5"]);
    for rows in ["0", "1.01", "-0.5", "NaN", "inf"] {
        let expected = format!("--rows-per-sequence requires a number above 0 and up to 1, got {rows}");
        fails("cpu:1", &[&format!("--rows-per-sequence={rows}")], 1, &[&expected]);
    }
    fails(
        "cpu:1",
        &["--rows-per-sequence", "0.2", "--set", "phase.2.sequences_per_row=4"],
        1,
        &["--rows-per-sequence requires at least 1/4, because at most 4 sequences share a row; got 0.2"],
    );
    fails("cpu:1", &["--rows-per-sequence", "half"], 2, &["--rows-per-sequence", "half"]);
    fails("cpu:1", &["--micro-batch-size", "0"], 2, &["requires auto or a whole number from 1"]);
    fails("cpu:1", &["--target-time", "60"], 2, &["for example 90s, 60m, 1.5h or 2d"]);
    fails("cpu:1", &["--price=-1"], 2, &["requires a number from 0, for example 1.20"]);
    fails(
        "cpu:1",
        &["--save", "."],
        1,
        &["cannot save compiled steps in .: found", "use an empty directory or one of compiled steps"],
    );
}

#[test]
fn plugin_of_another_platform_is_rejected() {
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
fn plan_reports_the_compilers_statistics() {
    let workshop = Workshop::new();
    workshop.run_file("run.toml", "run", |text| text);
    let output = workshop.succeed(&plan("cpu:2", &["--micro-batch-size", "2", "--json"]));
    let planned: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    assert_eq!((&planned["chips"], &planned["devices"], &planned["topology"]), (&2.into(), &2.into(), &"cpu:2".into()));
    assert_eq!(planned["phases"].as_array().map(Vec::len), Some(2));
    for (phase, rows) in planned["phases"].as_array().unwrap().iter().zip([4, 2]) {
        let fit = &phase["fit"];
        assert_eq!((&phase["rows_per_device"], &fit["micro_batch_size"]), (&rows.into(), &2.into()));
        // Weights, m and v are the donated arguments; the all-reduces sum gradients and a few scalars in f32.
        let (state, reduced) =
            (fit["alias_bytes"].as_f64().unwrap(), fit["collective_bytes"]["all_reduce"].as_f64().unwrap());
        assert!(reduced > state / 3.0 && reduced < state / 3.0 + 100.0, "{reduced} of {state}");
        assert_eq!(fit["collective_bytes"], fit["graph_collective_bytes"], "this compiler keeps them");
        assert_eq!(
            (&fit["collective_bytes_source"], &fit["collectives"][0]["kind"]),
            (&"compiled program".into(), &"all-reduce".into())
        );
        assert!(fit["argument_bytes"].as_f64().unwrap() > state && fit["temporary_bytes"].as_f64().unwrap() > 0.0);
        assert!(fit["peak_bytes"].as_f64().unwrap() >= state);
        let attempt = &phase["attempts"][0];
        assert_eq!(attempt["peak_bytes"].as_f64(), fit["peak_bytes"].as_f64());
        assert!(attempt["sequences_per_second_at_most"].is_null(), "the rates of a CPU are unknown");
        assert!(fit["step_seconds"].is_null(), "the rates of a CPU are unknown");
        assert!(fit["flops_per_step"].as_f64().unwrap() > 1e6);
        assert_eq!((&fit["rows_computed_per_device"], &fit["rows_per_sequence"]), (&rows.into(), &1.0.into()));
    }
    let asked = ["--find-micro-batch-size", "--phase", "1", "--target-time", "1h"];
    let table = text(&workshop.succeed(&plan("cpu:1", &asked)));
    let no_rates = "no estimate, because the rates of a CPU are unknown";
    for words in [
        "phase 1",
        "8 = 1 × 8",
        "temporaries",
        "collectives",
        "none",
        "compiled program; ring",
        "compiler",
        "counted from the model; all devices",
        no_rates,
    ] {
        assert!(table.contains(words), "requires {words:?}, got\n{table}");
    }
}

#[test]
fn profile_counts_the_operations_of_the_model_and_dumps_are_not_overwritten() {
    let workshop = Workshop::new();
    workshop.run_file("run.toml", "run", |text| text);
    // The last layer has no array of S², because it is computed at few positions.
    let two_layers = ["--set", "model.num_hidden_layers=2"];
    let profiled = ["--phase", "1", "--micro-batch-size", "2", "--profile", "--dump", "hlo"];
    let profiled = [&two_layers[..], &profiled[..]].concat();
    let planned = json(&workshop, &plan("cpu:1", &profiled));
    let (fit, profile) = (&planned["phases"][0]["fit"], &planned["phases"][0]["profile"]);
    // The model's count leaves out the products of the token type's embedding. The compiler may turn a product with a vector
    // into a sum, which then is not a product. Both are below 5 % even at hidden size 16.
    let (counted, model) =
        (profile["total"]["product_flops"].as_f64().unwrap(), fit["flops_per_step"].as_f64().unwrap());
    // At positions that no head reads, the last layer computes keys and values only: no query and output (h² each), no
    // feed-forward (hi twice), no QKᵀ and PV (hs each).
    let [sequences, length, read, h, i] = [8.0, 24.0, 4.0 + 1.0, 16.0, 32.0];
    let left_out = 3.0 * sequences * (length - read) * 2.0 * (2.0 * h * h + 2.0 * h * i + 2.0 * h * length);
    let executed = model - left_out;
    assert!((counted / executed - 1.0).abs() < 0.05, "{counted} in products, {executed} by the formula");
    assert_eq!(profile["loops"][0]["iterations"], 4.0);
    let sum = |groups: &str, of: &str| -> f64 {
        profile[groups].as_array().unwrap().iter().map(|group| group[of].as_f64().unwrap()).sum()
    };
    for of in ["kernels", "read_bytes", "product_flops"] {
        let total = profile["total"][of].as_f64().unwrap();
        for groups in ["kinds", "scopes"] {
            assert!((sum(groups, of) / total - 1.0).abs() < 1e-9, "{of} of {groups}");
        }
    }
    assert!((sum("kinds", "share") - 1.0).abs() < 1e-9 && profile["total"]["seconds"].is_null());
    let attention =
        profile["scopes"].as_array().unwrap().iter().any(|group| group["scope"] == "encoder/layer.*/attention");
    assert!(attention && !profile["square_arrays"].as_array().unwrap().is_empty(), "{profile}");

    let text = std::fs::read_to_string(workshop.path("hlo/phase-1.hlo.txt")).unwrap();
    assert!(text.starts_with("HloModule ") && text.contains(", kind=kLoop, calls="), "{}", &text[..200]);
    assert!(std::fs::metadata(workshop.path("hlo/phase-1.hlo.pb")).unwrap().len() > 10_000);
    fails(&workshop, &plan("cpu:1", &profiled), 1, &["hlo/phase-1.hlo.txt; use another directory or remove it"]);
}

#[test]
fn recomputation_is_included_in_the_flops() {
    let workshop = Workshop::new();
    workshop.run_file("run.toml", "run", |text| text);
    let flops = |recompute: &str| {
        let planned = json(&workshop, &plan("cpu:1", &["--phase", "1", "--set", recompute]));
        planned["phases"][0]["fit"]["flops_per_step"].as_f64().unwrap()
    };
    // One layer of hidden size 16 over eight rows of 24 tokens: linear maps, QKᵀ and PV. The probabilities need only QKᵀ.
    let (linear, products) = (8.0 * 16.0 * 16.0 * 24.0 + 4.0 * 16.0 * 32.0 * 24.0, 2.0 * 16.0 * 24.0 * 24.0);
    let [none, attention, layer] = ["none", "attention", "layer"].map(|policy| flops(&format!("recompute={policy:?}")));
    assert_eq!([attention - none, layer - none], [8.0 * products, 8.0 * (linear + 2.0 * products)]);
}

/// Arguments of a plan of phase 1 with up to four sequences in a row.
fn packed_plan<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let packed = ["--phase", "1", "--set", "phase.1.sequences_per_row=4"];
    plan("cpu:2", &[&packed, more].concat())
}

fn json(workshop: &Workshop, line: &[&str]) -> Value {
    let output = workshop.succeed(&[line, &["--json"]].concat());
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}

#[test]
fn plan_inspect_and_pretrain_report_the_same_rows_per_sequence() {
    let workshop = Workshop::new();
    workshop.run_file("run.toml", "run", |text| {
        text.replacen("length = 24", "length = 48", 1).replacen("global_batch = 8", "global_batch = 64", 1)
    });
    let inspect = [
        "inspect",
        "data",
        "--sequence-length",
        "48",
        "--max-predictions-per-seq",
        "4",
        "--seed",
        "11",
        "--sequences-per-row",
        "4",
        "--global-batch",
        "64",
    ];
    let seen = json(&workshop, &inspect);
    let (rows, rows_per_sequence) = (seen["rows"].as_u64().unwrap(), seen["rows_per_sequence"].as_f64().unwrap());
    assert_eq!(rows_per_sequence, rows as f64 / 64.0);
    assert!((0.25..0.95).contains(&rows_per_sequence), "{rows_per_sequence}");
    let words = format!("{rows_per_sequence:.3} rows per sequence");
    assert!(text(&workshop.succeed(&inspect)).contains(&words));

    // Each of two devices computes half of the rows, in micro-batches of two.
    let per_device = rows.div_ceil(2).next_multiple_of(2);
    let planned = text(&workshop.succeed(&packed_plan(&["--micro-batch-size", "2"])));
    for words in [&format!("{per_device}, at {rows_per_sequence:.3} rows per sequence"), "first sequences of data"] {
        assert!(planned.contains(words), "requires {words:?}, got\n{planned}");
    }
    let mut pretrain = vec!["pretrain", "run.toml", "--platform", "cpu", "--set", "phase.1.sequences_per_row=4"];
    pretrain.extend(["--set", "phase.1.steps=2", "--set", "phase.2.steps=1"]);
    let trained = text(&workshop.succeed(&pretrain));
    assert!(trained.contains(&format!("up to 4 sequences per row, {words}")), "{trained}");
}

#[test]
fn rows_per_sequence_are_an_option_or_one_without_data() {
    let workshop = Workshop::new();
    workshop.run_file("run.toml", "run", |text| text.replacen("global_batch = 8", "global_batch = 64", 1));
    let absent = ["--set", "data.path=nowhere", "--set", "model.vocab_size=160"];
    let in_twos = [&absent[..], &["--micro-batch-size", "2"]].concat();
    let output = text(&workshop.succeed(&packed_plan(&in_twos)));
    for words in ["upper bound", "without prepared data at nowhere", "set --rows-per-sequence"] {
        assert!(output.contains(words), "requires {words:?}, got\n{output}");
    }
    let whole = json(&workshop, &packed_plan(&in_twos));
    // 0.55 of a device's 32 rows are 17.6: nine micro-batches of two.
    let stated = json(&workshop, &packed_plan(&[&in_twos[..], &["--rows-per-sequence", "0.55"]].concat()));
    assert_eq!(whole["rows_per_sequence_source"], "upper bound");
    assert_eq!(stated["rows_per_sequence_source"], "--rows-per-sequence");
    let of = |plan: &Value, name: &str| plan["phases"][0]["fit"][name].as_f64().unwrap();
    let rows = [&whole, &stated].map(|plan| of(plan, "rows_computed_per_device"));
    assert_eq!((rows, of(&stated, "rows_per_sequence")), ([32.0, 18.0], 0.55));
    let [whole, stated] = [&whole, &stated].map(|plan| of(plan, "flops_per_step"));
    assert!((stated / whole - 18.0 / 32.0).abs() < 1e-12, "{stated} of {whole}");

    // One of four micro-batches of eight stays empty, but none of two micro-batches of sixteen.
    let chosen = ["1", "0.55"].map(|rows| {
        let auto = ["--micro-batch-size", "auto", "--rows-per-sequence", rows];
        of(&json(&workshop, &packed_plan(&[&absent[..], &auto].concat())), "micro_batch_size")
    });
    assert_eq!(chosen, [32.0, 8.0]);
}

#[test]
fn run_with_saved_steps_is_bit_identical_and_mismatches_are_rejected() {
    let workshop = Workshop::new();
    workshop.run_file("run.toml", "run", |text| text);
    workshop.run_file("loaded.toml", "loaded", |text| text);
    workshop.succeed(&plan("cpu:2", &["--micro-batch-size", "2", "--save", "steps"]));
    let pretrain = |file: &'static str, more: &[&'static str]| -> Vec<&'static str> {
        let common = [
            "--platform",
            "cpu",
            "--devices",
            "2",
            "--set",
            "phase.1.micro_batch_size=2",
            "--set",
            "phase.2.micro_batch_size=2",
        ];
        [&["pretrain", file], common.as_slice(), more].concat()
    };
    workshop.succeed(&pretrain("run.toml", &[]));
    let output = text(&workshop.succeed(&pretrain("loaded.toml", &["--compiled", "steps"])));
    for phase in [1, 2] {
        assert!(output.contains(&format!("phase {phase} loaded from saved steps: build ")), "{output}");
    }
    assert_eq!(metrics(&workshop.path("run")), metrics(&workshop.path("loaded")));

    let refused = |more: &[&'static str], expected: &[&str]| {
        fails(
            &workshop,
            &pretrain("loaded.toml", &[&["--set", "checkpoint.directory=other"], more].concat()),
            1,
            expected,
        );
        assert!(!workshop.path("other/metrics.jsonl").exists(), "the run must not start");
    };
    refused(
        &["--compiled", "nowhere"],
        &["cannot read nowhere/manifest.json", "save the compiled steps with `lambert plan`"],
    );
    let other_program = ["phase 1 was compiled from another program", "micro_batch_size 2, 2 devices"];
    refused(&["--compiled", "steps", "--set", "phase.1.micro_batch_size=4"], &other_program);
    refused(&["--compiled", "steps", "--set", "optimizer.bias_correction=none"], &other_program);

    let one_device =
        ["pretrain", "loaded.toml", "--platform", "cpu", "--compiled", "steps", "--set", "checkpoint.directory=other"];
    fails(&workshop, &one_device, 1, &["topology differs: saved for \"cpu:2 (2 devices)\", found \"1 device of"]);

    let manifest = std::fs::read_to_string(workshop.path("steps/manifest.json")).unwrap();
    let with_manifest = |from: &str, to: &str| {
        assert!(manifest.contains(from));
        std::fs::write(workshop.path("steps/manifest.json"), manifest.replace(from, to)).unwrap();
    };
    with_manifest("\"plugin\": \"", "\"plugin\": \"older ");
    refused(&["--compiled", "steps"], &["plugin differs: saved for \"older PJRT C API"]);
    with_manifest("\"format\": 1", "\"format\": 2");
    refused(&["--compiled", "steps"], &["expected format 1, found 2"]);
    with_manifest("{", "");
    refused(&["--compiled", "steps"], &["steps/manifest.json is not a manifest of compiled steps; save them again"]);
    with_manifest("{", "{");

    let step = workshop.path("steps/phase-2.executable");
    let mut bytes = std::fs::read(&step).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&step, bytes).unwrap();
    refused(&["--compiled", "steps"], &["phase-2.executable is damaged"]);
    std::fs::remove_file(&step).unwrap();
    refused(&["--compiled", "steps"], &["cannot read steps/phase-2.executable", "save the steps again"]);

    // Saving into the same directory again repairs it; it then holds only the planned phase.
    workshop.succeed(&plan("cpu:2", &["--micro-batch-size", "2", "--phase", "1", "--save", "steps"]));
    refused(&["--compiled", "steps"], &["phase 2 is missing"]);
}
