//! One error type: the kind is public, the detail is text for people.
//!
//! A failed system call prints itself with its arguments and what the kernel
//! said about it: `fsconfig(overlay, lowerdir+=/x): No such file or directory`.

use std::fmt;

use nix::errno::Errno;

/// What went wrong, as far as a caller may act on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The input is wrong: an option, a path, a type; or the kernel called it so (`EINVAL`).
    Invalid,
    /// A file, directory or mount does not exist.
    NotFound,
    /// Neither this build nor this kernel can do it.
    Unsupported,
    /// The kernel refused for want of privilege.
    Denied,
    /// Every other failure of a system call.
    Io,
}

/// An error of this crate.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    errno: Option<Errno>,
    /// The kernel's own words, from the log of a filesystem context.
    log: Vec<String>,
}

/// The crate's result type.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Wrong input; `message` names the field and the value.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Invalid, message: message.into(), errno: None, log: Vec::new() }
    }

    /// Something that this build or kernel cannot do; `message` names it.
    pub(crate) fn unsupported(message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Unsupported, message: message.into(), errno: None, log: Vec::new() }
    }

    /// A failure that is none of a system call of ours.
    pub(crate) fn of_kind(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), errno: None, log: Vec::new() }
    }

    /// A failed system call; `call` is its name with its arguments.
    pub(crate) fn sys(call: impl Into<String>, errno: Errno) -> Self {
        Self { kind: kind_of(errno), message: call.into(), errno: Some(errno), log: Vec::new() }
    }

    /// Adds what the kernel wrote about the failure.
    #[must_use]
    pub(crate) fn with_log(mut self, log: Vec<String>) -> Self {
        self.log = log;
        self
    }

    /// Adds what the caller was doing in front of the message.
    #[must_use]
    pub fn context(mut self, doing: impl fmt::Display) -> Self {
        self.message = format!("{doing}: {}", self.message);
        self
    }

    /// The class that callers act on.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The number the failed system call returned, if it was one.
    #[must_use]
    pub fn raw_os_error(&self) -> Option<i32> {
        self.errno.map(|e| e as i32)
    }

    pub(crate) fn errno(&self) -> Option<Errno> {
        self.errno
    }
}

fn kind_of(errno: Errno) -> ErrorKind {
    match errno {
        Errno::EINVAL | Errno::ENOTDIR | Errno::EISDIR | Errno::ELOOP | Errno::ENAMETOOLONG => {
            ErrorKind::Invalid
        }
        Errno::ENOENT => ErrorKind::NotFound,
        // ENODEV is the answer of fsopen and mount to an unknown filesystem type.
        Errno::ENOSYS | Errno::EOPNOTSUPP | Errno::ENODEV => ErrorKind::Unsupported,
        Errno::EPERM | Errno::EACCES | Errno::EROFS => ErrorKind::Denied,
        _ => ErrorKind::Io,
    }
}

/// rustix and nix have one errno type each; ours is nix's.
pub(crate) fn errno_of(error: rustix::io::Errno) -> Errno {
    Errno::from_raw(error.raw_os_error())
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if let Some(errno) = self.errno {
            write!(f, ": {}", errno.desc())?;
        }
        for line in &self.log {
            write!(f, " ({line})")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.errno.as_ref().map(|e| e as _)
    }
}

impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        let kind = match error.kind {
            ErrorKind::Invalid => std::io::ErrorKind::InvalidInput,
            ErrorKind::NotFound => std::io::ErrorKind::NotFound,
            ErrorKind::Unsupported => std::io::ErrorKind::Unsupported,
            ErrorKind::Denied => std::io::ErrorKind::PermissionDenied,
            ErrorKind::Io => std::io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_call_prints_itself_and_the_kernels_words() {
        let e = Error::sys("fsconfig(overlay, lowerdir+=/x)", Errno::ENOENT);
        assert_eq!(e.to_string(), "fsconfig(overlay, lowerdir+=/x): No such file or directory");
        assert_eq!((e.kind(), e.raw_os_error()), (ErrorKind::NotFound, Some(2)));
        let e = Error::sys("fsconfig(tmpfs, size=x)", Errno::EINVAL)
            .with_log(vec!["tmpfs: Bad value for 'size'".into()])
            .context("mounts[3]");
        assert_eq!(
            e.to_string(),
            "mounts[3]: fsconfig(tmpfs, size=x): Invalid argument (tmpfs: Bad value for 'size')"
        );
    }
}
