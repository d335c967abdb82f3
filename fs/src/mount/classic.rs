//! The same with `mount(2)`, where the calls of Linux 5.2 are missing (seccomp profiles of
//! outer containers) or `mount_setattr` is (Linux 5.10 and 5.11).
//!
//! `mount(2)` knows no detached mounts, so what is asked of a tree is remembered until it is
//! attached. It also takes only paths: `/proc/self/fd/N` names what a descriptor stands for,
//! so a target still cannot be swapped in between.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use libc::{
    MOUNT_ATTR__ATIME, MOUNT_ATTR_NOATIME, MOUNT_ATTR_NODEV, MOUNT_ATTR_NODIRATIME,
    MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NOSYMFOLLOW, MOUNT_ATTR_RDONLY,
    MOUNT_ATTR_STRICTATIME,
};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use nix::mount::MsFlags;

use super::NewFs;
use crate::flags::{Propagation, PropagationKind, SbFlags};
use crate::{Error, Result};

/// `mount(2)` copies one page of options, its NUL included.
const DATA_MAX: usize = 4095;

/// MS_NOSYMFOLLOW (Linux 5.10), which libc and nix do not name.
const NOSYMFOLLOW: u64 = 256;
/// The same in `f_flag` of `statfs`.
const ST_NOSYMFOLLOW: u64 = 0x2000;

const ATTRS: &[(u64, u64)] = &[
    (MOUNT_ATTR_RDONLY, libc::MS_RDONLY),
    (MOUNT_ATTR_NOSUID, libc::MS_NOSUID),
    (MOUNT_ATTR_NODEV, libc::MS_NODEV),
    (MOUNT_ATTR_NOEXEC, libc::MS_NOEXEC),
    (MOUNT_ATTR_NODIRATIME, libc::MS_NODIRATIME),
    (MOUNT_ATTR_NOSYMFOLLOW, NOSYMFOLLOW),
];

/// A mount that comes into being when it is attached.
#[derive(Debug)]
pub(super) enum Recipe {
    New { fstype: String, source: String, flags: MsFlags, data: String },
    Bind { from: OwnedFd, recursive: bool },
}

impl Recipe {
    pub(super) fn new_fs(fs: &NewFs<'_>) -> Result<Self> {
        let mut data = String::new();
        for (key, value) in fs.data {
            if !data.is_empty() {
                data.push(',');
            }
            data.push_str(key);
            match value {
                // The quotes were taken off for fsconfig; here they keep commas together.
                Some(value) if key.ends_with("context") => {
                    data.push_str(&format!("=\"{value}\""));
                }
                Some(value) => data.push_str(&format!("={value}")),
                None => {}
            }
        }
        if data.len() > DATA_MAX {
            return Err(Error::unsupported(format!(
                "{} mount options have {} bytes; this kernel takes {DATA_MAX} (no lowerdir+ or no fsopen)",
                fs.fstype,
                data.len()
            )));
        }
        let flags = ms_of_attr(fs.attr) | u64::from(fs.sb.set & !SbFlags::RDONLY);
        let flags = flags | u64::from(fs.sb.set & SbFlags::RDONLY);
        Ok(Self::New {
            fstype: fs.fstype.to_owned(),
            source: fs.source.unwrap_or("none").to_owned(),
            flags: MsFlags::from_bits_retain(flags),
            data,
        })
    }

    /// Mounts on what `target` stands for; the result is the root of the new mount.
    pub(super) fn attach(&self, target: BorrowedFd<'_>) -> Result<OwnedFd> {
        let at = proc_fd(target);
        match self {
            Self::New { fstype, source, flags, data } => {
                nix::mount::mount(
                    Some(source.as_str()),
                    at.as_str(),
                    Some(fstype.as_str()),
                    *flags,
                    Some(data.as_str()),
                )
                .map_err(|e| Error::sys(format!("mount({source}, {at}, {fstype}, {data})"), e))?;
            }
            Self::Bind { from, recursive } => {
                let mut flags = MsFlags::MS_BIND;
                flags.set(MsFlags::MS_REC, *recursive);
                let from = proc_fd(from.as_fd());
                nix::mount::mount(
                    Some(from.as_str()),
                    at.as_str(),
                    None::<&str>,
                    flags,
                    None::<&str>,
                )
                .map_err(|e| Error::sys(format!("mount({from}, {at}, {flags:?})"), e))?;
            }
        }
        root_of_mount_on(target)
    }
}

/// Opens the mount that now covers `target`.
///
/// A descriptor keeps standing for what is below the new mount, so the name has to be walked
/// once more; no symbolic link is followed, and the result must be another mount.
fn root_of_mount_on(target: BorrowedFd<'_>) -> Result<OwnedFd> {
    let link = proc_fd(target);
    let name = nix::fcntl::readlink(link.as_str())
        .map_err(|e| Error::sys(format!("readlink({link})"), e))?;
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW)
        .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
    let root = openat2(AT_FDCWD, name.as_os_str(), how)
        .map_err(|e| Error::sys(format!("openat2({})", name.display()), e))?;
    if mount_id(root.as_fd())? == mount_id(target)? {
        let call = format!("mount on {}: moved away while it was mounted on", name.display());
        return Err(Error::sys(call, Errno::ESTALE));
    }
    Ok(root)
}

fn mount_id(fd: BorrowedFd<'_>) -> Result<u64> {
    use rustix::fs::{AtFlags, StatxFlags, statx};
    statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)
        .map(|s| s.stx_mnt_id)
        .map_err(|e| Error::sys("statx(STATX_MNT_ID)", crate::error::errno_of(e)))
}

/// `mount_setattr` without recursion, for an attached mount.
pub(super) fn set_attr(mount: BorrowedFd<'_>, set: u64, clr: u64) -> Result<()> {
    let at = proc_fd(mount);
    let now = nix::sys::statvfs::fstatvfs(mount)
        .map_err(|e| Error::sys(format!("fstatvfs({at})"), e))?
        .flags()
        .bits();
    let attr = (attr_of_statvfs(now) & !clr) | set;
    let flags = MsFlags::from_bits_retain(libc::MS_BIND | libc::MS_REMOUNT | ms_of_attr(attr));
    nix::mount::mount(None::<&str>, at.as_str(), None::<&str>, flags, None::<&str>)
        .map_err(|e| Error::sys(format!("mount({at}, {flags:?})"), e))
}

/// Propagation of an attached mount.
pub(super) fn set_propagation(mount: BorrowedFd<'_>, change: Propagation) -> Result<()> {
    let at = proc_fd(mount);
    let mut flags = MsFlags::from_bits_retain(ms_of_propagation(change.kind));
    flags.set(MsFlags::MS_REC, change.recursive);
    nix::mount::mount(None::<&str>, at.as_str(), None::<&str>, flags, None::<&str>)
        .map_err(|e| Error::sys(format!("mount({at}, {flags:?})"), e))
}

pub(super) fn ms_of_propagation(kind: PropagationKind) -> u64 {
    match kind {
        PropagationKind::Shared => libc::MS_SHARED,
        PropagationKind::Slave => libc::MS_SLAVE,
        PropagationKind::Private => libc::MS_PRIVATE,
        PropagationKind::Unbindable => libc::MS_UNBINDABLE,
    }
}

fn ms_of_attr(attr: u64) -> u64 {
    let mut ms = ATTRS.iter().filter(|(a, _)| attr & a != 0).fold(0, |ms, (_, bit)| ms | bit);
    // Without any of the three, a remount would keep what was and a new mount is relatime.
    ms |= match attr & MOUNT_ATTR__ATIME {
        MOUNT_ATTR_NOATIME => libc::MS_NOATIME,
        MOUNT_ATTR_STRICTATIME => libc::MS_STRICTATIME,
        _ => libc::MS_RELATIME,
    };
    ms
}

fn attr_of_statvfs(flags: u64) -> u64 {
    let known = [
        (libc::ST_RDONLY, MOUNT_ATTR_RDONLY),
        (libc::ST_NOSUID, MOUNT_ATTR_NOSUID),
        (libc::ST_NODEV, MOUNT_ATTR_NODEV),
        (libc::ST_NOEXEC, MOUNT_ATTR_NOEXEC),
        (libc::ST_NODIRATIME, MOUNT_ATTR_NODIRATIME),
        (ST_NOSYMFOLLOW, MOUNT_ATTR_NOSYMFOLLOW),
    ];
    let attr = known.iter().filter(|(st, _)| flags & st != 0).fold(0, |a, (_, bit)| a | bit);
    let relative = flags & libc::ST_RELATIME != 0;
    match (flags & libc::ST_NOATIME != 0, relative) {
        (true, _) => attr | MOUNT_ATTR_NOATIME,
        (false, true) => attr,
        (false, false) => attr | MOUNT_ATTR_STRICTATIME,
    }
}

/// The path that names what `fd` stands for, for calls that take paths only.
pub(super) fn proc_fd(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_and_mount_flags_are_the_same_bits_twice() {
        let all = MOUNT_ATTR_RDONLY
            | MOUNT_ATTR_NOSUID
            | MOUNT_ATTR_NODEV
            | MOUNT_ATTR_NOEXEC
            | MOUNT_ATTR_NODIRATIME
            | MOUNT_ATTR_NOSYMFOLLOW;
        assert_eq!(ms_of_attr(all | MOUNT_ATTR_NOATIME), 1 | 2 | 4 | 8 | 256 | 1024 | 2048);
        assert_eq!(ms_of_attr(0), libc::MS_RELATIME);
        assert_eq!(ms_of_attr(MOUNT_ATTR_STRICTATIME), libc::MS_STRICTATIME);
        let st = 1 | 2 | 4 | 8 | 1024 | 2048 | 0x2000;
        assert_eq!(attr_of_statvfs(st), all | MOUNT_ATTR_NOATIME);
        assert_eq!(attr_of_statvfs(libc::ST_RELATIME), 0);
        assert_eq!(attr_of_statvfs(0), MOUNT_ATTR_STRICTATIME);
    }

    #[test]
    fn contexts_get_their_quotes_back_and_a_page_is_the_limit() {
        let data = vec![
            ("size".to_owned(), Some("1m".to_owned())),
            ("context".to_owned(), Some("a:b:c1,c2".to_owned())),
            ("flag".to_owned(), None),
        ];
        let fs = NewFs { fstype: "tmpfs", data: &data, ..NewFs::default() };
        match Recipe::new_fs(&fs) {
            Ok(Recipe::New { data, .. }) => {
                assert_eq!(data, "size=1m,context=\"a:b:c1,c2\",flag");
            }
            other => panic!("{other:?}"),
        }
        let data = vec![("lowerdir".to_owned(), Some("x".repeat(4095)))];
        let fs = NewFs { fstype: "overlay", data: &data, ..NewFs::default() };
        let e = Recipe::new_fs(&fs).unwrap_err();
        assert_eq!(e.kind(), crate::ErrorKind::Unsupported);
        assert!(e.to_string().starts_with("overlay mount options have 4104 bytes"), "{e}");
    }
}
