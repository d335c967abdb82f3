//! Who a process is: user, groups, capabilities.

use boathook_runtime::{ErrorKind, spec};
use rootfs_tests::image::{CREW, USER};
use rustix::process::getgroups;
use rustix::thread::{Gid, set_thread_groups};
use serde_json::{Value, json};

use super::support::live::status;
use super::support::{Arena, tests};

tests!(
    user_and_groups_exactly,
    five_capability_sets,
    a_user_without_capabilities_has_none,
    ambient_capabilities_reach_a_users_program,
    no_capabilities_at_all,
    inheritable_is_what_the_config_says,
    capabilities_that_the_engine_lacks_are_named,
    ids_are_numbers_of_32_bits,
);

/// The engine's own groups while a test lasts.
struct Groups(Vec<Gid>);

impl Groups {
    fn set(groups: &[u32]) -> Self {
        let before = getgroups().unwrap();
        let groups: Vec<Gid> = groups.iter().copied().map(Gid::from_raw).collect();
        set_thread_groups(&groups).unwrap();
        Self(before)
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        set_thread_groups(&self.0).unwrap();
    }
}

/// CVE-2023-25173, CVE-2022-36109: red if a group of the engine's is kept, the config's are cut, or
/// one of the saved ids stays 0. Seen red with setgroups(2) left out where the config has none.
fn user_and_groups_exactly(arena: &Arena) {
    let _engines = Groups::set(&[4243, 4244]);
    for (uid, gid, groups) in
        [(0, 0, &[][..]), (USER, USER, &[CREW, 5]), (USER, CREW, &[]), (4_294_967_294, 7, &[0])]
    {
        let mut case = arena.sleeper();
        case.user(uid, gid, groups);
        let live = case.start();
        let pid = live.process.pid();
        assert_eq!(status(pid, "Uid"), [uid; 4].map(|id| id.to_string()).join(" "));
        assert_eq!(status(pid, "Gid"), [gid; 4].map(|id| id.to_string()).join(" "));
        let mut sorted = groups.to_vec();
        sorted.sort_unstable();
        let groups: Vec<String> = sorted.iter().map(u32::to_string).collect();
        assert_eq!(status(pid, "Groups"), groups.join(" "));
        live.delete();
    }
    // More than one page of them.
    let mut case = arena.sleeper();
    let many: Vec<u32> = (10_000..12_000).collect();
    case.user(USER, USER, &many);
    let live = case.start();
    assert_eq!(status(live.process.pid(), "Groups").split(' ').count(), 2000);
    live.delete();
}

/// The sets in the order inheritable, permitted, effective, bounding, ambient.
fn sets(pid: i32) -> [u64; 5] {
    ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"]
        .map(|name| u64::from_str_radix(&status(pid, name), 16).unwrap())
}

const CHOWN: u64 = 1;
const KILL: u64 = 1 << 5;
const NET_BIND: u64 = 1 << 10;
const NET_RAW: u64 = 1 << 13;

/// Red if a set is taken for another. While the program waits for its start the sets are as the
/// config says; the exec of root's program then makes them what capabilities(7) says.
fn five_capability_sets(arena: &Arena) {
    let mut case = arena.sleeper();
    case.config["process"]["capabilities"] = json!({
        "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW", "CAP_NET_BIND_SERVICE"],
        "permitted": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW"],
        "effective": ["CAP_KILL"],
        "inheritable": ["CAP_NET_RAW", "CAP_CHOWN"],
        "ambient": ["CAP_NET_RAW"],
    });
    let live = case.create().unwrap();
    let bounding = CHOWN | KILL | NET_RAW | NET_BIND;
    let waiting = sets(live.process.pid());
    assert_eq!(waiting, [NET_RAW | CHOWN, CHOWN | KILL | NET_RAW, KILL, bounding, NET_RAW]);
    live.start();
    // Of what root's program would gain, no_new_privs leaves what was permitted before.
    let permitted = CHOWN | KILL | NET_RAW;
    let running = [NET_RAW | CHOWN, permitted, permitted, bounding, NET_RAW];
    assert_eq!(sets(live.process.pid()), running);
    let exec = live.process_spec(&["sleep", "1000"]);
    let (process, _streams) = live.exec_json(&exec).unwrap();
    assert_eq!(sets(process.pid()), waiting, "an exec");
    drop(process);
    live.delete();
}

/// Red if a user's program keeps what root's would have.
fn a_user_without_capabilities_has_none(arena: &Arena) {
    let mut case = arena.sleeper();
    case.user(USER, USER, &[]);
    case.capabilities(&["CAP_CHOWN", "CAP_KILL"]);
    let live = case.create().unwrap();
    let before = sets(live.process.pid());
    assert_eq!(before, [0, CHOWN | KILL, CHOWN | KILL, CHOWN | KILL, 0], "before the exec");
    live.start();
    assert_eq!(sets(live.process.pid()), [0, 0, 0, CHOWN | KILL, 0]);
    live.delete();
}

/// Red if ambient capabilities are raised before the change of user, which would clear them.
fn ambient_capabilities_reach_a_users_program(arena: &Arena) {
    let mut case = arena.sleeper();
    case.user(USER, USER, &[]);
    let names = ["CAP_NET_BIND_SERVICE"];
    case.config["process"]["capabilities"] = json!({
        "bounding": names, "permitted": names, "effective": names, "inheritable": names,
        "ambient": names,
    });
    let live = case.start();
    assert_eq!(sets(live.process.pid()), [NET_BIND; 5]);
    live.delete();
}

/// Red if "none" means "all": an empty object, empty lists, no object at all.
fn no_capabilities_at_all(arena: &Arena) {
    let none = [Value::Null, json!({}), json!({ "bounding": [], "effective": [] })];
    for capabilities in none {
        let mut case = arena.sleeper();
        case.config["process"]["capabilities"] = capabilities.clone();
        if capabilities.is_null() {
            case.config["process"].as_object_mut().unwrap().remove("capabilities");
        }
        let live = case.start();
        assert_eq!(sets(live.process.pid()), [0; 5], "{capabilities}");
        live.delete();
    }
}

/// CVE-2022-24769 and its kin: red if inheritable is filled although the config does not, for the
/// first process or an exec. (Seen red with `inheritable: permitted` in `plan::caps::identity`.)
fn inheritable_is_what_the_config_says(arena: &Arena) {
    let case = arena.sleeper();
    let live = case.start();
    let own = sets(live.process.pid());
    assert_eq!((own[0], own[4]), (0, 0));
    let exec = live.sh("grep -E 'Cap(Inh|Amb)' /proc/self/status");
    assert_eq!(exec, "CapInh:\t0000000000000000\nCapAmb:\t0000000000000000");
    // An exec that asks for more gets it in no other set.
    let mut process = live.process_spec(&["grep", "Cap", "/proc/self/status"]);
    process["capabilities"]["permitted"] = json!(["CAP_KILL", "CAP_SYS_PTRACE"]);
    process["capabilities"]["effective"] = json!(["CAP_KILL", "CAP_SYS_PTRACE"]);
    process["capabilities"]["bounding"] = json!(["CAP_KILL", "CAP_SYS_PTRACE"]);
    let outcome = live.run_json(&process);
    assert!(outcome.text().starts_with("CapInh:\t0000000000000000\n"), "{outcome:?}");
    assert!(outcome.text().ends_with("CapAmb:\t0000000000000000"), "{outcome:?}");
    live.delete();
}

/// Red if a capability that cannot be given is left out in silence, or the message does not tell
/// what was being done.
fn capabilities_that_the_engine_lacks_are_named(arena: &Arena) {
    let mut case = arena.sleeper();
    let own = sets(std::process::id() as i32)[1];
    case.capabilities(&["CAP_SYS_RESOURCE", "CAP_KILL"]);
    if own & (1 << 24) != 0 {
        case.start().delete();
        return;
    }
    let error = case.refused();
    let text = error.to_string();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{text}");
    assert!(text.contains("capset"), "{text}");
}

/// CVE-2026-30892 and its kin: red if an id is parsed laxly. (Seen red without
/// `plan::caps::check_ids`: the exec ran as root.)
fn ids_are_numbers_of_32_bits(arena: &Arena) {
    let live = arena.sleeper().start();
    for field in ["uid", "gid"] {
        for wrong in ["-1", "4294967296", "\"1\"", "\"1:\"", "\"01x\"", "1.5", "null", "true"] {
            let mut user = json!({ "uid": 0, "gid": 0 });
            user[field] = json!("@");
            let text = json!({ "args": ["true"], "cwd": "/", "user": user }).to_string();
            let text = text.replace("\"@\"", wrong);
            let error = spec::process_from_json(text.as_bytes()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
            assert!(error.to_string().contains(&format!("user.{field}: ")), "{error}");
        }
    }
    // All ones is no id: setresuid(2) takes it for "leave it as it is", which is root.
    let mut process = live.process_spec(&["id", "-u"]);
    for field in ["uid", "gid"] {
        process["user"] = json!({ "uid": 1000, "gid": 1000 });
        process["user"][field] = json!(u32::MAX);
        let error = live.exec_json(&process).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        assert!(error.to_string().contains(&format!("process.user.{field}")), "{error}");
    }
    process["user"] = json!({ "uid": 1000, "gid": 1000, "additionalGids": [1, u32::MAX] });
    let error = live.exec_json(&process).unwrap_err();
    assert!(error.to_string().contains("process.user.additionalGids"), "{error}");
    live.delete();
}
