//! lock, unlock, renew, force-unlock.

use std::rc::Rc;

use actix_web::HttpRequest;
use actix_web::dev::Payload;

use crate::http::auth::Right;
use crate::http::context::RequestContext;
use crate::http::errors::ApiError;
use crate::http::request::{
    Query, authorize, body, caller_key, idempotency_key, name, name_before_selector, parse_json,
    parse_optional, presented,
};
use crate::http::respond::{self, Response};
use crate::http::wire::{ForceBody, LockBody, RenewBody};
use crate::http::worker::Worker;
use crate::lock::{FencingToken, Owner, Reason, ResourceName, TicketId, Wish};
use crate::resource::messages::Op;
use crate::resource::messages::Wait;

const LOCK_ACCEPTS: &str = r#"nothing, or {"owner": "a name", "ttl": seconds, "reason": "why", "mode": "exclusive" or "shared"}"#;

/// What `?wait=` and `?queue=` say together.
fn wait(query: &Query<'_>, worker: &Worker) -> Result<Wait, ApiError> {
    let wait = query.wait(worker.wait_max)?;
    match (query.flag("queue")?, wait) {
        (Some(false), Some(wait)) if !wait.is_zero() => Ok(Wait::ThenLeave(wait)),
        (Some(false), _) => Ok(Wait::NoQueue),
        (_, Some(wait)) => Ok(Wait::For(wait)),
        (_, None) => Ok(Wait::Default),
    }
}

fn owner(text: Option<String>) -> Result<Option<Owner>, ApiError> {
    let parse = |text: String| Owner::parse(&text);
    text.map(parse)
        .transpose()
        .map_err(|error| ApiError::Malformed(format!("The owner {error}.")))
}

fn reason(text: &str) -> Result<Reason, ApiError> {
    Reason::parse(text).map_err(|error| ApiError::Malformed(format!("The reason {error}.")))
}

fn waiter(text: &str) -> Result<TicketId, ApiError> {
    TicketId::parse(text).ok_or_else(|| {
        ApiError::Malformed(
            "The waiter is not accepted: send the id of a place as GET /resource/{name} lists it."
                .to_owned(),
        )
    })
}

/// PUT or POST `/resource/{name}/{selector}/lock`.
pub async fn lock(
    req: HttpRequest,
    known: Rc<RequestContext>,
    payload: Payload,
    worker: Rc<Worker>,
) -> Response {
    authorize(&req, &known, &worker, Right::Lock)?;
    let (name, op) = lock_asked(&req, &known, payload, &worker).await?;
    let reply = worker.ask(&known, &name, &op).await;
    respond::lock(reply)
}

/// Apart: what it is made of need not be kept until the lock is granted.
async fn lock_asked(
    req: &HttpRequest,
    known: &RequestContext,
    payload: Payload,
    worker: &Worker,
) -> Result<(ResourceName, Op), ApiError> {
    let name = name_before_selector(req)?;
    let query = Query::of(req)?;
    let wait = wait(&query, worker)?;
    let create = query.flag("create")?.unwrap_or(false);
    let key = idempotency_key(req)?;
    let body = body(req, known, payload, worker).await?;
    let body: LockBody = parse_optional(&body, LOCK_ACCEPTS, worker.is_lenient())?;
    let op = Op::Acquire {
        selector: None,
        presented: presented(req),
        wish: Wish {
            owner: owner(body.owner)?,
            ttl: body.ttl,
            mode: body.mode,
            reason: body.reason.as_deref().map(reason).transpose()?,
            key,
            ..Wish::default()
        },
        wait,
        create,
    };
    Ok((name, op))
}

/// POST or PUT `/resource/{name}/{selector}/unlock`.
pub async fn unlock(req: HttpRequest, known: Rc<RequestContext>, worker: Rc<Worker>) -> Response {
    authorize(&req, &known, &worker, Right::Lock)?;
    let name = name_before_selector(&req)?;
    let presented = presented(&req);
    let reply = worker.ask(&known, &name, &Op::Unlock { presented }).await;
    respond::unlock(reply)
}

/// PUT or POST `/resource/{name}/{selector}/renew`.
pub async fn renew(
    req: HttpRequest,
    known: Rc<RequestContext>,
    payload: Payload,
    worker: Rc<Worker>,
) -> Response {
    authorize(&req, &known, &worker, Right::Lock)?;
    let name = name_before_selector(&req)?;
    let body = body(&req, &known, payload, &worker).await?;
    let accepts = r#"nothing, or {"ttl": seconds, "exact": true}"#;
    let body: RenewBody = parse_optional(&body, accepts, worker.is_lenient())?;
    let op = Op::Renew {
        presented: presented(&req),
        ttl: body.ttl,
        exact: body.exact,
    };
    let reply = worker.ask(&known, &name, &op).await;
    respond::renew(reply)
}

/// POST `/resource/{name}/force-unlock`.
pub async fn force_unlock(
    req: HttpRequest,
    known: Rc<RequestContext>,
    payload: Payload,
    worker: Rc<Worker>,
) -> Response {
    authorize(&req, &known, &worker, Right::Admin)?;
    let name = name(&req)?;
    let body = body(&req, &known, payload, &worker).await?;
    let accepts = r#"{"reason": "why"}, with the "fencingToken" of one lease or the "waiter" of one place in the queue"#;
    let body: ForceBody = parse_json(&body, accepts)?;
    let (reason, by) = (reason(&body.reason)?, caller_key(&req, &known)?);
    let waiter = body.waiter.as_deref().map(waiter).transpose()?;
    let op = match (waiter, body.fencing_token.map(FencingToken)) {
        (None, token) => Op::ForceUnlock { token, reason, by },
        (Some(waiter), None) => Op::RemoveWaiter { waiter, reason, by },
        (Some(_), Some(_)) => {
            return Err(ApiError::Malformed(
                "The request names both a fencingToken and a waiter; send one of them.".to_owned(),
            ));
        }
    };
    let reply = worker.ask(&known, &name, &op).await;
    respond::force_unlock(reply, waiter)
}
