//! What can go wrong in a suite, told so that the reader knows what to do.

use std::fmt::Display;
use std::io;
use std::time::Duration;

/// The suites' result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// One failure of a suite, its parts or its machine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused something.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// The refusal.
        source: io::Error,
    },
    /// A program ended badly.
    #[error("{command}: {status}\n{output}")]
    Command {
        /// The command line.
        command: String,
        /// How it ended.
        status: String,
        /// The end of what it wrote.
        output: String,
    },
    /// Something did not happen in time.
    #[error("{what}: not within {within:?}{detail}")]
    Deadline {
        /// What was awaited.
        what: String,
        /// How long.
        within: Duration,
        /// What was there instead; empty or beginning with a separator.
        detail: String,
    },
    /// A part of the test bench is not there.
    #[error("{what} is missing: {remedy}")]
    Missing {
        /// The part.
        what: String,
        /// What the reader can do about it.
        remedy: String,
    },
    /// A remote call was answered with an error.
    #[error("{call}: {code}: {message}")]
    Rpc {
        /// The method.
        call: String,
        /// gRPC's name of the code, such as `NotFound`.
        code: String,
        /// The text.
        message: String,
    },
    /// A document could not be read or has the wrong shape.
    #[error("{what}: {why}")]
    Format {
        /// The document.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// The thing under test does not do what it should.
    #[error("{0}")]
    Check(String),
}

impl Error {
    /// A failed expectation.
    pub fn check(text: impl Into<String>) -> Self {
        Self::Check(text.into())
    }

    /// The gRPC code's name where a remote call was refused.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Rpc { code, .. } => Some(code),
            _ => None,
        }
    }
}

/// Says what was being done when a call of the standard library failed.
pub trait Context<T> {
    /// Adds `what`, which is only computed on failure.
    fn during<D: Display>(self, what: impl FnOnce() -> D) -> Result<T>;
}

impl<T, E: Into<io::Error>> Context<T> for Result<T, E> {
    fn during<D: Display>(self, what: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|source| Error::Io { what: what().to_string(), source: source.into() })
    }
}

/// Fails the scenario unless the condition holds; the rest is a format string.
#[macro_export]
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err($crate::Error::check(format!($($message)+)));
        }
    };
}

/// Fails the scenario unless both are equal; shows both and the format string.
#[macro_export]
macro_rules! ensure_eq {
    ($left:expr, $right:expr, $($message:tt)+) => {
        match (&$left, &$right) {
            (left, right) => if *left != *right {
                return Err($crate::Error::check(format!(
                    "{}\n  found:    {left:?}\n  expected: {right:?}", format!($($message)+)
                )));
            }
        }
    };
}
