//! Calls that come twice, calls that come late, and what is kept meanwhile.

use std::fs;
use std::os::unix::fs::MetadataExt;

use boathook_shim::io::Whose;
use boathook_shim::table::Stdio;
use containerd_shim_protos::api::{
    CloseIORequest, ConnectRequest, ConnectResponse, CreateTaskRequest, CreateTaskResponse,
    DeleteRequest, DeleteResponse, Empty, KillRequest, PauseRequest, PidsRequest, PidsResponse,
    ResizePtyRequest, ResumeRequest, ShutdownRequest, StartRequest, StateRequest, StateResponse,
    StatsRequest, StatsResponse, UpdateTaskRequest, WaitRequest, WaitResponse,
};
use containerd_shim_protos::shim::oci::Options;
use protobuf::Message;
use protobuf::well_known_types::any::Any;
use ttrpc::Code;

use crate::support::{Bundle, Server, collect, eventually, fifo, wait_gone};
use crate::task::{exec_request, task};

/// Makes a call twice and wants the same answer; its value.
fn twice<Q: Message, A: Message + PartialEq + std::fmt::Debug>(
    server: &Server,
    method: &str,
    request: &Q,
) -> A {
    let first: A = server.call(method, request);
    let second: A = server.call(method, request);
    assert_eq!(first, second, "{method}");
    second
}

#[test]
fn what_may_be_repeated_has_the_same_answer() {
    let bundle = Bundle::new(&["-info"]);
    let server = bundle.serve();
    let task = task(&server, &bundle);
    let id = || bundle.id.clone();
    let input = fifo(bundle.path(), "in");
    let pid = task.create(&bundle, input.to_str().unwrap(), "");
    task.start("");
    let connect = ConnectRequest { id: id(), ..ConnectRequest::default() };
    assert_eq!(twice::<_, ConnectResponse>(&server, "Connect", &connect).task_pid, pid);
    let state = StateRequest { id: id(), ..StateRequest::default() };
    let _: StateResponse = twice(&server, "State", &state);
    let pids = PidsRequest { id: id(), ..PidsRequest::default() };
    let _: PidsResponse = twice(&server, "Pids", &pids);
    let resize = ResizePtyRequest { id: id(), width: 80, height: 25, ..Default::default() };
    let _: Empty = twice(&server, "ResizePty", &resize);
    let close = CloseIORequest { id: id(), stdin: true, ..CloseIORequest::default() };
    let _: Empty = twice(&server, "CloseIO", &close);
    let wait = WaitRequest { id: id(), ..WaitRequest::default() };
    let exit: WaitResponse = twice(&server, "Wait", &wait);
    assert_eq!(exit.exit_status, 0);
    let stopped: StateResponse = twice(&server, "State", &state);
    assert_eq!((stopped.exit_status, &stopped.exited_at), (0, &exit.exited_at));
    assert_eq!(twice::<_, PidsResponse>(&server, "Pids", &pids).processes.len(), 1);
    let _: Empty = twice(&server, "CloseIO", &close);
    let _: Empty = twice(&server, "ResizePty", &resize);
    let _: Empty = twice(&server, "Shutdown", &ShutdownRequest::default());
    // The server was asked to end and does so with its last container.
    let delete = DeleteRequest { id: id(), ..DeleteRequest::default() };
    let shim = server.pid();
    let _: DeleteResponse = server.call("Delete", &delete);
    wait_gone(shim);
}

#[test]
fn after_the_exit_the_record_answers_and_nothing_else_goes() {
    let bundle = Bundle::new(&["-v"]);
    let server = bundle.serve();
    let task = task(&server, &bundle);
    let id = || bundle.id.clone();
    task.create(&bundle, "", "");
    task.start("");
    let exit = task.wait("");
    let stats = StatsRequest { id: id(), ..StatsRequest::default() };
    for _ in 0..2 {
        let _: StatsResponse = server.call("Stats", &stats);
    }
    for all in [false, true] {
        let kill = KillRequest { id: id(), signal: 15, all, ..KillRequest::default() };
        assert_eq!(server.refused("Kill", &kill).0, Code::NOT_FOUND, "all: {all}");
    }
    let exec = exec_request(&bundle, "late", &["-v"], "");
    assert_eq!(server.refused("Exec", &exec).0, Code::FAILED_PRECONDITION);
    let start = StartRequest { id: id(), ..StartRequest::default() };
    assert_eq!(server.refused("Start", &start).0, Code::FAILED_PRECONDITION);
    let resources = Any {
        type_url: "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources".into(),
        value: b"{}".to_vec(),
        ..Any::default()
    };
    let update =
        UpdateTaskRequest { id: id(), resources: Some(resources).into(), ..Default::default() };
    assert_eq!(server.refused("Update", &update).0, Code::NOT_FOUND);
    let pause = PauseRequest { id: id(), ..PauseRequest::default() };
    assert_eq!(server.refused("Pause", &pause).0, Code::FAILED_PRECONDITION);
    let resume = ResumeRequest { id: id(), ..ResumeRequest::default() };
    assert_eq!(server.refused("Resume", &resume).0, Code::FAILED_PRECONDITION);
    assert_eq!(task.state().exited_at, exit.exited_at);
    assert_eq!(task.delete("").exited_at, exit.exited_at);
    let delete = DeleteRequest { id: id(), ..DeleteRequest::default() };
    assert_eq!(server.refused("Delete", &delete).0, Code::NOT_FOUND);
}

#[test]
fn pipes_belong_to_the_user_that_the_options_name() {
    let bundle = Bundle::new(&["-info"]);
    let path = fifo(bundle.path(), "fifo").to_str().unwrap().to_owned();
    let stdio = Stdio { stdin: path.clone(), stdout: path.clone(), stderr: path, terminal: false };
    let whose = Whose { id: "c", namespace: "n", owner: (1234, 5678) };
    let (ends, _prepared) = boathook_shim::io::pipes(&stdio, whose).unwrap();
    for end in [ends.stdin, ends.stdout, ends.stderr] {
        let meta = fs::File::from(end.unwrap()).metadata().unwrap();
        assert_eq!((meta.uid(), meta.gid()), (1234, 5678));
    }
}

#[test]
fn the_options_of_create_reach_the_pipes() {
    let bundle = Bundle::new(&["-info"]);
    let server = bundle.serve();
    let task = task(&server, &bundle);
    let options = Options { io_uid: 1234, io_gid: 5678, ..Options::default() };
    let options = Any {
        type_url: "containerd.runc.v1.Options".into(),
        value: options.write_to_bytes().unwrap(),
        ..Any::default()
    };
    let streams = ["in", "out", "err"].map(|name| fifo(bundle.path(), name));
    let [stdin, stdout, stderr] = streams.map(|path| path.to_str().unwrap().to_owned());
    let request = CreateTaskRequest {
        id: bundle.id.clone(),
        bundle: bundle.path().to_str().unwrap().to_owned(),
        options: Some(options).into(),
        stdin,
        stdout,
        stderr,
        ..CreateTaskRequest::default()
    };
    let pid = server.call::<_, CreateTaskResponse>("Create", &request).pid;
    task.start("");
    for fd in 0..3 {
        let meta = fs::metadata(format!("/proc/{pid}/fd/{fd}")).unwrap();
        // The engine has given them to the container's user, as runc does.
        assert_eq!((meta.uid(), meta.gid()), (0, 5678), "descriptor {fd}");
    }
    task.kill(9);
    task.wait("");
    task.delete("");
}

/// Descriptors that a container with every stream and a terminal-less init may
/// keep open while it runs: three pidfds, the memory watch with its two files,
/// three pipes, two ends of the input fifo and two of each output fifo.
const WHILE_RUNNING: usize = 3 + 3 + 3 + 2 + 4;
/// And until its Delete: pidfds alone.
const AFTER_EXIT: usize = 3;

#[test]
fn descriptors_are_few_and_go_with_the_exit() {
    let bundle = Bundle::new(&["-info"]);
    let server = bundle.serve();
    let task = task(&server, &bundle);
    let fds = format!("/proc/{}/fd", server.pid().as_raw_nonzero());
    let open = || fs::read_dir(&fds).unwrap().count();
    // What is opened once and kept for all containers.
    task.create(&bundle, "", "");
    task.delete("");
    let before = open();
    let input = fifo(bundle.path(), "in");
    let (out, err) = (fifo(bundle.path(), "out"), fifo(bundle.path(), "err"));
    let outputs = [collect(&out), collect(&err)];
    let request = CreateTaskRequest {
        id: bundle.id.clone(),
        bundle: bundle.path().to_str().unwrap().to_owned(),
        stdin: input.to_str().unwrap().to_owned(),
        stdout: out.to_str().unwrap().to_owned(),
        stderr: err.to_str().unwrap().to_owned(),
        ..CreateTaskRequest::default()
    };
    let _: CreateTaskResponse = server.call("Create", &request);
    task.start("");
    let most = before + WHILE_RUNNING;
    eventually("few descriptors while it runs", || open() <= most);
    let exec_out = fifo(bundle.path(), "exec-out");
    let exec_output = collect(&exec_out);
    let exec = exec_request(&bundle, "e", &["-v"], exec_out.to_str().unwrap());
    let _: Empty = server.call("Exec", &exec);
    task.start("e");
    task.wait("e");
    exec_output();
    task.delete("e");
    eventually("no descriptor of a deleted exec", || open() <= most);
    task.kill(9);
    task.wait("");
    for output in outputs {
        output();
    }
    eventually("pidfds alone after the exit", || open() <= before + AFTER_EXIT);
    task.delete("");
    eventually("nothing after the delete", || open() == before);
}
