//! How the server is, for balancers, containers and people. No key is needed but for `/status`, and no name,
//! ticket or key is shown.

use actix_web::http::header;
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};

use crate::http::auth::Right;
use crate::http::errors::ApiError;
use crate::http::openapi;
use crate::http::request::authorize;
use crate::http::respond::{self, Response};
use crate::http::time::Time;
use crate::http::wire::{KeyBody, LockCountsBody, ServerStatusBody, StatusBody};
use crate::http::worker::Worker;

/// GET `/health`: 200 while the process serves.
pub async fn health() -> HttpResponse {
    HttpResponse::Ok().json(StatusBody { status: "ok" })
}

/// GET `/ready`: 200 when requests for resources are answered, else 503 with the reason.
pub async fn ready(worker: Data<Worker>) -> Response {
    let gate = &worker.router.shell.gate;
    gate.check_ready().map_err(ApiError::Closed)?;
    Ok(HttpResponse::Ok().json(StatusBody { status: "ready" }))
}

/// GET `/status` (READ): what the key allows, how much is held and waited for.
pub async fn status(req: HttpRequest, worker: Data<Worker>) -> Response {
    let right = authorize(&req, &worker, Right::Read)?;
    let tally = worker.router.tally(String::new()).await;
    let tally = tally.map_err(ApiError::Closed)?;
    worker.check_answer()?;
    let shell = &worker.router.shell;
    let key = right.key_name();
    Ok(HttpResponse::Ok().json(ServerStatusBody {
        version: env!("CARGO_PKG_VERSION"),
        store: shell.store.kind(),
        profile: shell.profile().name(),
        now: Time(shell.clock.now().wall),
        key: KeyBody {
            name: key,
            rights: key,
        },
        locks: LockCountsBody {
            held: tally.held,
            reserved: tally.reserved,
            waiting: tally.waiting,
            grants: shell.metrics.locks.grants(),
        },
    }))
}

/// GET `/metrics`: Prometheus text.
pub async fn metrics(worker: Data<Worker>) -> Response {
    let text = worker.router.shell.render_metrics().map_err(|error| {
        log::error!("the metrics cannot be shown: {error}");
        ApiError::Refused
    })?;
    Ok(HttpResponse::Ok()
        .insert_header((
            header::CONTENT_TYPE,
            "text/plain; version=0.0.4; charset=utf-8",
        ))
        .body(text))
}

/// GET `/openapi.json`.
pub async fn openapi(worker: Data<Worker>) -> Response {
    let text = openapi::text(worker.wait_max).map_err(|error| {
        log::error!("the OpenAPI document cannot be written: {error}");
        ApiError::Refused
    })?;
    Ok(respond::json_text(HttpResponse::Ok(), text.into()))
}
