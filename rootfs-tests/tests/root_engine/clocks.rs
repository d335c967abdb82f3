//! Time namespaces.

use std::fs;

use boathook_runtime::ErrorKind;
use serde_json::{Value, json};

use super::support::live::{proc_file, proc_link, status};
use super::support::{Arena, Case, Live, tests};

tests!(
    a_new_one_has_clocks_of_its_own,
    one_without_offsets_is_new_all_the_same,
    beside_the_hosts_processes,
    an_exec_and_another_container_join_it,
    offsets_that_cannot_be_are_refused,
);

/// Seconds that no host of these tests has been up.
const DAY: i64 = 86_400 * 1000;

fn offsets() -> Value {
    json!({ "boottime": { "secs": DAY, "nanosecs": 500 }, "monotonic": { "secs": 2 * DAY } })
}

fn timed<'a>(mut case: Case<'a>) -> Case<'a> {
    case.new_namespace("time");
    case.config["linux"]["timeOffsets"] = offsets();
    case
}

/// `ns/time` of a process, which must be where its children are, too.
fn time_of(pid: i32) -> String {
    let link = proc_link(pid, "ns/time");
    assert_eq!(proc_link(pid, "ns/time_for_children"), link);
    link
}

fn uptime(live: &Live) -> i64 {
    live.sh("cut -d. -f1 /proc/uptime").parse().unwrap()
}

/// Red if the program stays in the host's, the offsets are not written, or the container has lost
/// its pid 1 on the way.
fn a_new_one_has_clocks_of_its_own(arena: &Arena) {
    let live = timed(arena.sleeper()).start();
    let pid = live.process.pid();
    assert_ne!(time_of(pid), time_of(std::process::id() as i32));
    let lines: Vec<Vec<String>> = proc_file(pid, "timens_offsets")
        .lines()
        .map(|line| line.split_whitespace().map(str::to_owned).collect())
        .collect();
    let want = |clock: &str, secs: i64, nanos: &str| {
        vec![clock.to_owned(), secs.to_string(), nanos.to_owned()]
    };
    assert_eq!(lines, [want("monotonic", 2 * DAY, "0"), want("boottime", DAY, "500")]);
    assert!((DAY..DAY + DAY / 2).contains(&uptime(&live)), "{}", uptime(&live));
    assert_eq!(status(pid, "NSpid").rsplit(' ').next(), Some("1"));
    assert_eq!(status(pid, "PPid"), std::process::id().to_string());
    assert!(live.container.has_private_pidns());
    live.delete();
}

/// Red if a namespace is only made where offsets are.
fn one_without_offsets_is_new_all_the_same(arena: &Arena) {
    let mut case = arena.sleeper();
    case.new_namespace("time");
    let live = case.start();
    assert_ne!(time_of(live.process.pid()), time_of(std::process::id() as i32));
    live.delete();
}

/// Red if it takes a new pid namespace to get into a time namespace.
fn beside_the_hosts_processes(arena: &Arena) {
    let mut case = timed(arena.sleeper());
    case.namespace("pid", None);
    let live = case.start();
    assert_ne!(time_of(live.process.pid()), time_of(std::process::id() as i32));
    assert_eq!(status(live.process.pid(), "NSpid"), live.process.pid().to_string());
    assert!(uptime(&live) >= DAY);
    live.delete();
}

/// Red if a later process has the host's clocks, or a path is not entered.
fn an_exec_and_another_container_join_it(arena: &Arena) {
    let first = timed(arena.sleeper()).start();
    let time = time_of(first.process.pid());
    assert_eq!(first.sh("readlink /proc/self/ns/time"), time);
    let mut case = arena.sleeper();
    case.namespace("time", Some(&format!("/proc/{}/ns/time", first.process.pid())));
    let second = case.start();
    assert_eq!(time_of(second.process.pid()), time);
    assert!(uptime(&second) >= DAY);
    assert_eq!(second.sh("readlink /proc/self/ns/time"), time);
    // Offsets are for a new one: what exists may have somebody in it who counts on its clocks.
    case.config["linux"]["timeOffsets"] = offsets();
    let error = case.refused();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    assert!(error.to_string().starts_with("linux.timeOffsets: "), "{error}");
    second.delete();
    first.delete();
}

/// Red if one is ignored, or an error of the kernel comes without field and value.
fn offsets_that_cannot_be_are_refused(arena: &Arena) {
    let up: f64 =
        fs::read_to_string("/proc/uptime").unwrap().split(' ').next().unwrap().parse().unwrap();
    // Before the boot of the host: only the kernel knows when that was.
    let before = -(up as i64) - DAY;
    for (offsets, want) in [
        (json!({ "realtime": { "secs": 1 } }), "\"realtime\""),
        (json!({ "boottime": { "secs": i64::MAX } }), "boottime.secs: 9223372036854775807"),
        (json!({ "monotonic": { "nanosecs": 1_000_000_000 } }), "monotonic.nanosecs: 1000000000"),
        (json!({ "boottime": { "secs": before } }), "boottime"),
    ] {
        let mut case = timed(arena.sleeper());
        case.config["linux"]["timeOffsets"] = offsets;
        let error = case.refused();
        let text = error.to_string();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{text}");
        assert!(text.starts_with("linux.timeOffsets") && text.contains(want), "{text}");
    }
    let mut case = timed(arena.sleeper());
    case.namespace("time", None);
    let error = case.refused();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    assert!(error.to_string().contains("no new time namespace"), "{error}");
}
