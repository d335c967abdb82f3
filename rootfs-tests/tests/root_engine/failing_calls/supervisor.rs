//! Asked about every system call of the subject and of the processes it makes: counts them and has
//! one of them fail (seccomp_unotify(2)).

use std::collections::BTreeSet;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, socketpair,
};
use nix::unistd::Pid;
use rootfs_tests::wait::{self, Deadline};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::errnos;
use crate::support::{census, payload, sys};

/// How long one command may take, on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(20);

/// Whose call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// The process that the engine is part of.
    Engine,
    /// A process that it made, until that executes a program that is not ours.
    Child,
}

/// The call that is to fail.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target {
    pub(super) role: Role,
    /// Counted from 1 within one command.
    pub(super) n: usize,
}

/// A call that failed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Failed {
    pub(super) call: libc::c_long,
    pub(super) errno: i32,
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "system call {} with errno {}", self.call, self.errno)
    }
}

/// How a command ended.
#[derive(Debug)]
pub(super) struct Answer {
    /// `ok …`, `error <Kind> …` or `panic`.
    pub(super) text: String,
    /// `None` when so many calls were not made.
    pub(super) failed: Option<Failed>,
}

pub(super) struct Supervisor {
    subject: Child,
    socket: OwnedFd,
    listener: OwnedFd,
    /// Processes that execute a program of the container or of a hook.
    programs: BTreeSet<u32>,
    target: Option<Target>,
    count: usize,
    failed: Option<Failed>,
}

impl Supervisor {
    /// A subject with arguments of [`super::subject::serve`].
    pub(super) fn start(arguments: &[&str]) -> Self {
        let (socket, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
                .unwrap();
        let subject = Command::new(std::env::current_exe().unwrap())
            .args(payload::args("fail", arguments).iter().skip(1))
            .stdin(Stdio::from(theirs))
            .spawn()
            .unwrap();
        let listener = receive_listener(&socket);
        Self {
            subject,
            socket,
            listener,
            programs: BTreeSet::new(),
            target: None,
            count: 0,
            failed: None,
        }
    }

    pub(super) fn pid(&self) -> u32 {
        self.subject.id()
    }

    /// Has the subject obey, with one call failing or none.
    pub(super) fn run(&mut self, command: &str, target: Option<Target>) -> Answer {
        (self.target, self.count, self.failed) = (target, 0, None);
        rustix::io::write(&self.socket, command.as_bytes()).unwrap();
        let deadline = Deadline::after(PATIENCE);
        loop {
            assert!(!deadline.over(), "{command} hangs with {:?} of {target:?}", self.failed);
            let (asked, answered) = self.wait(deadline.left());
            if asked {
                self.answer_one();
            } else if answered {
                let mut buffer = [0; 4096];
                let length = rustix::io::read(&self.socket, &mut buffer).unwrap();
                let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                assert_ne!(length, 0, "the subject died of {:?} in {command}", self.failed);
                return Answer { text, failed: self.failed };
            }
        }
    }

    /// Goes on answering until `probe` finds nothing wrong any more; what it found last if it never
    /// does.
    pub(super) fn settle(&mut self, mut probe: impl FnMut() -> Option<String>) -> Option<String> {
        let deadline = Deadline::after(PATIENCE);
        loop {
            let wrong = probe()?;
            if deadline.over() {
                return Some(wrong);
            }
            while self.wait(Duration::from_millis(2)).0 {
                self.answer_one();
            }
        }
    }

    /// Forgets which processes are strangers: they have all ended.
    pub(super) fn forget_programs(&mut self) {
        self.programs.clear();
    }

    /// Whether a question came, and whether an answer did.
    fn wait(&self, limit: Duration) -> (bool, bool) {
        let mut fds = [&self.listener, &self.socket].map(|fd| PollFd::new(fd, PollFlags::IN));
        let limit = Timespec::try_from(limit).unwrap();
        match poll(&mut fds, Some(&limit)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => panic!("poll: {error}"),
        }
        let ready = |fd: &PollFd<'_>| fd.revents().contains(PollFlags::IN);
        (ready(&fds[0]), ready(&fds[1]) || fds[1].revents().contains(PollFlags::HUP))
    }

    fn answer_one(&mut self) {
        // The process that asked may have been killed meanwhile.
        let Ok(call) = sys::notified(self.listener.as_fd()) else { return };
        let errno = self.judge(call.pid, libc::c_long::from(call.data.nr));
        let _ = sys::decide(self.listener.as_fd(), &call, errno);
    }

    fn judge(&mut self, pid: u32, call: libc::c_long) -> Option<i32> {
        let role = if pid == self.pid() { Role::Engine } else { Role::Child };
        let foreign = match role {
            Role::Engine => !errnos::counts_in_engine(call),
            Role::Child => self.programs.contains(&pid),
        };
        if !foreign && self.target.is_some_and(|target| target.role == role) {
            self.count += 1;
            if self.target.is_some_and(|target| target.n == self.count) {
                let errno = errnos::errno_of(call);
                self.failed = Some(Failed { call, errno });
                return Some(errno);
            }
        }
        if role == Role::Child && call == libc::SYS_execve {
            self.programs.insert(pid);
        }
        None
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        let _ = self.subject.kill();
        let _ = self.subject.wait();
        // What a failed test leaves comes to this process, the nearest subreaper.
        for process in census::descendants() {
            let pid = process.split(' ').next().and_then(|pid| pid.parse().ok());
            let _ = pid.map(|pid| kill(Pid::from_raw(pid), Signal::SIGKILL));
        }
    }
}

fn receive_listener(socket: &OwnedFd) -> OwnedFd {
    wait::readable(socket, "the subject's listener", Deadline::after(PATIENCE)).unwrap();
    let mut bytes = [0; 16];
    let mut space = nix::cmsg_space!([i32; 1]);
    let mut parts = [std::io::IoSliceMut::new(&mut bytes)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags).unwrap();
    let found = message.cmsgs().unwrap().find_map(|message| match message {
        ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
        _ => None,
    });
    sys::adopt(found.expect("a listener"))
}
