//! The OCI engine: a config.json becomes a checked [`plan`], the parent side
//! [`exec`]utes it, and a tiny init performs the container's half of it.

pub mod cgroup;
pub mod daemon;
pub mod error;

pub use error::{Error, ErrorKind, Result};
