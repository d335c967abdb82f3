//! `-info`: what this runtime is and what it can do.

use std::io::{Read, Write};

use containerd_shim_protos::types::introspection::{RuntimeInfo, RuntimeVersion};
use protobuf::Message;
use protobuf::well_known_types::any::Any;
use serde_json::{Value, json};

use crate::failure::{Failure, Result};
use crate::options::Options;

const FEATURES_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/features/Features";
const MAX_STDIN: u64 = 4 << 20;

/// Reads options from stdin, writes `containerd.types.RuntimeInfo` to stdout.
///
/// # Errors
/// Options this shim does not accept; streams that cannot be used.
pub fn info() -> Result<()> {
    let mut stdin = Vec::new();
    std::io::stdin()
        .lock()
        .take(MAX_STDIN)
        .read_to_end(&mut stdin)
        .map_err(|e| Failure::sys("read stdin", e))?;
    let info = runtime_info(&stdin)?.write_to_bytes();
    let info = info.map_err(|e| Failure::invalid(format!("info: {e}")))?;
    let mut stdout = std::io::stdout().lock();
    stdout
        .write_all(&info)
        .and_then(|()| stdout.flush())
        .map_err(|e| Failure::sys("write stdout", e))
}

fn runtime_info(stdin: &[u8]) -> Result<RuntimeInfo> {
    let options = match stdin {
        [] => None,
        bytes => {
            let any = Any::parse_from_bytes(bytes)
                .map_err(|e| Failure::invalid(format!("stdin: not an Any: {e}")))?;
            Options::from_any(&any).map_err(|e| e.context("stdin"))?;
            Some(any)
        }
    };
    let features = Any {
        type_url: FEATURES_TYPE.to_owned(),
        value: features().to_string().into_bytes(),
        ..Any::default()
    };
    let version =
        RuntimeVersion { version: env!("CARGO_PKG_VERSION").to_owned(), ..Default::default() };
    Ok(RuntimeInfo {
        name: "io.containerd.boathook.v2".to_owned(),
        version: Some(version).into(),
        options: options.into(),
        features: Some(features).into(),
        ..RuntimeInfo::default()
    })
}

/// The features document of the runtime specification (features.md). Only what
/// the engine does is in it: callers refuse pods by what is missing. Whether
/// the host's kernel has it too is another question, which the document leaves open.
fn features() -> Value {
    json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": "1.3.0",
        "hooks": [
            "prestart", "createRuntime", "createContainer", "startContainer", "poststart",
            "poststop",
        ],
        "mountOptions": boathook_fs::flags::known_options().collect::<Vec<_>>(),
        "linux": {
            "namespaces": NAMESPACES,
            "capabilities": capabilities(),
            "cgroup": {
                "v1": true, "v2": true, "systemd": false, "systemdUser": false, "rdma": true,
            },
            "seccomp": seccomp(),
            "apparmor": { "enabled": true },
            "selinux": { "enabled": true },
            "intelRdt": { "enabled": true, "schemata": true, "monitoring": true },
            "memoryPolicy": {
                "modes": [
                    "MPOL_BIND", "MPOL_DEFAULT", "MPOL_INTERLEAVE", "MPOL_LOCAL", "MPOL_PREFERRED",
                    "MPOL_PREFERRED_MANY", "MPOL_WEIGHTED_INTERLEAVE",
                ],
                "flags": ["MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES", "MPOL_F_STATIC_NODES"],
            },
            "mountExtensions": { "idmap": { "enabled": true } },
            "netDevices": { "enabled": true },
        },
    })
}

const NAMESPACES: [&str; 8] = ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"];

/// What profiles may ask for (docs/seccomp.md).
fn seccomp() -> Value {
    let flags = [
        "SECCOMP_FILTER_FLAG_TSYNC",
        "SECCOMP_FILTER_FLAG_LOG",
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
        "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
    ];
    json!({
        "enabled": true,
        "actions": [
            "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS",
            "SCMP_ACT_KILL_THREAD", "SCMP_ACT_LOG", "SCMP_ACT_NOTIFY", "SCMP_ACT_TRACE",
            "SCMP_ACT_TRAP",
        ],
        "operators": [
            "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT",
            "SCMP_CMP_MASKED_EQ", "SCMP_CMP_NE",
        ],
        "archs": ["SCMP_ARCH_X32", "SCMP_ARCH_X86", "SCMP_ARCH_X86_64"],
        "knownFlags": flags,
        "supportedFlags": flags,
    })
}

fn capabilities() -> Vec<String> {
    let mut names: Vec<_> = caps::all().iter().map(ToString::to_string).collect();
    names.sort_unstable();
    names
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use boathook_runtime::Plan;
    use boathook_runtime::cgroup::{Driver, Layout};
    use boathook_runtime::plan::{Context, SecurityModules};

    use super::*;
    use crate::failure::ErrorKind;

    #[test]
    fn features_are_a_document_callers_can_read() {
        let info = runtime_info(b"").unwrap();
        assert_eq!(info.features.type_url, FEATURES_TYPE);
        let features: oci_spec::runtime::Features =
            serde_json::from_slice(&info.features.value).unwrap();
        let linux = features.linux().clone().unwrap();
        assert!(linux.capabilities().as_ref().unwrap().contains(&"CAP_SYS_ADMIN".to_owned()));
        assert!(features.mount_options().as_ref().unwrap().contains(&"rbind".to_owned()));
    }

    /// Whether the engine takes a config with `change` made to it.
    fn taken(change: impl FnOnce(&mut Value)) -> bool {
        let mut config = json!({
            "ociVersion": "1.3.0",
            "process": { "user": { "uid": 0, "gid": 0 }, "args": ["x"], "cwd": "/" },
            "root": { "path": "rootfs" },
            "mounts": [],
            "linux": { "namespaces": [{ "type": "mount" }] },
        });
        change(&mut config);
        let layout = "36 31 0:33 / /sys/fs/cgroup/devices rw - cgroup cgroup rw,devices\n";
        let context = Context {
            id: "c",
            bundle: Path::new("/b"),
            cgroups: &Layout::parse(layout).unwrap(),
            driver: Driver::Cgroupfs,
            no_pivot_root: false,
            no_new_keyring: false,
            modules: SecurityModules { apparmor: true, selinux: true },
            bare: false,
        };
        Plan::create(&serde_json::from_value(config).unwrap(), &context).is_ok()
    }

    /// Red when the document claims what the engine refuses, or keeps quiet about what it does.
    #[test]
    fn the_document_is_what_the_engine_does() {
        let mapping = json!([{ "containerID": 0, "hostID": 1000, "size": 1 }]);
        for kind in ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"] {
            let done = taken(|c| {
                let add =
                    |list: &mut Value| list.as_array_mut().unwrap().push(json!({ "type": kind }));
                if kind != "mount" {
                    add(&mut c["linux"]["namespaces"]);
                }
                if kind == "user" {
                    c["linux"]["uidMappings"] = mapping.clone();
                    c["linux"]["gidMappings"] = mapping.clone();
                }
            });
            assert_eq!(done, NAMESPACES.contains(&kind), "{kind}");
        }
        let features = features();
        let claims = |pointer: &str| features.pointer(pointer) == Some(&json!(true));
        let idmap = taken(|c| {
            c["mounts"] = json!([{ "destination": "/x", "type": "bind", "source": "/x",
                "options": ["bind", "idmap"], "uidMappings": mapping, "gidMappings": mapping }]);
        });
        assert_eq!(idmap, claims("/linux/mountExtensions/idmap/enabled"));
        let devices = taken(|c| {
            c["linux"]["namespaces"] = json!([{ "type": "mount" }, { "type": "network" }]);
            c["linux"]["netDevices"] = json!({ "x": {} });
        });
        assert_eq!(devices, claims("/linux/netDevices/enabled"));
        let rdt = taken(|c| c["linux"]["intelRdt"] = json!({ "closID": "x" }));
        assert_eq!(rdt, claims("/linux/intelRdt/enabled"));
        for (field, label) in [("apparmorProfile", "apparmor"), ("selinuxLabel", "selinux")] {
            let done = taken(|c| c["process"][field] = json!("x"));
            assert_eq!(done, claims(&format!("/linux/{label}/enabled")), "{label}");
        }
        for mode in features["linux"]["memoryPolicy"]["modes"].as_array().unwrap() {
            assert!(taken(|c| c["linux"]["memoryPolicy"] = json!({ "mode": mode })), "{mode}");
        }
        for (list, place) in [("actions", "action"), ("operators", "op"), ("archs", "arch")] {
            for name in features["linux"]["seccomp"][list].as_array().unwrap() {
                let argument =
                    |op: &str| json!([{ "index": 0, "value": 1, "valueTwo": 1, "op": op }]);
                let name = name.as_str().unwrap();
                let (action, op, arch) = match place {
                    "action" => (name, "SCMP_CMP_EQ", "SCMP_ARCH_X86_64"),
                    "op" => ("SCMP_ACT_ERRNO", name, "SCMP_ARCH_X86_64"),
                    _ => ("SCMP_ACT_ERRNO", "SCMP_CMP_EQ", name),
                };
                let done = taken(|c| {
                    c["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ALLOW",
                        "listenerPath": "/run/agent", "architectures": [arch],
                        "syscalls": [{ "names": ["mkdir"], "action": action,
                            "args": argument(op) }] });
                    if action != "SCMP_ACT_NOTIFY" {
                        let seccomp = c["linux"]["seccomp"].as_object_mut().unwrap();
                        seccomp.remove("listenerPath");
                    }
                });
                assert!(done, "{name}");
            }
        }
    }

    #[test]
    fn options_come_back_and_foreign_ones_are_refused() {
        let any = Any { type_url: "containerd.runc.v1.Options".into(), ..Any::default() };
        let info = runtime_info(&any.write_to_bytes().unwrap()).unwrap();
        assert_eq!(info.options.into_option(), Some(any));
        let other = Any { type_url: "x.Options".into(), ..Any::default() };
        let failure = runtime_info(&other.write_to_bytes().unwrap()).unwrap_err();
        assert_eq!(failure.kind(), ErrorKind::InvalidInput);
    }
}
