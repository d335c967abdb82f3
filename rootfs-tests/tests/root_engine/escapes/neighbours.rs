//! A container that runs already and watches what the engine puts beside it.

use std::fs;
use std::os::fd::AsRawFd;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};

use crate::support::spy::secret;
use crate::support::{Arena, Case, LIMIT, Live, payload, tests};

tests!(
    the_program_that_waits_is_sealed,
    an_entrypoint_of_proc_self_exe,
    a_waiting_exec_cannot_be_looked_into,
    execs_are_never_seen_before_their_program,
    a_tracer_never_sees_the_engine_behind_an_exec,
    a_tracer_never_sees_the_engine_behind_another_container,
);

/// CVE-2019-5736: what /proc/1/exe leads to can be changed by nobody. Seen red without F_SEAL_WRITE
/// in `image::sealed`.
fn the_program_that_waits_is_sealed(arena: &Arena) {
    let live = arena.sleeper().create().unwrap();
    let exe = format!("/proc/{}/exe", live.process.pid());
    let before = fs::read(&exe).unwrap();
    assert!(fs::OpenOptions::new().write(true).open(&exe).is_err());
    let held = fs::File::open(&exe).unwrap();
    let seals = SealFlag::from_bits_retain(fcntl(&held, FcntlArg::F_GET_SEALS).unwrap());
    let all = SealFlag::F_SEAL_SEAL
        | SealFlag::F_SEAL_WRITE
        | SealFlag::F_SEAL_SHRINK
        | SealFlag::F_SEAL_GROW;
    assert!(seals.contains(all), "{seals:?}");
    live.delete();
    // Nobody executes it now, so a write is no longer refused for being busy.
    let again = format!("/proc/self/fd/{}", held.as_raw_fd());
    if let Ok(mut file) = fs::OpenOptions::new().write(true).open(&again) {
        use std::io::Write;
        assert!(file.write_all(b"evil").is_err());
        assert!(file.set_len(0).is_err());
    }
    let live = arena.sleeper().create().unwrap();
    assert_eq!(fs::read(format!("/proc/{}/exe", live.process.pid())).unwrap(), before);
    live.delete();
}

/// CVE-2019-5736, the classic: a script whose interpreter is whoever executes it. Red if that ends
/// anywhere but in a failed program.
fn an_entrypoint_of_proc_self_exe(arena: &Arena) {
    use std::os::unix::fs::PermissionsExt;
    let case = arena.case(&["/evil"]);
    fs::write(case.file("/evil"), "#!/proc/self/exe\n").unwrap();
    fs::set_permissions(case.file("/evil"), fs::Permissions::from_mode(0o755)).unwrap();
    let live = case.create().unwrap();
    let started = live.process.start(LIMIT);
    let code = live.wait();
    assert_ne!(code, 0, "{started:?}");
    live.delete();

    let live = arena.sleeper().start();
    fs::write(live.inside("/evil"), "#!/proc/self/exe\n").unwrap();
    fs::set_permissions(live.inside("/evil"), fs::Permissions::from_mode(0o755)).unwrap();
    let (process, _streams) = live.exec_json(&live.process_spec(&["/evil"])).unwrap();
    let started = process.start(LIMIT);
    assert_ne!(crate::support::live::wait_for(&process), 0, "{started:?}");
    drop(process);
    live.delete();
}

/// CVE-2016-9962: an exec has the container's own identity and capabilities while it waits for its
/// start, so that it is protected by nothing but being non-dumpable. Seen red with PR_SET_DUMPABLE
/// of 1 in init: all eight tries succeeded.
fn a_waiting_exec_cannot_be_looked_into(arena: &Arena) {
    let mut case = arena.sleeper();
    case.with_payload();
    let live = case.start();
    let (process, _streams) = live.exec_json(&live.process_spec(&["true"])).unwrap();
    let status = crate::support::live::status(process.pid(), "NSpid");
    let inner = status.rsplit(' ').next().unwrap();
    let outcome = live.run(&payload::args("peek", &[inner]));
    let lines: Vec<&str> = outcome.text().lines().collect();
    assert_eq!(lines.len(), 8, "{lines:?}");
    for line in &lines {
        assert!(line.ends_with("EACCES") || line.ends_with("EPERM"), "{lines:?}");
    }
    // The same look at an ordinary process of the container is allowed: the test can see.
    let outcome = live.run(&payload::args("peek", &["1"]));
    assert_eq!(
        outcome.text().lines().filter(|line| line.ends_with("ok")).count(),
        8,
        "{outcome:?}"
    );
    drop(process);
    live.delete();
}

/// Lets a spy look at everything new in its pid namespace while execs come and go; returns what it
/// saw, one line for each kind of thing.
fn spy(live: &mut Live, execs: usize) -> Vec<String> {
    spy_on(live, execs, |live| {
        let outcome = live.run(&["/bin/true"]);
        assert_eq!(outcome.code, 0, "{outcome:?}");
    })
}

/// The same while `work` is done so many times.
fn spy_on(live: &mut Live, times: usize, work: impl Fn(&Live)) -> Vec<String> {
    assert_eq!(live.line(), "watching");
    for _ in 0..times {
        work(live);
    }
    fs::write(live.inside("/stop"), "").unwrap();
    let mut seen = Vec::new();
    loop {
        let line = live.line();
        if line == "done" {
            return seen;
        }
        seen.push(line);
    }
}

/// The same while it races: red if the engine's program, or init, shows its memory or its file for
/// a moment.
fn execs_are_never_seen_before_their_program(arena: &Arena) {
    let mut case = arena.case(&payload::args("spy", &[]));
    case.with_payload();
    let mut live = case.start();
    let seen = spy(&mut live, 150);
    assert!(seen.iter().any(|line| line.contains("busybox")), "the spy saw no exec: {seen:?}");
    let bad = seen.iter().filter(|line| !line.contains("busybox"));
    assert_eq!(bad.collect::<Vec<_>>(), [""; 0]);
    live.delete();
}

/// A container that may look into every process it sees, and watches.
fn tracer<'a>(arena: &'a Arena) -> Case<'a> {
    let mut case = arena.case(&payload::args("spy", &[]));
    case.with_payload();
    case.capabilities(&["CAP_SYS_PTRACE", "CAP_KILL"]);
    case
}

/// What a tracer saw must be the program of the container or init with no more than that has: no
/// other program, no memory, no file and no right of the host's.
#[track_caller]
fn assert_nothing_of_the_host(seen: &[String], rights: &str) {
    assert!(seen.iter().any(|line| line.starts_with("exe ")), "the spy saw nobody: {seen:?}");
    let fine = |line: &str| match line.split_once([' ', ':']) {
        Some(("exe" | "maps", name)) => {
            name.contains("busybox") || name.starts_with("/memfd:boathook-")
        }
        // The last is the file by which it joins the container's own cgroup that counts processes.
        Some(("fd", name)) => matches!(name, "/" | "/dev/null") || name.ends_with("/tasks"),
        Some(("CapEff", set)) => set.trim() == rights,
        _ => false,
    };
    let bad = seen.iter().filter(|line| !fine(line));
    assert_eq!(bad.collect::<Vec<_>>(), [""; 0]);
}

/// CVE-2016-9962 with CAP_SYS_PTRACE, against which being non-dumpable does not help: nobody is in
/// the container's pid namespace who has the engine's memory, a descriptor of the host or a right
/// that the exec does not get. Seen red with a vfork child of the engine born there.
fn a_tracer_never_sees_the_engine_behind_an_exec(arena: &Arena) {
    let secret = std::hint::black_box(secret());
    let mut live = tracer(arena).start();
    // CAP_KILL and CAP_SYS_PTRACE.
    assert_nothing_of_the_host(&spy(&mut live, 300), "0000000000080020");
    live.delete();
    drop(secret);
}

/// The same while another container is made that shares the pid namespace.
fn a_tracer_never_sees_the_engine_behind_another_container(arena: &Arena) {
    let secret = std::hint::black_box(secret());
    let mut live = tracer(arena).start();
    let pids = format!("/proc/{}/ns/pid", live.process.pid());
    let seen = spy_on(&mut live, 40, |_| {
        let mut case = arena.case(&["/bin/true"]);
        case.namespace("pid", Some(&pids));
        case.capabilities(&["CAP_KILL"]);
        assert_eq!(case.run().code, 0);
    });
    assert_nothing_of_the_host(&seen, "0000000000000020");
    live.delete();
    drop(secret);
}
