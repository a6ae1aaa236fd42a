//! TLS: 1.2 and up, HTTP/1.1 over it, and a certificate that can be replaced while the server runs.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::config::TlsFiles;

/// The certificate in force.
#[derive(Debug)]
pub struct Certificate(ArcSwap<CertifiedKey>);

impl Certificate {
    /// # Errors
    /// A sentence that names the file and what is wrong with it.
    pub fn read(files: &TlsFiles) -> Result<Arc<Certificate>, String> {
        let certified = files.certified_key()?;
        Ok(Arc::new(Certificate(ArcSwap::from_pointee(certified))))
    }

    /// Reads the files again. Connections that are open keep the certificate they were opened with.
    ///
    /// # Errors
    /// As [`Certificate::read`]; then the one in force stays.
    pub fn replace(&self, files: &TlsFiles) -> Result<(), String> {
        self.0.store(Arc::new(files.certified_key()?));
        Ok(())
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

/// How TLS is spoken with this certificate.
///
/// # Errors
/// The cryptography that was built in does not offer TLS 1.2 and 1.3.
pub fn server_config(certificate: Arc<Certificate>) -> Result<Arc<ServerConfig>, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_no_client_auth()
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
