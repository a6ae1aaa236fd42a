//! Instances that want one database at different servers at once: one of them owns it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use small_resource_server::store::mysql::{MysqlStore, Options};
use small_resource_server::store::{Store, StoreError};

use crate::support::{DEADLINE, created, granted, token};

/// Whether it owns the database, once it knows, whatever stands in its way until then. `is_decided`: another one
/// does.
async fn owns(store: &MysqlStore, is_decided: impl Fn() -> bool) -> bool {
    let began = Instant::now();
    loop {
        match store.open().await {
            Ok(_) => return true,
            Err(StoreError::Standby) if is_decided() => return false,
            Err(error) => assert!(began.elapsed() < DEADLINE, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// The only one of these of which `owned` says that it owns the database, and the others.
fn apart(stores: Vec<MysqlStore>, owned: Vec<bool>) -> (MysqlStore, Vec<MysqlStore>) {
    let (mut owners, mut others) = (Vec::new(), Vec::new());
    for (store, owns) in stores.into_iter().zip(owned) {
        if owns { &mut owners } else { &mut others }.push(store);
    }
    assert_eq!(owners.len(), 1, "so many instances own one database");
    (owners.remove(0), others)
}

/// At each of these at once a new database is opened; then its owner is silent, and the others want it.
pub async fn contend(members: &[Options], number: usize) {
    let at = |member: &Options| {
        MysqlStore::new(Options {
            database: format!("{}_{number}", member.database),
            timeout: Duration::from_secs(10),
            instance_lease: Duration::from_secs(1),
            ..member.clone()
        })
    };
    let stores: Vec<_> = members.iter().map(at).collect();
    let owned = join_all(stores.iter().map(|store| owns(store, || true))).await;
    let (old, others) = apart(stores, owned);
    let resource = created("a");
    old.commit(std::slice::from_ref(&resource)).await.unwrap();
    old.commit(&[granted(&resource, 1)]).await.unwrap();

    let is_taken = AtomicBool::new(false);
    let takes = async |store: &MysqlStore| {
        let owns = owns(store, || is_taken.load(Ordering::SeqCst)).await;
        is_taken.fetch_or(owns, Ordering::SeqCst);
        owns
    };
    let owned = join_all(others.iter().map(takes)).await;
    let (new, _) = apart(others, owned);
    assert!(old.commit(&[granted(&resource, 2)]).await.is_err());
    assert_eq!(token(&new, &resource).await, Some(1));
    new.commit(&[granted(&resource, 2)]).await.unwrap();
}
