//! `start`: dialects, groups, errors, and what it leaves behind.

use std::fs;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;

use containerd_shim_protos::bootstrap_api::{BootstrapResult, Extension};
use protobuf::Message;
use protobuf::well_known_types::any::Any;
use rustix::process::{Signal, kill_process};
use serde_json::json;

use crate::support::{Bundle, SOON, Server, eventually, run, wait_gone};
use crate::task::task;

#[test]
fn the_old_dialect_gets_a_line_and_an_address_file() {
    let bundle = Bundle::new(&["-v"]);
    let output = bundle.start_with(b"");
    assert!(output.status.success(), "{output:?}");
    assert!(output.stderr.is_empty());
    let address = String::from_utf8(output.stdout).unwrap();
    assert!(address.starts_with("unix:///run/containerd/s/"), "{address}");
    let file = fs::read_to_string(bundle.path().join("address")).unwrap();
    assert_eq!(file, address, "containerd 1.6 and 1.7 find a running shim by it");
    let path = address.strip_prefix("unix://").unwrap();
    assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    let pid = Server::connect(&address).pid();
    kill_process(pid, Signal::TERM).unwrap();
    wait_gone(pid);
    assert!(!fs::exists(path).unwrap(), "the socket outlived its server");
}

#[test]
fn the_new_dialect_gets_a_message() {
    let bundle = Bundle::new(&["-v"]);
    let result = bundle.start();
    assert_eq!((result.version, result.protocol.as_str()), (2, "ttrpc"));
    let dir = bundle.sockets();
    assert!(result.address.starts_with(&format!("unix://{}/", dir.display())));
    assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(fs::read_to_string(bundle.path().join("address")).unwrap(), result.address);
    assert_eq!(bundle.socket_names().len(), 1);
}

#[test]
fn containers_of_a_pod_share_a_server() {
    for key in ["io.kubernetes.cri.sandbox-id", "io.containerd.runc.v2.group"] {
        let (first, mut second) = (Bundle::new(&["-v"]), Bundle::new(&["-v"]));
        second.namespace = first.namespace.clone();
        for bundle in [&first, &second] {
            let mut config = bundle.config(&["-v"]);
            config["annotations"] = json!({ key: "pod" });
            bundle.write_config(&config);
        }
        let one = first.start();
        let mut params = second.params();
        params.socket_dir = Some(first.sockets().to_str().unwrap().to_owned());
        let output = second.start_with(&params.write_to_bytes().unwrap());
        assert!(output.status.success(), "{output:?}");
        let file = fs::read_to_string(second.path().join("address")).unwrap();
        assert_eq!(file, one.address, "{key}");
        assert_eq!(first.socket_names().len(), 1);
    }
}

#[test]
fn the_socket_of_a_killed_server_is_taken_over() {
    let bundle = Bundle::new(&["-v"]);
    let server = bundle.serve();
    let pid = server.pid();
    kill_process(pid, Signal::KILL).unwrap();
    wait_gone(pid);
    assert_eq!(bundle.socket_names().len(), 1, "the dead socket is there");
    let again = bundle.serve();
    assert_eq!(again.address, server.address);
    assert_ne!(again.pid(), pid);
    assert_eq!(bundle.socket_names().len(), 1);
}

#[test]
fn many_starts_at_once_end_at_one_server() {
    let bundle = Bundle::new(&["-v"]);
    let stdin = bundle.params().write_to_bytes().unwrap();
    let starts: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| bundle.start_with(&stdin))).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    let first = &starts[0];
    for output in &starts {
        assert!(output.status.success(), "{output:?}");
        assert_eq!(output.stdout, first.stdout);
    }
    assert_eq!(bundle.socket_names().len(), 1);
}

#[test]
fn what_cannot_be_understood_is_refused_in_one_line_and_leaves_nothing() {
    let foreign = Any { type_url: "x.y/other.Options".into(), ..Any::default() };
    let bundle = Bundle::new(&["-v"]);
    let mut with_foreign = bundle.params();
    with_foreign.extensions =
        vec![Extension { value: Some(foreign.clone()).into(), ..Extension::default() }];
    let mut other_id = bundle.params();
    other_id.instance_id = "another".into();
    let cases: [(&str, Vec<u8>, &str); 5] = [
        ("garbage", b"\xff\xfe\xfd\xfc".to_vec(), "stdin"),
        ("text", b"hello".to_vec(), "stdin"),
        ("foreign options", foreign.write_to_bytes().unwrap(), "x.y/other.Options"),
        ("foreign extension", with_foreign.write_to_bytes().unwrap(), "x.y/other.Options"),
        ("another container's params", other_id.write_to_bytes().unwrap(), "stdin"),
    ];
    for (name, stdin, part) in cases {
        refused(&bundle, name, &stdin, part);
    }
}

#[test]
fn a_bundle_without_a_usable_config_is_refused() {
    let bundle = Bundle::new(&["-v"]);
    let stdin = bundle.params().write_to_bytes().unwrap();
    for (name, config) in [("truncated", "{\"annotations\":"), ("a list", "[]"), ("empty", "")] {
        fs::write(bundle.path().join("config.json"), config).unwrap();
        refused(&bundle, name, &stdin, "config.json");
    }
    fs::remove_file(bundle.path().join("config.json")).unwrap();
    refused(&bundle, "missing", &stdin, "config.json");
}

#[test]
fn an_id_that_is_a_path_is_refused() {
    for id in ["../x", "a/b", ".", ""] {
        let mut bundle = Bundle::new(&["-v"]);
        bundle.id = id.to_owned();
        refused(&bundle, id, b"", "-id");
        // For the clean-up at the end.
        "unused".clone_into(&mut bundle.id);
    }
}

fn refused(bundle: &Bundle, name: &str, stdin: &[u8], part: &str) {
    let output = bundle.start_with(stdin);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{name}: {text}");
    assert!(output.stdout.is_empty(), "{name}");
    assert!(text.contains(part), "{name}: {text}");
    assert_eq!(text.lines().count(), 1, "{name}: {text}");
    assert!(!bundle.path().join("address").exists(), "{name}: left an address");
    assert!(bundle.socket_names().is_empty(), "{name}: left {:?}", bundle.socket_names());
}

#[test]
fn a_server_keeps_nothing_of_its_starter_open() {
    let bundle = Bundle::new(&["-v"]);
    let (mut read, write) = std::io::pipe().unwrap();
    rustix::io::fcntl_setfd(write.as_fd(), rustix::io::FdFlags::empty()).unwrap();
    // Also proof for stdout and stderr: their end is waited for.
    bundle.start();
    drop(write);
    let (done, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        read.read_to_end(&mut bytes).unwrap();
        done.send(bytes)
    });
    assert_eq!(ended.recv_timeout(SOON), Ok(vec![]), "the server holds an inherited pipe");
}

#[test]
fn a_server_stands_on_its_own() {
    let bundle = Bundle::new(&["-v"]);
    let pid = bundle.serve().pid().as_raw_nonzero();
    let link = |name: &str| fs::read_link(format!("/proc/{pid}/{name}")).unwrap();
    assert_eq!(link("cwd").to_str(), Some("/"));
    for fd in 0..3 {
        assert_eq!(link(&format!("fd/{fd}")).to_str(), Some("/dev/null"));
    }
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    // Field 6 of proc_pid_stat(5); the list begins at field 3.
    assert_eq!(fields[3], pid.to_string(), "not the leader of its session");
    // Its starter's parent is this test, whose score is read here.
    let score = |pid: &str| -> i32 {
        fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap().trim().parse().unwrap()
    };
    assert_eq!(score(&pid.to_string()), (score("self") + 1).min(1000));
}

/// CVE-2020-15257: red if a container in the host's network finds a name of the server that no
/// file system guards. Seen red with a second socket, of an abstract name, beside the first.
#[test]
fn no_socket_of_a_server_has_an_abstract_name() {
    let bundle = Bundle::new(&["-v"]);
    let pid = bundle.serve().pid().as_raw_nonzero();
    let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let open = open.filter_map(|fd| fs::read_link(fd.unwrap().path()).ok());
    let sockets: Vec<String> = open
        .filter_map(|name| {
            let name = name.to_str()?;
            name.strip_prefix("socket:[")?.strip_suffix(']').map(str::to_owned)
        })
        .collect();
    // The last two columns of proc_pid_net(5): inode and, where it has one, the name.
    let table = fs::read_to_string(format!("/proc/{pid}/net/unix")).unwrap();
    let named: Vec<&str> = table
        .lines()
        .filter_map(|line| {
            let mut columns = line.split_whitespace().skip(6);
            let inode = columns.next()?;
            columns.next().filter(|_| sockets.iter().any(|it| it == inode))
        })
        .collect();
    let sockets = bundle.sockets();
    let sockets = sockets.to_str().unwrap();
    assert!(!named.is_empty() && named.iter().all(|name| name.starts_with(sockets)), "{named:?}");
}

/// CVE-2024-25621, CVE-2021-41103: red if other users get into a directory that the shim made, or
/// at a file of it, with a daemon whose mask hides nothing. Seen red with 0755 for the state's
/// directories, and with 0666 for `boathook.json`.
#[test]
fn what_a_shim_makes_is_closed_to_others_whatever_the_umask() {
    let bundle = Bundle::new(&["-v"]);
    let theirs = entries(bundle.path());
    let shim = bundle.shim("start");
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "umask 0 && exec \"$0\" \"$@\""]).arg(shim.get_program());
    command.args(shim.get_args()).current_dir(bundle.path());
    command.env("TTRPC_ADDRESS", "/nowhere/c.sock.ttrpc");
    let output = run(command, &bundle.params().write_to_bytes().unwrap());
    let result = BootstrapResult::parse_from_bytes(&output.stdout).unwrap();
    let server = Server::connect(&result.address);
    let task = task(&server, &bundle);
    task.create(&bundle, "", "");
    task.start("");
    let state = std::path::PathBuf::from(format!("/run/boathook/{}", bundle.namespace));
    let mut ours = entries(&state);
    assert!(ours.iter().any(|path| path.ends_with("state.json")), "{ours:?}");
    let made = entries(bundle.path()).into_iter();
    let root = bundle.path().join("rootfs");
    ours.extend(made.filter(|path| !theirs.contains(path) && !path.starts_with(&root)));
    assert!(ours.iter().any(|path| path.starts_with(bundle.sockets())), "{ours:?}");
    for path in ours.iter().chain([&state]) {
        let found = fs::symlink_metadata(path).unwrap();
        let mode = found.permissions().mode() & 0o7777;
        assert_eq!(mode & 0o077, 0, "{mode:o} {}", path.display());
    }
    task.wait("");
    task.delete("");
}

/// Everything below a directory.
fn entries(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut all = Vec::new();
    for path in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
        if fs::symlink_metadata(&path).unwrap().is_dir() {
            all.extend(entries(&path));
        }
        all.push(path);
    }
    all
}

#[test]
fn a_server_has_one_thread_when_it_is_idle() {
    let bundle = Bundle::new(&["-v"]);
    let pid = bundle.serve().pid().as_raw_nonzero();
    let tasks = format!("/proc/{pid}/task");
    eventually("one thread", || fs::read_dir(&tasks).unwrap().count() == 1);
}

/// CVE-2020-15257: red if the modes of files are all that keeps others out. Seen red without the
/// comparison in `connections::Incoming::allowed`.
#[test]
fn another_user_is_turned_away() {
    let bundle = Bundle::new(&["-v"]);
    let result = bundle.start();
    let path = std::path::PathBuf::from(result.address.strip_prefix("unix://").unwrap());
    // As if the modes did not keep others out.
    for (path, mode) in [(bundle.path(), 0o755), (&bundle.sockets(), 0o755), (&path, 0o777)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let client = path.clone();
    // The system call changes the user of one thread only, which then ends.
    let thread = std::thread::spawn(move || {
        rustix::thread::set_thread_uid(rustix::fs::Uid::from_raw(65534)).unwrap();
        let mut stream = std::os::unix::net::UnixStream::connect(client).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.read(&mut [0]).unwrap()
    });
    assert_eq!(thread.join().unwrap(), 0, "the connection is not closed");
    Server::connect(&result.address).pid();
}
