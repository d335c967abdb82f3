//! One error type for the engine: the kind is public and has a place in every
//! caller's table of wire codes, the detail is text for people.

use std::fmt;

/// What went wrong, as far as a caller may act on it.
///
/// Callers map kinds to wire codes in exactly one `match` without a `_` arm,
/// so that a new kind must be placed by hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The caller's input is wrong: config.json, an id, a request field.
    InvalidInput,
    /// The container, process or cgroup asked for does not exist (any more).
    NotFound,
    /// The id is taken.
    AlreadyExists,
    /// The object exists but its state does not allow the call.
    WrongState,
    /// Neither this build nor this kernel can do it.
    Unsupported,
    /// The kernel refused for want of privilege, or of a file system that may be written.
    PermissionDenied,
    /// A limit of the host was met: processes, memory, descriptors.
    Exhausted,
    /// A deadline passed.
    Timeout,
    /// Everything else: a failed system call that has no better class.
    Internal,
}

/// An error of the engine.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The engine's result type.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `kind`; `message` is lower case, without a full stop, and
    /// names the field and the value that are wrong.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// Wrong input in `field` (a path such as `linux.resources.memory.swap`).
    pub fn field(field: impl fmt::Display, problem: impl fmt::Display) -> Self {
        Self::new(ErrorKind::InvalidInput, format!("{field}: {problem}"))
    }

    /// A failed system call; the class is taken from `errno`.
    pub fn sys(what: impl Into<String>, errno: impl Into<std::io::Error>) -> Self {
        let source = errno.into();
        let kind = kind_of(&source);
        Self { kind, message: what.into(), source: Some(Box::new(source)) }
    }

    /// Adds what the caller was doing in front of the message.
    #[must_use]
    pub fn context(mut self, doing: impl fmt::Display) -> Self {
        self.message = format!("{doing}: {}", self.message);
        self
    }

    /// The same error under another kind.
    #[must_use]
    pub fn with_kind(mut self, kind: ErrorKind) -> Self {
        self.kind = kind;
        self
    }

    /// The class that callers act on.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

fn kind_of(error: &std::io::Error) -> ErrorKind {
    match error.raw_os_error() {
        // Whoever mounts cgroups read-only means to forbid.
        Some(libc::EPERM | libc::EACCES | libc::EROFS) => ErrorKind::PermissionDenied,
        Some(libc::EAGAIN | libc::ENOMEM | libc::EMFILE | libc::ENFILE | libc::ENOSPC) => {
            ErrorKind::Exhausted
        }
        Some(libc::ETIMEDOUT) => ErrorKind::Timeout,
        Some(libc::ENOSYS) => ErrorKind::Unsupported,
        _ => ErrorKind::Internal,
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|e| e as _)
    }
}
