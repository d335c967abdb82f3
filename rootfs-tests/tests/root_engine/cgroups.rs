//! A container and its cgroup, where the two generations meet: on a hybrid or v2 host.

use std::fs;

use boathook_runtime::cgroup::Mode;
use boathook_runtime::spec::resources_from_json;
use serde_json::json;

use super::support::{Arena, tests};

tests!(an_exec_follows_init_into_its_cgroup, rules_beyond_v1_hold_and_change,);

/// Red if a container that moved its own init (systemd does) cannot be entered any more, or if an
/// exec ends up in another cgroup than init's.
fn an_exec_follows_init_into_its_cgroup(arena: &Arena) {
    let mut case = arena.sleeper();
    case.config["linux"]["cgroupsPath"] = json!(format!("{}/c", arena.cgroup(&case.id)));
    let live = case.start();
    let v2 = live.container.cgroup().directories().find(|d| d.is_v2).expect("a v2 hierarchy");
    let parent = v2.mount_point.join(v2.path).parent().unwrap().to_owned();
    let recorded = v2.mount_point.join(v2.path);
    let pid = live.process.pid().to_string();
    // Either way the recorded cgroup becomes one that takes no process.
    if live.container.cgroup().mode() == Mode::V2 {
        // As systemd does: down, to hand controllers on.
        fs::create_dir(recorded.join("init.scope")).unwrap();
        fs::write(recorded.join("init.scope/cgroup.procs"), pid).unwrap();
        fs::write(recorded.join("cgroup.subtree_control"), "+memory").unwrap();
    } else {
        // Up, beside a threaded sibling.
        fs::write(parent.join("cgroup.procs"), pid).unwrap();
        fs::create_dir(parent.join("threads")).unwrap();
        fs::write(parent.join("threads/cgroup.type"), "threaded").unwrap();
    }
    let membership = live.sh("cat /proc/self/cgroup");
    let line = |text: &str| text.lines().find(|l| l.starts_with("0::")).map(str::to_owned);
    // Seen from inside, where the cgroup namespace's root is the recorded cgroup.
    assert_eq!(line(&membership), line(&live.sh("cat /proc/1/cgroup")), "{membership}");
    let own = live.proc("cgroup");
    let further = live.exec_json(&live.process_spec(&["/bin/sleep", "1000000"])).unwrap().0;
    let found = fs::read_to_string(format!("/proc/{}/cgroup", further.pid())).unwrap();
    assert_eq!(found, own);
    let _ = fs::remove_dir(parent.join("threads"));
    drop(further);
    live.delete();
}

/// Red if rules that cgroup v1 cannot express are refused, are not in force from the first
/// instruction on, or are not changed by an update.
fn rules_beyond_v1_hold_and_change(arena: &Arena) {
    let mut case = arena.sh("mknod /tmp/one c 240 1; mknod /tmp/two c 240 2; \
         for f in one two; do (: > /tmp/$f) 2>&1; done; sleep 1000000");
    let rules = case.config["linux"]["resources"]["devices"].as_array_mut().unwrap();
    rules.push(json!({ "allow": true, "type": "c", "major": 240, "access": "rw" }));
    rules.push(json!({ "allow": false, "type": "c", "major": 240, "minor": 2, "access": "w" }));
    let mut live = case.start();
    // No driver has the number: that is the answer where the rules allow it.
    let first = live.line();
    assert!(first.contains("No such device"), "{first}");
    let second = live.line();
    assert!(second.contains("Operation not permitted"), "{second}");
    let update = r#"{"devices":[{"allow":true,"type":"c","major":240,"minor":2,"access":"w"}]}"#;
    live.container.update(&resources_from_json(update.as_bytes()).unwrap()).unwrap();
    let tried = live.run(&["sh", "-c", "(: > /tmp/one) 2>&1; (: > /tmp/two) 2>&1; true"]);
    let lines: Vec<&str> = tried.out.lines().collect();
    assert!(lines[0].contains("Operation not permitted"), "{tried:?}");
    assert!(lines[1].contains("No such device"), "{tried:?}");
    live.delete();
}
