//! The certificate and the key that the settings name.

use std::path::Path;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::TlsFiles;

impl TlsFiles {
    /// Reads both files.
    ///
    /// # Errors
    /// A sentence that names the file and what is wrong with it; also when the key is not the
    /// certificate's.
    pub fn certified_key(&self) -> Result<CertifiedKey, String> {
        let (cert, key) = (self.cert.display(), self.key.display());
        let chain = certificates(&self.cert).ok_or_else(|| {
            format!("{cert} cannot be read or does not hold certificates in PEM.")
        })?;
        let private = PrivateKeyDer::from_pem_file(&self.key)
            .map_err(|_| format!("{key} cannot be read or does not hold a private key in PEM."))?;
        CertifiedKey::from_der(chain, private, &rustls::crypto::ring::default_provider()).map_err(
            |error| format!("{key} is not the key of the certificate in {cert} ({error})."),
        )
    }
}

/// `None` when there is none, or when one of them is broken.
pub(super) fn certificates(path: &Path) -> Option<Vec<CertificateDer<'static>>> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).ok()?.collect();
    found.ok().filter(|found| !found.is_empty())
}
