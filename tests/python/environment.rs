//! The Python environment of tests that need Python packages.

use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Returns the `bin` directory of an environment with the packages of `scripts/check/requirements-servers.txt`.
pub fn programs() -> PathBuf {
    let made = Command::new("scripts/check/python_env.py")
        .arg("scripts/check/requirements-servers.txt")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stderr(Stdio::inherit())
        .output()
        .expect("scripts/check/python_env.py starts; it needs Python 3");
    assert!(made.status.success(), "scripts/check/python_env.py could not create the environment");
    PathBuf::from(String::from_utf8_lossy(&made.stdout).trim()).join("bin")
}
