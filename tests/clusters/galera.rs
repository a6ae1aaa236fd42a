//! Real Galera nodes, of which one lags behind.

use std::time::Instant;

use mysql_async::prelude::Queryable;
use small_resource_server::store::mysql::{MysqlStore, Options};
use small_resource_server::store::{Store, StoreError};
use tokio::sync::{Mutex, MutexGuard};

use crate::owners::contend;
use crate::support::{
    DEADLINE, Proxy, admin, created, granted, join, members, serve, slots_of, take_all, token,
};
use crate::watch;

/// Rows of the table whose change keeps a node busy: without a key each of them is looked for by itself.
const LAG_ROWS: u32 = 1 << 12;

struct Cluster {
    nodes: [Options; 2],
    /// One test at a time makes a node lag.
    _turn: MutexGuard<'static, ()>,
}

static TURN: Mutex<()> = Mutex::const_new(());

impl Cluster {
    /// A database of a test's own. `None`: skipped.
    async fn new() -> Option<Cluster> {
        let mut nodes = members("TEST_GALERA_URLS", "scripts/with-galera")?;
        // The others only have a say in what is certified.
        nodes.truncate(2);
        let database = nodes[0].database.clone();
        let cluster = Cluster {
            nodes: nodes.try_into().expect("two nodes"),
            _turn: TURN.lock().await,
        };
        let mut admin = admin(&cluster.nodes[0]).await;
        for sql in [
            format!("CREATE DATABASE {database}"),
            format!("CREATE TABLE {database}.lag (a INT, b INT) ENGINE = InnoDB"),
            format!("INSERT INTO {database}.lag SELECT seq, 0 FROM mysql.seq_1_to_{LAG_ROWS}"),
        ] {
            admin.query_drop(sql).await.unwrap();
        }
        cluster.second_node_has_caught_up().await;
        Some(cluster)
    }

    /// With what an earlier test made it lag by, too.
    async fn second_node_has_caught_up(&self) {
        let mut second = admin(&self.nodes[1]).await;
        let began = Instant::now();
        second.query_drop("SET wsrep_sync_wait = 1").await.unwrap();
        // The server itself gives up after half a minute.
        while let Err(error) = second.query_drop("SELECT 1").await {
            assert!(began.elapsed() < 3 * DEADLINE, "it lags for ever: {error}");
        }
    }

    /// What is committed at the first node from now on is applied at the second one much later. Nothing is
    /// made to wait for that, as during a backup of the second node.
    async fn second_node_lags(&self) {
        let mut second = admin(&self.nodes[1]).await;
        second
            .query_drop("SET GLOBAL wsrep_desync = ON")
            .await
            .unwrap();
        let mut first = admin(&self.nodes[0]).await;
        let sql = format!("UPDATE {}.lag SET b = b + 1", self.nodes[0].database);
        first.query_drop(sql).await.unwrap();
    }

    /// The second node is really behind: it has something to apply.
    async fn lags(&self) -> bool {
        let mut second = admin(&self.nodes[1]).await;
        let sql = "SHOW STATUS LIKE 'wsrep_local_recv_queue'";
        let queue: Option<(String, u64)> = second.query_first(sql).await.unwrap();
        let sql = format!(
            "SELECT COUNT(*) FROM {}.lag WHERE b = 0",
            self.nodes[0].database
        );
        let untouched: Option<u64> = second.query_first(sql).await.unwrap();
        queue.is_some_and(|(_, length)| length > 0) || untouched > Some(0)
    }
}

#[tokio::test]
async fn a_commit_at_a_node_that_has_not_heard_of_a_take_over_is_refused() {
    let Some(cluster) = Cluster::new().await else {
        return;
    };
    let [first, second] = &cluster.nodes;
    let old = MysqlStore::new(second.clone());
    let resource = serve(&old).await;
    old.commit(&[granted(&resource, 1)]).await.unwrap();

    let new = MysqlStore::new(first.clone());
    // Until the old one is silent for nearly long enough, as far as the first node knows.
    watch(&new, first.instance_lease).await;
    cluster.second_node_lags().await;
    take_all(&new).await;
    assert_eq!(token(&new, &resource).await, Some(1));
    new.commit(&[granted(&resource, 2)]).await.unwrap();
    let lagged = cluster.lags().await;
    // At the second node the old one still owns all names.
    let stale = old.commit(&[granted(&resource, 2)]).await;
    assert!(stale.is_err(), "two instances gave out one token");
    let stale = old.commit(&[created("b")]).await;
    assert!(stale.is_err(), "{stale:?}");
    assert!(lagged, "the node did not lag: the test proves nothing");
    new.checkpoint().await.unwrap();
    new.commit(&[granted(&resource, 3)]).await.unwrap();
    assert_eq!(token(&new, &resource).await, Some(3));
}

#[tokio::test]
async fn a_read_at_a_node_that_lags_waits_for_what_was_committed() {
    let Some(cluster) = Cluster::new().await else {
        return;
    };
    let [first, second] = &cluster.nodes;
    let proxy = Proxy::to(first);
    let store = MysqlStore::new(proxy.between(first.clone()));
    store.open().await.unwrap();
    store.heartbeat().await.unwrap();
    // Connections that read are made from now on, and lead to the other node.
    proxy.lead_to(second);
    cluster.second_node_lags().await;
    let resource = created("a");
    store.commit(std::slice::from_ref(&resource)).await.unwrap();
    store.commit(&[granted(&resource, 7)]).await.unwrap();
    store.checkpoint().await.unwrap();
    let lagged = cluster.lags().await;
    assert_eq!(token(&store, &resource).await, Some(7));
    assert!(lagged, "the node did not lag: the test proves nothing");
}

#[tokio::test]
async fn a_take_over_at_a_node_that_lags_sees_everything_that_was_committed() {
    let Some(cluster) = Cluster::new().await else {
        return;
    };
    let [first, second] = &cluster.nodes;
    let old = MysqlStore::new(first.clone());
    let resource = serve(&old).await;
    let new = MysqlStore::new(second.clone());
    join(&new).await;
    cluster.second_node_lags().await;
    for number in 1..=50 {
        old.commit(&[granted(&resource, number)]).await.unwrap();
    }
    take_all(&new).await;
    assert_eq!(token(&new, &resource).await, Some(50));
    assert!(old.commit(&[granted(&resource, 51)]).await.is_err());
}

#[tokio::test]
async fn a_node_that_leaves_is_away_and_its_instance_is_replaced() {
    let Some(cluster) = Cluster::new().await else {
        return;
    };
    let [first, second] = &cluster.nodes;
    let old = MysqlStore::new(first.clone());
    let resource = serve(&old).await;
    old.commit(&[granted(&resource, 1)]).await.unwrap();
    let new = MysqlStore::new(second.clone());
    join(&new).await;

    // What a node that is not in the majority's group any more answers: error 1047.
    let mut admin = admin(first).await;
    let leave = "SET GLOBAL wsrep_reject_queries = ALL";
    admin.query_drop(leave).await.unwrap();
    let away = |result| matches!(result, Err(StoreError::Unavailable(_)));
    let lost = old.commit(&[granted(&resource, 2)]).await;
    let beaten = old.heartbeat().await.map(|_| ());
    let reopened = old.open().await.map(|_| ());
    let taken = take_all(&new).await;
    let seen = token(&new, &resource).await;
    let served = new.commit(&[granted(&resource, 3)]).await;
    admin
        .query_drop("SET GLOBAL wsrep_reject_queries = NONE")
        .await
        .unwrap();
    assert!(away(lost.clone()), "{lost:?}");
    assert!(away(beaten.clone()), "{beaten:?}");
    assert!(away(reopened.clone()), "{reopened:?}");
    assert_eq!((seen, served), (Some(1), Ok(())), "{taken:?}");
    // Back again, it has nothing.
    let back = join(&old).await;
    assert_eq!(slots_of(&back, back.me), 0);
}

#[tokio::test]
async fn instances_that_open_a_database_at_different_nodes_at_once_own_each_slot_once() {
    let Some(nodes) = members("TEST_GALERA_URLS", "scripts/with-galera") else {
        return;
    };
    let _turn = TURN.lock().await;
    for number in 0..8 {
        contend(&nodes, number).await;
    }
}
