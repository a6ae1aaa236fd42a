//! `healthcheck`: asks the server that runs with the same settings for `/health`, for containers that
//! have no curl.
//!
//! With TLS the connection is encrypted but the certificate is not checked: it names the public host, not
//! the loopback address used here, and a certificate that has expired is a matter for its monitoring, not
//! a reason to restart a server that serves. No key is sent, so there is nothing to protect from whoever
//! else might answer.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme, StreamOwned,
};

use crate::config::{HttpSettings, Settings};

/// For connection, request and answer together.
const TIME_MAX: Duration = Duration::from_secs(3);

const REQUEST: &[u8] =
    b"GET /health HTTP/1.1\r\nHost: localhost\r\nUser-Agent: healthcheck\r\nConnection: close\r\n\r\n";

/// A status line is shorter; more than this is no answer of ours.
const STATUS_LINE_BYTES_MAX: u64 = 1024;

/// Exit code 0 when `/health` answers 200 within three seconds, else 1 and a sentence on standard error.
pub fn healthcheck(settings: &Settings) -> ExitCode {
    match probe(&settings.http, TIME_MAX) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            // Nobody is left to be told when standard error is closed.
            let _ = writeln!(io::stderr(), "{reason}");
            ExitCode::FAILURE
        }
    }
}

fn probe(http: &HttpSettings, time_max: Duration) -> Result<(), String> {
    if http.port == 0 {
        return Err("HTTP_PORT is 0, so the port of the running server is not known here.".into());
    }
    let address = SocketAddr::new(reachable(http.host), http.port);
    let status_line = ask(address, http.tls.is_some(), time_max)
        .map_err(|error| format!("No answer from {address}: {error}."))?;
    if is_ok(&status_line) {
        Ok(())
    } else {
        Err(format!("/health at {address} answered {status_line:?}."))
    }
}

/// An address that listens everywhere is asked on its loopback.
fn reachable(host: IpAddr) -> IpAddr {
    match host {
        IpAddr::V4(v4) if v4.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(v6) if v6.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        specific => specific,
    }
}

fn is_ok(status_line: &str) -> bool {
    let mut parts = status_line.split(' ');
    let protocol = parts.next().unwrap_or("");
    protocol.starts_with("HTTP/1.") && parts.next() == Some("200")
}

fn ask(address: SocketAddr, tls: bool, time_max: Duration) -> io::Result<String> {
    let deadline = Instant::now() + time_max;
    let stream = TcpStream::connect_timeout(&address, time_max).map_err(too_long)?;
    let stream = Bounded { stream, deadline };
    if tls {
        status_line(StreamOwned::new(tls_client()?, stream))
    } else {
        status_line(stream)
    }
}

fn status_line(mut stream: impl Read + Write) -> io::Result<String> {
    stream.write_all(REQUEST)?;
    stream.flush()?;
    let mut line = Vec::new();
    BufReader::new(stream)
        .take(STATUS_LINE_BYTES_MAX)
        .read_until(b'\n', &mut line)?;
    Ok(String::from_utf8_lossy(line.trim_ascii_end()).into_owned())
}

/// A stream whose reads and writes all have to be done by one moment: a time-out per read would let a
/// server that answers byte by byte go on for ever.
struct Bounded {
    stream: TcpStream,
    deadline: Instant,
}

impl Bounded {
    fn remaining(&self) -> io::Result<Duration> {
        let remaining = self.deadline.saturating_duration_since(Instant::now());
        if remaining.is_zero() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "it took too long"));
        }
        Ok(remaining)
    }
}

impl Read for Bounded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(self.remaining()?))?;
        self.stream.read(buffer).map_err(too_long)
    }
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(Some(self.remaining()?))?;
        self.stream.write(bytes).map_err(too_long)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// Unix reports a socket's time-out as "would block", which tells an operator nothing.
fn too_long(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            io::Error::new(io::ErrorKind::TimedOut, "it took too long")
        }
        _ => error,
    }
}

fn tls_client() -> io::Result<ClientConnection> {
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
    ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)
}

/// Takes any certificate, as the module explains; that the peer has its private key is still checked.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::path::Path;
    use std::thread::{self, JoinHandle};

    use rustls::pki_types::PrivateKeyDer;
    use rustls::pki_types::pem::PemObject;
    use rustls::{ServerConfig, ServerConnection};

    use super::*;
    use crate::config::TlsFiles;

    const GENEROUS: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_millis(200);

    fn settings(host: IpAddr, port: u16) -> HttpSettings {
        let keys = ["RESOURCE_READ", "RESOURCE_READ_LOCK", "RESOURCE_WRITE"];
        let pairs = keys.map(|name| (name.to_owned(), "key".to_owned()));
        let mut http = Settings::from_pairs(pairs, None).unwrap().http;
        (http.host, http.port) = (host, port);
        http
    }

    fn tls_files() -> TlsFiles {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tls");
        TlsFiles {
            cert: folder.join("cert.pem"),
            key: folder.join("key.pem"),
        }
    }

    /// A server for one connection; gives back the request head that it read.
    fn answering(
        host: &str,
        serve: impl FnOnce(TcpStream) -> Vec<u8> + Send + 'static,
    ) -> (SocketAddr, JoinHandle<Vec<u8>>) {
        let listener = TcpListener::bind((host, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || serve(listener.accept().unwrap().0));
        (address, server)
    }

    fn exchange(mut stream: impl Read + Write, answer: &[u8]) -> Vec<u8> {
        let mut request = vec![0; REQUEST.len()];
        stream.read_exact(&mut request).unwrap();
        stream.write_all(answer).unwrap();
        stream.flush().unwrap();
        request
    }

    fn probe_answered(answer: &'static [u8]) -> Result<(), String> {
        let (address, server) = answering("127.0.0.1", move |stream| exchange(stream, answer));
        let result = probe(&settings(address.ip(), address.port()), GENEROUS);
        assert_eq!(server.join().unwrap(), REQUEST);
        result
    }

    #[test]
    fn a_server_that_answers_200_is_healthy() {
        assert_eq!(probe_answered(b"HTTP/1.1 200 OK\r\n\r\n"), Ok(()));
    }

    #[test]
    fn a_server_that_listens_everywhere_is_asked_on_its_loopback() {
        let answer = b"HTTP/1.1 200 OK\r\n\r\n";
        let (address, server) = answering("0.0.0.0", move |stream| exchange(stream, answer));
        let http = settings(Ipv4Addr::UNSPECIFIED.into(), address.port());
        assert_eq!(probe(&http, GENEROUS), Ok(()));
        assert_eq!(server.join().unwrap(), REQUEST);
        let v6 = reachable(Ipv6Addr::UNSPECIFIED.into());
        assert_eq!(v6, IpAddr::from(Ipv6Addr::LOCALHOST));
        let specific: IpAddr = "192.0.2.7".parse().unwrap();
        assert_eq!(reachable(specific), specific);
    }

    #[test]
    fn any_other_answer_is_told_as_it_came() {
        for answer in [
            &b"HTTP/1.1 503 Service Unavailable\r\n\r\n"[..],
            b"HTTP/1.1 404 Not Found\r\n\r\n",
            b"HTTP/1.1 2000 OK\r\n\r\n",
            b"SSH-2.0-OpenSSH 200\r\n",
            b"",
        ] {
            let reason = probe_answered(answer).unwrap_err();
            let line = String::from_utf8_lossy(answer);
            assert!(reason.contains(line.trim()), "{reason}");
        }
    }

    #[test]
    fn an_endless_status_line_is_cut() {
        let (address, server) = answering("127.0.0.1", |stream| exchange(stream, &[b'x'; 5000]));
        let reason = probe(&settings(address.ip(), address.port()), GENEROUS).unwrap_err();
        assert!(reason.len() < 1200, "{}", reason.len());
        server.join().unwrap();
    }

    #[test]
    fn nobody_listening_is_unhealthy() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let reason = probe(&settings(address.ip(), address.port()), GENEROUS).unwrap_err();
        assert!(reason.contains(&address.to_string()), "{reason}");
    }

    #[test]
    fn a_server_that_never_answers_is_unhealthy() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let reason = probe(&settings(address.ip(), address.port()), SHORT).unwrap_err();
        assert!(reason.contains("too long"), "{reason}");
    }

    #[test]
    fn a_server_that_answers_byte_by_byte_is_not_waited_for() {
        let (address, server) = answering("127.0.0.1", |mut stream| {
            // Ends when the asker has hung up.
            while stream.write_all(b"H").is_ok() {
                thread::sleep(Duration::from_millis(20));
            }
            Vec::new()
        });
        let reason = probe(&settings(address.ip(), address.port()), SHORT).unwrap_err();
        assert!(reason.contains("too long"), "{reason}");
        server.join().unwrap();
    }

    #[test]
    fn any_free_port_cannot_be_asked() {
        let reason = probe(&settings(Ipv4Addr::LOCALHOST.into(), 0), SHORT).unwrap_err();
        assert!(reason.contains("HTTP_PORT"), "{reason}");
    }

    #[test]
    fn a_server_with_tls_is_asked_over_tls_whatever_its_certificate_says() {
        let files = tls_files();
        let chain = CertificateDer::pem_file_iter(&files.cert).unwrap();
        let key = PrivateKeyDer::from_pem_file(&files.key).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain.map(Result::unwrap).collect(), key)
            .unwrap();
        let (address, server) = answering("127.0.0.1", move |stream| {
            let connection = ServerConnection::new(Arc::new(config)).unwrap();
            exchange(
                StreamOwned::new(connection, stream),
                b"HTTP/1.1 200 OK\r\n\r\n",
            )
        });
        let mut http = settings(address.ip(), address.port());
        http.tls = Some(files);
        assert_eq!(probe(&http, GENEROUS), Ok(()));
        assert_eq!(server.join().unwrap(), REQUEST);
    }

    #[test]
    fn a_server_without_tls_where_tls_is_configured_is_unhealthy() {
        let answer = b"HTTP/1.1 400 Bad Request\r\n\r\n";
        let (address, server) = answering("127.0.0.1", move |mut stream| {
            stream.write_all(answer).unwrap();
            Vec::new()
        });
        let mut http = settings(address.ip(), address.port());
        http.tls = Some(tls_files());
        let reason = probe(&http, GENEROUS).unwrap_err();
        assert!(reason.contains("No answer"), "{reason}");
        server.join().unwrap();
    }
}
