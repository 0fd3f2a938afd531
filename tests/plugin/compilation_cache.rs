//! The compilation cache: what an earlier process compiled is loaded, with the same results and memory, and whatever is wrong
//! with a file, the program is compiled again.
//!
//! Needs a CPU plugin (`lambert plugin install cpu`, or `LAMBERT_PLUGIN`).

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::steps::{arguments, run_loaded, small, spec};
use crate::common::{Workshop, cpu, metrics, text};
use lambert::pjrt::{Environment, Platform, PlatformChoice};
use lambert::runtime::backend::Backend;
use lambert::runtime::compilation_cache::Origin;
use lambert::runtime::compilation_cache::store::Store;
use lambert::runtime::compile::Compiled;
use lambert::step::{StepSpec, TrainStep};
use lambert::task::Precision;

fn files(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory).map(|entries| entries.map(|entry| entry.unwrap().path()).collect()).unwrap_or_default()
}

#[test]
fn loaded_step_has_the_results_the_memory_and_the_donations_of_the_compiled_step() {
    let folder = tempfile::tempdir().unwrap();
    let model = small();
    for (replicas, precision) in [(1, Precision::F32), (2, Precision::Bf16)] {
        let spec = StepSpec { precision, ..spec(&model, 8, 2, replicas) };
        // A client of its own for each, as in two processes.
        let [(compiled, expected), (loaded, found)] = [Origin::Compiler, Origin::Cache].map(|origin| {
            let devices = cpu(replicas).with_cache(Some(folder.path()));
            let step = Compiled::new(&devices, || Ok(TrainStep::build(&spec)?.program)).unwrap();
            assert_eq!(step.times.origin, origin);
            let program = TrainStep::build(&spec).unwrap().program;
            let arguments = arguments(&program, &model, 8);
            let put =
                |(replica, list): (usize, &Vec<_>)| list.iter().map(|t| devices.put(t, replica).unwrap()).collect();
            let buffers: Vec<Vec<_>> = arguments.iter().enumerate().map(put).collect();
            let lists: Vec<Vec<_>> = buffers.iter().map(|list| list.iter().collect()).collect();
            step.executable.execute(&lists).unwrap();
            for list in &buffers {
                let deleted: Vec<bool> = list.iter().map(|buffer| buffer.is_deleted().unwrap()).collect();
                let donated: Vec<bool> = (0..list.len()).map(|i| i < program.donated.len()).collect();
                assert_eq!(deleted, donated, "{origin:?}");
            }
            let results = run_loaded(&devices, &step.executable, &arguments);
            (step, results)
        });
        assert!(expected == found, "the results differ in {replicas} replicas");
        let of = |step: &Compiled| {
            let executable = &step.executable;
            let ids: Vec<i32> = executable.devices().iter().map(|device| device.id()).collect();
            (executable.memory_stats().unwrap(), executable.output_shapes().unwrap(), ids)
        };
        assert_eq!(of(&compiled), of(&loaded));
        assert!(!loaded.executable.optimized_program().unwrap().code.is_empty());
    }
    assert_eq!(files(folder.path()).len(), 2, "other options and programs are other files");
}

#[test]
fn second_run_loads_its_programs_and_is_bit_identical() {
    let workshop = Workshop::new();
    for name in ["first", "second", "third", "fourth"] {
        workshop.run_file(&format!("{name}.toml"), name, |text| text);
    }
    let plugin = Environment::of_process().find(&PlatformChoice::Platform(Platform::Cpu)).expect("a CPU plugin").path;
    let directory = workshop.path("cache/lambert/compiled");
    let pretrain = |name: &str, more: &[&str]| {
        let file = format!("{name}.toml");
        let mut command = workshop.command(&[&["pretrain", &file, "--platform", "cpu"], more].concat());
        command.env_remove("LAMBERT_NO_CACHE").env("LAMBERT_PLUGIN", &plugin);
        let output = command.env("XDG_CACHE_HOME", workshop.path("cache")).output().expect("lambert starts");
        assert!(output.status.success(), "{}", text(&output));
        text(&output)
    };
    let all =
        |output: &str, how: &str| [1, 2].iter().all(|phase| output.contains(&format!("phase {phase} {how}: build ")));

    let output = pretrain("first", &["--no-cache"]);
    assert!(all(&output, "compile") && !directory.exists(), "{output}");
    let output = pretrain("second", &[]);
    assert!(all(&output, "compile"), "{output}");
    let saved = files(&directory);
    assert_eq!(saved.len(), 4, "the step and the evaluation of each phase");
    let output = pretrain("third", &[]);
    assert!(all(&output, "loaded from the cache"), "{output}");

    // Other values of the numbers of the optimizer and another rate are arguments of the same programs.
    workshop.run_file("other.toml", "other", |text| text);
    let set = ["optimizer.beta2=0.98", "optimizer.weight_decay=0.3", "phase.1.learning_rate=0.001"];
    let output = pretrain("other", &set.map(|set| ["--set", set]).concat());
    assert!(all(&output, "loaded from the cache") && files(&directory).len() == 4, "{output}");
    assert_ne!(metrics(&workshop.path("other")), metrics(&workshop.path("second")));

    // One file is damaged, and another one holds no program.
    fs::write(&saved[0], "lambert").unwrap();
    let key = saved[1].file_stem().unwrap().to_str().unwrap();
    Store::new(&directory).write(key, b"no program").unwrap();
    let output = pretrain("fourth", &[]);
    for note in [
        format!("the compiled program {} is damaged", saved[0].display()),
        format!("cannot load the compiled program {}", saved[1].display()),
    ] {
        assert_eq!(output.matches(&note).count(), 1, "{output}");
    }
    assert_eq!(output.matches("; compiling the program again").count(), 2, "{output}");
    let run = |name| metrics(&workshop.path(name));
    assert!(["second", "third", "fourth"].iter().all(|name| run(name) == run("first")));
    let output = pretrain("first", &["--resume", "--set", "phase.2.steps=6", "--accept-changes"]);
    assert!(all(&output, "loaded from the cache") && !output.contains("damaged"), "{output}");
}
