//! Paths of the container. All of them are resolved by the kernel below the
//! descriptor of the root, without magic links, and used as descriptors; what
//! is missing is made one name at a time in a directory that is held open
//! (CVE-2024-45310, CVE-2021-30465: a path that was used twice).

use core::ffi::CStr;

use crate::consts::{
    EEXIST, EINVAL, ELOOP, ENOENT, O_CREAT, O_DIRECTORY, O_EXCL, O_NOFOLLOW, O_PATH, O_WRONLY,
    RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS,
};
use crate::sys::{Fault, Fd, Outcome, PathBuf, nr, openat2, syscall};

/// A name that would not be made where it says.
const LEADS_UP: Fault = Fault { errno: EINVAL, detail: nr::OPENAT2 };

/// What a mount point has to be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leaf {
    /// A directory.
    Dir,
    /// Any file that is not a directory.
    File,
}

/// Resolves `path` in `root` to a descriptor without access rights.
pub(crate) fn resolve(root: i32, path: &CStr, strict: bool) -> Outcome<Fd> {
    openat2(root, path, O_PATH, 0, rules(strict))
}

fn rules(strict: bool) -> u64 {
    let base = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS;
    if strict { base | RESOLVE_NO_SYMLINKS } else { base }
}

/// Resolves `path`, making missing directories with mode 0755, and the last
/// component as a directory of `mode` or an empty file.
pub(crate) fn resolve_or_make(
    root: i32,
    path: &CStr,
    leaf: Leaf,
    mode: u32,
    strict: bool,
) -> Outcome<Fd> {
    match resolve(root, path, strict) {
        Err(fault) if fault.errno == ENOENT => make(root, path, leaf, mode, strict),
        other => other,
    }
}

/// Makes `path`, which is not there. Its directory usually is, so that is
/// looked for from the end.
pub(crate) fn make(root: i32, path: &CStr, leaf: Leaf, mode: u32, strict: bool) -> Outcome<Fd> {
    let bytes = path.to_bytes();
    let mut known = 0;
    let mut here = None;
    for (at, _) in bytes.iter().enumerate().rev().filter(|(_, b)| **b == b'/') {
        match resolve(root, prefix(bytes, at)?.as_c_str(), strict) {
            Err(fault) if fault.errno == ENOENT && at > 0 => {}
            found => {
                known = at;
                here = Some(found?);
                break;
            }
        }
    }
    let mut here = match here {
        Some(found) => found,
        None => openat2(root, c".", O_PATH | O_DIRECTORY, 0, rules(strict))?,
    };
    let rest = bytes.get(known..).unwrap_or_default();
    // What is missing is made in a directory that is held open, and where its `..` leads the
    // kernel would judge without knowing the root. No plan has one.
    if components(rest).any(|name| name == b"..") {
        return Err(LEADS_UP);
    }
    let mut rest = components(rest).peekable();
    while let Some(name) = rest.next() {
        let last = rest.peek().is_none();
        let (kind, mode) = if last { (leaf, mode) } else { (Leaf::Dir, 0o755) };
        here = make_one(here.number(), name, kind, mode)?;
    }
    Ok(here)
}

/// The first `len` bytes of a path; the root where nothing is left.
fn prefix(path: &[u8], len: usize) -> Outcome<PathBuf> {
    let mut text = PathBuf::new();
    text.push(if len == 0 { b"/" } else { path.get(..len).unwrap_or_default() })?;
    Ok(text)
}

/// Makes `name` in the open directory `dir` and opens what it made, never
/// what a symbolic link of that name points to.
fn make_one(dir: i32, name: &[u8], leaf: Leaf, mode: u32) -> Outcome<Fd> {
    let mut text = PathBuf::new();
    text.push(name)?;
    let name = text.as_c_str();
    let made = match leaf {
        Leaf::Dir => syscall!(nr::MKDIRAT, dir, name, mode).map(|_| ()),
        Leaf::File => {
            openat2(dir, name, O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW, 0o644, 0).map(|_| ())
        }
    };
    match made {
        Ok(()) => {}
        // Somebody was faster; the open below takes it only if it is no link.
        Err(fault) if fault.errno == EEXIST => {}
        Err(fault) => return Err(fault),
    }
    let only = if leaf == Leaf::Dir { O_DIRECTORY } else { 0 };
    openat2(dir, name, O_PATH | O_NOFOLLOW | only, 0, RESOLVE_NO_SYMLINKS).map_err(|fault| {
        // A dangling link: there is a name, but nothing that it leads to.
        if fault.errno == ELOOP { Fault { errno: ELOOP, ..fault } } else { fault }
    })
}

/// The open parent directory of `path` (made where missing) and its last name.
pub(crate) fn parent_of(root: i32, path: &CStr) -> Outcome<(Fd, &CStr)> {
    let bytes = path.to_bytes();
    let cut = bytes.iter().rposition(|b| *b == b'/');
    let (dir, name_at) = match cut {
        Some(at) => (bytes.get(..at).unwrap_or_default(), at + 1),
        None => (&b""[..], 0),
    };
    let mut text = PathBuf::new();
    text.push(b"/")?;
    text.push(dir)?;
    let parent = resolve_or_make(root, text.as_c_str(), Leaf::Dir, 0o755, false)?;
    let name = path.to_bytes_with_nul().get(name_at..).unwrap_or_default();
    let name = CStr::from_bytes_with_nul(name).map_err(|_| LEADS_UP)?;
    if name == c".." { Err(LEADS_UP) } else { Ok((parent, name)) }
}

fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|b| *b == b'/').filter(|name| !name.is_empty() && *name != b".")
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::fd::AsRawFd;

    use super::*;

    /// Found by the fuzz target `init`: `..` behind a missing name was made in the
    /// directory that was open, and so led above the root.
    #[test]
    fn nothing_is_made_above_the_root() {
        let base = std::env::temp_dir().join(std::format!("boathook-paths-{}", std::process::id()));
        fs::create_dir_all(base.join("root")).unwrap();
        let root = File::open(base.join("root")).unwrap();
        let fd = root.as_raw_fd();
        for path in [c"/m/../../x", c"/../m/../../x", c"m/.."] {
            let made = make(fd, path, Leaf::Dir, 0o755, false).map(drop);
            assert_eq!(made, Err(LEADS_UP), "{path:?}");
        }
        assert_eq!(parent_of(fd, c"/a/..").map(drop), Err(LEADS_UP));
        make(fd, c"/../m/x", Leaf::Dir, 0o755, false).unwrap();
        let mut found: std::vec::Vec<_> = [&base, &base.join("root"), &base.join("root/m")]
            .map(|d| fs::read_dir(d).unwrap().count())
            .into();
        found.sort_unstable();
        fs::remove_dir_all(&base).unwrap();
        // The root alone; `a` and `m` in it; `x` in `m`.
        assert_eq!(found, [1, 1, 2]);
    }
}
