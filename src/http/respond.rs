//! A resource's replies as HTTP answers. Each public function is one table of `docs/protocol.md`.

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderValue};
use actix_web::{HttpResponse, HttpResponseBuilder};
use serde_json::json;

use super::errors::ApiError;
use super::headers::{X_FENCING_TOKEN, X_TICKET, X_TICKET_ENDED, X_WAITED_MS};
use super::response_bodies::{self, json_text};
use crate::lock::command::Grant;
use crate::lock::names::hex_digits;
use crate::lock::{Answer, EndReason, FencingToken, Refusal, Selector, Ticket, TicketId};
use crate::resource::messages::{Document, EntityTag, Reply};

pub type Response = Result<HttpResponse, ApiError>;

fn with_ticket(response: &mut HttpResponseBuilder, ticket: Ticket) {
    let digits = ticket.digits();
    if let Ok(value) = HeaderValue::from_bytes(&digits) {
        response.insert_header((X_TICKET.clone(), value));
    }
}

/// Adds the fencing token, if the caller holds the lock.
pub fn with_token(response: &mut HttpResponseBuilder, token: Option<FencingToken>) {
    if let Some(FencingToken(token)) = token {
        response.insert_header((X_FENCING_TOKEN.clone(), HeaderValue::from(token)));
    }
}

fn with_ended(response: &mut HttpResponseBuilder, ended: Option<EndReason>) {
    if let Some(reason) = ended {
        let reason = HeaderValue::from_static(reason.code());
        response.insert_header((X_TICKET_ENDED.clone(), reason));
    }
}

fn granted_head(status: StatusCode, grant: &Grant) -> HttpResponseBuilder {
    let mut response = HttpResponse::build(status);
    with_ticket(&mut response, grant.ticket);
    with_token(&mut response, Some(grant.holder.token));
    with_ended(&mut response, grant.ended);
    response.insert_header((X_WAITED_MS.clone(), grant.waited_ms));
    response
}

/// The error of a reply that is no success of the route.
pub fn refusal(reply: Reply) -> ApiError {
    match reply {
        Reply::Refused(refusal, token) => ApiError::Refused(refusal, token),
        Reply::Closed(closed) => closed.into(),
        // A success of another operation than this route's: there is nothing to tell the client.
        _ => ApiError::Refused(Refusal::NotStored, None),
    }
}

/// The answer to a conditional read of what the client has already. With the fencing token if it holds the lock.
pub fn not_modified(tag: EntityTag, token: Option<FencingToken>) -> HttpResponse {
    let mut response = HttpResponse::NotModified();
    with_token(&mut response, token);
    response
        .insert_header((header::ETAG, &entity_tag(tag)[..]))
        .finish()
}

/// Answers with a document: wrapped as the Symfony bundle expects it, or raw.
pub fn document(
    mut response: HttpResponseBuilder,
    selector: &Selector,
    document: &Document,
    raw: bool,
) -> Response {
    response.insert_header((header::ETAG, &entity_tag(document.tag)[..]));
    if raw {
        return Ok(json_text(response, document.json.clone()));
    }
    // A document is checked to be UTF-8 before it is stored: this cannot fail.
    let refused = |_| ApiError::Refused(Refusal::NotStored, None);
    let data = std::str::from_utf8(&document.json).map_err(refused)?;
    let text = response_bodies::wrapped(selector, document, data);
    Ok(json_text(response, text))
}

/// The value of an `ETag`.
pub fn entity_tag(tag: EntityTag) -> [u8; 34] {
    let mut text = [b'"'; 34];
    text[1..33].copy_from_slice(&hex_digits(tag));
    text
}

/// The answer to GET with `lock=0`.
pub fn read(selector: &Selector, reply: Reply, raw: bool) -> Response {
    match reply {
        Reply::Read {
            document: found,
            ticket,
        } => {
            let mut response = HttpResponse::Ok();
            if let Some((ticket, token)) = ticket {
                with_ticket(&mut response, ticket);
                with_token(&mut response, token);
            }
            document(response, selector, &found, raw)
        }
        Reply::Unchanged { tag, token } => Ok(not_modified(tag, token)),
        other => Err(refusal(other)),
    }
}

/// The answer to GET with `lock=1`.
pub fn get_locked(selector: &Selector, reply: Reply, raw: bool) -> Response {
    match reply {
        Reply::Locked {
            answer: Answer::Granted(grant),
            document: found,
        } => match found {
            Some(found) => document(granted_head(StatusCode::OK, &grant), selector, &found, raw),
            None => {
                let response = granted_head(StatusCode::ACCEPTED, &grant);
                Ok(json_text(response, r#"{"unavailable":true}"#))
            }
        },
        Reply::Locked {
            answer:
                Answer::Queued {
                    ticket,
                    position,
                    ended,
                },
            ..
        } => {
            let mut response = HttpResponse::Accepted();
            with_ticket(&mut response, ticket);
            with_ended(&mut response, ended);
            response.insert_header((header::RETRY_AFTER, "1"));
            let text = format!(r#"{{"unavailable":true,"position":{position}}}"#);
            Ok(json_text(response, text))
        }
        other => Err(refusal(other)),
    }
}

/// The answer to lock.
pub fn lock(reply: Reply) -> Response {
    match reply {
        Reply::Lock(Answer::Granted(grant)) => {
            let response = granted_head(StatusCode::OK, &grant);
            Ok(json_text(response, response_bodies::granted(&grant)))
        }
        Reply::Lock(Answer::Queued {
            ticket,
            position,
            ended,
        }) => {
            let mut response = HttpResponse::Ok();
            with_ticket(&mut response, ticket);
            with_ended(&mut response, ended);
            let digits = ticket.digits();
            let digits = digits.escape_ascii();
            let text = format!(r#"{{"locked":false,"ticket":"{digits}","position":{position}}}"#);
            Ok(json_text(response, text))
        }
        Reply::Refused(by @ Refusal::Locked { .. }, token) => Err(ApiError::Taken(by, token)),
        other => Err(refusal(other)),
    }
}

/// The answer to PUT of a document, and to DELETE of a document or a resource.
pub fn changed(reply: Reply) -> Response {
    match reply {
        Reply::Written { token, tag } => {
            let mut response = HttpResponse::NoContent();
            with_token(&mut response, token);
            response.insert_header((header::ETAG, &entity_tag(tag)[..]));
            Ok(response.finish())
        }
        Reply::Deleted { token } => {
            let mut response = HttpResponse::NoContent();
            with_token(&mut response, token);
            Ok(response.finish())
        }
        other => Err(refusal(other)),
    }
}

pub fn renew(reply: Reply) -> Response {
    match reply {
        Reply::Lock(Answer::Renewed {
            ttl,
            expires_at,
            expires_in_ms,
            token,
        }) => {
            let mut response = HttpResponse::Ok();
            with_token(&mut response, Some(token));
            let text = response_bodies::renewed(ttl, expires_at, expires_in_ms, token);
            Ok(json_text(response, text))
        }
        other => Err(refusal(other)),
    }
}

pub fn unlock(reply: Reply) -> Response {
    match reply {
        Reply::Lock(Answer::Unlocked { dead: None }) => {
            Ok(json_text(HttpResponse::Ok(), r#"{"unlocked":true}"#))
        }
        // In the `php` profile unlock succeeds with a dead ticket too; `code` says why it was dead.
        Reply::Lock(Answer::Unlocked { dead: Some(death) }) => {
            let code = death.map_or("ticket_unknown", EndReason::code);
            let text = format!(r#"{{"unlocked":true,"code":"{code}"}}"#);
            Ok(json_text(HttpResponse::Ok(), text))
        }
        other => Err(refusal(other)),
    }
}

/// The answer to force-unlock. `waiter`: the waiter to remove, if the request named one.
pub fn force_unlock(reply: Reply, waiter: Option<TicketId>) -> Response {
    let body = match reply {
        Reply::Lock(Answer::WaiterRemoved(forced)) => json!({
            "forced": forced,
            "fencingToken": null,
            "fencingTokens": [],
            "waiter": waiter,
        }),
        Reply::Lock(Answer::Forced(holders)) => {
            let tokens: Vec<FencingToken> = holders.iter().map(|holder| holder.token).collect();
            json!({
                "forced": !tokens.is_empty(),
                "fencingToken": tokens.first(),
                "fencingTokens": tokens,
            })
        }
        other => return Err(refusal(other)),
    };
    Ok(HttpResponse::Ok().json(body))
}
