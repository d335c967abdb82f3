//! How the kernel treats a process: policy, I/O priority, CPUs, memory nodes, personality.

use std::fs;

use boathook_runtime::ErrorKind;
use nix::sched::sched_getaffinity;
use nix::unistd::Pid;
use serde_json::json;

use super::support::{Arena, LIMIT, tests};

tests!(
    the_scheduler_is_the_configs,
    the_io_priority_is_the_configs,
    the_personality_is_the_configs,
    the_memory_policy_is_the_configs,
    an_exec_runs_where_it_shall,
    wrong_scheduling_is_told,
);

/// Nice value and policy in `/proc/PID/stat` (proc_pid_stat(5), fields 19 and 41).
fn nice_and_policy(pid: i32) -> (i32, i32) {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let behind_name = text.rsplit_once(") ").unwrap().1;
    let field = |number: usize| behind_name.split(' ').nth(number - 3).unwrap().parse().unwrap();
    (field(19), field(41))
}

/// Red if policy or nice value do not reach the program, of a container or of an exec.
fn the_scheduler_is_the_configs(arena: &Arena) {
    let mut case = arena.sleeper();
    case.config["process"]["scheduler"] = json!({ "policy": "SCHED_BATCH", "nice": 7 });
    let live = case.start();
    assert_eq!(nice_and_policy(live.process.pid()), (7, libc::SCHED_BATCH));
    let mut process = live.process_spec(&["/bin/sleep", "1000000"]);
    process["scheduler"] = json!({ "policy": "SCHED_IDLE" });
    let (exec, _streams) = live.exec_json(&process).unwrap();
    exec.start(LIMIT).unwrap();
    assert_eq!(nice_and_policy(exec.pid()), (0, libc::SCHED_IDLE));
    drop(exec);
    live.delete();
}

/// Red if class or level are mixed up on their way into one number.
fn the_io_priority_is_the_configs(arena: &Arena) {
    for (class, level, want) in
        [("IOPRIO_CLASS_BE", 6, "best-effort: prio 6"), ("IOPRIO_CLASS_IDLE", 0, "idle")]
    {
        let mut case = arena.case(&["ionice"]);
        case.config["process"]["ioPriority"] = json!({ "class": class, "priority": level });
        assert!(case.run().text().starts_with(want), "{class}");
    }
}

/// Red if a 32-bit program finds a 64-bit machine, or flags, of which none means anything yet, do
/// something or keep a container from being made.
fn the_personality_is_the_configs(arena: &Arena) {
    for (domain, want) in [("LINUX32", "00000008\ni686"), ("LINUX", "00000000\nx86_64")] {
        for flags in [json!([]), json!(["ADDR_NO_RANDOMIZE"])] {
            let mut case = arena.sh("cat /proc/self/personality; uname -m");
            case.config["linux"]["personality"] = json!({ "domain": domain, "flags": flags });
            assert_eq!(case.run().text(), want);
        }
    }
}

/// Red if the policy does not reach the program; a kernel without NUMA must say so.
fn the_memory_policy_is_the_configs(arena: &Arena) {
    let mut case = arena.case(&["cat", "/proc/self/numa_maps"]);
    case.config["linux"]["memoryPolicy"] =
        json!({ "mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"] });
    if fs::metadata("/proc/self/numa_maps").is_ok() {
        let outcome = case.run();
        let maps = outcome.text();
        assert!(maps.lines().any(|line| line.contains("bind=static:0")), "{maps}");
    } else {
        assert!(case.refused().to_string().contains("set_mempolicy"));
    }
}

/// Red if `final` does not bind, or an exec without it keeps what the engine is bound to.
fn an_exec_runs_where_it_shall(arena: &Arena) {
    let live = arena.sleeper().start();
    let all = sched_getaffinity(Pid::from_raw(live.process.pid())).unwrap();
    let cpus = |set: &nix::sched::CpuSet| -> Vec<usize> {
        (0..nix::sched::CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap()).collect()
    };
    let last = *cpus(&all).last().unwrap();
    for (affinity, want) in [
        (json!({ "initial": "0", "final": last.to_string() }), vec![last]),
        (json!({ "initial": "0" }), cpus(&all)),
        (json!({ "final": "0" }), vec![0]),
    ] {
        let mut process = live.process_spec(&["/bin/sleep", "1000000"]);
        process["execCPUAffinity"] = affinity.clone();
        let (exec, _streams) = live.exec_json(&process).unwrap();
        exec.start(LIMIT).unwrap();
        let found = sched_getaffinity(Pid::from_raw(exec.pid())).unwrap();
        assert_eq!(cpus(&found), want, "{affinity}");
        drop(exec);
    }
    for (affinity, field) in [
        (json!({ "initial": "0-x" }), "execCPUAffinity.initial"),
        (json!({ "final": "3-1" }), "execCPUAffinity.final"),
    ] {
        let mut process = live.process_spec(&["true"]);
        process["execCPUAffinity"] = affinity;
        let error = live.exec_json(&process).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        assert!(error.to_string().contains(field), "{error}");
    }
    live.delete();
}

/// Red if a value that its policy has no use for is dropped in silence.
fn wrong_scheduling_is_told(arena: &Arena) {
    for (name, value, field) in [
        ("scheduler", json!({ "policy": "SCHED_OTHER", "nice": 20 }), "process.scheduler.nice: 20"),
        (
            "scheduler",
            json!({ "policy": "SCHED_BATCH", "priority": 5 }),
            "process.scheduler.priority: 5",
        ),
        (
            "scheduler",
            json!({ "policy": "SCHED_IDLE", "runtime": 5 }),
            "process.scheduler.runtime: ",
        ),
        ("scheduler", json!({ "policy": "SCHED_ISO" }), "process.scheduler.policy: "),
        (
            "ioPriority",
            json!({ "class": "IOPRIO_CLASS_BE", "priority": 8 }),
            "process.ioPriority.priority: 8",
        ),
    ] {
        let mut case = arena.sleeper();
        case.config["process"][name] = value;
        let error = case.refused();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        assert!(error.to_string().starts_with(field), "{error}");
    }
}
