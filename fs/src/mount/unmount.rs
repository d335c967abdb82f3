//! Taking mounts away.
//!
//! Always `MNT_DETACH`: the mount and all on top of it leave the name space at once, and the
//! filesystem ends with its last user. A busy file cannot stop a Delete.

use std::ffi::OsString;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};

use super::classic::proc_fd;
use crate::{Error, Result};

/// Detaches the topmost mount on `path` and what is mounted below it. `false` when nothing is
/// mounted there, or there is no such path, or it is a symbolic link.
///
/// # Errors
/// `Denied` without CAP_SYS_ADMIN; others by errno.
pub fn unmount_at(path: &Path) -> Result<bool> {
    match umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) => Ok(true),
        // EINVAL: not the root of a mount. ENOTDIR: a parent is a file by now.
        Err(Errno::EINVAL | Errno::ENOENT | Errno::ENOTDIR) => Ok(false),
        Err(e) => Err(Error::sys(format!("umount2({}, MNT_DETACH)", path.display()), e)),
    }
}

/// Detaches the mount whose root `root` is; nothing else, whatever is mounted over it.
///
/// # Errors
/// `Invalid` when `root` is not the root of an attached mount.
pub fn unmount_fd(root: BorrowedFd<'_>) -> Result<()> {
    let path = proc_fd(root);
    umount2(path.as_str(), MntFlags::MNT_DETACH)
        .map_err(|e| Error::sys(format!("umount2({path}, MNT_DETACH)"), e))
}

/// Detaches everything that is mounted on `path` or below it, and says how many calls found
/// something. May be repeated; an absent path has nothing below it. A symbolic link at the end
/// of `path` is not followed.
///
/// # Errors
/// `Invalid` when `path` is not absolute or ends in `..`; others by errno, after
/// everything that could be detached was.
pub fn unmount_all_below(path: &Path) -> Result<usize> {
    let Some(path) = canonical(path)? else { return Ok(0) };
    let mut count = 0;
    while unmount_at(&path)? {
        count += 1;
    }
    // The table of mounts is long on a dense host (0.6 ms at 1000 mounts), and what a shim
    // unmounts is most often an empty directory by now.
    if holds_nothing(&path) {
        return Ok(count);
    }
    let table = std::fs::read("/proc/thread-self/mountinfo").map_err(|e| {
        let errno = Errno::from_raw(e.raw_os_error().unwrap_or(0));
        Error::sys("read(/proc/thread-self/mountinfo)", errno)
    })?;
    let mut failed = None;
    for point in points_below(&table, &path) {
        match unmount_at(&point) {
            Ok(found) => count += usize::from(found),
            Err(e) => failed = Some(e),
        }
    }
    failed.map_or(Ok(count), Err)
}

/// mountinfo knows directories by their true names: links in the parents are resolved here,
/// the last component stays what it is.
fn canonical(path: &Path) -> Result<Option<PathBuf>> {
    let wrong = |why| Error::invalid(format!("unmount below {}: {why}", path.display()));
    if !path.is_absolute() {
        return Err(wrong("path is not absolute"));
    }
    let Some(Component::Normal(name)) = path.components().next_back() else {
        return Err(wrong("path does not end in a name"));
    };
    let parent = path.parent().unwrap_or(Path::new("/"));
    match parent.canonicalize() {
        Ok(parent) => Ok(Some(parent.join(name))),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) if e.kind() == std::io::ErrorKind::NotADirectory => Ok(None),
        Err(e) => {
            let errno = Errno::from_raw(e.raw_os_error().unwrap_or(0));
            Err(Error::sys(format!("realpath({})", parent.display()), errno))
        }
    }
}

/// A mount needs a name to stand on, so there is none below an empty directory or a file.
fn holds_nothing(path: &Path) -> bool {
    match std::fs::read_dir(path) {
        Ok(mut entries) => entries.next().is_none(),
        Err(e) => {
            matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory)
        }
    }
}

/// The mount points below `path`, those mounted last first, so that a mount goes before what
/// it stands on. A point comes as often as it is mounted on.
fn points_below(table: &[u8], path: &Path) -> Vec<PathBuf> {
    let mut points: Vec<PathBuf> = table
        .split(|b| *b == b'\n')
        // "36 35 98:0 /root /mount/point options …", see proc_pid_mountinfo(5).
        .filter_map(|line| line.split(|b| *b == b' ').nth(4))
        .map(|field| PathBuf::from(unescape(field)))
        .filter(|point| point.starts_with(path))
        .collect();
    points.sort_by_key(|point| std::cmp::Reverse(point.components().count()));
    points
}

/// mountinfo writes blank, tab, newline, backslash and `#` as `\` and three octal digits.
fn unescape(field: &[u8]) -> OsString {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        if let (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) =
            (first, tail)
        {
            out.push((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'));
            rest = after;
        } else {
            out.push(*first);
            rest = tail;
        }
    }
    OsString::from_vec(out)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    const TABLE: &[u8] = b"22 1 8:1 / / rw - ext4 /dev/sda rw\n\
        23 22 0:5 / /run/x rw shared:1 - tmpfs tmpfs rw\n\
        24 23 0:6 / /run/x/a rw - tmpfs tmpfs rw\n\
        25 24 0:7 / /run/x/a/b\\040c\\134d rw - tmpfs tmpfs rw\n\
        26 23 0:6 / /run/xy rw - tmpfs tmpfs rw\n\
        27 23 0:6 / /run/x/a rw - tmpfs tmpfs rw\n";

    #[test]
    fn deepest_points_come_first_and_neighbours_not_at_all() {
        let want = ["/run/x/a/b c\\d", "/run/x/a", "/run/x/a", "/run/x"];
        let got = points_below(TABLE, Path::new("/run/x"));
        assert_eq!(got, want.map(PathBuf::from));
        assert!(points_below(TABLE, Path::new("/run/x/a/b")).is_empty());
    }

    #[test]
    fn paths_that_name_no_place_are_refused_or_absent() {
        for bad in ["relative/x", "/", "/tmp/..", ""] {
            let e = unmount_all_below(Path::new(bad)).unwrap_err();
            assert_eq!(e.kind(), crate::ErrorKind::Invalid, "{bad}: {e}");
        }
        assert_eq!(unmount_all_below(Path::new("/no/such/parent/x")).unwrap(), 0);
        assert_eq!(unmount_all_below(Path::new("/proc/self/status/x")).unwrap(), 0);
    }

    #[test]
    fn escapes_that_are_none_stay() {
        let bytes = |s: &str| unescape(s.as_bytes()).as_bytes().to_vec();
        assert_eq!(bytes("a\\0"), b"a\\0");
        assert_eq!(bytes("\\999"), b"\\999");
        assert_eq!(bytes("\\011\\043"), b"\t#");
        assert_eq!(OsStr::new(""), unescape(b""));
    }
}
