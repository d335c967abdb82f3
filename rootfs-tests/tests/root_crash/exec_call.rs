//! The shim, the daemon or both are killed in the middle of a Start of an exec: its output goes to
//! a logging program, and until that says that it is ready there is no process.

use std::fs;

use rootfs_tests::census::Census;
use rootfs_tests::error::{Context, Error, Result};
use rootfs_tests::suite::{Runtime, Scene};
use rootfs_tests::wait::{self, PATIENCE};
use rootfs_tests::{ensure_eq, host};

use crate::gate::Gate;
use crate::restarts::{Victim, forget, quietly};
use crate::stage::Played;

pub(crate) const PLAYED: &[Played] =
    &[("killed_within_an_exec", killed_within_an_exec, &[Runtime::Boathook])];

fn killed_within_an_exec(scene: &mut Scene<'_>) -> Result<()> {
    for victim in [Victim::Daemon, Victim::Shim, Victim::Both] {
        let told = |error: Error| Error::check(format!("{victim:?} killed: {error}"));
        within_an_exec(scene, victim).map_err(told)?;
    }
    Ok(())
}

/// Red if an exec is forgotten because its caller is gone, if one begins without its shim, if the
/// logging program is never let go, or if the id stays taken.
fn within_an_exec(scene: &mut Scene<'_>, victim: Victim) -> Result<()> {
    let id = scene.id.clone();
    let before = Census::with(&[scene.daemon.state()])?;
    scene.start(&["--null-io"], &id, &["sleep", "1000"])?;
    let init = scene.pid(&id)?;
    let dir = scene.daemon.dir().join(format!("{id}-gate"));
    let (gate, uri) = Gate::before_an_exec(&dir)?;
    let mut command = scene.ctr.std_command();
    command.args(["task", "exec", "-d", "--log-uri", &uri, "--exec-id", "ex"]);
    command.args([&id, "sleep", "500"]);
    let client = quietly(command)?;
    gate.reached()?;
    let begun = || host::processes(|line| line == "sleep 500").len();
    ensure_eq!(begun(), 0, "execs before their logging program is ready");
    victim.kill(scene)?;
    gate.open()?;
    client.end()?;
    if victim == Victim::Daemon {
        wait::until("the exec", PATIENCE, || Ok((begun() == 1).then_some(())))?;
        ensure_eq!(scene.status(&id)?, "RUNNING", "status after the daemon's restart");
    } else {
        wait::gone(init, PATIENCE)?;
        ensure_eq!(begun(), 0, "execs without a shim");
    }
    forget(scene, &id)?;
    let logger = dir.display().to_string();
    host::none_left("the end of the logging program", |line| line.contains(&logger))?;
    fs::remove_dir_all(&dir).during(|| "remove the gate")?;
    before.assert_same()?;
    ensure_eq!(scene.run(&[], &["echo", "again"])?, "again", "the same id once more");
    Ok(())
}
