//! Limits, figures, and what happens when a limit is met.

use std::fs;
use std::time::Duration;

use boathook_runtime::cgroup::{Mode, OomEvent, Stats};
use boathook_runtime::{ErrorKind, spec};
use rootfs_tests::wait::{self, Deadline};
use serde_json::{Value, json};

use super::support::{Arena, Case, LIMIT, Live, payload, tests};

tests!(
    limits_are_there_before_the_program,
    limits_change_while_it_runs,
    a_wrong_change_changes_nothing,
    figures_of_a_working_container,
    out_of_memory_is_told_and_ends_in_137,
    the_number_of_processes_is_limited,
    too_little_memory_for_a_start_is_told,
    cache_classes_need_resctrl,
);

/// Whether this host has cgroup v2 alone.
fn on_v2(live: &Live) -> bool {
    live.container.cgroup().mode() == Mode::V2
}

/// A file of the container's cgroup: in the hierarchy of its controller, or in the only one.
fn file(live: &Live, controller: &str, name: &str) -> String {
    let wanted = if on_v2(live) { "" } else { controller };
    let directory = live.container.cgroup().directories().find(|d| d.hierarchy == wanted);
    let directory = directory.unwrap_or_else(|| panic!("no {controller} hierarchy"));
    let path = directory.mount_point.join(directory.path).join(name);
    fs::read_to_string(path).unwrap().trim_end().to_owned()
}

fn limits(case: &mut Case<'_>, name: &str, value: Value) {
    case.config["linux"]["resources"][name] = value;
}

/// Red if a program can run a single instruction without its limits.
fn limits_are_there_before_the_program(arena: &Arena) {
    let mut case = arena.sleeper();
    limits(&mut case, "memory", json!({ "limit": 50_331_648 }));
    limits(&mut case, "cpu", json!({ "shares": 300, "quota": 20_000, "period": 50_000 }));
    limits(&mut case, "pids", json!({ "limit": 9 }));
    let live = case.create().unwrap();
    for (controller, v1, v2) in [
        ("memory", ("memory.limit_in_bytes", "50331648"), ("memory.max", "50331648")),
        ("cpu", ("cpu.shares", "300"), ("cpu.weight", "39")),
        ("cpu", ("cpu.cfs_quota_us", "20000"), ("cpu.max", "20000 50000")),
        ("cpu", ("cpu.cfs_period_us", "50000"), ("cpu.max", "20000 50000")),
        ("pids", ("pids.max", "9"), ("pids.max", "9")),
    ] {
        let (name, want) = if on_v2(&live) { v2 } else { v1 };
        assert_eq!(file(&live, controller, name), want, "{name}");
        let pids = file(&live, controller, "cgroup.procs");
        assert_eq!(pids, live.process.pid().to_string(), "{controller}");
    }
    live.delete();
}

fn resources(value: &Value) -> oci_spec::runtime::LinuxResources {
    spec::resources_from_json(value.to_string().as_bytes()).unwrap()
}

/// Red if an update resets what it does not name, device rules included.
fn limits_change_while_it_runs(arena: &Arena) {
    let mut case = arena.sleeper();
    limits(&mut case, "memory", json!({ "limit": 50_331_648 }));
    limits(&mut case, "pids", json!({ "limit": 9 }));
    let live = case.start();
    let devices = (!on_v2(&live)).then(|| file(&live, "devices", "devices.list"));
    live.container.update(&resources(&json!({ "cpu": { "shares": 777 } }))).unwrap();
    live.container.update(&resources(&json!({ "memory": { "limit": 67_108_864 } }))).unwrap();
    let (weight, limit) = match on_v2(&live) {
        true => (("cpu.weight", "81"), "memory.max"),
        false => (("cpu.shares", "777"), "memory.limit_in_bytes"),
    };
    assert_eq!(file(&live, "cpu", weight.0), weight.1);
    assert_eq!(file(&live, "memory", limit), "67108864");
    assert_eq!(file(&live, "pids", "pids.max"), "9");
    match devices {
        Some(before) => assert_eq!(file(&live, "devices", "devices.list"), before),
        // On v2 the rules are a program: the host's log was not allowed, and still is not.
        None => {
            let tried = live.sh("mknod /dev/log c 1 11; (: < /dev/log) 2>&1; :");
            assert!(tried.contains("not permitted"), "{tried}");
        }
    }
    live.delete();
}

/// Red if half of a refused update stays, or the message does not name the field.
fn a_wrong_change_changes_nothing(arena: &Arena) {
    let mut case = arena.sleeper();
    limits(&mut case, "pids", json!({ "limit": 9 }));
    let live = case.start();
    let wrong = json!({ "pids": { "limit": 8 }, "cpu": { "cpus": "4000" } });
    let error = live.container.update(&resources(&wrong)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    assert!(error.to_string().contains("linux.resources.cpu.cpus"), "{error}");
    assert_eq!(file(&live, "pids", "pids.max"), "9");
    live.delete();
}

/// Red if figures are of another cgroup or in another unit: they are compared with what the
/// container certainly did.
fn figures_of_a_working_container(arena: &Arena) {
    let script = "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; \
                  head -c 20000000 /dev/zero > /dev/shm/file; echo on; sleep 1000000";
    let mut case = arena.sh(script);
    limits(&mut case, "memory", json!({ "limit": 134_217_728 }));
    let mut live = case.start();
    live.line();
    let stats = live.container.stats().unwrap();
    let text = format!("{stats:?}");
    let (nanoseconds, (memory, limit), pids) = match stats {
        Stats::V1(stats) => {
            let memory = stats.memory.unwrap().usage;
            let cpu = stats.cpu.unwrap().total_ns;
            (cpu, (memory.usage, memory.limit), stats.pids.unwrap())
        }
        Stats::V2(stats) => {
            let memory = stats.memory.unwrap();
            let cpu = stats.cpu.stat.usage_usec * 1000;
            (cpu, (memory.usage, memory.usage_limit), stats.pids.unwrap())
        }
    };
    assert!(nanoseconds > 1_000_000 && nanoseconds < 60_000_000_000, "{text}");
    assert!((20_000_000..134_217_728).contains(&memory), "bytes: {text}");
    assert_eq!(limit, 134_217_728, "{text}");
    assert_eq!(pids.current, 1, "{text}");
    live.delete();
}

/// Red if the event is missed or the exit code is something else.
fn out_of_memory_is_told_and_ends_in_137(arena: &Arena) {
    let mut case = arena.case(&payload::args("eat", &[]));
    case.with_payload();
    limits(&mut case, "memory", json!({ "limit": 33_554_432, "swap": 33_554_432 }));
    let live = case.create().unwrap();
    let mut watch = live.container.oom_watch().unwrap();
    assert_eq!(watch.read().unwrap(), OomEvent::Nothing);
    live.start();
    // On v2 the file also tells of the limit being met, before anything is killed.
    let mut seen = OomEvent::Nothing;
    while seen == OomEvent::Nothing {
        wait::readable(&watch, "an OOM event", Deadline::after(LIMIT)).unwrap();
        seen = watch.read().unwrap();
        assert!(seen != OomEvent::Nothing || on_v2(&live), "woken for nothing");
    }
    assert!(matches!(seen, OomEvent::Oom(_)), "{seen:?}");
    assert_eq!(live.wait(), 137);
    live.delete();
    let end = wait::until("the end of the cgroup", LIMIT, || {
        wait::readable(&watch, "the end of the cgroup", Deadline::after(LIMIT))?;
        Ok((watch.read().unwrap() == OomEvent::Gone).then_some(()))
    });
    end.unwrap();
}

/// Red if a fork bomb is not stopped, or an exec beyond the limit fails without a class.
fn the_number_of_processes_is_limited(arena: &Arena) {
    let mut case = arena.sh("sleep 1000 & sleep 1000 & echo on; wait");
    limits(&mut case, "pids", json!({ "limit": 3 }));
    let mut live = case.start();
    live.line();
    let exec = live.exec_json(&live.process_spec(&["sh", "-c", "(true); echo no"]));
    if on_v2(&live) {
        // v2 counts a process at its birth, and an exec is one too many.
        let error = exec.expect_err("a fourth process");
        assert_eq!(error.kind(), ErrorKind::Exhausted, "{error}");
        assert!(error.to_string().contains("linux.resources.pids.limit"), "{error}");
        return live.delete();
    }
    let (process, streams) = exec.unwrap();
    process.start(LIMIT).unwrap();
    let (out, err) = streams.finish();
    assert!(out.is_empty() && err.contains("fork"), "{out} {err}");
    drop(process);
    live.delete();
}

/// Red if an init that the kernel killed for want of memory leaves a riddle, a hang or a directory.
fn too_little_memory_for_a_start_is_told(arena: &Arena) {
    for limit in [4096, 65_536] {
        let mut case = arena.sleeper();
        limits(&mut case, "memory", json!({ "limit": limit, "swap": limit }));
        let begin = std::time::Instant::now();
        let error = case.refused();
        let text = error.to_string();
        assert!(text.contains("memory limit"), "{text}");
        assert!(begin.elapsed() < LIMIT - Duration::from_secs(1), "{text}");
    }
}

/// Red if a class of service is forgotten where there are none.
fn cache_classes_need_resctrl(arena: &Arena) {
    let mut case = arena.sleeper();
    case.config["linux"]["intelRdt"] = json!({ "closID": "gold" });
    let error = case.refused();
    let mounted = fs::read_to_string("/proc/mounts").unwrap().contains(" resctrl ");
    let (kind, field) = match mounted {
        true => (ErrorKind::InvalidInput, "linux.intelRdt.closID: "),
        false => (ErrorKind::Unsupported, "linux.intelRdt: the resctrl file system"),
    };
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().starts_with(field), "{error}");
}
