//! JSON in: config.json and the parts of it that arrive in requests. Errors
//! name the field by its path.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use oci_spec::runtime::{LinuxResources, Process, Spec};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use crate::{Error, ErrorKind, Result};

/// Largest config.json that is read. Kubernetes objects end at 1.5 MiB, and
/// what a node makes of them stays far below this.
pub const CONFIG_MAX: u64 = 16 << 20;

/// Reads and parses `config.json` of a bundle.
///
/// # Errors
/// `InvalidInput` with the path of the field that is wrong.
pub fn load(bundle: &Path) -> Result<Spec> {
    let path = bundle.join("config.json");
    let failed = |e: std::io::Error| {
        use std::io::ErrorKind::{InvalidInput, IsADirectory, NotADirectory, NotFound};
        let wrong = matches!(e.kind(), InvalidInput | IsADirectory | NotADirectory | NotFound);
        let error = Error::sys(format!("config.json: {}", path.display()), e);
        // A machine in trouble is not the caller's mistake.
        if wrong { error.with_kind(ErrorKind::InvalidInput) } else { error }
    };
    let mut file = File::open(&path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    if length > CONFIG_MAX {
        return Err(Error::field(
            "config.json",
            format!("{length} bytes are more than {CONFIG_MAX}"),
        ));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0) + 1);
    file.by_ref().take(CONFIG_MAX).read_to_end(&mut bytes).map_err(failed)?;
    from_json(&bytes)
}

/// Parses the content of a `config.json`.
///
/// # Errors
/// `InvalidInput` with the path of the field that is wrong.
pub fn from_json(json: &[u8]) -> Result<Spec> {
    let mut spec: Spec = parse("config.json", json)?;
    let resources = spec.linux_mut().as_mut().and_then(|linux| linux.resources_mut().as_mut());
    if let Some(resources) = resources.filter(|r| has_zero_pids(r)) {
        let given: GivenInSpec = parse("config.json", json)?;
        if !given.linux.resources.has_pids_limit() {
            resources.set_pids(None);
        }
    }
    Ok(spec)
}

/// A process of an exec request: the JSON of an OCI `process`.
///
/// # Errors
/// `InvalidInput` with the path of the field that is wrong.
pub fn process_from_json(json: &[u8]) -> Result<Process> {
    parse("process", json)
}

/// Resources of an update request: the JSON of OCI `linux.resources`.
///
/// # Errors
/// `InvalidInput` with the path of the field that is wrong.
pub fn resources_from_json(json: &[u8]) -> Result<LinuxResources> {
    let mut resources: LinuxResources = parse("resources", json)?;
    if has_zero_pids(&resources) && !parse::<Given>("resources", json)?.has_pids_limit() {
        resources.set_pids(None);
    }
    Ok(resources)
}

/// `pids` without a limit leaves it as it is, and 0 is a limit (runtime-spec
/// 1.3); oci-spec 0.10 reads 0 for both. So a 0 is looked at once more.
fn has_zero_pids(resources: &LinuxResources) -> bool {
    resources.pids().as_ref().is_some_and(|pids| pids.limit() == 0)
}

/// Whether `linux.resources.pids.limit` is there.
#[derive(Deserialize, Default)]
#[serde(default)]
struct GivenInSpec {
    linux: GivenInLinux,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct GivenInLinux {
    resources: Given,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Given {
    pids: GivenPids,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct GivenPids {
    limit: Option<IgnoredAny>,
}

impl Given {
    fn has_pids_limit(&self) -> bool {
        self.pids.limit.is_some()
    }
}

fn parse<T: DeserializeOwned>(what: &str, json: &[u8]) -> Result<T> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        let problem = error.into_inner();
        match path.as_str() {
            "." => Error::field(what, problem),
            field => Error::field(what, format!("{field}: {problem}")),
        }
    })?;
    deserializer.end().map_err(|e| Error::field(what, e))?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_field() {
        for (json, wanted) in [
            (
                r#"{"args": ["x"], "user": {"uid": "0", "gid": 0}, "cwd": "/"}"#,
                "process: user.uid: ",
            ),
            (
                r#"{"args": ["x"], "user": {"uid": -1, "gid": 0}, "cwd": "/"}"#,
                "process: user.uid: ",
            ),
            (r#"{"args": ["x"], "user": {"uid": 4294967296, "gid": 0}, "cwd": "/"}"#, "user.uid: "),
            (r#"{"args": "x", "user": {"uid": 0, "gid": 0}, "cwd": "/"}"#, "process: args: "),
            (r#"{"args": ["x"]"#, "EOF"),
            ("[]garbage", "process: "),
        ] {
            let error = process_from_json(json.as_bytes()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().contains(wanted), "{error} lacks {wanted:?}");
        }
    }

    /// Red if a limit that is not there makes a container unable to fork.
    #[test]
    fn no_pids_limit_is_not_zero() {
        let limit = |json: &str| {
            let resources = resources_from_json(json.as_bytes()).unwrap();
            let text = format!(r#"{{"ociVersion":"1.3.0","linux":{{"resources":{json}}}}}"#);
            let spec = from_json(text.as_bytes()).unwrap();
            let linux = spec.linux().as_ref().unwrap();
            assert_eq!(linux.resources().as_ref(), Some(&resources));
            resources.pids().as_ref().map(oci_spec::runtime::LinuxPids::limit)
        };
        assert_eq!(limit(r#"{"pids":{}}"#), None);
        assert_eq!(limit(r#"{"pids":{"limit":0}}"#), Some(0));
        assert_eq!(limit(r#"{"pids":{"limit":7}}"#), Some(7));
        assert_eq!(limit("{}"), None);
    }

    #[test]
    fn trailing_bytes_are_an_error() {
        assert!(resources_from_json(b"{}x").is_err());
        assert!(resources_from_json(b"{}").is_ok());
    }
}
