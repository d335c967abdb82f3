//! The end of a cgroup: nobody gets away, nothing is left.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use boathook_runtime::ErrorKind;
use boathook_runtime::cgroup::{Cgroup, Join, Mode};
use rustix::fs::{CWD, FileType, Mode as Permissions, makedev, mknodat};
use rustix::mount::{UnmountFlags, mount_bind, unmount};
use rustix::process::{Signal, pidfd_send_signal};

use super::support::{Arena, Child, deadline, on_each};

/// Each shell starts its successor and exits, so that a list of pids is out of
/// date as soon as it is read.
const COMET: &str = r#"echo x; sh -c "$0" "$0" & exit 0"#;

/// Only the v1 half of a join, so that v2's cgroup.kill reaches nobody.
fn v1_only(join: Join) -> Join {
    match join {
        Join::Hybrid { tasks, .. } | Join::V1(tasks) => Join::V1(tasks),
        v2 @ Join::V2(_) => v2,
    }
}

/// Comets do not multiply unless a test is wrong; where it can be, that is made sure.
fn comet_limits(arena: &Arena) -> &'static str {
    if arena.hierarchies.mode() == Mode::V2 { "{}" } else { r#"{"pids":{"limit":20}}"# }
}

fn comets(join: &Join) -> Vec<Child> {
    let comets: Vec<_> = (0..4).map(|_| Child::shell(join, COMET)).collect();
    comets.iter().for_each(Child::await_output);
    comets
}

fn kill_comets(group: &Cgroup, join: &Join) {
    let comets = comets(join);
    group.kill_all(deadline()).unwrap();
    assert!(group.pids(true).unwrap().is_empty());
    for comet in comets {
        comet.wait();
    }
    group.delete(deadline()).unwrap();
}

/// Red if a process that is forked between listing and killing survives.
#[test]
fn respawning_processes_do_not_escape() {
    on_each(|arena| {
        let group = arena.create("c", comet_limits(arena));
        kill_comets(&group, &group.join_files().unwrap());
        arena.assert_clean();
    });
}

/// The same by freezing and signalling, as on hosts without v2 or before 5.14.
#[test]
fn respawning_processes_do_not_escape_without_cgroup_kill() {
    on_each(|arena| {
        let group = arena.create("c", comet_limits(arena));
        kill_comets(&group, &v1_only(group.join_files().unwrap()));
        arena.assert_clean();
    });
}

/// The same on v2 as before Linux 5.14, which brought `cgroup.kill`: v2's own freezer, whether it is
/// alone or beside v1. Seen red without the fallback of `kill_at_once`.
#[test]
fn v2_without_its_file_for_killing_is_frozen_and_signalled() {
    on_each(|arena| {
        let group = arena.create("c", comet_limits(arena));
        let gone = Gone::new(&arena.v2_dir("c/cgroup.kill"));
        let error = std::fs::write(&gone.0, "1").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV), "{error}");
        let join = group.join_files().unwrap();
        let frozen = Child::shell(&join, "exec sleep 1000");
        group.freeze(deadline()).unwrap();
        let killed = group.kill_all(deadline());
        // Nobody could clean up after a failure.
        let _ = group.thaw();
        killed.unwrap();
        frozen.wait();
        let comets = comets(&join);
        group.kill_all(deadline()).unwrap();
        assert!(group.pids(true).unwrap().is_empty());
        for comet in comets {
            comet.wait();
        }
        drop(gone);
        group.delete(deadline()).unwrap();
        arena.assert_clean();
    });
}

/// A file of the kernel that cannot be opened, as if it were not there: covered by a device that
/// no driver serves.
struct Gone(PathBuf);

impl Gone {
    fn new(file: &Path) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let node = dir.path().join("node");
        let served = std::fs::read_to_string("/proc/misc").unwrap();
        let served =
            |minor: &u32| served.lines().any(|l| l.trim().starts_with(&format!("{minor} ")));
        let minor = (0..255).find(|minor| !served(minor)).unwrap();
        let mode = Permissions::RUSR | Permissions::WUSR;
        mknodat(CWD, &node, FileType::CharacterDevice, mode, makedev(10, minor)).unwrap();
        mount_bind(&node, file).unwrap();
        Self(file.to_owned())
    }
}

impl Drop for Gone {
    fn drop(&mut self) {
        unmount(&self.0, UnmountFlags::DETACH).unwrap();
    }
}

/// Red if a paused container cannot be ended.
#[test]
fn a_frozen_group_dies() {
    on_each(|arena| {
        for whole in [true, false] {
            let group = arena.create("c", "{}");
            let join = group.join_files().unwrap();
            let join = if whole { join } else { v1_only(join) };
            let children: Vec<_> = (0..3).map(|_| Child::shell(&join, "exec sleep 1000")).collect();
            group.freeze(deadline()).unwrap();
            group.kill_all(deadline()).unwrap();
            for child in children {
                child.wait();
            }
            group.delete(deadline()).unwrap();
            arena.assert_clean();
        }
    });
}

/// Red if processes in child cgroups are not counted, not killed, or keep the parent busy.
#[test]
fn child_cgroups_belong_to_it() {
    on_each(|arena| {
        let group = arena.create("c", "{}");
        // First, while `c` may have processes: on v2 it may not once it hands controllers on.
        let outer_child = Child::sleeper(&group);
        let inner = arena.create("c/x/y/z", "{}");
        let side = arena.create("c/side", "{}");
        let inner_child = Child::sleeper(&inner);
        assert_eq!(group.pids(false).unwrap(), [outer_child.pid]);
        let mut both = [outer_child.pid, inner_child.pid];
        both.sort_unstable();
        assert_eq!(group.pids(true).unwrap(), both);
        group.kill_all(deadline()).unwrap();
        outer_child.wait();
        inner_child.wait();
        group.delete(deadline()).unwrap();
        arena.assert_clean();
        // Their own deletes come late, and find nothing to do.
        inner.delete(deadline()).unwrap();
        side.delete(deadline()).unwrap();
    });
}

/// Red if a deep tree costs a descriptor per level: the limit is 1024.
#[test]
fn a_deep_tree_is_removed() {
    on_each(|arena| {
        let group = arena.create("c", "{}");
        let deep = vec!["d"; 1100].join("/");
        let leaf = arena.dir("c").join(&deep);
        assert!(leaf.as_os_str().len() < 4096);
        std::fs::create_dir_all(&leaf).unwrap();
        group.delete(deadline()).unwrap();
        arena.assert_clean();
    });
}

/// Red if signal_all misses a process or reaches one outside.
#[test]
fn a_signal_reaches_all_and_only_them() {
    on_each(|arena| {
        let group = arena.create("c", "{}");
        let other = arena.create("other", "{}");
        let inside: Vec<_> = (0..3).map(|_| Child::sleeper(&group)).collect();
        let outside = Child::sleeper(&other);
        group.signal_all(Signal::TERM.as_raw()).unwrap();
        for child in inside {
            assert_eq!(child.wait().terminating_signal(), Some(Signal::TERM.as_raw()));
        }
        assert_eq!(other.pids(true).unwrap(), [outside.pid]);
        assert_eq!(group.signal_all(0).unwrap_err().kind(), ErrorKind::InvalidInput);
        other.kill_all(deadline()).unwrap();
        assert_eq!(outside.wait().terminating_signal(), Some(Signal::KILL.as_raw()));
        group.delete(deadline()).unwrap();
        other.delete(deadline()).unwrap();
        arena.assert_clean();
    });
}

/// Red if delete kills, gives up at once, or waits beyond its deadline for ever.
#[test]
fn delete_of_a_busy_group_times_out_and_can_be_repeated() {
    on_each(|arena| {
        let group = arena.create("c", "{}");
        let child = Child::sleeper(&group);
        let error = group.delete(Instant::now() + Duration::from_millis(20)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
        assert!(error.to_string().contains(&child.pid.to_string()), "{error}");
        assert_eq!(group.pids(true).unwrap(), [child.pid], "delete must not kill");
        group.kill_all(deadline()).unwrap();
        child.wait();
        group.delete(deadline()).unwrap();
        group.delete(deadline()).unwrap();
        arena.assert_clean();
    });
}

/// Red if delete does not notice the last process's end.
#[test]
fn delete_waits_for_the_last_process() {
    on_each(|arena| {
        for whole in [true, false] {
            let group = arena.create("c", "{}");
            let join = group.join_files().unwrap();
            let join = if whole { join } else { v1_only(join) };
            let child = Child::shell(&join, "exec sleep 1000");
            std::thread::scope(|scope| {
                let delete = scope.spawn(|| group.delete(deadline()));
                pidfd_send_signal(&child.pidfd, Signal::KILL).unwrap();
                delete.join().unwrap().unwrap();
            });
            child.wait();
            arena.assert_clean();
        }
    });
}

/// Red if a parent is removed from under a sibling, or one of ours stays behind when it could go.
#[test]
fn made_parents_go_with_the_last_of_their_makers() {
    on_each(|arena| {
        let first = arena.create("p/q/first", "{}");
        let second = arena.create("p/q/second", "{}");
        first.delete(deadline()).unwrap();
        assert!(arena.dir("p/q/second").exists());
        assert!(!arena.dir("p/q/first").exists());
        // The second found the parents there, so they are not its to remove.
        second.delete(deadline()).unwrap();
        assert!(arena.dir("p/q").exists());
        let third = arena.create("r/third", "{}");
        third.delete(deadline()).unwrap();
        assert!(!arena.dir("r").exists());
    });
}
