//! Parts that the root suites, the demo and the benches share: real daemons from Debian packages,
//! real images and bundles, drivers for every door of the shim, and the census that shows what is
//! left behind.

pub mod bundle;
pub mod census;
pub mod command;
pub mod containerd;
pub mod cri;
pub mod ctr;
pub mod error;
pub mod grpc;
pub mod host;
pub mod image;
pub mod memory;
pub mod packages;
pub mod pty;
pub mod shimrpc;
pub mod suite;
pub mod unpackd;
pub mod wait;
pub mod workspace;

pub use error::{Error, Result};
