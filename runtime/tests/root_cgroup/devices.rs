//! Device rules in force: the program on v2, and together with v1.

use std::path::Path;

use boathook_runtime::ErrorKind;
use boathook_runtime::cgroup::Cgroup;
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

use super::bpf;
use super::support::{Arena, Child, deadline, on_each, parse, readable};

/// Device nodes in a directory of their own: the default rules allow `null`,
/// none of them `log` (the kernel's log) or `none` (no driver has it: opening
/// it is ENXIO where the rules allow it).
fn nodes() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, major, minor) in [("null", 1, 3), ("log", 1, 11), ("none", 240, 7)] {
        let mode = Mode::from_raw_mode(0o666);
        let device = makedev(major, minor);
        mknodat(CWD, dir.path().join(name), FileType::CharacterDevice, mode, device).unwrap();
    }
    dir
}

/// What a process born in the group gets when it does `command` in `dir`: its
/// output, errors included.
fn attempt(group: &Cgroup, dir: &Path, command: &str) -> String {
    let script = format!("cd {} && ( {command} ) 2>&1; echo done", dir.display());
    let child = Child::shell(&group.join_files().unwrap(), &script);
    let text = child.output();
    child.wait();
    text
}

const REFUSED: &str = "Operation not permitted";

fn opens(group: &Cgroup, dir: &Path, how: &str) -> bool {
    let text = attempt(group, dir, &format!("exec 3{how}"));
    assert!(
        text == "done\n" || text.contains(REFUSED) || text.contains("No such device"),
        "{text}"
    );
    !text.contains(REFUSED)
}

/// Red if a rule is lost, a device is let through or refused against the rules,
/// or the rules hold only after the first process has started.
#[test]
fn the_first_process_meets_the_rules() {
    on_each(|arena| {
        let dir = nodes();
        let group = arena.create(
            "c",
            r#"{"devices":[{"allow":false,"access":"rwm"},
                           {"allow":true,"type":"c","major":240,"access":"r"}]}"#,
        );
        let opens = |how| opens(&group, dir.path(), how);
        assert!(opens("<null") && opens(">null") && opens("<>null"));
        assert!(!opens("<log") && !opens(">log"));
        assert!(opens("<none") && !opens(">none") && !opens("<>none"));
        // The default rules allow making any node, but not opening it.
        let made = attempt(&group, dir.path(), "mknod new c 1 11 && exec 3<new");
        assert!(made.contains(REFUSED) && dir.path().join("new").exists(), "{made}");
        group.delete(deadline()).unwrap();
        arena.assert_clean();
    });
}

/// Red if a privileged container gets a program, or one that refuses something.
#[test]
fn allowing_everything_attaches_nothing() {
    on_each(|arena| {
        let dir = nodes();
        let group = arena.create("c", r#"{"devices":[{"allow":true,"access":"rwm"}]}"#);
        assert!(opens(&group, dir.path(), "<log") && opens(&group, dir.path(), "<>none"));
        for directory in group.directories().filter(|d| d.is_v2) {
            let path = directory.mount_point.join(directory.path);
            assert_eq!(bpf::attached(&path), [0; 0]);
        }
        group.delete(deadline()).unwrap();
        arena.assert_clean();
    });
}

/// Opens an allowed and a refused device as fast as it can; prints now and
/// then, and for ever, unless one answer is wrong.
const OPENER: &str = "cd $DIR; i=0; while { :; } 3<null; do \
    if { :; } 3<log; then echo breach; exit 1; fi; \
    i=$((i+1)); case $i in *00) echo .;; esac; done 2>/dev/null; echo refused; exit 2";

fn opener(group: &Cgroup, dir: &Path) -> Child {
    let script = OPENER.replace("$DIR", &dir.display().to_string());
    Child::shell(&group.join_files().unwrap(), &script)
}

/// Both allow `null` and refuse `log`.
const ONE: &str =
    r#"{"devices":[{"allow":false},{"allow":true,"type":"c","major":240,"minor":7}]}"#;
const OTHER: &str =
    r#"{"devices":[{"allow":true},{"allow":false,"type":"c","major":1,"minor":11}]}"#;

/// Updates a hundred times and more under the eyes of an opener, until it has
/// looked often enough; `check` sees the group after every update.
fn update_under_watch(group: &Cgroup, dir: &Path, check: &dyn Fn()) {
    // Beside v1 the first such update opens its table for good, and there the kernel drops the
    // exceptions a moment before it changes the default (`devcgroup_update_access`); an open was
    // refused once. From here on the program alone decides.
    group.update(&parse(OTHER)).unwrap();
    let child = opener(group, dir);
    let (mut updates, mut looks) = (0, 0);
    while updates < 100 || looks < 20 {
        group.update(&parse(if updates % 2 == 0 { OTHER } else { ONE })).unwrap();
        updates += 1;
        check();
        while readable(&child.output_fd(), std::time::Duration::ZERO) {
            let text = child.read_some();
            assert!(text.trim_matches(['.', '\n']).is_empty(), "{text} after {updates} updates");
            looks += text.matches('.').count();
        }
    }
    // The opener does notice.
    group.update(&parse(r#"{"devices":[{"allow":true}]}"#)).unwrap();
    assert!(child.output().ends_with("breach\n"));
    child.wait();
    group.update(&parse(ONE)).unwrap();
}

/// Red if an update leaves a gap, refuses for a moment, or leaves the old program behind.
#[test]
fn an_update_replaces_without_a_gap() {
    on_each(|arena| {
        let dir = nodes();
        let group = arena.create("c", ONE);
        update_under_watch(&group, dir.path(), &|| {});
        group.delete(deadline()).unwrap();
        arena.assert_clean();
    });
}

/// Red if programs pile up (at 64 the next update fails), or if a program of
/// somebody else is taken for ours.
#[test]
fn one_program_stays_one() {
    let arena = Arena::unified();
    let dir = nodes();
    let group = arena.create("c", ONE);
    let path = arena.dir("c");
    let first = bpf::attached(&path);
    assert_eq!(first.len(), 1);
    update_under_watch(&group, dir.path(), &|| assert_eq!(bpf::attached(&path).len(), 1));
    bpf::attach_other(&path);
    let both = bpf::attached(&path);
    assert_eq!(both.len(), 2);
    group.update(&parse(OTHER)).unwrap();
    let after = bpf::attached(&path);
    assert_eq!(after.len(), 2);
    assert_eq!(both.iter().filter(|id| after.contains(id)).count(), 1, "{both:?} {after:?}");
    group.update(&parse(r#"{"devices":[{"allow":true}]}"#)).unwrap();
    assert_eq!(bpf::attached(&path).len(), 1);
    // An update of something else leaves the rules alone.
    group.update(&parse(ONE)).unwrap();
    let before = bpf::attached(&path);
    group.update(&parse(r#"{"unified":{"cgroup.max.depth":"9"}}"#)).unwrap();
    assert_eq!(bpf::attached(&path), before);
    group.delete(deadline()).unwrap();
    arena.assert_clean();
}

/// The same where the kernel cannot replace (before 5.6).
#[test]
fn an_update_without_replacement_leaves_no_gap_either() {
    let arena = Arena::unified();
    let dir = nodes();
    let group = arena.create("c", ONE);
    let refused = bpf::without_replacement(|| update_under_watch(&group, dir.path(), &|| {}));
    assert!(refused >= 100, "{refused}");
    assert_eq!(bpf::attached(&arena.dir("c")).len(), 1);
    group.delete(deadline()).unwrap();
    arena.assert_clean();
}

/// Red if a cgroup left behind keeps its old rules, or gets a second program.
#[test]
fn a_leftover_gets_the_new_rules_only() {
    let arena = Arena::unified();
    let dir = nodes();
    let first = arena.create("c", "{}");
    assert!(!opens(&first, dir.path(), "<none"));
    let second = arena.create("c", ONE);
    assert!(opens(&second, dir.path(), "<none"));
    assert_eq!(bpf::attached(&arena.dir("c")).len(), 1);
    let third = arena.create("c", r#"{"devices":[{"allow":true}]}"#);
    assert!(opens(&third, dir.path(), "<log"));
    assert_eq!(bpf::attached(&arena.dir("c")), [0; 0]);
    third.delete(deadline()).unwrap();
    arena.assert_clean();
}

/// Red if what v1 cannot express is refused although the host has v2, or is
/// widened in silence; also on the way back to rules that v1 can express.
#[test]
fn v2_helps_where_v1_cannot_express_the_rules() {
    let hard = r#"{"devices":[{"allow":true,"type":"c","major":240,"access":"rw"},
                              {"allow":false,"type":"c","major":240,"minor":7,"access":"w"}]}"#;
    on_each(|arena| {
        let dir = nodes();
        let group = arena.create("c", hard);
        let opens = |how| opens(&group, dir.path(), how);
        let check = |writable: bool| {
            assert!(opens("<none") && opens("<>null") && !opens("<log"));
            assert_eq!(opens(">none"), writable);
        };
        check(false);
        group.update(&parse(ONE)).unwrap();
        check(true);
        group.update(&parse(hard)).unwrap();
        check(false);
        group.delete(deadline()).unwrap();
        arena.assert_clean();
    });
}

/// Red if a list that passes the checks is more than the verifier takes.
#[test]
fn the_longest_list_loads() {
    let arena = Arena::unified();
    let dir = nodes();
    let rule = |n: u32| {
        let (allow, major) = (n.is_multiple_of(2), 241 + n % 7);
        format!(r#"{{"allow":{allow},"type":"c","major":{major},"minor":{n},"access":"r"}}"#)
    };
    let own = r#"{"allow":true,"type":"c","major":240,"access":"w"}"#.to_owned();
    let rules: Vec<_> = std::iter::once(own).chain((0..2036).map(rule)).collect();
    let group = arena.create("c", &format!(r#"{{"devices":[{}]}}"#, rules.join(",")));
    assert!(opens(&group, dir.path(), ">none") && !opens(&group, dir.path(), "<none"));
    group.delete(deadline()).unwrap();
    let rules: Vec<_> = (0..2100).map(rule).collect();
    let json = format!(r#"{{"devices":[{}]}}"#, rules.join(","));
    let error = arena.try_create("c", &json).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    assert!(error.to_string().starts_with("linux.resources.devices: "), "{error}");
    arena.assert_clean();
}
