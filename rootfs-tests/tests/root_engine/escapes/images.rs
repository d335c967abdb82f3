//! Images and configs that want to lead the engine astray.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use boathook_runtime::{ErrorKind, Stdio};
use rootfs_tests::image::USER;
use serde_json::json;

use crate::support::live::status;
use crate::support::{Arena, Case, Live, census, mountinfo, tests};

tests!(
    proc_and_sys_are_links,
    the_way_to_proc_is_a_link,
    dev_is_a_link_to_the_host,
    console_is_a_link_to_the_host,
    null_is_a_link_and_paths_are_masked,
    null_is_a_file_of_the_host,
    the_terminals_directory_is_a_trap,
    working_directories_of_leaked_descriptors,
    sysctls_that_smuggle,
    sysctls_behind_other_mounts,
    passwd_is_a_link_to_the_host,
    environment_of_another_container,
    files_and_directories_are_closed_to_others,
);

/// A directory of the host that must stay as it is: one file in it, and nothing else ever.
struct Target(PathBuf);

impl Target {
    fn new(arena: &Arena) -> Self {
        let dir = arena.make_dir("target");
        fs::write(dir.join("file"), "precious").unwrap();
        Self(dir)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }

    #[track_caller]
    fn assert_untouched(&self) {
        assert_eq!(census::entries(&self.0), ["file"]);
        assert_eq!(fs::read_to_string(self.0.join("file")).unwrap(), "precious");
        let found = fs::metadata(self.0.join("file")).unwrap();
        assert_eq!((found.uid(), found.gid(), found.mode() & 0o7777), (0, 0, 0o644));
    }
}

/// Replaces a path of the image by a link.
fn link(case: &Case<'_>, path: &str, target: &str) {
    let place = case.file(path);
    let _ = fs::remove_dir_all(&place);
    let _ = fs::remove_file(&place);
    fs::create_dir_all(place.parent().unwrap()).unwrap();
    symlink(target, place).unwrap();
}

fn without_dev(case: &mut Case<'_>) {
    let mounts = case.config["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
}

/// CVE-2019-16884, CVE-2025-54867: kernel file systems go to real directories only (`strict` of
/// `Step::Attach`). Seen red with `strict` always 0: the containers were created.
fn proc_and_sys_are_links(arena: &Arena) {
    for place in ["/proc", "/sys"] {
        for target in ["/x", "x", "/tmp/../x", "../../x"] {
            let case = arena.sleeper();
            fs::create_dir(case.file("/x")).unwrap();
            link(&case, place, target);
            let error = case.refused();
            let text = error.to_string();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{text}");
            assert!(text.contains(&format!("mount at {place:?}")), "{text}");
            assert!(text.contains("symbolic link"), "{text}");
        }
    }
}

/// As above, with the link in the middle of the way.
fn the_way_to_proc_is_a_link(arena: &Arena) {
    let mut case = arena.sleeper();
    fs::create_dir_all(case.file("/x/proc")).unwrap();
    link(&case, "/way", "/x");
    case.mount("/way/proc", "proc", "proc", &[]);
    let error = case.refused();
    assert!(error.to_string().contains("symbolic link"), "{error}");
}

/// CVE-2026-41579, CVE-2026-47766: nodes, links and files of /dev are made through descriptors
/// below the root. Seen red with `paths::rules` returning 0. (That mutant works on the real root of
/// the machine; try it in a mount namespace on an overlay of that.)
fn dev_is_a_link_to_the_host(arena: &Arena) {
    let target = Target::new(arena);
    // Where the target's path exists in the image too, the link is good, and leads there.
    for in_image in [true, false] {
        for default_mounts in [true, false] {
            let mut case = arena.sleeper();
            case.config["linux"]["devices"] =
                json!([{ "path": "/dev/evil/x", "type": "c", "major": 1, "minor": 3 }]);
            link(&case, "/dev", target.path());
            if in_image {
                fs::create_dir_all(case.file(target.path())).unwrap();
            }
            if !default_mounts {
                without_dev(&mut case);
            }
            match case.create() {
                Ok(live) => {
                    assert!(in_image, "a dangling link was followed");
                    assert!(live.inside(target.path()).join("null").exists());
                    live.delete();
                }
                Err(error) => assert!(!in_image, "{error}"),
            }
            target.assert_untouched();
        }
    }
}

/// CVE-2026-88264: as above for the file that the terminal is mounted on.
fn console_is_a_link_to_the_host(arena: &Arena) {
    let target = Target::new(arena);
    for leads_to in [format!("{}/file", target.path()), format!("{}/new", target.path())] {
        let mut case = arena.sleeper();
        let mounts = case.config["mounts"].as_array_mut().unwrap();
        mounts.retain(|mount| mount["destination"] != "/dev");
        case.config["process"]["terminal"] = json!(true);
        link(&case, "/dev/console", &leads_to);
        let error = case.create_with(Stdio::Terminal).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        assert!(error.to_string().contains("terminal"), "{error}");
        target.assert_untouched();
    }
}

/// CVE-2025-31133, CVE-2025-62161: masks are copies of the host's own null device. Seen red with
/// the tree of `HostFd::NullDevice` opened below the root and without the check in
/// `attach::null_device`: the mask was the target.
fn null_is_a_link_and_paths_are_masked(arena: &Arena) {
    let target = Target::new(arena);
    // With the default /dev the link is covered; without, the node cannot be made; with a /dev of
    // the host's, nothing is made, and the link stays.
    let bound = arena.make_dir("dev");
    symlink("/etc/shadowed", bound.join("null")).unwrap();
    for variant in 0..3 {
        let mut case = arena.sleeper();
        fs::write(case.file("/etc/shadowed"), "readable").unwrap();
        link(&case, "/dev/null", &format!("{}/file", target.path()));
        case.config["linux"]["maskedPaths"] = json!(["/etc/passwd", "/proc/interrupts"]);
        if variant > 0 {
            without_dev(&mut case);
        }
        if variant == 2 {
            case.bind(&bound, "/dev", &["rbind"]);
        }
        match case.create() {
            Ok(live) => {
                assert_ne!(variant, 1);
                for path in ["/etc/passwd", "/proc/interrupts"] {
                    let found = fs::metadata(live.inside(path)).unwrap();
                    let null = fs::metadata("/dev/null").unwrap();
                    assert_eq!(found.rdev(), null.rdev(), "variant {variant}: {path}");
                }
                live.delete();
            }
            Err(error) => {
                assert_eq!(variant, 1, "{error}");
                assert!(error.to_string().contains("another file is there"), "{error}");
            }
        }
        target.assert_untouched();
    }
}

/// CVE-2026-88265: streams are never opened again by the container's names, and only pipes and
/// terminals change their owner. Red if a stream that nobody gave is the container's /dev/null.
fn null_is_a_file_of_the_host(arena: &Arena) {
    let target = Target::new(arena);
    let mut case = arena.sleeper();
    case.user(USER, USER, &[]);
    case.bind(&target.0.join("file"), "/dev/null", &["bind"]);
    let none = Stdio::Fds { stdin: None, stdout: None, stderr: None };
    let live = case.create_with(none).unwrap();
    live.start();
    let found = fs::metadata(format!("/proc/{}/fd/1", live.process.pid())).unwrap();
    assert_eq!(found.rdev(), fs::metadata("/dev/null").unwrap().rdev());
    live.delete();
    target.assert_untouched();
}

/// CVE-2025-52565: the terminal comes from a real devpts and is mounted by descriptor. Three layers
/// hold here (no links, the check in `console::open`, the kernel's own rule for ptmx nodes): it stays
/// green without the check alone, and was seen red with all three gone (nothing asked of what was
/// opened, and the file itself as the terminal): the container was created.
fn the_terminals_directory_is_a_trap(arena: &Arena) {
    let target = Target::new(arena);
    let trap = arena.make_dir("pts");
    let set_up: [&dyn Fn(&Path); 3] = [
        &|place| symlink(target.0.join("file"), place).unwrap(),
        &|place| fs::write(place, "").unwrap(),
        &|place| {
            use nix::sys::stat::{Mode, SFlag, makedev, mknod};
            mknod(place, SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(5, 2)).unwrap();
        },
    ];
    for make in set_up {
        make(&trap.join("ptmx"));
        let mut case = arena.sleeper();
        case.without_mount("/dev/pts");
        case.bind(&trap, "/dev/pts", &["rbind", "dev"]);
        case.config["process"]["terminal"] = json!(true);
        let error = case.create_with(Stdio::Terminal).unwrap_err();
        assert!(error.to_string().contains("terminal"), "{error}");
        fs::remove_file(trap.join("ptmx")).unwrap();
        target.assert_untouched();
    }
}

/// CVE-2024-21626: nothing of the host is open when the directory is entered, and a directory
/// outside of the root is found out. Seen red with `close_all_but` and the rules of
/// `change_directory` taken away, and sooner still without `inside_root` too.
fn working_directories_of_leaked_descriptors(arena: &Arena) {
    // What a careless program around the engine leaves open, at many numbers.
    let leaks: Vec<fs::File> = (0..40).map(|_| fs::File::open("/").unwrap()).collect();
    for leak in &leaks {
        rustix::io::fcntl_setfd(leak, rustix::io::FdFlags::empty()).unwrap();
    }
    let live = arena.sleeper().start();
    for number in 3..=64 {
        for cwd in [format!("/proc/self/fd/{number}"), format!("/proc/thread-self/fd/{number}/..")]
        {
            let mut case = arena.sleeper();
            case.config["process"]["cwd"] = json!(cwd);
            check_cwd(case.create().map(drop), &cwd);
            let mut process = live.process_spec(&["ls", "-id", "."]);
            process["cwd"] = json!(cwd);
            check_cwd(live.exec_json(&process).map(drop), &cwd);
        }
    }
    live.delete();
}

#[track_caller]
fn check_cwd(result: boathook_runtime::Result<()>, cwd: &str) {
    let error = result.expect_err(cwd);
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{cwd}: {error}");
}

/// CVE-2022-0811: one key, one file, one value. Red if a key is not checked by its parts, or a value
/// is split. Seen red with wrong keys left out of the plan in silence. (Not tried with them written:
/// it would be to the host's kernel.)
fn sysctls_that_smuggle(arena: &Arena) {
    let host = || {
        ["kernel/core_pattern", "kernel/shm_rmid_forced", "vm/swappiness"]
            .map(|path| fs::read_to_string(format!("/proc/sys/{path}")).unwrap())
    };
    let before = host();
    for (key, value) in [
        ("kernel.core_pattern", "x"),
        ("vm.swappiness", "1"),
        ("net/../kernel/core_pattern", "x"),
        ("net.ipv4.././../kernel/core_pattern", "x"),
        ("net.../kernel.core_pattern", "x"),
        ("kernel.shm_rmid_forced=1+kernel.core_pattern", "x"),
        ("kernel.shm_rmid_forced\nkernel.core_pattern", "x"),
        ("kernel.shm_rmid_forced", "1+kernel.core_pattern=x"),
        ("net//ipv4/ip_forward", "1"),
        ("/proc/sys/kernel/core_pattern", "x"),
        ("", "1"),
    ] {
        let mut case = arena.sleeper();
        case.config["linux"]["sysctl"] = json!({ (key): value });
        let error = case.refused();
        assert!(error.to_string().contains("sysctl"), "{key:?} = {value:?}: {error}");
        assert_eq!(host(), before, "{key:?} = {value:?}");
    }
    // The kernel takes the first number of a text of several lines, for this one file.
    let mut case = arena.sh("cat /proc/sys/kernel/shm_rmid_forced");
    let value = "1\nkernel.core_pattern=x";
    case.config["linux"]["sysctl"] = json!({ "kernel.shm_rmid_forced": value });
    assert_eq!(case.run().text(), "1");
    assert_eq!(host(), before);
}

/// CVE-2025-52881: writes into procfs go through a descriptor of the mount itself and cross no
/// other. Seen red without RESOLVE_NO_XDEV and the check of the file system in `files::write_proc`
/// together: the container was created.
fn sysctls_behind_other_mounts(arena: &Arena) {
    let target = Target::new(arena);
    let mut case = arena.sleeper();
    case.bind(&target.0, "/proc/sys/net/ipv4", &["bind"]);
    case.config["linux"]["sysctl"] = json!({ "net.ipv4.file": "evil" });
    let error = case.refused();
    assert!(error.to_string().contains("sys/net/ipv4/file"), "{error}");
    target.assert_untouched();

    let mut case = arena.sleeper();
    case.bind(&target.0.join("file"), "/proc/sys/net/ipv4/ip_forward", &["bind"]);
    case.config["linux"]["sysctl"] = json!({ "net.ipv4.ip_forward": "1" });
    case.refused();
    target.assert_untouched();
}

/// Red if the container's passwd is looked for on the host.
fn passwd_is_a_link_to_the_host(arena: &Arena) {
    let target = Target::new(arena);
    fs::write(target.0.join("file"), "root:x:0:0::/stolen:/bin/sh\n").unwrap();
    for place in [&format!("{}/file", target.path()), "/proc/self/root/etc/passwd"] {
        let case = arena.sh("echo $HOME");
        link(&case, "/etc/passwd", place);
        assert_eq!(case.run().text(), "/", "{place}");
    }
}

/// CVE-2021-21334: red if a variable passes from one container to the next, or from the engine.
/// Seen red with the engine's own put behind the config's in `plan::process`.
fn environment_of_another_container(arena: &Arena) {
    let mut first = arena.sleeper();
    first.config["process"]["env"] = json!(["SECRET=1", "HOME=/"]);
    let first = first.start();
    let mut second = arena.sleeper();
    second.config["process"]["env"] = json!(["OTHER=2", "HOME=/"]);
    let second = second.create().unwrap();
    let read = |live: &Live| fs::read(format!("/proc/{}/environ", live.process.pid())).unwrap();
    assert_eq!(read(&second), b"", "while it waits");
    second.start();
    assert_eq!(read(&second), b"OTHER=2\0HOME=/\0");
    assert_eq!(read(&first), b"SECRET=1\0HOME=/\0");
    second.delete();
    first.delete();
}

/// CVE-2024-25621, CVE-2021-41103: red if others on the host can look into the records; and the
/// root mount must not be reachable for other containers by propagation. Seen red with 0755 for the
/// directories, and with 0644 for the record.
fn files_and_directories_are_closed_to_others(arena: &Arena) {
    let live = arena.sleeper().start();
    let dir = arena.state().join(live.container.id());
    for dir in [arena.state(), dir.clone()] {
        assert_eq!(fs::metadata(&dir).unwrap().mode() & 0o7777, 0o700, "{}", dir.display());
    }
    let record = fs::metadata(dir.join("state.json")).unwrap();
    assert_eq!(record.mode() & 0o7777, 0o600, "state.json");
    let table = mountinfo::parse(&live.proc("mountinfo"));
    assert!(table.iter().all(|entry| !entry.is("shared")), "{table:#?}");
    assert!(status(live.process.pid(), "Seccomp").starts_with('0'));
    live.delete();
}
