//! Real members of a Group Replication group, one of which has stopped applying what the others commit.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use small_resource_server::store::Store;
use small_resource_server::store::mysql::{MysqlStore, Options};
use tokio::sync::{Mutex, MutexGuard};

use crate::owners::contend;
use crate::support::{
    DEADLINE, Proxy, admin, created, granted, join, members, serve, slots_of, take_all, token,
};
use crate::watch;

struct Group {
    members: Vec<Options>,
    /// One test at a time says who is primary, and makes a member lag.
    _turn: MutexGuard<'static, ()>,
}

static TURN: Mutex<()> = Mutex::const_new(());

/// A member that applies nothing of what the others commit, until this is dropped: a reader has a table there that
/// another member has altered.
struct Stalled {
    _reader: Conn,
}

impl Group {
    /// Whose members all take writes. `None`: skipped.
    async fn of_primaries() -> Option<Group> {
        Group::after("SELECT group_replication_switch_to_multi_primary_mode()").await
    }

    /// Whose first member alone takes writes. `None`: skipped.
    async fn with_a_primary() -> Option<Group> {
        let script = "scripts/with-group-replication";
        let members = members("TEST_GROUP_REPLICATION_URLS", script)?;
        let first = uuid(&members[0]).await;
        let switch = format!("SELECT group_replication_switch_to_single_primary_mode('{first}')");
        Group::after(&switch).await
    }

    async fn after(switch: &str) -> Option<Group> {
        let script = "scripts/with-group-replication";
        let members = members("TEST_GROUP_REPLICATION_URLS", script)?;
        let group = Group {
            members,
            _turn: TURN.lock().await,
        };
        let mut first = admin(&group.members[0]).await;
        // It made the group, and would make another one of its own when it is started again.
        let sql = "SET GLOBAL group_replication_bootstrap_group = OFF";
        first.query_drop(sql).await.unwrap();
        group.is_whole().await;
        first.query_drop(switch).await.unwrap();
        let database = &group.members[0].database;
        for sql in [
            format!("CREATE DATABASE {database}"),
            format!("CREATE TABLE {database}.lag (a INT NOT NULL PRIMARY KEY)"),
        ] {
            first.query_drop(sql).await.unwrap();
        }
        for member in &group.members {
            group.has_caught_up(member).await;
        }
        Some(group)
    }

    /// Every member is in one group with the others, and ready.
    async fn is_whole(&self) {
        let sql = "SELECT COUNT(*) FROM performance_schema.replication_group_members \
                   WHERE member_state = 'ONLINE'";
        for member in &self.members {
            let mut admin = admin(member).await;
            let began = Instant::now();
            while admin.query_first(sql).await.unwrap() != Some(self.members.len()) {
                assert!(began.elapsed() < DEADLINE, "the group is not whole");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }

    async fn has_caught_up(&self, member: &Options) {
        let mut admin = admin(member).await;
        let sql = "SET group_replication_consistency = 'BEFORE'";
        admin.query_drop(sql).await.unwrap();
        // Only a statement about a table waits; and the table may not have come yet.
        let read = format!("SELECT COUNT(*) FROM {}.lag", self.members[0].database);
        let began = Instant::now();
        while let Err(error) = admin.query_drop(&read).await {
            assert!(began.elapsed() < DEADLINE, "{error}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// `member` lags from now on.
    async fn stall(&self, member: usize) -> Stalled {
        self.stall_again(member, 0).await
    }

    /// As often as one likes, each time with another number.
    async fn stall_again(&self, member: usize, number: usize) -> Stalled {
        let table = format!("{}.lag", self.members[0].database);
        let mut reader = admin(&self.members[member]).await;
        reader.query_drop("BEGIN").await.unwrap();
        let read = format!("SELECT * FROM {table}");
        reader.query_drop(read).await.unwrap();
        let other = usize::from(member == 0);
        let alter = format!("ALTER TABLE {table} ADD COLUMN b{number} INT");
        admin(&self.members[other])
            .await
            .query_drop(alter)
            .await
            .unwrap();
        Stalled { _reader: reader }
    }

    /// The member is really behind: it has something to apply.
    async fn lags(&self, member: usize) -> bool {
        let sql = "SELECT count_transactions_remote_in_applier_queue \
                   FROM performance_schema.replication_group_member_stats WHERE member_id = @@server_uuid";
        let mut admin = admin(&self.members[member]).await;
        let queue: Option<u64> = admin.query_first(sql).await.unwrap();
        queue > Some(0)
    }

    async fn ends_lag_after(&self, stalled: Stalled, pause: Duration) {
        tokio::time::sleep(pause).await;
        drop(stalled);
    }
}

async fn uuid(member: &Options) -> String {
    let mut admin = admin(member).await;
    let uuid: Option<String> = admin.query_first("SELECT @@server_uuid").await.unwrap();
    uuid.unwrap()
}

fn impatient(member: &Options) -> MysqlStore {
    MysqlStore::new(Options {
        timeout: Duration::from_secs(4),
        ..member.clone()
    })
}

const ROUNDS: usize = 8;
/// For how long a member is left behind.
const LAG: Duration = Duration::from_millis(1_500);

#[tokio::test]
async fn a_commit_at_a_member_that_has_not_heard_of_a_take_over_is_refused() {
    let Some(group) = Group::of_primaries().await else {
        return;
    };
    let (old, new) = (
        impatient(&group.members[1]),
        MysqlStore::new(group.members[0].clone()),
    );
    let resource = serve(&old).await;
    old.commit(&[granted(&resource, 1)]).await.unwrap();
    group.has_caught_up(&group.members[0]).await;
    watch(&new, group.members[0].instance_lease).await;
    let stalled = group.stall(1).await;
    take_all(&new).await;
    assert_eq!(token(&new, &resource).await, Some(1));
    new.commit(&[granted(&resource, 2)]).await.unwrap();
    let lagged = group.lags(1).await;
    // At the second member the old one still owns all names.
    let stale = old.commit(&[granted(&resource, 2)]).await;
    assert!(stale.is_err(), "two instances gave out one token");
    assert!(lagged, "the member did not lag: the test proves nothing");
    drop(stalled);
    new.commit(&[granted(&resource, 3)]).await.unwrap();
    new.checkpoint().await.unwrap();
    assert_eq!(token(&new, &resource).await, Some(3));
    let back = join(&old).await;
    assert_eq!(slots_of(&back, back.me), 0);
}

#[tokio::test]
async fn a_take_over_at_a_member_that_lags_sees_everything_that_was_committed() {
    let Some(group) = Group::of_primaries().await else {
        return;
    };
    let old = MysqlStore::new(group.members[0].clone());
    let resource = serve(&old).await;
    let new = MysqlStore::new(group.members[1].clone());
    group.has_caught_up(&group.members[1]).await;
    join(&new).await;
    let stalled = group.stall(1).await;
    for number in 1..=50 {
        old.commit(&[granted(&resource, number)]).await.unwrap();
    }
    assert!(group.lags(1).await, "the test proves nothing");
    let pause = group.members[0].instance_lease + LAG;
    tokio::join!(take_all(&new), group.ends_lag_after(stalled, pause));
    assert_eq!(token(&new, &resource).await, Some(50));
    assert!(old.commit(&[granted(&resource, 51)]).await.is_err());
}

#[tokio::test]
async fn a_read_at_a_member_that_lags_waits_for_what_was_committed() {
    let Some(group) = Group::of_primaries().await else {
        return;
    };
    let proxy = Proxy::to(&group.members[0]);
    let store = MysqlStore::new(proxy.between(group.members[0].clone()));
    store.open().await.unwrap();
    store.heartbeat().await.unwrap();
    // Connections that read are made from now on, and lead to the other member.
    proxy.lead_to(&group.members[1]);
    let stalled = group.stall(1).await;
    let resource = created("a");
    store.commit(std::slice::from_ref(&resource)).await.unwrap();
    store.commit(&[granted(&resource, 7)]).await.unwrap();
    store.checkpoint().await.unwrap();
    assert!(group.lags(1).await, "the test proves nothing");
    let reading = token(&store, &resource);
    let (read, ()) = tokio::join!(reading, group.ends_lag_after(stalled, LAG));
    assert_eq!(read, Some(7));
}

/// Error 3101: somebody else's change of the same row was certified first, and is not applied here yet.
#[tokio::test]
async fn a_commit_that_another_member_was_faster_than_is_tried_again() {
    let Some(group) = Group::of_primaries().await else {
        return;
    };
    let store = MysqlStore::new(group.members[1].clone());
    store.open().await.unwrap();
    let resource = created("a");
    store.commit(std::slice::from_ref(&resource)).await.unwrap();
    group.has_caught_up(&group.members[0]).await;
    let stalled = group.stall(1).await;
    let database = &group.members[0].database;
    let change = format!("UPDATE {database}.resource_instance SET heartbeat = heartbeat + 1");
    let mut other = admin(&group.members[0]).await;
    other.query_drop(change).await.unwrap();
    assert!(group.lags(1).await, "the test proves nothing");
    let batch = [granted(&resource, 1)];
    let committing = store.commit(&batch);
    let (committed, ()) = tokio::join!(committing, group.ends_lag_after(stalled, LAG));
    committed.unwrap();
    assert_eq!(token(&store, &resource).await, Some(1));
}

/// Asks until the database is the store's, whatever stands in its way.
async fn opened(store: &MysqlStore) {
    let began = Instant::now();
    while let Err(error) = store.open().await {
        assert!(began.elapsed() < DEADLINE, "{error}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Gives out one token after another, until it is refused. The last that was acknowledged.
async fn give_out(store: &MysqlStore, resource: &str, from: u64, ended: &AtomicBool) -> u64 {
    let found = store.load(&created(resource).name).await.unwrap().unwrap();
    let mut snapshot = created(resource);
    snapshot.id = found.id;
    let mut last = from;
    loop {
        let comes_late = ended.load(Ordering::SeqCst);
        if store.commit(&[granted(&snapshot, last + 1)]).await.is_err() {
            return last;
        }
        assert!(!comes_late, "two instances gave out tokens");
        last += 1;
    }
}

#[tokio::test]
async fn whoever_takes_over_goes_on_above_all_that_was_acknowledged_and_nobody_beside_it() {
    let Some(group) = Group::of_primaries().await else {
        return;
    };
    const LEASE: Duration = Duration::from_secs(1);
    let options = |place: usize| Options {
        timeout: Duration::from_secs(5),
        instance_lease: LEASE,
        ..group.members[place].clone()
    };
    let mut owner = MysqlStore::new(options(0));
    opened(&owner).await;
    let resource = created("a");
    owner.commit(std::slice::from_ref(&resource)).await.unwrap();
    let mut last = 0;
    for round in 0..6 {
        let next = MysqlStore::new(options((round + 1) % 3));
        // Sometimes the one that is taken from lags, and sometimes the one that takes.
        let lagging = (round + round / 3) % 3;
        let stalled = group.stall_again(lagging, round).await;
        let ended = AtomicBool::new(false);
        let taking = async {
            // No heartbeat is sent: it counts as silent, and goes on all the same.
            opened(&next).await;
            take_all(&next).await;
            ended.store(true, Ordering::SeqCst);
        };
        let (acknowledged, (), ()) = tokio::join!(
            give_out(&owner, "a", last, &ended),
            taking,
            group.ends_lag_after(stalled, LAG),
        );
        let found = token(&next, &resource).await.unwrap();
        assert!(
            found >= acknowledged,
            "round {round}: {found} < {acknowledged}"
        );
        last = found;
        owner = next;
    }
}

#[tokio::test]
async fn instances_that_open_a_database_at_different_members_at_once_own_each_slot_once() {
    let Some(group) = Group::of_primaries().await else {
        return;
    };
    for number in 0..ROUNDS {
        contend(&group.members, number).await;
    }
}

#[tokio::test]
async fn instances_that_open_a_database_while_all_members_become_primaries_own_each_slot_once() {
    let Some(group) = Group::of_primaries().await else {
        return;
    };
    let mut first = admin(&group.members[0]).await;
    for number in 0..ROUNDS {
        let primary = uuid(&group.members[number % 3]).await;
        let one = format!("SELECT group_replication_switch_to_single_primary_mode('{primary}')");
        first.query_drop(one).await.unwrap();
        let all = "SELECT group_replication_switch_to_multi_primary_mode()";
        // Those at the others go on as soon as these take writes.
        let (switched, ()) = tokio::join!(first.query_drop(all), contend(&group.members, number));
        switched.unwrap();
    }
}

#[tokio::test]
async fn a_new_database_is_not_owned_at_a_member_that_has_not_heard_of_its_owner() {
    let Some(group) = Group::of_primaries().await else {
        return;
    };
    let (owner, late) = (
        MysqlStore::new(group.members[0].clone()),
        impatient(&group.members[1]),
    );
    let stalled = group.stall(1).await;
    let resource = serve(&owner).await;
    assert!(group.lags(1).await, "the test proves nothing");
    assert!(late.open().await.is_err(), "two instances own one database");
    drop(stalled);
    group.has_caught_up(&group.members[1]).await;
    let members = join(&late).await;
    assert_eq!(slots_of(&members, members.me), 0);
    owner.commit(&[granted(&resource, 1)]).await.unwrap();
}

/// The new primary still has to apply what the old one was told to be committed.
#[tokio::test]
async fn a_failover_to_a_member_that_lags_loses_nothing() {
    let Some(group) = Group::with_a_primary().await else {
        return;
    };
    let proxy = Proxy::to(&group.members[0]);
    let store = MysqlStore::new(proxy.between(group.members[0].clone()));
    let mut admins = Vec::new();
    for member in &group.members {
        let mut admin = admin(member).await;
        // Whatever is set for all: ours is set for each session.
        let sql = "SET GLOBAL group_replication_consistency = 'EVENTUAL'";
        admin.query_drop(sql).await.unwrap();
        admins.push(admin);
    }
    let weight = "SET GLOBAL group_replication_member_weight = 90";
    admins[1].query_drop(weight).await.unwrap();
    store.open().await.unwrap();
    let resource = created("a");
    store.commit(std::slice::from_ref(&resource)).await.unwrap();
    let stalled = group.stall(1).await;
    for number in 1..=20 {
        store.commit(&[granted(&resource, number)]).await.unwrap();
    }
    assert!(group.lags(1).await, "the test proves nothing");
    let leave = "STOP GROUP_REPLICATION";
    admins[0].query_drop(leave).await.unwrap();
    let role = "SELECT member_role FROM performance_schema.replication_group_members \
                WHERE member_id = @@server_uuid";
    let began = Instant::now();
    while admins[1].query_first::<String, _>(role).await.unwrap() != Some("PRIMARY".into()) {
        assert!(began.elapsed() < DEADLINE, "it never became the primary");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    proxy.lead_to(&group.members[1]);
    // The old primary takes no writes any more.
    assert!(store.heartbeat().await.is_err());
    tokio::join!(opened(&store), group.ends_lag_after(stalled, LAG));
    assert_eq!(token(&store, &resource).await, Some(20));
    store.commit(&[granted(&resource, 21)]).await.unwrap();
    let join = "START GROUP_REPLICATION";
    admins[0].query_drop(join).await.unwrap();
    admins[1]
        .query_drop("SET GLOBAL group_replication_member_weight = 50")
        .await
        .unwrap();
    for admin in &mut admins {
        let sql = "SET GLOBAL group_replication_consistency = DEFAULT";
        admin.query_drop(sql).await.unwrap();
    }
    assert_eq!(token(&store, &resource).await, Some(21));
}
