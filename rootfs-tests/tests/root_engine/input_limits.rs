//! Input that is large, deep, impossible or hostile as a whole; see [`super::input`] for single
//! fields. Told by field and value, and nothing left behind (the harness counts).

use std::fs;

use boathook_runtime::{ErrorKind, spec};
use serde_json::{Value, json};

use super::support::{Arena, tests};

tests!(
    ten_megabytes_of_config,
    nesting_without_end,
    paths_that_climb,
    limits_that_no_cgroup_can_have,
    options_that_no_mount_has,
    a_profile_with_calls_that_nobody_knows,
    thousands_of_everything,
    a_directory_thirty_two_deep,
);

/// Red if a large config is not read, or if one beyond the limit is. Seen red without the limit in
/// `spec::load`.
fn ten_megabytes_of_config(arena: &Arena) {
    let mut case = arena.sh("echo $((1 + 1))");
    let filler: Value = (0..10).map(|n| (format!("k{n}"), json!("x".repeat(1 << 20)))).collect();
    case.config["annotations"] = filler;
    assert_eq!(case.run().text(), "2");
    assert!(fs::metadata(case.bundle().join("config.json")).unwrap().len() > 10 << 20);

    let mut case = arena.sleeper();
    case.config["annotations"] = json!({ "k": "x".repeat(17 << 20) });
    let error = case.refused();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    let size = fs::metadata(case.bundle().join("config.json")).unwrap().len();
    let told = format!("config.json: {size} bytes are more than 16777216");
    assert!(error.to_string().starts_with(&told), "{error}");
}

/// Red if nesting ends this process: in a field that is used it is an error, and one that nobody
/// knows is skipped whatever is in it.
fn nesting_without_end(arena: &Arena) {
    let case = arena.sleeper();
    for depth in [200, 1_000_000] {
        let nested = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let load = |field: &str| {
            let mut config = case.config.clone();
            config.as_object_mut().unwrap().remove(field);
            let text = config.to_string().replacen('{', &format!("{{{field:?}:{nested},"), 1);
            fs::write(case.bundle().join("config.json"), text).unwrap();
            spec::load(case.bundle()).map(drop)
        };
        load("unknown").unwrap();
        for field in ["mounts", "annotations", "process"] {
            let error = load(field).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{field} {depth}: {error}");
            let told = format!("config.json: {field}");
            let text = error.to_string();
            let sequence = text.contains("invalid type: sequence");
            assert!(text.starts_with(&told) && sequence, "{field} {depth}: {text}");
        }
    }
}

/// Red if a path is taken from somewhere that the specification does not say, or climbs out: what
/// `..` leaves of a destination is below the root, and of a cgroup nothing may be left. Seen red with
/// a relative cwd taken: the container was created.
fn paths_that_climb(arena: &Arena) {
    let source = arena.make_dir("source");
    fs::write(source.join("mark"), "").unwrap();
    for (place, inside) in
        [("relative/x", "/relative/x"), ("/a/../../../b", "/b"), ("../../c/./d//e", "/c/d/e")]
    {
        let mut case = arena.sh(&format!("ls {inside}"));
        case.bind(&source, place, &["rbind"]);
        match case.create() {
            Ok(live) => {
                live.start();
                assert_eq!(live.finish().text(), "mark", "{place}");
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::InvalidInput, "{place}: {error}");
                assert!(error.to_string().contains(".."), "{place}: {error}");
            }
        }
    }
    for (pointer, path) in [
        ("/process/cwd", "../etc"),
        ("/linux/cgroupsPath", "/x/../../y"),
        ("/linux/cgroupsPath", "../y"),
        ("/linux/cgroupsPath", "/.."),
        ("/linux/maskedPaths", "etc/passwd"),
        ("/linux/readonlyPaths", "../etc"),
        ("/root/path", "../no/such"),
    ] {
        let mut case = arena.sleeper();
        let list = pointer.ends_with("Paths");
        *case.config.pointer_mut(pointer).unwrap() = if list { json!([path]) } else { json!(path) };
        let error = case.refused();
        let field = pointer.trim_start_matches('/').replace('/', ".");
        let field = field + if list { "[0]: " } else { ": " };
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{pointer}: {error}");
        let text = error.to_string();
        assert!(text.starts_with(&field) && text.contains(path), "{pointer} {path}: {text}");
    }
}

/// Red if a value that the kernel refuses, or takes for something else, is not told by its field.
/// Seen red with every negative number of processes taken for no limit. What the kernel refuses is
/// told by field and value without our check too: without that of `memory.swap` it stays green.
fn limits_that_no_cgroup_can_have(arena: &Arena) {
    for (resources, field, value) in [
        (json!({ "memory": { "limit": -2 } }), "memory.limit", "-2 "),
        (json!({ "memory": { "limit": i64::MIN } }), "memory.limit", "-9223372036854775808 "),
        (
            json!({ "memory": { "swap": 1 << 30 } }),
            "memory.swap",
            "1073741824 needs linux.resources.memory.limit",
        ),
        (
            json!({ "memory": { "limit": 2 << 20, "swap": 1 << 20 } }),
            "memory.swap",
            "1048576 is less ",
        ),
        (json!({ "memory": { "swappiness": 1001 } }), "memory.swappiness", "1001 "),
        (json!({ "cpu": { "period": 1 } }), "cpu.period", "writing \"1\" to "),
        (json!({ "cpu": { "quota": 1, "period": 100_000 } }), "cpu.quota", "writing \"1\" to "),
        (json!({ "cpu": { "cpus": "99999" } }), "cpu.cpus", "\"99999\": "),
        (json!({ "cpu": { "cpus": "3-1" } }), "cpu.cpus", "\"3-1\": "),
        (json!({ "cpu": { "cpus": "0\n1" } }), "cpu.cpus", "\"0\\n1\": "),
        (json!({ "cpu": { "mems": "4096" } }), "cpu.mems", "writing \"4096\" to "),
        (json!({ "cpu": { "idle": 7 } }), "cpu.idle", "7 "),
        (json!({ "pids": { "limit": -2 } }), "pids.limit", "-2 "),
        (
            json!({ "pids": { "limit": i64::MAX } }),
            "pids.limit",
            "writing \"9223372036854775807\" to ",
        ),
        (
            json!({ "hugepageLimits": [{ "pageSize": "3QB", "limit": 1 }] }),
            "hugepageLimits[0].pageSize",
            "\"3QB\" ",
        ),
        (json!({ "blockIO": { "weight": 5 } }), "blockIO.weight", "5 "),
        (
            json!({ "devices": [{ "allow": true, "type": "c", "major": -7, "access": "r" }] }),
            "devices[0].major",
            "-7 ",
        ),
        (
            json!({ "devices": [{ "allow": true, "type": "c", "access": "z" }] }),
            "devices[0].access",
            "\"z\" ",
        ),
    ] {
        let mut case = arena.sleeper();
        for (name, part) in resources.as_object().unwrap() {
            case.config["linux"]["resources"][name] = part.clone();
        }
        let error = case.refused();
        let text = error.to_string();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{resources}: {text}");
        let told = format!("linux.resources.{field}: {value}");
        assert!(text.starts_with(&told), "{resources}: {text:?} does not start with {told:?}");
    }
}

/// Red if an option that means nothing to a file system is dropped in silence, or is not told. Seen
/// red with the options of file systems left out of the plan.
fn options_that_no_mount_has(arena: &Arena) {
    for (kind, option) in [
        ("tmpfs", "no_such_option"),
        ("tmpfs", "size=lots"),
        ("tmpfs", "mode"),
        ("proc", "hidepid=99"),
        ("bind", "size=1k"),
        ("bind", "loud-and-clear"),
        ("nosuchfs", "rw"),
        ("tmpfs", "x=\u{1}"),
    ] {
        let mut case = arena.sleeper();
        case.mount("/mnt", kind, "/etc", &[option]);
        let index = case.config["mounts"].as_array().unwrap().len() - 1;
        let error = case.refused();
        let text = error.to_string();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{kind} {option}: {text}");
        let told = text.starts_with(&format!("mounts[{index}].options: "))
            || text.contains(&format!("mount {kind:?} (source \"/etc\") at \"/mnt\": "));
        assert!(told, "{kind} {option}: {text}");
        // Of a file system that there is not, no option is looked at.
        let value = match option {
            _ if kind == "nosuchfs" => kind,
            "x=\u{1}" => "x=\\x01",
            other => other,
        };
        assert!(text.contains(&format!("\"{value}\"")), "{kind} {option}: {text}");
    }
}

/// As runc does it: a call that this kernel has no number for is left out of the rules, for each
/// action, and the calls beside it count. Red if the container does not start, or runs without the
/// rest of its filter. Seen red with such a name refused in `seccomp::profile`.
fn a_profile_with_calls_that_nobody_knows(arena: &Arena) {
    for action in ["ERRNO", "KILL_PROCESS", "LOG", "TRAP", "ALLOW"] {
        let mut case = arena.sh("mkdir /tmp/x; echo $?; grep ^Seccomp: /proc/self/status");
        case.config["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            { "names": ["made_up", "also_made_up", "🦀"], "action": format!("SCMP_ACT_{action}") },
            { "names": ["made_up", "mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO" },
        ] });
        let outcome = case.run();
        assert_eq!(outcome.text(), "1\nSeccomp:\t2", "{action}: {outcome:?}");
    }
}

/// Red if there is a limit that nobody wrote down, or one of these takes its time with the square;
/// and if a length does not fit into its field (CVE-2021-43784: 64 KiB were too many). Seen red with lengths of strings cut to
/// 16 bits in `wire`.
fn thousands_of_everything(arena: &Arena) {
    let mut case = arena.sh(
        "env | wc -c; grep -c ' /many/' /proc/self/mountinfo; ls /dev/many | wc -l; echo ${#LONG}",
    );
    let env: Vec<String> = (0..1024).map(|n| format!("V{n}={}", "x".repeat(1024))).collect();
    let long = format!("LONG={}", "x".repeat(100 << 10));
    case.config["process"]["env"] = json!([env, vec![long]].concat());
    case.mount("/many", "tmpfs", "tmpfs", &["size=64k"]);
    let source = arena.make_dir("source");
    for number in 0..4096 {
        case.bind(&source, &format!("/many/{number}"), &["bind"]);
    }
    let devices: Vec<Value> = (0..300)
        .map(|n| json!({ "path": format!("/dev/many/{n}"), "type": "c", "major": 1, "minor": 3 }))
        .collect();
    case.config["linux"]["devices"] = json!(devices);
    let outcome = case.run();
    let lines: Vec<&str> = outcome.text().lines().collect();
    assert!(lines[0].parse::<usize>().unwrap() > 1 << 20, "{lines:?}");
    assert_eq!(lines[1..], ["4096", "300", "102400"]);
}

/// Red if a path of many names is resolved or made only in part.
fn a_directory_thirty_two_deep(arena: &Arena) {
    let deep = |first: &str| format!("/{first}{}", "/d".repeat(31));
    let mut case = arena
        .sh("cat /one/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/mark; pwd");
    let source = arena.make_dir("source");
    fs::write(source.join("mark"), "here\n").unwrap();
    case.bind(&source, &deep("one"), &["bind"]);
    case.mount(&deep("two"), "tmpfs", "tmpfs", &[]);
    case.config["process"]["cwd"] = json!(deep("two"));
    case.config["linux"]["maskedPaths"] = json!([format!("{}/x", deep("one"))]);
    assert_eq!(case.run().text(), format!("here\n{}", deep("two")));
}
