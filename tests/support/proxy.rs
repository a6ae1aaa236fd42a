//! What lies between a server and its database: it holds bytes back, cuts connections and takes its time,
//! as a network or a hung server does.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use small_resource_server::store::mysql::Options;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::{DEADLINE, runtime};

/// What happens to every connection, old and new.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum State {
    Up,
    /// Bytes and ends of connections stay where they are; connections stay open.
    Hung,
    /// Connections are cut, and new ones too.
    Down,
    /// Each piece takes this long.
    Slow(Duration),
}

/// Stands between a store and its server, and holds bytes back when told to. What is held is forwarded
/// later, even when the client has given up: as a network may.
pub struct Proxy {
    address: SocketAddr,
    control: Arc<Control>,
}

struct Control {
    /// Host and port that new connections lead to.
    upstream: Mutex<(String, u16)>,
    state: watch::Sender<State>,
    /// How often it went down: who sleeps through a short time of it is cut off all the same.
    cuts: watch::Sender<usize>,
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
    /// Before the server of these options; it runs until the test binary ends.
    pub fn to(options: &Options) -> Proxy {
        Proxy::leading_to(options.host.clone(), options.port)
    }

    /// Before an instance's `PEER_PORT`; the instance need not be there yet.
    pub fn to_peer(port: u16) -> Proxy {
        Proxy::leading_to("127.0.0.1".to_owned(), port)
    }

    fn leading_to(host: String, port: u16) -> Proxy {
        let local = (Ipv4Addr::LOCALHOST, 0);
        let listener = std::net::TcpListener::bind(local).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let control = Arc::new(Control {
            upstream: Mutex::new((host, port)),
            state: watch::Sender::new(State::Up),
            cuts: watch::Sender::new(0),
            requests_held: watch::Sender::new(false),
            answers_held: watch::Sender::new(false),
            new_ones_pass: AtomicBool::new(false),
            allowance: AtomicUsize::new(0),
            held: watch::Sender::new(0),
            unheard: watch::Sender::new(0),
        });
        runtime().spawn(accept(listener, control.clone()));
        Proxy { address, control }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The store reaches its server through this.
    pub fn between(&self, options: Options) -> Options {
        Options {
            host: "127.0.0.1".into(),
            port: self.address.port(),
            ..options
        }
    }

    pub fn set(&self, state: State) {
        self.control.state.send_replace(state);
        if state == State::Down {
            self.control.cuts.send_modify(|cuts| *cuts += 1);
        }
    }

    /// New connections lead there; those that are open stay where they are.
    pub fn lead_to(&self, options: &Options) {
        *self.control.upstream.lock().unwrap() = (options.host.clone(), options.port);
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

/// A port that nothing listens on, and that nothing else takes before the caller does: it lies below those that the system
/// gives to connections as they leave, and each call of a process has another one.
pub fn free_port() -> u16 {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    const FIRST: u32 = 10_000;
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range");
    let end = range
        .ok()
        .and_then(|range| range.split_whitespace().next()?.parse().ok());
    let ports = end.unwrap_or(32_768_u32).saturating_sub(FIRST).max(1);
    let free = (0..ports).find_map(|_| {
        let call = CALLS.fetch_add(1, Ordering::SeqCst);
        // Processes that run at the same time begin far from each other.
        let port = FIRST + std::process::id().wrapping_mul(211).wrapping_add(call) % ports;
        let port = u16::try_from(port).unwrap();
        std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()?;
        Some(port)
    });
    free.expect("a free port")
}

/// With a time-out that runs in whichever runtime the test has.
async fn until(mut count: watch::Receiver<usize>) {
    let reached = count.wait_for(|bytes| *bytes > 0);
    let waited = tokio::time::timeout(DEADLINE, reached).await;
    assert!(waited.expect("nothing came through the proxy").is_ok());
}

async fn released(held: &watch::Sender<bool>) {
    let mut held = held.subscribe();
    let _sender_lives = held.wait_for(|held| !held).await;
}

async fn accept(listener: std::net::TcpListener, control: Arc<Control>) {
    let listener = TcpListener::from_std(listener).unwrap();
    while let Ok((client, _)) = listener.accept().await {
        let cuts = control.cuts.subscribe();
        if *control.state.borrow() == State::Down {
            continue;
        }
        let upstream = control.upstream.lock().unwrap().clone();
        let Ok(server) = TcpStream::connect(upstream).await else {
            continue;
        };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        tokio::spawn(connection(control.clone(), cuts, client, server));
    }
}

async fn connection(
    control: Arc<Control>,
    mut cuts: watch::Receiver<usize>,
    client: TcpStream,
    server: TcpStream,
) {
    let passes = control.new_ones_pass.load(Ordering::SeqCst);
    let (client_in, client_out) = client.into_split();
    let (server_in, server_out) = server.into_split();
    let carried = async {
        tokio::join!(
            requests(&control, passes, client_in, server_out),
            answers(&control, passes, server_in, client_out),
        )
    };
    tokio::select! {
        _ = carried => {}
        _ = cuts.changed() => {}
    }
}

impl Control {
    /// As long as the state of the network keeps a piece, or the end of a connection, on its way.
    async fn travel(&self) {
        let mut state = self.state.subscribe();
        let moves = state.wait_for(|state| *state != State::Hung).await;
        let moves = moves.map_or(State::Up, |state| *state);
        if let State::Slow(delay) = moves {
            tokio::time::sleep(delay).await;
        }
    }
}

async fn requests(
    control: &Control,
    passes: bool,
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        control.travel().await;
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
    control.travel().await;
}

async fn answers(control: &Control, passes: bool, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        control.travel().await;
        if *control.answers_held.borrow() && !passes {
            control.unheard.send_modify(|bytes| *bytes += count);
            released(&control.answers_held).await;
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            control.unheard.send_modify(|bytes| *bytes += count);
        }
    }
    control.travel().await;
    control.unheard.send_modify(|bytes| *bytes += 1);
}
