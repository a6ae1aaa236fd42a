//! GET `/history/{name}`: the last leases of a name.

use std::rc::Rc;

use actix_web::HttpResponse;
use serde::Serialize;

use crate::http::auth::Right;
use crate::http::errors::ApiError;
use crate::http::request::Request;
use crate::http::respond::{self, Response};
use crate::http::time::Time;
use crate::lock::rows::Forced;
use crate::lock::{Owner, Reason};
use crate::resource::messages::{Op, Reply};
use crate::store::history::PastLease;

/// A lease that has ended.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PastLeaseBody<'a> {
    owner: Option<&'a str>,
    reason: Option<&'a str>,
    mode: &'static str,
    fencing_token: u64,
    acquired_at: Time,
    ended_at: Time,
    end: &'static str,
    forced: Option<&'a Forced>,
    queued_ms: u64,
    held_ms: u64,
}

#[derive(Serialize)]
struct HistoryBody<'a> {
    leases: Vec<PastLeaseBody<'a>>,
}

fn told(lease: &PastLease) -> PastLeaseBody<'_> {
    PastLeaseBody {
        owner: lease.owner.as_ref().map(Owner::as_str),
        reason: lease.reason.as_ref().map(Reason::as_str),
        mode: lease.mode.name(),
        fencing_token: lease.fencing_token,
        acquired_at: Time(lease.acquired_at),
        ended_at: Time(lease.ended_at),
        end: lease.end.name(),
        forced: lease.forced.as_deref(),
        queued_ms: lease.queued_ms,
        held_ms: lease.ended_at.saturating_sub(lease.acquired_at),
    }
}

/// GET `/history/{name}`. The history of an existing resource may be empty; a name with neither resource nor
/// history is 404.
pub async fn history(req: Rc<Request>) -> Response {
    req.authorize(Right::Read)?;
    let name = req.name()?;
    let most = req.worker.server().history.per_resource();
    let limit = req.query()?.count("limit", most.max(1), 1..=1000)?;
    let mut leases = req
        .worker
        .cluster
        .history(&name)
        .await
        .map_err(ApiError::Closed)?;
    if leases.is_empty() {
        match req.ask(&name, &Op::DESCRIBE).await {
            Reply::Described(_) => {}
            other => return Err(respond::refusal(other)),
        }
    }
    leases.truncate(limit);
    Ok(HttpResponse::Ok().json(HistoryBody {
        leases: leases.iter().map(told).collect(),
    }))
}
