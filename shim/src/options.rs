//! Runtime options: what containerd's configuration says about this runtime,
//! handed over as a protobuf `Any` of one of two types.
//!
//! The type is checked before anything is decoded, because the two messages
//! use the same field numbers for different things: `config_body` of the one
//! is `shim_cgroup` of the other.

use std::path::PathBuf;

use containerd_shim_protos::shim::oci::Options as RuncOptions;
use protobuf::well_known_types::any::Any;
use protobuf::{CodedInputStream, Message};

use crate::failure::{Failure, Result};

/// The options this shim acts on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Parent of the engine's state directories, one per namespace.
    pub root: Option<PathBuf>,
    /// `linux.cgroupsPath` is `slice:prefix:name` and systemd makes the cgroup.
    pub systemd_cgroup: bool,
    /// Change the root with chroot instead of pivot_root (ramfs hosts).
    pub no_pivot_root: bool,
    /// Leave the session keyring of the container alone.
    pub no_new_keyring: bool,
    /// Owner of the container's stdio pipes on the host.
    pub io_uid: u32,
    /// Group of the container's stdio pipes on the host.
    pub io_gid: u32,
}

impl Options {
    /// Decodes `any`; an absent or empty one means "none given".
    ///
    /// # Errors
    /// A type that is neither `containerd.runc.v1.Options` nor
    /// `runtimeoptions.v1.Options`, bytes that do not decode as the type they
    /// claim, or an option this shim cannot honour.
    pub fn from_any(any: &Any) -> Result<Option<Self>> {
        match last_segment(&any.type_url) {
            "" if any.value.is_empty() => Ok(None),
            "containerd.runc.v1.Options" => decode_runc(&any.value).map(Some),
            "runtimeoptions.v1.Options" => decode_generic(&any.value),
            _ => Err(Failure::invalid(format!(
                "options: type {:?} is neither containerd.runc.v1.Options nor runtimeoptions.v1.Options",
                any.type_url
            ))),
        }
    }

    /// These options with the empty ones taken from `group`: containerd before
    /// 2.1 sends tasks in user namespaces an option message with nothing but
    /// the two ids in it.
    #[must_use]
    pub fn or(self, group: &Self) -> Self {
        Self {
            root: self.root.or_else(|| group.root.clone()),
            systemd_cgroup: self.systemd_cgroup || group.systemd_cgroup,
            no_pivot_root: self.no_pivot_root || group.no_pivot_root,
            no_new_keyring: self.no_new_keyring || group.no_new_keyring,
            io_uid: if self.io_uid == 0 { group.io_uid } else { self.io_uid },
            io_gid: if self.io_gid == 0 { group.io_gid } else { self.io_gid },
        }
    }
}

/// The message name of a type URL, which may stand alone or behind a host.
pub fn last_segment(type_url: &str) -> &str {
    type_url.rsplit('/').next().unwrap_or_default()
}

fn decode_runc(bytes: &[u8]) -> Result<Options> {
    let message = RuncOptions::parse_from_bytes(bytes)
        .map_err(|e| Failure::invalid(format!("options: containerd.runc.v1.Options: {e}")))?;
    refuse("shim_cgroup", &message.shim_cgroup)?;
    Ok(Options {
        root: Some(message.root).filter(|r| !r.is_empty()).map(PathBuf::from),
        systemd_cgroup: message.systemd_cgroup,
        no_pivot_root: message.no_pivot_root,
        no_new_keyring: message.no_new_keyring,
        io_uid: message.io_uid,
        io_gid: message.io_gid,
    })
}

/// The options table of a custom runtime type, as TOML text. The names are
/// those of containerd's documentation for the runc runtime; names that only
/// choose or drive another runtime binary are accepted and have no effect.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "PascalCase")]
struct Table {
    root: PathBuf,
    systemd_cgroup: bool,
    no_pivot_root: bool,
    no_new_keyring: bool,
    io_uid: u32,
    io_gid: u32,
    shim_cgroup: String,
    #[serde(rename = "BinaryName")]
    _binary_name: String,
    #[serde(rename = "CriuImagePath")]
    _criu_image_path: String,
    #[serde(rename = "CriuWorkPath")]
    _criu_work_path: String,
}

fn decode_generic(bytes: &[u8]) -> Result<Option<Options>> {
    let generic = Generic::decode(bytes)
        .map_err(|e| Failure::invalid(format!("options: runtimeoptions.v1.Options: {e}")))?;
    refuse("config_path", &generic.config_path)?;
    if generic.config_body.is_empty() {
        return Ok(None);
    }
    let text = std::str::from_utf8(&generic.config_body)
        .map_err(|e| Failure::invalid(format!("options: config_body: {e}")))?;
    let table: Table = toml::from_str(text)
        .map_err(|e| Failure::invalid(format!("options: config_body: {}", e.message())))?;
    refuse("ShimCgroup", &table.shim_cgroup)?;
    Ok(Some(Options {
        root: Some(table.root).filter(|r| !r.as_os_str().is_empty()),
        systemd_cgroup: table.systemd_cgroup,
        no_pivot_root: table.no_pivot_root,
        no_new_keyring: table.no_new_keyring,
        io_uid: table.io_uid,
        io_gid: table.io_gid,
    }))
}

fn refuse(field: &str, value: &str) -> Result<()> {
    if value.is_empty() {
        return Ok(());
    }
    Err(Failure::unsupported(format!("options: {field}: {value:?} is not supported")))
}

/// `runtimeoptions.v1.Options`, which the protos crate does not carry:
/// type_url = 1, config_path = 2, config_body = 3 (containerd,
/// `api/types/runtimeoptions/v1/api.proto`).
#[derive(Debug, Default)]
struct Generic {
    config_path: String,
    config_body: Vec<u8>,
}

impl Generic {
    fn decode(bytes: &[u8]) -> protobuf::Result<Self> {
        const CONFIG_PATH: u32 = 2 << 3 | 2;
        const CONFIG_BODY: u32 = 3 << 3 | 2;
        let mut message = Self::default();
        let mut input = CodedInputStream::from_bytes(bytes);
        while let Some(tag) = input.read_raw_tag_or_eof()? {
            match tag {
                CONFIG_PATH => message.config_path = input.read_string()?,
                CONFIG_BODY => message.config_body = input.read_bytes()?,
                _ => protobuf::rt::skip_field_for_tag(tag, &mut input)?,
            }
        }
        Ok(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::ErrorKind;

    fn any(type_url: &str, value: Vec<u8>) -> Any {
        Any { type_url: type_url.into(), value, ..Any::default() }
    }

    fn generic(body: &str) -> Any {
        let mut value = vec![1 << 3 | 2, 1, b'x', 3 << 3 | 2, u8::try_from(body.len()).unwrap()];
        value.extend_from_slice(body.as_bytes());
        any("runtimeoptions.v1.Options", value)
    }

    #[test]
    fn runc_options_bare_and_with_a_host() {
        let message = RuncOptions {
            root: "/r".into(),
            systemd_cgroup: true,
            io_uid: 7,
            ..RuncOptions::default()
        };
        for url in ["containerd.runc.v1.Options", "types.containerd.io/containerd.runc.v1.Options"]
        {
            let bytes = message.write_to_bytes().unwrap();
            let options = Options::from_any(&any(url, bytes)).unwrap().unwrap();
            assert_eq!(options.root, Some("/r".into()));
            assert!(options.systemd_cgroup);
            assert_eq!(options.io_uid, 7);
        }
    }

    #[test]
    fn generic_options_carry_toml() {
        let options = Options::from_any(&generic("SystemdCgroup = true\nRoot = '/q'\n"));
        let options = options.unwrap().unwrap();
        assert!(options.systemd_cgroup);
        assert_eq!(options.root, Some("/q".into()));
        assert_eq!(Options::from_any(&generic("")).unwrap(), None);
    }

    #[test]
    fn a_wrong_type_is_named_and_not_decoded() {
        let error = Options::from_any(&any("x.y/foo.Options", vec![0xff; 9])).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains("x.y/foo.Options"), "{error}");
    }

    #[test]
    fn bad_bytes_and_unknown_names_are_refused() {
        for (any, part) in [
            (any("containerd.runc.v1.Options", vec![0xff, 0xff]), "containerd.runc.v1.Options"),
            (any("runtimeoptions.v1.Options", vec![0x1a, 0x7f]), "runtimeoptions.v1.Options"),
            (generic("Systemd = true"), "Systemd"),
            (generic("SystemdCgroup = 3"), "config_body"),
            (any("", vec![1]), "\"\""),
        ] {
            let error = Options::from_any(&any).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().contains(part), "{error}");
        }
        let shim_cgroup = RuncOptions { shim_cgroup: "/x".into(), ..RuncOptions::default() };
        let bytes = shim_cgroup.write_to_bytes().unwrap();
        let error = Options::from_any(&any("containerd.runc.v1.Options", bytes)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }

    #[test]
    fn empty_fields_come_from_the_group() {
        let group = Options { root: Some("/g".into()), systemd_cgroup: true, ..Options::default() };
        let task = Options { io_uid: 5, ..Options::default() }.or(&group);
        assert_eq!(task, Options { io_uid: 5, ..group });
    }
}
