//! v2 on recorded trees: controllers that no host of ours has on v2.
//!
//! The files are plain ones, so a shorter value leaves the tail of a longer
//! one; those whose writes are to be seen one by one are fifos.

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::stat::Mode as FileMode;
use oci_spec::runtime::LinuxResources;

use super::controller::Controllers;
use super::{Cgroup, CgroupPlan, Driver, Hierarchies, HierarchyMount, Kind, Layout, Mode};
use crate::error::ErrorKind;

/// A directory that looks like a hierarchy.
struct Tree {
    dir: tempfile::TempDir,
    layout: Layout,
}

impl Tree {
    /// A v2 host with these controllers.
    fn v2(controllers: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mount = HierarchyMount {
            kind: Kind::V2,
            controllers: Controllers::parse_v2(controllers),
            mount_point: dir.path().to_owned(),
        };
        Self { dir, layout: Layout { mode: Mode::V2, mounts: vec![mount] } }
    }

    fn file(&self, path: &str, text: &str) {
        let path = self.dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn text(&self, path: &str) -> String {
        fs::read_to_string(self.dir.path().join(path)).unwrap()
    }

    fn fifo(&self, path: &str) -> Fifo {
        let path = self.dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let _ = fs::remove_file(&path);
        nix::unistd::mkfifo(&path, FileMode::from_bits_truncate(0o600)).unwrap();
        Fifo::open(&path)
    }

    fn group(&self, path: &str) -> Cgroup {
        Cgroup::open(&Hierarchies::recorded(self.layout.clone()), path).unwrap()
    }
}

/// What was written to a file, all of it.
struct Fifo(File);

impl Fifo {
    fn open(path: &Path) -> Self {
        // Held for writing too, so that it is never at its end.
        let options =
            OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(path);
        Self(options.unwrap())
    }

    fn written(&mut self) -> String {
        let mut buffer = [0; 256];
        match self.0.read(&mut buffer) {
            Ok(n) => String::from_utf8_lossy(&buffer[..n]).into_owned(),
            Err(_) => String::new(),
        }
    }
}

fn resources(json: &str) -> LinuxResources {
    serde_json::from_str(json).unwrap()
}

/// Makes the cgroup `/a/leaf`, which is there already; for its limits the tree
/// need not have files.
fn create(tree: &Tree, json: &str) -> crate::Result<Cgroup> {
    let resources = resources(json);
    let plan =
        CgroupPlan::new(Some("/a/leaf"), "id", Driver::Cgroupfs, Some(&resources), &tree.layout)?;
    Cgroup::create(&Hierarchies::recorded(tree.layout.clone()), &plan)
}

const PRIVILEGED: &str = r#"{"devices":[{"allow":true}]}"#;

fn empty_leaf(tree: &Tree, controllers: &str) {
    tree.file("a/leaf/cgroup.controllers", controllers);
    tree.file("a/leaf/cgroup.procs", "");
    tree.file("a/leaf/cgroup.events", "populated 0\nfrozen 0\n");
    tree.file("a/leaf/cgroup.freeze", "0\n");
    tree.file("a/leaf/cgroup.subtree_control", "\n");
}

/// What the root and `a` could hand on; `a` has these processes of its own.
fn parents(tree: &Tree, controllers: &str, pids: &str) {
    tree.file("cgroup.controllers", controllers);
    tree.file("a/cgroup.controllers", controllers);
    tree.file("a/cgroup.type", "domain\n");
    tree.file("a/cgroup.procs", pids);
}

/// Red if a parent on the way is left out, or what the leaf has is asked for again.
#[test]
fn missing_controllers_are_switched_on_from_the_top() {
    let tree = Tree::v2("cpu io memory pids");
    empty_leaf(&tree, "cpu pids\n");
    parents(&tree, "cpuset cpu io memory pids\n", "");
    let mut root = tree.fifo("cgroup.subtree_control");
    let mut parent = tree.fifo("a/cgroup.subtree_control");
    create(&tree, PRIVILEGED).unwrap();
    for fifo in [&mut root, &mut parent] {
        assert_eq!(fifo.written(), "+memory +io");
    }
    // Nothing is missing: nothing is written.
    tree.file("a/leaf/cgroup.controllers", "cpuset cpu io memory pids\n");
    create(&tree, PRIVILEGED).unwrap();
    assert_eq!((root.written(), parent.written()), (String::new(), String::new()));
    // One with processes would become a tree of threads: it hands nothing on.
    empty_leaf(&tree, "cpu pids\n");
    parents(&tree, "cpuset cpu io memory pids\n", "17\n");
    create(&tree, PRIVILEGED).unwrap();
    assert_eq!((root.written(), parent.written()), ("+memory +io".to_owned(), String::new()));
}

/// Red if a hybrid host's v2 root is written to, or more is switched on than is needed.
#[test]
fn a_hybrid_host_keeps_its_root() {
    let mut tree = Tree::v2("hugetlb misc");
    empty_leaf(&tree, "\n");
    parents(&tree, "hugetlb misc\n", "");
    tree.file("a/leaf/hugetlb.2MB.max", "");
    let devices = tree.dir.path().join("devices");
    fs::create_dir_all(devices.join("a/leaf")).unwrap();
    for file in ["cgroup.procs", "devices.allow", "devices.deny"] {
        fs::write(devices.join("a/leaf").join(file), "").unwrap();
    }
    let mount = HierarchyMount {
        kind: Kind::V1("devices".into()),
        controllers: Controllers::parse_v2("devices"),
        mount_point: devices,
    };
    tree.layout.mounts.insert(0, mount);
    tree.layout.mode = Mode::Hybrid;
    let mut root = tree.fifo("cgroup.subtree_control");
    let mut parent = tree.fifo("a/cgroup.subtree_control");
    create(&tree, r#"{"hugepageLimits":[{"pageSize":"2MB","limit":4194304}]}"#).unwrap();
    assert_eq!((root.written().as_str(), parent.written().as_str()), ("", "+hugetlb"));
    assert_eq!(tree.text("a/leaf/hugetlb.2MB.max"), "4194304");
    create(&tree, "{}").unwrap();
    assert_eq!((root.written(), parent.written()), (String::new(), String::new()));
}

/// Red if a leftover that hands controllers on is taken over as it is: no
/// process could be born into it.
#[test]
fn a_leftover_takes_processes_again() {
    let tree = Tree::v2("cpu memory");
    empty_leaf(&tree, "cpu memory\n");
    // The second line is what the write leaves of the first.
    let before = "cpu memory\nx";
    tree.file("a/leaf/cgroup.subtree_control", before);
    create(&tree, PRIVILEGED).unwrap();
    assert_eq!(tree.text("a/leaf/cgroup.subtree_control"), "-cpu -memory -x");
}

/// Red if an update of the period alone lifts the quota.
#[test]
fn a_new_period_keeps_the_quota() {
    let tree = Tree::v2("cpu");
    tree.file("a/leaf/cpu.max", "20000 100000\n");
    let group = tree.group("/a/leaf");
    group.update(&resources(r#"{"cpu":{"period":500000}}"#)).unwrap();
    assert_eq!(tree.text("a/leaf/cpu.max"), "20000 500000\n");
    tree.file("a/leaf/cpu.max", "max 100000");
    group.update(&resources(r#"{"cpu":{"period":500000}}"#)).unwrap();
    assert_eq!(tree.text("a/leaf/cpu.max"), "max 500000");
    tree.file("a/leaf/cpu.max", "");
    group.update(&resources(r#"{"cpu":{"quota":30000}}"#)).unwrap();
    assert_eq!(tree.text("a/leaf/cpu.max"), "30000");
}

/// Red if an update of some kind writes another file, or another value, than the create.
#[test]
fn an_update_reaches_every_kind() {
    let tree = Tree::v2("cpuset cpu io memory hugetlb pids rdma");
    let rows = [
        (
            r#"{"cpu":{"cpus":"0-1","mems":"0"}}"#,
            &[("cpuset.cpus", "0-1"), ("cpuset.mems", "0")][..],
        ),
        (
            r#"{"cpu":{"shares":1024,"quota":20000,"period":50000,"burst":1000,"idle":1}}"#,
            &[
                ("cpu.weight", "100"),
                ("cpu.max", "20000 50000"),
                ("cpu.max.burst", "1000"),
                ("cpu.idle", "1"),
            ],
        ),
        (
            r#"{"memory":{"limit":4096,"swap":12288,"reservation":2048}}"#,
            &[("memory.max", "4096"), ("memory.swap.max", "8192"), ("memory.low", "2048")],
        ),
        (r#"{"pids":{"limit":0}}"#, &[("pids.max", "1")]),
        (r#"{"pids":{"limit":-1}}"#, &[("pids.max", "max")]),
        (
            r#"{"hugepageLimits":[{"pageSize":"2MB","limit":4194304}]}"#,
            &[("hugetlb.2MB.max", "4194304"), ("hugetlb.2MB.rsvd.max", "4194304")],
        ),
        (r#"{"rdma":{"mlx5_1":{"hcaHandles":2}}}"#, &[("rdma.max", "mlx5_1 hca_handle=2")]),
        (r#"{"unified":{"memory.high":"7"}}"#, &[("memory.high", "7")]),
        (
            r#"{"blockIO":{"weight":100,"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":7}]}}"#,
            &[("io.bfq.weight", "100"), ("io.max", "8:0 rbps=7")],
        ),
    ];
    let group = || tree.group("/a/leaf");
    for (json, want) in rows {
        for (file, _) in want {
            tree.file(&format!("a/leaf/{file}"), "");
        }
        group().update(&resources(json)).unwrap_or_else(|error| panic!("{json}: {error}"));
        for (file, value) in want {
            assert_eq!(tree.text(&format!("a/leaf/{file}")), *value, "{json}");
        }
    }
    let text = |json: &str| group().update(&resources(json)).unwrap_err().to_string();
    assert!(text(r#"{"network":{"classID":1}}"#).starts_with("linux.resources.network.classID: "));
    assert!(text(r#"{"cpu":{"realtimeRuntime":1}}"#).contains("only on cgroup v1"));
}

/// Red if a new limit below usage is written although the caller asked to be
/// spared: the kernel would kill to get there.
#[test]
fn a_limit_below_usage_is_not_written_when_asked_so() {
    let tree = Tree::v2("memory");
    tree.file("a/leaf/memory.current", "5000\n");
    tree.file("a/leaf/memory.max", "");
    tree.file("a/leaf/memory.swap.max", "");
    let group = tree.group("/a/leaf");
    let json = |limit, check| {
        format!(r#"{{"memory":{{"limit":{limit},"swap":{limit},"checkBeforeUpdate":{check}}}}}"#)
    };
    let error = group.update(&resources(&json(4096, true))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WrongState, "{error}");
    assert!(error.to_string().contains("5000 bytes in use"), "{error}");
    assert_eq!(tree.text("a/leaf/memory.max"), "");
    group.update(&resources(&json(4096, false))).unwrap();
    assert_eq!(tree.text("a/leaf/memory.max"), "4096");
    assert_eq!(tree.text("a/leaf/memory.swap.max"), "0");
    group.update(&resources(&json(8192, true))).unwrap();
    assert_eq!(tree.text("a/leaf/memory.max"), "8192");
}

/// Red if a refused birth does not tell which cgroup is full.
#[test]
fn a_full_cgroup_is_named() {
    let tree = Tree::v2("pids");
    for (dir, current, max) in [("a", "9", "9"), ("a/leaf", "3", "7")] {
        tree.file(&format!("{dir}/pids.current"), current);
        tree.file(&format!("{dir}/pids.max"), max);
    }
    let group = tree.group("/a/leaf");
    let error = group.birth_error(Errno::EAGAIN);
    assert_eq!(error.kind(), ErrorKind::Exhausted);
    let text = error.to_string();
    assert!(text.starts_with("linux.resources.pids.limit: cgroup /a has 9 of 9 tasks"), "{text}");
    tree.file("a/pids.max", "max\n");
    let text = group.birth_error(Errno::EAGAIN).to_string();
    assert!(text.starts_with("clone container init: "), "{text}");
}

/// Red if a file that the kernel lacks is blamed on the value, or nothing is said at all.
#[test]
fn a_missing_file_is_named_with_its_field() {
    let tree = Tree::v2("cpu");
    empty_leaf(&tree, "cpu\n");
    let json = r#"{"devices":[{"allow":true}],"unified":{"cpu.new":"1"}}"#;
    let error = create(&tree, json).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(error.to_string().starts_with("linux.resources.unified.cpu.new: "), "{error}");
}
