//! A cgroup with processes in it: limits that hold and change, freezing, figures, OOM.

use std::time::Duration;

use boathook_runtime::ErrorKind;
use boathook_runtime::cgroup::{FrozenState, Mode, OomEvent, Stats};
use rustix::process::{Signal, pidfd_send_signal};

use super::support::{Arena, Child, PATIENCE, deadline, on_each, parse, readable};

/// Red if freeze returns before the processes stand, or thaw leaves them standing.
#[test]
fn frozen_processes_stand_until_thawed() {
    on_each(|arena| {
        let group = arena.create("c", "{}");
        let child = Child::sleeper(&group);
        assert_eq!(group.frozen_state().unwrap(), FrozenState::Thawed);
        group.freeze(deadline()).unwrap();
        assert_eq!(group.frozen_state().unwrap(), FrozenState::Frozen);
        if arena.hierarchies.mode() != Mode::V2 && arena.host("freezer", "c").exists() {
            // A process stopped by the v1 freezer does not even die.
            pidfd_send_signal(&child.pidfd, Signal::KILL).unwrap();
            assert!(!readable(&child.pidfd, Duration::from_millis(50)));
        }
        group.thaw().unwrap();
        assert_eq!(group.frozen_state().unwrap(), FrozenState::Thawed);
        pidfd_send_signal(&child.pidfd, Signal::KILL).unwrap();
        child.wait();
        group.delete(deadline()).unwrap();
        arena.assert_clean();
    });
}

/// Red if a freeze that runs out of time leaves the group half frozen. A
/// deadline in the past allows one try, which may or may not do.
#[test]
fn a_freeze_out_of_time_is_taken_back() {
    on_each(|arena| {
        let group = arena.create("c", "{}");
        let child = Child::shell(&group.join_files().unwrap(), "while :; do :; done");
        match group.freeze(std::time::Instant::now()) {
            Ok(()) => assert_eq!(group.frozen_state().unwrap(), FrozenState::Frozen),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
                assert_eq!(group.frozen_state().unwrap(), FrozenState::Thawed);
            }
        }
        group.kill_all(deadline()).unwrap();
        child.wait();
        group.delete(deadline()).unwrap();
        arena.assert_clean();
    });
}

/// Red if growing or shrinking writes memory and swap, or period and quota, in
/// the one order that the kernel refuses.
#[test]
fn updates_go_up_and_down() {
    let arena = Arena::new();
    let group = arena.create("c", r#"{"memory":{"limit":33554432,"swap":33554432}}"#);
    let child = Child::sleeper(&group);
    for mib in [64i64, 16, 128] {
        let bytes = mib << 20;
        let json = format!(r#"{{"memory":{{"limit":{bytes},"swap":{bytes}}}}}"#);
        group.update(&parse(&json)).unwrap();
        assert_eq!(arena.text("memory", "c/memory.limit_in_bytes"), bytes.to_string());
        assert_eq!(arena.text("memory", "c/memory.memsw.limit_in_bytes"), bytes.to_string());
    }
    group.update(&parse(r#"{"memory":{"limit":-1}}"#)).unwrap();
    assert_eq!(
        arena.text("memory", "c/memory.limit_in_bytes"),
        arena.text("memory", "memory.limit_in_bytes")
    );
    for (period, quota, burst) in
        [(100_000, 50_000, 40_000), (20_000, 10_000, 0), (900_000, 800_000, 700_000)]
    {
        let json = format!(r#"{{"cpu":{{"period":{period},"quota":{quota},"burst":{burst}}}}}"#);
        group.update(&parse(&json)).unwrap();
        assert_eq!(arena.text("cpu", "c/cpu.cfs_period_us"), period.to_string());
        assert_eq!(arena.text("cpu", "c/cpu.cfs_quota_us"), quota.to_string());
        assert_eq!(arena.text("cpu", "c/cpu.cfs_burst_us"), burst.to_string());
    }
    group.update(&parse(r#"{"pids":{"limit":33},"cpu":{"shares":300}}"#)).unwrap();
    assert_eq!(arena.text("pids", "c/pids.max"), "33");
    assert_eq!(arena.text("cpu", "c/cpu.shares"), "300");
    group.kill_all(deadline()).unwrap();
    child.wait();
    group.delete(deadline()).unwrap();
    arena.assert_clean();
}

/// An update, and what files of which controllers hold after it.
type Update = (&'static str, &'static [(&'static str, &'static str, &'static str)]);

/// Red if one kind of limit cannot be changed under a running process, or an update
/// reaches another file.
#[test]
fn every_kind_changes_under_a_running_process() {
    let arena = Arena::new();
    let group = arena.create("c", r#"{"cpu":{"shares":500,"cpus":"0"}}"#);
    let child = Child::sleeper(&group);
    let updates: [Update; 7] = [
        (r#"{"cpu":{"idle":1}}"#, &[("cpu", "cpu.idle", "1")]),
        // An idle group takes no shares: the order is found by trying.
        (r#"{"cpu":{"shares":700,"idle":0}}"#, &[("cpu", "cpu.shares", "700")]),
        (
            r#"{"memory":{"reservation":8388608,"swappiness":7,"disableOOMKiller":true}}"#,
            &[
                ("memory", "memory.soft_limit_in_bytes", "8388608"),
                ("memory", "memory.swappiness", "7"),
            ],
        ),
        (r#"{"pids":{"limit":0}}"#, &[("pids", "pids.max", "0")]),
        (r#"{"pids":{"limit":-1}}"#, &[("pids", "pids.max", "max")]),
        (r#"{"cpu":{"quota":-1}}"#, &[("cpu", "cpu.cfs_quota_us", "-1")]),
        (r#"{"cpu":{"period":50000}}"#, &[("cpu", "cpu.cfs_period_us", "50000")]),
    ];
    for (json, want) in updates {
        group.update(&parse(json)).unwrap_or_else(|error| panic!("{json}: {error}"));
        for (controller, file, value) in want {
            assert_eq!(arena.text(controller, &format!("c/{file}")), *value, "{json}");
        }
    }
    assert_eq!(arena.text("cpu", "c/cpu.idle"), "0");
    let all = arena.text("cpuset", "cpuset.cpus");
    for cpus in [all.as_str(), "0"] {
        let json = format!(r#"{{"cpu":{{"cpus":"{cpus}","mems":"0"}}}}"#);
        group.update(&parse(&json)).unwrap();
        assert_eq!(arena.text("cpuset", "c/cpuset.cpus"), cpus);
    }
    assert!(arena.text("memory", "c/memory.oom_control").starts_with("oom_kill_disable 1"));
    group.kill_all(deadline()).unwrap();
    child.wait();
    group.delete(deadline()).unwrap();
    arena.assert_clean();
}

/// Red if real-time CPU time does not reach a cgroup whose parents were made with it, or one
/// that cannot have it passes.
#[test]
fn real_time_is_handed_down() {
    let arena = Arena::new();
    let own = arena.host("cpu", "");
    if !own.join("cpu.rt_runtime_us").exists() {
        // Built without CONFIG_RT_GROUP_SCHED: then it must say so.
        let error = arena.try_create("c", r#"{"cpu":{"realtimeRuntime":1000}}"#).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        return arena.assert_clean();
    }
    let json = r#"{"cpu":{"realtimePeriod":500000,"realtimeRuntime":1000}}"#;
    let error = arena.try_create("x/c", json).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    assert!(error.to_string().starts_with("linux.resources.cpu.realtimeRuntime: "), "{error}");
    arena.assert_clean();
    std::fs::write(own.join("cpu.rt_runtime_us"), "10000").unwrap();
    let group = arena.create("x/c", json);
    assert_eq!(arena.text("cpu", "x/c/cpu.rt_runtime_us"), "1000");
    assert_eq!(arena.text("cpu", "x/c/cpu.rt_period_us"), "500000");
    group.update(&parse(r#"{"cpu":{"realtimeRuntime":500}}"#)).unwrap();
    assert_eq!(arena.text("cpu", "x/c/cpu.rt_runtime_us"), "500");
    group.delete(deadline()).unwrap();
    arena.assert_clean();
}

/// Red if an update that fails leaves half of its limits behind.
#[test]
fn a_refused_update_changes_nothing() {
    let arena = Arena::new();
    let group = arena.create(
        "c",
        r#"{"cpu":{"shares":500,"period":50000,"quota":20000},"memory":{"limit":16777216,"swap":16777216},"pids":{"limit":50}}"#,
    );
    let files = [
        ("cpu", "c/cpu.shares"),
        ("cpu", "c/cpu.cfs_period_us"),
        ("cpu", "c/cpu.cfs_quota_us"),
        ("memory", "c/memory.limit_in_bytes"),
        ("memory", "c/memory.memsw.limit_in_bytes"),
        ("pids", "c/pids.max"),
        ("devices", "c/devices.list"),
    ];
    let read = || files.map(|(controller, file)| arena.text(controller, file));
    let before = read();
    let error = group
        .update(&parse(
            r#"{"cpu":{"shares":900,"period":90000,"quota":80000},"memory":{"limit":33554432,"swap":50331648},"pids":{"limit":5000000}}"#,
        ))
        .unwrap_err();
    assert!(error.to_string().starts_with("linux.resources.pids.limit: "), "{error}");
    assert_eq!(read(), before);
    group.delete(deadline()).unwrap();
    arena.assert_clean();
}

/// Red if an update without rules resets the devices, or one with rules does not reach them.
#[test]
fn devices_change_only_when_asked() {
    let arena = Arena::new();
    let group = arena.create("c", "{}");
    let before = arena.text("devices", "c/devices.list");
    group.update(&parse(r#"{"pids":{"limit":5}}"#)).unwrap();
    group.update(&parse(r#"{"devices":[]}"#)).unwrap();
    assert_eq!(arena.text("devices", "c/devices.list"), before);
    let rule = r#"{"devices":[{"allow":true,"type":"b","major":7,"minor":3,"access":"r"}]}"#;
    group.update(&parse(rule)).unwrap();
    let after = arena.text("devices", "c/devices.list");
    assert_eq!(after.lines().count(), before.lines().count() + 1, "{after}");
    assert!(after.lines().any(|l| l == "b 7:3 r"), "{after}");
    group.delete(deadline()).unwrap();
    arena.assert_clean();
}

/// Red if a limit below what is in use passes as done, or its error does not say why.
#[test]
fn a_limit_below_usage_is_refused_with_the_usage() {
    let arena = Arena::new();
    let group = arena.create("c", r#"{"memory":{"limit":134217728,"swap":134217728}}"#);
    let hoard = "x=$(head -c 20000000 /dev/zero | tr '\\0' x); echo ready; kill -STOP $$; echo $x";
    let child = Child::shell(&group.join_files().unwrap(), hoard);
    child.await_output();
    let error = group.update(&parse(r#"{"memory":{"limit":4194304}}"#)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WrongState, "{error}");
    let text = error.to_string();
    assert!(
        text.starts_with("linux.resources.memory.limit: ") && text.contains("in use"),
        "{text}"
    );
    assert_eq!(arena.text("memory", "c/memory.limit_in_bytes"), "134217728");
    group.kill_all(deadline()).unwrap();
    child.wait();
    group.delete(deadline()).unwrap();
    arena.assert_clean();
}

/// Red if a figure is read from the wrong file or in the wrong unit.
#[test]
fn stats_show_what_was_used() {
    let arena = Arena::new();
    let group = arena.create("c", r#"{"memory":{"limit":67108864},"pids":{"limit":11}}"#);
    // CPU for more than a tick, and enough memory that the kernel posts it to the totals.
    let work = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; \
                x=$(head -c 20000000 /dev/zero | tr '\\0' x); echo ready; kill -STOP $$; echo $x";
    let child = Child::shell(&group.join_files().unwrap(), work);
    child.await_output();
    let Stats::V1(stats) = group.stats().unwrap() else { panic!("this is a v1 or hybrid host") };
    let cpu = stats.cpu.unwrap();
    let raw: u64 = arena.text("cpuacct", "c/cpuacct.usage").parse().unwrap();
    assert!(cpu.total_ns > 1_000_000 && cpu.total_ns <= raw, "{cpu:?}");
    assert!(cpu.per_cpu_ns.iter().sum::<u64>() >= cpu.total_ns, "{cpu:?}");
    assert!(cpu.user_ns + cpu.kernel_ns > 0, "{cpu:?}");
    let memory = stats.memory.unwrap();
    assert_eq!(memory.usage.limit, 67_108_864);
    assert_eq!(memory.hierarchical_limit, 67_108_864);
    assert!(memory.usage.usage > 0 && memory.usage.max >= memory.usage.usage, "{memory:?}");
    assert!(memory.own.rss > 0 && memory.total.rss >= memory.own.rss, "{memory:?}");
    assert!(memory.own.pgfault > 0);
    assert!(!memory.oom_control.oom_kill_disable && !memory.oom_control.under_oom);
    let pids = stats.pids.unwrap();
    assert_eq!((pids.current, pids.limit), (1, Some(11)));
    group.kill_all(deadline()).unwrap();
    child.wait();
    let Stats::V1(after) = group.stats().unwrap() else { panic!("this is a v1 or hybrid host") };
    assert!(after.cpu.unwrap().total_ns >= cpu.total_ns, "figures outlive the last process");
    assert_eq!(after.pids.unwrap().current, 0);
    group.delete(deadline()).unwrap();
    arena.assert_clean();
}

/// Red if anything about a removed cgroup is answered by a panic, by zeros or by another kind.
#[test]
fn a_vanished_cgroup_is_not_found() {
    let arena = Arena::new();
    let group = arena.create("c", "{}");
    group.delete(deadline()).unwrap();
    let errors = [
        group.stats().unwrap_err(),
        group.pids(true).unwrap_err(),
        group.pids(false).unwrap_err(),
        group.freeze(deadline()).unwrap_err(),
        group.thaw().unwrap_err(),
        group.frozen_state().unwrap_err(),
        group.join_files().unwrap_err(),
        group.oom_watch().unwrap_err(),
        group.signal_all(15).unwrap_err(),
        group.update(&parse(r#"{"pids":{"limit":5}}"#)).unwrap_err(),
        group.update(&parse(r#"{"memory":{"limit":-1}}"#)).unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    }
    group.kill_all(deadline()).unwrap();
    arena.assert_clean();
}

/// Red if the watch is deaf, or takes the removal for an out-of-memory event.
#[test]
fn running_out_of_memory_is_an_event() {
    let arena = Arena::new();
    let group = arena.create("c", r#"{"memory":{"limit":8388608,"swap":8388608}}"#);
    let mut watch = group.oom_watch().unwrap();
    assert_eq!(watch.read().unwrap(), OomEvent::Nothing);
    let child =
        Child::shell(&group.join_files().unwrap(), "head -c 64M /dev/zero | tail > /dev/null");
    assert!(readable(&watch, PATIENCE), "no event");
    assert!(matches!(watch.read().unwrap(), OomEvent::Oom(n) if n > 0));
    child.wait();
    let Stats::V1(stats) = group.stats().unwrap() else { panic!("this is a v1 or hybrid host") };
    assert!(stats.memory.unwrap().oom_control.oom_kill > 0);
    group.kill_all(deadline()).unwrap();
    while watch.read().unwrap() != OomEvent::Nothing {}
    group.delete(deadline()).unwrap();
    assert!(readable(&watch, PATIENCE), "no event of the removal");
    assert_eq!(watch.read().unwrap(), OomEvent::Gone);
    arena.assert_clean();
}
