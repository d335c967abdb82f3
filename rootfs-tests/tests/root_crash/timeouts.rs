//! Callers that give up: what they asked for comes to a good end, and asking again works.

use std::time::Duration;

use containerd_shim_protos::api::DeleteRequest;
use rootfs_tests::bundle::Bundle;
use rootfs_tests::census::Census;
use rootfs_tests::error::{Error, Result};
use rootfs_tests::shimrpc::{Task, create_request};
use rootfs_tests::wait::PATIENCE;
use rootfs_tests::{ensure, ensure_eq};
use serde_json::json;

use crate::gate::{Gate, no_hook_left};
use crate::rig::{Rig, SIGKILL, SLEEP, again, finish, id, run_delete, send_create};
use crate::stage::Alone;

pub(crate) const ALONE: &[Alone] = &[
    ("create_takes_too_long", create_takes_too_long),
    ("delete_command_during_a_create", delete_command_during_a_create),
    ("delete_takes_too_long", delete_takes_too_long),
    ("a_stuck_call_holds_up_nobody_else", a_stuck_call_holds_up_nobody_else),
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

/// A pod in which one container is being made, and then deleted, for as long as somebody likes:
/// meanwhile another one lives its whole life. Red if any of its calls waits for the stuck one, as
/// they do in shims that hold a lock of the pod (containerd 2709, 8557, 9103). Seen red with a single
/// thread for the engine's work.
fn a_stuck_call_holds_up_nobody_else(rig: &Rig) -> Result<()> {
    let before = Census::take()?;
    for stage in ["createRuntime", "poststop"] {
        let (mut stuck, gate) = gated(rig, &format!("stuck-{}", stage.to_lowercase()), stage)?;
        let mut other = rig.bundle(&format!("other-{}", stage.to_lowercase()), &SLEEP)?;
        for bundle in [&mut stuck, &mut other] {
            bundle.config["annotations"] = json!({ "io.kubernetes.cri.sandbox-id": stage });
            bundle.save()?;
        }
        let (shim, same) = (rig.shim(&stuck)?, rig.shim(&other)?);
        ensure_eq!(shim.address(), same.address(), "the pod's one server");
        let (mut first, mut task) = (shim.connect()?, shim.connect()?);
        let call = if stage == "createRuntime" {
            send_create(&mut first, &stuck)?
        } else {
            first.create(id(&stuck), &stuck.dir)?;
            first.start(id(&stuck), "")?;
            let wait = first.wait(id(&stuck), "")?;
            first.kill(id(&stuck), "", SIGKILL, false)?;
            first.ended(&wait)?;
            let request = DeleteRequest { id: id(&stuck).to_owned(), ..DeleteRequest::new() };
            first.send("Delete", &request)?
        };
        gate.reached()?;
        whole_life(&mut task, &other)?;
        gate.open()?;
        if stage == "createRuntime" {
            let created: containerd_shim_protos::api::CreateTaskResponse =
                first.connection.receive(&call, PATIENCE)?;
            ensure!(created.pid > 0, "the create that was stuck: {created:?}");
            first.delete(id(&stuck), "")?;
        } else {
            deleted(&mut first, &call)?;
        }
        shim.end()?;
    }
    before.assert_same()
}

/// Every call that a container's life consists of.
fn whole_life(task: &mut Task, bundle: &Bundle) -> Result<()> {
    let id = id(bundle);
    let pid = task.create(id, &bundle.dir)?;
    task.start(id, "")?;
    ensure_eq!(task.state(id, "")?.pid, pid, "pid in its state");
    task.exec(id, "ex", &["true"])?;
    let wait = task.wait(id, "ex")?;
    task.start(id, "ex")?;
    ensure_eq!(task.ended(&wait)?, 0, "status of the exec");
    task.delete(id, "ex")?;
    finish(task, bundle)
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
