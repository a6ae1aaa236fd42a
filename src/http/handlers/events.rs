//! GET `/events`: what happens, as server-sent events.

use std::rc::Rc;
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::http::header;
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use serde::Serialize;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use crate::cluster::events::EventReader;
use crate::http::auth::{KnownKey, Right, identify};
use crate::http::errors::ApiError;
use crate::http::headers::X_API_KEY;
use crate::http::request::Request;
use crate::http::respond::Response;
use crate::http::time::Time;
use crate::lock::Mode;
use crate::shared::event_feed::{FeedEvent, Found};

/// How often a reader looks for events.
const LOOK_PAUSE: Duration = Duration::from_millis(200);
/// A comment is sent when nothing else was for so long, so that proxies keep the connection.
const COMMENT_PAUSE: Duration = Duration::from_secs(15);
/// What is sent at once, about; the rest waits in the ring until it is taken.
const CHUNK_BYTES: usize = 64 << 10;

/// One event on the wire; `null` is what is not known.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EventBody<'a> {
    name: &'a str,
    selector: Option<&'a str>,
    owner: Option<&'a str>,
    reason: Option<&'a str>,
    mode: Option<&'a str>,
    fencing_token: Option<u64>,
    key: Option<&'a str>,
    client: Option<String>,
    at: Time,
}

fn render(event: &FeedEvent) -> Bytes {
    let body = EventBody {
        name: event.name.as_str(),
        selector: event.selector.as_deref(),
        owner: event.owner.as_deref(),
        reason: event.reason.as_deref(),
        mode: event.mode.map(Mode::name),
        fencing_token: event.fencing_token,
        key: event.key.as_deref(),
        client: event.client.map(|address| address.to_string()),
        at: Time(event.at),
    };
    // JSON of serde_json has no line breaks, which would end the event.
    let json = serde_json::to_string(&body).unwrap_or_default();
    Bytes::from(format!(
        "event: {}\ndata: {json}\n\n",
        event.happening.name()
    ))
}

/// One reader's stream.
struct Following {
    request: Rc<Request>,
    reader: EventReader,
    prefix: String,
    looks: Interval,
    sent: Instant,
}

impl Following {
    /// The key it was asked for with, while it is one.
    fn key(&self) -> Option<KnownKey> {
        let presented = self.request.http.headers().get(&X_API_KEY)?;
        let policy = self.request.worker.policy.load();
        identify(&policy.keys, presented.as_bytes())
    }

    fn covers(&self, key: &KnownKey, name: &str) -> bool {
        name.starts_with(&self.prefix) && key.right_to(name) >= Some(Right::Read)
    }

    /// What there is to send now; `None`: the stream ends.
    fn chunk(&mut self, key: &KnownKey) -> Option<BytesMut> {
        let mut chunk = BytesMut::new();
        while chunk.len() < CHUNK_BYTES {
            match self.reader.look() {
                Found::Event(event) if self.covers(key, event.name.as_str()) => {
                    chunk.extend_from_slice(&event.rendered(render));
                }
                Found::Event(_) => {}
                Found::Missed(count) => {
                    let text = format!("event: lagged\ndata: {{\"missed\":{count}}}\n\n");
                    chunk.extend_from_slice(text.as_bytes());
                }
                Found::Nothing => break,
                Found::End if chunk.is_empty() => return None,
                Found::End => break,
            }
        }
        Some(chunk)
    }

    /// The next chunk, once there is one; `None` when the stream ends: the key is none any more, or this
    /// server does not serve.
    async fn next(mut self) -> Option<(Result<Bytes, actix_web::Error>, Following)> {
        loop {
            self.looks.tick().await;
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
    let reader = req.worker.door.follow(&prefix).await;
    let reader = reader.map_err(ApiError::Closed)?.ok_or(ApiError::TooBusy(
        "as many clients follow the events as may",
    ))?;
    if let Some(connection) = &req.connection {
        connection.begin_stream();
    }
    let mut looks = interval(LOOK_PAUSE);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let following = Following {
        request: req,
        reader,
        prefix,
        looks,
        sent: Instant::now(),
    };
    // Sent at once, so that whoever connects knows that it follows from here on.
    let first = Bytes::from_static(b": following\n\n");
    let rest = stream::unfold(following, Following::next);
    let body = futures_util::StreamExt::chain(stream::once(async { Ok(first) }), rest);
    Ok(HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, "text/event-stream"))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        // nginx passes it on as it comes.
        .insert_header(("X-Accel-Buffering", "no"))
        .streaming(body))
}
