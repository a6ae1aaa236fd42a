//! Tests: the messages between instances have the form that was fixed for this version of the protocol.

use std::fmt::Write;
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use serde_reflection::{ContainerFormat, Registry, Samples, Tracer, TracerConfig};

use super::wire::{PROTOCOLS, PeerReply, Question, ReplyFrame, RequestFrame, frame};
use crate::lock::command::Role;
use crate::lock::{
    Answer, EndReason, Mode, PresentedTicket, Refusal, ResourceName, Selector, Ticket,
};
use crate::resource::messages::{Condition, Op, Reply, Wait};
use crate::shared::audit_log::AuditKind;
use crate::shared::caller::{Caller, RequestTag};
use crate::shared::gate::Closed;
use crate::store::ListOrder;
use crate::store::history::LeaseEnd;

/// The schema of every type that a frame can contain.
fn all_types() -> Registry {
    // A sample string that is valid as the id of a ticket and as a name.
    let config = TracerConfig::default().default_string_value("0123456789abcdef".into());
    let (mut tracer, samples) = (Tracer::new(config), Samples::new());
    // Each enum is traced by itself, inner enums before those that contain them. `registry` fails if one is
    // missing.
    macro_rules! trace {
        ($($of:ty)*) => { $(tracer.trace_type::<$of>(&samples).unwrap();)* };
    }
    trace!(IpAddr Mode EndReason PresentedTicket Role Refusal Answer Wait Condition Closed);
    trace!(RequestTag AuditKind ListOrder LeaseEnd Op Reply);
    trace!(Question PeerReply RequestFrame ReplyFrame);
    tracer.registry().unwrap()
}

/// The schema as text: a line for each struct, and for each variant of an enum.
fn written(types: Registry) -> String {
    let mut text = String::new();
    let mut line = |what: &str, form: String| writeln!(text, "{what}: {form}").unwrap();
    for (name, form) in types {
        let ContainerFormat::Enum(variants) = form else {
            line(&name, json(&form));
            continue;
        };
        for (number, variant) in variants {
            let what = format!("{name} {number} {}", variant.name);
            line(&what, json(&variant.value));
        }
    }
    text
}

fn json(form: &impl Serialize) -> String {
    serde_json::to_string(form).unwrap()
}

#[test]
fn what_crosses_has_the_form_of_this_version_of_the_protocol() {
    let file = format!("tests/data/peer-protocol-{}.txt", PROTOCOLS.end());
    let fixed = Path::new(env!("CARGO_MANIFEST_DIR")).join(&file);
    let fixed = fs::read_to_string(fixed).unwrap_or_default();
    let found = written(all_types());
    let only_in = |text: &str, other: &str| {
        let lines = text
            .lines()
            .filter(|line| !other.lines().any(|had| had == *line));
        lines.map(|line| format!("\n  {line}")).collect::<String>()
    };
    assert!(
        found == fixed,
        "the messages between instances are not those of {file}.\nAdded:{}\nRemoved:{}\n\n{found}\n\
         Raise `PROTOCOLS`, so that an instance of the previous version does not misread them, and write the lines \
         above to a file for the new version. (If no release has spoken this version yet, change its file instead.)",
        only_in(&found, &fixed),
        only_in(&fixed, &found),
    );
}

/// The bytes depend on `postcard` and on the serializers that are written by hand, which the schema does not show.
#[test]
fn a_frame_has_the_bytes_of_this_version_of_the_protocol() {
    let op = Op::Write {
        selector: Selector::parse("stock").unwrap(),
        json: Bytes::from_static(b"[1]"),
        presented: PresentedTicket::Ticket(Ticket::from_bits(300)),
        release: true,
        condition: Some(Condition::Is(Some(vec![1 << 100]))),
        create: false,
    };
    let question = Question::Ask {
        name: ResourceName::parse("größe").unwrap(),
        op,
        caller: Arc::new(Caller {
            address: Some(IpAddr::from([10, 0, 0, 1])),
            tag: RequestTag::Made {
                worker: 1,
                number: 1 << 40,
            },
            key: None,
            relayed: None,
        }),
    };
    let question = RequestFrame::Question {
        id: 70_000,
        question: Box::new(question),
    };
    let bytes: String = frame(&question)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(
        bytes,
        "0000004000f0a20400076772c3b6c39f65040573746f636b035b315d01ac020101000101\
         8080808080808080808080808080040001000a00000100018080808080200000",
        "the bytes of a frame have changed: raise `PROTOCOLS`"
    );
}
