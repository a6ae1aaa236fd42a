//! What is sent again, and what is not: against a server that answers as it is told to.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::server::client;
use small_resource_client::{Client, Error, Guard};

/// A request, as far as it matters here.
#[derive(Debug)]
struct Seen {
    line: String,
    ticket: Option<String>,
    key: Option<String>,
    id: String,
    at: Instant,
}

/// Answers the requests in their order, one connection each, with a status, more headers and a body.
fn scripted(answers: &[(u16, &str, &str)]) -> (String, Receiver<Seen>) {
    let answers: Vec<_> = answers
        .iter()
        .map(|(status, headers, body)| (*status, (*headers).to_owned(), (*body).to_owned()))
        .collect();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (told, seen) = channel();
    thread::spawn(move || {
        for (status, headers, body) in answers {
            answer(
                &listener.accept().unwrap().0,
                &told,
                status,
                &headers,
                &body,
            );
        }
    });
    (url, seen)
}

fn answer(stream: &TcpStream, told: &Sender<Seen>, status: u16, headers: &str, body: &str) {
    let mut reader = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if line.trim().is_empty() {
            break;
        }
        lines.push(line.trim().to_owned());
    }
    let header = |name: &str| {
        lines.iter().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then(|| value.to_owned())
        })
    };
    let length = header("content-length").map_or(0, |length| length.parse().unwrap());
    reader.read_exact(&mut vec![0; length]).unwrap();
    let id = header("x-request-id").unwrap();
    let head = format!(
        "HTTP/1.1 {status} Told\r\nX-Request-Id: {id}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n",
        body.len()
    );
    let _ = told.send(Seen {
        line: lines[0].clone(),
        ticket: header("x-ticket"),
        key: header("idempotency-key"),
        id,
        at: Instant::now(),
    });
    (&mut &*stream)
        .write_all(format!("{head}{body}").as_bytes())
        .unwrap();
}

const QUEUED: &str = r#"{"locked": false, "ticket": "t", "position": 1}"#;
const GRANTED: &str =
    r#"{"locked": true, "ticket": "t", "fencingToken": 7, "ttl": 30, "waitedMs": 0}"#;
const RELEASED: &str = r#"{"unlocked": true}"#;

async fn acquire(client: &Client) -> Result<Guard, Error> {
    client.lock("a").create(true).acquire().await
}

#[tokio::test(flavor = "multi_thread")]
async fn overload_is_tried_again_after_the_pause_that_was_asked_for() {
    let (url, seen) = scripted(&[
        (200, "", QUEUED),
        (429, "Retry-After: 1\r\n", ""),
        (
            503,
            "Retry-After: 1\r\n",
            r#"{"error": "Moving.", "code": "moving"}"#,
        ),
        (502, "", "<html>"),
        (200, "", GRANTED),
        (200, "", RELEASED),
    ]);
    let guard = acquire(&client(&url).build().unwrap()).await.unwrap();
    assert_eq!(guard.fencing_token().unwrap(), 7);
    guard.release().await.unwrap();
    let seen: Vec<Seen> = seen.iter().collect();
    assert_eq!(seen.len(), 6);
    for pair in seen[1..4].windows(2) {
        assert!(pair[1].at - pair[0].at >= Duration::from_secs(1));
    }
    // The same attempt each time, with its ticket as soon as that is known, and never the same request twice.
    assert_eq!(seen[0].ticket, None);
    for request in &seen[..5] {
        assert!(request.line.starts_with("PUT /resource/a/lock/lock?"));
        assert_eq!(request.key, seen[0].key);
    }
    assert!(
        seen[1..]
            .iter()
            .all(|request| request.ticket.as_deref() == Some("t"))
    );
    let mut ids: Vec<_> = seen.iter().map(|request| &request.id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_asked_for_once() {
    for status in [400, 401, 404, 409, 413] {
        let body = r#"{"error": "No.", "code": "no"}"#;
        let (url, seen) = scripted(&[(status, "", body), (200, "", GRANTED)]);
        let refused = acquire(&client(&url).build().unwrap()).await.unwrap_err();
        let Error::Refused {
            status: told,
            code,
            message,
        } = refused
        else {
            panic!("{refused}")
        };
        assert_eq!(
            (told, code.as_str(), message.as_str()),
            (status, "no", "No.")
        );
        assert!(
            seen.recv().is_ok() && seen.try_recv().is_err(),
            "{status} is asked for again"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_longer_than_the_wait_ends_it() {
    let (url, _seen) = scripted(&[(
        503,
        "Retry-After: 60\r\n",
        r#"{"error": "Later.", "code": "too_busy"}"#,
    )]);
    let began = Instant::now();
    let impatient = client(&url)
        .timeout(Duration::from_secs(2))
        .build()
        .unwrap();
    let error = acquire(&impatient).await.unwrap_err();
    assert_eq!(error.code(), Some("too_busy"));
    assert!(began.elapsed() < Duration::from_secs(30));
}

#[test]
fn guards_go_wherever_they_are_needed() {
    fn goes_anywhere<T: Send + 'static>() {}
    goes_anywhere::<Guard>();
    goes_anywhere::<small_resource_client::Guards>();
    goes_anywhere::<small_resource_client::Place>();
}
