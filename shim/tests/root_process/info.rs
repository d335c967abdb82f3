//! `-info` and `-v`.

use std::process::Command;

use containerd_shim_protos::shim::oci::Options;
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

/// The runtime is inside: a configuration that names another one, which may not
/// even be there, takes nothing away.
#[test]
fn a_runtime_binary_that_is_not_there_is_no_matter() {
    let options = Options {
        binary_name: "/no/such/runc".into(),
        criu_image_path: "/no/such/images".into(),
        ..Options::default()
    };
    let any = Any {
        type_url: "types.containerd.io/containerd.runc.v1.Options".into(),
        value: options.write_to_bytes().unwrap(),
        ..Any::default()
    };
    let output = run(shim("-info"), &any.write_to_bytes().unwrap());
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let info = RuntimeInfo::parse_from_bytes(&output.stdout).unwrap();
    assert_eq!(info.options.into_option(), Some(any));
    assert!(!info.features.value.is_empty());
}

#[test]
fn version_is_one_line() {
    let output = run(shim("-v"), b"");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.contains(env!("CARGO_PKG_VERSION")), "{text}");
    assert_eq!(text.lines().count(), 1);
}
