//! Prepares an accepted connection for HTTP: a permit, detection of a dead peer, a TLS handshake.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actix_http::Protocol;
use actix_http::error::{DispatchError, ParseError};
use actix_web::rt::net::TcpStream;
use socket2::{SockRef, TcpKeepalive};
use tokio_rustls::TlsAcceptor;
use tokio_util::either::Either;

use super::connection::{Connection, ConnectionTimeouts, Wire};
use super::connection_limit::{
    ConnectionLimit, HANDSHAKE, MALFORMED, TOO_LARGE, TOO_MANY, TOO_SLOW,
};

/// Time after which a client that went silent without closing its connection counts as gone. TCP keep-alive
/// probes start after half of it; data that the client does not acknowledge for this long ends the connection
/// too.
const DEAD_PEER: Duration = Duration::from_secs(20);

/// Prepares the connections of one worker.
pub struct Acceptor {
    pub limit: Arc<ConnectionLimit>,
    pub timeouts: ConnectionTimeouts,
    pub tls: Option<TlsAcceptor>,
}

/// Why a connection was not served, or was ended by the server before it understood a request.
#[derive(Debug)]
pub enum Refused {
    TooMany,
    Handshake(std::io::Error),
    /// The client closed it before its address was read.
    Gone(std::io::Error),
    Http(DispatchError),
}

impl Acceptor {
    /// Makes a connection that HTTP can be served on, with the address of its peer.
    ///
    /// # Errors
    /// [`Refused`], but never [`Refused::Http`].
    pub async fn accept(
        &self,
        stream: TcpStream,
    ) -> Result<(Connection, Protocol, Option<SocketAddr>), Refused> {
        let permit = self.limit.take().ok_or(Refused::TooMany)?;
        watch_peer(&stream);
        let peer = stream.peer_addr().map_err(Refused::Gone)?;
        let wire = self.shake_hands(stream).await.map_err(Refused::Handshake)?;
        let connection = Connection::new(wire, permit, self.timeouts);
        Ok((connection, Protocol::Http1, Some(peer)))
    }

    async fn shake_hands(&self, stream: TcpStream) -> std::io::Result<Wire> {
        let Some(tls) = &self.tls else {
            return Ok(Either::Left(stream));
        };
        let stream = tokio::time::timeout(self.timeouts.head, tls.accept(stream)).await??;
        Ok(Either::Right(Box::new(stream)))
    }

    /// Counts a refusal by its reason. It belongs to no request, so no access log shows it.
    pub fn note(&self, refused: &Refused) {
        let Some(reason) = reason(refused) else {
            return;
        };
        self.limit.count_refusal(reason);
        log::debug!("a connection was refused ({reason}): {refused:?}");
    }
}

/// The metric's label for a refusal; `None` if the client ended the connection.
fn reason(refused: &Refused) -> Option<&'static str> {
    Some(match refused {
        Refused::TooMany => TOO_MANY,
        Refused::Handshake(_) => HANDSHAKE,
        Refused::Gone(_) => return None,
        Refused::Http(DispatchError::Parse(ParseError::TooLarge)) => TOO_LARGE,
        Refused::Http(DispatchError::Parse(_)) => MALFORMED,
        Refused::Http(DispatchError::Io(error)) => match error.kind() {
            std::io::ErrorKind::TimedOut => TOO_SLOW,
            // `Connection` returns this beyond its read-ahead limit.
            std::io::ErrorKind::Other => TOO_LARGE,
            _ => return None,
        },
        Refused::Http(_) => return None,
    })
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
