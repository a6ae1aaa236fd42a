//! Reading, writing and deleting the JSON document at a selector.

use std::rc::Rc;

use actix_web::dev::Payload;
use actix_web::http::header;

use crate::http::auth::Right;
use crate::http::body::{self, json_text};
use crate::http::errors::ApiError;
use crate::http::request::Request;
use crate::http::respond::{self, Response};
use crate::lock::{LockOptions, Refusal, ResourceName, Selector};
use crate::resource::messages::{Op, Wait, Watch};

/// GET `/resource/{name}/{selector}`.
pub async fn get(req: Rc<Request>) -> Response {
    let (name, selector, op, raw) = asked(&req)?;
    let reply = req.ask(&name, &op).await;
    match op {
        Op::Read { .. } => respond::read(&selector, reply, raw),
        _ => respond::get_locked(&selector, reply, raw),
    }
}

/// The document that a GET asks for, the operation on it, and whether the answer is the raw document (`raw=1`).
fn asked(req: &Request) -> Result<(ResourceName, Selector, Op, bool), ApiError> {
    // The needed right depends on the query. The key is checked before a malformed query is reported.
    let query = req.query();
    let wants_lock = query.as_ref().ok().map(|query| query.flag("lock"));
    let reads_only = matches!(wants_lock, Some(Ok(Some(false))));
    let needed = if reads_only { Right::Read } else { Right::Lock };
    req.authorize(needed)?;
    let query = query?;
    query.flag("lock")?;
    let raw = query.flag("raw")?.unwrap_or(false);
    let presented = req.presented();
    // Parsed with lock=0 too: a malformed value is refused even where it would not be used.
    let (wait, key) = (query.wait(req.worker.wait_max)?, req.idempotency_key()?);
    let known = req.if_none_match()?;
    if known.is_some() && !reads_only {
        // Of this route only reads without a lock can be conditional.
        return Err(ApiError::ConditionNotOffered(header::IF_NONE_MATCH));
    }
    let (name, selector) = req.name_and_selector()?;
    let op = if reads_only {
        Op::Read {
            selector: selector.clone(),
            presented,
            watch: known.map(|known| Watch {
                known,
                wait: wait.unwrap_or_default(),
            }),
        }
    } else {
        Op::Acquire {
            selector: Some(selector.clone()),
            presented,
            options: LockOptions {
                key,
                ..LockOptions::default()
            },
            wait: wait.map_or(Wait::Default, Wait::For),
            create: false,
        }
    };
    Ok((name, selector, op, raw))
}

/// PUT `/resource/{name}/{selector}`.
pub async fn put(req: Rc<Request>, payload: Payload) -> Response {
    req.authorize(Right::Write)?;
    let (name, selector) = req.name_and_selector()?;
    let query = req.query()?;
    let release = query.flag("unlock")?.unwrap_or(false);
    let create = query.flag("create")?.unwrap_or(false);
    let json = json_text(body::read(&req, payload).await?)?;
    // Checked here, because a commit that the store rejects would take other requests of the resource with it.
    if !req.worker.server().store.takes_document(&json) {
        return Err(ApiError::Refused(Refusal::TooLargeToStore, None));
    }
    let op = Op::Write {
        selector,
        json,
        presented: req.presented(),
        release,
        condition: req.write_condition()?,
        create,
    };
    respond::changed(req.ask(&name, &op).await)
}

/// DELETE `/resource/{name}/{selector}`.
pub async fn delete(req: Rc<Request>) -> Response {
    req.authorize(Right::Write)?;
    let (name, selector) = req.name_and_selector()?;
    let op = Op::DeleteSelector {
        selector,
        presented: req.presented(),
    };
    respond::changed(req.ask(&name, &op).await)
}
