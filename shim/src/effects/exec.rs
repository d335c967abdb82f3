//! Exec: registered first, run by its Start.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use boathook_runtime::{Process, spec};
use oci_spec::runtime::Process as ProcessSpec;
use tokio::task::spawn_blocking;

use super::create::open;
use super::{Delivery, Effects, Live, LiveProcess, START_LIMIT, pid};
use crate::failure::{self, Failure};
use crate::io::{Prepared, Streams, Whose};
use crate::reaper::report_exit;
use crate::table::{ContainerNo, Input, Outcome, ProcessNo, Stdio};

/// How long putting a process into a container may take.
const EXEC_LIMIT: Duration = Duration::from_secs(30);

/// A process that runs, not yet known to the driver.
#[derive(Debug)]
pub(crate) struct NewProcess {
    process: Process,
    console: Option<OwnedFd>,
    streams: Prepared,
}

impl Effects {
    pub(super) fn register(&mut self, no: ProcessNo, json: &[u8]) {
        let registered = spec::process_from_json(json).map_err(Failure::from).map(|spec| {
            self.processes.insert(no, LiveProcess::registered(spec));
        });
        self.ready.push_back(Input::Finished(Outcome::Registered(no, registered)));
    }

    pub(super) fn start_exec(
        &mut self,
        container: ContainerNo,
        no: ProcessNo,
        exec_id: String,
        stdio: Stdio,
    ) {
        let inbox = self.inbox.clone();
        let live = self.live(container);
        let spec = self.processes.get_mut(&no).and_then(|p| p.spec.take());
        let spec = spec.ok_or_else(|| Failure::wrong_state("the process was started before"));
        spawn_blocking(move || {
            let new = live.and_then(|live| Ok(Box::new(run(&live, spec?, &exec_id, &stdio)?)));
            inbox.deliver(Delivery::Started(container, no, new));
        });
    }

    /// Connects what the process brings; one that cannot be watched is killed,
    /// and its Start has failed.
    pub(super) fn adopt_exec(
        &mut self,
        container: ContainerNo,
        no: ProcessNo,
        new: NewProcess,
    ) -> Option<Input> {
        let NewProcess { process, console, streams } = new;
        let process = Arc::new(process);
        let started = self.watch_exec(&process, no, streams).map(|streams| {
            if let Some(kept) = self.processes.get_mut(&no) {
                kept.container = Some(container);
                kept.process = Some(Arc::clone(&process));
                kept.console = console;
                let streams = kept.streams.insert(streams);
                if kept.stdin_closed {
                    streams.close_stdin();
                }
            }
            pid(&process)
        });
        if started.is_err() {
            // Dropping it kills it and waits for its end.
            spawn_blocking(move || drop(process));
        }
        Some(Input::Finished(Outcome::Started(no, started)))
    }

    fn watch_exec(
        &self,
        process: &Arc<Process>,
        no: ProcessNo,
        streams: Prepared,
    ) -> failure::Result<Streams> {
        let streams = streams.connect()?;
        report_exit(Arc::clone(process), no, self.inbox.clone(), None)?;
        Ok(streams)
    }
}

fn run(
    live: &Live,
    mut spec: Box<ProcessSpec>,
    exec_id: &str,
    stdio: &Stdio,
) -> failure::Result<NewProcess> {
    // The request's word counts, not the spec's: they differ when a client
    // takes the container's process as a template.
    spec.set_terminal(Some(stdio.terminal));
    // containerd gives a logging program the exec's id, not the container's.
    let whose = Whose { id: exec_id, namespace: &live.namespace, owner: live.owner };
    let (given, opened) = open(stdio, whose)?;
    let (process, console) = live.container.exec(&spec, given, EXEC_LIMIT)?;
    let (console, streams) = opened.with(console)?;
    // On an error the process is dropped, and with it killed and reaped.
    process.start(START_LIMIT)?;
    Ok(NewProcess { process, console, streams })
}
