//! A proxy that holds bytes back, as a network or a hung server does.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use small_resource_server::store::mysql::Options;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::database::{DEADLINE, Database};

/// Stands between a store and its server, and holds bytes back when told to. What is held is forwarded
/// later, even when the client has given up: as a network may.
pub struct Proxy {
    address: SocketAddr,
    control: Arc<Control>,
}

struct Control {
    requests_held: watch::Sender<bool>,
    answers_held: watch::Sender<bool>,
    /// New connections are not held, whatever the switches say.
    new_ones_pass: AtomicBool,
    /// Bytes of requests that are let through before they are held.
    allowance: AtomicUsize,
    /// Bytes of requests that are being held back right now.
    held: watch::Sender<usize>,
    /// Bytes of answers that came from the server while they could not be told any more, or were held;
    /// and connections that the server closed.
    unheard: watch::Sender<usize>,
}

impl Proxy {
    pub async fn start(database: &Database) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let control = Arc::new(Control {
            requests_held: watch::Sender::new(false),
            answers_held: watch::Sender::new(false),
            new_ones_pass: AtomicBool::new(false),
            allowance: AtomicUsize::new(0),
            held: watch::Sender::new(0),
            unheard: watch::Sender::new(0),
        });
        let options = database.options();
        let upstream = (options.host, options.port);
        let shared = control.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(&upstream).await else {
                    continue;
                };
                let passes = shared.new_ones_pass.load(Ordering::SeqCst);
                let (client_in, client_out) = client.into_split();
                let (server_in, server_out) = server.into_split();
                tokio::spawn(requests(shared.clone(), passes, client_in, server_out));
                tokio::spawn(answers(shared.clone(), passes, server_in, client_out));
            }
        });
        Proxy { address, control }
    }

    /// The store reaches its server through this.
    pub fn between(&self, options: Options) -> Options {
        Options {
            host: "127.0.0.1".into(),
            port: self.address.port(),
            ..options
        }
    }

    pub fn hold_requests(&self, hold: bool) {
        self.control.requests_held.send_replace(hold);
    }

    /// Holds requests as soon as this many more bytes went through.
    pub fn hold_requests_after(&self, bytes: usize) {
        self.control.allowance.store(bytes, Ordering::SeqCst);
        self.hold_requests(true);
    }

    pub fn hold_answers(&self, hold: bool) {
        self.control.answers_held.send_replace(hold);
    }

    pub fn let_new_connections_pass(&self) {
        self.control.new_ones_pass.store(true, Ordering::SeqCst);
    }

    /// Until a request of the store is stuck here.
    pub async fn request_is_held(&self) {
        until(self.control.held.subscribe()).await;
    }

    /// Until the server answered something that the store did not get, or closed a connection.
    pub async fn answer_is_unheard(&self) {
        until(self.control.unheard.subscribe()).await;
    }
}

async fn until(mut count: watch::Receiver<usize>) {
    let reached = count.wait_for(|bytes| *bytes > 0);
    let waited = tokio::time::timeout(DEADLINE, reached).await;
    assert!(waited.expect("nothing came through the proxy").is_ok());
}

async fn released(held: &watch::Sender<bool>) {
    let mut held = held.subscribe();
    let _sender_lives = held.wait_for(|held| !held).await;
}

async fn requests(
    control: Arc<Control>,
    passes: bool,
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if *control.requests_held.borrow() && !passes {
            let spend = |left: usize| left.checked_sub(count);
            let (success, failure) = (Ordering::SeqCst, Ordering::SeqCst);
            let allowance = &control.allowance;
            if allowance.fetch_update(success, failure, spend).is_err() {
                allowance.store(0, Ordering::SeqCst);
                control.held.send_modify(|bytes| *bytes += count);
                released(&control.requests_held).await;
            }
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

async fn answers(
    control: Arc<Control>,
    passes: bool,
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if *control.answers_held.borrow() && !passes {
            control.unheard.send_modify(|bytes| *bytes += count);
            released(&control.answers_held).await;
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            control.unheard.send_modify(|bytes| *bytes += count);
        }
    }
    control.unheard.send_modify(|bytes| *bytes += 1);
}
