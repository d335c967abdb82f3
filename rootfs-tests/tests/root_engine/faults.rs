//! Failures of the machine and of the callers: told clearly, and undone.

use std::fs;
use std::path::Path;
use std::time::Duration;

use boathook_runtime::{Create, Engine, ErrorKind, Stdio, spec};
use serde_json::json;

use super::support::live::{status, wait_for};
use super::support::{Arena, LIMIT, census, tests};

tests!(
    a_deadline_that_is_over,
    records_that_cannot_be_written,
    a_cgroup_with_somebody_in_it,
    init_killed_before_the_start,
    a_fault_at_any_step_leaves_nothing,
    sixty_four_at_once,
    two_hundred_rounds,
    no_descriptor_left,
);

/// Red if a create that ran out of time leaves a process, a directory or a record. Many mounts make
/// it unlikely that init is ready before anybody looks; where the engine had to wait for its turn so
/// long, it is tried again.
fn a_deadline_that_is_over(arena: &Arena) {
    let mut case = arena.sleeper();
    for number in 0..200 {
        case.mount(&format!("/m/{number}"), "tmpfs", "tmpfs", &[]);
    }
    case.save();
    let spec = spec::load(case.bundle()).unwrap();
    let request = || Create {
        id: &case.id,
        bundle: case.bundle(),
        spec: &spec,
        stdio: Stdio::Fds { stdin: None, stdout: None, stderr: None },
        options: case.options,
        deadline: Duration::from_nanos(1),
    };
    let (mut over, mut tries) = (0, 0);
    while over < 3 {
        tries += 1;
        assert!(tries < 50, "{over} creates ran out of time");
        let error = match arena.engine.create(request()) {
            Ok(created) => {
                created.container.delete(LIMIT).unwrap();
                continue;
            }
            Err(error) => error,
        };
        over += 1;
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
        assert_eq!(census::cgroups(&case.id), [""; 0]);
        assert!(!arena.state().exists());
    }
    case.start().delete();

    let live = arena.sleeper().start();
    let process = live.process_spec(&["true"]).to_string();
    let process = spec::process_from_json(process.as_bytes()).unwrap();
    let none = Stdio::Fds { stdin: None, stdout: None, stderr: None };
    let result = live.container.exec(&process, none, Duration::ZERO);
    // Init may have been faster than the first look at it.
    if let Err(error) = result {
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    }
    assert_eq!(live.container.pids().unwrap(), [live.process.pid()]);
    live.delete();
}

/// Red if a container runs that has no record, or the path is not told.
fn records_that_cannot_be_written(arena: &Arena) {
    fs::write(arena.dir().join("file"), "").unwrap();
    let places = [
        (arena.dir().join("file"), "file"),
        (arena.dir().join("file/below"), "below"),
        ("/proc/no/such".into(), "/proc/no"),
    ];
    for (root, told) in places {
        let case = arena.sleeper();
        case.save();
        let engine = Engine::new(&root);
        let spec = spec::load(case.bundle()).unwrap();
        let error = engine
            .create(Create {
                id: &case.id,
                bundle: case.bundle(),
                spec: &spec,
                stdio: Stdio::Fds { stdin: None, stdout: None, stderr: None },
                options: case.options,
                deadline: LIMIT,
            })
            .unwrap_err();
        assert!(error.to_string().contains(told), "{error}");
        assert_eq!(census::cgroups(&case.id), [""; 0]);
    }
    // The directory can be made, the record in it cannot: its name is taken by a directory, made
    // by a hook while the create is under way.
    let mut case = arena.sleeper();
    let record = arena.state().join(&case.id).join("state.json.new");
    case.config["hooks"] = json!({ "createRuntime": [{
        "path": "/bin/mkdir", "args": ["mkdir", record.to_str().unwrap()],
    }] });
    let error = case.refused();
    assert!(error.to_string().contains("state.json"), "{error}");
    assert_eq!(census::cgroups(&case.id), [""; 0]);
    assert_eq!(census::descendants(), [""; 0]);
    assert!(!arena.state().exists(), "what the hook made is still there");
}

/// Red if two containers share a cgroup, or the refusal ends or removes the other one.
fn a_cgroup_with_somebody_in_it(arena: &Arena) {
    let first = arena.sleeper();
    let live = first.start();
    let mut second = arena.sleeper();
    second.config["linux"]["cgroupsPath"] = first.config["linux"]["cgroupsPath"].clone();
    let before = census::cgroups(&first.id);
    let error = second.refused();
    assert_eq!(error.kind(), ErrorKind::WrongState, "{error}");
    assert!(error.to_string().contains("is not empty"), "{error}");
    assert_eq!(census::cgroups(&first.id), before);
    assert!(!live.process.ended());
    live.delete();
    second.start().delete();
}

/// Red if a start waits for a dead init, or the container cannot be deleted.
fn init_killed_before_the_start(arena: &Arena) {
    for reap_first in [true, false] {
        let live = arena.sleeper().create().unwrap();
        live.container.signal(libc::SIGKILL).unwrap();
        if reap_first {
            assert_eq!(live.wait(), 137);
        }
        // Not reaped, it may still be on its way out: then the start succeeds and the exit tells.
        match live.process.start(LIMIT) {
            Ok(()) => assert!(!reap_first),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WrongState, "{error}"),
        }
        assert_eq!(live.wait(), 137);
        live.delete();
    }
    let live = arena.sleeper().start();
    let (process, _streams) = live.exec_json(&live.process_spec(&["true"])).unwrap();
    process.signal(libc::SIGKILL).unwrap();
    assert_eq!(wait_for(&process), 137);
    let error = process.start(LIMIT).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WrongState, "{error}");
    live.delete();
}

/// Red if one of the places where a create can fail has no undo. Each of these fails at another
/// step, from the first descriptor to the last identity.
fn a_fault_at_any_step_leaves_nothing(arena: &Arena) {
    let faults: [(&str, serde_json::Value); 9] = [
        ("/root/path", json!("missing")),
        ("/mounts/0/options", json!(["no_such_option"])),
        ("/mounts/3/type", json!("nosuchfs")),
        ("/mounts/6/destination", json!("/etc/passwd")),
        ("/linux/namespaces/4", json!({ "type": "network", "path": "/proc/self/ns/ipc" })),
        ("/linux/resources/pids", json!({ "limit": i64::MAX })),
        ("/process/args", json!(["/no/such"])),
        ("/process/cwd", json!("/etc/passwd")),
        ("/process/rlimits/0/type", json!("RLIMIT_NICE")),
    ];
    for (pointer, value) in faults {
        let mut case = arena.sleeper();
        if case.config.pointer(pointer).is_none() {
            let (parent, name) = pointer.rsplit_once('/').unwrap();
            case.config.pointer_mut(parent).unwrap()[name] = json!(null);
        }
        *case.config.pointer_mut(pointer).unwrap() = value;
        let Err(error) = case.create() else {
            // A machine on which this is allowed.
            assert!(pointer.starts_with("/process/rlimits"), "{pointer}");
            continue;
        };
        assert_eq!(census::cgroups(&case.id), [""; 0], "{error}");
        assert_eq!(census::descendants(), [""; 0], "{error}");
        assert!(!arena.state().exists(), "{error}");
        assert!(!error.to_string().is_empty());
    }
}

/// Red if creates of several threads mix up descriptors, children or records.
fn sixty_four_at_once(arena: &Arena) {
    let cases: Vec<_> = (0..64)
        .map(|number| {
            let case = arena.sh(&format!("exit {}", number + 1));
            case.save();
            (number + 1, case.id.clone(), case.bundle().to_owned(), case)
        })
        .collect();
    let jobs: Vec<(u32, &str, &Path)> =
        cases.iter().map(|(code, id, bundle, _)| (*code, id.as_str(), bundle.as_path())).collect();
    // Holds the directory above all cgroups, which goes with its maker and not with the last one.
    let holder = arena.sleeper().start();
    let engine = &arena.engine;
    std::thread::scope(|scope| {
        for (code, id, bundle) in jobs {
            scope.spawn(move || {
                let spec = spec::load(bundle).unwrap();
                let created = engine
                    .create(Create {
                        id,
                        bundle,
                        spec: &spec,
                        stdio: Stdio::Fds { stdin: None, stdout: None, stderr: None },
                        options: Default::default(),
                        deadline: LIMIT,
                    })
                    .unwrap();
                created.process.start(LIMIT).unwrap();
                assert_eq!(wait_for(&created.process), code);
                created.container.delete(LIMIT).unwrap();
            });
        }
    });
    holder.delete();
}

/// Red if anything grows: descriptors, threads, cgroups, memory of this process.
fn two_hundred_rounds(arena: &Arena) {
    let case = arena.case(&["/bin/true"]);
    let resident = || -> u64 {
        let text = status(std::process::id() as i32, "VmRSS");
        text.split(' ').next().unwrap().parse().unwrap()
    };
    let descriptors = || rootfs_tests::census::descriptors(std::process::id()).unwrap();
    let round = || assert_eq!(case.run().code, 0);
    (0..20).for_each(|_| round());
    let before = (descriptors(), census::entries("/proc/self/task".as_ref()).len(), resident());
    (0..200).for_each(|_| round());
    let after = (descriptors(), census::entries("/proc/self/task".as_ref()).len(), resident());
    assert_eq!(before.0, after.0);
    assert_eq!(before.1, after.1);
    assert!(after.2 < before.2 + 2048, "KiB: {} → {}", before.2, after.2);
}

/// Red if running out of descriptors half-way through a create is not undone, or has no class.
fn no_descriptor_left(arena: &Arena) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let case = arena.sleeper();
    case.save();
    let spec = spec::load(case.bundle()).unwrap();
    // The engine's own, which stay open, are made by a first create.
    case.start().delete();
    let used = census::entries("/proc/self/fd".as_ref()).len() as u64;
    let old = getrlimit(Resource::Nofile);
    let mut refused = 0;
    for spare in 0..40 {
        let limit = Rlimit { current: Some(used + spare), maximum: old.maximum };
        setrlimit(Resource::Nofile, limit).unwrap();
        let result = arena.engine.create(Create {
            id: &case.id,
            bundle: case.bundle(),
            spec: &spec,
            stdio: Stdio::Fds { stdin: None, stdout: None, stderr: None },
            options: case.options,
            deadline: LIMIT,
        });
        setrlimit(Resource::Nofile, old).unwrap();
        match result {
            Ok(created) => created.container.delete(LIMIT).unwrap(),
            Err(error) => {
                refused += 1;
                let text = error.to_string();
                assert_eq!(error.kind(), ErrorKind::Exhausted, "{spare} to spare: {text}");
                assert!(text.to_lowercase().contains("too many open files"), "{text}");
            }
        }
        assert_eq!(census::cgroups(&case.id), [""; 0], "{spare} to spare");
        assert!(!arena.state().exists(), "{spare} to spare");
    }
    assert!(refused > 5, "only {refused} of 40 were refused");
}
