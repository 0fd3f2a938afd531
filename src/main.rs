//! The program `lambert`: parses the command line, runs the verb and prints its error.
//!
//! Exit codes: 0 success; 1 failure of the verb or of a check; 2 invalid command line; 130 interrupted and saved.

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
