//! What this process has on the machine, to be compared before and after.
//!
//! Only what is ours counts, so that other people's containers do not matter: descendants (we are
//! a subreaper), the mounts of our private namespace, cgroups with our tag in any hierarchy, our
//! descriptors and threads, and the directories of tests.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use rootfs_tests::wait;

use super::LIMIT;
use super::arena::Ground;

/// One count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Census {
    things: BTreeMap<String, usize>,
}

impl Census {
    pub(crate) fn take(ground: &Ground) -> Self {
        let mut things = BTreeMap::new();
        let mut add = |name: String| *things.entry(name).or_insert(0) += 1;
        descendants().into_iter().for_each(|it| add(format!("process {it}")));
        mounts().into_iter().for_each(|it| add(format!("mount {it}")));
        cgroups(&ground.tag).into_iter().for_each(|it| add(format!("cgroup {it}")));
        entries(Path::new("/proc/self/task")).iter().for_each(|_| add("thread".to_owned()));
        entries(ground.path()).into_iter().for_each(|it| add(format!("file {it}")));
        let descriptors = rootfs_tests::census::descriptors(std::process::id()).unwrap();
        for (name, count) in descriptors {
            things.insert(format!("descriptor {name}"), count);
        }
        Self { things }
    }

    /// Waits until everything is as it was: what the kernel takes away after a process's end
    /// takes a moment.
    pub(crate) fn assert_same(&self, ground: &Ground) {
        let mut last = None;
        let same = wait::until("the same census as before", LIMIT, || {
            boathook_runtime::process::reap_orphans();
            let now = Self::take(ground);
            let same = now == *self;
            last = Some(now);
            Ok(same.then_some(()))
        });
        if let (Err(error), Some(last)) = (same, last) {
            panic!("{error}\n{}", self.difference(&last));
        }
    }

    fn difference(&self, later: &Self) -> String {
        let mut names: Vec<_> = self.things.keys().chain(later.things.keys()).collect();
        names.sort_unstable();
        names.dedup();
        let count = |of: &Self, name: &String| of.things.get(name).copied().unwrap_or(0);
        let changed = names.into_iter().filter(|name| count(self, name) != count(later, name));
        changed
            .map(|name| format!("  {name}: {} → {}\n", count(self, name), count(later, name)))
            .collect()
    }
}

/// The processes below this one, dead ones that nobody has waited for included.
pub(crate) fn descendants() -> Vec<String> {
    let mut parents = BTreeMap::new();
    for name in entries(Path::new("/proc")) {
        let Ok(pid) = name.parse::<u32>() else { continue };
        let Some((parent, label)) = identity(pid) else { continue };
        parents.insert(pid, (parent, label));
    }
    let ours = |mut pid: u32| {
        while let Some((parent, _)) = parents.get(&pid) {
            if *parent == std::process::id() {
                return true;
            }
            pid = *parent;
        }
        false
    };
    let found = parents.iter().filter(|(pid, _)| ours(**pid));
    found.map(|(pid, (_, label))| format!("{pid} {label}")).collect()
}

/// Parent, and name with state, from `/proc/PID/stat`.
fn identity(pid: u32) -> Option<(u32, String)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (label, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?;
    Some((fields.next()?.parse().ok()?, format!("({label}) {state}")))
}

/// The mount points of this namespace with what is mounted there.
pub(crate) fn mounts() -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let words = table.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    words.map(|words| format!("{} {}", words[4], words[words.len() - 2])).collect()
}

/// Every directory with our tag in its path, in any hierarchy.
pub(crate) fn cgroups(tag: &str) -> Vec<String> {
    let mut found = Vec::new();
    for point in cgroup_mounts() {
        walk(Path::new(&point), tag, &mut found);
    }
    found
}

/// Where the hierarchies are mounted.
pub(crate) fn cgroup_mounts() -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let lines = table.lines().filter(|l| l.contains(" - cgroup ") || l.contains(" - cgroup2 "));
    lines.map(|line| line.split(' ').nth(4).unwrap_or_default().to_owned()).collect()
}

fn walk(dir: &Path, tag: &str, found: &mut Vec<String>) {
    let Ok(all) = fs::read_dir(dir) else { return };
    for entry in all.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        let path = entry.path().display().to_string();
        if path.contains(tag) {
            found.push(path);
        }
        walk(&entry.path(), tag, found);
    }
}

/// Names in a directory.
pub(crate) fn entries(dir: &Path) -> Vec<String> {
    let Ok(all) = fs::read_dir(dir) else { return Vec::new() };
    all.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}
