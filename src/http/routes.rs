//! Which path and method leads where. Everything else is a 404, or a 405 that names the methods.

use actix_web::guard::{self, Guard};
use actix_web::web::{self, ServiceConfig};
use actix_web::{HttpResponse, Resource};

use super::errors::ApiError;
use super::handlers::{data, locks, resources, status};

/// A path with the methods it takes, given as `Allow` for the others.
fn path(pattern: &str, allow: &'static str) -> Resource {
    web::resource(pattern).default_service(web::to(move || async move {
        Err::<HttpResponse, ApiError>(ApiError::Method(allow))
    }))
}

fn put_or_post() -> impl Guard {
    guard::Any(guard::Put()).or(guard::Post())
}

pub fn configure(config: &mut ServiceConfig) {
    let get_or_head = || guard::Any(guard::Get()).or(guard::Head());
    config
        .service(
            path("/health", "GET, HEAD")
                .route(web::route().guard(get_or_head()).to(status::health)),
        )
        .service(
            path("/ready", "GET, HEAD").route(web::route().guard(get_or_head()).to(status::ready)),
        )
        .service(
            path("/resource", "GET, POST")
                .route(web::get().to(resources::list))
                .route(web::post().to(resources::create)),
        )
        .service(
            path("/resource/{name}", "GET, DELETE")
                .route(web::get().to(resources::describe))
                .route(web::delete().to(resources::delete)),
        )
        .service(
            web::resource("/resource/{name}/force-unlock")
                .guard(guard::Post())
                .to(locks::force_unlock),
        )
        .service(
            path("/resource/{name}/{selector}", "GET, PUT, DELETE")
                .route(web::get().to(data::get))
                .route(web::put().to(data::put))
                .route(web::delete().to(data::delete)),
        )
        .service(
            path("/resource/{name}/{selector}/lock", "PUT, POST")
                .route(web::route().guard(put_or_post()).to(locks::lock)),
        )
        .service(
            path("/resource/{name}/{selector}/unlock", "POST, PUT")
                .route(web::route().guard(put_or_post()).to(locks::unlock)),
        )
        .service(
            path("/resource/{name}/{selector}/renew", "PUT, POST")
                .route(web::route().guard(put_or_post()).to(locks::renew)),
        )
        .default_service(web::to(|| async {
            Err::<HttpResponse, ApiError>(ApiError::NoRoute)
        }));
}
