//! Tests that need the Python packages of `scripts/check/requirements-servers.txt` (an S3 server, shellcheck, PyYAML), which
//! `scripts/check/python_env.py` installs, and the CPU plugin.

#[path = "../common/mod.rs"]
mod common;

mod environment;
mod launch;
mod s3;
mod storage;
