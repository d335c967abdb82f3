//! Paths resolved component by component, for where openat2(2) is not to be had: before Linux 5.6,
//! and in sandboxes whose filter refuses it.
//!
//! A component is opened by its bare name in the descriptor of its directory and never followed;
//! the text of a link takes the link's place in the path. `..` starts again from the root with one
//! directory less, each of them opened without following, so it ends in the root whatever
//! somebody renames meanwhile.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, readlinkat};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};

use super::split;

/// Links in one path, as the kernel has it (MAXSYMLINKS).
const LINKS_MAX: usize = 40;

/// Opens `path` below `root` as openat2 does with `RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS`, and
/// with `RESOLVE_NO_SYMLINKS` unless there may be `links`. In procfs all links are taken for magic.
pub(super) fn open(
    root: BorrowedFd<'_>,
    path: &Path,
    flags: OFlag,
    links: bool,
) -> Result<OwnedFd, Errno> {
    let bytes = path.as_os_str().as_bytes();
    let directory = bytes.ends_with(b"/") || bytes.ends_with(b"/.");
    let flags = if directory { flags | OFlag::O_DIRECTORY } else { flags };
    let mut way = Way { root, done: Vec::new(), here: None };
    let mut todo: VecDeque<OsString> = split(path).collect();
    let mut left = if links { LINKS_MAX } else { 0 };
    while let Some(name) = todo.pop_front() {
        if name == ".." {
            way.up()?;
            continue;
        }
        let fd = way.open(&name, OFlag::O_PATH)?;
        let kind = SFlag::from_bits_truncate(fstat(&fd)?.st_mode) & SFlag::S_IFMT;
        if kind == SFlag::S_IFLNK {
            // What has to be a directory is followed to it, as by the kernel.
            if todo.is_empty() && !directory && flags.contains(OFlag::O_NOFOLLOW) {
                return last(&way, &name, fd, flags);
            }
            left = left.checked_sub(1).ok_or(Errno::ELOOP)?;
            follow(&fd, &mut way, &mut todo)?;
        } else if todo.is_empty() {
            return last(&way, &name, fd, flags);
        } else if kind == SFlag::S_IFDIR {
            way.down(name, fd);
        } else {
            return Err(Errno::ENOTDIR);
        }
    }
    openat(way.here(), ".", flags | OFlag::O_CLOEXEC, Mode::empty())
}

/// What `name` is, opened as it was asked for; `fd` is an `O_PATH` descriptor of it.
fn last(way: &Way<'_>, name: &OsStr, fd: OwnedFd, flags: OFlag) -> Result<OwnedFd, Errno> {
    if flags & !(OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC) == OFlag::O_PATH {
        return Ok(fd);
    }
    way.open(name, flags)
}

/// The text of the link `fd` comes before what is left of the path.
fn follow(fd: &OwnedFd, way: &mut Way<'_>, todo: &mut VecDeque<OsString>) -> Result<(), Errno> {
    if fstatfs(way.here())?.filesystem_type() == PROC_SUPER_MAGIC {
        return Err(Errno::ELOOP);
    }
    let target = readlinkat(fd, "")?;
    let target = Path::new(&target);
    if target.is_absolute() {
        (way.done, way.here) = (Vec::new(), None);
    }
    for part in split(target).collect::<Vec<_>>().into_iter().rev() {
        todo.push_front(part);
    }
    Ok(())
}

/// The directories from the root to where the walk is.
struct Way<'r> {
    root: BorrowedFd<'r>,
    done: Vec<OsString>,
    /// `None` for the root itself.
    here: Option<OwnedFd>,
}

impl Way<'_> {
    fn here(&self) -> BorrowedFd<'_> {
        self.here.as_ref().map_or(self.root, OwnedFd::as_fd)
    }

    fn open(&self, name: &OsStr, flags: OFlag) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        openat(self.here(), name, flags, Mode::empty())
    }

    fn down(&mut self, name: OsString, fd: OwnedFd) {
        self.done.push(name);
        self.here = Some(fd);
    }

    fn up(&mut self) -> Result<(), Errno> {
        let mut again = std::mem::take(&mut self.done);
        again.pop();
        self.here = None;
        for name in again {
            let fd = self.open(&name, OFlag::O_PATH | OFlag::O_DIRECTORY)?;
            self.down(name, fd);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use nix::fcntl::{OpenHow, ResolveFlag, openat2};

    use super::*;

    const NAMES: [&str; 11] =
        ["..", ".", "a", "b", "f", "absolute", "up", "loop", "dangling", "dir/", "none"];
    const FLAGS: [OFlag; 5] = [
        OFlag::O_PATH,
        OFlag::O_PATH.union(OFlag::O_DIRECTORY),
        OFlag::O_PATH.union(OFlag::O_NOFOLLOW),
        OFlag::O_RDONLY,
        OFlag::O_RDONLY.union(OFlag::O_DIRECTORY),
    ];

    /// Directories with links of every kind in each of them.
    fn fill(dir: &Path, depth: u32) {
        std::fs::write(dir.join("f"), "").unwrap();
        for (name, target) in [
            ("absolute", "/a/f"),
            ("up", "../../../../b"),
            ("loop", "loop"),
            ("dangling", "a/none"),
            ("dir", "/b/"),
        ] {
            symlink(target, dir.join(name)).unwrap();
        }
        for name in ["a", "b"].iter().filter(|_| depth > 0) {
            std::fs::create_dir(dir.join(name)).unwrap();
            fill(&dir.join(name), depth - 1);
        }
    }

    fn what(result: Result<OwnedFd, Errno>) -> Result<(u64, u64), Errno> {
        result.map(|fd| fstat(&fd).map(|stat| (stat.st_dev, stat.st_ino)).unwrap())
    }

    /// Red when a path leads elsewhere than with the kernel's own call, or fails otherwise.
    #[test]
    fn every_path_leads_where_the_kernel_leads_it() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("root")).unwrap();
        fill(&dir.path().join("root"), 2);
        let root = std::fs::File::open(dir.path().join("root")).unwrap();
        let mut paths: Vec<String> = vec![String::from("/")];
        for _ in 0..3 {
            let longer = |path: &String| NAMES.map(|name| format!("{path}/{name}"));
            paths = [paths.clone(), paths.iter().flat_map(longer).collect()].concat();
            paths.sort_unstable();
            paths.dedup();
        }
        let resolve = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        for path in paths.iter().map(Path::new) {
            for flags in FLAGS {
                for (links, more) in
                    [(true, ResolveFlag::empty()), (false, ResolveFlag::RESOLVE_NO_SYMLINKS)]
                {
                    let how =
                        OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(resolve | more);
                    // Anything that is renamed or mounted anywhere meanwhile has it try again.
                    let call = || openat2(&root, path, how);
                    let wanted = std::iter::repeat_with(call)
                        .find(|r| r.as_ref().err() != Some(&Errno::EAGAIN));
                    let wanted = what(wanted.unwrap());
                    let found = what(open(root.as_fd(), path, flags, links));
                    assert_eq!(found, wanted, "{} {flags:?} {links}", path.display());
                }
            }
        }
    }

    #[test]
    fn links_of_procfs_are_refused() {
        let root = std::fs::File::open("/").unwrap();
        let found = open(root.as_fd(), Path::new("proc/self/exe"), OFlag::O_PATH, true);
        assert_eq!(what(found), Err(Errno::ELOOP));
    }
}
