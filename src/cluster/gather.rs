//! Questions about many names: listings, counts and events. Every instance that owns slots is asked about its
//! own names, this one too. If one of them does not answer, the client gets no partial answer but an error.

use std::time::Duration;

use futures_util::future::join_all;

use super::destination::{Destination, of_all};
use super::events::EventReader;
use super::link::PeerEvents;
use super::links::Links;
use super::wire::{PeerReply, Question};
use crate::shared::gate::Closed;
use crate::store::members::InstanceId;
use crate::store::slot_set::SlotSet;

/// One instance's part of an answer, and the slots that it covers. `None`: ask again.
pub type ToldPart<T> = Option<Result<(T, SlotSet), Closed>>;

impl Links {
    fn destinations(&self) -> Result<Option<Vec<Destination>>, Closed> {
        of_all(self.router.server.gate.check(), &self.view())
    }

    /// Asks until the parts cover each slot exactly once, and returns the parts. `here` makes this instance's
    /// part; `told` takes another instance's part out of its reply. Fails if an instance refuses, or does not answer
    /// for as long as requests are held.
    pub async fn ask_all<T>(
        &self,
        here: impl AsyncFn() -> Result<(T, SlotSet), Closed>,
        question: impl Fn() -> Question,
        told: impl Fn(PeerReply) -> ToldPart<T>,
    ) -> Result<Vec<T>, Closed> {
        let mut hold = self.hold(Duration::ZERO);
        loop {
            if let Some(destinations) = self.destinations()? {
                let asking = destinations
                    .iter()
                    .map(async |destination| match destination {
                        Destination::Here => self.of_here(here().await),
                        Destination::There(other) => {
                            self.ask(*other, question()).await.and_then(&told)
                        }
                    });
                let parts: Option<Vec<_>> = join_all(asking).await.into_iter().collect();
                let parts = parts.map(|parts| parts.into_iter().collect::<Result<Vec<_>, _>>());
                let parts = parts.transpose()?.unwrap_or_default();
                // The names of a slot that moved meanwhile would be missing, or in two parts.
                if SlotSet::are_whole(parts.iter().map(|(_, covered)| *covered)) {
                    return Ok(parts.into_iter().map(|(part, _)| part).collect());
                }
            }
            hold.pause(&self.router.server).await?;
        }
    }

    /// This instance's part. No answer leaves when the store may no longer be this instance's.
    fn of_here<T>(&self, answer: Result<(T, SlotSet), Closed>) -> ToldPart<T> {
        let checked = self.router.server.gate.check_answer();
        match checked {
            Err(Closed::Standby) => None,
            checked => Some(checked.and(answer)),
        }
    }

    /// As `ClusterClient::follow`.
    pub async fn follow(&self, prefix: &str) -> Result<EventReader, Closed> {
        let mut hold = self.hold(Duration::ZERO);
        loop {
            if let Some(destinations) = self.destinations()? {
                // This instance first: then nothing is missed of a slot that moves here while the others are asked.
                let server = &self.router.server;
                let here = server.feed.follow()?;
                if let Some(there) = self.follow_others(destinations, prefix).await {
                    return Ok(EventReader::new(server.clone(), here, there?));
                }
            }
            hold.pause(&self.router.server).await?;
        }
    }

    /// `None`: an instance does not answer.
    async fn follow_others(
        &self,
        destinations: Vec<Destination>,
        prefix: &str,
    ) -> Option<Result<Vec<(InstanceId, PeerEvents)>, Closed>> {
        let mut followed = Vec::new();
        for destination in destinations {
            let Destination::There(other) = destination else {
                continue;
            };
            let question = Question::Follow(prefix.to_owned());
            let link = self.link(other, &question).await?;
            let mut events = link.follow(question)?;
            match events.begin().await? {
                PeerReply::Events { .. } => followed.push((other, events)),
                PeerReply::TooBusy => return Some(Err(Closed::TooManyReaders)),
                _ => return None,
            }
        }
        Some(Ok(followed))
    }
}
