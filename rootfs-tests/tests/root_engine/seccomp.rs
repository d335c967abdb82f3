//! Filters of system calls.

use std::fs;

use boathook_runtime::ErrorKind;
use rootfs_tests::image::USER;
use serde_json::{Value, json};

use super::support::live::status;
use super::support::{Arena, Case, LIMIT, tests};

tests!(
    nothing_of_inits_has_to_be_allowed,
    the_exec_itself_has_to_be_allowed,
    the_first_process_and_later_ones_are_under_it,
    it_leaves_no_capability_behind,
    later_processes_do_not_run_without_it,
    wrong_profiles_are_refused,
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
        let (stdio, _streams) = super::support::streams::Streams::pipes();
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
