//! Plans of real configs: what the steps are, and what is refused.

use std::path::Path;

use oci_spec::runtime::Spec;
use serde_json::{Value, json};

use super::*;
use crate::ErrorKind;

/// A hybrid host, as its mountinfo shows it.
const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw
33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
36 31 0:33 / /sys/fs/cgroup/devices rw - cgroup cgroup rw,devices
39 31 0:36 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
";

pub(super) fn config() -> Value {
    json!({
        "ociVersion": "1.2.0",
        "process": {
            "user": { "uid": 0, "gid": 0 },
            "args": ["/bin/true"],
            "env": ["PATH=/bin", "A=1", "A=2"],
            "cwd": "/",
            "capabilities": { "bounding": ["CAP_KILL"], "permitted": ["CAP_KILL"],
                "effective": ["CAP_KILL", "CAP_CHOWN"], "ambient": ["CAP_KILL"] },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "soft": 1024, "hard": 1024 }],
            "noNewPrivileges": true
        },
        "root": { "path": "rootfs", "readonly": true },
        "hostname": "box",
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid"] },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755", "ro"] },
            { "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"] },
            { "destination": "/data", "type": "bind", "source": "/srv/data", "options": ["rbind", "ro"] }
        ],
        "linux": {
            "namespaces": [{ "type": "pid" }, { "type": "mount" }, { "type": "uts" }, { "type": "ipc" },
                { "type": "network" }],
            "maskedPaths": ["/proc/kcore", "/proc/keys"],
            "readonlyPaths": ["/proc/sys"],
            "sysctl": { "net.ipv4.ip_forward": "1" }
        }
    })
}

pub(super) fn plan(config: Value) -> Result<Plan> {
    plan_with(config, SecurityModules::default())
}

pub(super) fn plan_with(config: Value, modules: SecurityModules) -> Result<Plan> {
    plan_on(HYBRID, config, modules)
}

/// The plan for a host with these mounts.
fn plan_on(mounts: &str, config: Value, modules: SecurityModules) -> Result<Plan> {
    plan_in(mounts, config, |context| context.modules = modules)
}

/// The plan for a context that `change` makes of the usual one.
fn plan_in(mounts: &str, config: Value, change: impl FnOnce(&mut Context<'_>)) -> Result<Plan> {
    let spec: Spec = serde_json::from_value(config).unwrap();
    let layout = Layout::parse(mounts).unwrap();
    let mut context = Context {
        id: "c1",
        bundle: Path::new("/bundle"),
        cgroups: &layout,
        driver: Driver::Cgroupfs,
        no_pivot_root: false,
        no_new_keyring: false,
        modules: SecurityModules::default(),
        bare: false,
    };
    change(&mut context);
    Plan::create(&spec, &context)
}

fn names(plan: &Plan) -> Vec<&'static str> {
    plan.program.steps().map(|step| step.name()).collect()
}

fn at(names: &[&str], name: &str) -> usize {
    names.iter().position(|n| *n == name).unwrap_or_else(|| panic!("no step {name} in {names:?}"))
}

#[test]
fn the_order_is_the_one_that_leaves_no_gap() {
    let plan = plan(config()).unwrap();
    let names = names(&plan);
    let order = [
        "JoinCgroup",
        "Propagation",
        "MountRoot",
        "Attach",
        "Node",
        "Stdio",
        "Pivot",
        "MakeDir",
        "Hostname",
        "Sysctl",
        "Readonly",
        "Mask",
        "NoNewPrivs",
        "Cwd",
        "Rlimit",
        "Identity",
        "Program",
        "Ready",
        "Exec",
    ];
    for pair in order.windows(2) {
        assert!(at(&names, pair[0]) < at(&names, pair[1]), "{} is not before {}", pair[0], pair[1]);
    }
    assert_eq!(names.last(), Some(&"Exec"));
}

#[test]
fn each_v1_hierarchy_is_joined_and_v2_is_left_to_the_clone() {
    let plan = plan(config()).unwrap();
    let joins = names(&plan).iter().filter(|n| **n == "JoinCgroup").count();
    assert_eq!(joins, 5);
    assert_eq!(plan.clone_flags & libc::CLONE_NEWPID as u64, libc::CLONE_NEWPID as u64);
}

#[test]
fn no_path_of_the_host_reaches_the_container() {
    let plan = plan(config()).unwrap();
    let shown = format!("{:?}", plan.program);
    assert!(!shown.contains("/srv/data") && !shown.contains("/bundle"), "{shown}");
}

#[test]
fn effective_and_ambient_never_exceed_permitted() {
    let plan = plan(config()).unwrap();
    let caps = plan.program.steps().find_map(|step| match step {
        Step::Identity { effective, permitted, ambient, .. } => {
            Some((effective, permitted, ambient))
        }
        _ => None,
    });
    // CAP_KILL is 5; ambient needs inheritable, which is empty.
    assert_eq!(caps, Some((1 << 5, 1 << 5, 0)));
}

#[test]
fn the_last_setting_of_a_variable_counts() {
    let plan = plan(config()).unwrap();
    let env = plan.program.steps().find_map(|step| match step {
        Step::Program { env, .. } => {
            Some(env.iter().map(|e| e.to_string_lossy().into_owned()).collect::<Vec<_>>())
        }
        _ => None,
    });
    assert_eq!(env.unwrap(), ["PATH=/bin", "A=2"]);
}

#[test]
fn a_read_only_tmpfs_is_sealed_after_it_was_filled() {
    let plan = plan(config()).unwrap();
    let steps: Vec<_> = plan.program.steps().collect();
    let dev = steps.iter().find_map(|step| match step {
        Step::NewFs { slot, attrs, options, .. } if options.iter().any(|o| o == c"mode=755") => {
            Some((*slot, *attrs))
        }
        _ => None,
    });
    let (slot, attrs) = dev.unwrap();
    assert_eq!(attrs & libc::MOUNT_ATTR_RDONLY, 0);
    let sealed = steps.iter().position(|step| {
        matches!(step, Step::SetAttr { tree, set, .. } if *tree == slot && *set == libc::MOUNT_ATTR_RDONLY)
    });
    let last_node = steps.iter().rposition(|step| matches!(step, Step::Node { .. }));
    assert!(sealed > last_node);
}

#[test]
fn a_plan_shows_itself_as_text_and_json() {
    let plan = plan(config()).unwrap();
    let text = plan.to_string();
    assert!(text.contains("tree at /srv/data") && text.contains("Hostname name=\"box\""), "{text}");
    let steps = plan.to_json()["steps"].as_array().unwrap().len();
    assert_eq!(steps, plan.program.steps().count());
}

/// Red when a label goes by the container's own /proc, or after the identity
/// change that takes the right to set it.
#[test]
fn labels_are_set_through_the_new_proc_before_the_identity() {
    let mut config = config();
    config["process"]["apparmorProfile"] = json!("cri-containerd.apparmor.d");
    let modules = SecurityModules { apparmor: true, selinux: false };
    let plan = plan_with(config, modules).unwrap();
    let names = names(&plan);
    assert!(at(&names, "Label") < at(&names, "Identity"));
    let label = plan.program.steps().find_map(|step| match step {
        Step::Label { proc, value, .. } => Some((proc, value.to_owned())),
        _ => None,
    });
    let proc = plan.program.steps().find_map(|step| match step {
        Step::NewFs { slot, fstype, .. } if fstype == c"proc" => Some(slot),
        _ => None,
    });
    assert_eq!(label, Some((proc.unwrap(), c"exec cri-containerd.apparmor.d".to_owned())));
}

/// Red when a hook of the create would run before the mounts are there, after
/// the host's files are out of reach, or without the bundle's own place.
#[test]
fn hooks_of_the_create_hold_between_the_mounts_and_the_pivot() {
    let without = plan(config()).unwrap();
    assert!(!names(&without).contains(&"Hold"));
    for list in ["prestart", "createRuntime", "createContainer"] {
        let mut config = config();
        config["hooks"] = json!({ list: [{ "path": "/bin/x" }] });
        let plan = plan(config).unwrap();
        let names = names(&plan);
        assert!(
            at(&names, "Node") < at(&names, "Hold") && at(&names, "Hold") < at(&names, "Pivot")
        );
        let place = plan.program.steps().find_map(|step| match step {
            Step::MountRoot { at, .. } => Some(at.to_owned()),
            _ => None,
        });
        assert_eq!(place.as_deref(), Some(c"/bundle/rootfs"));
    }
}

/// Red when anything but the exec has to be allowed by a profile, or when the
/// right to load the filter is missing, or kept without need.
#[test]
fn a_filter_is_loaded_last_with_the_right_to_do_so() {
    const SYS_ADMIN: u64 = 1 << 21;
    for (profile, restricted, kept) in
        [(true, true, 0), (true, false, SYS_ADMIN), (false, false, 0), (false, true, 0)]
    {
        let mut config = config();
        config["process"]["noNewPrivileges"] = json!(restricted);
        if profile {
            config["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_LOG", "flags": [] });
        }
        let plan = plan(config).unwrap();
        let names = names(&plan);
        let end = if profile { &["Ready", "Seccomp", "Exec"][..] } else { &["Ready", "Exec"] };
        assert!(names.ends_with(end), "{names:?}");
        let sets = plan.program.steps().find_map(|step| match step {
            Step::Identity { bounding, effective, permitted, inheritable, ambient, .. } => {
                Some([effective, permitted, bounding, inheritable, ambient])
            }
            _ => None,
        });
        let kill = 1 << 5;
        assert_eq!(sets, Some([kill | kept, kill | kept, kill, 0, 0]));
        assert_eq!(plan.seccomp.is_some(), profile);
    }
}

/// The places of `wanted` in the plan, in this order.
fn in_order(names: &[&str], wanted: &[&str]) {
    let mut rest = names.iter();
    for name in wanted {
        assert!(rest.any(|found| found == name), "no {name} in its place in {names:?}");
    }
}

/// Red when a container copies the host's mounts where it need not, enters a mount namespace of
/// the host's, or begins with nothing where something of it looks for the host.
#[test]
fn a_mount_namespace_begins_with_nothing_where_nobody_looks_for_the_host() {
    let bare = |config: &Value, no_pivot_root: bool| {
        let prepared = |context: &mut Context<'_>| {
            (context.bare, context.no_pivot_root) = (true, no_pivot_root);
        };
        let plan = plan_in(HYBRID, config.clone(), prepared).unwrap();
        let names = names(&plan);
        let bare = plan.fds.contains(&HostFd::NoMounts);
        let cloned = plan.clone_flags & libc::CLONE_NEWNS as u64 != 0;
        assert_eq!(names.contains(&"Propagation"), !bare, "{names:?}");
        if bare {
            assert!(!cloned, "{names:?}");
            in_order(&names, &["SetNs", "Unshare", "MountRoot", "Pivot"]);
        }
        bare
    };
    let usual = config();
    assert!(!plan(usual.clone()).unwrap().fds.contains(&HostFd::NoMounts), "there is none");
    assert!(bare(&usual, false));
    assert!(!bare(&usual, true), "chroot");
    assert!(!bare(&with_users(MAPS), false), "a user namespace");
    for (list, expected) in [
        ("prestart", false),
        ("createRuntime", false),
        ("createContainer", false),
        ("startContainer", true),
        ("poststart", true),
        ("poststop", true),
    ] {
        let mut config = usual.clone();
        config["hooks"] = json!({ list: [{ "path": "/bin/x" }] });
        assert_eq!(bare(&config, false), expected, "{list}");
    }
    for (kind, options, expected) in [
        ("overlay", &["lowerdir=/srv/a:/srv/b"][..], false),
        ("ext4", &["ro"], false),
        ("mqueue", &[], true),
        ("ext4", &["rbind"], true),
    ] {
        let mut config = usual.clone();
        let mount =
            json!({ "destination": "/x", "type": kind, "source": "/dev/vda", "options": options });
        config["mounts"].as_array_mut().unwrap().push(mount);
        assert_eq!(bare(&config, false), expected, "{kind} {options:?}");
    }
    for kind in ["cgroup", "time"] {
        let mut config = usual.clone();
        config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": kind }));
        assert!(bare(&config, false), "{kind}");
    }
}

const MAPS: &[(u32, u32, u32)] = &[(0, 100_000, 65_536)];

fn with_users(ranges: &[(u32, u32, u32)]) -> Value {
    let mut config = config();
    let ranges: Vec<_> = ranges
        .iter()
        .map(|(c, h, s)| json!({ "containerID": c, "hostID": h, "size": s }))
        .collect();
    config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
    config["linux"]["uidMappings"] = json!(ranges);
    config["linux"]["gidMappings"] = json!(ranges);
    config
}

/// Red when another namespace is made before the user namespace, or something is made by a process
/// without ids, or outside of the pid namespace whose proc it mounts.
#[test]
fn a_user_namespace_owns_all_others_that_are_new() {
    let plan = plan(with_users(MAPS)).unwrap();
    assert_eq!(plan.clone_flags, 0);
    assert!(plan.birth);
    let names = names(&plan);
    in_order(
        &names,
        &["JoinCgroup", "Unshare", "IdMaps", "NamespaceRoot", "Unshare", "Birth", "MountRoot"],
    );
    assert_eq!(names.iter().filter(|name| **name == "Birth").count(), 1);
    assert!(!names.contains(&"Node"), "nobody makes nodes in a user namespace: {names:?}");
    let flags: Vec<u32> = plan
        .program
        .steps()
        .filter_map(|step| match step {
            Step::Unshare { flags } => Some(flags),
            _ => None,
        })
        .collect();
    let all = libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWNET;
    assert_eq!(flags, [libc::CLONE_NEWUSER as u32, all as u32]);
    let text = plan.to_string();
    assert!(text.contains("IdMaps uids=\"0 100000 65536\\n\""), "{text}");
    assert!(text.contains("device node /dev/null (1:3)"), "{text}");
}

/// Red when a process is seen in a pid namespace with others in it before it has given up what the
/// config does not grant, or with a descriptor open.
#[test]
fn into_a_shared_pid_namespace_one_is_born_last_of_all() {
    let mut config = config();
    config["process"]["terminal"] = json!(true);
    config["process"]["rlimits"] = json!([{ "type": "RLIMIT_NPROC", "soft": 5, "hard": 6 }]);
    config["linux"]["namespaces"][0]["path"] = json!("/proc/1/ns/pid");
    let create = plan(config.clone()).unwrap();
    let layout = Layout::parse(HYBRID).unwrap();
    let process: Process = serde_json::from_value(config["process"].clone()).unwrap();
    let exec =
        Plan::exec(&process, NEWPID, &layout, SecurityModules::default(), None, None).unwrap();
    for plan in [create, exec] {
        assert!(plan.birth);
        let names = names(&plan);
        let end = [
            "RaiseLimit",
            "Identity",
            "Program",
            "Birth",
            "Session",
            "TakeTerminal",
            "Rlimit",
            "Ready",
            "Exec",
        ];
        assert!(names.ends_with(&end), "{names:?}");
        assert_eq!(names.iter().filter(|name| **name == "JoinCgroup").count(), 4);
    }
}

/// Red when a process that cannot have children scheduled like itself is scheduled before its birth.
#[test]
fn a_schedule_that_children_do_not_inherit_comes_after_the_birth() {
    let mut config = config();
    config["linux"]["namespaces"][0]["path"] = json!("/proc/1/ns/pid");
    for (scheduler, first) in [
        (json!({ "policy": "SCHED_DEADLINE", "runtime": 1, "deadline": 2, "period": 3 }), "Birth"),
        (json!({ "policy": "SCHED_RR", "priority": 1, "flags": ["SCHED_RESET_ON_FORK"] }), "Birth"),
        (json!({ "policy": "SCHED_RR", "priority": 1 }), "Scheduler"),
    ] {
        config["process"]["scheduler"] = scheduler.clone();
        let names = names(&plan(config.clone()).unwrap());
        let second = if first == "Birth" { "Scheduler" } else { "Birth" };
        in_order(&names, &[first, second]);
        assert_eq!(names.iter().filter(|name| **name == "Birth").count(), 1, "{scheduler}");
    }
}

/// Red when a time namespace is entered in a way that costs the container its pid 1, or its clocks
/// are set after somebody lives in it.
#[test]
fn clocks_are_set_before_anybody_lives_by_them() {
    let mut config = config();
    config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "time" }));
    config["linux"]["timeOffsets"] = json!({ "boottime": { "secs": 60 } });
    let plan = plan(config).unwrap();
    assert_eq!(plan.clone_flags & (libc::CLONE_NEWPID | 0x80) as u64, 0);
    in_order(&names(&plan), &["Unshare", "TimeOffsets", "Birth", "MountRoot"]);
    assert!(plan.to_string().contains("TimeOffsets offsets=\"boottime 60 0\\n\""));
}

/// Applies `change` to the config and expects an error that starts with `field`.
pub(super) fn refused(kind: ErrorKind, field: &str, change: impl FnOnce(&mut Value)) {
    let mut config = config();
    change(&mut config);
    let error = plan(config).map(|p| p.to_string()).unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().starts_with(field), "{error} does not start with {field}");
}

#[test]
fn wrong_fields_are_named() {
    use ErrorKind::{InvalidInput, Unsupported};
    refused(InvalidInput, "process: missing", |c| {
        drop(c.as_object_mut().unwrap().remove("process"))
    });
    refused(InvalidInput, "process.args", |c| c["process"]["args"] = json!([]));
    refused(InvalidInput, "process.args[1]", |c| c["process"]["args"] = json!(["a", "b\0c"]));
    refused(InvalidInput, "process.env[0]", |c| c["process"]["env"] = json!(["PATH"]));
    refused(InvalidInput, "process.cwd", |c| c["process"]["cwd"] = json!("work"));
    refused(InvalidInput, "process.rlimits[1]", |c| {
        let limit = c["process"]["rlimits"][0].clone();
        c["process"]["rlimits"].as_array_mut().unwrap().push(limit);
    });
    refused(InvalidInput, "root: missing", |c| drop(c.as_object_mut().unwrap().remove("root")));
    refused(InvalidInput, "root.path", |c| c["root"]["path"] = json!(""));
    refused(InvalidInput, "linux: missing", |c| drop(c.as_object_mut().unwrap().remove("linux")));
    refused(InvalidInput, "linux.namespaces[5]", |c| {
        c["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "pid" }));
    });
    refused(InvalidInput, "linux.namespaces[0].path", |c| {
        c["linux"]["namespaces"][0]["path"] = json!("proc/1/ns/pid");
    });
    refused(InvalidInput, "linux.sysctl.kernel.panic", |c| {
        c["linux"]["sysctl"] = json!({ "kernel.panic": "1" })
    });
    refused(InvalidInput, "linux.sysctl.net/../kernel/panic", |c| {
        c["linux"]["sysctl"] = json!({ "net/../kernel/panic": "1" });
    });
    refused(InvalidInput, "linux.maskedPaths[0]", |c| c["linux"]["maskedPaths"] = json!(["proc"]));
    refused(InvalidInput, "linux.rootfsPropagation", |c| {
        c["linux"]["rootfsPropagation"] = json!("loud")
    });
    refused(InvalidInput, "mounts[3].source", |c| {
        drop(c["mounts"][3].as_object_mut().unwrap().remove("source"))
    });
    refused(InvalidInput, "mounts[3].options", |c| {
        c["mounts"][3]["options"] = json!(["bind", "size=1"])
    });
    refused(InvalidInput, "mounts[0].destination", |c| {
        c["mounts"][0]["destination"] = json!("/proc/..")
    });
    refused(InvalidInput, "ociVersion", |c| c["ociVersion"] = json!("2.0"));
    refused(InvalidInput, "hostname", |c| c["linux"]["namespaces"] = json!([{ "type": "mount" }]));
    refused(Unsupported, "linux.namespaces", |c| {
        c["linux"]["namespaces"] = json!([{ "type": "pid" }])
    });
    refused(InvalidInput, "linux.seccomp.syscalls[0].errnoRet: 7 ", |c| {
        c["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            { "names": ["read"], "action": "SCMP_ACT_KILL", "errnoRet": 7 }] });
    });
    refused(Unsupported, "process.apparmorProfile", |c| {
        c["process"]["apparmorProfile"] = json!("cri-containerd.apparmor.d");
    });
    refused(Unsupported, "process.selinuxLabel", |c| {
        c["process"]["selinuxLabel"] = json!("a:b:c:s0")
    });
    refused(InvalidInput, "process.ioPriority.priority", |c| {
        c["process"]["ioPriority"] = json!({ "class": "IOPRIO_CLASS_BE", "priority": 8 });
    });
    refused(InvalidInput, "process.scheduler.runtime", |c| {
        c["process"]["scheduler"] = json!({ "policy": "SCHED_BATCH", "runtime": 5 });
    });
    refused(InvalidInput, "linux.memoryPolicy.nodes", |c| {
        c["linux"]["memoryPolicy"] = json!({ "mode": "MPOL_BIND", "nodes": "0-x", "flags": [] });
    });
    refused(InvalidInput, "linux.uidMappings: there is no user", |c| {
        *c = with_users(MAPS);
        c["linux"]["namespaces"].as_array_mut().unwrap().pop();
    });
    refused(InvalidInput, "linux.uidMappings: a new user", |c| *c = with_users(&[]));
    refused(InvalidInput, "linux.gidMappings: missing", |c| {
        *c = with_users(MAPS);
        c["linux"]["gidMappings"] = json!([]);
    });
    refused(InvalidInput, "process.user.uid: 7 is not mapped", |c| {
        *c = with_users(&[(0, 9, 7)]);
        c["process"]["user"]["uid"] = json!(7);
    });
    refused(InvalidInput, "linux.timeOffsets: there is no new time", |c| {
        c["linux"]["timeOffsets"] = json!({ "boottime": { "secs": 1 } });
    });
    refused(InvalidInput, "hooks.poststop[0].path", |c| {
        c["hooks"] = json!({ "poststop": [{ "path": "x" }] })
    });
    refused(InvalidInput, "hooks.prestart[0].timeout", |c| {
        c["hooks"] = json!({ "prestart": [{ "path": "/x", "timeout": 0 }] })
    });
}

#[test]
fn ids_are_file_names() {
    for good in ["a", "A-b_c.d+e", "0123456789abcdef"] {
        check_id(good).unwrap();
    }
    for bad in ["", ".", "..", ".a", "a/b", "a b", "a\n", "é", "a\0"] {
        assert!(check_id(bad).is_err(), "{bad:?}");
    }
    assert!(check_id(&"a".repeat(256)).is_err());
}

/// Red if a container that cannot even see the files owns them, if one that can does not, or if
/// it is not the user of the host who does.
#[test]
fn the_cgroup_goes_to_who_may_write_to_it() {
    const V2: &str = "31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
    let user = json!([{ "type": "mount" }, { "type": "cgroup" }, { "type": "user" }]);
    let host_user = json!([{ "type": "mount" }, { "type": "cgroup" }]);
    let shared = json!([{ "type": "mount" }, { "type": "user" }]);
    let foreign =
        json!([{ "type": "mount" }, { "type": "cgroup", "path": "/n" }, { "type": "user" }]);
    let maps = json!([{ "containerID": 0, "hostID": 100_000, "size": 1000 }]);
    for (mounts, namespaces, option, uid, owner) in [
        (V2, &user, "rw", 0, Some(100_000)),
        (V2, &user, "nosuid", 7, Some(100_007)),
        (V2, &host_user, "rw", 7, Some(7)),
        (V2, &user, "ro", 0, None),
        (V2, &user, "rro", 0, None),
        (V2, &shared, "rw", 0, None),
        (V2, &foreign, "rw", 0, None),
        (HYBRID, &user, "rw", 0, None),
    ] {
        let mut config = config();
        config["mounts"][2]["options"] = json!([option]);
        config["process"]["user"]["uid"] = json!(uid);
        config["linux"] = json!({ "namespaces": namespaces });
        config["hostname"] = json!(null);
        if namespaces != &host_user {
            config["linux"]["uidMappings"] = maps.clone();
            config["linux"]["gidMappings"] = maps.clone();
        }
        let plan = plan_on(mounts, config, SecurityModules::default()).unwrap();
        let found = plan.cgroup.unwrap().owner();
        assert_eq!(found, owner, "{mounts:?} {namespaces} {option} {uid}");
    }
}
