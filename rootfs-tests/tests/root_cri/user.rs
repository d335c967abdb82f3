//! Pods with a user namespace of their own, and what a handler says it can do.

use crate::pod::{Pod, SLEEP};
use rootfs_tests::containerd::BY_PATH;
use rootfs_tests::cri::{
    ContainerConfig, IdMapping, Mount, NamespaceMode, NamespaceOption, UserNamespace,
};
use rootfs_tests::error::{Context, Error, Result};
use rootfs_tests::suite::{Runtime, Scene};
use rootfs_tests::{ensure, ensure_eq};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::MetadataExt;

/// The host's user that is root inside.
const ROOT: u32 = 200_000;

fn mapping() -> IdMapping {
    IdMapping { host_id: ROOT, container_id: 0, length: 65_536 }
}

/// As the kubelet asks for with `hostUsers: false`.
fn option() -> NamespaceOption {
    NamespaceOption {
        userns_options: Some(UserNamespace {
            mode: NamespaceMode::Pod.into(),
            uids: vec![mapping()],
            gids: vec![mapping()],
        }),
        ..NamespaceOption::container_pids()
    }
}

fn container(name: &str, volume: &str) -> ContainerConfig {
    let mut config = ContainerConfig::simple(name, &SLEEP);
    if let Some(context) = config.linux.as_mut().and_then(|it| it.security_context.as_mut()) {
        context.namespace_options = Some(option());
    }
    config.mounts = vec![Mount {
        container_path: "/data".into(),
        host_path: volume.into(),
        uid_mappings: vec![mapping()],
        gid_mappings: vec![mapping()],
        ..Default::default()
    }];
    config
}

pub(crate) fn user_namespace(scene: &mut Scene<'_>) -> Result<()> {
    let volume = scene.daemon.dir().join(format!("volume-of-{}", scene.id));
    fs::create_dir_all(&volume).during(|| "make a volume")?;
    fs::write(volume.join("file"), "from the host\n").during(|| "write into a volume")?;
    let pod = Pod::with(scene, |config| {
        let context = config.linux.as_mut().and_then(|linux| linux.security_context.as_mut());
        if let Some(context) = context {
            context.namespace_options = Some(option());
        }
    })?;
    let data = volume.display().to_string();
    let (one, two) = (pod.run(&container("one", &data))?, pod.run(&container("two", &data))?);
    for file in ["uid_map", "gid_map"] {
        let map = pod.exec(&one, &format!("cat /proc/self/{file}"))?;
        let words: Vec<&str> = map.split_whitespace().collect();
        ensure_eq!(words, ["0", "200000", "65536"], "{file}");
    }
    let link = "readlink /proc/self/ns/user";
    ensure_eq!(pod.exec(&one, link)?, pod.exec(&two, link)?, "user namespaces in the pod");
    ensure_eq!(pod.exec(&one, "id -u; id -g")?, "0\n0", "user and group inside");
    let pid = pod.first_process(&one)?;
    let owner = fs::metadata(format!("/proc/{pid}")).during(|| "look at the process")?;
    ensure_eq!(owner.uid(), ROOT, "user outside");
    // Files of the image and of volumes keep their owners.
    ensure_eq!(
        pod.exec(&one, "stat -c %u:%g /bin/busybox")?,
        "0:0",
        "owner of a file of the image"
    );
    ensure_eq!(pod.exec(&one, "stat -c %u:%g /home/boat")?, "1000:1000", "owner of a home");
    ensure_eq!(pod.exec(&one, "stat -c %u:%g /data/file")?, "0:0", "owner of a volume's file");
    pod.exec(&one, "echo inside > /data/new && chown 7:8 /data/new")?;
    let made = fs::metadata(volume.join("new")).during(|| "look at the new file")?;
    ensure_eq!((made.uid(), made.gid()), (7, 8), "owner of a file that was made inside");
    // Root inside is nobody outside.
    let refused = pod.cri.exec(&one, &["sh", "-c", "echo 1 > /proc/sys/kernel/panic"], 20)?;
    ensure!(refused.exit_code != 0, "the host's settings were written");
    // The pod's network belongs to it.
    let ip = pod.cri.pod_status(&pod.id)?.status.and_then(|it| it.network).unwrap_or_default().ip;
    let seen = pod.exec(&two, "ip -4 -o addr show eth0")?;
    ensure!(seen.contains(&format!("{ip}/24")), "address {ip} is not in {seen:?}");
    pod.end()
}

/// What the daemon asks every handler at its start, and a person with `ctr`.
pub(crate) fn runtime_info(scene: &mut Scene<'_>) -> Result<()> {
    // containerd 2.1 asks shims of the type runc only, whatever program the handler names.
    let name = match scene.runtime {
        Runtime::Runc => scene.runtime.handler(),
        Runtime::Boathook => BY_PATH,
    };
    let handlers = scene.cri()?.status()?.runtime_handlers;
    let own = handlers.iter().find(|handler| handler.name == name);
    let features = own.and_then(|handler| handler.features.as_ref());
    let features = features.ok_or_else(|| Error::check(format!("no {name} in {handlers:?}")))?;
    ensure!(features.user_namespaces, "{name} has no user namespaces: {features:?}");
    ensure!(features.recursive_read_only_mounts, "{name} has no rro mounts: {features:?}");
    let told =
        scene.ctr.ok(&["plugins", "inspect-runtime", "--runtime", scene.runtime.ctr()])?.text();
    let told: Value = serde_json::from_str(&told)
        .map_err(|error| Error::check(format!("no JSON ({error}): {told}")))?;
    let list = |place: &str| -> Vec<&str> {
        let found = told.pointer(place).and_then(Value::as_array);
        found.into_iter().flatten().filter_map(Value::as_str).collect()
    };
    for namespace in ["user", "mount", "pid", "network", "ipc", "uts", "cgroup"] {
        let known = list("/Features/linux/namespaces");
        ensure!(known.contains(&namespace), "no namespace {namespace} in {told}");
    }
    ensure!(list("/Features/mountOptions").contains(&"rro"), "no mount option rro in {told}");
    Ok(())
}
