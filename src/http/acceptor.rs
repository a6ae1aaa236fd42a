//! Prepares an accepted connection for HTTP: its limits, detection of a dead peer, a TLS handshake.

use std::fmt::Debug;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actix_http::Protocol;
use actix_http::error::{DispatchError, ParseError};
use actix_web::rt::net::TcpStream;
use socket2::{SockRef, TcpKeepalive};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::either::Either;

use super::connection::{Connection, ConnectionState};
use super::connection_limits::{
    ConnectionLimits, HANDSHAKE, MALFORMED, TOO_LARGE, TOO_MANY, TOO_SLOW,
};

/// Time after which a client that went silent without closing its connection counts as gone. TCP keep-alive
/// probes start after half of it; data that the client does not acknowledge for this long ends the connection
/// too.
const DEAD_PEER: Duration = Duration::from_secs(20);

/// Makes a connection that HTTP can be served on, with the address of its peer. `None`: it is refused, or the
/// client has closed it.
pub async fn accept(
    limits: Arc<ConnectionLimits>,
    tls: Option<TlsAcceptor>,
    stream: TcpStream,
) -> Option<(Connection, Protocol, Option<SocketAddr>)> {
    let Some(state) = ConnectionState::open(&limits) else {
        refuse(&limits, TOO_MANY, &"the reserve is used up");
        return None;
    };
    watch_peer(&stream);
    let peer = stream.peer_addr().ok()?;
    let wire = match tls {
        None => Either::Left(stream),
        Some(tls) => {
            let shaken = timeout(limits.head_max, tls.accept(stream)).await;
            let shaken = shaken.unwrap_or_else(|late| Err(late.into()));
            let refused = |error: std::io::Error| refuse(&limits, HANDSHAKE, &error);
            Either::Right(Box::new(shaken.map_err(refused).ok()?))
        }
    };
    let connection = Connection::new(wire, state);
    Some((connection, Protocol::Http1, Some(peer)))
}

/// Counts a refusal. It belongs to no request, so no access log shows it.
fn refuse(limits: &ConnectionLimits, reason: &str, why: &dyn Debug) {
    limits.count_refusal(reason);
    log::debug!("a connection was refused ({reason}): {why:?}");
}

/// Counts a connection that HTTP ended, unless the client ended it.
pub fn note(limits: &ConnectionLimits, error: &DispatchError) {
    let reason = match error {
        DispatchError::Parse(ParseError::TooLarge) => TOO_LARGE,
        DispatchError::Parse(_) => MALFORMED,
        DispatchError::Io(error) => match error.kind() {
            std::io::ErrorKind::TimedOut => TOO_SLOW,
            // `Connection` returns this beyond its read-ahead limit.
            std::io::ErrorKind::Other => TOO_LARGE,
            _ => return,
        },
        _ => return,
    };
    refuse(limits, reason, error);
}

fn watch_peer(stream: &TcpStream) {
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new()
        .with_time(DEAD_PEER / 2)
        .with_interval(Duration::from_secs(3))
        .with_retries(3);
    let watched = socket
        .set_tcp_keepalive(&keepalive)
        .and_then(|()| socket.set_tcp_user_timeout(Some(DEAD_PEER)))
        .and_then(|()| socket.set_tcp_nodelay(true));
    if let Err(error) = watched {
        log::debug!("the TCP options of a connection could not be set: {error}");
    }
}
