//! Sockets, workers, and what a connection may take.

use std::any::Any;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::{Server, Service};
use actix_web::{App, HttpServer, rt, web};
use socket2::{SockRef, TcpKeepalive};

use super::auth::Keys;
use super::errors::ApiError;
use super::routes;
use super::unread::Unread;
use crate::actors::{Op, Reply, Router};
use crate::lock::ResourceName;

/// How the HTTP side behaves.
#[derive(Clone)]
pub struct HttpLimits {
    pub workers: usize,
    pub keep_alive: Duration,
    pub body_bytes_max: usize,
    pub body_timeout: Duration,
    pub request_head_timeout: Duration,
    pub connections_max: usize,
    pub wait_max: Duration,
    pub shutdown_timeout: Duration,
}

/// What every handler of one worker thread shares.
pub struct Worker {
    pub router: Router,
    pub keys: Arc<Keys>,
    pub body_bytes_max: usize,
    pub body_timeout: Duration,
    pub wait_max: Duration,
}

impl Worker {
    /// One message, one reply; and no reply leaves when the store may no longer be ours.
    pub async fn ask(&self, name: &ResourceName, op: Op) -> Result<Reply, ApiError> {
        let reply = self.router.ask(name, op).await;
        self.check_answer()?;
        Ok(reply)
    }

    pub fn check_answer(&self) -> Result<(), ApiError> {
        let gate = &self.router.shell.gate;
        gate.check_answer().map_err(ApiError::Closed)
    }

    pub fn selectors_max(&self) -> usize {
        self.router.shell.settings.selectors_max
    }
}

/// The time after which a client that went silent without closing its connection is given up: its
/// keep-alive probes start after half of it, and data it does not acknowledge counts as well.
const DEAD_PEER: Duration = Duration::from_secs(20);

fn watch_peer(connection: &dyn Any) {
    let Some(stream) = connection.downcast_ref::<rt::net::TcpStream>() else {
        return;
    };
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

/// Starts the workers on a bound listener. Must be called inside an actix system.
pub fn run(
    listener: TcpListener,
    limits: HttpLimits,
    keys: Arc<Keys>,
    router: impl Fn() -> Router + Send + Clone + 'static,
) -> std::io::Result<Server> {
    let settings = limits.clone();
    let server = HttpServer::new(move || {
        let worker = Worker {
            router: router(),
            keys: keys.clone(),
            body_bytes_max: settings.body_bytes_max,
            body_timeout: settings.body_timeout,
            wait_max: settings.wait_max,
        };
        App::new()
            .app_data(web::Data::new(worker))
            .configure(routes::configure)
            .wrap_fn(|mut request, service| {
                let unread = Unread::share(&mut request);
                let answer = service.call(request);
                async move {
                    let mut response = unread.hold(answer.await?);
                    // The PHP client reads header names in title case only.
                    response
                        .response_mut()
                        .head_mut()
                        .set_camel_case_headers(true);
                    Ok(response)
                }
            })
    })
    .workers(limits.workers)
    .keep_alive(limits.keep_alive)
    .client_request_timeout(limits.request_head_timeout)
    .max_connections(limits.connections_max.div_ceil(limits.workers))
    // A client that closes its side is gone: its place in a queue must go with it.
    .h1_allow_half_closed(false)
    .on_connect(|connection, _| watch_peer(connection))
    .shutdown_timeout(limits.shutdown_timeout.as_secs().max(1))
    .disable_signals()
    .listen(listener)?;
    Ok(server.run())
}
