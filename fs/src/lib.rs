//! Mount flags, mounts by file descriptor, overlay plans and safe paths.
//!
//! The way of a mount through this crate:
//!
//! ```text
//! ["nosuid","ro","size=1m"] ── flags ──▶ MountOptions ──┐
//! containerd's rootfs mounts ── rootfs, overlay ────────┼─▶ mount::Tree (detached) ── attach ──▶ fd of its root
//! a path inside a container ── root::Root ──▶ O_PATH fd ┘        (target, always by fd)
//!
//! a layer's blob ── layer ──▶ a directory with its files, for overlayfs
//! ```
//!
//! Everything is synchronous and starts no thread. Descriptors are close-on-exec.
//! The floor is Linux 5.10; newer facilities are tried, never guessed from a
//! version string, and each has a fallback or a clear [`ErrorKind::Unsupported`].

mod error;
pub mod flags;
pub mod layer;
pub mod mount;
pub mod overlay;
pub mod probe;
pub mod root;
pub mod rootfs;
#[allow(unsafe_code)]
mod sys;

pub use error::{Error, ErrorKind, Result};
