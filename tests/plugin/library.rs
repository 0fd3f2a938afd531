//! The example of the `train` module, with a tiny model: a run file is opened, trained and exported from Rust.

use lambert::pjrt::{Platform, PlatformChoice};
use lambert::run::Run;
use lambert::run::weights::export_model;
use lambert::train::{Outcome, PretrainOptions, pretrain};

use crate::common::Workshop;

#[test]
fn run_file_is_trained_and_exported_from_rust() {
    let workshop = Workshop::new();
    workshop.run_file("run.toml", "run", |text| text);
    let overrides = [("data.path", "data"), ("checkpoint.directory", "run")]
        .map(|(key, path)| format!("{key}={}", workshop.path(path).display()));
    let run = Run::open(&workshop.path("run.toml"), &overrides).unwrap();
    let options = PretrainOptions { platform: PlatformChoice::Platform(Platform::Cpu), ..PretrainOptions::default() };
    assert_eq!(pretrain(&run, &options).unwrap(), Outcome::Finished);
    let directory = run.checkpoint.directory.local();
    let exported = export_model(directory, None, None, &workshop.path("exported")).unwrap();
    assert_eq!((exported.step, exported.checkpoint), (10, directory.join("step-00000010")));
    assert!(workshop.path("exported/model.safetensors").exists());

    // Without the permission to resume, the run is not started again.
    let refused = pretrain(&run, &options).unwrap_err().to_string();
    assert!(refused.contains("already holds a run; resume it"), "{refused}");
}
