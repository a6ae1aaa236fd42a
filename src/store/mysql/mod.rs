//! The production store: MySQL 8 or MariaDB, shared by several instances, each of which owns a part of all
//! names.
//!
//! `persistence` drives it, as it drives every store. One connection writes, one sends heartbeats, and a pool
//! of them reads; opening uses a connection of its own, which becomes the writer. No call waits for the server
//! longer than [`Options::timeout`], except a migration: it may go on for as long as the heartbeats that are
//! sent beside it succeed.
//!
//! | file | what it holds |
//! |---|---|
//! | `database` | [`MysqlStore`]: the connections, and the state in memory |
//! | `options` | how to reach the server |
//! | `session` | one connection |
//! | `rows` | rows of an answer, read into Rust types |
//! | `server` | the identity of the server that a connection leads to |
//! | `settings` | the session variables that each connection sets |
//! | `error` | what a server's error means for the store |
//! | `sql` | SQL text with escaped literals |
//! | `schema` | the tables |
//! | `migrate` | migration from earlier versions' tables |
//! | `fence` | an instance's log, and the statements that fence its transactions |
//! | `instance` | an instance's row: heartbeat, joining, exclusive ownership |
//! | `heartbeat` | sending heartbeats and reading the rows of the other instances |
//! | `watch` | whether another instance's heartbeat has stood still for a lease |
//! | `cluster_view` | the other instances and the slot owners, as last read |
//! | `slots` | the owner of each slot of names, and the transactions that change it |
//! | `open` | opening: joining the database, or making it ready first |
//! | `left_logs` | replay of logs that other instances left; take-over from a dead one |
//! | `script` | one transaction as SQL text |
//! | `commit` | the SQL of a batch and of a checkpoint |
//! | `write` | the connection that writes: transactions, checkpoints |
//! | `loss_detector` | whether the database has lost what this process committed |
//! | `read` | load, load a document, list |
//! | `history` | past leases |
//! | `php` | adoption of the PHP server's tables, and the way back |

mod cluster_view;
mod commit;
mod database;
mod error;
mod fence;
mod heartbeat;
mod history;
mod instance;
mod left_logs;
mod loss_detector;
mod migrate;
mod open;
mod options;
mod php;
mod read;
mod rows;
mod schema;
mod script;
mod server;
mod session;
mod settings;
mod slots;
mod sql;
mod watch;
mod write;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use async_trait::async_trait;

use self::error::Fault;
use self::fence::Membership;
use self::schema::MigrationStep;
use self::session::{Session, retry_while_blocked, within};
use self::sql::Sql;
use super::listing;
use super::members::{Members, Slot, heartbeat_every};
use super::{
    DocumentSize, InstanceId, ListOrder, ListQuery, ListedResource, ResourceId, Snapshot, Store,
    StoreError, StoredData, StoredResource,
};
use crate::lock::{FencingToken, ResourceName, Selector};
use crate::store::history::{PastLease, PastLeases};

pub use database::MysqlStore;
pub use options::{Options, PeerPort, Tls};
pub use php::revert::RevertReport;

impl MysqlStore {
    /// Gives up the membership in the database, on a new connection; tried again while other transactions block it.
    /// Returns what [`instance::release`] does.
    async fn release(
        &self,
        membership: Membership,
        has_checkpointed: bool,
    ) -> Result<Option<u64>, Fault> {
        let mut session = Session::connect(&self.options, self.home().as_ref(), None).await?;
        let released = retry_while_blocked!(instance::release(
            &mut session,
            membership,
            has_checkpointed
        ));
        session.close().await;
        released
    }
}

#[async_trait]
impl Store for MysqlStore {
    fn kind(&self) -> &'static str {
        "mysql"
    }

    /// Each call makes this process a new instance, which takes over what this process owned before. So nothing
    /// of an earlier instance of this process can be committed afterwards.
    ///
    /// [`StoreError::Standby`] is returned without waiting. What was read of the other instances is kept for
    /// the next call; it counts only if that call comes soon, see [`watch`].
    async fn open(&self) -> Result<(FencingToken, Option<Members>), StoreError> {
        let mut waiting_session = self.waiting_session.lock().await;
        let mut writer = self.writer.lock().await;
        let members = self.open_with(&mut waiting_session, &mut writer).await?;
        Ok((members.token_floor, Some(members)))
    }

    async fn open_alone(&self) -> Result<(FencingToken, Option<Members>), StoreError> {
        let begun = Instant::now();
        let every = heartbeat_every(self.options.instance_lease);
        loop {
            match self.open().await {
                Ok(_) => break,
                Err(StoreError::Standby) if begun.elapsed() < 2 * self.options.instance_lease => {
                    tokio::time::sleep(every).await;
                }
                Err(error) => return Err(error),
            }
        }
        match self.wait_until_alone().await {
            Ok(members) => Ok((members.token_floor, Some(members))),
            Err(error) => {
                self.close().await;
                Err(error)
            }
        }
    }

    async fn commit(&self, batch: &[Snapshot]) -> Result<(), StoreError> {
        let mut writer = self.writer.lock().await;
        self.open_membership()?;
        if batch.iter().all(Snapshot::is_empty) {
            return Ok(());
        }
        let is_given = {
            let view = self.view.lock();
            let mut slots = batch.iter().map(|snapshot| Slot::of(&snapshot.name));
            slots.any(|slot| view.has_given(slot))
        };
        if is_given {
            // Its new owner would not see the change.
            let text = "a change is about names whose slot was given to another instance";
            return Err(StoreError::Unavailable(text.into()));
        }
        let entry = self.journal.enter(batch)?;
        let script = async |_: &mut Session, place| commit::script(&entry, place);
        self.transact(&mut writer, script).await?;
        entry.committed();
        self.loss_detector.lock().committed(batch);
        Ok(())
    }

    async fn checkpoint(&self) -> Result<(), StoreError> {
        self.checkpoint_all().await
    }

    async fn append_history(&self, news: &PastLeases, most: usize) -> Result<(), StoreError> {
        self.append_past_leases(news, most).await
    }

    async fn history(&self, name: &ResourceName) -> Result<Vec<PastLease>, StoreError> {
        self.past_leases(name).await
    }

    async fn give(&self, slots: &[Slot], to: InstanceId) -> Result<bool, StoreError> {
        let mut writer = self.writer.lock().await;
        // When this instance dies, its log is replayed over the tables: changes left in it would overwrite what
        // the new owner stored.
        self.checkpoint_with(&mut writer).await?;
        let script = async |_: &mut Session, place| slots::giving(place, slots, &to);
        let Some(sets) = self.attempt(&mut writer, script).await? else {
            return Ok(false);
        };
        let version = rows::last(sets)?;
        self.view.lock().note_gift(slots, to, version);
        self.loss_detector.lock().note_epoch(version);
        Ok(true)
    }

    async fn take_over(&self, dead: InstanceId) -> Result<(), StoreError> {
        let mut writer = self.writer.lock().await;
        let Some(mut taking) = self.begin_take_over(&mut writer, &dead).await? else {
            return Ok(());
        };
        while self
            .take_over_next(&mut writer, &mut taking)
            .await?
            .is_continue()
        {
            // Between two steps commits go on.
            drop(writer);
            writer = self.writer.lock().await;
        }
        Ok(())
    }

    async fn leave(&self) -> Result<(), StoreError> {
        let script = async |_: &mut Session, place| commit::leaving_script(place);
        let mut writer = self.writer.lock().await;
        self.transact(&mut writer, script).await
    }

    async fn raise_tokens(&self, above: FencingToken) -> Result<(), StoreError> {
        // It changes the tables, over which a load lays what is in the journal.
        debug_assert_eq!(
            self.journal.len(),
            0,
            "tokens are raised right after opening"
        );
        let script = async |_: &mut Session, place| commit::raising_script(above, place);
        let mut writer = self.writer.lock().await;
        self.transact(&mut writer, script).await
    }

    async fn highest_token(&self) -> Result<FencingToken, StoreError> {
        let sql = Sql::new(
            "SELECT GREATEST((SELECT floor FROM resource_server WHERE id = 1), \
             (SELECT COALESCE(MAX(floor), 0) FROM resource_instance), \
             (SELECT COALESCE(MAX(token), 0) FROM resource_lock))",
        );
        Ok(FencingToken(rows::last(self.read(&sql).await?)?))
    }

    fn pending(&self) -> usize {
        self.journal.len()
    }

    async fn load(&self, name: &ResourceName) -> Result<Option<StoredResource>, StoreError> {
        let read = || async {
            let sets = self.read(&read::load_sql(name)).await?;
            Ok(read::loaded(sets)?)
        };
        let found = self.journal.load(name, read).await?;
        if let Some(found) = &found {
            self.loss_detector.lock().note_token(found.lock.head.token);
        }
        Ok(found)
    }

    async fn load_data(
        &self,
        id: &ResourceId,
        selector: &Selector,
    ) -> Result<Option<StoredData>, StoreError> {
        let sets = self.read(&read::data_sql(id, selector)).await?;
        Ok(read::data(sets)?)
    }

    async fn document_sizes(
        &self,
        id: &ResourceId,
        after: &str,
        limit: usize,
    ) -> Result<Vec<DocumentSize>, StoreError> {
        let mut sizes = Vec::new();
        let mut next = Some(after.to_owned());
        while let Some(after) = next.filter(|_| sizes.len() < limit) {
            let sql = read::document_sizes_sql(id, &after, limit);
            let (some, last) = read::document_sizes(self.read(&sql).await?, limit)?;
            sizes.extend(some);
            next = last;
        }
        sizes.truncate(limit);
        Ok(sizes)
    }

    async fn list(
        &self,
        query: &ListQuery,
        limit: Duration,
    ) -> Result<Vec<ListedResource>, StoreError> {
        let deadline = Instant::now() + limit;
        let mut few = None;
        for walk in listing::counted(query) {
            let sql = read::count_sql(query, walk);
            if few.is_none() && read::is_few(self.read_until(sql, deadline).await?)? {
                few = Some(walk);
            }
        }
        let mut listed = Vec::new();
        let mut query = query.clone();
        let mut parts = listing::parts(&query, few).into_iter();
        let mut part = parts.next();
        while let Some(now) = part {
            let last = match (now.walk, now.order) {
                (ListOrder::Held, ListOrder::Held) => {
                    let sql = read::last_held_sql(&query);
                    rows::last(self.read_until(sql, deadline).await?)?
                }
                _ => None,
            };
            let sql = read::list_sql(&query, now, last);
            let sets = self.read_until(sql, deadline).await?;
            let (some, last) = read::listed(sets, query.limit)?;
            listed.extend(some);
            if listed.len() >= query.limit {
                break;
            }
            match last {
                Some(last) if query.order == ListOrder::Name => query.after = Some(last),
                _ => part = parts.next(),
            }
        }
        listed.truncate(query.limit);
        Ok(listed)
    }

    async fn heartbeat(&self) -> Result<Option<Members>, StoreError> {
        let members = self.read_members().await?;
        self.check_writer().await;
        Ok(Some(members))
    }

    fn instance_lease(&self) -> Option<Duration> {
        Some(self.options.instance_lease)
    }

    fn takes_document(&self, json: &[u8]) -> bool {
        commit::fits(json, self.packet_bytes_max.load(Ordering::Relaxed))
    }

    async fn close(&self) {
        let ended = self.membership();
        let tell = |error: &StoreError| {
            log::debug!("the last checkpoint failed; whoever takes over replays the log: {error}");
        };
        let has_checkpointed =
            ended.is_some() && self.checkpoint_all().await.inspect_err(tell).is_ok();
        let mut writer = self.writer.lock().await;
        *writer = None;
        self.set_membership(None);
        let all: Vec<Membership> = self.loss_detector.lock().memberships().collect();
        for membership in all {
            let has_checkpointed = has_checkpointed && ended == Some(membership);
            let releasing = self.release(membership, has_checkpointed);
            if let Err(fault) = within(self.options.timeout, releasing).await {
                log::warn!("ownership not released, others wait for the lease to end: {fault:?}");
                break;
            }
        }
        *self.waiting_session.lock().await = None;
        *self.heartbeat_session.lock().await = None;
        self.renew_readers();
    }
}

/// Refuses a database that no server has used yet. Creates nothing.
///
/// # Errors
/// [`StoreError::Unusable`]: the database does not exist, or has no table `resource_server`. Otherwise as for
/// [`Store::open`].
pub async fn require_used(options: &Options) -> Result<(), StoreError> {
    let look = async {
        let mut session = Session::connect(options, None, None).await?;
        let version = schema::version(&mut session).await;
        session.close().await;
        version
    };
    let missing = match within(options.timeout, look).await {
        Err(fault) if fault.is(error::code::UNKNOWN_DATABASE) => "does not exist",
        Err(fault) if fault.is(error::code::NO_SUCH_TABLE) => "has no table `resource_server`",
        Err(fault) => return Err(fault.into()),
        Ok(_) => return Ok(()),
    };
    let text = format!(
        "the database {:?} (MYSQL_DATABASE) {missing}",
        options.database
    );
    Err(StoreError::Unusable(text))
}

/// Makes a database ready for the PHP server again: restores its collation and unique keys, percent-encodes the
/// selectors, and drops our tables. Waits one lease for an instance that is silent.
///
/// [`RevertReport::obstacles`] names what the PHP server's tables cannot hold; if there is any, or with
/// `rehearse`, nothing is changed.
///
/// # Errors
/// [`StoreError::Standby`]: an instance is running. [`StoreError::Unusable`]: there is nothing to revert.
/// Otherwise as for [`Store::open`].
pub async fn revert_to_php(options: Options, rehearse: bool) -> Result<RevertReport, StoreError> {
    let store = MysqlStore::new(options);
    let options = &store.options;
    let row = within(options.timeout, async {
        let mut session = Session::connect(options, None, None).await?;
        match schema::version(&mut session).await {
            Err(fault) if fault.is(error::code::NO_SUCH_TABLE) => {
                let text = "it has no table `resource_server`, so there is nothing to revert";
                Err(StoreError::Unusable(text.into()).into())
            }
            Err(fault) => Err(fault),
            Ok(_) => open::server_row(&mut session).await,
        }
    })
    .await?;
    let (mut session, row, membership) = match row.step {
        MigrationStep::Reverting => store.resume_exclusive().await?,
        _ => {
            store.open_alone().await?;
            store.make_exclusive().await?
        }
    };
    let work = php::revert::revert(&mut session, &row, membership, rehearse);
    let report = store.while_alive(membership, work).await;
    match &report {
        // Reverted: the row that `close` would release was dropped with its table.
        Ok(report) if report.obstacles.is_empty() && !rehearse => {}
        _ => store.close().await,
    }
    Ok(report?)
}
