//! Runs around every route: [`admission`] decides whether a request is answered, [`observe`] records the answer.

pub mod admission;
pub mod observe;

use std::rc::Rc;
use std::time::Instant;

use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::{Error, ResponseError};

use super::errors::ApiError;
use super::request::Request;
use super::routes;
use super::worker::Worker;

/// Answers a request. One future does it all, so that a request does not pass through one future per concern.
pub fn answer(
    worker: &Rc<Worker>,
    request: ServiceRequest,
) -> impl Future<Output = Result<ServiceResponse, Error>> + use<> {
    let (http, payload) = request.into_parts();
    let request = Rc::new(Request::begin(http, worker));
    let (verdict, rate) = admission::begin(&request);
    let answer = verdict.map(|()| routes::dispatch(request.clone(), payload));
    async move {
        let answered = match answer {
            Ok(answer) => answer.await,
            Err(refused) => Err(refused),
        };
        let now = Instant::now();
        admission::answered(&request, now).await;
        let code = answered.as_ref().err().map(ApiError::code);
        let mut response = answered.unwrap_or_else(|error| error.error_response());
        admission::end(&request, rate, &mut response);
        observe::end(&request, &mut response, code, now);
        // The PHP client reads header names in title case only.
        response.head_mut().set_camel_case_headers(true);
        Ok(ServiceResponse::new(request.http.clone(), response))
    }
}
