//! Mounts of the host.

use std::fs;
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// A mount of this process's namespace that is taken away again.
pub(crate) struct HostMount<'p>(&'p Path);

impl<'p> HostMount<'p> {
    pub(crate) fn tmpfs(at: &'p Path) -> Self {
        let none: Option<&str> = None;
        fs::create_dir_all(at).unwrap();
        mount(Some("host"), at, Some("tmpfs"), MsFlags::empty(), none).unwrap();
        Self(at)
    }

    pub(crate) fn shared(at: &'p Path) -> Self {
        let this = Self::tmpfs(at);
        let none: Option<&str> = None;
        mount(none, at, none, MsFlags::MS_SHARED, none).unwrap();
        this
    }
}

impl Drop for HostMount<'_> {
    fn drop(&mut self) {
        let _ = umount2(self.0, MntFlags::MNT_DETACH);
    }
}
