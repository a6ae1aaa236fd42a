//! Events of this instance and of the active one, read alike.

use std::sync::Arc;

use tokio::sync::mpsc::error::TryRecvError;

use super::link::AnswerPieces;
use super::wire::PeerReply;
use crate::shared::event_feed::{FeedEvent, FeedReader, Found};

/// Reads events, wherever they happen.
pub enum EventReader {
    Here(FeedReader),
    There {
        pieces: AnswerPieces,
        events: std::vec::IntoIter<FeedEvent>,
    },
}

impl EventReader {
    /// The next event, without waiting for one. `active`: whether this instance is.
    pub fn look(&mut self, active: bool) -> Found {
        match self {
            EventReader::Here(_) if !active => Found::End,
            EventReader::Here(reader) => reader.look(),
            EventReader::There { pieces, events } => loop {
                if let Some(event) = events.next() {
                    return Found::Event(Arc::new(event));
                }
                match pieces.try_next() {
                    Ok(PeerReply::Events {
                        missed,
                        events: more,
                    }) => {
                        *events = more.into_iter();
                        if missed > 0 {
                            return Found::Missed(missed);
                        }
                    }
                    Err(TryRecvError::Empty) => return Found::Nothing,
                    Ok(_) | Err(TryRecvError::Disconnected) => return Found::End,
                }
            },
        }
    }
}
