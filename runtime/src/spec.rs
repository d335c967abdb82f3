//! JSON in: config.json and the parts of it that arrive in requests. Errors
//! name the field by its path.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use oci_spec::runtime::{LinuxResources, Process, Spec};
use serde::de::DeserializeOwned;

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
        Error::new(ErrorKind::InvalidInput, format!("config.json: {}: {e}", path.display()))
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
    parse("config.json", &bytes)
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
    parse("resources", json)
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

    #[test]
    fn trailing_bytes_are_an_error() {
        assert!(resources_from_json(b"{}x").is_err());
        assert!(resources_from_json(b"{}").is_ok());
    }
}
