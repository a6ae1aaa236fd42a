//! The certificate and the key that the settings name.

use std::path::Path;

use rustls::pki_types::pem::{self, PemObject};
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
        let chain = certificates(&self.cert)
            .map_err(|why| format!("{cert} gives no certificate ({why})."))?;
        let private =
            private_key(&self.key).map_err(|why| format!("{key} gives no private key ({why})."))?;
        CertifiedKey::from_der(chain, private, &rustls::crypto::ring::default_provider()).map_err(
            |error| format!("{key} is not the key of the certificate in {cert} ({error})."),
        )
    }
}

/// # Errors
/// Why there is none: what the system says, or what is wrong with the PEM.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let found = CertificateDer::pem_file_iter(path).map_err(in_words)?;
    let found: Result<Vec<_>, _> = found.collect();
    let found = found.map_err(in_words)?;
    if found.is_empty() {
        return Err("it holds no CERTIFICATE in PEM".to_owned());
    }
    Ok(found)
}

/// # Errors
/// As [`certificates`].
pub(super) fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_file(path).map_err(in_words)
}

/// Never a part of the file.
fn in_words(error: pem::Error) -> String {
    match error {
        pem::Error::Io(error) => error.to_string(),
        pem::Error::NoItemsFound => "it holds nothing of the kind in PEM".to_owned(),
        _ => "its PEM is broken".to_owned(),
    }
}
