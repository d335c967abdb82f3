//! OCI hooks: when, where and with what each of the six lists runs, and what its failure does.

use std::fs;
use std::path::Path;
use std::time::Duration;

use boathook_runtime::ErrorKind;
use serde_json::{Value, json};

use super::support::live::proc_link;
use super::support::{Arena, Case, LIMIT, Live, tests};

tests!(
    each_list_runs_at_its_moment_and_place,
    a_hook_has_exactly_its_own_environment,
    a_failed_hook_undoes_the_create,
    a_hook_that_takes_too_long_is_killed,
    a_hook_that_fails_at_the_start_ends_the_container,
    a_failed_poststop_hook_stops_nothing,
    wrong_hooks_are_told,
);

/// The lists that run on the host or with the host's files.
const OUTSIDE: [&str; 5] =
    ["prestart", "createRuntime", "createContainer", "poststart", "poststop"];

/// A hook of the host's shell.
fn hook(script: &str) -> Value {
    json!({ "path": "/bin/sh", "args": ["sh", "-c", script] })
}

/// Sets one hook of a list.
fn set(case: &mut Case<'_>, list: &str, hook: Value) {
    if case.config["hooks"].is_null() {
        case.config["hooks"] = json!({});
    }
    case.config["hooks"][list] = Value::Array(vec![hook]);
}

#[track_caller]
fn start(live: &Live) {
    live.container.start(&live.process, LIMIT).unwrap_or_else(|error| panic!("start: {error}"));
}

fn read(dir: &Path, name: &str) -> String {
    fs::read_to_string(dir.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Red if a list runs at another time, in another namespace, without the state document, or not
/// at all (config.md, "POSIX-platform Hooks").
fn each_list_runs_at_its_moment_and_place(arena: &Arena) {
    let dir = arena.dir().to_owned();
    let mut case = arena.sleeper();
    case.config["annotations"] = json!({ "colour": "blue" });
    for list in OUTSIDE {
        let script = format!(
            "cd {dir} && echo {list} >> order && cat > {list}.json && \
             readlink /proc/self/ns/mnt > {list}.ns",
            dir = dir.display()
        );
        set(&mut case, list, hook(&script));
    }
    let inside =
        "cat > /started.json; readlink /proc/self/ns/mnt > /started.ns; id -u >> /started.ns";
    set(&mut case, "startContainer", hook(inside));
    let live = case.create().unwrap_or_else(|error| panic!("create: {error}"));
    assert_eq!(read(&dir, "order"), "prestart\ncreateRuntime\ncreateContainer\n");
    assert!(!live.inside("/started.json").exists());
    start(&live);
    assert_eq!(read(&dir, "order").lines().last(), Some("poststart"));
    let container = proc_link(live.process.pid(), "ns/mnt");
    let host = fs::read_link("/proc/self/ns/mnt").unwrap().display().to_string();
    for (list, namespace) in [
        ("prestart", &host),
        ("createRuntime", &host),
        ("createContainer", &container),
        ("poststart", &host),
    ] {
        assert_eq!(read(&dir, &format!("{list}.ns")).trim_end(), namespace, "{list}");
    }
    let started = fs::read_to_string(live.inside("/started.ns")).unwrap();
    assert_eq!(started, format!("{container}\n0\n"));
    let inside = fs::read_to_string(live.inside("/started.json")).unwrap();
    let pid = live.process.pid();
    live.delete();
    assert_eq!(read(&dir, "order").lines().last(), Some("poststop"));
    let check = |text: &str, status: &str| {
        let state: Value = serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"));
        assert_eq!(state["status"], status, "{state}");
        assert_eq!(state["id"], case.id, "{state}");
        assert_eq!(state["bundle"], case.bundle().to_str().unwrap(), "{state}");
        assert_eq!(state["annotations"], json!({ "colour": "blue" }), "{state}");
        if status != "stopped" {
            assert_eq!(state["pid"], pid, "{state}");
        }
    };
    check(&inside, "created");
    for (list, status) in
        OUTSIDE.iter().zip(["creating", "creating", "creating", "running", "stopped"])
    {
        check(&read(&dir, &format!("{list}.json")), status);
    }
}

/// Red if a hook sees the engine's environment or the container's (CVE-2025-23266).
fn a_hook_has_exactly_its_own_environment(arena: &Arena) {
    let dir = arena.dir().to_owned();
    let mut case = arena.sleeper();
    case.config["process"]["env"] = json!(["PATH=/bin", "LD_PRELOAD=/evil.so"]);
    for list in OUTSIDE {
        let script = format!("tr '\\0' '\\n' < /proc/self/environ > {}/{list}", dir.display());
        let mut hook = hook(&script);
        if list != "poststop" {
            hook["env"] = json!(["ONE=1", "TWO="]);
        }
        set(&mut case, list, hook);
    }
    let live = case.create().unwrap_or_else(|error| panic!("create: {error}"));
    start(&live);
    live.delete();
    for list in OUTSIDE {
        let want = if list == "poststop" { "" } else { "ONE=1\nTWO=\n" };
        assert_eq!(read(&dir, list), want, "{list}");
    }
}

/// Red if the create goes on, the message does not tell which hook said what, or poststop does
/// not run although the create had begun.
fn a_failed_hook_undoes_the_create(arena: &Arena) {
    for (list, title) in [
        ("prestart", "createRuntime hook #0: /bin/sh"),
        ("createRuntime", "createRuntime hook #0: /bin/sh"),
        ("createContainer", "createContainer hook /bin/sh"),
    ] {
        let mark = arena.dir().join(list);
        let mut case = arena.sleeper();
        set(&mut case, list, hook("echo no luck today; exit 3"));
        set(&mut case, "poststop", hook(&format!("cat > {}", mark.display())));
        let text = case.refused().to_string();
        for part in [title, "no luck today", "3"] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        let state: Value = serde_json::from_str(&fs::read_to_string(&mark).unwrap()).unwrap();
        assert_eq!(state["status"], "stopped", "{state}");
    }
}

/// Red if a hook can hold a create up for longer than it may, or goes on afterwards.
fn a_hook_that_takes_too_long_is_killed(arena: &Arena) {
    for list in ["createRuntime", "createContainer"] {
        let pid = arena.dir().join(list);
        let mut case = arena.sleeper();
        let mut slow = hook(&format!("echo $$ > {}; exec sleep 1000000", pid.display()));
        slow["timeout"] = json!(1);
        set(&mut case, list, slow);
        let error = case.refused();
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
        if list == "createRuntime" {
            let pid = fs::read_to_string(&pid).unwrap();
            assert!(!Path::new("/proc").join(pid.trim_end()).exists(), "{pid}");
        }
    }
}

/// Red if a container goes on without what its hooks were to do.
fn a_hook_that_fails_at_the_start_ends_the_container(arena: &Arena) {
    for (list, title) in [
        ("startContainer", "startContainer hook /bin/sh"),
        ("poststart", "poststart hook #0: /bin/sh"),
    ] {
        let mut case = arena.sleeper();
        set(&mut case, list, hook("echo no luck; exit 4"));
        let live = case.create().unwrap_or_else(|error| panic!("create: {error}"));
        let error = live.container.start(&live.process, LIMIT).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(title) && text.contains("no luck"), "{text}");
        assert_eq!(live.wait(), 137, "{list}");
        live.delete();
    }
}

/// Red if a hook that comes too late to stop anything stops the delete (runtime.md, "Lifecycle").
fn a_failed_poststop_hook_stops_nothing(arena: &Arena) {
    let mut case = arena.sleeper();
    set(&mut case, "poststop", json!({ "path": "/no/such/hook" }));
    let live = case.start();
    live.delete();
    let mut slow = hook("exec sleep 1000000");
    slow["timeout"] = json!(1);
    set(&mut case, "poststop", slow);
    let begin = std::time::Instant::now();
    case.start().delete();
    assert!(begin.elapsed() >= Duration::from_secs(1));
}

/// Red if a hook that cannot be meant is run, or found out only when it is its turn.
fn wrong_hooks_are_told(arena: &Arena) {
    for list in OUTSIDE.into_iter().chain(["startContainer"]) {
        for (hook, field) in [
            (json!({ "path": "bin/sh" }), "path: bin/sh is not an absolute path"),
            (json!({ "path": "/bin/sh", "timeout": 0 }), "timeout: "),
            (json!({ "path": "/bin/sh", "timeout": -5 }), "timeout: "),
        ] {
            let mut case = arena.sleeper();
            set(&mut case, list, hook);
            let error = case.refused();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
            let start = format!("hooks.{list}[0].{field}");
            assert!(error.to_string().starts_with(&start), "{error} does not start with {start}");
        }
    }
    let mut case = arena.sleeper();
    set(&mut case, "createRuntime", json!({ "path": "/no/such/hook" }));
    let text = case.refused().to_string();
    assert!(text.starts_with("createRuntime hook #0: /no/such/hook: "), "{text}");
}
