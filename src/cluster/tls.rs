//! TLS between two instances, where the one that is asked has a certificate.
//!
//! Neither the name nor the issuer of the certificate is checked. Instead the proofs of the handshake
//! ([`super::wire`]) cover a key of this very TLS session. A man in the middle has a different session with
//! each end, and so can pass on neither proof. (Channel binding with the exporter of TLS 1.3: RFC 9266.)

use std::io;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ResolvesServerCert;
use rustls::version::TLS13;
use rustls::{
    ClientConfig, ConnectionCommon, DigitallySignedStruct, ServerConfig, SignatureScheme,
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

/// A key that is exported from one TLS session; only the two ends of the session know it.
pub type SessionKey = [u8; 32];

const EXPORTER: &[u8] = b"EXPORTER-Channel-Binding";

/// An acceptor of connections from other instances, with this certificate.
pub fn acceptor(certificate: Arc<dyn ResolvesServerCert>) -> Result<TlsAcceptor, rustls::Error> {
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13])?
        .with_no_client_auth()
        .with_cert_resolver(certificate);
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// The server's half of the TLS handshake.
pub async fn accept(
    acceptor: &TlsAcceptor,
    stream: TcpStream,
) -> io::Result<(server::TlsStream<TcpStream>, SessionKey)> {
    let stream = acceptor.accept(stream).await?;
    let key = session_key(stream.get_ref().1)?;
    Ok((stream, key))
}

/// The client's half of the TLS handshake. Accepts any certificate.
pub async fn connect(stream: TcpStream) -> io::Result<(client::TlsStream<TcpStream>, SessionKey)> {
    let provider = Arc::new(ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    let nobody = ServerName::try_from("instance").map_err(io::Error::other)?;
    let connector = TlsConnector::from(Arc::new(config));
    let stream = connector.connect(nobody, stream).await?;
    let key = session_key(stream.get_ref().1)?;
    Ok((stream, key))
}

fn session_key<Data>(session: &ConnectionCommon<Data>) -> io::Result<SessionKey> {
    let key = session.export_keying_material(SessionKey::default(), EXPORTER, None);
    key.map_err(io::Error::other)
}

/// Accepts every certificate, but checks that the other end has its private key. For connections on which the other
/// end is authenticated in another way.
#[derive(Debug)]
pub struct AnyCertificate(pub Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
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

    /// Never called between instances, which speak TLS 1.3 only.
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use rustls::sign::{CertifiedKey, SingleCertAndKey};
    use tokio::io::copy_bidirectional;
    use tokio::net::TcpListener;

    use super::*;
    use crate::cluster::connection::{self, Directions};
    use crate::cluster::wire::{HandshakeOffer, PROTOCOLS};
    use crate::store::PeerAddress;

    const SECRET: &[u8] = b"secret";

    fn us() -> HandshakeOffer {
        HandshakeOffer::new(SECRET, [7; 16], PROTOCOLS)
    }

    fn answering_with(name: &str) -> TlsAcceptor {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tls");
        let cert = folder.join(format!("{name}cert.pem"));
        let chain = CertificateDer::pem_file_iter(cert).unwrap();
        let chain = chain.collect::<Result<_, _>>().unwrap();
        let key = PrivateKeyDer::from_pem_file(folder.join(format!("{name}key.pem"))).unwrap();
        let certified = CertifiedKey::from_der(chain, key, &ring::default_provider()).unwrap();
        acceptor(Arc::new(SingleCertAndKey::from(certified))).unwrap()
    }

    async fn listener() -> (TcpListener, PeerAddress) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = PeerAddress {
            address: listener.local_addr().unwrap().to_string(),
            is_tls: true,
            secret: SECRET.to_vec(),
        };
        (listener, address)
    }

    async fn answer(listener: TcpListener) -> io::Result<Directions> {
        let (stream, _) = listener.accept().await?;
        connection::take(stream, Some(&answering_with("")), us()).await
    }

    /// The man in the middle accepts every certificate, as the instances do, and passes on every byte.
    #[tokio::test]
    async fn somebody_in_between_with_a_session_to_either_end_is_found_out() {
        let (there, owner) = listener().await;
        let (here, told) = listener().await;
        let between = async {
            let (stream, _) = here.accept().await?;
            let (mut asks, _) = accept(&answering_with("other-"), stream).await?;
            let stream = TcpStream::connect(&owner.address).await?;
            let (mut asked, _) = connect(stream).await?;
            copy_bidirectional(&mut asks, &mut asked).await
        };
        let asking = async {
            let opened = connection::open(&told, us()).await;
            let error = opened.err().expect("it was not detected");
            assert!(error.to_string().contains("secret"), "{error}");
        };
        let ((), taken, _) = tokio::join!(asking, answer(there), between);
        assert!(taken.is_err());
    }

    #[tokio::test]
    async fn where_tls_is_spoken_nothing_else_is() {
        let (listener, address) = listener().await;
        let plain = PeerAddress {
            is_tls: false,
            ..address
        };
        let (opened, taken) = tokio::join!(connection::open(&plain, us()), answer(listener));
        assert!(opened.is_err() && taken.is_err());
    }
}
