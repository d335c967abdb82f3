//! The one task that owns the pod's state.
//!
//! ```text
//! service ──┐
//! exits   ──┤ inbox ──► table.apply ──► actions ──► effects ──┐
//! timers  ──┤                                                 │
//! effects ──┘ ◄───────────────── results ─────────────────────┘
//! ```
//! The table decides, the effects do. Nothing here waits for an effect: its
//! result comes back through the inbox, so a slow container stalls nobody.

use std::collections::HashMap;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use crate::effects::{Delivery, Effects};
use crate::failure::{Failure, Result};
use crate::table::{Action, Answer, Command, Input, Table, Token};

/// Quiet time after which the engines get ready for more, and memory is given back.
const SETTLED: Duration = Duration::from_millis(250);

/// A call that waits for its answer.
#[derive(Debug)]
pub struct Request {
    /// Names the call.
    pub token: Token,
    /// What is asked for.
    pub command: Command,
    /// Where the answer goes.
    pub reply: oneshot::Sender<Result<Answer>>,
}

/// Everything that can happen to a server.
#[derive(Debug)]
pub(crate) enum Message {
    Request(Request),
    Input(Input),
    /// A finished effect that brings descriptors with it.
    Delivery(Delivery),
}

/// The way to the driver; cheap to clone. What is sent after the driver has
/// ended goes nowhere.
#[derive(Debug, Clone)]
pub struct Inbox(mpsc::UnboundedSender<Message>);

impl Inbox {
    /// An inbox and the driver's end of it.
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<Message>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(sender), receiver)
    }

    /// Hands a call over.
    pub fn call(&self, request: Request) {
        let _ = self.0.send(Message::Request(request));
    }

    /// The caller of `token` is gone.
    pub fn cancelled(&self, token: Token) {
        self.input(Input::Cancelled(token));
    }

    pub(crate) fn input(&self, input: Input) {
        let _ = self.0.send(Message::Input(input));
    }

    pub(crate) fn deliver(&self, delivery: Delivery) {
        let _ = self.0.send(Message::Delivery(delivery));
    }
}

/// The driver: table, effects, and the calls that wait.
#[derive(Debug)]
pub struct Driver {
    table: Table,
    effects: Effects,
    waiting: HashMap<Token, oneshot::Sender<Result<Answer>>>,
    stopping: bool,
    /// The moment that the table counts time from.
    epoch: Instant,
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

impl Driver {
    /// A driver with an empty table.
    pub(crate) fn new(effects: Effects) -> Self {
        let (table, first) = Table::new();
        let mut driver = Self {
            table,
            effects,
            waiting: HashMap::new(),
            stopping: false,
            epoch: Instant::now(),
        };
        for action in first {
            driver.act(action);
        }
        driver
    }

    /// Runs until the server is to end; returns what is left to be finished.
    ///
    /// # Errors
    /// The signal handlers cannot be installed.
    pub(crate) async fn run(
        mut self,
        mut inbox: mpsc::UnboundedReceiver<Message>,
    ) -> Result<Effects> {
        let handler = |kind| signal(kind).map_err(|e| Failure::sys("signal handler", e));
        let mut child: Signal = handler(SignalKind::child())?;
        let mut terminate = handler(SignalKind::terminate())?;
        let mut interrupt = handler(SignalKind::interrupt())?;
        let mut asked = handler(SignalKind::user_defined1())?;
        let mut quiet = None;
        while !self.stopping {
            tokio::select! {
                message = inbox.recv() => match message {
                    Some(message) => {
                        self.message(message);
                        quiet = Some(Instant::now() + SETTLED);
                    }
                    None => break,
                },
                () = at(quiet) => {
                    quiet = None;
                    // What is begun here ends with a message, and a quiet time after it.
                    if !self.effects.prepare() {
                        boathook_runtime::daemon::give_back_memory();
                    }
                }
                _ = child.recv() => self.effects.reap_orphans(),
                _ = terminate.recv() => self.apply(Input::Terminate),
                _ = interrupt.recv() => self.apply(Input::Terminate),
                _ = asked.recv() => self.tell(),
            }
        }
        Ok(self.effects)
    }

    fn message(&mut self, message: Message) {
        match message {
            Message::Request(Request { token, command, reply }) => {
                crate::debug!("call {}: {command:?}", token.0);
                self.waiting.insert(token, reply);
                self.apply(Input::Call(token, command));
            }
            Message::Input(input) => {
                if let Input::Cancelled(token) = input {
                    self.waiting.remove(&token);
                }
                self.apply(input);
            }
            Message::Delivery(delivery) => {
                if let Some(input) = self.effects.absorb(delivery) {
                    self.apply(input);
                }
            }
        }
    }

    /// Answers SIGUSR1 in the log: what is known, and who waits for what.
    fn tell(&self) {
        let mut tokens: Vec<_> = self.waiting.keys().map(|token| token.0).collect();
        tokens.sort_unstable();
        crate::info!("SIGUSR1: calls without an answer: {tokens:?}");
        for line in self.table.describe() {
            crate::info!("SIGUSR1: {line}");
        }
    }

    fn apply(&mut self, input: Input) {
        let mut next = Some(input);
        self.table.set_time(self.epoch.elapsed());
        while let Some(input) = next {
            if !matches!(input, Input::Call(..)) {
                crate::debug!("input {input:?}");
            }
            for action in self.table.apply(input) {
                self.act(action);
            }
            next = self.effects.ready();
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Reply(token, answer) => {
                if let Some(reply) = self.waiting.remove(&token) {
                    crate::debug!("answer {}: {answer:?}", token.0);
                    // Fails when the caller left a moment ago.
                    let _ = reply.send(answer);
                }
            }
            Action::Stop => {
                self.stopping = true;
                self.effects.withdraw();
            }
            action => self.effects.start(action),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::Publisher;
    use crate::socket::{self, Claim};
    use crate::table::IDLE_LIMIT;

    /// Time is the runtime's own and passes at once where nothing else happens.
    #[test]
    fn a_server_that_nobody_uses_ends_by_itself() {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        runtime.unwrap().block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let path = socket::path(dir.path(), "daemon", "ns", "c").unwrap();
            let Claim::Bound(_listener, file) = socket::claim(&path).unwrap() else {
                panic!("somebody serves {}", path.display())
            };
            let (inbox, messages) = Inbox::new();
            let publisher = Publisher::start("/nowhere".to_owned(), "ns".to_owned());
            let driver =
                Driver::new(Effects::new(inbox, publisher, ("ns".to_owned(), String::new()), file));
            let begun = Instant::now();
            driver.run(messages).await.unwrap();
            assert!(begun.elapsed() >= IDLE_LIMIT, "it ended after {:?}", begun.elapsed());
            assert!(!path.exists(), "the socket outlived its server");
        });
    }
}
