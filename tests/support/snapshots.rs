//! What tests of a store commit, and what they find afterwards.

use small_resource_server::lock::rows::HeadRow;
use small_resource_server::lock::{FencingToken, ResourceName, ResourceOptions, Seconds};
use small_resource_server::store::{ResourceId, Snapshot, Store};

/// Creates a resource with a new id and a timeout of 30 seconds.
pub fn created(name: &str) -> Snapshot {
    let id = ResourceId::random();
    let mut snapshot = Snapshot::empty(ResourceName::parse(name).unwrap(), id.clone());
    snapshot.create(id, ResourceOptions::plain(Seconds::new(30).unwrap()));
    snapshot
}

/// Gives out this token of a resource.
pub fn granted(resource: &Snapshot, token: u64) -> Snapshot {
    let mut snapshot = Snapshot::empty(resource.name.clone(), resource.id.clone());
    snapshot.lock.head = Some(HeadRow {
        token: FencingToken(token),
        ..HeadRow::default()
    });
    snapshot
}

/// The highest token that is stored. `None`: there is no such resource.
pub async fn token(store: &impl Store, resource: &Snapshot) -> Option<u64> {
    let found = store.load(&resource.name).await.unwrap();
    found.map(|found| found.lock.head.token.0)
}

/// Opens a store on a new database, with one resource in it.
pub async fn serve(store: &impl Store) -> Snapshot {
    store.open().await.unwrap();
    let resource = created("a");
    store.commit(std::slice::from_ref(&resource)).await.unwrap();
    resource
}
