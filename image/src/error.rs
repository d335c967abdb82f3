//! What went wrong with an image, and of what kind it is.

use std::fmt;
use std::io;

use boathook_fs::ErrorKind;

/// An error of this crate: the kind is for callers, the text for people.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    text: String,
}

/// The crate's result type.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn invalid(text: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Invalid, text: text.into() }
    }

    pub(crate) fn unsupported(text: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Unsupported, text: text.into() }
    }

    pub(crate) fn not_found(text: impl Into<String>) -> Self {
        Self { kind: ErrorKind::NotFound, text: text.into() }
    }

    pub(crate) fn io(what: impl fmt::Display, error: &io::Error) -> Self {
        let kind = match error.kind() {
            io::ErrorKind::NotFound => ErrorKind::NotFound,
            io::ErrorKind::PermissionDenied => ErrorKind::Denied,
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => ErrorKind::Invalid,
            _ => ErrorKind::Io,
        };
        Self { kind, text: format!("{what}: {error}") }
    }

    /// Says in front what the error is about.
    #[must_use]
    pub(crate) fn context(mut self, what: impl fmt::Display) -> Self {
        self.text = format!("{what}: {}", self.text);
        self
    }

    /// The class that callers act on.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl From<boathook_fs::Error> for Error {
    fn from(error: boathook_fs::Error) -> Self {
        Self { kind: error.kind(), text: error.to_string() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Error {}
