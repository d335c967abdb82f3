//! The shim, the daemon or both are killed while a Kill call is under way: the shim is traced and
//! stands still at the system call that sends the signal, before it or after it, and the daemon
//! waits for the answer.

use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use rootfs_tests::census::Census;
use rootfs_tests::error::{Context, Error, Result};
use rootfs_tests::suite::{Runtime, Scene};
use rootfs_tests::wait::{self, PATIENCE};
use rootfs_tests::{ensure, ensure_eq, host};

use crate::restarts::{Victim, forget, quietly};
use crate::stage::Played;

pub(crate) const PLAYED: &[Played] =
    &[("killed_within_a_kill", killed_within_a_kill, &[Runtime::Boathook])];

/// Where the shim stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Point {
    /// Nothing has been signalled.
    Before,
    /// The container has its signal, the caller no answer.
    After,
}

fn killed_within_a_kill(scene: &mut Scene<'_>) -> Result<()> {
    for point in [Point::Before, Point::After] {
        for victim in [Victim::Daemon, Victim::Shim, Victim::Both] {
            let told =
                |error| Error::check(format!("{victim:?} killed {point:?} the signal: {error}"));
            within_a_kill(scene, victim, point).map_err(told)?;
        }
    }
    Ok(())
}

/// Red if the container outlives its shim, if a Kill is forgotten or its exit code lost because
/// nobody waits for the answer any more, or if the id stays taken.
fn within_a_kill(scene: &mut Scene<'_>, victim: Victim, point: Point) -> Result<()> {
    let id = scene.id.clone();
    let before = Census::with(&[scene.daemon.state()])?;
    scene.start(&["--null-io"], &id, &["sleep", "1000"])?;
    let init = scene.pid(&id)?;
    let shims = scene.daemon.shims();
    let [shim] = shims.as_slice() else {
        return Err(Error::check(format!("one shim was expected: {shims:?}")));
    };
    let mut held = Held::seize(*shim)?;
    let mut command = scene.ctr.std_command();
    command.args(["task", "kill", "--signal", "SIGKILL", &id]);
    let client = quietly(command)?;
    held.run_to_the_signal(point)?;
    let waiting = host::command_line(client.pid());
    ensure!(!waiting.is_empty(), "the kill was answered by somebody else");
    victim
        .kill_and(scene, |_| if victim == Victim::Daemon { held.let_go() } else { held.kill() })?;
    client.end()?;
    wait::gone(init, PATIENCE)?;
    if victim == Victim::Daemon {
        ensure_eq!(scene.delete(&id)?, 137, "exit code after the daemon's restart");
    } else {
        forget(scene, &id)?;
    }
    before.assert_same()?;
    ensure_eq!(scene.run(&[], &["echo", "again"])?, "again", "the same id once more");
    Ok(())
}

/// A process that goes on only as far as it is let.
struct Held {
    pid: Pid,
    over: bool,
}

impl Held {
    fn seize(pid: u32) -> Result<Self> {
        let pid = Pid::from_raw(i32::try_from(pid).unwrap_or(0));
        let failed = |what: &'static str| move || format!("{what} {pid}");
        ptrace::seize(pid, ptrace::Options::PTRACE_O_TRACESYSGOOD)
            .map_err(io)
            .during(failed("trace"))?;
        let held = Self { pid, over: false };
        ptrace::interrupt(pid).map_err(io).during(failed("interrupt"))?;
        held.stop()?;
        Ok(held)
    }

    /// Lets it run until it sends a signal.
    fn run_to_the_signal(&mut self, point: Point) -> Result<()> {
        let mut pass_on = None;
        let mut sending = false;
        loop {
            ptrace::syscall(self.pid, pass_on.take())
                .map_err(io)
                .during(|| "let the shim go on")?;
            match self.stop()? {
                WaitStatus::PtraceSyscall(_) if sending => return Ok(()),
                WaitStatus::PtraceSyscall(_) => {
                    let call = ptrace::getregs(self.pid).map_err(io).during(|| "read a call")?;
                    sending = i64::try_from(call.orig_rax) == Ok(libc::SYS_pidfd_send_signal);
                    if sending && point == Point::Before {
                        return Ok(());
                    }
                }
                WaitStatus::Stopped(_, signal) => pass_on = Some(signal),
                WaitStatus::PtraceEvent(..) => {}
                other => return Err(Error::check(format!("the traced shim: {other:?}"))),
            }
        }
    }

    /// Waits until it stands still, or is no more.
    fn stop(&self) -> Result<WaitStatus> {
        wait::until("the next stop of the traced shim", PATIENCE, || {
            let flags = WaitPidFlag::__WALL | WaitPidFlag::WNOHANG;
            let status =
                waitpid(self.pid, Some(flags)).map_err(io).during(|| "wait for the shim")?;
            Ok((status != WaitStatus::StillAlive).then_some(status))
        })
    }

    fn let_go(&mut self) -> Result<()> {
        self.over = true;
        ptrace::detach(self.pid, None).map_err(io).during(|| "let the shim go")
    }

    /// Its end is told to the tracer before its parent learns of it.
    fn kill(&mut self) -> Result<()> {
        self.over = true;
        let pid = u32::try_from(self.pid.as_raw()).unwrap_or(0);
        host::signal(pid, rustix::process::Signal::KILL)?;
        match self.stop()? {
            WaitStatus::Signaled(_, Signal::SIGKILL, _) => Ok(()),
            other => Err(Error::check(format!("the killed shim: {other:?}"))),
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.over {
            let _ = ptrace::detach(self.pid, None);
        }
    }
}

fn io(errno: nix::errno::Errno) -> std::io::Error {
    errno.into()
}
