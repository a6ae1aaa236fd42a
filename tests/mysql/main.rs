//! What only the MySQL store does: adoption of a PHP database and back, a database that an earlier version left, several
//! instances, the slots that each of them owns, outages.
//!
//! Run with `scripts/with-mariadb cargo test --test mysql`. What all stores have in common is in
//! `tests/store`.

mod adoption;
mod earlier_version;
mod instances;
mod outages;
mod slots;
#[path = "../support/mod.rs"]
mod support;

use bytes::Bytes;
use small_resource_server::lock::{ResourceName, Selector};
use small_resource_server::store::snapshot::StoredData;
use small_resource_server::store::{InstanceId, ResourceId, Snapshot, Store};

/// As SQL.
fn hex(id: InstanceId) -> String {
    let digits: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("x'{digits}'")
}

fn name(text: &str) -> ResourceName {
    ResourceName::parse(text).unwrap()
}

fn selector(text: &str) -> Selector {
    Selector::parse(text).unwrap()
}

fn write(snapshot: &mut Snapshot, at: &str, json: &[u8]) {
    let row = StoredData {
        id: ResourceId::random().to_string(),
        json: Bytes::copy_from_slice(json),
    };
    snapshot.data.insert(selector(at), Some(row));
}

/// The document as it is stored.
async fn read(store: &impl Store, resource: &str, at: &str) -> Option<Vec<u8>> {
    let stored = store.load(&name(resource)).await.unwrap()?;
    let data = store.load_data(&stored.id, &selector(at)).await.unwrap();
    data.map(|data| data.json.to_vec())
}

async fn exists(store: &impl Store, resource: &str) -> bool {
    store.load(&name(resource)).await.unwrap().is_some()
}
