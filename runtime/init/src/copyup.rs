//! tmpcopyup: a new tmpfs starts with what it covers.
//!
//! Both sides are walked by descriptor and single names, and no link is
//! followed, so that a tree which changes meanwhile leads nowhere. What is
//! copied is charged to the container, whose process this is.

use core::ffi::CStr;

use crate::consts::{
    AT_EMPTY_PATH, EINTR, ELOOP, ENODATA, ENOENT, ENOTDIR, EOPNOTSUPP, EPERM, O_CREAT, O_DIRECTORY,
    O_EXCL, O_NOCTTY, O_NOFOLLOW, O_NONBLOCK, O_PATH, O_RDONLY, O_WRONLY, RESOLVE_BENEATH,
    RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, XATTR_MAX,
};
use crate::sys::{Fault, Fd, Outcome, PathBuf, Stat, fstat, nr, openat2, syscall};

/// Deepest directory: each costs some 3 KiB of the stack.
const DEPTH_MAX: usize = 256;
/// Most bytes that one call copies; any number would do.
const PIECE: usize = 1 << 30;

/// Copies the directory at `path` of the container into the detached `tree`.
pub(crate) fn copy_up(root: i32, path: &CStr, tree: i32) -> Outcome {
    let rules = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS;
    let from = match openat2(root, path, O_RDONLY | O_DIRECTORY, 0, rules) {
        Err(fault) if matches!(fault.errno, ENOENT | ENOTDIR) => return Ok(()),
        found => found?,
    };
    let to = openat2(tree, c".", O_RDONLY | O_DIRECTORY, 0, 0)?;
    let stat = fstat(from.number())?;
    // The mode is set when it is attached, or by the mount's own option.
    syscall!(nr::FCHOWN, to.number(), stat.uid, stat.gid)?;
    attributes(&from, &to)?;
    directory(&from, &to, 0)
}

fn directory(from: &Fd, to: &Fd, depth: usize) -> Outcome {
    if depth == DEPTH_MAX {
        return Err(Fault { errno: ELOOP, detail: nr::GETDENTS64 });
    }
    let mut entries = Entries::new();
    while entries.fill(from)? {
        while let Some(name) = entries.next() {
            if name != c"." && name != c".." {
                entry(from, to, name, depth)?;
            }
        }
    }
    Ok(())
}

fn entry(from: &Fd, to: &Fd, name: &CStr, depth: usize) -> Outcome {
    let (from, to) = (from.number(), to.number());
    let source = match openat2(from, name, O_PATH | O_NOFOLLOW, 0, RESOLVE_BENEATH) {
        // Removed since it was listed.
        Err(fault) if fault.errno == ENOENT => return Ok(()),
        found => found?,
    };
    let stat = fstat(source.number())?;
    match stat.mode & S_IFMT {
        S_IFDIR => {
            syscall!(nr::MKDIRAT, to, name, 0o700_u32)?;
            let read = O_RDONLY | O_DIRECTORY | O_NOFOLLOW;
            let source = openat2(from, name, read, 0, RESOLVE_BENEATH)?;
            let copy = openat2(to, name, read, 0, RESOLVE_BENEATH)?;
            directory(&source, &copy, depth + 1)?;
            finish(&source, &copy, &stat)
        }
        S_IFREG => {
            let read = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY;
            let source = openat2(from, name, read, 0, RESOLVE_BENEATH)?;
            let write = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW;
            let copy = openat2(to, name, write, 0o600, RESOLVE_BENEATH)?;
            content(&source, &copy)?;
            finish(&source, &copy, &stat)
        }
        S_IFLNK => {
            let mut target = PathBuf::new();
            target.read_link(source.number())?;
            syscall!(nr::SYMLINKAT, target.as_c_str(), to, name)?;
            let copy = openat2(to, name, O_PATH | O_NOFOLLOW, 0, RESOLVE_BENEATH)?;
            owner(&copy, &stat)
        }
        _ => {
            // The umask is 0 while init works.
            syscall!(nr::MKNODAT, to, name, stat.mode, stat.rdev)?;
            owner(&openat2(to, name, O_PATH | O_NOFOLLOW, 0, RESOLVE_BENEATH)?, &stat)
        }
    }
}

fn content(from: &Fd, to: &Fd) -> Outcome {
    loop {
        match syscall!(nr::SENDFILE, to.number(), from.number(), 0_usize, PIECE) {
            Ok(0) => return Ok(()),
            Err(fault) if fault.errno != EINTR => return Err(fault),
            _ => {}
        }
    }
}

/// Owner, what a change of owner takes away (file capabilities, bits of the mode) and times.
fn finish(source: &Fd, copy: &Fd, stat: &Stat) -> Outcome {
    owner(copy, stat)?;
    attributes(source, copy)?;
    syscall!(nr::FCHMOD, copy.number(), stat.mode & 0o7777)?;
    syscall!(nr::UTIMENSAT, copy.number(), 0_usize, &stat.times, 0_u32).map(drop)
}

/// Copies the extended attributes that a tmpfs of this container can have. Those of links and
/// device nodes would have to be named by path.
fn attributes(from: &Fd, to: &Fd) -> Outcome {
    match syscall!(nr::FLISTXATTR, from.number(), 0_usize, 0_usize) {
        Ok(0) => Ok(()),
        Ok(_) => each_attribute(from, to),
        Err(fault) if fault.errno == EOPNOTSUPP => Ok(()),
        Err(fault) => Err(fault),
    }
}

/// Apart from its caller, because of the room that it takes on the stack: directories nest.
#[inline(never)]
fn each_attribute(from: &Fd, to: &Fd) -> Outcome {
    let (from, to) = (from.number(), to.number());
    let mut names = [0_u8; XATTR_MAX];
    let mut value = [0_u8; XATTR_MAX];
    let listed = syscall!(nr::FLISTXATTR, from, &mut names, XATTR_MAX)?;
    for name in names.get(..listed).unwrap_or_default().split_inclusive(|byte| *byte == 0) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else { continue };
        let length = match syscall!(nr::FGETXATTR, from, name, &mut value, XATTR_MAX) {
            // Removed since it was listed.
            Err(fault) if fault.errno == ENODATA => continue,
            found => found?,
        };
        match syscall!(nr::FSETXATTR, to, name, &value, length, 0_u32) {
            // Of a kind that a tmpfs does not keep, that a mount option has settled (SELinux
            // contexts), or that root of a user namespace may not set (`trusted.*`).
            Err(fault) if matches!(fault.errno, EOPNOTSUPP | EPERM) => {}
            set => {
                set?;
            }
        }
    }
    Ok(())
}

fn owner(copy: &Fd, stat: &Stat) -> Outcome {
    syscall!(nr::FCHOWNAT, copy.number(), c"", stat.uid, stat.gid, AT_EMPTY_PATH).map(drop)
}

/// What getdents64(2) writes, entry by entry.
struct Entries {
    /// Entries are aligned to eight bytes.
    words: [u64; 256],
    len: usize,
    at: usize,
}

impl Entries {
    /// Inode and offset (8 bytes each), length of the entry (2), type (1), name.
    const LENGTH_AT: usize = 16;
    const NAME_AT: usize = 19;

    fn new() -> Self {
        Self { words: [0; 256], len: 0, at: 0 }
    }

    /// Reads more entries; false when there are none.
    fn fill(&mut self, directory: &Fd) -> Outcome<bool> {
        let size = size_of_val(&self.words);
        self.len = syscall!(nr::GETDENTS64, directory.number(), &mut self.words, size)?;
        self.at = 0;
        Ok(self.len > 0)
    }

    fn next(&mut self) -> Option<&CStr> {
        let bytes = crate::sys::bytes_of(&self.words).get(self.at..self.len)?;
        let length = bytes.get(Self::LENGTH_AT..Self::LENGTH_AT + 2)?;
        let length = usize::from(u16::from_le_bytes(length.try_into().ok()?));
        self.at += length;
        CStr::from_bytes_until_nul(bytes.get(Self::NAME_AT..length)?).ok()
    }
}
