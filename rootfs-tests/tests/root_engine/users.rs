//! User namespaces: ids of the container's own.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;

use boathook_runtime::{ErrorKind, Stdio};
use serde_json::{Value, json};

use super::support::live::{proc_file, proc_link, status, wait_for};
use super::support::streams::Reader;
use super::support::{Arena, Case, LIMIT, Live, payload, tests};
use rootfs_tests::wait::Deadline;

tests!(
    ids_are_the_maps,
    several_ranges,
    it_owns_what_is_new_beside_it,
    files_belong_to_mapped_ids,
    devices_are_the_hosts,
    a_terminal_belongs_to_a_mapped_user,
    an_exec_is_inside,
    nobody_inside_looks_into_an_exec,
    a_pod_shares_it,
    with_the_hosts_network,
    ids_outside_of_the_maps_are_refused,
    maps_and_namespace_must_fit,
    nothing_is_left_of_a_failed_one,
);

/// Where ids begin on the host.
const FIRST: u32 = 100_000;
const COUNT: u32 = 65_536;

fn range(inside: u32, outside: u32, size: u32) -> Value {
    json!({ "containerID": inside, "hostID": outside, "size": size })
}

fn map(case: &mut Case<'_>, ranges: Value) {
    case.config["linux"]["uidMappings"] = ranges.clone();
    case.config["linux"]["gidMappings"] = ranges;
}

/// A container with a user namespace of its own. Its root owns the top of the root file system, as
/// in a snapshot that was made for it.
fn mapped<'a>(mut case: Case<'a>) -> Case<'a> {
    case.new_namespace("user");
    case.new_namespace("cgroup");
    map(&mut case, json!([range(0, FIRST, COUNT)]));
    shift(&case.file("/"));
    case
}

fn shift(path: &Path) {
    chown(path, Some(FIRST), Some(FIRST)).unwrap();
}

fn ns(live: &Live, kind: &str) -> String {
    proc_link(live.process.pid(), &format!("ns/{kind}"))
}

fn own(kind: &str) -> String {
    fs::read_link(format!("/proc/self/ns/{kind}")).unwrap().display().to_string()
}

/// The lines of a map as numbers.
fn numbers(text: &str) -> Vec<Vec<u32>> {
    let line = |line: &str| line.split_whitespace().map(|n| n.parse().unwrap()).collect();
    text.lines().map(line).collect()
}

/// Red if the maps are not the config's, the program is not who it is to be on either side, or is
/// not pid 1.
fn ids_are_the_maps(arena: &Arena) {
    let mut case =
        mapped(arena.sh("id -u; id -g; cat /proc/self/uid_map; echo $$; exec sleep 100000"));
    case.user(0, 0, &[7]);
    case.config["process"]["oomScoreAdj"] = json!(321);
    let mut live = case.start();
    assert_eq!((live.line(), live.line()), ("0".to_owned(), "0".to_owned()));
    assert_eq!(numbers(&live.line()), [[0, FIRST, COUNT]]);
    assert_eq!(live.line(), "1");
    let pid = live.process.pid();
    assert_eq!(status(pid, "Uid"), [FIRST; 4].map(|id| id.to_string()).join(" "));
    assert_eq!(status(pid, "Gid"), [FIRST; 4].map(|id| id.to_string()).join(" "));
    assert_eq!(status(pid, "Groups"), (FIRST + 7).to_string());
    assert_eq!(numbers(&live.proc("gid_map")), [[0, FIRST, COUNT]]);
    assert_eq!(proc_file(pid, "setgroups").trim(), "allow");
    assert_eq!(proc_file(pid, "oom_score_adj").trim(), "321");
    assert_eq!(status(pid, "PPid"), std::process::id().to_string());
    assert!(live.container.has_private_pidns());
    live.delete();
    let mut case = mapped(arena.sleeper());
    case.user(1000, 2000, &[3000]);
    let live = case.start();
    assert_eq!(
        status(live.process.pid(), "Uid"),
        [FIRST + 1000; 4].map(|id| id.to_string()).join(" ")
    );
    assert_eq!(status(live.process.pid(), "Groups"), (FIRST + 3000).to_string());
    live.delete();
}

/// Red if only the first range counts, or users get the groups' ranges.
fn several_ranges(arena: &Arena) {
    let mut case = mapped(arena.sleeper());
    case.config["linux"]["uidMappings"] = json!([range(0, FIRST, 10), range(1000, 5000, 5)]);
    case.config["linux"]["gidMappings"] =
        json!([range(1000, 900_000, 1), range(0, FIRST, 10), range(10, 800_000, 7)]);
    case.user(1004, 1000, &[16]);
    let live = case.start();
    let pid = live.process.pid();
    assert_eq!(status(pid, "Uid"), [5004; 4].map(|id| id.to_string()).join(" "));
    assert_eq!(status(pid, "Gid"), [900_000; 4].map(|id| id.to_string()).join(" "));
    assert_eq!(status(pid, "Groups"), "800006");
    live.delete();
}

/// Red if a namespace is made before the user namespace: its root could not use it.
fn it_owns_what_is_new_beside_it(arena: &Arena) {
    let mut case =
        mapped(arena.sh(
            "hostname inside && hostname && mount -t tmpfs none /run && ip link set lo down && \
         ip link set lo up && cat /sys/class/net/lo/flags && cat /proc/sys/net/ipv4/ip_default_ttl",
        ));
    case.capabilities(&["CAP_SYS_ADMIN", "CAP_NET_ADMIN"]);
    case.config["linux"]["sysctl"] = json!({ "net.ipv4.ip_default_ttl": "33" });
    assert_eq!(case.run().text(), "inside\n0x9\n33");
    let live = mapped(arena.sleeper()).start();
    for kind in ["user", "pid", "mnt", "net", "ipc", "uts", "cgroup"] {
        assert_ne!(ns(&live, kind), own(kind), "{kind}");
    }
    live.delete();
}

/// Red if the engine or init makes files as somebody the container does not know, or root in there
/// is root out here.
fn files_belong_to_mapped_ids(arena: &Arena) {
    let mut case = mapped(arena.sh("touch /made /hosts/made; echo $?; stat -c %u:%g /hosts /work"));
    fs::create_dir(case.file("/hosts")).unwrap();
    case.config["process"]["cwd"] = json!("/work");
    let outcome = case.run();
    assert_eq!(outcome.text(), "1\n65534:65534\n0:0", "{outcome:?}");
    let made = fs::metadata(case.file("/made")).unwrap();
    assert_eq!((made.uid(), made.gid()), (FIRST, FIRST));
    assert_eq!(fs::metadata(case.file("/work")).unwrap().uid(), FIRST);
    assert!(!case.file("/hosts/made").exists());
}

/// Red if a node is missing, cannot be used, or another one of the host's gets in.
fn devices_are_the_hosts(arena: &Arena) {
    let script = "echo x > /dev/null && head -c 3 /dev/zero | wc -c && head -c 3 /dev/urandom | wc -c \
                  && stat -c %t:%T /dev/full && ls /dev | tr '\\n' ' '; mknod /dev/mine c 1 3";
    let mut case = mapped(arena.sh(script));
    case.config["linux"]["devices"] =
        json!([{ "path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11 }]);
    let outcome = case.run();
    assert!(outcome.out.starts_with("3\n3\n1:7\ncore fd full kmsg mqueue null"), "{outcome:?}");
    assert_ne!(outcome.code, 0, "a node was made: {outcome:?}");
    case.config["linux"]["devices"] =
        json!([{ "path": "/dev/kmsg", "type": "c", "major": 1, "minor": 3 }]);
    let error = case.refused();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    assert!(error.to_string().starts_with("linux.devices[0]: /dev/kmsg"), "{error}");
}

/// Red if the terminal is owned by somebody the container does not know, so that it cannot be
/// opened again.
fn a_terminal_belongs_to_a_mapped_user(arena: &Arena) {
    let script =
        "stat -c %u $(tty); echo again > $(tty); echo console > /dev/console; echo tty > /dev/tty";
    for uid in [0, 1000] {
        let mut case = mapped(arena.sh(script));
        case.user(uid, 0, &[5]);
        case.config["process"]["terminal"] = json!(true);
        let mut live = case.create_with(Stdio::Terminal).unwrap();
        live.start();
        let mut reader = Reader::new(live.console.take().unwrap());
        let text = reader.rest(Deadline::after(LIMIT));
        assert_eq!(text, format!("{uid}\r\nagain\r\nconsole\r\ntty\r\n"));
        assert_eq!(live.wait(), 0);
        live.delete();
    }
    let live = mapped(arena.sleeper()).start();
    let mut spec = live.process_spec(&["sh", "-c", script.rsplit_once("; echo c").unwrap().0]);
    spec["terminal"] = json!(true);
    let (process, console) = live.exec_with(&spec, Stdio::Terminal).unwrap();
    process.start(LIMIT).unwrap();
    let text = Reader::new(console.unwrap()).rest(Deadline::after(LIMIT));
    assert_eq!(text, "0\r\nagain\r\n");
    assert_eq!(wait_for(&process), 0);
    drop(process);
    live.delete();
}

/// Red if an exec stays outside of one namespace, or keeps an id of the host.
fn an_exec_is_inside(arena: &Arena) {
    let live = mapped(arena.sleeper()).start();
    let mut spec = live.process_spec(&["sleep", "1000"]);
    spec["user"] = json!({ "uid": 5, "gid": 6, "additionalGids": [7] });
    let (process, _streams) = live.exec_json(&spec).unwrap();
    process.start(LIMIT).unwrap();
    for kind in ["user", "pid", "mnt", "net", "ipc", "uts", "cgroup"] {
        assert_eq!(proc_link(process.pid(), &format!("ns/{kind}")), ns(&live, kind), "{kind}");
    }
    assert_eq!(status(process.pid(), "Uid"), [FIRST + 5; 4].map(|id| id.to_string()).join(" "));
    assert_eq!(status(process.pid(), "Groups"), (FIRST + 7).to_string());
    drop(process);
    assert_eq!(live.sh("id -u; id -g; touch /file; stat -c %u /file"), "0\n0\n0");
    assert_eq!(fs::metadata(live.inside("/file")).unwrap().uid(), FIRST);
    // Nobody has an id that is not mapped.
    spec["user"] = json!({ "uid": COUNT, "gid": 0 });
    let error = live.exec_json(&spec).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    assert!(error.to_string().contains(&format!("user {COUNT}:0")), "{error}");
    live.delete();
}

/// Red if a waiting exec can be looked into by root of the namespace, who has every capability
/// there.
fn nobody_inside_looks_into_an_exec(arena: &Arena) {
    let mut case = mapped(arena.sleeper());
    case.with_payload();
    case.capabilities(&["CAP_SYS_PTRACE", "CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE", "CAP_KILL"]);
    let live = case.start();
    let (process, _streams) = live.exec_json(&live.process_spec(&["true"])).unwrap();
    let inner = status(process.pid(), "NSpid");
    let outcome = live.run(&payload::args("peek", &[inner.rsplit(' ').next().unwrap()]));
    let lines: Vec<&str> = outcome.text().lines().collect();
    assert_eq!(lines.len(), 8, "{lines:?}");
    assert!(lines.iter().all(|l| l.ends_with("EACCES") || l.ends_with("EPERM")), "{lines:?}");
    drop(process);
    live.delete();
}

/// Red if the second container of a pod is not in the first one's namespace, owns it twice, or maps
/// that are another namespace's are taken.
fn a_pod_shares_it(arena: &Arena) {
    let first = mapped(arena.sleeper()).start();
    let path = |kind: &str| format!("/proc/{}/ns/{kind}", first.process.pid());
    for shared_pids in [false, true] {
        for maps in [true, false] {
            let mut case = mapped(
                arena.sh("id -u; ls /sys/class/net; touch /made; echo on; exec sleep 10000"),
            );
            for (name, kind) in
                [("user", "user"), ("network", "net"), ("ipc", "ipc"), ("uts", "uts")]
            {
                case.namespace(name, Some(&path(kind)));
            }
            if shared_pids {
                case.namespace("pid", Some(&path("pid")));
            }
            if !maps {
                map(&mut case, json!([]));
            }
            let mut second = case.start();
            assert_eq!([(); 3].map(|()| second.line()), ["0", "lo", "on"]);
            for kind in ["user", "net", "ipc", "uts"] {
                assert_eq!(ns(&second, kind), ns(&first, kind), "{kind}");
            }
            assert_eq!(ns(&second, "pid") == ns(&first, "pid"), shared_pids);
            assert_ne!(ns(&second, "mnt"), ns(&first, "mnt"));
            assert_eq!(
                second.sh("id -u; readlink /proc/self/ns/user"),
                format!("0\n{}", ns(&first, "user"))
            );
            assert_eq!(fs::metadata(case.file("/made")).unwrap().uid(), FIRST);
            second.delete();
        }
    }
    let mut case = mapped(arena.sleeper());
    case.namespace("user", Some(&path("user")));
    case.config["linux"]["gidMappings"] = json!([range(0, FIRST, COUNT - 1)]);
    let error = case.refused();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    assert!(error.to_string().starts_with("linux.gidMappings: "), "{error}");
    assert!(error.to_string().contains("65535"), "{error}");
    first.delete();
}

/// Red if a container that the kernel lets have no sysfs of its own has none at all.
fn with_the_hosts_network(arena: &Arena) {
    let mut case = mapped(arena.sh("ls /sys/class/net; touch /sys/mine; echo $?"));
    case.namespace("network", None);
    let outcome = case.run();
    assert!(outcome.text().starts_with("lo\n") || outcome.text().contains("\nlo\n"), "{outcome:?}");
    assert!(outcome.text().ends_with("\n1"), "{outcome:?}");
}

/// Red if an id that nobody has becomes another one, or the message hides which it was.
fn ids_outside_of_the_maps_are_refused(arena: &Arena) {
    for (user, want) in [
        (json!({ "uid": COUNT, "gid": 0 }), "process.user.uid: 65536"),
        (json!({ "uid": 0, "gid": COUNT }), "process.user.gid: 65536"),
        (
            json!({ "uid": 0, "gid": 0, "additionalGids": [1, 70_000] }),
            "process.user.additionalGids: 70000",
        ),
    ] {
        let mut case = mapped(arena.sleeper());
        case.config["process"]["user"] = user;
        let error = case.refused();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        assert!(error.to_string().starts_with(want), "{error}");
    }
}

/// Red if maps are dropped where nothing is to have them, or the kernel is left to explain.
fn maps_and_namespace_must_fit(arena: &Arena) {
    let mut without = mapped(arena.sleeper());
    without.namespace("user", None);
    let mut none = mapped(arena.sleeper());
    map(&mut none, json!([]));
    let mut half = mapped(arena.sleeper());
    half.config["linux"]["gidMappings"] = json!([]);
    let mut overlap = mapped(arena.sleeper());
    map(&mut overlap, json!([range(0, FIRST, 10), range(10, FIRST + 9, 10)]));
    let mut overflow = mapped(arena.sleeper());
    map(&mut overflow, json!([range(0, u32::MAX - 4, 10)]));
    let mut many = mapped(arena.sleeper());
    map(&mut many, (0..341).map(|n| range(n, FIRST + n, 1)).collect());
    for (case, want) in [
        (without, "linux.uidMappings: there is no user namespace"),
        (none, "linux.uidMappings: a new user namespace needs it"),
        (half, "linux.gidMappings: missing"),
        (overlap, "linux.uidMappings[1].hostID: 100009 overlaps"),
        (overflow, "linux.uidMappings[0].hostID: 4294967291"),
        (many, "linux.uidMappings: 341 ranges"),
    ] {
        let error = case.refused();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        assert!(error.to_string().starts_with(want), "{error}");
    }
}

/// Red if one of the two processes of a create stays when a later step fails.
fn nothing_is_left_of_a_failed_one(arena: &Arena) {
    for change in [
        |case: &mut Case<'_>| case.config["process"]["args"] = json!(["/no/such"]),
        |case: &mut Case<'_>| case.mount("/m", "no-such-fs", "x", &[]),
        // What it has to be mounted on belongs to nobody inside.
        |case: &mut Case<'_>| case.mount("/home/deep/m", "tmpfs", "x", &[]),
    ] {
        let mut case = mapped(arena.sleeper());
        change(&mut case);
        case.refused();
        assert_eq!(super::support::census::cgroups(&case.id), [""; 0]);
    }
}
