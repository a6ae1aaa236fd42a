//! An HTTP/1.1 client that hides nothing: header names arrive in the case they were sent in, requests may
//! be any bytes, and a connection can be left in every way a client can leave.
//!
//! What the contract says about *every* answer is checked here, on every answer.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;
use socket2::SockRef;

/// Nothing in these tests takes this long unless it is broken.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// A request in the making, and where it goes.
#[derive(Clone)]
pub struct Call {
    address: SocketAddr,
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Option<Vec<u8>>,
}

impl Call {
    pub fn new(address: SocketAddr, method: &str, target: &str) -> Call {
        Call {
            address,
            method: method.to_owned(),
            target: target.to_owned(),
            headers: Vec::new(),
            body: None,
        }
    }

    /// Adds a header, also when there is one of that name.
    pub fn header(mut self, name: &str, value: &str) -> Call {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With this key in the place of whichever there was.
    pub fn key(self, key: &str) -> Call {
        self.no_key().header("x-api-key", key)
    }

    pub fn no_key(mut self) -> Call {
        self.headers
            .retain(|(name, _)| !name.eq_ignore_ascii_case("x-api-key"));
        self
    }

    pub fn ticket(self, ticket: &str) -> Call {
        self.header("X-Ticket", ticket)
    }

    pub fn idempotency_key(self, key: &str) -> Call {
        self.header("Idempotency-Key", key)
    }

    /// Adds `name=value` to the query.
    pub fn query(mut self, pair: &str) -> Call {
        let mark = if self.target.contains('?') { '&' } else { '?' };
        self.target = format!("{}{mark}{pair}", self.target);
        self
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Call {
        self.body = Some(body.into());
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        head.push_str(&format!("Host: {}\r\n", self.address));
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if let Some(body) = &self.body {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(self.body.as_deref().unwrap_or_default());
        bytes
    }

    /// Sends it on a connection of its own and leaves the answer to be read.
    pub fn open(&self) -> Connection {
        let mut connection = Connection::to(self.address);
        connection.write(&self.bytes());
        connection
    }

    /// The answer, on a connection of its own.
    pub fn send(&self) -> Answer {
        self.open().answer()
    }

    /// As [`Call::send`], where the test knows the status.
    pub fn expect(&self, status: u16) -> Answer {
        let answer = self.send();
        assert_eq!(
            answer.status, status,
            "{} {}: {answer:?}",
            self.method, self.target
        );
        answer
    }

    /// As [`Call::expect`], for a refusal with a code.
    pub fn refused(&self, status: u16, code: &str) -> Answer {
        let answer = self.expect(status);
        assert_eq!(
            answer.code(),
            code,
            "{} {}: {answer:?}",
            self.method,
            self.target
        );
        answer
    }
}

/// One TCP connection to the server.
pub struct Connection {
    stream: TcpStream,
    /// Read, and not part of an answer yet.
    unread: Vec<u8>,
}

impl Connection {
    pub fn to(address: SocketAddr) -> Connection {
        let stream = TcpStream::connect_timeout(&address, DEADLINE).expect("connect");
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Connection {
            stream,
            unread: Vec::new(),
        }
    }

    pub fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("send");
    }

    /// As [`Connection::write`], where the server may have hung up already.
    pub fn try_write(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    pub fn exchange(&mut self, call: &Call) -> Answer {
        self.write(&call.bytes());
        self.answer()
    }

    /// The next answer, checked against what holds for every answer.
    pub fn answer(&mut self) -> Answer {
        let answer = self.unchecked_answer().expect("an answer");
        answer.check();
        answer
    }

    /// `None`: the server closed the connection without a word.
    pub fn unchecked_answer(&mut self) -> Option<Answer> {
        let head_end = loop {
            if let Some(at) = find(&self.unread, b"\r\n\r\n") {
                break at;
            }
            if !self.read_more() {
                let left = String::from_utf8_lossy(&self.unread).into_owned();
                assert_eq!(left, "", "half an answer");
                return None;
            }
        };
        let head: Vec<u8> = self.unread.drain(..head_end + 4).collect();
        let mut answer = Answer::parse_head(&head[..head_end]);
        answer.body = self.body_of(&answer);
        Some(answer)
    }

    /// The answer to HEAD: its length is that of a body that does not follow.
    pub fn bodiless_answer(&mut self) -> Answer {
        let head_end = loop {
            if let Some(at) = find(&self.unread, b"\r\n\r\n") {
                break at;
            }
            assert!(self.read_more(), "no answer");
        };
        let head: Vec<u8> = self.unread.drain(..head_end + 4).collect();
        Answer::parse_head(&head[..head_end])
    }

    fn body_of(&mut self, answer: &Answer) -> Vec<u8> {
        if answer.status == 204 || answer.status < 200 {
            return Vec::new();
        }
        let length = answer.header_in_any_case("content-length");
        let length: usize = length.expect("Content-Length").parse().unwrap();
        while self.unread.len() < length {
            assert!(self.read_more(), "the body ended early");
        }
        self.unread.drain(..length).collect()
    }

    fn read_more(&mut self) -> bool {
        let mut chunk = [0; 65536];
        match self.stream.read(&mut chunk) {
            Ok(0) => false,
            Ok(count) => {
                self.unread.extend_from_slice(&chunk[..count]);
                true
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
            Err(error) => panic!("no answer: {error}"),
        }
    }

    /// Has the server closed this connection, with nothing left to read?
    pub fn is_closed_by_server(&mut self) -> bool {
        !self.read_more()
    }

    /// Nothing has been answered so far.
    pub fn is_silent(&mut self) -> bool {
        self.stream.set_nonblocking(true).unwrap();
        let read = self.stream.peek(&mut [0]);
        self.stream.set_nonblocking(false).unwrap();
        self.unread.is_empty() && matches!(read, Err(e) if e.kind() == ErrorKind::WouldBlock)
    }

    /// Leaves with FIN.
    pub fn hang_up(self) {
        drop(self);
    }

    /// Closes the sending side only.
    pub fn end_sending(&mut self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// Leaves with RST.
    pub fn reset(self) {
        SockRef::from(&self.stream)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
        drop(self);
    }
}

/// An answer as it stood on the wire.
#[derive(Clone)]
pub struct Answer {
    pub status: u16,
    /// Names in the case they arrived in.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    fn parse_head(head: &[u8]) -> Answer {
        let head = std::str::from_utf8(head).expect("an ASCII head");
        let mut lines = head.split("\r\n");
        let first = lines.next().unwrap();
        let status = first.strip_prefix("HTTP/1.1 ").expect("a status line");
        let header = |line: &str| {
            let (name, value) = line.split_once(": ").expect("a header");
            (name.to_owned(), value.to_owned())
        };
        Answer {
            status: status[..3].parse().unwrap(),
            headers: lines.map(header).collect(),
            body: Vec::new(),
        }
    }

    /// The header of exactly this spelling.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(n, _)| n == name);
        let value = found.next().map(|(_, value)| value.as_str());
        assert!(found.next().is_none(), "{name} is there twice: {self:?}");
        value
    }

    fn header_in_any_case(&self, name: &str) -> Option<&str> {
        let found = self
            .headers
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("UTF-8")
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// The code of a refusal.
    pub fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or("").to_owned()
    }

    /// The ticket that the answer carries.
    pub fn ticket(&self) -> String {
        self.header("X-Ticket")
            .unwrap_or_else(|| panic!("no ticket: {self:?}"))
            .to_owned()
    }

    pub fn token(&self) -> u64 {
        self.header("X-Fencing-Token")
            .unwrap_or_else(|| panic!("no fencing token: {self:?}"))
            .parse()
            .unwrap()
    }

    /// What the contract says of every answer.
    pub fn check(&self) {
        for (name, _) in &self.headers {
            assert_eq!(*name, title_case(name), "{self:?}");
        }
        if let Some(ticket) = self.header("X-Ticket") {
            assert!(is_ticket(ticket), "{self:?}");
        }
        if let Some(token) = self.header("X-Fencing-Token") {
            assert!(token.parse::<u64>().is_ok_and(|t| t > 0), "{self:?}");
        }
        if self.status != 204 {
            // All but the metrics is JSON.
            let kind = match self.body.starts_with(b"# HELP ") {
                true => "text/plain; version=0.0.4; charset=utf-8",
                false => "application/json",
            };
            assert_eq!(self.header("Content-Type"), Some(kind), "{self:?}");
        }
        if self.status >= 400 {
            self.check_refusal();
        }
    }

    fn check_refusal(&self) {
        let body = self.json();
        let sentence = body["error"].as_str().expect("a sentence");
        assert!(
            sentence.len() > 10 && sentence.ends_with('.'),
            "{sentence:?} is no sentence"
        );
        let code = body["code"].as_str().expect("a code");
        assert!(
            !code.is_empty() && code.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'),
            "{code:?}"
        );
        for key in body.as_object().unwrap().keys() {
            let known = matches!(key.as_str(), "error" | "code" | "holder");
            assert!(known, "{self:?}");
        }
        assert_eq!(self.header("X-Ticket"), None, "{self:?}");
        if matches!(self.status, 429 | 503) {
            assert!(self.header("Retry-After").is_some(), "{self:?}");
        }
        assert_eq!(self.header("Allow").is_some(), self.status == 405);
    }
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let body = String::from_utf8_lossy(&self.body);
        let start: String = body.chars().take(500).collect();
        write!(f, "{} {:?} {start}", self.status, self.headers)
    }
}

pub fn is_ticket(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn title_case(name: &str) -> String {
    let words = name.split('-').map(|word| {
        let (first, rest) = word.split_at(word.len().min(1));
        first.to_ascii_uppercase() + &rest.to_ascii_lowercase()
    });
    words.collect::<Vec<_>>().join("-")
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// Waits until the condition holds; tests end here when it never does.
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < DEADLINE, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
