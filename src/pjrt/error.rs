//! What can go wrong between this program and a plugin. A failed call names the C function, so that the message can be
//! looked up in the plugin's own source, and carries the plugin's message unchanged.

use std::fmt;
use std::path::PathBuf;

use crate::shape::Shape;

/// Why a plugin could not be used, or what it answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PjrtError {
    /// The plugin answered a call, or completed asynchronous work, with an error.
    #[error("{function}: {message} ({code})")]
    Call { function: &'static str, code: ErrorCode, message: String },
    /// The function table ends before this function.
    #[error(
        "{function} is not in the plugin {} (PJRT C API {}.{}): install a newer plugin", plugin.display(), version.0,
        version.1
    )]
    Absent { function: &'static str, plugin: PathBuf, version: (i32, i32) },
    #[error(
        "the PJRT plugin {} cannot be opened: {reason}; name the file of a plugin for this machine, or install one with \
         `lambert plugin install cpu`", path.display()
    )]
    Open { path: PathBuf, reason: String },
    #[error(
        "{} is a shared library but no PJRT plugin: it does not export GetPjrtApi; name the file of a plugin, or install \
         one with `lambert plugin install cpu`", path.display()
    )]
    NotAPlugin { path: PathBuf },
    #[error(
        "the plugin {} has PJRT C API {}.{}, and this program requires major version {} and at least minor version {}: \
         install another plugin", path.display(), found.0, found.1, required.0, required.1
    )]
    Version { path: PathBuf, found: (i32, i32), required: (i32, i32) },
    #[error("{0}")]
    NotFound(String),
    #[error("a buffer of shape {shape} requires {} bytes, got {found}", shape.bytes())]
    Bytes { shape: Shape, found: usize },
    #[error("{what} of element type {code} (PJRT_Buffer_Type) has no counterpart here")]
    ElementType { what: &'static str, code: i32 },
    #[error("{what}: requires {required}, got {found}")]
    Argument { what: &'static str, required: String, found: String },
}

/// The canonical status codes, as Abseil numbers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorCode {
    Cancelled,
    Unknown,
    InvalidArgument,
    DeadlineExceeded,
    NotFound,
    AlreadyExists,
    PermissionDenied,
    ResourceExhausted,
    FailedPrecondition,
    Aborted,
    OutOfRange,
    Unimplemented,
    Internal,
    Unavailable,
    DataLoss,
    Unauthenticated,
    /// A number outside the canonical list.
    Other(i32),
}

impl ErrorCode {
    pub(super) fn from_raw(code: i32) -> Self {
        use ErrorCode::*;
        const CODES: [ErrorCode; 16] = [
            Cancelled,
            Unknown,
            InvalidArgument,
            DeadlineExceeded,
            NotFound,
            AlreadyExists,
            PermissionDenied,
            ResourceExhausted,
            FailedPrecondition,
            Aborted,
            OutOfRange,
            Unimplemented,
            Internal,
            Unavailable,
            DataLoss,
            Unauthenticated,
        ];
        code.checked_sub(1).and_then(|i| CODES.get(usize::try_from(i).ok()?).copied()).unwrap_or(Other(code))
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ErrorCode::Other(code) => write!(f, "status {code}"),
            // `ResourceExhausted` is written RESOURCE_EXHAUSTED, as plugins do in their own messages.
            named => {
                for (i, letter) in format!("{named:?}").chars().enumerate() {
                    if i > 0 && letter.is_uppercase() {
                        f.write_str("_")?;
                    }
                    write!(f, "{}", letter.to_ascii_uppercase())?;
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_call_names_function_code_and_message() {
        let error = PjrtError::Call {
            function: "PJRT_Client_Compile",
            code: ErrorCode::from_raw(8),
            message: "Out of memory".to_owned(),
        };
        assert_eq!(error.to_string(), "PJRT_Client_Compile: Out of memory (RESOURCE_EXHAUSTED)");
    }

    #[test]
    fn codes_outside_the_list_are_kept() {
        assert_eq!(ErrorCode::from_raw(1), ErrorCode::Cancelled);
        assert_eq!(ErrorCode::from_raw(16), ErrorCode::Unauthenticated);
        for code in [-3, 0, 17] {
            assert_eq!(ErrorCode::from_raw(code), ErrorCode::Other(code));
        }
    }
}
