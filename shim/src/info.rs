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
/// the engine does is in it: callers refuse pods by what is missing.
fn features() -> Value {
    json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": "1.2.1",
        "mountOptions": boathook_fs::flags::known_options().collect::<Vec<_>>(),
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"],
            "capabilities": capabilities(),
            "cgroup": {
                "v1": true, "v2": true, "systemd": false, "systemdUser": false, "rdma": false,
            },
            "seccomp": { "enabled": false },
            "apparmor": { "enabled": false },
            "selinux": { "enabled": false },
            "mountExtensions": { "idmap": { "enabled": false } },
        },
    })
}

fn capabilities() -> Vec<String> {
    let mut names: Vec<_> = caps::all().iter().map(ToString::to_string).collect();
    names.sort_unstable();
    names
}

#[cfg(test)]
mod tests {
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
