//! The Task service with real containers.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use containerd_shim_protos::api::{
    CheckpointTaskRequest, CloseIORequest, CreateTaskRequest, CreateTaskResponse, DeleteRequest,
    DeleteResponse, Empty, ExecProcessRequest, KillRequest, PauseRequest, PidsRequest,
    PidsResponse, ResizePtyRequest, ResumeRequest, ShutdownRequest, StartRequest, StartResponse,
    StateRequest, StateResponse, StatsRequest, StatsResponse, Status, UpdateTaskRequest,
    WaitRequest, WaitResponse,
};
use protobuf::well_known_types::any::Any;
use serde_json::json;
use ttrpc::Code;

use crate::support::{Bundle, Server, TASK_V2, TASK_V3, collect, fifo, wait_gone};

/// A container's calls with less ado.
pub(crate) struct Task<'a> {
    pub(crate) server: &'a Server,
    pub(crate) id: String,
}

impl Task<'_> {
    pub(crate) fn create(&self, bundle: &Bundle, stdin: &str, stdout: &str) -> u32 {
        let request = CreateTaskRequest {
            id: self.id.clone(),
            bundle: bundle.path().to_str().unwrap().to_owned(),
            stdin: stdin.to_owned(),
            stdout: stdout.to_owned(),
            ..CreateTaskRequest::default()
        };
        self.server.call::<_, CreateTaskResponse>("Create", &request).pid
    }

    pub(crate) fn start(&self, exec_id: &str) -> u32 {
        let (id, exec_id) = (self.id.clone(), exec_id.to_owned());
        let request = StartRequest { id, exec_id, ..StartRequest::default() };
        self.server.call::<_, StartResponse>("Start", &request).pid
    }

    pub(crate) fn wait(&self, exec_id: &str) -> WaitResponse {
        let (id, exec_id) = (self.id.clone(), exec_id.to_owned());
        self.server.call("Wait", &WaitRequest { id, exec_id, ..WaitRequest::default() })
    }

    pub(crate) fn state(&self) -> StateResponse {
        let id = self.id.clone();
        self.server.call("State", &StateRequest { id, ..StateRequest::default() })
    }

    pub(crate) fn delete(&self, exec_id: &str) -> DeleteResponse {
        let (id, exec_id) = (self.id.clone(), exec_id.to_owned());
        self.server.call("Delete", &DeleteRequest { id, exec_id, ..DeleteRequest::default() })
    }

    pub(crate) fn kill(&self, signal: u32) {
        let id = self.id.clone();
        let request = KillRequest { id, signal, ..KillRequest::default() };
        let _: Empty = self.server.call("Kill", &request);
    }

    pub(crate) fn shutdown(&self) {
        let _: Empty = self.server.call("Shutdown", &ShutdownRequest::default());
    }
}

pub(crate) fn task<'a>(server: &'a Server, bundle: &Bundle) -> Task<'a> {
    Task { server, id: bundle.id.clone() }
}

#[test]
fn a_container_from_create_to_shutdown() {
    let bundle = Bundle::new(&["-v"]);
    let server = bundle.serve();
    let task = task(&server, &bundle);
    let out = fifo(bundle.path(), "out");
    let output = collect(&out);
    let pid = task.create(&bundle, "", out.to_str().unwrap());
    assert_eq!(task.state().status.enum_value(), Ok(Status::CREATED));
    assert_eq!(task.start(""), pid);
    let exit = task.wait("");
    assert_eq!(exit.exit_status, 0);
    assert!(exit.exited_at.seconds > 0);
    assert_eq!(task.state().status.enum_value(), Ok(Status::STOPPED));
    // A client waits for the end of the output before it deletes.
    assert!(output().starts_with("containerd-shim-boathook-v2"));
    let deleted = task.delete("");
    assert_eq!((deleted.pid, deleted.exited_at), (pid, exit.exited_at));
    let shim = server.pid();
    task.shutdown();
    wait_gone(shim);
    assert!(bundle.socket_names().is_empty());
}

#[test]
fn both_names_of_the_service_answer() {
    let bundle = Bundle::new(&["-v"]);
    let server = bundle.serve();
    let request = CreateTaskRequest {
        id: bundle.id.clone(),
        bundle: bundle.path().to_str().unwrap().to_owned(),
        ..CreateTaskRequest::default()
    };
    let created: CreateTaskResponse = server.try_call(TASK_V2, "Create", &request).unwrap();
    for service in [TASK_V2, TASK_V3] {
        let request = StateRequest { id: bundle.id.clone(), ..StateRequest::default() };
        let state: StateResponse = server.try_call(service, "State", &request).unwrap();
        assert_eq!(state.pid, created.pid, "{service}");
    }
}

#[test]
fn input_reaches_the_process_and_ends_with_close_io() {
    let bundle = Bundle::new(&["-info"]);
    let server = bundle.serve();
    let task = task(&server, &bundle);
    let (input, out) = (fifo(bundle.path(), "in"), fifo(bundle.path(), "out"));
    let output = collect(&out);
    task.create(&bundle, input.to_str().unwrap(), out.to_str().unwrap());
    task.start("");
    let mut client = fs::File::options().write(true).open(&input).unwrap();
    client.write_all(b"").unwrap();
    drop(client);
    assert_eq!(task.state().status.enum_value(), Ok(Status::RUNNING));
    let close = CloseIORequest { id: bundle.id.clone(), stdin: true, ..Default::default() };
    let _: Empty = server.call("CloseIO", &close);
    assert_eq!(task.wait("").exit_status, 0);
    assert!(output().contains("io.containerd.boathook.v2"));
    let _: Empty = server.call("CloseIO", &close);
}

#[test]
fn a_terminal_is_copied_and_resized() {
    let bundle = Bundle::new(&["-info"]);
    let mut config = bundle.config(&["-info"]);
    config["process"]["terminal"] = json!(true);
    config["mounts"] = json!([
        { "destination": "/dev", "type": "tmpfs", "source": "tmpfs" },
        { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
          "options": ["newinstance", "ptmxmode=0666", "mode=0620"] },
    ]);
    bundle.write_config(&config);
    let server = bundle.serve();
    let task = task(&server, &bundle);
    let (input, out) = (fifo(bundle.path(), "in"), fifo(bundle.path(), "out"));
    let output = collect(&out);
    let request = CreateTaskRequest {
        id: bundle.id.clone(),
        bundle: bundle.path().to_str().unwrap().to_owned(),
        stdin: input.to_str().unwrap().to_owned(),
        stdout: out.to_str().unwrap().to_owned(),
        terminal: true,
        ..CreateTaskRequest::default()
    };
    let pid = server.call::<_, CreateTaskResponse>("Create", &request).pid;
    let mut resize = ResizePtyRequest {
        id: bundle.id.clone(),
        width: 123,
        height: 45,
        ..ResizePtyRequest::default()
    };
    let _: Empty = server.call("ResizePty", &resize);
    task.start("");
    let size = rustix::termios::tcgetwinsize(terminal_of(pid)).unwrap();
    assert_eq!((size.ws_col, size.ws_row), (123, 45));
    resize.width = 70_000;
    let (code, text) = server.refused("ResizePty", &resize);
    assert_eq!(code, Code::INVALID_ARGUMENT);
    assert!(text.contains("width") && text.contains("70000"), "{text}");
    // End of file, as typed.
    fs::File::options().write(true).open(&input).unwrap().write_all(&[4]).unwrap();
    assert_eq!(task.wait("").exit_status, 0);
    assert!(output().contains("io.containerd.boathook.v2"));
    task.delete("");
}

fn terminal_of(pid: u32) -> fs::File {
    let path = format!("/proc/{pid}/fd/0");
    fs::File::options().read(true).custom_flags(no_controlling_terminal()).open(path).unwrap()
}

fn no_controlling_terminal() -> i32 {
    rustix::fs::OFlags::NOCTTY.bits().cast_signed()
}

#[test]
fn execs_run_beside_init_and_an_id_is_used_once() {
    let bundle = Bundle::new(&["-info"]);
    let server = bundle.serve();
    let task = task(&server, &bundle);
    let input = fifo(bundle.path(), "in");
    let init = task.create(&bundle, input.to_str().unwrap(), "");
    task.start("");
    let out = fifo(bundle.path(), "exec-out");
    let output = collect(&out);
    let exec = exec_request(&bundle, "e1", &["-v"], out.to_str().unwrap());
    let _: Empty = server.call("Exec", &exec);
    assert_eq!(server.refused("Exec", &exec).0, Code::ALREADY_EXISTS);
    let pid = task.start("e1");
    assert_ne!(pid, init);
    assert_eq!(task.wait("e1").exit_status, 0);
    assert!(output().starts_with("containerd-shim-boathook-v2"));
    assert_eq!(task.delete("e1").pid, pid);
    // Not one of these is in the container's PATH or a program at all.
    for (program, part) in [("/none", "/none"), ("/proc", "/proc")] {
        let mut bad = exec_request(&bundle, "e2", &[], "");
        let spec = json!({ "args": [program], "cwd": "/", "user": { "uid": 0, "gid": 0 } });
        bad.spec.as_mut().unwrap().value = spec.to_string().into_bytes();
        let _: Empty = server.call("Exec", &bad);
        let start =
            StartRequest { id: bundle.id.clone(), exec_id: "e2".into(), ..StartRequest::default() };
        let (_, text) = server.refused("Start", &start);
        assert!(text.contains("exec:") && text.contains(part), "{text}");
        assert_eq!(task.wait("e2").exit_status, 255, "a failed start releases its waiters");
        task.delete("e2");
    }
    task.kill(9);
    assert_eq!(task.wait("").exit_status, 137);
    let again = exec_request(&bundle, "e3", &["-v"], "");
    assert_eq!(server.refused("Exec", &again).0, Code::FAILED_PRECONDITION);
    task.delete("");
}

pub(crate) fn exec_request(
    bundle: &Bundle,
    exec_id: &str,
    args: &[&str],
    stdout: &str,
) -> ExecProcessRequest {
    let args: Vec<_> = std::iter::once("/shim").chain(args.iter().copied()).collect();
    let spec = json!({ "args": args, "cwd": "/", "user": { "uid": 0, "gid": 0 } });
    let spec = Any {
        type_url: "types.containerd.io/opencontainers/runtime-spec/1/Process".into(),
        value: spec.to_string().into_bytes(),
        ..Any::default()
    };
    ExecProcessRequest {
        id: bundle.id.clone(),
        exec_id: exec_id.into(),
        stdout: stdout.into(),
        spec: Some(spec).into(),
        ..ExecProcessRequest::default()
    }
}

#[test]
fn pause_resume_pids_stats_and_update() {
    let bundle = Bundle::new(&["-info"]);
    let server = bundle.serve();
    let task = task(&server, &bundle);
    let input = fifo(bundle.path(), "in");
    let pid = task.create(&bundle, input.to_str().unwrap(), "");
    task.start("");
    let id = bundle.id.clone();
    let pids = PidsRequest { id: id.clone(), ..PidsRequest::default() };
    let listed: PidsResponse = server.call("Pids", &pids);
    assert_eq!(listed.processes.iter().map(|p| p.pid).collect::<Vec<_>>(), [pid]);
    let pause = PauseRequest { id: id.clone(), ..PauseRequest::default() };
    let _: Empty = server.call("Pause", &pause);
    assert_eq!(task.state().status.enum_value(), Ok(Status::PAUSED));
    assert_eq!(server.refused("Pause", &pause).0, Code::FAILED_PRECONDITION);
    let resume = ResumeRequest { id: id.clone(), ..ResumeRequest::default() };
    let _: Empty = server.call("Resume", &resume);
    assert_eq!(server.refused("Resume", &resume).0, Code::FAILED_PRECONDITION);
    let resources = Any {
        type_url: "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources".into(),
        value: json!({ "pids": { "limit": 77 } }).to_string().into_bytes(),
        ..Any::default()
    };
    let update = UpdateTaskRequest {
        id: id.clone(),
        resources: Some(resources).into(),
        ..UpdateTaskRequest::default()
    };
    let _: Empty = server.call("Update", &update);
    let stats = StatsRequest { id: id.clone(), ..StatsRequest::default() };
    let figures: StatsResponse = server.call("Stats", &stats);
    let metrics = figures.stats.unwrap();
    assert!(metrics.type_url.starts_with("io.containerd.cgroups.v"), "{}", metrics.type_url);
    // A frozen container dies of SIGKILL all the same.
    let _: Empty = server.call("Pause", &pause);
    task.kill(9);
    assert_eq!(task.wait("").exit_status, 137);
    let listed: PidsResponse = server.call("Pids", &pids);
    assert_eq!(listed.processes.len(), 1, "init is listed until Delete");
    let _: StatsResponse = server.call("Stats", &stats);
    task.delete("");
    assert_eq!(server.refused("Stats", &stats).0, Code::NOT_FOUND);
}

#[test]
fn a_container_can_be_killed_and_deleted_before_its_start() {
    let bundle = Bundle::new(&["-v"]);
    let server = bundle.serve();
    let task = task(&server, &bundle);
    task.create(&bundle, "", "");
    task.kill(15);
    assert_ne!(task.wait("").exit_status, 0);
    let start = StartRequest { id: bundle.id.clone(), ..StartRequest::default() };
    assert_eq!(server.refused("Start", &start).0, Code::FAILED_PRECONDITION);
    task.delete("");
    task.create(&bundle, "", "");
    task.delete("");
}

#[test]
fn a_failed_create_leaves_nothing_and_the_id_is_free() {
    let bundle = Bundle::new(&["-v"]);
    let server = bundle.serve();
    let task = task(&server, &bundle);
    let good = bundle.config(&["-v"]);
    let bundle_dir = bundle.path().to_str().unwrap().to_owned();
    let request = |bundle_dir: &str| CreateTaskRequest {
        id: bundle.id.clone(),
        bundle: bundle_dir.to_owned(),
        ..CreateTaskRequest::default()
    };
    let mut cases = Vec::new();
    let mut config = good.clone();
    config["process"]["args"] = json!(["/none"]);
    cases.push((config, "exec: \"/none\""));
    let mut config = good.clone();
    config["linux"]["namespaces"] = json!([{ "type": "pid" }, { "type": "bogus" }]);
    cases.push((config, "namespaces"));
    let mut config = good.clone();
    config["root"]["path"] = json!("nowhere");
    cases.push((config, "root"));
    let mut config = good.clone();
    config["process"]["cwd"] = json!(7);
    cases.push((config, "cwd"));
    for (config, part) in cases {
        bundle.write_config(&config);
        let (code, text) = server.refused("Create", &request(&bundle_dir));
        assert!(text.contains(part), "{part}: {code:?} {text}");
        assert_ne!(code, Code::NOT_FOUND, "the daemon would take it for a task that is gone");
    }
    let (code, text) = server.refused("Create", &request("/nowhere"));
    assert_eq!(code, Code::INVALID_ARGUMENT, "{text}");
    assert!(!fs::exists(format!("/run/boathook/{}/{}", bundle.namespace, bundle.id)).unwrap());
    bundle.write_config(&good);
    task.create(&bundle, "", "");
    task.delete("");
}

#[test]
fn callers_that_give_up_stop_nothing_and_leave_nothing() {
    let bundle = Bundle::new(&["-v"]);
    let server = bundle.serve();
    let request = CreateTaskRequest {
        id: bundle.id.clone(),
        bundle: bundle.path().to_str().unwrap().to_owned(),
        ..CreateTaskRequest::default()
    };
    let delete = DeleteRequest { id: bundle.id.clone(), ..DeleteRequest::default() };
    for micros in [1, 100, 300, 1000, 3000, 10_000] {
        let limit = Duration::from_micros(micros);
        let created: Result<CreateTaskResponse, _> =
            server.try_call_within(limit, TASK_V3, "Create", &request);
        // What the daemon does after a Create that failed for it. The first
        // Delete may be given up too; the second one joins it or comes late.
        let _: Result<DeleteResponse, _> =
            server.try_call_within(limit, TASK_V3, "Delete", &delete);
        match server.try_call::<_, DeleteResponse>(TASK_V3, "Delete", &delete) {
            Ok(_) => {}
            Err(ttrpc::Error::RpcStatus(status)) if status.code() == Code::NOT_FOUND => {}
            Err(other) => panic!("{micros} µs, {created:?}: {other}"),
        }
        let state = StateRequest { id: bundle.id.clone(), ..StateRequest::default() };
        assert_eq!(server.refused("State", &state).0, Code::NOT_FOUND);
        let dir = format!("/run/boathook/{}/{}", bundle.namespace, bundle.id);
        assert!(!fs::exists(&dir).unwrap(), "{dir} stayed");
    }
    let task = task(&server, &bundle);
    task.create(&bundle, "", "");
    task.delete("");
}

#[test]
fn streams_that_cannot_be_used_are_named() {
    let bundle = Bundle::new(&["-v"]);
    let server = bundle.serve();
    for (value, code) in [
        ("binary:///no/logger", Code::INVALID_ARGUMENT),
        ("ttrpc+unix:///run/s", Code::INVALID_ARGUMENT),
        ("relative", Code::INVALID_ARGUMENT),
        ("/nowhere/fifo", Code::INVALID_ARGUMENT),
    ] {
        let request = CreateTaskRequest {
            id: bundle.id.clone(),
            bundle: bundle.path().to_str().unwrap().to_owned(),
            stdout: value.to_owned(),
            ..CreateTaskRequest::default()
        };
        let (got, text) = server.refused("Create", &request);
        assert_eq!(got, code, "{text}");
        assert!(text.contains("stdout") && text.contains(value), "{text}");
    }
}

#[test]
fn every_call_for_an_unknown_container_is_not_found() {
    let bundle = Bundle::new(&["-v"]);
    let server = bundle.serve();
    let id = || "nobody".to_owned();
    let not_found = |method: &str, (code, text): (Code, String)| {
        assert_eq!(code, Code::NOT_FOUND, "{method}: {text}");
        assert!(text.contains("nobody"), "{method}: {text}");
    };
    macro_rules! unknown {
        ($($method:literal $request:ident { $($field:ident: $value:expr),* }),* $(,)?) => {$(
            let request = $request { id: id(), $($field: $value,)* ..$request::default() };
            not_found($method, server.refused($method, &request));
        )*};
    }
    let process = exec_request(&bundle, "e", &["-v"], "").spec;
    let resources = Any {
        type_url: "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources".into(),
        value: b"{}".to_vec(),
        ..Any::default()
    };
    unknown!(
        "Start" StartRequest {},
        "State" StateRequest {},
        "Wait" WaitRequest {},
        "Delete" DeleteRequest {},
        "Kill" KillRequest { signal: 9 },
        "Exec" ExecProcessRequest { exec_id: "e".into(), spec: process },
        "Pids" PidsRequest {},
        "Pause" PauseRequest {},
        "Resume" ResumeRequest {},
        "ResizePty" ResizePtyRequest { width: 80, height: 25 },
        "CloseIO" CloseIORequest { stdin: true },
        "Update" UpdateTaskRequest { resources: Some(resources).into() },
        "Stats" StatsRequest {},
    );
    let checkpoint = CheckpointTaskRequest { id: id(), ..CheckpointTaskRequest::default() };
    let (code, text) = server.refused("Checkpoint", &checkpoint);
    assert_eq!(code, Code::UNIMPLEMENTED, "{text}");
}

#[test]
fn garbage_in_an_any_is_an_invalid_argument_that_names_the_field() {
    let bundle = Bundle::new(&["-info"]);
    let server = bundle.serve();
    let garbage = |type_url: &str| Any {
        type_url: type_url.to_owned(),
        value: b"\xff{garbage".to_vec(),
        ..Any::default()
    };
    let input = fifo(bundle.path(), "in");
    for type_url in ["containerd.runc.v1.Options", "runtimeoptions.v1.Options", "foo.Bar"] {
        let request = CreateTaskRequest {
            id: bundle.id.clone(),
            bundle: bundle.path().to_str().unwrap().to_owned(),
            options: Some(garbage(type_url)).into(),
            ..CreateTaskRequest::default()
        };
        let (code, text) = server.refused("Create", &request);
        assert_eq!(code, Code::INVALID_ARGUMENT, "{text}");
        assert!(text.contains("options") && text.contains(type_url), "{text}");
    }
    let task = task(&server, &bundle);
    task.create(&bundle, input.to_str().unwrap(), "");
    task.start("");
    let prefix = "types.containerd.io/opencontainers/runtime-spec/1";
    for type_url in [format!("{prefix}/Process"), "x/LinuxResources".into(), String::new()] {
        let mut request = exec_request(&bundle, "e", &["-v"], "");
        request.spec = Some(garbage(&type_url)).into();
        let (code, text) = server.refused("Exec", &request);
        assert_eq!(code, Code::INVALID_ARGUMENT, "{type_url}: {text}");
        assert!(text.contains("spec") || text.contains("process"), "{text}");
    }
    for type_url in [format!("{prefix}/LinuxResources"), format!("{prefix}/Process")] {
        let request = UpdateTaskRequest {
            id: bundle.id.clone(),
            resources: Some(garbage(&type_url)).into(),
            ..UpdateTaskRequest::default()
        };
        let (code, text) = server.refused("Update", &request);
        assert_eq!(code, Code::INVALID_ARGUMENT, "{type_url}: {text}");
        assert!(text.contains("resources"), "{text}");
    }
    // A refused exec does not keep its id.
    let _: Empty = server.call("Exec", &exec_request(&bundle, "e", &["-v"], ""));
    task.kill(9);
    task.wait("");
    task.delete("");
}

#[test]
fn shutdown_with_a_container_left_waits_for_it() {
    let bundle = Bundle::new(&["-v"]);
    let server = bundle.serve();
    let task = task(&server, &bundle);
    task.create(&bundle, "", "");
    let shim = server.pid();
    task.shutdown();
    task.start("");
    assert_eq!(task.wait("").exit_status, 0);
    task.delete("");
    wait_gone(shim);
}
