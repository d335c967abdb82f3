//! What all scenarios share: the packages, a directory, an unpacked image, an
//! end for events, and containers to create.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};

use containerd_shim_protos::api::{CreateTaskRequest, CreateTaskResponse};
use containerd_shim_protos::types::mount::Mount;
use rootfs_tests::bundle::Bundle;
use rootfs_tests::error::{Context, Result};
use rootfs_tests::image;
use rootfs_tests::packages::{Packages, Release};
use rootfs_tests::shimrpc::{Launch, Shim, Sink, Task, create_request};
use tempfile::TempDir;

/// The two shims that are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    Stock,
    Ours,
}

impl Which {
    /// A word for ids.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Stock => "stock",
            Self::Ours => "ours",
        }
    }
}

/// The measuring bench.
pub(crate) struct Rig {
    pub(crate) packages: Packages,
    pub(crate) rounds: usize,
    dir: TempDir,
    /// Shims wait for whoever takes their events, so somebody does.
    _events: Sink,
    next: Cell<usize>,
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
        Ok(Self { packages, rounds, dir, _events: events, next: Cell::new(0) })
    }

    /// A bundle in the shape that containerd makes: an empty `rootfs`, and an
    /// overlay over the image to be mounted there.
    pub(crate) fn container(&self, which: Which, args: &[&str]) -> Result<Container> {
        let number = self.next.replace(self.next.get() + 1);
        let id = format!("boathook-bench-{}-{number}", which.word());
        let dir = self.dir.path().join(&id);
        let layers = ["upper", "work"].map(|name| dir.join(name));
        for layer in &layers {
            fs::create_dir_all(layer).during(|| format!("mkdir {}", layer.display()))?;
        }
        let mut bundle = Bundle::empty(&dir, &id, args)?;
        // Directly below the root: no parent that would stay behind.
        bundle.set("/linux/cgroupsPath", format!("/{id}").into())?;
        let mut create = create_request(&id, &bundle.dir);
        create.rootfs.push(overlay(&self.dir.path().join("image"), &layers));
        Ok(Container { id, create, dir, bundle: bundle.dir })
    }

    /// How `which` is started for this container's bundle.
    pub(crate) fn launch(&self, which: Which, container: &Container) -> Result<Launch> {
        match which {
            Which::Stock => {
                Ok(Launch::stock(&self.packages, &container.id, &container.bundle, self.dir.path()))
            }
            Which::Ours => Launch::boathook(&container.id, &container.bundle, self.dir.path()),
        }
    }

    /// A shim of this kind, called by the version of the service that both speak.
    pub(crate) fn serve(&self, which: Which, container: &Container) -> Result<Served> {
        let shim = self.launch(which, container)?.start()?;
        let task = shim.connect_version(2)?;
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
