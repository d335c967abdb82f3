//! `boathook unpackd`: layers for containerd, which asks for them as of a proxy plugin of type
//! `diff` (containerd, docs/PLUGINS.md).
//!
//! ```text
//! containerd ── gRPC over a unix socket ──▶ service ── a thread each ──▶ image::Differ
//!     its content store ── blob, opened by digest ──────────────────────────▶│
//!     its snapshot      ◀── files ───────────────────────────────────────────┘
//! ```
//!
//! Whoever can connect decides where layers go, so the socket is for root alone, and only what is
//! below containerd's own directory is read or written.

mod messages;
mod privileges;
mod service;
mod socket;

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use boathook_image::Differ;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};

use super::layer::limits_of;
use crate::args::Unpackd;
use crate::output::Failure;
use service::Service;
use socket::Socket;

/// Layers that are applied at once at the most; each takes about 1 MiB, and for zstd its window.
const WORKERS_MAX: usize = 4;

/// How long to wait after accept(2) has failed: for want of descriptors it would fail again at once.
const PAUSE: Duration = Duration::from_millis(100);

pub(crate) fn run(args: &Unpackd) -> Result<(), Failure> {
    let root = std::path::absolute(&args.root)
        .map_err(|e| Failure::Io(args.root.display().to_string(), e))?;
    let socket = Socket::open(&args.socket)?;
    // Before there are threads: capabilities are each thread's own.
    privileges::drop_all_but_files()?;
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(processors.min(WORKERS_MAX))
        .build()
        .map_err(|e| Failure::Io("start".to_owned(), e))?;
    let service = Service::new(Arc::new(Differ::new(&root, limits_of(&args.limits))));
    // Layers that are being applied when it ends are broken off with their connections; the
    // runtime waits for them to clean up.
    runtime.block_on(serve(&socket, &service)).map_err(|e| Failure::Io("serve".to_owned(), e))
}

async fn serve(socket: &Socket, service: &Service) -> io::Result<()> {
    let listener = UnixListener::from_std(socket.listener()?)?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    log(&format!("serving on {}", socket.shown()));
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
        };
        let stream = match stream {
            Ok((stream, _)) => stream,
            Err(e) => {
                log(&format!("accept: {e}"));
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let service = service.clone();
        tokio::spawn(async move {
            let connection = http2::Builder::new(TokioExecutor::new());
            // How a client leaves is its own affair.
            let _ = connection.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// One line on standard error, which is the journal's under systemd.
fn log(text: &str) {
    // Nobody is left to tell if it is closed.
    let _ = writeln!(io::stderr(), "boathook: {text}");
}
