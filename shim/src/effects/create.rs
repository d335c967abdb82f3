//! Create: rootfs, streams, container, in this order; undone in the reverse.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use boathook_fs::rootfs::{IdRange, id_map, mount_rootfs_mapped, unmount_rootfs};
use boathook_hooks::Policy;
use boathook_runtime::idmap::IdMappings;
use boathook_runtime::{Cancel, Create, CreateOptions, Created, Engine, Process, Stdio, spec};
use oci_spec::runtime::LinuxIdMappingBuilder;
use tokio::task::spawn_blocking;

use super::hooks::{self, Life, Unsettled};
use super::{Delivery, Effects, Live, LiveProcess, pid};
use crate::bundle::Record;
use crate::failure;
use crate::io::{self, ContainerEnds, Prepared, PreparedTerminal, Streams, Whose};
use crate::reaper::{Oom, report_exit};
use crate::table::{ContainerNo, CreateRequest, Input, Outcome, ProcessNo};

/// How long making a container may take.
const CREATE_LIMIT: Duration = Duration::from_secs(60);
/// How long taking an unusable one away may take.
pub(super) const UNDO_LIMIT: Duration = Duration::from_secs(10);

/// A container that exists, not yet known to the driver.
#[derive(Debug)]
pub(crate) struct NewContainer {
    live: Live,
    record: Record,
    process: Process,
    console: Option<OwnedFd>,
    streams: Prepared,
    life: Option<(Life, Box<Policy>)>,
}

/// Opened streams that still wait for a process.
pub(super) enum Opened {
    Pipes(Prepared),
    Terminal(PreparedTerminal),
}

/// Opens the streams a caller named and what the process gets of them.
pub(super) fn open(
    stdio: &crate::table::Stdio,
    whose: Whose<'_>,
) -> failure::Result<(Stdio, Opened)> {
    if stdio.terminal {
        return Ok((Stdio::Terminal, Opened::Terminal(io::terminal(stdio, whose)?)));
    }
    let (ContainerEnds { stdin, stdout, stderr }, prepared) = io::pipes(stdio, whose)?;
    Ok((Stdio::Fds { stdin, stdout, stderr }, Opened::Pipes(prepared)))
}

impl Opened {
    /// Adds the terminal, if the process has one. The first descriptor is
    /// kept for changes of its size.
    pub(super) fn with(
        self,
        console: Option<OwnedFd>,
    ) -> failure::Result<(Option<OwnedFd>, Prepared)> {
        match (self, console) {
            (Self::Pipes(prepared), console) => Ok((console, prepared)),
            (Self::Terminal(prepared), Some(master)) => {
                let copied = master.try_clone();
                let copied =
                    copied.map_err(|e| failure::Failure::sys("duplicate a terminal", e))?;
                Ok((Some(master), prepared.with(copied)?))
            }
            (Self::Terminal(_), None) => Err(failure::Failure::new(
                failure::ErrorKind::Internal,
                "the engine made no terminal",
            )),
        }
    }
}

impl Effects {
    pub(super) fn create(&mut self, no: ContainerNo, init: ProcessNo, request: Box<CreateRequest>) {
        let (root, engine) = self.engine(request.options.root.as_deref());
        let inbox = self.inbox.clone();
        let (namespace, daemon) = (Arc::clone(&self.namespace), Arc::clone(&self.daemon));
        let cancel = Cancel::default();
        self.creating.insert(no, cancel.clone());
        spawn_blocking(move || {
            let new = create(&engine, root, (&namespace, &daemon), &request, &cancel).map(Box::new);
            inbox.deliver(Delivery::Created(no, init, new));
        });
    }

    /// Connects what the container brings; if that fails it is taken away
    /// again, and Create has failed.
    pub(super) fn adopt_container(
        &mut self,
        no: ContainerNo,
        init: ProcessNo,
        new: NewContainer,
    ) -> Option<Input> {
        let NewContainer { live, record, process, console, streams, life } = new;
        let process = Arc::new(process);
        let oom = Oom::new(no, &live.container).inspect_err(|failure| {
            crate::debug!("memory of {} is not watched: {failure}", live.container.id());
        });
        let result = self.watch_init(Arc::clone(&process), init, streams, oom.ok());
        match result {
            Ok(streams) => {
                self.unprepared = true;
                let created = (pid(&process), live.container.has_private_pidns());
                let kept = LiveProcess {
                    container: Some(no),
                    process: Some(process),
                    spec: None,
                    console,
                    streams: Some(streams),
                    stdin_closed: false,
                };
                self.containers.insert(no, Arc::new(live));
                self.records.insert(no, record);
                self.processes.insert(init, kept);
                if let Some((life, policy)) = life {
                    self.lives.insert(no, life);
                    // Behind the news of the container, before any call.
                    self.ready.push_back(Input::Policy(no, policy));
                }
                Some(Input::Finished(Outcome::Created(no, Ok(created))))
            }
            Err(failure) => {
                let inbox = self.inbox.clone();
                spawn_blocking(move || {
                    drop(process);
                    if let Some((life, _)) = life {
                        life.remove();
                    }
                    take_away(&live);
                    inbox.input(Input::Finished(Outcome::Created(no, Err(failure))));
                });
                None
            }
        }
    }

    fn watch_init(
        &self,
        process: Arc<Process>,
        init: ProcessNo,
        streams: Prepared,
        oom: Option<Oom>,
    ) -> failure::Result<Streams> {
        let streams = streams.connect()?;
        report_exit(process, init, self.inbox.clone(), oom)?;
        Ok(streams)
    }
}

fn create(
    engine: &Engine,
    root: PathBuf,
    (namespace, daemon): (&Arc<str>, &str),
    request: &CreateRequest,
    cancel: &Cancel,
) -> failure::Result<NewContainer> {
    let spec = spec::load(&request.bundle)?;
    let policy = hooks::policy(&request.id, spec.annotations().as_ref())?;
    // The daemon may think about it while the container is made.
    let policy = policy.map(|policy| Unsettled::new(policy, (daemon, namespace), &request.id));
    let options = &request.options;
    let mut record = Record { root, ..Record::default() };
    if options.root.is_some() {
        // Should this server be killed, `delete` has to find what is half made.
        record.write(&request.bundle)?;
    }
    let userns = user_namespace(engine, request)?;
    let userns = userns.as_ref().map(AsFd::as_fd);
    let rootfs = mount_rootfs_mapped(&request.rootfs, &request.bundle.join("rootfs"), userns)?;
    let owner = (options.io_uid, options.io_gid);
    let (stdio, opened) = open(&request.stdio, Whose { id: &request.id, namespace, owner })?;
    let create = Create {
        id: &request.id,
        bundle: &request.bundle,
        spec: &spec,
        stdio,
        options: CreateOptions {
            systemd_cgroup: options.systemd_cgroup,
            no_pivot_root: options.no_pivot_root,
            no_new_keyring: options.no_new_keyring,
        },
        deadline: CREATE_LIMIT,
    };
    let Created { container, process, console } = engine.create_unless(create, cancel)?;
    record.pid = pid(&process);
    let live =
        Live { container, bundle: request.bundle.clone(), namespace: Arc::clone(namespace), owner };
    let state_dir = record.root.join(&request.id);
    let connected = opened.with(console).and_then(|streams| {
        record.write(&live.bundle)?;
        let begun = policy.map(Unsettled::settle).map(|policy| {
            Life::new(&request.id, (*policy).clone(), state_dir).map(|life| (life, policy))
        });
        Ok((streams, begun.transpose()?))
    });
    match connected {
        Ok(((console, streams), life)) => {
            drop(rootfs.keep());
            Ok(NewContainer { live, record, process, console, streams, life })
        }
        Err(failure) => {
            drop(process);
            take_away(&live);
            Err(failure)
        }
    }
}

/// What the root filesystem's owners are mapped by, for a pod with a user namespace.
fn user_namespace(engine: &Engine, request: &CreateRequest) -> failure::Result<Option<OwnedFd>> {
    let Some(map) = id_map(&request.rootfs)? else { return Ok(None) };
    let mapping = |range: &IdRange| {
        LinuxIdMappingBuilder::default()
            .container_id(range.inside)
            .host_id(range.outside)
            .size(range.count)
            .build()
            .map_err(|e| failure::Failure::invalid(format!("rootfs: {range:?}: {e}")))
    };
    let mappings = |ranges: &[IdRange]| ranges.iter().map(mapping).collect::<Result<Vec<_>, _>>();
    let (users, groups) = (mappings(&map.users)?, mappings(&map.groups)?);
    let mappings = IdMappings::new("rootfs", Some(&users), Some(&groups))?;
    Ok(mappings.map(|mappings| engine.id_namespace(&mappings)).transpose()?)
}

/// Undoes a Create that succeeded in the engine and failed here.
fn take_away(live: &Live) {
    if let Err(error) = live.container.delete(UNDO_LIMIT) {
        crate::warning!("undo of create {}: {error}", live.container.id());
    }
    if let Err(error) = unmount_rootfs(&live.bundle.join("rootfs")) {
        crate::warning!("undo of create {}: {error}", live.container.id());
    }
}
