//! The queue against a real ttrpc server that comes, goes and refuses.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use containerd_shim_protos::api::Empty;
use containerd_shim_protos::shim_async::{Events, create_events};
use protobuf::MessageFull;
use tokio::sync::Notify;
use ttrpc::asynchronous::{Server, TtrpcContext};
use ttrpc::get_status;

use super::*;
use crate::table::{Exit, Stdio, Target};

/// No test waits longer for something that must happen.
const SOON: Duration = Duration::from_secs(20);

/// What a daemon has taken, and what it says to the next event.
#[derive(Default)]
struct Daemon {
    taken: Mutex<Vec<ForwardRequest>>,
    refuse: Mutex<Option<(Code, u32)>>,
    news: Notify,
}

#[async_trait]
impl Events for Daemon {
    async fn forward(&self, _: &TtrpcContext, r: ForwardRequest) -> ttrpc::Result<Empty> {
        if let Some((code, times)) = &mut *self.refuse.lock().unwrap()
            && *times > 0
        {
            *times -= 1;
            self.news.notify_one();
            return Err(ttrpc::Error::RpcStatus(get_status(*code, "no")));
        }
        self.taken.lock().unwrap().push(r);
        self.news.notify_one();
        Ok(Empty::new())
    }
}

impl Daemon {
    async fn serve(self: &Arc<Self>, path: &Path) -> Server {
        let service: Arc<Self> = Arc::clone(self);
        let mut server = Server::new()
            .bind(&format!("unix://{}", path.display()))
            .unwrap()
            .register_service(create_events(service));
        server.start().await.unwrap();
        server
    }

    async fn has(&self, count: usize) -> Vec<String> {
        let wait = async {
            while self.taken.lock().unwrap().len() < count {
                self.news.notified().await;
            }
        };
        tokio::time::timeout(SOON, wait).await.unwrap();
        self.ids()
    }

    /// The `container_id` of every event taken, in order.
    fn ids(&self) -> Vec<String> {
        let taken = self.taken.lock().unwrap();
        let id = |r: &ForwardRequest| {
            let bytes = &r.envelope.event.value;
            wire::TaskPaused::parse_from_bytes(bytes).unwrap().container_id
        };
        taken.iter().map(id).collect()
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn exit_event(id: &str) -> Event {
    let target = Target { id: id.into(), exec: None };
    Event::Exit { target, pid: 1, exit: Exit { status: 0, at: None } }
}

fn publisher(path: &Path) -> Publisher {
    Publisher::start(path.to_str().unwrap().to_owned(), "ns".into())
}

#[test]
fn events_wait_for_the_daemon_and_keep_their_order() {
    runtime().block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ttrpc");
        let publisher = publisher(&path);
        let daemon = Arc::new(Daemon::default());
        for n in 0..5 {
            publisher.publish(&Event::Paused(n.to_string()));
        }
        let mut server = daemon.serve(&path).await;
        assert_eq!(daemon.has(5).await, ["0", "1", "2", "3", "4"]);
        // The daemon restarts: what happens meanwhile is told afterwards.
        server.shutdown().await.unwrap();
        std::fs::remove_file(&path).unwrap();
        publisher.publish(&Event::Paused("5".into()));
        publisher.publish(&Event::Paused("6".into()));
        let _server = daemon.serve(&path).await;
        assert_eq!(daemon.has(7).await[5..], ["5", "6"]);
        publisher.finish(SOON).await;
    });
}

/// Red when the last events are lost because the daemon came back, and the
/// task was deleted, in the middle of a long pause.
#[test]
fn the_end_does_not_wait_for_a_long_pause() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("daemon.ttrpc");
    runtime().block_on(async {
        let daemon = Arc::new(Daemon::default());
        // After so many the next pause is longer than the end may take.
        *daemon.refuse.lock().unwrap() = Some((Code::UNAVAILABLE, 7));
        let mut server = daemon.serve(&path).await;
        let publisher = publisher(&path);
        publisher.publish(&exit_event("c1"));
        let turned_away = async {
            while daemon.refuse.lock().unwrap().is_some_and(|(_, times)| times > 0) {
                daemon.news.notified().await;
            }
        };
        tokio::time::timeout(SOON, turned_away).await.unwrap();
        publisher.finish(Duration::from_secs(2)).await;
        assert_eq!(daemon.ids(), ["c1"]);
        let _ = server.shutdown().await;
    });
}

#[test]
fn the_envelope_is_what_the_daemon_checks() {
    runtime().block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ttrpc");
        let daemon = Arc::new(Daemon::default());
        let _server = daemon.serve(&path).await;
        let publisher = publisher(&path);
        publisher.publish(&exit_event("c"));
        daemon.has(1).await;
        let taken = daemon.taken.lock().unwrap();
        let envelope = &taken[0].envelope;
        assert_eq!((envelope.namespace.as_str(), envelope.topic.as_str()), ("ns", "/tasks/exit"));
        assert!(envelope.timestamp.seconds > 0);
    });
}

#[test]
fn a_busy_daemon_is_asked_again_and_a_refused_event_is_given_up() {
    runtime().block_on(async {
        for (code, times, expected) in [
            (Code::UNAVAILABLE, 5, vec!["a", "b"]),
            (Code::INVALID_ARGUMENT, MAX_REFUSALS, vec!["a", "b"]),
            (Code::INVALID_ARGUMENT, MAX_REFUSALS + 1, vec!["b"]),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("ttrpc");
            let daemon = Arc::new(Daemon::default());
            *daemon.refuse.lock().unwrap() = Some((code, times));
            let _server = daemon.serve(&path).await;
            let publisher = publisher(&path);
            publisher.publish(&Event::Paused("a".into()));
            publisher.publish(&Event::Paused("b".into()));
            assert_eq!(daemon.has(expected.len()).await, expected, "{code:?} {times}");
        }
    });
}

#[test]
fn too_many_events_cost_those_that_nobody_waits_for() {
    let mut sender = Sender {
        address: String::new(),
        namespace: String::new(),
        waiting: VecDeque::new(),
        client: None,
        pause: FIRST_PAUSE,
        refusals: 0,
    };
    for n in 0..MAX_WAITING + 100 {
        let id = n.to_string();
        let event = if n % 2 == 0 { exit_event(&id) } else { Event::Paused(id) };
        sender.push(encode(&event).unwrap());
    }
    assert_eq!(sender.waiting.len(), MAX_WAITING);
    let exits = sender.waiting.iter().filter(|e| e.needed).count();
    assert_eq!(exits, (MAX_WAITING + 100) / 2);
}

#[test]
fn every_event_has_its_topic_and_type() {
    let id = || "c".to_owned();
    let exit = Exit { status: 1, at: None };
    let exec = Target { id: id(), exec: Some("e".into()) };
    let create = Event::Create {
        id: id(),
        bundle: "/b".into(),
        rootfs: vec![],
        stdio: Stdio::default(),
        pid: 1,
    };
    for (event, topic, type_url) in [
        (create, "/tasks/create", name::<wire::TaskCreate>()),
        (Event::Start { id: id(), pid: 1 }, "/tasks/start", name::<wire::TaskStart>()),
        (
            Event::ExecAdded { id: id(), exec_id: "e".into() },
            "/tasks/exec-added",
            name::<wire::TaskExecAdded>(),
        ),
        (
            Event::ExecStarted { id: id(), exec_id: "e".into(), pid: 2 },
            "/tasks/exec-started",
            name::<wire::TaskExecStarted>(),
        ),
        (Event::Exit { target: exec, pid: 2, exit }, "/tasks/exit", name::<wire::TaskExit>()),
        (Event::Delete { id: id(), pid: 1, exit }, "/tasks/delete", name::<wire::TaskDelete>()),
        (Event::Paused(id()), "/tasks/paused", name::<wire::TaskPaused>()),
        (Event::Resumed(id()), "/tasks/resumed", name::<wire::TaskResumed>()),
        (Event::Oom(id()), "/tasks/oom", name::<wire::TaskOOM>()),
    ] {
        let queued = encode(&event).unwrap();
        assert_eq!((queued.topic, queued.event.type_url), (topic, type_url), "{event:?}");
    }
}

fn name<M: MessageFull>() -> String {
    M::descriptor().full_name().to_owned()
}
