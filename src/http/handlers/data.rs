//! Reading, writing and deleting the JSON document at a selector.

use std::rc::Rc;

use actix_web::HttpRequest;
use actix_web::dev::Payload;

use crate::http::auth::Right;
use crate::http::context::RequestContext;
use crate::http::errors::ApiError;
use crate::http::request::{
    Query, authorize, body, idempotency_key, if_none_match, json_text, name_and_selector,
    presented, write_condition,
};
use crate::http::respond::{self, Response};
use crate::http::worker::Worker;
use crate::lock::{ResourceName, Selector, Wish};
use crate::resource::messages::{Op, Wait, Watch};

/// GET `/resource/{name}/{selector}`.
pub async fn get(req: HttpRequest, known: Rc<RequestContext>, worker: Rc<Worker>) -> Response {
    let (name, selector, op, raw) = asked(&req, &known, &worker)?;
    let reply = worker.ask(&known, &name, &op).await;
    match op {
        Op::Read { .. } => respond::read(&selector, reply, raw),
        _ => respond::get_locked(&selector, reply, raw),
    }
}

/// What a GET asks, of which document, and whether as it is.
fn asked(
    req: &HttpRequest,
    known: &RequestContext,
    worker: &Worker,
) -> Result<(ResourceName, Selector, Op, bool), ApiError> {
    // The right that is needed hangs on the query; a query that cannot be read still needs a key first.
    let query = Query::of(req);
    let wants_lock = query.as_ref().ok().map(|query| query.flag("lock"));
    let reads_only = matches!(wants_lock, Some(Ok(Some(false))));
    let needed = if reads_only { Right::Read } else { Right::Lock };
    authorize(req, known, worker, needed)?;
    let query = query?;
    query.flag("lock")?;
    let raw = query.flag("raw")?.unwrap_or(false);
    let presented = presented(req);
    // Looked at with lock=0 too: what is malformed is refused, whether or not it would be used.
    let (wait, key) = (query.wait(worker.wait_max)?, idempotency_key(req)?);
    let known = if reads_only {
        if_none_match(req)?
    } else {
        None
    };
    let (name, selector) = name_and_selector(req)?;
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
            wish: Wish {
                key,
                ..Wish::default()
            },
            wait: wait.map_or(Wait::Default, Wait::For),
            create: false,
        }
    };
    Ok((name, selector, op, raw))
}

/// PUT `/resource/{name}/{selector}`.
pub async fn put(
    req: HttpRequest,
    known: Rc<RequestContext>,
    payload: Payload,
    worker: Rc<Worker>,
) -> Response {
    authorize(&req, &known, &worker, Right::Write)?;
    let (name, selector) = name_and_selector(&req)?;
    let query = Query::of(&req)?;
    let release = query.flag("unlock")?.unwrap_or(false);
    let create = query.flag("create")?.unwrap_or(false);
    let json = json_text(body(&req, &known, payload, &worker).await?)?;
    worker.check_document(&json)?;
    let op = Op::Write {
        selector,
        json,
        presented: presented(&req),
        release,
        condition: write_condition(&req)?,
        create,
    };
    let reply = worker.ask(&known, &name, &op).await;
    respond::changed(reply)
}

/// DELETE `/resource/{name}/{selector}`.
pub async fn delete(req: HttpRequest, known: Rc<RequestContext>, worker: Rc<Worker>) -> Response {
    authorize(&req, &known, &worker, Right::Write)?;
    let (name, selector) = name_and_selector(&req)?;
    let op = Op::DeleteSelector {
        selector,
        presented: presented(&req),
    };
    let reply = worker.ask(&known, &name, &op).await;
    respond::changed(reply)
}
