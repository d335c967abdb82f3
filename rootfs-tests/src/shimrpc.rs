//! Drives a shim as containerd does, without containerd: starts the binary with a bundle, and
//! calls the Task service.

mod sink;
mod wire;

pub use sink::Sink;
pub use wire::{Pending, Ttrpc};

use crate::command::{Output, Run};
use crate::error::{Context, Error, Result};
use crate::packages::Packages;
use crate::wait::{self, PATIENCE};
use crate::{host, workspace};
use containerd_shim_protos::api::{
    ConnectRequest, ConnectResponse, CreateTaskRequest, CreateTaskResponse, DeleteRequest,
    DeleteResponse, Empty, ExecProcessRequest, KillRequest, ShutdownRequest, StartRequest,
    StartResponse, StateRequest, StateResponse, WaitRequest, WaitResponse,
};
use protobuf::Message;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::Signal;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Everything a shim is started with.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The shim's binary.
    pub program: PathBuf,
    /// The container's, or pod's, bundle: the working directory.
    pub bundle: PathBuf,
    /// The container's id.
    pub id: String,
    /// containerd's namespace.
    pub namespace: String,
    /// What the shim takes for containerd's gRPC address; part of its socket's name.
    pub grpc: PathBuf,
    /// Where events go; see [`Sink`].
    pub ttrpc: PathBuf,
    /// Searched for a runtime, by shims that execute one.
    pub path: String,
    /// Standard input of `start`.
    pub stdin: Vec<u8>,
    /// Executes the binary, which is given to it with its arguments; mostly empty.
    pub wrapper: Vec<String>,
}

/// A shim that has been started.
#[derive(Debug)]
pub struct Shim {
    launch: Launch,
    address: PathBuf,
    /// Version of the Task service, by which the shim wants to be called.
    version: u32,
    log: File,
}

/// A connection to a shim's Task service.
#[derive(Debug)]
pub struct Task {
    /// For calls that [`Task`] has no method for.
    pub connection: Ttrpc,
    service: String,
}

impl Launch {
    /// The shim under test. `dir` holds the sockets of the daemon that is not there.
    ///
    /// # Errors
    /// It has not been built.
    pub fn boathook(id: &str, bundle: &Path, dir: &Path) -> Result<Self> {
        Ok(Self::new(workspace::shim()?, "/usr/sbin:/usr/bin:/sbin:/bin", id, bundle, dir))
    }

    /// The release's stock shim, with its runc.
    #[must_use]
    pub fn stock(packages: &Packages, id: &str, bundle: &Path, dir: &Path) -> Self {
        let runc = packages.runc();
        let runtimes = runc.parent().unwrap_or(&runc).display().to_string();
        let path = format!("{runtimes}:/usr/sbin:/usr/bin:/sbin:/bin");
        Self::new(packages.runc_shim(), &path, id, bundle, dir)
    }

    fn new(program: PathBuf, path: &str, id: &str, bundle: &Path, dir: &Path) -> Self {
        Self {
            program,
            bundle: bundle.to_owned(),
            id: id.to_owned(),
            namespace: "boathook-tests".to_owned(),
            grpc: dir.join("grpc.sock"),
            ttrpc: dir.join("ttrpc.sock"),
            path: path.to_owned(),
            stdin: Vec::new(),
            wrapper: Vec::new(),
        }
    }

    /// Runs the binary with an action such as `start` or `delete`, as containerd does.
    ///
    /// # Errors
    /// It cannot be executed or does not end.
    pub fn run(&self, action: &str) -> Result<Output> {
        let run = match self.wrapper.split_first() {
            Some((program, args)) => Run::new(program).args(args).arg(&self.program),
            None => Run::new(&self.program),
        };
        let mut run = run
            .args(["-namespace", &self.namespace, "-id", &self.id, "-publish-binary", "/bin/true"])
            .arg("-address")
            .arg(&self.grpc);
        if action == "delete" {
            run = run.arg("-bundle").arg(&self.bundle);
        }
        run.arg(action)
            .cwd(&self.bundle)
            .env("PATH", &self.path)
            .env("TTRPC_ADDRESS", &self.ttrpc)
            .env("GRPC_ADDRESS", &self.grpc)
            .env("NAMESPACE", &self.namespace)
            .env("MAX_SHIM_VERSION", "2")
            .env("GOMAXPROCS", "2")
            .stdin(self.stdin.clone())
            .output()
    }

    /// Starts a shim, or finds the one that serves this pod already.
    ///
    /// # Errors
    /// [`Error::Command`] with what it wrote, or an answer that is no address.
    pub fn start(self) -> Result<Shim> {
        let log = log_fifo(&self.bundle.join("log"))?;
        let output = self.run("start")?;
        if output.code != 0 {
            return Err(output.refused());
        }
        let (address, version) = answer(&output.text())?;
        Ok(Shim { launch: self, address, version, log })
    }
}

impl Shim {
    /// Connects to the Task service in the version that the shim asked for.
    ///
    /// # Errors
    /// It does not listen.
    pub fn connect(&self) -> Result<Task> {
        self.connect_version(self.version)
    }

    /// Connects to the Task service in this version.
    ///
    /// # Errors
    /// It does not listen.
    pub fn connect_version(&self, version: u32) -> Result<Task> {
        let connection = Ttrpc::connect(&self.address)?;
        Ok(Task { connection, service: format!("containerd.task.v{version}.Task") })
    }

    /// The version of the Task service by which the shim wants to be called.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Its socket.
    #[must_use]
    pub fn address(&self) -> &Path {
        &self.address
    }

    /// How it was started.
    #[must_use]
    pub fn launch(&self) -> &Launch {
        &self.launch
    }

    /// What it has written to its log since the last question.
    #[must_use]
    pub fn log(&mut self) -> String {
        let mut text = vec![0; 1 << 16];
        let count = self.log.read(&mut text).unwrap_or(0);
        String::from_utf8_lossy(text.get(..count).unwrap_or_default()).into_owned()
    }

    /// Asks it to end, as containerd does after the last task is deleted, waits until it has, and
    /// runs the binary's `delete`.
    ///
    /// # Errors
    /// It does not end.
    pub fn end(&self) -> Result<()> {
        let mut task = self.connect()?;
        let pid = task.connect(&self.launch.id)?.shim_pid;
        let process = wait::process(pid)?;
        let request = ShutdownRequest { id: self.launch.id.clone(), ..ShutdownRequest::new() };
        // The server may be gone before the answer is.
        let _ = task.call::<_, Empty>("Shutdown", &request);
        let what = format!("the end of shim {pid}");
        wait::readable(&process, &what, wait::Deadline::after(PATIENCE))?;
        let deleted = self.launch.run("delete")?;
        if deleted.code == 0 { Ok(()) } else { Err(deleted.refused()) }
    }
}

impl Drop for Shim {
    /// Best effort for a test that failed half-way.
    fn drop(&mut self) {
        let Ok(mut task) = self.connect() else { return };
        let Ok(answer) = task.connect(&self.launch.id) else { return };
        let _ = host::signal(answer.shim_pid, Signal::KILL);
        let _ = wait::gone(answer.shim_pid, PATIENCE);
        let _ = self.launch.run("delete");
    }
}

impl Task {
    /// Calls a method and waits for the answer.
    ///
    /// # Errors
    /// [`Error::Rpc`] with the shim's code, as in every call here.
    pub fn call<Q: Message, A: Message>(&mut self, method: &str, request: &Q) -> Result<A> {
        let pending = self.send(method, request)?;
        self.connection.receive(&pending, PATIENCE)
    }

    /// Sends a request whose answer is taken later, such as `Wait`.
    ///
    /// # Errors
    /// The shim is gone.
    pub fn send<Q: Message>(&mut self, method: &str, request: &Q) -> Result<Pending> {
        let payload = request.write_to_bytes().map_err(|error| Error::Format {
            what: format!("request {method}"),
            why: error.to_string(),
        })?;
        self.send_raw(method, payload)
    }

    /// Sends bytes that need not be a message.
    ///
    /// # Errors
    /// The shim is gone.
    pub fn send_raw(&mut self, method: &str, payload: Vec<u8>) -> Result<Pending> {
        self.connection.send(&self.service, method, payload)
    }

    /// Creates a container from a bundle whose `rootfs` is ready; answers its process id.
    ///
    /// # Errors
    /// The shim's refusal.
    pub fn create(&mut self, id: &str, bundle: &Path) -> Result<u32> {
        let answer: CreateTaskResponse = self.call("Create", &create_request(id, bundle))?;
        Ok(answer.pid)
    }

    /// Starts a container, or an exec of it; answers its process id.
    ///
    /// # Errors
    /// The shim's refusal.
    pub fn start(&mut self, id: &str, exec: &str) -> Result<u32> {
        let (id, exec_id) = (id.to_owned(), exec.to_owned());
        let request = StartRequest { id, exec_id, ..StartRequest::new() };
        self.call::<_, StartResponse>("Start", &request).map(|answer| answer.pid)
    }

    /// Where a container, or an exec of it, is in its life.
    ///
    /// # Errors
    /// The shim's refusal.
    pub fn state(&mut self, id: &str, exec: &str) -> Result<StateResponse> {
        let (id, exec_id) = (id.to_owned(), exec.to_owned());
        self.call("State", &StateRequest { id, exec_id, ..StateRequest::new() })
    }

    /// Asks for the end of a container or an exec; take the answer with [`Task::ended`].
    ///
    /// # Errors
    /// The shim is gone.
    pub fn wait(&mut self, id: &str, exec: &str) -> Result<Pending> {
        let (id, exec_id) = (id.to_owned(), exec.to_owned());
        self.send("Wait", &WaitRequest { id, exec_id, ..WaitRequest::new() })
    }

    /// The exit status of what [`Task::wait`] asked for.
    ///
    /// # Errors
    /// The shim's refusal, or it does not end in time.
    pub fn ended(&mut self, pending: &Pending) -> Result<u32> {
        let answer: WaitResponse = self.connection.receive(pending, PATIENCE)?;
        Ok(answer.exit_status)
    }

    /// Sends a signal to a container's first process or an exec, or to every process of it.
    ///
    /// # Errors
    /// The shim's refusal.
    pub fn kill(&mut self, id: &str, exec: &str, signal: u32, all: bool) -> Result<()> {
        let (id, exec_id) = (id.to_owned(), exec.to_owned());
        let request = KillRequest { id, exec_id, signal, all, ..KillRequest::new() };
        self.call::<_, Empty>("Kill", &request).map(drop)
    }

    /// Registers an exec of these arguments, with containerd's default environment.
    ///
    /// # Errors
    /// The shim's refusal.
    pub fn exec(&mut self, id: &str, exec: &str, args: &[&str]) -> Result<()> {
        self.call::<_, Empty>("Exec", &exec_request(id, exec, args)).map(drop)
    }

    /// Forgets a container or an exec that has ended.
    ///
    /// # Errors
    /// The shim's refusal.
    pub fn delete(&mut self, id: &str, exec: &str) -> Result<DeleteResponse> {
        let (id, exec_id) = (id.to_owned(), exec.to_owned());
        self.call("Delete", &DeleteRequest { id, exec_id, ..DeleteRequest::new() })
    }

    /// Process ids of the shim and of a container's first process.
    ///
    /// # Errors
    /// The shim's refusal.
    pub fn connect(&mut self, id: &str) -> Result<ConnectResponse> {
        self.call("Connect", &ConnectRequest { id: id.to_owned(), ..ConnectRequest::new() })
    }
}

/// A request without standard streams, for a bundle whose `rootfs` is ready.
#[must_use]
pub fn create_request(id: &str, bundle: &Path) -> CreateTaskRequest {
    CreateTaskRequest {
        id: id.to_owned(),
        bundle: bundle.display().to_string(),
        ..CreateTaskRequest::new()
    }
}

/// A request for an exec of these arguments as root.
#[must_use]
pub fn exec_request(id: &str, exec: &str, args: &[&str]) -> ExecProcessRequest {
    let process = serde_json::json!({
        "user": { "uid": 0, "gid": 0 },
        "args": args,
        "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
        "cwd": "/",
    });
    let spec = protobuf::well_known_types::any::Any {
        type_url: "types.containerd.io/opencontainers/runtime-spec/1/Process".into(),
        value: process.to_string().into_bytes(),
        ..Default::default()
    };
    ExecProcessRequest {
        id: id.to_owned(),
        exec_id: exec.to_owned(),
        spec: Some(spec).into(),
        ..ExecProcessRequest::new()
    }
}

/// The daemon makes the `log` fifo and holds it open in both directions before `start`.
fn log_fifo(path: &Path) -> Result<File> {
    let what = || format!("make the fifo {}", path.display());
    if !path.exists() {
        mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).during(what)?;
    }
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits();
    fs::OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(i32::try_from(nonblocking).unwrap_or(0))
        .open(path)
        .during(what)
}

/// Reads the answer of `start`: an address alone, which means version 2, or JSON.
fn answer(text: &str) -> Result<(PathBuf, u32)> {
    let bad = |why: &str| Error::Format {
        what: format!("answer of the shim's start {text:?}"),
        why: why.to_owned(),
    };
    let (address, version) = if text.starts_with('{') {
        let json: serde_json::Value =
            serde_json::from_str(text).map_err(|error| bad(&error.to_string()))?;
        let version = json.get("version").and_then(serde_json::Value::as_u64).unwrap_or(2);
        let address = json.get("address").and_then(|it| it.as_str()).unwrap_or_default();
        (address.to_owned(), u32::try_from(version).unwrap_or(0))
    } else {
        (text.to_owned(), 2)
    };
    let path = address.strip_prefix("unix://").ok_or_else(|| bad("no unix:// address"))?;
    Ok((PathBuf::from(path), version))
}
