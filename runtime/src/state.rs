//! `state.json`: the record of a container that outlives the process that
//! made it.
//!
//! ```text
//! <root>/                0700, made when needed
//!   <id>/                0700; locked (flock(2)) by whoever creates or deletes the container
//!     state.json         replaced by rename, so that readers see all or nothing
//!     seccomp.bpf        the filter of its processes, if they have one
//! ```
//! The record is written before anything else of a container is made and is
//! removed after everything else: what has no record does not exist. Until the
//! container is complete its record says so ([`Making`]). A maker that is
//! killed loses its lock, and whoever gets the lock next finds in the record
//! what is left to be taken away.
//!
//! The root is on a tmpfs (/run): a reboot ends containers and records alike,
//! and nothing is fsynced.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{ErrorKind as Io, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FlockOperation, Mode, OFlags, flock, fstat, openat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::cgroup::CgroupRecord;
use crate::hooks::Later;
use crate::plan::check_id;
use crate::resctrl::Groups;
use crate::seccomp::{self, Filter, Listener};
use crate::{Error, ErrorKind, Result, sys};

const FILE: &str = "state.json";
const NEW_FILE: &str = "state.json.new";
const FILTER: &str = "seccomp.bpf";
/// How often a directory is tried for that others remove meanwhile.
const RACES: usize = 16;
/// How long a maker that does not end is waited for before it is told once more: what was killed may
/// not have been all that it makes.
const TURN: Duration = Duration::from_millis(50);

/// The record. The first fields are those of the OCI state document
/// (runtime.md, "State"); `boathook` holds what only we need.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// Version of the specification.
    pub oci_version: String,
    /// The container's id.
    pub id: String,
    /// Pid of its first process in the host's namespace; 0 while it is made.
    pub pid: i32,
    /// Absolute path of the bundle.
    pub bundle: PathBuf,
    /// Annotations of the config.
    #[serde(default)]
    pub annotations: HashMap<String, String>,
    /// What the engine needs to find the container again.
    pub boathook: Private,
}

/// The engine's own part of the record.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Private {
    /// Start time of the first process in clock ticks since boot: a reused pid
    /// has another one.
    pub start_time: u64,
    /// `CLONE_NEW*` of the namespaces that are not the host's.
    pub namespaces: u32,
    /// Whether the first process's end ends all others.
    pub private_pid: bool,
    /// Whether it has a session keyring of its own, which later processes join.
    #[serde(default)]
    pub keyring: bool,
    /// The cgroup.
    pub cgroup: CgroupRecord,
    /// Its resctrl groups; `None` without `linux.intelRdt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resctrl: Option<Groups>,
    /// How the filter in `seccomp.bpf` is loaded; `None` without a filter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seccomp: Option<SeccompRecord>,
    /// Hooks that are still to come.
    #[serde(default)]
    pub hooks: Later,
    /// How far its create has come; `None` once the container is complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub making: Option<Making>,
}

/// How far a create has come. What it means when nobody holds the lock: the
/// maker was killed, and this is what it may have left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Making {
    /// The cgroup's directories that are listed as made were missing when this
    /// was written; others were there before and may be somebody else's.
    Intended,
    /// The cgroup is the container's own, found empty where it was there before.
    Owned,
}

/// What is recorded of a filter besides its program.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SeccompRecord {
    /// `SECCOMP_FILTER_FLAG_*`.
    pub flags: u32,
    /// Who gets the listening descriptors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listener: Option<Listener>,
}

/// The directory of an id, locked. A claimed one is removed when it is dropped
/// without [`StateDir::keep`].
#[derive(Debug)]
pub(crate) struct StateDir {
    root: PathBuf,
    path: PathBuf,
    /// The open directory; the lock goes with it, also when this process is killed.
    _lock: OwnedFd,
    claimed: bool,
}

/// What came of an attempt to lock the directory of an id.
#[derive(Debug)]
pub(crate) enum Attempt {
    /// It is this process's; nobody else makes or removes the container.
    Locked(StateDir),
    /// Somebody who is alive makes or removes the container.
    Busy,
    /// There is no such directory.
    Absent,
}

impl StateDir {
    /// Claims `id` for a new container. The record of one that was never
    /// completed comes along: whatever it lists has to go first.
    ///
    /// # Errors
    /// `AlreadyExists` when it is taken.
    pub(crate) fn claim(root: &Path, id: &str) -> Result<(Self, Option<State>)> {
        check_id(id)?;
        let path = root.join(id);
        // Another container's end may remove an empty root between the two steps.
        for _ in 0..RACES {
            dirs().recursive(true).create(root).map_err(|e| failed("create", root, e))?;
            let made = match dirs().create(&path) {
                Ok(()) => true,
                Err(e) if e.kind() == Io::AlreadyExists => false,
                Err(e) if e.kind() == Io::NotFound => continue,
                Err(e) => {
                    remove_empty(root);
                    return Err(failed("create", &path, e));
                }
            };
            let claimed = match Self::lock(root, id) {
                Ok(Attempt::Absent) => continue,
                Ok(Attempt::Busy) => return Err(taken(id, "is being created or deleted")),
                Ok(Attempt::Locked(dir)) => dir.unless_complete(id),
                Err(error) => Err(error),
            };
            return claimed.inspect_err(|_| {
                if made {
                    remove_empty(&path);
                    remove_empty(root);
                }
            });
        }
        Err(Error::new(
            ErrorKind::Internal,
            format!("create {}: it keeps vanishing", path.display()),
        ))
    }

    fn unless_complete(mut self, id: &str) -> Result<(Self, Option<State>)> {
        let record = self.record()?;
        if record.as_ref().is_some_and(|state| state.boathook.making.is_none()) {
            return Err(taken(id, "already exists"));
        }
        self.claimed = true;
        Ok((self, record))
    }

    /// Locks the directory of `id`; never waits.
    ///
    /// # Errors
    /// `InvalidInput` for what is no id; the kernel's refusal.
    pub(crate) fn lock(root: &Path, id: &str) -> Result<Attempt> {
        Self::lock_by(root, id, |dir| match flock(dir, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(true),
            Err(Errno::WOULDBLOCK) => Ok(false),
            Err(errno) => Err(errno.into()),
        })
    }

    /// As [`Self::lock`]; `take` locks the open directory, or says that it cannot be had.
    fn lock_by(
        root: &Path,
        id: &str,
        take: impl Fn(&OwnedFd) -> std::io::Result<bool>,
    ) -> Result<Attempt> {
        check_id(id)?;
        let path = root.join(id);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        for _ in 0..RACES {
            let dir = match openat(CWD, &path, flags, Mode::empty()) {
                Ok(dir) => dir,
                Err(Errno::NOENT) => return Ok(Attempt::Absent),
                Err(errno) => return Err(failed("open", &path, errno.into())),
            };
            match take(&dir) {
                Ok(true) => {}
                Ok(false) => return Ok(Attempt::Busy),
                Err(error) => return Err(failed("lock", &path, error)),
            }
            // Whoever had the lock before may have removed the directory with it.
            let held = fstat(&dir).map_err(|errno| failed("stat", &path, errno.into()))?;
            let there = fs::symlink_metadata(&path);
            if there.is_ok_and(|it| (it.dev(), it.ino()) == (held.st_dev, held.st_ino)) {
                let root = root.to_owned();
                return Ok(Attempt::Locked(Self { root, path, _lock: dir, claimed: false }));
            }
        }
        Ok(Attempt::Busy)
    }

    /// As [`Self::lock`], waiting until its holder lets go of it; `None` when
    /// there is no such directory. `nudge` is to bring the holder to its end, and
    /// is run again and again where there is one.
    ///
    /// # Errors
    /// `Timeout` at `until`.
    pub(crate) fn lock_until(
        root: &Path,
        id: &str,
        until: Instant,
        nudge: Option<&dyn Fn()>,
    ) -> Result<Option<Self>> {
        let mut attempt = Self::lock(root, id)?;
        loop {
            match attempt {
                Attempt::Locked(dir) => return Ok(Some(dir)),
                Attempt::Absent => return Ok(None),
                Attempt::Busy if Instant::now() >= until => {
                    let text = format!("container {id:?} is still being created or deleted");
                    return Err(Error::new(ErrorKind::Timeout, text));
                }
                Attempt::Busy => {}
            }
            let turn = match nudge {
                Some(nudge) => {
                    nudge();
                    until.min(Instant::now() + TURN)
                }
                None => until,
            };
            attempt = Self::lock_by(root, id, |dir| Ok(sys::flock_until(dir.as_fd(), turn)?))?;
        }
    }

    /// The record in it, if there is one.
    ///
    /// # Errors
    /// It cannot be read or understood.
    pub(crate) fn record(&self) -> Result<Option<State>> {
        read(&self.path)
    }

    /// Writes the record.
    pub(crate) fn save(&self, state: &State) -> Result<()> {
        let json = serde_json::to_vec(state)
            .map_err(|e| Error::new(ErrorKind::Internal, format!("encode state.json: {e}")))?;
        let new = self.path.join(NEW_FILE);
        write_own(&new, &json).map_err(|e| failed("write", &new, e))?;
        fs::rename(&new, self.path.join(FILE)).map_err(|e| failed("rename", &new, e))
    }

    /// Keeps the filter for later processes, and returns what goes into the record.
    pub(crate) fn save_filter(&self, filter: &Filter) -> Result<SeccompRecord> {
        let path = self.path.join(FILTER);
        write_own(&path, &filter.bytes()).map_err(|e| failed("write", &path, e))?;
        Ok(SeccompRecord { flags: filter.flags, listener: filter.listener.clone() })
    }

    /// Removes what is recorded.
    ///
    /// # Errors
    /// The kernel's refusal; what is left can be removed later.
    pub(crate) fn remove(mut self) -> Result<()> {
        self.claimed = false;
        remove_dir(&self.root, &self.path)
    }

    /// The container lives: its directory stays.
    pub(crate) fn keep(mut self) {
        self.claimed = false;
    }
}

impl Drop for StateDir {
    fn drop(&mut self) {
        if self.claimed {
            let _ = remove_dir(&self.root, &self.path);
        }
    }
}

/// Reads the record of `id`.
///
/// # Errors
/// `NotFound` when there is none.
pub(crate) fn load(root: &Path, id: &str) -> Result<State> {
    check_id(id)?;
    let missing = || Error::new(ErrorKind::NotFound, format!("container {id:?} does not exist"));
    read(&root.join(id))?.ok_or_else(missing)
}

fn read(dir: &Path) -> Result<Option<State>> {
    let path = dir.join(FILE);
    let json = match fs::read(&path) {
        Ok(json) => json,
        Err(e) if e.kind() == Io::NotFound => return Ok(None),
        Err(e) => return Err(failed("read", &path, e)),
    };
    serde_json::from_slice(&json)
        .map(Some)
        .map_err(|e| Error::new(ErrorKind::Internal, format!("{}: {e}", path.display())))
}

fn taken(id: &str, how: &str) -> Error {
    Error::new(ErrorKind::AlreadyExists, format!("container {id:?} {how}"))
}

/// The filter of the container `id`. That it cannot be read is an error: a
/// process must not run without the filter that it was to have.
pub(crate) fn load_filter(root: &Path, id: &str, record: &SeccompRecord) -> Result<Filter> {
    check_id(id)?;
    let path = root.join(id).join(FILTER);
    let bytes = fs::read(&path).map_err(|e| failed("read", &path, e))?;
    let program = seccomp::program(&bytes).ok_or_else(|| {
        let text = format!("{}: {} bytes are no filter", path.display(), bytes.len());
        Error::new(ErrorKind::Internal, text)
    })?;
    let SeccompRecord { flags, listener } = record.clone();
    Ok(Filter { program, flags, listener, unknown: Vec::new() })
}

fn remove_dir(root: &Path, path: &Path) -> Result<()> {
    for name in [FILTER, NEW_FILE, FILE] {
        // What cannot be removed as a file shows in the next step.
        let _ = fs::remove_file(path.join(name));
    }
    let removed = match fs::remove_dir(path) {
        Err(e) if e.kind() == Io::DirectoryNotEmpty => fs::remove_dir_all(path),
        other => other,
    };
    match removed {
        Err(e) if e.kind() != Io::NotFound => return Err(failed("remove", path, e)),
        _ => {}
    }
    remove_empty(root);
    Ok(())
}

/// Removes a directory that may be full. The root goes with its last container.
pub(crate) fn remove_empty(dir: &Path) {
    let _ = fs::remove_dir(dir);
}

fn dirs() -> DirBuilder {
    let mut builder = DirBuilder::new();
    builder.mode(0o700);
    builder
}

/// Writes a file that is nobody else's affair, whatever the mask of this process.
fn write_own(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(path)?.write_all(bytes)
}

fn failed(doing: &str, path: &Path, error: std::io::Error) -> Error {
    Error::sys(format!("{doing} {}", path.display()), error)
}

/// Field 22 of `/proc/PID/stat`: when the process started, in clock ticks.
///
/// # Errors
/// `NotFound` when there is no such process.
pub(crate) fn start_time(pid: i32) -> Result<u64> {
    let text = stat(pid)?;
    field(&text, 22)
        .ok_or_else(|| Error::new(ErrorKind::Internal, format!("/proc/{pid}/stat: {text:?}")))
}

/// Whether the process is gone or on its way out (`PF_EXITING` in field 9,
/// include/linux/sched.h).
pub(crate) fn is_exiting(pid: i32) -> bool {
    const PF_EXITING: u64 = 0x4;
    match stat(pid) {
        Ok(text) => field(&text, 9).is_some_and(|flags| flags & PF_EXITING != 0),
        Err(error) => error.kind() == ErrorKind::NotFound,
    }
}

fn stat(pid: i32) -> Result<String> {
    // One read: procfs makes the whole line for it, and no line is longer.
    let mut buffer = [0; 1024];
    let length = fs::File::open(format!("/proc/{pid}/stat"))
        .and_then(|mut file| file.read(&mut buffer))
        .map_err(|error| match error.raw_os_error() {
            Some(libc::ENOENT | libc::ESRCH) => {
                Error::new(ErrorKind::NotFound, format!("process {pid} does not exist"))
            }
            _ => Error::sys(format!("read /proc/{pid}/stat"), error),
        })?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

/// A field by its number in proc_pid_stat(5), from the third on. The name in
/// parentheses may hold anything, so fields count from its end.
fn field(stat: &str, number: usize) -> Option<u64> {
    let rest = &stat[stat.rfind(')')? + 1..];
    rest.split_whitespace().nth(number - 3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_start_time_is_found_behind_any_name() {
        let stat = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20";
        assert_eq!((field(stat, 22), field(stat, 9)), (Some(4711), Some(6)));
        assert!(start_time(std::process::id() as i32).unwrap() > 0);
        assert_eq!(start_time(-1).unwrap_err().kind(), ErrorKind::NotFound);
        assert!(is_exiting(-1) && !is_exiting(std::process::id() as i32));
    }

    fn claim(root: &Path, id: &str) -> StateDir {
        StateDir::claim(root, id).unwrap().0
    }

    fn refusal(root: &Path, id: &str) -> ErrorKind {
        StateDir::claim(root, id).unwrap_err().kind()
    }

    fn record(making: Option<Making>) -> State {
        let cgroup = json!({ "driver": "cgroupfs", "members": [] });
        let mut state: State = serde_json::from_value(json!({
            "ociVersion": "1.0.2", "id": "c1", "pid": 7, "bundle": "/b",
            "boathook": { "startTime": 1, "namespaces": 0, "privatePid": true, "cgroup": cgroup },
        }))
        .expect("a record as earlier versions wrote it");
        assert_eq!(state.boathook.making, None);
        state.boathook.making = making;
        state
    }

    #[test]
    fn an_id_is_claimed_once_and_free_again_after() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().join("made/when/needed");
        let first = claim(&root, "c1");
        assert_eq!(refusal(&root, "c1"), ErrorKind::AlreadyExists);
        assert!(matches!(StateDir::lock(&root, "c1").unwrap(), Attempt::Busy));
        drop(first);
        assert!(!root.exists(), "the last container takes the root with it");
        assert!(matches!(StateDir::lock(&root, "c1").unwrap(), Attempt::Absent));
        let second = claim(&root, "c1");
        second.save(&record(None)).unwrap();
        second.keep();
        assert_eq!(refusal(&root, "c1"), ErrorKind::AlreadyExists);
        let Attempt::Locked(dir) = StateDir::lock(&root, "c1").unwrap() else { panic!("free") };
        assert_eq!(dir.record().unwrap().unwrap().pid, 7);
        drop(dir);
        assert!(root.join("c1").exists(), "looking at it removes nothing");
        let Attempt::Locked(dir) = StateDir::lock(&root, "c1").unwrap() else { panic!("free") };
        dir.remove().unwrap();
        assert!(!root.exists());
    }

    /// Red if the lock is looked at now and then instead of being waited for, or if its holder is
    /// not brought to its end while that lasts.
    #[test]
    fn a_lock_is_waited_for() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let held = claim(root, "c1");
        let until = Instant::now() + TURN;
        let error = StateDir::lock_until(root, "c1", until, None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!(Instant::now() >= until);
        let inode = fs::metadata(root.join("c1")).unwrap().ino().to_string();
        let until = Instant::now() + Duration::from_secs(60);
        std::thread::scope(|scope| {
            let waiter = scope.spawn(move || StateDir::lock_until(root, "c1", until, None));
            // Lines of those that wait have an arrow (proc_locks(5)).
            let waits = |line: &str| line.contains("->") && line.contains(&format!(":{inode} "));
            while !fs::read_to_string("/proc/locks").unwrap().lines().any(waits) {
                assert!(!waiter.is_finished() && Instant::now() < until, "it does not wait");
                std::thread::yield_now();
            }
            held.keep();
            assert!(waiter.join().unwrap().unwrap().is_some());
        });
        // This holder ends only when it is told a third time.
        let held = std::cell::RefCell::new(vec![None, None, Some(claim(root, "c1"))]);
        let nudge = || {
            let _ = held.borrow_mut().remove(0).map(StateDir::keep);
        };
        let locked = StateDir::lock_until(root, "c1", until, Some(&nudge)).unwrap();
        assert!(locked.is_some() && held.borrow().is_empty());
    }

    /// A maker that was killed at any point: before its record, with the record of something half
    /// made, in the middle of a removal. The id is free, and what was recorded is handed over.
    #[test]
    fn what_a_killed_maker_left_is_taken_over() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        fs::create_dir(root.join("c1")).unwrap();
        fs::write(root.join("c1").join(FILTER), "x").unwrap();
        let (dir, left) = StateDir::claim(root, "c1").unwrap();
        assert!(left.is_none());
        dir.save(&record(Some(Making::Intended))).unwrap();
        dir.keep();
        let (dir, left) = StateDir::claim(root, "c1").unwrap();
        assert_eq!(left.unwrap().boathook.making, Some(Making::Intended));
        fs::create_dir(root.join("c1").join(NEW_FILE)).unwrap();
        drop(dir);
        assert!(!root.exists());
    }

    #[test]
    fn a_record_that_cannot_be_read_keeps_its_id() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("c1")).unwrap();
        fs::write(root.path().join("c1").join(FILE), "{").unwrap();
        let error = StateDir::claim(root.path(), "c1").unwrap_err();
        assert!(error.to_string().contains(FILE), "{error}");
        assert!(root.path().join("c1").join(FILE).exists());
    }

    #[test]
    fn a_filter_is_read_back_whole_or_not_at_all() {
        let root = tempfile::tempdir().unwrap();
        let dir = claim(root.path(), "c1");
        let spec = serde_json::from_str(r#"{"defaultAction": "SCMP_ACT_ERRNO"}"#).unwrap();
        let filter = seccomp::compile(&spec).unwrap();
        let record = dir.save_filter(&filter).unwrap();
        assert_eq!(load_filter(root.path(), "c1", &record).unwrap(), filter);
        let file = root.path().join("c1").join(FILTER);
        for damage in [&filter.bytes()[1..], &[]] {
            fs::write(&file, damage).unwrap();
            assert!(load_filter(root.path(), "c1", &record).is_err());
        }
        drop(dir);
        assert!(!file.exists());
        assert!(load_filter(root.path(), "c1", &record).is_err());
    }

    #[test]
    fn hostile_ids_are_refused_before_they_are_paths() {
        let root = tempfile::tempdir().unwrap();
        for id in ["", "..", ".", "a/b", "../x", "a\0b", "ä"] {
            let error = StateDir::claim(root.path(), id).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{id:?}");
        }
    }
}
