//! Every refusal with its status, its stable code and the sentence for the client. Log lines about a refusal
//! are written where it happens.

use std::borrow::Cow;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderName};
use actix_web::{HttpResponse, ResponseError};

use super::auth::Right;
use super::headers::X_FENCING_TOKEN;
use super::response_bodies;
use crate::lock::{EndReason, FencingToken, Refusal};
use crate::shared::gate::Closed;

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ApiError {
    /// 400: the sentence says what is wrong and what is accepted.
    #[error("{0}")]
    Malformed(String),
    /// A conditional header that the route does not support.
    #[error("This route does not understand {0}; send the request without it.")]
    ConditionNotOffered(HeaderName),
    #[error("No key was presented: send it in the x-api-key header.")]
    KeyMissing,
    #[error("The key in x-api-key is not known.")]
    KeyUnknown,
    #[error("The key in x-api-key lacks the {} right.", .0.name())]
    KeyInsufficient(Right),
    #[error("There is nothing at this path.")]
    NoRoute,
    /// The path does not have the method; the text lists its methods as in `Allow`.
    #[error("This path has no such method; it supports {0}.")]
    Method(&'static str),
    /// The body is longer than this many bytes.
    #[error("The body is too large; up to {0} bytes are accepted.")]
    TooLarge(usize),
    #[error("The body did not arrive in time.")]
    SlowBody,
    #[error("Too many connections are open; try again later.")]
    TooManyConnections,
    /// With the time until the next request may be sent.
    #[error("Too many requests; wait as long as Retry-After says.")]
    RateLimited(Duration),
    /// Refused by the resource. With the fencing token if the caller holds the lock.
    #[error("{}", refusal_sentence(.0))]
    Refused(Refusal, Option<FencingToken>),
    /// [`Refusal::Locked`] in answer to a lock request that takes no place in the queue. The client may try
    /// again, so the answer has `Retry-After`. With the fencing token if the caller holds the lock.
    #[error("Another client has the lock.")]
    Taken(Refusal, Option<FencingToken>),
    #[error("{}", sentence(.0))]
    Closed(#[from] Closed),
}

/// Every code that an error body can carry, with its status: an error whose code is missing here is answered 500. The
/// metrics show these codes from the start. Tests compare the list with [`ApiError`], the OpenAPI document and
/// `docs/operation.md`.
pub const CODES: &[(StatusCode, &str)] = &[
    (StatusCode::BAD_REQUEST, "malformed"),
    (StatusCode::BAD_REQUEST, "ticket_missing"),
    (StatusCode::BAD_REQUEST, "condition_not_offered"),
    (StatusCode::BAD_REQUEST, "mode_not_offered"),
    (StatusCode::UNAUTHORIZED, "key_missing"),
    (StatusCode::UNAUTHORIZED, "key_unknown"),
    (StatusCode::UNAUTHORIZED, "key_insufficient"),
    (StatusCode::FORBIDDEN, "ticket_unknown"),
    (StatusCode::FORBIDDEN, "ticket_released"),
    (StatusCode::FORBIDDEN, "lease_expired"),
    (StatusCode::FORBIDDEN, "lease_forced_off"),
    (StatusCode::NOT_FOUND, "route_unknown"),
    (StatusCode::NOT_FOUND, "resource_unknown"),
    (StatusCode::NOT_FOUND, "selector_unknown"),
    (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"),
    (StatusCode::REQUEST_TIMEOUT, "body_timeout"),
    (StatusCode::CONFLICT, "resource_exists"),
    (StatusCode::CONFLICT, "locked"),
    (StatusCode::CONFLICT, "idempotency_key_reused"),
    (StatusCode::CONFLICT, "not_holder"),
    (StatusCode::CONFLICT, "not_exclusive"),
    (StatusCode::CONFLICT, "mode_differs"),
    (StatusCode::CONFLICT, "lease_over"),
    (StatusCode::CONFLICT, "not_waiting"),
    (StatusCode::CONFLICT, "too_many_selectors"),
    (StatusCode::PRECONDITION_FAILED, "precondition_failed"),
    (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large"),
    (StatusCode::PAYLOAD_TOO_LARGE, "document_too_large"),
    (StatusCode::TOO_MANY_REQUESTS, "rate_limited"),
    (StatusCode::SERVICE_UNAVAILABLE, "too_many_waiters"),
    (StatusCode::SERVICE_UNAVAILABLE, "too_many_connections"),
    (StatusCode::SERVICE_UNAVAILABLE, "store_refused"),
    (StatusCode::SERVICE_UNAVAILABLE, "too_busy"),
    (StatusCode::SERVICE_UNAVAILABLE, "starting"),
    (StatusCode::SERVICE_UNAVAILABLE, "standby"),
    (StatusCode::SERVICE_UNAVAILABLE, "store_unavailable"),
    (StatusCode::SERVICE_UNAVAILABLE, "shutting_down"),
    (StatusCode::SERVICE_UNAVAILABLE, "moving"),
    (StatusCode::SERVICE_UNAVAILABLE, "owner_unreachable"),
    (StatusCode::SERVICE_UNAVAILABLE, "answer_lost"),
];

/// The code of a resource's refusal.
fn refusal_code(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::TicketMissing => "ticket_missing",
        Refusal::WaitsAlready => "malformed",
        Refusal::ModeNotOffered => "mode_not_offered",
        Refusal::Dead(None) => "ticket_unknown",
        Refusal::Dead(Some(reason)) => reason.code(),
        Refusal::DeadByForce(_) => EndReason::ForcedOff.code(),
        Refusal::NoResource => "resource_unknown",
        Refusal::NoSelector => "selector_unknown",
        Refusal::Exists => "resource_exists",
        Refusal::Locked { .. } => "locked",
        Refusal::KeyReused => "idempotency_key_reused",
        Refusal::NotHolder => "not_holder",
        Refusal::NotExclusive => "not_exclusive",
        Refusal::ModeDiffers => "mode_differs",
        Refusal::OtherLease => "lease_over",
        Refusal::NotWaiting => "not_waiting",
        Refusal::TooManySelectors(_) => "too_many_selectors",
        Refusal::ConditionFailed => "precondition_failed",
        Refusal::TooLargeToStore => "document_too_large",
        Refusal::TooManyWaiters => "too_many_waiters",
        Refusal::NotStored => "store_refused",
    }
}

impl ApiError {
    pub fn code(&self) -> &'static str {
        match self {
            ApiError::Malformed(_) => "malformed",
            ApiError::ConditionNotOffered(_) => "condition_not_offered",
            ApiError::KeyMissing => "key_missing",
            ApiError::KeyUnknown => "key_unknown",
            ApiError::KeyInsufficient(_) => "key_insufficient",
            ApiError::NoRoute => "route_unknown",
            ApiError::Method(_) => "method_not_allowed",
            ApiError::TooLarge(_) => "body_too_large",
            ApiError::SlowBody => "body_timeout",
            ApiError::TooManyConnections => "too_many_connections",
            ApiError::RateLimited(_) => "rate_limited",
            ApiError::Refused(refusal, _) => refusal_code(refusal),
            ApiError::Taken(..) => "locked",
            ApiError::Closed(closed) => closed.code(),
        }
    }
}

const FORCED_OFF: &str = "The lease of this ticket, or its place in the queue, was ended by force.";

/// The sentence that tells the client about a resource's refusal.
fn refusal_sentence(refusal: &Refusal) -> Cow<'static, str> {
    Cow::Borrowed(match refusal {
        Refusal::TicketMissing => {
            "No ticket was presented: send the ticket from the answer to lock in the X-Ticket header."
        }
        Refusal::WaitsAlready => {
            "The ticket waits already: send queue=0 and wait= without a ticket, or leave queue=0 out."
        }
        Refusal::Dead(None) => "The ticket is not known.",
        Refusal::Dead(Some(EndReason::Released)) => "The ticket was released.",
        Refusal::Dead(Some(EndReason::Expired)) => "The lease of this ticket expired.",
        Refusal::Dead(Some(EndReason::ForcedOff)) | Refusal::DeadByForce(_) => FORCED_OFF,
        Refusal::NoResource => "There is no resource of this name.",
        Refusal::NoSelector => "The resource has no document at this selector.",
        Refusal::ConditionFailed => {
            "The condition of this request does not hold for the document; nothing was changed."
        }
        Refusal::Exists => "A resource of this name exists already.",
        Refusal::Locked { .. } => "Another client has the lock.",
        Refusal::KeyReused => {
            "This Idempotency-Key was used with another owner, ttl or mode; use a new key per attempt."
        }
        Refusal::NotHolder => "This ticket waits; only a holder can renew.",
        Refusal::NotExclusive => {
            "This ticket shares the lock; only an exclusive holder can change data."
        }
        Refusal::ModeDiffers => {
            "This ticket waits for another mode; unlock it and ask anew, or leave the mode out."
        }
        Refusal::ModeNotOffered => {
            "A resource with several slots is not shared; leave the mode out, or send exclusive."
        }
        Refusal::OtherLease => "No current lease has this fencing token.",
        Refusal::NotWaiting => {
            "No ticket with this id waits: it holds the lock by now, or left the queue."
        }
        Refusal::TooManySelectors(max) => {
            let text = format!("The resource has the maximum number of selectors, {max}.");
            return Cow::Owned(text);
        }
        Refusal::TooLargeToStore => "The document is larger than the database accepts.",
        Refusal::TooManyWaiters => "Too many requests wait for a lock.",
        Refusal::NotStored => "The store refused the request; nothing was changed.",
    })
}

/// The phrase of [`Closed`] as a sentence: a capital at the beginning, a full stop at the end.
fn sentence(closed: &Closed) -> String {
    let phrase = closed.to_string();
    let mut chars = phrase.chars();
    let first = chars.next().map(char::to_uppercase);
    let first: String = first.into_iter().flatten().collect();
    format!("{first}{}.", chars.as_str())
}

impl ApiError {
    /// The answer with this sentence.
    pub fn answer(&self, sentence: &str) -> HttpResponse {
        let status = self.status_code();
        let mut response = HttpResponse::build(status);
        if let ApiError::Method(allow) = self {
            response.insert_header((header::ALLOW, *allow));
        }
        let retry_after = match self {
            // Whole seconds, more than the wait, so that the client does not come back too early.
            ApiError::RateLimited(wait) => Some(wait.as_secs() + 1),
            ApiError::Taken(..) => Some(1),
            _ => (status == StatusCode::SERVICE_UNAVAILABLE).then_some(1),
        };
        if let Some(seconds) = retry_after {
            response.insert_header((header::RETRY_AFTER, seconds));
        }
        let (refusal, token) = match self {
            ApiError::Refused(refusal, token) | ApiError::Taken(refusal, token) => {
                (Some(refusal), *token)
            }
            _ => (None, None),
        };
        if let Some(FencingToken(token)) = token {
            response.insert_header((X_FENCING_TOKEN.clone(), token));
        }
        let body = response_bodies::refused(sentence, self.code(), refusal);
        response_bodies::json_text(response, body)
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        let code = self.code();
        let listed = CODES.iter().find(|(_, listed)| *listed == code);
        listed.map_or(StatusCode::INTERNAL_SERVER_ERROR, |(status, _)| *status)
    }

    fn error_response(&self) -> HttpResponse {
        self.answer(&self.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One error of each kind. `in_the_lists_above` does not compile when a kind is added.
    fn all() -> Vec<ApiError> {
        let refusals = vec![
            Refusal::TicketMissing,
            Refusal::ModeNotOffered,
            Refusal::Dead(None),
            Refusal::Dead(Some(EndReason::Released)),
            Refusal::Dead(Some(EndReason::Expired)),
            Refusal::Dead(Some(EndReason::ForcedOff)),
            Refusal::NoResource,
            Refusal::NoSelector,
            Refusal::ConditionFailed,
            Refusal::Exists,
            Refusal::Locked {
                holder: None,
                reserved: false,
            },
            Refusal::NotExclusive,
            Refusal::ModeDiffers,
            Refusal::KeyReused,
            Refusal::NotHolder,
            Refusal::OtherLease,
            Refusal::NotWaiting,
            Refusal::TooManySelectors(1),
            Refusal::TooLargeToStore,
            Refusal::TooManyWaiters,
            Refusal::NotStored,
        ];
        let every = vec![
            ApiError::Malformed(String::new()),
            ApiError::ConditionNotOffered(header::IF_MATCH),
            ApiError::KeyMissing,
            ApiError::KeyUnknown,
            ApiError::KeyInsufficient(Right::Write),
            ApiError::NoRoute,
            ApiError::Method("GET"),
            ApiError::TooLarge(1),
            ApiError::SlowBody,
            ApiError::TooManyConnections,
            ApiError::RateLimited(Duration::ZERO),
            ApiError::Closed(Closed::Starting),
            ApiError::Closed(Closed::Standby),
            ApiError::Closed(Closed::StoreAway),
            ApiError::Closed(Closed::Stopping),
            ApiError::Closed(Closed::Moving),
            ApiError::Closed(Closed::OwnerUnreachable),
            ApiError::Closed(Closed::AnswerLost),
            ApiError::Closed(Closed::ListingTooLong),
        ];
        let refusals = refusals.into_iter().map(|r| ApiError::Refused(r, None));
        let every = every.into_iter().chain(refusals);
        every.inspect(in_the_lists_above).collect()
    }

    fn in_the_lists_above(error: &ApiError) {
        match error {
            ApiError::Malformed(_) | ApiError::ConditionNotOffered(_) | ApiError::KeyMissing => {}
            ApiError::KeyUnknown | ApiError::KeyInsufficient(_) | ApiError::NoRoute => {}
            ApiError::Method(_) | ApiError::TooLarge(_) | ApiError::SlowBody => {}
            ApiError::TooManyConnections | ApiError::RateLimited(_) => {}
            ApiError::Closed(_) => {}
            // Has the code of `Refusal::Locked`.
            ApiError::Taken(..) => {}
            ApiError::Refused(refusal, _) => match refusal {
                Refusal::TicketMissing | Refusal::ModeNotOffered | Refusal::Dead(_) => {}
                Refusal::NoResource | Refusal::NoSelector | Refusal::ConditionFailed => {}
                Refusal::Exists | Refusal::Locked { .. } | Refusal::NotExclusive => {}
                Refusal::ModeDiffers | Refusal::KeyReused | Refusal::NotHolder => {}
                Refusal::OtherLease | Refusal::NotWaiting | Refusal::TooManySelectors(_) => {}
                Refusal::TooLargeToStore | Refusal::TooManyWaiters | Refusal::NotStored => {}
                // Have the codes of `Refusal::Dead` and of `ApiError::Malformed`.
                Refusal::DeadByForce(_) | Refusal::WaitsAlready => {}
            },
        }
    }

    #[test]
    fn the_list_of_codes_is_what_errors_carry() {
        let all = all();
        let mut carried: Vec<&str> = all.iter().map(ApiError::code).collect();
        let mut listed: Vec<&str> = CODES.iter().map(|(_, code)| *code).collect();
        carried.sort_unstable();
        listed.sort_unstable();
        assert_eq!(carried, listed);
    }
}
