//! Huge pages for the memory of programs on the CPU.
//!
//! XLA's CPU client allocates the temporaries of a program anew for each execution, and glibc maps memory of that size anew
//! each time, in pages of 4 kB: up to a fifth of a training step is page faults. With the tunable `glibc.malloc.hugetlb=1`
//! glibc asks for huge pages, which are 512 times as large (GNU C Library Reference Manual, "Memory Allocation Tunables").
//! glibc reads its tunables before `main`, so the process executes its own program once more, with the tunable in its
//! environment. Process id, arguments, streams and working directory stay the same.

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::Path;

use crate::pjrt::{Environment, Platform, PlatformChoice};

/// The variable of glibc's tunables: `NAME=VALUE`, separated by colons.
const VARIABLE: &str = "GLIBC_TUNABLES";
const TUNABLE: &str = "glibc.malloc.hugetlb";
/// Set in the second execution. Where glibc drops its variable (in programs with more rights than their user), the process
/// would else start again without end.
const DONE: &str = "LAMBERT_HUGE_PAGES";

/// Executes this program again with huge pages, if it will run programs on the CPU by `platform`. Does nothing if it will not, if
/// the user has set the tunable, in the second execution, with another C library, and if the program cannot be executed.
pub fn request(platform: &PlatformChoice) {
    if !cfg!(all(target_os = "linux", target_env = "gnu")) || !is_cpu(platform) || env::var_os(DONE).is_some() {
        return;
    }
    if let Some(tunables) = with_huge_pages(env::var_os(VARIABLE).as_deref()) {
        execute_again(&tunables);
    }
}

/// Returns whether `choice` will be the CPU. `auto` selects a TPU or GPU first, if the machine has one; without a plugin for it, the
/// CPU runs without huge pages.
fn is_cpu(choice: &PlatformChoice) -> bool {
    match Environment::of_process().resolve(choice) {
        Ok(PlatformChoice::Auto) => [Platform::Tpu, Platform::Cuda].iter().all(|platform| platform.hardware().is_err()),
        Ok(PlatformChoice::Platform(platform)) => platform == Platform::Cpu,
        Ok(PlatformChoice::File(path)) => Platform::of_file(&path) == Some(Platform::Cpu),
        // Reported when the devices are opened.
        Err(_) => false,
    }
}

/// Adds the tunable to the user's; none if it is one of them.
fn with_huge_pages(tunables: Option<&OsStr>) -> Option<OsString> {
    let Some(tunables) = tunables.filter(|tunables| !tunables.is_empty()) else {
        return Some(format!("{TUNABLE}=1").into());
    };
    let text = tunables.to_string_lossy();
    let is_set = text.split(':').any(|tunable| tunable.split_once('=').is_some_and(|(name, _)| name == TUNABLE));
    (!is_set).then(|| {
        let mut all = tunables.to_owned();
        all.push(format!(":{TUNABLE}=1"));
        all
    })
}

/// Replaces this process by its own program with `tunables`; returns if that fails, and the process is as before.
fn execute_again(tunables: &OsStr) {
    use std::os::unix::process::CommandExt;
    // After an execution that fails, signals have their default effects. A file that was removed is the likely reason.
    let Some(program) = env::current_exe().ok().filter(|program| program.exists() && !is_loader(program)) else {
        return;
    };
    let mut arguments = env::args_os();
    let mut command = std::process::Command::new(program);
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    // Without huge pages the results are the same.
    let _ = command.args(arguments).env(VARIABLE, tunables).env(DONE, "1").exec();
}

/// Returns whether the file is the dynamic loader, which is the executable of a program that was started as its argument.
fn is_loader(program: &Path) -> bool {
    program.file_name().is_some_and(|name| name.to_string_lossy().starts_with("ld-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tunables_of_the_user_are_kept_and_win() {
        let with = |tunables: &str| with_huge_pages(Some(OsStr::new(tunables))).map(|all| all.into_string().unwrap());
        assert_eq!(with_huge_pages(None).unwrap(), "glibc.malloc.hugetlb=1");
        assert_eq!(with("").unwrap(), "glibc.malloc.hugetlb=1");
        assert_eq!(with("glibc.malloc.arena_max=2").unwrap(), "glibc.malloc.arena_max=2:glibc.malloc.hugetlb=1");
        assert_eq!(with("glibc.malloc.hugetlb=0"), None);
        assert_eq!(with("glibc.malloc.arena_max=2:glibc.malloc.hugetlb=2"), None);
        assert_eq!(with(&with("").unwrap()), None, "the second execution is the last one");
    }

    #[test]
    fn programs_for_the_cpu_are_recognised() {
        let is_cpu = |choice: &str| is_cpu(&choice.parse().unwrap());
        assert!(is_cpu("cpu") && is_cpu("/plugins/pjrt_c_api_cpu_plugin.so"));
        assert!(!is_cpu("tpu") && !is_cpu("cuda") && !is_cpu("/plugins/libtpu.so") && !is_cpu("/plugins/other.so"));
    }
}
