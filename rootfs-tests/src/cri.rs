//! The kubelet's side of the Container Runtime Interface, version 1.

mod messages;
mod streaming;

pub use messages::*;
pub use streaming::{Ended, Forward, Session};

use crate::error::{Error, Result};
use crate::grpc::{Connection, Subscription};
use crate::image::{BUSYBOX, PAUSE};
use std::path::Path;
use std::time::Duration;

/// The kubelet's own limit for most calls.
const CALL: Duration = Duration::from_secs(120);

/// A CRI client whose calls block.
#[derive(Debug)]
pub struct Cri {
    connection: Connection,
}

/// `/runtime.v1.RuntimeService/` and the method's name.
macro_rules! method {
    ($name:literal) => {
        concat!("/runtime.v1.RuntimeService/", $name)
    };
}

impl Cri {
    /// Connects to a daemon's socket.
    ///
    /// # Errors
    /// Nobody listens there.
    pub fn connect(socket: &Path) -> Result<Self> {
        Ok(Self { connection: Connection::open(socket)? })
    }

    /// Names and versions of the daemon and of the API.
    ///
    /// # Errors
    /// The server's refusal, as in every call here.
    pub fn version(&self) -> Result<VersionResponse> {
        self.call(method!("Version"), VersionRequest { version: "v1".into() })
    }

    /// The conditions `RuntimeReady` and `NetworkReady`.
    ///
    /// # Errors
    /// The server's refusal.
    pub fn status(&self) -> Result<StatusResponse> {
        self.call(method!("Status"), StatusRequest { verbose: true })
    }

    /// Makes and starts a pod sandbox with this runtime handler; answers its id.
    ///
    /// # Errors
    /// The server's refusal.
    pub fn run_pod(&self, config: &PodSandboxConfig, handler: &str) -> Result<String> {
        let request =
            RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: handler.into() };
        self.call::<_, IdMessage>(method!("RunPodSandbox"), request).map(|answer| answer.id)
    }

    /// Stops a pod and everything in it.
    ///
    /// # Errors
    /// The server's refusal.
    pub fn stop_pod(&self, pod: &str) -> Result<()> {
        self.call::<_, Nothing>(method!("StopPodSandbox"), IdMessage::of(pod)).map(drop)
    }

    /// Removes a pod and everything in it.
    ///
    /// # Errors
    /// The server's refusal.
    pub fn remove_pod(&self, pod: &str) -> Result<()> {
        self.call::<_, Nothing>(method!("RemovePodSandbox"), IdMessage::of(pod)).map(drop)
    }

    /// A pod's state, address and labels, with the daemon's own details in `info`.
    ///
    /// # Errors
    /// The server's refusal.
    pub fn pod_status(&self, pod: &str) -> Result<PodSandboxStatusResponse> {
        let request = StatusOfRequest { id: pod.into(), verbose: true };
        self.call(method!("PodSandboxStatus"), request)
    }

    /// The pods that match, all without a filter.
    ///
    /// # Errors
    /// The server's refusal.
    pub fn list_pods(&self, filter: Option<PodSandboxFilter>) -> Result<Vec<PodSandbox>> {
        let answer: ListPodSandboxResponse =
            self.call(method!("ListPodSandbox"), ListPodSandboxRequest { filter })?;
        Ok(answer.items)
    }

    /// Makes a container in a pod; answers its id.
    ///
    /// # Errors
    /// The server's refusal.
    pub fn create(
        &self,
        pod: &str,
        config: &ContainerConfig,
        pod_config: &PodSandboxConfig,
    ) -> Result<String> {
        let request = CreateContainerRequest {
            pod_sandbox_id: pod.into(),
            config: Some(config.clone()),
            sandbox_config: Some(pod_config.clone()),
        };
        self.call::<_, IdMessage>(method!("CreateContainer"), request).map(|answer| answer.id)
    }

    /// Starts a container.
    ///
    /// # Errors
    /// The server's refusal.
    pub fn start(&self, container: &str) -> Result<()> {
        self.call::<_, Nothing>(method!("StartContainer"), IdMessage::of(container)).map(drop)
    }

    /// Stops a container: its stop signal, and SIGKILL after `grace` seconds.
    ///
    /// # Errors
    /// The server's refusal.
    pub fn stop(&self, container: &str, grace: i64) -> Result<()> {
        let request = StopContainerRequest { container_id: container.into(), timeout: grace };
        self.call::<_, Nothing>(method!("StopContainer"), request).map(drop)
    }

    /// Removes a container.
    ///
    /// # Errors
    /// The server's refusal.
    pub fn remove(&self, container: &str) -> Result<()> {
        self.call::<_, Nothing>(method!("RemoveContainer"), IdMessage::of(container)).map(drop)
    }

    /// A container's state, with the daemon's own details in `info`.
    ///
    /// # Errors
    /// The server's refusal, or an answer without a status.
    pub fn container_status(&self, container: &str) -> Result<ContainerStatus> {
        let request = StatusOfRequest { id: container.into(), verbose: true };
        let answer: ContainerStatusResponse = self.call(method!("ContainerStatus"), request)?;
        answer.status.ok_or_else(|| Error::check(format!("{container} has no status")))
    }

    /// The daemon's own details of a container, in JSON.
    ///
    /// # Errors
    /// The server's refusal, or an answer without them.
    pub fn container_info(&self, container: &str) -> Result<String> {
        let request = StatusOfRequest { id: container.into(), verbose: true };
        let mut answer: ContainerStatusResponse = self.call(method!("ContainerStatus"), request)?;
        let info = answer.info.remove("info");
        info.ok_or_else(|| Error::check(format!("{container} has no details")))
    }

    /// The containers that match, all without a filter.
    ///
    /// # Errors
    /// The server's refusal.
    pub fn list_containers(&self, filter: Option<ContainerFilter>) -> Result<Vec<Container>> {
        let answer: ListContainersResponse =
            self.call(method!("ListContainers"), ListContainersRequest { filter })?;
        Ok(answer.containers)
    }

    /// Runs a command in a container; `timeout` in seconds, 0 for none.
    ///
    /// # Errors
    /// The server's refusal, `DeadlineExceeded` when the command took too long.
    pub fn exec(&self, container: &str, cmd: &[&str], timeout: i64) -> Result<ExecSyncResponse> {
        let cmd = cmd.iter().map(|&word| word.to_owned()).collect();
        let request = ExecSyncRequest { container_id: container.into(), cmd, timeout };
        self.call(method!("ExecSync"), request)
    }

    /// Starts a command that is talked to over the daemon's streaming server.
    ///
    /// # Errors
    /// The server's refusal, or its streaming server's.
    pub fn exec_stream(&self, request: ExecRequest) -> Result<Session> {
        let answer: UrlResponse = self.call(method!("Exec"), request)?;
        Session::open(&answer.url)
    }

    /// Joins the streams of a container's first process.
    ///
    /// # Errors
    /// The server's refusal, or its streaming server's.
    pub fn attach(&self, request: AttachRequest) -> Result<Session> {
        let answer: UrlResponse = self.call(method!("Attach"), request)?;
        Session::open(&answer.url)
    }

    /// Opens one connection to a port inside a pod.
    ///
    /// # Errors
    /// The server's refusal, or its streaming server's.
    pub fn forward(&self, pod: &str, port: u16) -> Result<Forward> {
        let request =
            PortForwardRequest { pod_sandbox_id: pod.into(), port: vec![i32::from(port)] };
        let answer: UrlResponse = self.call(method!("PortForward"), request)?;
        Forward::open(&answer.url, port)
    }

    /// What happens to containers from now on; nothing says from when but the first event.
    ///
    /// # Errors
    /// The daemon's socket is gone; a refusal comes with the first event.
    pub fn events(&self) -> Result<Subscription<ContainerEventResponse>> {
        self.connection.subscribe(method!("GetContainerEvents"), Nothing {})
    }

    /// What a pod uses.
    ///
    /// # Errors
    /// The server's refusal, or an answer without stats.
    pub fn pod_stats(&self, pod: &str) -> Result<PodSandboxStats> {
        let request = PodSandboxStatsRequest { pod_sandbox_id: pod.into() };
        let answer: PodSandboxStatsResponse = self.call(method!("PodSandboxStats"), request)?;
        answer.stats.ok_or_else(|| Error::check(format!("{pod} has no stats")))
    }

    /// What all pods use.
    ///
    /// # Errors
    /// The server's refusal.
    pub fn list_pod_stats(&self) -> Result<Vec<PodSandboxStats>> {
        let request = ListPodSandboxStatsRequest { filter: None };
        let answer: ListPodSandboxStatsResponse =
            self.call(method!("ListPodSandboxStats"), request)?;
        Ok(answer.stats)
    }

    /// What a container uses.
    ///
    /// # Errors
    /// The server's refusal, or an answer without stats.
    pub fn stats(&self, container: &str) -> Result<ContainerStats> {
        let answer: ContainerStatsResponse =
            self.call(method!("ContainerStats"), IdMessage::of(container))?;
        answer.stats.ok_or_else(|| Error::check(format!("{container} has no stats")))
    }

    /// What the containers that match use, all without a filter.
    ///
    /// # Errors
    /// The server's refusal.
    pub fn list_stats(&self, filter: Option<ContainerStatsFilter>) -> Result<Vec<ContainerStats>> {
        let answer: ListContainerStatsResponse =
            self.call(method!("ListContainerStats"), ListContainerStatsRequest { filter })?;
        Ok(answer.stats)
    }

    /// Changes a container's limits.
    ///
    /// # Errors
    /// The server's refusal.
    pub fn update(&self, container: &str, linux: LinuxContainerResources) -> Result<()> {
        let container_id = container.into();
        let request = UpdateContainerResourcesRequest { container_id, linux: Some(linux) };
        self.call::<_, Nothing>(method!("UpdateContainerResources"), request).map(drop)
    }

    /// Has the daemon open a container's log file again, as after a rotation.
    ///
    /// # Errors
    /// The server's refusal.
    pub fn reopen_log(&self, container: &str) -> Result<()> {
        self.call::<_, Nothing>(method!("ReopenContainerLog"), IdMessage::of(container)).map(drop)
    }

    /// Whether the daemon's image service knows an image by this name.
    ///
    /// # Errors
    /// The server's refusal.
    pub fn has_image(&self, name: &str) -> Result<bool> {
        let image = Some(ImageSpec { image: name.into(), ..Default::default() });
        let method = "/runtime.v1.ImageService/ImageStatus";
        let answer: ImageStatusResponse = self.call(method, ImageStatusRequest { image })?;
        Ok(answer.image.is_some())
    }

    /// Has the daemon pull an image; answers what it calls it.
    ///
    /// # Errors
    /// The server's refusal.
    pub fn pull(&self, name: &str) -> Result<String> {
        let image = Some(ImageSpec { image: name.into(), ..Default::default() });
        let method = "/runtime.v1.ImageService/PullImage";
        let answer: PullImageResponse = self.call(method, PullImageRequest { image })?;
        Ok(answer.image_ref)
    }

    /// Makes and starts a container; answers its id.
    ///
    /// # Errors
    /// The server's refusal.
    pub fn run(
        &self,
        pod: &str,
        config: &ContainerConfig,
        pod_config: &PodSandboxConfig,
    ) -> Result<String> {
        let id = self.create(pod, config, pod_config)?;
        self.start(&id)?;
        Ok(id)
    }

    fn call<Q, A>(&self, method: &'static str, request: Q) -> Result<A>
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        self.connection.call(method, request, CALL)
    }
}

impl PodSandboxConfig {
    /// A pod with its own network, host name, cgroup parent and log directory.
    #[must_use]
    pub fn simple(name: &str, cgroup_parent: &str, logs: &Path) -> Self {
        Self {
            metadata: Some(PodSandboxMetadata {
                name: name.into(),
                uid: format!("uid-{name}"),
                namespace: "boathook-tests".into(),
                attempt: 0,
            }),
            hostname: format!("host-{name}"),
            log_directory: logs.display().to_string(),
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent: cgroup_parent.into(),
                security_context: Some(LinuxSandboxSecurityContext {
                    namespace_options: Some(NamespaceOption::container_pids()),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        }
    }
}

impl ContainerConfig {
    /// A busybox container that runs this command and logs to `<name>.log`.
    #[must_use]
    pub fn simple(name: &str, command: &[&str]) -> Self {
        Self {
            metadata: Some(ContainerMetadata { name: name.into(), attempt: 0 }),
            image: Some(ImageSpec { image: BUSYBOX.into(), ..Default::default() }),
            command: command.iter().map(|&word| word.to_owned()).collect(),
            log_path: format!("{name}.log"),
            linux: Some(LinuxContainerConfig {
                resources: None,
                security_context: Some(LinuxContainerSecurityContext {
                    namespace_options: Some(NamespaceOption::container_pids()),
                    ..Default::default()
                }),
            }),
            ..Default::default()
        }
    }
}

impl NamespaceOption {
    /// Network and IPC shared in the pod, processes not: the kubelet's default.
    #[must_use]
    pub fn container_pids() -> Self {
        Self { pid: NamespaceMode::Container.into(), ..Self::default() }
    }
}

/// The image that the daemon's configuration names for sandboxes.
pub(crate) const SANDBOX_IMAGE: &str = PAUSE;
