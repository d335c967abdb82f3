//! The server: one process for all containers of a pod.
//!
//! ```text
//! start ── fork ──► detach ──► serve ──► driver ends ──► connections drain,
//!                                                        events leave ──► exit
//! ```

use std::os::unix::net::UnixListener as StdUnixListener;
use std::time::Duration;

use boathook_runtime::daemon;
use tokio::runtime::Builder;
use tokio::time::timeout;
use ttrpc::asynchronous::Server;
use ttrpc::asynchronous::transport::Listener;

use crate::connections::{Connections, Incoming};
use crate::driver::{Driver, Inbox};
use crate::effects::Effects;
use crate::events::Publisher;
use crate::failure::{Failure, Result};
use crate::log::Log;
use crate::options::Options;
use crate::service::Service;
use crate::socket::SocketFile;

/// Threads for what must not block the server; they end when idle. As many as
/// containers of one pod may be stuck in the kernel at once while the others
/// go on.
const POOL: usize = 16;
const POOL_KEEP_ALIVE: Duration = Duration::from_millis(200);
/// Enough for the engine; only touched pages count.
const POOL_STACK: usize = 512 * 1024;
/// How long the last answers may take on their way out.
const GOODBYE_LIMIT: Duration = Duration::from_secs(1);
/// How long the daemon may take for the last events.
const EVENTS_LIMIT: Duration = Duration::from_secs(2);

/// What a server is made of.
#[derive(Debug)]
pub struct Setup {
    /// Bound and listening.
    pub listener: StdUnixListener,
    /// Its name, to be removed at the end.
    pub socket: SocketFile,
    /// containerd's namespace.
    pub namespace: String,
    /// The daemon's gRPC socket, for what it knows of a container.
    pub address: String,
    /// The daemon's ttrpc socket, for events.
    pub ttrpc_address: String,
    /// Options of the group.
    pub options: Options,
    /// Where log lines go.
    pub log: Log,
}

/// Runs a server in this process until it is to end.
///
/// # Errors
/// The kernel refuses what a server needs. The socket is removed.
pub fn run(setup: Setup) -> Result<()> {
    let socket = setup.socket.clone();
    detach().and_then(|()| block_on(setup)).inspect_err(|failure| {
        crate::warning!("server: {failure}");
        socket.remove();
    })
}

/// Leaves the daemon's session, directory and streams, and takes in orphans.
fn detach() -> Result<()> {
    daemon::keep_heap_small();
    rustix::process::setsid().map_err(|e| Failure::sys("setsid", e))?;
    // The bundle goes away before a pod's server does.
    rustix::process::chdir("/").map_err(|e| Failure::sys("chdir /", e))?;
    let null = std::fs::File::options().read(true).write(true).open("/dev/null");
    let null = null.map_err(|e| Failure::sys("open /dev/null", e))?;
    // The daemon waits for the end of `start`'s output, which this process
    // holds until here.
    rustix::stdio::dup2_stdin(&null)
        .and_then(|()| rustix::stdio::dup2_stdout(&null))
        .and_then(|()| rustix::stdio::dup2_stderr(&null))
        .map_err(|e| Failure::sys("redirect to /dev/null", e))?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(|e| Failure::sys("become subreaper", e))
}

fn block_on(setup: Setup) -> Result<()> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(POOL)
        .thread_keep_alive(POOL_KEEP_ALIVE)
        .thread_stack_size(POOL_STACK)
        .build()
        .map_err(|e| Failure::sys("make the runtime", e))?;
    let result = runtime.block_on(serve(setup));
    // What still runs in the pool has nobody left to report to.
    runtime.shutdown_background();
    result
}

async fn serve(setup: Setup) -> Result<()> {
    setup.log.install();
    crate::info!("serving {} in namespace {}", setup.socket.address(), setup.namespace);
    let (inbox, messages) = Inbox::new();
    let connections = Connections::default();
    let incoming = Incoming::new(setup.listener, connections.clone())?;
    let service = Service::new(inbox.clone(), setup.options);
    let mut server =
        Server::new().add_listener(Listener::new(incoming)).register_service(service.methods());
    let publisher = Publisher::start(setup.ttrpc_address, setup.namespace.clone());
    let daemon = (setup.namespace, setup.address);
    let effects = Effects::new(inbox, publisher, daemon, setup.socket);
    let driver = Driver::new(effects);
    server
        .start()
        .await
        .map_err(|e| Failure::sys("listen", std::io::Error::other(e.to_string())))?;
    let effects = driver.run(messages).await?;
    let goodbye = async {
        let _ = server.shutdown().await;
        connections.closed().await;
    };
    if timeout(GOODBYE_LIMIT, goodbye).await.is_err() {
        crate::warning!("a client has not taken its last answers");
    }
    effects.finish(EVENTS_LIMIT).await;
    crate::debug!("done");
    Ok(())
}
