//! Snapshots and rows to store, and how to read them back.

use std::time::Duration;

use bytes::Bytes;
use small_resource_server::lock::rows::{
    EndedRow, HeadRow, HolderRow, KeyRow, LockChanges, LockRows, TicketRow,
};
use small_resource_server::lock::{
    EndReason, FencingToken, IdempotencyKey, Mode, Owner, Reason, ResourceName, ResourceOptions,
    Seconds, Selector, Ticket, Ttl,
};
use small_resource_server::store::{
    ListQuery, ListedResource, ResourceId, Snapshot, Store, StoreError, StoredData, StoredResource,
};

pub use crate::support::created;

pub fn name(text: &str) -> ResourceName {
    ResourceName::parse(text).unwrap()
}

pub fn selector(text: &str) -> Selector {
    Selector::parse(text).unwrap()
}

pub fn seconds(value: i64) -> Ttl {
    Seconds::new(value).unwrap().into()
}

/// One slot, no lock-delay, this timeout.
pub fn plain(timeout: i64) -> ResourceOptions {
    ResourceOptions::plain(Seconds::new(timeout).unwrap())
}

/// Options none of which is what most resources have.
pub fn special() -> ResourceOptions {
    ResourceOptions {
        timeout: Seconds::new(i64::from(Seconds::MAX)).unwrap(),
        slots: ResourceOptions::SLOTS_MAX,
        lock_delay: ResourceOptions::LOCK_DELAY_MAX,
        ephemeral: true,
    }
}

/// An empty snapshot of the resource that `earlier` is about.
pub fn next(earlier: &Snapshot) -> Snapshot {
    Snapshot::empty(earlier.name.clone(), earlier.id.clone())
}

pub fn changed(earlier: &Snapshot, changes: impl IntoIterator<Item = LockChanges>) -> Snapshot {
    let mut snapshot = next(earlier);
    for change in changes {
        snapshot.lock.merge(&change);
    }
    snapshot
}

/// A waiting ticket without anything that may be left out.
pub fn plain_ticket(bits: u128) -> TicketRow {
    TicketRow {
        ticket: Ticket::from_bits(bits),
        seq: 1,
        owner: None,
        ttl: None,
        mode: Mode::Exclusive,
        reason: None,
        queued_at: None,
        key: None,
    }
}

/// A ticket with every field set, the largest numbers among them.
pub fn full_ticket(bits: u128) -> TicketRow {
    TicketRow {
        ticket: Ticket::from_bits(bits),
        seq: u64::MAX,
        owner: Some(Owner::parse("wörker \u{1f511} 'x\" \\ %").unwrap()),
        ttl: Some(seconds(i64::from(Seconds::MAX))),
        mode: Mode::Shared,
        reason: Some(Reason::parse(&"é".repeat(255)).unwrap()),
        queued_at: Some(1_700_000_000_001),
        key: Some(Box::new(KeyRow {
            key: IdempotencyKey::parse(&"~".repeat(255)).unwrap(),
            ttl: Ttl::from_millis(1),
            mode: Mode::Shared,
        })),
    }
}

pub fn held(token: u64, ticket: TicketRow, acquired_at: u64) -> LockChanges {
    let token = FencingToken(token);
    let holder = HolderRow {
        ticket,
        token,
        acquired_at,
    };
    head(HeadRow {
        token,
        delayed: false,
        holder: Some(Box::new(holder)),
    })
}

fn head(row: HeadRow) -> LockChanges {
    LockChanges {
        head: Some(row),
        ..LockChanges::default()
    }
}

/// This ticket waits.
pub fn waiting(row: TicketRow) -> LockChanges {
    let mut changes = LockChanges::default();
    changes.wait(row);
    changes
}

/// It waits no more.
pub fn left(ticket: Ticket) -> LockChanges {
    let mut changes = LockChanges::default();
    changes.leave(ticket);
    changes
}

/// A ticket ended.
pub fn over(row: EndedRow) -> LockChanges {
    let mut changes = LockChanges::default();
    changes.end(row);
    changes
}

/// A lease beside the one in the head row.
pub fn holding(token: u64, ticket: TicketRow) -> LockChanges {
    let mut changes = LockChanges::default();
    changes.hold(HolderRow {
        ticket,
        token: FencingToken(token),
        acquired_at: u64::MAX >> 1,
    });
    changes
}

pub fn free(token: u64) -> LockChanges {
    head(HeadRow {
        token: FencingToken(token),
        delayed: false,
        holder: None,
    })
}

pub fn ended(n: u64, reason: EndReason) -> EndedRow {
    EndedRow {
        n,
        ticket: Ticket::from_bits(u128::MAX - u128::from(n)),
        reason,
        more: None,
    }
}

/// Adds a document to write.
pub fn put(snapshot: &mut Snapshot, at: &str, id: &str, json: impl Into<Bytes>) {
    let row = StoredData {
        id: id.to_owned(),
        json: json.into(),
    };
    snapshot.document(selector(at), Some(row));
}

pub async fn commit(store: &dyn Store, batch: &[Snapshot]) {
    assert_eq!(store.commit(batch).await, Ok(()));
}

/// No machine takes so long.
pub const LISTING_MAX: Duration = Duration::from_secs(600);

/// A page as of now.
pub async fn list(store: &dyn Store, query: &ListQuery) -> Vec<ListedResource> {
    store.checkpoint().await.unwrap();
    store.list(query, LISTING_MAX).await.unwrap()
}

/// The resource as loaded, its rows in one order.
pub async fn load(store: &dyn Store, text: &str) -> Option<StoredResource> {
    let mut found = store.load(&name(text)).await.unwrap();
    if let Some(resource) = &mut found {
        in_order(&mut resource.lock);
    }
    found
}

/// The lock rows of a resource that is there.
pub async fn lock_rows(store: &dyn Store, text: &str) -> LockRows {
    load(store, text).await.expect("the resource").lock
}

pub fn in_order(rows: &mut LockRows) {
    rows.holding.sort_by_key(|row| row.ticket.ticket);
    rows.waiting.sort_by_key(|row| row.ticket);
    rows.ended.sort_by_key(|row| row.n);
}

pub async fn document(store: &dyn Store, id: &ResourceId, at: &str) -> Option<StoredData> {
    store.load_data(id, &selector(at)).await.unwrap()
}

pub fn is_rejected(result: &Result<(), StoreError>) -> bool {
    matches!(result, Err(StoreError::Rejected(_)))
}
