//! The engine on kernels that lack what this one has, by a filter in front of the system calls.
//!
//! Where a newer facility is only the better way, the engine is to do the same without it. Where
//! there is no other way, the error is to say so and nothing to be left.

use std::process::Command;

use super::support::{Arena, Case, census, payload, tests};

tests!(each_call_that_nothing_replaces);

/// Without what every supported kernel has there is nothing to fall back to: an outer container's
/// filter can take it away all the same. Red if that is anything but an error that says which call
/// is missing, of the class for it, and if something is left.
fn each_call_that_nothing_replaces(arena: &Arena) {
    let case = arena.sleeper();
    case.save();
    for (call, name) in [
        (libc::SYS_openat2, "openat2"),
        (libc::SYS_clone3, "clone"),
        (libc::SYS_fsopen, "fsopen"),
        (libc::SYS_fsconfig, "fsconfig"),
        (libc::SYS_fsmount, "fsmount"),
        (libc::SYS_open_tree, "open_tree"),
        (libc::SYS_move_mount, "move_mount"),
        (libc::SYS_memfd_create, "memfd_create"),
        (libc::SYS_faccessat2, "faccessat2"),
        (libc::SYS_pivot_root, "pivot_root"),
    ] {
        let answer = without(&case, call);
        assert!(answer.starts_with("error Unsupported "), "{name}: {answer}");
        assert!(answer.contains(name), "{name}: {answer}");
        assert_eq!(census::cgroups(&case.id), [""; 0], "{name}");
        assert!(!arena.state().exists(), "{name}");
    }
    let answer = without(&case, libc::SYS_close_range);
    assert_eq!(answer, "ok", "there is another way to close descriptors");
}

/// What a create without this system call answers.
fn without(case: &Case<'_>, call: i64) -> String {
    let state = case.arena.state();
    let [bundle, state] = [case.bundle(), &state].map(|path| path.to_str().unwrap());
    let output = Command::new(std::env::current_exe().unwrap())
        .args(payload::args("without", &[&call.to_string(), bundle, state]).iter().skip(1))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().lines().last().unwrap_or_default().to_owned()
}
