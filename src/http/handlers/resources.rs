//! Creating, describing, listing and deleting resources.

use std::rc::Rc;
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::dev::Payload;
use actix_web::http::header;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::json;
use tokio::time::timeout;

use crate::http::auth::Right;
use crate::http::body::{self, parse_json};
use crate::http::errors::ApiError;
use crate::http::query::{Query, not_accepted};
use crate::http::request::{Request, malformed_name};
use crate::http::request_bodies::CreateBody;
use crate::http::respond::{self, Response};
use crate::http::response_bodies::{self, json_text};
use crate::lock::command::Role;
use crate::lock::{ResourceName, ResourceOptions, Seconds};
use crate::registry::listing::Page;
use crate::resource::messages::{Op, Reply, Watch};
use crate::shared::gate::Closed;
use crate::store::{ListOrder, ListQuery};

/// The characters to percent-encode: all but the unreserved ones of RFC 3986.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Resources on one page of a listing, by default.
const PAGE: usize = 100;
const PAGE_MAX: usize = 1000;
/// Places of the queue in a description, by default.
const PLACES: usize = 20;
const PLACES_MAX: usize = 1000;
/// Most documents in a description.
const SELECTORS_MAX: usize = 1000;

/// POST `/resource`.
pub async fn create(req: Rc<Request>, payload: Payload) -> Response {
    req.authorize(Right::Write)?;
    let body = body::read(&req, payload).await?;
    let accepts = r#"{"name": "1 to 255 characters", "timeout": seconds, "slots": 1 to 1000, "lockDelay": 0 to 60}"#;
    let body: CreateBody = parse_json(&body, accepts)?;
    let name = ResourceName::parse(&body.name).map_err(malformed_name)?;
    req.authorize_name(&name, Right::Write)?;
    let plain = ResourceOptions::plain(body.timeout.unwrap_or(Seconds::ZERO));
    let options = ResourceOptions {
        slots: body.slots.unwrap_or(plain.slots),
        lock_delay: body.lock_delay.unwrap_or(plain.lock_delay),
        ..plain
    };
    match req.ask(&name, &Op::Create { options }).await {
        Reply::Created { id, options } => {
            let path = utf8_percent_encode(name.as_str(), UNRESERVED);
            let mut body = json!({
                "id": id.as_str(),
                "name": name,
                "timeout": options.timeout,
            });
            if options.slots != plain.slots {
                body["slots"] = options.slots.into();
            }
            if options.lock_delay != plain.lock_delay {
                body["lockDelay"] = options.lock_delay.into();
            }
            Ok(HttpResponse::Created()
                .insert_header((header::LOCATION, format!("/resource/{path}")))
                .json(body))
        }
        other => Err(respond::refusal(other)),
    }
}

/// GET `/resource/{name}`.
pub async fn describe(req: Rc<Request>) -> Response {
    req.authorize(Right::Read)?;
    let name = req.name()?;
    let query = req.query()?;
    let wait = query.wait(req.worker.wait_max)?.unwrap_or_default();
    let places = query.count("queue", PLACES, 0..=PLACES_MAX)?;
    let selectors = query.count("selectors", 0, 0..=SELECTORS_MAX)?;
    let selectors_after = query.get("selectorsAfter").unwrap_or("");
    let op = Op::Describe {
        presented: req.presented(),
        places,
        watch: req.if_none_match()?.map(|known| Watch { known, wait }),
    };
    match req.ask(&name, &op).await {
        Reply::Described(description) => {
            let sizes = match selectors {
                0 => Vec::new(),
                _ => {
                    let of = (&name, &description.id);
                    let cluster = &req.worker.cluster;
                    // One document more than asked for tells whether there is a next page.
                    let sizes = cluster.document_sizes(of, selectors_after, selectors + 1);
                    sizes.await?
                }
            };
            let mut response = HttpResponse::Ok();
            respond::with_token(&mut response, description.you.and_then(Role::token));
            let tag = respond::entity_tag(description.fingerprint.into());
            response.insert_header((header::ETAG, &tag[..]));
            let body = response_bodies::described(&description, &sizes, selectors);
            Ok(json_text(response, body))
        }
        Reply::Unchanged { tag, token } => Ok(respond::not_modified(tag, token)),
        other => Err(respond::refusal(other)),
    }
}

/// The order that `?sort=` asks for.
fn order(query: &Query<'_>) -> Result<ListOrder, ApiError> {
    match query.get("sort") {
        None | Some("name") => Ok(ListOrder::Name),
        Some("waiting") => Ok(ListOrder::Waiting),
        Some("held") => Ok(ListOrder::Held),
        Some(_) => Err(not_accepted("sort", "name, waiting or held")),
    }
}

fn list_query(query: &Query<'_>) -> Result<ListQuery, ApiError> {
    let order = order(query)?;
    let after = query.get("after").map(str::to_owned);
    if after.is_some() && order != ListOrder::Name {
        return Err(ApiError::Malformed(
            "The query parameter after is accepted in the order of names only: leave out either after or \
             sort."
                .to_owned(),
        ));
    }
    Ok(ListQuery {
        prefix: query.get("prefix").unwrap_or("").to_owned(),
        after,
        limit: query.count("limit", PAGE, 1..=PAGE_MAX)?,
        held: query.flag("locked")?,
        reserved: query.flag("reserved")?,
        order,
    })
}

/// A page of the names with one of these prefixes, as if no other names existed.
async fn page_within(req: &Request, query: ListQuery, prefixes: &[&str]) -> Result<Page, Closed> {
    let asked = query.prefix.clone();
    let covers = prefixes.iter().any(|prefix| asked.starts_with(prefix));
    let narrower = prefixes.iter().filter(|prefix| prefix.starts_with(&asked));
    let parts: Vec<String> = match covers {
        true => vec![asked.clone()],
        false => narrower.map(|prefix| (*prefix).to_owned()).collect(),
    };
    let mut pages = Vec::new();
    for prefix in parts {
        let part = ListQuery {
            prefix,
            ..query.clone()
        };
        pages.push(req.worker.cluster.page(part).await?);
    }
    Ok(Page::merged(pages, &query))
}

/// GET `/resource`.
pub async fn list(req: Rc<Request>) -> Response {
    req.authorize(Right::Read)?;
    let query = list_query(&req.query()?)?;
    let key = req.authenticate()?;
    let listing = async {
        match key.prefixes(Right::Read) {
            None => req.worker.cluster.page(query).await,
            Some(prefixes) => page_within(&req, query, &prefixes).await,
        }
    };
    let limit = Duration::from_millis(req.worker.server().settings.listing_timeout_ms);
    let page = timeout(limit, listing).await;
    let page = page.unwrap_or(Err(Closed::ListingTooLong))?;
    let next = page.next.as_ref().map(ResourceName::as_str);
    let body = response_bodies::listed(&page.resources, next);
    Ok(json_text(HttpResponse::Ok(), body))
}

/// DELETE `/resource/{name}`.
pub async fn delete(req: Rc<Request>) -> Response {
    req.authorize(Right::Write)?;
    let name = req.name()?;
    let presented = req.presented();
    respond::changed(req.ask(&name, &Op::Delete { presented }).await)
}
