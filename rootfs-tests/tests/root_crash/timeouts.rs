//! Callers that give up: what they asked for comes to a good end, and asking again works.

use std::time::Duration;

use containerd_shim_protos::api::DeleteRequest;
use rootfs_tests::bundle::Bundle;
use rootfs_tests::census::Census;
use rootfs_tests::error::{Error, Result};
use rootfs_tests::shimrpc::{Task, create_request};
use rootfs_tests::wait::PATIENCE;
use rootfs_tests::{ensure, ensure_eq};

use crate::gate::{Gate, no_hook_left};
use crate::rig::{Rig, SIGKILL, SLEEP, again, id, run_delete, send_create};
use crate::stage::Alone;

pub(crate) const ALONE: &[Alone] = &[
    ("create_takes_too_long", create_takes_too_long),
    ("delete_command_during_a_create", delete_command_during_a_create),
    ("delete_takes_too_long", delete_takes_too_long),
];

/// The deadline that a caller sets.
const DEADLINE: Duration = Duration::from_secs(1);

fn code(result: Result<impl std::fmt::Debug>) -> Result<String> {
    match result {
        Err(error) => error.code().map(str::to_owned).ok_or(error),
        Ok(answer) => Err(Error::check(format!("no refusal but {answer:?}"))),
    }
}

fn gated(rig: &Rig, name: &str, stage: &'static str) -> Result<(Bundle, Gate)> {
    let mut bundle = rig.bundle(name, &SLEEP)?;
    let gate = Gate::new(stage, &bundle.rootfs(), &mut bundle.config)?;
    bundle.save()?;
    Ok((bundle, gate))
}

/// What containerd does: a Create that is not answered in time, then a Delete. Red if the Delete
/// waits for a create that may take a minute, or finds nothing and leaves the create alone.
fn create_takes_too_long(rig: &Rig) -> Result<()> {
    let (bundle, gate) = gated(rig, "create", "createRuntime")?;
    let before = Census::take()?;
    let shim = rig.shim(&bundle)?;
    let mut task = shim.connect()?;
    task.connection.timeout = Some(DEADLINE);
    let created: Result<containerd_shim_protos::api::CreateTaskResponse> =
        task.call("Create", &create_request(id(&bundle), &bundle.dir));
    ensure_eq!(code(created)?, "DeadlineExceeded", "the create");
    gate.reached()?;
    task.connection.timeout = Some(PATIENCE);
    ensure_eq!(code(task.delete(id(&bundle), ""))?, "NotFound", "the delete of what never was");
    no_hook_left()?;
    shim.end()?;
    again(rig, &bundle, &before)
}

/// The command meets a server that lives and still makes the container. Red if it takes away what
/// the server goes on with, or lets the create succeed.
fn delete_command_during_a_create(rig: &Rig) -> Result<()> {
    let (bundle, gate) = gated(rig, "command", "createRuntime")?;
    let before = Census::take()?;
    let shim = rig.shim(&bundle)?;
    let mut task = shim.connect()?;
    let creating = send_create(&mut task, &bundle)?;
    gate.reached()?;
    run_delete(&shim)?;
    let created: Result<containerd_shim_protos::api::CreateTaskResponse> =
        task.connection.receive(&creating, PATIENCE);
    ensure!(created.is_err(), "the create of a deleted container: {created:?}");
    no_hook_left()?;
    shim.end()?;
    again(rig, &bundle, &before)
}

/// Red if the work of a Delete ends with its caller's patience, or the next one fails.
fn delete_takes_too_long(rig: &Rig) -> Result<()> {
    let (bundle, gate) = gated(rig, "delete", "poststop")?;
    let before = Census::take()?;
    let shim = rig.shim(&bundle)?;
    let mut task = shim.connect()?;
    let id = id(&bundle);
    task.create(id, &bundle.dir)?;
    task.start(id, "")?;
    let wait = task.wait(id, "")?;
    task.kill(id, "", SIGKILL, false)?;
    task.ended(&wait)?;
    task.connection.timeout = Some(DEADLINE);
    ensure_eq!(code(task.delete(id, ""))?, "DeadlineExceeded", "the first delete");
    gate.reached()?;
    task.connection.timeout = Some(PATIENCE);
    let request = DeleteRequest { id: id.to_owned(), ..DeleteRequest::new() };
    let second = task.send("Delete", &request)?;
    gate.open()?;
    deleted(&mut task, &second)?;
    shim.end()?;
    again(rig, &bundle, &before)
}

/// The second Delete joined the first, or came when that was done.
fn deleted(task: &mut Task, pending: &rootfs_tests::shimrpc::Pending) -> Result<()> {
    let answer: Result<containerd_shim_protos::api::DeleteResponse> =
        task.connection.receive(pending, PATIENCE);
    match answer {
        Ok(answer) => {
            ensure_eq!(answer.exit_status, 137, "status of the deleted container");
            Ok(())
        }
        Err(error) if error.code() == Some("NotFound") => Ok(()),
        Err(error) => Err(error),
    }
}
