//! The program under test, as a daemon's neighbour and by itself.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rootfs_tests::grpc::Connection;
use rootfs_tests::unpackd::Unpackd;
use rootfs_tests::wait::{self, PATIENCE};
use rootfs_tests::{host, workspace};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, prlimit};

/// What a differ may keep: CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID, SYS_ADMIN, MKNOD
/// and SETFCAP (capabilities(7)).
const CAPABILITIES: u64 = 0b1_1111 | 1 << 21 | 1 << 27 | 1 << 31;

/// Answers anything that is asked of it.
fn answers(socket: &Path) -> String {
    let connection = Connection::open(socket).unwrap();
    let method = "/containerd.services.diff.v1.Diff/Diff";
    connection.call::<(), ()>(method, (), Duration::from_secs(30)).unwrap_err().to_string()
}

pub(crate) fn own_socket_is_private(dir: &Path) {
    let mut unpackd = Unpackd::start_at(dir, dir).unwrap();
    let mode = fs::metadata(unpackd.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    let error = answers(unpackd.socket());
    assert!(error.contains("Diff/Diff"), "{error}");
    let status = fs::read_to_string(format!("/proc/{}/status", unpackd.pid().unwrap())).unwrap();
    for (key, most) in [
        ("CapInh:", 0),
        ("CapPrm:", CAPABILITIES),
        ("CapEff:", CAPABILITIES),
        ("CapBnd:", CAPABILITIES),
    ] {
        let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        let set = u64::from_str_radix(line.trim(), 16).unwrap();
        assert_eq!(set & !most, 0, "{key} {set:x}");
    }
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    // A second one does not take the place of the first.
    let again = Command::new(workspace::cli().unwrap())
        .args(["unpackd", "--root"])
        .arg(dir)
        .arg("--socket")
        .arg(unpackd.socket())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(text.contains("somebody serves there already"), "{text}");
    unpackd.end().unwrap();
}

/// Seen red with an end at the first error of accept(2).
pub(crate) fn a_want_of_descriptors_passes(dir: &Path) {
    let mut unpackd = Unpackd::start_at(dir, dir).unwrap();
    let pid = Pid::from_raw(i32::try_from(unpackd.pid().unwrap()).unwrap());
    let open = fs::read_dir(format!("/proc/{}/fd", unpackd.pid().unwrap())).unwrap().count();
    let usual = getrlimit(Resource::Nofile);
    let none_left = Rlimit { current: Some(open as u64), maximum: usual.maximum };
    prlimit(pid, Resource::Nofile, none_left).unwrap();
    let waits = UnixStream::connect(unpackd.socket()).unwrap();
    wait::until("a refused accept", PATIENCE, || {
        Ok(unpackd.log().contains("accept: ").then_some(()))
    })
    .unwrap();
    prlimit(pid, Resource::Nofile, usual).unwrap();
    let error = answers(unpackd.socket());
    assert!(error.contains("Diff/Diff"), "{error}");
    drop(waits);
    unpackd.end().unwrap();
}

/// The lines `KEY=VALUE` of a unit that comes with the programs.
fn unit(name: &str) -> Vec<(String, String)> {
    let path = workspace::root().join("deploy/systemd").join(name);
    let text = fs::read_to_string(&path).unwrap();
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn value<'u>(unit: &'u [(String, String)], key: &str) -> &'u str {
    let mut values = unit.iter().filter(|(name, _)| name == key).map(|(_, value)| value.as_str());
    let value = values.next().unwrap_or_else(|| panic!("no {key}"));
    assert_eq!(values.next(), None, "{key} comes twice");
    value
}

/// Red when the command line in the unit is not one, when the socket is not where containerd is
/// told to look for it, or when the unit takes a capability away that the program keeps.
pub(crate) fn units_are_right() {
    let (service, socket) = (unit("boathook-unpackd.service"), unit("boathook-unpackd.socket"));
    let words: Vec<&str> = value(&service, "ExecStart").split(' ').collect();
    assert_eq!(words[1..], ["unpackd", "--root", "/var/lib/containerd"]);
    let help =
        Command::new(workspace::cli().unwrap()).args(["unpackd", "--help"]).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let listen = value(&socket, "ListenStream");
    assert!(help.contains(&format!("[default: {listen}]")), "{help}");
    let documented = fs::read_to_string(workspace::root().join("docs/layers.md")).unwrap();
    assert!(documented.contains(&format!("address = \"{listen}\"")));
    assert_eq!(value(&socket, "SocketMode"), "0600");
    let mut kept: Vec<&str> = value(&service, "CapabilityBoundingSet").split(' ').collect();
    // To drop the others.
    kept.retain(|name| *name != "CAP_SETPCAP");
    let names = [
        "CHOWN",
        "DAC_OVERRIDE",
        "DAC_READ_SEARCH",
        "FOWNER",
        "FSETID",
        "MKNOD",
        "SETFCAP",
        "SYS_ADMIN",
    ];
    assert_eq!(kept, names.map(|name| format!("CAP_{name}")));
    assert_eq!(kept.len(), CAPABILITIES.count_ones() as usize);
}

/// A shell stands for systemd: it knows its own number, which stays the program's.
pub(crate) fn handed_over_socket_is_taken(dir: &Path) {
    let socket = dir.join("held.sock");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let script = "exec env LISTEN_PID=$$ LISTEN_FDS=1 \"$@\" 3<&0 0</dev/null";
    let service = unit("boathook-unpackd.service");
    let mut child = Command::new("sh")
        .args(["-c", script, "sh"])
        .arg(workspace::cli().unwrap())
        .args(value(&service, "ExecStart").split(' ').skip(1))
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(listener)))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = String::new();
    let mut lines = BufReader::new(child.stderr.take().unwrap());
    lines.read_line(&mut first).unwrap();
    assert!(first.contains("the socket that was handed over"), "{first}");
    let error = answers(&socket);
    host::signal(child.id(), Signal::TERM).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(error.contains("Diff/Diff"), "{error}");
    assert!(socket.exists(), "it removed a socket that is not its own");
}
