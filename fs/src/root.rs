//! Paths inside a container's tree, resolved by the kernel with the tree as the root.
//!
//! Nothing that lies in the tree can lead out of it: `..` stops at the root, absolute links
//! start there, and links like `/proc/self/exe` are refused. That holds while somebody else
//! renames things, because every step ends in a descriptor and no path is walked twice in the
//! hope of the same result (CVE-2021-30465, CVE-2024-45310).

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2, readlinkat};
use nix::sys::stat::{Mode, SFlag, mkdirat, mknodat};

use crate::{Error, Result};

mod by_hand;
#[cfg(test)]
mod tests;

/// The kernel gives up with EAGAIN when something was renamed during `..`; so many tries.
const RETRIES: usize = 128;
/// Links the kernel follows in one path (MAXSYMLINKS); so many we expand.
const LINKS_MAX: usize = 40;

/// A directory that is the root for every path given to it.
#[derive(Debug)]
pub struct Root(OwnedFd);

impl Root {
    /// Opens the host's directory `path`; links are followed as the host sees them.
    ///
    /// # Errors
    /// `NotFound`, `Invalid` when it is no directory, others by errno.
    pub fn open(path: &Path) -> Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let fd = nix::fcntl::openat(AT_FDCWD, path, flags, Mode::empty())
            .map_err(|e| Error::sys(format!("openat({}, {flags:?})", path.display()), e))?;
        Ok(Self(fd))
    }

    /// Takes a descriptor of a directory as the root.
    #[must_use]
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// The root directory itself.
    #[must_use]
    pub fn into_fd(self) -> OwnedFd {
        self.0
    }

    /// A second descriptor of the same directory.
    ///
    /// # Errors
    /// By errno.
    pub fn try_clone(&self) -> Result<Self> {
        self.0
            .try_clone()
            .map(Self)
            .map_err(|e| Error::sys("dup", Errno::from_raw(e.raw_os_error().unwrap_or_default())))
    }

    /// What `path` leads to, as an `O_PATH` descriptor; a link at its end is followed.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` for a loop of links, a link out of procfs, or a file taken for a
    /// directory; others by errno.
    pub fn resolve(&self, path: &Path) -> Result<OwnedFd> {
        self.open_how(path, OFlag::O_PATH, ResolveFlag::empty())
    }

    /// As [`Root::resolve`], but any link in `path` is an error (`Invalid`, ELOOP). For
    /// destinations that must be what they are called, such as `/proc`.
    ///
    /// # Errors
    /// As [`Root::resolve`].
    pub fn resolve_no_symlinks(&self, path: &Path) -> Result<OwnedFd> {
        self.open_how(path, OFlag::O_PATH, ResolveFlag::RESOLVE_NO_SYMLINKS)
    }

    /// Opens an existing file or directory. `O_CREAT` is refused: see [`Root::create_file`].
    ///
    /// # Errors
    /// As [`Root::resolve`].
    pub fn open_file(&self, path: &Path, flags: OFlag) -> Result<OwnedFd> {
        if flags.intersects(OFlag::O_CREAT | OFlag::O_TMPFILE & !OFlag::O_DIRECTORY) {
            let text = format!("open {} in a root: {flags:?} would create", path.display());
            return Err(Error::invalid(text));
        }
        // A tree may hold a terminal; opening it must not make it ours. With O_PATH nothing is
        // opened, and openat2 refuses the flag.
        let quiet = if flags.contains(OFlag::O_PATH) { OFlag::empty() } else { OFlag::O_NOCTTY };
        self.open_how(path, flags | quiet, ResolveFlag::empty())
    }

    /// Makes `path` a directory with its parents, and gives it as an `O_PATH` descriptor. What
    /// exists is used; links, dangling ones too, are followed inside the root.
    /// `mode` (less the umask) is for what is made.
    ///
    /// # Errors
    /// `Invalid` when a file is in the way or links loop; others by errno.
    pub fn create_dir_all(&self, path: &Path, mode: Mode) -> Result<OwnedFd> {
        let how = OFlag::O_PATH | OFlag::O_DIRECTORY;
        match self.open_how(path, how, ResolveFlag::empty()) {
            Err(e) if e.errno() == Some(Errno::ENOENT) => {
                Walk::new(self, path, mode).run(Last::Directory)
            }
            found => found,
        }
    }

    /// Makes `path` an empty regular file unless it exists, with its parents (mode 0755), and
    /// gives it as an `O_PATH` descriptor, whatever type it has. Nothing is opened for this, so
    /// a fifo or device in its place does no harm.
    ///
    /// # Errors
    /// As [`Root::create_dir_all`].
    pub fn create_file(&self, path: &Path, mode: Mode) -> Result<OwnedFd> {
        match self.resolve(path) {
            Err(e) if e.errno() == Some(Errno::ENOENT) => {
                let parents = Mode::from_bits_truncate(0o755);
                Walk::new(self, path, parents).run(Last::File(mode))
            }
            found => found,
        }
    }

    /// Whether `error` is that of a kernel without the call, or of a filter that refuses it: then
    /// it does not even open the root.
    fn no_openat2(&self, error: Errno) -> bool {
        let root = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC);
        match error {
            Errno::ENOSYS => true,
            Errno::EPERM => openat2(&self.0, ".", root).err() == Some(Errno::EPERM),
            _ => false,
        }
    }

    fn open_how(&self, path: &Path, flags: OFlag, more: ResolveFlag) -> Result<OwnedFd> {
        let how = OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS | more);
        // openat2 has no empty path; of a root it can only mean the root.
        let name = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let mut tries = 0;
        loop {
            match openat2(&self.0, name, how) {
                Ok(fd) => return Ok(fd),
                Err(Errno::EAGAIN | Errno::EINTR) if tries < RETRIES => tries += 1,
                Err(e) if self.no_openat2(e) => {
                    let links = !more.contains(ResolveFlag::RESOLVE_NO_SYMLINKS);
                    return by_hand::open(self.0.as_fd(), name, flags, links).map_err(|e| {
                        Error::sys(format!("open({}, {flags:?}, in root)", path.display()), e)
                    });
                }
                Err(e) => {
                    let call = format!("openat2({}, {flags:?}, in root)", path.display());
                    return Err(Error::sys(call, e));
                }
            }
        }
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What the last component of a walk shall be.
#[derive(Clone, Copy)]
enum Last {
    Directory,
    File(Mode),
}

/// Makes the missing components of a path, one by one.
///
/// `done` leads to an existing directory and is resolved anew from the root after every step;
/// a new directory is made in the descriptor of `done`, by a bare name, which follows nothing.
/// So a step that somebody interferes with ends in another place inside the root, or fails.
struct Walk<'a> {
    root: &'a Root,
    path: &'a Path,
    mode: Mode,
    done: PathBuf,
    todo: VecDeque<OsString>,
    links: usize,
    lost_races: usize,
}

enum Step {
    /// `done` grew by this component, which stands for this descriptor.
    Into(OwnedFd),
    /// A link was put into `todo`, or the component has to be looked at again.
    Again,
}

impl<'a> Walk<'a> {
    fn new(root: &'a Root, path: &'a Path, mode: Mode) -> Self {
        let (done, todo) = (PathBuf::from("/"), split(path).collect());
        Self { root, path, mode, done, todo, links: 0, lost_races: 0 }
    }

    fn run(mut self, last: Last) -> Result<OwnedFd> {
        let mut here = self.open(Path::new("/"), Last::Directory)?;
        while let Some(name) = self.todo.pop_front() {
            let want = if self.todo.is_empty() { last } else { Last::Directory };
            match self.step(&here, name, want)? {
                Step::Into(fd) => here = fd,
                Step::Again => here = self.open(&self.done, Last::Directory)?,
            }
        }
        Ok(here)
    }

    fn step(&mut self, here: &OwnedFd, name: OsString, want: Last) -> Result<Step> {
        let next = self.done.join(&name);
        match self.open(&next, want) {
            Ok(fd) => {
                self.done = next;
                return Ok(Step::Into(fd));
            }
            Err(e) if e.errno() == Some(Errno::ENOENT) => {}
            Err(e) => return Err(e),
        }
        match self.make(here, &name, want) {
            Ok(()) => {}
            Err(Errno::EEXIST) => return self.expand_link(here, name),
            Err(e) => {
                let what = if matches!(want, Last::File(_)) { "mknodat" } else { "mkdirat" };
                return Err(Error::sys(format!("{what}({}, in root)", next.display()), e));
            }
        }
        // What was just made may be moved away at once; then it is looked at again.
        self.todo.push_front(name);
        self.lost()?;
        Ok(Step::Again)
    }

    fn make(&self, here: &OwnedFd, name: &OsStr, want: Last) -> Result<(), Errno> {
        match want {
            Last::Directory => mkdirat(here, name, self.mode),
            Last::File(mode) => mknodat(here, name, SFlag::S_IFREG, mode, 0),
        }
    }

    /// The component exists and yet leads nowhere: a dangling link, or somebody was faster.
    fn expand_link(&mut self, here: &OwnedFd, name: OsString) -> Result<Step> {
        match readlinkat(here, name.as_os_str()) {
            Ok(target) => {
                self.links += 1;
                if self.links > LINKS_MAX {
                    return Err(self.failed(Errno::ELOOP));
                }
                let target = Path::new(&target);
                if target.is_absolute() {
                    self.done = PathBuf::from("/");
                }
                for part in split(target).collect::<Vec<_>>().into_iter().rev() {
                    self.todo.push_front(part);
                }
            }
            Err(Errno::EINVAL | Errno::ENOENT) => {
                self.todo.push_front(name);
                self.lost()?;
            }
            Err(e) => return Err(self.failed(e)),
        }
        Ok(Step::Again)
    }

    fn lost(&mut self) -> Result<()> {
        self.lost_races += 1;
        // Each made component comes here once; the rest is somebody who keeps renaming.
        if self.lost_races > RETRIES + self.path.as_os_str().len() {
            return Err(self.failed(Errno::EAGAIN));
        }
        Ok(())
    }

    fn failed(&self, errno: Errno) -> Error {
        Error::sys(format!("create {} in a root", self.path.display()), errno)
    }

    fn open(&self, path: &Path, want: Last) -> Result<OwnedFd> {
        let kind = match want {
            Last::Directory => OFlag::O_DIRECTORY,
            Last::File(_) => OFlag::empty(),
        };
        self.root.open_how(path, OFlag::O_PATH | kind, ResolveFlag::empty())
    }
}

/// The names of a path, `..` among them, since only the kernel knows what it leads to.
fn split(path: &Path) -> impl Iterator<Item = OsString> + '_ {
    path.as_os_str()
        .as_bytes()
        .split(|b| *b == b'/')
        .filter(|name| !name.is_empty() && *name != b".")
        .map(|name| OsStr::from_bytes(name).to_owned())
}
