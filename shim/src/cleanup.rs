//! The `delete` command: what a container left behind goes, whoever left it.
//!
//! The daemon runs it after every task. Mostly Delete has done the work, and
//! a mark in the bundle says so; then nothing but the exit status is reported.
//! After a crash of the server everything is taken away here. It may be run
//! any number of times and says nothing but its answer.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use boathook_fs::rootfs::unmount_rootfs;
use boathook_runtime::{Engine, ErrorKind};
use protobuf::Message;

use crate::args::Flags;
use crate::bundle::{self, Record};
use crate::effects::DEFAULT_ROOT;
use crate::effects::hooks::{self, Lost};
use crate::failure::{Failure, Result};
use crate::table::Exit;
use crate::{proto, socket};

/// The daemon kills this command after 5 s.
const LIMIT: Duration = Duration::from_secs(4);
/// How much of that a hook may take that was interrupted by the server's end.
const HOOK_LIMIT: Duration = Duration::from_millis(1500);
/// The status of a container nobody saw ending: killed.
const KILLED: u32 = 137;

/// Cleans up after `-id` and writes the answer to stdout.
///
/// # Errors
/// Something could not be removed; the daemon keeps the bundle then.
pub fn delete(flags: &Flags) -> Result<()> {
    let bundle = match &flags.bundle {
        Some(bundle) => bundle.clone(),
        None => std::env::current_dir().map_err(|e| Failure::sys("current directory", e))?,
    };
    // A broken record must not keep a container alive.
    let record = Record::read(&bundle).unwrap_or_else(|failure| {
        report(&failure);
        None
    });
    let record = record.unwrap_or_default();
    if !record.clean {
        remove(flags, &bundle, &record)?;
    }
    let killed = || Exit { status: KILLED, at: Some(SystemTime::now()) };
    let exit = record.exit.map_or_else(killed, bundle::RecordedExit::exit);
    let answer = proto::deleted(record.pid, Some(exit))
        .write_to_bytes()
        .map_err(|e| Failure::invalid(format!("answer: {e}")))?;
    let mut stdout = std::io::stdout().lock();
    stdout
        .write_all(&answer)
        .and_then(|()| stdout.flush())
        .map_err(|e| Failure::sys("write the answer", e))
}

fn remove(flags: &Flags, bundle: &Path, record: &Record) -> Result<()> {
    let until = Instant::now() + LIMIT;
    let root = root(flags, record);
    let engine = Engine::new(&root);
    if let Ok(container) = engine.open(&flags.id) {
        let dir = root.join(&flags.id);
        // The container goes in any case.
        let lost = Lost::read(container, bundle, &dir).inspect_err(report).ok().flatten();
        if let Some(lost) = lost {
            end_lost(flags, lost, record, until);
        }
        let _ = hooks::retire_record(&dir).inspect_err(report);
    }
    let left = until.saturating_duration_since(Instant::now());
    let removed = engine.remove(&flags.id, left).map_err(Failure::from);
    // All is tried before the first error counts.
    let unmounted = unmount_rootfs(&bundle.join("rootfs")).map_err(Failure::from);
    if let Some(socket) = bundle::socket_path(bundle)
        && socket::remove_dead(&socket)
    {
        end_group(flags, bundle, &socket, until);
    }
    removed.and(unmounted)
}

/// Ends a container whose hooks nobody looks after any more; what fails here is
/// tried again without them.
fn end_lost(flags: &Flags, mut lost: Lost, record: &Record, until: Instant) {
    let _ = lost.last_words(HOOK_LIMIT).inspect_err(report);
    let status = record.exit.as_ref().map_or(KILLED, |exit| exit.status);
    let left = until.saturating_duration_since(Instant::now());
    let _ = lost.end(status, left).inspect_err(report);
    let address =
        std::env::var("TTRPC_ADDRESS").unwrap_or_else(|_| format!("{}.ttrpc", flags.address));
    lost.tell(address, flags.namespace.clone());
}

fn root(flags: &Flags, record: &Record) -> PathBuf {
    match record.root.as_os_str().is_empty() {
        true => PathBuf::from(DEFAULT_ROOT).join(&flags.namespace),
        false => record.root.clone(),
    }
}

/// Ends the other containers of a server that is dead: nobody looks after them
/// any more, and not every daemon asks for the `delete` of each. What is left
/// of them stays for their own, and so does one that may be owed a hook.
fn end_group(flags: &Flags, bundle: &Path, socket: &Path, until: Instant) {
    let (Some(all), Some(own)) = (bundle.parent(), bundle.file_name()) else { return };
    let Ok(entries) = std::fs::read_dir(all) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_name() != own) {
        let other = entry.path();
        if bundle::socket_path(&other).as_deref() != Some(socket) {
            continue;
        }
        let record = Record::read(&other).ok().flatten().unwrap_or_default();
        let id = entry.file_name().to_string_lossy().into_owned();
        // The directory of a bundle has the container's id (containerd, core/runtime/v2/bundle.go).
        let root = root(flags, &record);
        if hooks::has_record(&root.join(&id)) {
            continue;
        }
        let left = until.saturating_duration_since(Instant::now());
        let ended = Engine::new(&root).open(&id).and_then(|it| it.kill_all(left));
        if let Err(error) = ended
            && error.kind() != ErrorKind::NotFound
        {
            report(&error.into());
        }
    }
}

/// stderr of this command goes to the daemon's log and nowhere else.
fn report(failure: &Failure) {
    let _ = writeln!(std::io::stderr(), "{failure}");
}
