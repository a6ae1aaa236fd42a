//! The state of the server, for balancers, containers and people. Only `/status` needs a key; the other routes
//! show no resource name. No answer here shows a ticket or a key.

use std::rc::Rc;

use actix_web::HttpResponse;
use actix_web::http::header;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::http::auth::Right;
use crate::http::errors::ApiError;
use crate::http::openapi;
use crate::http::request::Request;
use crate::http::respond::Response;
use crate::http::response_bodies::json_text;
use crate::http::time::rfc3339;
use crate::lock::Refusal;
use crate::registry::lock_counts::LockCounts;
use crate::shared::gate::Closed;
use crate::shared::members::{Reachability, View};
use crate::store::members::{Member, MemberState};

/// GET `/health`: 200 while the process serves.
pub fn health() -> HttpResponse {
    HttpResponse::Ok().json(json!({ "status": "ok" }))
}

/// GET `/ready`: 200 when requests for resources are answered, else 503 with the reason.
pub fn ready(req: &Request) -> Response {
    let server = req.worker.server();
    match server.check_ready() {
        Ok(()) => Ok(HttpResponse::Ok().json(json!({ "status": "ready" }))),
        Err(Closed::StoreAway) => Ok(store_away(&server.gate.reason())),
        Err(closed) => Err(closed.into()),
    }
}

/// The answer for [`Closed::StoreAway`] with the reason added to its sentence.
fn store_away(reason: &str) -> HttpResponse {
    let error = ApiError::Closed(Closed::StoreAway);
    let mut sentence = error.to_string();
    if !reason.is_empty() {
        let parts = [sentence.as_str(), reason].map(|part| part.trim_end_matches('.'));
        sentence = format!("{}.", parts.join(": "));
    }
    error.answer(&sentence)
}

/// GET `/status` (READ): the rights of the key, the counts of leases and waiters, the instances.
pub async fn status(req: Rc<Request>) -> Response {
    let right = req.authorize(Right::Read)?;
    let presented = req.authenticate()?;
    let prefixes = presented.prefixes(Right::Read);
    let mut counts = LockCounts::default();
    for prefix in prefixes.as_deref().unwrap_or(&[""]) {
        let part = req.worker.cluster.count_locks((*prefix).to_owned());
        counts = counts.and(part.await?);
    }
    let longest = counts.oldest_wait.as_ref();
    let oldest_wait =
        longest.map(|(since, name)| json!({"name": name, "since": rfc3339(*since).to_string()}));
    let server = req.worker.server();
    Ok(HttpResponse::Ok().json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "store": server.store.kind(),
        "profile": server.profile().name(),
        "now": rfc3339(server.now().wall).to_string(),
        "key": {
            "name": presented.name,
            "rights": right.key_name(),
            "prefixes": prefixes,
        },
        "locks": {
            "held": counts.held,
            "reserved": counts.reserved,
            "waiting": counts.waiting,
            "oldestWait": oldest_wait,
            "grants": counts.grants,
        },
        "instances": instances(&server.members.borrow()),
    })))
}

/// The instances on the database, as this one sees them; empty if the store is not shared.
fn instances(view: &View) -> Vec<Value> {
    let Some(members) = &view.members else {
        return Vec::new();
    };
    let state = |member: &Member| match (member.state, view.reachability(member.id)) {
        (MemberState::Dead | MemberState::BeingTakenOver, _) => "dead",
        (_, Reachability::CutOff | Reachability::OtherProtocol) => "unreachable",
        (MemberState::Leaves, _) => "leaving",
        (MemberState::Serves, _) => "serving",
    };
    let all = members.members.iter().map(|member| {
        json!({
            "id": Uuid::from_bytes(member.id).simple().to_string(),
            "address": member.peer.as_ref().map(|peer| &peer.address),
            "you": member.id == members.me,
            "state": state(member),
            "version": member.version,
            "slots": members.share(member.id),
        })
    });
    all.collect()
}

/// GET `/metrics`: Prometheus text.
pub fn metrics(req: &Request) -> Response {
    let text = req.worker.server().render_metrics().map_err(|error| {
        log::error!("the metrics could not be rendered: {error}");
        ApiError::Refused(Refusal::NotStored, None)
    })?;
    Ok(HttpResponse::Ok()
        .insert_header((
            header::CONTENT_TYPE,
            "text/plain; version=0.0.4; charset=utf-8",
        ))
        .body(text))
}

/// GET `/openapi.json`.
pub fn openapi() -> HttpResponse {
    json_text(HttpResponse::Ok(), openapi::text())
}
