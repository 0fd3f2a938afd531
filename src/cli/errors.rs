//! Error messages of the command line: the library's errors, with the options that remedy them.

use crate::run::initial_state::ResumeError;

/// The message of a thread that the system refuses.
pub const NO_THREAD: &str = "cannot start a thread; raise the limit on processes (`ulimit -u`, or the pids limit of the container) or the \
                             one on address space (`ulimit -v`)";

/// Formats `error` and its causes on one line, and adds the option that remedies it, if there is one.
pub fn message(error: &anyhow::Error) -> String {
    match error.chain().find_map(remedy) {
        Some(remedy) => format!("{} ({remedy})", with_causes(error)),
        None => with_causes(error),
    }
}

/// Joins an error and its causes. A cause that the text before it already states is left out: the errors of some libraries
/// repeat their causes.
fn with_causes(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text += &format!(": {cause}");
        }
    }
    text
}

fn remedy(error: &(dyn std::error::Error + 'static)) -> Option<&'static str> {
    Some(match error.downcast_ref::<ResumeError>()? {
        ResumeError::RunExists { .. } => "--resume resumes it; --set checkpoint.directory=… starts another run",
        ResumeError::SettingsChanged { .. } => "--accept-changes accepts them",
    })
}

#[cfg(test)]
mod tests {
    use std::io;

    use anyhow::Context;

    use super::*;

    #[test]
    fn a_cause_is_stated_once() {
        let cause = || io::Error::from(io::ErrorKind::NotFound);
        let error = Err::<(), _>(cause()).context("cannot read x").unwrap_err();
        assert_eq!(message(&error), "cannot read x: entity not found");
        let error = Err::<(), _>(cause()).context("no metrics (entity not found); go on").context("y").unwrap_err();
        assert_eq!(message(&error), "y: no metrics (entity not found); go on");
    }
}
