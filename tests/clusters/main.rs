//! Several servers that all have the same, and take writes or can take them: real Galera nodes, and real members
//! of a Group Replication group, of which one lags behind.
//!
//! Run with `scripts/with-galera cargo test --test clusters galera`, and
//! `scripts/with-group-replication cargo test --test clusters group_replication`.

mod galera;
mod group_replication;
#[path = "../support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use mysql_async::{Conn, Opts, OptsBuilder};
use small_resource_server::lock::rows::HeadRow;
use small_resource_server::lock::{FencingToken, ResourceName, ResourceOptions, Seconds};
use small_resource_server::store::mysql::{MysqlStore, Options, Tls};
use small_resource_server::store::{Opened, ResourceId, Snapshot, Store, StoreError};

use support::{DEADLINE, skip};

/// The members that a variable leads to, with a database of a test's own that does not exist yet. `None`: skipped.
fn members(variable: &str, script: &str) -> Option<Vec<Options>> {
    let Ok(urls) = std::env::var(variable) else {
        skip(&format!("{variable} is not set: run with {script}"));
        return None;
    };
    let database = format!("test_{}", uuid::Uuid::new_v4().simple());
    Some(urls.split(' ').map(|url| member(url, &database)).collect())
}

fn member(url: &str, database: &str) -> Options {
    let opts = Opts::from_url(url).unwrap();
    Options {
        host: opts.ip_or_hostname().to_owned(),
        port: opts.tcp_port(),
        database: database.to_owned(),
        user: opts.user().unwrap_or_default().to_owned(),
        password: opts.pass().unwrap_or_default().to_owned(),
        pool_size: 2,
        tls: Tls::Off,
        timeout: Duration::from_secs(60),
        instance_lease: Duration::from_secs(3),
        adopt: None,
        peers: None,
    }
}

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

/// Asks again while the other instance seems to be alive.
async fn take_over(store: &MysqlStore) -> Opened {
    let began = Instant::now();
    loop {
        match store.open().await {
            Err(StoreError::Standby) if began.elapsed() < DEADLINE => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            result => return result.unwrap(),
        }
    }
}
