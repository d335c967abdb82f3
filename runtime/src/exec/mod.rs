//! The parent side: opens what init needs of the host, clones, and waits until
//! init has done its steps.
//!
//! ```text
//! plan ──> descriptors ──> socket filled ──> clone + exec of init ──> reports ──> Process
//!                                                        │ birth ▲
//!                                                        └───────┘ a copy of init goes on
//! ```
//! Nothing of the host changes here but the new process itself; dropping the
//! [`Process`] on any error path ends and reaps it.

mod host;
mod outside;

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use boathook_init::Step;
use boathook_init::report::kind;
use rustix::fs::MemfdFlags;

use crate::cancel::Cancel;
use crate::cgroup::{Cgroup, Join};
use crate::channel::{Channel, Message};
use crate::netdev::{self, Moved};
use crate::plan::{Plan, Program};
use crate::process::{Forming, Process, children};
use crate::report::step_failure;
use crate::{Error, ErrorKind, Result, image, sys};

/// Where a process's standard streams come from.
#[derive(Debug)]
pub enum Stdio {
    /// Descriptors; `None` is the null device.
    Fds {
        /// Standard input.
        stdin: Option<OwnedFd>,
        /// Standard output.
        stdout: Option<OwnedFd>,
        /// Standard error.
        stderr: Option<OwnedFd>,
    },
    /// A terminal made inside the container; its master comes back.
    Terminal,
}

/// What is done with the process while its init holds.
pub(crate) type Hold<'a> = &'a dyn Fn(&Process) -> Result<()>;

/// What is launched and with what.
pub(crate) struct Launch<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) cgroup: &'a Cgroup,
    pub(crate) stdio: Stdio,
    /// pidfd of the container's first process, for a later one.
    pub(crate) container: Option<BorrowedFd<'a>>,
    /// The mount namespace that it begins with, if the plan asks for it.
    pub(crate) no_mounts: Option<BorrowedFd<'a>>,
    /// The sealed init program.
    pub(crate) image: BorrowedFd<'a>,
    pub(crate) until: Instant,
    /// What is done while init holds; it gets the process.
    pub(crate) hold: Option<Hold<'a>>,
    /// Who may end it early.
    pub(crate) cancel: Option<&'a Cancel>,
}

/// A process that waits for its start, and the master of its terminal.
#[derive(Debug)]
pub(crate) struct Launched {
    /// Network devices that go back when this is dropped, so it comes first.
    pub(crate) devices: Option<Moved>,
    pub(crate) process: Process,
    pub(crate) console: Option<OwnedFd>,
}

/// Runs a plan up to the point where init waits for the start byte.
pub(crate) fn launch(launch: &Launch<'_>) -> Result<Launched> {
    let plan = launch.plan;
    check_stdio(plan, &launch.stdio)?;
    let join = launch.cgroup.join_files()?;
    let fds = host::open(plan, launch, &join)?;
    let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
    let (channel, theirs) = Channel::pair()?;
    let program =
        image::sealed("boathook-plan", &plan.program.image(fds.len()), MemfdFlags::NOEXEC_SEAL)?;
    channel.send_plan(program.as_fd(), &fds, plan.program.made())?;
    let forming = plan.birth.then(Forming::begin);
    let process = spawn(launch, &join, channel, &theirs)?;
    // From here on the end of init is the end of the connection.
    drop(theirs);
    if let Some(cancel) = launch.cancel {
        cancel.watch(&process)?;
    }
    if let (Some(score), false) = (plan.oom_score_adj, plan.birth) {
        write_oom_score(process.pid(), score)?;
    }
    wait_until_ready(process, launch, forming)
}

fn check_stdio(plan: &Plan, stdio: &Stdio) -> Result<()> {
    let terminal = matches!(stdio, Stdio::Terminal);
    if terminal == plan.terminal {
        return Ok(());
    }
    let problem = format!("{} but the streams given are {terminal}", plan.terminal);
    Err(Error::field("process.terminal", problem))
}

fn spawn(launch: &Launch<'_>, join: &Join, channel: Channel, theirs: &OwnedFd) -> Result<Process> {
    let plan = launch.plan;
    let number = CString::new(theirs.as_raw_fd().to_string()).unwrap_or_default();
    let cgroup = match join {
        Join::V1(_) => None,
        Join::V2(unified) | Join::Hybrid { unified, .. } => Some(unified.as_fd()),
    };
    let mut children = children();
    let spawn = |cgroup| {
        let arguments = [c"boathook-init", number.as_c_str()];
        sys::spawn(launch.image, theirs.as_fd(), arguments, plan.clone_flags, cgroup)
    };
    let mut spawned = spawn(cgroup);
    if let (Err(errno), Some(first)) = (&spawned, launch.container)
        && Cgroup::refuses_processes(*errno)
    {
        spawned = spawn(Some(launch.cgroup.birthplace(first)?.as_fd()));
    }
    let (pid, pidfd) = spawned.map_err(|errno| launch.cgroup.birth_error(errno))?;
    children.add(pid);
    drop(children);
    Ok(Process::new(pid, pidfd, channel, plan.program_name.clone()))
}

/// Written from outside, so that init needs no procfs for it.
fn write_oom_score(pid: i32, score: i32) -> Result<()> {
    if !(-1000..=1000).contains(&score) {
        return Err(Error::field("process.oomScoreAdj", format!("{score} is not -1000 to 1000")));
    }
    std::fs::write(format!("/proc/{pid}/oom_score_adj"), score.to_string())
        .map_err(|e| Error::sys(format!("process.oomScoreAdj: write {score}"), e))
}

/// Answers init until it is ready. `forming` is there while its copy is to be
/// born, whose pid nobody but init knows until then.
fn wait_until_ready(
    process: Process,
    launch: &Launch<'_>,
    mut forming: Option<Forming>,
) -> Result<Launched> {
    let mut launched = Launched { devices: None, process, console: None };
    let result = answer(&mut launched, launch, &mut forming);
    if result.is_err() && forming.is_some() {
        launched.process.end_group();
    }
    result.map(|()| launched)
}

fn answer(
    launched: &mut Launched,
    launch: &Launch<'_>,
    forming: &mut Option<Forming>,
) -> Result<()> {
    let plan = launch.plan;
    loop {
        let process = &launched.process;
        match process.receive(launch.until)? {
            Message::Report(report, fd) if report.kind == kind::CONSOLE => launched.console = fd,
            Message::Report(report, _) if report.kind == kind::READY => break,
            Message::Report(report, _) if report.kind == kind::HOLD => {
                if let Some(hold) = launch.hold {
                    hold(process).map_err(|error| cause(process, &plan.program, error))?;
                }
                process.go_on().map_err(|error| cause(process, &plan.program, error))?;
            }
            Message::Report(report, _) if report.kind == kind::ASK => {
                let step = plan.program.steps().nth(report.step as usize);
                match step {
                    Some(Step::NetDevices { names, inside }) => {
                        launched.devices = Some(netdev::move_all(names, inside, process.pid())?);
                    }
                    other => outside::perform(process.pid(), other)?,
                }
                process.go_on().map_err(|error| cause(process, &plan.program, error))?;
            }
            // Only once: who looks into the copy could say it again, in init's name.
            Message::Report(report, _) if report.kind == kind::BORN && forming.is_some() => {
                let first = launched.process.succeed(report.detail)?;
                let process = &launched.process;
                *forming = None;
                if let Some(cancel) = launch.cancel {
                    cancel.watch(process)?;
                }
                if let Some(score) = plan.oom_score_adj {
                    write_oom_score(process.pid(), score)?;
                }
                process.go_on().map_err(|error| cause(process, &plan.program, error))?;
                first.dismiss();
            }
            Message::Report(report, _) => return Err(step_failure(&plan.program, &report)),
            Message::Closed => {
                if forming.is_some() {
                    process.end_group();
                }
                return Err(died(process));
            }
        }
    }
    if plan.terminal && launched.console.is_none() {
        return Err(Error::new(ErrorKind::Internal, "container init sent no terminal"));
    }
    Ok(())
}

/// What went wrong while init waited: if that has failed itself, this is why.
pub(crate) fn cause(process: &Process, program: &Program, error: Error) -> Error {
    match process.receive(Instant::now()) {
        Ok(Message::Report(report, _)) if report.kind == kind::FAILED => {
            step_failure(program, &report)
        }
        _ => error,
    }
}

/// Init went away without a word: somebody killed it, most often the kernel
/// for want of memory in the container's cgroup.
fn died(process: &Process) -> Error {
    crate::process::poll_readable(process.pidfd(), std::time::Duration::from_secs(1));
    let how = match process.reap() {
        Ok(Some(status)) if status.code == 137 => {
            "it was killed (is the memory limit too low?)".to_owned()
        }
        Ok(Some(status)) => format!("exit status {}", status.code),
        _ => "reason unknown".to_owned(),
    };
    let text = format!("unable to start container process: container init ended early: {how}");
    Error::new(ErrorKind::Internal, text)
}
