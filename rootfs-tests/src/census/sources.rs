//! Where each kind of thing is read from.

use super::Things;
use crate::containerd::JOURNAL;
use crate::error::{Context, Result};
use crate::host;
use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// Directories of runtimes, and how deep below them a directory may stay behind: runtimes make
/// those once for all containers, or once for each of containerd's namespaces.
const RUNTIME_DIRS: [(&str, usize); 7] = [
    ("/run/containerd/s", 0),
    ("/run/containerd/fifo", 0),
    ("/run/containerd/runc", 1),
    ("/run/boathook", 1),
    ("/run/runc", 0),
    ("/run/crun", 0),
    ("/run/netns", 0),
];

fn count(things: &mut Things, name: impl Into<String>) {
    *things.entry(name.into()).or_insert(0) += 1;
}

/// One line of mountinfo without the numbers, which are new with every mount
/// (proc_pid_mountinfo(5)).
pub(super) fn mounts() -> Result<Things> {
    let table = fs::read_to_string("/proc/self/mountinfo").during(|| "read mountinfo")?;
    let mut things = Things::new();
    for line in table.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let (Some(root), Some(point)) = (words.get(3), words.get(4)) else { continue };
        let kind = words.iter().position(|word| *word == "-").and_then(|at| words.get(at + 1));
        count(&mut things, format!("{point} ({}, root {root})", kind.unwrap_or(&"?")));
    }
    Ok(things)
}

/// Directories of every mounted hierarchy: ours by name, and those without processes, which is
/// what a runtime leaves. Services and logins come and go in cgroups of their own.
pub(super) fn cgroups() -> Result<Things> {
    let table = fs::read_to_string("/proc/self/mountinfo").during(|| "read mountinfo")?;
    let mut things = Things::new();
    for line in table.lines() {
        let is_cgroup = line.contains(" - cgroup ") || line.contains(" - cgroup2 ");
        if let (true, Some(point)) = (is_cgroup, line.split(' ').nth(4)) {
            directories(Path::new(point), &mut things);
        }
    }
    Ok(things)
}

/// Counts what is below `dir`; answers whether there is a process in it or below.
fn directories(dir: &Path, things: &mut Things) -> bool {
    let procs = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    let mut used = !procs.is_empty();
    // A cgroup may go while it is being looked at.
    let Ok(entries) = fs::read_dir(dir) else { return used };
    for entry in entries.flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let path = entry.path();
        let inner = directories(&path, things);
        let name = path.display().to_string();
        if !inner || name.contains(host::mark()) {
            count(things, name);
        }
        used |= inner;
    }
    used
}

/// Processes that belong to this one's daemons, shims and containers: the mark is in their command
/// line or cgroup, or in what their root directory is made of.
///
/// A dead process that nobody has waited for yet counts when its parent is such a process; else
/// that is the affair of the machine's process 1.
pub(super) fn processes() -> Result<Things> {
    let here = mount_namespace("self");
    let mut things = Things::new();
    for entry in fs::read_dir("/proc").during(|| "list /proc")?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Ok(pid) = name.parse::<u32>() else { continue };
        if pid == std::process::id() {
            continue;
        }
        // Neither a kernel thread nor a dead process has an executable.
        let alive = fs::read_link(entry.path().join("exe")).is_ok();
        let counts = if alive {
            is_ours(&name, here.as_ref())
        } else {
            parent_of(&name).is_some_and(|parent| is_ours(&parent, here.as_ref()))
        };
        if counts {
            let line = host::command_line(pid);
            let program = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            let what = if line.is_empty() { format!("[{}]", program.trim()) } else { line };
            // Without its number: a daemon that was restarted is the same.
            count(&mut things, what);
        }
    }
    Ok(things)
}

fn is_ours(pid: &str, here: Option<&PathBuf>) -> bool {
    let number = pid.parse().unwrap_or(0);
    if number == std::process::id() {
        return false;
    }
    let marked = |text: &str| text.contains(host::mark());
    let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    if marked(&host::command_line(number)) || marked(&read("cgroup")) {
        return true;
    }
    // The mount table of the host's own processes shows every container's root.
    mount_namespace(pid).as_ref() != here
        && read("mountinfo").lines().any(|line| line.split(' ').nth(4) == Some("/") && marked(line))
}

fn mount_namespace(pid: &str) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/mnt")).ok()
}

fn parent_of(pid: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    Some(line.trim().to_owned())
}

/// The host's network links.
pub(super) fn links() -> Result<Things> {
    let mut things = Things::new();
    for entry in fs::read_dir("/sys/class/net").during(|| "list /sys/class/net")?.flatten() {
        count(&mut things, entry.file_name().to_string_lossy());
    }
    Ok(things)
}

/// Named unix sockets of runtimes, listening or connected.
pub(super) fn sockets() -> Result<Things> {
    let table = fs::read_to_string("/proc/net/unix").during(|| "read /proc/net/unix")?;
    let mut things = Things::new();
    for name in table.lines().skip(1).filter_map(|line| line.split_whitespace().nth(7)) {
        let ours = ["/run/containerd", "boathook", host::mark()];
        let ours = ours.iter().any(|mark| name.contains(mark));
        // Connections of clients come and go; what counts is that the name is in use.
        if ours {
            things.insert(name.to_owned(), 1);
        }
    }
    Ok(things)
}

/// Files in the directories of runtimes and in these.
pub(super) fn files(more: &[PathBuf]) -> Result<Things> {
    let mut things = Things::new();
    for (dir, permanent) in RUNTIME_DIRS {
        below(Path::new(dir), permanent, &mut things);
    }
    for dir in more {
        below(dir, 0, &mut things);
    }
    Ok(things)
}

fn below(dir: &Path, permanent: usize, things: &mut Things) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let Ok(kind) = entry.file_type() else { continue };
        let path = entry.path();
        if path == Path::new(JOURNAL) {
            continue;
        }
        let name = match () {
            () if kind.is_dir() => format!("{}/", path.display()),
            () if kind.is_socket() => format!("{} (socket)", path.display()),
            () if kind.is_fifo() => format!("{} (fifo)", path.display()),
            () => path.display().to_string(),
        };
        if !kind.is_dir() || permanent == 0 {
            count(things, name);
        }
        if kind.is_dir() {
            below(&path, permanent.saturating_sub(1), things);
        }
    }
}
