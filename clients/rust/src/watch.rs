//! What happens to locks and documents, as it happens.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use crate::client::Client;
use crate::error::Error;
use crate::names;
use crate::transport::{Transport, backoff, unreachable_read};

/// The server says something every 15 s; after twice that and a bit the connection counts as dead.
const SILENCE_MAX: Duration = Duration::from_secs(40);
/// An event is far smaller; what is longer is no event.
const LINE_BYTES_MAX: usize = 1 << 20;

/// Something that happened.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[non_exhaustive]
pub struct Event {
    /// `created`, `deleted`, `granted`, `queued`, `left`, `released`, `expired`, `forced_off`, `written`; or `lagged`: we
    /// were too slow, and events were left out.
    pub kind: String,
    /// The resource.
    pub name: Option<String>,
    /// The document.
    pub selector: Option<String>,
    /// Whose lock it is.
    pub owner: Option<String>,
    /// What for.
    pub reason: Option<String>,
    /// `exclusive` or `shared`.
    pub mode: Option<String>,
    /// The lease's token.
    pub fencing_token: Option<u64>,
    /// The name of the key that did it.
    pub key: Option<String>,
    /// The address that did it.
    pub client: Option<String>,
    /// When, RFC 3339.
    pub at: Option<String>,
    /// With `lagged`: how many were left out.
    pub missed: Option<u64>,
    /// The server's own JSON of it, in one line, with the kind as `kind`; also what this version does not know.
    #[serde(skip)]
    pub json: String,
}

/// A stream of events; made by [`Client::watch`].
#[must_use = "events are read with `next`"]
pub struct Watch {
    transport: Arc<Transport>,
    path: String,
    response: reqwest::Response,
    reader: EventReader,
    /// How often it was opened again since the last event.
    reopened: u32,
}

impl Client {
    /// Follows what happens to the names that begin with `prefix`, from now on. Nothing is replayed: list what there is
    /// after this call, and again after each error of [`Watch::next`].
    ///
    /// # Errors
    /// [`Error::Refused`] or [`Error::Unreachable`].
    pub async fn watch(&self, prefix: &str) -> Result<Watch, Error> {
        let path = format!("/events?prefix={}", names::escaped(prefix));
        let opened = self.transport.open(&path).await;
        let response = opened.map_err(|(error, _)| error)?;
        Ok(Watch {
            transport: Arc::clone(&self.transport),
            path,
            response,
            reader: EventReader::default(),
            reopened: 0,
        })
    }
}

impl Watch {
    /// The next event; `None` when the server has ended the stream, as it does when it stops. After that, and after an
    /// error, [`Watch::reconnect`] goes on.
    ///
    /// # Errors
    /// [`Error::Unreachable`]: the connection broke. Events may have been missed.
    pub async fn next(&mut self) -> Result<Option<Event>, Error> {
        loop {
            if let Some(event) = self.reader.next()? {
                self.reopened = 0;
                return Ok(Some(event));
            }
            let chunk = tokio::time::timeout(SILENCE_MAX, self.response.chunk()).await;
            let server = || self.response.url().origin().ascii_serialization();
            let silent =
                |_| Error::Unreachable(format!("{}: the stream of events fell silent", server()));
            let broke = |error| unreachable_read(&server(), error);
            match chunk.map_err(silent)?.map_err(broke)? {
                Some(bytes) => self.reader.take(&bytes)?,
                None => return Ok(None),
            }
        }
    }

    /// Opens the stream again, and waits for a server for as long as that takes. What happened in between is missing:
    /// list what there is after this call.
    ///
    /// # Errors
    /// [`Error::Refused`]: waiting does not help, as with a key that is not valid any more.
    pub async fn reconnect(&mut self) -> Result<(), Error> {
        let mut at_least = Duration::ZERO;
        loop {
            // Before the first try too: a server that is about to stop may end each stream at once.
            self.reopened = self.reopened.saturating_add(1);
            tokio::time::sleep(at_least.saturating_add(backoff(self.reopened))).await;
            match self.transport.open(&self.path).await {
                Ok(response) => {
                    (self.response, self.reader) = (response, EventReader::default());
                    return Ok(());
                }
                Err((_, Some(pause))) => at_least = pause,
                Err((error, None)) => return Err(error),
            }
        }
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}

/// Server-sent events out of the bytes that bring them.
#[derive(Default)]
struct EventReader {
    /// The line that is not whole yet.
    line: Vec<u8>,
    kind: String,
    data: String,
    events: VecDeque<(String, String)>,
}

impl EventReader {
    fn take(&mut self, bytes: &[u8]) -> Result<(), Error> {
        for byte in bytes {
            match byte {
                b'\n' => self.line_ended(),
                _ => self.line.push(*byte),
            }
        }
        if self.line.len() + self.data.len() > LINE_BYTES_MAX {
            return Err(Error::not_understood(
                "the stream of events",
                "a line without an end",
            ));
        }
        Ok(())
    }

    fn line_ended(&mut self) {
        let line = std::mem::take(&mut self.line);
        let line = String::from_utf8_lossy(&line);
        let line = line.strip_suffix('\r').unwrap_or(&line);
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "" if line.is_empty() => {
                let (kind, data) = (
                    std::mem::take(&mut self.kind),
                    std::mem::take(&mut self.data),
                );
                if !data.is_empty() || !kind.is_empty() {
                    self.events.push_back((kind, data));
                }
            }
            "event" => value.clone_into(&mut self.kind),
            "data" => self.data += value,
            // A comment, or what a later version brings.
            _ => {}
        }
    }

    fn next(&mut self) -> Result<Option<Event>, Error> {
        let Some((kind, data)) = self.events.pop_front() else {
            return Ok(None);
        };
        let read = serde_json::from_str::<Event>(&data);
        let event = read.map_err(|error| Error::not_understood("an event", error))?;
        Ok(Some(Event {
            json: with_kind(&kind, &data),
            kind,
            ..event
        }))
    }
}

/// The JSON object of an event, with the kind, which the stream tells beside it.
fn with_kind(kind: &str, data: &str) -> String {
    let fields = data.trim();
    let fields = fields.strip_prefix('{').unwrap_or(fields).trim_start();
    let comma = if fields.starts_with('}') { "" } else { "," };
    format!("{{\"kind\":{}{comma}{fields}", serde_json::json!(kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_however_the_bytes_are_cut() {
        let text = ": here\n\nevent: granted\ndata: {\"name\": \"a\", \"fencingToken\": 7, \"new\": [1]}\n\n\
                    event: lagged\r\ndata: {\"missed\": 12}\r\n\r\n";
        for size in [1, 2, 7, 1000] {
            let mut reader = EventReader::default();
            for piece in text.as_bytes().chunks(size) {
                reader.take(piece).unwrap();
            }
            let granted = reader.next().unwrap().unwrap();
            assert_eq!(
                (granted.kind.as_str(), granted.fencing_token),
                ("granted", Some(7))
            );
            assert_eq!(
                granted.json,
                r#"{"kind":"granted","name": "a", "fencingToken": 7, "new": [1]}"#
            );
            let lagged = reader.next().unwrap().unwrap();
            assert_eq!((lagged.kind.as_str(), lagged.missed), ("lagged", Some(12)));
            assert_eq!(reader.next().unwrap(), None);
        }
    }

    #[test]
    fn a_line_without_an_end_is_not_kept() {
        let mut reader = EventReader::default();
        assert!(reader.take(&vec![b'x'; LINE_BYTES_MAX + 1]).is_err());
    }
}
