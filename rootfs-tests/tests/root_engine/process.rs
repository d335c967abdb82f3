//! What a process starts with: environment, directory, mask, limits, signals, descriptors, keyring.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

use boathook_runtime::ErrorKind;
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use rootfs_tests::image::USER;
use serde_json::{Value, json};

use super::support::live::status;
use super::support::sys::Ignored;
use super::support::{Arena, Case, LIMIT, Live, census, payload, tests};

tests!(
    the_environment_is_the_configs,
    of_a_variable_set_twice_the_last_counts,
    home_comes_from_the_containers_passwd,
    an_empty_home_is_as_good_as_none,
    home_is_read_with_bounds,
    path_decides_where_programs_are_looked_for,
    the_working_directory,
    a_working_directory_of_the_user_alone,
    the_umask,
    no_new_privileges,
    limits_are_set_exactly,
    limits_cannot_be_raised_without_the_right_to,
    a_low_limit_of_open_files,
    signals_are_as_after_boot,
    exactly_three_descriptors,
    a_session_of_its_own,
    a_session_keyring_of_its_own,
    the_oom_score,
    the_oom_score_cannot_be_lowered_without_the_right_to,
    affinity_is_not_inherited,
);

fn environment(pid: i32) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{pid}/environ")).unwrap();
    let text = String::from_utf8_lossy(&bytes);
    text.split_terminator('\0').map(str::to_owned).collect()
}

/// Red if a variable of the engine reaches the container (CVE-2021-21334), one is lost, or their
/// order changes.
fn the_environment_is_the_configs(arena: &Arena) {
    let mut case = arena.sleeper();
    let env = ["B=2", "A=1", "EMPTY=", "HOME=/x", "SPACE=a b=c", "PATH=/bin"];
    case.config["process"]["env"] = json!(env);
    let live = case.start();
    assert_eq!(environment(live.process.pid()), env);
    live.delete();
}

/// Red if both are passed on: programs differ in which one they take.
fn of_a_variable_set_twice_the_last_counts(arena: &Arena) {
    let mut case = arena.sleeper();
    case.config["process"]["env"] = json!(["A=1", "HOME=/a", "A=2", "B=3", "A=4", "HOME=/b"]);
    let live = case.start();
    assert_eq!(environment(live.process.pid()), ["B=3", "A=4", "HOME=/b"]);
    live.delete();
}

/// Red if HOME is missing, or is looked up in the host's passwd.
fn home_comes_from_the_containers_passwd(arena: &Arena) {
    for (uid, home) in [(0, "HOME=/root"), (USER, "HOME=/home/boat"), (4242, "HOME=/")] {
        let mut case = arena.sleeper();
        case.user(uid, uid, &[]);
        let live = case.start();
        assert_eq!(environment(live.process.pid()).last().unwrap(), home, "{uid}");
        live.delete();
    }
    // Without a passwd, and with one that leads nowhere.
    let case = arena.sleeper();
    fs::remove_file(case.file("/etc/passwd")).unwrap();
    let live = case.start();
    assert_eq!(environment(live.process.pid()).last().unwrap(), "HOME=/");
    live.delete();
}

/// Red if two entries of HOME are passed on, of which programs would take the empty one.
fn an_empty_home_is_as_good_as_none(arena: &Arena) {
    let mut case = arena.sleeper();
    case.config["process"]["env"] = json!(["HOME=", "PATH=/bin"]);
    let live = case.start();
    assert_eq!(environment(live.process.pid()), ["PATH=/bin", "HOME=/root"]);
    live.delete();
}

/// CVE-2022-23648: red if an image makes init read for ever, open a device, or take a line that is
/// no line. Seen red without the limit in `passwd`: the create did not end.
fn home_is_read_with_bounds(arena: &Arena) {
    let case = arena.sleeper();
    let passwd = case.file("/etc/passwd");
    let file = fs::File::create(&passwd).unwrap();
    file.set_len(1 << 36).unwrap();
    let live = case.start();
    assert_eq!(environment(live.process.pid()).last().unwrap(), "HOME=/");
    live.delete();
    drop(file);

    fs::remove_file(&passwd).unwrap();
    nix::unistd::mkfifo(&passwd, nix::sys::stat::Mode::from_bits_truncate(0o644)).unwrap();
    let live = case.create().unwrap_or_else(|error| panic!("a fifo nobody writes to: {error}"));
    live.start();
    assert_eq!(environment(live.process.pid()).last().unwrap(), "HOME=/");
    live.delete();
}

/// Red if the search is not execvp(3)'s: the config's PATH in order, files that are no programs
/// passed over, the working directory for an empty entry.
fn path_decides_where_programs_are_looked_for(arena: &Arena) {
    let program = |path: &str, says: &str, mode: u32, case: &Case<'_>| {
        fs::create_dir_all(case.file(path).parent().unwrap()).unwrap();
        fs::write(case.file(path), format!("#!/bin/sh\necho {says}\n")).unwrap();
        fs::set_permissions(case.file(path), fs::Permissions::from_mode(mode)).unwrap();
    };
    let run = |path: Option<&str>, cwd: &str| {
        let mut case = arena.case(&["prog"]);
        program("/a/prog", "a", 0o644, &case);
        fs::create_dir_all(case.file("/b/prog")).unwrap();
        program("/c/prog", "c", 0o755, &case);
        program("/d/prog", "d", 0o755, &case);
        program("/usr/bin/prog", "default", 0o755, &case);
        let env: Vec<String> = path.map(|path| format!("PATH={path}")).into_iter().collect();
        case.config["process"]["env"] = json!(env);
        case.config["process"]["cwd"] = json!(cwd);
        case.run().text().to_owned()
    };
    assert_eq!(run(Some("/a:/b:/none:/c:/d"), "/"), "c");
    assert_eq!(run(Some(":/c"), "/d"), "d");
    assert_eq!(run(Some("/c/"), "/"), "c");
    assert_eq!(run(None, "/"), "default");
}

/// Red if the program starts elsewhere, or a directory is made with rights of its own.
fn the_working_directory(arena: &Arena) {
    for (cwd, want) in [
        ("/", "/"),
        ("/home/boat", "/home/boat"),
        ("/new/deep", "/new/deep"),
        ("/etc/../tmp", "/tmp"),
    ] {
        let mut case = arena.case(&["pwd"]);
        case.config["process"]["cwd"] = json!(cwd);
        assert_eq!(case.run().text(), want, "{cwd}");
        if cwd == "/new/deep" {
            let made = fs::metadata(case.file(cwd)).unwrap();
            assert_eq!((made.mode() & 0o7777, made.uid()), (0o755, 0));
        }
    }
    let mut case = arena.case(&["pwd"]);
    case.config["process"]["cwd"] = json!("/etc/passwd");
    let error = case.refused();
    assert!(error.to_string().contains("/etc/passwd"), "{error}");
}

/// Red if the directory is entered with the wrong identity: root without CAP_DAC_OVERRIDE cannot
/// enter a user's 0700 directory, the user can; and root's own is entered before the change.
fn a_working_directory_of_the_user_alone(arena: &Arena) {
    for owner in [USER, 0] {
        let mut case = arena.case(&["sh", "-c", "pwd; id -u"]);
        let dir = case.file("/private");
        fs::create_dir(&dir).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
        chown(&dir, Some(owner), Some(owner)).unwrap();
        case.user(USER, USER, &[]);
        case.config["process"]["cwd"] = json!("/private");
        assert_eq!(case.run().text(), format!("/private\n{USER}"), "owner {owner}");
    }
}

/// Red if the engine's own mask is passed on, or the config's is not set.
fn the_umask(arena: &Arena) {
    for (mask, want) in [(None, "0022"), (Some(0o027), "0027"), (Some(0), "0000")] {
        let mut case = arena.sleeper();
        if let Some(mask) = mask {
            case.config["process"]["user"]["umask"] = json!(mask);
        }
        let live = case.start();
        assert_eq!(status(live.process.pid(), "Umask"), want);
        live.delete();
    }
}

/// Red if the bit is lost, or set for those who did not ask.
fn no_new_privileges(arena: &Arena) {
    for wanted in [true, false] {
        let mut case = arena.sleeper();
        case.config["process"]["noNewPrivileges"] = json!(wanted);
        let live = case.start();
        assert_eq!(status(live.process.pid(), "NoNewPrivs"), u8::from(wanted).to_string());
        live.delete();
    }
}

/// The soft and hard limit of a line of `/proc/PID/limits`.
fn limit(live: &Live, name: &str) -> (String, String) {
    let text = live.proc("limits");
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    let mut words = line.split_whitespace().map(str::to_owned);
    (words.next().unwrap(), words.next().unwrap())
}

fn rlimits(limits: &[(&str, u64, u64)]) -> Value {
    limits
        .iter()
        .map(|(kind, soft, hard)| json!({ "type": kind, "soft": soft, "hard": hard }))
        .collect()
}

/// Red if a limit lands on another resource, or those not listed are not the engine's.
fn limits_are_set_exactly(arena: &Arena) {
    let mut case = arena.sleeper();
    case.config["process"]["rlimits"] = rlimits(&[
        ("RLIMIT_NOFILE", 100, 200),
        ("RLIMIT_CORE", 0, 0),
        ("RLIMIT_NPROC", 77, 78),
        ("RLIMIT_FSIZE", 4096, 8192),
        ("RLIMIT_CPU", 50, 60),
        ("RLIMIT_STACK", 1 << 20, 1 << 21),
        ("RLIMIT_AS", 1 << 30, 1 << 31),
        ("RLIMIT_MSGQUEUE", 0, 1),
        ("RLIMIT_RTTIME", 5, 6),
    ]);
    let live = case.start();
    for (name, soft, hard) in [
        ("Max open files", "100", "200"),
        ("Max core file size", "0", "0"),
        ("Max processes", "77", "78"),
        ("Max file size", "4096", "8192"),
        ("Max cpu time", "50", "60"),
        ("Max stack size", "1048576", "2097152"),
        ("Max address space", "1073741824", "2147483648"),
        ("Max msgqueue size", "0", "1"),
        ("Max realtime timeout", "5", "6"),
    ] {
        assert_eq!(limit(&live, name), (soft.to_owned(), hard.to_owned()), "{name}");
    }
    let own = fs::read_to_string("/proc/self/limits").unwrap();
    let line = |text: &str| {
        let line = text.lines().find(|line| line.starts_with("Max locked memory"));
        line.unwrap().to_owned()
    };
    assert_eq!(line(&live.proc("limits")), line(&own));
    live.delete();
}

/// Red if a limit that could not be set is passed over, or the message does not tell which. Here
/// the engine runs without CAP_SYS_RESOURCE; where it has it, the raise must work.
fn limits_cannot_be_raised_without_the_right_to(arena: &Arena) {
    let own = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let above = own.maximum.unwrap() + 1;
    let may = caps_of_this_process() & (1 << 24) != 0;
    let mut case = arena.sleeper();
    case.config["process"]["rlimits"] = rlimits(&[("RLIMIT_NOFILE", 10, above)]);
    if may {
        let live = case.start();
        assert_eq!(limit(&live, "Max open files").1, above.to_string());
        live.delete();
        return;
    }
    let error = case.refused();
    let text = error.to_string();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{text}");
    assert!(text.contains("error setting rlimit type 7"), "{text}");
    assert!(text.contains("operation not permitted"), "{text}");
    assert!(text.contains(&above.to_string()), "{text}");
}

fn caps_of_this_process() -> u64 {
    let text = status(std::process::id() as i32, "CapEff");
    u64::from_str_radix(&text, 16).unwrap()
}

/// Red if what init itself holds open counts against the program's limit.
fn a_low_limit_of_open_files(arena: &Arena) {
    let mut case = arena.sh("ulimit -n");
    for number in 0..30 {
        case.bind(arena.dir(), &format!("/volumes/{number}"), &["rbind"]);
    }
    case.config["process"]["rlimits"] = rlimits(&[("RLIMIT_NOFILE", 10, 10)]);
    assert_eq!(case.run().text(), "10");
}

/// Red if signals that the engine or the shim ignore or block stay so in the program: a blocked
/// SIGTERM in every container of a node is a long search.
fn signals_are_as_after_boot(arena: &Arena) {
    let mut blocked = SigSet::empty();
    blocked.add(Signal::SIGTERM);
    blocked.add(Signal::SIGUSR2);
    let old = blocked.thread_swap_mask(SigmaskHow::SIG_BLOCK).unwrap();
    let ignored = Ignored::new(Signal::SIGHUP);
    let live = arena.sleeper().start();
    // No shell: it changes some for itself.
    let exec = live.run(&["grep", "-E", "^Sig(Blk|Ign|Cgt)", "/proc/self/status"]);
    let exec = exec.text();
    for name in ["SigBlk", "SigIgn", "SigCgt"] {
        assert_eq!(status(live.process.pid(), name), "0000000000000000", "{name}");
        assert!(exec.contains(&format!("{name}:\t0000000000000000")), "{exec}");
    }
    live.delete();
    drop(ignored);
    old.thread_set_mask().unwrap();
}

/// Red if anything of the engine stays open in the container (CVE-2024-21626, CVE-2016-9962).
fn exactly_three_descriptors(arena: &Arena) {
    // One more without close-on-exec, as a careless program around the engine may have.
    let leak = fs::File::open("/etc/passwd").unwrap();
    rustix::io::fcntl_setfd(&leak, rustix::io::FdFlags::empty()).unwrap();
    let live = arena.sleeper().start();
    let exec = live.exec_json(&live.process_spec(&["sleep", "1000"])).unwrap();
    exec.0.start(LIMIT).unwrap();
    for pid in [live.process.pid(), exec.0.pid()] {
        let mut names = census::entries(format!("/proc/{pid}/fd").as_ref());
        names.sort();
        assert_eq!(names, ["0", "1", "2"], "{pid}");
    }
    drop(exec);
    live.delete();
}

/// Red if a process shares the session or group of the engine: a terminal's signals would spread.
fn a_session_of_its_own(arena: &Arena) {
    let live = arena.sleeper().start();
    let stat = live.proc("stat");
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let pid = live.process.pid().to_string();
    assert_eq!(fields[2..4], [pid.as_str(), pid.as_str()], "group and session");
    live.delete();
}

/// Red if a container, or an exec in it, can reach the keys of the engine's session.
fn a_session_keyring_of_its_own(arena: &Arena) {
    let mut case = arena.sleeper();
    case.with_payload();
    let live = case.start();
    let name = format!("_ses.{}", case.id);
    let exec = live.run(&payload::args("keyring", &[]));
    assert!(exec.text().ends_with(&name), "an exec is in {:?}", exec.text());
    live.delete();

    let mut case = arena.case(&payload::args("keyring", &[]));
    case.with_payload();
    let name = format!("_ses.{}", case.id);
    assert!(case.run().text().ends_with(&name));
    case.options.no_new_keyring = true;
    let outcome = case.run();
    assert!(!outcome.text().contains("_ses.bhe"), "{outcome:?}");
}

/// Red if the score is not written before the program runs.
fn the_oom_score(arena: &Arena) {
    let mut case = arena.sh("cat /proc/self/oom_score_adj");
    case.config["process"]["oomScoreAdj"] = json!(987);
    assert_eq!(case.run().text(), "987");
    for wrong in [1001, -1001] {
        case.config["process"]["oomScoreAdj"] = json!(wrong);
        let error = case.refused();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        assert!(error.to_string().starts_with("process.oomScoreAdj: "), "{error}");
        assert!(error.to_string().contains(&wrong.to_string()), "{error}");
    }
}

/// Red if a score that was refused is passed over, or the message hides the field.
fn the_oom_score_cannot_be_lowered_without_the_right_to(arena: &Arena) {
    let mut case = arena.sh("cat /proc/self/oom_score_adj");
    case.config["process"]["oomScoreAdj"] = json!(-999);
    if caps_of_this_process() & (1 << 24) != 0 {
        assert_eq!(case.run().text(), "-999");
        return;
    }
    let error = case.refused();
    let text = error.to_string();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{text}");
    assert!(text.starts_with("process.oomScoreAdj") && text.contains("-999"), "{text}");
}

/// Red if a container is bound to the CPUs of the thread that made it.
fn affinity_is_not_inherited(arena: &Arena) {
    let all = rustix::thread::sched_getaffinity(None).unwrap();
    let mut one = rustix::thread::CpuSet::new();
    one.set(0);
    rustix::thread::sched_setaffinity(None, &one).unwrap();
    let live = arena.sleeper().start();
    let exec = live.sh("grep Cpus_allowed_list /proc/self/status");
    rustix::thread::sched_setaffinity(None, &all).unwrap();
    let own = status(std::process::id() as i32, "Cpus_allowed_list");
    assert_eq!(status(live.process.pid(), "Cpus_allowed_list"), own);
    assert_eq!(exec, format!("Cpus_allowed_list:\t{own}"));
    live.delete();
}
