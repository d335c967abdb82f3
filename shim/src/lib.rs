//! The shim as a library, so that tests can drive its parts.

pub mod args;
pub mod bundle;
pub mod dialect;
pub mod failure;
pub mod log;
pub mod options;
pub mod socket;
pub mod status;
pub mod table;
