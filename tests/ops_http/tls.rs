//! TLS: which versions, HTTP/2, what a handshake that never ends costs, and that the contract holds over it.

use std::net::TcpStream;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned,
    SupportedProtocolVersion,
};

use crate::server::{Client, LOCK, Server, Setup, WRITE, connect, request};

/// Believes every certificate, but checks that the server has its key. The certificates of these tests are
/// self-signed.
#[derive(Debug)]
struct Credulous(Arc<CryptoProvider>);

impl ServerCertVerifier for Credulous {
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
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

pub fn client_config(
    versions: &[&'static SupportedProtocolVersion],
    protocol: &[u8],
) -> Arc<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Credulous(provider)))
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    Arc::new(config)
}

type TlsClient = Client<StreamOwned<ClientConnection, TcpStream>>;

pub fn connect_tls(server: &Server, versions: &[&'static SupportedProtocolVersion]) -> TlsClient {
    let name = ServerName::try_from("localhost").unwrap();
    let config = client_config(versions, b"http/1.1");
    let session = ClientConnection::new(config, name).unwrap();
    Client::new(StreamOwned::new(
        session,
        connect(server.address()).unwrap(),
    ))
}

/// The certificate that the server shows.
pub fn certificate_shown(server: &Server) -> Vec<u8> {
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
    client.send("GARBAGE\r\n\r\n");
    client.answer().unwrap().assert_error(400, "malformed");
    client.assert_closed();
}

#[test]
fn plain_http_at_a_tls_port_gets_no_answer_and_does_no_harm() {
    let server = Setup::new().tls().start();
    let mut client = server.connect();
    client.send(request("GET", "/health", &[], ""));
    let rest = client.rest().unwrap();
    assert!(!rest.starts_with(b"HTTP"), "{rest:?}");
    let mut proper = connect_tls(&server, &[&rustls::version::TLS13]);
    assert_eq!(proper.ask("GET", "/health", &[], "").status, 200);
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
    waiter.send(request("PUT", "/resource/a/b/lock?wait=100", &key, ""));
    let mut waiting = || holder.ask("GET", "/resource/a", &key, "").json()["waiting"].as_u64();
    crate::server::eventually("it waits", || (waiting() == Some(1)).then_some(()));
    drop(waiter);
    crate::server::eventually("it is gone", || (waiting() == Some(0)).then_some(()));
}

type Http2 = h2::client::SendRequest<bytes::Bytes>;

/// A connection that is open until the handle is aborted.
async fn connect_http2(server: &Server) -> (Http2, actix_rt::task::JoinHandle<()>) {
    let stream = tokio::net::TcpStream::connect(server.address())
        .await
        .unwrap();
    // What it sends is on its way at once.
    stream.set_nodelay(true).unwrap();
    let connector =
        tokio_rustls::TlsConnector::from(client_config(&[&rustls::version::TLS13], b"h2"));
    let name = ServerName::try_from("localhost").unwrap();
    let stream = connector.connect(name, stream).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
    let (send, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = actix_rt::spawn(async move {
        // How it ends is for those to judge who ask over it.
        let _ = connection.await;
    });
    (send, connection)
}

fn http2_request(method: &str, path: &str, key: &str) -> http::Request<()> {
    http::Request::builder()
        .method(method)
        .uri(format!("https://localhost{path}"))
        .header("x-api-key", key)
        .body(())
        .unwrap()
}

/// One HTTP/2 request.
async fn ask_http2(server: &Server, method: &str, path: &str, key: &str) -> (u16, String) {
    let (mut send, _connection) = connect_http2(server).await;
    let request = http2_request(method, path, key);
    let (answer, _) = send.send_request(request, true).unwrap();
    let answer = answer.await.unwrap();
    let status = answer.status().as_u16();
    let mut body = answer.into_body();
    let mut text = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece.unwrap();
        body.flow_control().release_capacity(piece.len()).unwrap();
        text.extend_from_slice(&piece);
    }
    (status, String::from_utf8(text).unwrap())
}

#[actix_rt::test]
async fn http_2_is_spoken_where_the_client_wants_it() {
    let server = Setup::new().tls().start();
    let mut plain = connect_tls(&server, &[&rustls::version::TLS13]);
    let key = [("x-api-key", WRITE)];
    plain.ask("POST", "/resource", &key, "{\"name\":\"a\"}");
    let (status, body) = ask_http2(&server, "PUT", "/resource/a/b/lock", LOCK).await;
    assert_eq!(status, 200, "{body}");
    assert!(body.contains("\"locked\":true"), "{body}");
    let (status, body) = ask_http2(&server, "PUT", "/resource/a/b/lock", "wrong").await;
    assert_eq!(status, 401, "{body}");
    assert!(body.contains("\"code\":\"key_unknown\""), "{body}");
}

/// How many wait for the lock, as its holder is told.
fn waiting(holder: &mut TlsClient) -> Option<u64> {
    let key = [("x-api-key", WRITE)];
    holder.ask("GET", "/resource/a", &key, "").json()["waiting"].as_u64()
}

async fn until_waiting(holder: &mut TlsClient, count: u64) {
    let end = std::time::Instant::now() + crate::server::PATIENCE;
    while waiting(holder) != Some(count) {
        assert!(std::time::Instant::now() < end, "never {count}");
        // The connections of the waiters live on this thread.
        actix_rt::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[actix_rt::test]
async fn a_waiter_over_http_2_that_vanishes_leaves_the_queue() {
    let server = Setup::new().tls().start();
    let mut holder = connect_tls(&server, &[&rustls::version::TLS13]);
    let key = [("x-api-key", WRITE)];
    holder.ask("POST", "/resource", &key, "{\"name\":\"a\"}");
    let locked = holder.ask("PUT", "/resource/a/b/lock", &key, "");
    let ticket = locked.header("X-Ticket").unwrap().to_owned();
    let request = || http2_request("PUT", "/resource/a/b/lock?wait=100", LOCK);

    // It takes its request back, and the connection stays.
    let (mut send, _open) = connect_http2(&server).await;
    let (_answer, mut stream) = send.send_request(request(), true).unwrap();
    until_waiting(&mut holder, 1).await;
    stream.send_reset(h2::Reason::CANCEL);
    until_waiting(&mut holder, 0).await;

    // Its connection ends.
    let (mut send, connection) = connect_http2(&server).await;
    let (_answer, _stream) = send.send_request(request(), true).unwrap();
    until_waiting(&mut holder, 1).await;
    connection.abort();
    until_waiting(&mut holder, 0).await;

    // It stays, longer than it takes to notice that one is gone, and gets the lock.
    let (mut send, _open) = connect_http2(&server).await;
    let (answer, _stream) = send.send_request(request(), true).unwrap();
    until_waiting(&mut holder, 1).await;
    actix_rt::time::sleep(std::time::Duration::from_millis(1_200)).await;
    let mine = [("x-api-key", WRITE), ("X-Ticket", ticket.as_str())];
    holder.ask("PUT", "/resource/a/b/unlock", &mine, "");
    assert_eq!(answer.await.unwrap().status(), 200);
}

/// A lock that is granted to a client that has just left goes on to whoever comes next.
#[actix_rt::test]
async fn a_lock_is_not_lost_to_an_http_2_client_that_has_just_left() {
    let server = Setup::new().tls().start();
    let mut holder = connect_tls(&server, &[&rustls::version::TLS13]);
    let key = [("x-api-key", WRITE)];
    holder.ask("POST", "/resource", &key, "{\"name\":\"a\"}");
    for round in 0..10 {
        let locked = holder.ask("PUT", "/resource/a/b/lock", &key, "");
        let ticket = locked.header("X-Ticket").unwrap().to_owned();
        let (mut send, connection) = connect_http2(&server).await;
        let request = http2_request("PUT", "/resource/a/b/lock?wait=100", LOCK);
        let (_answer, mut stream) = send.send_request(request, true).unwrap();
        until_waiting(&mut holder, 1).await;
        if round % 2 == 0 {
            stream.send_reset(h2::Reason::CANCEL);
        } else {
            connection.abort();
        }
        // Until it is on its way.
        actix_rt::time::sleep(std::time::Duration::from_millis(30)).await;
        let mine = [("x-api-key", WRITE), ("X-Ticket", ticket.as_str())];
        holder.ask("PUT", "/resource/a/b/unlock", &mine, "");
        let mut locked = || holder.ask("GET", "/resource/a", &key, "").json()["locked"].as_bool();
        crate::server::eventually("it is free", || (locked() == Some(false)).then_some(()));
    }
}
