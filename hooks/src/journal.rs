//! Records of containers that are gone: for a while one can still see how
//! they ended. CRI removes a container's state the moment it has ended.
//!
//! One file for each of containerd's namespaces, `.ended/<namespace>.jsonl`
//! below the root of all state directories, oldest first, bounded in number,
//! bytes and age. It lies where a reboot removes it, as the state does.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::record::{Record, millis};

/// The directory below the root; no namespace of containerd begins with a dot.
pub const DIR: &str = ".ended";
/// Records kept in one namespace.
pub const MAX_RECORDS: usize = 64;
/// Bytes kept in one namespace.
pub const MAX_BYTES: usize = 256 << 10;
/// How long a record is shown after its container's end.
pub const MAX_AGE: Duration = Duration::from_secs(3600);

/// Where the records of a namespace are.
pub fn path(root: &Path, namespace: &str) -> PathBuf {
    root.join(DIR).join(format!("{namespace}.jsonl"))
}

/// Adds the record of a container that is gone, and drops the oldest that are
/// too many. One that is too long by itself is left out.
///
/// # Errors
/// The file cannot be read or written; it is as it was then.
pub fn add(root: &Path, namespace: &str, record: &Record) -> io::Result<()> {
    let dir = root.join(DIR);
    // What hooks print is nobody else's affair.
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
    // Each pod has a process of its own that writes here.
    let lock = File::open(&dir)?;
    lock.lock()?;
    let path = path(root, namespace);
    // As lines: it is the resident shim that does this, and what it would
    // read into memory it would keep.
    let known = text(&path)?;
    let line = serde_json::to_string(record)?;
    if line.len() >= MAX_BYTES {
        return Ok(());
    }
    let mut bytes = 0;
    let mut kept: Vec<&str> = std::iter::once(line.as_str())
        .chain(known.lines().rev())
        .take(MAX_RECORDS)
        .take_while(|line| {
            bytes += line.len() + 1;
            bytes <= MAX_BYTES
        })
        .collect();
    // The oldest comes first, and the last line has an end too.
    kept.reverse();
    kept.push("");
    remove_old(&dir);
    let draft = dir.join(format!(".{namespace}.{}", std::process::id()));
    let written = fs::write(&draft, kept.join("\n"));
    written.and_then(|()| fs::rename(&draft, &path)).inspect_err(|_| {
        let _ = fs::remove_file(&draft);
    })
}

/// Removes the files in which nothing is young enough to be shown: of
/// namespaces that are gone, and of writers that were killed.
fn remove_old(dir: &Path) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    let old = |entry: &fs::DirEntry| {
        let written = entry.metadata().and_then(|it| it.modified()).ok();
        written.and_then(|at| at.elapsed().ok()).is_some_and(|age| age > MAX_AGE)
    };
    for entry in entries.flatten().filter(old) {
        let _ = fs::remove_file(entry.path());
    }
}

/// The records of a namespace that are not too old, oldest first. A line that
/// another version wrote is left out.
///
/// # Errors
/// The file is there and cannot be read.
pub fn read(root: &Path, namespace: &str) -> io::Result<Vec<Record>> {
    let text = text(&path(root, namespace))?;
    let oldest = SystemTime::now().checked_sub(MAX_AGE).map_or(0, millis);
    let records = text.lines().filter_map(|line| serde_json::from_str::<Record>(line).ok());
    Ok(records.filter(|it| it.history.last().is_some_and(|last| last.at >= oldest)).collect())
}

fn text(path: &Path) -> io::Result<String> {
    match fs::read_to_string(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::What;
    use crate::source::Policy;

    fn record(id: &str) -> Record {
        let mut record = Record::new(id, Policy::default());
        record.add(What::Exited { status: 0 });
        record
    }

    fn ids(root: &Path, namespace: &str) -> Vec<String> {
        read(root, namespace).unwrap().into_iter().map(|it| it.id).collect()
    }

    #[test]
    fn the_newest_are_kept_for_each_namespace() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(ids(root.path(), "a"), [""; 0]);
        for number in 0..MAX_RECORDS + 3 {
            add(root.path(), "a", &record(&number.to_string())).unwrap();
        }
        add(root.path(), "b", &record("other")).unwrap();
        let kept = ids(root.path(), "a");
        assert_eq!((kept.len(), kept[0].as_str()), (MAX_RECORDS, "3"));
        assert_eq!(ids(root.path(), "b"), ["other"]);
    }

    #[test]
    fn bytes_have_a_bound() {
        let root = tempfile::tempdir().unwrap();
        let mut long = record("long");
        long.add(What::Stopping { cause: "x".repeat(MAX_BYTES / 3) });
        for _ in 0..5 {
            add(root.path(), "a", &long).unwrap();
        }
        assert_eq!(ids(root.path(), "a").len(), 2);
        // One that fills all of it does not cost the others.
        let mut huge = record("huge");
        huge.add(What::Stopping { cause: "x".repeat(MAX_BYTES) });
        add(root.path(), "a", &huge).unwrap();
        assert_eq!(ids(root.path(), "a"), ["long", "long"]);
        assert!(fs::metadata(path(root.path(), "a")).unwrap().len() <= MAX_BYTES as u64);
        let names = fs::read_dir(root.path().join(DIR)).unwrap().count();
        assert_eq!(names, 1, "a draft was left behind");
    }

    #[test]
    fn the_old_and_the_unreadable_are_left_out() {
        let root = tempfile::tempdir().unwrap();
        let mut old = record("old");
        old.history[0].at -= 2 * u64::try_from(MAX_AGE.as_millis()).unwrap();
        add(root.path(), "a", &old).unwrap();
        let file = path(root.path(), "a");
        let text = fs::read_to_string(&file).unwrap() + "{\"of\":\"later\"}\n";
        fs::write(&file, text).unwrap();
        let long_ago = SystemTime::now() - 2 * MAX_AGE;
        for left in ["gone.jsonl", ".a.123"] {
            let left = File::create(root.path().join(DIR).join(left)).unwrap();
            left.set_modified(long_ago).unwrap();
        }
        add(root.path(), "a", &record("new")).unwrap();
        assert_eq!(fs::read_dir(root.path().join(DIR)).unwrap().count(), 1);
        assert_eq!(ids(root.path(), "a"), ["new"]);
    }
}
