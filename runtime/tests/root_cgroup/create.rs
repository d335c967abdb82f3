//! Making a cgroup: limits first, then tasks; all of it or nothing.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use boathook_runtime::ErrorKind;
use boathook_runtime::cgroup::{Cgroup, CgroupRecord, Join, Mode};

use super::bpf;
use super::support::{Arena, Child, deadline, on_each};

/// Red if a limit is lost, lands in the wrong file, or is written in an order the kernel refuses.
#[test]
fn limits_are_in_place_before_any_task() {
    let arena = Arena::new();
    // Only v1 has it, and v2 refuses it by name: a test without a cgroup.
    let swappiness = arena.either(r#","swappiness":10"#, "");
    let group = arena.create(
        "c",
        &format!(
            r#"{{"cpu":{{"shares":512,"period":50000,"quota":20000,"burst":1000,"cpus":"0","mems":"0"}},
            "memory":{{"limit":33554432,"swap":67108864,"reservation":16777216{swappiness}}},
            "pids":{{"limit":7}},
            "devices":[{{"allow":false,"access":"rwm"}},
                       {{"allow":true,"type":"c","major":10,"minor":229,"access":"rw"}}]}}"#
        ),
    );
    arena.assert_limits(
        "c",
        &[
            ("cpu", ("cpu.shares", "512"), ("cpu.weight", "59")),
            ("cpu", ("cpu.cfs_period_us", "50000"), ("cpu.max", "20000 50000")),
            ("cpu", ("cpu.cfs_quota_us", "20000"), ("cpu.max", "20000 50000")),
            ("cpu", ("cpu.cfs_burst_us", "1000"), ("cpu.max.burst", "1000")),
            ("cpuset", ("cpuset.cpus", "0"), ("cpuset.cpus", "0")),
            ("cpuset", ("cpuset.mems", "0"), ("cpuset.mems", "0")),
            ("memory", ("memory.limit_in_bytes", "33554432"), ("memory.max", "33554432")),
            // v2 counts swap alone.
            (
                "memory",
                ("memory.memsw.limit_in_bytes", "67108864"),
                ("memory.swap.max", "33554432"),
            ),
            ("memory", ("memory.soft_limit_in_bytes", "16777216"), ("memory.low", "16777216")),
            ("pids", ("pids.max", "7"), ("pids.max", "7")),
        ],
    );
    if arena.on_v2() {
        // What the program decides is asked in the module of devices.
        assert_eq!(bpf::attached(&arena.dir("c")).len(), 1);
    } else {
        assert_eq!(arena.text("memory", "c/memory.swappiness"), "10");
        let devices = arena.text("devices", "c/devices.list");
        assert!(devices.lines().any(|l| l == "c 10:229 rw"), "{devices}");
        assert!(devices.lines().any(|l| l == "c 1:3 rwm"), "{devices}");
        assert!(!devices.contains("a *:*"), "{devices}");
    }
    assert!(group.pids(true).unwrap().is_empty());
    group.delete(deadline()).unwrap();
    arena.assert_clean();
}

/// Red if a hierarchy is forgotten, the named and the unified one included.
#[test]
fn a_child_is_born_into_every_hierarchy() {
    on_each(|arena| {
        let group = arena.create("a/b/c", "{}");
        let child = Child::sleeper(&group);
        let membership = fs::read_to_string(format!("/proc/{}/cgroup", child.pid)).unwrap();
        let mounts = &arena.hierarchies.layout().mounts;
        for mount in mounts {
            let line = membership.lines().find(|line| line.split(':').nth(1) == Some(&mount.key()));
            let path = line.and_then(|line| line.split(':').nth(2)).unwrap();
            assert!(path.ends_with(&arena.path("a/b/c")), "{mount:?}: {membership}");
            assert!(path.starts_with("/boathook-test-"), "{mount:?}: {membership}");
        }
        assert_eq!(group.directories().count(), mounts.len());
        assert_eq!(group.pids(false).unwrap(), [child.pid]);
        group.kill_all(deadline()).unwrap();
        child.wait();
        group.delete(deadline()).unwrap();
        arena.assert_clean();
    });
}

/// Red if a new parent is left without CPUs (v1) or with a list of its own (v2), or the leaf's own
/// list is overwritten by the parent's.
#[test]
fn cpusets_take_over_from_the_parent() {
    let arena = Arena::new();
    let group = arena.create("p/q/leaf", r#"{"cpu":{"cpus":"0"}}"#);
    if arena.on_v2() {
        for dir in ["p", "p/q"] {
            // Empty: whatever the parent has, also when that changes.
            assert_eq!(arena.text("cpuset", &format!("{dir}/cpuset.cpus")), "");
        }
        assert_eq!(arena.text("cpuset", "p/q/leaf/cpuset.cpus.effective"), "0");
    } else {
        let root = fs::read_to_string("/sys/fs/cgroup/cpuset/cpuset.cpus").unwrap();
        assert_eq!(arena.text("cpuset", "p/cpuset.cpus"), root.trim_end());
        assert_eq!(arena.text("cpuset", "p/q/cpuset.cpus"), root.trim_end());
        for dir in ["p", "p/q", "p/q/leaf"] {
            assert_ne!(arena.text("cpuset", &format!("{dir}/cpuset.mems")), "", "{dir}");
        }
    }
    assert_eq!(arena.text("cpuset", "p/q/leaf/cpuset.cpus"), "0");
    group.delete(deadline()).unwrap();
    arena.assert_clean();
}

/// Red if one refused limit leaves a directory behind, or the error hides whose limit it was.
#[test]
fn a_refused_limit_undoes_everything() {
    let arena = Arena::new();
    let refused = [
        (r#"{"cpu":{"cpus":"999"}}"#, "linux.resources.cpu.cpus: "),
        (r#"{"pids":{"limit":5000000}}"#, "linux.resources.pids.limit: "),
        (r#"{"cpu":{"quota":1}}"#, "linux.resources.cpu.quota: "),
        (
            r#"{"blockIO":{"throttleReadBpsDevice":[{"major":4000,"minor":9,"rate":5}]}}"#,
            "linux.resources.blockIO.throttleReadBpsDevice[0]: ",
        ),
    ];
    for name in ["leaf", "new/parents/leaf"] {
        for (resources, start) in refused {
            let error = arena.try_create(name, resources).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
            assert!(error.to_string().starts_with(start), "{error}");
            arena.assert_clean();
        }
    }
}

/// Red if the hierarchies made before the failing one are left behind. In the
/// memory hierarchy the name is taken by a file; on v2, whose one tree has that file only with
/// the controller, a directory of this name keeps the controller from being switched on.
#[test]
fn a_failure_half_way_through_the_hierarchies_undoes_the_first_half() {
    let arena = Arena::new();
    for name in ["memory.stat", "memory.stat/deeper", "new/memory.stat/deeper"] {
        let error = arena.try_create(name, "{}").unwrap_err();
        let named = arena.either("memory.stat", "memory");
        assert!(error.to_string().contains(named), "{error}");
        arena.assert_clean();
    }
}

/// Red if two containers can share a cgroup, or if the refusal removes the first one's.
#[test]
fn an_occupied_cgroup_is_refused_and_kept() {
    let arena = Arena::new();
    let group = arena.create("c", r#"{"pids":{"limit":9}}"#);
    let child = Child::sleeper(&group);
    let census = arena.census();
    let error = arena.try_create("c", "{}").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WrongState, "{error}");
    assert!(error.to_string().contains(&child.pid.to_string()), "{error}");
    assert_eq!(arena.census(), census);
    assert_eq!(arena.text("pids", "c/pids.max"), "9");
    group.kill_all(deadline()).unwrap();
    child.wait();
    group.delete(deadline()).unwrap();
    arena.assert_clean();
}

/// Red if an empty leftover blocks its name, or if its old, lower swap limit blocks the new one.
#[test]
fn an_empty_leftover_is_taken_over_with_new_limits() {
    let arena = Arena::new();
    let old = r#"{"memory":{"limit":8388608,"swap":8388608}}"#;
    let first = arena.create("c", old);
    let second = arena.create("c", r#"{"memory":{"limit":67108864,"swap":67108864}}"#);
    arena.assert_limits(
        "c",
        &[
            ("memory", ("memory.limit_in_bytes", "67108864"), ("memory.max", "67108864")),
            ("memory", ("memory.memsw.limit_in_bytes", "67108864"), ("memory.swap.max", "0")),
        ],
    );
    second.delete(deadline()).unwrap();
    first.delete(deadline()).unwrap();
    arena.assert_clean();
}

/// Red if a frozen leftover is taken over: nothing started in it would ever run.
#[test]
fn a_frozen_leftover_is_refused() {
    on_each(|arena| {
        let group = arena.create("c", "{}");
        group.freeze(deadline()).unwrap();
        let error = arena.try_create("c", "{}").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WrongState, "{error}");
        group.thaw().unwrap();
        group.delete(deadline()).unwrap();
        arena.assert_clean();
    });
}

/// Red if a record loses what is needed to find and remove the cgroup after a restart.
#[test]
fn a_record_finds_its_cgroup_again() {
    on_each(|arena| {
        let group = arena.create("made/here/c", "{}");
        let json = serde_json::to_string(&group.record()).unwrap();
        drop(group);
        let record: CgroupRecord = serde_json::from_str(&json).unwrap();
        let again = Cgroup::from_record(&arena.hierarchies, &record).unwrap();
        assert_eq!(again.record(), record);
        assert_eq!(again.path(), arena.path("made/here/c"));
        again.delete(deadline()).unwrap();
        arena.assert_clean();
    });
}

/// Red if exec cannot find a container by its path, or finds one that is not there.
#[test]
fn an_existing_cgroup_opens_by_path() {
    on_each(|arena| {
        let error = Cgroup::open(&arena.hierarchies, &arena.path("c")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
        let error = Cgroup::open(&arena.hierarchies, "/a/../b").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        let group = arena.create("c", "{}");
        let opened = Cgroup::open(&arena.hierarchies, &arena.path("c")).unwrap();
        let join = opened.join_files().unwrap();
        match (arena.hierarchies.mode(), &join) {
            (Mode::V1, Join::V1(_))
            | (Mode::V2, Join::V2(_))
            | (Mode::Hybrid, Join::Hybrid { .. }) => {}
            (mode, join) => panic!("{mode:?} host joins by {join:?}"),
        }
        let child = Child::shell(&join, "exec sleep 1000");
        assert_eq!(group.pids(true).unwrap(), [child.pid]);
        group.kill_all(deadline()).unwrap();
        child.wait();
        opened.delete(deadline()).unwrap();
        arena.assert_clean();
    });
}

/// An init that has left its cgroup, which then takes no process.
struct Moved {
    /// Where it is now.
    to: PathBuf,
    made: PathBuf,
}

impl Moved {
    fn away(group: &Cgroup, init: &Child) -> Self {
        let v2 = group.directories().find(|d| d.is_v2).unwrap();
        let own = v2.mount_point.join(v2.path);
        let parent = own.parent().unwrap().to_owned();
        let passed_on = fs::read_to_string(parent.join("cgroup.subtree_control")).unwrap();
        let (to, made) = if passed_on.trim_end().is_empty() {
            // Up; then a threaded sibling makes the old place invalid for processes.
            (parent.clone(), parent.join("threads"))
        } else {
            // Down, as systemd does, to hand controllers on from where it was.
            (own.join("init.scope"), own.join("init.scope"))
        };
        if made == to {
            fs::create_dir(&made).unwrap();
        }
        fs::write(to.join("cgroup.procs"), init.pid.to_string()).unwrap();
        if made == to {
            fs::write(own.join("cgroup.subtree_control"), "+pids").unwrap();
        } else {
            fs::create_dir(&made).unwrap();
            fs::write(made.join("cgroup.type"), "threaded").unwrap();
        }
        Self { to, made }
    }

    /// What is below the container's own cgroup goes with it.
    fn undo(&self) {
        if self.made != self.to {
            fs::remove_dir(&self.made).unwrap();
        }
    }
}

/// Red if a container that moved its own processes gets no exec any more, or
/// its exec ends up anywhere but where its init is now.
#[test]
fn a_further_process_follows_init_out_of_a_cgroup_that_takes_none() {
    on_each(|arena| {
        let group = arena.create("p/c", "{}");
        let init = Child::sleeper(&group);
        let moved = Moved::away(&group, &init);
        let mut join = group.join_files().unwrap();
        let errno = Child::try_shell(&join, "exit").unwrap_err().raw_os_error().unwrap();
        let errno = nix::errno::Errno::from_raw(errno);
        assert!(Cgroup::refuses_processes(errno), "{errno}");
        let error = group.birth_error(errno);
        assert_eq!(error.kind(), ErrorKind::WrongState, "{error}");

        let place = group.birthplace(init.pidfd.as_fd()).unwrap();
        match &mut join {
            Join::V1(_) => unreachable!("there is a v2 directory"),
            Join::V2(unified) | Join::Hybrid { unified, .. } => *unified = place,
        }
        let further = Child::shell(&join, "exec sleep 1000");
        let procs = fs::read_to_string(moved.to.join("cgroup.procs")).unwrap();
        assert!(procs.lines().any(|line| line == further.pid.to_string()), "{procs}");
        for child in [&init, &further] {
            rustix::process::pidfd_send_signal(&child.pidfd, rustix::process::Signal::KILL)
                .unwrap();
            child.wait();
        }
        let error = group.birthplace(init.pidfd.as_fd()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
        moved.undo();
        group.delete(deadline()).unwrap();
        arena.assert_clean();
        let gone = group.birth_error(nix::errno::Errno::ENODEV);
        assert_eq!(gone.kind(), ErrorKind::NotFound, "{gone}");
    });
}

/// Red if a file of the delegation stays root's, or a limit becomes the container's.
#[test]
fn the_owner_gets_what_the_kernel_delegates() {
    const UID: u32 = 4711;
    let arena = Arena::unified();
    let plan = arena.plan("own", "{}").unwrap().owned_by(UID);
    let group = Cgroup::create(&arena.hierarchies, &plan).unwrap();
    let dir = arena.dir("own");
    let delegated = fs::read_to_string("/sys/kernel/cgroup/delegate").unwrap();
    let mut given = 0;
    for entry in fs::read_dir(&dir).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let theirs = delegated.lines().any(|it| it == name);
        let metadata = entry.metadata().unwrap();
        let owner = if theirs { UID } else { 0 };
        assert_eq!((metadata.uid(), metadata.gid()), (owner, 0), "{name}");
        given += usize::from(theirs);
    }
    assert!(given >= 3, "cgroup.procs, cgroup.threads and cgroup.subtree_control: {given}");
    assert_eq!(fs::metadata(&dir).unwrap().uid(), UID);
    // What the owner makes there goes with the cgroup.
    fs::create_dir(dir.join("below")).unwrap();
    group.delete(deadline()).unwrap();
    arena.assert_clean();
}
