//! What all scenarios share: the packages, a directory, an unpacked image, an
//! end for events, and containers to create.

use std::cell::{Cell, RefCell};
use std::fs;
use std::path::{Path, PathBuf};

use containerd_shim_protos::api::{CreateTaskRequest, CreateTaskResponse};
use containerd_shim_protos::shim::oci::Options;
use containerd_shim_protos::types::mount::Mount;
use protobuf::Message;
use protobuf::well_known_types::any::Any;
use rootfs_tests::bundle::Bundle;
use rootfs_tests::command::Run;
use rootfs_tests::error::{Context, Error, Result};
use rootfs_tests::packages::{Packages, Release};
use rootfs_tests::shimrpc::{Launch, Shim, Sink, Task, create_request};
use rootfs_tests::wait::{self, PATIENCE};
use rootfs_tests::{host, image};
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

/// The profile that nodes apply to every container: the start path is measured with it.
const SECCOMP: &str = include_str!("../../../../runtime/tests/seccomp_common/default_profile.json");

/// The shims that are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    /// containerd's own, with runc.
    Stock,
    /// containerd's own, with crun.
    Crun,
    /// The one in Rust, with runc.
    Rust,
    Ours,
}

impl Which {
    /// A word for ids.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Stock => "stock",
            Self::Crun => "crun",
            Self::Rust => "rust",
            Self::Ours => "ours",
        }
    }

    /// As the table calls it.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Stock => "runc shim",
            Self::Crun => "its shim with crun",
            Self::Rust => "Rust shim with runc",
            Self::Ours => "boathook",
        }
    }

    /// The version of the Task service that it is called by.
    fn service(self) -> u32 {
        // The Rust shim serves the newer one only.
        if self == Self::Rust { 3 } else { 2 }
    }
}

/// Names the shim in Rust, which `cargo xtask bench` builds.
const RUST_SHIM: &str = "BOATHOOK_RUST_SHIM";

/// Where runc keeps the records of that shim's containers in the namespace of these tests.
const RUST_RECORDS: &str = "/run/containerd/runc/boathook-tests";

/// The measuring bench.
pub(crate) struct Rig {
    pub(crate) packages: Packages,
    /// The newest.
    pub(crate) crun: PathBuf,
    pub(crate) rounds: usize,
    /// The shim in Rust, where it could be built.
    pub(crate) rust_shim: Option<PathBuf>,
    dir: TempDir,
    /// Shims wait for whoever takes their events, so somebody does.
    _events: Sink,
    next: Cell<usize>,
    left_out: RefCell<Vec<String>>,
}

/// A container that is ready to be created.
pub(crate) struct Container {
    pub(crate) id: String,
    create: CreateTaskRequest,
    bundle: PathBuf,
    dir: PathBuf,
}

/// A shim that serves, with one connection to it.
pub(crate) struct Served {
    pub(crate) shim: Shim,
    pub(crate) task: Task,
}

impl Rig {
    pub(crate) fn new(rounds: usize) -> Result<Self> {
        let packages = Packages::get(Release::Bookworm)?;
        let dir = tempfile::Builder::new()
            .prefix("bhb")
            .tempdir_in("/tmp")
            .during(|| "make a directory in /tmp")?;
        let lower = dir.path().join("image");
        fs::create_dir(&lower).during(|| "mkdir image")?;
        image::unpack(&packages.busybox(), &lower)?;
        let events = Sink::listen(&dir.path().join("ttrpc.sock"))?;
        let rust_shim = std::env::var_os(RUST_SHIM).map(PathBuf::from);
        let crun = Packages::get(Release::Sid)?.crun();
        Ok(Self {
            packages,
            crun,
            rounds,
            rust_shim,
            dir,
            _events: events,
            next: Cell::new(0),
            left_out: RefCell::default(),
        })
    }

    /// A bundle in the shape that containerd makes: an empty `rootfs`, and an
    /// overlay over the image to be mounted there.
    pub(crate) fn container(&self, which: Which, args: &[&str]) -> Result<Container> {
        self.member(which, args, None)
    }

    /// The same, in the pod of this name.
    pub(crate) fn member(
        &self,
        which: Which,
        args: &[&str],
        pod: Option<&str>,
    ) -> Result<Container> {
        let id = self.name(which.word());
        let dir = self.dir.path().join(&id);
        let layers = ["upper", "work"].map(|name| dir.join(name));
        for layer in &layers {
            fs::create_dir_all(layer).during(|| format!("mkdir {}", layer.display()))?;
        }
        let mut bundle = Bundle::empty(&dir, &id, args)?;
        // Directly below the root: no parent that would stay behind.
        bundle.set("/linux/cgroupsPath", format!("/{id}").into())?;
        let profile: Value = serde_json::from_str(SECCOMP)
            .map_err(|e| Error::Format { what: "seccomp profile".into(), why: e.to_string() })?;
        bundle.add("/linux", "seccomp", profile)?;
        if let Some(pod) = pod {
            bundle.add("", "annotations", json!({ "io.containerd.runc.v2.group": pod }))?;
        }
        let mut create = create_request(&id, &bundle.dir);
        create.rootfs.push(overlay(&self.dir.path().join("image"), &layers));
        if which == Which::Crun {
            create.options = Some(runc_options(&self.crun, &self.dir.path().join("crun"))?).into();
        }
        Ok(Container { id, create, dir, bundle: bundle.dir })
    }

    /// How `which` is started for this container's bundle.
    pub(crate) fn launch(&self, which: Which, container: &Container) -> Result<Launch> {
        match which {
            Which::Stock => Ok(self.stock(container)),
            Which::Crun => Ok(Launch { wrapper: without_controllers(), ..self.stock(container) }),
            Which::Rust => {
                let program = self.rust_shim.clone().ok_or_else(no_rust_shim)?;
                Ok(Launch { program, ..self.stock(container) })
            }
            Which::Ours => Launch::boathook(&container.id, &container.bundle, self.dir.path()),
        }
    }

    /// Notes that the Rust shim could not be measured, and why, and removes what it leaves when it
    /// hangs: itself, its containers with their cgroups, mounts and records, its sockets.
    ///
    /// # Errors
    /// Something cannot be removed.
    pub(crate) fn left_out(&self, error: &Error) -> Result<()> {
        self.left_out.borrow_mut().push(error.to_string());
        let program = self.rust_shim.as_deref().unwrap_or(Path::new("")).display().to_string();
        let dir = self.dir.path().display().to_string();
        let its = |line: &str| line.starts_with(&program) && line.contains(&dir);
        for pid in host::processes(its) {
            let line = host::command_line(pid);
            host::signal(pid, Signal::KILL)?;
            wait::gone(pid, PATIENCE)?;
            let socket = line.split_whitespace().find_map(|word| word.strip_prefix("unix://"));
            if let Some(socket) = socket {
                let _ = fs::remove_file(socket);
            }
        }
        let records = Path::new(RUST_RECORDS);
        for entry in fs::read_dir(records).into_iter().flatten().flatten() {
            let id = entry.file_name().to_string_lossy().into_owned();
            if id.starts_with(&format!("boathook-bench-{}-rust-", std::process::id())) {
                let runc = Run::new(self.packages.runc()).arg("--root").arg(records);
                runc.args(["delete", "--force", &id]).ok()?;
            }
        }
        host::unmount_below(self.dir.path())
    }

    /// What [`Rig::left_out`] has noted.
    pub(crate) fn all_left_out(&self) -> Vec<String> {
        self.left_out.borrow().clone()
    }

    fn stock(&self, container: &Container) -> Launch {
        Launch::stock(&self.packages, &container.id, &container.bundle, self.dir.path())
    }

    /// A name that nothing else on the machine has.
    pub(crate) fn name(&self, word: &str) -> String {
        let number = self.next.replace(self.next.get() + 1);
        format!("boathook-bench-{}-{word}-{number}", std::process::id())
    }

    /// Where the measured containers' files are.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A shim of this kind.
    pub(crate) fn serve(&self, which: Which, container: &Container) -> Result<Served> {
        let shim = self.launch(which, container)?.start()?;
        let task = shim.connect_version(which.service())?;
        Ok(Served { shim, task })
    }
}

impl Served {
    /// Creates a container; answers its process id.
    pub(crate) fn create(&mut self, container: &Container) -> Result<u32> {
        let answer: CreateTaskResponse = self.task.call("Create", &container.create)?;
        Ok(answer.pid)
    }
}

impl Container {
    /// Removes its directory, once it is deleted.
    pub(crate) fn remove(self) -> Result<()> {
        fs::remove_dir_all(&self.dir).during(|| format!("remove {}", self.dir.display()))
    }
}

fn overlay(lower: &Path, [upper, work]: &[PathBuf; 2]) -> Mount {
    let options = [("lowerdir", lower), ("upperdir", upper), ("workdir", work)];
    Mount {
        type_: "overlay".into(),
        source: "overlay".into(),
        options: options.iter().map(|(name, dir)| format!("{name}={}", dir.display())).collect(),
        ..Mount::new()
    }
}

/// crun refuses hosts that have controllers in both hierarchies. Where this is one, the shim that
/// executes crun lives in a mount namespace that does not show the second.
fn without_controllers() -> Vec<String> {
    const SECOND: &str = "/sys/fs/cgroup/unified";
    let controllers = fs::read_to_string(format!("{SECOND}/cgroup.controllers"));
    if controllers.unwrap_or_default().trim().is_empty() {
        return Vec::new();
    }
    let script = format!("mount -t tmpfs none {SECOND} && exec \"$@\"");
    let words = ["unshare", "--mount", "--propagation", "slave", "sh", "-c", &script, "sh"];
    words.map(str::to_owned).to_vec()
}

/// The stock shim's options that name another runtime and where it keeps its records.
fn runc_options(program: &Path, root: &Path) -> Result<Any> {
    let (binary_name, root) = (program.display().to_string(), root.display().to_string());
    let options = Options { binary_name, root, ..Options::new() };
    let value = options
        .write_to_bytes()
        .map_err(|e| Error::Format { what: "runtime options".into(), why: e.to_string() })?;
    Ok(Any { type_url: "containerd.runc.v1.Options".into(), value, ..Any::new() })
}

fn no_rust_shim() -> Error {
    Error::Missing {
        what: "the runc shim in Rust".into(),
        remedy: format!("`cargo xtask bench` builds it and names it in {RUST_SHIM}"),
    }
}
