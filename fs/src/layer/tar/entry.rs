//! An entry: its header and the extensions in front of it, put together once.

use super::header::Header;
use super::{Error, Named, Problem, Segment, Time, Xattr, sparse};

/// What kind of file an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file; the body is its content.
    File,
    /// One more name of a file that is there; the link is a path of the archive.
    HardLink,
    /// A symbolic link; the link is its text.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
}

/// One file of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Path as it is written, without a NUL.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permission bits with set-id and sticky bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Size of a regular file, holes included; else 0.
    pub size: u64,
    /// Last modification.
    pub mtime: Time,
    /// Last access, where it is given.
    pub atime: Option<Time>,
    /// Target of a link, without a NUL.
    pub link: Vec<u8>,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Extended attributes, each name once.
    pub xattrs: Vec<Xattr>,
    /// Where the body's bytes belong in a sparse file; `None`: side by side.
    pub sparse: Option<Vec<Segment>>,
    /// Format 1.0: the map is still in front of the body.
    map_in_body: bool,
}

impl Entry {
    /// The entry and how many bytes its body has.
    pub(super) fn new(header: &Header, named: Named) -> Result<(Self, u64), Problem> {
        let Named { records, long_name, long_link } = named;
        let Header { name, link, .. } = header;
        let given = |long: Option<Vec<u8>>| long.filter(|name| !name.is_empty());
        let path = records.path.or(given(long_name)).unwrap_or_else(|| name.clone());
        let link = records.link.or(given(long_link)).unwrap_or_else(|| link.clone());
        let sparse = records.sparse;
        let map_in_body = match (sparse.major, sparse.minor) {
            (Some(1), Some(0)) => true,
            (None | Some(0), None | Some(0 | 1)) => false,
            (major, minor) => {
                let (major, minor) = (major.unwrap_or(0), minor.unwrap_or(0));
                let text = format!("sparse format {major}.{minor} is unknown");
                return Err(Problem::new(text).of(shown(&path)));
            }
        };
        let is_sparse = map_in_body || sparse.map.is_some();
        let path = sparse.name.filter(|_| is_sparse).unwrap_or(path);
        let wrong = |problem: Problem| problem.of(shown(&path));
        let kind = kind(header.type_flag, &path).map_err(wrong)?;
        let stored = records.size.unwrap_or(header.size);
        let stored = if kind == Kind::File { stored } else { 0 };
        if is_sparse && kind != Kind::File {
            return Err(wrong(Problem::new("a sparse map for what is no regular file")));
        }
        let size = match sparse.size {
            Some(size) if is_sparse => size,
            None if is_sparse => return Err(wrong(Problem::new("a sparse map without a size"))),
            _ => stored,
        };
        let entry = Self {
            kind,
            mode: header.mode,
            uid: id(records.uid, header.uid).map_err(|problem| wrong(problem.of("uid")))?,
            gid: id(records.gid, header.gid).map_err(|problem| wrong(problem.of("gid")))?,
            size,
            mtime: records.mtime.unwrap_or(header.mtime),
            atime: records.atime,
            link,
            device: device(header.device).map_err(wrong)?,
            xattrs: records.xattrs,
            sparse: sparse.map,
            map_in_body,
            path,
        };
        Ok((entry, stored))
    }

    pub(super) fn has_map_in_body(&self) -> bool {
        self.map_in_body
    }

    pub(super) fn set_map(&mut self, map: Vec<Segment>) {
        self.sparse = Some(map);
    }

    pub(super) fn check_map(&self, stored: u64) -> Result<(), Problem> {
        match &self.sparse {
            Some(map) => sparse::check(map, self.size, stored),
            None => Ok(()),
        }
    }

    /// Puts the entry's name in front of a message.
    pub(super) fn name_in(&self, error: Error) -> Error {
        match error {
            Error::Archive(problem) => Error::Archive(problem.of(shown(&self.path))),
            other => other,
        }
    }
}

fn kind(flag: u8, path: &[u8]) -> Result<Kind, Problem> {
    Ok(match flag {
        // Before POSIX a directory was a file with a slash behind its name.
        0 if path.ends_with(b"/") => Kind::Directory,
        // 7 is a file that may lie contiguously, which no file system of ours knows.
        0 | b'0' | b'7' => Kind::File,
        b'1' => Kind::HardLink,
        b'2' => Kind::Symlink,
        b'3' => Kind::CharDevice,
        b'4' => Kind::BlockDevice,
        b'5' => Kind::Directory,
        b'6' => Kind::Fifo,
        b'S' => {
            let text = "a sparse file in the old GNU format (type S); GNU tar writes the accepted \
                        ones with --format=posix";
            return Err(Problem::new(text));
        }
        other => {
            let text = format!("an entry of the unknown type '{}'", other.escape_ascii());
            return Err(Problem::new(text));
        }
    })
}

/// The record's id, or the header's where there is none.
fn id(record: Option<u32>, header: i64) -> Result<u32, Problem> {
    match record {
        Some(id) => Ok(id),
        None => id_of(header),
    }
}

/// The last number of 32 bits stands for no user at all.
pub(super) fn id_of(number: i64) -> Result<u32, Problem> {
    match u32::try_from(number) {
        Ok(id) if id != u32::MAX => Ok(id),
        _ => Err(Problem::new(format!("{number} is no user or group id"))),
    }
}

/// The kernel's device numbers have 12 and 20 bits.
fn device((major, minor): (i64, i64)) -> Result<(u32, u32), Problem> {
    if !(0..1 << 12).contains(&major) || !(0..1 << 20).contains(&minor) {
        let text = format!("device {major}:{minor}: at most 4095:1048575 exists");
        return Err(Problem::new(text));
    }
    Ok((major as u32, minor as u32))
}

/// A path for people: what is no ASCII text is escaped, what is long is cut.
pub(in crate::layer) fn shown(path: &[u8]) -> String {
    const MOST: usize = 200;
    let text = path.get(..MOST).unwrap_or(path).escape_ascii();
    if path.len() > MOST { format!("\"{text}…\"") } else { format!("\"{text}\"") }
}
