//! Creating, describing, listing and deleting resources.

use actix_web::http::header;
use actix_web::web::{Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::http::auth::Right;
use crate::http::errors::ApiError;
use crate::http::request::{Query, authorize, body, name, parse_json, presented};
use crate::http::respond::{self, Response};
use crate::http::wire::{CreateBody, CreatedBody, DescriptionBody, ListBody};
use crate::http::worker::Worker;
use crate::lock::{ResourceName, Seconds};
use crate::resource::messages::Description;
use crate::resource::messages::{Op, Reply};
use crate::store::{ListOrder, ListQuery};

/// All but the unreserved characters of RFC 3986.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Resources on one page of a listing, unless the client says.
const PAGE: usize = 100;
const PAGE_MAX: usize = 1000;

/// POST `/resource`.
pub async fn create(req: HttpRequest, payload: Payload, worker: Data<Worker>) -> Response {
    authorize(&req, &worker, Right::Write)?;
    let body = body(&req, payload, &worker).await?;
    let accepts = r#"{"name": "1 to 255 characters", "timeout": seconds}"#;
    let body: CreateBody = parse_json(&body, None, accepts)?;
    let name = ResourceName::parse(&body.name)
        .map_err(|error| ApiError::Malformed(format!("The resource name {error}.")))?;
    let timeout = body.timeout.unwrap_or(Seconds::ZERO);
    match worker.ask(&req, &name, &Op::Create { timeout }).await {
        Reply::Created { id, timeout } => {
            let path = utf8_percent_encode(name.as_str(), UNRESERVED);
            Ok(HttpResponse::Created()
                .insert_header((header::LOCATION, format!("/resource/{path}")))
                .json(CreatedBody {
                    id: id.as_str(),
                    name: name.as_str(),
                    timeout,
                }))
        }
        other => Err(respond::refusal(other, worker.selectors_max())),
    }
}

/// GET `/resource/{name}`.
pub async fn describe(req: HttpRequest, worker: Data<Worker>) -> Response {
    authorize(&req, &worker, Right::Read)?;
    let name = name(&req)?;
    match worker.ask(&req, &name, &Op::Describe).await {
        Reply::Described(description) => Ok(HttpResponse::Ok().json(described(&description))),
        other => Err(respond::refusal(other, worker.selectors_max())),
    }
}

fn described(description: &Description) -> DescriptionBody<'_> {
    DescriptionBody {
        id: description.id.as_str(),
        name: description.name.as_str(),
        timeout: description.timeout,
        locked: description.locked,
        holder: description.holder.clone().map(Into::into),
        waiting: description.waiting,
        selectors: description.selectors,
    }
}

/// What `?sort=` says.
fn order(query: &Query<'_>) -> Result<ListOrder, ApiError> {
    match query.get("sort") {
        None | Some("name") => Ok(ListOrder::Name),
        Some("waiting") => Ok(ListOrder::Waiting),
        Some("held") => Ok(ListOrder::Held),
        Some(_) => Err(ApiError::Malformed(
            "The query parameter sort is not accepted: it takes name, waiting or held.".to_owned(),
        )),
    }
}

fn list_query(query: &Query<'_>) -> Result<ListQuery, ApiError> {
    let order = order(query)?;
    let after = query.get("after").map(str::to_owned);
    if after.is_some() && order != ListOrder::Name {
        return Err(ApiError::Malformed(
            "The query asks to go on after a name in an order that changes all the time: leave out \
             either after or sort."
                .to_owned(),
        ));
    }
    Ok(ListQuery {
        prefix: query.get("prefix").unwrap_or("").to_owned(),
        after,
        limit: query.count("limit", PAGE, PAGE_MAX)?,
        held: query.flag("locked")?,
        order,
    })
}

/// GET `/resource`.
pub async fn list(req: HttpRequest, worker: Data<Worker>) -> Response {
    authorize(&req, &worker, Right::Read)?;
    let query = list_query(&Query::of(&req)?)?;
    let page = worker.router.page(query).await.map_err(ApiError::Closed)?;
    worker.check_answer()?;
    Ok(HttpResponse::Ok().json(ListBody {
        resources: page.resources.iter().map(described).collect(),
        next: page.next.as_ref().map(ResourceName::as_str),
    }))
}

/// DELETE `/resource/{name}`.
pub async fn delete(req: HttpRequest, worker: Data<Worker>) -> Response {
    authorize(&req, &worker, Right::Write)?;
    let name = name(&req)?;
    let presented = presented(&req);
    let reply = worker.ask(&req, &name, &Op::Delete { presented }).await;
    respond::changed(reply, worker.selectors_max())
}
