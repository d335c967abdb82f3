//! More processes in a running container.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use boathook_runtime::{ErrorKind, Stdio};
use rootfs_tests::image::{CREW, USER};
use rootfs_tests::wait;
use serde_json::json;

use super::support::live::{proc_file, proc_link, status, wait_for};
use super::support::streams::Streams;
use super::support::{Arena, LIMIT, tests};

tests!(
    it_is_in_every_cgroup_of_its_container,
    it_is_in_every_namespace_of_its_container,
    it_has_the_identity_that_it_asks_for,
    it_has_directory_and_environment_of_its_own,
    it_has_limits_of_its_own,
    a_missing_working_directory_is_not_made,
    what_it_leaves_behind_is_the_first_processs,
    it_is_pid_1s_sibling_and_our_child,
    what_cannot_be_executed_is_told_at_once,
    a_broken_program_is_told_at_the_start,
    one_that_is_never_started_leaves_nothing,
    many_at_once,
    none_is_taken_for_an_orphan,
    none_hangs_in_a_crowd,
    it_dies_with_its_container,
);

/// Red if a hierarchy is left out: the process would be outside of a limit, or outlive a delete.
fn it_is_in_every_cgroup_of_its_container(arena: &Arena) {
    let live = arena.sleeper().start();
    let (process, _streams) = live.exec_json(&live.process_spec(&["sleep", "1000"])).unwrap();
    let created = proc_file(process.pid(), "cgroup");
    process.start(LIMIT).unwrap();
    let want = live.proc("cgroup");
    assert!(want.lines().all(|line| line.contains(live.container.id())), "{want}");
    assert_eq!(created, want, "before the start");
    assert_eq!(proc_file(process.pid(), "cgroup"), want);
    let mut pids = [live.process.pid(), process.pid()];
    pids.sort_unstable();
    assert_eq!(live.container.pids().unwrap(), pids);
    drop(process);
    live.delete();
}

/// Red if a namespace is not entered, the cgroup namespace included.
fn it_is_in_every_namespace_of_its_container(arena: &Arena) {
    let mut case = arena.sleeper();
    case.new_namespace("cgroup");
    let live = case.start();
    let (process, _streams) = live.exec_json(&live.process_spec(&["sleep", "1000"])).unwrap();
    for kind in ["pid", "pid_for_children", "mnt", "net", "ipc", "uts", "cgroup", "user", "time"] {
        let link = format!("ns/{kind}");
        assert_eq!(proc_link(process.pid(), &link), proc_link(live.process.pid(), &link), "{kind}");
    }
    assert_eq!(proc_link(process.pid(), "root"), proc_link(live.process.pid(), "root"));
    drop(process);
    live.delete();
}

/// Red if user, groups, mask or no_new_privs are the first process's.
fn it_has_the_identity_that_it_asks_for(arena: &Arena) {
    let live = arena.sleeper().start();
    let mut spec = live.process_spec(&["sleep", "1000"]);
    spec["user"] = json!({ "uid": USER, "gid": USER, "additionalGids": [CREW], "umask": 0o077 });
    spec["noNewPrivileges"] = json!(false);
    spec["capabilities"] = json!({ "bounding": ["CAP_KILL"] });
    spec["oomScoreAdj"] = json!(500);
    let (process, _streams) = live.exec_json(&spec).unwrap();
    process.start(LIMIT).unwrap();
    let pid = process.pid();
    for (name, want) in [
        ("Uid", "1000 1000 1000 1000"),
        ("Groups", "2000"),
        ("Umask", "0077"),
        ("NoNewPrivs", "0"),
        ("CapBnd", "0000000000000020"),
        ("CapEff", "0000000000000000"),
    ] {
        assert_eq!(status(pid, name), want, "{name}");
    }
    assert_eq!(proc_file(pid, "oom_score_adj").trim_end(), "500");
    drop(process);
    live.delete();
}

/// Red if they are the first process's.
fn it_has_directory_and_environment_of_its_own(arena: &Arena) {
    let live = arena.sleeper().start();
    let mut spec = live.process_spec(&["sh", "-c", "pwd; echo $COLOUR; echo $HOME"]);
    spec["cwd"] = json!("/home/boat");
    spec["env"] = json!(["COLOUR=blue", "PATH=/bin"]);
    spec["user"] = json!({ "uid": USER, "gid": USER });
    assert_eq!(live.run_json(&spec).text(), "/home/boat\nblue\n/home/boat");
    live.delete();
}

/// Red if they are the first process's or the engine's.
fn it_has_limits_of_its_own(arena: &Arena) {
    let live = arena.sleeper().start();
    let mut spec = live.process_spec(&["sh", "-c", "ulimit -n; ulimit -c"]);
    spec["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 55, "hard": 66 },
        { "type": "RLIMIT_CORE", "soft": 0, "hard": 0 }]);
    assert_eq!(live.run_json(&spec).text(), "55\n0");
    live.delete();
}

/// Red if an exec changes the container's files, or the message is not the one that people know.
fn a_missing_working_directory_is_not_made(arena: &Arena) {
    let live = arena.sleeper().start();
    let mut spec = live.process_spec(&["true"]);
    spec["cwd"] = json!("/no/such");
    let error = live.exec_json(&spec).unwrap_err();
    let text = error.to_string();
    let want = "chdir to cwd (\"/no/such\") set in config.json failed: no such file or directory";
    assert!(text.contains(want), "{text}");
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{text}");
    assert!(!live.inside("/no").exists());
    live.delete();
}

/// Red if orphans of an exec come to the engine while the container has a pid 1 for them.
fn what_it_leaves_behind_is_the_first_processs(arena: &Arena) {
    let live = arena.sh("echo on; sleep 1000000").start();
    let script = "(sleep 2000 > /dev/null 2>&1 & echo $!) ; exit 0";
    let orphan = live.sh(script);
    assert_eq!(live.sh(&format!("grep PPid /proc/{orphan}/status")), "PPid:\t1");
    live.delete();
}

/// Red if the exec is born in the engine's pid namespace, or is not a child that can be waited for.
fn it_is_pid_1s_sibling_and_our_child(arena: &Arena) {
    let live = arena.sleeper().start();
    let (process, _streams) = live.exec_json(&live.process_spec(&["sleep", "1000"])).unwrap();
    assert_eq!(status(process.pid(), "NSpid").split(' ').count(), 2);
    assert_eq!(status(process.pid(), "PPid"), std::process::id().to_string());
    assert_eq!(
        live.sh(&format!("grep PPid /proc/{}/status", inner_pid(process.pid()))),
        "PPid:\t0"
    );
    drop(process);
    live.delete();
}

fn inner_pid(pid: i32) -> String {
    status(pid, "NSpid").rsplit(' ').next().unwrap().to_owned()
}

/// Red if the texts are not containerd's usual ones, which tests and people look for; for a first
/// process and for an exec.
fn what_cannot_be_executed_is_told_at_once(arena: &Arena) {
    let cases = [
        ("nothing", "exec: \"nothing\": executable file not found in $PATH"),
        ("", "exec: \"\": executable file not found in $PATH"),
        ("/no/such", "exec: \"/no/such\": stat /no/such: no such file or directory"),
        ("./here", "exec: \"./here\": stat ./here: no such file or directory"),
        ("/etc/passwd", "exec: \"/etc/passwd\": permission denied"),
        ("not-executable", "exec: \"not-executable\": permission denied"),
        ("/etc", "exec: \"/etc\": is a directory"),
        ("/etc/passwd/x", "exec: \"/etc/passwd/x\": "),
    ];
    let live = arena.sleeper().start();
    for (program, want) in cases {
        let errors = [
            arena.case(&[program]).create().map(drop).expect_err(program),
            live.exec_json(&live.process_spec(&[program])).map(drop).expect_err(program),
        ];
        for error in errors {
            let text = error.to_string();
            assert!(text.contains(want), "{program:?}: {text}");
            assert!(text.starts_with("unable to start container process: "), "{text}");
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{text}");
        }
    }
    // What root may execute and the user may not.
    let mut case = arena.case(&["/root/prog"]);
    fs::copy(arena.image().join("bin/busybox"), case.file("/root/prog")).unwrap();
    case.user(USER, USER, &[]);
    // CAP_DAC_OVERRIDE would still be effective at the moment of execve.
    case.capabilities(&[]);
    let text = case.refused().to_string();
    assert!(text.contains("exec: \"/root/prog\": permission denied"), "{text}");
    live.delete();
}

/// Red if a failed execve is taken for a start, or hangs, or hides its reason.
fn a_broken_program_is_told_at_the_start(arena: &Arena) {
    let case = arena.case(&["/broken"]);
    for (content, why) in [
        ("not a program", "exec format error"),
        ("#!/no/such/interpreter\n", "no such file or directory"),
        ("", "exec format error"),
    ] {
        fs::write(case.file("/broken"), content).unwrap();
        fs::set_permissions(case.file("/broken"), fs::Permissions::from_mode(0o755)).unwrap();
        let live = case.create().unwrap();
        let error = live.process.start(LIMIT).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(&format!("exec /broken: {why}")), "{text}");
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{text}");
        assert_ne!(live.wait(), 0);
        live.delete();
    }
}

/// Red if a waiting exec outlives the handle on it.
fn one_that_is_never_started_leaves_nothing(arena: &Arena) {
    let live = arena.sleeper().start();
    let (process, _streams) = live.exec_json(&live.process_spec(&["true"])).unwrap();
    let pid = process.pid();
    drop(process);
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    assert_eq!(live.container.pids().unwrap(), [live.process.pid()]);
    live.delete();
}

/// Red if execs of several threads get each other's streams, exit codes or namespaces.
fn many_at_once(arena: &Arena) {
    let live = Arc::new(arena.sleeper().start());
    let threads: Vec<_> = (0..8)
        .map(|number: u32| {
            let spec = live.process_spec(&["sh", "-c", &format!("echo {number}; exit {number}")]);
            let spec = boathook_runtime::spec::process_from_json(spec.to_string().as_bytes());
            (number, spec.unwrap())
        })
        .collect();
    std::thread::scope(|scope| {
        for (number, spec) in &threads {
            let container = &live.container;
            scope.spawn(move || {
                for _ in 0..5 {
                    let (stdio, streams) = Streams::pipes();
                    let (process, _) = container.exec(spec, stdio, LIMIT).unwrap();
                    process.start(LIMIT).unwrap();
                    assert_eq!(streams.finish().0, format!("{number}\n"));
                    assert_eq!(wait_for(&process), *number);
                }
            });
        }
    });
    Arc::into_inner(live).unwrap().delete();
}

/// Red if the reaper of orphans gets hold of an exec, or one that is killed at any moment of its
/// making hangs or stays.
fn none_is_taken_for_an_orphan(arena: &Arena) {
    let live = arena.sleeper().start();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                boathook_runtime::process::reap_orphans();
            }
        });
        // Killed at once, many an exec ends before anybody knows of it.
        let killer = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let pids = live.container.pids().unwrap_or_default();
                pids.iter().filter(|pid| **pid != live.process.pid()).for_each(|pid| {
                    kill_in(*pid, live.container.id());
                });
            }
        });
        for _ in 0..150 {
            // Killed before, it is an error; later, an exit status. Both are known.
            if let Ok((process, _streams)) = live.exec_json(&live.process_spec(&["true"])) {
                let _ = process.start(LIMIT);
                let code = wait_for(&process);
                assert!(code == 0 || code == 137, "{code}");
            }
        }
        over.store(true, Ordering::Relaxed);
        killer.join().unwrap();
    });
    live.delete();
}

/// Kills a process, if it is one of the container's at the moment that its descriptor is made.
fn kill_in(pid: i32, container: &str) {
    use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
    let Some(number) = Pid::from_raw(pid) else { return };
    let Ok(pidfd) = pidfd_open(number, PidfdFlags::empty()) else { return };
    let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    if cgroups.contains(container) {
        let _ = pidfd_send_signal(&pidfd, Signal::KILL);
    }
}

/// Red if messages of the two processes behind one exec can overtake each other: sooner or later
/// one would wait for what the other has read.
fn none_hangs_in_a_crowd(arena: &Arena) {
    let live = arena.sleeper().start();
    let spec = live.process_spec(&["true"]).to_string();
    let spec = boathook_runtime::spec::process_from_json(spec.as_bytes()).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..6 {
            let (container, spec) = (&live.container, &spec);
            scope.spawn(move || {
                for _ in 0..CROWD {
                    let none = Stdio::Fds { stdin: None, stdout: None, stderr: None };
                    let (process, _) = container.exec(spec, none, LIMIT).unwrap();
                    process.start(LIMIT).unwrap();
                    assert_eq!(wait_for(&process), 0);
                }
            });
        }
    });
    live.delete();
}

/// Execs of each thread: enough to show a race that is lost once in a thousand.
const CROWD: usize = 60;

/// Red if an exec survives its container, started or not, or a later one is anything but refused.
fn it_dies_with_its_container(arena: &Arena) {
    let live = arena.sleeper().start();
    let (waiting, _a) = live.exec_json(&live.process_spec(&["sleep", "1000"])).unwrap();
    let (running, _b) = live.exec_json(&live.process_spec(&["sleep", "1000"])).unwrap();
    running.start(LIMIT).unwrap();
    live.container.signal(libc::SIGKILL).unwrap();
    assert_eq!(wait_for(&waiting), 137);
    assert_eq!(wait_for(&running), 137);
    assert_eq!(live.wait(), 137);
    let error = waiting.start(LIMIT).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WrongState, "{error}");
    let none = Stdio::Fds { stdin: None, stdout: None, stderr: None };
    let error = live.exec_with(&live.process_spec(&["true"]), none).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WrongState, "{error}");
    wait::until("the end of the container", LIMIT, || {
        Ok(live.container.pids().unwrap().is_empty().then_some(()))
    })
    .unwrap();
    live.delete();
}
