//! SIGHUP: what changes without a restart, and that nothing does when the settings are not in order.

use std::fs;

use rustix::process::Signal;

use crate::server::{LOCK, READ, Server, Setup, WRITE, data, eventually, replace_file};
use crate::tls::certificate_shown;

fn conf(read: &str, more: &str) -> String {
    format!("RESOURCE_READ={read}\nRESOURCE_READ_LOCK={LOCK}\nRESOURCE_WRITE={WRITE}\n{more}")
}

fn rewrite(server: &Server, text: &str) {
    replace_file(&server.folder.path().join("server.conf"), text);
}

fn reload(server: &Server) {
    let before = server.log().matches("reloaded").count();
    server.signal(Signal::HUP);
    eventually("the reload is in the log", || {
        (server.log().matches("reloaded").count() > before).then_some(())
    });
}

fn status_with(server: &Server, key: &str) -> u16 {
    server
        .ask("GET", "/resource", &[("x-api-key", key)], "")
        .status
}

#[test]
fn keys_rotate_without_an_outage() {
    let server = Server::start();
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
    let server = Server::start();
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
    let mut server = Server::start();
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
        (conf("x", "what is this\n"), "was not understood"),
    ] {
        rewrite(&server, &text);
        reload(&server);
        server.wait_for_log(said);
        assert_eq!(status_with(&server, READ), 200, "{text}");
        assert_eq!(status_with(&server, "x"), 401, "{text}");
    }
    fs::remove_file(server.folder.path().join("server.conf")).unwrap();
    reload(&server);
    assert_eq!(status_with(&server, READ), 200);
    assert!(!server.log().contains("settings reloaded"));
    assert!(server.is_running());
}

#[test]
fn what_needs_a_restart_is_named_and_only_that() {
    let server = Server::start();
    let more = "MAX_BODY_BYTES=10\nKEEP_ALIVE_SECONDS=1\nRUST_LOG=debug\nRATE_LIMIT_PER_SECOND=5\n";
    rewrite(&server, &conf(READ, more));
    reload(&server);
    server.wait_for_log("MAX_BODY_BYTES was changed, which needs a restart");
    server.wait_for_log("KEEP_ALIVE_SECONDS was changed, which needs a restart");
    assert_eq!(server.log().matches("needs a restart").count(), 2);
    // And indeed it has no effect.
    let key = [("x-api-key", WRITE)];
    let created = server.ask("POST", "/resource", &key, "{\"name\":\"a-long-name\"}");
    assert_eq!(created.status, 201, "{created:?}");
}

#[test]
fn the_rate_limit_and_trusted_proxies_change() {
    let server = Server::start();
    let limit = |forwarded: &str| {
        let headers = [("x-api-key", READ), ("X-Forwarded-For", forwarded)];
        let answer = server.ask("GET", "/resource", &headers, "");
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
    let server = Server::start();
    server.create("seen");
    server.wait_for_log("seen");
    rewrite(&server, &conf(READ, "RUST_LOG=info,events=off\n"));
    reload(&server);
    server.create("unseen");
    rewrite(&server, &conf(READ, ""));
    reload(&server);
    server.create("seen-again");
    server.wait_for_log("seen-again");
    assert!(!server.log().contains("unseen"));
}

#[test]
fn a_certificate_is_replaced_and_a_broken_one_is_not_taken() {
    let setup = Setup::new();
    let folder = setup.conf_path().parent().unwrap().to_owned();
    let (cert, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    fs::copy(data("cert.pem"), &cert).unwrap();
    fs::copy(data("key.pem"), &key).unwrap();
    let server = setup
        .with("TLS_CERT_FILE", cert.to_str().unwrap())
        .with("TLS_KEY_FILE", key.to_str().unwrap())
        .start();
    let first = certificate_shown(&server);

    // The certificate without its key: what a reload in the middle of a renewal finds.
    replace_file(&cert, fs::read(data("other-cert.pem")).unwrap());
    reload(&server);
    server.wait_for_log("is not the key of the certificate");
    assert_eq!(certificate_shown(&server), first);

    replace_file(&key, fs::read(data("other-key.pem")).unwrap());
    reload(&server);
    server.wait_for_log("settings reloaded");
    assert_ne!(certificate_shown(&server), first);
}
