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
    let route = observe::known(&req).and_then(|known| known.route);
    let route = route.ok_or(ApiError::NoRoute)?;
    let method = req.method().clone();
    match (route, method.as_str()) {
        (Route::Lock, "PUT" | "POST") => locks::lock(req, payload, worker).await,
        (Route::Unlock, "PUT" | "POST") => locks::unlock(req, worker).await,
        (Route::Renew, "PUT" | "POST") => locks::renew(req, payload, worker).await,
        (Route::Data, "GET") => {
            // It may wait for long. A body that nobody takes would keep the end of the connection unread.
            drop(payload);
            data::get(req, worker).await
        }
        (Route::Data, "PUT") => data::put(req, payload, worker).await,
        (Route::Data, "DELETE") => data::delete(req, worker).await,
        // Apart, as others below: every request would be as large as a listing.
        (Route::Resource, "GET") => Box::pin(resources::describe(req, worker)).await,
        (Route::Resource, "DELETE") => resources::delete(req, worker).await,
        (Route::Resources, "GET") => Box::pin(resources::list(req, worker)).await,
        (Route::Resources, "POST") => resources::create(req, payload, worker).await,
        (Route::History, "GET") => history::history(req, worker).await,
        (Route::Events, "GET") => {
            // As above: the stream ends with its connection alone.
            drop(payload);
            Box::pin(events::events(req, worker)).await
        }
        (Route::Health, "GET" | "HEAD") => Ok(status::health()),
        (Route::Ready, "GET" | "HEAD") => status::ready(&worker),
        (Route::Metrics, "GET" | "HEAD") => status::metrics(&worker),
        (Route::Openapi, "GET" | "HEAD") => Ok(status::openapi()),
        (Route::Status, "GET") => Box::pin(status::status(req, worker)).await,
        (Route::Page | Route::PageFile, "GET" | "HEAD") => page::file(&req),
        (Route::ForceUnlock, "POST") => locks::force_unlock(req, payload, worker).await,
        // The same path is force-unlock with POST.
        (Route::Data, _) if req.uri().path().ends_with("/force-unlock") => {
            Err(ApiError::Method("GET, PUT, DELETE, POST"))
        }
        (route, _) => Err(ApiError::Method(route.allow())),
    }
}
