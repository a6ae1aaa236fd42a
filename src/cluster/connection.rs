//! Opens a connection between two instances: TCP, TLS where it is configured, and the handshake.

use std::io;

use tokio::io::{AsyncRead, AsyncWrite, split};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::tls;
use super::wire::HandshakeOffer;
use crate::store::PeerAddress;

/// A connection after the handshake: both ends have proved that they know the asked instance's secret, which is in
/// the database.
pub struct PeerConnection {
    pub read: Box<dyn AsyncRead + Unpin>,
    pub write: Box<dyn AsyncWrite + Unpin>,
    /// The version of the protocol that both ends agreed on.
    pub protocol: u16,
}

impl PeerConnection {
    fn new(
        (read, write): (
            impl AsyncRead + Unpin + 'static,
            impl AsyncWrite + Unpin + 'static,
        ),
        protocol: u16,
    ) -> PeerConnection {
        PeerConnection {
            read: Box::new(read),
            write: Box::new(write),
            protocol,
        }
    }

    /// Connects to another instance. `us` names the instance that is wanted.
    ///
    /// # Errors
    /// Nothing listens at the address, or the TLS handshake fails; or as [`HandshakeOffer::greet`].
    pub async fn open(peer: &PeerAddress, us: HandshakeOffer) -> io::Result<PeerConnection> {
        let mut stream = TcpStream::connect(&peer.address).await?;
        stream.set_nodelay(true)?;
        if !peer.is_tls {
            let protocol = us.greet(&mut stream).await?;
            return Ok(PeerConnection::new(stream.into_split(), protocol));
        }
        let (mut stream, key) = tls::connect(stream).await?;
        let protocol = us.over_tls(key).greet(&mut stream).await?;
        Ok(PeerConnection::new(split(stream), protocol))
    }

    /// Does the answering half of the handshake on an accepted connection. With `tls`, only TLS is accepted.
    ///
    /// # Errors
    /// The TLS handshake fails; or as [`HandshakeOffer::welcome`].
    pub async fn take(
        mut stream: TcpStream,
        tls: Option<&TlsAcceptor>,
        us: HandshakeOffer,
    ) -> io::Result<PeerConnection> {
        stream.set_nodelay(true)?;
        let Some(acceptor) = tls else {
            let protocol = us.welcome(&mut stream).await?;
            return Ok(PeerConnection::new(stream.into_split(), protocol));
        };
        let (mut stream, key) = tls::accept(acceptor, stream).await?;
        let protocol = us.over_tls(key).welcome(&mut stream).await?;
        Ok(PeerConnection::new(split(stream), protocol))
    }
}
