//! Shims without a daemon: bundles, and calls by hand.

use std::fs;
use std::path::Path;

use containerd_shim_protos::api::{CreateTaskRequest, DeleteResponse, StartRequest};
use protobuf::Message;
use rootfs_tests::bundle::Bundle;
use rootfs_tests::census::Census;
use rootfs_tests::error::{Error, Result};
use rootfs_tests::packages::{Packages, Release};
use rootfs_tests::shimrpc::{Launch, Pending, Shim, Task, create_request};
use rootfs_tests::wait::{self, PATIENCE};
use rootfs_tests::{ensure_eq, host};
use rustix::process::Signal;
use serde_json::json;
use tempfile::TempDir;

pub(crate) const SIGKILL: u32 = 9;
pub(crate) const SLEEP: [&str; 2] = ["sleep", "1000"];

/// Where one test has its bundles.
pub(crate) struct Rig {
    packages: Packages,
    dir: TempDir,
}

impl Rig {
    pub(crate) fn new() -> Result<Self> {
        // As the kubelet does for a pod; else it belongs to the first container.
        host::make_cgroup(host::mark())?;
        Ok(Self { packages: Packages::get(Release::Bookworm)?, dir: host::temp_dir()? })
    }

    /// Ends what a failed test has left.
    pub(crate) fn sweep(&self) {
        let _ = host::kill_cgroup(host::mark());
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A bundle whose name and cgroup bear this process's mark.
    pub(crate) fn bundle(&self, name: &str, args: &[&str]) -> Result<Bundle> {
        let id = format!("{}-{name}", host::mark());
        let mut bundle = Bundle::busybox(self.dir(), &id, args, &self.packages)?;
        bundle.set("/linux/cgroupsPath", json!(format!("/{}/{id}", host::mark())))?;
        Ok(bundle)
    }

    /// Starts a shim for it.
    pub(crate) fn shim(&self, bundle: &Bundle) -> Result<Shim> {
        Launch::boathook(id(bundle), &bundle.dir, self.dir())?.start()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        // With something in it, it stays for the census to find.
        let _ = host::remove_cgroup(host::mark());
    }
}

/// The id of a bundle's container.
pub(crate) fn id(bundle: &Bundle) -> &str {
    bundle.dir.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

/// Sends a Create whose answer is taken later.
pub(crate) fn send_create(task: &mut Task, bundle: &Bundle) -> Result<Pending> {
    task.send("Create", &create_request(id(bundle), &bundle.dir))
}

/// Sends a Create with this state directory, as the option of containerd's stock runtime.
pub(crate) fn create_below(task: &mut Task, bundle: &Bundle, root: &Path) -> Result<u32> {
    let options = containerd_shim_protos::shim::oci::Options {
        root: root.display().to_string(),
        ..Default::default()
    };
    let value = options.write_to_bytes().map_err(|error| Error::check(error.to_string()))?;
    let type_url = "containerd.runc.v1.Options".to_owned();
    let any = protobuf::well_known_types::any::Any { type_url, value, ..Default::default() };
    let request =
        CreateTaskRequest { options: Some(any).into(), ..create_request(id(bundle), &bundle.dir) };
    let answer: containerd_shim_protos::api::CreateTaskResponse = task.call("Create", &request)?;
    Ok(answer.pid)
}

/// Sends a Start whose answer is taken later.
pub(crate) fn send_start(task: &mut Task, bundle: &Bundle) -> Result<Pending> {
    let id = id(bundle).to_owned();
    task.send("Start", &StartRequest { id, ..StartRequest::new() })
}

/// Kills the shim's server and waits for its end.
pub(crate) fn kill_server(shim: &Shim) -> Result<()> {
    let pid = shim.connect()?.connect(&shim.launch().id)?.shim_pid;
    host::signal(pid, Signal::KILL)?;
    wait::gone(pid, PATIENCE)
}

/// Runs the binary's `delete`, which must succeed, and returns its answer.
pub(crate) fn run_delete(shim: &Shim) -> Result<DeleteResponse> {
    let output = shim.launch().run("delete")?;
    if output.code != 0 {
        return Err(output.refused());
    }
    DeleteResponse::parse_from_bytes(&output.stdout)
        .map_err(|error| Error::check(format!("answer of delete: {error}")))
}

/// Ends a running container and forgets it.
pub(crate) fn finish(task: &mut Task, bundle: &Bundle) -> Result<()> {
    let id = id(bundle);
    let wait = task.wait(id, "")?;
    task.kill(id, "", SIGKILL, false)?;
    ensure_eq!(task.ended(&wait)?, 137, "exit status");
    task.delete(id, "").map(drop)
}

/// The same bundle without its hooks lives a whole life, and leaves nothing either.
pub(crate) fn again(rig: &Rig, bundle: &Bundle, before: &Census) -> Result<()> {
    before.assert_same()?;
    let mut bundle = bundle.clone();
    if let Some(config) = bundle.config.as_object_mut() {
        config.remove("hooks");
    }
    bundle.save()?;
    let _ = fs::remove_file(bundle.dir.join("boathook.json"));
    let shim = rig.shim(&bundle)?;
    let mut task = shim.connect()?;
    task.create(id(&bundle), &bundle.dir)?;
    task.start(id(&bundle), "")?;
    finish(&mut task, &bundle)?;
    shim.end()?;
    before.assert_same()
}
