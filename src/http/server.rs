//! Sockets, workers, and what a connection may take.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_http::{HttpService, Protocol};
use actix_service::{IntoServiceFactory, Service, ServiceFactoryExt, fn_service, map_config};
use actix_web::dev::{AppConfig, Server};
use actix_web::rt::net::TcpStream;
use actix_web::{App, HttpRequest, web};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustls::ServerConfig;
use socket2::{SockRef, TcpKeepalive};
use tokio_rustls::TlsAcceptor;

use super::client;
use super::connection::{Connection, Patience, Wire};
use super::errors::{ApiError, CODE_LABELS};
use super::front::Front;
use super::observe::{self, Observer, observe};
use super::places::{Crowded, Place, Places};
use super::policy::SharedPolicy;
use super::refusal::{Early, Refusal};
use super::routes;
use crate::lock::ResourceName;
use crate::metrics::Metrics;
use crate::registry::client::Router;
use crate::resource::messages::{Op, Reply};

/// How the HTTP side behaves.
#[derive(Clone)]
pub struct HttpLimits {
    pub workers: usize,
    pub keep_alive: Duration,
    pub body_bytes_max: usize,
    pub body_timeout: Duration,
    pub request_head_timeout: Duration,
    pub connections_max: usize,
    pub connections_per_address_max: usize,
    pub wait_max: Duration,
    pub shutdown_timeout: Duration,
    /// One log line per request.
    pub access_log: bool,
    /// `None`: plain HTTP.
    pub tls: Option<Arc<ServerConfig>>,
}

/// What every handler of one worker thread shares.
pub struct Worker {
    pub router: Router,
    pub policy: SharedPolicy,
    pub body_bytes_max: usize,
    pub body_timeout: Duration,
    pub wait_max: Duration,
}

impl Worker {
    /// One message, one reply; and no reply leaves when the store may no longer be ours.
    pub async fn ask(&self, request: &HttpRequest, name: &ResourceName, op: &Op) -> Reply {
        let caller = observe::caller(request);
        *self.router.ask(name, op, &caller).await
    }

    pub fn check_answer(&self) -> Result<(), ApiError> {
        let gate = &self.router.shell.gate;
        gate.check_answer().map_err(ApiError::Closed)
    }

    /// Refused before anything else of it happens: what the store cannot hold must not end what others
    /// have under way with the resource.
    pub fn check_document(&self, json: &[u8]) -> Result<(), ApiError> {
        if self.router.shell.store.takes_document(json) {
            Ok(())
        } else {
            Err(ApiError::TooLargeToStore)
        }
    }

    pub fn selectors_max(&self) -> usize {
        self.router.shell.settings.selectors_max
    }
}

/// The time after which a client that went silent without closing its connection is given up: its
/// keep-alive probes start after half of it, and data it does not acknowledge counts as well.
const DEAD_PEER: Duration = Duration::from_secs(20);

/// Connections beyond those served that a worker may have in its hands: being refused, or in a handshake.
const BEYOND_PER_WORKER: usize = 1024;
/// How long a connection that ends may take to take its last answer.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(1);

fn watch_peer(stream: &TcpStream) {
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new()
        .with_time(DEAD_PEER / 2)
        .with_interval(Duration::from_secs(3))
        .with_retries(3);
    let watched = socket
        .set_tcp_keepalive(&keepalive)
        .and_then(|()| socket.set_tcp_user_timeout(Some(DEAD_PEER)))
        .and_then(|()| socket.set_tcp_nodelay(true));
    if let Err(error) = watched {
        log::debug!("a connection cannot be watched: {error}");
    }
}

/// What becomes of an accepted connection, before HTTP.
struct Reception {
    places: Arc<Places>,
    policy: SharedPolicy,
    patience: Patience,
    tls: Option<TlsAcceptor>,
}

type Received = (Connection, Protocol, Option<SocketAddr>);

impl Reception {
    /// Finds a place for it and shakes hands.
    async fn receive(&self, stream: TcpStream) -> std::io::Result<Received> {
        watch_peer(&stream);
        let peer = stream.peer_addr()?;
        match self.place(peer.ip()) {
            Ok(place) => {
                let (wire, protocol) = self.shake_hands(stream).await?;
                let watched = protocol == Protocol::Http1;
                let connection = Connection::new(wire, watched, self.patience, Some(place));
                Ok((connection, protocol, Some(peer)))
            }
            Err(crowded) => {
                if crowded == Crowded::Tell {
                    self.refuse(stream).await?;
                }
                Err(std::io::Error::other("too many connections"))
            }
        }
    }

    fn place(&self, peer: IpAddr) -> Result<Place, Crowded> {
        let peer = peer.to_canonical();
        let shared = client::is_trusted(peer, &self.policy.load().trusted_proxies);
        self.places.take(client::counted_as(peer), shared)
    }

    async fn shake_hands(&self, stream: TcpStream) -> std::io::Result<(Wire, Protocol)> {
        let Some(tls) = &self.tls else {
            return Ok((Wire::Plain(stream), Protocol::Http1));
        };
        let accepted = tokio::time::timeout(self.patience.head, tls.accept(stream));
        let stream = accepted.await??;
        let protocol = match stream.get_ref().1.alpn_protocol() {
            Some(b"h2") => Protocol::Http2,
            _ => Protocol::Http1,
        };
        Ok((Wire::Tls(Box::new(stream)), protocol))
    }

    async fn refuse(&self, stream: TcpStream) -> std::io::Result<()> {
        let _place = self.places.take_to_tell();
        let (mut wire, protocol) = self.shake_hands(stream).await?;
        let mut refusal = match protocol {
            Protocol::Http1 => Refusal::new(Early::TooManyConnections),
            _ => Refusal::silent(),
        };
        std::future::poll_fn(|cx| refusal.poll(&mut wire, cx)).await;
        Ok(())
    }
}

/// Files that are open besides connections: the store, logs, timers, the listener.
const OTHER_FILES: u64 = 256;

/// Raises the limit on open files as far as this process may, since many systems start processes with one
/// that is meant for other programs.
fn allow_open_files(connections_max: usize) {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        log::warn!("the limit on open files cannot be raised: {error}");
    }
    let files = getrlimit(Resource::Nofile).current;
    if files.is_some_and(|files| files < connections_max as u64 + OTHER_FILES) {
        log::warn!(
            "MAX_CONNECTIONS is {connections_max} and the limit on open files is {}: connections past that have to wait",
            files.unwrap_or_default()
        );
    }
}

/// Starts the workers on a bound listener. Must be called inside an actix system.
pub fn run(
    listener: TcpListener,
    limits: HttpLimits,
    policy: SharedPolicy,
    metrics: &Metrics,
    router: impl Fn() -> Router + Send + Clone + 'static,
) -> std::io::Result<Server> {
    let requests = metrics.requests(routes::PATTERNS, &CODE_LABELS);
    allow_open_files(limits.connections_max);
    let places = Places::new(limits.connections_max, limits.connections_per_address_max);
    let builder = Server::build()
        .workers(limits.workers)
        .max_concurrent_connections(limits.connections_max.saturating_add(BEYOND_PER_WORKER))
        .shutdown_timeout(limits.shutdown_timeout.as_secs().max(1))
        .disable_signals();
    let stopping = builder.graceful_shutdown_signal();
    let address = listener.local_addr()?;
    let server = builder.listen("http", listener, move || {
        let patience = Patience {
            head: limits.request_head_timeout,
            keep_alive: limits.keep_alive,
        };
        let reception = Arc::new(Reception {
            places: places.clone(),
            policy: policy.clone(),
            patience,
            tls: limits.tls.clone().map(TlsAcceptor::from),
        });
        let worker = Worker {
            router: router(),
            policy: policy.clone(),
            body_bytes_max: limits.body_bytes_max,
            body_timeout: limits.body_timeout,
            wait_max: limits.wait_max,
        };
        let observer = Observer::new(requests.worker(), policy.clone(), limits.access_log);
        let observer = Rc::new(observer);
        let app = App::new()
            .app_data(web::Data::new(worker))
            .configure(routes::configure)
            .wrap(Front)
            .wrap_fn(move |request, service| observe(&observer, request, service))
            .wrap_fn(|request, service| {
                let answer = service.call(request);
                async move {
                    // The PHP client reads header names in title case only.
                    let mut response = answer.await?;
                    response
                        .response_mut()
                        .head_mut()
                        .set_camel_case_headers(true);
                    Ok(response)
                }
            })
            .into_factory()
            .map_err(|error| error.error_response());
        let stopping = stopping.clone();
        let http = HttpService::build()
            .graceful_shutdown_signal(move || {
                let stopping = stopping.clone();
                async move { stopping.notified().await }
            })
            .keep_alive(limits.keep_alive)
            .client_request_timeout(limits.request_head_timeout)
            .client_disconnect_timeout(DISCONNECT_TIMEOUT)
            // Our stream ends the requests of a client that closes its side.
            .h1_allow_half_closed(true)
            .local_addr(address)
            .on_connect_ext(|connection: &Connection, data| {
                data.insert(connection.activity().clone());
            })
            .finish(map_config(app, |()| AppConfig::default()));
        fn_service(move |stream: TcpStream| {
            let reception = reception.clone();
            async move { reception.receive(stream).await.map_err(Into::into) }
        })
        .and_then(http)
    })?;
    Ok(server.run())
}
