//! TLS 1.2 and 1.3, HTTP/1.1 over it, and a certificate that can be replaced while the server runs.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use prometheus::IntGauge;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use x509_cert::der::Decode;

use crate::metrics::Metrics;

/// A certificate that expires sooner than this is warned about: most tools renew it earlier, so renewal may
/// have failed.
const WARN_BEFORE: Duration = Duration::from_secs(14 * 24 * 3600);

/// The certificate in use.
#[derive(Debug)]
pub struct Certificate {
    certified: ArcSwap<CertifiedKey>,
    /// The metric of when it expires, in Unix seconds.
    expiry: IntGauge,
}

impl Certificate {
    /// The certificate that was read from this file.
    pub fn new((file, read): &(PathBuf, CertifiedKey), metrics: &Metrics) -> Arc<Certificate> {
        let expiry = metrics.certificate_expiry();
        note_expiry(file, read, &expiry);
        let certified = ArcSwap::from_pointee(read.clone());
        Arc::new(Certificate { certified, expiry })
    }

    /// Uses another certificate from now on. Open connections keep the one that they were opened with.
    pub fn replace(&self, (file, read): &(PathBuf, CertifiedKey)) {
        note_expiry(file, read, &self.expiry);
        self.certified.store(Arc::new(read.clone()));
    }
}

/// Shows in metrics and log when the certificate expires. An expired one is served all the same: clients that
/// do not check it go on working, and the others report what is wrong.
fn note_expiry(file: &Path, certified: &CertifiedKey, expiry: &IntGauge) {
    let file = file.display();
    let Some(until) = valid_until(certified) else {
        log::warn!("the expiry date of the certificate in {file} cannot be read");
        return;
    };
    let since_epoch = until.duration_since(UNIX_EPOCH).unwrap_or_default();
    expiry.set(i64::try_from(since_epoch.as_secs()).unwrap_or(i64::MAX));
    let when = humantime::format_rfc3339_seconds(until);
    match until.duration_since(SystemTime::now()) {
        Err(_) => {
            log::warn!("the certificate in {file} has expired at {when}; clients will refuse it")
        }
        Ok(left) if left < WARN_BEFORE => {
            let days = left.as_secs() / (24 * 3600);
            log::warn!("the certificate in {file} expires at {when}, in {days} days");
        }
        Ok(_) => {}
    }
}

/// The end of validity of the certificate in the chain that expires first; `None` if one cannot be parsed.
fn valid_until(certified: &CertifiedKey) -> Option<SystemTime> {
    let ends = certified.cert.iter().map(|certificate| {
        let certificate = x509_cert::Certificate::from_der(certificate).ok()?;
        let end = certificate.tbs_certificate.validity.not_after;
        Some(UNIX_EPOCH + end.to_unix_duration())
    });
    ends.collect::<Option<Vec<_>>>()?.into_iter().min()
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.certified.load_full())
    }
}

/// The TLS configuration of a listener with this certificate.
pub fn server_config(certificate: Arc<Certificate>) -> Result<Arc<ServerConfig>, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_no_client_auth()
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
