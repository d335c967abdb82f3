//! Runtime options: what containerd's configuration says about this runtime,
//! handed over as a protobuf `Any` of one of two types.
//!
//! The type is checked before anything is decoded, because the two messages
//! use the same field numbers for different things: `config_body` of the one
//! is `shim_cgroup` of the other.

use std::fs::File;
use std::io::Read;
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
    /// An existing cgroup that the server runs in; only looked at by `start`.
    pub shim_cgroup: Option<String>,
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
            shim_cgroup: self.shim_cgroup.or_else(|| group.shim_cgroup.clone()),
        }
    }
}

/// The message name of a type URL, which may stand alone or behind a host.
pub fn last_segment(type_url: &str) -> &str {
    type_url.rsplit('/').next().unwrap_or_default()
}

/// `binary_name` and the `criu_*` fields name programs that this runtime does
/// not need, `task_api_*` a sandbox of containerd 1.7 that is gone: they have
/// no effect.
fn decode_runc(bytes: &[u8]) -> Result<Options> {
    let message = RuncOptions::parse_from_bytes(bytes)
        .map_err(|e| Failure::invalid(format!("options: containerd.runc.v1.Options: {e}")))?;
    Ok(Options {
        root: root("root", message.root.into())?,
        systemd_cgroup: message.systemd_cgroup,
        no_pivot_root: message.no_pivot_root,
        no_new_keyring: message.no_new_keyring,
        io_uid: message.io_uid,
        io_gid: message.io_gid,
        shim_cgroup: Some(message.shim_cgroup).filter(|c| !c.is_empty()),
    })
}

/// State directories are found again from other working directories.
fn root(field: &str, root: PathBuf) -> Result<Option<PathBuf>> {
    match root.as_os_str().is_empty() {
        true => Ok(None),
        false if root.is_absolute() => Ok(Some(root)),
        false => {
            Err(Failure::invalid(format!("options: {field}: {root:?} is not an absolute path")))
        }
    }
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
    #[serde(rename = "CriuPath")]
    _criu_path: String,
    #[serde(rename = "CriuImagePath")]
    _criu_image_path: String,
    #[serde(rename = "CriuWorkPath")]
    _criu_work_path: String,
    #[serde(rename = "TaskApiAddress")]
    _task_api_address: String,
    #[serde(rename = "TaskApiVersion")]
    _task_api_version: u32,
    /// Read by containerd, which leaves it in the table it passes on.
    #[serde(rename = "TypeUrl")]
    _type_url: String,
}

/// containerd passes either the table itself or, where the configuration has
/// a `ConfigPath`, the path of a file that holds it.
fn decode_generic(bytes: &[u8]) -> Result<Option<Options>> {
    let generic = Generic::decode(bytes)
        .map_err(|e| Failure::invalid(format!("options: runtimeoptions.v1.Options: {e}")))?;
    let (field, body) = match generic.config_path.as_str() {
        "" => ("config_body".to_owned(), generic.config_body),
        path => (format!("config_path: {path}"), read_file(path)?),
    };
    if body.is_empty() {
        return Ok(None);
    }
    let wrong = |problem: &str| Failure::invalid(format!("options: {field}: {problem}"));
    let text = std::str::from_utf8(&body).map_err(|e| wrong(&e.to_string()))?;
    let table: Table = toml::from_str(text).map_err(|e| wrong(e.message()))?;
    Ok(Some(Options {
        root: root("Root", table.root)?,
        systemd_cgroup: table.systemd_cgroup,
        no_pivot_root: table.no_pivot_root,
        no_new_keyring: table.no_new_keyring,
        io_uid: table.io_uid,
        io_gid: table.io_gid,
        shim_cgroup: Some(table.shim_cgroup).filter(|c| !c.is_empty()),
    }))
}

fn read_file(path: &str) -> Result<Vec<u8>> {
    /// More than any table needs.
    const MAX: u64 = 1 << 20;
    let wrong =
        |problem: String| Failure::invalid(format!("options: config_path: {path}: {problem}"));
    if !path.starts_with('/') {
        return Err(wrong("not an absolute path".to_owned()));
    }
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX + 1).read_to_end(&mut bytes));
    match read {
        Err(e) => Err(wrong(e.to_string())),
        Ok(_) if bytes.len() as u64 > MAX => Err(wrong(format!("more than {MAX} bytes"))),
        Ok(_) => Ok(bytes),
    }
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
        let mut value = vec![1 << 3 | 2, 1, b'x', 3 << 3 | 2];
        // The length as a varint of two bytes.
        let len = u16::try_from(body.len()).unwrap();
        let [low, high] = [(len & 0x7f) | 0x80, len >> 7].map(|b| u8::try_from(b).unwrap());
        value.extend_from_slice(&[low, high]);
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
        let relative = RuncOptions { root: "run/x".into(), ..RuncOptions::default() };
        let bytes = relative.write_to_bytes().unwrap();
        for any in [any("containerd.runc.v1.Options", bytes), generic("Root = 'run/x'")] {
            let error = Options::from_any(&any).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().contains("run/x"), "{error}");
        }
    }

    /// Both messages by their field numbers, so that a field that is dropped
    /// or mistaken for another shows.
    #[test]
    fn every_field_of_both_forms_has_its_effect_or_none() {
        let runc = RuncOptions {
            no_pivot_root: true,
            no_new_keyring: true,
            shim_cgroup: "/shims".into(),
            io_uid: 7,
            io_gid: 8,
            binary_name: "/no/runc".into(),
            root: "/r".into(),
            systemd_cgroup: true,
            criu_image_path: "/i".into(),
            criu_work_path: "/w".into(),
            task_api_address: "/run/a".into(),
            task_api_version: 3,
            ..RuncOptions::default()
        };
        let wanted = Options {
            root: Some("/r".into()),
            systemd_cgroup: true,
            no_pivot_root: true,
            no_new_keyring: true,
            io_uid: 7,
            io_gid: 8,
            shim_cgroup: Some("/shims".into()),
        };
        let bytes = runc.write_to_bytes().unwrap();
        let options = Options::from_any(&any("containerd.runc.v1.Options", bytes));
        assert_eq!(options.unwrap(), Some(wanted.clone()));
        let table = "NoPivotRoot = true\nNoNewKeyring = true\nShimCgroup = '/shims'\n\
                     IoUid = 7\nIoGid = 8\nBinaryName = '/no/runc'\nRoot = '/r'\n\
                     SystemdCgroup = true\nCriuPath = '/c'\nCriuImagePath = '/i'\n\
                     CriuWorkPath = '/w'\nTaskApiAddress = '/run/a'\nTaskApiVersion = 3\n";
        assert_eq!(Options::from_any(&generic(table)).unwrap(), Some(wanted.clone()));
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), table).unwrap();
        let by_path = config_path(file.path().to_str().unwrap());
        assert_eq!(Options::from_any(&by_path).unwrap(), Some(wanted));
    }

    #[test]
    fn a_config_path_that_cannot_be_used_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "Nonsense = 1\n").unwrap();
        let bad = file.path().to_str().unwrap();
        for (path, part) in
            [("/no/such.toml", "/no/such.toml"), ("conf.toml", "absolute"), (bad, "Nonsense")]
        {
            let error = Options::from_any(&config_path(path)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            let text = error.to_string();
            assert!(text.contains("config_path") && text.contains(part), "{text}");
        }
    }

    fn config_path(path: &str) -> Any {
        let mut value = vec![2 << 3 | 2, u8::try_from(path.len()).unwrap()];
        value.extend_from_slice(path.as_bytes());
        any("runtimeoptions.v1.Options", value)
    }

    #[test]
    fn empty_fields_come_from_the_group() {
        let group = Options { root: Some("/g".into()), systemd_cgroup: true, ..Options::default() };
        let task = Options { io_uid: 5, ..Options::default() }.or(&group);
        assert_eq!(task, Options { io_uid: 5, ..group });
    }
}
