//! Runs each scenario against each release with each shim, so that the stock shim proves the
//! scenario right before it accuses ours.
//!
//! One test per cell, named `release::runtime::scenario`. A daemon is shared by the scenarios of a
//! release; round each of them stands a census, and another round the daemon itself, which is the
//! test `release::nothing_left_behind`. Scenarios run one after the other, always.

use crate::census::Census;
use crate::command::Stream;
use crate::containerd::{BOATHOOK, CRI_NAMESPACE, Daemon, RUNC};
use crate::cri::{ContainerConfig, Cri, PodSandboxConfig};
use crate::ctr::Ctr;
use crate::error::{Error, Result};
use crate::image::BUSYBOX;
use crate::packages::Release;
use crate::{host, workspace};
use libtest_mimic::{Arguments, Failed, Trial};
use std::fmt;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The releases that every scenario runs on.
pub const RELEASES: [Release; 3] = [Release::Bookworm, Release::Trixie, Release::Sid];

/// Whose shim runs the containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtime {
    /// The stock shim with runc.
    Runc,
    /// The shim under test.
    Boathook,
}

impl Runtime {
    /// Both; the one that proves the scenario comes first.
    pub const ALL: [Self; 2] = [Self::Runc, Self::Boathook];

    /// The value of `ctr run --runtime`.
    #[must_use]
    pub fn ctr(self) -> &'static str {
        match self {
            Self::Runc => RUNC,
            Self::Boathook => BOATHOOK,
        }
    }

    /// CRI's runtime handler.
    #[must_use]
    pub fn handler(self) -> &'static str {
        match self {
            Self::Runc => "runc",
            Self::Boathook => "boathook",
        }
    }
}

impl fmt::Display for Runtime {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.handler())
    }
}

/// What a scenario plays on.
#[derive(Debug)]
pub struct Scene<'a> {
    /// The real daemon.
    pub daemon: &'a mut Daemon,
    /// Its client, in a namespace that has the busybox image.
    pub ctr: Ctr,
    /// Whose shim is to be used.
    pub runtime: Runtime,
    /// The scenario's name, unique among those of this daemon and runtime: a container id.
    pub id: String,
}

/// A test: succeeds, or says what is wrong.
pub type Scenario = fn(&mut Scene<'_>) -> Result<()>;

/// A line of a suite's table.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// The last part of the test's name.
    pub name: &'static str,
    /// What it does.
    pub scenario: Scenario,
    /// Where it runs. What a release lacks has an entry of its own that sees the daemon refuse it.
    pub releases: &'static [Release],
    /// Whose shims it is played with.
    pub runtimes: &'static [Runtime],
}

impl Scene<'_> {
    /// A CRI client; the images are known to CRI.
    ///
    /// # Errors
    /// CRI does not become ready.
    pub fn cri(&self) -> Result<Cri> {
        self.daemon.cri()
    }

    /// Arguments `run --runtime … <options> <busybox> <id> <command>`.
    #[must_use]
    pub fn run_args<'b>(
        &'b self,
        options: &[&'b str],
        id: &'b str,
        command: &[&'b str],
    ) -> Vec<&'b str> {
        let mut args = vec!["run", "--runtime", self.runtime.ctr()];
        args.extend(options);
        args.extend([BUSYBOX, id]);
        args.extend(command);
        args
    }

    /// Runs a container to its end with `ctr run --rm` and these options, wants success, and
    /// returns its standard output without white space round it.
    ///
    /// # Errors
    /// It fails, with what it wrote, or its output is not whole; see [`Ctr::hear`].
    pub fn run(&self, options: &[&str], command: &[&str]) -> Result<String> {
        let options = [&["--rm"], options].concat();
        let output = self.ctr.hear(&self.run_args(&options, &self.id, &[]), command)?;
        if output.code == 0 { Ok(output.text()) } else { Err(output.refused()) }
    }

    /// Starts a container in the background.
    ///
    /// # Errors
    /// It fails, with what it wrote.
    pub fn start(&self, options: &[&str], id: &str, command: &[&str]) -> Result<()> {
        let options = [&["-d"], options].concat();
        self.ctr.ok(&self.run_args(&options, id, command)).map(drop)
    }

    /// Ends a container with SIGKILL and forgets it.
    ///
    /// # Errors
    /// It does not end.
    pub fn remove(&self, id: &str) -> Result<()> {
        self.ctr.ok(&["task", "kill", "--signal", "SIGKILL", id])?;
        self.delete(id).map(drop)
    }

    /// Waits for a container's end, forgets it, and returns its exit code.
    ///
    /// # Errors
    /// It does not end.
    pub fn delete(&self, id: &str) -> Result<i32> {
        self.stopped(id)?;
        // The code of a task, unlike that of an exec, is only told in a warning.
        let told = self.ctr.ok(&["task", "delete", id])?.complaint();
        self.ctr.ok(&["container", "delete", id])?;
        let digits = told.split_once("non-zero exit code ").map_or("0", |(_, rest)| rest);
        let digits: String = digits.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().map_err(|_| Error::check(format!("no exit code in {told:?}")))
    }

    /// The daemon's events from now on, as `ctr events` prints them.
    ///
    /// # Errors
    /// None come.
    pub fn events(&self) -> Result<Stream> {
        let mut command = self.ctr.std_command();
        command.arg("events");
        let mut events = Stream::start(command)?;
        // Nothing says that the subscription stands but its first event.
        crate::wait::until("a first event", crate::wait::PATIENCE, || {
            self.ctr.ok(&["namespace", "label", self.ctr.namespace(), "events=wanted"])?;
            Ok(events.line(Duration::from_millis(200)))
        })?;
        Ok(events)
    }

    /// Waits until a container's task has ended.
    ///
    /// # Errors
    /// It does not end.
    pub fn stopped(&self, id: &str) -> Result<()> {
        crate::wait::until(&format!("the end of {id}"), crate::wait::PATIENCE, || {
            Ok((self.status(id)? == "STOPPED").then_some(()))
        })
    }

    /// A task's status as `ctr task ls` prints it, empty when there is none.
    ///
    /// # Errors
    /// `ctr` fails.
    pub fn status(&self, id: &str) -> Result<String> {
        let table = self.ctr.ok(&["task", "ls"])?.text();
        let line = table.lines().find(|line| line.split_whitespace().next() == Some(id));
        Ok(line.and_then(|line| line.split_whitespace().nth(2)).unwrap_or_default().to_owned())
    }

    /// The process id of a container's first process.
    ///
    /// # Errors
    /// There is no such task.
    pub fn pid(&self, id: &str) -> Result<u32> {
        let table = self.ctr.ok(&["task", "ls"])?.text();
        let line = table.lines().find(|line| line.split_whitespace().next() == Some(id));
        let pid = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
        pid.ok_or_else(|| Error::check(format!("no task {id} in:\n{table}")))
    }
}

/// A daemon that scenarios share, and the machine before it.
#[derive(Debug)]
struct Session {
    before: Census,
    daemon: Daemon,
    warm: Vec<Runtime>,
}

impl Session {
    fn start(release: Release) -> Result<Self> {
        host::need_root()?;
        host::exclusive()?;
        let before = Census::take()?;
        let daemon = Daemon::start(release)?;
        // As the kubelet does for a pod; whoever makes it may remove it when it is empty.
        host::make_cgroup(daemon.name())?;
        daemon.import(daemon.name())?;
        daemon.import(CRI_NAMESPACE)?;
        Ok(Self { before, daemon, warm: Vec::new() })
    }

    /// Runs one container and one pod before the first scenario, because runtimes and the network
    /// leave what they make once: directories above their containers' state and cgroups, a bridge.
    /// The census of that scenario would find them.
    fn warm_up(&mut self, runtime: Runtime) -> Result<()> {
        if self.warm.contains(&runtime) {
            return Ok(());
        }
        if runtime == Runtime::Boathook {
            workspace::shim()?;
        }
        let ctr = self.daemon.ctr(self.daemon.name());
        ctr.ok(&["run", "--rm", "--runtime", runtime.ctr(), BUSYBOX, "warm-up", "true"])?;
        let parent = format!("/{}", self.daemon.name());
        let config = PodSandboxConfig::simple("warm-up", &parent, &self.daemon.logs());
        let cri = self.daemon.cri()?;
        let pod = cri.run_pod(&config, runtime.handler())?;
        cri.run(&pod, &ContainerConfig::simple("warm-up", &["true"]), &config)?;
        cri.stop_pod(&pod)?;
        cri.remove_pod(&pod)?;
        self.warm.push(runtime);
        Ok(())
    }

    fn play(&mut self, runtime: Runtime, name: &str, scenario: Scenario) -> Result<()> {
        self.warm_up(runtime)?;
        let dirs = [self.daemon.state(), self.daemon.logs()];
        let before = Census::with(&dirs)?;
        let ctr = self.daemon.ctr(self.daemon.name());
        let id = format!("{runtime}-{}", name.replace('_', "-"));
        let mut scene = Scene { daemon: &mut self.daemon, ctr, runtime, id };
        scenario(&mut scene)?;
        before.assert_same()
    }

    fn end(self) -> Result<()> {
        self.daemon.end()?;
        self.before.assert_same()
    }
}

/// The one session of this process: a census would take another daemon for a left-over.
type Shared = Arc<Mutex<Option<(Release, Session)>>>;

fn play(shared: &Shared, release: Release, cell: (Runtime, &str, Scenario)) -> Result<()> {
    let mut held = shared.lock().unwrap_or_else(PoisonError::into_inner);
    // Taken out, so that a failure or panic drops it with all its left-overs, and the next
    // scenario starts afresh.
    let mut session = match held.take() {
        Some((known, session)) if known == release => session,
        Some((_, other)) => {
            other.end()?;
            Session::start(release)?
        }
        None => Session::start(release)?,
    };
    let (runtime, name, scenario) = cell;
    match session.play(runtime, name, scenario) {
        Ok(()) => {
            *held = Some((release, session));
            Ok(())
        }
        Err(error) => Err(Error::check(format!("{error}\n{}", session.daemon.log_tail()))),
    }
}

/// Ends this release's session; there is none when the last scenario failed, and was told so.
fn end(shared: &Shared, release: Release) -> Result<()> {
    let mut held = shared.lock().unwrap_or_else(PoisonError::into_inner);
    match held.take_if(|(known, _)| *known == release) {
        Some((_, session)) => session.end(),
        None => Ok(()),
    }
}

/// Runs scenarios, and these trials before them, as `cargo test` does: with its arguments and its
/// output.
#[must_use]
pub fn main(mut trials: Vec<Trial>, entries: &[Entry]) -> ExitCode {
    let mut arguments = Arguments::from_args();
    // A census counts the whole machine.
    arguments.test_threads = Some(1);
    let shared = Shared::default();
    let played = |release: &Release| entries.iter().any(|entry| entry.releases.contains(release));
    for release in RELEASES.into_iter().filter(played) {
        for runtime in Runtime::ALL {
            for Entry { name, scenario, releases, runtimes } in entries.iter().copied() {
                if releases.contains(&release) && runtimes.contains(&runtime) {
                    let shared = Arc::clone(&shared);
                    trials.push(Trial::test(format!("{release}::{runtime}::{name}"), move || {
                        play(&shared, release, (runtime, name, scenario)).map_err(Failed::from)
                    }));
                }
            }
        }
        let shared = Arc::clone(&shared);
        let title = format!("{release}::nothing_left_behind");
        trials.push(Trial::test(title, move || end(&shared, release).map_err(Failed::from)));
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    // Where a filter left out the tests that end the daemons.
    for release in RELEASES {
        if let Err(error) = end(&shared, release) {
            // The only way to be heard after the last test.
            #[expect(clippy::print_stderr, reason = "the test harness has already finished")]
            {
                eprintln!("{release}: {error}");
            }
            return ExitCode::FAILURE;
        }
    }
    conclusion.exit_code()
}

/// The program of a suite: its `main`, and a table of the scenarios that follow.
///
/// `scenario on [Sid]` runs with those releases only, all others with every release. With `ours:`
/// in front, they are about what the stock shim does not have.
#[macro_export]
macro_rules! suite {
    (ours: $($scenarios:tt)+) => {
        $crate::suite!(@main [$crate::suite::Runtime::Boathook], $($scenarios)+);
    };
    (@main $runtimes:expr, $($scenario:ident $(on [$($release:ident),+])?),+ $(,)?) => {
        fn main() -> std::process::ExitCode {
            $crate::suite::main(Vec::new(), &[$(
                $crate::suite::Entry {
                    name: stringify!($scenario),
                    scenario: $scenario,
                    releases: $crate::suite!(@releases $($($release),+)?),
                    runtimes: &$runtimes,
                }
            ),+])
        }
    };
    (@releases) => { &$crate::suite::RELEASES };
    (@releases $($release:ident),+) => { &[$($crate::packages::Release::$release),+] };
    ($($scenarios:tt)+) => {
        $crate::suite!(@main $crate::suite::Runtime::ALL, $($scenarios)+);
    };
}
