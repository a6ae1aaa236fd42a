//! Which path and method leads where. Everything else is a 404, or a 405 that names the methods.

use actix_web::guard::{self, Guard};
use actix_web::web::{self, ServiceConfig};
use actix_web::{HttpResponse, Resource};

use super::errors::ApiError;
use super::handlers::{data, locks, resources, status};

/// Every path there is, as log and metrics name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    Health,
    Ready,
    Metrics,
    Openapi,
    Resources,
    Resource,
    ForceUnlock,
    Document,
    Lock,
    Unlock,
    Renew,
    /// There is nothing at the path.
    Unknown,
}

/// The patterns, in the order of [`Route`].
pub const PATTERNS: &[&str] = &[
    "/health",
    "/ready",
    "/metrics",
    "/openapi.json",
    "/resource",
    "/resource/{name}",
    "/resource/{name}/force-unlock",
    "/resource/{name}/{selector}",
    "/resource/{name}/{selector}/lock",
    "/resource/{name}/{selector}/unlock",
    "/resource/{name}/{selector}/renew",
    "unknown",
];

impl Route {
    pub fn pattern(self) -> &'static str {
        PATTERNS[self as usize]
    }
}

/// A path with the methods it takes, given as `Allow` for the others.
fn path(route: Route, allow: &'static str) -> Resource {
    web::resource(route.pattern())
        .app_data(route)
        .default_service(web::to(move || async move {
            Err::<HttpResponse, ApiError>(ApiError::Method(allow))
        }))
}

fn put_or_post() -> impl Guard {
    guard::Any(guard::Put()).or(guard::Post())
}

pub fn configure(config: &mut ServiceConfig) {
    let open = |route: Route| path(route, "GET, HEAD");
    let get_or_head = || guard::Any(guard::Get()).or(guard::Head());
    let any_get = || web::route().guard(get_or_head());
    config
        .service(open(Route::Health).route(any_get().to(status::health)))
        .service(open(Route::Ready).route(any_get().to(status::ready)))
        .service(open(Route::Metrics).route(any_get().to(status::metrics)))
        .service(open(Route::Openapi).route(any_get().to(status::openapi)))
        .service(
            path(Route::Resources, "GET, POST")
                .route(web::get().to(resources::list))
                .route(web::post().to(resources::create)),
        )
        .service(
            path(Route::Resource, "GET, DELETE")
                .route(web::get().to(resources::describe))
                .route(web::delete().to(resources::delete)),
        )
        .service(
            // With any other method this is the document at the selector `force-unlock`.
            web::resource(Route::ForceUnlock.pattern())
                .app_data(Route::ForceUnlock)
                .guard(guard::Post())
                .to(locks::force_unlock),
        )
        .service(
            path(Route::Document, "GET, PUT, DELETE")
                .route(web::get().to(data::get))
                .route(web::put().to(data::put))
                .route(web::delete().to(data::delete)),
        )
        .service(
            path(Route::Lock, "PUT, POST").route(web::route().guard(put_or_post()).to(locks::lock)),
        )
        .service(
            path(Route::Unlock, "POST, PUT")
                .route(web::route().guard(put_or_post()).to(locks::unlock)),
        )
        .service(
            path(Route::Renew, "PUT, POST")
                .route(web::route().guard(put_or_post()).to(locks::renew)),
        )
        .default_service(web::to(|| async {
            Err::<HttpResponse, ApiError>(ApiError::NoRoute)
        }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_route_has_the_pattern_of_its_place() {
        assert_eq!(Route::Health.pattern(), "/health");
        assert_eq!(
            Route::ForceUnlock.pattern(),
            "/resource/{name}/force-unlock"
        );
        assert_eq!(Route::Unknown.pattern(), "unknown");
        assert_eq!(PATTERNS.len(), Route::Unknown as usize + 1);
    }
}
