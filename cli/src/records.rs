//! The lifecycle records of containers, as shims leave them in the state
//! directories: `<root>/<namespace>/<id>/lifecycle.json`.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use boathook_hooks::record::{FILE, Record};

use crate::args::Place;
use crate::output::Failure;

/// A record and where it is.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) namespace: String,
    pub(crate) path: PathBuf,
    pub(crate) record: Record,
}

/// Every record there is, in the order of namespace and id.
pub(crate) fn all(place: &Place) -> Result<Vec<Found>, Failure> {
    let mut found = Vec::new();
    for namespace in names(&place.root)? {
        if place.namespace.as_ref().is_some_and(|wanted| *wanted != namespace) {
            continue;
        }
        let dir = place.root.join(&namespace);
        for id in names(&dir)? {
            let path = dir.join(&id).join(FILE);
            if let Some(record) = read(&path)? {
                found.push(Found { namespace: namespace.clone(), path, record });
            }
        }
    }
    Ok(found)
}

/// The one record of a container.
pub(crate) fn of(place: &Place, id: &str) -> Result<Found, Failure> {
    let mut found = all(place)?;
    found.retain(|it| it.record.id == id);
    match found.len() {
        0 => Err(Failure::Text(format!(
            "container {id:?} has no lifecycle record below {}: it does not exist, or has no hooks and no stop annotation",
            place.root.display()
        ))),
        1 => Ok(found.remove(0)),
        _ => {
            let names: Vec<_> = found.iter().map(|it| it.namespace.as_str()).collect();
            Err(Failure::Text(format!(
                "container {id:?} exists in the namespaces {}: choose one with --namespace",
                names.join(", ")
            )))
        }
    }
}

fn read(path: &Path) -> Result<Option<Record>, Failure> {
    let failed = |e| Failure::Io(format!("read {}", path.display()), e);
    match fs::read(path) {
        Ok(json) => serde_json::from_slice(&json)
            .map(Some)
            .map_err(|e| Failure::Text(format!("{}: {e}", path.display()))),
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(e) => Err(failed(e)),
    }
}

/// Names in a directory, in order; one that is gone has none.
pub(crate) fn names(dir: &Path) -> Result<Vec<String>, Failure> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(e) => return Err(Failure::Io(format!("list {}", dir.display()), e)),
    };
    let mut names: Vec<String> =
        entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort_unstable();
    Ok(names)
}
