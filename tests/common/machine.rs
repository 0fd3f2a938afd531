//! A simulated machine without plugins and without Python.

use std::path::PathBuf;
use std::process::{Command, Output};

use crate::common::text;

/// A machine with an empty home directory, no Python, and no variable that names a plugin.
pub struct Machine(tempfile::TempDir);

impl Machine {
    pub fn new() -> Machine {
        Machine(tempfile::tempdir().expect("a temporary directory"))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn lambert(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lambert"));
        for variable in ["LAMBERT_PLUGIN", "XDG_CACHE_HOME", "VIRTUAL_ENV", "CONDA_PREFIX"] {
            command.env_remove(variable);
        }
        command.env("HOME", self.0.path()).env("PATH", self.0.path()).current_dir(self.0.path());
        command.args(arguments).output().expect("lambert starts")
    }

    #[track_caller]
    pub fn fails(&self, arguments: &[&str], code: i32, expected: &[&str]) {
        let output = self.lambert(arguments);
        let words = text(&output);
        assert_eq!(output.status.code(), Some(code), "lambert {arguments:?}\n{words}");
        expected.iter().for_each(|part| assert!(words.contains(part), "{arguments:?} requires {part:?}, got\n{words}"));
        assert!(!words.contains("panicked"), "{words}");
    }
}
