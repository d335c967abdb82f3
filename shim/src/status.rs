//! The one place where a kind of failure becomes a wire code.

use ttrpc::{Code, Error, get_status};

use crate::failure::{ErrorKind, Failure};

/// The ttrpc (= gRPC) code of a kind. No `_` arm: a new kind must be placed
/// here by hand. Callers of containerd act on NOT_FOUND (carry on with the
/// clean-up), ALREADY_EXISTS, FAILED_PRECONDITION and UNIMPLEMENTED.
pub fn code(kind: ErrorKind) -> Code {
    match kind {
        ErrorKind::InvalidInput => Code::INVALID_ARGUMENT,
        ErrorKind::NotFound => Code::NOT_FOUND,
        ErrorKind::AlreadyExists => Code::ALREADY_EXISTS,
        ErrorKind::WrongState => Code::FAILED_PRECONDITION,
        ErrorKind::Unsupported => Code::UNIMPLEMENTED,
        ErrorKind::PermissionDenied => Code::PERMISSION_DENIED,
        ErrorKind::Exhausted => Code::RESOURCE_EXHAUSTED,
        ErrorKind::Timeout => Code::DEADLINE_EXCEEDED,
        ErrorKind::Internal => Code::INTERNAL,
    }
}

impl From<Failure> for Error {
    /// Always a status: any other variant would reach the user as UNKNOWN with
    /// the variant's name in front of the text.
    fn from(failure: Failure) -> Self {
        Error::RpcStatus(get_status(code(failure.kind()), failure))
    }
}
