//! SIGHUP: what changes without a restart, and that nothing does when the settings are not in order.

use std::fs;

use rustix::process::Signal;

use crate::support::{LOCK, Program, READ, Setup, WRITE, certificate_file, replace_file, until};
use crate::tls::certificate_shown;

fn conf(read: &str, more: &str) -> String {
    format!("RESOURCE_READ={read}\nRESOURCE_READ_LOCK={LOCK}\nRESOURCE_WRITE={WRITE}\n{more}")
}

/// With its keys in a settings file.
fn start() -> Program {
    Setup::new().conf(&conf(READ, "")).start()
}

fn rewrite(server: &Program, text: &str) {
    replace_file(&server.setup().conf_path(), text);
}

fn reload(server: &Program) {
    let before = server.log().matches("reloaded").count();
    server.signal(Signal::HUP);
    until("the reload is in the log", || {
        server.log().matches("reloaded").count() > before
    });
}

fn status_with(server: &Program, key: &str) -> u16 {
    server.list("limit=1").key(key).send().status
}

#[test]
fn keys_rotate_without_an_outage() {
    let server = start();
    assert_eq!(status_with(&server, READ), 200);
    rewrite(
        &server,
        &conf("new-key", &format!("RESOURCE_READ_PREVIOUS={READ}\n")),
    );
    reload(&server);
    assert_eq!(status_with(&server, READ), 200);
    assert_eq!(status_with(&server, "new-key"), 200);
    rewrite(&server, &conf("new-key", ""));
    reload(&server);
    assert_eq!(status_with(&server, READ), 401);
    assert_eq!(status_with(&server, "new-key"), 200);
    let log = server.log();
    assert!(!log.contains("new-key") && !log.contains(READ), "{log}");
}

#[test]
fn open_connections_see_the_new_keys() {
    let server = start();
    let mut client = server.connect();
    let mut status = |key| {
        client
            .ask("GET", "/resource", &[("x-api-key", key)], "")
            .status
    };
    assert_eq!(status("new-key"), 401);
    rewrite(&server, &conf("new-key", ""));
    reload(&server);
    assert_eq!(status("new-key"), 200);
}

#[test]
fn settings_that_are_not_in_order_change_nothing_and_the_log_says_why() {
    let mut server = start();
    for (text, said) in [
        (conf("", ""), "RESOURCE_READ is missing or empty"),
        (
            conf("x", "RATE_LIMIT_PER_SECOND=many\n"),
            "RATE_LIMIT_PER_SECOND",
        ),
        (
            conf("x", "TLS_CERT_FILE=/nowhere\nTLS_KEY_FILE=/nowhere\n"),
            "TLS_CERT_FILE",
        ),
        (conf("x", "what is this\n"), "cannot be read"),
    ] {
        rewrite(&server, &text);
        reload(&server);
        server.logged(&[said]);
        assert_eq!(status_with(&server, READ), 200, "{text}");
        assert_eq!(status_with(&server, "x"), 401, "{text}");
    }
    fs::remove_file(server.setup().conf_path()).unwrap();
    reload(&server);
    assert_eq!(status_with(&server, READ), 200);
    assert!(!server.log().contains("settings reloaded"));
    assert!(server.is_running());
}

#[test]
fn what_needs_a_restart_is_named_and_only_that() {
    let server = start();
    let more = "MAX_BODY_BYTES=10\nKEEP_ALIVE_SECONDS=1\nRUST_LOG=debug\nRATE_LIMIT_PER_SECOND=5\n";
    rewrite(&server, &conf(READ, more));
    reload(&server);
    server.logged(&["MAX_BODY_BYTES was changed, which needs a restart"]);
    server.logged(&["KEEP_ALIVE_SECONDS was changed, which needs a restart"]);
    assert_eq!(server.log().matches("needs a restart").count(), 2);
    // And indeed it has no effect.
    server.create("a-long-name", 0).expect(201);
}

#[test]
fn the_rate_limit_and_trusted_proxies_change() {
    let server = start();
    let limit = |forwarded: &str| {
        let headers = [("x-api-key", READ), ("X-Forwarded-For", forwarded)];
        let answer = server.connect().ask("GET", "/resource", &headers, "");
        answer
            .header("Ratelimit-Remaining")
            .map(|left| left.parse::<u32>().unwrap())
    };
    assert_eq!(limit("192.0.2.1"), None);
    rewrite(
        &server,
        &conf(
            READ,
            "RATE_LIMIT_PER_SECOND=1000000\nTRUSTED_PROXIES=127.0.0.1\n",
        ),
    );
    reload(&server);
    assert_eq!(limit("192.0.2.1"), Some(999_999));
    assert_eq!(limit("192.0.2.2"), Some(999_999));
    rewrite(&server, &conf(READ, ""));
    reload(&server);
    assert_eq!(limit("192.0.2.1"), None);
}

#[test]
fn the_log_level_changes() {
    let server = start();
    server.create("seen", 0).expect(201);
    server.logged(&["seen"]);
    rewrite(&server, &conf(READ, "RUST_LOG=info,events=off\n"));
    reload(&server);
    server.create("unseen", 0).expect(201);
    rewrite(&server, &conf(READ, ""));
    reload(&server);
    server.create("seen-again", 0).expect(201);
    server.logged(&["seen-again"]);
    assert!(!server.log().contains("unseen"));
}

#[test]
fn a_certificate_is_replaced_and_a_broken_one_is_not_taken() {
    let setup = Setup::new().conf(&conf(READ, ""));
    let folder = setup.folder().to_owned();
    let (cert, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    fs::copy(certificate_file("cert.pem"), &cert).unwrap();
    fs::copy(certificate_file("key.pem"), &key).unwrap();
    let server = setup
        .with("TLS_CERT_FILE", cert.to_str().unwrap())
        .with("TLS_KEY_FILE", key.to_str().unwrap())
        .start();
    let first = certificate_shown(&server);

    // The certificate without its key: what a reload in the middle of a renewal finds.
    replace_file(&cert, fs::read(certificate_file("other-cert.pem")).unwrap());
    reload(&server);
    server.logged(&["is not the key of the certificate"]);
    assert_eq!(certificate_shown(&server), first);

    replace_file(&key, fs::read(certificate_file("other-key.pem")).unwrap());
    reload(&server);
    server.logged(&["settings reloaded"]);
    assert_ne!(certificate_shown(&server), first);
}
