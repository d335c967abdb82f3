//! What commands print.

use std::fmt;
use std::io::{self, Write};

/// Why a command failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The engine refused.
    Engine(boathook_runtime::Error),
    /// An annotation or the configuration cannot be used.
    Hooks(boathook_hooks::Error),
    /// A layer or a file system refused.
    Fs(boathook_fs::Error),
    /// An image was refused.
    Image(boathook_image::Error),
    /// An argument that clap cannot judge is wrong.
    Usage(String),
    /// What is wrong, in words.
    Text(String),
    /// A file or the output could not be used.
    Io(String, io::Error),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Engine(error) => error.fmt(f),
            Self::Hooks(error) => error.fmt(f),
            Self::Fs(error) => error.fmt(f),
            Self::Image(error) => error.fmt(f),
            Self::Text(text) | Self::Usage(text) => f.write_str(text),
            Self::Io(what, error) => write!(f, "{what}: {error}"),
        }
    }
}

impl From<boathook_runtime::Error> for Failure {
    fn from(error: boathook_runtime::Error) -> Self {
        Self::Engine(error)
    }
}

impl From<boathook_hooks::Error> for Failure {
    fn from(error: boathook_hooks::Error) -> Self {
        Self::Hooks(error)
    }
}

impl From<boathook_fs::Error> for Failure {
    fn from(error: boathook_fs::Error) -> Self {
        Self::Fs(error)
    }
}

impl From<boathook_image::Error> for Failure {
    fn from(error: boathook_image::Error) -> Self {
        Self::Image(error)
    }
}

/// Prints text. A reader that has seen enough (`| head`) is not a failure.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(|e| Failure::Io("write to standard output".to_owned(), e)),
    }
}
