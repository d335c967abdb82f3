//! `cargo xtask vm`: a Debian node in a virtual machine, for what this host's
//! kernel or cgroup layout cannot show.
//!
//! An image is built from packages once and kept by the digest of what it was
//! built from. Each run boots it on a throw-away overlay, with the workspace and
//! everything built in it on a second, read-only disk at the same path as here.

mod accel;
mod console;
mod guest;
mod image;
mod job;
mod mirror;
mod suite;
pub(crate) mod tier;

use std::time::Duration;

pub(crate) use self::suite::{CgroupMode, Suite};
use crate::apt::{self, Need};
use crate::error::Error;
use crate::vm::guest::Guest;
use crate::vm::image::Image;

/// What `cargo xtask vm` was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Releases to boot, one after the other.
    pub(crate) suites: Vec<Suite>,
    pub(crate) cgroup: CgroupMode,
    pub(crate) work: Work,
    /// Time for one guest, boot included.
    pub(crate) limit: Duration,
    /// More for the kernel's command line.
    pub(crate) append: Option<String>,
}

impl Default for Wanted {
    /// What CI runs: the whole tier on a node as Kubernetes has them today.
    fn default() -> Self {
        Self {
            suites: vec![Suite::Trixie],
            cgroup: CgroupMode::V2,
            work: Work::Tests(None),
            limit: Duration::from_secs(35 * 60),
            append: None,
        }
    }
}

/// What a guest does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Work {
    /// The `vm_*` tier, or those of its tests with a name like this.
    Tests(Option<String>),
    /// One command; its exit status is ours.
    Command(Vec<String>),
    /// A root shell on the caller's terminal.
    Shell,
}

/// To build images and to boot them.
const NEEDS: &[Need] = &[
    Need { file: "qemu-system-x86_64", package: "qemu-system-x86", purpose: "boots the machine" },
    Need { file: "mmdebstrap", package: "mmdebstrap", purpose: "makes the node's image" },
    Need { file: "mke2fs", package: "e2fsprogs", purpose: "makes file systems without mounting" },
    Need { file: "setpriv", package: "util-linux", purpose: "ends the machine with its owner" },
];

/// Boots each wanted release and does the work in it.
///
/// # Errors
/// The first guest that could not be booted or whose work failed, with the last
/// lines of its console where it never answered.
pub(crate) fn run(wanted: &Wanted) -> Result<(), Error> {
    apt::require_root("vm", "an image holds files of many owners")?;
    apt::ensure(apt::BUILD)?;
    apt::ensure(NEEDS)?;
    for suite in &wanted.suites {
        wanted.cgroup.offered_by(*suite)?;
    }
    let payload = job::Payload::build(&wanted.work, wanted.cgroup)?;
    for suite in &wanted.suites {
        let image = Image::get(*suite)?;
        let accel = accel::choose(&image)?;
        println!("\n== vm: Debian {suite}, cgroup {}, {accel}", wanted.cgroup);
        let guest = Guest {
            image: &image,
            accel,
            cgroup: wanted.cgroup,
            limit: wanted.limit,
            append: wanted.append.as_deref().unwrap_or_default(),
        };
        match wanted.work {
            Work::Shell => guest.shell(&payload)?,
            Work::Tests(_) | Work::Command(_) => guest.run(&payload)?,
        }
    }
    Ok(())
}
