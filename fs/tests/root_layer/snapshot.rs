//! A tree as a list that can be compared: everything but inode numbers.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item {
    /// Type and permission bits.
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    pub(crate) modified: (i64, i64),
    pub(crate) device: u64,
    /// Content of a file, text of a link.
    pub(crate) content: Vec<u8>,
    pub(crate) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The first name of the same file.
    pub(crate) same_as: PathBuf,
}

/// All of `root`, the root itself as an empty path.
pub(crate) fn of(root: &Path) -> BTreeMap<PathBuf, Item> {
    let mut all = BTreeMap::new();
    let mut first = BTreeMap::new();
    let mut paths = Vec::new();
    let mut todo = vec![root.to_owned()];
    while let Some(path) = todo.pop() {
        if fs::symlink_metadata(&path).unwrap().is_dir() {
            todo.extend(fs::read_dir(&path).unwrap().map(|item| item.unwrap().path()));
        }
        paths.push(path);
    }
    paths.sort();
    for path in paths {
        let meta = fs::symlink_metadata(&path).unwrap();
        let below = path.strip_prefix(root).unwrap().to_owned();
        let same_as = first.entry((meta.dev(), meta.ino())).or_insert(below.clone()).clone();
        let kind = meta.file_type();
        let content = match () {
            () if kind.is_file() => fs::read(&path).unwrap(),
            () if kind.is_symlink() => fs::read_link(&path).unwrap().as_os_str().as_bytes().into(),
            () => Vec::new(),
        };
        let device = kind.is_char_device() || kind.is_block_device();
        let item = Item {
            mode: meta.mode(),
            owner: (meta.uid(), meta.gid()),
            modified: (meta.mtime(), meta.mtime_nsec()),
            device: if device { meta.rdev() } else { 0 },
            content,
            xattrs: xattrs(&path),
            same_as,
        };
        all.insert(below, item);
    }
    all
}

fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0_u8; 4096];
    let Ok(count) = rustix::fs::llistxattr(path, &mut names) else { return BTreeMap::new() };
    let names = names[..count].split(|b| *b == 0).filter(|name| !name.is_empty());
    names
        .map(|name| {
            let mut value = vec![0_u8; 4096];
            let count = rustix::fs::lgetxattr(path, name, &mut value).unwrap();
            value.truncate(count);
            (name.to_vec(), value)
        })
        .collect()
}
