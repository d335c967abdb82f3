//! What can go wrong in a step, and the exit code it ends with.

use std::fmt;

/// A step that could not be done.
#[derive(Debug)]
pub(crate) enum Error {
    /// The command line is wrong; the text says what was expected. Exit code 2.
    Usage(String),
    /// The step failed; the text says what, with the output that explains it. Exit code 1.
    Failed(String),
    /// A command that was run for the caller ended so; its own exit code.
    Ended(u8),
}

impl Error {
    pub(crate) fn failed(what: impl Into<String>) -> Self {
        Self::Failed(what.into())
    }

    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Failed(_) => 1,
            Self::Ended(code) => *code,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(text) | Self::Failed(text) => f.write_str(text),
            Self::Ended(code) => write!(f, "the command ended with {code}"),
        }
    }
}
