//! The shim's error: the engine's kinds, because both end in one table of
//! wire codes ([`crate::status`]), and a text for people.

use std::fmt;

pub use boathook_runtime::ErrorKind;

/// What went wrong, in the form in which it goes over the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    kind: ErrorKind,
    text: String,
}

/// The shim's result type.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    /// A failure of `kind`; `text` is lower case and without a full stop.
    pub fn new(kind: ErrorKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }

    /// Wrong input; the text names field and value.
    pub fn invalid(text: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidInput, text)
    }

    /// The thing asked for is not there.
    pub fn not_found(text: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, text)
    }

    /// The thing is there, its state does not allow the call.
    pub fn wrong_state(text: impl Into<String>) -> Self {
        Self::new(ErrorKind::WrongState, text)
    }

    /// This build cannot do it.
    pub fn unsupported(text: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, text)
    }

    /// A failed system call; the kind is taken from `source`.
    pub fn sys(what: impl fmt::Display, source: impl Into<std::io::Error>) -> Self {
        boathook_runtime::Error::sys(what.to_string(), source).into()
    }

    /// Adds what was being done in front of the text.
    #[must_use]
    pub fn context(mut self, doing: impl fmt::Display) -> Self {
        self.text = format!("{doing}: {}", self.text);
        self
    }

    /// The class callers act on.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Failure {}

impl From<boathook_runtime::Error> for Failure {
    fn from(error: boathook_runtime::Error) -> Self {
        Self { kind: error.kind(), text: error.to_string() }
    }
}

impl From<boathook_fs::Error> for Failure {
    fn from(error: boathook_fs::Error) -> Self {
        let kind = match error.kind() {
            // A path of the request that is not there is a fault of the
            // request; NOT_FOUND would tell the daemon that the task is gone.
            boathook_fs::ErrorKind::Invalid | boathook_fs::ErrorKind::NotFound => {
                ErrorKind::InvalidInput
            }
            boathook_fs::ErrorKind::Unsupported => ErrorKind::Unsupported,
            boathook_fs::ErrorKind::Denied => ErrorKind::PermissionDenied,
            boathook_fs::ErrorKind::Io => ErrorKind::Internal,
        };
        Self { kind, text: error.to_string() }
    }
}
