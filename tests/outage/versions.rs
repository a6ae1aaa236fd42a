//! Instances of different versions on one database, while they are replaced one after another.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use small_resource_server::cluster::wire::{HandshakeOffer, PROTOCOLS, ReplyFrame, frame};
use small_resource_server::store::Store;
use small_resource_server::store::mysql::{MysqlStore, Options, PeerPort};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use crate::instance::{LEASE, has_all, launch};
use crate::support::{Database, until};

const OFTEN: Duration = Duration::from_millis(100);

/// An instance that has all names, of another version: it speaks these versions of the protocol, and nothing but that it lives.
struct OtherVersion {
    is_over: Arc<AtomicBool>,
    spoken: Arc<AtomicU16>,
    thread: Option<JoinHandle<()>>,
}

impl OtherVersion {
    fn that_speaks(protocols: RangeInclusive<u16>, database: &Database) -> OtherVersion {
        let (is_over, spoken) = <(Arc<AtomicBool>, Arc<AtomicU16>)>::default();
        let (over, heard, options) = (is_over.clone(), spoken.clone(), database.options());
        let (owns, owned) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let store = MysqlStore::new(Options {
                    instance_lease: LEASE,
                    peers: Some(PeerPort {
                        host: Some("127.0.0.1".into()),
                        port: listener.local_addr().unwrap().port(),
                        is_tls: false,
                    }),
                    ..options
                });
                let members = store.open().await.unwrap().1.unwrap();
                owns.send(()).unwrap();
                let (id, known) = (members.me, members.member(members.me).unwrap());
                let secret = known.peer.clone().unwrap().secret;
                while !over.load(Ordering::SeqCst) {
                    store.heartbeat().await.unwrap();
                    let Ok(Ok((stream, _))) = tokio::time::timeout(OFTEN, listener.accept()).await
                    else {
                        continue;
                    };
                    let us = HandshakeOffer::new(&secret, id, protocols.clone());
                    tokio::spawn(live(stream, us, heard.clone()));
                }
            });
        });
        owned.recv().unwrap();
        OtherVersion {
            is_over,
            spoken,
            thread: Some(thread),
        }
    }
}

impl Drop for OtherVersion {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(ended.is_none_or(|ended| ended.is_ok()) || std::thread::panicking());
    }
}

/// One connection of another instance, for as long as that wants it.
async fn live(mut stream: TcpStream, us: HandshakeOffer, spoken: Arc<AtomicU16>) {
    let Ok(protocol) = us.welcome(&mut stream).await else {
        return;
    };
    spoken.store(protocol, Ordering::SeqCst);
    while stream.write_all(&frame(&ReplyFrame::Pong)).await.is_ok() {
        tokio::time::sleep(OFTEN).await;
    }
}

#[test]
fn an_instance_of_a_later_version_is_spoken_to_as_both_can() {
    let Some(database) = Database::new() else {
        return;
    };
    let newest = *PROTOCOLS.end();
    let other = OtherVersion::that_speaks(newest..=newest + 7, &database);
    let front = launch(&database.options());
    front.until_ready();
    // The front may be ready before the other end has noted what it agreed to.
    until("the newest version that both know is spoken", || {
        other.spoken.load(Ordering::SeqCst) == newest
    });
    drop(other);
    has_all(&front);
}

#[test]
fn an_instance_with_no_version_in_common_is_not_ready_and_says_why_until_it_has_the_names() {
    let Some(database) = Database::new() else {
        return;
    };
    let (min, max) = (PROTOCOLS.end() + 1, PROTOCOLS.end() + 2);
    let other = OtherVersion::that_speaks(min..=max, &database);
    let front = launch(&database.options());
    until("it says so", || {
        let ready = front.ready().send();
        ready.status == 503 && ready.text().contains("speaks no version of the protocol")
    });
    front.read("printer/s").refused(503, "owner_unreachable");
    let theirs = format!("the other end speaks versions {min} to {max}");
    let ours = format!(
        "this one speaks {} to {}",
        PROTOCOLS.start(),
        PROTOCOLS.end()
    );
    front.logged(&["cannot be reached at", &theirs, &ours]);
    drop(other);
    has_all(&front);
    front.prepare("printer");
}
