//! Web servers in a container's network, good ones and bad ones. They are threads of the test, so
//! that pausing or ending the container does not touch them.

use rootfs_tests::error::{Context, Error, Result};
use rootfs_tests::wait::{self, Deadline, PATIENCE};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

/// Self-signed, for another name, made for this test: nobody trusts it.
const CERTIFICATE: &[u8] = include_bytes!("server.crt.der");
const KEY: &[u8] = include_bytes!("server.key.der");

/// How a server treats whoever asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Says 500, which is an answer.
    Answers,
    /// The same over TLS.
    AnswersOverTls,
    /// Says 400 to whatever comes, TLS or not.
    OnlyPlain,
    /// Takes the request and keeps silent.
    Silent,
    /// Keeps silent for the first client only, and answers the second.
    SilentOnce,
    /// Keeps silent for three clients.
    SilentThrice,
    EndlessHeaders,
    EndlessBody,
    /// Redirects to itself.
    Circles,
    /// Speaks neither HTTP nor TLS.
    Garbage,
    /// Answers, when there is a file `go` beside the one that says that somebody asked.
    LateAnswer,
    /// The same, and then is garbage.
    LateGarbage,
}

/// A server that waits for its first client.
pub(crate) struct Server {
    thread: JoinHandle<Result<Vec<String>>>,
}

impl Server {
    /// Listens on all addresses of the network of process `pid`. The file `asked`, if there is
    /// one, is made when somebody asks.
    pub(crate) fn start(
        pid: u32,
        port: u16,
        manner: Manner,
        asked: Option<PathBuf>,
    ) -> Result<Self> {
        let (ready, listening) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            // The thread never comes back from there; its sockets belong to that network.
            let listener = enter(pid).and_then(|()| {
                TcpListener::bind(("0.0.0.0", port)).during(|| format!("listen on port {port}"))
            });
            let failed = listener.as_ref().err().map(ToString::to_string);
            let _ = ready.send(failed);
            serve(&listener?, manner, asked.as_deref())
        });
        match listening.recv() {
            Ok(None) => Ok(Self { thread }),
            other => Err(Error::check(format!("no server on port {port}: {other:?}"))),
        }
    }

    /// The first line of each request; waits until the last client is gone.
    pub(crate) fn end(self) -> Result<Vec<String>> {
        let joined = self.thread.join();
        joined.unwrap_or_else(|_| Err(Error::check("a server panicked".to_owned())))
    }
}

fn enter(pid: u32) -> Result<()> {
    let network =
        File::open(format!("/proc/{pid}/ns/net")).during(|| "open a network namespace")?;
    let kind = nix::sched::CloneFlags::CLONE_NEWNET;
    let entered = nix::sched::setns(&network, kind).map_err(io::Error::from);
    entered.map_err(|source| Error::Io { what: "enter a network namespace".into(), source })
}

/// Serves the connections of one client, until none follows.
fn serve(listener: &TcpListener, manner: Manner, asked: Option<&Path>) -> Result<Vec<String>> {
    let mut requests = Vec::new();
    let connections = match manner {
        Manner::Circles => 10,
        Manner::OnlyPlain | Manner::SilentOnce => 2,
        Manner::SilentThrice => 3,
        _ => 1,
    };
    for number in 0..connections {
        let manner = match manner {
            Manner::SilentOnce if number == 0 => Manner::Silent,
            Manner::SilentOnce => Manner::Answers,
            other => other,
        };
        // The other containers are started meanwhile.
        wait::readable(listener, "a request", Deadline::after(PATIENCE * 4))?;
        let (stream, _) = listener.accept().during(|| "accept")?;
        // A client that stays for ever is a fault of its own.
        stream.set_read_timeout(Some(PATIENCE * 2)).during(|| "set a time limit")?;
        stream.set_write_timeout(Some(PATIENCE * 2)).during(|| "set a time limit")?;
        requests.push(match manner {
            Manner::AnswersOverTls => answer(over_tls(stream)?, manner, asked),
            _ => answer(stream, manner, asked),
        });
    }
    Ok(requests)
}

fn over_tls(stream: TcpStream) -> Result<StreamOwned<ServerConnection, TcpStream>> {
    let wrong = |error: rustls::Error| Error::check(format!("TLS server: {error}"));
    let key = PrivateKeyDer::try_from(KEY).map_err(|e| Error::check(e.to_owned()))?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(wrong)?
        .with_no_client_auth()
        .with_single_cert(vec![CertificateDer::from(CERTIFICATE)], key.clone_key())
        .map_err(wrong)?;
    let session = ServerConnection::new(Arc::new(config)).map_err(wrong)?;
    Ok(StreamOwned::new(session, stream))
}

/// What is there, waited for through the signals of a test's children.
fn read(stream: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match stream.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// Reads a request and treats it as `manner` says. The client may go whenever it likes.
fn answer(mut stream: impl Read + Write, manner: Manner, asked: Option<&Path>) -> String {
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let count = read(&mut stream, &mut buffer).unwrap_or(0);
        request.extend_from_slice(&buffer[..count]);
        // A TLS greeting is one packet here and has no end of a head.
        let whole = request.ends_with(b"\r\n\r\n") || request.first() == Some(&0x16);
        if count == 0 || whole {
            break;
        }
    }
    if let Some(path) = asked {
        let _ = std::fs::write(path, "");
    }
    if let (Manner::LateAnswer | Manner::LateGarbage, Some(path)) = (manner, asked) {
        let go = path.with_file_name("go");
        let _ = wait::until("leave to answer", PATIENCE * 4, || Ok(go.exists().then_some(())));
    }
    let endless = |stream: &mut dyn Write, head: &str, more: &str| {
        let mut text = head.to_owned();
        while stream.write_all(text.as_bytes()).is_ok() {
            more.clone_into(&mut text);
        }
    };
    let _ = match manner {
        Manner::Answers | Manner::AnswersOverTls | Manner::LateAnswer => {
            stream.write_all(b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n")
        }
        Manner::OnlyPlain => stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        Manner::Silent | Manner::SilentOnce | Manner::SilentThrice => {
            read(&mut stream, &mut buffer).map(drop)
        }
        Manner::EndlessHeaders => {
            endless(&mut stream, "HTTP/1.1 200 OK\r\n", "X-Padding: and so on\r\n");
            Ok(())
        }
        Manner::EndlessBody => {
            endless(&mut stream, "HTTP/1.1 200 OK\r\n\r\n", "and so on\r\n");
            Ok(())
        }
        Manner::Circles => {
            stream.write_all(b"HTTP/1.1 302 Found\r\nLocation: /round\r\nContent-Length: 0\r\n\r\n")
        }
        Manner::Garbage | Manner::LateGarbage => {
            stream.write_all(b"\x00\x01\x02 garbage of some length\r\n")
        }
    };
    let _ = stream.flush();
    let first = request.split(|byte| *byte == b'\r').next().unwrap_or_default();
    String::from_utf8_lossy(first).into_owned()
}
