//! GET `/history/{name}`: the last leases of a name.

use std::rc::Rc;

use actix_web::HttpResponse;
use serde_json::{Value, json};

use crate::http::auth::Right;
use crate::http::request::Request;
use crate::http::respond::{self, Response};
use crate::http::time::rfc3339;
use crate::resource::messages::{Op, Reply};
use crate::store::history::PastLease;

fn told(lease: &PastLease) -> Value {
    json!({
        "owner": lease.owner,
        "reason": lease.reason,
        "mode": lease.mode,
        "fencingToken": lease.fencing_token,
        "acquiredAt": rfc3339(lease.acquired_at).to_string(),
        "endedAt": rfc3339(lease.ended_at).to_string(),
        "end": lease.end.name(),
        "forced": lease.forced,
        "queuedMs": lease.queued_ms,
        "heldMs": lease.ended_at.saturating_sub(lease.acquired_at),
    })
}

/// GET `/history/{name}`. The history of an existing resource may be empty; a name with neither resource nor
/// history is 404.
pub async fn history(req: Rc<Request>) -> Response {
    req.authorize(Right::Read)?;
    let name = req.name()?;
    let most = req.worker.server().history.per_resource;
    let limit = req.query()?.count("limit", most.max(1), 1..=1000)?;
    let mut leases = req.worker.cluster.history(&name).await?;
    if leases.is_empty() {
        match req.ask(&name, &Op::DESCRIBE).await {
            Reply::Described(_) => {}
            other => return Err(respond::refusal(other)),
        }
    }
    leases.truncate(limit);
    let leases: Vec<Value> = leases.iter().map(told).collect();
    Ok(HttpResponse::Ok().json(json!({ "leases": leases })))
}
