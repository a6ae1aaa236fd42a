//! Instances that open one database at different servers at once: together they own all names, each once.

use std::time::Duration;

use futures_util::future::join_all;
use small_resource_server::store::Store;
use small_resource_server::store::members::{Members, SLOTS, Slot};
use small_resource_server::store::mysql::{MysqlStore, Options};

use crate::support::{created, granted, heartbeat, slots_of, take_all, token};

/// Opens it, whatever stands in its way until then.
async fn open(store: &MysqlStore) -> Members {
    let began = std::time::Instant::now();
    loop {
        match store.open().await {
            Ok((_, members)) => return members.unwrap(),
            Err(error) => assert!(began.elapsed() < crate::support::DEADLINE, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// At each of these at once a new database is opened, and gets its share; then all but one are silent.
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
    let opened = join_all(stores.iter().map(open)).await;
    let owners: Vec<_> = opened.iter().map(|members| members.owners[0]).collect();
    assert!(
        owners.iter().all(|owner| *owner == owners[0]),
        "so many own one name: {opened:?}"
    );
    let place = opened
        .iter()
        .position(|members| members.me == owners[0])
        .unwrap();
    let resource = created("a");
    stores[place]
        .commit(std::slice::from_ref(&resource))
        .await
        .unwrap();
    stores[place]
        .commit(&[granted(&resource, 1)])
        .await
        .unwrap();
    for (nth, other) in opened.iter().enumerate().filter(|(nth, _)| *nth != place) {
        let share: Vec<_> = Slot::all()
            .filter(|slot| slot.number() % 4 == nth)
            .collect();
        let is_given = stores[place].give(&share, other.me).await;
        assert_eq!(is_given, Ok(true));
        stores[nth]
            .commit(&[created(&format!("of {nth}"))])
            .await
            .unwrap();
    }

    let last = &stores[(place + 1) % stores.len()];
    let others = stores.iter().filter(|store| !std::ptr::eq(*store, last));
    let members = take_all(last).await;
    assert_eq!(slots_of(&members, members.me), SLOTS);
    for other in others {
        assert!(other.commit(&[granted(&resource, 2)]).await.is_err());
        let back = open(other).await;
        assert_eq!(slots_of(&back, back.me), 0, "{back:?}");
    }
    assert_eq!(token(last, &resource).await, Some(1));
    last.commit(&[granted(&resource, 2)]).await.unwrap();
    heartbeat(last).await;
}
