//! How the server is, for balancers, containers and people. No key is needed, and no name, ticket or key
//! is shown.

use actix_web::HttpResponse;
use actix_web::http::header;
use actix_web::web::Data;

use crate::http::errors::ApiError;
use crate::http::openapi;
use crate::http::respond::{self, Response};
use crate::http::wire::StatusBody;
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
