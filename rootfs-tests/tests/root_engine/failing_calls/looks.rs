//! What a container's process looks like from outside: everything that a call which failed and was
//! shrugged off might have left weaker than it is to be.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::support::{census, mountinfo};

/// Lines of `/proc/PID/status` that say what the process may do.
const STATUS: &[&str] = &[
    "Umask",
    "Uid",
    "Gid",
    "Groups",
    "CapInh",
    "CapPrm",
    "CapEff",
    "CapBnd",
    "CapAmb",
    "NoNewPrivs",
    "Seccomp",
    "Seccomp_filters",
    "Cpus_allowed_list",
];
/// Files of its cgroups.
const LIMITS: &[&str] =
    &["pids.max", "memory.limit_in_bytes", "memory.max", "cpu.shares", "devices.list"];

/// One line for each thing. `cgroup` is its cgroup's path in every hierarchy.
pub(super) fn of(pid: u32, cgroup: &str) -> String {
    let mut text = String::new();
    let at = |name: &str| format!("/proc/{pid}/{name}");
    let read = |name: &str| fs::read_to_string(at(name)).unwrap_or_else(|e| format!("{name}: {e}"));
    let status = read("status");
    let told = |line: &&str| STATUS.iter().any(|name| line.split(':').next() == Some(name));
    status.lines().filter(told).for_each(|line| _ = writeln!(text, "{line}"));
    for file in ["limits", "oom_score_adj", "cgroup"] {
        text.push_str(&read(file));
    }
    // What of /proc belongs to root shows that others may not look into the process.
    let owner = fs::metadata(at("environ")).map(|found| found.uid());
    _ = writeln!(text, "looked into by {owner:?}");
    for kind in ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"] {
        let link = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok();
        let own = link(&pid.to_string()) != link("self");
        _ = writeln!(text, "{kind} namespace of its own: {own}");
    }
    // There is none any more of a process that has just ended.
    let table = fs::read_to_string(at("mountinfo")).unwrap_or_default();
    for entry in mountinfo::parse(&table) {
        let numbers = |name: &String| name.split(':').next().unwrap_or_default().to_owned();
        let propagation: Vec<String> = entry.propagation.iter().map(numbers).collect();
        _ = writeln!(
            text,
            "mount {} {} {:?} {propagation:?} {} {:?}",
            entry.point, entry.root, entry.options, entry.kind, entry.superblock
        );
    }
    for (name, count) in rootfs_tests::census::descriptors(pid).unwrap_or_default() {
        _ = writeln!(text, "descriptor {name} × {count}");
    }
    nodes(Path::new(&at("root/dev")), &mut text);
    for point in census::cgroup_mounts() {
        for file in LIMITS {
            if let Ok(limit) = fs::read_to_string(format!("{point}{cgroup}/{file}")) {
                _ = writeln!(text, "{point} {file} {}", limit.trim_end().replace('\n', "; "));
            }
        }
    }
    text
}

fn nodes(dir: &Path, text: &mut String) {
    let mut names = census::entries(dir);
    names.sort();
    for name in names {
        let Ok(found) = fs::symlink_metadata(dir.join(&name)) else { continue };
        _ = writeln!(text, "/dev/{name} {:o} {:x}", found.mode(), found.rdev());
    }
}

/// The lines that only one of two has.
pub(super) fn difference(one: &str, other: &str) -> String {
    let only = |a: &str, b: &str, sign: char| {
        let lines = a.lines().filter(|line| !b.lines().any(|it| it == *line));
        lines.fold(String::new(), |text, line| format!("{text}  {sign} {line}\n"))
    };
    only(one, other, '-') + &only(other, one, '+')
}
