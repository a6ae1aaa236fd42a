//! TLS: which versions, what a handshake that never ends costs, and that the contract holds over it.

use std::net::TcpStream;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned, SupportedProtocolVersion};
use small_resource_server::cluster::tls::AnyCertificate;

use crate::support::{Connection, Program, Setup, WRITE, request, until};

/// The certificates of these tests are self-signed.
pub fn client_config(
    versions: &[&'static SupportedProtocolVersion],
    protocol: &[u8],
) -> Arc<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    Arc::new(config)
}

type TlsClient = Connection<StreamOwned<ClientConnection, TcpStream>>;

pub fn connect_tls(server: &Program, versions: &[&'static SupportedProtocolVersion]) -> TlsClient {
    let name = ServerName::try_from("localhost").unwrap();
    let config = client_config(versions, b"http/1.1");
    let session = ClientConnection::new(config, name).unwrap();
    Connection::over(StreamOwned::new(session, server.connect().stream))
}

/// The certificate that the server shows.
pub fn certificate_shown(server: &Program) -> Vec<u8> {
    let mut client = connect_tls(server, &[&rustls::version::TLS13]);
    assert_eq!(client.ask("GET", "/health", &[], "").status, 200);
    let shown = client.stream.conn.peer_certificates().unwrap();
    shown[0].to_vec()
}

#[test]
fn a_lock_is_taken_over_tls_1_2_and_1_3_with_title_case_names() {
    let server = Setup::new().tls().start();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let mut client = connect_tls(&server, &[version]);
        let name = format!("{:?}", version.version);
        let body = format!("{{\"name\":\"{name}\"}}");
        let key = [("x-api-key", WRITE)];
        assert_eq!(client.ask("POST", "/resource", &key, &body).status, 201);
        let locked = client.ask("PUT", &format!("/resource/{name}/a/lock"), &key, "");
        assert_eq!(locked.json()["locked"], true);
        assert!(locked.header("X-Ticket").is_some(), "{locked:?}");
    }
}

#[test]
fn a_malformed_head_over_tls_is_refused_as_everywhere() {
    let server = Setup::new().tls().start();
    let mut client = connect_tls(&server, &[&rustls::version::TLS13]);
    client.write("GARBAGE\r\n\r\n");
    let answer = client.unchecked_answer().expect("an answer");
    assert_eq!(answer.status, 400);
    // The framework does not say goodbye in TLS then.
    let _ = client.rest();
}

#[test]
fn plain_http_at_a_tls_port_gets_no_answer_and_does_no_harm() {
    let server = Setup::new().tls().with("MAX_CONNECTIONS", "1").start();
    let mut client = server.connect();
    client.write(&request("GET", "/health", &[], ""));
    let rest = client.rest().unwrap();
    assert!(!rest.starts_with(b"HTTP"), "{rest:?}");
    until("the only place is free again", || {
        let mut proper = connect_tls(&server, &[&rustls::version::TLS13]);
        let key = [("x-api-key", WRITE)];
        proper.ask("GET", "/resource", &key, "").status == 200
    });
}

#[test]
fn a_handshake_that_never_comes_is_given_up() {
    let server = Setup::new()
        .tls()
        .with("REQUEST_TIMEOUT_SECONDS", "0.3")
        .start();
    let mut silent = server.connect();
    assert!(silent.rest().unwrap().is_empty());
}

#[test]
fn a_waiter_over_tls_that_vanishes_leaves_the_queue() {
    let server = Setup::new().tls().start();
    let key = [("x-api-key", WRITE)];
    let mut holder = connect_tls(&server, &[&rustls::version::TLS13]);
    holder.ask("POST", "/resource", &key, "{\"name\":\"a\"}");
    holder.ask("PUT", "/resource/a/b/lock", &key, "");
    let mut waiter = connect_tls(&server, &[&rustls::version::TLS13]);
    waiter.write(&request("PUT", "/resource/a/b/lock?wait=100", &key, ""));
    let mut waiting = || holder.ask("GET", "/resource/a", &key, "").json()["waiting"].as_u64();
    until("it waits", || waiting() == Some(1));
    drop(waiter);
    until("it is gone", || waiting() == Some(0));
}

#[test]
fn http_1_1_is_spoken_whatever_else_the_client_offers() {
    let server = Setup::new().tls().start();
    let name = ServerName::try_from("localhost").unwrap();
    let mut config = (*client_config(&[&rustls::version::TLS13], b"h2")).clone();
    config.alpn_protocols.push(b"http/1.1".to_vec());
    let session = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut client = Connection::over(StreamOwned::new(session, server.connect().stream));
    assert_eq!(client.ask("GET", "/health", &[], "").status, 200);
    let spoken = client.stream.conn.alpn_protocol();
    assert_eq!(spoken, Some(b"http/1.1".as_slice()));
}

fn expiry(server: &Program) -> u64 {
    let mut client = connect_tls(server, &[&rustls::version::TLS13]);
    let answer = client.ask("GET", "/metrics", &[], "");
    let text = answer.text();
    let name = "resource_server_tls_certificate_expiry_timestamp_seconds ";
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.expect("the metric").parse().unwrap()
}

/// The certificate of these tests is valid until 2126-10-30 21:17:40.
#[test]
fn a_certificate_that_has_expired_or_soon_will_is_warned_about_and_a_metric_tells_when() {
    for (clock, said) in [
        (
            "@2126-10-25 00:00:00",
            "expires at 2126-10-30T21:17:40Z, in 5 days",
        ),
        (
            "@2127-01-01 00:00:00",
            "has expired at 2126-10-30T21:17:40Z",
        ),
    ] {
        let clock = [
            ("FAKETIME", clock),
            ("TZ", "UTC"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ];
        let Some(setup) = Setup::new().tls().faketime(&clock) else {
            return;
        };
        let server = setup.start();
        server.logged(&["WARN", said]);
        assert_eq!(expiry(&server), 4_949_068_660);
    }
    let server = Setup::new().tls().start();
    assert_eq!(expiry(&server), 4_949_068_660);
    assert!(!server.log().contains("certificate"), "{}", server.log());
    let plain = Program::new();
    assert!(!plain.metrics().contains("tls_certificate_expiry"));
}
