//! `lambert devices`, `plugin list` and `plugin install` on a machine without plugins and without a network.

use std::path::Path;

use crate::common::machine::Machine;
use crate::common::text;
use lambert::plugins::pins::PACKAGES;

#[test]
fn a_file_that_is_not_a_plugin_is_named() {
    let machine = Machine::new();
    std::fs::write(machine.path("words.so"), "no library at all").expect("writable");
    let next = "lambert plugin install cpu";
    machine.fails(&["devices", "--platform", "./words.so"], 1, &["words.so cannot be opened", next]);
    machine.fails(&["devices", "--platform", "/no/such/plugin.so"], 1, &["/no/such/plugin.so cannot be opened", next]);
    let library = ["/lib/x86_64-linux-gnu/libm.so.6", "/usr/lib64/libm.so.6", "/usr/lib/libm.so.6", "/lib64/libm.so.6"];
    if let Some(library) = library.into_iter().find(|path| Path::new(path).exists()) {
        let expected = ["is not a PJRT plugin", "GetPjrtApi", next];
        machine.fails(&["bench", "--model", "tiny", "--platform", library], 1, &expected);
    }
}

#[test]
fn plugin_list_shows_all_packages() {
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
fn a_failed_installation_names_the_fault_and_installs_nothing() {
    let machine = Machine::new();
    machine.fails(&["plugin", "install", "gpu"], 2, &["requires cpu, cuda or tpu, got \"gpu\""]);
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        return machine.fails(&["plugin", "install", "cpu"], 1, &["the pinned plugins are for Linux on x86-64"]);
    }
    machine.fails(
        &["plugin", "install", "cpu", "--package", "jaxlib"],
        1,
        &["there is no package \"jaxlib\" for cpu; choose one of lammps-jax-pjrt-cpu, "],
    );
    machine.fails(&["plugin", "install", "cpu"], 1, &["python3 is not on the PATH", "install from that wheel file"]);
    let pinned = &PACKAGES[0].wheels[0];
    std::fs::write(machine.path(pinned.file), b"half a download").expect("writable");
    machine.fails(
        &["plugin", "install", "cpu", "--wheel", pinned.file],
        1,
        &[pinned.file, &format!("requires sha256 {}", pinned.sha256), "nothing was installed, download it again"],
    );
    std::fs::write(machine.path("jaxlib-1.0-py3-none-any.whl"), b"").expect("writable");
    machine.fails(
        &["plugin", "install", "cpu", "--wheel", "jaxlib-1.0-py3-none-any.whl"],
        1,
        &["requires a wheel of lammps-jax-pjrt-cpu"],
    );
    machine.fails(&["plugin", "install", "cpu", "--wheel", "none.whl"], 1, &["none.whl: No such file"]);
    assert!(!machine.path(".cache/lambert/plugins/cpu").exists());
}
