//! Cgroup files and directories by directory descriptor.
//!
//! Files are opened without `O_CREAT` and `O_TRUNC`: a cgroup file exists or
//! the kernel lacks it, and neither flag must ever make something of its own.

use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, fstat, mkdirat};
use nix::unistd::{UnlinkatFlags, read as read_fd, unlinkat, write as write_fd};
use rustix::fs::{FileType, RawDir};

/// Opens an existing file for writing.
pub(super) fn open_write(dir: BorrowedFd<'_>, path: &str) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(dir, path, flags, Mode::empty())
}

/// Opens an existing file for reading.
pub(super) fn open_read(dir: BorrowedFd<'_>, path: &str) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(dir, path, flags, Mode::empty())
}

/// Writes `value` in one call, as cgroup files want it.
pub(super) fn write_all(file: BorrowedFd<'_>, value: &str) -> nix::Result<()> {
    match write_fd(file, value.as_bytes())? {
        n if n == value.len() => Ok(()),
        _ => Err(Errno::EIO),
    }
}

/// Opens `path`, writes `value`, closes.
pub(super) fn write(dir: BorrowedFd<'_>, path: &str, value: &str) -> nix::Result<()> {
    write_all(open_write(dir, path)?.as_fd(), value)
}

/// The whole text of a file.
pub(super) fn read(dir: BorrowedFd<'_>, path: &str) -> nix::Result<String> {
    read_to_end(open_read(dir, path)?.as_fd())
}

/// The whole text of an open file, from where it stands.
pub(super) fn read_to_end(file: BorrowedFd<'_>) -> nix::Result<String> {
    let mut bytes = vec![0; 4096];
    let mut filled = 0;
    loop {
        if filled == bytes.len() {
            bytes.resize(bytes.len() * 2, 0);
        }
        match read_fd(file, &mut bytes[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    bytes.truncate(filled);
    String::from_utf8(bytes).map_err(|_| Errno::EILSEQ)
}

/// Makes one directory.
pub(super) fn make_dir(dir: BorrowedFd<'_>, path: &str) -> nix::Result<()> {
    mkdirat(dir, path, Mode::from_bits_truncate(0o755))
}

/// Removes one directory.
pub(super) fn remove_dir(dir: BorrowedFd<'_>, path: &str) -> nix::Result<()> {
    unlinkat(dir, path, UnlinkatFlags::RemoveDir)
}

/// The names of the sub-directories of an open directory.
pub(super) fn subdirs(dir: BorrowedFd<'_>) -> nix::Result<Vec<CString>> {
    // cgroupfs counts sub-directories in the link count, as most file systems
    // do; nearly every cgroup has none, so this saves listing its files.
    if fstat(dir)?.st_nlink == 2 {
        return Ok(Vec::new());
    }
    let mut names = Vec::new();
    list(dir, |name, kind| {
        if kind == FileType::Directory {
            names.push(name.to_owned());
        }
    })?;
    Ok(names)
}

/// The names of the files of an open directory, as far as they are text.
pub(super) fn names(dir: BorrowedFd<'_>) -> nix::Result<Vec<String>> {
    let mut names = Vec::new();
    list(dir, |name, _| names.extend(name.to_str().ok().map(str::to_owned)))?;
    Ok(names)
}

fn list(dir: BorrowedFd<'_>, mut each: impl FnMut(&CStr, FileType)) -> nix::Result<()> {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut entries = RawDir::new(dir, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry.map_err(|e| Errno::from_raw(e.raw_os_error()))?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            each(entry.file_name(), entry.file_type());
        }
    }
    Ok(())
}

/// Whether `path` exists.
pub(super) fn exists(dir: BorrowedFd<'_>, path: &str) -> nix::Result<bool> {
    match nix::sys::stat::fstatat(dir, path, nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(_) => Ok(true),
        Err(Errno::ENOENT) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Opens a directory as a mere reference to it.
pub(super) fn open_dir_path(dir: BorrowedFd<'_>, path: &str) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(dir, path, flags, Mode::empty())
}

/// Opens a directory so that it can be listed.
pub(super) fn open_dir_list(
    dir: BorrowedFd<'_>,
    path: &(impl nix::NixPath + ?Sized),
) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(dir, path, flags, Mode::empty())
}

/// The whole text of an open file, from its beginning; small files only.
pub(super) fn reread(file: BorrowedFd<'_>) -> nix::Result<String> {
    nix::unistd::lseek(file, 0, nix::unistd::Whence::SeekSet)?;
    read_to_end(file)
}

/// Removes one directory by a name that the kernel gave us.
pub(super) fn remove_dir_at(dir: BorrowedFd<'_>, name: &CStr) -> nix::Result<()> {
    unlinkat(dir, name, UnlinkatFlags::RemoveDir)
}
