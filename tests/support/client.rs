//! An HTTP/1.1 client that hides nothing: header names arrive in the case they were sent in, requests may
//! be any bytes, and a connection can be left in every way a client can leave.
//!
//! What the contract says about *every* answer is checked here, on every answer.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};
use socket2::{Domain, SockRef, Socket, Type};

use super::setup::{ADMIN, WRITE};
use super::{DEADLINE, until};

/// Who asks one server, with the key that may write unless a call has another one.
#[derive(Clone, Debug)]
pub struct Client {
    address: SocketAddr,
    /// What a busy machine makes late is asked for again.
    is_patient: bool,
}

impl Client {
    pub fn at(address: SocketAddr) -> Client {
        Client {
            address,
            is_patient: false,
        }
    }

    /// What tests do all the time is asked for again while the answer is 503; so it must be what may happen
    /// twice.
    pub fn patient(&self) -> Client {
        Client {
            is_patient: true,
            ..self.clone()
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn connect(&self) -> Connection {
        Connection::to(self.address)
    }

    /// From an address of its own, 127.0.0.`last`.
    pub fn connect_from(&self, last: u8) -> Connection {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let own = SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), 0));
        socket.bind(&own.into()).unwrap();
        socket.connect(&self.address.into()).unwrap();
        Connection::on(TcpStream::from(socket))
    }

    // ---- a verb per endpoint; `path` is `name/selector`, escaped as it is to be sent ------------------

    /// Any request.
    pub fn call(&self, method: &str, target: &str) -> Call {
        Call::new(self.address, method, target).key(WRITE)
    }

    pub fn create(&self, name: &str, timeout: u32) -> Call {
        let body = json!({"name": name, "timeout": timeout});
        self.call("POST", "/resource").body(body.to_string())
    }

    /// GET with lock intent, as it is the default.
    pub fn get(&self, path: &str) -> Call {
        self.call("GET", &format!("/resource/{path}"))
    }

    pub fn read(&self, path: &str) -> Call {
        self.get(path).query("lock=0")
    }

    pub fn put(&self, path: &str, data: &str) -> Call {
        self.call("PUT", &format!("/resource/{path}")).body(data)
    }

    /// Of a document, or of a whole resource.
    pub fn delete(&self, path: &str) -> Call {
        self.call("DELETE", &format!("/resource/{path}"))
    }

    pub fn lock(&self, path: &str) -> Call {
        self.call("PUT", &format!("/resource/{path}/lock"))
    }

    pub fn renew(&self, path: &str, ticket: &str) -> Call {
        self.call("PUT", &format!("/resource/{path}/renew"))
            .ticket(ticket)
    }

    pub fn unlock(&self, path: &str, ticket: &str) -> Call {
        self.call("POST", &format!("/resource/{path}/unlock"))
            .ticket(ticket)
    }

    pub fn force_unlock(&self, name: &str) -> Call {
        self.call("POST", &format!("/resource/{name}/force-unlock"))
            .key(ADMIN)
            .body(r#"{"reason":"the test says so"}"#)
    }

    pub fn describe(&self, name: &str) -> Call {
        self.call("GET", &format!("/resource/{name}"))
    }

    pub fn list(&self, query: &str) -> Call {
        self.call("GET", "/resource").query(query)
    }

    pub fn health(&self) -> Call {
        self.call("GET", "/health").no_key()
    }

    /// What the gate says: 200, or 503 with the reason.
    pub fn ready(&self) -> Call {
        self.call("GET", "/ready").no_key()
    }

    // ---- what tests do all the time -------------------------------------------------------------------

    /// The answer, which has this status.
    #[track_caller]
    fn have(&self, call: &Call, status: u16) -> Answer {
        let answer = match self.is_patient {
            true => call.settled(),
            false => call.send(),
        };
        assert_eq!(answer.status, status, "{call:?}: {answer:?}");
        answer
    }

    /// A resource without a timeout, with `{"v":1}` at selector `s`.
    #[track_caller]
    pub fn prepare(&self, name: &str) {
        let create = self.create(name, 0);
        match self.is_patient {
            // There may be one already.
            true => drop(create.settled()),
            false => drop(create.expect(201)),
        }
        self.have(&self.put(&format!("{name}/s"), r#"{"v":1}"#), 204);
    }

    /// Takes the lock, which must be free; the ticket and the fencing token.
    #[track_caller]
    pub fn hold(&self, path: &str) -> (String, u64) {
        self.hold_with(self.lock(path))
    }

    /// As [`Client::hold`], with an owner, a lease and so on.
    #[track_caller]
    pub fn hold_with(&self, lock: Call) -> (String, u64) {
        let answer = self.have(&self.repeatable(lock), 200);
        assert_eq!(answer.json()["locked"], true, "{answer:?}");
        (answer.ticket(), answer.token())
    }

    /// Joins the queue without waiting; the lock must be taken.
    #[track_caller]
    pub fn queue(&self, path: &str) -> String {
        let answer = self.have(&self.repeatable(self.lock(path)), 200);
        assert_eq!(answer.json()["locked"], false, "{answer:?}");
        answer.ticket()
    }

    fn repeatable(&self, call: Call) -> Call {
        match self.is_patient {
            true => call.idempotency_key(&uuid::Uuid::new_v4().to_string()),
            false => call,
        }
    }

    /// A request that waits for the lock; it is in the queue when this returns.
    #[track_caller]
    pub fn wait(&self, path: &str) -> Connection {
        self.wait_with(self.lock(path))
    }

    /// As [`Client::wait`], for a lock with an owner, a lease and so on.
    #[track_caller]
    pub fn wait_with(&self, lock: Call) -> Connection {
        let rest = lock.target.strip_prefix("/resource/").unwrap();
        let name = rest.split('/').next().unwrap();
        let before = self.waiting(name);
        let waiter = lock.clone().query("wait=60").open();
        until("the waiter queues", || self.waiting(name) > before);
        waiter
    }

    #[track_caller]
    pub fn described(&self, name: &str) -> Value {
        self.have(&self.describe(name), 200).json()
    }

    #[track_caller]
    pub fn waiting(&self, name: &str) -> u64 {
        self.described(name)["waiting"].as_u64().unwrap()
    }

    #[track_caller]
    pub fn is_locked(&self, name: &str) -> bool {
        self.described(name)["locked"].as_bool().unwrap()
    }

    /// When the lease expires that holds now.
    #[track_caller]
    pub fn expires_at(&self, name: &str) -> SystemTime {
        let expires = &self.described(name)["holder"]["expiresAt"];
        humantime::parse_rfc3339(expires.as_str().expect("a time")).expect("a time")
    }

    /// The data at a selector, as text.
    #[track_caller]
    pub fn data(&self, path: &str) -> String {
        let answer = self.have(&self.read(path), 200);
        answer.json()["data"].as_str().unwrap().to_owned()
    }

    /// The names of all resources.
    #[track_caller]
    pub fn names(&self) -> Vec<String> {
        let listing = self.call("GET", "/resource").expect(200).json();
        let resources = listing["resources"].as_array().unwrap();
        let name = |resource: &Value| resource["name"].as_str().unwrap().to_owned();
        resources.iter().map(name).collect()
    }

    pub fn is_ready(&self) -> bool {
        self.ready().send().status == 200
    }

    /// A store may be ours a moment after the server listens.
    #[track_caller]
    pub fn until_ready(&self) {
        until("the server is ready", || self.is_ready());
    }

    #[track_caller]
    pub fn metrics(&self) -> String {
        let answer = self.call("GET", "/metrics").no_key().expect(200);
        answer.text().to_owned()
    }
}

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

    /// As JSON, which is all there is in the body.
    pub fn owner(self, owner: &str) -> Call {
        self.json(&json!({"owner": owner}))
    }

    pub fn json(self, body: &Value) -> Call {
        self.body(body.to_string())
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
    #[track_caller]
    pub fn send(&self) -> Answer {
        self.open().answer()
    }

    /// As [`Call::send`], where the test knows the status.
    #[track_caller]
    pub fn expect(&self, status: u16) -> Answer {
        let answer = self.send();
        assert_eq!(answer.status, status, "{self:?}: {answer:?}");
        answer
    }

    /// As [`Call::expect`], for a refusal with a code.
    #[track_caller]
    pub fn refused(&self, status: u16, code: &str) -> Answer {
        let answer = self.send();
        answer.assert_refused(status, code);
        answer
    }

    /// A call for the lock that gets it.
    #[track_caller]
    pub fn granted(&self) -> Answer {
        let answer = self.expect(200);
        assert_eq!(answer.json()["locked"], true, "{self:?}: {answer:?}");
        answer
    }

    /// A call for the lock that has to queue.
    #[track_caller]
    pub fn queued(&self) -> Answer {
        let answer = self.expect(200);
        assert_eq!(answer.json()["locked"], false, "{self:?}: {answer:?}");
        answer
    }

    /// The first answer that is not 503; so the call must be one that may happen twice.
    #[track_caller]
    pub fn settled(&self) -> Answer {
        let start = Instant::now();
        loop {
            let answer = self.send();
            if answer.status != 503 {
                return answer;
            }
            assert!(start.elapsed() < DEADLINE, "still refused: {answer:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl std::fmt::Debug for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.method, self.target)
    }
}

/// The bytes of a request that says just this.
pub fn request(method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Vec<u8> {
    let mut text = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() {
        text.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    (text + "\r\n" + body).into_bytes()
}

/// One connection to the server.
pub struct Connection<S = TcpStream> {
    pub stream: S,
    /// Read, and not part of an answer yet.
    unread: Vec<u8>,
}

impl<S: Read + Write> Connection<S> {
    /// Of any kind, as one of TLS is.
    pub fn over(stream: S) -> Connection<S> {
        Connection {
            stream,
            unread: Vec::new(),
        }
    }

    pub fn write(&mut self, bytes: &(impl AsRef<[u8]> + ?Sized)) {
        self.stream.write_all(bytes.as_ref()).expect("send");
        self.stream.flush().expect("send");
    }

    /// As [`Connection::write`], where the server may have hung up already.
    pub fn try_write(&mut self, bytes: &(impl AsRef<[u8]> + ?Sized)) {
        let _ = self.stream.write_all(bytes.as_ref());
    }

    #[track_caller]
    pub fn exchange(&mut self, call: &Call) -> Answer {
        self.write(&call.bytes());
        self.answer()
    }

    /// Just these headers, and no key besides.
    #[track_caller]
    pub fn ask(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        self.write(&request(method, target, headers, body));
        self.answer()
    }

    /// The next answer, checked against what holds for every answer.
    #[track_caller]
    pub fn answer(&mut self) -> Answer {
        let answer = self.unchecked_answer().expect("an answer");
        answer.check();
        answer
    }

    /// `None`: the server closed the connection without a word.
    #[track_caller]
    pub fn unchecked_answer(&mut self) -> Option<Answer> {
        match self.try_answer(false) {
            Ok(answer) => Some(answer),
            Err(error) if is_end(&error) => {
                let left = String::from_utf8_lossy(&self.unread);
                assert_eq!(left, "", "half an answer");
                None
            }
            Err(error) => panic!("no answer: {error}"),
        }
    }

    /// The answer to HEAD: its length is that of a body that does not follow.
    #[track_caller]
    pub fn bodiless_answer(&mut self) -> Answer {
        self.try_answer(true).expect("an answer")
    }

    /// The next answer, whatever it says; what came of half an answer stays unread.
    pub fn try_answer(&mut self, is_bodiless: bool) -> io::Result<Answer> {
        let head_end = loop {
            if let Some(at) = find(&self.unread, b"\r\n\r\n") {
                break at;
            }
            self.read_more()?;
        };
        let mut answer = Answer::parse_head(&self.unread[..head_end]);
        let length = match is_bodiless || matches!(answer.status, 204 | 304) || answer.status < 200
        {
            true => 0,
            false => answer.content_length(),
        };
        let end = head_end + 4 + length;
        while self.unread.len() < end {
            self.read_more()?;
        }
        let rest = self.unread.split_off(end);
        let mut whole = std::mem::replace(&mut self.unread, rest);
        answer.body = whole.split_off(head_end + 4);
        Ok(answer)
    }

    fn read_more(&mut self) -> io::Result<()> {
        let mut chunk = [0; 65536];
        let count = self.stream.read(&mut chunk)?;
        self.unread.extend_from_slice(&chunk[..count]);
        match count {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// A part of an answer has come.
    pub fn has_unread(&self) -> bool {
        !self.unread.is_empty()
    }

    /// Everything that comes until the server closes the connection.
    pub fn rest(&mut self) -> io::Result<Vec<u8>> {
        let mut rest = std::mem::take(&mut self.unread);
        self.stream.read_to_end(&mut rest)?;
        Ok(rest)
    }

    /// The server closes the connection, in order, without another word.
    #[track_caller]
    pub fn assert_closed(&mut self) {
        let rest = self.rest().expect("an orderly end");
        assert_eq!(String::from_utf8_lossy(&rest), "");
    }

    /// Has the server closed this connection, with nothing left to read?
    pub fn is_closed_by_server(&mut self) -> bool {
        match self.read_more() {
            Ok(()) => false,
            Err(error) if is_end(&error) => true,
            Err(error) => panic!("neither open nor closed: {error}"),
        }
    }
}

fn is_end(error: &io::Error) -> bool {
    let ends = [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset];
    ends.contains(&error.kind())
}

impl Connection {
    #[track_caller]
    pub fn to(address: SocketAddr) -> Connection {
        Connection::try_to(address).expect("connect")
    }

    pub fn try_to(address: SocketAddr) -> io::Result<Connection> {
        Ok(Connection::on(TcpStream::connect_timeout(
            &address, DEADLINE,
        )?))
    }

    fn on(stream: TcpStream) -> Connection {
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Connection::over(stream)
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
        let abrupt = Some(Duration::ZERO);
        SockRef::from(&self.stream).set_linger(abrupt).unwrap();
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
        let version = first.strip_prefix("HTTP/1.1 ");
        let status = version.or(first.strip_prefix("HTTP/1.0 "));
        let status = status.expect("a status line");
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

    fn content_length(&self) -> usize {
        let length = self.header_in_any_case("content-length");
        length.expect("Content-Length").parse().unwrap()
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

    /// A refusal with this status and code; that it has a sentence is checked of all.
    #[track_caller]
    pub fn assert_refused(&self, status: u16, code: &str) {
        let is = (self.status, self.code());
        assert_eq!((is.0, is.1.as_str()), (status, code), "{self:?}");
    }

    /// What the contract says of every answer.
    #[track_caller]
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
        let is_page = self.header("Content-Security-Policy").is_some();
        if !matches!(self.status, 204 | 304) && !is_page {
            // All but the metrics and the operator's page is JSON.
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
            let known = matches!(
                key.as_str(),
                "error" | "code" | "holder" | "reserved" | "forced"
            );
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

/// Where it is for the first time.
pub fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}
