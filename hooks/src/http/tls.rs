//! TLS without any check of who the server is, as the kubelet has it for
//! hooks: a pod's own server rarely has a certificate that others trust.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};

use super::{PLAIN_ANSWER, wire};

/// A TLS stream over TCP.
pub(super) type Stream = StreamOwned<ClientConnection, Begun>;

/// A TCP stream of which the first bytes have been read already.
#[derive(Debug)]
pub(super) struct Begun {
    tcp: TcpStream,
    first: Vec<u8>,
}

impl Read for Begun {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.first.is_empty() {
            return self.tcp.read(buffer);
        }
        let count = buffer.len().min(self.first.len());
        for (to, from) in buffer.iter_mut().zip(self.first.drain(..count)) {
            *to = from;
        }
        Ok(count)
    }
}

impl Write for Begun {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.tcp.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.tcp.flush()
    }
}

/// Greets the server and waits for the beginning of its answer: a server that
/// speaks plain HTTP shows it there.
pub(super) fn wrap(mut tcp: TcpStream, host: &str) -> Result<Stream, String> {
    let name = ServerName::try_from(host.to_owned()).map_err(|e| format!("tls: {e}"))?;
    let mut session = ClientConnection::new(config()?, name).map_err(|e| format!("tls: {e}"))?;
    while session.wants_write() {
        session.write_tls(&mut tcp).map_err(|e| wire::text(&e))?;
    }
    // No record of TLS is shorter.
    let mut first = vec![0; 5];
    tcp.read_exact(&mut first).map_err(|e| match e.kind() {
        io::ErrorKind::UnexpectedEof => "EOF".to_owned(),
        _ => wire::text(&e),
    })?;
    if first == b"HTTP/" {
        return Err(PLAIN_ANSWER.to_owned());
    }
    Ok(StreamOwned::new(session, Begun { tcp, first }))
}

fn config() -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|e| format!("tls: {e}"))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Takes every certificate.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
