//! Leads each path and method to its handler. Another path is a 404, another method a 405 that lists the path's
//! methods.

use std::future::ready;
use std::rc::Rc;

use actix_web::dev::Payload;
use futures_util::future::LocalBoxFuture;

use super::errors::ApiError;
use super::handlers::{data, events, history, locks, resources, status};
use super::page;
use super::paths::Route;
use super::request::Request;
use super::respond::Response;

/// Dispatches every request: actix-web is given no routes. A body that the handler does not take is dropped
/// here: if it were kept while the request waits, actix-http would not read on and so not see that the client
/// closed the connection.
///
/// Each handler's future is boxed by itself: as one future of all handlers, every request would be as large as
/// the largest.
pub fn dispatch(req: Rc<Request>, payload: Payload) -> LocalBoxFuture<'static, Response> {
    let Some(route) = req.route else {
        return at_once(Err(ApiError::NoRoute));
    };
    match (route, req.http.method().as_str()) {
        (Route::Lock, "PUT" | "POST") => Box::pin(locks::lock(req, payload)),
        (Route::Unlock, "PUT" | "POST") => Box::pin(locks::unlock(req)),
        (Route::Renew, "PUT" | "POST") => Box::pin(locks::renew(req, payload)),
        (Route::Data, "GET") => Box::pin(data::get(req)),
        (Route::Data, "PUT") => Box::pin(data::put(req, payload)),
        (Route::Data, "DELETE") => Box::pin(data::delete(req)),
        (Route::Resource, "GET") => Box::pin(resources::describe(req)),
        (Route::Resource, "DELETE") => Box::pin(resources::delete(req)),
        (Route::Resources, "GET") => Box::pin(resources::list(req)),
        (Route::Resources, "POST") => Box::pin(resources::create(req, payload)),
        (Route::History, "GET") => Box::pin(history::history(req)),
        (Route::Events, "GET") => Box::pin(events::events(req)),
        (Route::Health, "GET" | "HEAD") => without_key(&req, |_| Ok(status::health())),
        (Route::Ready, "GET" | "HEAD") => without_key(&req, status::ready),
        (Route::Metrics, "GET" | "HEAD") => without_key(&req, status::metrics),
        (Route::Openapi, "GET" | "HEAD") => without_key(&req, |_| Ok(status::openapi())),
        (Route::Status, "GET") => Box::pin(status::status(req)),
        (Route::Page | Route::PageFile, "GET" | "HEAD") => without_key(&req, page::file),
        (Route::ForceUnlock, "POST") => Box::pin(locks::force_unlock(req, payload)),
        // The same path is force-unlock with POST.
        (Route::Data, _) if req.http.uri().path().ends_with("/force-unlock") => {
            at_once(Err(ApiError::Method("GET, PUT, DELETE, POST")))
        }
        (route, _) => at_once(Err(ApiError::Method(route.allow()))),
    }
}

/// Answers at once and without a key. The routes that need one check conditional headers together with it.
fn without_key(
    req: &Request,
    answer: impl FnOnce(&Request) -> Response,
) -> LocalBoxFuture<'static, Response> {
    at_once(req.check_conditions().and_then(|()| answer(req)))
}

fn at_once(response: Response) -> LocalBoxFuture<'static, Response> {
    Box::pin(ready(response))
}
