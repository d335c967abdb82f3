//! A bundle, the shim's commands, and calls to its server.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use containerd_shim_protos::api::{ConnectRequest, ConnectResponse};
use containerd_shim_protos::bootstrap_api::{BootstrapParams, BootstrapResult};
use protobuf::Message;
use rustix::process::{Pid, Signal};
use serde_json::{Value, json};
use ttrpc::{Client, Code, Request};

/// No test waits longer for something that must happen.
pub(crate) const SOON: Duration = Duration::from_secs(20);

const SHIM: &str = env!("CARGO_BIN_EXE_containerd-shim-boathook-v2");

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A bundle with its own socket directory and namespace; when it goes, so does
/// every server that was started for it.
pub(crate) struct Bundle {
    dir: tempfile::TempDir,
    pub(crate) id: String,
    pub(crate) namespace: String,
}

impl Bundle {
    /// A bundle whose config.json runs the shim with `args`.
    pub(crate) fn new(args: &[&str]) -> Self {
        assert!(rustix::process::geteuid().is_root(), "these tests need root");
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("boathook-test-{}-{number}", std::process::id());
        let dir = tempfile::Builder::new().prefix("bh").tempdir().unwrap();
        let bundle = Self { dir, id: name.clone(), namespace: name };
        fs::create_dir(bundle.path().join("rootfs")).unwrap();
        fs::copy(SHIM, bundle.path().join("rootfs/shim")).unwrap();
        bundle.write_config(&bundle.config(args));
        bundle
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Where this bundle's servers have their sockets.
    pub(crate) fn sockets(&self) -> PathBuf {
        self.path().join("s")
    }

    pub(crate) fn config(&self, args: &[&str]) -> Value {
        let args: Vec<_> = std::iter::once("/shim").chain(args.iter().copied()).collect();
        json!({
            "ociVersion": "1.2.0",
            "process": {
                "args": args, "cwd": "/", "env": ["PATH=/"], "user": { "uid": 0, "gid": 0 },
            },
            "root": { "path": "rootfs" },
            "annotations": {},
            "linux": {
                "cgroupsPath": format!("/{}/{}", self.namespace, self.id),
                "namespaces": [{ "type": "pid" }, { "type": "mount" }, { "type": "ipc" }],
            },
        })
    }

    pub(crate) fn write_config(&self, config: &Value) {
        fs::write(self.path().join("config.json"), config.to_string()).unwrap();
    }

    /// The shim with the daemon's flags; the last word is the action.
    pub(crate) fn shim(&self, action: &str) -> Command {
        let mut command = Command::new(SHIM);
        command
            .args(["-namespace", &self.namespace, "-address", "/nowhere/c.sock"])
            .args(["-publish-binary", "/bin/true", "-id", &self.id, action])
            .env("TTRPC_ADDRESS", "/nowhere/c.sock.ttrpc")
            .current_dir(self.path())
            .process_group(0);
        command
    }

    pub(crate) fn params(&self) -> BootstrapParams {
        BootstrapParams {
            instance_id: self.id.clone(),
            namespace: self.namespace.clone(),
            socket_dir: Some(self.sockets().to_str().unwrap().to_owned()),
            ..BootstrapParams::default()
        }
    }

    /// `start` with `stdin`.
    pub(crate) fn start_with(&self, stdin: &[u8]) -> Output {
        run(self.shim("start"), stdin)
    }

    /// `start` in the new dialect, with sockets in the bundle.
    pub(crate) fn start(&self) -> BootstrapResult {
        let output = self.start_with(&self.params().write_to_bytes().unwrap());
        assert!(output.status.success(), "{output:?}");
        assert!(output.stderr.is_empty(), "stderr is part of the reply: {output:?}");
        BootstrapResult::parse_from_bytes(&output.stdout).unwrap()
    }

    /// `start`, and a connection to the server.
    pub(crate) fn serve(&self) -> Server {
        Server::connect(&self.start().address)
    }

    /// Files in the socket directory.
    pub(crate) fn socket_names(&self) -> Vec<String> {
        let Ok(dir) = fs::read_dir(self.sockets()) else { return Vec::new() };
        dir.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        for name in self.socket_names() {
            let path = self.sockets().join(name);
            let is_socket = path.metadata().is_ok_and(|m| m.file_type().is_socket());
            if is_socket && let Ok(client) = Client::connect(&format!("unix://{}", path.display()))
            {
                let server = Server { client, address: String::new() };
                if let Ok(reply) = server.try_call::<_, ConnectResponse>(
                    TASK_V3,
                    "Connect",
                    &ConnectRequest::default(),
                ) {
                    let pid = i32::try_from(reply.shim_pid).unwrap();
                    let _ =
                        rustix::process::kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
                }
            }
        }
        let _ = run(self.shim("delete"), b"");
    }
}

/// Runs a command to the end of its output, as the daemon does.
pub(crate) fn run(mut command: Command, stdin: &[u8]) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The command may end without having read it.
    let _ = child.stdin.take().unwrap().write_all(stdin);
    wait_output(child)
}

fn wait_output(child: Child) -> Output {
    let (done, result) = std::sync::mpsc::channel();
    std::thread::spawn(move || done.send(child.wait_with_output()));
    result.recv_timeout(SOON).expect("the command's output does not end").unwrap()
}

pub(crate) const TASK_V2: &str = "containerd.task.v2.Task";
pub(crate) const TASK_V3: &str = "containerd.task.v3.Task";

/// A connection to a server.
pub(crate) struct Server {
    client: Client,
    pub(crate) address: String,
}

impl Server {
    pub(crate) fn connect(address: &str) -> Self {
        Self { client: Client::connect(address).unwrap(), address: address.to_owned() }
    }

    pub(crate) fn try_call<Q: Message, A: Message>(
        &self,
        service: &str,
        method: &str,
        request: &Q,
    ) -> Result<A, ttrpc::Error> {
        self.try_call_within(SOON, service, method, request)
    }

    /// A call whose caller gives up after `limit`.
    pub(crate) fn try_call_within<Q: Message, A: Message>(
        &self,
        limit: Duration,
        service: &str,
        method: &str,
        request: &Q,
    ) -> Result<A, ttrpc::Error> {
        let mut envelope = Request::new();
        envelope.service = service.to_owned();
        envelope.method = method.to_owned();
        envelope.payload = request.write_to_bytes().unwrap();
        envelope.timeout_nano = i64::try_from(limit.as_nanos()).unwrap();
        let response = self.client.request(envelope)?;
        Ok(A::parse_from_bytes(&response.payload).unwrap())
    }

    /// A call that must succeed.
    pub(crate) fn call<Q: Message, A: Message>(&self, method: &str, request: &Q) -> A {
        self.try_call(TASK_V3, method, request).unwrap_or_else(|e| panic!("{method}: {e}"))
    }

    /// A call that must fail; its code and text.
    pub(crate) fn refused<Q: Message>(&self, method: &str, request: &Q) -> (Code, String) {
        match self.try_call::<Q, protobuf::well_known_types::empty::Empty>(TASK_V3, method, request)
        {
            Err(ttrpc::Error::RpcStatus(status)) => (status.code(), status.message),
            other => panic!("{method}: {other:?}"),
        }
    }

    pub(crate) fn pid(&self) -> Pid {
        let reply: ConnectResponse = self.call("Connect", &ConnectRequest::default());
        Pid::from_raw(i32::try_from(reply.shim_pid).unwrap()).unwrap()
    }
}

/// Waits until `condition` holds.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let until = Instant::now() + SOON;
    while !condition() {
        assert!(Instant::now() < until, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits for the end of a process that is not a child of this one.
pub(crate) fn wait_gone(pid: Pid) {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let Ok(pidfd) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) else {
        return;
    };
    let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
    let limit = Timespec::try_from(SOON).unwrap();
    assert_eq!(poll(&mut fds, Some(&limit)), Ok(1), "process {pid:?} does not end");
}

pub(crate) fn alive(pid: Pid) -> bool {
    let state = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    state.is_ok_and(|s| !s.rsplit(')').next().unwrap().trim_start().starts_with('Z'))
}

/// Makes a fifo in `dir` and opens its reading side, non-blocking.
pub(crate) fn fifo(dir: &Path, name: &str) -> PathBuf {
    let path = dir.join(name);
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    path
}

/// Reads a fifo to its end in a thread; the result is fetched with a limit.
pub(crate) fn collect(path: &Path) -> impl FnOnce() -> String + use<> {
    let path = path.to_owned();
    let (done, result) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let mut file = fs::File::open(path).unwrap();
        file.read_to_end(&mut bytes).unwrap();
        done.send(String::from_utf8_lossy(&bytes).into_owned())
    });
    move || result.recv_timeout(SOON).expect("the output does not end")
}
