//! Readers of events that are stuck: they ask for the stream and take nothing from it, so that all that a
//! server can do for them piles up.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::client::KEY;
use crate::process::{Result, Server};

/// They leave when this is dropped.
pub struct Readers {
    streams: Vec<TcpStream>,
}

/// More than the kernel keeps for one of them.
const PEEK_BYTES: usize = 8 << 20;

impl Readers {
    /// Bytes that wait for them on their side. No more come once they are stuck.
    pub fn piled_up(&self) -> Result<usize> {
        let mut buffer = vec![0; PEEK_BYTES];
        let mut waiting = |stream: &TcpStream| {
            stream.set_nonblocking(true)?;
            match stream.peek(&mut buffer) {
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(0),
                told => told,
            }
        };
        let all: std::io::Result<usize> = self.streams.iter().map(&mut waiting).sum();
        all.map_err(|e| format!("readers of events: {e}"))
    }
}

/// Returns when each of them has the head of its stream.
pub fn attach(server: &Server, count: usize) -> Result<Readers> {
    let streams = (0..count).map(|_| open(&server.address));
    let streams: std::io::Result<Vec<TcpStream>> = streams.collect();
    let streams = streams.map_err(|e| format!("readers of events: {e}"))?;
    Ok(Readers { streams })
}

fn open(address: &str) -> std::io::Result<TcpStream> {
    const BEGUN: &[u8] = b"HTTP/1.1 200";
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let request = format!("GET /events HTTP/1.1\r\nHost: bench\r\nx-api-key: {KEY}\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut start = [0; BEGUN.len()];
    stream.read_exact(&mut start)?;
    match start == BEGUN {
        true => Ok(stream),
        false => Err(std::io::Error::other(
            String::from_utf8_lossy(&start).into_owned(),
        )),
    }
}
