//! The configuration file, `/etc/boathook/config.toml`.
//!
//! ```toml
//! # Where lifecycle hooks come from: "annotations" (the default) or "backstop".
//! lifecycle = "backstop"
//! ```
//! A key that nobody knows is an error: a setting is never ignored in silence.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Where the file is, unless somebody says otherwise.
pub const DEFAULT_PATH: &str = "/etc/boathook/config.toml";
/// The environment variable that names another file.
pub const PATH_VARIABLE: &str = "BOATHOOK_CONFIG";
/// More than anybody would write by hand.
const MAX_BYTES: u64 = 1 << 20;

/// What can be configured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where lifecycle hooks come from.
    pub lifecycle: Lifecycle,
}

/// Where lifecycle hooks come from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lifecycle {
    /// From annotations of boathook.dev only.
    #[default]
    Annotations,
    /// From those, and where there are none, from the kubelet's own, when the
    /// kubelet did not get to it.
    Backstop,
}

/// The file that counts: the one named on the command line, else the one that
/// `BOATHOOK_CONFIG` names, else the usual one. True when it was named.
pub fn path(flag: Option<&Path>) -> (PathBuf, bool) {
    let named = flag.map(Path::to_owned).or_else(|| {
        std::env::var_os(PATH_VARIABLE).filter(|value| !value.is_empty()).map(PathBuf::from)
    });
    match named {
        Some(path) => (path, true),
        None => (PathBuf::from(DEFAULT_PATH), false),
    }
}

impl Config {
    /// Reads the file that counts. Without the usual file the defaults hold;
    /// one that was named must be there.
    ///
    /// # Errors
    /// The file cannot be read or used; the key is named.
    pub fn load(flag: Option<&Path>) -> Result<Self> {
        let (path, named) = path(flag);
        let failed = |problem: String| Error::Config { path: path.clone(), problem };
        match std::fs::metadata(&path) {
            Ok(data) if data.len() > MAX_BYTES => {
                return Err(failed(format!("{} bytes are more than {MAX_BYTES}", data.len())));
            }
            Err(e) if e.kind() == ErrorKind::NotFound && !named => return Ok(Self::default()),
            Err(e) => return Err(failed(e.to_string())),
            Ok(_) => {}
        }
        let text = std::fs::read_to_string(&path).map_err(|e| failed(e.to_string()))?;
        Self::parse(&text).map_err(failed)
    }

    /// Reads the text of a file.
    ///
    /// # Errors
    /// What is wrong, with line and key.
    pub fn parse(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| error.to_string().trim_end().to_owned())
    }

    /// The whole of it as a file would say it.
    pub fn to_toml(self) -> String {
        let lifecycle = match self.lifecycle {
            Lifecycle::Annotations => "annotations",
            Lifecycle::Backstop => "backstop",
        };
        format!("lifecycle = \"{lifecycle}\"\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_reads_back() {
        for lifecycle in [Lifecycle::Annotations, Lifecycle::Backstop] {
            let config = Config { lifecycle };
            assert_eq!(Config::parse(&config.to_toml()), Ok(config));
        }
        assert_eq!(Config::parse(""), Ok(Config::default()));
    }

    #[test]
    fn unknown_keys_and_values_are_refused_by_name() {
        for (text, part) in [
            ("lifecylce = 'backstop'", "lifecylce"),
            ("lifecycle = 'sometimes'", "sometimes"),
            ("lifecycle = 3", "lifecycle"),
            ("[lifecycle]\nmode = 'backstop'", "mode"),
            ("lifecycle = ", "line 1"),
        ] {
            let error = Config::parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn a_file_that_was_named_must_be_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        let error = Config::load(Some(&path)).unwrap_err();
        assert!(error.to_string().contains("c.toml"), "{error}");
        std::fs::write(&path, "lifecycle = \"backstop\"").unwrap();
        assert_eq!(Config::load(Some(&path)).unwrap().lifecycle, Lifecycle::Backstop);
    }
}
