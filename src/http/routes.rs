//! Which path and method leads to which handler. Everything else is a 404, or a 405 that names the methods.

use actix_web::HttpRequest;
use actix_web::web::{Data, Payload};

use super::errors::ApiError;
use super::handlers::{data, events, history, locks, resources, status};
use super::middleware::observe;
use super::page;
use super::paths::Route;
use super::respond::Response;
use super::worker::Worker;

/// Every request, as the framework has no routes of its own.
pub async fn dispatch(req: HttpRequest, payload: Payload, worker: Data<Worker>) -> Response {
    let known = observe::known(&req).ok_or(ApiError::NoRoute)?;
    let route = known.route.ok_or(ApiError::NoRoute)?;
    let method = req.method().clone();
    match (route, method.as_str()) {
        (Route::Lock, "PUT" | "POST") => locks::lock(req, known, payload, worker).await,
        (Route::Unlock, "PUT" | "POST") => locks::unlock(req, known, worker).await,
        (Route::Renew, "PUT" | "POST") => locks::renew(req, known, payload, worker).await,
        (Route::Data, "GET") => {
            // It may wait for long. A body that nobody takes would keep the end of the connection unread.
            drop(payload);
            data::get(req, known, worker).await
        }
        (Route::Data, "PUT") => data::put(req, known, payload, worker).await,
        (Route::Data, "DELETE") => data::delete(req, known, worker).await,
        // Apart, as others below: every request would be as large as a listing.
        (Route::Resource, "GET") => Box::pin(resources::describe(req, known, worker)).await,
        (Route::Resource, "DELETE") => resources::delete(req, known, worker).await,
        (Route::Resources, "GET") => Box::pin(resources::list(req, known, worker)).await,
        (Route::Resources, "POST") => resources::create(req, known, payload, worker).await,
        (Route::History, "GET") => history::history(req, known, worker).await,
        (Route::Events, "GET") => {
            // As above: the stream ends with its connection alone.
            drop(payload);
            Box::pin(events::events(req, known, worker)).await
        }
        (Route::Health, "GET" | "HEAD") => Ok(status::health()),
        (Route::Ready, "GET" | "HEAD") => status::ready(&worker),
        (Route::Metrics, "GET" | "HEAD") => status::metrics(&worker),
        (Route::Openapi, "GET" | "HEAD") => Ok(status::openapi()),
        (Route::Status, "GET") => Box::pin(status::status(req, known, worker)).await,
        (Route::Page | Route::PageFile, "GET" | "HEAD") => page::file(&req),
        (Route::ForceUnlock, "POST") => locks::force_unlock(req, known, payload, worker).await,
        // The same path is force-unlock with POST.
        (Route::Data, _) if req.uri().path().ends_with("/force-unlock") => {
            Err(ApiError::Method("GET, PUT, DELETE, POST"))
        }
        (route, _) => Err(ApiError::Method(route.allow())),
    }
}
