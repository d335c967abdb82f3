//! A pod for the scenarios.

use rootfs_tests::census;
use rootfs_tests::cri::{ContainerConfig, ContainerState, Cri, PodSandboxConfig};
use rootfs_tests::error::{Context, Error, Result};
use rootfs_tests::suite::{Runtime, Scene};
use rootfs_tests::wait::{self, PATIENCE};
use rootfs_tests::{ensure_eq, host};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

pub(crate) const SLEEP: [&str; 2] = ["sleep", "1000"];

/// A pod that runs, with the client that drives it.
pub(crate) struct Pod {
    pub(crate) cri: Cri,
    pub(crate) id: String,
    pub(crate) config: PodSandboxConfig,
    pub(crate) logs: PathBuf,
}

impl Pod {
    pub(crate) fn start(scene: &Scene<'_>) -> Result<Self> {
        Self::with(scene, |_| {})
    }

    pub(crate) fn with(
        scene: &Scene<'_>,
        change: impl FnOnce(&mut PodSandboxConfig),
    ) -> Result<Self> {
        Self::named(scene, &scene.id, change)
    }

    /// Starts a pod of this name; the client is its own, for a thread of its own.
    pub(crate) fn named(
        scene: &Scene<'_>,
        name: &str,
        change: impl FnOnce(&mut PodSandboxConfig),
    ) -> Result<Self> {
        let cri = scene.cri()?;
        let logs = scene.daemon.dir().join("pods").join(name);
        fs::create_dir_all(&logs).during(|| "make the pod's log directory")?;
        let parent = format!("/{}", scene.daemon.name());
        let mut config = PodSandboxConfig::simple(name, &parent, &logs);
        change(&mut config);
        let id = cri.run_pod(&config, scene.runtime.handler())?;
        Ok(Self { cri, id, config, logs })
    }

    pub(crate) fn run(&self, config: &ContainerConfig) -> Result<String> {
        self.cri.run(&self.id, config, &self.config)
    }

    pub(crate) fn sleeper(&self, name: &str) -> Result<String> {
        self.run(&ContainerConfig::simple(name, &SLEEP))
    }

    /// Runs a command and wants success; its standard output without white space round it.
    pub(crate) fn exec(&self, container: &str, script: &str) -> Result<String> {
        let said = self.cri.exec(container, &["sh", "-c", script], 20)?;
        let error = String::from_utf8_lossy(&said.stderr);
        ensure_eq!(said.exit_code, 0, "exit code of {script:?}, which said {error:?}");
        Ok(String::from_utf8_lossy(&said.stdout).trim().to_owned())
    }

    /// Waits until a container's log holds this line.
    pub(crate) fn logged(&self, name: &str, line: &str) -> Result<()> {
        let path = self.logs.join(format!("{name}.log"));
        wait::until(&format!("{line:?} in {}", path.display()), PATIENCE, || {
            let text = fs::read_to_string(&path).unwrap_or_default();
            Ok(text.lines().any(|it| it.ends_with(line)).then_some(()))
        })
    }

    pub(crate) fn state(&self, container: &str) -> Result<ContainerState> {
        let state = self.cri.container_status(container)?.state;
        ContainerState::try_from(state).map_err(|_| Error::check(format!("state {state}")))
    }

    pub(crate) fn exited(&self, container: &str) -> Result<()> {
        wait::until("the container's end", PATIENCE, || {
            Ok((self.state(container)? == ContainerState::Exited).then_some(()))
        })
    }

    /// The host's process id of a container's first process, as the daemon tells it.
    pub(crate) fn first_process(&self, container: &str) -> Result<u32> {
        let info = self.cri.container_info(container)?;
        let json: serde_json::Value = serde_json::from_str(&info)
            .map_err(|error| Error::check(format!("info of {container}: {error}")))?;
        let pid = json.pointer("/pid").and_then(serde_json::Value::as_u64);
        pid.and_then(|pid| u32::try_from(pid).ok())
            .ok_or_else(|| Error::check(format!("no pid: {info}")))
    }

    /// The process id of the pod's shim.
    pub(crate) fn shim(&self, scene: &Scene<'_>) -> Result<u32> {
        let is_its = |pid: &u32| host::command_line(*pid).contains(&self.id);
        let shim = scene.daemon.shims().into_iter().find(is_its);
        shim.ok_or_else(|| Error::check(format!("no shim of pod {}", self.id)))
    }

    /// What a shim that has had containers holds when nobody calls it.
    pub(crate) fn descriptors(scene: &Scene<'_>, shim: u32) -> Result<BTreeMap<String, usize>> {
        match scene.runtime {
            Runtime::Boathook => census::settled_descriptors(shim),
            Runtime::Runc => census::descriptors(shim),
        }
    }

    /// Waits until a process holds the same descriptors as `before`.
    pub(crate) fn same_descriptors(pid: u32, before: &BTreeMap<String, usize>) -> Result<()> {
        let mut last = BTreeMap::new();
        let same = wait::until("the descriptors as they were", PATIENCE, || {
            last = census::descriptors(pid)?;
            Ok((last == *before).then_some(()))
        });
        same.map_err(|error| {
            let (before, last) = (census::listing(before), census::listing(&last));
            Error::check(format!("{error}\nbefore:{before}\nafter:{last}"))
        })
    }

    pub(crate) fn end(self) -> Result<()> {
        self.cri.stop_pod(&self.id)?;
        self.cri.remove_pod(&self.id)
    }
}
