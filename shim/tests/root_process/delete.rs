//! The `delete` command: after a Delete call, after a crash, and for nothing.

use std::fs;
use std::path::Path;

use containerd_shim_protos::api::{
    CreateTaskRequest, CreateTaskResponse, DeleteRequest, DeleteResponse, Mount, StartRequest,
    StartResponse, WaitRequest, WaitResponse,
};
use protobuf::Message;
use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Bundle, Server, alive, fifo, run, wait_gone};

fn delete(bundle: &Bundle) -> DeleteResponse {
    let mut command = bundle.shim("delete");
    command.arg("-bundle").arg(bundle.path());
    let output = run(command, b"");
    assert!(output.status.success(), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
    DeleteResponse::parse_from_bytes(&output.stdout).unwrap()
}

/// Creates and starts a container that runs until its input ends.
fn running(bundle: &Bundle, server: &Server) -> Pid {
    let layer = bundle.path().join("layer");
    fs::rename(bundle.path().join("rootfs"), &layer).unwrap();
    fs::create_dir(bundle.path().join("rootfs")).unwrap();
    let rootfs = Mount {
        type_: "bind".into(),
        source: layer.to_str().unwrap().into(),
        options: vec!["rbind".into(), "rw".into()],
        ..Mount::default()
    };
    let request = CreateTaskRequest {
        id: bundle.id.clone(),
        bundle: bundle.path().to_str().unwrap().to_owned(),
        rootfs: vec![rootfs],
        stdin: fifo(bundle.path(), "in").to_str().unwrap().to_owned(),
        ..CreateTaskRequest::default()
    };
    let created: CreateTaskResponse = server.call("Create", &request);
    let start = StartRequest { id: bundle.id.clone(), ..StartRequest::default() };
    let _: StartResponse = server.call("Start", &start);
    Pid::from_raw(i32::try_from(created.pid).unwrap()).unwrap()
}

fn leftovers(bundle: &Bundle) -> Vec<String> {
    let mut left = Vec::new();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    left.extend(mounts.lines().filter(|l| l.contains(&bundle.id)).map(str::to_owned));
    let rootfs = bundle.path().join("rootfs");
    left.extend(mounts.lines().filter(|l| l.contains(rootfs.to_str().unwrap())).map(str::to_owned));
    let state = format!("/run/boathook/{}/{}", bundle.namespace, bundle.id);
    left.extend(Path::new(&state).exists().then_some(state));
    for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap() {
        let dir = hierarchy.unwrap().path().join(&bundle.namespace).join(&bundle.id);
        left.extend(dir.exists().then(|| dir.display().to_string()));
    }
    left
}

#[test]
fn a_bundle_without_a_container_is_clean_already() {
    let bundle = Bundle::new(&["-v"]);
    for _ in 0..2 {
        let answer = delete(&bundle);
        assert_eq!((answer.pid, answer.exit_status), (0, 137));
        assert!(answer.exited_at.seconds > 0);
    }
}

#[test]
fn after_a_delete_call_the_true_status_is_reported() {
    let bundle = Bundle::new(&["-nonsense"]);
    let server = bundle.serve();
    let pid = running(&bundle, &server);
    let wait = WaitRequest { id: bundle.id.clone(), ..WaitRequest::default() };
    let exit: WaitResponse = server.call("Wait", &wait);
    assert_eq!(exit.exit_status, 1, "the shim refuses an unknown flag with 1");
    let request = DeleteRequest { id: bundle.id.clone(), ..DeleteRequest::default() };
    let _: DeleteResponse = server.call("Delete", &request);
    assert_eq!(leftovers(&bundle), [""; 0]);
    for _ in 0..2 {
        let answer = delete(&bundle);
        assert_eq!(answer.pid, pid.as_raw_nonzero().get().unsigned_abs());
        assert_eq!((answer.exit_status, answer.exited_at), (1, exit.exited_at.clone()));
    }
}

#[test]
fn after_the_death_of_the_server_everything_goes() {
    let bundle = Bundle::new(&["-info"]);
    let server = bundle.serve();
    let init = running(&bundle, &server);
    let shim = server.pid();
    // Its input ends with the server; it must not end by itself before it is looked at.
    kill_process(init, Signal::STOP).unwrap();
    kill_process(shim, Signal::KILL).unwrap();
    wait_gone(shim);
    assert!(alive(init), "the container outlives its server");
    assert_ne!(leftovers(&bundle), [""; 0]);
    for _ in 0..2 {
        let answer = delete(&bundle);
        assert_eq!(answer.exit_status, 137);
        assert_eq!(answer.pid, init.as_raw_nonzero().get().unsigned_abs());
        assert!(!alive(init));
        assert_eq!(leftovers(&bundle), [""; 0]);
        assert!(bundle.socket_names().is_empty(), "the dead socket stayed");
    }
}

#[test]
fn an_exit_that_the_server_saw_survives_its_death() {
    let bundle = Bundle::new(&["-nonsense"]);
    let server = bundle.serve();
    running(&bundle, &server);
    let wait = WaitRequest { id: bundle.id.clone(), ..WaitRequest::default() };
    let exit: WaitResponse = server.call("Wait", &wait);
    kill_process(server.pid(), Signal::KILL).unwrap();
    let answer = delete(&bundle);
    assert_eq!((answer.exit_status, answer.exited_at), (1, exit.exited_at));
    assert_eq!(leftovers(&bundle), [""; 0]);
}

/// Somebody on the host looks into the root while the container goes, and there is a mount on it that
/// nobody asked for. Red if Delete waits for either or fails: then the daemon's next attempt finds
/// nothing, and the server stays. Seen red with `MNT_DETACH` taken from `unmount_rootfs` (EBUSY).
#[test]
fn a_root_that_is_in_use_is_unmounted_all_the_same() {
    let bundle = Bundle::new(&["-v"]);
    let server = bundle.serve();
    running(&bundle, &server);
    let wait = WaitRequest { id: bundle.id.clone(), ..WaitRequest::default() };
    let _: WaitResponse = server.call("Wait", &wait);
    let rootfs = bundle.path().join("rootfs");
    let in_use = fs::File::open(rootfs.join("shim")).unwrap();
    let directory = fs::File::open(&rootfs).unwrap();
    fs::create_dir(rootfs.join("more")).unwrap();
    rustix::mount::mount_bind("/dev", rootfs.join("more")).unwrap();
    let request = DeleteRequest { id: bundle.id.clone(), ..DeleteRequest::default() };
    let answer: DeleteResponse = server.call("Delete", &request);
    assert_eq!(answer.exit_status, 0);
    assert_eq!(leftovers(&bundle), [""; 0]);
    assert_eq!(fs::read_dir(&rootfs).unwrap().count(), 0, "what is below the mount");
    // For who holds them they are what they were.
    assert!(in_use.metadata().unwrap().len() > 0 && directory.metadata().unwrap().is_dir());
}
