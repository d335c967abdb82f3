//! Images on disk: an OCI layout (image-spec 1.1, image-layout.md) or an archive
//! of one or of `docker save` becomes a directory with its layers, and that an
//! overlay mount.
//!
//! ```text
//! layout | archive ── files ──▶ bytes by name
//!   index, manifest, config ── image ──▶ Image: layers with what is known of them
//!     layers, side by side ── unpack ──▶ staging directory ── rename ──▶ target
//!       target ── mount ──▶ overlay
//! ```
//!
//! Every byte is checked against a digest before it counts, and a target exists
//! only when all of them were right.
#![forbid(unsafe_code)]

mod differ;
mod error;
mod files;
mod image;
mod mount;
mod unpack;
mod watched;

pub use differ::{Differ, MountText, Refusal, Request};
pub use error::{Error, Result};
pub use files::Source;
pub use image::{Image, Layer};
pub use mount::{Mount, mount, unmount};
pub use unpack::{Limits, Options, Unpacked, UnpackedLayer, unpack};
pub use watched::Progress;
