//! The server's socket: its name, and how exactly one server gets it.
//!
//! ```text
//! <dir>/.<16 hex>.<pid>   bound and listening, known to nobody
//!        │ link(2)
//!        ▼
//! <dir>/<64 hex>          the name that `start` hands out
//! ```
//! A socket that has its public name is listening already. So whoever finds
//! the name taken and cannot connect knows that the server behind it is dead,
//! and two `start`s at once can never take each other's socket for dead.

use std::fs::{self, DirBuilder, Permissions};
use std::io::ErrorKind as IoErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::failure::{Failure, Result};

/// Where sockets go unless the daemon names a directory.
pub const DEFAULT_DIR: &str = "/run/containerd/s";

/// `sun_path` holds 108 bytes with the NUL; one is left for a client that
/// counts differently (unix(7)).
const MAX_PATH: usize = 106;

/// The result of [`claim`].
#[derive(Debug)]
pub enum Claim {
    /// The name is ours now.
    Bound(UnixListener, SocketFile),
    /// A live server has it.
    Served,
}

/// A socket file that this process has put into the file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    /// The address a client dials.
    pub fn address(&self) -> String {
        address(&self.path)
    }

    /// Removes the file if it still is the one that was put there: after a
    /// dead server's name was taken over, the name belongs to another.
    pub fn remove(&self) {
        let same = fs::symlink_metadata(&self.path)
            .is_ok_and(|m| m.dev() == self.device && m.ino() == self.inode);
        if same {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The path for a group of containers of one daemon and namespace.
///
/// # Errors
/// The path does not fit into a socket address.
pub fn path(dir: &Path, daemon: &str, namespace: &str, group: &str) -> Result<PathBuf> {
    let digest = Sha256::digest(format!("{daemon}/{namespace}/{group}"));
    let path = dir.join(hex(&digest));
    match path.as_os_str().len() {
        0..=MAX_PATH => Ok(path),
        n => Err(Failure::invalid(format!(
            "socket path {path:?}: {n} bytes, {MAX_PATH} is the limit"
        ))),
    }
}

/// The address of the socket at `path`.
pub fn address(path: &Path) -> String {
    format!("unix://{}", path.display())
}

/// Takes the name `path`, or finds that a live server has it.
///
/// # Errors
/// The directory cannot be made or the socket cannot be bound in it.
pub fn claim(path: &Path) -> Result<Claim> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|e| Failure::sys(format!("make {}", dir.display()), e))?;
    if UnixStream::connect(path).is_ok() {
        return Ok(Claim::Served);
    }
    let draft = Draft::bind(dir, path)?;
    match fs::hard_link(&draft.path, path) {
        Ok(()) => draft.publish(path),
        Err(e) if e.kind() == IoErrorKind::AlreadyExists => {
            if UnixStream::connect(path).is_ok() {
                return Ok(Claim::Served);
            }
            // Dead. rename(2) replaces it in one step; if another `start`
            // did the same a moment ago, that server stays without clients
            // and ends by itself.
            fs::rename(&draft.path, path)
                .map_err(|e| Failure::sys(format!("replace {}", path.display()), e))?;
            draft.publish(path)
        }
        Err(e) => Err(Failure::sys(format!("link {}", path.display()), e)),
    }
}

/// Removes the socket at `path` if its server is dead, and tells whether there
/// was such a one; and what a `start` that was killed has left.
pub fn remove_dead(path: &Path) -> bool {
    remove_drafts(path);
    let Ok(meta) = fs::symlink_metadata(path) else { return false };
    let refused = |e: std::io::Error| e.kind() == IoErrorKind::ConnectionRefused;
    if !UnixStream::connect(path).is_err_and(refused) {
        return false;
    }
    SocketFile { path: path.to_owned(), device: meta.dev(), inode: meta.ino() }.remove();
    true
}

/// Removes the private names of dead makers.
fn remove_drafts(path: &Path) {
    let (Some(dir), prefix) = (path.parent(), draft_prefix(path)) else { return };
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let maker = name.to_str().and_then(|name| name.strip_prefix(&prefix)?.parse::<u32>().ok());
        if maker.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// How the private names for `path` begin; the maker's pid follows.
fn draft_prefix(path: &Path) -> String {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    format!(".{}.", name.get(..16).unwrap_or(&name))
}

/// A socket under its private name, which goes away with this value.
struct Draft {
    path: PathBuf,
    listener: Option<UnixListener>,
}

impl Draft {
    fn bind(dir: &Path, path: &Path) -> Result<Self> {
        let private = dir.join(format!("{}{}", draft_prefix(path), std::process::id()));
        let _ = fs::remove_file(&private);
        let listener = UnixListener::bind(&private)
            .map_err(|e| Failure::sys(format!("bind {}", private.display()), e))?;
        let draft = Self { path: private, listener: Some(listener) };
        fs::set_permissions(&draft.path, Permissions::from_mode(0o600))
            .map_err(|e| Failure::sys(format!("chmod {}", draft.path.display()), e))?;
        Ok(draft)
    }

    fn publish(mut self, path: &Path) -> Result<Claim> {
        let what = || format!("stat {}", path.display());
        let meta = fs::symlink_metadata(path).map_err(|e| Failure::sys(what(), e))?;
        let file = SocketFile { path: path.to_owned(), device: meta.dev(), inode: meta.ino() };
        match self.listener.take() {
            Some(listener) => Ok(Claim::Bound(listener, file)),
            None => Ok(Claim::Served),
        }
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |n: u8| char::from(DIGITS[usize::from(n & 15)]);
    bytes.iter().flat_map(|b| [digit(b >> 4), digit(*b)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound(path: &Path) -> (UnixListener, SocketFile) {
        match claim(path).unwrap() {
            Claim::Bound(listener, file) => (listener, file),
            Claim::Served => panic!("{} is served", path.display()),
        }
    }

    fn names(dir: &Path) -> usize {
        fs::read_dir(dir).unwrap().count()
    }

    #[test]
    fn a_live_socket_is_shared_and_a_dead_one_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = path(dir.path(), "/run/c.sock", "ns", "pod").unwrap();
        let (first, file) = bound(&path);
        assert!(matches!(claim(&path).unwrap(), Claim::Served));
        drop(first);
        let (_second, newer) = bound(&path);
        assert_ne!(file, newer);
        file.remove();
        assert!(path.exists(), "the old owner removed the new socket");
        newer.remove();
        assert_eq!(names(dir.path()), 0);
    }

    #[test]
    fn socket_and_directory_are_private() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("s");
        let path = path(&inner, "a", "b", "c").unwrap();
        let (_listener, _file) = bound(&path);
        let mode = |p: &Path| fs::metadata(p).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&inner), mode(&path)), (0o700, 0o600));
        assert_eq!(names(&inner), 1, "the private name stayed");
    }

    #[test]
    fn what_dead_ones_left_goes_and_what_lives_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = path(dir.path(), "/run/c.sock", "ns", "pod").unwrap();
        let (listener, _file) = bound(&path);
        assert!(!remove_dead(&path));
        assert!(path.exists());
        drop(listener);
        // Nobody has this pid: it is above the kernel's limit of 2^22.
        let draft = |pid: u32| dir.path().join(format!("{}{pid}", draft_prefix(&path)));
        let (dead, own) = (draft(4_194_305), draft(std::process::id()));
        for draft in [&dead, &own] {
            fs::write(draft, "").unwrap();
        }
        assert!(remove_dead(&path));
        assert!(!path.exists() && !dead.exists() && own.exists());
        assert!(!remove_dead(&path), "there is none any more");
    }

    #[test]
    fn names_differ_by_daemon_namespace_and_group() {
        let name = |d: &str, n: &str, g: &str| path(Path::new("/s"), d, n, g).unwrap();
        let base = name("d", "n", "g");
        assert_eq!(base.as_os_str().len(), 3 + 64);
        for other in [name("e", "n", "g"), name("d", "m", "g"), name("d", "n", "h")] {
            assert_ne!(base, other);
        }
        let long = format!("/{}", "x".repeat(60));
        assert!(path(Path::new(&long), "d", "n", "g").unwrap_err().to_string().contains("limit"));
    }
}
