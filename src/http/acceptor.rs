//! What becomes of an accepted connection before HTTP: a permit, a watch on its peer, a TLS handshake.

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

/// The time after which a client that went silent without closing its connection is given up: its
/// keep-alive probes start after half of it, and data it does not acknowledge counts as well.
const DEAD_PEER: Duration = Duration::from_secs(20);

/// One per worker.
pub struct Acceptor {
    pub limit: Arc<ConnectionLimit>,
    pub patience: ConnectionTimeouts,
    pub tls: Option<TlsAcceptor>,
}

/// Why a connection was not served, or was ended by the server before its request was understood.
#[derive(Debug)]
pub enum Refused {
    TooMany,
    Handshake(std::io::Error),
    /// It was gone before it was looked at.
    Gone(std::io::Error),
    Http(DispatchError),
}

impl Acceptor {
    pub async fn accept(
        &self,
        stream: TcpStream,
    ) -> Result<(Connection, Protocol, Option<SocketAddr>), Refused> {
        let permit = self.limit.take().ok_or(Refused::TooMany)?;
        watch_peer(&stream);
        let peer = stream.peer_addr().map_err(Refused::Gone)?;
        let wire = self.shake_hands(stream).await.map_err(Refused::Handshake)?;
        let connection = Connection::new(wire, permit, self.patience);
        Ok((connection, Protocol::Http1, Some(peer)))
    }

    async fn shake_hands(&self, stream: TcpStream) -> std::io::Result<Wire> {
        let Some(tls) = &self.tls else {
            return Ok(Either::Left(stream));
        };
        let stream = tokio::time::timeout(self.patience.head, tls.accept(stream)).await??;
        Ok(Either::Right(Box::new(stream)))
    }

    /// Counts what no request, and so no access log, will tell.
    pub fn note(&self, refused: &Refused) {
        let Some(reason) = reason(refused) else {
            return;
        };
        self.limit.count_refusal(reason);
        log::debug!("a connection was refused ({reason}): {refused:?}");
    }
}

/// `None`: the client ended it.
fn reason(refused: &Refused) -> Option<&'static str> {
    Some(match refused {
        Refused::TooMany => TOO_MANY,
        Refused::Handshake(_) => HANDSHAKE,
        Refused::Gone(_) => return None,
        Refused::Http(DispatchError::Parse(ParseError::TooLarge)) => TOO_LARGE,
        Refused::Http(DispatchError::Parse(_)) => MALFORMED,
        Refused::Http(DispatchError::Io(error)) => match error.kind() {
            std::io::ErrorKind::TimedOut => TOO_SLOW,
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
        log::debug!("a connection cannot be watched: {error}");
    }
}
