//! `lambert devices`, `plugin list` and `plugin install` as a user meets them, in cache directories of their own. Nothing is
//! fetched: what needs the network is shown to ask for it, or not to.

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use common::text;
use lambert::plugins::pins::PACKAGES;

/// A machine on which nothing was installed: an empty home, no Python, no variable that names a plugin.
struct Machine(tempfile::TempDir);

impl Machine {
    fn new() -> Machine {
        Machine(tempfile::tempdir().expect("a temporary directory"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn lambert(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lambert"));
        for variable in ["LAMBERT_PLUGIN", "XDG_CACHE_HOME", "VIRTUAL_ENV", "CONDA_PREFIX"] {
            command.env_remove(variable);
        }
        command.env("HOME", self.0.path()).env("PATH", self.0.path()).current_dir(self.0.path());
        command.args(arguments).output().expect("lambert starts")
    }

    #[track_caller]
    fn fails(&self, arguments: &[&str], code: i32, said: &[&str]) {
        let output = self.lambert(arguments);
        let words = text(&output);
        assert_eq!(output.status.code(), Some(code), "lambert {arguments:?}\n{words}");
        said.iter().for_each(|part| assert!(words.contains(part), "{arguments:?} requires {part:?}, got\n{words}"));
        assert!(!words.contains("panicked"), "{words}");
    }
}

/// The CPU plugin that this machine's user has.
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
fn devices_lists_every_platform_and_why_others_are_not_used() {
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

#[test]
fn a_file_that_is_no_plugin_is_named() {
    let machine = Machine::new();
    std::fs::write(machine.path("words.so"), "no library at all").expect("writable");
    let next = "lambert plugin install cpu";
    machine.fails(&["devices", "--platform", "./words.so"], 1, &["words.so cannot be opened", next]);
    machine.fails(&["devices", "--platform", "/no/such/plugin.so"], 1, &["/no/such/plugin.so cannot be opened", next]);
    let library = ["/lib/x86_64-linux-gnu/libm.so.6", "/usr/lib64/libm.so.6", "/usr/lib/libm.so.6", "/lib64/libm.so.6"];
    if let Some(library) = library.into_iter().find(|path| Path::new(path).exists()) {
        let said = ["is a shared library but no PJRT plugin", "GetPjrtApi", next];
        machine.fails(&["bench", "--model", "tiny", "--platform", library], 1, &said);
    }
}

#[test]
fn plugin_list_shows_what_is_there_and_what_can_be() {
    let machine = Machine::new();
    let output = machine.lambert(&["plugin", "list"]);
    let words = text(&output);
    assert!(output.status.success(), "{words}");
    for package in PACKAGES {
        assert!(words.contains(package.name()) && words.contains(package.version()), "{words}");
    }
    assert!(words.contains("can be installed (63 MB)") && !words.contains("installed: "), "{words}");
}

#[test]
fn install_says_what_is_wrong_and_then_nothing_was_installed() {
    let machine = Machine::new();
    machine.fails(&["plugin", "install", "gpu"], 2, &["requires cpu, cuda or tpu, got \"gpu\""]);
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        return machine.fails(&["plugin", "install", "cpu"], 1, &["the pinned plugins are for Linux on x86-64"]);
    }
    machine.fails(
        &["plugin", "install", "cpu", "--package", "jaxlib"],
        1,
        &["--package requires one of lammps-jax-pjrt-cpu, ", "got \"jaxlib\""],
    );
    machine.fails(&["plugin", "install", "cpu"], 1, &["python3 is not on the PATH", "--wheel FILE"]);
    let pinned = &PACKAGES[0].wheels[0];
    std::fs::write(machine.path(pinned.file), b"half a download").expect("writable");
    machine.fails(
        &["plugin", "install", "cpu", "--wheel", pinned.file],
        1,
        &[pinned.file, &format!("requires sha256 {}", pinned.sha256), "nothing was installed, fetch it again"],
    );
    std::fs::write(machine.path("jaxlib-1.0-py3-none-any.whl"), b"").expect("writable");
    machine.fails(
        &["plugin", "install", "cpu", "--wheel", "jaxlib-1.0-py3-none-any.whl"],
        1,
        &["requires a wheel of lammps-jax-pjrt-cpu"],
    );
    machine.fails(&["plugin", "install", "cpu", "--wheel", "none.whl"], 1, &["none.whl: no such file"]);
    assert!(!machine.path(".cache/lambert/plugins/cpu").exists());
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[test]
fn what_is_installed_already_is_not_fetched_again() {
    let machine = Machine::new();
    let plugin = cpu_plugin();
    let package = &PACKAGES[0];
    // As an install leaves it, the library itself being the user's.
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
    // There is neither Python nor a network; loading the library takes most of this.
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
    let listed = text(&machine.lambert(&["plugin", "list"]));
    assert!(listed.contains("installed: "), "{listed}");
    let used = machine.lambert(&["devices", "--platform", "cpu"]);
    assert!(text(&used).contains(relative), "{}", text(&used));
    // A record of another version is no reason to stay.
    let old = record.to_string().replace(package.version(), "0.0.1");
    std::fs::write(directory.join("installed.json"), old).expect("writable");
    machine.fails(&["plugin", "install", "cpu"], 1, &["python3 is not on the PATH"]);
    assert!(library.exists(), "what was there stays");
}
