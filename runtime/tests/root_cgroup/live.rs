//! A cgroup with processes in it: limits that hold and change, freezing, figures, OOM.

use std::time::Duration;

use boathook_runtime::ErrorKind;
use boathook_runtime::cgroup::stats::{V1Stats, V2Stats};
use boathook_runtime::cgroup::{FrozenState, Mode, OomEvent, Stats};
use rustix::process::{Signal, pidfd_send_signal};

use super::bpf;
use super::support::{Arena, Child, Limit, PATIENCE, deadline, on_each, parse, readable};

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
        let bytes = bytes.to_string();
        arena.assert_limits(
            "c",
            &[
                ("memory", ("memory.limit_in_bytes", &bytes), ("memory.max", &bytes)),
                ("memory", ("memory.memsw.limit_in_bytes", &bytes), ("memory.swap.max", "0")),
            ],
        );
    }
    group.update(&parse(r#"{"memory":{"limit":-1}}"#)).unwrap();
    let file = arena.either("memory.limit_in_bytes", "memory.max");
    // Like the arena itself, which has no limit.
    assert_eq!(arena.text("memory", &format!("c/{file}")), arena.text("memory", file));
    for (period, quota, burst) in
        [(100_000, 50_000, 40_000), (20_000, 10_000, 0), (900_000, 800_000, 700_000)]
    {
        let json = format!(r#"{{"cpu":{{"period":{period},"quota":{quota},"burst":{burst}}}}}"#);
        group.update(&parse(&json)).unwrap();
        let max = format!("{quota} {period}");
        let [period, quota, burst] = [period, quota, burst].map(|number: u32| number.to_string());
        arena.assert_limits(
            "c",
            &[
                ("cpu", ("cpu.cfs_period_us", &period), ("cpu.max", &max)),
                ("cpu", ("cpu.cfs_quota_us", &quota), ("cpu.max", &max)),
                ("cpu", ("cpu.cfs_burst_us", &burst), ("cpu.max.burst", &burst)),
            ],
        );
    }
    group.update(&parse(r#"{"pids":{"limit":33},"cpu":{"shares":300}}"#)).unwrap();
    arena.assert_limits(
        "c",
        &[
            ("pids", ("pids.max", "33"), ("pids.max", "33")),
            ("cpu", ("cpu.shares", "300"), ("cpu.weight", "39")),
        ],
    );
    group.kill_all(deadline()).unwrap();
    child.wait();
    group.delete(deadline()).unwrap();
    arena.assert_clean();
}

/// Red if one kind of limit cannot be changed under a running process, or an update
/// reaches another file.
#[test]
fn every_kind_changes_under_a_running_process() {
    let arena = Arena::new();
    let group = arena.create("c", r#"{"cpu":{"shares":500,"cpus":"0"}}"#);
    let child = Child::sleeper(&group);
    let memory = arena.either(
        r#"{"memory":{"reservation":8388608,"swappiness":7,"disableOOMKiller":true}}"#,
        r#"{"memory":{"reservation":8388608}}"#,
    );
    let updates: [(&str, &[Limit<'_>]); 7] = [
        (r#"{"cpu":{"idle":1}}"#, &[("cpu", ("cpu.idle", "1"), ("cpu.idle", "1"))]),
        // An idle group takes no shares: the order is found by trying.
        (
            r#"{"cpu":{"shares":700,"idle":0}}"#,
            &[
                ("cpu", ("cpu.shares", "700"), ("cpu.weight", "75")),
                ("cpu", ("cpu.idle", "0"), ("cpu.idle", "0")),
            ],
        ),
        (
            memory,
            &[("memory", ("memory.soft_limit_in_bytes", "8388608"), ("memory.low", "8388608"))],
        ),
        // v2 has no limit below that of one process in it.
        (r#"{"pids":{"limit":0}}"#, &[("pids", ("pids.max", "0"), ("pids.max", "1"))]),
        (r#"{"pids":{"limit":-1}}"#, &[("pids", ("pids.max", "max"), ("pids.max", "max"))]),
        (
            r#"{"cpu":{"quota":-1}}"#,
            &[("cpu", ("cpu.cfs_quota_us", "-1"), ("cpu.max", "max 100000"))],
        ),
        (
            r#"{"cpu":{"period":50000}}"#,
            &[("cpu", ("cpu.cfs_period_us", "50000"), ("cpu.max", "max 50000"))],
        ),
    ];
    for (json, want) in updates {
        group.update(&parse(json)).unwrap_or_else(|error| panic!("{json}: {error}"));
        arena.assert_limits("c", want);
    }
    let all = arena.text("cpuset", arena.either("cpuset.cpus", "cpuset.cpus.effective"));
    for cpus in [all.as_str(), "0"] {
        let json = format!(r#"{{"cpu":{{"cpus":"{cpus}","mems":"0"}}}}"#);
        group.update(&parse(&json)).unwrap();
        assert_eq!(arena.text("cpuset", "c/cpuset.cpus"), cpus);
    }
    if !arena.on_v2() {
        assert_eq!(arena.text("memory", "c/memory.swappiness"), "7");
        assert!(arena.text("memory", "c/memory.oom_control").starts_with("oom_kill_disable 1"));
    }
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
        // v2, or built without CONFIG_RT_GROUP_SCHED: then it must say so.
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
    let files: &[_] = if arena.on_v2() {
        &[
            ("cpu", "c/cpu.weight"),
            ("cpu", "c/cpu.max"),
            ("memory", "c/memory.max"),
            ("memory", "c/memory.swap.max"),
            ("pids", "c/pids.max"),
        ]
    } else {
        &[
            ("cpu", "c/cpu.shares"),
            ("cpu", "c/cpu.cfs_period_us"),
            ("cpu", "c/cpu.cfs_quota_us"),
            ("memory", "c/memory.limit_in_bytes"),
            ("memory", "c/memory.memsw.limit_in_bytes"),
            ("pids", "c/pids.max"),
            ("devices", "c/devices.list"),
        ]
    };
    let read = || -> Vec<_> {
        files.iter().map(|(controller, file)| arena.text(controller, file)).collect()
    };
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
    let read = || match arena.on_v2() {
        // Two programs are two rules' worth: what they decide is asked in the module of devices.
        true => format!("{:?}", bpf::attached(&arena.dir("c"))),
        false => arena.text("devices", "c/devices.list"),
    };
    let before = read();
    group.update(&parse(r#"{"pids":{"limit":5}}"#)).unwrap();
    group.update(&parse(r#"{"devices":[]}"#)).unwrap();
    assert_eq!(read(), before);
    let rule = r#"{"devices":[{"allow":true,"type":"b","major":7,"minor":3,"access":"r"}]}"#;
    group.update(&parse(rule)).unwrap();
    let after = read();
    if arena.on_v2() {
        assert_ne!(after, before);
    } else {
        assert_eq!(after.lines().count(), before.lines().count() + 1, "{after}");
        assert!(after.lines().any(|l| l == "b 7:3 r"), "{after}");
    }
    group.delete(deadline()).unwrap();
    arena.assert_clean();
}

/// Red if a limit below what is in use passes as done, or its error does not say why. v1 refuses
/// it; v2 would kill for it, so that it must be asked for (config-linux.md, `checkBeforeUpdate`).
#[test]
fn a_limit_below_usage_is_refused_with_the_usage() {
    let arena = Arena::new();
    let group = arena.create("c", r#"{"memory":{"limit":134217728,"swap":134217728}}"#);
    let hoard = "x=$(head -c 20000000 /dev/zero | tr '\\0' x); echo ready; kill -STOP $$; echo $x";
    let child = Child::shell(&group.join_files().unwrap(), hoard);
    child.await_output();
    let lower = arena.either(
        r#"{"memory":{"limit":4194304}}"#,
        r#"{"memory":{"limit":4194304,"checkBeforeUpdate":true}}"#,
    );
    let error = group.update(&parse(lower)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WrongState, "{error}");
    let text = error.to_string();
    assert!(
        text.starts_with("linux.resources.memory.limit: ") && text.contains("in use"),
        "{text}"
    );
    arena.assert_limits(
        "c",
        &[("memory", ("memory.limit_in_bytes", "134217728"), ("memory.max", "134217728"))],
    );
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
    let work = "i=0; while [ $i -lt 50000 ]; do i=$((i+1)); done; \
                x=$(head -c 20000000 /dev/zero | tr '\\0' x); echo ready; kill -STOP $$; echo $x";
    let child = Child::shell(&group.join_files().unwrap(), work);
    child.await_output();
    match group.stats().unwrap() {
        Stats::V1(stats) => assert_v1_figures(&arena, *stats),
        Stats::V2(stats) => assert_v2_figures(&arena, *stats),
    }
    group.kill_all(deadline()).unwrap();
    child.wait();
    // Figures outlive the last process.
    let (used, current) = match group.stats().unwrap() {
        Stats::V1(after) => (after.cpu.unwrap().total_ns / 1000, after.pids.unwrap().current),
        Stats::V2(after) => (after.cpu.stat.usage_usec, after.pids.unwrap().current),
    };
    assert!(used > 1000, "{used}");
    assert_eq!(current, 0);
    group.delete(deadline()).unwrap();
    arena.assert_clean();
}

fn assert_v1_figures(arena: &Arena, stats: V1Stats) {
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
}

fn assert_v2_figures(arena: &Arena, stats: V2Stats) {
    let cpu = stats.cpu.stat;
    let raw = arena.text("cpu", "c/cpu.stat");
    let raw: u64 =
        raw.lines().find_map(|l| l.strip_prefix("usage_usec ")).unwrap().parse().unwrap();
    assert!(cpu.usage_usec > 1000 && cpu.usage_usec <= raw, "{cpu:?}");
    let memory = stats.memory.unwrap();
    assert_eq!(memory.usage_limit, 67_108_864);
    assert!(memory.usage >= 20_000_000 && memory.stat.anon >= 20_000_000, "{memory:?}");
    assert!(memory.usage < 67_108_864 && memory.stat.pgfault > 0, "{memory:?}");
    // Since 5.19.
    if arena.host("memory", "c/memory.peak").exists() {
        assert!(memory.max_usage >= 20_000_000, "{memory:?}");
    }
    assert_eq!(stats.memory_events.unwrap().oom_kill, 0);
    let pids = stats.pids.unwrap();
    assert_eq!((pids.current, pids.limit), (1, Some(11)));
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
    // On v2 the file also tells of the limit being met, before anything is killed.
    let seen = loop {
        assert!(readable(&watch, PATIENCE), "no event");
        match watch.read().unwrap() {
            OomEvent::Nothing if arena.on_v2() => {}
            seen => break seen,
        }
    };
    assert!(matches!(seen, OomEvent::Oom(n) if n > 0), "{seen:?}");
    child.wait();
    let killed = match group.stats().unwrap() {
        Stats::V1(stats) => stats.memory.unwrap().oom_control.oom_kill,
        Stats::V2(stats) => stats.memory_events.unwrap().oom_kill,
    };
    assert!(killed > 0);
    group.kill_all(deadline()).unwrap();
    while watch.read().unwrap() != OomEvent::Nothing {}
    group.delete(deadline()).unwrap();
    assert!(readable(&watch, PATIENCE), "no event of the removal");
    assert_eq!(watch.read().unwrap(), OomEvent::Gone);
    arena.assert_clean();
}
