//! The files of an image by name, whether they lie in a directory or an archive.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};

use boathook_fs::root::Root;
use nix::fcntl::OFlag;

use crate::{Error, Result};

/// Manifests and the like are not larger; what says it is one is read into memory.
const DOCUMENT_MAX: u64 = 8 << 20;
/// Files of an archive; an image has a few per layer.
const MEMBERS_MAX: usize = 100_000;
/// Links that lead from one file of an archive to another.
const LINKS_MAX: usize = 8;

/// Where an image comes from.
#[derive(Debug)]
pub struct Source {
    path: PathBuf,
    files: Files,
}

#[derive(Debug)]
enum Files {
    /// Names are resolved inside of it, whatever links there are.
    Directory(Root),
    Archive {
        file: File,
        members: HashMap<PathBuf, Member>,
    },
}

#[derive(Debug, Clone)]
enum Member {
    Bytes { at: u64, size: u64 },
    Link(PathBuf),
}

impl Source {
    /// Opens a layout's directory, or an archive that is not compressed, and
    /// reads the archive's list of files.
    ///
    /// # Errors
    /// `NotFound`; `Unsupported` for a compressed archive; `Invalid` for what is no archive.
    pub fn open(path: &Path) -> Result<Self> {
        let named = |e: io::Error| Error::io(path.display(), &e);
        let file = File::open(path).map_err(named)?;
        let meta = file.metadata().map_err(named)?;
        let files = if meta.is_dir() {
            Files::Directory(Root::open(path)?)
        } else if meta.is_file() {
            let members = members(&file).map_err(|e| e.context(path.display()))?;
            Files::Archive { file, members }
        } else {
            return Err(Error::invalid(format!("{}: no directory and no file", path.display())));
        };
        Ok(Self { path: path.to_owned(), files })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.reader(name).is_ok()
    }

    /// A file to be read from its beginning, and its size.
    pub(crate) fn reader(&self, name: &str) -> Result<(Piece, u64)> {
        match &self.files {
            Files::Directory(root) => {
                // A fifo in its place must not hold us up.
                let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK;
                let file = File::from(root.open_file(Path::new(name), flags)?);
                let meta = file.metadata().map_err(|e| Error::io(name, &e))?;
                if !meta.is_file() {
                    return Err(Error::invalid(format!("{name}: not a regular file")));
                }
                Ok((Piece { file, at: 0, left: u64::MAX }, meta.len()))
            }
            Files::Archive { file, members } => {
                let (at, size) = find(members, name)?;
                let file = file.try_clone().map_err(|e| Error::io(name, &e))?;
                Ok((Piece { file, at, left: size }, size))
            }
        }
    }

    /// All of a small file.
    pub(crate) fn document(&self, name: &str) -> Result<Vec<u8>> {
        let (reader, _) = self.reader(name)?;
        let mut bytes = Vec::new();
        reader.take(DOCUMENT_MAX + 1).read_to_end(&mut bytes).map_err(|e| Error::io(name, &e))?;
        if bytes.len() as u64 > DOCUMENT_MAX {
            let text =
                format!("{name}: more than {DOCUMENT_MAX} bytes are no document of an image");
            return Err(Error::invalid(text));
        }
        Ok(bytes)
    }
}

/// A part of a file; several may be read at once.
#[derive(Debug)]
pub(crate) struct Piece {
    file: File,
    at: u64,
    left: u64,
}

impl Read for Piece {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.file.read_at(buffer.get_mut(..most).unwrap_or_default(), self.at)?;
        self.at += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}

/// Where the files of an archive are. Of two with one name the last counts.
fn members(file: &File) -> Result<HashMap<PathBuf, Member>> {
    let broken = |e: io::Error| Error::io("archive", &e);
    let mut start = [0; 4];
    let count = file.read_at(&mut start, 0).map_err(broken)?;
    if matches!(start.get(..count), Some([0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd])) {
        let text = "the archive is compressed as a whole; decompress it first";
        return Err(Error::unsupported(text));
    }
    let mut members = HashMap::new();
    let mut archive = tar::Archive::new(file);
    for entry in archive.entries_with_seek().map_err(broken)? {
        let entry = entry.map_err(broken)?;
        if members.len() >= MEMBERS_MAX {
            return Err(Error::invalid(format!("archive: more than {MEMBERS_MAX} files")));
        }
        let Some(name) = clean(&entry.path().map_err(broken)?) else { continue };
        let kind = entry.header().entry_type();
        let member = if kind.is_file() {
            Member::Bytes { at: entry.raw_file_position(), size: entry.size() }
        } else if kind.is_symlink() || kind.is_hard_link() {
            let Some(to) = entry.link_name().map_err(broken)? else { continue };
            let above = name.parent().filter(|_| kind.is_symlink()).unwrap_or(Path::new(""));
            let Some(to) = clean(&above.join(to)) else { continue };
            Member::Link(to)
        } else {
            continue;
        };
        members.insert(name, member);
    }
    if members.is_empty() {
        return Err(Error::invalid("archive: there is no file in it"));
    }
    Ok(members)
}

fn find(members: &HashMap<PathBuf, Member>, name: &str) -> Result<(u64, u64)> {
    let mut at = clean(Path::new(name));
    for _ in 0..LINKS_MAX {
        match at.as_ref().and_then(|name| members.get(name)) {
            Some(Member::Bytes { at, size }) => return Ok((*at, *size)),
            Some(Member::Link(to)) => at = Some(to.clone()),
            None => return Err(Error::not_found(format!("{name}: not in the archive"))),
        }
    }
    Err(Error::invalid(format!("{name}: too many links in the archive")))
}

/// The name without `.` and `..`; `None` when it leads out.
fn clean(path: &Path) -> Option<PathBuf> {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(part) => out.push(part),
            Component::ParentDir if !out.pop() => return None,
            _ => {}
        }
    }
    Some(out)
}
