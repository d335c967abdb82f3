//! A registry on the loopback (OCI distribution-spec 1.1, pull only) that serves layouts.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use rootfs_tests::containerd::Daemon;
use serde_json::Value;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Serves `dir/NAME`, each a layout with one image, as `127.0.0.1:PORT/NAME:1`, until the process
/// ends.
pub(crate) struct Registry {
    port: u16,
    hold: Arc<Hold>,
}

/// The layer of an image with such a name stops in the middle, until it is let go.
pub(crate) const SLOW: &str = "slow";
pub(crate) const SLOW_TOO: &str = "slow-too";

/// Longest time for which an answer is held.
const PATIENCE: Duration = Duration::from_secs(120);

/// What is held. One answer at a time: an image has one layer, and its configuration is small.
struct Hold {
    /// How often something still has to be held.
    times: AtomicU64,
    held: Sender<()>,
    go: Mutex<Receiver<()>>,
}

/// The test's end of it.
pub(crate) struct Holder {
    held: Receiver<()>,
    go: Sender<()>,
}

impl Holder {
    /// Waits until half of a blob was sent.
    pub(crate) fn wait(&self) {
        self.held.recv_timeout(PATIENCE).expect("somebody asks for the blob");
    }

    pub(crate) fn let_go(&self) {
        self.go.send(()).unwrap();
    }
}

impl Registry {
    pub(crate) fn start(dir: &Path) -> (Self, Holder) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let dir = dir.to_owned();
        let ((held, was_held), (go, may_go)) = (channel(), channel());
        let hold = Arc::new(Hold { times: AtomicU64::new(0), held, go: Mutex::new(may_go) });
        let shared = Arc::clone(&hold);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (dir, hold) = (dir.clone(), Arc::clone(&shared));
                // A client that hangs up early gets less.
                std::thread::spawn(move || drop(answer(&stream, &dir, &hold)));
            }
        });
        (Self { port, hold }, Holder { held: was_held, go })
    }

    /// The next layer of an image like [`SLOW`] is held.
    pub(crate) fn hold(&self) {
        self.hold.times.store(1, Ordering::SeqCst);
    }

    /// Tells a daemon that it speaks no TLS; 1.7 knows that of addresses of the loopback.
    pub(crate) fn introduce(&self, daemon: &Daemon) {
        let host = format!("127.0.0.1:{}", self.port);
        let dir = daemon.dir().join("hosts").join(&host);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("hosts.toml"), format!("server = \"http://{host}\"\n")).unwrap();
    }

    pub(crate) fn image(&self, name: &str) -> String {
        format!("127.0.0.1:{}/{name}:1", self.port)
    }
}

/// One request and one answer; the connection ends with it.
fn answer(mut stream: &TcpStream, dir: &Path, hold: &Hold) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    // Headers say nothing that matters, but have to be read before the connection may end.
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    let mut words = request.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let body = if path == "/v2/" { Some(Vec::new()) } else { find(dir, path) };
    let status = if body.is_some() { "200 OK" } else { "404 Not Found" };
    let kind = if path.contains("/manifests/") { MANIFEST } else { "application/octet-stream" };
    let body = body.unwrap_or_default();
    let digest = super::layout::sha256(&body);
    write!(
        stream,
        "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Type: {kind}\r\n\
         Docker-Content-Digest: {digest}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )?;
    if method == "HEAD" {
        return Ok(());
    }
    let layer = path.contains(SLOW) && path.contains("/blobs/") && !body.starts_with(b"{");
    let (half, rest) = body.split_at(body.len() / 2);
    stream.write_all(half)?;
    if layer && hold.times.swap(0, Ordering::SeqCst) == 1 {
        let go = hold.go.lock().unwrap();
        hold.held.send(()).unwrap();
        let _ = go.recv_timeout(PATIENCE);
    }
    stream.write_all(rest)
}

/// `/v2/NAME/manifests/1`, `/v2/NAME/manifests/DIGEST` or `/v2/NAME/blobs/DIGEST`.
fn find(dir: &Path, path: &str) -> Option<Vec<u8>> {
    let parts: Vec<&str> = path.strip_prefix("/v2/")?.split(['/', '?']).collect();
    let [name, _, what, ..] = parts[..] else { return None };
    let layout: PathBuf = dir.join(name);
    let digest = match what {
        "1" => {
            let index: Value =
                serde_json::from_slice(&fs::read(layout.join("index.json")).ok()?).ok()?;
            index["manifests"][0]["digest"].as_str()?.to_owned()
        }
        digest => digest.to_owned(),
    };
    fs::read(layout.join("blobs/sha256").join(digest.strip_prefix("sha256:")?)).ok()
}
