//! Refusals that leave before a request reached a route: the head was malformed, too large or too slow, or
//! there are too many connections.
//!
//! The HTTP/1 dispatcher answers the first three by itself, with an empty body and lowercase header names;
//! [`connection`](super::connection) recognises these heads and sends one of ours instead.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use actix_web::rt::time::{Sleep, sleep};
use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::wire::ErrorBody;

/// What a client may still send after it was refused, and for how long. Closing a socket with unread
/// bytes in it resets the connection, and the client might never see the answer.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES_MAX: usize = 1 << 20;

/// No head that the dispatcher writes by itself is longer.
const OWN_HEAD_BYTES_MAX: usize = 256;
const END: &[u8] = b"\r\n\r\n";

/// Why a connection is ended before a request was taken from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Early {
    Malformed,
    HeadTooSlow,
    HeadTooLarge,
    TooManyConnections,
    Internal,
}

impl Early {
    fn of_status(status: u16) -> Early {
        match status {
            408 => Early::HeadTooSlow,
            431 => Early::HeadTooLarge,
            400..=499 => Early::Malformed,
            _ => Early::Internal,
        }
    }

    fn status_line(self) -> &'static str {
        match self {
            Early::Malformed => "400 Bad Request",
            Early::HeadTooSlow => "408 Request Timeout",
            Early::HeadTooLarge => "431 Request Header Fields Too Large",
            Early::TooManyConnections => "503 Service Unavailable",
            Early::Internal => "500 Internal Server Error",
        }
    }

    /// The stable `code` of the error body.
    pub fn code(self) -> &'static str {
        match self {
            Early::Malformed => "malformed",
            Early::HeadTooSlow => "head_timeout",
            Early::HeadTooLarge => "head_too_large",
            Early::TooManyConnections => "too_many_connections",
            Early::Internal => "internal",
        }
    }

    fn sentence(self) -> &'static str {
        match self {
            Early::Malformed => "The request is not well-formed HTTP/1.1.",
            Early::HeadTooSlow => "The request head did not arrive in time.",
            Early::HeadTooLarge => "The request head is too large.",
            Early::TooManyConnections => "Too many connections are open; try again later.",
            Early::Internal => "The server failed to handle the request.",
        }
    }

    /// The whole answer, after which the connection closes.
    fn answer(self) -> Bytes {
        let body = ErrorBody {
            error: self.sentence().to_owned(),
            code: self.code(),
            holder: None,
        };
        // A body of strings: serialising it cannot fail.
        let body = serde_json::to_string(&body).unwrap_or_default();
        let retry = match self {
            Early::TooManyConnections => "Retry-After: 1\r\n",
            _ => "",
        };
        let head = format!(
            "HTTP/1.1 {}\r\nContent-Length: {}\r\nConnection: close\r\nContent-Type: application/json\r\n{retry}Date: {}\r\n\r\n",
            self.status_line(),
            body.len(),
            actix_web::http::header::HttpDate::from(SystemTime::now()),
        );
        Bytes::from(head + &body)
    }
}

/// Does this output end with an answer that the dispatcher wrote by itself? Then where it starts, and what
/// it says.
///
/// Such an answer is the last one of its connection, is written whole, and has no body, so that output that
/// contains one ends with it. Nothing else looks like it: our own answers have header names in title case,
/// and what they carry is JSON or metrics, in which a line cannot be `HTTP/1.1 400 Bad Request`.
pub fn dispatchers_own(output: &[u8]) -> Option<(usize, Early)> {
    if !output.ends_with(END) {
        return None;
    }
    let tail = output.len().saturating_sub(OWN_HEAD_BYTES_MAX);
    let start = tail + rfind(&output[tail..], b"HTTP/1.")?;
    let (line, headers) = split_at_line_end(&output[start..])?;
    if !matches!(line.get(7..9)?, b"0 " | b"1 ") {
        return None;
    }
    let status = std::str::from_utf8(line.get(9..12)?).ok()?.parse().ok()?;
    let empty = headers.starts_with(b"content-length: 0\r\n");
    (empty && status >= 400).then(|| (start, Early::of_status(status)))
}

fn rfind(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).rposition(|part| part == wanted)
}

fn split_at_line_end(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = text.windows(2).position(|part| part == b"\r\n")?;
    Some((&text[..end], &text[end + 2..]))
}

/// An answer on its way out, after which the connection is of no use.
pub struct Refusal {
    answer: Bytes,
    shut: bool,
    drained: usize,
    deadline: Pin<Box<Sleep>>,
}

impl Refusal {
    pub fn new(why: Early) -> Refusal {
        Refusal::of_bytes(why.answer())
    }

    /// Ends the connection without a word.
    pub fn silent() -> Refusal {
        Refusal::of_bytes(Bytes::new())
    }

    fn of_bytes(answer: Bytes) -> Refusal {
        Refusal {
            answer,
            shut: false,
            drained: 0,
            deadline: Box::pin(sleep(LINGER)),
        }
    }

    /// Writes the answer, ends the own direction, and reads what still comes until the peer has ended its
    /// own, too. Never takes longer than [`LINGER`]; what fails meanwhile does not matter any more.
    pub fn poll<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        if self.deadline.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        if ready!(self.poll_answer(stream, cx)).is_err() {
            return Poll::Ready(());
        }
        let mut space = [0; 4096];
        while self.drained < LINGER_BYTES_MAX {
            let mut buffer = ReadBuf::new(&mut space);
            let read = ready!(Pin::new(&mut *stream).poll_read(cx, &mut buffer));
            if read.is_err() || buffer.filled().is_empty() {
                break;
            }
            self.drained += buffer.filled().len();
        }
        Poll::Ready(())
    }

    fn poll_answer<S: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        while self.answer.has_remaining() {
            let written = ready!(Pin::new(&mut *stream).poll_write(cx, &self.answer))?;
            if written == 0 {
                return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into()));
            }
            self.answer.advance(written);
        }
        if !self.shut {
            ready!(Pin::new(&mut *stream).poll_flush(cx))?;
            ready!(Pin::new(&mut *stream).poll_shutdown(cx))?;
            self.shut = true;
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATE: &str = "date: Thu, 01 Jan 1970 00:00:00 GMT\r\n";

    fn own(status: &str, more: &str) -> Vec<u8> {
        format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n{more}{DATE}\r\n").into_bytes()
    }

    #[test]
    fn the_dispatchers_own_answers_are_recognised() {
        for (status, more, early) in [
            ("400 Bad Request", "", Early::Malformed),
            ("400 Bad Request", "connection: close\r\n", Early::Malformed),
            (
                "408 Request Timeout",
                "connection: close\r\n",
                Early::HeadTooSlow,
            ),
            (
                "431 Request Header Fields Too Large",
                "",
                Early::HeadTooLarge,
            ),
            ("500 Internal Server Error", "", Early::Internal),
        ] {
            let head = own(status, more);
            assert_eq!(dispatchers_own(&head), Some((0, early)), "{status}");
            let before = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}".as_slice();
            let pipelined = [before, &head].concat();
            assert_eq!(dispatchers_own(&pipelined), Some((before.len(), early)));
            let long = [vec![b'x'; 100_000], head].concat();
            assert_eq!(dispatchers_own(&long), Some((100_000, early)));
        }
    }

    #[test]
    fn every_piece_of_an_answer_that_is_not_whole_is_left_alone() {
        let head = own("400 Bad Request", "connection: close\r\n");
        for end in 0..head.len() {
            assert_eq!(dispatchers_own(&head[..end]), None, "{end}");
        }
        for start in 1..head.len() {
            assert_eq!(dispatchers_own(&head[start..]), None, "{start}");
        }
    }

    #[test]
    fn our_own_answers_are_left_alone() {
        let text = |text: &str| text.as_bytes().to_vec();
        for output in [
            text("HTTP/1.1 204 No Content\r\nDate: x\r\n\r\n"),
            text("HTTP/1.1 100 Continue\r\n\r\n"),
            text("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nDate: x\r\n\r\n"),
            text("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
            // Bodies: JSON text may end in line ends, and quote whatever it likes on one line.
            text("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n[1]\r\n\r\n"),
            text("[\"HTTP/1.1 400 Bad Request\\r\\ncontent-length: 0\\r\\n\"]\r\n\r\n"),
            text("\r\n\r\n"),
            text(""),
        ] {
            assert_eq!(dispatchers_own(&output), None, "{output:?}");
        }
    }

    #[test]
    fn an_answer_is_json_in_title_case_and_closes_the_connection() {
        let answer = String::from_utf8(Early::TooManyConnections.answer().to_vec()).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(
            head.starts_with("HTTP/1.1 503 Service Unavailable\r\n"),
            "{head}"
        );
        assert!(head.contains("\r\nConnection: close\r\n"), "{head}");
        assert!(head.contains("\r\nRetry-After: 1\r\n"), "{head}");
        assert!(
            head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())),
            "{head}"
        );
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["code"], "too_many_connections");
        assert!(body["error"].as_str().unwrap().ends_with('.'));
    }
}
