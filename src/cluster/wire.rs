//! What crosses between two instances: a proof at both ends, then frames, each a length of four bytes and a value in
//! `postcard`.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use ring::hmac;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::timeout;

use super::tls::SessionKey;
use crate::lock::{Answer, PresentedTicket, ResourceName};
use crate::registry::listing::Page;
use crate::registry::tally::Tally;
use crate::resource::messages::{Op, Reply};
use crate::shared::caller::Caller;
use crate::shared::event_feed::FeedEvent;
use crate::store::history::PastLease;
use crate::store::members::InstanceId;
use crate::store::slot_set::SlotSet;
use crate::store::{DocumentSize, ListQuery, ResourceId};

/// First bytes of a connection.
const GREETING: &[u8; 8] = b"srs-peer";
/// A number that is used once, and what is made of it.
const NONCE_BYTES: usize = 16;
const PROOF_BYTES: usize = 32;
/// Room for a read.
const READ_BYTES: usize = 16 << 10;
/// Before each frame.
const LENGTH_BYTES: usize = size_of::<u32>();
/// Room for a request or an answer about a lock, without a document.
const FRAME_BYTES: usize = 256;
/// Frames are written together until they fill this.
const WRITE_BYTES: usize = 64 << 10;

/// Two versions of the protocol, in two bytes each.
const PROTOCOLS_BYTES: usize = 4;
const HELLO_BYTES: usize = GREETING.len() + PROTOCOLS_BYTES + NONCE_BYTES;
const ANSWER_BYTES: usize = PROTOCOLS_BYTES + NONCE_BYTES;

/// The versions of the protocol that an instance speaks: of the frames, and of everything in them. Two instances speak the
/// highest that both do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protocols {
    pub min: u16,
    pub max: u16,
}

impl Protocols {
    /// What this program speaks. A change of anything that crosses is another version, however small it is: values have
    /// no names on the way. The one before is spoken on, so that instances are replaced one after another. A test holds
    /// what crosses against `tests/data/peer-protocol-N.txt`.
    pub const OURS: Protocols = Protocols { min: 1, max: 1 };

    /// The version to speak.
    ///
    /// # Errors
    /// None is in common.
    fn agreed(self, theirs: Protocols) -> Result<u16, NoCommonProtocol> {
        let highest = self.max.min(theirs.max);
        match highest >= self.min.max(theirs.min) {
            true => Ok(highest),
            false => Err(NoCommonProtocol { ours: self, theirs }),
        }
    }

    fn bytes(self) -> [u8; PROTOCOLS_BYTES] {
        let [[a, b], [c, d]] = [self.min.to_be_bytes(), self.max.to_be_bytes()];
        [a, b, c, d]
    }

    fn of(bytes: [u8; PROTOCOLS_BYTES]) -> Protocols {
        let [a, b, c, d] = bytes;
        Protocols {
            min: u16::from_be_bytes([a, b]),
            max: u16::from_be_bytes([c, d]),
        }
    }
}

impl fmt::Display for Protocols {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.min, self.max)
    }
}

/// Two instances that cannot talk to each other: one is too old for the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the other end speaks versions {theirs} of the protocol between instances, and this one speaks {ours}: \
     update the older one, by way of a version that speaks both"
)]
pub struct NoCommonProtocol {
    pub ours: Protocols,
    pub theirs: Protocols,
}

impl NoCommonProtocol {
    pub fn is(error: &io::Error) -> bool {
        let cause = error.get_ref();
        cause.is_some_and(|cause| cause.is::<NoCommonProtocol>())
    }
}

/// What one instance asks of another.
#[derive(Debug, Serialize, Deserialize)]
pub enum Question {
    Ask {
        name: ResourceName,
        op: Op,
        caller: Arc<Caller>,
    },
    /// A sign of life of a ticket, which nobody waits for.
    Touch {
        name: ResourceName,
        presented: PresentedTicket,
        caller: Arc<Caller>,
    },
    /// Of the names of the one that is asked, as the others that are about several names.
    Page(ListQuery),
    /// Of the names with this prefix.
    Tally(String),
    History(ResourceName),
    /// Of a resource, with selectors after this one, at most so many.
    DocumentSizes {
        name: ResourceName,
        id: ResourceId,
        after: String,
        limit: usize,
    },
    /// Everything that happens to names with this prefix from now on.
    Follow(String),
    /// Slots have changed hands: look at the store. Nobody waits for it.
    Look,
}

impl Question {
    /// Whoever answers for this name is asked; `None`: anybody is.
    pub fn name(&self) -> Option<&ResourceName> {
        match self {
            Question::Ask { name, .. }
            | Question::Touch { name, .. }
            | Question::History(name)
            | Question::DocumentSizes { name, .. } => Some(name),
            Question::Page(_) | Question::Tally(_) | Question::Follow(_) | Question::Look => None,
        }
    }

    /// Whether it, or its answer, may be so large that it would hold up others.
    pub fn is_bulky(&self) -> bool {
        match self {
            Question::Ask { op, .. } => op.carries_document(),
            Question::Touch { .. } | Question::Tally(_) | Question::Look => false,
            _ => true,
        }
    }
}

/// What it answers.
#[derive(Debug, Serialize, Deserialize)]
pub enum PeerReply {
    /// It does not answer for this name, or cannot tell now. Nothing was done.
    NotOwner,
    Reply(Box<Reply>),
    Page(Page, SlotSet),
    Tally(Tally, SlotSet),
    History(Vec<PastLease>),
    DocumentSizes(Vec<DocumentSize>),
    /// It would cost others too much.
    TooBusy,
    /// Comes again and again, each time once the last one was taken; the first time without any. `missed`: so many are
    /// gone.
    Events {
        missed: u64,
        events: Vec<FeedEvent>,
    },
}

impl PeerReply {
    /// Whether the other end has to hear that it was taken: it tells of a lease or a place.
    pub fn is_tracked(&self) -> bool {
        let PeerReply::Reply(reply) = self else {
            return false;
        };
        match &**reply {
            Reply::Lock(answer) | Reply::Locked { answer, .. } => Answer::is_tracked(answer),
            _ => false,
        }
    }
}

/// From the instance that asks.
#[derive(Debug, Serialize, Deserialize)]
pub enum RequestFrame {
    Question {
        id: u64,
        question: Box<Question>,
    },
    /// The answer to this question, or a piece of it, has been taken by whoever waited for it.
    Taken(u64),
    /// Nobody waits for the answer any more.
    Gone(u64),
    Ping,
}

/// From the one that is asked.
#[derive(Debug, Serialize, Deserialize)]
pub enum ReplyFrame {
    Reply {
        id: u64,
        reply: PeerReply,
    },
    Pong,
    /// Said again and again: a ping may wait behind a large document.
    Alive,
}

/// What two ends need to know of each other, each for itself, before anything crosses.
pub struct Introduction {
    secret: hmac::Key,
    /// The instance that is asked.
    to: InstanceId,
    protocols: Protocols,
    /// What else the proofs are about: of the TLS session, nothing without one.
    session: Vec<u8>,
}

impl Introduction {
    /// `secret`: as it is in the database. `to`: which instance is asked.
    pub fn new(secret: &[u8], to: InstanceId, protocols: Protocols) -> Introduction {
        Introduction {
            secret: hmac::Key::new(hmac::HMAC_SHA256, secret),
            to,
            protocols,
            session: Vec::new(),
        }
    }

    /// Over TLS: `key` is of its session.
    pub fn over_tls(mut self, key: SessionKey) -> Introduction {
        self.session = key.to_vec();
        self
    }

    /// What a proof is about. Each part but the last is of one length.
    fn said(&self, role: &[u8; 4], said: [&[u8]; 2]) -> Vec<u8> {
        [role, said[0], said[1], &self.to, &self.session].concat()
    }

    fn prove(&self, role: &[u8; 4], said: [&[u8]; 2]) -> hmac::Tag {
        hmac::sign(&self.secret, &self.said(role, said))
    }

    fn verify(&self, role: &[u8; 4], said: [&[u8]; 2], proof: &[u8]) -> io::Result<()> {
        // In constant time.
        hmac::verify(&self.secret, &self.said(role, said), proof).map_err(|_| {
            io::Error::other("the other end does not know the secret of this database")
        })
    }

    fn agree(&self, theirs: Protocols) -> io::Result<u16> {
        self.protocols.agreed(theirs).map_err(io::Error::other)
    }

    /// The asker's half: says whom it wants, sees the other's proof, and proves that it knows the secret too. The version
    /// of the protocol to speak. (Both proofs are about all that was said, so nobody in between changes the versions.)
    ///
    /// # Errors
    /// The other end is another instance, or none, or does not answer. [`NoCommonProtocol`].
    pub async fn greet<S>(&self, stream: &mut S) -> io::Result<u16>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let nonce: [u8; NONCE_BYTES] = rand::random();
        let hello = [&GREETING[..], &self.protocols.bytes(), &nonce].concat();
        stream.write_all(&hello).await?;
        stream.flush().await?;
        let mut answer = [0; ANSWER_BYTES];
        stream.read_exact(&mut answer).await?;
        let mut proof = [0; PROOF_BYTES];
        stream.read_exact(&mut proof).await?;
        self.verify(b"told", [&hello, &answer], &proof)?;
        let proof = self.prove(b"asks", [&hello, &answer]);
        stream.write_all(proof.as_ref()).await?;
        stream.flush().await?;
        let (theirs, _) = answer.split_first_chunk().unwrap_or((&[0; 4], &[]));
        self.agree(Protocols::of(*theirs))
    }

    /// The other half.
    ///
    /// # Errors
    /// Whoever asks is none of ours, or does not speak this protocol. [`NoCommonProtocol`].
    pub async fn welcome<S>(&self, stream: &mut S) -> io::Result<u16>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut hello = [0; HELLO_BYTES];
        stream.read_exact(&mut hello).await?;
        let said = hello.strip_prefix(GREETING);
        let Some((theirs, _)) = said.and_then(|said| said.split_first_chunk()) else {
            let text = "the other end does not speak this protocol";
            return Err(io::Error::other(text));
        };
        let nonce: [u8; NONCE_BYTES] = rand::random();
        let answer = [&self.protocols.bytes()[..], &nonce].concat();
        let proof = self.prove(b"told", [&hello, &answer]);
        stream
            .write_all(&[&answer[..], proof.as_ref()].concat())
            .await?;
        stream.flush().await?;
        let mut proof = [0; PROOF_BYTES];
        stream.read_exact(&mut proof).await?;
        self.verify(b"asks", [&hello, &answer], &proof)?;
        self.agree(Protocols::of(*theirs))
    }
}

/// One value on its way.
pub fn frame<T: Serialize>(value: &T) -> Vec<u8> {
    let mut frame = Vec::with_capacity(FRAME_BYTES);
    frame.extend_from_slice(&[0; LENGTH_BYTES]);
    let mut frame = postcard::to_extend(value, frame).unwrap_or_else(|error| {
        // A value that was made here, of types that can all be written down.
        log::error!("a frame cannot be written: {error}");
        vec![0; LENGTH_BYTES]
    });
    let length = frame.len() - LENGTH_BYTES;
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    frame[..LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
    frame
}

/// The first frame in the buffer, if all of it is there.
fn next_frame<T: DeserializeOwned>(buffer: &mut BytesMut) -> io::Result<Option<T>> {
    let Some(length) = buffer.first_chunk::<LENGTH_BYTES>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes(*length) as usize;
    let whole = LENGTH_BYTES + length;
    if buffer.len() < whole {
        buffer.reserve(whole - buffer.len());
        return Ok(None);
    }
    buffer.advance(LENGTH_BYTES);
    let frame = buffer.split_to(length);
    postcard::from_bytes(&frame)
        .map(Some)
        .map_err(io::Error::other)
}

/// Reads frames until the connection ends or nothing came for `silence_max`.
///
/// # Errors
/// It did not end in order.
pub async fn read_frames<T: DeserializeOwned>(
    mut from: impl AsyncRead + Unpin,
    silence_max: Duration,
    mut each: impl FnMut(T),
) -> io::Result<()> {
    let mut buffer = BytesMut::with_capacity(READ_BYTES);
    loop {
        while let Some(value) = next_frame(&mut buffer)? {
            each(value);
        }
        buffer.reserve(READ_BYTES);
        let read = timeout(silence_max, from.read_buf(&mut buffer)).await;
        let silent = |_| io::Error::new(io::ErrorKind::TimedOut, "nothing was heard for too long");
        if read.map_err(silent)?? == 0 {
            return Ok(());
        }
    }
}

/// Writes what comes until nothing can come any more.
///
/// # Errors
/// The connection is broken.
pub async fn write_frames(
    mut to: impl AsyncWrite + Unpin,
    mut frames: UnboundedReceiver<Vec<u8>>,
) -> io::Result<()> {
    while let Some(mut bytes) = frames.recv().await {
        // Whatever else this thread has to do may have more to say, as when many locks are committed together: a
        // frame alone costs as much as all of them.
        tokio::task::yield_now().await;
        while bytes.len() < WRITE_BYTES
            && let Ok(frame) = frames.try_recv()
        {
            bytes.extend_from_slice(&frame);
        }
        to.write_all(&bytes).await?;
        // TLS may keep the end back.
        to.flush().await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: InstanceId = [7; 16];

    const ONE: Protocols = Protocols { min: 1, max: 1 };

    fn with(secret: &[u8], to: InstanceId, protocols: Protocols) -> Introduction {
        Introduction::new(secret, to, protocols)
    }

    async fn meet(asks: Introduction, asked: Introduction) -> [io::Result<u16>; 2] {
        let (mut a, mut b) = tokio::io::duplex(1024);
        let asking = async move {
            let met = asks.greet(&mut a).await;
            drop(a);
            met
        };
        tokio::join!(asking, asked.welcome(&mut b)).into()
    }

    #[tokio::test]
    async fn both_ends_prove_the_same_secret_for_the_same_instance() {
        let met = meet(with(b"secret", OWNER, ONE), with(b"secret", OWNER, ONE)).await;
        assert!(met.iter().all(Result::is_ok), "{met:?}");
        for (secret, to) in [(&b"guessed"[..], OWNER), (b"secret", [8; 16])] {
            let met = meet(with(secret, to, ONE), with(b"secret", OWNER, ONE)).await;
            assert!(met.iter().all(Result::is_err), "{met:?}");
        }
    }

    #[tokio::test]
    async fn the_highest_version_that_both_speak_is_spoken() {
        let versions = |min, max| Protocols { min, max };
        for (asks, asked, spoken) in [
            (versions(1, 1), versions(1, 1), Some(1)),
            (versions(1, 1), versions(1, 2), Some(1)),
            (versions(2, 4), versions(1, 3), Some(3)),
            (versions(2, 3), versions(1, 9), Some(3)),
            (versions(2, 3), versions(1, 1), None),
            (versions(1, 1), versions(2, 3), None),
        ] {
            let met = meet(with(b"s", OWNER, asks), with(b"s", OWNER, asked)).await;
            for (met, [ours, theirs]) in met.into_iter().zip([[asks, asked], [asked, asks]]) {
                match (met, spoken) {
                    (Ok(met), Some(spoken)) => assert_eq!(met, spoken),
                    (Err(error), None) => {
                        assert!(NoCommonProtocol::is(&error), "{error}");
                        let said = NoCommonProtocol { ours, theirs }.to_string();
                        assert_eq!(error.to_string(), said);
                    }
                    (met, _) => panic!("{asks} with {asked}: {met:?}"),
                }
            }
        }
    }

    /// Somebody in between would have them speak an older version, with mistakes of its own.
    #[tokio::test]
    async fn nobody_in_between_changes_the_versions() {
        for (at, changed_by) in [(GREETING.len() + 3, "asks"), (3, "asked")] {
            let (mut a, mut between_a) = tokio::io::duplex(1024);
            let (mut between_b, mut b) = tokio::io::duplex(1024);
            let newer = Protocols { min: 1, max: 2 };
            let (asks, asked) = (with(b"s", OWNER, newer), with(b"s", OWNER, newer));
            let between = async {
                let mut hello = [0; HELLO_BYTES];
                between_a.read_exact(&mut hello).await.unwrap();
                if changed_by == "asks" {
                    hello[at] = 1;
                }
                between_b.write_all(&hello).await.unwrap();
                let mut answer = [0; ANSWER_BYTES + PROOF_BYTES];
                between_b.read_exact(&mut answer).await.unwrap();
                if changed_by == "asked" {
                    answer[at] = 1;
                }
                between_a.write_all(&answer).await.unwrap();
                drop((between_a, between_b));
            };
            let (asked_by, welcomed, ()) =
                tokio::join!(asks.greet(&mut a), asked.welcome(&mut b), between);
            assert!(asked_by.unwrap_err().to_string().contains("secret"));
            welcomed.unwrap_err();
        }
    }

    #[tokio::test]
    async fn whoever_does_not_speak_the_protocol_is_told_nothing() {
        let (mut a, mut b) = tokio::io::duplex(1024);
        a.write_all(b"GET / HTTP/1.1\r\nhost: example.org\r\n\r\n")
            .await
            .unwrap();
        let refused = with(b"secret", OWNER, ONE).welcome(&mut b).await;
        assert!(refused.is_err());
        drop(b);
        let mut said = Vec::new();
        a.read_to_end(&mut said).await.unwrap();
        assert!(said.is_empty(), "{said:?}");
    }

    #[tokio::test]
    async fn frames_come_out_as_they_went_in_however_they_are_cut() {
        let values: Vec<String> = (0..50).map(|n| "x".repeat(n * 100)).collect();
        let bytes: Vec<u8> = values.iter().flat_map(frame).collect();
        for piece in [1, 7, 1000, bytes.len()] {
            let (mut a, b) = tokio::io::duplex(piece);
            let sent = bytes.clone();
            let writing = async move { a.write_all(&sent).await };
            let mut read = Vec::new();
            let reading = read_frames(b, Duration::from_secs(20), |value: String| read.push(value));
            let (written, ended) = tokio::join!(writing, reading);
            written.unwrap();
            ended.unwrap();
            assert_eq!(read, values);
        }
    }

    #[tokio::test]
    async fn silence_ends_a_connection() {
        let (_open, b) = tokio::io::duplex(16);
        let ended = read_frames(b, Duration::from_millis(20), |_: String| {}).await;
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
