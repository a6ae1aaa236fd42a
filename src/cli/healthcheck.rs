//! `healthcheck`: asks the server that runs with the same settings for `/health`, for containers that
//! have no curl.
//!
//! With TLS the connection is encrypted but the certificate is not checked: it names the public host, not
//! the loopback address used here, and a certificate that has expired is a matter for its monitoring, not
//! a reason to restart a server that serves. No key is sent, so another program that answers at this address
//! learns nothing.

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use reqwest::StatusCode;

use crate::cli::output::say_failure;
use crate::config::{HttpSettings, Settings};

/// Longest time for connection, request and answer together.
const TIME_MAX: Duration = Duration::from_secs(3);

/// Exit code 0 when `/health` answers 200 within three seconds, else 1 and a sentence on standard error.
pub fn healthcheck(settings: &Settings) -> ExitCode {
    match probe(&settings.http, TIME_MAX) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => say_failure(&reason),
    }
}

fn probe(http: &HttpSettings, time_max: Duration) -> Result<(), String> {
    let address = SocketAddr::new(reachable(http.host), http.port);
    let answer = actix_rt::System::new().block_on(ask(address, http.tls.is_some(), time_max));
    match answer {
        Ok(StatusCode::OK) => Ok(()),
        Ok(status) => Err(format!("/health at {address} answered {status}.")),
        Err(error) => Err(format!("No answer from {address}: {}.", cause(&error))),
    }
}

/// The address to connect to: the loopback address if the server listens on all addresses.
fn reachable(host: IpAddr) -> IpAddr {
    match host {
        IpAddr::V4(v4) if v4.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(v6) if v6.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        specific => specific,
    }
}

async fn ask(address: SocketAddr, tls: bool, time_max: Duration) -> reqwest::Result<StatusCode> {
    // Fails only if a provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .tls_danger_accept_invalid_certs(true)
        .timeout(time_max)
        .build()?;
    let scheme = if tls { "https" } else { "http" };
    let answer = client.get(format!("{scheme}://{address}/health")).send();
    Ok(answer.await?.status())
}

/// The innermost reason. The errors around it only name the request, which the reader knows.
fn cause(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "it took too long".into();
    }
    let mut reason: &dyn Error = error;
    while let Some(source) = reason.source() {
        reason = source;
    }
    reason.to_string()
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::Arc;
    use std::thread::{self, JoinHandle};

    use rustls::sign::SingleCertAndKey;
    use rustls::{ServerConfig, ServerConnection, StreamOwned};

    use super::*;

    const GENEROUS: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_millis(200);

    fn settings(host: IpAddr, port: u16) -> HttpSettings {
        settings_with(&[], host, port)
    }

    fn settings_with(tls: &[(&str, &str)], host: IpAddr, port: u16) -> HttpSettings {
        let pairs = [("API_KEY", "key")].iter().chain(tls);
        let pairs = pairs.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let mut http = Settings::from_pairs(pairs, None).unwrap().http;
        (http.host, http.port) = (host, port);
        http
    }

    const TLS: [(&str, &str); 2] = [
        (
            "TLS_CERT_FILE",
            concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tls/cert.pem"),
        ),
        (
            "TLS_KEY_FILE",
            concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tls/key.pem"),
        ),
    ];

    /// A server for one connection; gives back the first line that it read.
    fn answering(
        host: &str,
        serve: impl FnOnce(TcpStream) -> String + Send + 'static,
    ) -> (SocketAddr, JoinHandle<String>) {
        let listener = TcpListener::bind((host, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || serve(listener.accept().unwrap().0));
        (address, server)
    }

    fn exchange(stream: impl Read + Write, answer: &[u8]) -> String {
        let mut stream = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(stream.read_line(&mut head).unwrap(), 0, "{head}");
        }
        stream.get_mut().write_all(answer).unwrap();
        stream.get_mut().flush().unwrap();
        head.lines().next().unwrap().to_owned()
    }

    const REQUEST: &str = "GET /health HTTP/1.1";
    const HEALTHY: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

    fn probe_answered(answer: &'static [u8]) -> Result<(), String> {
        let (address, server) = answering("127.0.0.1", move |stream| exchange(stream, answer));
        let result = probe(&settings(address.ip(), address.port()), GENEROUS);
        assert_eq!(server.join().unwrap(), REQUEST);
        result
    }

    #[test]
    fn a_server_that_listens_everywhere_is_asked_on_its_loopback() {
        let (address, server) = answering("0.0.0.0", |stream| exchange(stream, HEALTHY));
        let http = settings(Ipv4Addr::UNSPECIFIED.into(), address.port());
        assert_eq!(probe(&http, GENEROUS), Ok(()));
        assert_eq!(server.join().unwrap(), REQUEST);
        let v6 = reachable(Ipv6Addr::UNSPECIFIED.into());
        assert_eq!(v6, IpAddr::from(Ipv6Addr::LOCALHOST));
        let specific: IpAddr = "192.0.2.7".parse().unwrap();
        assert_eq!(reachable(specific), specific);
    }

    #[test]
    fn any_other_answer_is_told() {
        for (answer, told) in [
            (&b"HTTP/1.1 503 Service Unavailable\r\n\r\n"[..], "503"),
            (b"HTTP/1.1 404 Not Found\r\n\r\n", "404"),
            (b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n", "302"),
            (b"SSH-2.0-OpenSSH 200\r\n", "No answer"),
            (b"", "No answer"),
        ] {
            let reason = probe_answered(answer).unwrap_err();
            assert!(reason.contains(told), "{reason}");
        }
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
    fn a_server_that_answers_byte_by_byte_is_not_waited_for() {
        let (address, server) = answering("127.0.0.1", |mut stream| {
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nX: ");
            // Ends when the asker has hung up.
            while stream.write_all(b"x").is_ok() {
                thread::sleep(Duration::from_millis(20));
            }
            String::new()
        });
        let reason = probe(&settings(address.ip(), address.port()), SHORT).unwrap_err();
        assert!(reason.contains("too long"), "{reason}");
        server.join().unwrap();
    }

    #[test]
    fn a_server_with_tls_is_asked_over_tls_whatever_its_certificate_says() {
        let (_, certified) = settings_with(&TLS, Ipv4Addr::LOCALHOST.into(), 0)
            .tls
            .unwrap();
        let config =
            ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        let (address, server) = answering("127.0.0.1", move |stream| {
            let connection = ServerConnection::new(Arc::new(config)).unwrap();
            exchange(StreamOwned::new(connection, stream), HEALTHY)
        });
        let http = settings_with(&TLS, address.ip(), address.port());
        assert_eq!(probe(&http, GENEROUS), Ok(()));
        assert_eq!(server.join().unwrap(), REQUEST);
    }
}
