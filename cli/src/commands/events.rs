//! `boathook events`: what happened to hooks and stops, of all containers that
//! exist or did lately; with `--follow` also what happens from now on.

use std::collections::HashMap;
use std::mem::MaybeUninit;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use boathook_hooks::record::{Entry, What};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

use super::lifecycle::event_line;
use crate::args::Events;
use crate::output::{Failure, print};
use crate::records::{self, Found, Key};

pub(crate) fn run(args: &Events) -> Result<(), Failure> {
    // Before the first look, so that nothing happens in between.
    let watch = args.follow.then(|| Watch::new(&args.place.root)).transpose()?;
    let mut printed = HashMap::new();
    loop {
        if let Some(watch) = &watch {
            watch.extend(&args.place.root)?;
        }
        let mut found = records::all(&args.place)?;
        found.retain(|it| args.container.as_ref().is_none_or(|id| *id == it.record.id));
        printed.retain(|key, _| found.iter().any(|it| it.key() == *key));
        print(&news(&found, &mut printed, args.json)?)?;
        match &watch {
            Some(watch) => watch.wait()?,
            None => return Ok(()),
        }
    }
}

/// What has not been printed yet, in the order of time.
fn news(found: &[Found], printed: &mut HashMap<Key, Entry>, json: bool) -> Result<String, Failure> {
    let mut fresh: Vec<(&Found, &Entry)> = Vec::new();
    for it in found {
        let history = &it.record.history;
        let known = printed.get(&it.key());
        let from = known.and_then(|last| history.iter().rposition(|entry| entry == last));
        let own = &history[from.map_or(0, |at| at + 1)..];
        fresh.extend(own.iter().map(|entry| (it, entry)));
        if let Some(last) = history.last() {
            printed.insert(it.key(), last.clone());
        }
    }
    fresh.sort_by_key(|(_, entry)| entry.at);
    let mut out = String::new();
    for (it, entry) in fresh {
        match json {
            true => out.push_str(&json_line(it, entry)?),
            false => out.push_str(&event_line(it, entry)),
        }
    }
    Ok(out)
}

fn json_line(found: &Found, entry: &Entry) -> Result<String, Failure> {
    let wrong = |e: serde_json::Error| Failure::Text(format!("encode an event: {e}"));
    let mut value = serde_json::to_value(entry).map_err(wrong)?;
    if let Some(object) = value.as_object_mut() {
        object.insert("container".into(), found.record.id.clone().into());
        object.insert("namespace".into(), found.namespace.clone().into());
        if let What::HookFailed { hook, .. } = &entry.what {
            object.insert("reason".into(), hook.failed_reason().into());
        }
    }
    Ok(format!("{value}\n"))
}

/// The state directories, watched.
struct Watch(std::os::fd::OwnedFd);

impl Watch {
    fn new(root: &Path) -> Result<Self, Failure> {
        // The first container may be yet to come; the engine makes it like this.
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(root);
        made.map_err(|e| Failure::Io(format!("make {}", root.display()), e))?;
        let fd = inotify::init(CreateFlags::CLOEXEC);
        let fd = fd.map_err(|e| Failure::Io("inotify_init1".into(), e.into()))?;
        Ok(Self(fd))
    }

    /// Watches what there is now; watching twice is watching once.
    fn extend(&self, root: &Path) -> Result<(), Failure> {
        self.add(root)?;
        for namespace in records::names(root)? {
            let dir = root.join(namespace);
            self.add(&dir)?;
            for id in records::names(&dir)? {
                self.add(&dir.join(id))?;
            }
        }
        Ok(())
    }

    fn add(&self, dir: &Path) -> Result<(), Failure> {
        let flags = WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::ONLYDIR;
        match inotify::add_watch(&self.0, dir, flags) {
            // Gone already, or a file.
            Ok(_) | Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => Ok(()),
            Err(e) => Err(Failure::Io(format!("watch {}", dir.display()), e.into())),
        }
    }

    /// Waits until something changes.
    fn wait(&self) -> Result<(), Failure> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.0, &mut buffer);
        match reader.next() {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(e) => Err(Failure::Io("read inotify events".into(), e.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use boathook_hooks::Policy;
    use boathook_hooks::record::Record;

    use super::*;

    #[test]
    fn each_event_is_printed_once_and_in_order() {
        let found = |id: &str, times: &[u64]| {
            let mut record = Record::new(id, Policy::default());
            let entry = |at: &u64| Entry { at: *at, what: What::GraceExpired };
            record.history = times.iter().map(entry).collect();
            Found { namespace: "ns".into(), record }
        };
        let mut printed = HashMap::new();
        let first = news(&[found("a", &[1, 5]), found("b", &[3])], &mut printed, false).unwrap();
        let ids: Vec<_> = first.lines().map(|l| l.split_whitespace().nth(1).unwrap()).collect();
        assert_eq!(ids, ["ns/a", "ns/b", "ns/a"]);
        let all = [found("a", &[1, 5, 9]), found("b", &[3])];
        let second = news(&all, &mut printed, true).unwrap();
        assert_eq!(second.lines().count(), 1);
        assert!(second.contains("\"at\":9") && second.contains("\"container\":\"a\""), "{second}");
        assert_eq!(news(&all, &mut printed, false).unwrap(), "");
    }
}
