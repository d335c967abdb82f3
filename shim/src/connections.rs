//! Clients: let in by their user, counted while they are connected.

use std::io::Result;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_core::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::time::{Sleep, sleep};

use crate::failure::{self, Failure};

/// The connections that are open.
#[derive(Debug, Clone)]
pub struct Connections(Arc<watch::Sender<usize>>);

impl Default for Connections {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(0)))
    }
}

impl Connections {
    /// Ends when no connection is open, so when everything that was answered
    /// has been written.
    pub async fn closed(&self) {
        // Fails only without a sender, and `self` holds it.
        let _ = self.0.subscribe().wait_for(|open| *open == 0).await;
    }

    fn opened(&self) -> Open {
        self.0.send_modify(|open| *open += 1);
        Open(self.clone())
    }
}

/// Counts as one connection.
#[derive(Debug)]
struct Open(Connections);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.0.send_modify(|open| *open -= 1);
    }
}

/// Connections as they come in.
#[derive(Debug)]
pub struct Incoming {
    listener: UnixListener,
    connections: Connections,
    uid: u32,
    /// Nothing is accepted until then.
    pause: Option<Pin<Box<Sleep>>>,
}

/// How long to wait after accept(2) has failed: for want of descriptors it
/// would fail again at once.
const PAUSE: Duration = Duration::from_millis(100);

impl Incoming {
    /// Takes over a bound listener. To be called inside the runtime.
    ///
    /// # Errors
    /// The kernel's refusal to watch it.
    pub fn new(listener: StdUnixListener, connections: Connections) -> failure::Result<Self> {
        let listener = listener
            .set_nonblocking(true)
            .and_then(|()| UnixListener::from_std(listener))
            .map_err(|e| Failure::sys("watch the socket", e))?;
        let uid = rustix::process::geteuid().as_raw();
        Ok(Self { listener, connections, uid, pause: None })
    }

    /// The mode of the socket keeps others out already; a descriptor that was
    /// passed on does not help them either.
    fn allowed(&self, stream: &UnixStream) -> bool {
        match stream.peer_cred() {
            Ok(peer) if peer.uid() == self.uid => true,
            Ok(peer) => {
                crate::warning!("a client of user {} was turned away", peer.uid());
                false
            }
            Err(_) => false,
        }
    }
}

impl Stream for Incoming {
    type Item = Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            match self.listener.poll_accept(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => {
                    crate::warning!("accept: {error}");
                    self.pause = Some(Box::pin(sleep(PAUSE)));
                }
                Poll::Ready(Ok((stream, _))) if self.allowed(&stream) => {
                    let open = self.connections.opened();
                    return Poll::Ready(Some(Ok(Connection { stream, _open: open })));
                }
                Poll::Ready(Ok(_)) => {}
            }
        }
    }
}

/// A client's stream.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    _open: Open,
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
