//! The mounted hierarchies with a descriptor each, opened once.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode as FileMode;
use nix::sys::statfs::{CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, FsType, fstatfs};

use super::controller::Controllers;
use super::layout::{CONVENTIONAL, HierarchyMount, Kind, Layout, MountLine, parse_membership};
use super::{Mode, file};
use crate::error::{Error, ErrorKind, Result};

/// The cgroup hierarchies of this host, each held by an `O_PATH` descriptor.
///
/// Cheap to clone: the clones share the descriptors.
#[derive(Debug, Clone)]
pub struct Hierarchies(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    layout: Layout,
    /// One per entry of `layout.mounts`, in its order.
    roots: Vec<OwnedFd>,
}

impl Hierarchies {
    /// Finds the hierarchies and opens each; asks once, remember the answer.
    ///
    /// Looks at the usual mount points first and reads `mountinfo` only when
    /// they are not what they should be. The file system type of every
    /// descriptor is checked, so that no later write can land in a directory
    /// of another file system.
    ///
    /// # Errors
    /// `Unsupported` when no cgroup file system is mounted; `Internal` when a
    /// mount cannot be opened.
    pub fn probe() -> Result<Self> {
        if let Some(found) = Self::unified()? {
            return Ok(found);
        }
        let membership = read_proc("/proc/self/cgroup")?;
        if let Some(found) = Layout::guess(&membership).ok().and_then(|l| Self::open(l).ok()) {
            return Ok(found);
        }
        Self::open(Layout::parse(&read_proc("/proc/self/mountinfo")?)?)
    }

    /// `Some` when `/sys/fs/cgroup` itself is a v2 hierarchy.
    fn unified() -> Result<Option<Self>> {
        let Ok(root) = open_dir(Path::new(CONVENTIONAL)) else { return Ok(None) };
        if magic(&root) != Ok(CGROUP2_SUPER_MAGIC) {
            return Ok(None);
        }
        let controllers = v2_controllers(root.as_fd(), "cgroup.controllers")?;
        let layout = Layout::unified(controllers);
        Ok(Some(Self(Arc::new(Inner { layout, roots: vec![root] }))))
    }

    /// Opens the hierarchies of a layout that the caller knows: some of those
    /// of this host, or a cgroup to be taken for the root of one. Its v2
    /// controllers are asked for anew.
    ///
    /// # Errors
    /// `Internal` when a mount is not there or is of another file system type.
    pub fn open(mut layout: Layout) -> Result<Self> {
        let mut roots = Vec::with_capacity(layout.mounts.len());
        for mount in &mut layout.mounts {
            let root = open_hierarchy(mount)?;
            if mount.is_v2() {
                // On a hybrid host the root's choice is its owner's: see `HierarchyMount`.
                let file = match layout.mode {
                    Mode::V2 => "cgroup.controllers",
                    Mode::V1 | Mode::Hybrid => "cgroup.subtree_control",
                };
                mount.controllers = v2_controllers(root.as_fd(), file)?;
            }
            roots.push(root);
        }
        Ok(Self(Arc::new(Inner { layout, roots })))
    }

    /// Plain directories in the place of hierarchies, with recorded files.
    #[cfg(test)]
    pub(super) fn recorded(layout: Layout) -> Self {
        let roots = layout.mounts.iter().map(|m| open_dir(&m.mount_point).unwrap()).collect();
        Self(Arc::new(Inner { layout, roots }))
    }

    /// What is mounted where.
    pub fn layout(&self) -> &Layout {
        &self.0.layout
    }

    /// How the host uses cgroups.
    pub fn mode(&self) -> Mode {
        self.0.layout.mode
    }

    /// The root directory of the hierarchy at `index` of `layout().mounts`.
    pub(super) fn root(&self, index: usize) -> BorrowedFd<'_> {
        self.0.roots[index].as_fd()
    }

    pub(super) fn mount(&self, index: usize) -> &HierarchyMount {
        &self.0.layout.mounts[index]
    }

    pub(super) fn len(&self) -> usize {
        self.0.roots.len()
    }

    /// The calling process's own cgroup in each hierarchy, relative to the
    /// mount, without slashes at the ends; in the order of the layout.
    pub(super) fn own_paths(&self) -> Result<Vec<String>> {
        let text = read_proc("/proc/self/cgroup")?;
        let mountinfo = MountInfo::read()?;
        let path = |mount| {
            mountinfo.below(mount, &text).map_err(|problem| {
                let hint = "a relative path needs this process's own cgroup";
                Error::field(
                    "linux.cgroupsPath",
                    format!("{hint}; {problem}; use an absolute path"),
                )
            })
        };
        self.layout().mounts.iter().map(path).collect()
    }

    /// The cgroup in the hierarchy at `index` that `membership`, the text of a
    /// `/proc/PID/cgroup`, names; relative to the mount as above.
    pub(super) fn path_of_member(&self, index: usize, membership: &str) -> Result<String> {
        let below = MountInfo::read()?.below(self.mount(index), membership);
        below.map_err(|problem| Error::new(ErrorKind::WrongState, problem))
    }
}

/// The mounts of this process.
struct MountInfo(Vec<MountLine>);

impl MountInfo {
    fn read() -> Result<Self> {
        Ok(Self::parse(&read_proc("/proc/self/mountinfo")?))
    }

    fn parse(text: &str) -> Self {
        Self(text.lines().filter_map(MountLine::parse).collect())
    }

    /// What of its hierarchy a mount shows: the root of the mount may itself be
    /// a sub-directory of the hierarchy (a container that sees only its own
    /// part), and what we use as a mount a sub-directory of one.
    fn shown(&self, mount: &HierarchyMount) -> PathBuf {
        let covering = |line: &&MountLine| {
            line.is_of(&mount.kind) && mount.mount_point.starts_with(&line.mount_point)
        };
        let length = |line: &&MountLine| line.mount_point.as_os_str().len();
        // Of several the last: it lies on top.
        let Some(line) = self.0.iter().filter(covering).max_by_key(length) else {
            return PathBuf::from("/");
        };
        let rest = mount.mount_point.strip_prefix(&line.mount_point).unwrap_or(Path::new(""));
        Path::new(&line.root).join(rest)
    }

    /// The path of a cgroup below the mount, or what is wrong with it.
    fn below(&self, mount: &HierarchyMount, membership: &str) -> Result<String, String> {
        let entry = parse_membership(membership).find(|entry| entry.kind == mount.kind);
        let path = entry.map_or_else(|| "/".to_owned(), |entry| entry.path);
        let shown = self.shown(mount);
        let below = Path::new(&path).strip_prefix(&shown).ok().and_then(Path::to_str);
        match below {
            Some(path) if !path.split('/').any(|part| part == "..") => Ok(path.to_owned()),
            _ => Err(format!(
                "cgroup {path:?} lies outside of {}, which shows {}",
                mount.mount_point.display(),
                shown.display()
            )),
        }
    }
}

fn open_hierarchy(mount: &HierarchyMount) -> Result<OwnedFd> {
    let expected = if mount.is_v2() { CGROUP2_SUPER_MAGIC } else { CGROUP_SUPER_MAGIC };
    let mut result = open_checked(&mount.mount_point, expected);
    if let (Err(Errno::ENOENT), Kind::V1(list)) = (&result, &mount.kind) {
        // Controllers mounted together have one directory and a link per controller.
        let parent = mount.mount_point.parent().unwrap_or(Path::new(CONVENTIONAL));
        if let Some(first) = list.split(',').next() {
            result = open_checked(&parent.join(first), expected);
        }
    }
    result.map_err(|errno| {
        Error::sys(
            format!("opening the cgroup hierarchy at {}", mount.mount_point.display()),
            errno,
        )
    })
}

fn open_checked(path: &Path, expected: FsType) -> nix::Result<OwnedFd> {
    let dir = open_dir(path)?;
    // ENOENT: as far as we are concerned no such hierarchy is there.
    if magic(&dir)? == expected { Ok(dir) } else { Err(Errno::ENOENT) }
}

fn open_dir(path: &Path) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    open(path, flags, FileMode::empty())
}

fn magic(dir: &OwnedFd) -> nix::Result<FsType> {
    Ok(fstatfs(dir)?.filesystem_type())
}

fn v2_controllers(root: BorrowedFd<'_>, name: &str) -> Result<Controllers> {
    let text = file::read(root, name)
        .map_err(|errno| Error::sys(format!("reading {name} of the cgroup v2 root"), errno))?;
    Ok(Controllers::parse_v2(&text))
}

fn read_proc(path: &str) -> Result<String> {
    fs::read_to_string(path).map_err(|error| {
        Error::sys(format!("reading {path}"), error).with_kind(ErrorKind::Internal)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(membership: &str, mountinfo: &str) -> Result<String, String> {
        let mount = Layout::parse(mountinfo).unwrap().mounts.remove(0);
        MountInfo::parse(mountinfo).below(&mount, membership)
    }

    const WHOLE: &str = "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
    const PART: &str = "35 31 0:32 /docker/ab /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";

    #[test]
    fn the_own_cgroup_is_relative_to_what_is_mounted() {
        assert_eq!(own("4:memory:/system.slice/x\n", WHOLE).unwrap(), "system.slice/x");
        assert_eq!(own("4:memory:/\n", WHOLE).unwrap(), "");
        assert_eq!(own("4:memory:/docker/ab/c\n", PART).unwrap(), "c");
        assert_eq!(own("4:memory:/docker/ab\n", PART).unwrap(), "");
    }

    #[test]
    fn a_directory_in_a_mount_shows_its_part() {
        let mut mount = Layout::parse(PART).unwrap().mounts.remove(0);
        mount.mount_point.push("below");
        let lines = format!("27 1 254:0 / / rw - ext4 /dev/vda rw\n{WHOLE}{PART}");
        let below = |membership| MountInfo::parse(&lines).below(&mount, membership);
        assert_eq!(below("4:memory:/docker/ab/below/c/d\n").unwrap(), "c/d");
        assert_eq!(below("4:memory:/docker/ab/below\n").unwrap(), "");
        assert!(below("4:memory:/docker/ab/belowc\n").is_err());
    }

    #[test]
    fn an_own_cgroup_outside_of_the_mount_is_an_error() {
        for (membership, mounts) in
            [("4:memory:/docker/abc\n", PART), ("4:memory:/../x\n", WHOLE), ("4:memory:/x\n", PART)]
        {
            let problem = own(membership, mounts).unwrap_err();
            assert!(problem.contains("/sys/fs/cgroup/memory"), "{problem}");
        }
    }
}
