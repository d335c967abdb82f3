//! What only somebody outside of init's namespaces can do: init asks for it by
//! the step that it is at, and waits.

use std::fs;
use std::io::ErrorKind as Io;

use boathook_init::Step;

use crate::{Error, ErrorKind, Result};

/// Does for the process `pid`, a child of this one, what `step` says.
pub(super) fn perform(pid: i32, step: Option<Step<'_>>) -> Result<()> {
    match step {
        Some(Step::IdMaps { uids, gids }) => {
            write(pid, "uid_map", "linux.uidMappings", uids.to_bytes())?;
            write(pid, "gid_map", "linux.gidMappings", gids.to_bytes())
        }
        Some(Step::CheckMaps { uids, gids }) => {
            compare(pid, "uid_map", "linux.uidMappings", &uids.to_string_lossy())?;
            compare(pid, "gid_map", "linux.gidMappings", &gids.to_string_lossy())
        }
        Some(Step::TimeOffsets { offsets }) => {
            write(pid, "timens_offsets", "linux.timeOffsets", offsets.to_bytes())
        }
        _ => Err(Error::new(ErrorKind::Internal, "container init asked for nothing known")),
    }
}

/// One write, as these files demand.
fn write(pid: i32, file: &str, field: &str, text: &[u8]) -> Result<()> {
    fs::write(format!("/proc/{pid}/{file}"), text).map_err(|e| {
        let what = format!("{field}: write {:?} to {file}", String::from_utf8_lossy(text));
        let wrong = matches!(e.kind(), Io::InvalidInput) || e.raw_os_error() == Some(libc::ERANGE);
        let error = Error::sys(what, e);
        if wrong { error.with_kind(ErrorKind::InvalidInput) } else { error }
    })
}

/// A namespace that is joined has its ids already; a config that lists others
/// was made for another one.
fn compare(pid: i32, file: &str, field: &str, wanted: &str) -> Result<()> {
    let found = fs::read_to_string(format!("/proc/{pid}/{file}"))
        .map_err(|e| Error::sys(format!("{field}: read {file}"), e))?;
    let (wanted, found) = (ranges(wanted), ranges(&found));
    if wanted == found {
        return Ok(());
    }
    let problem = format!("{wanted:?} is not what the namespace has, which is {found:?}");
    Err(Error::field(field, problem))
}

/// First id inside, first outside, count; sorted, because the kernel sorts too.
fn ranges(text: &str) -> Vec<Vec<u32>> {
    let numbers = |line: &str| line.split_whitespace().filter_map(|n| n.parse().ok()).collect();
    let mut all: Vec<Vec<u32>> = text.lines().map(numbers).collect();
    all.sort_unstable();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_compared_as_sets_of_ranges() {
        assert_eq!(ranges("0 100 5\n5 7 1\n"), ranges("         5          7 1\n 0 100     5\n"));
        assert_ne!(ranges("0 100 5\n"), ranges("0 100 6\n"));
    }
}
