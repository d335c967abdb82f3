//! The daemon's configuration, in the version its release reads, and its network.

use crate::cri::SANDBOX_IMAGE;
use crate::packages::Release;
use serde_json::json;
use std::path::Path;

/// `containerd.toml` for a daemon that keeps to `dir`.
pub(super) fn daemon(release: Release, dir: &Path, cni: &Path) -> String {
    let plugins = match release {
        Release::Bookworm | Release::Trixie => version_2(dir, cni),
        Release::Sid => version_3(dir, cni),
    };
    let version = if release == Release::Sid { 3 } else { 2 };
    let dir = dir.display();
    // The disabled plugins would look for devices and sockets of the host.
    format!(
        r#"version = {version}
root = "{dir}/root"
state = "{dir}/state"
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.blockfile",
  "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.erofs", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.internal.v1.tracing", "io.containerd.tracing.processor.v1.otlp",
  "io.containerd.nri.v1.nri",
]

[grpc]
address = "{dir}/c.sock"

[ttrpc]
address = "{dir}/c.sock.ttrpc"

[debug]
level = "info"

[plugins."io.containerd.internal.v1.opt"]
path = "{dir}/opt"

{plugins}"#
    )
}

/// A differ at `{dir}/unpackd.sock`, asked before the daemon's own. 2.x pulls through its transfer
/// service, which has one differ and no second.
pub(super) fn differ(release: Release) -> String {
    let service = r#"[proxy_plugins.boathook]
type = "diff"
address = "{dir}/unpackd.sock"
[plugins."io.containerd.service.v1.diff-service"]
default = ["boathook", "walking"]
"#;
    let transfer = r#"[[plugins."io.containerd.transfer.v1.local".unpack_config]]
platform = "linux/amd64"
snapshotter = "overlayfs"
differ = "boathook"
"#;
    match release {
        Release::Bookworm | Release::Trixie => service.to_owned(),
        Release::Sid => format!("{service}{transfer}"),
    }
}

/// containerd 1.6 and 1.7: one CRI plugin.
fn version_2(dir: &Path, cni: &Path) -> String {
    let (runtimes, dir, cni) =
        (runtimes("io.containerd.grpc.v1.cri"), dir.display(), cni.display());
    format!(
        r#"[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{SANDBOX_IMAGE}"
restrict_oom_score_adj = true
disable_tcp_service = true
stream_server_address = "127.0.0.1"
stream_server_port = "0"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{cni}"
conf_dir = "{dir}/cni"
{runtimes}"#
    )
}

/// containerd 2.x: CRI is one plugin for images and one for containers.
fn version_3(dir: &Path, cni: &Path) -> String {
    let plugin = "io.containerd.cri.v1.runtime";
    let (runtimes, by_path) = (runtimes(plugin), by_path(plugin, dir));
    let (dir, cni) = (dir.display(), cni.display());
    format!(
        r#"[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{SANDBOX_IMAGE}"
[plugins."io.containerd.cri.v1.images".registry]
config_path = "{dir}/hosts"
[plugins."io.containerd.grpc.v1.cri"]
disable_tcp_service = true
stream_server_address = "127.0.0.1"
stream_server_port = "0"
[plugins."io.containerd.cri.v1.runtime"]
restrict_oom_score_adj = true
[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["{cni}"]
conf_dir = "{dir}/cni"
{runtimes}{by_path}"#
    )
}

/// The handlers `runc` and `boathook`; both get our annotations.
fn runtimes(plugin: &str) -> String {
    let handler = |name: &str, kind: &str| {
        format!(
            "[plugins.\"{plugin}\".containerd.runtimes.{name}]\n\
             runtime_type = \"{kind}\"\n\
             pod_annotations = [\"*.boathook.dev/*\"]\n\
             container_annotations = [\"*.boathook.dev/*\", \"io.kubernetes.container.*\", \
             \"io.kubernetes.pod.*\"]\n"
        )
    };
    format!(
        "[plugins.\"{plugin}\".containerd]\nsnapshotter = \"overlayfs\"\n\
         default_runtime_name = \"runc\"\n{}{}",
        handler("runc", super::RUNC),
        handler("boathook", super::BOATHOOK)
    )
}

/// The shim under test by its path, under the stock shim's name: the one that containerd 2.1 asks
/// for features.
fn by_path(plugin: &str, dir: &Path) -> String {
    format!(
        "[plugins.\"{plugin}\".containerd.runtimes.{}]\n\
         runtime_type = \"{}\"\n\
         runtime_path = \"{}/bin/{}\"\n",
        super::BY_PATH,
        super::RUNC,
        dir.display(),
        super::SHIM,
    )
}

/// A CNI network of one bridge without a gateway: pods reach each other and nobody else, and
/// neither packet filter nor forwarding of the host is touched. 198.18.0.0/15 is set aside for
/// measurements (RFC 2544).
pub(super) fn network(bridge: &str, addresses: &Path) -> String {
    json!({
        "cniVersion": "0.4.0",
        "name": bridge,
        "plugins": [{
            "type": "bridge",
            "bridge": bridge,
            "isGateway": false,
            "ipMasq": false,
            "ipam": {
                "type": "host-local",
                "dataDir": addresses,
                "ranges": [[{ "subnet": "198.18.0.0/24" }]],
            },
        }],
    })
    .to_string()
}
