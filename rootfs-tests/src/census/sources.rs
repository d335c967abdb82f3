//! Where each kind of thing is read from.

use super::Things;
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

/// Programs whose processes count wherever they are.
const PROGRAMS: [&str; 7] =
    ["containerd", "containerd-shim", "runc", "crun", "boathook", "busybox", "ctr"];

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

/// Every directory of every mounted hierarchy.
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

fn directories(dir: &Path, things: &mut Things) {
    // A cgroup may go while it is being looked at.
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            count(things, entry.path().display().to_string());
            directories(&entry.path(), things);
        }
    }
}

/// Processes of runtimes, and every process in another pid or network namespace than ours, which
/// is what a container leaves when its shim is gone.
///
/// Their cgroup does not count: services and logins come and go in cgroups of their own. A
/// container's process that shares these namespaces keeps its cgroup in existence, which is counted.
///
/// A dead process that nobody has waited for yet counts when its parent is a runtime's; else that
/// is the affair of the machine's process 1.
pub(super) fn processes() -> Result<Things> {
    let place = |pid: &str| -> Option<[PathBuf; 2]> {
        let link = |namespace: &str| fs::read_link(format!("/proc/{pid}/ns/{namespace}")).ok();
        Some([link("pid")?, link("net")?])
    };
    let here = place("self");
    let mut things = Things::new();
    for entry in fs::read_dir("/proc").during(|| "list /proc")?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Ok(pid) = name.parse::<u32>() else { continue };
        if pid == std::process::id() {
            continue;
        }
        let (program, parent) = (program_of(&name), parent_of(&name));
        // Neither a kernel thread nor a dead process has an executable.
        let alive = fs::read_link(entry.path().join("exe")).is_ok();
        let counts = if alive {
            is_runtime(&program) || place(&name) != here
        } else {
            parent.is_some_and(|parent| is_runtime(&program_of(&parent)))
        };
        if counts {
            let line = host::command_line(pid);
            let what = if line.is_empty() { format!("[{}]", program.trim()) } else { line };
            count(&mut things, format!("{pid} {what}"));
        }
    }
    Ok(things)
}

fn program_of(pid: &str) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default()
}

fn parent_of(pid: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    Some(line.trim().to_owned())
}

fn is_runtime(program: &str) -> bool {
    PROGRAMS.iter().any(|known| program.starts_with(known))
}

/// The network namespaces that processes are in; those with a name are files.
pub(super) fn net_namespaces() -> Result<Things> {
    let mut things = Things::new();
    for entry in fs::read_dir("/proc").during(|| "list /proc")?.flatten() {
        if let Ok(namespace) = fs::read_link(entry.path().join("ns/net")) {
            things.insert(namespace.display().to_string(), 1);
        }
    }
    Ok(things)
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
        let ours = ["containerd", "boathook", "/tmp/bh"].iter().any(|mark| name.contains(mark));
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
