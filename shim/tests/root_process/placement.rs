//! Where a server runs and how it ends: cgroup, core scheduling, signals.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use containerd_shim_protos::api::{CreateTaskRequest, CreateTaskResponse};
use containerd_shim_protos::bootstrap_api::Extension;
use containerd_shim_protos::shim::oci::Options;
use protobuf::Message;
use protobuf::well_known_types::any::Any;
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{CoreSchedulingScope, core_scheduling_cookie};
use serde_json::json;

use crate::support::{Bundle, SOON, Server, alive, eventually, fifo, run, wait_gone};
use crate::task::task;

fn any(options: &Options) -> Any {
    let value = options.write_to_bytes().unwrap();
    Any { type_url: "containerd.runc.v1.Options".into(), value, ..Any::default() }
}

/// `start` with these options, in the dialect that may name a socket directory.
fn stdin(bundle: &Bundle, options: &Options) -> Vec<u8> {
    let mut params = bundle.params();
    params.extensions =
        vec![Extension { value: Some(any(options)).into(), ..Extension::default() }];
    params.write_to_bytes().unwrap()
}

/// A cgroup in some of the hierarchies, removed in the end.
struct Cgroup {
    name: String,
    dirs: Vec<PathBuf>,
}

impl Cgroup {
    fn new(name: &str, hierarchies: &[&str]) -> Self {
        let root = Path::new("/sys/fs/cgroup");
        let unified = root.join("cgroup.controllers").exists();
        let parents = if unified { vec![root.to_owned()] } else { Vec::new() };
        let parents = parents.into_iter().chain(hierarchies.iter().map(|h| root.join(h)));
        let dirs: Vec<_> = parents.filter(|p| p.exists()).map(|p| p.join(name)).collect();
        assert!(!dirs.is_empty(), "no cgroup hierarchy on this machine");
        for dir in &dirs {
            fs::create_dir(dir).unwrap();
        }
        Self { name: name.to_owned(), dirs }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for dir in &self.dirs {
            eventually("an empty cgroup", || fs::remove_dir(dir).is_ok());
        }
    }
}

#[test]
fn the_server_runs_in_the_cgroup_of_the_options() {
    let bundle = Bundle::new(&["-v"]);
    let cgroup = Cgroup::new(&bundle.id, &["memory", "cpu", "unified"]);
    let options = Options { shim_cgroup: format!("/{}", cgroup.name), ..Options::default() };
    let output = bundle.start_with(&stdin(&bundle, &options));
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let pid = Server::connect(&fs::read_to_string(bundle.path().join("address")).unwrap()).pid();
    let membership = fs::read_to_string(format!("/proc/{}/cgroup", pid.as_raw_nonzero())).unwrap();
    let inside = membership.lines().filter(|l| l.ends_with(&format!(":/{}", cgroup.name)));
    assert_eq!(inside.count(), cgroup.dirs.len(), "{membership}");
    kill_process(pid, Signal::TERM).unwrap();
    wait_gone(pid);
}

/// Before 2.1, containerd sends what is created in a user namespace an option message with the two
/// ids of its streams and nothing else. Seen red without `or` of `create_request`: the state was in
/// /run/boathook.
#[test]
fn a_container_in_a_user_namespace_keeps_the_groups_options() {
    let bundle = Bundle::new(&["-info"]);
    let mut config = bundle.config(&["-info"]);
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }]);
    config["linux"]["uidMappings"] = map.clone();
    config["linux"]["gidMappings"] = map;
    config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
    bundle.write_config(&config);
    let rootfs = bundle.path().join("rootfs");
    for path in [&rootfs, &rootfs.join("shim")] {
        std::os::unix::fs::chown(path, Some(100_000), Some(100_000)).unwrap();
    }
    let root = bundle.path().join("state");
    let group = Options { root: root.to_str().unwrap().to_owned(), ..Options::default() };
    let output = bundle.start_with(&stdin(&bundle, &group));
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let server = Server::connect(&fs::read_to_string(bundle.path().join("address")).unwrap());
    let own = Options { io_uid: 4321, io_gid: 4322, ..Options::default() };
    let input = fifo(bundle.path(), "in");
    let request = CreateTaskRequest {
        id: bundle.id.clone(),
        bundle: bundle.path().to_str().unwrap().to_owned(),
        options: Some(any(&own)).into(),
        stdin: input.to_str().unwrap().to_owned(),
        ..CreateTaskRequest::default()
    };
    let created: CreateTaskResponse = server.call("Create", &request);
    let state = root.join(&bundle.namespace).join(&bundle.id).join("state.json");
    assert!(state.exists(), "{}", state.display());
    let map = fs::read_to_string(format!("/proc/{}/uid_map", created.pid)).unwrap();
    assert!(map.contains("100000"), "{map}");
    // Nobody in there has these ids, so that init cannot give the pipe away.
    let pipe = fs::metadata(format!("/proc/{}/fd/0", created.pid)).unwrap();
    assert_eq!((pipe.uid(), pipe.gid()), (4321, 4322));
    let task = task(&server, &bundle);
    task.kill(9);
    task.wait("");
    task.delete("");
    assert!(!state.exists(), "the state of a deleted container");
}

#[test]
fn a_cgroup_that_is_not_there_fails_the_start_and_leaves_nothing() {
    let bundle = Bundle::new(&["-v"]);
    for path in ["/no/such/cgroup", "/../x", "/"] {
        let options = Options { shim_cgroup: path.to_owned(), ..Options::default() };
        let output = bundle.start_with(&stdin(&bundle, &options));
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{path}: {text}");
        assert!(text.contains("shim_cgroup") && text.contains(path), "{text}");
        assert!(output.stdout.is_empty());
        assert!(bundle.socket_names().is_empty(), "{path}: a socket stayed");
        assert!(!bundle.path().join("address").exists(), "{path}: an address stayed");
    }
}

/// Where the machine cannot schedule by cores, `start` has to say so: an
/// operator who asked for it must not get pods without it.
#[test]
fn core_scheduling_is_on_for_server_and_containers_or_refused() {
    let bundle = Bundle::new(&["-info"]);
    let own = Pid::from_raw(i32::try_from(std::process::id()).unwrap()).unwrap();
    let able = core_scheduling_cookie(own, CoreSchedulingScope::Thread).is_ok();
    let mut command = bundle.shim("start");
    command.env("SCHED_CORE", "1");
    let output = run(command, &bundle.params().write_to_bytes().unwrap());
    if !able {
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains("SCHED_CORE"), "{text}");
        assert!(bundle.socket_names().is_empty());
        return;
    }
    assert!(output.status.success(), "{output:?}");
    let server = Server::connect(&fs::read_to_string(bundle.path().join("address")).unwrap());
    let input = fifo(bundle.path(), "in");
    let task = task(&server, &bundle);
    let init = task.create(&bundle, input.to_str().unwrap(), "");
    task.start("");
    let init = Pid::from_raw(i32::try_from(init).unwrap()).unwrap();
    let cookie = |pid| core_scheduling_cookie(pid, CoreSchedulingScope::Thread).unwrap();
    assert_ne!(cookie(server.pid()), 0);
    assert_eq!(cookie(init), cookie(server.pid()));
    assert_eq!(cookie(own), 0, "the daemon's own group was changed");
    task.kill(9);
    task.wait("");
    task.delete("");
}

/// The host shuts down, or somebody tidies up: the server goes at once and
/// leaves what runs to `delete`.
#[test]
fn a_signal_ends_the_server_and_nothing_else() {
    for signal in [Signal::TERM, Signal::INT] {
        let bundle = Bundle::new(&["-info"]);
        let server = bundle.serve();
        let input = fifo(bundle.path(), "in");
        let task = task(&server, &bundle);
        let init = task.create(&bundle, input.to_str().unwrap(), "");
        task.start("");
        let init = Pid::from_raw(i32::try_from(init).unwrap()).unwrap();
        let _keeps_stdin_open = File::options().read(true).write(true).open(&input).unwrap();
        let pid = server.pid();
        kill_process(pid, signal).unwrap();
        wait_gone(pid);
        assert!(bundle.socket_names().is_empty(), "{signal:?}: the socket stayed");
        let mut delete = bundle.shim("delete");
        delete.arg("-bundle").arg(bundle.path());
        let output = run(delete, b"");
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        assert!(!alive(init), "{signal:?}");
    }
}

#[test]
fn sigusr1_tells_the_log_what_the_server_knows() {
    let bundle = Bundle::new(&["-v"]);
    let log = fifo(bundle.path(), "log");
    // As the daemon holds it.
    let log = File::options().read(true).write(true).open(log).unwrap();
    let server = bundle.serve();
    let request = CreateTaskRequest {
        id: bundle.id.clone(),
        bundle: bundle.path().to_str().unwrap().to_owned(),
        ..CreateTaskRequest::default()
    };
    let created: CreateTaskResponse = server.call("Create", &request);
    kill_process(server.pid(), Signal::USR1).unwrap();
    let (lines, log_lines) = mpsc::channel();
    let mut end = log.try_clone().unwrap();
    std::thread::spawn(move || {
        for line in BufReader::new(log).lines() {
            if lines.send(line.unwrap()).is_err() {
                return;
            }
        }
    });
    let wanted = format!("init of \\\"{}\\\"", bundle.id);
    let line = loop {
        let line = log_lines.recv_timeout(SOON).expect("no word about the container");
        if line.contains("SIGUSR1") && line.contains(&wanted) {
            break line;
        }
    };
    assert!(line.contains(&format!("pid {}", created.pid)) && line.contains("Created"), "{line}");
    // Lets the thread go.
    drop(log_lines);
    end.write_all(b"\n").unwrap();
    task(&server, &bundle).delete("");
}
