//! The interpreter: receives the descriptors, walks the plan, reports.

use core::ffi::CStr;

use crate::attach::{self, Covers, Node};
use crate::consts::{
    AT_FDCWD, CLONE_NEWUSER, EACCES, EINTR, ENOSYS, EPERM, F_SETFD, FD_CLOEXEC, KEY_POS_ALL,
    KEY_USR_LINK, KEY_USR_READ, KEY_USR_SEARCH, KEY_USR_VIEW, KEYCTL_JOIN_SESSION_KEYRING,
    KEYCTL_SETPERM, MSG_CMSG_CLOEXEC, MSG_NOSIGNAL, O_DIRECTORY, O_PATH, PR_SET_DUMPABLE,
    PR_SET_NO_NEW_PRIVS, RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, SCM_RIGHTS, SOL_SOCKET,
};
use crate::creds::{self, Capabilities};
use crate::exec::{self, Program};
use crate::mounts::{self, Change};
use crate::report::{Report, detail, kind};
use crate::sched::{self, Attr};
use crate::steps::Step;
use crate::sys::{self, Fault, Fd, Outcome, nr, openat2, syscall};
use crate::wire::{Header, Malformed, Reader, Slot};
use crate::{console, copyup, files, net, open_files, seccomp};

/// Most descriptors in one message; the kernel's own limit is 253.
pub const FDS_PER_MESSAGE: usize = 250;
/// An empty slot.
const EMPTY: usize = usize::MAX;

impl From<Malformed> for Fault {
    fn from(_: Malformed) -> Self {
        Fault::detail(detail::MALFORMED)
    }
}

/// Runs the plan that arrives on `socket`; never returns.
///
/// The process is not dumpable from its first instruction on, so that nobody
/// in a namespace that it joins can look into it (CVE-2016-9962).
pub fn main(socket: i32) -> ! {
    not_dumpable();
    // The socket had to survive the exec of this program and must not survive the next one.
    let _ = syscall!(nr::FCNTL, socket, F_SETFD, FD_CLOEXEC);
    let socket = console::keep_standard_numbers(socket);
    let mut init = Init::new(socket);
    let fault = match init.run() {
        Ok(()) => Fault::detail(detail::MALFORMED),
        Err(fault) => fault,
    };
    let report =
        Report { kind: kind::FAILED, step: init.step, errno: fault.errno, detail: fault.detail };
    let _ = init.send(report, None);
    sys::exit(1)
}

struct Init {
    socket: i32,
    /// The root that paths are resolved in.
    root: i32,
    step: u32,
    slots: &'static mut [usize],
    /// How many of the slots the engine filled.
    sent: usize,
    covers: Covers,
    program: Option<Program>,
    /// A working directory that only the user may enter.
    cwd: Option<&'static CStr>,
    /// The `tasks` file of a cgroup that a copy of this process joins.
    counting: Option<Fd>,
    /// Whether no descriptor outlives the exec.
    hidden: bool,
}

/// The interpreter alone, for fuzzing.
#[cfg(fuzzing)]
pub(crate) fn interpret() {
    let _ = Init::new(3).run();
}

impl Init {
    fn new(socket: i32) -> Self {
        Self {
            socket,
            root: -1,
            step: 0,
            slots: &mut [],
            sent: 0,
            covers: Covers::default(),
            program: None,
            cwd: None,
            counting: None,
            hidden: false,
        }
    }

    fn run(&mut self) -> Outcome {
        open_files::close_all_but(self.socket)?;
        exec::reset_signals()?;
        syscall!(nr::UMASK, 0_u32)?;
        let plan = self.receive()?;
        let mut reader = Reader::new(plan);
        let header = Header::get(&mut reader)?;
        for index in 0..header.steps {
            self.step = index;
            let step = Step::get(&mut reader)?;
            self.perform(step)?;
        }
        Ok(())
    }

    /// Fills the slots from the engine's messages and maps the plan, which is
    /// the first descriptor of all. Each message starts with two numbers: how
    /// many slots the table has and how many descriptors are still to come.
    fn receive(&mut self) -> Outcome<&'static [u8]> {
        let mut filled = 0_usize;
        loop {
            let mut words = [0_u32; 2];
            let mut fds = Rights::new();
            let count = fds.receive(self.socket, &mut words)?;
            if self.slots.is_empty() {
                let len = (words[0] as usize).min(crate::wire::MAX_SLOTS as usize) + 1;
                self.slots = sys::map_anonymous(len * size_of::<usize>())?;
                self.slots.fill(EMPTY);
            }
            for index in 0..count {
                let place = self.slots.get_mut(filled).ok_or(Fault::detail(detail::MALFORMED))?;
                *place = fds.number(index) as usize;
                filled += 1;
            }
            if words[1] == 0 {
                break;
            }
        }
        // The plan itself stands behind the slots that steps can name.
        self.slots.rotate_left(1);
        self.sent = filled.saturating_sub(1);
        let plan = self.slots.last().copied().unwrap_or(EMPTY);
        sys::map_sealed(plan as i32)
    }

    fn fd(&self, slot: Slot) -> Outcome<i32> {
        match self.slots.get(slot.index(self.sent)) {
            Some(&fd) if fd != EMPTY => Ok(fd as i32),
            _ => Err(Fault::detail(detail::NO_SLOT)),
        }
    }

    /// The descriptor of a slot that is not used again.
    fn take(&mut self, slot: Slot) -> Outcome<Fd> {
        let fd = self.fd(slot)?;
        if let Some(place) = self.slots.get_mut(slot.index(self.sent)) {
            *place = EMPTY;
        }
        Ok(Fd::new(fd as usize))
    }

    fn keep(&mut self, slot: Slot, fd: Fd) -> Outcome {
        let place =
            self.slots.get_mut(slot.index(self.sent)).ok_or(Fault::detail(detail::NO_SLOT))?;
        *place = fd.into_number() as usize;
        Ok(())
    }

    #[allow(clippy::too_many_lines, reason = "one arm for each row of the table of steps")]
    fn perform(&mut self, step: Step<'static>) -> Outcome {
        match step {
            Step::JoinCgroup { tasks } => files::write(self.fd(tasks)?, b"0"),
            Step::SetNs { ns, kinds } => {
                syscall!(nr::SETNS, self.fd(ns)?, kinds)?;
                stay_hidden(kinds)
            }
            Step::Unshare { flags } => {
                syscall!(nr::UNSHARE, flags)?;
                stay_hidden(flags)
            }
            Step::IdMaps { .. } | Step::CheckMaps { .. } | Step::TimeOffsets { .. } => {
                self.wait_for_byte(kind::ASK)
            }
            Step::NamespaceRoot {} => {
                creds::become_root()?;
                not_dumpable();
                Ok(())
            }
            Step::Birth { last } => {
                if last == 1 {
                    self.close_slots();
                }
                self.be_born()
            }
            Step::JoinAtBirth { tasks } => {
                self.counting = Some(self.take(tasks)?);
                Ok(())
            }
            Step::TakeTerminal {} => console::take(),
            Step::NewProc { slot, pids, source, options, attrs } => {
                let tree = mounts::proc_of(self.fd(pids)?, source, options, attrs)?;
                self.keep(slot, tree)
            }
            Step::NewSysfs { slot, host, source, options, attrs } => {
                let tree = match mounts::new_fs(c"sysfs", source, options, attrs) {
                    Err(fault) if fault.errno == EPERM => mounts::host_sysfs(self.fd(host)?, attrs),
                    other => other,
                };
                self.keep(slot, tree?)
            }
            Step::RaiseLimit { resource, hard } => creds::raise_limit(resource, hard),
            Step::Propagation { flags } => mounts::set_propagation(flags),
            Step::NewFs { slot, fstype, source, options, attrs } => {
                let tree = mounts::new_fs(fstype, source, options, attrs)?;
                self.keep(slot, tree)
            }
            Step::SetAttr { tree, set, clear, propagation, recursive } => {
                let change = Change { set, clear, propagation, recursive: recursive == 1 };
                mounts::set_attr(self.fd(tree)?, &change)
            }
            Step::IdMap { tree, userns } => mounts::id_map(self.fd(tree)?, self.fd(userns)?),
            Step::CopyUp { tree, path } => copyup::copy_up(self.root, path, self.fd(tree)?),
            Step::Reconfigure { tree, path: _, options } => {
                mounts::reconfigure(self.fd(tree)?, options)
            }
            Step::MountRoot { tree, at } => {
                self.root = self.fd(tree)?;
                mounts::attach_outside(self.root, at)
            }
            Step::UseRoot {} => {
                self.root = openat2(AT_FDCWD, c"/", O_PATH | O_DIRECTORY, 0, 0)?.into_number();
                Ok(())
            }
            Step::Attach { tree, path, strict, keep_mode } => {
                attach::attach_at(self.root, self.fd(tree)?, path, strict == 1, keep_mode == 1)
            }
            Step::MakeDir { path, mode } => attach::make_dir(self.root, path, mode),
            Step::Node { path, mode, major, minor, uid, gid } => {
                let node = Node { path, mode, device: (major, minor), owner: (uid, gid) };
                attach::node(self.root, &node)
            }
            Step::Link { target, path, replace } => {
                attach::link(self.root, target, path, replace == 1)
            }
            Step::Mask { path, dir, file } => {
                let (dir, file) = (self.fd(dir)?, self.fd(file)?);
                self.covers.mask(self.root, path, dir, file)
            }
            Step::Readonly { path } => attach::readonly(self.root, path),
            Step::Pivot {} => mounts::pivot(self.root),
            Step::Chroot {} => mounts::chroot(self.root),
            Step::Hostname { name } => done(syscall!(nr::SETHOSTNAME, name, name.count_bytes())),
            Step::Domainname { name } => {
                done(syscall!(nr::SETDOMAINNAME, name, name.count_bytes()))
            }
            Step::Sysctl { proc, path, value } => files::write_proc(self.fd(proc)?, path, value),
            Step::Loopback {} => net::loopback_up(),
            Step::Session {} => done(syscall!(nr::SETSID)),
            Step::Keyring { name } => keyring(name),
            Step::Terminal { width, height, console } => self.terminal(width, height, console == 1),
            Step::Stdio { stdin, stdout, stderr } => {
                console::stdio(self.fd(stdin)?, self.fd(stdout)?, self.fd(stderr)?)
            }
            Step::StdioOwner { uid } => console::give_stdio(uid),
            Step::Rlimit { resource, soft, hard } => {
                self.close_slots();
                done(syscall!(nr::SETRLIMIT, resource, &[soft, hard]))
            }
            Step::ResetAffinity {} => sched::all_cpus(),
            Step::Affinity { cpus } => sched::affinity(cpus),
            Step::Scheduler { policy, flags, nice, priority, runtime, deadline, period } => {
                sched::policy(&Attr::new(
                    policy,
                    flags,
                    [nice, priority],
                    [runtime, deadline, period],
                ))
            }
            Step::IoPriority { value } => sched::io_priority(value),
            Step::MemoryPolicy { mode, nodes } => sched::memory_policy(mode, nodes),
            Step::Personality { domain } => done(syscall!(nr::PERSONALITY, domain)),
            Step::Label { proc, file, older, value } => {
                files::label(self.fd(proc)?, file, older, value)
            }
            Step::Umask { mask } => done(syscall!(nr::UMASK, mask)),
            Step::NoNewPrivs {} => {
                done(syscall!(nr::PRCTL, PR_SET_NO_NEW_PRIVS, 1_u32, 0_u32, 0_u32, 0_u32))
            }
            Step::Cwd { path } => self.enter_cwd(path),
            Step::Identity {
                uid,
                gid,
                groups,
                bounding,
                effective,
                permitted,
                inheritable,
                ambient,
            } => {
                let caps = Capabilities { bounding, effective, permitted, inheritable, ambient };
                creds::become_user(uid, gid, groups, &caps)?;
                // A change of user makes a process dumpable where fs.suid_dumpable is 1.
                not_dumpable();
                Ok(())
            }
            Step::Program { file, args, env, uid } => {
                if let Some(path) = self.cwd.take() {
                    self.change_directory(path)?;
                }
                inside_root()?;
                self.program = Some(Program::prepare(self.root, file, args, env, uid)?);
                Ok(())
            }
            Step::Hold {} => self.wait_for_byte(kind::HOLD),
            Step::NetDevices { .. } => self.wait_for_byte(kind::ASK),
            Step::Ready {} => {
                exec::die_by_signals()?;
                self.wait_for_byte(kind::READY)
            }
            Step::Seccomp { flags, program } => {
                self.hide_descriptors();
                seccomp::load(self.socket, self.step, flags, program)
            }
            Step::Exec {} => {
                self.hide_descriptors();
                match &self.program {
                    Some(program) => Err(program.execute()),
                    None => Err(Fault::detail(detail::MALFORMED)),
                }
            }
        }
    }

    /// Limits come when nothing needs a slot any more. A low limit of open files
    /// would leave no number free for the rest of the steps otherwise.
    fn close_slots(&mut self) {
        for slot in self.slots.iter_mut().filter(|fd| **fd != EMPTY && **fd as i32 != self.root) {
            let _ = syscall!(nr::CLOSE, *slot);
            *slot = EMPTY;
        }
    }

    fn terminal(&mut self, width: u32, height: u32, on_console: bool) -> Outcome {
        let (master, slave) = console::open(self.root, width, height)?;
        if on_console {
            console::on_dev_console(self.root, slave.number())?;
        }
        let slave = slave.number();
        console::stdio(slave, slave, slave)?;
        self.send(console::console_report(self.step), Some(master.number()))
    }

    /// Goes on as a copy that lives where only a child can: in another pid
    /// namespace. The copy is a child of the engine, as this process is.
    ///
    /// The two share one connection and cannot get in each other's way: the copy
    /// neither sends nor does anything before a byte arrives, the engine sends
    /// that byte only after it has read who was born, and this process, which
    /// says so, reads nothing any more. If this process is killed before it
    /// could, the engine hangs up and the copy ends by itself.
    fn be_born(&mut self) -> Outcome {
        match sys::fork_sibling()? {
            0 => {
                read_byte(self.socket)?;
                let tasks = self.counting.take();
                tasks.map_or(Ok(()), |tasks| files::write(tasks.number(), b"0"))
            }
            pid => {
                let detail = pid as u32;
                let born = Report { kind: kind::BORN, step: self.step, errno: 0, detail };
                // What cannot be said is an error like any other; the copy ends with the connection.
                self.send(born, None)?;
                sys::exit(0)
            }
        }
    }

    fn enter_cwd(&mut self, path: &'static CStr) -> Outcome {
        match self.change_directory(path) {
            Err(fault) if matches!(fault.errno, EACCES | EPERM) => {
                self.cwd = Some(path);
                Ok(())
            }
            other => other,
        }
    }

    /// By descriptor and without magic links: a path such as /proc/self/fd/7
    /// must not lead through what is open here (CVE-2024-21626).
    fn change_directory(&self, path: &CStr) -> Outcome {
        let rules = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS;
        let directory = openat2(self.root, path, O_PATH | O_DIRECTORY, 0, rules)?;
        done(syscall!(nr::FCHDIR, directory.number()))
    }

    fn hide_descriptors(&mut self) {
        if !self.hidden {
            // Numbers are given from the lowest; a step has a few open besides its slots.
            let slots = i32::try_from(self.slots.len()).unwrap_or(i32::MAX);
            open_files::hide_all(self.socket.max(slots).saturating_add(64));
        }
        self.hidden = true;
    }

    fn wait_for_byte(&mut self, kind: u32) -> Outcome {
        wait_for_byte(self.socket, Report { kind, step: self.step, errno: 0, detail: 0 }, None)
    }

    fn send(&self, report: Report, fd: Option<i32>) -> Outcome {
        send(self.socket, report, fd)
    }
}

/// Reports and waits until the engine lets it go on.
pub(crate) fn wait_for_byte(socket: i32, report: Report, fd: Option<i32>) -> Outcome {
    send(socket, report, fd)?;
    read_byte(socket)
}

/// Waits until the engine lets it go on.
fn read_byte(socket: i32) -> Outcome {
    let mut byte = 0_u8;
    loop {
        match syscall!(nr::READ, socket, &mut byte, 1_usize) {
            Err(fault) if fault.errno == EINTR => {}
            // The engine is gone and nobody will ever start this container.
            Ok(0) => sys::exit(1),
            other => return done(other),
        }
    }
}

fn send(socket: i32, report: Report, fd: Option<i32>) -> Outcome {
    let bytes = report.to_bytes();
    let part = IoVec { base: core::ptr::from_ref(&bytes) as usize, len: Report::LEN };
    let rights = Rights::of(fd.unwrap_or(-1));
    let mut message = MsgHdr::new(&part);
    if fd.is_some() {
        message.control = core::ptr::from_ref(&rights) as usize;
        message.control_len = Rights::HEADER + 4;
    }
    loop {
        match syscall!(nr::SENDMSG, socket, &message, MSG_NOSIGNAL) {
            Err(fault) if fault.errno == EINTR => {}
            other => return done(other),
        }
    }
}

fn done(result: Outcome<usize>) -> Outcome {
    result.map(drop)
}

/// New rights in a user namespace make a process dumpable where
/// fs.suid_dumpable is 1.
fn stay_hidden(kinds: u32) -> Outcome {
    if kinds & CLONE_NEWUSER != 0 {
        not_dumpable();
    }
    Ok(())
}

/// Keeps others in the container out of this process's memory and descriptors.
fn not_dumpable() {
    let _ = syscall!(nr::PRCTL, PR_SET_DUMPABLE, 0_u32, 0_u32, 0_u32, 0_u32);
}

/// Joins the session keyring of this name, or makes it. A later process of
/// the container finds it only if its owner may search it, which the kernel's
/// default does not grant.
fn keyring(name: &CStr) -> Outcome {
    let key = match syscall!(nr::KEYCTL, KEYCTL_JOIN_SESSION_KEYRING, name) {
        Err(fault) if fault.errno == ENOSYS => return Ok(()),
        other => other?,
    };
    let rights = KEY_POS_ALL | KEY_USR_VIEW | KEY_USR_READ | KEY_USR_SEARCH | KEY_USR_LINK;
    done(syscall!(nr::KEYCTL, KEYCTL_SETPERM, key, rights))
}

/// The working directory must lie below the root: one that was entered by a
/// leaked descriptor shows itself as "(unreachable)" (CVE-2024-21626).
fn inside_root() -> Outcome {
    let mut buffer = [0_u8; 4096];
    syscall!(nr::GETCWD, &mut buffer, buffer.len())?;
    if buffer.first() == Some(&b'/') { Ok(()) } else { Err(Fault::detail(detail::CWD_OUTSIDE)) }
}

#[repr(C)]
struct IoVec {
    base: usize,
    len: usize,
}

/// The kernel's `struct msghdr`.
#[repr(C)]
struct MsgHdr {
    name: usize,
    name_len: usize,
    parts: usize,
    part_count: usize,
    control: usize,
    control_len: usize,
    flags: usize,
}

impl MsgHdr {
    fn new(part: &IoVec) -> Self {
        let parts = core::ptr::from_ref(part) as usize;
        Self { name: 0, name_len: 0, parts, part_count: 1, control: 0, control_len: 0, flags: 0 }
    }
}

/// A control message with descriptors.
#[repr(C)]
struct Rights {
    len: usize,
    level: u32,
    kind: u32,
    fds: [i32; FDS_PER_MESSAGE],
}

impl Rights {
    const HEADER: usize = 16;

    fn new() -> Self {
        Self { len: 0, level: 0, kind: 0, fds: [-1; FDS_PER_MESSAGE] }
    }

    fn of(fd: i32) -> Self {
        let mut rights =
            Self { len: Self::HEADER + 4, level: SOL_SOCKET, kind: SCM_RIGHTS, ..Self::new() };
        rights.fds[0] = fd;
        rights
    }

    fn number(&self, index: usize) -> i32 {
        self.fds.get(index).copied().unwrap_or(-1)
    }

    /// Receives one message into `words`; returns how many descriptors came.
    fn receive(&mut self, socket: i32, words: &mut [u32; 2]) -> Outcome<usize> {
        let part = IoVec { base: core::ptr::from_mut(words) as usize, len: size_of::<[u32; 2]>() };
        let mut message = MsgHdr::new(&part);
        message.control = core::ptr::from_mut(self) as usize;
        message.control_len = size_of::<Rights>();
        loop {
            match syscall!(nr::RECVMSG, socket, &mut message, MSG_CMSG_CLOEXEC) {
                Err(fault) if fault.errno == EINTR => {}
                Err(fault) => return Err(fault),
                Ok(8) => break,
                // The engine is gone, or this is not the engine.
                Ok(_) => return Err(Fault::detail(detail::MALFORMED)),
            }
        }
        if message.control_len < Self::HEADER || self.kind != SCM_RIGHTS {
            return Ok(0);
        }
        Ok(self.len.saturating_sub(Self::HEADER) / 4)
    }
}
