//! The lifecycle records of containers, as shims leave them in the state
//! directories: `<root>/<namespace>/<id>/lifecycle.json`, and in the journal of
//! those that are gone.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use boathook_hooks::journal;
use boathook_hooks::record::{FILE, Record};

use crate::args::Place;
use crate::output::Failure;

/// A record and the namespace of its container.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) namespace: String,
    pub(crate) record: Record,
}

/// Tells containers apart that had the same id one after the other.
pub(crate) type Key = (String, String, Option<u64>);

impl Found {
    pub(crate) fn key(&self) -> Key {
        (self.namespace.clone(), self.record.id.clone(), self.record.began())
    }
}

/// Every record there is, in the order of namespaces: those of containers that
/// exist by id, then those of containers that are gone.
pub(crate) fn all(place: &Place) -> Result<Vec<Found>, Failure> {
    let mut found = Vec::new();
    for namespace in namespaces(&place.root)? {
        if place.namespace.as_ref().is_some_and(|wanted| *wanted != namespace) {
            continue;
        }
        let dir = place.root.join(&namespace);
        for id in names(&dir)? {
            let path = dir.join(&id).join(FILE);
            if let Some(record) = read(&path)? {
                found.push(Found { namespace: namespace.clone(), record });
            }
        }
        // Read last: a record is in the journal before it leaves its directory.
        let ended = journal::read(&place.root, &namespace).map_err(|e| {
            let path = journal::path(&place.root, &namespace);
            Failure::Io(format!("read {}", path.display()), e)
        })?;
        for record in ended {
            let gone = Found { namespace: namespace.clone(), record };
            if found.iter().all(|it| it.key() != gone.key()) {
                found.push(gone);
            }
        }
    }
    Ok(found)
}

/// Namespaces with containers, now or lately. The directory of the last one
/// goes with it.
fn namespaces(root: &Path) -> Result<Vec<String>, Failure> {
    let mut all = names(root)?;
    all.retain(|name| !name.starts_with('.'));
    let journals = names(&root.join(journal::DIR))?;
    all.extend(journals.iter().filter(|name| !name.starts_with('.')).filter_map(|name| {
        let (namespace, ending) = name.rsplit_once('.')?;
        (ending == "jsonl").then(|| namespace.to_owned())
    }));
    all.sort_unstable();
    all.dedup();
    Ok(all)
}

/// The one record of a container; of those that had the same id one after the
/// other, the last.
pub(crate) fn of(place: &Place, id: &str) -> Result<Found, Failure> {
    let mut found = all(place)?;
    found.retain(|it| it.record.id == id);
    found.sort_by_key(|it| (it.namespace.clone(), std::cmp::Reverse(it.record.began())));
    found.dedup_by(|next, first| next.namespace == first.namespace);
    match found.len() {
        0 => Err(Failure::Text(format!(
            "container {id:?} has no lifecycle record below {}: it does not exist and did not lately, or has no hooks and no stop annotation",
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

#[cfg(test)]
mod tests {
    use boathook_hooks::Policy;
    use boathook_hooks::record::What;

    use super::*;

    #[test]
    fn a_container_that_is_gone_is_found_once() {
        let root = tempfile::tempdir().unwrap();
        let began = |at: u64| {
            let mut record = Record::new("c", Policy::default());
            record.add(What::Started);
            record.add(What::Exited { status: 0 });
            record.history[0].at = at;
            record
        };
        let place = Place { root: root.path().to_owned(), namespace: None };
        for at in [1, 2] {
            journal::add(root.path(), "ns", &began(at)).unwrap();
        }
        // Its namespace has no other container.
        assert_eq!(of(&place, "c").unwrap().record.began(), Some(2), "the last of that id");
        let dir = root.path().join("ns/c");
        fs::create_dir_all(&dir).unwrap();
        for (at, count) in [(2, 2), (3, 3)] {
            fs::write(dir.join(FILE), serde_json::to_vec(&began(at)).unwrap()).unwrap();
            assert_eq!(all(&place).unwrap().len(), count);
            assert_eq!(of(&place, "c").unwrap().record.began(), Some(at));
        }
        assert!(of(&place, ".ended").is_err());
    }
}
