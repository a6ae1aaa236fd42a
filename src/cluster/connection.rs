//! Opens a connection between two instances: TCP, TLS where it is configured, and the handshake.

use std::io;

use tokio::io::{AsyncRead, AsyncWrite, split};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::tls;
use super::wire::HandshakeOffer;
use crate::store::PeerAddress;

/// The two directions of a connection after the handshake: both ends have proved that they know the asked instance's
/// secret, which is in the database.
pub type Directions = (Box<dyn AsyncRead + Unpin>, Box<dyn AsyncWrite + Unpin>);

fn boxed(
    (read, write): (
        impl AsyncRead + Unpin + 'static,
        impl AsyncWrite + Unpin + 'static,
    ),
) -> Directions {
    (Box::new(read), Box::new(write))
}

/// Connects to another instance. `us` names the instance that is wanted.
///
/// # Errors
/// Nothing listens at the address, or the TLS handshake fails; or as [`HandshakeOffer::greet`].
pub async fn open(peer: &PeerAddress, us: HandshakeOffer) -> io::Result<Directions> {
    let mut stream = TcpStream::connect(&peer.address).await?;
    stream.set_nodelay(true)?;
    let (protocol, directions) = if peer.is_tls {
        let (mut stream, key) = tls::connect(stream).await?;
        let protocol = us.over_tls(key).greet(&mut stream).await?;
        (protocol, boxed(split(stream)))
    } else {
        let protocol = us.greet(&mut stream).await?;
        (protocol, boxed(stream.into_split()))
    };
    let address = &peer.address;
    log::debug!("speaks version {protocol} of the protocol with the instance at {address}");
    Ok(directions)
}

/// Does the answering half of the handshake on an accepted connection. With `tls`, only TLS is accepted.
///
/// # Errors
/// The TLS handshake fails; or as [`HandshakeOffer::welcome`].
pub async fn take(
    mut stream: TcpStream,
    tls: Option<&TlsAcceptor>,
    us: HandshakeOffer,
) -> io::Result<Directions> {
    stream.set_nodelay(true)?;
    let (protocol, directions) = if let Some(acceptor) = tls {
        let (mut stream, key) = tls::accept(acceptor, stream).await?;
        let protocol = us.over_tls(key).welcome(&mut stream).await?;
        (protocol, boxed(split(stream)))
    } else {
        let protocol = us.welcome(&mut stream).await?;
        (protocol, boxed(stream.into_split()))
    };
    log::debug!("speaks version {protocol} of the protocol with an instance that connected");
    Ok(directions)
}
