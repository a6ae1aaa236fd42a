//! The limit on open files, which clients must not use up.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Command, Stdio};

use crate::stalled_log::Ended;
use crate::support::{Client, Setup, WRITE, free_port, until};

/// As many descriptors as connections would need are kept for the store and for watching.
#[test]
fn a_limit_on_open_files_below_max_connections_costs_clients_and_not_the_store() {
    let port = free_port();
    let setup = Setup::new()
        .sqlite()
        .with("HTTP_PORT", &port.to_string())
        .with("MAX_CONNECTIONS", "5000");
    let mut command = Command::new("sh");
    command
        .args(["-c", "ulimit -n 700 && exec \"$0\""])
        .arg(setup.command().get_program())
        .env_clear()
        .envs(setup.settings())
        .current_dir(setup.folder());
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let mut server = Ended(child.unwrap());
    let client = Client::at(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    let mut lines = BufReader::new(server.0.stderr.take().unwrap()).lines();
    let said = lines
        .by_ref()
        .map_while(Result::ok)
        .find(|line| line.contains("the limit on open files is 700"));
    assert!(said.is_some_and(|line| line.contains("380 connections are served")));
    let _reader = std::thread::spawn(move || lines.for_each(drop));
    until("it answers", || {
        TcpStream::connect(client.address()).is_ok()
    });
    let mut kept = client.connect();
    // More than there are descriptors for.
    let crowd: Vec<_> = (0..900)
        .map_while(|_| TcpStream::connect(client.address()).ok())
        .collect();
    assert_eq!(crowd.len(), 900);
    let created = kept.ask(
        "POST",
        "/resource",
        &[("x-api-key", WRITE)],
        "{\"name\":\"b\"}",
    );
    assert_eq!(created.status, 201, "{created:?}");
    drop(crowd);
    until("it is served again", || client.ready().send().status == 200);
    client.prepare("a");
    let (ticket, _) = client.hold("a/b");
    client.unlock("a/b", &ticket).expect(200);
}
