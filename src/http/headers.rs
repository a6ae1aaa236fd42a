//! The names of this API's headers.

use actix_web::http::header::HeaderName;

pub static IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
pub static X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
pub static X_FENCING_TOKEN: HeaderName = HeaderName::from_static("x-fencing-token");
pub static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub static X_TICKET: HeaderName = HeaderName::from_static("x-ticket");
pub static X_TICKET_ENDED: HeaderName = HeaderName::from_static("x-ticket-ended");
pub static X_WAITED_MS: HeaderName = HeaderName::from_static("x-waited-ms");
