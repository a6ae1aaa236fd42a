//! Who sent a request, for log lines. Small and cheap to copy: made for every request, and written out for few.

use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::lock::Ticket;

/// The value of `X-Request-Id`. Visible ASCII, so that it is always one word of a log line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RequestTag {
    /// Made by this server: the number of the worker, then the number of the request.
    Made { worker: u32, number: u64 },
    /// Taken from the client.
    Given(SmolStr),
}

/// Longest `X-Request-Id` that is taken from a client, in characters.
pub const REQUEST_TAG_MAX: usize = 128;

impl RequestTag {
    /// 1 to [`REQUEST_TAG_MAX`] visible ASCII characters.
    pub fn parse(text: &[u8]) -> Option<RequestTag> {
        let fits = (1..=REQUEST_TAG_MAX).contains(&text.len());
        let visible = text.iter().all(u8::is_ascii_graphic);
        let text = std::str::from_utf8(text).ok()?;
        (fits && visible).then(|| RequestTag::Given(SmolStr::new(text)))
    }
}

impl fmt::Display for RequestTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RequestTag::Made { worker, number } => write!(f, "{worker:08x}-{number:x}"),
            RequestTag::Given(text) => f.write_str(text),
        }
    }
}

/// The client behind a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller {
    /// Address of the peer, or the one that a trusted proxy names. `None`: not known.
    pub address: Option<IpAddr>,
    pub tag: RequestTag,
    /// Name of the key that was presented, never the key. `None`: no known key was.
    pub key: Option<SmolStr>,
    /// The ticket that a request forwarded by another instance makes, so that a copy of the request finds it.
    pub relayed: Option<Ticket>,
}

impl Caller {
    /// The caller of what the server does by itself.
    pub fn nobody() -> &'static Arc<Caller> {
        static NOBODY: LazyLock<Arc<Caller>> = LazyLock::new(|| {
            Arc::new(Caller {
                address: None,
                tag: RequestTag::Made {
                    worker: 0,
                    number: 0,
                },
                key: None,
                relayed: None,
            })
        });
        &NOBODY
    }
}
