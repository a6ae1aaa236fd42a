//! HTTP/1.1 over a TCP connection that may break at any byte, on either side.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;
use socket2::SockRef;

/// How the client leaves before it has its answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cut {
    /// After this part of the request's bytes, in percent.
    MidRequest(u64),
    /// After the request, and this long a wait for the first bytes of the answer.
    MidAnswer(Duration),
}

#[derive(Debug, PartialEq)]
pub enum Failure {
    /// The request cannot have reached the server.
    NotSent,
    /// It may have.
    Lost,
}

pub struct Answer {
    pub status: u16,
    head: String,
    pub body: Vec<u8>,
}

impl Answer {
    /// Of a header in exactly this spelling.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.split("\r\n").skip(1);
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }
}

/// The bytes of a request.
pub fn request(method: &str, target: &str, headers: &[(&str, String)], body: &str) -> Vec<u8> {
    let mut text = format!("{method} {target} HTTP/1.1\r\nHost: chaos\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
    text.into_bytes()
}

/// A client's connection, made anew whenever it broke or leads elsewhere.
#[derive(Default)]
pub struct Wire {
    open: Option<(SocketAddr, TcpStream)>,
}

impl Wire {
    /// One request and its answer. After a failure the connection is closed.
    pub fn exchange(
        &mut self,
        to: SocketAddr,
        bytes: &[u8],
        limit: Duration,
        cut: Option<Cut>,
    ) -> Result<Answer, Failure> {
        let kept = self.open.take().filter(|(address, _)| *address == to);
        let mut stream = match kept {
            Some((_, stream)) => stream,
            None => connect(to).map_err(|_| Failure::NotSent)?,
        };
        if let Some(cut) = cut {
            leave_early(stream, bytes, cut);
            return Err(Failure::Lost);
        }
        stream.write_all(bytes).map_err(|_| Failure::Lost)?;
        let (answer, stays) = read_answer(&mut stream, limit).ok_or(Failure::Lost)?;
        if stays {
            self.open = Some((to, stream));
        }
        Ok(answer)
    }
}

fn connect(to: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, Duration::from_secs(2))?;
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(Duration::from_secs(5)))?;
    Ok(stream)
}

fn leave_early(mut stream: TcpStream, bytes: &[u8], cut: Cut) {
    let sent = match cut {
        Cut::MidRequest(percent) => bytes.len() * percent as usize / 100,
        Cut::MidAnswer(_) => bytes.len(),
    };
    // Whatever fails here, this connection is over.
    let _ = stream.write_all(&bytes[..sent]);
    if let Cut::MidAnswer(wait) = cut {
        let _ = stream.set_read_timeout(Some(wait.max(Duration::from_millis(1))));
        let _ = stream.read(&mut [0; 7]);
    }
    let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
}

/// The answer, and whether the connection stays open after it.
fn read_answer(stream: &mut TcpStream, limit: Duration) -> Option<(Answer, bool)> {
    let deadline = Instant::now() + limit;
    let mut bytes = Vec::new();
    let head_end = loop {
        if let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break at;
        }
        read_more(stream, &mut bytes, deadline)?;
    };
    let head = std::str::from_utf8(&bytes[..head_end]).ok()?.to_owned();
    let status = head.get(9..12)?.parse().ok()?;
    let mut answer = Answer {
        status,
        head,
        body: Vec::new(),
    };
    let length: usize = match answer.header("Content-Length") {
        Some(length) => length.parse().ok()?,
        None => 0,
    };
    while bytes.len() < head_end + 4 + length {
        read_more(stream, &mut bytes, deadline)?;
    }
    answer.body = bytes.split_off(head_end + 4);
    let stays = answer.header("Connection") != Some("close");
    Some((answer, stays))
}

fn read_more(stream: &mut TcpStream, bytes: &mut Vec<u8>, deadline: Instant) -> Option<()> {
    let left = deadline.checked_duration_since(Instant::now())?;
    stream
        .set_read_timeout(Some(left.max(Duration::from_millis(1))))
        .ok()?;
    let mut chunk = [0; 16384];
    match stream.read(&mut chunk) {
        Ok(0) => None,
        Ok(count) => {
            bytes.extend_from_slice(&chunk[..count]);
            Some(())
        }
        Err(error) if error.kind() == ErrorKind::Interrupted => Some(()),
        Err(_) => None,
    }
}
