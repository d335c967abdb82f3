//! A device program onto a cgroup: attached to a new one, put in the place of
//! the one before on a living one.
//!
//! The cgroup holds its program, so no descriptor is kept; a later process
//! finds it by asking the kernel. Programs of others on the same cgroup (a
//! service manager's) stay: all must allow an access.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::program::{DeviceProgram, Insn};
use super::{FIELD, sys};
use crate::cgroup::file;
use crate::cgroup::group::At;
use crate::error::{Error, ErrorKind, Result};

/// How our programs are told from others. The kernel keeps 15 bytes.
const NAME: &str = "boathook_device";
/// Room for the verifier's reasons.
const LOG_SIZE: usize = 64 << 10;
/// How much of the end of it goes into an error.
const LOG_SHOWN: usize = 512;

/// A program that the kernel has checked and keeps while this lives.
#[derive(Debug)]
pub(in crate::cgroup) struct Loaded(OwnedFd);

impl Loaded {
    /// # Errors
    /// `InvalidInput` for too many rules, `Unsupported` when the kernel has no
    /// device programs, `PermissionDenied`; with the verifier's reasons.
    pub(in crate::cgroup) fn new(program: &DeviceProgram) -> Result<Self> {
        match load(program.code()) {
            Ok(fd) => Ok(Self(fd)),
            Err(errno) => {
                // Asked again only now: writing the log makes loading slower.
                let mut log = vec![0; LOG_SIZE];
                let _ = sys::load(program.code(), NAME, Some(&mut log));
                Err(load_error(program.len(), errno, &log))
            }
        }
    }
}

/// Before 5.11 programs count as locked memory, and the usual limit is 64 KiB
/// for all of root's together. Raised for one call only.
fn load(code: &[Insn]) -> nix::Result<OwnedFd> {
    let first = sys::load(code, NAME, None);
    let limit = getrlimit(Resource::Memlock);
    let refused = matches!(first, Err(Errno::EPERM)) && limit.maximum.is_some();
    let none = Rlimit { current: None, maximum: None };
    if !refused || setrlimit(Resource::Memlock, none).is_err() {
        return first;
    }
    let second = sys::load(code, NAME, None);
    // Lowering a limit is always allowed.
    let _ = setrlimit(Resource::Memlock, limit);
    second
}

fn load_error(length: usize, errno: Errno, log: &[u8]) -> Error {
    let log: Vec<u8> = log.iter().copied().take_while(|byte| *byte != 0).collect();
    let log = String::from_utf8_lossy(&log);
    let mut text = format!("{FIELD}: loading a program of {length} instructions");
    let kind = match errno {
        Errno::E2BIG => {
            text.push_str(", which is too long for this kernel: fewer rules are needed");
            Some(ErrorKind::InvalidInput)
        }
        Errno::ENOSYS => Some(ErrorKind::Unsupported),
        Errno::EINVAL if log.is_empty() => {
            text.push_str(", a kind that this kernel does not have");
            Some(ErrorKind::Unsupported)
        }
        _ => None,
    };
    let end = log.char_indices().rev().nth(LOG_SHOWN).map_or(0, |(at, _)| at);
    if !log.is_empty() {
        text.push_str(&format!(" (the verifier says: {})", log[end..].trim()));
    }
    let error = Error::sys(text, errno);
    match kind {
        Some(kind) => error.with_kind(kind),
        None => error,
    }
}

/// Makes `wanted` the one program of ours on a cgroup. At no moment is a
/// device refused that both the old and the new program allow, nor one allowed
/// that both refuse. `fresh`: the cgroup was just made, so it has none.
///
/// # Errors
/// `NotFound` when the cgroup is gone, else what the kernel refused.
pub(in crate::cgroup) fn install(at: At<'_>, wanted: Option<&Loaded>, fresh: bool) -> Result<()> {
    if fresh && wanted.is_none() {
        return Ok(());
    }
    let failed = |errno| attach_error(at, errno);
    let cgroup = file::open_dir_list(at.root, at.path).map_err(failed)?;
    let found = if fresh { Ok(Vec::new()) } else { find(cgroup.as_fd()) };
    let mut ours = match found {
        // Who may not ask has not attached anything either.
        Err(_) if wanted.is_none() => Vec::new(),
        found => found.map_err(failed)?,
    };
    if let Some(Loaded(program)) = wanted {
        match ours.pop() {
            Some(old) => replace(cgroup.as_fd(), program.as_fd(), old.as_fd()),
            None => sys::attach(cgroup.as_fd(), program.as_fd(), None),
        }
        .map_err(failed)?;
    }
    // More than one is what a process left that died in the fallback below.
    ours.iter().try_for_each(|old| detach(cgroup.as_fd(), old.as_fd())).map_err(failed)
}

fn replace(cgroup: BorrowedFd<'_>, new: BorrowedFd<'_>, old: BorrowedFd<'_>) -> nix::Result<()> {
    match sys::attach(cgroup, new, Some(old)) {
        // Before 5.6, or somebody has just detached the old one: both side by
        // side for a moment, which is the stricter of the two.
        Err(Errno::EINVAL | Errno::ENOENT) => {
            sys::attach(cgroup, new, None)?;
            detach(cgroup, old)
        }
        other => other,
    }
}

fn detach(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> nix::Result<()> {
    match sys::detach(cgroup, program) {
        Err(Errno::ENOENT) => Ok(()),
        other => other,
    }
}

/// Our programs on this very cgroup, the oldest first.
fn find(cgroup: BorrowedFd<'_>) -> nix::Result<Vec<OwnedFd>> {
    let mut ids = [0; 64];
    let count = sys::query(cgroup, &mut ids)?;
    let mut found = Vec::new();
    for &id in &ids[..count] {
        let program = match sys::open(id) {
            Err(Errno::ENOENT) => continue,
            other => other?,
        };
        if sys::name(program.as_fd())? == NAME {
            found.push(program);
        }
    }
    Ok(found)
}

fn attach_error(at: At<'_>, errno: Errno) -> Error {
    let text = format!("{FIELD}: attaching the device program to cgroup /{}", at.path);
    let kind = match errno {
        _ if at.gone(errno) => Some(ErrorKind::NotFound),
        Errno::E2BIG => Some(ErrorKind::Exhausted),
        Errno::EINVAL | Errno::ENOSYS => Some(ErrorKind::Unsupported),
        _ => None,
    };
    let error = Error::sys(text, errno);
    match kind {
        Some(kind) => error.with_kind(kind),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_program_is_explained() {
        let error = load_error(9, Errno::E2BIG, &[0; 8]);
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().starts_with("linux.resources.devices: "), "{error}");
        assert_eq!(load_error(9, Errno::EINVAL, &[0; 8]).kind(), ErrorKind::Unsupported);
        assert_eq!(load_error(9, Errno::EPERM, &[0; 8]).kind(), ErrorKind::PermissionDenied);
        let mut log = "x".repeat(2000).into_bytes();
        log.extend_from_slice(b"R1 invalid mem access\n\0rubbish");
        let error = load_error(9, Errno::EINVAL, &log);
        assert_eq!(error.kind(), ErrorKind::Internal);
        let text = error.to_string();
        assert!(text.contains("invalid mem access)") && !text.contains("rubbish"), "{text}");
        assert!(text.len() < 800, "{text}");
    }
}
