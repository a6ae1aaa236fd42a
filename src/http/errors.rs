//! Every refusal with its status, its stable code and the sentence for the client. Log lines about a refusal
//! are written where it happens.

use std::borrow::Cow;

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderName};
use actix_web::{HttpResponse, ResponseError};

use super::auth::Right;
use super::headers::X_FENCING_TOKEN;
use super::response_bodies::{ErrorBody, HolderBody};
use crate::lock::command::LockedBy;
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
    #[error("Too many requests; wait as long as Retry-After says.")]
    RateLimited,
    /// The answer would cost other clients too much now; the text says why.
    #[error("Not now: {0}. Try again.")]
    TooBusy(&'static str),
    /// Refused by the resource. With the fencing token if the caller holds the lock.
    #[error("{}", refusal_sentence(.0))]
    Refused(Refusal, Option<FencingToken>),
    /// [`Refusal::Locked`] in answer to a lock request that takes no place in the queue. The client may try
    /// again, so the answer has `Retry-After`. With the fencing token if the caller holds the lock.
    #[error("Another client has the lock.")]
    Taken(Box<LockedBy>, Option<FencingToken>),
    #[error("{}", sentence(.0))]
    Closed(Closed),
}

/// Every code that an error body can carry: its status, the code, and its meaning for the operator. The metrics
/// show these codes from the start. Tests compare the list with [`ApiError`], the OpenAPI document and
/// `docs/operation.md`.
pub const CODES: &[(u16, &str, &str)] = &[
    (
        400,
        "malformed",
        "the request is not understood; the sentence says what is accepted",
    ),
    (
        400,
        "ticket_missing",
        "unlock and renew need an X-Ticket header",
    ),
    (
        400,
        "condition_not_offered",
        "the route does not understand a conditional header that was sent",
    ),
    (
        400,
        "mode_not_offered",
        "the shared mode, on a resource with several slots",
    ),
    (401, "key_missing", "no x-api-key header"),
    (401, "key_unknown", "the key is not configured"),
    (
        401,
        "key_insufficient",
        "the key lacks the right that the route needs",
    ),
    (
        403,
        "ticket_unknown",
        "the resource never issued the ticket, or it ended longer ago than is remembered",
    ),
    (
        403,
        "ticket_released",
        "the ticket was unlocked, or left the queue",
    ),
    (
        403,
        "lease_expired",
        "the lease ran out before it was renewed",
    ),
    (
        403,
        "lease_forced_off",
        "the lease, or the place in the queue, was ended by force-unlock",
    ),
    (404, "route_unknown", "nothing is at the path"),
    (404, "resource_unknown", "no resource has the name"),
    (
        404,
        "selector_unknown",
        "the resource has no document at the selector",
    ),
    (
        405,
        "method_not_allowed",
        "the path does not take the method; Allow says which",
    ),
    (
        408,
        "body_timeout",
        "the body did not arrive within BODY_TIMEOUT_SECONDS",
    ),
    (
        409,
        "resource_exists",
        "a resource of the name exists already",
    ),
    (409, "locked", "another client has the lock"),
    (
        409,
        "idempotency_key_reused",
        "the key was used with another owner, ttl or mode",
    ),
    (409, "not_holder", "a waiting ticket asked to renew"),
    (
        409,
        "not_exclusive",
        "a holder in shared mode asked for a change of data",
    ),
    (
        409,
        "mode_differs",
        "a waiting ticket asked for another mode than its own",
    ),
    (
        409,
        "lease_over",
        "force-unlock named a lease that has ended or never began",
    ),
    (
        409,
        "not_waiting",
        "force-unlock named a waiter that does not wait",
    ),
    (
        409,
        "too_many_selectors",
        "the resource has MAX_SELECTORS selectors",
    ),
    (
        412,
        "precondition_failed",
        "the document differs from the one in If-Match, or exists although If-None-Match was sent",
    ),
    (
        413,
        "body_too_large",
        "the body is larger than MAX_BODY_BYTES",
    ),
    (
        413,
        "document_too_large",
        "the document does not fit into what the database takes at once (max_allowed_packet)",
    ),
    (
        429,
        "rate_limited",
        "more than RATE_LIMIT_PER_SECOND; Retry-After says when to come back",
    ),
    (
        503,
        "too_many_waiters",
        "MAX_WAITERS or MAX_WAITERS_PER_RESOURCE wait already",
    ),
    (
        503,
        "too_many_connections",
        "MAX_CONNECTIONS are open; only routes that need no key are answered",
    ),
    (
        503,
        "store_refused",
        "the store refused the request for what it, or a stored row, contains",
    ),
    (
        503,
        "too_busy",
        "the answer would cost other clients too much now",
    ),
    (503, "starting", "the store is not open yet"),
    (
        503,
        "standby",
        "this instance does not answer for names yet",
    ),
    (503, "store_unavailable", "the store does not answer"),
    (503, "shutting_down", "the server was told to stop"),
    (
        503,
        "moving",
        "no instance answered for the name for longer than requests are held",
    ),
    (
        503,
        "owner_unreachable",
        "the instance that answers for the name lives, and this one cannot reach it, or they have no version of their protocol in common",
    ),
    (
        503,
        "answer_lost",
        "the instance that answers for the name did not answer a change that was passed on; it may have been made",
    ),
];

/// The status and code of a resource's refusal.
fn refusal_code(refusal: &Refusal) -> (StatusCode, &'static str) {
    match refusal {
        Refusal::TicketMissing => (StatusCode::BAD_REQUEST, "ticket_missing"),
        Refusal::WaitsAlready => (StatusCode::BAD_REQUEST, "malformed"),
        Refusal::ModeNotOffered => (StatusCode::BAD_REQUEST, "mode_not_offered"),
        Refusal::Dead(None) => (StatusCode::FORBIDDEN, "ticket_unknown"),
        Refusal::Dead(Some(reason)) => (StatusCode::FORBIDDEN, reason.code()),
        Refusal::DeadByForce(_) => (StatusCode::FORBIDDEN, EndReason::ForcedOff.code()),
        Refusal::NoResource => (StatusCode::NOT_FOUND, "resource_unknown"),
        Refusal::NoSelector => (StatusCode::NOT_FOUND, "selector_unknown"),
        Refusal::Exists => (StatusCode::CONFLICT, "resource_exists"),
        Refusal::Locked(_) => (StatusCode::CONFLICT, "locked"),
        Refusal::KeyReused => (StatusCode::CONFLICT, "idempotency_key_reused"),
        Refusal::NotHolder => (StatusCode::CONFLICT, "not_holder"),
        Refusal::NotExclusive => (StatusCode::CONFLICT, "not_exclusive"),
        Refusal::ModeDiffers => (StatusCode::CONFLICT, "mode_differs"),
        Refusal::OtherLease => (StatusCode::CONFLICT, "lease_over"),
        Refusal::NotWaiting => (StatusCode::CONFLICT, "not_waiting"),
        Refusal::TooManySelectors(_) => (StatusCode::CONFLICT, "too_many_selectors"),
        Refusal::ConditionFailed => (StatusCode::PRECONDITION_FAILED, "precondition_failed"),
        Refusal::TooLargeToStore => (StatusCode::PAYLOAD_TOO_LARGE, "document_too_large"),
        Refusal::TooManyWaiters => (StatusCode::SERVICE_UNAVAILABLE, "too_many_waiters"),
        Refusal::NotStored => (StatusCode::SERVICE_UNAVAILABLE, "store_refused"),
    }
}

impl ApiError {
    fn status_and_code(&self) -> (StatusCode, &'static str) {
        match self {
            ApiError::Malformed(_) => (StatusCode::BAD_REQUEST, "malformed"),
            ApiError::ConditionNotOffered(_) => (StatusCode::BAD_REQUEST, "condition_not_offered"),
            ApiError::KeyMissing => (StatusCode::UNAUTHORIZED, "key_missing"),
            ApiError::KeyUnknown => (StatusCode::UNAUTHORIZED, "key_unknown"),
            ApiError::KeyInsufficient(_) => (StatusCode::UNAUTHORIZED, "key_insufficient"),
            ApiError::NoRoute => (StatusCode::NOT_FOUND, "route_unknown"),
            ApiError::Method(_) => (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"),
            ApiError::TooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large"),
            ApiError::SlowBody => (StatusCode::REQUEST_TIMEOUT, "body_timeout"),
            ApiError::TooManyConnections => {
                (StatusCode::SERVICE_UNAVAILABLE, "too_many_connections")
            }
            ApiError::RateLimited => (StatusCode::TOO_MANY_REQUESTS, "rate_limited"),
            ApiError::TooBusy(_) => (StatusCode::SERVICE_UNAVAILABLE, "too_busy"),
            ApiError::Refused(refusal, _) => refusal_code(refusal),
            ApiError::Taken(..) => (StatusCode::CONFLICT, "locked"),
            ApiError::Closed(closed) => (StatusCode::SERVICE_UNAVAILABLE, closed.code()),
        }
    }

    pub fn code(&self) -> &'static str {
        self.status_and_code().1
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
        Refusal::Locked(_) => "Another client has the lock.",
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
        if status == StatusCode::SERVICE_UNAVAILABLE || matches!(self, ApiError::Taken(..)) {
            response.insert_header((header::RETRY_AFTER, "1"));
        }
        let mut body = ErrorBody {
            error: self.to_string(),
            code,
            ..ErrorBody::default()
        };
        match self {
            ApiError::Taken(by, _) | ApiError::Refused(Refusal::Locked(by), _) => {
                body.holder = Some(by.holder.as_ref().map(HolderBody::from));
                body.reserved = Some(by.reserved);
            }
            ApiError::Refused(Refusal::DeadByForce(forced), _) => {
                body.forced = Some(forced);
            }
            _ => {}
        }
        if let ApiError::Refused(_, Some(token)) | ApiError::Taken(_, Some(token)) = self {
            response.insert_header((X_FENCING_TOKEN.clone(), token.0));
        }
        response.json(body)
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
            Refusal::Locked(Box::default()),
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
            ApiError::RateLimited,
            ApiError::TooBusy("why"),
            ApiError::Closed(Closed::Starting),
            ApiError::Closed(Closed::Standby),
            ApiError::Closed(Closed::StoreAway),
            ApiError::Closed(Closed::Stopping),
            ApiError::Closed(Closed::Moving),
            ApiError::Closed(Closed::OwnerUnreachable),
            ApiError::Closed(Closed::AnswerLost),
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
            ApiError::TooManyConnections | ApiError::RateLimited | ApiError::TooBusy(_) => {}
            ApiError::Closed(_) => {}
            // Has the code of `Refusal::Locked`.
            ApiError::Taken(..) => {}
            ApiError::Refused(refusal, _) => match refusal {
                Refusal::TicketMissing | Refusal::ModeNotOffered | Refusal::Dead(_) => {}
                Refusal::NoResource | Refusal::NoSelector | Refusal::ConditionFailed => {}
                Refusal::Exists | Refusal::Locked(_) | Refusal::NotExclusive => {}
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
        let mut carried: Vec<(u16, &str)> = all()
            .iter()
            .map(|error| (error.status_code().as_u16(), error.code()))
            .collect();
        let mut listed: Vec<(u16, &str)> = CODES
            .iter()
            .map(|(status, code, _)| (*status, *code))
            .collect();
        carried.sort_unstable();
        listed.sort_unstable();
        assert_eq!(carried, listed);
    }
}
