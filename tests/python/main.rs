//! Tests that need the Python packages of `scripts/requirements-servers.txt` (an S3 server, shellcheck, PyYAML), which
//! `scripts/python_env` installs, and the CPU plugin.

#[path = "../common/mod.rs"]
mod common;

mod launch;
mod storage;
