//! What the suites do to the machine itself, with the least of rights.

use crate::error::{Context, Error, Result};
use crate::wait::{self, PATIENCE};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, recv, sendto, socket};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;
use tempfile::TempDir;

/// Longer than any suite runs.
const TURN: Duration = Duration::from_secs(20 * 60);

/// Waits for this process's turn on the machine and keeps it until the process ends.
///
/// A census compares the whole machine before and after, so two suites, or a suite and a bench,
/// must not run at once. The lock is on the directory `/run` and leaves no file.
///
/// # Errors
/// Somebody else holds it for twenty minutes.
pub fn exclusive() -> Result<()> {
    static TURN_HELD: OnceLock<File> = OnceLock::new();
    if TURN_HELD.get().is_some() {
        return Ok(());
    }
    let run = File::open("/run").during(|| "open /run")?;
    wait::until("the end of another suite, demo or bench on this machine", TURN, || {
        match flock(&run, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(())),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(errno) => Err(errno).during(|| "lock /run"),
        }
    })?;
    // A second thread that came first holds the same lock for the same process.
    let _ = TURN_HELD.set(run);
    Ok(())
}

/// A word that is in the name of everything this process makes: directories, and by them command
/// lines, namespaces of containerd, cgroups and links. By it a census knows what is ours.
#[must_use]
pub fn mark() -> &'static str {
    static MARK: OnceLock<String> = OnceLock::new();
    // Process ids have at most 22 bits; a fixed length, so that no mark begins another.
    MARK.get_or_init(|| format!("bh{:06x}", std::process::id()))
}

/// A new directory in `/tmp`, short enough for sockets and marked; removed when dropped.
///
/// # Errors
/// `/tmp` is not to be written.
pub fn temp_dir() -> Result<TempDir> {
    let mut named = tempfile::Builder::new();
    // Four random letters keep `<name>-br` within the fifteen bytes of an interface's name.
    named.prefix(mark()).rand_bytes(4);
    named.tempdir_in("/tmp").during(|| "make a directory in /tmp")
}

/// Fails unless this process is root.
///
/// # Errors
/// [`Error::Missing`] with what to do.
pub fn need_root() -> Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    Err(Error::Missing { what: "root".into(), remedy: "run this suite as root".into() })
}

/// Removes a network link by name; one that is not there is as good as removed.
///
/// # Errors
/// The kernel's refusal.
pub fn remove_link(name: &str) -> Result<()> {
    const RTM_DELLINK: u16 = 17;
    const NLM_F_REQUEST_ACK: u16 = 0x5;
    const IFLA_IFNAME: u16 = 3;
    let what = || format!("remove the network link {name}");
    // nlmsghdr, ifinfomsg (all zero: found by name), one attribute (rtnetlink(7)).
    let attribute = 4 + name.len() + 1;
    let length = 16 + 16 + attribute.next_multiple_of(4);
    let mut message = Vec::with_capacity(length);
    message.extend(u32::try_from(length).unwrap_or(0).to_ne_bytes());
    message.extend(RTM_DELLINK.to_ne_bytes());
    message.extend(NLM_F_REQUEST_ACK.to_ne_bytes());
    message.extend([0; 8 + 16]);
    message.extend(u16::try_from(attribute).unwrap_or(0).to_ne_bytes());
    message.extend(IFLA_IFNAME.to_ne_bytes());
    message.extend(name.as_bytes());
    message.resize(length, 0);

    let kernel = SocketAddrNetlink::new(0, 0);
    // Protocol 0 of this family is NETLINK_ROUTE.
    let link = socket(AddressFamily::NETLINK, SocketType::RAW, None).during(what)?;
    sendto(&link, &message, SendFlags::empty(), &kernel).during(what)?;
    let mut answer = [0; 256];
    let (_, count) = recv(&link, &mut answer[..], RecvFlags::empty()).during(what)?;
    // nlmsgerr: a negative errno, 0 for success.
    let error = answer.get(16..20).filter(|_| count >= 20).and_then(|it| it.try_into().ok());
    match error.map(i32::from_ne_bytes) {
        Some(0) => Ok(()),
        Some(negative) if Errno::from_raw_os_error(-negative) == Errno::NODEV => Ok(()),
        Some(negative) => Err(Errno::from_raw_os_error(-negative)).during(what),
        None => Err(Error::check(format!("{}: short answer", what()))),
    }
}

/// The process ids whose command line satisfies `matches`; zombies have none.
#[must_use]
pub fn processes(matches: impl Fn(&str) -> bool) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| matches(&command_line(*pid)))
        .collect()
}

/// A process's command line with spaces between the words; empty when it is gone.
#[must_use]
pub fn command_line(pid: u32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ").trim_end().to_owned()
}

/// Sends a signal to a process that this process is responsible for; gone already is fine.
///
/// # Errors
/// The kernel's refusal.
pub fn signal(pid: u32, signal: Signal) -> Result<()> {
    let Some(raw) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Ok(()) };
    let sent = pidfd_open(raw, PidfdFlags::empty()).and_then(|fd| pidfd_send_signal(&fd, signal));
    match sent {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(errno) => Err(errno).during(|| format!("send {signal:?} to {pid}")),
    }
}

/// Detaches every mount at or below `dir`, the innermost first.
///
/// # Errors
/// The kernel's refusal.
pub fn unmount_below(dir: &Path) -> Result<()> {
    for mount in mounts_below(dir)?.iter().rev() {
        let done = unmount(mount, UnmountFlags::DETACH);
        match done {
            Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
            Err(errno) => return Err(errno).during(|| format!("unmount {}", mount.display())),
        }
    }
    Ok(())
}

/// The mount points at or below `dir`, in the order they were mounted.
///
/// # Errors
/// The mount table cannot be read.
pub fn mounts_below(dir: &Path) -> Result<Vec<PathBuf>> {
    let table = fs::read_to_string("/proc/self/mountinfo").during(|| "read mountinfo")?;
    let points = table.lines().filter_map(|line| line.split(' ').nth(4));
    Ok(points.map(PathBuf::from).filter(|point| point.starts_with(dir)).collect())
}

/// Makes `/name` in every cgroup hierarchy.
///
/// # Errors
/// The mount table cannot be read, or the kernel refuses.
pub fn make_cgroup(name: &str) -> Result<()> {
    for point in hierarchies()? {
        let dir = point.join(name.trim_start_matches('/'));
        fs::create_dir_all(&dir).during(|| format!("mkdir {}", dir.display()))?;
    }
    Ok(())
}

/// Removes `/name` from every cgroup hierarchy: the directory above a namespace's or a pod's
/// containers, which runtimes make and leave. Directories with others in them stay.
///
/// # Errors
/// The mount table cannot be read, or there are processes in it.
pub fn remove_cgroup(name: &str) -> Result<()> {
    for dir in cgroup(name)? {
        // A cgroup whose last process has just been reaped is busy for a moment.
        wait::until(&format!("the end of {}", dir.display()), PATIENCE, || {
            match fs::remove_dir(&dir) {
                Ok(()) => Ok(Some(())),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Some(())),
                Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => Ok(None),
                Err(error) => Err(error).during(|| format!("rmdir {}", dir.display())),
            }
        })?;
    }
    Ok(())
}

/// Kills every process below `/name` of every cgroup hierarchy and removes the directories in it.
///
/// # Errors
/// The mount table cannot be read, or a process does not die.
pub fn kill_cgroup(name: &str) -> Result<()> {
    for dir in cgroup(name)? {
        for entry in fs::read_dir(&dir).during(|| format!("list {}", dir.display()))?.flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            let inner = entry.path();
            thaw(&inner);
            let pids = fs::read_to_string(inner.join("cgroup.procs")).unwrap_or_default();
            for pid in pids.lines().filter_map(|line| line.parse().ok()) {
                signal(pid, Signal::KILL)?;
                wait::gone(pid, PATIENCE)?;
            }
            remove_cgroup(&format!("{name}/{}", entry.file_name().to_string_lossy()))?;
        }
    }
    Ok(())
}

/// Frozen processes do not die (cgroup v1) until they are thawed.
fn thaw(dir: &Path) {
    let _ = fs::write(dir.join("freezer.state"), "THAWED");
    let _ = fs::write(dir.join("cgroup.freeze"), "0");
}

/// The directories of `/name` in the hierarchies that have it.
fn cgroup(name: &str) -> Result<Vec<PathBuf>> {
    let name = name.trim_start_matches('/');
    crate::ensure!(!name.is_empty(), "the root cgroup is not ours");
    let dirs = hierarchies()?.into_iter().map(|point| point.join(name));
    Ok(dirs.filter(|dir| dir.is_dir()).collect())
}

/// Where the cgroup hierarchies are mounted.
fn hierarchies() -> Result<Vec<PathBuf>> {
    let table = fs::read_to_string("/proc/self/mountinfo").during(|| "read mountinfo")?;
    let points = table.lines().filter_map(|line| {
        let is_cgroup = line.contains(" - cgroup ") || line.contains(" - cgroup2 ");
        line.split(' ').nth(4).filter(|_| is_cgroup)
    });
    Ok(points.map(PathBuf::from).collect())
}

/// Waits until no process satisfies `matches` any more.
///
/// # Errors
/// [`Error::Deadline`] naming those that remain.
pub fn none_left(what: &str, matches: impl Fn(&str) -> bool) -> Result<()> {
    let ended = wait::until(what, PATIENCE, || Ok(processes(&matches).is_empty().then_some(())));
    ended.map_err(|error| {
        let left: Vec<String> = processes(&matches)
            .into_iter()
            .map(|pid| format!("\n  {pid}: {}", command_line(pid)))
            .collect();
        Error::Check(format!("{error}{}", left.concat()))
    })
}

/// Reads a file of the cgroup that a process is in: of the controller's own hierarchy (v1), else
/// of the unified one.
///
/// # Errors
/// The process or the file is not there.
pub fn cgroup_file(pid: u32, controller: &str, file: &str) -> Result<String> {
    let path = format!("/proc/{pid}/cgroup");
    let table = fs::read_to_string(&path).during(|| format!("read {path}"))?;
    let entries = table.lines().filter_map(|line| {
        let mut words = line.splitn(3, ':').skip(1);
        Some((words.next()?, words.next()?))
    });
    let own = entries.clone().find(|(names, _)| names.split(',').any(|name| name == controller));
    let Some((names, dir)) = own.or_else(|| entries.clone().find(|(names, _)| names.is_empty()))
    else {
        return Err(Error::check(format!("process {pid} is in no cgroup of {controller}")));
    };
    let mounts = fs::read_to_string("/proc/self/mountinfo").during(|| "read mountinfo")?;
    let point = mounts.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let kind = if names.is_empty() { "cgroup2 " } else { "cgroup " };
        let options = right.rsplit(' ').next()?;
        let matches = names.is_empty() || options.split(',').any(|option| option == controller);
        (right.starts_with(kind) && matches).then(|| left.split(' ').nth(4)).flatten()
    });
    let point = point.ok_or_else(|| Error::check(format!("no hierarchy of {controller}")))?;
    let path = Path::new(point).join(dir.trim_start_matches('/')).join(file);
    let text = fs::read_to_string(&path).during(|| format!("read {}", path.display()))?;
    Ok(text.trim().to_owned())
}
