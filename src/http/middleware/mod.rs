//! Around every route: what is known of a request and is left of it ([`observe`]), and whether it is answered at
//! all ([`admission`]).

pub mod admission;
pub mod observe;

use std::future::Future;
use std::rc::Rc;
use std::time::Instant;

use actix_web::Error;
use actix_web::dev::{Service, ServiceRequest, ServiceResponse};
use actix_web::web::Data;

use self::admission::Admission;
use self::observe::{Observed, Observer};
use super::worker::Worker;

/// The middleware: one, so that a request passes one future on its way and not one for each concern.
pub fn around<S>(
    observer: &Rc<Observer>,
    worker: &Data<Worker>,
    request: ServiceRequest,
    service: &S,
) -> impl Future<Output = Result<ServiceResponse, Error>> + use<S>
where
    S: Service<ServiceRequest, Response = ServiceResponse, Error = Error>,
{
    let observed = Observed::begin(observer, &request);
    let (admission, verdict) = Admission::begin(worker, &observed.known, &request);
    let answer = match verdict {
        Ok(()) => Ok(service.call(request)),
        Err(error) => Err(Box::new(request.error_response(error))),
    };
    async move {
        let answered = match answer {
            Ok(answer) => answer.await,
            Err(refused) => Ok(*refused),
        };
        let now = Instant::now();
        admission.answered(now).await;
        let mut response = answered?;
        admission.end(&mut response);
        observed.end(&mut response, now);
        // The PHP client reads header names in title case only.
        let head = response.response_mut().head_mut();
        head.set_camel_case_headers(true);
        Ok(response)
    }
}
