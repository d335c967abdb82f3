//! A test's own corner of the cgroup tree, and processes to put into it.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use boathook_runtime::Result;
use boathook_runtime::cgroup::{Cgroup, CgroupPlan, Driver, Hierarchies, Join, Layout, Mode};
use oci_spec::runtime::LinuxResources;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Far more than anything here takes, on the slowest machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A controller, and file and value of a limit on v1 and on v2.
pub(crate) type Limit<'a> = (&'a str, (&'a str, &'a str), (&'a str, &'a str));

pub(crate) fn deadline() -> Instant {
    Instant::now() + PATIENCE
}

/// A test's own cgroup, made empty in every hierarchy and removed at the end.
pub(crate) struct Arena {
    pub(crate) hierarchies: Hierarchies,
    /// The host's own, and where the arena is below each of their mount points.
    host: Hierarchies,
    name: String,
    /// Where containers are below the mount points of `hierarchies`.
    base: String,
    before: BTreeSet<PathBuf>,
}

impl Arena {
    /// In the hierarchies of this host, as they are.
    pub(crate) fn new() -> Self {
        let host = Hierarchies::probe().unwrap();
        let name = unique_name();
        Self::make(host.clone(), host, name.clone(), name)
    }

    /// On a v2 host: its one hierarchy is a cgroup of our own in the v2
    /// hierarchy of this host, so that nothing above it is ever written to.
    pub(crate) fn unified() -> Self {
        let host = Hierarchies::probe().unwrap();
        let v2 = host.layout().v2_index();
        let v2 = v2.unwrap_or_else(|| panic!("these tests need a cgroup v2 hierarchy"));
        let mut mount = host.layout().mounts[v2].clone();
        let name = unique_name();
        mount.mount_point.push(&name);
        fs::create_dir(&mount.mount_point).unwrap();
        let layout = Layout { mode: Mode::V2, mounts: vec![mount] };
        Self::make(Hierarchies::open(layout).unwrap(), host, name, String::new())
    }

    fn make(hierarchies: Hierarchies, host: Hierarchies, name: String, base: String) -> Self {
        let mut arena = Self { hierarchies, host, name, base, before: BTreeSet::new() };
        for dir in arena.bases() {
            fs::create_dir_all(&dir).unwrap();
        }
        arena.before = arena.census();
        arena
    }

    fn bases(&self) -> Vec<PathBuf> {
        let mounts = &self.hierarchies.layout().mounts;
        mounts.iter().map(|mount| mount.mount_point.join(&self.base)).collect()
    }

    /// A directory of the arena, in the first hierarchy.
    pub(crate) fn dir(&self, name: &str) -> PathBuf {
        self.bases().remove(0).join(name)
    }

    /// A directory of the arena in the v2 hierarchy.
    pub(crate) fn v2_dir(&self, name: &str) -> PathBuf {
        let layout = self.hierarchies.layout();
        let v2 = layout.v2_index().unwrap_or_else(|| panic!("this test needs cgroup v2"));
        layout.mounts[v2].mount_point.join(&self.base).join(name)
    }

    /// An absolute cgroups path in the arena.
    pub(crate) fn path(&self, name: &str) -> String {
        if self.base.is_empty() { format!("/{name}") } else { format!("/{}/{name}", self.base) }
    }

    /// A file or directory in the arena, by controller; on a v2 host there is one tree for all.
    pub(crate) fn host(&self, controller: &str, name: &str) -> PathBuf {
        let top = Path::new("/sys/fs/cgroup");
        let top = if self.on_v2() { top.to_owned() } else { top.join(controller) };
        top.join(&self.name).join(name)
    }

    /// Whether this host has cgroup v2 alone, with the limits in it.
    pub(crate) fn on_v2(&self) -> bool {
        self.host.mode() == Mode::V2
    }

    /// The first of two things on v1, also beside a v2 hierarchy; the second on v2.
    pub(crate) fn either<T>(&self, v1: T, v2: T) -> T {
        if self.on_v2() { v2 } else { v1 }
    }

    /// A group's limits are what a table says of this host.
    #[track_caller]
    pub(crate) fn assert_limits(&self, group: &str, rows: &[Limit<'_>]) {
        for (controller, v1, v2) in rows {
            let (file, value) = self.either(*v1, *v2);
            assert_eq!(self.text(controller, &format!("{group}/{file}")), value, "{file}");
        }
    }

    /// The text of a cgroup file, without the newline at its end.
    pub(crate) fn text(&self, controller: &str, name: &str) -> String {
        let path = self.host(controller, name);
        let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        text.trim_end().to_owned()
    }

    /// Every directory in the arena, in all hierarchies.
    pub(crate) fn census(&self) -> BTreeSet<PathBuf> {
        let mut found = BTreeSet::new();
        let mut pending = self.bases();
        while let Some(dir) = pending.pop() {
            for entry in fs::read_dir(&dir).unwrap() {
                let entry = entry.unwrap();
                if entry.file_type().unwrap().is_dir() {
                    pending.push(entry.path());
                }
            }
            found.insert(dir);
        }
        found
    }

    /// Nothing but the arena itself is there.
    pub(crate) fn assert_clean(&self) {
        assert_eq!(self.census(), self.before);
    }

    pub(crate) fn plan(&self, name: &str, resources: &str) -> Result<CgroupPlan> {
        let resources = parse(resources);
        let layout = self.hierarchies.layout();
        CgroupPlan::new(Some(&self.path(name)), "id", Driver::Cgroupfs, Some(&resources), layout)
    }

    pub(crate) fn try_create(&self, name: &str, resources: &str) -> Result<Cgroup> {
        Cgroup::create(&self.hierarchies, &self.plan(name, resources)?)
    }

    pub(crate) fn create(&self, name: &str, resources: &str) -> Cgroup {
        self.try_create(name, resources).unwrap()
    }
}

/// Runs a test on the hierarchies of this host and then, where it has others, on v2 alone.
pub(crate) fn on_each(test: impl Fn(&Arena)) {
    let arena = Arena::new();
    test(&arena);
    if !arena.on_v2() {
        test(&Arena::unified());
    }
}

fn unique_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    assert!(nix::unistd::geteuid().is_root(), "cgroup tests need root");
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("boathook-test-{}-{n}", std::process::id())
}

impl Drop for Arena {
    /// Also after a failed assertion: whatever is left is ended and removed.
    fn drop(&mut self) {
        if let Ok(group) = Cgroup::open(&self.host, &self.name) {
            let _ = group.kill_all(deadline());
            let _ = group.delete(deadline());
        }
    }
}

pub(crate) fn parse(resources: &str) -> LinuxResources {
    serde_json::from_str(resources).unwrap()
}

/// A process started in a cgroup the way the runtime does it.
#[derive(Debug)]
pub(crate) struct Child {
    pub(crate) pid: i32,
    pub(crate) pidfd: OwnedFd,
    /// Its standard output.
    output: OwnedFd,
}

impl Child {
    /// `sh -c script` with `script` also as `$0`; in the cgroup when this returns.
    pub(crate) fn shell(join: &Join, script: &str) -> Self {
        Self::try_shell(join, script).unwrap()
    }

    /// The same where the kernel may refuse the birth.
    pub(crate) fn try_shell(join: &Join, script: &str) -> std::io::Result<Self> {
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let (pid, pidfd) = sys::spawn(join, &["/bin/sh", "-c", script, script], &writer)?;
        Ok(Self { pid, pidfd, output: reader })
    }

    pub(crate) fn sleeper(group: &Cgroup) -> Self {
        Self::shell(&group.join_files().unwrap(), "exec sleep 1000")
    }

    /// Waits until it has printed something.
    pub(crate) fn await_output(&self) {
        assert!(readable(&self.output, PATIENCE), "process {} printed nothing", self.pid);
        let n = rustix::io::read(&self.output, &mut [0; 64]).unwrap();
        assert!(n > 0, "process {} ended instead of printing", self.pid);
    }

    /// Its standard output, to wait on.
    pub(crate) fn output_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        std::os::fd::AsFd::as_fd(&self.output)
    }

    /// What it has printed since the last read; waits for something.
    pub(crate) fn read_some(&self) -> String {
        let mut buffer = [0; 4096];
        assert!(readable(&self.output, PATIENCE), "process {} printed nothing", self.pid);
        let n = rustix::io::read(&self.output, &mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..n]).into_owned()
    }

    /// All it prints until it closes its standard output.
    pub(crate) fn output(&self) -> String {
        let mut text = String::new();
        loop {
            match self.read_some() {
                some if some.is_empty() => return text,
                some => text.push_str(&some),
            }
        }
    }

    /// Waits for its end; the status as waitid gives it.
    pub(crate) fn wait(&self) -> rustix::process::WaitIdStatus {
        assert!(readable(&self.pidfd, PATIENCE), "process {} did not end", self.pid);
        let id = rustix::process::WaitId::PidFd(std::os::fd::AsFd::as_fd(&self.pidfd));
        rustix::process::waitid(id, rustix::process::WaitIdOptions::EXITED).unwrap().unwrap()
    }
}

/// Whether `fd` becomes readable within `time`.
pub(crate) fn readable(fd: &impl std::os::fd::AsFd, time: Duration) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::IN)];
    let timeout = Timespec::try_from(time).unwrap();
    loop {
        match poll(&mut fds, Some(&timeout)) {
            Err(rustix::io::Errno::INTR) => {}
            other => return other.unwrap() == 1,
        }
    }
}

/// A clone straight into the cgroup, which std cannot do.
mod sys {
    #![allow(unsafe_code)]

    use std::ffi::CString;
    use std::io;
    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
    use std::ptr;

    use boathook_runtime::cgroup::Join;

    /// linux/sched.h; libc's constant has too small a type.
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

    pub(super) fn spawn(
        join: &Join,
        argv: &[&str],
        output: &OwnedFd,
    ) -> io::Result<(i32, OwnedFd)> {
        let argv: Vec<CString> = argv.iter().map(|a| CString::new(*a).unwrap()).collect();
        let mut pointers: Vec<_> = argv.iter().map(|a| a.as_ptr()).collect();
        pointers.push(ptr::null());
        let environment = [c"PATH=/usr/bin:/bin".as_ptr(), ptr::null()];
        let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
        let (tasks, unified): (&[OwnedFd], _) = match join {
            Join::V1(tasks) => (tasks, None),
            Join::V2(unified) => (&[], Some(unified)),
            Join::Hybrid { tasks, unified } => (tasks, Some(unified)),
        };
        // Closed by the exec, so its end says that the child is where it belongs.
        let (ready, held) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let tasks: Vec<i32> = tasks.iter().map(AsRawFd::as_raw_fd).collect();
        let mut pidfd: i32 = -1;
        // SAFETY: all-zero is a valid clone_args; `pidfd` outlives the call.
        let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
        args.flags = libc::CLONE_PIDFD as u64;
        args.pidfd = ptr::from_mut(&mut pidfd) as u64;
        args.exit_signal = libc::SIGCHLD as u64;
        if let Some(unified) = unified {
            args.flags |= CLONE_INTO_CGROUP;
            args.cgroup = unified.as_raw_fd() as u64;
        }
        // SAFETY: a fork: the child has its own memory, and until its exec it
        // makes system calls only, on values prepared above.
        let pid = unsafe {
            libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>())
        };
        match pid {
            -1 => Err(io::Error::last_os_error()),
            // SAFETY: we are the child; the arrays end in a null pointer.
            0 => unsafe {
                for fd in tasks {
                    if libc::write(fd, c"0".as_ptr().cast(), 1) != 1 {
                        libc::_exit(100);
                    }
                }
                libc::dup2(null.as_raw_fd(), 0);
                libc::dup2(output.as_raw_fd(), 1);
                libc::dup2(null.as_raw_fd(), 2);
                libc::execve(pointers[0], pointers.as_ptr(), environment.as_ptr());
                libc::_exit(101)
            },
            pid => {
                drop(held);
                assert_eq!(rustix::io::read(&ready, &mut [0; 1])?, 0);
                // SAFETY: clone3 has just made this descriptor for us.
                Ok((pid as i32, unsafe { OwnedFd::from_raw_fd(pidfd) }))
            }
        }
    }
}
