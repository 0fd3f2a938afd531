//! The two output streams: results go to standard output, all other messages to standard error. Either may be a pipe whose
//! reader has ended (`lambert bench | head -1`), where `println!` and `eprintln!` panic, so no other module prints.
//!
//! On a closed pipe the text is dropped, and the work and its exit code are unaffected. Any other failure of standard output
//! (such as a full disk behind `> file`) is an error, because a result has been lost.

pub mod byte_progress;
pub mod table;

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

/// Whether the user wants results and errors only.
static QUIET: AtomicBool = AtomicBool::new(false);

/// Suppresses notes and progress in this process.
pub fn be_quiet() {
    QUIET.store(true, Ordering::Relaxed);
}

/// Returns whether progress is shown as bars: on a terminal, unless the user wants no progress.
pub fn shows_bars() -> bool {
    !QUIET.load(Ordering::Relaxed) && console::user_attended_stderr()
}

/// Writes a line to standard output.
///
/// # Errors
/// If standard output cannot be written, unless it is a closed pipe.
pub fn print(line: impl Display) -> io::Result<()> {
    print_text(format_args!("{line}\n"))
}

/// Writes text with its own line ends to standard output.
///
/// # Errors
/// As [`print()`].
pub fn print_text(text: impl Display) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match write!(stdout, "{text}").and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(io::Error::new(error.kind(), format!("cannot write to standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// Writes a message or a line of progress to standard error, unless the user wants none.
pub fn note(line: impl Display) {
    if !QUIET.load(Ordering::Relaxed) {
        report(line);
    }
}

/// Writes a line of a long run to standard error, as [`note`]; with the time (UTC) before it if standard error is not a terminal.
pub fn log(line: impl Display) {
    match console::user_attended_stderr() {
        true => note(line),
        false => note(format_args!("{}  {line}", humantime::format_rfc3339_seconds(SystemTime::now()))),
    }
}

/// Writes the error that ends the program to standard error. A failure is ignored, because there is no other stream to report it on.
pub fn report(line: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}
