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
            // A closed pipe (`lambert inspect | head`) is the reader's choice, not a failure.
            let broken_pipe = |e: &std::io::Error| e.kind() == std::io::ErrorKind::BrokenPipe;
            if error.chain().any(|cause| cause.downcast_ref().is_some_and(broken_pipe)) {
                return ExitCode::SUCCESS;
            }
            eprintln!("{} {error:#}", console::style("error:").red().bold().for_stderr());
            ExitCode::FAILURE
        }
    }
}
