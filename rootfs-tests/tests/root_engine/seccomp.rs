//! Filters of system calls.

use std::fs;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use boathook_runtime::ErrorKind;
use rootfs_tests::image::USER;
use rootfs_tests::wait::{self, Deadline};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::{Value, json};

use super::support::live::{status, wait_for};
use super::support::streams::Streams;
use super::support::{Arena, Case, LIMIT, sys, tests};

tests!(
    nothing_of_inits_has_to_be_allowed,
    the_exec_itself_has_to_be_allowed,
    the_first_process_and_later_ones_are_under_it,
    it_leaves_no_capability_behind,
    later_processes_do_not_run_without_it,
    wrong_profiles_are_refused,
    an_agent_decides,
    an_agent_hears_of_every_process,
    every_call_may_be_held,
    without_an_agent_nothing_starts,
);

/// A container under a profile.
fn under<'a>(arena: &'a Arena, args: &[&str], restricted: bool, profile: Value) -> Case<'a> {
    let mut case = arena.case(args);
    case.config["process"]["noNewPrivileges"] = json!(restricted);
    case.config["linux"]["seccomp"] = profile;
    case
}

/// Everything goes but these.
fn all_but(names: &[&str], action: &str) -> Value {
    json!({ "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{ "names": names, "action": format!("SCMP_ACT_{action}") }] })
}

/// Red if the filter is loaded before init's last step but one: the profile kills what init does
/// to get there, with no_new_privs and without.
fn nothing_of_inits_has_to_be_allowed(arena: &Arena) {
    let init = [
        "capset",
        "chdir",
        "close_range",
        "dup3",
        "faccessat2",
        "fchdir",
        "fchown",
        "getcwd",
        "openat2",
        "recvmsg",
        "rt_sigaction",
        "sendmsg",
        "setgroups",
        "setresgid",
        "setresuid",
        "setrlimit",
        "umask",
    ];
    let mut profile = all_but(&init, "KILL_PROCESS");
    // Dumpable, capabilities kept and dropped, no_new_privs, ambient; busybox asks for its name.
    let args = [4, 8, 24, 38, 47].map(|v| json!({ "index": 0, "value": v, "op": "SCMP_CMP_EQ" }));
    let prctl = json!({ "names": ["prctl"], "action": "SCMP_ACT_KILL_PROCESS", "args": args });
    profile["syscalls"].as_array_mut().unwrap().push(prctl);
    for restricted in [true, false] {
        for user in [0, USER] {
            let mut case = under(arena, &["/bin/true"], restricted, profile.clone());
            case.user(user, user, &[]);
            let outcome = case.run();
            assert_eq!(outcome.code, 0, "{restricted} {user}: {outcome:?}");
        }
    }
}

/// Red if a start that the filter forbids is taken for one, or leaves something.
fn the_exec_itself_has_to_be_allowed(arena: &Arena) {
    let case = under(arena, &["/bin/true"], true, all_but(&["execve"], "ERRNO"));
    let live = case.create().unwrap();
    let error = live.process.start(LIMIT).unwrap_err();
    let want = "unable to start container process: exec /bin/true: operation not permitted";
    assert_eq!(error.to_string(), want);
    live.delete();
    let live = under(arena, &["/bin/true"], true, all_but(&["execve"], "KILL_PROCESS")).create();
    let live = live.unwrap();
    // Nobody is left to say why; the exit does.
    live.process.start(LIMIT).unwrap();
    assert_eq!(live.wait(), 128 + 31, "SIGSYS");
    live.delete();
}

/// Red if an exec is without the filter, or has another, also when somebody else makes it.
fn the_first_process_and_later_ones_are_under_it(arena: &Arena) {
    let profile = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        { "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28 }] });
    for restricted in [true, false] {
        let script = "mkdir /tmp/first; sleep 1000000";
        let case = under(arena, &["/bin/sh", "-c", script], restricted, profile.clone());
        let live = case.start();
        let flag = u32::from(restricted).to_string();
        let refused = "No space left on device";
        let outcome = live.run(&["mkdir", "/tmp/second"]);
        assert!(outcome.code == 1 && outcome.err.contains(refused), "{outcome:?}");
        let found = arena.engine.open(live.container.id()).unwrap();
        let spec = live.process_spec(&["sleep", "1000"]);
        let spec = boathook_runtime::spec::process_from_json(spec.to_string().as_bytes()).unwrap();
        let (stdio, _streams) = Streams::pipes();
        let (process, _) = found.exec(&spec, stdio, LIMIT).unwrap();
        process.start(LIMIT).unwrap();
        for pid in [live.process.pid(), process.pid()] {
            assert_eq!(status(pid, "Seccomp"), "2");
            assert_eq!(status(pid, "NoNewPrivs"), flag);
        }
        drop(process);
        assert!(!live.inside("/tmp/first").exists() && !live.inside("/tmp/second").exists());
        live.delete();
    }
}

/// Red if the right to load a filter outlives the exec. The sets are compared with those of a
/// container that has no profile.
fn it_leaves_no_capability_behind(arena: &Arena) {
    let names = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs"];
    let all = ["CAP_KILL", "CAP_SYS_ADMIN"];
    for user in [0, USER] {
        for caps in [
            json!({}),
            json!({ "bounding": ["CAP_KILL"], "permitted": ["CAP_KILL"], "effective": ["CAP_KILL"] }),
            json!({ "bounding": all, "permitted": ["CAP_KILL"] }),
            json!({ "bounding": all, "permitted": all, "inheritable": all, "ambient": ["CAP_KILL"] }),
        ] {
            let sets = |profile: Option<Value>| {
                let mut case = arena.sleeper();
                case.user(user, user, &[]);
                case.config["process"]["noNewPrivileges"] = json!(false);
                case.config["process"]["capabilities"] = caps.clone();
                if let Some(profile) = profile {
                    case.config["linux"]["seccomp"] = profile;
                }
                let live = case.start();
                let (process, _streams) =
                    live.exec_json(&live.process_spec(&["sleep", "1000"])).unwrap();
                process.start(LIMIT).unwrap();
                let sets = [live.process.pid(), process.pid()].map(|p| names.map(|n| status(p, n)));
                drop(process);
                live.delete();
                sets
            };
            let with = sets(Some(json!({ "defaultAction": "SCMP_ACT_ALLOW" })));
            assert_eq!(with, sets(None), "{user} {caps}");
        }
    }
}

/// Red if a lost filter means no filter.
fn later_processes_do_not_run_without_it(arena: &Arena) {
    let case = under(arena, &["/bin/sleep", "1000000"], true, all_but(&["mkdir"], "ERRNO"));
    let live = case.start();
    let file = arena.state().join(live.container.id()).join("seccomp.bpf");
    let program = fs::read(&file).unwrap();
    for damage in [None, Some(&[][..]), Some(&program[3..])] {
        fs::remove_file(&file).unwrap();
        if let Some(bytes) = damage {
            fs::write(&file, bytes).unwrap();
        }
        let error = live.exec_json(&live.process_spec(&["true"])).unwrap_err();
        assert!(error.to_string().contains("seccomp.bpf"), "{error}");
        fs::write(&file, &program).unwrap();
    }
    assert_eq!(live.run(&["true"]).code, 0);
    live.delete();
}

/// Red if a profile that cannot be what its author meant is taken.
fn wrong_profiles_are_refused(arena: &Arena) {
    for (profile, want) in [
        (
            json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
                { "names": ["read"], "action": "SCMP_ACT_ERRNO",
                  "args": [{ "index": 6, "value": 0, "op": "SCMP_CMP_EQ" }] }] }),
            "linux.seccomp.syscalls[0].args[0].index: 6 is not 0 to 5",
        ),
        (
            json!({ "defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 3 }),
            "linux.seccomp.defaultErrnoRet: 3 is given, but SCMP_ACT_ALLOW returns none",
        ),
    ] {
        let error = under(arena, &["/bin/true"], true, profile).refused();
        assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::InvalidInput, want));
    }
    // A name that only a later kernel has is no mistake.
    assert_eq!(
        under(arena, &["/bin/true"], true, all_but(&["no_such_call"], "KILL")).run().code,
        0
    );
}

/// An agent's socket.
struct Agent {
    path: PathBuf,
    socket: UnixListener,
}

impl Agent {
    fn new(arena: &Arena) -> Self {
        let path = arena.dir().join("agent");
        let socket = UnixListener::bind(&path).unwrap();
        Self { path, socket }
    }

    /// A profile that asks the agent about these calls.
    fn profile(&self, names: &[&str]) -> Value {
        let mut profile = all_but(names, "NOTIFY");
        profile["listenerPath"] = json!(self.path);
        profile["listenerMetadata"] = json!("of no importance");
        profile
    }

    /// What comes on the next connection, to its end.
    fn receive(&self) -> (Value, OwnedFd) {
        wait::readable(&self.socket, "a connection", Deadline::after(LIMIT)).unwrap();
        let (stream, _) = self.socket.accept().unwrap();
        let mut text = Vec::new();
        let mut listener = None;
        loop {
            wait::readable(&stream, "the state", Deadline::after(LIMIT)).unwrap();
            let mut bytes = [0; 4096];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut parts = [IoSliceMut::new(&mut bytes)];
            let flags = RecvFlags::CMSG_CLOEXEC;
            let message = recvmsg(&stream, &mut parts, &mut control, flags).unwrap();
            for one in control.drain() {
                if let RecvAncillaryMessage::ScmRights(fds) = one {
                    assert!(text.is_empty(), "the descriptor comes first");
                    listener = fds.into_iter().next();
                }
            }
            if message.bytes == 0 {
                break;
            }
            text.extend_from_slice(&bytes[..message.bytes]);
        }
        (serde_json::from_slice(&text).unwrap(), listener.expect("a descriptor"))
    }
}

/// The next call of a process that a filter holds.
fn held(listener: &OwnedFd) -> libc::seccomp_notif {
    wait::readable(listener, "a call", Deadline::after(LIMIT)).unwrap();
    sys::notified(listener.as_fd()).unwrap()
}

/// Red if the agent is told something else than the spec says, or the wrong descriptor arrives.
fn an_agent_decides(arena: &Arena) {
    let agent = Agent::new(arena);
    for restricted in [true, false] {
        let script = "mkdir /tmp/a || echo refused";
        let profile = agent.profile(&["mkdir"]);
        let mut case = under(arena, &["/bin/sh", "-c", script], restricted, profile);
        case.config["annotations"] = json!({ "colour": "blue" });
        let live = case.create().unwrap();
        live.start();
        let (told, listener) = agent.receive();
        let want = json!({
            "ociVersion": told["ociVersion"], "fds": ["seccompFd"], "pid": live.process.pid(),
            "metadata": "of no importance",
            "state": { "ociVersion": told["ociVersion"], "id": case.id, "status": "created",
                "pid": live.process.pid(), "bundle": case.bundle(),
                "annotations": { "colour": "blue" } },
        });
        assert_eq!(told, want);
        let call = held(&listener);
        assert_eq!(i64::from(call.data.nr), libc::SYS_mkdir);
        sys::decide(listener.as_fd(), &call, Some(libc::EXDEV)).unwrap();
        assert!(live.finish().text().ends_with("refused"));
    }
    drop(agent);
    fs::remove_file(arena.dir().join("agent")).unwrap();
}

/// Red if a later process is without a listener of its own.
fn an_agent_hears_of_every_process(arena: &Arena) {
    let agent = Agent::new(arena);
    let case = under(arena, &["/bin/sleep", "1000000"], true, agent.profile(&["mkdir"]));
    let live = case.start();
    let (_, first) = agent.receive();
    let found = arena.engine.open(live.container.id()).unwrap();
    let spec = live.process_spec(&["mkdir", "/tmp/a"]);
    let spec = boathook_runtime::spec::process_from_json(spec.to_string().as_bytes()).unwrap();
    let (stdio, streams) = Streams::pipes();
    let (process, _) = found.exec(&spec, stdio, LIMIT).unwrap();
    process.start(LIMIT).unwrap();
    let (told, second) = agent.receive();
    assert_eq!(told["pid"], process.pid());
    assert_eq!(told["state"]["pid"], live.process.pid());
    assert_eq!(told["state"]["status"], "running");
    let call = held(&second);
    sys::decide(second.as_fd(), &call, None).unwrap();
    assert_eq!(wait_for(&process), 0, "the agent let it go on");
    drop((process, streams, first, second));
    assert!(live.inside("/tmp/a").is_dir());
    live.delete();
}

/// Red if init has to make a held call to hand its listener over: the agent is asked about the
/// exec itself and about everything that could carry a descriptor.
fn every_call_may_be_held(arena: &Arena) {
    let agent = Agent::new(arena);
    let names = [
        "execve",
        "sendmsg",
        "sendto",
        "write",
        "writev",
        "read",
        "futex",
        "close",
        "sched_yield",
        "exit_group",
        "dup3",
        "prctl",
        "mmap",
    ];
    let live = under(arena, &["/bin/echo", "ahoy"], true, agent.profile(&names)).create().unwrap();
    let asked = std::thread::scope(|scope| {
        let agent = scope.spawn(|| {
            let (_, listener) = agent.receive();
            let mut asked = Vec::new();
            loop {
                let call = held(&listener);
                asked.push(i64::from(call.data.nr));
                sys::decide(listener.as_fd(), &call, None).unwrap();
                if i64::from(call.data.nr) == libc::SYS_exit_group {
                    return asked;
                }
            }
        });
        live.start();
        agent.join().unwrap()
    });
    assert_eq!(asked.first(), Some(&libc::SYS_execve), "{asked:?}");
    assert!(asked.contains(&libc::SYS_write), "{asked:?}");
    assert_eq!(live.finish().text(), "ahoy");
}

/// Red if a program runs that nobody listens to, or the field is not named.
fn without_an_agent_nothing_starts(arena: &Arena) {
    let agent = Agent::new(arena);
    let profile = agent.profile(&["mkdir"]);
    let case = under(arena, &["/bin/touch", "/tmp/ran"], true, profile.clone());
    let live = case.create().unwrap();
    drop(agent);
    let error = live.process.start(LIMIT).unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("linux.seccomp.listenerPath: ") && text.contains("refused"), "{text}");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert_ne!(live.wait(), 0);
    assert!(!case.file("/tmp/ran").exists());
    live.delete();
    let path = arena.dir().join("agent");
    fs::remove_file(&path).unwrap();
    let error = under(arena, &["/bin/true"], true, profile.clone()).refused();
    assert!(error.to_string().contains("No such file"), "{error}");
    fs::write(&path, "").unwrap();
    let error = under(arena, &["/bin/true"], true, profile).refused();
    let want = format!("linux.seccomp.listenerPath: {} is not a socket", path.display());
    assert_eq!(error.to_string(), want);
}
