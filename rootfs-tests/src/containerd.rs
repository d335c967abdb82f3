//! A private, real containerd.
//!
//! ```text
//! /tmp/bh00c0deXXXX/      short, because socket paths may have 107 bytes
//!   c.sock, c.sock.ttrpc  where ctr, CRI and shims reach it
//!   root/ state/          the daemon's own
//!   bin/                  first in its PATH: shims and runc of the release, the shim under test
//!   cni/                  one bridge network, addresses kept in here
//!   logs/                 of pods
//!   containerd.toml, containerd.log
//!   boathook.toml         configuration of the shim under test
//! ```
//!
//! It runs in the host's namespaces, so that a census sees everything it leaves.

mod config;

use crate::command;
use crate::cri::Cri;
use crate::ctr::Ctr;
use crate::error::{Context, Error, Result};
use crate::grpc::Connection;
use crate::packages::{Packages, Release};
use crate::wait::{self, Deadline, PATIENCE};
use crate::{host, image, workspace};
use rustix::process::Signal;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// The namespace that CRI works in.
pub const CRI_NAMESPACE: &str = "k8s.io";
/// Handler and `ctr --runtime` of the stock shim.
pub const RUNC: &str = "io.containerd.runc.v2";
/// `ctr --runtime` of the shim under test.
pub const BOATHOOK: &str = "io.containerd.boathook.v2";
/// CRI's handler of the shim under test by path, on 2.x; see `config::by_path`.
pub const BY_PATH: &str = "boathook-by-path";
/// The shim under test, as the daemon looks for it.
const SHIM: &str = "containerd-shim-boathook-v2";

/// Where runtimes keep a directory for each of containerd's namespaces.
const RUNTIME_STATE: [&str; 2] = ["/run/containerd/runc", "/run/boathook"];
/// Where the shim keeps records of containers that are gone, on purpose and within bounds.
pub(crate) const JOURNAL: &str = "/run/boathook/.ended";

/// Bytes of the daemon's log that a failure shows.
const LOG_TAIL: usize = 3000;

/// A running daemon; dropping it ends it and what it started.
#[derive(Debug)]
pub struct Daemon {
    packages: Packages,
    dir: TempDir,
    child: Option<Child>,
    /// There was a journal of CRI's containers before, which is not this daemon's to remove.
    journal_before: bool,
}

/// The journal of a namespace of containerd.
fn journal(namespace: &str) -> PathBuf {
    Path::new(JOURNAL).join(format!("{namespace}.jsonl"))
}

impl Daemon {
    /// Starts a daemon of this release and waits until it answers.
    ///
    /// The shim under test is known to it by the handler `boathook` when it has been built.
    ///
    /// # Errors
    /// Something is missing on this machine, or the daemon does not come up; its log is shown.
    pub fn start(release: Release) -> Result<Self> {
        Self::begin(release, "")
    }

    /// As [`Daemon::start`], with a differ of its own that listens on `unpackd.sock` in the
    /// daemon's directory, which it asks first.
    ///
    /// # Errors
    /// As of [`Daemon::start`]. Whether the differ is there is only seen when it is needed.
    pub fn with_differ(release: Release) -> Result<Self> {
        Self::begin(release, &config::differ(release))
    }

    fn begin(release: Release, more: &str) -> Result<Self> {
        host::need_root()?;
        host::exclusive()?;
        let packages = Packages::get(release)?;
        let dir = host::temp_dir()?;
        let journal_before = journal(CRI_NAMESPACE).exists();
        let mut daemon = Self { packages, dir, child: None, journal_before };
        daemon.prepare(more)?;
        daemon.up()?;
        Ok(daemon)
    }

    /// Starts it again after [`Daemon::stop`] or [`Daemon::kill`], on the same directories.
    ///
    /// # Errors
    /// It does not come up; its log is shown.
    pub fn up(&mut self) -> Result<()> {
        let log = self.path("containerd.log");
        let failed = || format!("open {}", log.display());
        let out = File::options().create(true).append(true).open(&log).during(failed)?;
        let err = out.try_clone().during(failed)?;
        let program = self.packages.containerd();
        let system = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        let child = Command::new(&program)
            .arg("--config")
            .arg(self.path("containerd.toml"))
            .env("PATH", format!("{}:{system}", self.path("bin").display()))
            .env("BOATHOOK_CONFIG", self.path("boathook.toml"))
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .during(|| format!("start {}", program.display()))?;
        self.child = Some(child);
        self.ready().map_err(|error| Error::check(format!("{error}\n{}", self.log_tail())))
    }

    /// Ends the daemon in order; its containers live on.
    ///
    /// # Errors
    /// It does not end in time; it is killed then.
    pub fn stop(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        host::signal(child.id(), Signal::TERM)?;
        let ended = command::end(&mut child, "containerd", Deadline::after(PATIENCE));
        ended.map(drop).map_err(|error| Error::check(format!("{error}\n{}", self.log_tail())))
    }

    /// Kills the daemon; its containers live on.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn kill(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        child.kill().during(|| "kill containerd")?;
        child.wait().map(drop).during(|| "wait for containerd")
    }

    /// The process id, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// The release's programs.
    #[must_use]
    pub fn packages(&self) -> &Packages {
        &self.packages
    }

    /// The name of its directory: unique on this machine, fit for a namespace of containerd and
    /// for a cgroup. Containers belong in these, so that [`Daemon::end`] finds what is left.
    #[must_use]
    pub fn name(&self) -> &str {
        self.dir.path().file_name().and_then(|name| name.to_str()).unwrap_or("boathook")
    }

    /// The daemon's directory and everything in it.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Where shims' bundles and the daemon's sockets are.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.path("state")
    }

    /// A directory for pod logs.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.path("logs")
    }

    /// The gRPC socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.path("c.sock")
    }

    /// The daemon's own client in this namespace.
    #[must_use]
    pub fn ctr(&self, namespace: &str) -> Ctr {
        Ctr::new(self.packages.ctr(), self.socket(), namespace)
    }

    /// A CRI client, once the daemon says that runtime and network are ready.
    ///
    /// # Errors
    /// They do not become ready.
    pub fn cri(&self) -> Result<Cri> {
        let cri = Cri::connect(&self.socket())?;
        wait::until("CRI's runtime and network", PATIENCE, || {
            let Ok(answer) = cri.status() else { return Ok(None) };
            let conditions = answer.status.unwrap_or_default().conditions;
            let ready = |name: &str| conditions.iter().any(|it| it.r#type == name && it.status);
            Ok((ready("RuntimeReady") && ready("NetworkReady")).then_some(()))
        })?;
        Ok(cri)
    }

    /// Makes the images of [`crate::image`] known in a namespace.
    ///
    /// # Errors
    /// The import fails.
    pub fn import(&self, namespace: &str) -> Result<()> {
        let cache = self.packages.cache();
        let archive = image::archive(&self.packages.busybox(), &cache)?;
        let archive = archive.display().to_string();
        self.ctr(namespace).ok(&["image", "import", &archive])?;
        if namespace == CRI_NAMESPACE {
            // CRI learns of images by an event of its own.
            let cri = self.cri()?;
            wait::until("CRI's knowledge of the images", PATIENCE, || {
                for name in [image::PAUSE, image::BUSYBOX, image::QUITTER] {
                    if !cri.has_image(name)? {
                        return Ok(None);
                    }
                }
                Ok(Some(()))
            })?;
        }
        Ok(())
    }

    /// The end of the daemon's log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let text = fs::read(self.path("containerd.log")).unwrap_or_default();
        let from = text.len().saturating_sub(LOG_TAIL);
        let tail = String::from_utf8_lossy(text.get(from..).unwrap_or_default()).into_owned();
        format!("containerd's log ends:\n{tail}")
    }

    /// The shims of this daemon that are alive.
    #[must_use]
    pub fn shims(&self) -> Vec<u32> {
        let address = format!("-address {}", self.socket().display());
        host::processes(|line| line.contains(&address) && line.contains("containerd-shim-"))
    }

    /// Ends the daemon and looks that nothing of it remains outside its directory.
    ///
    /// # Errors
    /// It does not end, or its shims do not.
    pub fn end(mut self) -> Result<()> {
        self.stop()?;
        // A shim ends after it has answered the daemon's last call.
        let left = || self.shims();
        wait::until("the end of the shims", PATIENCE, || Ok(left().is_empty().then_some(())))
            .map_err(|_| Error::check(format!("shims outlive their containers: {:?}", left())))?;
        self.sweep()
    }

    /// Removes pods and containers through the daemon, which undoes more of them than killing
    /// their processes does; a daemon that no longer answers cannot.
    fn evacuate(&self) {
        if self.child.is_none() {
            return;
        }
        if let Ok(cri) = Cri::connect(&self.socket()) {
            for pod in cri.list_pods(None).unwrap_or_default() {
                let _ = cri.stop_pod(&pod.id).and_then(|()| cri.remove_pod(&pod.id));
            }
        }
        let ctr = self.ctr(self.name());
        let containers = ctr.ok(&["container", "ls", "-q"]).map(|it| it.text()).unwrap_or_default();
        for id in containers.lines() {
            let _ = ctr.output(&["task", "delete", "--force", id]);
            let _ = ctr.output(&["container", "delete", id]);
        }
    }

    /// Interface names have 15 bytes, of which the directory's takes twelve.
    fn bridge(&self) -> String {
        format!("{}-br", self.name())
    }

    /// Removes what runtimes and network plugins make once and leave: the bridge, and the
    /// directories above containers' cgroups and state.
    fn sweep(&self) -> Result<()> {
        host::remove_link(&self.bridge())?;
        host::remove_cgroup(self.name())?;
        for runtime in RUNTIME_STATE {
            // Not empty is for the census to find.
            let _ = fs::remove_dir(Path::new(runtime).join(self.name()));
        }
        // Else they would stay for an hour, and their directory until the next boot.
        let _ = fs::remove_file(journal(self.name()));
        if !self.journal_before {
            let _ = fs::remove_file(journal(CRI_NAMESPACE));
        }
        let _ = fs::remove_dir(JOURNAL);
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn prepare(&self, more: &str) -> Result<()> {
        for name in ["root", "state", "bin", "cni", "logs"] {
            fs::create_dir(self.path(name)).during(|| format!("mkdir {name}"))?;
        }
        let link = |target: &Path, name: &str| {
            symlink(target, self.path("bin").join(name)).during(|| format!("link {name}"))
        };
        link(&self.packages.runc_shim(), "containerd-shim-runc-v2")?;
        link(&self.packages.runc(), "runc")?;
        if let Ok(shim) = workspace::shim() {
            link(&shim, SHIM)?;
        }
        fs::write(self.path("boathook.toml"), "lifecycle = \"annotations\"\n")
            .during(|| "write boathook.toml")?;
        let network = config::network(&self.bridge(), &self.path("cni-addresses"));
        fs::write(self.path("cni/10-boathook.conflist"), network).during(|| "write CNI's file")?;
        let text = config::daemon(self.packages.release, self.dir.path(), &self.packages.cni());
        let more = more.replace("{dir}", &self.dir.path().display().to_string());
        let text = format!("{text}\n{more}");
        fs::write(self.path("containerd.toml"), text).during(|| "write containerd.toml")
    }

    /// Asks for its version until it answers.
    fn ready(&mut self) -> Result<()> {
        let socket = self.socket();
        let child = &mut self.child;
        wait::until("an answer of containerd", PATIENCE, || {
            if let Some(child) = child.as_mut() {
                let ended = child.try_wait().during(|| "wait for containerd")?;
                crate::ensure!(ended.is_none(), "containerd ended at once: {ended:?}");
            }
            let version = "/containerd.services.version.v1.Version/Version";
            let answer = Connection::open(&socket)
                .and_then(|it| it.call::<(), ()>(version, (), Duration::from_secs(5)));
            Ok(answer.ok())
        })
    }
}

impl Drop for Daemon {
    /// Best effort for a suite that failed half-way; [`Daemon::end`] reports what goes wrong.
    fn drop(&mut self) {
        self.evacuate();
        let _ = self.stop();
        for shim in self.shims() {
            let _ = host::signal(shim, Signal::KILL);
            let _ = wait::gone(shim, PATIENCE);
        }
        let _ = host::kill_cgroup(self.name());
        let _ = host::unmount_below(self.dir.path());
        for runtime in RUNTIME_STATE {
            let _ = fs::remove_dir_all(Path::new(runtime).join(self.name()));
        }
        let _ = self.sweep();
    }
}
