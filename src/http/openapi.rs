//! The OpenAPI document: `docs/openapi.yaml`, written by hand, served as JSON.

use std::sync::LazyLock;

/// Converted once. Empty if the file is not YAML, which a test would notice.
static JSON: LazyLock<String> = LazyLock::new(|| converted().unwrap_or_default());

fn converted() -> Option<String> {
    let mut document: serde_json::Value =
        serde_yaml_ng::from_str(include_str!("../../docs/openapi.yaml")).ok()?;
    document["info"]["version"] = env!("CARGO_PKG_VERSION").into();
    serde_json::to_string_pretty(&document).ok()
}

/// The document as JSON.
pub fn text() -> &'static str {
    &JSON
}
