//! Every refusal, with its status and its stable code. What the client is told is here; what the log is
//! told is written where it happens.

use std::fmt;

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderName};
use actix_web::{HttpResponse, ResponseError};

use super::auth::Right;
use super::headers::X_FENCING_TOKEN;
use super::wire::{ErrorBody, ForcedByBody, HolderBody};
use crate::lock::rows::Forced;
use crate::lock::{EndReason, FencingToken};
use crate::shared::gate::Closed;

#[derive(Clone, Debug, PartialEq)]
pub enum ApiError {
    /// 400: the sentence says what is wrong and what is accepted.
    Malformed(String),
    /// A conditional header that the route does not understand.
    ConditionNotOffered(HeaderName),
    TicketMissing,
    KeyMissing,
    KeyUnknown,
    KeyInsufficient(Right),
    /// `None`: the ticket is not known.
    DeadTicket(Option<EndReason>),
    /// This ticket was ended by force, and by whom.
    ForcedOff(Box<Forced>),
    NoRoute,
    NoResource,
    /// With the fencing token, where the holder asked.
    NoSelector(Option<FencingToken>),
    /// 412: with the fencing token, where the holder asked.
    ConditionFailed(Option<FencingToken>),
    /// The methods that the path has.
    Method(&'static str),
    Exists,
    /// With the holder, and whether it is reserved.
    Locked(Option<Box<HolderBody>>, bool),
    /// The same in answer to a lock request that wants no place in the queue: it may come back.
    Taken(Option<Box<HolderBody>>, bool),
    KeyReused,
    NotHolder,
    NotExclusive,
    ModeDiffers,
    ModeNotOffered,
    OtherLease,
    NotWaiting,
    TooManySelectors(usize),
    TooLarge(usize),
    /// The body is accepted, but the store cannot hold the document.
    TooLargeToStore,
    SlowBody,
    TooManyWaiters,
    TooManyConnections,
    /// Too many requests; when to come back is in the headers.
    RateLimited,
    /// This request would cost others too much; the sentence says why.
    TooBusy(&'static str),
    /// The store would not take it.
    Refused,
    Closed(Closed),
}

/// Every code that an error body can carry, with the status it comes with and what it tells the operator.
/// The OpenAPI document and the metrics go by this list; a test holds it against [`ApiError`].
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
    (401, "key_unknown", "the key is none of those configured"),
    (
        401,
        "key_insufficient",
        "the key lacks the right that the route needs",
    ),
    (
        403,
        "ticket_unknown",
        "the ticket never lived here, or ended longer ago than is remembered",
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
        "nothing was ever written at the selector",
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
    (409, "locked", "the lock is someone else's"),
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
        "force-unlock named a lease that does not hold",
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
        "the document is another than If-Match says, or exists in spite of If-None-Match",
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
        "MAX_CONNECTIONS are open; only /health, /ready and /metrics are answered",
    ),
    (
        503,
        "store_refused",
        "the store refused the change for what it contains",
    ),
    (
        503,
        "too_busy",
        "the answer would cost other clients too much now",
    ),
    (503, "starting", "the store is not open yet"),
    (503, "standby", "another instance is active"),
    (503, "store_unavailable", "the store does not answer"),
    (503, "shutting_down", "the server was told to stop"),
    (
        503,
        "moving",
        "no instance was active for longer than requests are held",
    ),
    (
        503,
        "owner_unreachable",
        "the active instance lives, and this one cannot reach it",
    ),
    (
        503,
        "answer_lost",
        "the active instance did not answer a change that was passed on; it may have been made",
    ),
];

/// The codes of [`CODES`].
pub fn codes() -> Vec<&'static str> {
    CODES.iter().map(|(_, code, _)| *code).collect()
}

impl ApiError {
    fn status_and_code(&self) -> (StatusCode, &'static str) {
        match self {
            ApiError::Malformed(_) => (StatusCode::BAD_REQUEST, "malformed"),
            ApiError::ConditionNotOffered(_) => (StatusCode::BAD_REQUEST, "condition_not_offered"),
            ApiError::TicketMissing => (StatusCode::BAD_REQUEST, "ticket_missing"),
            ApiError::KeyMissing => (StatusCode::UNAUTHORIZED, "key_missing"),
            ApiError::KeyUnknown => (StatusCode::UNAUTHORIZED, "key_unknown"),
            ApiError::KeyInsufficient(_) => (StatusCode::UNAUTHORIZED, "key_insufficient"),
            ApiError::DeadTicket(None) => (StatusCode::FORBIDDEN, "ticket_unknown"),
            ApiError::DeadTicket(Some(reason)) => (StatusCode::FORBIDDEN, reason.code()),
            ApiError::ForcedOff(_) => (StatusCode::FORBIDDEN, EndReason::ForcedOff.code()),
            ApiError::NoRoute => (StatusCode::NOT_FOUND, "route_unknown"),
            ApiError::NoResource => (StatusCode::NOT_FOUND, "resource_unknown"),
            ApiError::NoSelector(_) => (StatusCode::NOT_FOUND, "selector_unknown"),
            ApiError::ConditionFailed(_) => {
                (StatusCode::PRECONDITION_FAILED, "precondition_failed")
            }
            ApiError::Method(_) => (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"),
            ApiError::Exists => (StatusCode::CONFLICT, "resource_exists"),
            ApiError::Locked(..) | ApiError::Taken(..) => (StatusCode::CONFLICT, "locked"),
            ApiError::KeyReused => (StatusCode::CONFLICT, "idempotency_key_reused"),
            ApiError::NotHolder => (StatusCode::CONFLICT, "not_holder"),
            ApiError::NotExclusive => (StatusCode::CONFLICT, "not_exclusive"),
            ApiError::ModeDiffers => (StatusCode::CONFLICT, "mode_differs"),
            ApiError::ModeNotOffered => (StatusCode::BAD_REQUEST, "mode_not_offered"),
            ApiError::OtherLease => (StatusCode::CONFLICT, "lease_over"),
            ApiError::NotWaiting => (StatusCode::CONFLICT, "not_waiting"),
            ApiError::TooManySelectors(_) => (StatusCode::CONFLICT, "too_many_selectors"),
            ApiError::TooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large"),
            ApiError::TooLargeToStore => (StatusCode::PAYLOAD_TOO_LARGE, "document_too_large"),
            ApiError::SlowBody => (StatusCode::REQUEST_TIMEOUT, "body_timeout"),
            ApiError::TooManyWaiters => (StatusCode::SERVICE_UNAVAILABLE, "too_many_waiters"),
            ApiError::TooManyConnections => {
                (StatusCode::SERVICE_UNAVAILABLE, "too_many_connections")
            }
            ApiError::RateLimited => (StatusCode::TOO_MANY_REQUESTS, "rate_limited"),
            ApiError::TooBusy(_) => (StatusCode::SERVICE_UNAVAILABLE, "too_busy"),
            ApiError::Refused => (StatusCode::SERVICE_UNAVAILABLE, "store_refused"),
            ApiError::Closed(closed) => (StatusCode::SERVICE_UNAVAILABLE, closed.code()),
        }
    }

    pub fn code(&self) -> &'static str {
        self.status_and_code().1
    }

    fn holder(&self) -> Option<Option<&HolderBody>> {
        match self {
            ApiError::Locked(holder, _) | ApiError::Taken(holder, _) => Some(holder.as_deref()),
            _ => None,
        }
    }

    fn reserved(&self) -> Option<bool> {
        match self {
            ApiError::Locked(_, reserved) | ApiError::Taken(_, reserved) => Some(*reserved),
            _ => None,
        }
    }

    fn forced(&self) -> Option<ForcedByBody<'_>> {
        match self {
            ApiError::ForcedOff(forced) => Some(ForcedByBody {
                reason: forced.reason.as_str(),
                by: forced.by.as_str(),
            }),
            _ => None,
        }
    }
}

const FORCED_OFF: &str = "The lease of this ticket, or its place in the queue, was ended by force.";
const NOT_EXCLUSIVE: &str =
    "This ticket shares the lock; only an exclusive holder can change data.";
const MODE_DIFFERS: &str =
    "This ticket waits for another mode; unlock it and ask anew, or leave the mode out.";
const MODE_NOT_OFFERED: &str =
    "A resource with several slots is not shared; leave the mode out, or send exclusive.";

/// Text as a sentence: a capital at the beginning, a full stop at the end.
fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(char::to_uppercase);
    let first: String = first.into_iter().flatten().collect();
    format!("{first}{}.", chars.as_str())
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ApiError::Malformed(sentence) => f.write_str(sentence),
            ApiError::ConditionNotOffered(name) => {
                write!(f, "This route does not understand {name}; send the request without it.")
            }
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
                Some(EndReason::ForcedOff) => FORCED_OFF,
            }),
            ApiError::ForcedOff(_) => f.write_str(FORCED_OFF),
            ApiError::NoRoute => f.write_str("There is nothing at this path."),
            ApiError::NoResource => f.write_str("There is no resource of this name."),
            ApiError::NoSelector(_) => {
                f.write_str("Nothing was ever written at this selector of the resource.")
            }
            ApiError::ConditionFailed(_) => f.write_str(
                "The document is not as the condition of this request says; nothing was changed.",
            ),
            ApiError::Method(allow) => {
                write!(f, "This path does not take this method; it takes {allow}.")
            }
            ApiError::Exists => f.write_str("A resource of this name exists already."),
            ApiError::Locked(..) | ApiError::Taken(..) => f.write_str("The lock is someone else's."),
            ApiError::KeyReused => f.write_str(
                "This Idempotency-Key was used with another owner, ttl or mode; use a new key per attempt.",
            ),
            ApiError::NotHolder => f.write_str("This ticket waits; only a holder can renew."),
            ApiError::NotExclusive => f.write_str(NOT_EXCLUSIVE),
            ApiError::ModeDiffers => f.write_str(MODE_DIFFERS),
            ApiError::ModeNotOffered => f.write_str(MODE_NOT_OFFERED),
            ApiError::OtherLease => f.write_str("The lease with this fencing token does not hold."),
            ApiError::NotWaiting => f.write_str(
                "No ticket with this id waits: it holds the lock by now, or left the queue.",
            ),
            ApiError::TooManySelectors(max) => {
                write!(f, "The resource has {max} selectors, which is the most it can have.")
            }
            ApiError::TooLarge(max) => {
                write!(f, "The body is too large; accepted are up to {max} bytes.")
            }
            ApiError::TooLargeToStore => {
                f.write_str("The document is larger than the database takes.")
            }
            ApiError::SlowBody => f.write_str("The body did not arrive in time."),
            ApiError::TooManyWaiters => f.write_str("Too many requests wait for a lock."),
            ApiError::TooManyConnections => {
                f.write_str("Too many connections are open; try again later.")
            }
            ApiError::RateLimited => {
                f.write_str("Too many requests; wait as long as Retry-After says.")
            }
            ApiError::TooBusy(why) => write!(f, "Not now: {why}. Try again."),
            ApiError::Refused => f.write_str("The store refused the change; it did not happen."),
            ApiError::Closed(closed) => f.write_str(&sentence(&closed.to_string())),
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
        if let ApiError::NoSelector(Some(token)) | ApiError::ConditionFailed(Some(token)) = self {
            response.insert_header((X_FENCING_TOKEN.clone(), token.0));
        }
        if status == StatusCode::SERVICE_UNAVAILABLE || matches!(self, ApiError::Taken(..)) {
            response.insert_header((header::RETRY_AFTER, "1"));
        }
        response.json(ErrorBody {
            error: self.to_string(),
            code,
            holder: self.holder(),
            reserved: self.reserved(),
            forced: self.forced(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One of each. The match makes this function fail to compile when a kind of error is added.
    fn all() -> Vec<ApiError> {
        let every = vec![
            ApiError::Malformed(String::new()),
            ApiError::ConditionNotOffered(header::IF_MATCH),
            ApiError::TicketMissing,
            ApiError::KeyMissing,
            ApiError::KeyUnknown,
            ApiError::KeyInsufficient(Right::Write),
            ApiError::DeadTicket(None),
            ApiError::DeadTicket(Some(EndReason::Released)),
            ApiError::DeadTicket(Some(EndReason::Expired)),
            ApiError::DeadTicket(Some(EndReason::ForcedOff)),
            ApiError::NoRoute,
            ApiError::NoResource,
            ApiError::NoSelector(None),
            ApiError::ConditionFailed(None),
            ApiError::Method("GET"),
            ApiError::Exists,
            ApiError::Locked(None, true),
            ApiError::NotExclusive,
            ApiError::ModeDiffers,
            ApiError::ModeNotOffered,
            ApiError::KeyReused,
            ApiError::NotHolder,
            ApiError::OtherLease,
            ApiError::NotWaiting,
            ApiError::TooManySelectors(1),
            ApiError::TooLarge(1),
            ApiError::TooLargeToStore,
            ApiError::SlowBody,
            ApiError::TooManyWaiters,
            ApiError::TooManyConnections,
            ApiError::RateLimited,
            ApiError::TooBusy("why"),
            ApiError::Refused,
            ApiError::Closed(Closed::Starting),
            ApiError::Closed(Closed::Standby),
            ApiError::Closed(Closed::StoreAway),
            ApiError::Closed(Closed::Stopping),
            ApiError::Closed(Closed::Moving),
            ApiError::Closed(Closed::OwnerUnreachable),
            ApiError::Closed(Closed::AnswerLost),
        ];
        every.into_iter().inspect(in_the_list_above).collect()
    }

    fn in_the_list_above(error: &ApiError) {
        match error {
            ApiError::Malformed(_) | ApiError::TicketMissing | ApiError::KeyMissing => {}
            ApiError::ConditionNotOffered(_) | ApiError::ConditionFailed(_) => {}
            ApiError::KeyUnknown | ApiError::KeyInsufficient(_) | ApiError::DeadTicket(_) => {}
            ApiError::NoRoute | ApiError::NoResource | ApiError::NoSelector(_) => {}
            ApiError::Method(_) | ApiError::Exists | ApiError::Locked(..) => {}
            // Carries the code of a lock that is someone else's.
            ApiError::Taken(..) => {}
            ApiError::NotExclusive | ApiError::ModeDiffers | ApiError::ModeNotOffered => {}
            // Carries the code of a dead ticket.
            ApiError::ForcedOff(_) => {}
            ApiError::KeyReused | ApiError::NotHolder | ApiError::OtherLease => {}
            ApiError::NotWaiting => {}
            ApiError::TooManySelectors(_) | ApiError::TooLarge(_) | ApiError::SlowBody => {}
            ApiError::TooLargeToStore => {}
            ApiError::TooManyWaiters | ApiError::TooManyConnections | ApiError::RateLimited => {}
            ApiError::TooBusy(_) | ApiError::Refused | ApiError::Closed(_) => {}
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
