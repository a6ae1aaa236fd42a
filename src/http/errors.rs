//! Every refusal, with its status and its stable code. What the client is told is here; what the log is
//! told is written where it happens.

use std::fmt;

use actix_web::http::{StatusCode, header};
use actix_web::{HttpResponse, ResponseError};

use super::auth::Right;
use super::wire::{ErrorBody, HolderBody};
use crate::actors::Closed;
use crate::lock::{EndReason, FencingToken};

#[derive(Clone, Debug, PartialEq)]
pub enum ApiError {
    /// 400: the sentence says what is wrong and what is accepted.
    Malformed(String),
    TicketMissing,
    KeyMissing,
    KeyUnknown,
    KeyInsufficient(Right),
    /// `None`: the ticket is not known.
    DeadTicket(Option<EndReason>),
    NoRoute,
    NoResource,
    /// With the fencing token, where the holder asked.
    NoSelector(Option<FencingToken>),
    /// The methods that the path has.
    Method(&'static str),
    Exists,
    Locked(Option<HolderBody>),
    KeyReused,
    NotHolder,
    OtherLease,
    TooManySelectors(usize),
    TooLarge(usize),
    SlowBody,
    TooManyWaiters,
    /// Too many requests; when to come back is in the headers.
    RateLimited,
    /// The store would not take it.
    Refused,
    Closed(Closed),
}

impl ApiError {
    fn status_and_code(&self) -> (StatusCode, &'static str) {
        match self {
            ApiError::Malformed(_) => (StatusCode::BAD_REQUEST, "malformed"),
            ApiError::TicketMissing => (StatusCode::BAD_REQUEST, "ticket_missing"),
            ApiError::KeyMissing => (StatusCode::UNAUTHORIZED, "key_missing"),
            ApiError::KeyUnknown => (StatusCode::UNAUTHORIZED, "key_unknown"),
            ApiError::KeyInsufficient(_) => (StatusCode::UNAUTHORIZED, "key_insufficient"),
            ApiError::DeadTicket(None) => (StatusCode::FORBIDDEN, "ticket_unknown"),
            ApiError::DeadTicket(Some(reason)) => (StatusCode::FORBIDDEN, reason.code()),
            ApiError::NoRoute => (StatusCode::NOT_FOUND, "route_unknown"),
            ApiError::NoResource => (StatusCode::NOT_FOUND, "resource_unknown"),
            ApiError::NoSelector(_) => (StatusCode::NOT_FOUND, "selector_unknown"),
            ApiError::Method(_) => (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"),
            ApiError::Exists => (StatusCode::CONFLICT, "resource_exists"),
            ApiError::Locked(_) => (StatusCode::CONFLICT, "locked"),
            ApiError::KeyReused => (StatusCode::CONFLICT, "idempotency_key_reused"),
            ApiError::NotHolder => (StatusCode::CONFLICT, "not_holder"),
            ApiError::OtherLease => (StatusCode::CONFLICT, "lease_over"),
            ApiError::TooManySelectors(_) => (StatusCode::CONFLICT, "too_many_selectors"),
            ApiError::TooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large"),
            ApiError::SlowBody => (StatusCode::REQUEST_TIMEOUT, "body_timeout"),
            ApiError::TooManyWaiters => (StatusCode::SERVICE_UNAVAILABLE, "too_many_waiters"),
            ApiError::RateLimited => (StatusCode::TOO_MANY_REQUESTS, "rate_limited"),
            ApiError::Refused => (StatusCode::SERVICE_UNAVAILABLE, "store_refused"),
            ApiError::Closed(closed) => (StatusCode::SERVICE_UNAVAILABLE, closed.code()),
        }
    }

    pub fn code(&self) -> &'static str {
        self.status_and_code().1
    }

    fn holder(&self) -> Option<Option<&HolderBody>> {
        match self {
            ApiError::Locked(holder) => Some(holder.as_ref()),
            _ => None,
        }
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ApiError::Malformed(sentence) => f.write_str(sentence),
            ApiError::TicketMissing => f.write_str(
                "No ticket was presented: send the X-Ticket header that the lock was answered with.",
            ),
            ApiError::KeyMissing => {
                f.write_str("No key was presented: send it in the x-api-key header.")
            }
            ApiError::KeyUnknown => f.write_str("The key in x-api-key is not known."),
            ApiError::KeyInsufficient(right) => {
                write!(f, "The key in x-api-key lacks the {} right.", right.name())
            }
            ApiError::DeadTicket(reason) => f.write_str(match reason {
                None => "The ticket is not known.",
                Some(EndReason::Released) => "The ticket was released.",
                Some(EndReason::Expired) => "The lease of this ticket expired.",
                Some(EndReason::ForcedOff) => "The lease of this ticket was forced off.",
            }),
            ApiError::NoRoute => f.write_str("There is nothing at this path."),
            ApiError::NoResource => f.write_str("There is no resource of this name."),
            ApiError::NoSelector(_) => {
                f.write_str("Nothing was ever written at this selector of the resource.")
            }
            ApiError::Method(allow) => {
                write!(f, "This path does not take this method; it takes {allow}.")
            }
            ApiError::Exists => f.write_str("A resource of this name exists already."),
            ApiError::Locked(_) => f.write_str("The lock is someone else's."),
            ApiError::KeyReused => f.write_str(
                "This Idempotency-Key was used with another owner or ttl; use a new key per attempt.",
            ),
            ApiError::NotHolder => f.write_str("This ticket waits; only a holder can renew."),
            ApiError::OtherLease => f.write_str("The lease with this fencing token does not hold."),
            ApiError::TooManySelectors(max) => {
                write!(f, "The resource has {max} selectors, which is the most it can have.")
            }
            ApiError::TooLarge(max) => {
                write!(f, "The body is too large; accepted are up to {max} bytes.")
            }
            ApiError::SlowBody => f.write_str("The body did not arrive in time."),
            ApiError::TooManyWaiters => f.write_str("Too many requests wait for a lock."),
            ApiError::RateLimited => {
                f.write_str("Too many requests; wait as long as Retry-After says.")
            }
            ApiError::Refused => f.write_str("The store refused the change; it did not happen."),
            ApiError::Closed(closed) => {
                let text = closed.to_string();
                let mut chars = text.chars();
                let first = chars.next().map(char::to_uppercase);
                first.into_iter().flatten().try_for_each(|c| write!(f, "{c}"))?;
                write!(f, "{}.", chars.as_str())
            }
        }
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        self.status_and_code().0
    }

    fn error_response(&self) -> HttpResponse {
        let (status, code) = self.status_and_code();
        let mut response = HttpResponse::build(status);
        if let ApiError::Method(allow) = self {
            response.insert_header((header::ALLOW, *allow));
        }
        if let ApiError::NoSelector(Some(token)) = self {
            response.insert_header(("x-fencing-token", token.0));
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.insert_header((header::RETRY_AFTER, "1"));
        }
        response.json(ErrorBody {
            error: self.to_string(),
            code,
            holder: self.holder(),
        })
    }
}
