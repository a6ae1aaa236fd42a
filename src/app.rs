//! Puts the server together: listener, store, actors, HTTP. The binary and the tests build the same server.

use std::fmt::Display;
use std::future::Future;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use actix_server::{Server, ServerBuilder};
use arc_swap::ArcSwap;
use socket2::{Domain, Socket, Type};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;

use crate::cluster::client::ClusterClient;
use crate::cluster::serve::{listen_to_peers, start_monitoring};
use crate::cluster::tls as peer_tls;
use crate::config::{HttpSettings, Settings, StoreKind};
use crate::http::policy::{Policy, SharedPolicy};
use crate::http::server;
use crate::http::tls::{self, Certificate};
use crate::persistence::actor::Persistence;
use crate::persistence::handle::PersistenceHandle;
use crate::persistence::messages::PersistenceNotice;
use crate::registry::actor::Registry;
use crate::registry::client::Router;
use crate::reload::{ReadSettings, Reloader};
use crate::shared::gate::Closed;
use crate::shared::liveness::Failure;
use crate::shared::registry_notice::RegistryNotice;
use crate::shared::server_state::ServerState;
use crate::store::memory::MemoryStore;
use crate::store::mysql::{self, MysqlStore, PeerPort};
use crate::store::sqlite::SqliteStore;
use crate::store::{Store, StoreError};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;
/// How often files of settings are checked for changes.
const WATCH_PAUSE: Duration = Duration::from_secs(2);
/// How long a process that cannot go on tries to release its store.
const GIVING_BACK: Duration = Duration::from_secs(1);
/// Time at a shutdown to give slots to other instances, before the store is released.
const GIVING_SLOTS: Duration = Duration::from_secs(5);
/// How long requests that come too late are still answered 503, before connections are closed.
const LAST_ANSWERS: Duration = Duration::from_millis(250);

/// Makes the failure of an error: `what` the server could not do.
fn failed<E: Display>(what: &str) -> impl Fn(E) -> Failure {
    move |error: E| Failure::Refused(format!("{what}: {error}"))
}

/// What the first attempt to open the store came to.
pub type FirstOpen = oneshot::Receiver<Result<(), StoreError>>;

/// Starts the persistence actor on the thread `writing`, which a store may block, and the registry on `finding`, and
/// makes them known to each other.
pub fn start_actors(
    server: &Arc<ServerState>,
    writing: &ArbiterHandle,
    finding: &ArbiterHandle,
) -> (Addr<Persistence>, Addr<Registry>, FirstOpen) {
    let (told, first_open) = oneshot::channel();
    let commits = Arc::default();
    let writer = Persistence::new(server.clone(), Arc::clone(&commits), told);
    let persistence = Persistence::start_in_arbiter(writing, |_| writer);
    let handle = PersistenceHandle {
        actor: persistence.clone(),
        commits,
    };
    let registry = Registry::new(server.clone(), handle);
    let registry = Registry::start_in_arbiter(finding, |_| registry);
    persistence.do_send(PersistenceNotice::Registry(registry.clone().recipient()));
    (persistence, registry, first_open)
}

/// A server that is bound and serving.
pub struct App {
    address: SocketAddr,
    server: Arc<ServerState>,
    http_server: Server,
    registry: Addr<Registry>,
    persistence: Addr<Persistence>,
    /// The threads of the registry, of the persistence actor, and of the connections of [`start_monitoring`].
    arbiters: Vec<Arbiter>,
    settings: Settings,
    policy: SharedPolicy,
    certificate: Option<Arc<Certificate>>,
}

impl App {
    /// Binds, opens the store and starts serving. Must be called inside an actix system.
    ///
    /// A store that cannot be reached, or that another instance has, does not prevent the start: the server answers
    /// `/health` and waits. A store that can never be used does.
    ///
    /// # Errors
    /// An address cannot be bound, the store can never be used, TLS cannot be served, or the workers cannot be
    /// started.
    pub async fn build(settings: Settings) -> Result<App, Failure> {
        let HttpSettings { host, port, .. } = settings.http;
        let (listener, address) = bind(host, port, "HTTP_HOST, HTTP_PORT")?;
        let lease = settings.store.instance_lease();
        let peers = lease.map(|_| peer_listener(&settings)).transpose()?;
        let (peers, peer_port) = peers.unzip();
        let store = store(&settings, peer_port);
        let server = Arc::new(ServerState::new(settings.server.clone(), store));

        // Each has a thread of its own, so that a store that hangs holds up nothing else. Resources live on
        // the workers' threads.
        let [writing, finding] = [Arbiter::new(), Arbiter::new()];
        let (persistence, registry, first_open) =
            start_actors(&server, &writing.handle(), &finding.handle());
        let router = {
            let (server, registry, persistence) =
                (server.clone(), registry.clone(), persistence.clone());
            move || Router::new(server.clone(), registry.clone(), persistence.clone())
        };
        let mut arbiters = vec![finding, writing];
        let certificate = settings.http.tls.as_ref();
        let certificate = certificate.map(|read| Certificate::new(read, &server.metrics));
        let tls = certificate.as_ref().map(spoken_tls).transpose()?;
        let (tls, tls_to_peers) = tls.unzip();
        arbiters.extend(lease.map(|lease| start_monitoring(&server, router.clone(), lease)));
        let router_of_peers = router.clone();
        let with_peers = |builder: ServerBuilder| match peers.zip(lease) {
            Some((listener, lease)) => {
                listen_to_peers(builder, listener, tls_to_peers, lease, router_of_peers)
            }
            None => Ok(builder),
        };
        let opened = first_open.await.unwrap_or(Ok(()));
        if let Err(error @ StoreError::Unusable(_)) = opened {
            return Err(Failure::Store(error));
        }
        let cluster = move || ClusterClient::new(router(), lease);
        let policy: SharedPolicy = Arc::new(ArcSwap::from_pointee(Policy::new(&settings, None)));
        let http_server = server::run(
            listener,
            &settings,
            tls,
            policy.clone(),
            &server.metrics,
            cluster,
            with_peers,
        )
        .map_err(failed("cannot start the HTTP workers"))?;
        announce(&settings, address, &server);
        Ok(App {
            address,
            server,
            http_server,
            registry,
            persistence,
            arbiters,
            settings,
            policy,
            certificate,
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn server(&self) -> &Arc<ServerState> {
        &self.server
    }

    /// Serves until SIGTERM or SIGINT, then shuts down in order. On SIGHUP, and when a file of settings changes,
    /// the settings are read again with `load`. `signals`: of [`catch_signals`].
    pub async fn run_until_stopped(
        self,
        signals: [Signal; 3],
        load: ReadSettings,
    ) -> Result<(), Failure> {
        let [mut terminate, mut interrupt, mut hangup] = signals;
        let (policy, certificate) = (self.policy.clone(), self.certificate.clone());
        let mut reloader = Reloader::new(&self.settings, policy, certificate, load);
        let server = self.server.clone();
        let reloading = actix_rt::spawn(async move {
            let mut look = tokio::time::interval(WATCH_PAUSE);
            let mut view = server.members.subscribe();
            loop {
                tokio::select! {
                    Ok(()) = view.changed() => reloader.share_limit(view.borrow_and_update().serving()),
                    Some(()) = hangup.recv() => reloader.reload(),
                    _ = look.tick() => reloader.reload_if_changed(),
                }
            }
        });
        let stop = async move {
            let why = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            actix_rt::spawn(end_at_next_interrupt(interrupt));
            why
        };
        let ended = self.run_until(stop).await;
        reloading.abort();
        ended
    }

    /// Serves until `stop` is ready. Then `/ready` tells balancers, which are given time; waiting requests are
    /// answered 503, other requests are finished, and the store is released.
    ///
    /// # Errors
    /// The server ended by itself and can serve no more. Threads that hang are left behind: the process should
    /// end.
    pub async fn run_until(self, stop: impl Future<Output = &'static str>) -> Result<(), Failure> {
        let (server, persistence) = (self.server.clone(), self.persistence.clone());
        tokio::select! {
            biased;
            ended = self.serve_until(stop) => ended.map_err(failed("the HTTP server ended")),
            failure = server.failure() => {
                // This process answers nothing any more, and an instance that waits for the store gets it at once.
                server.gate.close(Closed::Stopping);
                let _ = timeout(GIVING_BACK, end(&persistence, PersistenceNotice::Finish)).await;
                Err(failure)
            }
        }
    }

    async fn serve_until(self, stop: impl Future<Output = &'static str>) -> std::io::Result<()> {
        let handle = self.http_server.handle();
        let mut serving = actix_rt::spawn(self.http_server);
        let why = tokio::select! {
            ended = &mut serving => {
                ended.unwrap_or_else(|e| Err(std::io::Error::other(e)))?;
                return Err(std::io::Error::other("it was not asked to stop"));
            }
            why = stop => why,
        };
        log::info!("{why}: shutting down");
        self.server.gate.drain();
        // All requests are still served: a client whose balancer has not noticed yet may have no other server.
        tokio::time::sleep(self.settings.shutdown_delay).await;
        // Requests are still taken while slots are given away, and passed on to the new owners.
        let deadline = Instant::now() + self.settings.shutdown_timeout;
        let limit = GIVING_SLOTS.min(self.settings.shutdown_timeout / 2);
        let given = timeout(limit, end(&self.persistence, PersistenceNotice::GiveSlots)).await;
        if given.is_err() {
            log::warn!("not all slots were given away in time; other instances take the rest over");
        }
        self.server.gate.stop();
        let view = &self.server.members;
        view.send_modify(|view| view.stopping = true);
        self.registry.do_send(RegistryNotice::EndWaits);
        finish_requests(&self.server, deadline).await;
        // What was acknowledged is stored already; this releases the store. It comes before connections are
        // closed, which slow clients can delay: the next instance need not wait for that.
        let limit = deadline.max(Instant::now() + Duration::from_secs(1));
        let finished = end(&self.persistence, PersistenceNotice::Finish);
        let finished = timeout_at(limit, finished).await;
        if finished.is_err() {
            log::error!("the store did not close in time");
        }
        // A client learns from the answer to its next request that its connection closes. Closing it earlier,
        // while a request is being sent, would reset it.
        tokio::time::sleep_until(deadline.min(Instant::now() + LAST_ANSWERS)).await;
        if timeout_at(deadline, handle.stop(true)).await.is_err() {
            log::warn!("closing connections that are still busy");
            // Aborted, the workers end at once; if asked again, they would use all the time they were given.
            serving.abort();
        }
        let _ = serving.await;
        self.server.events.summarise();
        for arbiter in self.arbiters {
            arbiter.stop();
            // If the store hangs, its thread would not end.
            if finished.is_ok() {
                let _ = arbiter.join();
            }
        }
        log::info!("stopped");
        Ok(())
    }
}

/// Has the persistence actor take a step in which this instance ends. Ready when that is done, or the actor gone.
fn end(
    persistence: &Addr<Persistence>,
    step: fn(oneshot::Sender<()>) -> PersistenceNotice,
) -> oneshot::Receiver<()> {
    let (done, ended) = oneshot::channel();
    persistence.do_send(step(done));
    ended
}

/// Waits until no request waits for a reply, or the deadline has passed. The actors live on the workers' threads,
/// so no worker may end before.
async fn finish_requests(server: &ServerState, deadline: Instant) {
    let answered = async {
        while server.in_flight() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    if timeout_at(deadline, answered).await.is_err() {
        log::warn!("{} requests are still unanswered", server.in_flight());
    }
}

/// Ends the process at a SIGINT during the shutdown: the operator does not want to wait for its end.
async fn end_at_next_interrupt(mut interrupt: Signal) {
    interrupt.recv().await;
    log::warn!("SIGINT again: ending at once; everything that was acknowledged is stored");
    crate::logging::finish(Duration::from_millis(100));
    std::process::exit(130);
}

/// The TLS configurations for clients and for other instances.
fn spoken_tls(
    certificate: &Arc<Certificate>,
) -> Result<(Arc<rustls::ServerConfig>, TlsAcceptor), Failure> {
    let refused = failed::<rustls::Error>("cannot serve TLS");
    let to_clients = tls::server_config(certificate.clone()).map_err(&refused)?;
    let to_peers = peer_tls::acceptor(certificate.clone()).map_err(&refused)?;
    Ok((to_clients, to_peers))
}

/// Logs where the server listens, its store, its profile and its settings.
fn announce(settings: &Settings, address: SocketAddr, server: &ServerState) {
    let scheme = settings.http.scheme();
    let version = env!("CARGO_PKG_VERSION");
    log::info!("small-resource-server {version} listens on {scheme}://{address}");
    log::info!(
        "{}; profile: {}; {}",
        settings.store_line(),
        server.profile().name(),
        settings.file_line()
    );
    for line in settings.summary() {
        log::debug!("{line}");
    }
    for warning in &settings.origins.warnings {
        log::warn!("{warning}");
    }
}

/// Begins to handle SIGTERM, SIGINT and SIGHUP, in this order: from here on none of them ends the process by itself,
/// and none is lost. To be called before [`App::build`], which may take a while.
pub fn catch_signals() -> Result<[Signal; 3], Failure> {
    let caught = |kind| signal(kind).map_err(failed("cannot handle signals"));
    Ok([
        caught(SignalKind::terminate())?,
        caught(SignalKind::interrupt())?,
        caught(SignalKind::hangup())?,
    ])
}

/// A listener, and the address that it got: `port` may be 0, which means any free one. `variables` name the settings
/// in the error.
fn bind(
    host: IpAddr,
    port: u16,
    variables: &'static str,
) -> Result<(TcpListener, SocketAddr), Failure> {
    let address = SocketAddr::new(host, port);
    let listen = || -> std::io::Result<_> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let listener = TcpListener::from(socket);
        let bound = listener.local_addr()?;
        Ok((listener, bound))
    };
    let what = format!("cannot listen on {address} ({variables})");
    listen().map_err(failed(&what))
}

/// The listener for other instances, and the address that they are told.
fn peer_listener(settings: &Settings) -> Result<(TcpListener, PeerPort), Failure> {
    let http = &settings.http;
    let (listener, bound) = bind(http.host, settings.peer_port, "HTTP_HOST, PEER_PORT")?;
    let (host, port) = match &settings.advertise {
        Some((host, port)) => (Some(host.clone()), *port),
        None if http.host.is_unspecified() => (None, None),
        None => (Some(http.host.to_string()), None),
    };
    let port = port.unwrap_or(bound.port());
    let is_tls = http.tls.is_some();
    Ok((listener, PeerPort { host, port, is_tls }))
}

/// The store that the settings name, not opened yet. `peers`: where this instance takes requests from other
/// instances.
pub fn store(settings: &Settings, peers: Option<PeerPort>) -> Arc<dyn Store> {
    match &settings.store {
        StoreKind::Memory => Arc::new(MemoryStore::default()),
        StoreKind::Sqlite { path } => Arc::new(SqliteStore::new(path)),
        StoreKind::Mysql(options) => Arc::new(MysqlStore::new(mysql::Options {
            peers,
            ..options.clone()
        })),
    }
}
