//! The record of a container whose server is lost, in the `delete` command,
//! which ends the container: what the server can no longer do, write or say.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use boathook_hooks::message::{self, Whose};
use boathook_hooks::record::{Hook, What};
use boathook_hooks::termination::State;
use boathook_hooks::{Handler, Policy};
use boathook_runtime::Container;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::{Life, Live, read_record, run};
use crate::events::{Publisher, lifecycle};
use crate::failure::{Failure, Result};
use crate::table::{Event, HookEnd};

/// How long the daemon may take for what is told.
const TELL_LIMIT: Duration = Duration::from_secs(1);
const CAUSE: &str = "its shim was lost";

/// A container with a policy and without a server.
pub(crate) struct Lost {
    life: Life,
    live: Arc<Live>,
    untold: Vec<Event>,
    runtime: Runtime,
}

impl Lost {
    /// Reads the record of a container, if it has one.
    pub(crate) fn read(container: Container, bundle: &Path, dir: &Path) -> Result<Option<Self>> {
        let Some(record) = read_record(dir)? else { return Ok(None) };
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| Failure::sys("start tokio", e))?;
        let (life, live) =
            (Life::of(record, dir.to_owned()), Arc::new(Live::lost(container, bundle)));
        Ok(Some(Self { life, live, untold: Vec::new(), runtime }))
    }

    /// Before the container is ended: a preStop hook that had begun and not
    /// ended runs once more, for `limit` at most, because the daemon waits.
    pub(crate) fn last_words(&mut self, limit: Duration) -> Result<()> {
        if self.live.container.ended() {
            return Ok(());
        }
        let policy = self.life.record.policy.clone();
        // To sleep again would help nobody.
        let useful = |it: &&Handler| matches!(it, Handler::Exec(_) | Handler::HttpGet(_));
        if let Some(handler) = policy.pre_stop.as_ref().filter(useful)
            && self.life.record.interrupted() == Some(Hook::PreStop)
        {
            self.deliver_again(handler, &policy, limit)?;
        }
        self.note(State::Kill, What::Killed { cause: CAUSE.to_owned() })
    }

    /// Ends the container, within `limit`.
    pub(crate) fn end(&mut self, status: u32, limit: Duration) -> Result<()> {
        self.live.container.kill_all(limit)?;
        if self.life.record.state == State::Done {
            return Ok(());
        }
        self.note(State::Done, What::Exited { status })
    }

    /// Tells the daemon at `address` what it has not heard.
    pub(crate) fn tell(self, address: String, namespace: String) {
        if !self.untold.is_empty() {
            self.runtime.block_on(async {
                let publisher = Publisher::start(address, namespace);
                self.untold.iter().for_each(|event| publisher.publish(event));
                publisher.finish(TELL_LIMIT).await;
            });
        }
        // A hook's start may still hold a thread.
        self.runtime.shutdown_background();
    }

    fn deliver_again(&mut self, handler: &Handler, policy: &Policy, limit: Duration) -> Result<()> {
        let hook = Hook::PreStop;
        self.note(State::Hook, What::HookStarted { hook })?;
        let live = Arc::clone(&self.live);
        let end = self.runtime.block_on(async {
            // Kept: the container does not end by itself meanwhile.
            let (_running, ended) = oneshot::channel();
            timeout(limit, run(handler, policy, live, ended)).await
        });
        match end {
            // As with any hook that is too slow, nothing is known of it.
            Err(_) => Ok(()),
            Ok(Ok(HookEnd::Succeeded)) => self.note(State::Hook, What::HookSucceeded { hook }),
            Ok(Ok(HookEnd::WithoutTls(message))) => {
                self.note(State::Hook, What::HttpFallback { hook, message })?;
                self.note(State::Hook, What::HookSucceeded { hook })
            }
            Ok(Ok(HookEnd::Failed(message))) => {
                self.note(State::Hook, What::HookFailed { hook, message })
            }
            Ok(Err(reason)) => {
                let whose = Whose { container: &policy.container, pod: &policy.pod };
                let message = message::failure(handler, whose, &reason);
                self.note(State::Hook, What::HookFailed { hook, message })
            }
        }
    }

    fn note(&mut self, state: State, what: What) -> Result<()> {
        self.untold.extend(lifecycle::event(&self.life.record, &what));
        self.life.record.state = state;
        self.life.record.until = None;
        self.life.record.add(what);
        self.life.write()
    }
}
