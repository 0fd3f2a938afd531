//! Error messages of the command line: the library's errors, with the options that remedy them.

use crate::run::initial_state::ResumeError;

/// Formats `error` on one line and adds the option that remedies it, if there is one.
pub fn message(error: &anyhow::Error) -> String {
    match error.chain().find_map(remedy) {
        Some(remedy) => format!("{error:#} ({remedy})"),
        None => format!("{error:#}"),
    }
}

fn remedy(error: &(dyn std::error::Error + 'static)) -> Option<&'static str> {
    Some(match error.downcast_ref::<ResumeError>()? {
        ResumeError::RunExists { .. } => "--resume resumes it; --set checkpoint.directory=… starts another run",
        ResumeError::SettingsChanged { .. } => "--accept-changes accepts them",
    })
}
