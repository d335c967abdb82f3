//! A directory is built out of sight and appears whole.
//!
//! ```text
//! <parent>/.boathook-staging-<random>/   0700, locked by whoever builds
//!     fs/                                what becomes the target
//! ```
//!
//! The rename is the moment at which the target exists. What a killed process
//! left behind is not locked any more, and the next one removes it.

use std::ffi::OsString;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    self, AtFlags, CWD, Dir, FlockOperation, Mode, OFlags, RenameFlags, fsync, syncfs,
};
use rustix::io::Errno;

use super::apply::remove_dir;
use crate::error::errno_of;
use crate::root::Root;
use crate::{Error, Result};

const PREFIX: &[u8] = b".boathook-staging-";
const TREE: &[u8] = b"fs";
/// Tries to find a name that nobody has; each has 64 random bits.
const TRIES: u32 = 8;

/// When a layer has to be on disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Sync {
    /// Before it is published: after a crash it is whole or not there.
    #[default]
    Layer,
    /// Whenever the kernel likes; after a crash files may be empty.
    None,
}

/// A directory under construction; dropping it removes it.
#[derive(Debug)]
pub struct Staging {
    parent: OwnedFd,
    own: OwnedFd,
    name: OsString,
    /// The target's name in `parent`.
    target: OsString,
    shown: PathBuf,
}

impl Staging {
    /// Makes one beside `target`, which must not exist.
    ///
    /// # Errors
    /// EEXIST when there is a target; others by errno.
    pub fn new(target: &Path) -> Result<Self> {
        let name = target.file_name().ok_or_else(|| {
            Error::invalid(format!("target {}: not the name of a directory", target.display()))
        })?;
        let above = match target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let parent = fs::openat(CWD, above, directory_flags(), Mode::empty())
            .map_err(|e| failed("openat", above, e))?;
        match fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => {}
            Ok(_) => return Err(exists(target)),
            Err(e) => return Err(failed("fstatat", target, e)),
        }
        remove_abandoned(parent.as_fd())?;
        let (own, own_name) = make(parent.as_fd())?;
        let staging =
            Self { parent, own, name: own_name, target: name.to_owned(), shown: target.to_owned() };
        fs::mkdirat(&staging.own, TREE, Mode::from_raw_mode(0o755))
            .map_err(|e| failed("mkdirat", target, e))?;
        Ok(staging)
    }

    /// The tree, empty at first.
    ///
    /// # Errors
    /// By errno.
    pub fn root(&self) -> Result<Root> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        fs::openat(&self.own, TREE, flags, Mode::empty())
            .map(Root::from_fd)
            .map_err(|e| failed("openat", &self.shown, e))
    }

    /// Writes a file at the top of the tree.
    ///
    /// # Errors
    /// By errno.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let root = self.root()?;
        let flags =
            OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = fs::openat(&root, name, flags, Mode::from_raw_mode(0o644))
            .map_err(|e| failed("openat", Path::new(name), e))?;
        std::io::Write::write_all(&mut std::fs::File::from(file), bytes).map_err(|e| {
            let errno = nix::errno::Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO));
            Error::sys(format!("write({name})"), errno)
        })
    }

    /// Lets the target appear.
    ///
    /// # Errors
    /// EEXIST when there is a target by now; others by errno.
    pub fn publish(self, sync: Sync) -> Result<()> {
        if sync == Sync::Layer {
            syncfs(&self.own).map_err(|e| failed("syncfs", &self.shown, e))?;
        }
        let target = self.target.as_os_str();
        match fs::renameat_with(&self.own, TREE, &self.parent, target, RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => return Err(exists(&self.shown)),
            other => other.map_err(|e| failed("renameat2", &self.shown, e))?,
        }
        if sync == Sync::Layer {
            fsync(&self.parent).map_err(|e| failed("fsync of the parent of", &self.shown, e))?;
        }
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // What cannot be removed now is removed by the next one to build here.
        let _ = remove_dir(self.parent.as_fd(), self.name.as_bytes());
    }
}

fn directory_flags() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC
}

fn make(parent: BorrowedFd<'_>) -> Result<(OwnedFd, OsString)> {
    for _ in 0..TRIES {
        // The keys of a new hasher are random.
        let random = RandomState::new().build_hasher().finish();
        let name = format!("{}{random:016x}", PREFIX.escape_ascii());
        match fs::mkdirat(parent, &name, Mode::from_raw_mode(0o700)) {
            Err(Errno::EXIST) => continue,
            other => other.map_err(|e| failed("mkdirat", Path::new(&name), e))?,
        }
        let flags = directory_flags() | OFlags::NOFOLLOW;
        let own = match fs::openat(parent, &name, flags, Mode::empty()) {
            // Somebody took it for abandoned in the moment before the lock.
            Err(Errno::NOENT) => continue,
            other => other.map_err(|e| failed("openat", Path::new(&name), e))?,
        };
        let locked = fs::flock(&own, FlockOperation::NonBlockingLockExclusive);
        let there = fs::statat(parent, &name, AtFlags::SYMLINK_NOFOLLOW);
        if locked.is_ok() && there.is_ok() {
            return Ok((own, name.into()));
        }
    }
    Err(Error::sys("no name for a staging directory", nix::errno::Errno::EEXIST))
}

/// Removes what processes that are gone have left.
fn remove_abandoned(parent: BorrowedFd<'_>) -> Result<()> {
    let here = Path::new(".");
    let mut names = Vec::new();
    for item in Dir::read_from(parent).map_err(|e| failed("getdents", here, e))? {
        let item = item.map_err(|e| failed("getdents", here, e))?;
        if item.file_name().to_bytes().starts_with(PREFIX) {
            names.push(item.file_name().to_bytes().to_vec());
        }
    }
    for name in names {
        let flags = directory_flags() | OFlags::NOFOLLOW;
        let Ok(old) = fs::openat(parent, name.as_slice(), flags, Mode::empty()) else { continue };
        if fs::flock(&old, FlockOperation::NonBlockingLockExclusive).is_ok() {
            match remove_dir(parent, &name) {
                Err(error) if error.errno() != Some(nix::errno::Errno::ENOENT) => {
                    return Err(error);
                }
                _ => {}
            }
        }
    }
    Ok(())
}

fn exists(target: &Path) -> Error {
    Error::sys(format!("target {}", target.display()), nix::errno::Errno::EEXIST)
}

fn failed(what: &str, path: &Path, errno: Errno) -> Error {
    Error::sys(format!("{what}({})", path.display()), errno_of(errno))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let all = std::fs::read_dir(dir).unwrap();
        all.map(|item| item.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_target_appears_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("layer");
        drop(Staging::new(&target).unwrap());
        assert_eq!(names(dir.path()), [""; 0]);
        Staging::new(&target).unwrap().publish(Sync::None).unwrap();
        assert_eq!(names(dir.path()), ["layer"]);
        let again = Staging::new(&target).unwrap_err();
        assert_eq!(again.raw_os_error(), Some(libc::EEXIST));
    }

    #[test]
    fn of_two_builders_the_second_finds_the_target() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("layer");
        let (one, two) = (Staging::new(&target).unwrap(), Staging::new(&target).unwrap());
        one.publish(Sync::None).unwrap();
        assert_eq!(two.publish(Sync::Layer).unwrap_err().raw_os_error(), Some(libc::EEXIST));
        assert_eq!(names(dir.path()), ["layer"]);
    }

    #[test]
    fn what_a_killed_process_left_is_removed_and_what_is_in_use_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let left = dir.path().join(".boathook-staging-0");
        std::fs::create_dir_all(left.join("fs/a/b")).unwrap();
        std::fs::write(left.join("fs/a/b/c"), "x").unwrap();
        let used = Staging::new(&dir.path().join("one")).unwrap();
        assert_eq!(names(dir.path()), [used.name.to_str().unwrap()]);
        let other = Staging::new(&dir.path().join("two")).unwrap();
        assert_eq!(names(dir.path()).len(), 2);
        drop((used, other));
        assert_eq!(names(dir.path()), [""; 0]);
    }
}
