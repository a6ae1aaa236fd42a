//! The protocol between two instances: a handshake in which both ends prove that they know a secret, then
//! frames, each a length of four bytes and a value in `postcard`.

use std::io;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use ring::hmac;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::timeout;
use tokio_util::codec::{Decoder, LengthDelimitedCodec};

use super::tls::SessionKey;
use crate::lock::{Answer, ResourceName};
use crate::registry::listing::Page;
use crate::registry::lock_counts::LockCounts;
use crate::resource::messages::{Op, Reply};
use crate::shared::caller::Caller;
use crate::shared::event_feed::FeedEvent;
use crate::store::history::PastLease;
use crate::store::members::InstanceId;
use crate::store::slot_set::SlotSet;
use crate::store::{DocumentSize, ListQuery, ResourceId};

/// First bytes of a connection, from the instance that asks.
const GREETING: &[u8; 8] = b"srs-peer";
/// Length of each end's random number, which is used for one handshake only.
const NONCE_BYTES: usize = 16;
/// Length of an HMAC with SHA-256.
const PROOF_BYTES: usize = 32;
/// Room in the buffer for one read.
const READ_BYTES: usize = 16 << 10;
/// The length before each frame, big-endian.
const LENGTH_BYTES: usize = size_of::<u32>();
/// First capacity of a frame: room for a request or an answer about a lock, without a document.
const FRAME_BYTES: usize = 256;
/// Frames are written together until they fill this.
const WRITE_BYTES: usize = 64 << 10;

/// Two versions of the protocol, in two bytes each.
const VERSIONS_BYTES: usize = 4;
const HELLO_BYTES: usize = GREETING.len() + VERSIONS_BYTES + NONCE_BYTES;
const ANSWER_BYTES: usize = VERSIONS_BYTES + NONCE_BYTES;

/// The versions of the protocol that this program speaks. Two instances use the highest one that both speak. Any change
/// of the messages, however small, is another version: frames hold values without their names. The version before
/// stays supported, so that instances can be replaced one after another. A test compares the messages with
/// `tests/data/peer-protocol-N.txt`.
pub const PROTOCOLS: RangeInclusive<u16> = 1..=1;

/// What one instance asks of another.
#[derive(Debug, Serialize, Deserialize)]
pub enum Question {
    /// A request. [`Op::Touch`] has no answer.
    Ask {
        name: ResourceName,
        op: Op,
        caller: Arc<Caller>,
    },
    /// A page over the asked instance's own names. The other questions about several names are about its own, too.
    Page(ListQuery),
    /// Counts over the names with this prefix.
    LockCounts(String),
    History(ResourceName),
    /// The sizes of the first `limit` documents of a resource whose selectors come after `after`.
    DocumentSizes {
        name: ResourceName,
        id: ResourceId,
        after: String,
        limit: usize,
    },
    /// All events of names with this prefix from now on.
    Follow(String),
    /// Slots have moved: read the store at once. Has no answer.
    Look,
}

impl Question {
    /// The name whose owner has to be asked. `None`: the question is not about one name, and any instance can
    /// be asked.
    pub fn name(&self) -> Option<&ResourceName> {
        match self {
            Question::Ask { name, .. }
            | Question::History(name)
            | Question::DocumentSizes { name, .. } => Some(name),
            Question::Page(_) | Question::LockCounts(_) | Question::Follow(_) | Question::Look => {
                None
            }
        }
    }

    /// Whether the question or its answer may be large enough to hold up others on the same connection.
    pub fn is_bulky(&self) -> bool {
        match self {
            Question::Ask { op, .. } => op.carries_document(),
            Question::LockCounts(_) | Question::Look => false,
            _ => true,
        }
    }
}

/// The answer to a [`Question`].
#[derive(Debug, Serialize, Deserialize)]
pub enum PeerReply {
    /// The asked instance does not answer for this name, or cannot answer now. Nothing was done.
    NotOwner,
    Reply(Box<Reply>),
    Page(Page, SlotSet),
    LockCounts(LockCounts, SlotSet),
    History(Vec<PastLease>),
    DocumentSizes(Vec<DocumentSize>),
    /// The listing would take too long, or there are as many event readers as the instance allows.
    TooBusy,
    /// Sent repeatedly, each time after the message before was taken; the first one has no events. `missed`:
    /// how many events the asker was too slow for.
    Events {
        missed: u64,
        events: Vec<FeedEvent>,
    },
}

impl PeerReply {
    /// Whether the asker has to confirm it with `Taken`, because it tells of a lease or of a place in the queue.
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

/// A frame from the instance that asks.
#[derive(Debug, Serialize, Deserialize)]
pub enum RequestFrame {
    Question {
        id: u64,
        question: Box<Question>,
    },
    /// The asker has taken the answer to this question, or a piece of it.
    Taken(u64),
    /// The asker of this question is gone: the question is withdrawn.
    Gone(u64),
    Ping,
}

/// A frame from the instance that is asked.
#[derive(Debug, Serialize, Deserialize)]
pub enum ReplyFrame {
    Reply {
        id: u64,
        reply: PeerReply,
    },
    Pong,
    /// Sent at regular intervals, without a ping: pings may be held up behind a large document.
    Alive,
}

/// The kind of error of two ends that have no version of the protocol in common.
pub const NO_COMMON_PROTOCOL: io::ErrorKind = io::ErrorKind::Unsupported;

/// What the asker says of an end that does not prove to be the wanted instance.
const SOMEBODY_ELSE: &str = "something else answers there and does not know its secret: the instance was restarted, \
                             or its ADVERTISE_ADDRESS is wrong";

/// What one end brings to the handshake.
pub struct HandshakeOffer {
    secret: hmac::Key,
    /// The instance that is asked.
    to: InstanceId,
    protocols: RangeInclusive<u16>,
    /// The key of the TLS session, which the proofs cover too; empty without TLS.
    session: Vec<u8>,
}

impl HandshakeOffer {
    /// `secret`: that of the asked instance, as it is in the database. `to`: the id of the asked instance.
    pub fn new(secret: &[u8], to: InstanceId, protocols: RangeInclusive<u16>) -> HandshakeOffer {
        HandshakeOffer {
            secret: hmac::Key::new(hmac::HMAC_SHA256, secret),
            to,
            protocols,
            session: Vec::new(),
        }
    }

    /// Lets the proofs cover the TLS session that has this key.
    pub fn over_tls(mut self, key: SessionKey) -> HandshakeOffer {
        self.session = key.to_vec();
        self
    }

    /// The bytes that a proof covers. Only the last part may differ in length, so no two inputs give the same
    /// bytes.
    fn said(&self, role: &[u8; 4], said: [&[u8]; 2]) -> Vec<u8> {
        [role, said[0], said[1], &self.to, &self.session].concat()
    }

    fn prove(&self, role: &[u8; 4], said: [&[u8]; 2]) -> hmac::Tag {
        hmac::sign(&self.secret, &self.said(role, said))
    }

    fn verify(&self, role: &[u8; 4], said: [&[u8]; 2], proof: &[u8]) -> io::Result<()> {
        // Compares in constant time.
        hmac::verify(&self.secret, &self.said(role, said), proof).map_err(|_| {
            io::Error::other("the other end does not know the secret of this database")
        })
    }

    /// The lowest and the highest version of this end, as they are sent.
    fn versions(&self) -> Vec<u8> {
        let (min, max) = (self.protocols.start(), self.protocols.end());
        [min.to_be_bytes(), max.to_be_bytes()].concat()
    }

    /// The highest version that both ends speak; or an error of kind [`NO_COMMON_PROTOCOL`].
    fn agree(&self, [a, b, c, d]: [u8; VERSIONS_BYTES]) -> io::Result<u16> {
        let (min, max) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        let (our_min, our_max) = (*self.protocols.start(), *self.protocols.end());
        let highest = max.min(our_max);
        if highest >= min.max(our_min) {
            return Ok(highest);
        }
        let text = format!(
            "the other end speaks versions {min} to {max} of the protocol between instances, and this one speaks \
             {our_min} to {our_max}: update the older one, by way of a version that speaks both"
        );
        Err(io::Error::new(NO_COMMON_PROTOCOL, text))
    }

    /// The asker's half of the handshake: sends greeting, versions and a random number, checks the other end's
    /// proof, then sends its own. Returns the version of the protocol to speak. (Both proofs cover all bytes
    /// that were sent before, so nobody in between can change the versions.)
    ///
    /// # Errors
    /// The connection breaks; the other end is another instance or does not know the secret; of kind
    /// [`NO_COMMON_PROTOCOL`].
    pub async fn greet<S>(&self, stream: &mut S) -> io::Result<u16>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let nonce: [u8; NONCE_BYTES] = rand::random();
        let hello = [&GREETING[..], &self.versions(), &nonce].concat();
        stream.write_all(&hello).await?;
        stream.flush().await?;
        let mut answer = [0; ANSWER_BYTES];
        stream.read_exact(&mut answer).await?;
        let mut proof = [0; PROOF_BYTES];
        stream.read_exact(&mut proof).await?;
        self.verify(b"told", [&hello, &answer], &proof)
            .map_err(|_| io::Error::other(SOMEBODY_ELSE))?;
        let proof = self.prove(b"asks", [&hello, &answer]);
        stream.write_all(proof.as_ref()).await?;
        stream.flush().await?;
        let [a, b, c, d, ..] = answer;
        self.agree([a, b, c, d])
    }

    /// The asked instance's half of the handshake. Returns the version of the protocol to speak.
    ///
    /// # Errors
    /// The connection breaks; the asker does not speak this protocol or does not know the secret; of kind
    /// [`NO_COMMON_PROTOCOL`].
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
        let answer = [&self.versions()[..], &nonce].concat();
        let proof = self.prove(b"told", [&hello, &answer]);
        stream
            .write_all(&[&answer[..], proof.as_ref()].concat())
            .await?;
        stream.flush().await?;
        let mut proof = [0; PROOF_BYTES];
        stream.read_exact(&mut proof).await?;
        self.verify(b"asks", [&hello, &answer], &proof)?;
        self.agree(*theirs)
    }
}

/// A value as a frame: the length of its bytes, then the bytes.
pub fn frame<T: Serialize>(value: &T) -> Vec<u8> {
    let mut frame = Vec::with_capacity(FRAME_BYTES);
    frame.extend_from_slice(&[0; LENGTH_BYTES]);
    let mut frame = postcard::to_extend(value, frame).unwrap_or_else(|error| {
        // Does not happen: all types that are sent can be serialised.
        log::error!("a frame cannot be serialised: {error}");
        vec![0; LENGTH_BYTES]
    });
    let length = frame.len() - LENGTH_BYTES;
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    frame[..LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
    frame
}

/// Reads frames and hands each value to `each`, until the other end closes the connection. Fails if it breaks, nothing
/// came for `silence_max`, or a frame cannot be decoded.
pub async fn read_frames<T: DeserializeOwned>(
    mut from: impl AsyncRead + Unpin,
    silence_max: Duration,
    mut each: impl FnMut(T),
) -> io::Result<()> {
    let mut buffer = BytesMut::with_capacity(READ_BYTES);
    // Its default limit is below the size of the largest document.
    let mut frames = LengthDelimitedCodec::builder()
        .max_frame_length(u32::MAX as usize)
        .new_codec();
    loop {
        while let Some(frame) = frames.decode(&mut buffer)? {
            each(postcard::from_bytes(&frame).map_err(io::Error::other)?);
        }
        buffer.reserve(READ_BYTES);
        let read = timeout(silence_max, from.read_buf(&mut buffer)).await;
        let silent = |_| io::Error::new(io::ErrorKind::TimedOut, "nothing was heard for too long");
        if read.map_err(silent)?? == 0 {
            return Ok(());
        }
    }
}

/// Writes the frames of the channel until the channel is closed or the connection breaks.
pub async fn write_frames(
    mut to: impl AsyncWrite + Unpin,
    mut frames: UnboundedReceiver<Vec<u8>>,
) -> io::Result<()> {
    while let Some(mut bytes) = frames.recv().await {
        // Other tasks of this thread may add frames first, as when many locks are committed together: a write of
        // one frame costs as much as a write of all of them.
        tokio::task::yield_now().await;
        while bytes.len() < WRITE_BYTES
            && let Ok(frame) = frames.try_recv()
        {
            bytes.extend_from_slice(&frame);
        }
        to.write_all(&bytes).await?;
        // TLS may hold back the end of the data until it is flushed.
        to.flush().await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: InstanceId = [7; 16];

    async fn meet(asks: HandshakeOffer, asked: HandshakeOffer) -> [io::Result<u16>; 2] {
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
        let with = |secret, to| HandshakeOffer::new(secret, to, 1..=1);
        let met = meet(with(b"secret", OWNER), with(b"secret", OWNER)).await;
        assert!(met.iter().all(Result::is_ok), "{met:?}");
        for (secret, to) in [(&b"guessed"[..], OWNER), (b"secret", [8; 16])] {
            let met = meet(with(secret, to), with(b"secret", OWNER)).await;
            assert!(met.iter().all(Result::is_err), "{met:?}");
        }
    }

    #[tokio::test]
    async fn the_highest_version_that_both_speak_is_spoken() {
        let with =
            |versions: &RangeInclusive<u16>| HandshakeOffer::new(b"s", OWNER, versions.clone());
        for (asks, asked, spoken) in [
            (1..=1, 1..=1, Some(1)),
            (1..=1, 1..=2, Some(1)),
            (2..=4, 1..=3, Some(3)),
            (2..=3, 1..=9, Some(3)),
            (2..=3, 1..=1, None),
            (1..=1, 2..=3, None),
        ] {
            let met = meet(with(&asks), with(&asked)).await;
            for (met, [ours, theirs]) in met.into_iter().zip([[&asks, &asked], [&asked, &asks]]) {
                match (met, spoken) {
                    (Ok(met), Some(spoken)) => assert_eq!(met, spoken),
                    (Err(error), None) => {
                        assert_eq!(error.kind(), NO_COMMON_PROTOCOL);
                        let said = error.to_string();
                        let [ours, theirs] = [ours, theirs]
                            .map(|spoken| format!("{} to {}", spoken.start(), spoken.end()));
                        assert!(said.contains(&format!("this one speaks {ours}")), "{said}");
                        assert!(
                            said.contains(&format!("end speaks versions {theirs}")),
                            "{said}"
                        );
                    }
                    (met, _) => panic!("{asks:?} with {asked:?}: {met:?}"),
                }
            }
        }
    }

    /// Otherwise a man in the middle could make both ends speak an older version, with its bugs.
    #[tokio::test]
    async fn nobody_in_between_changes_the_versions() {
        for (at, changed_by) in [(GREETING.len() + 3, "asks"), (3, "asked")] {
            let (mut a, mut between_a) = tokio::io::duplex(1024);
            let (mut between_b, mut b) = tokio::io::duplex(1024);
            let [asks, asked] = [(); 2].map(|()| HandshakeOffer::new(b"s", OWNER, 1..=2));
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
        let us = HandshakeOffer::new(b"secret", OWNER, PROTOCOLS);
        let refused = us.welcome(&mut b).await;
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
    async fn a_frame_may_be_larger_than_the_codec_takes_by_default() {
        let value = "x".repeat(9 << 20);
        let (bytes, mut read) = (frame(&value), Vec::new());
        let each = |value: String| read.push(value);
        let ended = read_frames(&bytes[..], Duration::from_secs(20), each).await;
        ended.unwrap();
        assert!(read == [value]);
    }

    #[tokio::test]
    async fn silence_ends_a_connection() {
        let (_open, b) = tokio::io::duplex(16);
        let ended = read_frames(b, Duration::from_millis(20), |_: String| {}).await;
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
