//! The program `lambert`: parses the command line, runs the verb and prints its error.
//!
//! Exit codes: 0 success; 1 failure of the verb or of a check; 2 invalid command line; 75 time limit reached and saved; 130
//! interrupted and saved.

use std::process::ExitCode;

use clap::Parser;
use lambert::cli::{self, Cli, huge_pages};

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Some(devices) = cli.devices() {
        huge_pages::request(devices.platform());
    }
    match cli::run(cli) {
        Ok(code) => code,
        Err(error) => {
            lambert::output::note(format_args!(
                "{} {}",
                console::style("error:").red().bold().for_stderr(),
                cli::errors::message(&error)
            ));
            ExitCode::FAILURE
        }
    }
}
