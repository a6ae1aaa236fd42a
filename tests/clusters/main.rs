//! Several servers that all have the same, and take writes or can take them: real Galera nodes, and real members
//! of a Group Replication group, of which one lags behind.
//!
//! Run with `scripts/with-galera cargo test --test clusters galera`, and
//! `scripts/with-group-replication cargo test --test clusters group_replication`.

mod galera;
mod group_replication;
mod owners;
#[path = "../support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use mysql_async::{Conn, Opts, OptsBuilder};
use small_resource_server::lock::rows::HeadRow;
use small_resource_server::lock::{FencingToken, ResourceName, ResourceOptions, Seconds};
use small_resource_server::store::mysql::{MysqlStore, Options};
use small_resource_server::store::{ResourceId, Snapshot, Store, StoreError};

/// A connection of an administrator, in no database.
async fn admin(member: &Options) -> Conn {
    let opts = OptsBuilder::default()
        .ip_or_hostname(member.host.clone())
        .tcp_port(member.port)
        .user(Some(member.user.clone()))
        .pass(Some(member.password.clone()))
        .prefer_socket(false);
    Conn::new(Opts::from(opts)).await.unwrap()
}

/// Another instance owns the database, and is looked at for so long that it is taken over from soon afterwards.
async fn watch(store: &MysqlStore, lease: Duration) {
    let began = Instant::now();
    while began.elapsed() < lease / 8 * 7 {
        assert_eq!(store.open().await, Err(StoreError::Standby));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn created(name: &str) -> Snapshot {
    let name = ResourceName::parse(name).unwrap();
    let mut snapshot = Snapshot::empty(name, ResourceId::random());
    snapshot.created = Seconds::new(30).map(ResourceOptions::plain);
    snapshot
}

fn granted(resource: &Snapshot, token: u64) -> Snapshot {
    let mut snapshot = Snapshot::empty(resource.name.clone(), resource.id.clone());
    snapshot.lock.head = Some(HeadRow {
        delayed: false,
        token: FencingToken(token),
        holder: None,
    });
    snapshot
}

async fn token(store: &MysqlStore, resource: &Snapshot) -> Option<u64> {
    let found = store.load(&resource.name).await.unwrap();
    found.map(|found| found.lock.head.token.0)
}

/// Opens a store on a new database, with one resource in it.
async fn serve(store: &MysqlStore) -> Snapshot {
    store.open().await.unwrap();
    let resource = created("a");
    store.commit(std::slice::from_ref(&resource)).await.unwrap();
    resource
}
