//! `lambert devices` and `plugin install` with an installed plugin, in a cache directory of their own. Nothing is downloaded.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::common::machine::Machine;
use crate::common::text;
use lambert::plugins::pins::PACKAGES;

/// Returns the path of this user's CPU plugin.
fn cpu_plugin() -> PathBuf {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lambert"));
    let output = command.args(["devices", "--json", "--platform", "cpu"]).output().expect("lambert starts");
    assert!(
        output.status.success(),
        "run `lambert plugin install cpu` first, or set LAMBERT_PLUGIN: {}",
        text(&output)
    );
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    let platform = &report["platforms"][0];
    assert_eq!(platform["platform"], "cpu");
    assert_eq!(platform["devices"][0]["addressable"], true);
    PathBuf::from(platform["plugin"].as_str().expect("a path"))
}

#[test]
fn devices_lists_every_platform_with_the_reasons_against_the_others() {
    let machine = Machine::new();
    machine.fails(
        &["devices"],
        1,
        &[
            "cpu: not usable: no PJRT plugin for cpu in",
            "tpu: not usable",
            "cuda: not usable",
            "lambert plugin install cpu",
        ],
    );
    let plugin = cpu_plugin();
    let plugin = plugin.to_str().expect("UTF-8");
    let output = machine.lambert(&["devices", "--platform", plugin, "--devices", "3"]);
    let words = text(&output);
    assert!(output.status.success() && words.contains("PJRT C API") && words.contains("the host's"), "{words}");
    assert!(words.contains("│ 2 ") || words.contains(" 2 "), "three devices: {words}");
    machine.fails(&["devices", "--platform", "gpu"], 2, &["requires auto, cpu, cuda, tpu or the path", "\"gpu\""]);
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[test]
fn an_installed_plugin_is_not_downloaded_again() {
    let machine = Machine::new();
    let plugin = cpu_plugin();
    let package = &PACKAGES[0];
    // The directory of a finished installation, with a link to the user's library.
    let directory = machine.path(".cache/lambert/plugins/cpu");
    let relative = "lammps_jax_pjrt_cpu/pjrt_c_api_cpu_plugin.so";
    let library = directory.join(relative);
    std::fs::create_dir_all(library.parent().expect("a parent")).expect("writable");
    std::os::unix::fs::symlink(plugin, &library).expect("writable");
    let wheels: Vec<serde_json::Value> = package
        .wheels
        .iter()
        .map(|w| serde_json::json!({ "name": w.name, "version": w.version, "sha256": w.sha256 }))
        .collect();
    let record = serde_json::json!({
        "name": package.name(), "version": package.version(), "plugin": relative, "wheels": wheels,
    });
    std::fs::write(directory.join("installed.json"), record.to_string()).expect("writable");

    let begin = Instant::now();
    let output = machine.lambert(&["plugin", "install", "cpu"]);
    let words = text(&output);
    assert!(output.status.success() && words.contains("is installed already"), "{words}");
    // Neither Python nor a network is available; loading the library takes most of the time.
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
    let listed = text(&machine.lambert(&["plugin", "list"]));
    assert!(listed.contains("installed: "), "{listed}");
    let used = machine.lambert(&["devices", "--platform", "cpu"]);
    assert!(text(&used).contains(relative), "{}", text(&used));
    // A record of another version starts a new installation.
    let old = record.to_string().replace(package.version(), "0.0.1");
    std::fs::write(directory.join("installed.json"), old).expect("writable");
    machine.fails(&["plugin", "install", "cpu"], 1, &["python3 is not on the PATH"]);
    assert!(library.exists(), "the installed plugin stays");
}
