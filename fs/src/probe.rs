//! What this kernel can do, found out by trying, each facility once and only when asked.
//!
//! Version strings lie: distributions backport, and seccomp profiles of an outer container
//! take calls away. A probe changes nothing: it calls with arguments that cannot succeed and
//! looks at which error comes back.

use std::os::fd::AsFd;
use std::sync::OnceLock;

use nix::errno::Errno;
use rustix::mount::{FsOpenFlags, OpenTreeFlags};

use crate::error::errno_of;
use crate::sys;

/// The answers. [`Kernel::host`] is the running kernel; [`Kernel::assume`] makes one up, for
/// planning on behalf of another machine and for tests.
#[derive(Debug, Default)]
pub struct Kernel {
    mount_api: OnceLock<bool>,
    mount_setattr: OnceLock<Errno>,
    openat2: OnceLock<bool>,
    lowerdir_append: OnceLock<bool>,
}

/// All answers at once, for [`Kernel::assume`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facilities {
    /// See [`Kernel::mount_api`].
    pub mount_api: bool,
    /// See [`Kernel::mount_setattr`].
    pub mount_setattr: bool,
    /// See [`Kernel::idmap_mounts`].
    pub idmap_mounts: bool,
    /// See [`Kernel::openat2`].
    pub openat2: bool,
    /// See [`Kernel::overlay_lowerdir_append`].
    pub overlay_lowerdir_append: bool,
}

impl Kernel {
    /// The running kernel. Costs nothing until a question is asked.
    #[must_use]
    pub fn host() -> &'static Self {
        static HOST: OnceLock<Kernel> = OnceLock::new();
        HOST.get_or_init(Self::default)
    }

    /// A kernel that has exactly `facilities`.
    #[must_use]
    pub fn assume(facilities: Facilities) -> Self {
        let setattr = match (facilities.mount_setattr, facilities.idmap_mounts) {
            (false, _) => Errno::ENOSYS,
            (true, false) => Errno::EINVAL,
            (true, true) => Errno::EBADF,
        };
        Self {
            mount_api: OnceLock::from(facilities.mount_api),
            mount_setattr: OnceLock::from(setattr),
            openat2: OnceLock::from(facilities.openat2),
            lowerdir_append: OnceLock::from(facilities.overlay_lowerdir_append),
        }
    }

    /// `fsopen`, `fsconfig`, `fsmount`, `open_tree` and `move_mount` (Linux 5.2).
    pub fn mount_api(&self) -> bool {
        *self.mount_api.get_or_init(|| {
            let no_such_flag = OpenTreeFlags::from_bits_retain(1 << 30);
            let answer = rustix::mount::open_tree(rustix::fs::CWD, "", no_such_flag);
            // A seccomp profile may answer EPERM for calls that the kernel has.
            answer.is_err_and(|e| errno_of(e) == Errno::EINVAL)
        })
    }

    /// `mount_setattr` (Linux 5.12): flags of mounts that are not attached yet, and of whole
    /// trees of mounts (`rro` and its like).
    pub fn mount_setattr(&self) -> bool {
        matches!(self.setattr_answer(), Errno::EBADF | Errno::EINVAL)
    }

    /// Id-mapped mounts (Linux 5.12). Whether a filesystem allows it is that filesystem's
    /// affair: ext4, xfs, btrfs early, overlay since 5.19, tmpfs since 6.3.
    pub fn idmap_mounts(&self) -> bool {
        self.setattr_answer() == Errno::EBADF
    }

    fn setattr_answer(&self) -> Errno {
        *self.mount_setattr.get_or_init(sys::mount_setattr_probe)
    }

    /// `openat2` (Linux 5.6), without which no path inside a container is opened.
    pub fn openat2(&self) -> bool {
        *self.openat2.get_or_init(|| {
            use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, openat2};
            let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC);
            openat2(AT_FDCWD, ".", how).is_ok()
        })
    }

    /// The `lowerdir+` parameter of overlayfs: one layer per call, so that their names do not
    /// have to fit into one page. `false` also when the caller may not mount.
    pub fn overlay_lowerdir_append(&self) -> bool {
        *self.lowerdir_append.get_or_init(|| {
            let flags = FsOpenFlags::FSOPEN_CLOEXEC;
            let Ok(context) = rustix::mount::fsopen("overlay", flags) else { return false };
            // An unknown parameter is EINVAL; a known one goes on to look for the directory.
            let missing = "/proc/self/no-such-layer";
            let answer = rustix::mount::fsconfig_set_string(context.as_fd(), "lowerdir+", missing);
            answer.is_err_and(|e| errno_of(e) == Errno::ENOENT)
        })
    }

    /// The answer if it is known already; asking costs three calls.
    pub(crate) fn known_lowerdir_append(&self) -> Option<bool> {
        self.lowerdir_append.get().copied()
    }

    /// Records an answer that the start path got by doing the real thing.
    pub(crate) fn learn_lowerdir_append(&self, answer: bool) {
        let _ = self.lowerdir_append.set(answer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assumed_facilities_are_what_was_assumed() {
        for bits in 0..32_u8 {
            let want = Facilities {
                mount_api: bits & 1 != 0,
                mount_setattr: bits & 2 != 0,
                // The mapping is done by mount_setattr, so it cannot be there alone.
                idmap_mounts: bits & 6 == 6,
                openat2: bits & 8 != 0,
                overlay_lowerdir_append: bits & 16 != 0,
            };
            let kernel = Kernel::assume(want);
            let got = Facilities {
                mount_api: kernel.mount_api(),
                mount_setattr: kernel.mount_setattr(),
                idmap_mounts: kernel.idmap_mounts(),
                openat2: kernel.openat2(),
                overlay_lowerdir_append: kernel.overlay_lowerdir_append(),
            };
            assert_eq!(got, want);
        }
    }

    #[test]
    fn openat2_is_there_on_every_supported_kernel() {
        assert!(Kernel::host().openat2());
    }
}
