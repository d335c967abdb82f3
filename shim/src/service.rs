//! The Task service: requests become commands for the driver, answers become
//! responses. Nothing else happens here.
//!
//! ttrpc drops a handler when its client gives up or goes away, so a handler
//! only waits. What it asked for is the driver's and goes on without it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use containerd_shim_protos::api::{
    CheckpointTaskRequest, CloseIORequest, ConnectRequest, ConnectResponse, CreateTaskRequest,
    CreateTaskResponse, DeleteRequest, DeleteResponse, Empty, ExecProcessRequest, KillRequest,
    PauseRequest, PidsRequest, PidsResponse, ProcessInfo, ResizePtyRequest, ResumeRequest,
    ShutdownRequest, StartRequest, StartResponse, StateRequest, StateResponse, StatsRequest,
    StatsResponse, UpdateTaskRequest, WaitRequest, WaitResponse,
};
use containerd_shim_protos::shim::oci::ProcessDetails;
use containerd_shim_protos::shim_async::{Task, create_task};
use protobuf::Message;
use protobuf::well_known_types::any::Any;
use ttrpc::r#async::{Service as Methods, TtrpcContext};

use crate::driver::{Inbox, Request};
use crate::failure::{Failure, Result};
use crate::options::{Options, last_segment};
use crate::proto;
use crate::table::{Answer, Command, CreateRequest, ExecRequest, Stdio, Token};

/// The name containerd 1.6 and 1.7 call. The messages are those of version 3,
/// only the package's name differs.
const TASK_V2: &str = "containerd.task.v2.Task";

type Reply<T> = ttrpc::Result<T>;

/// The Task service of one server.
#[derive(Debug)]
pub struct Service {
    inbox: Inbox,
    /// Options that `start` was given for the whole group.
    options: Options,
    next_token: AtomicU64,
}

impl Service {
    /// A service that hands its calls to `inbox`.
    pub fn new(inbox: Inbox, options: Options) -> Self {
        Self { inbox, options, next_token: AtomicU64::new(1) }
    }

    /// The same methods under both names of the service.
    pub fn methods(self) -> HashMap<String, Methods> {
        let service = Arc::new(self);
        let v2 = create_task(service.clone()).into_values().map(|m| (TASK_V2.to_owned(), m));
        let mut methods: HashMap<_, _> = v2.collect();
        methods.extend(create_task(service));
        methods
    }

    /// Hands a command over and waits for the answer.
    async fn ask(&self, command: Command) -> Reply<Answer> {
        let token = Token(self.next_token.fetch_add(1, Ordering::Relaxed));
        let (reply, answer) = tokio::sync::oneshot::channel();
        self.inbox.call(Request { token, command, reply });
        let guard = Unanswered { token, inbox: Some(&self.inbox) };
        let answer = answer.await;
        guard.answered();
        match answer {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(Failure::wrong_state("this shim is shutting down").into()),
        }
    }

    async fn done(&self, command: Command) -> Reply<Empty> {
        self.ask(command).await.map(|_| Empty::new())
    }
}

/// Tells the driver when the caller leaves before the answer.
struct Unanswered<'a> {
    token: Token,
    inbox: Option<&'a Inbox>,
}

impl Unanswered<'_> {
    fn answered(mut self) {
        self.inbox = None;
    }
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if let Some(inbox) = self.inbox {
            inbox.cancelled(self.token);
        }
    }
}

/// An answer of another kind than the call's would be a fault of this program.
fn unexpected<T>(answer: &Answer) -> Reply<T> {
    let text = format!("unexpected answer {answer:?}");
    Err(Failure::new(crate::failure::ErrorKind::Internal, text).into())
}

fn named(field: &str, value: String) -> Result<String> {
    if value.is_empty() {
        return Err(Failure::invalid(format!("{field}: must not be empty")));
    }
    Ok(value)
}

/// The bytes of an `Any` that must hold JSON of one OCI type.
fn json(field: &str, any: Option<Any>, wanted: &str) -> Result<Vec<u8>> {
    let any = any.unwrap_or_default();
    if last_segment(&any.type_url) != wanted {
        let text = format!("{field}: type {:?} is not a {wanted}", any.type_url);
        return Err(Failure::invalid(text));
    }
    Ok(any.value)
}

fn size(field: &str, value: u32) -> Result<u16> {
    u16::try_from(value)
        .map_err(|_| Failure::invalid(format!("{field}: {value} is more than 65535")))
}

fn create_request(request: CreateTaskRequest, group: &Options) -> Result<CreateRequest> {
    for (field, value) in
        [("checkpoint", &request.checkpoint), ("parent_checkpoint", &request.parent_checkpoint)]
    {
        if !value.is_empty() {
            let text = format!("{field}: {value:?}: restoring is not supported");
            return Err(Failure::unsupported(text));
        }
    }
    let options = Options::from_any(&request.options.unwrap_or_default())?;
    Ok(CreateRequest {
        id: named("id", request.id)?,
        bundle: named("bundle", request.bundle)?.into(),
        rootfs: request.rootfs.into_iter().map(proto::mount).collect(),
        stdio: Stdio {
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            terminal: request.terminal,
        },
        options: options.unwrap_or_default().or(group),
    })
}

fn exec_request(request: ExecProcessRequest) -> Result<ExecRequest> {
    Ok(ExecRequest {
        id: named("id", request.id)?,
        exec_id: named("exec_id", request.exec_id)?,
        stdio: Stdio {
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            terminal: request.terminal,
        },
        spec: json("spec", request.spec.into_option(), "Process")?,
    })
}

fn process_info((pid, exec_id): (u32, Option<String>)) -> ProcessInfo {
    let details = exec_id.and_then(|exec_id| {
        let details = ProcessDetails { exec_id, ..ProcessDetails::default() };
        let value = details.write_to_bytes().ok()?;
        let type_url = "containerd.runc.v1.ProcessDetails".to_owned();
        Some(Any { type_url, value, ..Any::default() })
    });
    ProcessInfo { pid, info: details.into(), ..ProcessInfo::default() }
}

#[async_trait]
impl Task for Service {
    async fn create(&self, _: &TtrpcContext, r: CreateTaskRequest) -> Reply<CreateTaskResponse> {
        let request = create_request(r, &self.options)?;
        match self.ask(Command::Create(Box::new(request))).await? {
            Answer::Pid(pid) => Ok(CreateTaskResponse { pid, ..Default::default() }),
            other => unexpected(&other),
        }
    }

    async fn start(&self, _: &TtrpcContext, r: StartRequest) -> Reply<StartResponse> {
        match self.ask(Command::Start(proto::target(r.id, r.exec_id))).await? {
            Answer::Pid(pid) => Ok(StartResponse { pid, ..Default::default() }),
            other => unexpected(&other),
        }
    }

    async fn state(&self, _: &TtrpcContext, r: StateRequest) -> Reply<StateResponse> {
        match self.ask(Command::State(proto::target(r.id, r.exec_id))).await? {
            Answer::State(state) => Ok(proto::state(*state)),
            other => unexpected(&other),
        }
    }

    async fn wait(&self, _: &TtrpcContext, r: WaitRequest) -> Reply<WaitResponse> {
        match self.ask(Command::Wait(proto::target(r.id, r.exec_id))).await? {
            Answer::Exit(exit) => Ok(WaitResponse {
                exit_status: exit.status,
                exited_at: proto::timestamp(exit.at),
                ..Default::default()
            }),
            other => unexpected(&other),
        }
    }

    async fn delete(&self, _: &TtrpcContext, r: DeleteRequest) -> Reply<DeleteResponse> {
        match self.ask(Command::Delete(proto::target(r.id, r.exec_id))).await? {
            Answer::Deleted { pid, exit } => Ok(proto::deleted(pid, exit)),
            other => unexpected(&other),
        }
    }

    async fn kill(&self, _: &TtrpcContext, r: KillRequest) -> Reply<Empty> {
        let signal = i32::try_from(r.signal).map_err(|_| {
            Failure::invalid(format!("signal: {} is not a signal number", r.signal))
        })?;
        let target = proto::target(r.id, r.exec_id);
        self.done(Command::Kill { target, signal, all: r.all }).await
    }

    async fn exec(&self, _: &TtrpcContext, r: ExecProcessRequest) -> Reply<Empty> {
        self.done(Command::Exec(Box::new(exec_request(r)?))).await
    }

    async fn pids(&self, _: &TtrpcContext, r: PidsRequest) -> Reply<PidsResponse> {
        match self.ask(Command::Pids(r.id)).await? {
            Answer::Pids(pids) => {
                let processes = pids.into_iter().map(process_info).collect();
                Ok(PidsResponse { processes, ..Default::default() })
            }
            other => unexpected(&other),
        }
    }

    async fn pause(&self, _: &TtrpcContext, r: PauseRequest) -> Reply<Empty> {
        self.done(Command::Pause(r.id)).await
    }

    async fn resume(&self, _: &TtrpcContext, r: ResumeRequest) -> Reply<Empty> {
        self.done(Command::Resume(r.id)).await
    }

    async fn resize_pty(&self, _: &TtrpcContext, r: ResizePtyRequest) -> Reply<Empty> {
        let (width, height) = (size("width", r.width)?, size("height", r.height)?);
        let target = proto::target(r.id, r.exec_id);
        self.done(Command::Resize { target, width, height }).await
    }

    async fn close_io(&self, _: &TtrpcContext, r: CloseIORequest) -> Reply<Empty> {
        let target = proto::target(r.id, r.exec_id);
        self.done(Command::CloseStdin { target, close: r.stdin }).await
    }

    async fn update(&self, _: &TtrpcContext, r: UpdateTaskRequest) -> Reply<Empty> {
        let resources = json("resources", r.resources.into_option(), "LinuxResources")?;
        self.done(Command::Update { id: r.id, resources }).await
    }

    async fn stats(&self, _: &TtrpcContext, r: StatsRequest) -> Reply<StatsResponse> {
        match self.ask(Command::Stats(r.id)).await? {
            Answer::Stats { type_url, value } => {
                let any = Any { type_url: type_url.to_owned(), value, ..Any::default() };
                Ok(StatsResponse { stats: Some(any).into(), ..Default::default() })
            }
            other => unexpected(&other),
        }
    }

    async fn connect(&self, _: &TtrpcContext, r: ConnectRequest) -> Reply<ConnectResponse> {
        match self.ask(Command::Connect(r.id)).await? {
            Answer::Pid(task_pid) => Ok(ConnectResponse {
                shim_pid: std::process::id(),
                task_pid,
                version: env!("CARGO_PKG_VERSION").to_owned(),
                ..Default::default()
            }),
            other => unexpected(&other),
        }
    }

    async fn shutdown(&self, _: &TtrpcContext, _: ShutdownRequest) -> Reply<Empty> {
        self.done(Command::Shutdown).await
    }

    async fn checkpoint(&self, _: &TtrpcContext, _: CheckpointTaskRequest) -> Reply<Empty> {
        Err(Failure::unsupported("checkpoint: this runtime cannot save a running container").into())
    }
}
