//! Runs the tests one after the other, each between two censuses of the whole machine.

use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use libtest_mimic::{Arguments, Failed, Trial};
use rootfs_tests::census::Census;
use rootfs_tests::containerd::{CRI_NAMESPACE, Daemon};
use rootfs_tests::cri::{ContainerConfig, PodSandboxConfig};
use rootfs_tests::error::{Error, Result};
use rootfs_tests::host;
use rootfs_tests::image::BUSYBOX;
use rootfs_tests::packages::Release;
use rootfs_tests::suite::{Runtime, Scenario, Scene};

use crate::rig::Rig;

/// A test of a shim without a daemon.
pub(crate) type Alone = (&'static str, fn(&Rig) -> Result<()>);

/// A test with a daemon, with each of these shims: where the stock one is known to fail it is no
/// witness.
pub(crate) type Played = (&'static str, Scenario, &'static [Runtime]);

/// The oldest and the newest daemon: what differs between releases is what they do after a crash.
const RELEASES: [Release; 2] = [Release::Bookworm, Release::Sid];

/// The one daemon of this process, and the machine before it.
struct Session {
    release: Release,
    before: Census,
    daemon: Daemon,
    warm: Vec<Runtime>,
}

type Shared = Arc<Mutex<Option<Session>>>;

impl Session {
    fn start(release: Release) -> Result<Self> {
        let before = Census::take()?;
        let daemon = Daemon::start(release)?;
        host::make_cgroup(daemon.name())?;
        daemon.import(daemon.name())?;
        daemon.import(CRI_NAMESPACE)?;
        Ok(Self { release, before, daemon, warm: Vec::new() })
    }

    /// What runtimes and the network make once is made before the first census.
    fn warm_up(&mut self, runtime: Runtime) -> Result<()> {
        if self.warm.contains(&runtime) {
            return Ok(());
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
        let before = Census::with(&[self.daemon.state(), self.daemon.logs()])?;
        let ctr = self.daemon.ctr(self.daemon.name());
        let id = format!("{runtime}-{}", name.replace('_', "-"));
        scenario(&mut Scene { daemon: &mut self.daemon, ctr, runtime, id })?;
        before.assert_same()
    }

    fn end(self) -> Result<()> {
        self.daemon.end()?;
        self.before.assert_same()
    }
}

/// Runs everything that the arguments ask for.
pub(crate) fn main(alone: &[Alone], played: &[Played]) -> ExitCode {
    let mut arguments = Arguments::from_args();
    // A census counts the whole machine.
    arguments.test_threads = Some(1);
    let mut trials = Vec::new();
    for (name, test) in alone.iter().copied() {
        trials.push(Trial::test(format!("shim::{name}"), move || {
            play_alone(test).map_err(Failed::from)
        }));
    }
    let shared = Shared::default();
    for release in RELEASES {
        for (name, scenario, runtimes) in played.iter().copied() {
            for runtime in runtimes {
                let shared = Arc::clone(&shared);
                trials.push(Trial::test(format!("{release}::{runtime}::{name}"), move || {
                    play(&shared, release, (*runtime, name, scenario)).map_err(Failed::from)
                }));
            }
        }
        let shared = Arc::clone(&shared);
        trials.push(Trial::test(format!("{release}::nothing_left_behind"), move || {
            end(&shared).map_err(Failed::from)
        }));
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    // Where a filter left out the test that ends the daemon.
    if let Err(error) = end(&shared) {
        #[expect(clippy::print_stderr, reason = "the test harness has already finished")]
        {
            eprintln!("{error}");
        }
        return ExitCode::FAILURE;
    }
    conclusion.exit_code()
}

fn play_alone(test: fn(&Rig) -> Result<()>) -> Result<()> {
    host::need_root()?;
    host::exclusive()?;
    let before = Census::take()?;
    let rig = Rig::new()?;
    test(&rig).inspect_err(|_| rig.sweep())?;
    drop(rig);
    before.assert_same()
}

fn play(shared: &Shared, release: Release, cell: (Runtime, &str, Scenario)) -> Result<()> {
    host::need_root()?;
    host::exclusive()?;
    let mut held = shared.lock().unwrap_or_else(PoisonError::into_inner);
    // Taken out, so that a failure drops it with all its left-overs, and the next test starts afresh.
    let mut session = match held.take() {
        Some(session) if session.release == release => session,
        Some(other) => {
            other.end()?;
            Session::start(release)?
        }
        None => Session::start(release)?,
    };
    let (runtime, name, scenario) = cell;
    match session.play(runtime, name, scenario) {
        Ok(()) => {
            *held = Some(session);
            Ok(())
        }
        Err(error) => Err(Error::check(format!("{error}\n{}", session.daemon.log_tail()))),
    }
}

fn end(shared: &Shared) -> Result<()> {
    let held = shared.lock().unwrap_or_else(PoisonError::into_inner).take();
    held.map_or(Ok(()), Session::end)
}
