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

use small_resource_server::store::mysql::MysqlStore;

use crate::support::{heartbeat, join};

/// Another instance owns all names, and is looked at for so long that it is taken over from soon afterwards.
async fn watch(store: &MysqlStore, lease: Duration) {
    join(store).await;
    let began = Instant::now();
    while began.elapsed() < lease / 8 * 7 {
        assert_eq!(heartbeat(store).await.dead().count(), 0);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
