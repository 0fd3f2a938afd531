//! The interpreter of tests that need Python, with the packages that they need.

use std::path::PathBuf;
use std::process::{Command, Stdio};

/// The directory of programs of the environment that has what `scripts/check/requirements-servers.txt` lists.
pub fn programs() -> PathBuf {
    let made = Command::new("scripts/check/python_env.py")
        .arg("scripts/check/requirements-servers.txt")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stderr(Stdio::inherit())
        .output()
        .expect("scripts/check/python_env.py starts; it needs Python 3");
    assert!(made.status.success(), "scripts/check/python_env.py could not make the environment");
    PathBuf::from(String::from_utf8_lossy(&made.stdout).trim()).join("bin")
}
