//! `-info` and `-v`.

use std::process::Command;

use containerd_shim_protos::types::introspection::RuntimeInfo;
use protobuf::Message;
use protobuf::well_known_types::any::Any;
use serde_json::Value;

use crate::support::run;

fn shim(flag: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_containerd-shim-boathook-v2"));
    command.arg(flag);
    command
}

#[test]
fn info_is_a_plain_message_with_or_without_options() {
    let generic = Any { type_url: "runtimeoptions.v1.Options".into(), ..Any::default() };
    for stdin in [Vec::new(), generic.write_to_bytes().unwrap()] {
        let output = run(shim("-info"), &stdin);
        assert!(output.status.success(), "{output:?}");
        let info = RuntimeInfo::parse_from_bytes(&output.stdout).unwrap();
        assert_eq!(info.version.version, env!("CARGO_PKG_VERSION"));
        let features: Value = serde_json::from_slice(&info.features.value).unwrap();
        assert!(features["linux"]["namespaces"].as_array().unwrap().len() >= 6);
    }
    let output = run(shim("-info"), b"\xff\xff");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("stdin"));
}

#[test]
fn version_is_one_line() {
    let output = run(shim("-v"), b"");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.contains(env!("CARGO_PKG_VERSION")), "{text}");
    assert_eq!(text.lines().count(), 1);
}
