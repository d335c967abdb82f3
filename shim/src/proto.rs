//! Between the shim's plain types and the messages on the wire.

use std::time::{SystemTime, UNIX_EPOCH};

use boathook_fs::rootfs::MountSpec;
use containerd_shim_protos::api;
use containerd_shim_protos::types::mount::Mount as EventMount;
use protobuf::well_known_types::timestamp::Timestamp;
use protobuf::{EnumOrUnknown, MessageField};

use crate::table::{Exit, StateAnswer, Status, Target};

/// A point in time; absent stays absent.
pub fn timestamp(at: Option<SystemTime>) -> MessageField<Timestamp> {
    MessageField::from_option(at.map(|at| {
        let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp {
            seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
            nanos: i32::try_from(since.subsec_nanos()).unwrap_or(0),
            ..Timestamp::default()
        }
    }))
}

/// The process two fields of a request name; an empty exec id means init.
pub fn target(id: String, exec_id: String) -> Target {
    Target { id, exec: Some(exec_id).filter(|e| !e.is_empty()) }
}

/// A mount of a Create request.
pub fn mount(mount: api::Mount) -> MountSpec {
    MountSpec {
        kind: mount.type_,
        source: mount.source,
        target: mount.target,
        options: mount.options,
    }
}

/// A mount of a create event, which the protos crate keeps as another type.
pub fn event_mount(mount: &MountSpec) -> EventMount {
    EventMount {
        type_: mount.kind.clone(),
        source: mount.source.clone(),
        target: mount.target.clone(),
        options: mount.options.clone(),
        ..EventMount::default()
    }
}

fn status(status: Status) -> EnumOrUnknown<api::Status> {
    EnumOrUnknown::new(match status {
        Status::Created => api::Status::CREATED,
        Status::Running => api::Status::RUNNING,
        Status::Stopped => api::Status::STOPPED,
        Status::Paused => api::Status::PAUSED,
        Status::Pausing => api::Status::PAUSING,
    })
}

/// The answer to State.
pub fn state(state: StateAnswer) -> api::StateResponse {
    let Exit { status: exit_status, at } = state.exit.unwrap_or(Exit { status: 0, at: None });
    api::StateResponse {
        id: state.target.id,
        exec_id: state.target.exec.unwrap_or_default(),
        bundle: state.bundle.to_string_lossy().into_owned(),
        pid: state.pid,
        status: status(state.status),
        stdin: state.stdio.stdin,
        stdout: state.stdio.stdout,
        stderr: state.stdio.stderr,
        terminal: state.stdio.terminal,
        exit_status,
        exited_at: timestamp(at),
        ..api::StateResponse::default()
    }
}

/// The answer to Delete, on the wire and on stdout of the `delete` command.
pub fn deleted(pid: u32, exit: Option<Exit>) -> api::DeleteResponse {
    api::DeleteResponse {
        pid,
        exit_status: exit.map_or(0, |e| e.status),
        exited_at: timestamp(exit.and_then(|e| e.at)),
        ..api::DeleteResponse::default()
    }
}
