//! gRPC over a unix socket, from code that is not async.

use crate::error::{Context, Error, Result};
use http::uri::PathAndQuery;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tonic::client::Grpc;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tonic_prost::ProstCodec;

/// A connection with the thread that drives it.
#[derive(Debug)]
pub struct Connection {
    socket: PathBuf,
    runtime: Runtime,
    channel: Channel,
    /// containerd's, for the services that have some.
    namespace: Option<AsciiMetadataValue>,
}

impl Connection {
    /// Connects to a server's unix socket.
    ///
    /// # Errors
    /// Nobody listens there.
    pub fn open(socket: &Path) -> Result<Self> {
        let runtime =
            Builder::new_current_thread().enable_all().build().during(|| "start tokio")?;
        let failed = |error: tonic::transport::Error| Error::Rpc {
            call: format!("connect to {}", socket.display()),
            code: "Unavailable".into(),
            message: error.to_string(),
        };
        let endpoint =
            Endpoint::from_shared(format!("unix://{}", socket.display())).map_err(failed)?;
        let channel = runtime.block_on(endpoint.connect()).map_err(failed)?;
        Ok(Self { socket: socket.to_owned(), runtime, channel, namespace: None })
    }

    /// Calls are about this namespace of containerd.
    ///
    /// # Errors
    /// It cannot be the value of a header.
    pub fn in_namespace(mut self, namespace: &str) -> Result<Self> {
        let value = namespace.parse().map_err(|_| Error::Format {
            what: "namespace".into(),
            why: format!("{namespace:?} is no header"),
        })?;
        self.namespace = Some(value);
        Ok(self)
    }

    /// Calls `/package.Service/Method` and waits at most `within` for the answer.
    ///
    /// # Errors
    /// [`Error::Rpc`] with the server's code and text, or `DeadlineExceeded`.
    pub fn call<Q, A>(&self, method: &'static str, request: Q, within: Duration) -> Result<A>
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        let mut request = tonic::Request::new(request);
        request.set_timeout(within);
        if let Some(namespace) = &self.namespace {
            request.metadata_mut().insert("containerd-namespace", namespace.clone());
        }
        // The server's own limit for large ExecSync answers is 16 MiB.
        let mut client = Grpc::new(self.channel.clone()).max_decoding_message_size(32 << 20);
        let answer = self.runtime.block_on(async {
            let ready = client.ready().await;
            ready.map_err(|error| Status::unavailable(error.to_string()))?;
            let path = PathAndQuery::from_static(method);
            let unary = client.unary(request, path, ProstCodec::<Q, A>::default());
            match tokio::time::timeout(within, unary).await {
                Ok(answer) => answer,
                Err(_) => Err(Status::deadline_exceeded(format!("no answer in {within:?}"))),
            }
        });
        match answer {
            Ok(answer) => Ok(answer.into_inner()),
            Err(status) => Err(refusal(method, &status)),
        }
    }

    /// Calls a method that answers with a stream of messages, over a connection of its own.
    ///
    /// # Errors
    /// Nobody listens there. What the server says of the call itself comes with the first message.
    pub fn subscribe<Q, A>(&self, method: &'static str, request: Q) -> Result<Subscription<A>>
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        let own = Self::open(&self.socket)?;
        let (sender, messages) = channel();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            own.runtime.block_on(async {
                tokio::select! {
                    () = follow::<Q, A>(own.channel.clone(), method, request, sender) => {}
                    // Either way the subscriber has had enough.
                    _ = stopped => {}
                }
            });
        });
        Ok(Subscription { messages, stop: Some(stop), thread: Some(thread) })
    }
}

/// Messages that a server sends one by one.
#[derive(Debug)]
pub struct Subscription<A> {
    messages: Receiver<Result<A>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl<A> Subscription<A> {
    /// The next message; none within this time.
    ///
    /// # Errors
    /// The server's refusal, or its end.
    pub fn next(&self, within: Duration) -> Result<Option<A>> {
        match self.messages.recv_timeout(within) {
            Ok(message) => message.map(Some),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(Error::check("the stream has ended")),
        }
    }
}

impl<A> Drop for Subscription<A> {
    fn drop(&mut self) {
        self.stop = None;
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

async fn follow<Q, A>(
    channel: Channel,
    method: &'static str,
    request: Q,
    messages: Sender<Result<A>>,
) where
    Q: prost::Message + Send + Sync + 'static,
    A: prost::Message + Default + Send + Sync + 'static,
{
    let mut client = Grpc::new(channel);
    let told = async {
        let ready = client.ready().await;
        ready.map_err(|error| Status::unavailable(error.to_string()))?;
        let path = PathAndQuery::from_static(method);
        let codec = ProstCodec::<Q, A>::default();
        let answer = client.server_streaming(tonic::Request::new(request), path, codec).await?;
        let mut stream = answer.into_inner();
        while let Some(message) = stream.message().await? {
            let _ = messages.send(Ok(message));
        }
        Ok(())
    };
    let ended: Result<(), Status> = told.await;
    if let Err(status) = ended {
        let _ = messages.send(Err(refusal(method, &status)));
    }
}

fn refusal(method: &str, status: &Status) -> Error {
    let code: Code = status.code();
    Error::Rpc {
        call: method.rsplit('/').next().unwrap_or(method).to_owned(),
        code: format!("{code:?}"),
        message: status.message().to_owned(),
    }
}
