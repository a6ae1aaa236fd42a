//! Requests that no client would send, byte by byte, against the running server: generated from a seed,
//! pipelined, cut, repeated and oversized. Each gets its refusal or a closed connection, nobody gets what
//! was meant for another, and memory and open files end where they began.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::faults::complaints;
use crate::plan::{Plan, Random};
use crate::support::{Program, READ, Setup, request, until};

const THREADS: u64 = 4;
/// Documents `a/0`, `a/1`, … that say which they are.
const DOCUMENTS: u64 = 40;
/// Every connection ends with the request for this document; where the server closed it before, it never
/// comes.
const END: &[u8] = b"{\"the\":\"end\"}";
/// What memory may differ by: caches and allocator slack, not what thousands of requests would leave.
const MEMORY_SLACK: u64 = 48 << 20;

/// A message, and what is known about its answer.
enum Message {
    /// One answer: this document.
    Marker(u64),
    /// One answer, whatever it says.
    Framed(Vec<u8>),
    /// Perhaps none, perhaps several: the last one on its connection.
    Unframed(Vec<u8>),
}

impl Message {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Message::Marker(number) => {
                let target = format!("/resource/a/{number}?lock=0&raw=1");
                request("GET", &target, &[("x-api-key", READ)], "")
            }
            Message::Framed(bytes) | Message::Unframed(bytes) => bytes.clone(),
        }
    }
}

// ---- what is sent ---------------------------------------------------------------------------------------

const METHODS: &[&str] = &[
    "GET", "PUT", "POST", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW", "get", "PROPFIND",
    "M-SEARCH",
];
const PIECES: &[&str] = &[
    "resource",
    "b",
    "s",
    "lock",
    "unlock",
    "renew",
    "force-unlock",
    "health",
    "ready",
    "metrics",
    ".",
    "..",
    "%2F",
    "%2f%2F",
    "%00",
    "%FF",
    "%C3%28",
    "%",
    "%4",
    "%zz",
    "%25",
    "%E6%97%A5",
    "%ED%A0%80",
    "+",
    ";a=b",
    "*",
    "\"",
    "<x>",
    "{}",
    "|",
    "",
    "resource",
    "resource",
    "b",
    "b",
    "%F0%9F%98%80",
    "~",
    "@",
    ":80",
];
const QUERIES: &[&str] = &[
    "lock=0",
    "lock=1",
    "lock=2",
    "lock=",
    "lock",
    "raw=1",
    "wait=0",
    "wait=0.01",
    "wait=-1",
    "wait=1e9",
    "wait=NaN",
    "wait=0.0000000000000000001",
    "wait=99999999999999999999",
    "queue=0",
    "unlock=1",
    "limit=0",
    "limit=1",
    "limit=18446744073709551616",
    "prefix=%FF",
    "after=%00",
    "=",
    "&&&",
    "%",
    "a=%zz",
    "lock=0&lock=1",
];
const BODIES: &[&str] = &[
    "",
    "{}",
    "null",
    "[]",
    "{\"ttl\":1}",
    "{\"ttl\":-1}",
    "{\"ttl\":1e400}",
    "{\"ttl\":\"9999999999\"}",
    "{\"owner\":\"\\u0000\"}",
    "{\"owner\":\"\\ud800\"}",
    "{\"name\":\"b\"}",
    "{\"name\":\"\"}",
    "{\"name\":1}",
    "{\"name\":\"n\",\"timeout\":2147483648}",
    "{\"name\":\"n\",\"name\":\"m\"}",
    "{\"reason\":\"\"}",
    "{",
    "\"",
    "{\"a\":",
    "\u{feff}{}",
    "nul",
    "1e999",
    "\"\u{7f}\"",
    "{\"reason\":\"r\",\"fencingToken\":-1}",
];
const KEYS: &[&str] = &[
    READ,
    "key-to-lock",
    "key-to-write",
    "key-to-force",
    "",
    "key",
    "key-to-write ",
];
const TICKETS: &[&str] = &[
    "",
    "0",
    "0123456789abcdef0123456789abcdef",
    "0123456789ABCDEF0123456789ABCDEF",
    "x",
    "\t",
    "ä",
    "0123456789abcdef0123456789abcdef0",
];

fn target(random: &mut Random) -> String {
    let mut target = String::new();
    if random.percent(70) {
        target.push_str("/resource/b");
    }
    for _ in 0..random.below(4) {
        target.push('/');
        target.push_str(random.pick(PIECES));
        if random.percent(3) {
            let long = random.pick(&[200, 255, 256, 257, 4000]);
            target.push_str(&"n".repeat(long));
        }
    }
    if target.is_empty() || random.percent(3) {
        target = random
            .pick(&[
                "/",
                "*",
                "//",
                "/resource",
                "http://other/resource/b",
                "/resource/",
            ])
            .into();
    }
    for first in 0..random.below(3) {
        target.push(if first == 0 { '?' } else { '&' });
        target.push_str(random.pick(QUERIES));
    }
    target
}

/// A head without its framing.
fn head(random: &mut Random) -> Vec<u8> {
    let mut head = format!("{} {} HTTP/1.1\r\n", random.pick(METHODS), target(random));
    head.push_str("Host: h\r\n");
    for _ in 0..random.below(3) {
        head.push_str(&format!("x-api-key: {}\r\n", random.pick(KEYS)));
    }
    for _ in 0..random.below(3) {
        head.push_str(&format!("X-Ticket: {}\r\n", random.pick(TICKETS)));
    }
    if random.percent(20) {
        let key = "k".repeat(random.pick(&[0, 1, 255, 256, 3000]));
        head.push_str(&format!("Idempotency-Key: {key}\r\n"));
    }
    if random.percent(10) {
        let name = random.pick(&[
            "X-Forwarded-For",
            "Content-Type",
            "Accept-Encoding",
            "If-Match",
            "Range",
        ]);
        let value = random.pick(&[
            "1.1.1.1, x",
            "text/plain",
            "gzip",
            "*",
            "bytes=0-",
            "multipart/form-data",
        ]);
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if random.percent(5) {
        let many = (0..random.below(60)).map(|n| format!("X-{n}: {n}\r\n"));
        head.extend(many);
    }
    head.into_bytes()
}

/// Malformed inside, well-formed outside: one request by every reading of HTTP.
fn framed(random: &mut Random) -> Vec<u8> {
    let mut bytes = head(random);
    let mut body = random.pick(BODIES).as_bytes().to_vec();
    if random.percent(3) {
        body = vec![b'['; random.pick(&[512, 513, 5000])];
    }
    if random.percent(5) {
        body.push(random.next() as u8);
    }
    if random.percent(80) || body.is_empty() {
        bytes.extend(format!("Content-Length: {}\r\n\r\n", body.len()).bytes());
        bytes.extend(body);
        return bytes;
    }
    bytes.extend(b"Transfer-Encoding: chunked\r\n\r\n");
    for piece in body.chunks(1 + random.below(5) as usize) {
        bytes.extend(format!("{:x}\r\n", piece.len()).bytes());
        bytes.extend(piece);
        bytes.extend(b"\r\n");
    }
    bytes.extend(b"0\r\n\r\n");
    bytes
}

/// Malformed outside: truncated, of two lengths, of no length, or not HTTP.
fn unframed(random: &mut Random) -> Vec<u8> {
    let mut bytes = framed(random);
    match random.below(8) {
        0 => bytes.truncate(random.below(bytes.len() as u64) as usize),
        1 => {
            for _ in 0..=random.below(4) {
                let at = random.below(bytes.len() as u64) as usize;
                bytes[at] = random.next() as u8;
            }
        }
        2 => {
            let at = random.below(bytes.len() as u64) as usize;
            let noise: Vec<u8> = (0..random.below(20)).map(|_| random.next() as u8).collect();
            bytes.splice(at..at, noise);
        }
        3 => {
            bytes = head(random);
            let lengths = [
                "1",
                "0",
                "-1",
                "99999999999999999999",
                "2097153",
                "0x5",
                "+3",
                "1, 1",
            ];
            for _ in 0..=random.below(2) {
                bytes.extend(format!("Content-Length: {}\r\n", random.pick(&lengths)).bytes());
            }
            bytes.extend(b"\r\n{}");
        }
        4 => {
            bytes = head(random);
            let length = random.below(9);
            bytes.extend(
                format!("Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n\r\n").bytes(),
            );
            bytes.extend(b"0\r\n\r\n");
        }
        5 => {
            bytes = head(random);
            bytes.extend(b"Transfer-Encoding: chunked\r\n\r\n");
            let sizes = [
                "fffffffffffffffff",
                "-1",
                "5",
                "ZZ",
                "",
                "2;x=y",
                "7fffffffffffffff",
            ];
            bytes.extend(format!("{}\r\n{{}}\r\n0\r\n", random.pick(&sizes)).bytes());
        }
        6 => {
            bytes = head(random);
            let big = random.pick(&[9_000, 70_000, 200_000]);
            bytes.extend(format!("X-Big: {}\r\n\r\n", "v".repeat(big)).bytes());
        }
        _ => {
            bytes = (0..random.below(300))
                .map(|_| random.next() as u8)
                .collect()
        }
    }
    bytes
}

fn messages(random: &mut Random) -> Vec<Message> {
    let count = 2 + random.below(30);
    let mut messages: Vec<Message> = (0..count)
        .map(|_| match random.percent(40) {
            true => Message::Marker(random.below(DOCUMENTS)),
            false => Message::Framed(framed(random)),
        })
        .collect();
    if random.percent(50) {
        messages.push(Message::Unframed(unframed(random)));
    }
    messages
}

// ---- what comes back ------------------------------------------------------------------------------------

struct Reply {
    status: u16,
    body: Vec<u8>,
}

/// Sends everything at once, or in pieces, and reads until the server has nothing more to say.
fn exchange(to: SocketAddr, bytes: &[u8], random: &mut Random) -> Vec<u8> {
    let Ok(mut stream) = TcpStream::connect(to) else {
        panic!("the server does not take connections");
    };
    stream.set_nodelay(true).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    stream
        .set_write_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    if random.percent(4) {
        // Gone in the middle, without a word.
        let sent = random.below(bytes.len() as u64) as usize;
        let _ = stream.write_all(&bytes[..sent]);
        let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
        return Vec::new();
    }
    let mut sending = stream.try_clone().unwrap();
    let pieces = if random.percent(20) { 7 } else { bytes.len() };
    let to_send = bytes.to_vec();
    let sender = std::thread::spawn(move || {
        for piece in to_send.chunks(pieces.max(1)) {
            if sending.write_all(piece).is_err() {
                return;
            }
        }
    });
    let mut read = Vec::new();
    let mut chunk = [0; 65536];
    loop {
        let count = match stream.read(&mut chunk) {
            Ok(count @ 1..) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let sent = String::from_utf8_lossy(bytes);
                panic!("neither answered nor closed after {sent:?}");
            }
            Ok(_) | Err(_) => break,
        };
        read.extend_from_slice(&chunk[..count]);
        let new = read.len().saturating_sub(count + END.len());
        if read[new..].windows(END.len()).any(|window| window == END) {
            break;
        }
    }
    let _ = stream.shutdown(Shutdown::Both);
    sender.join().unwrap();
    read
}

/// The answers in these bytes; the last one may be cut short.
fn replies(mut bytes: &[u8]) -> Vec<Reply> {
    let mut replies = Vec::new();
    while let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
        let head = std::str::from_utf8(&bytes[..at])
            .expect("an ASCII head")
            .to_owned();
        let status = head
            .strip_prefix("HTTP/1.1 ")
            .or(head.strip_prefix("HTTP/1.0 "));
        let status = status.unwrap_or_else(|| panic!("no status line: {head:?}"));
        let status: u16 = status[..3].parse().expect("a status");
        let lengths = head.split("\r\n").filter_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("content-length")
                .then(|| value.parse::<usize>().unwrap())
        });
        let length = lengths.last().unwrap_or(0);
        bytes = &bytes[at + 4..];
        let body = bytes[..length.min(bytes.len())].to_vec();
        bytes = &bytes[body.len()..];
        replies.push(Reply { status, body });
    }
    replies
}

fn check(messages: &[Message], replies: &[Reply]) {
    let show = |index: usize| {
        let bytes = messages.get(index).map(Message::bytes).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let ours: Vec<String> = messages
        .iter()
        .filter_map(|message| match message {
            Message::Marker(number) => Some(document(*number)),
            _ => None,
        })
        .collect();
    for (index, reply) in replies.iter().enumerate() {
        let body = String::from_utf8_lossy(&reply.body);
        assert!(
            reply.status < 500,
            "{} {body} to {:?}",
            reply.status,
            show(index)
        );
        if let Some(Message::Marker(number)) = messages.get(index) {
            let all = (reply.status, body.as_ref());
            assert_eq!(
                all,
                (200, document(*number).as_str()),
                "someone else's answer"
            );
        } else if body.starts_with("{\"marker\":") {
            assert!(
                ours.contains(&body.to_string()),
                "{body} to {:?}",
                show(index)
            );
        }
    }
}

fn document(number: u64) -> String {
    format!("{{\"marker\":{number}}}")
}

fn attack(to: SocketAddr, mut random: Random, until: Instant, sent: &AtomicU64) {
    while Instant::now() < until {
        let messages = messages(&mut random);
        let mut bytes: Vec<u8> = messages.iter().flat_map(Message::bytes).collect();
        let last = [("x-api-key", READ), ("Connection", "close")];
        let end = request("GET", "/resource/a/end?lock=0&raw=1", &last, "");
        bytes.extend(end);
        let read = exchange(to, &bytes, &mut random);
        sent.fetch_add(messages.len() as u64, Ordering::Relaxed);
        check(&messages, &replies(&read));
    }
}

// ---- the test -------------------------------------------------------------------------------------------

fn prepare(server: &Program) {
    for name in ["a", "b"] {
        server.create(name, 1).expect(201);
    }
    for number in 0..DOCUMENTS {
        let put = server.put(&format!("a/{number}"), &document(number));
        put.expect(204);
    }
    let end = std::str::from_utf8(END).unwrap();
    server.put("a/end", end).expect(204);
}

fn open_files(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// All threads for so long; how many requests were sent.
fn storm(to: SocketAddr, seed: u64, time: Duration) -> u64 {
    let sent = Arc::new(AtomicU64::new(0));
    let until = Instant::now() + time;
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let (random, sent) = (Random::new(seed, thread), sent.clone());
            std::thread::spawn(move || attack(to, random, until, &sent))
        })
        .collect();
    let fine = threads.into_iter().all(|thread| thread.join().is_ok());
    assert!(
        fine,
        "the seed was {seed}: CHAOS_SEED={seed} sends the same again"
    );
    sent.load(Ordering::Relaxed)
}

#[test]
fn hostile_bytes_get_a_refusal_and_leave_nothing_behind() {
    let plan = Plan::from_env();
    println!("hostile input: CHAOS_SEED={}", plan.seed);
    let setup = Setup::new().sqlite().with_all(&[
        ("MAX_WAIT_SECONDS", "1"),
        ("CLAIM_SECONDS", "0.05"),
        ("TICKET_TTL_SECONDS", "1"),
        ("REQUEST_TIMEOUT_SECONDS", "1"),
        ("BODY_TIMEOUT_SECONDS", "1"),
        ("KEEP_ALIVE_SECONDS", "1"),
    ]);
    let mut server = setup.start();
    prepare(&server);
    let (to, pid) = (server.address(), server.pid());
    // What is allocated once is allocated now.
    let time = plan.time / 4;
    let mut sent = storm(to, plan.seed, time);
    until("the first connections are closed", || open_files(pid) < 40);
    let (files, memory) = (open_files(pid), server.memory());
    sent += storm(to, plan.seed.wrapping_add(1), time);
    until("every file is closed", || open_files(pid) <= files);
    let grown = server.memory().saturating_sub(memory);
    println!(
        "hostile input: {sent} requests, memory {memory} bytes and {grown} more, {files} open files"
    );
    assert!(grown < MEMORY_SLACK, "{grown} bytes more than before");
    assert!(sent > 100, "hardly anything was sent");
    let complaints = complaints(&server);
    assert!(
        complaints.is_empty(),
        "in the server's log: {complaints:#?}"
    );
    server.stop();
}
