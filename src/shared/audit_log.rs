//! One log line for each change of state: which resource, which owner, which caller. Only this module writes
//! these lines.
//!
//! A line is written when the change is decided, before it is durable; if the store fails in between, that is
//! logged after the line. A line never contains a ticket or a key: an [`AuditEvent`] has no field for one. So
//! that a busy server does not drown in its own log, at most [`LINES_PER_SECOND`] lines are written per second;
//! the others are counted, and one line a second says how many there were. Forced changes are always written.

use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use log::Level;
use serde::{Deserialize, Serialize};

use crate::lock::{FencingToken, Millis, Mode, Owner, Reason, ResourceName, Selector};
use crate::metrics::per_thread::PerThread;
use crate::shared::caller::Caller;

/// Maximum number of lines per second.
pub const LINES_PER_SECOND: u32 = 200;
/// The log target of these lines, as in `RUST_LOG=info,events=off`.
pub const TARGET: &str = "events";

/// The kind of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AuditKind {
    Created,
    Deleted,
    Queued,
    Granted,
    Released,
    Expired,
    ForcedOff,
    TakenBack,
    WaiterDropped,
    /// A waiter gave up its own place in the queue.
    WaiterLeft,
    /// Somebody else ended the wait of a waiter.
    WaiterRemoved,
    Written,
    SelectorDeleted,
}

/// The names of the kinds, in the order of the variants.
const NAMES: [&str; 13] = [
    "created",
    "deleted",
    "queued",
    "granted",
    "released",
    "expired",
    "forced_off",
    "taken_back",
    "waiter_dropped",
    "waiter_left",
    "waiter_removed",
    "written",
    "selector_deleted",
];

impl AuditKind {
    pub fn name(self) -> &'static str {
        NAMES[self as usize]
    }

    /// The name in the event feed, which tells fewer kinds apart.
    pub fn event_name(self) -> &'static str {
        match self {
            AuditKind::SelectorDeleted => "deleted",
            // The client was gone before it was told of the grant.
            AuditKind::TakenBack => "released",
            AuditKind::WaiterDropped | AuditKind::WaiterLeft | AuditKind::WaiterRemoved => "left",
            other => other.name(),
        }
    }

    fn level(self) -> Level {
        match self {
            AuditKind::ForcedOff | AuditKind::WaiterRemoved => Level::Warn,
            _ => Level::Info,
        }
    }
}

/// One change of one resource. A field is `None` if it is unknown or does not apply.
#[derive(Clone, Copy, Debug)]
pub struct AuditEvent<'a> {
    pub kind: AuditKind,
    pub resource: &'a ResourceName,
    pub owner: Option<&'a Owner>,
    pub token: Option<FencingToken>,
    /// The reason of the lease; not part of the line.
    pub reason: Option<&'a Reason>,
    /// The mode of the lease; not part of the line.
    pub mode: Option<Mode>,
    /// Who sent the request that caused the change. `None`: time caused it, or the client is gone.
    pub caller: Option<&'a Caller>,
    /// Place in the queue, 1 is next.
    pub position: Option<usize>,
    /// How long the ticket waited for its lease.
    pub waited_ms: Option<Millis>,
    /// How long the lease lasted.
    pub held_ms: Option<Millis>,
    pub selector: Option<&'a Selector>,
    /// Why somebody else ended the lease or the wait.
    pub forced: Option<&'a Reason>,
}

impl<'a> AuditEvent<'a> {
    /// A change of which only the kind and the resource are known.
    pub fn new(kind: AuditKind, resource: &'a ResourceName) -> AuditEvent<'a> {
        AuditEvent {
            kind,
            resource,
            owner: None,
            token: None,
            reason: None,
            mode: None,
            caller: None,
            position: None,
            waited_ms: None,
            held_ms: None,
            selector: None,
            forced: None,
        }
    }
}

impl fmt::Display for AuditEvent<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Names are quoted and escaped as Rust strings, so that a name cannot forge the rest of a line.
        write!(f, "{} resource={:?}", self.kind.name(), self.resource)?;
        match self.owner {
            Some(owner) => write!(f, " owner={owner:?}")?,
            None => f.write_str(" owner=-")?,
        }
        let caller = self.caller;
        field(f, "token", self.token)?;
        field(f, "client", caller.and_then(|caller| caller.address))?;
        field(f, "request", caller.map(|caller| &caller.tag))?;
        field(f, "key", caller.and_then(|caller| caller.key.as_ref()))?;
        if let Some(position) = self.position {
            write!(f, " position={position}")?;
        }
        if let Some(waited) = self.waited_ms {
            write!(f, " waited_ms={waited}")?;
        }
        if let Some(held) = self.held_ms {
            write!(f, " held_ms={held}")?;
            if self.kind == AuditKind::ForcedOff {
                let held = humantime::format_duration(Duration::from_millis(held));
                write!(f, " held=\"{held}\"")?;
            }
        }
        if let Some(selector) = self.selector {
            write!(f, " selector={selector:?}")?;
        }
        match self.forced {
            Some(reason) => write!(f, " reason={reason:?}"),
            None => Ok(()),
        }
    }
}

/// Writes one field of a line.
fn field(f: &mut fmt::Formatter<'_>, name: &str, value: Option<impl fmt::Display>) -> fmt::Result {
    match value {
        Some(value) => write!(f, " {name}={value}"),
        None => write!(f, " {name}=-"),
    }
}

/// Writes events up to the limit and counts the others.
pub struct EventLog {
    second: AtomicU64,
    written: AtomicU32,
    /// Number of events that were not written, by kind.
    hidden: PerThread<[AtomicU64; NAMES.len()]>,
}

impl Default for EventLog {
    fn default() -> EventLog {
        EventLog {
            second: AtomicU64::default(),
            written: AtomicU32::default(),
            hidden: PerThread::new(Default::default),
        }
    }
}

impl EventLog {
    /// Writes the event, or counts it if the limit is reached. `now`: on the monotonic clock.
    pub fn write(&self, now: Millis, event: &AuditEvent<'_>) {
        let level = event.kind.level();
        if !log::log_enabled!(target: TARGET, level) {
            return;
        }
        if level == Level::Warn || self.has_room(now) {
            log::log!(target: TARGET, level, "{event}");
        } else {
            self.hidden.mine()[event.kind as usize].fetch_add(1, Ordering::Relaxed);
        }
    }

    fn has_room(&self, now: Millis) -> bool {
        let second = now / 1000;
        if self.second.load(Ordering::Relaxed) != second
            && self.second.swap(second, Ordering::Relaxed) != second
        {
            self.written.store(0, Ordering::Relaxed);
        }
        self.written.load(Ordering::Relaxed) < LINES_PER_SECOND
            && self.written.fetch_add(1, Ordering::Relaxed) < LINES_PER_SECOND
    }

    /// Logs how many events of each kind were not written since the last call: once a second, and at the end.
    pub fn summarise(&self) {
        let of_kind = |kind: usize| {
            let copies = self.hidden.all();
            copies
                .map(|of_thread| of_thread[kind].swap(0, Ordering::Relaxed))
                .sum()
        };
        let hidden = (0..NAMES.len()).map(of_kind);
        let counts: Vec<String> = hidden
            .zip(NAMES)
            .filter(|(n, _): &(u64, _)| *n > 0)
            .map(|(n, name)| format!("{name}={n}"))
            .collect();
        if !counts.is_empty() {
            log::info!(target: TARGET, "not_shown {}", counts.join(" "));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::caller::RequestTag;

    #[test]
    fn a_line_says_what_whose_and_by_whom_and_cannot_be_forged() {
        let resource = ResourceName::parse("a\" token=9").unwrap();
        let owner = Owner::parse("sync worker").unwrap();
        let reason = Reason::parse("sync worker").unwrap();
        let caller = Caller {
            address: Some("10.0.0.7".parse().unwrap()),
            tag: RequestTag::parse(b"r-1").unwrap(),
            key: Some("billing".into()),
            relayed: None,
        };
        let event = AuditEvent {
            owner: Some(&owner),
            token: Some(FencingToken(3)),
            caller: Some(&caller),
            waited_ms: Some(12),
            ..AuditEvent::new(AuditKind::Granted, &resource)
        };
        assert_eq!(
            event.to_string(),
            r#"granted resource="a\" token=9" owner="sync worker" token=3 client=10.0.0.7 request=r-1 key=billing waited_ms=12"#
        );
        let forced = AuditEvent {
            kind: AuditKind::ForcedOff,
            caller: None,
            waited_ms: None,
            held_ms: Some(61_000),
            forced: Some(&reason),
            ..event
        };
        assert_eq!(
            forced.to_string(),
            r#"forced_off resource="a\" token=9" owner="sync worker" token=3 client=- request=- key=- held_ms=61000 held="1m 1s" reason="sync worker""#
        );
    }

    #[test]
    fn a_second_has_room_for_so_many_lines_and_the_next_one_again() {
        let log = EventLog::default();
        let room = |at| (0..1000).filter(|_| log.has_room(at)).count();
        assert_eq!(room(5_000), LINES_PER_SECOND as usize);
        assert_eq!(room(5_999), 0);
        assert_eq!(room(6_000), LINES_PER_SECOND as usize);
    }
}
