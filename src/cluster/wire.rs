//! What crosses between two instances: a proof at both ends, then frames, each a length of four bytes and a value in
//! `postcard`.

use std::io;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use ring::hmac;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::timeout;

use crate::lock::{Answer, PresentedTicket, ResourceName};
use crate::registry::listing::Page;
use crate::registry::tally::Tally;
use crate::resource::messages::{Op, Reply};
use crate::shared::caller::Caller;
use crate::shared::event_feed::FeedEvent;
use crate::store::history::PastLease;
use crate::store::{DocumentSize, InstanceId, ListQuery, ResourceId};

/// First bytes of a connection. Another number for what is not understood by earlier versions.
const GREETING: &[u8; 8] = b"srs-pr/1";
/// A number that is used once, and what is made of it.
const NONCE_BYTES: usize = 16;
const PROOF_BYTES: usize = 32;
/// Room for a read.
const READ_BYTES: usize = 16 << 10;
/// Frames that are written at once, at most.
const WRITES_MAX: usize = 64;

/// What one instance asks of the active one.
#[derive(Debug, Serialize, Deserialize)]
pub enum Question {
    Ask {
        name: ResourceName,
        op: Op,
        caller: Caller,
    },
    /// A sign of life of a ticket, which nobody waits for.
    Touch {
        name: ResourceName,
        presented: PresentedTicket,
        caller: Caller,
    },
    Page(ListQuery),
    /// Of the names with this prefix.
    Tally(String),
    History(ResourceName),
    /// Of a resource, with selectors after this one, at most so many.
    DocumentSizes {
        id: ResourceId,
        after: String,
        limit: usize,
    },
    /// Everything that happens to names with this prefix from now on.
    Follow(String),
}

/// What the active one answers.
#[derive(Debug, Serialize, Deserialize)]
pub enum PeerReply {
    /// It is active no more, or cannot tell now. Nothing was done.
    NotActive,
    Reply(Box<Reply>),
    Page(Page),
    Tally(Tally),
    History(Vec<PastLease>),
    DocumentSizes(Vec<DocumentSize>),
    /// It would cost others too much.
    TooBusy,
    /// Comes again and again, the first time without any.
    Events(Vec<FeedEvent>),
    /// So many events are gone.
    Missed(u64),
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
    /// The answer to this question has been taken by whoever waited for it.
    Taken(u64),
    /// Nobody waits for the answer any more.
    Gone(u64),
    Ping,
}

/// From the active instance.
#[derive(Debug, Serialize, Deserialize)]
pub enum ReplyFrame {
    Reply { id: u64, reply: PeerReply },
    Pong,
}

/// What both ends of a connection know, and nobody without the database.
pub struct PeerSecret(hmac::Key);

impl PeerSecret {
    /// `bytes`: as they are in the database.
    pub fn new(bytes: &[u8]) -> PeerSecret {
        PeerSecret(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    fn said(role: &[u8], nonces: [&[u8]; 2], to: InstanceId) -> Vec<u8> {
        [role, nonces[0], nonces[1], &to].concat()
    }

    fn prove(&self, role: &[u8], nonces: [&[u8]; 2], to: InstanceId) -> hmac::Tag {
        hmac::sign(&self.0, &PeerSecret::said(role, nonces, to))
    }

    fn verify(
        &self,
        role: &[u8],
        nonces: [&[u8]; 2],
        to: InstanceId,
        proof: &[u8],
    ) -> io::Result<()> {
        // In constant time.
        hmac::verify(&self.0, &PeerSecret::said(role, nonces, to), proof).map_err(|_| {
            io::Error::other("the other end does not know the secret of this database")
        })
    }
}

/// The asker's half: says whom it wants, sees the other's proof, and proves that it knows the secret too.
///
/// # Errors
/// The other end is another instance, or none, or does not answer.
pub async fn greet<S>(stream: &mut S, secret: &PeerSecret, to: InstanceId) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mine: [u8; NONCE_BYTES] = rand::random();
    stream.write_all(&[&GREETING[..], &mine].concat()).await?;
    let mut answer = [0; NONCE_BYTES + PROOF_BYTES];
    stream.read_exact(&mut answer).await?;
    let (theirs, proof) = answer.split_at(NONCE_BYTES);
    secret.verify(b"asked", [&mine, theirs], to, proof)?;
    let proof = secret.prove(b"asks", [&mine, theirs], to);
    stream.write_all(proof.as_ref()).await
}

/// The other half.
///
/// # Errors
/// Whoever asks is none of ours, or does not speak this protocol.
pub async fn welcome<S>(stream: &mut S, secret: &PeerSecret, me: InstanceId) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut hello = [0; GREETING.len() + NONCE_BYTES];
    stream.read_exact(&mut hello).await?;
    let (greeting, theirs) = hello.split_at(GREETING.len());
    if greeting != GREETING {
        let text = "the other end does not speak this protocol";
        return Err(io::Error::other(text));
    }
    let mine: [u8; NONCE_BYTES] = rand::random();
    let proof = secret.prove(b"asked", [theirs, &mine], me);
    stream
        .write_all(&[&mine[..], proof.as_ref()].concat())
        .await?;
    let mut proof = [0; PROOF_BYTES];
    stream.read_exact(&mut proof).await?;
    secret.verify(b"asks", [theirs, &mine], me, &proof)
}

/// One value on its way.
pub fn frame<T: Serialize>(value: &T) -> Vec<u8> {
    let empty = vec![0; size_of::<u32>()];
    let mut frame = postcard::to_extend(value, empty).unwrap_or_else(|error| {
        // A value that was made here, of types that can all be written down.
        log::error!("a frame cannot be written: {error}");
        vec![0; size_of::<u32>()]
    });
    let length = frame.len() - size_of::<u32>();
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    frame[..size_of::<u32>()].copy_from_slice(&length.to_be_bytes());
    frame
}

/// The first frame in the buffer, if all of it is there.
fn next_frame<T: DeserializeOwned>(buffer: &mut BytesMut) -> io::Result<Option<T>> {
    let Some(length) = buffer.first_chunk::<4>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes(*length) as usize;
    let whole = size_of::<u32>() + length;
    if buffer.len() < whole {
        buffer.reserve(whole - buffer.len());
        return Ok(None);
    }
    buffer.advance(size_of::<u32>());
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
    let mut next = Vec::with_capacity(WRITES_MAX);
    while frames.recv_many(&mut next, WRITES_MAX).await > 0 {
        match &next[..] {
            [one] => to.write_all(one).await?,
            several => to.write_all(&several.concat()).await?,
        }
        next.clear();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: InstanceId = [7; 16];

    async fn meet(asks: &[u8], to: InstanceId, asked: &[u8]) -> (io::Result<()>, io::Result<()>) {
        let (mut a, mut b) = tokio::io::duplex(1024);
        let (asks, asked) = (PeerSecret::new(asks), PeerSecret::new(asked));
        let asking = async move {
            let met = greet(&mut a, &asks, to).await;
            drop(a);
            met
        };
        tokio::join!(asking, welcome(&mut b, &asked, OWNER))
    }

    #[tokio::test]
    async fn both_ends_prove_the_same_secret_for_the_same_instance() {
        let (asks, asked) = meet(b"secret", OWNER, b"secret").await;
        asks.unwrap();
        asked.unwrap();
        for (secret, to) in [(&b"guessed"[..], OWNER), (b"secret", [8; 16])] {
            let (asks, asked) = meet(secret, to, b"secret").await;
            assert!(asks.is_err() && asked.is_err());
        }
    }

    #[tokio::test]
    async fn whoever_does_not_speak_the_protocol_is_told_nothing() {
        let (mut a, mut b) = tokio::io::duplex(1024);
        a.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .unwrap();
        let refused = welcome(&mut b, &PeerSecret::new(b"secret"), OWNER).await;
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
