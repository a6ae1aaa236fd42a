//! Around every route: what is known of a request and is left of it ([`observe`]), and whether it is answered at
//! all ([`admission`]).

pub mod admission;
pub mod observe;

use std::rc::Rc;
use std::time::Instant;

use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::{Error, ResponseError};

use self::admission::Admission;
use self::observe::{Observed, Observer};
use super::errors::ApiError;
use super::routes;
use super::worker::Worker;

/// Answers a request. One future for all concerns, so that a request does not pass one for each.
pub fn answer(
    observer: &Rc<Observer>,
    worker: &Rc<Worker>,
    request: ServiceRequest,
) -> impl Future<Output = Result<ServiceResponse, Error>> + use<> {
    let observed = Observed::begin(observer, &request);
    let (admission, verdict) = Admission::begin(worker, &observed.known, &request);
    let (request, payload) = request.into_parts();
    let answer = verdict.map(|()| {
        let (known, worker) = (observed.known.clone(), worker.clone());
        routes::dispatch(request.clone(), known, payload, worker)
    });
    async move {
        let answered = match answer {
            Ok(answer) => answer.await,
            Err(refused) => Err(refused),
        };
        let now = Instant::now();
        admission::answered(&observed.known, now).await;
        let code = answered.as_ref().err().map(ApiError::code);
        let response = answered.unwrap_or_else(|error| error.error_response());
        let mut response = ServiceResponse::new(request, response);
        admission.end(&mut response);
        observed.end(&mut response, code, now);
        // The PHP client reads header names in title case only.
        let head = response.response_mut().head_mut();
        head.set_camel_case_headers(true);
        Ok(response)
    }
}
