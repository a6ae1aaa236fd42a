//! Readers of events that are stuck: they ask for the stream and take nothing from it, so that all that a
//! server can do for them piles up.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::client::KEY;
use crate::process::{Result, Server};

/// They leave when this is dropped.
pub struct Readers {
    _streams: Vec<TcpStream>,
}

/// Returns when each of them has the head of its stream.
pub fn attach(server: &Server, count: usize) -> Result<Readers> {
    let streams = (0..count).map(|_| open(&server.address));
    let streams: std::io::Result<Vec<TcpStream>> = streams.collect();
    let streams = streams.map_err(|e| format!("readers of events: {e}"))?;
    Ok(Readers { _streams: streams })
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
