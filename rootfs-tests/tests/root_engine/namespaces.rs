//! Namespaces: new ones, the host's, and those of other containers.

use std::fs;

use boathook_runtime::ErrorKind;
use serde_json::json;

use super::support::live::proc_link;
use super::support::{Arena, Live, tests};

tests!(
    new_ones_differ_from_the_hosts,
    those_not_listed_are_the_hosts,
    joined_by_path,
    a_shared_pid_namespace,
    a_path_that_is_no_such_namespace_is_refused,
    loopback_is_up_in_a_new_network,
    a_joined_network_is_left_as_it_is,
    names_are_set_inside_only,
    sysctls_are_set_inside_only,
    sysctls_survive_a_read_only_proc,
    the_cgroup_namespace_begins_at_the_container,
    without_pivot_the_root_is_still_the_containers,
);

/// Namespace kinds as `/proc/PID/ns` has them, with the config's names.
const KINDS: [(&str, &str); 6] = [
    ("pid", "pid"),
    ("net", "network"),
    ("ipc", "ipc"),
    ("uts", "uts"),
    ("mnt", "mount"),
    ("cgroup", "cgroup"),
];

fn own(kind: &str) -> String {
    fs::read_link(format!("/proc/self/ns/{kind}")).unwrap().display().to_string()
}

fn of(live: &Live, kind: &str) -> String {
    proc_link(live.process.pid(), &format!("ns/{kind}"))
}

/// Red if a namespace asked for is not made, or one is made that nobody asked for.
fn new_ones_differ_from_the_hosts(arena: &Arena) {
    let mut case = arena.sleeper();
    case.new_namespace("cgroup");
    let live = case.start();
    for (kind, _) in KINDS {
        assert_ne!(of(&live, kind), own(kind), "{kind}");
    }
    for kind in ["user", "time"] {
        assert_eq!(of(&live, kind), own(kind), "{kind}");
    }
    live.delete();
}

/// Red if a namespace that the config leaves to the host is a new one.
fn those_not_listed_are_the_hosts(arena: &Arena) {
    let mut case = arena.sleeper();
    for kind in ["pid", "network", "ipc", "uts"] {
        case.namespace(kind, None);
    }
    // A proc file system of the host's pid namespace and a sysfs of its network are allowed.
    let live = case.start();
    for (kind, _) in KINDS.into_iter().filter(|(kind, _)| *kind != "mnt") {
        assert_eq!(of(&live, kind), own(kind), "{kind}");
    }
    assert_ne!(of(&live, "mnt"), own("mnt"));
    live.delete();
}

/// Red if a path is ignored, or the wrong kind is entered through it.
fn joined_by_path(arena: &Arena) {
    let first = arena.sleeper().start();
    let mut case = arena.sleeper();
    let pid = first.process.pid();
    for (kind, name) in [("net", "network"), ("ipc", "ipc"), ("uts", "uts")] {
        case.namespace(name, Some(&format!("/proc/{pid}/ns/{kind}")));
    }
    let second = case.start();
    for kind in ["net", "ipc", "uts"] {
        assert_eq!(of(&second, kind), of(&first, kind), "{kind}");
    }
    for kind in ["pid", "mnt"] {
        assert_ne!(of(&second, kind), of(&first, kind), "{kind}");
    }
    // An exec goes where its container is, not where the namespaces' first owner is.
    let inside = second.sh("readlink /proc/self/ns/net; readlink /proc/self/ns/mnt");
    assert_eq!(inside, format!("{}\n{}", of(&first, "net"), of(&second, "mnt")));
    second.delete();
    first.delete();
}

/// Red if joining a pid namespace makes a new one, takes the engine's own children with it, or
/// if the second container is believed to own it.
fn a_shared_pid_namespace(arena: &Arena) {
    let first = arena.sleeper().start();
    let mut case = arena.case(&["/bin/sleep", "2000000"]);
    case.namespace("pid", Some(&format!("/proc/{}/ns/pid", first.process.pid())));
    let second = case.start();
    assert_eq!(of(&second, "pid"), of(&first, "pid"));
    assert_eq!(proc_link(std::process::id() as i32, "ns/pid_for_children"), own("pid"));
    assert!(!second.container.has_private_pidns());
    let seen = second.sh("cat /proc/1/cmdline | tr '\\0' ' '; ps -o args");
    assert!(seen.starts_with("/bin/sleep 1000000"), "{seen}");
    assert!(seen.contains("/bin/sleep 2000000"), "{seen}");
    first.container.signal(libc::SIGKILL).unwrap();
    // Pid 1 of a namespace is gone only when all others of it are reaped (pid_namespaces(7)).
    assert_eq!(second.wait(), 137, "the namespace ends with its first process");
    assert_eq!(first.wait(), 137);
    second.delete();
    first.delete();
}

/// Red if a wrong path is entered, or its refusal does not name field and path.
fn a_path_that_is_no_such_namespace_is_refused(arena: &Arena) {
    let wrong = [
        ("/proc/self/ns/uts", "another type"),
        ("/etc/passwd", "is not a namespace"),
        ("/nowhere/ns", "No such file"),
        ("/proc/self/ns", "is not a namespace"),
    ];
    for kind in ["network", "pid", "ipc", "user", "time"] {
        for (path, why) in wrong {
            let mut case = arena.sleeper();
            case.namespace(kind, Some(path));
            let error = case.refused();
            let text = error.to_string();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{text}");
            assert!(text.starts_with("linux.namespaces"), "{text}");
            assert!(text.contains(path) && text.contains(why), "{text}");
        }
    }
}

/// Red if lo is down, or without its address, in a network of the container's own.
fn loopback_is_up_in_a_new_network(arena: &Arena) {
    let script = "cat /sys/class/net/lo/flags; ls /sys/class/net; ip addr show dev lo";
    let outcome = arena.sh(script).run();
    let text = outcome.text();
    assert!(text.starts_with("0x9\nlo\n"), "{text}");
    assert!(text.contains("inet 127.0.0.1/8"), "{text}");
}

/// Red if a network that somebody else configured is changed by joining it.
fn a_joined_network_is_left_as_it_is(arena: &Arena) {
    let mut case = arena.sleeper();
    case.capabilities(&["CAP_NET_ADMIN"]);
    let first = case.start();
    first.sh("ip link set lo down");
    let mut case = arena.case(&["cat", "/sys/class/net/lo/flags"]);
    case.namespace("network", Some(&format!("/proc/{}/ns/net", first.process.pid())));
    assert_eq!(case.run().text(), "0x8");
    first.delete();
}

/// Red if names are not set, or the host gets them.
fn names_are_set_inside_only(arena: &Arena) {
    let host = || {
        let read = |name| fs::read_to_string(format!("/proc/sys/kernel/{name}")).unwrap();
        (read("hostname"), read("domainname"))
    };
    let before = host();
    let mut case = arena.sh("cat /proc/sys/kernel/hostname /proc/sys/kernel/domainname");
    case.config["hostname"] = json!("boat-1");
    case.config["domainname"] = json!("harbour.example");
    assert_eq!(case.run().text(), "boat-1\nharbour.example");
    assert_eq!(host(), before);
}

/// Red if a sysctl is lost, or written where the host can see it.
fn sysctls_are_set_inside_only(arena: &Arena) {
    let paths =
        ["net/ipv4/ip_forward", "net/ipv4/ping_group_range", "kernel/shmmni", "fs/mqueue/msg_max"];
    let host = || paths.map(|path| fs::read_to_string(format!("/proc/sys/{path}")).unwrap());
    let before = host();
    let other = if before[0].trim() == "1" { "0" } else { "1" };
    let mut case = arena
        .sh("cd /proc/sys; cat net/ipv4/ip_forward net/ipv4/ping_group_range kernel/shmmni \
         fs/mqueue/msg_max");
    case.config["linux"]["sysctl"] = json!({
        "net.ipv4.ip_forward": other,
        "net/ipv4/ping_group_range": "5 7",
        "kernel.shmmni": "77",
        "fs.mqueue.msg_max": "11",
    });
    assert_eq!(case.run().text(), format!("{other}\n5\t7\n77\n11"));
    assert_eq!(host(), before);
}

/// Red if sysctls are written through the container's own /proc although that is read-only, or
/// not there at all.
fn sysctls_survive_a_read_only_proc(arena: &Arena) {
    let mut case = arena.sh("cat /proc/sys/net/ipv4/ip_default_ttl");
    case.config["linux"]["sysctl"] = json!({ "net.ipv4.ip_default_ttl": "33" });
    case.mount_at("/proc")["options"] = json!(["ro", "nosuid"]);
    assert_eq!(case.run().text(), "33");

    let mut case = arena.sleeper();
    case.config["linux"]["sysctl"] = json!({ "net.ipv4.ip_default_ttl": "33" });
    case.without_mount("/proc");
    let live = case.start();
    assert!(!live.proc("mountinfo").contains(" - proc "), "an extra proc is left");
    live.delete();
}

/// Red if the namespace is made before the process is in its cgroup: the host's tree above the
/// container would be its root.
fn the_cgroup_namespace_begins_at_the_container(arena: &Arena) {
    let mut case = arena.sh("cat /proc/self/cgroup");
    case.new_namespace("cgroup");
    let mut lines: Vec<String> = case.run().text().lines().map(str::to_owned).collect();
    lines.retain(|line| !line.ends_with(":/"));
    assert_eq!(lines, [""; 0]);
}

/// Red if a container made with chroot lets its execs, which enter by the mount namespace, see
/// the host's root.
fn without_pivot_the_root_is_still_the_containers(arena: &Arena) {
    let mut case = arena.sleeper();
    case.options.no_pivot_root = true;
    fs::write(case.file("/mark"), "image").unwrap();
    let live = case.start();
    assert_eq!(fs::read_to_string(live.inside("/mark")).unwrap(), "image");
    assert_eq!(live.sh("cat /mark; cd /..; cat mark"), "imageimage");
    live.delete();
}
