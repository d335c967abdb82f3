//! Events on containerd's bus, in the order in which things happened.
//!
//! One queue, one sender, and always the head first: a failed event is tried
//! again before any newer one. While the daemon is away events wait; when too
//! many wait, the oldest that nobody depends on go, exits never.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use containerd_shim_protos::api::ForwardRequest;
use containerd_shim_protos::events::container::ContainerUpdate;
use containerd_shim_protos::events::task as wire;
use containerd_shim_protos::shim::event::Envelope;
use containerd_shim_protos::shim_async::{Client, EventsClient};
use containerd_shim_protos::{topics, ttrpc};
use protobuf::Message;
use protobuf::well_known_types::any::Any;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};
use ttrpc::Code;
use ttrpc::asynchronous::transport::Socket;

use crate::failure::{Failure, Result};
use crate::proto;
use crate::table::Event;

/// Events that wait while the daemon is away.
pub const MAX_WAITING: usize = 4096;
/// How long the daemon may take for one event.
const FORWARD_LIMIT: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(3);
/// Answers of the daemon, other than "not now", before an event is given up.
const MAX_REFUSALS: u32 = 3;

/// The end of the queue that events are put into.
#[derive(Debug)]
pub struct Publisher {
    queue: mpsc::UnboundedSender<Queued>,
    sender: JoinHandle<()>,
}

#[derive(Debug)]
struct Queued {
    at: SystemTime,
    topic: &'static str,
    event: Any,
    /// Somebody waits for this one; it is never dropped.
    needed: bool,
}

impl Publisher {
    /// Starts the sender to the daemon's ttrpc socket at `address`.
    pub fn start(address: String, namespace: String) -> Self {
        let (queue, waiting) = mpsc::unbounded_channel();
        let sender = Sender {
            address,
            namespace,
            waiting: VecDeque::new(),
            client: None,
            pause: FIRST_PAUSE,
            refusals: 0,
        };
        Self { queue, sender: tokio::spawn(sender.run(waiting)) }
    }

    /// Queues an event; never waits.
    pub fn publish(&self, event: &Event) {
        match encode(event) {
            Ok(queued) => {
                // Only fails when the sender has ended, and it ends last.
                let _ = self.queue.send(queued);
            }
            Err(failure) => crate::warning!("event {event:?}: {failure}"),
        }
    }

    /// Gives the daemon `limit` to take what is queued, then ends.
    pub async fn finish(self, limit: Duration) {
        drop(self.queue);
        let sender = self.sender;
        let abort = sender.abort_handle();
        if timeout(limit, sender).await.is_err() {
            crate::warning!("events are left that the daemon did not take");
            abort.abort();
        }
    }
}

struct Sender {
    address: String,
    namespace: String,
    waiting: VecDeque<Queued>,
    client: Option<EventsClient>,
    pause: Duration,
    refusals: u32,
}

/// How one attempt went.
enum Attempt {
    Taken,
    /// The daemon is away or busy.
    NotNow(String),
    /// The daemon answered that it will not have it.
    Refused(String),
}

impl Sender {
    async fn run(mut self, mut queue: mpsc::UnboundedReceiver<Queued>) {
        loop {
            while let Ok(event) = queue.try_recv() {
                self.push(event);
            }
            if self.waiting.is_empty() {
                match queue.recv().await {
                    Some(event) => self.push(event),
                    None => return,
                }
            }
            match self.attempt().await {
                Attempt::Taken => self.next(),
                Attempt::Refused(why) if self.refusals >= MAX_REFUSALS => {
                    crate::warning!("event {} given up: {why}", self.head_topic());
                    self.next();
                }
                Attempt::Refused(why) => {
                    self.refusals += 1;
                    self.wait(&mut queue, &why).await;
                }
                Attempt::NotNow(why) => {
                    self.client = None;
                    self.wait(&mut queue, &why).await;
                }
            }
        }
    }

    fn next(&mut self) {
        self.waiting.pop_front();
        self.pause = FIRST_PAUSE;
        self.refusals = 0;
    }

    fn head_topic(&self) -> &'static str {
        self.waiting.front().map_or("", |e| e.topic)
    }

    /// Lets some time go by, collecting what comes in meanwhile.
    async fn wait(&mut self, queue: &mut mpsc::UnboundedReceiver<Queued>, why: &str) {
        crate::debug!("event {} waits {:?}: {why}", self.head_topic(), self.pause);
        let until = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        loop {
            tokio::select! {
                () = sleep_until(until) => return,
                event = queue.recv() => match event {
                    Some(event) => self.push(event),
                    // Nothing more will come, and whoever waits for the end has
                    // less patience than a long pause takes.
                    None => {
                        self.pause = FIRST_PAUSE;
                        return sleep_until(until.min(Instant::now() + FIRST_PAUSE)).await;
                    }
                },
            }
        }
    }

    fn push(&mut self, event: Queued) {
        self.waiting.push_back(event);
        if self.waiting.len() > MAX_WAITING
            // Not the head: it may be on its way.
            && let Some(at) = (1..self.waiting.len()).find(|at| !self.waiting[*at].needed)
        {
            self.waiting.remove(at);
        }
    }

    async fn attempt(&mut self) -> Attempt {
        let Some(event) = self.waiting.front() else { return Attempt::Taken };
        let request = ForwardRequest {
            envelope: Some(Envelope {
                timestamp: proto::timestamp(Some(event.at)),
                namespace: self.namespace.clone(),
                topic: event.topic.to_owned(),
                event: Some(event.event.clone()).into(),
                ..Envelope::default()
            })
            .into(),
            ..ForwardRequest::default()
        };
        let client = match &self.client {
            Some(client) => client,
            None => match connect(&self.address).await {
                Ok(client) => self.client.insert(client),
                Err(error) => return Attempt::NotNow(error.to_string()),
            },
        };
        let limit = i64::try_from(FORWARD_LIMIT.as_nanos()).unwrap_or(i64::MAX);
        match client.forward(ttrpc::context::with_timeout(limit), &request).await {
            Ok(_) => Attempt::Taken,
            Err(ttrpc::Error::RpcStatus(status)) => match status.code() {
                Code::UNAVAILABLE | Code::DEADLINE_EXCEEDED | Code::CANCELLED => {
                    Attempt::NotNow(status.message)
                }
                _ => Attempt::Refused(status.message),
            },
            Err(error) => Attempt::NotNow(error.to_string()),
        }
    }
}

/// Connects without blocking: a daemon that hangs with a full backlog is met
/// with an error here, not with a stopped shim.
async fn connect(address: &str) -> std::io::Result<EventsClient> {
    let path = address.strip_prefix("unix://").unwrap_or(address);
    let stream = UnixStream::connect(path).await?;
    Ok(EventsClient::new(Client::new(Socket::from(stream))))
}

fn encode(event: &Event) -> Result<Queued> {
    let (topic, event_any) = match event {
        Event::Create { id, bundle, rootfs, stdio, pid } => {
            let io = wire::TaskIO {
                stdin: stdio.stdin.clone(),
                stdout: stdio.stdout.clone(),
                stderr: stdio.stderr.clone(),
                terminal: stdio.terminal,
                ..wire::TaskIO::default()
            };
            let message = wire::TaskCreate {
                container_id: id.clone(),
                bundle: bundle.to_string_lossy().into_owned(),
                rootfs: rootfs.iter().map(proto::event_mount).collect(),
                io: Some(io).into(),
                pid: *pid,
                ..wire::TaskCreate::default()
            };
            (topics::TASK_CREATE_EVENT_TOPIC, any("TaskCreate", &message)?)
        }
        Event::Start { id, pid } => {
            let message =
                wire::TaskStart { container_id: id.clone(), pid: *pid, ..Default::default() };
            (topics::TASK_START_EVENT_TOPIC, any("TaskStart", &message)?)
        }
        Event::ExecAdded { id, exec_id } => {
            let message = wire::TaskExecAdded {
                container_id: id.clone(),
                exec_id: exec_id.clone(),
                ..Default::default()
            };
            (topics::TASK_EXEC_ADDED_EVENT_TOPIC, any("TaskExecAdded", &message)?)
        }
        Event::ExecStarted { id, exec_id, pid } => {
            let message = wire::TaskExecStarted {
                container_id: id.clone(),
                exec_id: exec_id.clone(),
                pid: *pid,
                ..Default::default()
            };
            (topics::TASK_EXEC_STARTED_EVENT_TOPIC, any("TaskExecStarted", &message)?)
        }
        Event::Exit { target, pid, exit } => {
            let message = wire::TaskExit {
                container_id: target.id.clone(),
                id: target.exec.clone().unwrap_or_else(|| target.id.clone()),
                pid: *pid,
                exit_status: exit.status,
                exited_at: proto::timestamp(exit.at),
                ..Default::default()
            };
            (topics::TASK_EXIT_EVENT_TOPIC, any("TaskExit", &message)?)
        }
        Event::Delete { id, pid, exit } => {
            let message = wire::TaskDelete {
                container_id: id.clone(),
                pid: *pid,
                exit_status: exit.status,
                exited_at: proto::timestamp(exit.at),
                ..Default::default()
            };
            (topics::TASK_DELETE_EVENT_TOPIC, any("TaskDelete", &message)?)
        }
        Event::Paused(id) => {
            let message = wire::TaskPaused { container_id: id.clone(), ..Default::default() };
            (topics::TASK_PAUSED_EVENT_TOPIC, any("TaskPaused", &message)?)
        }
        Event::Resumed(id) => {
            let message = wire::TaskResumed { container_id: id.clone(), ..Default::default() };
            (topics::TASK_RESUMED_EVENT_TOPIC, any("TaskResumed", &message)?)
        }
        Event::Oom(id) => {
            let message = wire::TaskOOM { container_id: id.clone(), ..Default::default() };
            (topics::TASK_OOM_EVENT_TOPIC, any("TaskOOM", &message)?)
        }
        Event::Lifecycle { id, topic, labels } => {
            let labels = labels.iter().cloned().collect();
            let message = ContainerUpdate { id: id.clone(), labels, ..Default::default() };
            (*topic, any("ContainerUpdate", &message)?)
        }
    };
    let needed = matches!(event, Event::Exit { .. });
    Ok(Queued { at: SystemTime::now(), topic, event: event_any, needed })
}

/// Bare full name as type URL, as containerd's own shim writes it. The name is
/// spelt out because asking the message for it builds the descriptors of its
/// whole file, some 100 KiB of heap that never go away.
fn any(name: &str, message: &impl Message) -> Result<Any> {
    let value = message.write_to_bytes().map_err(|e| Failure::invalid(e.to_string()))?;
    Ok(Any { type_url: format!("containerd.events.{name}"), value, ..Any::default() })
}

pub(crate) mod lifecycle;
#[cfg(test)]
mod tests;
