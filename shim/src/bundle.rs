//! The files this shim keeps in a bundle, next to what containerd put there.
//!
//! ```text
//! address          the socket's address; containerd 1.6 and 1.7 find a running shim by it
//! boathook.json    the task's record: where its state is, how it ended, whether it is gone
//! ```
//! Both are written by rename, so a reader sees all of a version or nothing.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Result};
use crate::table::Exit;

const ADDRESS: &str = "address";
const RECORD: &str = "boathook.json";

/// What `delete` must know about a task when the server is gone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// State directory of the engine.
    pub root: PathBuf,
    /// The init process.
    pub pid: u32,
    /// How init ended, once it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<RecordedExit>,
    /// Everything was removed by a Delete call; nothing is left to do.
    #[serde(default)]
    pub clean: bool,
}

/// An exit status as it is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedExit {
    /// 0 to 255.
    pub status: u32,
    /// Nanoseconds since 1970.
    pub at_ns: u64,
}

impl RecordedExit {
    /// The form in which the rest of the shim knows it.
    pub fn exit(self) -> Exit {
        Exit { status: self.status, at: Some(UNIX_EPOCH + Duration::from_nanos(self.at_ns)) }
    }
}

impl From<Exit> for RecordedExit {
    fn from(exit: Exit) -> Self {
        let since = exit.at.unwrap_or_else(SystemTime::now).duration_since(UNIX_EPOCH);
        let at_ns = since.map_or(0, |d| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX));
        Self { status: exit.status, at_ns }
    }
}

impl Record {
    /// Reads the record of `bundle`; none when there is none yet.
    ///
    /// # Errors
    /// The file is there and cannot be read or understood.
    pub fn read(bundle: &Path) -> Result<Option<Self>> {
        let path = bundle.join(RECORD);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Failure::sys(format!("read {}", path.display()), e)),
        };
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|e| Failure::invalid(format!("{}: {e}", path.display())))
    }

    /// Replaces the record of `bundle`.
    ///
    /// # Errors
    /// The kernel's refusal to write there.
    pub fn write(&self, bundle: &Path) -> Result<()> {
        let bytes =
            serde_json::to_vec(self).map_err(|e| Failure::invalid(format!("{RECORD}: {e}")))?;
        replace(bundle, RECORD, &bytes)
    }
}

/// Writes the `address` file of `bundle`.
///
/// # Errors
/// The kernel's refusal to write there.
pub fn write_address(bundle: &Path, address: &str) -> Result<()> {
    replace(bundle, ADDRESS, address.as_bytes())
}

/// The socket path in the `address` file of `bundle`, if there is one.
pub fn socket_path(bundle: &Path) -> Option<PathBuf> {
    let address = fs::read_to_string(bundle.join(ADDRESS)).ok()?;
    address.trim().strip_prefix("unix://").map(PathBuf::from)
}

/// Undoes [`write_address`].
pub fn remove_address(bundle: &Path) {
    let _ = fs::remove_file(bundle.join(ADDRESS));
}

/// Replaces a file so that readers see all of a version or nothing.
pub(crate) fn replace(bundle: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    let draft = bundle.join(format!(".{name}.{}", std::process::id()));
    let path = bundle.join(name);
    let mut options = fs::OpenOptions::new();
    // Nobody else's affair, whatever mask the daemon has handed on.
    options.write(true).create(true).truncate(true).mode(0o600);
    let written = options.open(&draft).and_then(|mut file| file.write_all(bytes));
    written.and_then(|()| fs::rename(&draft, &path)).map_err(|e| {
        let _ = fs::remove_file(&draft);
        Failure::sys(format!("write {}", path.display()), e)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_back_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Record::read(dir.path()).unwrap(), None);
        let at = UNIX_EPOCH + Duration::from_nanos(1_700_000_000_123_456_789);
        let exit = Exit { status: 137, at: Some(at) };
        let mut record = Record { root: "/run/x".into(), pid: 7, exit: None, clean: false };
        record.write(dir.path()).unwrap();
        record.exit = Some(exit.into());
        record.write(dir.path()).unwrap();
        let read = Record::read(dir.path()).unwrap().unwrap();
        assert_eq!(read, record);
        assert_eq!(read.exit.unwrap().exit(), exit);
    }

    #[test]
    fn a_broken_record_is_an_error_that_names_the_file() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(RECORD), "{\"root\":3}").unwrap();
        assert!(Record::read(dir.path()).unwrap_err().to_string().contains(RECORD));
    }

    #[test]
    fn the_address_is_what_old_daemons_read() {
        let dir = tempfile::tempdir().unwrap();
        write_address(dir.path(), "unix:///run/s/x").unwrap();
        let text = fs::read_to_string(dir.path().join("address")).unwrap();
        assert_eq!(text, "unix:///run/s/x");
        assert_eq!(socket_path(dir.path()), Some("/run/s/x".into()));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
