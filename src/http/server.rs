//! Starts the workers, with the limits of their connections and the middleware around the routes.

use std::cell::Cell;
use std::future::poll_fn;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use actix_http::HttpService;
use actix_server::ServerBuilder;
use actix_service::{IntoServiceFactory, ServiceFactoryExt, fn_service, map_config};
use actix_web::App;
use actix_web::dev::{AppConfig, Server};
use actix_web::rt::net::TcpStream;
use rustls::ServerConfig;
use tokio_rustls::TlsAcceptor;

use super::acceptor;
use super::connection::Connection;
use super::connection_limits::{self, ConnectionLimits};
use super::errors::CODES;
use super::middleware::answer;
use super::policy::SharedPolicy;
use super::worker::Worker;
use crate::cluster::client::ClusterClient;
use crate::config::Settings;
use crate::metrics::Metrics;
use crate::metrics::requests::RequestSeries;
use crate::shared::server_state::ServerState;

/// Connections beyond all limits that a worker may accept, only to close them at once.
const BEYOND_PER_WORKER: usize = 1024;
/// How long a client may take to receive the last answer on a connection that closes.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(1);

fn worker(settings: &Settings, cluster: ClusterClient, policy: SharedPolicy) -> Worker {
    Worker {
        cluster,
        policy,
        body_bytes_max: settings.http.body_bytes_max,
        body_timeout: settings.http.body_timeout,
        wait_max: settings.wait_max,
        access_log: settings.access_log,
        series: RequestSeries::default(),
        id: rand::random(),
        tags: Cell::new(0),
    }
}

/// Waits for `stopped`. actix-http polls this with each step of a connection, but polling `stopped`, which all
/// threads share, is not cheap. So `stopped` is polled once for each waker, to register it, and then again only
/// when the server drains.
fn when_stopped(
    server: Arc<ServerState>,
    stopped: impl Future<Output = ()>,
) -> impl Future<Output = ()> {
    let mut stopped = Box::pin(stopped);
    let mut asked: Option<Waker> = None;
    poll_fn(move |cx| {
        let known = asked.as_ref().is_some_and(|w| w.will_wake(cx.waker()));
        if known && !server.gate.is_draining() {
            return Poll::Pending;
        }
        asked = Some(cx.waker().clone());
        stopped.as_mut().poll(cx)
    })
}

/// Starts the workers on a bound listener, with TLS if `tls` is given. `cluster` makes the client of each
/// worker. `with_peers` adds the listener for other instances, which the same threads serve. Must be called inside
/// an actix system.
pub fn run(
    listener: TcpListener,
    settings: &Settings,
    tls: Option<Arc<ServerConfig>>,
    policy: SharedPolicy,
    metrics: &Metrics,
    cluster: impl Fn() -> ClusterClient + Send + Clone + 'static,
    with_peers: impl FnOnce(ServerBuilder) -> std::io::Result<ServerBuilder>,
) -> std::io::Result<Server> {
    // Shown before the first refusal, so that a rate over them begins at 0.
    for (_, code) in CODES {
        metrics.refusals_total.with_label_values(&[code]);
    }
    let connections_max = connection_limits::within_open_files(settings.http.connections_max);
    let head_max = settings.http.request_head_timeout;
    let quiet_max = settings.http.keep_alive + head_max;
    let limits = ConnectionLimits::new(connections_max, head_max, quiet_max, metrics);
    let (limits, tls) = (Arc::new(limits), tls.map(TlsAcceptor::from));
    let beyond = connection_limits::RESERVED + BEYOND_PER_WORKER;
    let builder = Server::build()
        .workers(settings.http.workers)
        .max_concurrent_connections(connections_max.saturating_add(beyond))
        .shutdown_timeout(settings.shutdown_timeout.as_secs().max(1))
        .disable_signals();
    let builder = with_peers(builder)?;
    let stopping = builder.graceful_shutdown_signal();
    let address = listener.local_addr()?;
    let settings = Arc::new(settings.clone());
    let http_server = builder.listen("http", listener, move || {
        let worker = Rc::new(worker(&settings, cluster(), policy.clone()));
        let server = worker.cluster.router.server.clone();
        actix_rt::spawn(worker.server().liveness.worker().prove_on());
        let app = App::new()
            .default_service(fn_service(move |request| answer(&worker, request)))
            .into_factory()
            .map_err(|error| error.error_response());
        let stopping = stopping.clone();
        let http = HttpService::build()
            .graceful_shutdown_signal(move || {
                let (stopping, server) = (stopping.clone(), server.clone());
                when_stopped(server, async move { stopping.notified().await })
            })
            .keep_alive(settings.http.keep_alive)
            .client_request_timeout(head_max)
            .client_disconnect_timeout(DISCONNECT_TIMEOUT)
            // A client that closes its sending side counts as gone: its place in a queue is given up.
            .h1_allow_half_closed(false)
            .local_addr(address)
            .on_connect_ext(|connection: &Connection, data| {
                data.insert(connection.state().clone());
            })
            .finish(map_config(app, |()| AppConfig::default()));
        let (limits, noting, tls) = (limits.clone(), limits.clone(), tls.clone());
        fn_service(move |stream: TcpStream| {
            let accepted = acceptor::accept(limits.clone(), tls.clone(), stream);
            async move { accepted.await.ok_or(()) }
        })
        .and_then(http.map_err(move |error| acceptor::note(&noting, &error)))
    })?;
    Ok(http_server.run())
}
