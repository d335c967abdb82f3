//! An unpacked image as one tree (kernel, overlayfs.rst).
//!
//! | option | why |
//! |---|---|
//! | `index=off` | with an index an upper directory belongs to one set of layers for ever |
//! | `metacopy=off` | a file's data must not be looked up by what a layer says about itself |
//! | `volatile` | only when asked for: after a crash the upper directory cannot be used again |
//! | `userxattr` | for images unpacked for user namespaces, which cannot have `trusted.` ones |

use std::fs;
use std::path::{Path, PathBuf};

use boathook_fs::rootfs::{MountSpec, mount_rootfs};

use crate::unpack::Unpacked;
use crate::{Error, Result};

/// How an image is mounted.
#[derive(Debug, Clone, Copy, Default)]
pub struct Mount<'m> {
    /// A directory for what is written, on a file system that overlayfs can write to; without
    /// one the image is read-only.
    pub writable: Option<&'m Path>,
    /// Nothing that is written has to survive a crash (Linux 5.10).
    pub volatile: bool,
}

/// Mounts the image that was unpacked to `image` on the directory `on`.
///
/// # Errors
/// `NotFound` or `Invalid` for what is no unpacked image; others of the mount. Nothing stays
/// mounted.
pub fn mount(image: &Path, on: &Path, how: &Mount<'_>) -> Result<()> {
    let image = absolute(image)?;
    let on = absolute(on)?;
    let list = image.join("image.json");
    let json = fs::read(&list).map_err(|e| Error::io(list.display(), &e))?;
    let unpacked: Unpacked = serde_json::from_slice(&json)
        .map_err(|e| Error::invalid(format!("{}: {e}", list.display())))?;
    let layers = lower(&image, &unpacked);
    let spec = match (&layers[..], how.writable) {
        ([], _) => {
            return Err(Error::invalid("the image has no layers, so there is nothing to mount"));
        }
        // overlayfs takes one layer only with something to write to.
        ([only], None) => bind(only)?,
        (layers, writable) => overlay(layers, writable, &unpacked, how)?,
    };
    // What is mounted stays.
    let _ = mount_rootfs(&[spec], &on)?.keep();
    Ok(())
}

/// Takes away what is mounted on `on`, and what is mounted in it.
///
/// # Errors
/// `NotFound` when nothing is.
pub fn unmount(on: &Path) -> Result<()> {
    let on = absolute(on)?;
    if boathook_fs::mount::unmount_at(&on)? {
        return Ok(());
    }
    Err(Error::not_found(format!("{}: nothing is mounted there", on.display())))
}

/// The topmost first, to the one that hides all below it.
fn lower(image: &Path, unpacked: &Unpacked) -> Vec<PathBuf> {
    let mut layers = Vec::new();
    for (at, layer) in unpacked.layers.iter().enumerate().rev() {
        layers.push(image.join(format!("layers/{at}")));
        if layer.root_opaque {
            break;
        }
    }
    layers
}

fn bind(layer: &Path) -> Result<MountSpec> {
    let options = ["bind", "ro"].map(str::to_owned).to_vec();
    let source = text(layer)?.to_owned();
    Ok(MountSpec { kind: "bind".to_owned(), source, options, ..MountSpec::default() })
}

fn overlay(
    layers: &[PathBuf],
    writable: Option<&Path>,
    unpacked: &Unpacked,
    how: &Mount<'_>,
) -> Result<MountSpec> {
    let mut options = vec!["index=off".to_owned(), "metacopy=off".to_owned()];
    for layer in layers {
        options.push(format!("lowerdir+={}", text(layer)?));
    }
    match writable {
        Some(dir) => {
            for (key, name) in [("upperdir", "upper"), ("workdir", "work")] {
                let dir = dir.join(name);
                fs::create_dir_all(&dir).map_err(|e| Error::io(dir.display(), &e))?;
                options.push(format!("{key}={}", text(&absolute(&dir)?)?));
            }
        }
        None => options.push("ro".to_owned()),
    }
    if how.volatile {
        options.push("volatile".to_owned());
    }
    if unpacked.user_namespace {
        options.push("userxattr".to_owned());
    }
    let (kind, source) = ("overlay".to_owned(), "overlay".to_owned());
    Ok(MountSpec { kind, source, options, ..MountSpec::default() })
}

fn absolute(path: &Path) -> Result<PathBuf> {
    fs::canonicalize(path).map_err(|e| Error::io(path.display(), &e))
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| Error::invalid(format!("{}: not UTF-8", path.display())))
}
