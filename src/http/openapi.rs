//! The OpenAPI document: `docs/openapi.yaml`, written by hand, served as JSON.

use std::sync::LazyLock;

/// The document as JSON; `None` if the file is not YAML, which a test would notice.
static JSON: LazyLock<Option<String>> = LazyLock::new(|| {
    let mut document: serde_json::Value =
        serde_yaml_ng::from_str(include_str!("../../docs/openapi.yaml")).ok()?;
    document["info"]["version"] = env!("CARGO_PKG_VERSION").into();
    serde_json::to_string_pretty(&document).ok()
});

/// The document as JSON, converted once.
pub fn text() -> &'static str {
    JSON.as_deref().unwrap_or("{}")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;
    use crate::http::errors::CODES;
    use crate::http::paths::PATTERNS;

    fn document() -> Value {
        serde_json::from_str(text()).unwrap()
    }

    #[test]
    fn every_route_is_in_the_document_and_nothing_else_is() {
        let document = document();
        let described = document["paths"].as_object().unwrap().keys();
        let described: BTreeSet<&str> = described.map(String::as_str).collect();
        // The page is not part of the API.
        let others = ["/", "/page/{file}"];
        let served = PATTERNS.iter().filter(|pattern| !others.contains(pattern));
        assert_eq!(described, served.copied().collect());
    }

    #[test]
    fn every_code_is_in_the_document_and_nothing_else_is() {
        let document = document();
        let responses = document["components"]["responses"].as_object().unwrap();
        let enums = responses.values().filter_map(|response| {
            let schema = &response["content"]["application/json"]["schema"];
            schema["allOf"][1]["properties"]["code"]["enum"].as_array()
        });
        let described: BTreeSet<&str> = enums.flatten().filter_map(Value::as_str).collect();
        let given: BTreeSet<&str> = CODES.iter().map(|(_, code)| *code).collect();
        assert_eq!(described, given);
    }

    #[test]
    fn every_schema_has_an_example_with_its_fields() {
        let document = document();
        for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
            let example = schema["example"].as_object();
            let example = example.unwrap_or_else(|| panic!("{name} has no example"));
            let properties = schema["properties"].as_object().unwrap();
            for field in example.keys() {
                assert!(properties.contains_key(field), "{name}.{field}");
            }
            for field in schema["required"].as_array().into_iter().flatten() {
                assert!(
                    example.contains_key(field.as_str().unwrap()),
                    "{name}.{field}"
                );
            }
        }
    }
}
