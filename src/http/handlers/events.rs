//! GET `/events`: durable changes of locks and documents, as server-sent events.

use std::rc::Rc;
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::http::header;
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use serde_json::json;
use tokio::sync::broadcast::error::TryRecvError;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use crate::cluster::events::EventReader;
use crate::http::auth::{KnownKey, Right, identify};
use crate::http::headers::X_API_KEY;
use crate::http::request::Request;
use crate::http::respond::Response;
use crate::http::time::rfc3339;
use crate::shared::event_feed::FeedEvent;

/// Time between two polls of a reader for new events.
const POLL_PAUSE: Duration = Duration::from_millis(200);
/// Silence after which a comment is sent, so that proxies keep the connection open.
const COMMENT_PAUSE: Duration = Duration::from_secs(15);
/// Bytes that are sent at once, approximately. Further events stay in the ring until the reader takes these.
const CHUNK_BYTES: usize = 64 << 10;

/// An event as the stream has it. Unknown fields are `null`.
fn render(event: &FeedEvent) -> Bytes {
    let body = json!({
        "name": event.name,
        "selector": event.selector,
        "owner": event.owner,
        "reason": event.reason,
        "mode": event.mode,
        "fencingToken": event.fencing_token,
        "key": event.key,
        "client": event.client,
        "at": rfc3339(event.at).to_string(),
    });
    let kind = event.kind.event_name();
    // serde_json writes no line breaks. One would end the event.
    Bytes::from(format!("event: {kind}\ndata: {body}\n\n"))
}

/// One reader's stream of events.
struct EventStream {
    request: Rc<Request>,
    reader: EventReader,
    prefix: String,
    polls: Interval,
    sent: Instant,
}

impl EventStream {
    /// The key that the stream was opened with; `None` once it is no longer valid.
    fn key(&self) -> Option<KnownKey> {
        let presented = self.request.http.headers().get(&X_API_KEY)?;
        let policy = self.request.worker.policy.load();
        identify(&policy.keys, presented.as_bytes())
    }

    fn covers(&self, key: &KnownKey, name: &str) -> bool {
        name.starts_with(&self.prefix) && key.right_to(name) >= Some(Right::Read)
    }

    /// The events that can be sent now, possibly none; `None` ends the stream.
    fn chunk(&mut self, key: &KnownKey) -> Option<BytesMut> {
        let mut chunk = BytesMut::new();
        while chunk.len() < CHUNK_BYTES {
            match self.reader.try_next() {
                Ok(event) if self.covers(key, event.name.as_str()) => {
                    chunk.extend_from_slice(&event.rendered(render));
                }
                Ok(_) => {}
                Err(TryRecvError::Lagged(count)) => {
                    let text = format!("event: lagged\ndata: {{\"missed\":{count}}}\n\n");
                    chunk.extend_from_slice(text.as_bytes());
                }
                Err(TryRecvError::Closed) if chunk.is_empty() => return None,
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        Some(chunk)
    }

    /// Waits for the next chunk. `None` ends the stream: its key is no longer valid, or events may be missing.
    async fn next(mut self) -> Option<(Result<Bytes, actix_web::Error>, EventStream)> {
        loop {
            self.polls.tick().await;
            let key = self.key()?;
            let mut chunk = self.chunk(&key)?;
            if chunk.is_empty() && self.sent.elapsed() >= COMMENT_PAUSE {
                chunk.extend_from_slice(b": still here\n\n");
            }
            if !chunk.is_empty() {
                self.sent = Instant::now();
                return Some((Ok(chunk.freeze()), self));
            }
        }
    }
}

/// GET `/events`.
pub async fn events(req: Rc<Request>) -> Response {
    req.authorize(Right::Read)?;
    let prefix = req.query()?.get("prefix").unwrap_or("").to_owned();
    let reader = req.worker.cluster.follow(&prefix).await?;
    if let Some(connection) = &req.connection {
        connection.begin_stream();
    }
    let mut polls = interval(POLL_PAUSE);
    polls.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let following = EventStream {
        request: req,
        reader,
        prefix,
        polls,
        sent: Instant::now(),
    };
    // Sent at once: it tells the client that events are in the stream from here on.
    let first = Bytes::from_static(b": following\n\n");
    let rest = stream::unfold(following, EventStream::next);
    let body = futures_util::StreamExt::chain(stream::once(async { Ok(first) }), rest);
    Ok(HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, "text/event-stream"))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        // Tells nginx not to buffer the stream.
        .insert_header(("X-Accel-Buffering", "no"))
        .streaming(body))
}
