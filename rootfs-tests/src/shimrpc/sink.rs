//! The end of containerd that shims send their events to, for shims without a daemon.

use super::wire::{Frame, RESPONSE};
use crate::error::{Context, Error, Result};
use containerd_shim_protos::api::ForwardRequest;
use containerd_shim_protos::shim::event::Envelope;
use protobuf::Message;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;
use ttrpc::{Request, Response};

/// Listens for events and keeps them in the order they came.
#[derive(Debug)]
pub struct Sink {
    path: PathBuf,
    over: Arc<AtomicBool>,
    events: Receiver<Envelope>,
}

impl Sink {
    /// Listens on a new socket.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub fn listen(path: &Path) -> Result<Self> {
        let listener = UnixListener::bind(path).during(|| format!("bind {}", path.display()))?;
        let (sender, events) = channel();
        let over = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&over);
        thread::spawn(move || {
            // Ends with the sink, whose last connection is for this.
            for connection in listener.incoming().flatten() {
                if ended.load(Ordering::Acquire) {
                    return;
                }
                let sender = sender.clone();
                thread::spawn(move || serve(&connection, &sender));
            }
        });
        Ok(Self { path: path.to_owned(), over, events })
    }

    /// The next event.
    ///
    /// # Errors
    /// None comes in time.
    pub fn next(&self, within: Duration) -> Result<Envelope> {
        self.events.recv_timeout(within).map_err(|_| Error::Deadline {
            what: "an event of the shim".into(),
            within,
            detail: String::new(),
        })
    }

    /// The topics of all events up to and including the first with this topic.
    ///
    /// # Errors
    /// It does not come; the message lists what did.
    pub fn until(&self, topic: &str, within: Duration) -> Result<Vec<Envelope>> {
        let mut seen: Vec<Envelope> = Vec::new();
        loop {
            let event = self.next(within).map_err(|error| {
                let topics: Vec<&str> = seen.iter().map(|event| event.topic.as_str()).collect();
                Error::check(format!("{error}: no {topic} after {topics:?}"))
            })?;
            let last = event.topic == topic;
            seen.push(event);
            if last {
                return Ok(seen);
            }
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        let _ = UnixStream::connect(&self.path);
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Answers every call of one connection.
fn serve(connection: &UnixStream, events: &Sender<Envelope>) {
    while let Ok(frame) = Frame::read(connection) {
        let Some(envelope) = envelope(&frame.payload) else { return };
        if events.send(envelope).is_err() {
            return;
        }
        let payload = Response::new().write_to_bytes().unwrap_or_default();
        let answer = Frame { stream: frame.stream, kind: RESPONSE, payload };
        if answer.write(connection).is_err() {
            return;
        }
    }
}

fn envelope(payload: &[u8]) -> Option<Envelope> {
    let request = Request::parse_from_bytes(payload).ok()?;
    let forward = ForwardRequest::parse_from_bytes(&request.payload).ok()?;
    forward.envelope.into_option()
}
