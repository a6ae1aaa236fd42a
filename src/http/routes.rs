//! Which path and method leads to which handler. Everything else is a 404, or a 405 that names the methods.

use actix_web::guard::{self, Guard};
use actix_web::web::{self, Data, Payload, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse, Resource};

use super::errors::ApiError;
use super::handlers::{data, events, history, locks, resources, status};
use super::middleware::observe;
use super::page;
use super::paths::Route;
use super::respond::Response;
use super::worker::Worker;

async fn dispatch(req: HttpRequest, payload: Payload, worker: Data<Worker>) -> Response {
    let route = observe::route(&req).ok_or(ApiError::NoRoute)?;
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
        (Route::Resource, "GET") => resources::describe(req, worker).await,
        (Route::Resource, "DELETE") => resources::delete(req, worker).await,
        (Route::Resources, "GET") => resources::list(req, worker).await,
        (Route::Resources, "POST") => resources::create(req, payload, worker).await,
        (Route::History, "GET") => history::history(req, worker).await,
        (Route::Events, "GET") => {
            // As above: the stream ends with its connection alone.
            drop(payload);
            events::events(req, worker).await
        }
        (Route::Status, "GET") => status::status(req, worker).await,
        (Route::Page | Route::PageFile, "GET" | "HEAD") => page::file(&req),
        (Route::ForceUnlock, "POST") => locks::force_unlock(req, payload, worker).await,
        // The same path is force-unlock with POST.
        (Route::Data, _) if req.uri().path().ends_with("/force-unlock") => {
            Err(ApiError::Method("GET, PUT, DELETE, POST"))
        }
        (route, _) => Err(ApiError::Method(route.allow())),
    }
}

/// A path that is read by programs that watch the server.
fn watched(route: Route) -> Resource {
    web::resource(route.pattern()).default_service(web::to(move || async move {
        Err::<HttpResponse, ApiError>(ApiError::Method(route.allow()))
    }))
}

fn get_or_head() -> impl Guard {
    guard::Any(guard::Get()).or(guard::Head())
}

pub fn configure(config: &mut ServiceConfig) {
    let read = || web::route().guard(get_or_head());
    config
        .service(watched(Route::Health).route(read().to(status::health)))
        .service(watched(Route::Ready).route(read().to(status::ready)))
        .service(watched(Route::Metrics).route(read().to(status::metrics)))
        .service(watched(Route::Openapi).route(read().to(status::openapi)))
        .default_service(web::to(dispatch));
}
