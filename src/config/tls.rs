//! The certificate and the key that the settings name.

use std::path::PathBuf;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::sources::{Reader, read_bytes};

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(in_words)?;
    if found.is_empty() {
        return Err("it holds no CERTIFICATE in PEM".to_owned());
    }
    Ok(found)
}

fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(pem).map_err(in_words)
}

/// The error in words, without any part of the file.
fn in_words(error: pem::Error) -> String {
    match error {
        pem::Error::NoItemsFound => "it holds none in PEM".to_owned(),
        _ => "its PEM is broken".to_owned(),
    }
}

/// The file of `TLS_CERT_FILE`, and its certificate with the key of `TLS_KEY_FILE`.
pub(super) fn certified(reader: &mut Reader) -> Option<(PathBuf, CertifiedKey)> {
    let problems_before = reader.problems.len();
    let cert = certificate_file(reader, "TLS_CERT_FILE");
    let accepted = "a readable file with a private key in PEM";
    let key = pem_file(reader, "TLS_KEY_FILE", accepted, private_key);
    match (cert, key) {
        (Some((cert, chain)), Some((key, private))) => {
            let provider = rustls::crypto::ring::default_provider();
            let certified = CertifiedKey::from_der(chain, private, &provider);
            let certified = certified.inspect_err(|error| {
                let (cert, key) = (cert.display(), key.display());
                let sentence = format!(
                    "TLS_KEY_FILE is not accepted: {key} is not the key of the certificate in {cert} ({error})."
                );
                reader.problems.push(sentence);
            });
            reader.origins.watched.extend([cert.clone(), key]);
            certified.ok().map(|certified| (cert, certified))
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

/// The path in a variable, and the certificates in that file.
pub(super) fn certificate_file(
    reader: &mut Reader,
    name: &'static str,
) -> Option<(PathBuf, Vec<CertificateDer<'static>>)> {
    let accepted = "a readable file with certificates in PEM";
    pem_file(reader, name, accepted, certificates)
}

/// The path in a variable, and what `read` found in the file; if that is nothing, the problem says why.
fn pem_file<T>(
    reader: &mut Reader,
    name: &'static str,
    accepted: &str,
    read: impl FnOnce(&[u8]) -> Result<T, String>,
) -> Option<(PathBuf, T)> {
    let mut why = String::new();
    let found = reader.parsed(name, accepted, |value| {
        let path = PathBuf::from(value);
        let pem = read_bytes(&path).map_err(|error| error.to_string());
        let found = pem.and_then(|pem| read(&pem));
        let found = found.map_err(|reason| why = reason).ok()?;
        Some((path, found))
    });
    if let (false, Some(problem)) = (why.is_empty(), reader.problems.last_mut()) {
        *problem = format!("{}: {why}.", problem.trim_end_matches('.'));
    }
    found
}
