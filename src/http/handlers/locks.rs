//! The handlers of lock, unlock, renew and force-unlock.

use std::rc::Rc;
use std::time::Duration;

use actix_web::dev::Payload;

use crate::http::auth::Right;
use crate::http::body::{self, parse_json, parse_optional};
use crate::http::errors::ApiError;
use crate::http::query::Query;
use crate::http::request::Request;
use crate::http::request_bodies::{ForceBody, LockBody, RenewBody};
use crate::http::respond::{self, Response};
use crate::lock::rows::Forced;
use crate::lock::{FencingToken, LockOptions, Owner, Reason, TicketId};
use crate::resource::messages::{Op, Wait};

const LOCK_ACCEPTS: &str = r#"nothing, or {"owner": "a name", "ttl": seconds, "reason": "why", "mode": "exclusive" or "shared"}"#;

/// How long the request waits and whether it keeps a place: `?wait=`, at most `most`, and `?queue=`.
fn wait(query: &Query<'_>, most: Duration) -> Result<Wait, ApiError> {
    let wait = query.wait(most)?;
    match (query.flag("queue")?, wait) {
        (Some(false), Some(wait)) if !wait.is_zero() => Ok(Wait::ThenLeave(wait)),
        (Some(false), _) => Ok(Wait::NoQueue),
        (_, Some(wait)) => Ok(Wait::For(wait)),
        (_, None) => Ok(Wait::Default),
    }
}

fn owner(text: &str) -> Result<Owner, ApiError> {
    Owner::parse(text).map_err(|error| ApiError::Malformed(format!("The owner {error}.")))
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
pub async fn lock(req: Rc<Request>, payload: Payload) -> Response {
    req.authorize(Right::Lock)?;
    let (name, _) = req.name_and_selector()?;
    // A block, so that query and body are dropped before the wait for the lock.
    let op = {
        let query = req.query()?;
        let wait = wait(&query, req.worker.wait_max)?;
        let create = query.flag("create")?.unwrap_or(false);
        let key = req.idempotency_key()?;
        let body = body::read(&req, payload).await?;
        let body: LockBody = parse_optional(&body, LOCK_ACCEPTS, req.worker.is_lenient())?;
        Op::Acquire {
            selector: None,
            presented: req.presented(),
            options: LockOptions {
                owner: body.owner.as_deref().map(owner).transpose()?,
                ttl: body.ttl,
                mode: body.mode,
                reason: body.reason.as_deref().map(reason).transpose()?,
                key,
                ..LockOptions::default()
            },
            wait,
            create,
        }
    };
    respond::lock(req.ask(&name, &op).await)
}

/// POST or PUT `/resource/{name}/{selector}/unlock`.
pub async fn unlock(req: Rc<Request>) -> Response {
    req.authorize(Right::Lock)?;
    let (name, _) = req.name_and_selector()?;
    let presented = req.presented();
    respond::unlock(req.ask(&name, &Op::Unlock { presented }).await)
}

/// PUT or POST `/resource/{name}/{selector}/renew`.
pub async fn renew(req: Rc<Request>, payload: Payload) -> Response {
    req.authorize(Right::Lock)?;
    let (name, _) = req.name_and_selector()?;
    let body = body::read(&req, payload).await?;
    let accepts = r#"nothing, or {"ttl": seconds, "exact": true}"#;
    let body: RenewBody = parse_optional(&body, accepts, req.worker.is_lenient())?;
    let op = Op::Renew {
        presented: req.presented(),
        ttl: body.ttl,
        exact: body.exact.unwrap_or(false),
    };
    respond::renew(req.ask(&name, &op).await)
}

/// POST `/resource/{name}/force-unlock`.
pub async fn force_unlock(req: Rc<Request>, payload: Payload) -> Response {
    req.authorize(Right::Admin)?;
    let name = req.name()?;
    let body = body::read(&req, payload).await?;
    let accepts = r#"{"reason": "why"}, with the "fencingToken" of one lease or the "waiter" of one place in the queue"#;
    let body: ForceBody = parse_json(&body, accepts)?;
    let forced = Box::new(Forced {
        reason: reason(&body.reason)?,
        by: req.caller_key()?,
    });
    let waiter = body.waiter.as_deref().map(waiter).transpose()?;
    let op = match (waiter, body.fencing_token.map(FencingToken)) {
        (None, token) => Op::ForceUnlock { token, forced },
        (Some(waiter), None) => Op::RemoveWaiter { waiter, forced },
        (Some(_), Some(_)) => {
            return Err(ApiError::Malformed(
                "The request names both a fencingToken and a waiter; send one of them.".to_owned(),
            ));
        }
    };
    let reply = req.ask(&name, &op).await;
    respond::force_unlock(reply, waiter)
}
