//! One function, one test for each store.

use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::support::Answer;

/// Each function becomes one test per store.
macro_rules! api_tests {
    ($($(#[doc = $doc:literal])* fn $name:ident($store:ident) $body:block)*) => {
        $($(#[doc = $doc])* fn $name($store: crate::support::Store) $body)*

        mod memory {
            $(#[test] fn $name() { super::$name(crate::support::Store::Memory) })*
        }

        mod sqlite {
            $(#[test] fn $name() { super::$name(crate::support::Store::Sqlite) })*
        }

        mod mysql {
            $(#[test] fn $name() {
                if !crate::support::Database::is_skipped() {
                    super::$name(crate::support::Store::Mysql)
                }
            })*
        }
    };
}

/// As `api_tests`, for the stores that outlive the process.
macro_rules! durable_tests {
    ($($(#[doc = $doc:literal])* fn $name:ident($store:ident) $body:block)*) => {
        $($(#[doc = $doc])* fn $name($store: crate::support::Store) $body)*

        mod sqlite {
            $(#[test] fn $name() { super::$name(crate::support::Store::Sqlite) })*
        }

        mod mysql {
            $(#[test] fn $name() {
                if !crate::support::Database::is_skipped() {
                    super::$name(crate::support::Store::Mysql)
                }
            })*
        }
    };
}

/// A time as the server writes it.
pub fn time(value: &Value) -> SystemTime {
    humantime::parse_rfc3339(value.as_str().expect("a time")).expect("a time")
}

/// Two times that the server works out for one moment are less than this apart; those that a test waits
/// for are more.
pub const CLEARLY: Duration = Duration::from_millis(50);

/// A holder's answer to lock: the parts that both places carry agree.
pub fn check_granted(answer: &Answer) {
    let body = answer.json();
    assert_eq!(body["locked"], true, "{answer:?}");
    assert_eq!(body["ticket"], answer.ticket());
    assert_eq!(body["fencingToken"], answer.token());
}
