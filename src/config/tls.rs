//! The certificate and the key that the settings name.

use std::path::{Path, PathBuf};

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::TlsFiles;
use super::sources::{Reader, read_bytes};

impl TlsFiles {
    /// Reads both files.
    ///
    /// # Errors
    /// A sentence that names the file and what is wrong with it; also when the key does not belong to the
    /// certificate.
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
/// Why no certificate was read: the error of the system, or what is wrong with the PEM.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let pem = read_bytes(path).map_err(|error| error.to_string())?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let found = found.map_err(in_words)?;
    if found.is_empty() {
        return Err("it holds no CERTIFICATE in PEM".to_owned());
    }
    Ok(found)
}

/// # Errors
/// As [`certificates`].
fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let pem = read_bytes(path).map_err(|error| error.to_string())?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(in_words)
}

/// The error in words, without any part of the file.
fn in_words(error: pem::Error) -> String {
    match error {
        pem::Error::NoItemsFound => "it holds none in PEM".to_owned(),
        _ => "its PEM is broken".to_owned(),
    }
}

/// `TLS_CERT_FILE` and `TLS_KEY_FILE`.
pub(super) fn files(reader: &mut Reader) -> Option<TlsFiles> {
    let problems_before = reader.problems.len();
    let cert = certificate_file(reader, "TLS_CERT_FILE");
    let key = pem_file(
        reader,
        "TLS_KEY_FILE",
        "a readable file with a private key in PEM",
        |path| private_key(path).map(drop),
    );
    match (cert, key) {
        (Some(cert), Some(key)) => {
            reader.origins.watched.extend([cert.clone(), key.clone()]);
            let files = TlsFiles { cert, key };
            if let Err(sentence) = files.certified_key() {
                let sentence = format!("TLS_KEY_FILE is not accepted: {sentence}");
                reader.problems.push(sentence);
            }
            Some(files)
        }
        (None, None) => None,
        (cert, _) => {
            let (set, unset) = match cert {
                Some(_) => ("TLS_CERT_FILE", "TLS_KEY_FILE"),
                None => ("TLS_KEY_FILE", "TLS_CERT_FILE"),
            };
            // If the other one is set but not accepted, that has been reported.
            if reader.problems.len() == problems_before {
                let sentence =
                    format!("{set} is set and {unset} is not; accepted are both or neither.");
                reader.problems.push(sentence);
            }
            None
        }
    }
}

pub(super) fn certificate_file(reader: &mut Reader, name: &'static str) -> Option<PathBuf> {
    let accepted = "a readable file with certificates in PEM";
    pem_file(reader, name, accepted, |path| certificates(path).map(drop))
}

/// The path in a variable, if `check` accepts the file; else the problem says why.
fn pem_file(
    reader: &mut Reader,
    name: &'static str,
    accepted: &str,
    check: impl FnOnce(&Path) -> Result<(), String>,
) -> Option<PathBuf> {
    let mut why = String::new();
    let path = reader.parsed(name, accepted, |value| match check(Path::new(value)) {
        Ok(()) => Some(PathBuf::from(value)),
        Err(reason) => {
            why = reason;
            None
        }
    });
    if let (false, Some(problem)) = (why.is_empty(), reader.problems.last_mut()) {
        *problem = format!("{}: {why}.", problem.trim_end_matches('.'));
    }
    path
}
