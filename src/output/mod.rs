//! The two streams of a terminal: results to standard output, everything else that a person may want to know to standard
//! error. Either may be a pipe whose reader has gone (`lambert bench | head -1`), where `println!` and `eprintln!` panic.
//! Nothing else in the house prints.
//!
//! A closed pipe is the reader's choice: the words are dropped, the work and its exit code are not. Any other fault of
//! standard output (a full disk behind `> file`) is an error, for a result that was asked for has been lost.

pub mod byte_progress;

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};

/// Writes a line to standard output.
///
/// # Errors
/// If standard output cannot be written, unless it is a pipe that nobody reads any more.
pub fn print(line: impl Display) -> io::Result<()> {
    print_text(format_args!("{line}\n"))
}

/// Writes text that brings its own line ends to standard output.
///
/// # Errors
/// As [`print`].
pub fn print_text(text: impl Display) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match write!(stdout, "{text}").and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(io::Error::new(error.kind(), format!("cannot write to standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// Writes a line to standard error. If it cannot be written, there is no place left to say so.
pub fn note(line: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}
