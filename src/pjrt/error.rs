//! Errors of loading and calling a plugin. The error of a failed call names the C function and has the plugin's message
//! unchanged.

use std::fmt;
use std::path::PathBuf;

use crate::shape::Shape;

/// An error of loading or calling a plugin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the message explains the fields")]
pub enum PjrtError {
    /// A call or asynchronous work of the plugin failed.
    #[error("{function}: {message} ({code})")]
    Call { function: &'static str, code: ErrorCode, message: String },
    /// The plugin's function table does not have this function.
    #[error(
        "the plugin {} (PJRT C API {}.{}) does not have {function}: install a newer plugin", plugin.display(), version.0,
        version.1
    )]
    Absent { function: &'static str, plugin: PathBuf, version: (i32, i32) },
    /// The file cannot be opened as a shared library.
    #[error(
        "the PJRT plugin {} cannot be opened: {reason}; set the platform to a plugin file for this machine, or install a \
         plugin with `lambert plugin install cpu`", path.display()
    )]
    Open { path: PathBuf, reason: String },
    /// The shared library is not a PJRT plugin.
    #[error(
        "{} is not a PJRT plugin: it does not export GetPjrtApi; set the platform to a plugin file, or install a plugin \
         with `lambert plugin install cpu`", path.display()
    )]
    NotAPlugin { path: PathBuf },
    /// The plugin's version of the C API is not supported.
    #[error(
        "the plugin {} has PJRT C API {}.{}; lambert requires major version {} and minor version {} or later: install \
         another plugin", path.display(), found.0, found.1, required.0, required.1
    )]
    Version { path: PathBuf, found: (i32, i32), required: (i32, i32) },
    /// No usable plugin was found.
    #[error("{0}")]
    NotFound(String),
    /// Host bytes do not have the size of the buffer's shape.
    #[error("a buffer of shape {shape} requires {} bytes, got {found}", shape.bytes())]
    Bytes { shape: Shape, found: usize },
    /// The plugin returned an element type without a [`DType`](crate::shape::DType).
    #[error("{what} has the unsupported element type {code} (PJRT_Buffer_Type)")]
    ElementType { what: &'static str, code: i32 },
    /// The arguments of a call are invalid.
    #[error("{what}: requires {required}, got {found}")]
    Argument { what: &'static str, required: String, found: String },
}

impl PjrtError {
    /// Returns whether the devices have too little memory.
    pub fn is_out_of_memory(&self) -> bool {
        matches!(self, PjrtError::Call { code: ErrorCode::ResourceExhausted, .. })
    }
}

/// The canonical status codes, in Abseil's numbering.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorCode {
    /// The operation was cancelled.
    Cancelled,
    /// An unknown error.
    Unknown,
    /// An argument is invalid.
    InvalidArgument,
    /// The deadline expired.
    DeadlineExceeded,
    /// An entity was not found.
    NotFound,
    /// An entity exists already.
    AlreadyExists,
    /// The caller lacks permission.
    PermissionDenied,
    /// A resource, such as memory, is exhausted.
    ResourceExhausted,
    /// The system is not in the required state.
    FailedPrecondition,
    /// The operation was aborted.
    Aborted,
    /// A value is out of range.
    OutOfRange,
    /// The operation is not implemented.
    Unimplemented,
    /// An internal error.
    Internal,
    /// The service is unavailable.
    Unavailable,
    /// Data was lost or corrupted.
    DataLoss,
    /// The caller is not authenticated.
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
        f.write_str(match self {
            ErrorCode::Cancelled => "CANCELLED",
            ErrorCode::Unknown => "UNKNOWN",
            ErrorCode::InvalidArgument => "INVALID_ARGUMENT",
            ErrorCode::DeadlineExceeded => "DEADLINE_EXCEEDED",
            ErrorCode::NotFound => "NOT_FOUND",
            ErrorCode::AlreadyExists => "ALREADY_EXISTS",
            ErrorCode::PermissionDenied => "PERMISSION_DENIED",
            ErrorCode::ResourceExhausted => "RESOURCE_EXHAUSTED",
            ErrorCode::FailedPrecondition => "FAILED_PRECONDITION",
            ErrorCode::Aborted => "ABORTED",
            ErrorCode::OutOfRange => "OUT_OF_RANGE",
            ErrorCode::Unimplemented => "UNIMPLEMENTED",
            ErrorCode::Internal => "INTERNAL",
            ErrorCode::Unavailable => "UNAVAILABLE",
            ErrorCode::DataLoss => "DATA_LOSS",
            ErrorCode::Unauthenticated => "UNAUTHENTICATED",
            ErrorCode::Other(code) => return write!(f, "status {code}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn call_error_names_function_message_and_code() {
        let error = PjrtError::Call {
            function: "PJRT_Client_Compile",
            code: ErrorCode::from_raw(8),
            message: "Out of memory".to_owned(),
        };
        assert_eq!(error.to_string(), "PJRT_Client_Compile: Out of memory (RESOURCE_EXHAUSTED)");
    }

    #[test]
    fn unknown_codes_are_kept() {
        assert_eq!(ErrorCode::from_raw(1), ErrorCode::Cancelled);
        assert_eq!(ErrorCode::from_raw(16), ErrorCode::Unauthenticated);
        for code in [-3, 0, 17] {
            assert_eq!(ErrorCode::from_raw(code), ErrorCode::Other(code));
        }
    }
}
