//! What can be wrong with what people wrote.

use std::path::PathBuf;

/// The crate's result type.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Wrong input, with the place where it stands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// An annotation that cannot be used.
    #[error("annotation {name:?}: {problem}")]
    Annotation {
        /// Its name.
        name: String,
        /// What is wrong, in the API's words where the API has some.
        problem: String,
    },
    /// The configuration file cannot be used.
    #[error("{}: {problem}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the key.
        problem: String,
    },
}

impl Error {
    pub(crate) fn annotation(name: &str, problem: impl Into<String>) -> Self {
        Self::Annotation { name: name.to_owned(), problem: problem.into() }
    }
}
