//! The API described for programs: OpenAPI 3.1, made from the bodies in `wire`, the codes in `errors` and
//! the paths in `routes`.
//!
//! `config/openapi.json` is a copy for readers without a server; a test holds it against this. A server
//! shows its own `MAX_WAIT_SECONDS` in it.

use std::time::Duration;

use utoipa::ToSchema;
use utoipa::openapi::link::LinkBuilder;
use utoipa::openapi::path::{OperationBuilder, Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{
    AllOfBuilder, AnyOfBuilder, ComponentsBuilder, ObjectBuilder, OneOfBuilder, Ref, Schema,
    SchemaType, Type,
};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    ContentBuilder, HeaderBuilder, HttpMethod, InfoBuilder, LicenseBuilder, OpenApi,
    OpenApiBuilder, PathItem, PathsBuilder, RefOr, Required, ResponseBuilder,
};

use super::errors::CODES;
use super::routes::Route;
use super::wire::{
    CreateBody, CreatedBody, DataBody, DescriptionBody, ErrorBody, ForceBody, ForcedBody,
    GrantedBody, HolderBody, ListBody, LockBody, QueuedBody, RenewBody, RenewedBody, StatusBody,
    UnavailableBody, UnlockedBody,
};

type AnySchema = RefOr<Schema>;

/// Longest wait that the committed copy speaks of: the default of `MAX_WAIT_SECONDS`.
pub const WAIT_MAX_DEFAULT: Duration = Duration::from_secs(300);

/// The document as JSON text with a newline at its end.
///
/// # Errors
/// When it cannot be serialised, which would be a mistake in this module.
pub fn text(wait_max: Duration) -> Result<String, serde_json::Error> {
    let mut text = serde_json::to_string_pretty(&document(wait_max))?;
    text.push('\n');
    Ok(text)
}

/// The document. `wait_max`: the largest `?wait=`.
pub fn document(wait_max: Duration) -> OpenApi {
    let info = InfoBuilder::new()
        .title("small-resource-server")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "A lock server: named resources with a first-come queue, leases, fencing tokens and shared \
             JSON data. Errors are `{\"error\", \"code\"}`; programs go by the code.",
        ))
        .license(Some(
            LicenseBuilder::new().name("MIT").identifier(Some("MIT")).build(),
        ))
        .build();
    OpenApiBuilder::new()
        .info(info)
        .components(Some(components().build()))
        .paths(paths(wait_max))
        .build()
}

fn components() -> ComponentsBuilder {
    let key = ApiKeyValue::with_description(
        "x-api-key",
        "RESOURCE_READ (READ), RESOURCE_READ_LOCK (READ, LOCK), RESOURCE_WRITE (READ, LOCK, WRITE) or \
         RESOURCE_ADMIN (all).",
    );
    ComponentsBuilder::new()
        .schema_from::<CreateBody>()
        .schema_from::<CreatedBody>()
        .schema_from::<DataBody>()
        .schema_from::<DescriptionBody>()
        .schema_from::<ErrorBody>()
        .schema_from::<ForceBody>()
        .schema_from::<ForcedBody>()
        .schema_from::<GrantedBody>()
        .schema_from::<HolderBody>()
        .schema_from::<ListBody>()
        .schema_from::<LockBody>()
        .schema_from::<QueuedBody>()
        .schema_from::<RenewBody>()
        .schema_from::<RenewedBody>()
        .schema_from::<StatusBody>()
        .schema_from::<UnavailableBody>()
        .schema_from::<UnlockedBody>()
        .security_scheme("key", SecurityScheme::ApiKey(ApiKey::Header(key)))
}

fn paths(wait_max: Duration) -> PathsBuilder {
    let wait = wait_max.as_secs();
    let get = |operation| vec![(HttpMethod::Get, operation)];
    let twice = |make: &dyn Fn(&'static str) -> OperationBuilder| {
        vec![
            (HttpMethod::Put, make("")),
            (HttpMethod::Post, make("Post")),
        ]
    };
    let document = |id: &'static str, selector: bool| {
        vec![
            (
                HttpMethod::Get,
                get_document(&format!("get{id}"), selector, wait),
            ),
            (HttpMethod::Put, put_document(&format!("put{id}"), selector)),
            (
                HttpMethod::Delete,
                delete_document(&format!("delete{id}"), selector),
            ),
        ]
    };
    let mut force = document("DocumentForceUnlock", false);
    force.push((HttpMethod::Post, force_unlock()));
    let routes = [
        (Route::Health, get(health())),
        (Route::Ready, get(ready())),
        (Route::Metrics, get(metrics())),
        (Route::Openapi, get(openapi())),
        (
            Route::Resources,
            vec![(HttpMethod::Get, list()), (HttpMethod::Post, create())],
        ),
        (
            Route::Resource,
            vec![
                (HttpMethod::Get, describe()),
                (HttpMethod::Delete, delete_resource()),
            ],
        ),
        (Route::ForceUnlock, force),
        (Route::Data, document("Document", true)),
        (Route::Lock, twice(&|suffix| lock(suffix, wait))),
        (Route::Unlock, twice(&unlock)),
        (Route::Renew, twice(&renew)),
    ];
    routes
        .into_iter()
        .fold(PathsBuilder::new(), |paths, (route, operations)| {
            let mut item = PathItem::default();
            for (method, operation) in operations {
                item.merge_operations(PathItem::new(method, operation));
            }
            paths.path(route.pattern(), item)
        })
}

// ---- operations ------------------------------------------------------------------------------------

/// Refusals that every route for resources can answer.
const ALWAYS: &[&str] = &[
    "malformed",
    "key_missing",
    "key_unknown",
    "key_insufficient",
    "route_unknown",
    "method_not_allowed",
    "rate_limited",
    "starting",
    "standby",
    "store_unavailable",
    "store_refused",
    "shutting_down",
];
/// Those of a request with a body.
const BODY: &[&str] = &["body_timeout", "body_too_large"];
/// Those of a request that presents a ticket which may be dead.
const DEAD: &[&str] = &[
    "ticket_unknown",
    "ticket_released",
    "lease_expired",
    "lease_forced_off",
];

fn operation(id: &str, summary: &str) -> OperationBuilder {
    OperationBuilder::new()
        .operation_id(Some(id))
        .summary(Some(summary))
        .parameter(header_parameter(
            "X-Request-Id",
            "Names the request in the server's log; answered back when it is 1 to 128 visible ASCII \
             characters, else another one is made.",
            string(),
        ))
}

/// An operation on resources: it needs a key and can be refused.
fn keyed(id: &str, summary: &str, right: &str, codes: &[&[&str]]) -> OperationBuilder {
    let codes: Vec<&str> = [ALWAYS]
        .iter()
        .chain(codes)
        .flat_map(|c| c.iter().copied())
        .collect();
    let mut statuses: Vec<u16> = CODES.iter().map(|(status, ..)| *status).collect();
    statuses.dedup();
    let operation = operation(id, summary)
        .description(Some(format!("Needs a key with the {right} right.")))
        .security(SecurityRequirement::new::<_, _, String>("key", []));
    statuses.into_iter().fold(operation, |operation, status| {
        match refusal(status, &codes) {
            Some(response) => operation.response(status.to_string(), response),
            None => operation,
        }
    })
}

/// The response of a status, if any of these codes comes with it.
fn refusal(status: u16, codes: &[&str]) -> Option<ResponseBuilder> {
    let listed = CODES
        .iter()
        .filter(|(of, code, _)| *of == status && codes.contains(code));
    let meanings: Vec<(&str, &str)> = listed.map(|(_, code, why)| (*code, *why)).collect();
    if meanings.is_empty() {
        return None;
    }
    let described = meanings
        .iter()
        .map(|(code, why)| format!("`{code}`: {why}"));
    let code = ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some(meanings.iter().map(|(code, _)| *code)));
    let narrowed = ObjectBuilder::new().property("code", code);
    let schema = AllOfBuilder::new()
        .item(reference::<ErrorBody>())
        .item(narrowed);
    let text = described.collect::<Vec<_>>().join("; ");
    let mut response = response(&text).content(JSON, json(schema));
    if status == 405 {
        response = response.header("Allow", header("The methods that the path takes."));
    }
    if status == 429 || status == 503 {
        response = response.header("Retry-After", retry_after());
    }
    Some(response)
}

fn health() -> OperationBuilder {
    operation("health", "200 while the process serves")
        .response("200", body::<StatusBody>("It serves."))
}

fn ready() -> OperationBuilder {
    operation("ready", "Are requests for resources answered?")
        .response("200", body::<StatusBody>("They are."))
        .response("503", closed())
}

/// Why requests for resources are not answered.
fn closed() -> ResponseBuilder {
    let codes = ["starting", "standby", "store_unavailable", "shutting_down"];
    refusal(503, &codes).unwrap_or_else(|| response("They are not."))
}

fn metrics() -> OperationBuilder {
    let text = response("Prometheus' text form.").content("text/plain", json(string()));
    operation("metrics", "Numbers for monitoring").response("200", text)
}

fn openapi() -> OperationBuilder {
    let any = response("OpenAPI 3.1.").content(JSON, json(ObjectBuilder::new()));
    operation("openapi", "This document").response("200", any)
}

fn list() -> OperationBuilder {
    keyed(
        "listResources",
        "List resources, and who holds what",
        "READ",
        &[],
    )
    .parameter(query(
        "prefix",
        "Names that start with this, byte for byte.",
        string(),
    ))
    .parameter(query(
        "after",
        "Names after this one; only in the order of names.",
        string(),
    ))
    .parameter(query(
        "limit",
        "How many at most; 100 unless told.",
        integer(1, 1000),
    ))
    .parameter(query(
        "locked",
        "1: only those that are held or reserved; 0: only the others.",
        flag(),
    ))
    .parameter(query(
        "sort",
        "`waiting`: most waiters first; `held`: longest held first; then there is no next page.",
        one_of(&["name", "waiting", "held"]),
    ))
    .response("200", body::<ListBody>("A page of resources."))
}

fn create() -> OperationBuilder {
    let created = body::<CreatedBody>("It exists now.").header("Location", header("Its path."));
    keyed(
        "createResource",
        "Create a resource",
        "WRITE",
        &[BODY, &["resource_exists"]],
    )
    .request_body(Some(request::<CreateBody>(true)))
    .response("201", created)
}

fn describe() -> OperationBuilder {
    keyed(
        "describeResource",
        "Who holds it, how many wait",
        "READ",
        &[&["resource_unknown"]],
    )
    .parameter(name_parameter())
    .response("200", body::<DescriptionBody>("The resource."))
}

fn delete_resource() -> OperationBuilder {
    let codes: &[&[&str]] = &[DEAD, &["resource_unknown", "locked"]];
    keyed(
        "deleteResource",
        "Delete a resource; ends its holder and its queue",
        "WRITE",
        codes,
    )
    .parameter(name_parameter())
    .parameter(ticket_parameter())
    .response("204", with_token(response("It is gone.")))
}

/// As [`at_document`] with a selector, where the ticket cannot be left out.
fn at_ticket(operation: OperationBuilder) -> OperationBuilder {
    let ticket = string().pattern(Some("^[!-~]+$"));
    let what = "The ticket that the lock was answered with.";
    let parameter = parameter("X-Ticket", ParameterIn::Header, what, ticket);
    operation
        .parameter(name_parameter())
        .parameter(selector_parameter())
        .parameter(parameter.required(Required::True).build())
}

/// `selector`: whether the path has one. The path of force-unlock has none, and is, for other methods than
/// POST, that of the document at the selector of that name.
fn at_document(operation: OperationBuilder, selector: bool) -> OperationBuilder {
    let operation = operation.parameter(name_parameter());
    let operation = match selector {
        true => operation.parameter(selector_parameter()),
        false => operation,
    };
    operation.parameter(ticket_parameter())
}

fn get_document(id: &str, selector: bool, wait: u64) -> OperationBuilder {
    let codes: &[&[&str]] = &[&[
        "resource_unknown",
        "selector_unknown",
        "idempotency_key_reused",
        "too_many_waiters",
    ]];
    let raw = AnyOfBuilder::new()
        .item(reference::<DataBody>())
        .item(any());
    let found = response("The data; with `raw=1` the JSON text itself.").content(JSON, json(raw));
    let waits = body::<UnavailableBody>("Someone else holds the lock: retry with the ticket.");
    let operation = keyed(
        id,
        "Read a document, with or without the lock",
        "LOCK (READ with lock=0)",
        codes,
    );
    at_document(operation, selector)
        .parameter(query(
            "lock",
            "1, the default: take or keep the lock; 0: only read.",
            flag(),
        ))
        .parameter(query("raw", "1: answer with the JSON text itself.", flag()))
        .parameter(wait_parameter(wait))
        .parameter(idempotency_parameter())
        .response("200", with_ended(with_token(with_ticket(found))))
        .response(
            "202",
            with_ended(with_ticket(with_token(waits))).header("Retry-After", retry_after()),
        )
}

fn put_document(id: &str, selector: bool) -> OperationBuilder {
    let codes: &[&[&str]] = &[
        BODY,
        DEAD,
        &[
            "resource_unknown",
            "locked",
            "document_too_large",
            "too_many_selectors",
            "too_many_waiters",
        ],
    ];
    let text = RequestBodyBuilder::new()
        .description(Some(
            "Any JSON text, kept byte for byte; nothing stores `{}`.",
        ))
        .content(JSON, json(any()))
        .required(Some(Required::False))
        .build();
    at_document(keyed(id, "Write a document", "WRITE", codes), selector)
        .parameter(query("unlock", "1: write and release in one step.", flag()))
        .request_body(Some(text))
        .response("204", with_token(response("It is written.")))
}

fn delete_document(id: &str, selector: bool) -> OperationBuilder {
    let codes: &[&[&str]] = &[DEAD, &["resource_unknown", "selector_unknown", "locked"]];
    at_document(keyed(id, "Delete a document", "WRITE", codes), selector)
        .response("204", with_token(response("It is gone.")))
}

fn lock(suffix: &str, wait: u64) -> OperationBuilder {
    let codes: &[&[&str]] = &[
        BODY,
        &[
            "resource_unknown",
            "locked",
            "idempotency_key_reused",
            "too_many_waiters",
        ],
    ];
    let granted = OneOfBuilder::new()
        .item(reference::<GrantedBody>())
        .item(reference::<QueuedBody>());
    let answer = response("Granted, or a place in the queue.").content(JSON, json(granted));
    let operation = keyed(
        &format!("lock{suffix}"),
        "Take, keep or queue for the lock",
        "LOCK",
        codes,
    );
    at_document(operation, true)
        .parameter(wait_parameter(wait))
        .parameter(query("queue", "0: take it now or be refused.", flag()))
        .parameter(idempotency_parameter())
        .request_body(Some(request::<LockBody>(false)))
        .response(
            "200",
            with_links(with_ended(with_token(with_ticket(answer)))),
        )
}

fn unlock(suffix: &str) -> OperationBuilder {
    let codes: &[&[&str]] = &[DEAD, &["ticket_missing", "resource_unknown"]];
    let operation = keyed(
        &format!("unlock{suffix}"),
        "Release the lock or leave the queue",
        "LOCK",
        codes,
    );
    at_ticket(operation).response("200", body::<UnlockedBody>("The ticket has ended."))
}

fn renew(suffix: &str) -> OperationBuilder {
    let codes: &[&[&str]] = &[
        BODY,
        DEAD,
        &["ticket_missing", "resource_unknown", "not_holder"],
    ];
    let operation = keyed(
        &format!("renew{suffix}"),
        "Make the lease last longer",
        "LOCK",
        codes,
    );
    at_ticket(operation)
        .request_body(Some(request::<RenewBody>(false)))
        .response(
            "200",
            with_token(body::<RenewedBody>("The lease as it is now.")),
        )
}

fn force_unlock() -> OperationBuilder {
    let codes: &[&[&str]] = &[BODY, &["resource_unknown", "lease_over"]];
    keyed(
        "forceUnlock",
        "End a lease that is not one's own",
        "ADMIN",
        codes,
    )
    .parameter(name_parameter())
    .request_body(Some(request::<ForceBody>(true)))
    .response(
        "200",
        body::<ForcedBody>("Whether there was a lease to end."),
    )
}

// ---- pieces ----------------------------------------------------------------------------------------

const JSON: &str = "application/json";

fn response(description: &str) -> ResponseBuilder {
    let id = header("The request's id in the server's log.");
    ResponseBuilder::new()
        .description(description)
        .header("X-Request-Id", id)
}

fn json(schema: impl Into<AnySchema>) -> utoipa::openapi::Content {
    ContentBuilder::new().schema(Some(schema)).build()
}

fn reference<T: ToSchema>() -> Ref {
    Ref::from_schema_name(T::name())
}

fn body<T: ToSchema>(description: &str) -> ResponseBuilder {
    response(description).content(JSON, json(reference::<T>()))
}

fn request<T: ToSchema>(required: bool) -> utoipa::openapi::request_body::RequestBody {
    let required = if required {
        Required::True
    } else {
        Required::False
    };
    RequestBodyBuilder::new()
        .content(JSON, json(reference::<T>()))
        .required(Some(required))
        .build()
}

fn header(description: &str) -> utoipa::openapi::Header {
    HeaderBuilder::new()
        .schema(Some(string()))
        .description(Some(description))
        .build()
}

fn retry_after() -> utoipa::openapi::Header {
    header("Seconds to wait before asking again.")
}

fn with_ticket(response: ResponseBuilder) -> ResponseBuilder {
    let ticket = string().pattern(Some("^[0-9a-f]{32}$"));
    let header = HeaderBuilder::new()
        .schema(Some(ticket))
        .description(Some("The ticket to present from now on."))
        .build();
    response.header("X-Ticket", header)
}

/// Where the ticket of an answer can be presented next.
fn with_links(response: ResponseBuilder) -> ResponseBuilder {
    ["unlock", "renew", "lock", "getDocument", "putDocument"]
        .into_iter()
        .fold(response, |response, operation| {
            let link = LinkBuilder::new()
                .operation_id(operation)
                .parameter("name", "$request.path.name")
                .parameter("selector", "$request.path.selector")
                .parameter("X-Ticket", "$response.header.X-Ticket")
                .build();
            response.link(operation, link)
        })
}

fn with_token(response: ResponseBuilder) -> ResponseBuilder {
    let header = HeaderBuilder::new()
        .schema(Some(integer(1, u64::MAX)))
        .description(Some("The lease's fencing token, for its holder."))
        .build();
    response.header("X-Fencing-Token", header)
}

fn with_ended(response: ResponseBuilder) -> ResponseBuilder {
    let header = HeaderBuilder::new()
        .schema(Some(one_of(&[
            "ticket_released",
            "lease_expired",
            "lease_forced_off",
        ])))
        .description(Some("Why the ticket that was presented had ended."))
        .build();
    response.header("X-Ticket-Ended", header)
}

fn parameter(
    name: &str,
    place: ParameterIn,
    description: &str,
    schema: impl Into<AnySchema>,
) -> ParameterBuilder {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(place)
        .required(Required::False)
        .description(Some(description))
        .schema(Some(schema))
}

fn query(name: &str, description: &str, schema: impl Into<AnySchema>) -> Parameter {
    parameter(name, ParameterIn::Query, description, schema).build()
}

fn header_parameter(name: &str, description: &str, schema: impl Into<AnySchema>) -> Parameter {
    parameter(name, ParameterIn::Header, description, schema).build()
}

fn name_parameter() -> Parameter {
    let what = "The resource, percent-encoded; its characters count byte for byte.";
    let parameter = parameter("name", ParameterIn::Path, what, name_text());
    parameter.required(Required::True).build()
}

fn selector_parameter() -> Parameter {
    let what = "Picks the data, never the lock.";
    let parameter = parameter("selector", ParameterIn::Path, what, name_text());
    parameter.required(Required::True).build()
}

fn ticket_parameter() -> Parameter {
    let what = "The ticket that the lock was answered with.";
    header_parameter("X-Ticket", what, string())
}

fn idempotency_parameter() -> Parameter {
    let key = string().pattern(Some("^[!-~]{1,255}$"));
    header_parameter("Idempotency-Key", "Unique per attempt.", key)
}

fn wait_parameter(max: u64) -> Parameter {
    let what = format!("Wait for the lock so many seconds, 0 to {max}, decimals allowed.");
    query("wait", &what, string().pattern(Some(decimals_up_to(max))))
}

fn string() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String)
}

fn any() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(SchemaType::AnyValue)
}

fn integer(min: u64, max: u64) -> ObjectBuilder {
    let integer = ObjectBuilder::new()
        .schema_type(Type::Integer)
        .minimum(Some(min));
    match max {
        u64::MAX => integer,
        max => integer.maximum(Some(max)),
    }
}

fn one_of(values: &[&str]) -> ObjectBuilder {
    string().enum_values(Some(values.iter().copied()))
}

fn flag() -> ObjectBuilder {
    one_of(&["0", "1", "true", "false"])
}

/// 1 to 255 characters, none of them a control character.
fn name_text() -> ObjectBuilder {
    string()
        .min_length(Some(1))
        .max_length(Some(255))
        .pattern(Some(r"^[^\u0000-\u001f\u007f-\u009f]+$"))
}

pub(super) fn name_schema() -> AnySchema {
    name_text().into()
}

pub(super) fn optional_name_schema() -> AnySchema {
    OneOfBuilder::new().item(name_text()).item(null()).into()
}

pub(super) fn optional_token_schema() -> AnySchema {
    let token = integer(0, u64::MAX).maximum(Some(u64::MAX));
    OneOfBuilder::new().item(token).item(null()).into()
}

/// An integer or a numeric string.
pub(super) fn seconds_schema() -> AnySchema {
    let max = u64::from(crate::lock::Seconds::MAX);
    let text = string().pattern(Some(format!("^0*({})$", up_to(max))));
    OneOfBuilder::new()
        .item(integer(0, max))
        .item(text)
        .item(null())
        .into()
}

fn null() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::Null)
}

/// A regular expression for the decimal integers from 0 to `max`, without leading zeros.
fn up_to(max: u64) -> String {
    let digits = max.to_string();
    let mut choices = Vec::new();
    if digits.len() > 1 {
        choices.push(format!("[0-9]{{1,{}}}", digits.len() - 1));
    }
    for (at, digit) in digits.bytes().enumerate() {
        let lowest = if at == 0 && digits.len() > 1 {
            b'1'
        } else {
            b'0'
        };
        let rest = digits.len() - at - 1;
        if digit > lowest {
            let (from, to) = (lowest as char, (digit - 1) as char);
            choices.push(format!("{}[{from}-{to}][0-9]{{{rest}}}", &digits[..at]));
        }
    }
    choices.push(digits);
    choices.join("|")
}

/// A regular expression for decimal numbers from 0 to `max`.
fn decimals_up_to(max: u64) -> String {
    let end = format!(r"0*{max}(\.0*)?");
    match max.checked_sub(1) {
        None => format!(r"^({end}|\.0+)$"),
        Some(below) => format!(r"^(0*({})(\.[0-9]*)?|\.[0-9]+|{end})$", up_to(below)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_written_as_patterns() {
        assert_eq!(up_to(0), "0");
        assert_eq!(up_to(7), "[0-6][0-9]{0}|7");
        assert_eq!(
            up_to(299),
            "[0-9]{1,2}|[1-1][0-9]{2}|2[0-8][0-9]{1}|29[0-8][0-9]{0}|299"
        );
    }

    #[test]
    fn every_code_is_in_the_document() {
        let text = text(WAIT_MAX_DEFAULT).unwrap();
        for (_, code, _) in CODES {
            assert!(text.contains(&format!("\"{code}\"")), "{code}");
        }
    }
}
