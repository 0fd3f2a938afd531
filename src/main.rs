//! The program `lambert`: parses the command line, runs the verb and prints its error.
//!
//! Exit codes: 0 success; 1 failure of the verb or of a check; 2 invalid command line; 4 training has diverged; 75 time limit
//! reached and saved; 130 interrupted and saved.

use std::process::ExitCode;
use std::thread;

use clap::Parser;
use lambert::cli::{self, Cli};

/// The stack of the thread that runs the verb. That of the main thread depends on the user's limit (`ulimit -s`).
const STACK_BYTES: usize = 16 << 20;

fn main() -> ExitCode {
    match thread::Builder::new().name("lambert".to_owned()).stack_size(STACK_BYTES).spawn(run) {
        // A panic has printed its message.
        Ok(thread) => thread.join().unwrap_or(ExitCode::from(101)),
        Err(error) => {
            cli::report(&anyhow::Error::from(error).context(cli::errors::NO_THREAD));
            ExitCode::FAILURE
        }
    }
}

fn run() -> ExitCode {
    match cli::run(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            cli::report(&error);
            ExitCode::FAILURE
        }
    }
}
