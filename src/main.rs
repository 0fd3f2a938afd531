//! The program: parse, run, say what went wrong, exit.
//!
//! Exit codes: 0 done; 1 the work failed or a check did not hold; 2 the command line was wrong; 130 interrupted, with
//! everything saved.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match lambert::cli::run(lambert::cli::Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            lambert::output::note(format_args!(
                "{} {}",
                console::style("error:").red().bold().for_stderr(),
                lambert::cli::errors::message(&error)
            ));
            ExitCode::FAILURE
        }
    }
}
