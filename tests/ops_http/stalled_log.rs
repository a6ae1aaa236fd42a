//! A log reader that stalls, on a real pipe.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Client, LOCK, Setup, free_port, until};

pub struct Ended(pub Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start() -> (Ended, Client) {
    let port = free_port();
    let setup = Setup::new()
        .with("HTTP_PORT", &port.to_string())
        .with("ACCESS_LOG", "true");
    let mut command = setup.command();
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let child = Ended(command.spawn().unwrap());
    let client = Client::at(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    until("it answers", || {
        std::net::TcpStream::connect(client.address()).is_ok()
    });
    (child, client)
}

fn dropped(client: &Client) -> u64 {
    let text = client.metrics();
    let name = "resource_server_log_lines_dropped_total ";
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap().parse().unwrap()
}

/// Until lines are dropped: the pipe is full, and so is the queue.
fn fill(client: &Client) {
    let mut connection = client.connect();
    let key = [("x-api-key", LOCK)];
    for n in 0..200_000 {
        let answer = connection.ask("GET", "/resource/none", &key, "");
        assert_eq!(answer.status, 404);
        if n % 1000 == 0 && dropped(client) > 0 {
            return;
        }
    }
    panic!("no line was ever dropped");
}

#[test]
fn a_log_reader_that_stalls_holds_up_no_request_and_not_the_end() {
    let (mut server, client) = start();
    fill(&client);
    client.prepare("a");
    let (ticket, _) = client.hold("a/b");
    client.unlock("a/b", &ticket).expect(200);
    client.ready().expect(200);
    let pid = Pid::from_raw(server.0.id() as i32).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    until("it ends", || server.0.try_wait().unwrap().is_some());
}

#[test]
fn lines_that_were_dropped_are_said_once_somebody_reads_again() {
    let (mut server, client) = start();
    fill(&client);
    let lines = BufReader::new(server.0.stderr.take().unwrap()).lines();
    let said = lines
        .map_while(Result::ok)
        .find(|line| line.ends_with("log lines were dropped here: nobody read them"));
    assert!(said.is_some());
}

#[test]
fn a_second_interrupt_ends_at_once() {
    let setup = Setup::new()
        .with("SHUTDOWN_DELAY_SECONDS", "600")
        .with("STORE", "memory");
    let mut server = setup.start();
    server.signal(Signal::INT);
    server.logged(&["SIGINT: shutting down"]);
    // The second is listened for a moment after the first was told.
    until("it ends", || {
        if server.is_running() {
            server.signal(Signal::INT);
        }
        !server.is_running()
    });
}
