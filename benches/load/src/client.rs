//! One keep-alive connection that speaks just enough HTTP/1.1.
//!
//! It looks at an answer's status, its ticket, its fencing token and where it ends, and allocates nothing
//! per request, so that most of the machine is left to the server under test.

use std::io::{self, Write};
use std::ops::Range;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The key with which every request is made.
pub const KEY: &str = "bench-write";

/// A ticket as it stands in `X-Ticket`.
pub type Ticket = [u8; 32];

pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// What came and is not yet part of an answer that was handed out.
    unread: Range<usize>,
    request: Vec<u8>,
}

/// As much of an answer as the loops need.
pub struct Answer {
    pub status: u16,
    pub ticket: Option<Ticket>,
    pub token: Option<u64>,
    body: Range<usize>,
}

impl Connection {
    pub async fn open(address: &str) -> io::Result<Connection> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Connection {
            stream,
            buffer: vec![0; 2048],
            unread: 0..0,
            request: Vec::with_capacity(256),
        })
    }

    /// Sends one request and reads its answer.
    pub async fn send(
        &mut self,
        method: &str,
        path: &str,
        ticket: Option<&Ticket>,
        body: &[u8],
    ) -> io::Result<Answer> {
        let mut request = std::mem::take(&mut self.request);
        request.clear();
        write_request(&mut request, method, path, ticket, body);
        self.stream.write_all(&request).await?;
        self.request = request;
        self.answer().await
    }

    /// Sends what [`write_request`] has made of one or several requests; their answers are to be read one
    /// by one.
    pub async fn write(&mut self, requests: &[u8]) -> io::Result<()> {
        self.stream.write_all(requests).await
    }

    pub async fn answer(&mut self) -> io::Result<Answer> {
        loop {
            if let Some((mut answer, used)) = parse(&self.buffer[self.unread.clone()])? {
                let start = self.unread.start;
                answer.body = answer.body.start + start..answer.body.end + start;
                self.unread.start += used;
                return Ok(answer);
            }
            self.read().await?;
        }
    }

    /// The body of the answer that was read last.
    pub fn body(&self, answer: &Answer) -> &[u8] {
        &self.buffer[answer.body.clone()]
    }

    async fn read(&mut self) -> io::Result<()> {
        self.buffer.copy_within(self.unread.clone(), 0);
        self.unread = 0..self.unread.len();
        if self.unread.end == self.buffer.len() {
            self.buffer.resize(self.unread.end * 2, 0);
        }
        let free = &mut self.buffer[self.unread.end..];
        match self.stream.read(free).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            read => {
                self.unread.end += read;
                Ok(())
            }
        }
    }
}

pub fn write_request(
    out: &mut Vec<u8>,
    method: &str,
    path: &str,
    ticket: Option<&Ticket>,
    body: &[u8],
) {
    let words = [
        method,
        " ",
        path,
        " HTTP/1.1\r\nHost: bench\r\nx-api-key: ",
        KEY,
        "\r\n",
    ];
    for word in words {
        out.extend_from_slice(word.as_bytes());
    }
    if let Some(ticket) = ticket {
        out.extend_from_slice(b"X-Ticket: ");
        out.extend_from_slice(ticket);
        out.extend_from_slice(b"\r\n");
    }
    if !body.is_empty() {
        // Writing to memory cannot fail.
        let _ = write!(out, "Content-Length: {}\r\n", body.len());
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(body);
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

/// No answer of ours or of a peer has more headers.
const HEADERS_MAX: usize = 24;

/// The first answer in `bytes` and its length; `None` when it is not complete.
fn parse(bytes: &[u8]) -> io::Result<Option<(Answer, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Response::new(&mut headers);
    let parsed = head.parse(bytes).map_err(io::Error::other)?;
    let httparse::Status::Complete(end) = parsed else {
        return Ok(None);
    };
    let mut answer = Answer {
        status: head.code.ok_or_else(|| malformed("no status"))?,
        ticket: None,
        token: None,
        body: end..end,
    };
    for header in head.headers {
        let (name, value) = (header.name, header.value);
        match name.len() {
            14 if name.eq_ignore_ascii_case("content-length") => {
                answer.body.end += number(value).ok_or_else(|| malformed("no length"))? as usize;
            }
            17 if name.eq_ignore_ascii_case("transfer-encoding") => {
                return Err(malformed("an answer in chunks"));
            }
            8 if name.eq_ignore_ascii_case("x-ticket") => answer.ticket = value.try_into().ok(),
            15 if name.eq_ignore_ascii_case("x-fencing-token") => answer.token = number(value),
            _ => {}
        }
    }
    let used = answer.body.end;
    Ok((bytes.len() >= used).then_some((answer, used)))
}

fn number(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Fails with what was answered unless it is what was expected.
pub fn expect(connection: &Connection, answer: &Answer, what: &str, good: bool) -> io::Result<()> {
    if good {
        return Ok(());
    }
    let body = String::from_utf8_lossy(connection.body(answer)).into_owned();
    Err(io::Error::other(format!(
        "{what}: {} {body}",
        answer.status
    )))
}

pub fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// The paths of one resource, made once: formatting them for each request would be a part of its cost.
pub struct Paths {
    pub lock: String,
    /// Makes the name if it is not there.
    pub lock_creating: String,
    /// Waits as long as the server lets a client wait.
    pub lock_waiting: String,
    pub unlock: String,
    pub read: String,
    pub write: String,
    pub write_and_release: String,
}

impl Paths {
    pub fn of(name: &str) -> Paths {
        let path = |rest| format!("/resource/{name}{rest}");
        Paths {
            lock: path("/q/lock"),
            lock_creating: path("/q/lock?create=1"),
            lock_waiting: path("/q/lock?wait=300"),
            unlock: path("/q/unlock"),
            read: path("/q?lock=0"),
            write: path("/q"),
            write_and_release: path("/q?unlock=1"),
        }
    }
}

/// Takes the lock of a name that nobody else wants, or waits for it as long as the path says.
pub async fn lock(c: &mut Connection, path: &str) -> io::Result<(Ticket, u64)> {
    let answer = c.send("PUT", path, None, b"").await?;
    let locked = answer.status == 200 && contains(c.body(&answer), b"\"locked\":true");
    expect(c, &answer, "lock", locked)?;
    match (answer.ticket, answer.token) {
        (Some(ticket), Some(token)) => Ok((ticket, token)),
        _ => Err(malformed("a grant without ticket or token")),
    }
}

pub async fn unlock(c: &mut Connection, path: &str, ticket: &Ticket) -> io::Result<()> {
    let answer = c.send("PUT", path, Some(ticket), b"").await?;
    expect(c, &answer, "unlock", answer.status == 200)
}

pub async fn create(c: &mut Connection, name: &str) -> io::Result<()> {
    let body = format!("{{\"name\":\"{name}\",\"timeout\":300}}");
    let answer = c.send("POST", "/resource", None, body.as_bytes()).await?;
    expect(c, &answer, "create", answer.status == 201)
}
