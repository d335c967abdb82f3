//! Hooks in pods, through CRI.

use crate::support::{Record, Subject, exec, record};
use rootfs_tests::containerd::CRI_NAMESPACE;
use rootfs_tests::cri::{ContainerConfig, Cri, ImageSpec, Mount, PodSandboxConfig};
use rootfs_tests::error::{Context, Result};
use rootfs_tests::image::BUSYBOX;
use rootfs_tests::suite::Scene;
use rootfs_tests::{ensure, ensure_eq};
use std::collections::HashMap;
use std::fs;

const POLITE: &str = "trap 'echo quit >>/out/log; exit 5' QUIT TERM; echo ready >>/out/log; while :; do sleep 1000 & wait; done";

/// A pod without containers.
pub(crate) struct Sandbox {
    pub(crate) cri: Cri,
    pub(crate) id: String,
    config: PodSandboxConfig,
    name: String,
}

impl Sandbox {
    pub(crate) fn start(
        scene: &Scene<'_>,
        name: &str,
        annotations: &[(&str, &str)],
    ) -> Result<Self> {
        let cri = scene.cri()?;
        let logs = scene.daemon.dir().join("pods").join(name);
        fs::create_dir_all(&logs).during(|| "make the pod's log directory")?;
        let parent = format!("/{}", scene.daemon.name());
        let mut config = PodSandboxConfig::simple(name, &parent, &logs);
        config.annotations = owned(annotations);
        let id = cri.run_pod(&config, scene.runtime.handler())?;
        Ok(Self { cri, id, config, name: name.to_owned() })
    }

    /// Runs a container of the pod; returns its id, and the directory that it sees as `/out`.
    pub(crate) fn run(
        &self,
        scene: &Scene<'_>,
        (name, image): (&str, &str),
        annotations: &[(&str, &str)],
        script: &str,
    ) -> Result<(String, Subject)> {
        let (id, subject) = self.create(scene, (name, image), annotations, script)?;
        self.cri.start(&id)?;
        Ok((id, subject))
    }

    /// Makes a container that is not started.
    pub(crate) fn create(
        &self,
        scene: &Scene<'_>,
        (name, image): (&str, &str),
        annotations: &[(&str, &str)],
        script: &str,
    ) -> Result<(String, Subject)> {
        let subject = Subject::new(scene, &format!("{}-{name}", self.name))?;
        let mut container = ContainerConfig::simple(name, &["sh", "-c", script]);
        container.image = Some(ImageSpec { image: image.to_owned(), ..Default::default() });
        container.annotations = owned(annotations);
        container.mounts.push(Mount {
            container_path: "/out".into(),
            host_path: subject.out.display().to_string(),
            ..Default::default()
        });
        let id = self.cri.create(&self.id, &container, &self.config)?;
        Ok((id, subject))
    }

    pub(crate) fn end(self) -> Result<()> {
        self.cri.stop_pod(&self.id)?;
        self.cri.remove_pod(&self.id)
    }
}

fn owned(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

/// A pod with one container `web`.
pub(crate) struct Pod {
    pub(crate) sandbox: Sandbox,
    pub(crate) container: String,
    pub(crate) subject: Subject,
}

impl Pod {
    pub(crate) fn start(
        scene: &Scene<'_>,
        name: &str,
        pod: &[(&str, &str)],
        container: &[(&str, &str)],
        script: &str,
    ) -> Result<Self> {
        let sandbox = Sandbox::start(scene, name, pod)?;
        let (container, subject) = sandbox.run(scene, ("web", BUSYBOX), container, script)?;
        Ok(Self { sandbox, container, subject })
    }

    fn record(&self) -> Result<Record> {
        record(CRI_NAMESPACE, &self.container)
    }

    pub(crate) fn end(self) -> Result<()> {
        self.sandbox.end()
    }
}

/// Annotations of the pod name the container; a web server of the pod is asked at the pod's address.
pub(crate) fn hooks_in_a_pod(scene: &mut Scene<'_>) -> Result<()> {
    let name = scene.id.clone();
    let start = exec("echo hook >>/out/started");
    let pre_stop = r#"{"httpGet":{"path":"/bye","port":8080}}"#;
    let annotations = [
        ("post-start.boathook.dev/web", start.as_str()),
        ("pre-stop.boathook.dev/web", pre_stop),
        ("pre-stop.boathook.dev/other", "not for us"),
    ];
    let script = format!(
        "mkdir -p /www; echo bye >/www/bye; httpd -f -p 8080 -h /www -vv 2>>/out/http & \
         until grep -q ':1F90 ' /proc/net/tcp /proc/net/tcp6; do sleep 0.05; done; {POLITE}"
    );
    let pod = Pod::start(scene, &name, &annotations, &[], &script)?;
    pod.subject.logged("ready")?;
    let record = pod.record()?;
    ensure_eq!(record.0["policy"]["container"], "web", "the container's name");
    // CRI removes the container's state with its end.
    pod.sandbox.cri.stop(&pod.container, 30)?;
    ensure_eq!(pod.sandbox.cri.container_status(&pod.container)?.exit_code, 5, "exit code");
    ensure_eq!(pod.subject.lines("started"), ["hook"], "the postStart hook");
    ensure_eq!(pod.subject.lines("log"), ["ready", "quit"], "log");
    let http = pod.subject.lines("http").join("\n");
    ensure!(http.contains("198.18.0.") && http.contains("/bye"), "the server's log: {http}");
    pod.end()
}

/// The kubelet's annotations count when the stop comes without the kubelet, and not when the hook
/// was just run.
pub(crate) fn backstop(scene: &mut Scene<'_>) -> Result<()> {
    let config = scene.daemon.dir().join("boathook.toml");
    fs::write(&config, "lifecycle = \"backstop\"\n").during(|| "write boathook.toml")?;
    let result = backstopped(scene);
    fs::write(&config, "lifecycle = \"annotations\"\n").during(|| "write boathook.toml")?;
    result
}

fn backstopped(scene: &mut Scene<'_>) -> Result<()> {
    let command = ["sh", "-c", "echo hook >>/out/log"];
    let hook = serde_json::json!({ "exec": { "command": command } }).to_string();
    let kubelet = [
        ("io.kubernetes.container.preStopHandler", hook.as_str()),
        ("io.kubernetes.pod.terminationGracePeriod", "20"),
    ];
    for (run_by_kubelet, name) in [(false, "down"), (true, "up")] {
        let name = format!("{}-{name}", scene.id);
        let pod = Pod::start(scene, &name, &[], &kubelet, POLITE)?;
        pod.subject.logged("ready")?;
        if run_by_kubelet {
            let said = pod.sandbox.cri.exec(&pod.container, &command, 20)?;
            ensure_eq!(said.exit_code, 0, "exit code of the hook, run as the kubelet does");
        }
        let record = pod.record()?;
        ensure_eq!(record.0["policy"]["origin"], "kubelet", "origin");
        ensure_eq!(record.0["policy"]["grace"], 20, "grace period");
        pod.sandbox.cri.stop(&pod.container, 20)?;
        let log = pod.subject.lines("log");
        ensure_eq!(log, ["ready", "hook", "quit"], "log with the kubelet {name}");
        pod.end()?;
    }
    Ok(())
}
