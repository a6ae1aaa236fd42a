//! Servers that speak TLS, with certificates of their own.

use std::time::Duration;

use crate::server::{Server, client};
use small_resource_client::{ClientBuilder, Error};

fn file(name: &str) -> String {
    format!("{}/../../tests/data/tls/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn start(certificate: &str, key: &str) -> Server {
    Server::start_with(&[
        ("TLS_CERT_FILE", &file(certificate)),
        ("TLS_KEY_FILE", &file(key)),
    ])
}

/// Takes the lock and gives it back.
async fn try_with(builder: ClientBuilder) -> Result<(), Error> {
    let client = builder.timeout(Duration::from_millis(1500)).build()?;
    let lock = client.lock("a").create(true);
    lock.acquire().await?.release().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_a_certificate_of_its_own_is_believed_when_that_is_trusted() {
    // One that is an authority, as `openssl req -x509` makes it, and one that is none.
    for (certificate, key) in [("cert.pem", "key.pem"), ("other-cert.pem", "other-key.pem")] {
        let server = start(certificate, key);
        let authority = std::fs::read(file(certificate)).unwrap();
        try_with(client(&server.url).authority(authority.clone()))
            .await
            .unwrap();
        let untrusted = try_with(client(&server.url)).await.unwrap_err();
        assert!(untrusted.to_string().contains("certificate"), "{untrusted}");
        let other = if certificate == "cert.pem" {
            "other-cert.pem"
        } else {
            "cert.pem"
        };
        let other = std::fs::read(file(other)).unwrap();
        assert!(
            try_with(client(&server.url).authority(other))
                .await
                .is_err()
        );
        // Another name than the certificate is for, of the same server.
        let elsewhere = server.url.replace("127.0.0.1", "127.0.0.2");
        let wrong = try_with(client(&elsewhere).authority(authority)).await;
        assert!(wrong.is_err());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_speaks_no_tls_is_not_spoken_to_in_the_clear() {
    let server = Server::start();
    let url = server.url.replace("http:", "https:");
    let error = try_with(client(&url)).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable(_)), "{error}");
}
