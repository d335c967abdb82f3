//! Network devices that move into a container. Each test has a network namespace of its own, in
//! which it plays the host.

use std::process::Command;

use boathook_runtime::{Container, Create, ErrorKind, Process, Result, spec};
use nix::sched::{CloneFlags, unshare};
use serde_json::json;

use super::support::streams::Streams;
use super::support::{Arena, Case, LIMIT, tests};

tests!(
    a_device_moves_with_its_addresses,
    a_pattern_gives_each_its_name,
    what_cannot_move_is_told,
    a_failed_create_gives_devices_back,
);

/// Runs `work` on a thread whose network namespace has the veth pair `bh0` and `peer`.
fn on_a_host<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("unshare");
            ip("link add bh0 type veth peer name peer");
            ip("link set peer up");
            ip("address add 192.0.2.7/24 broadcast 192.0.2.255 dev bh0");
            ip("address add 2001:db8::7/64 dev bh0 nodad");
            ip("link set bh0 up mtu 1400");
            work()
        });
        thread.join().expect("no panic")
    })
}

/// `ip` in this thread's network namespace, which children inherit.
#[track_caller]
fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split(' ')).output().expect("iproute2");
    assert!(output.status.success(), "ip {arguments}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// What a thread needs of a case, which cannot leave its own.
fn creator<'c>(
    case: &'c Case<'_>,
) -> impl Fn() -> Result<(Container, Process, Streams)> + Send + 'c {
    case.save();
    let (engine, id) = (case.arena.engine.clone(), case.id.as_str());
    let (bundle, options) = (case.bundle(), case.options);
    move || {
        let (stdio, streams) = Streams::pipes();
        let spec = spec::load(bundle)?;
        let made =
            engine.create(Create { id, bundle, spec: &spec, stdio, options, deadline: LIMIT })?;
        Ok((made.container, made.process, streams))
    }
}

/// Red if the device stays, comes without its addresses, down, or under another name; or if it
/// does not go with the container.
fn a_device_moves_with_its_addresses(arena: &Arena) {
    let mut case = arena.sleeper();
    case.config["linux"]["netDevices"] = json!({ "bh0": { "name": "eth7" } });
    // The setting belongs to the device, so that it has to be there in time.
    case.config["linux"]["sysctl"] = json!({ "net.ipv4.conf.eth7.forwarding": "1" });
    case.config["process"]["args"] = json!([
        "/bin/sh",
        "-c",
        "ip address show dev eth7; cat /proc/sys/net/ipv4/conf/eth7/forwarding"
    ]);
    let create = creator(&case);
    on_a_host(|| {
        let (container, process, streams) = create().unwrap_or_else(|e| panic!("{e}"));
        assert!(!ip("-o link show").contains("bh0"));
        process.start(LIMIT).unwrap();
        let (out, err) = streams.finish();
        let flags = out.split(['<', '>']).nth(1).unwrap_or_default().to_owned();
        assert!(flags.split(',').any(|flag| flag == "UP"), "{out}{err}");
        for text in ["mtu 1400", "inet 192.0.2.7/24 brd 192.0.2.255", "inet6 2001:db8::7/64"] {
            assert!(out.contains(text), "{text} is not in {out}{err}");
        }
        assert!(out.ends_with("\n1\n"), "{out}{err}");
        container.delete(LIMIT).unwrap();
        drop(process);
    });
}

/// Red if two devices that ask for the next free name get one, or none.
fn a_pattern_gives_each_its_name(arena: &Arena) {
    let mut case = arena.sleeper();
    case.config["linux"]["netDevices"] =
        json!({ "bh0": { "name": "n%d" }, "peer": { "name": "n%d" } });
    case.config["process"]["args"] =
        json!(["/bin/sh", "-c", "ls /sys/class/net | grep ^n; ip -o address show"]);
    let create = creator(&case);
    on_a_host(|| {
        let (container, process, streams) = create().unwrap_or_else(|e| panic!("{e}"));
        process.start(LIMIT).unwrap();
        let (out, err) = streams.finish();
        assert!(out.starts_with("n0\nn1\n"), "{out}{err}");
        assert!(out.contains("192.0.2.7/24"), "{out}{err}");
        container.delete(LIMIT).unwrap();
        drop(process);
    });
}

/// Red if the message does not name the device, or something else is moved or replaced.
fn what_cannot_move_is_told(arena: &Arena) {
    for (devices, field) in [
        (json!({ "nothere": {} }), "linux.netDevices.nothere: the host has no such"),
        (json!({ "bh0": { "name": "lo" } }), "linux.netDevices.bh0.name: \"lo\" exists"),
        (json!({ "lo": { "name": "other" } }), "linux.netDevices.lo: move it"),
        // The first of the two has moved when the second fails.
        (json!({ "bh0": {}, "nothere": {} }), "linux.netDevices.nothere: the host has no such"),
    ] {
        let mut case = arena.sleeper();
        case.config["linux"]["netDevices"] = devices;
        let create = creator(&case);
        let error = on_a_host(|| {
            let before = (ip("-o link show dev bh0"), ip("-o address show dev bh0"));
            let error = create().unwrap_err();
            let after = (ip("-o link show dev bh0"), ip("-o address show dev bh0"));
            assert_eq!(stable(&after.0), stable(&before.0));
            assert_eq!(stable(&after.1), stable(&before.1));
            error
        });
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        assert!(error.to_string().starts_with(field), "{error} does not start with {field}");
    }
}

/// Without the device's number, which may change, and the state of the line, which takes time.
fn stable(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = text
        .lines()
        .filter(|line| !line.contains("scope link"))
        .map(|line| {
            let words = line.split_whitespace().skip(1);
            let words = words.filter(|word| !word.starts_with('<') && !word.contains("link-netns"));
            let mut words: Vec<&str> = words.collect();
            for state in ["UP", "DOWN", "LOWERLAYERDOWN", "UNKNOWN", "tentative"] {
                words.retain(|word| *word != state);
            }
            words.join(" ")
        })
        .collect();
    lines.sort();
    lines
}

/// Red if a create that fails after the move takes the host's device with it: in a new namespace
/// it would be destroyed.
fn a_failed_create_gives_devices_back(arena: &Arena) {
    let mut case = arena.sleeper();
    case.config["linux"]["netDevices"] = json!({ "bh0": { "name": "eth0" } });
    case.config["process"]["args"] = json!(["/no/such/program"]);
    let create = creator(&case);
    on_a_host(|| {
        let before = ip("-o address show dev bh0");
        let error = create().unwrap_err();
        assert!(error.to_string().contains("/no/such/program"), "{error}");
        assert_eq!(stable(&ip("-o address show dev bh0")), stable(&before));
        let link = ip("-o link show dev bh0");
        let flags = link.split(['<', '>']).nth(1).unwrap_or_default();
        assert!(flags.split(',').any(|flag| flag == "UP"), "{link}");
    });
}
