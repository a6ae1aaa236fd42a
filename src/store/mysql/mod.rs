//! The production store: MySQL 8 or MariaDB, shared by several instances, each of which owns a part of all names.
//!
//! Driven by `persistence` like every store. One connection writes, one sends heartbeats, a few
//! read; opening has one of its own, which becomes the writer. Nothing waits
//! longer than [`Options::timeout`] for the server, migrations excepted, which are given up as soon as a
//! heartbeat beside them fails.
//!
//! | file | what it holds |
//! |---|---|
//! | `database` | the database as this process has it |
//! | `options` | how to reach the server |
//! | `session` | one connection; the connections that read |
//! | `rows` | rows as the server sends them |
//! | `server` | which server a connection leads to |
//! | `settings` | what each session sets, whatever is set globally |
//! | `error` | what a failure means for a store |
//! | `sql` | SQL text with literals made here |
//! | `schema` | the tables |
//! | `migrate` | from earlier versions' tables to these |
//! | `fence` | the log of an instance, and what fences it |
//! | `instance` | an instance in the database: heartbeat, joining, having it alone |
//! | `heartbeat` | heartbeats, and what they see |
//! | `watch` | whether another instance is silent |
//! | `looks` | what was seen of the others |
//! | `slots` | whose each slot of names is, and how that changes |
//! | `open` | coming to take part in a database |
//! | `left_logs` | what other instances left in their logs: taking over from one that is dead |
//! | `script` | one transaction as SQL text |
//! | `commit` | the rows of a batch; what checkpointing the journal writes |
//! | `write` | the one connection that writes: transactions, checkpointing |
//! | `witness` | whether the database has lost what this process committed |
//! | `read` | load, load a document, list |
//! | `history` | past leases |
//! | `php` | from the PHP server's tables and back |

mod commit;
mod database;
mod error;
mod fence;
mod heartbeat;
mod history;
mod instance;
mod left_logs;
mod looks;
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
mod witness;
mod write;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use async_trait::async_trait;

use self::database::{RETRY_PAUSE, Writer};
use self::error::Fault;
use self::fence::Tenure;
use self::schema::MigrationStep;
use self::session::{Session, within};
use self::sql::Sql;
use super::listing::{self, Walk};
use super::members::{Members, Slot};
use super::{
    DocumentSize, HeartbeatTimes, InstanceId, ListOrder, ListQuery, ListedResource, Opened,
    ResourceId, Snapshot, Store, StoreError, StoredData, StoredResource,
};
use crate::lock::{FencingToken, ResourceName, Selector};
use crate::store::history::{PastLease, PastLeases};

pub use database::MysqlStore;
pub use options::{Options, PeerPort, Tls};
pub use php::revert::RevertReport;

impl MysqlStore {
    /// Whoever has them now would not know of it.
    fn refuse_what_was_given(&self, batch: &[Snapshot]) -> Result<(), StoreError> {
        let looks = self.looks();
        let is_given = |snapshot: &Snapshot| looks.has_given(Slot::of(&snapshot.name));
        match batch.iter().any(is_given) {
            true => {
                let text = "a change is about names that were given to another instance";
                Err(StoreError::Unavailable(text.into()))
            }
            false => Ok(()),
        }
    }

    async fn free(&self, tenure: Tenure, has_checkpointed: bool) -> Result<(), Fault> {
        let mut session = Session::connect(&self.options, self.home().as_ref()).await?;
        loop {
            match instance::release(&mut session, tenure, has_checkpointed).await {
                Err(fault) if fault.is_passing() => tokio::time::sleep(RETRY_PAUSE).await,
                result => {
                    session.close().await;
                    return result;
                }
            }
        }
    }
}

fn opened(members: Members) -> Opened {
    Opened {
        token_floor: members.token_floor,
        recorded_profile: members.recorded_profile,
        members: Some(members),
    }
}

#[async_trait]
impl Store for MysqlStore {
    fn kind(&self) -> &'static str {
        "mysql"
    }

    /// This process is another instance from then on, which has what the one before it had: nothing of that one can land.
    /// [`StoreError::Standby`] comes at once; what was seen is remembered for the next call, which takes over only if it comes
    /// soon: see [`watch`].
    async fn open(&self) -> Result<Opened, StoreError> {
        let mut waiting_session = self.waiting_session.lock().await;
        let mut writer = self.writer.lock().await;
        let members = self.open_with(&mut waiting_session, &mut writer).await?;
        Ok(opened(members))
    }

    async fn open_alone(&self) -> Result<Opened, StoreError> {
        let begun = Instant::now();
        let every = Duration::from_millis(self.options.heartbeat().every_ms);
        loop {
            match self.open().await {
                Ok(_) => break,
                Err(StoreError::Standby) if begun.elapsed() < 2 * self.options.instance_lease => {
                    tokio::time::sleep(every).await;
                }
                Err(error) => return Err(error),
            }
        }
        if let Err(error) = self.outlive_others().await {
            self.close().await;
            return Err(error);
        }
        Ok(opened(self.look().await?))
    }

    async fn commit(&self, batch: &[Snapshot]) -> Result<(), StoreError> {
        let mut writer = self.writer.lock().await;
        self.tenure_of(&writer)?;
        if batch.iter().all(Snapshot::is_empty) {
            return Ok(());
        }
        self.refuse_what_was_given(batch)?;
        let entry = self.journal.enter(batch)?;
        let script = async |_: &mut Session, place| commit::script(&entry, place);
        self.transact(&mut writer, script).await?;
        entry.committed();
        self.witness().committed(batch);
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
        // What is left in our log would be laid over what the other one stores, when we die.
        self.checkpoint_with(&mut writer).await?;
        let script = async |_: &mut Session, place| slots::giving(place, slots, &to);
        let Some(sets) = self.attempt(&mut writer, script).await? else {
            return Ok(false);
        };
        let version = instance::epoch(sets)?;
        self.looks().gave(slots, to, version);
        self.witness().sees_epoch(version);
        Ok(true)
    }

    async fn take_over(&self, dead: InstanceId) -> Result<(), StoreError> {
        let begun = {
            let mut writer = self.writer.lock().await;
            self.begin_take_over(&mut writer, &dead).await?
        };
        let Some(mut taking) = begun else {
            return Ok(());
        };
        loop {
            // Others' commits go on in between.
            let mut writer = self.writer.lock().await;
            if self
                .take_over_next(&mut writer, &mut taking)
                .await?
                .is_break()
            {
                return Ok(());
            }
        }
    }

    async fn leave(&self) -> Result<(), StoreError> {
        let mut writer = self.writer.lock().await;
        let script = async |_: &mut Session, place| commit::leaving_script(place);
        self.transact(&mut writer, script).await
    }

    async fn raise_tokens(&self, above: FencingToken) -> Result<(), StoreError> {
        let mut writer = self.writer.lock().await;
        let script = async |_: &mut Session, place| commit::raising_script(above, place);
        self.transact(&mut writer, script).await
    }

    async fn highest_token(&self) -> Result<FencingToken, StoreError> {
        let mut sql = Sql::default();
        sql.push(
            "SELECT GREATEST((SELECT floor FROM resource_server WHERE id = 1), \
             (SELECT COALESCE(MAX(floor), 0) FROM resource_instance), \
             (SELECT COALESCE(MAX(token), 0) FROM resource_lock))",
        );
        let mut sets = self.read(&sql).await?;
        let token: u64 = rows::value(sets.pop().unwrap_or_default())?;
        Ok(FencingToken(token))
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
            self.witness().sees_token(found.lock.head.token);
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
        let mut after = after.to_owned();
        loop {
            let sql = read::document_sizes_sql(id, &after, limit);
            let page = read::document_sizes(self.read(&sql).await?)?;
            sizes.extend(page.items);
            sizes.truncate(limit);
            if sizes.len() == limit || page.rows < limit {
                return Ok(sizes);
            }
            after = page.last;
        }
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
                (Walk::Held, ListOrder::Held) => {
                    let sql = read::last_held_sql(&query);
                    read::last_held(self.read_until(sql, deadline).await?)?
                }
                _ => None,
            };
            let sql = read::list_sql(&query, now, last);
            let page = read::listed(self.read_until(sql, deadline).await?)?;
            let wanted = query.limit - listed.len();
            listed.extend(page.items.into_iter().take(wanted));
            if listed.len() == query.limit {
                break;
            }
            let cut_short = page.rows == query.limit && query.order == ListOrder::Name;
            if cut_short {
                query.after = Some(page.last);
            } else {
                part = parts.next();
            }
        }
        Ok(listed)
    }

    async fn heartbeat(&self) -> Result<Option<Members>, StoreError> {
        let members = self.look().await?;
        self.check_writer().await;
        Ok(Some(members))
    }

    fn heartbeat_ms(&self) -> Option<HeartbeatTimes> {
        Some(self.options.heartbeat())
    }

    fn takes_document(&self, json: &[u8]) -> bool {
        commit::fits(json, self.packet_bytes_max.load(Ordering::Relaxed))
    }

    async fn close(&self) {
        let ended = self.tenure();
        let mut has_checkpointed = false;
        if ended.is_some() {
            match self.checkpoint_all().await {
                Ok(()) => has_checkpointed = true,
                Err(error) => {
                    log::debug!(
                        "the log is left to whoever takes over from this instance: {error}"
                    );
                }
            }
        }
        let mut writer = self.writer.lock().await;
        *writer = Writer {
            session: None,
            in_doubt: true,
        };
        self.set_tenure(None);
        let all: Vec<Tenure> = self
            .witness()
            .former(None)
            .map(|former| former.tenure)
            .collect();
        for tenure in all {
            let has_checkpointed = has_checkpointed && ended == Some(tenure);
            let freeing = self.free(tenure, has_checkpointed);
            if let Err(fault) = within(self.options.timeout, freeing).await {
                log::warn!("others have to wait, this instance could not say goodbye: {fault:?}");
                break;
            }
        }
        *self.waiting_session.lock().await = None;
        *self.heartbeat_session.lock().await = None;
        self.readers.renew();
    }
}

/// Makes a database ready for the PHP server again: its collation and unique keys, selectors
/// percent-encoded, our tables gone. An instance that gives no sign of life is waited for, for its lease.
///
/// What the PHP server cannot hold is named in [`RevertReport::obstacles`]; then nothing is changed, nor
/// with `rehearse`.
/// [`StoreError::Standby`]: an instance is running. [`StoreError::Unusable`]: nothing to revert.
pub async fn revert_to_php(options: Options, rehearse: bool) -> Result<RevertReport, StoreError> {
    let store = MysqlStore::new(options);
    let options = &store.options;
    let row = within(options.timeout, async {
        let mut session = Session::connect(options, None).await?;
        match schema::version(&mut session).await {
            Err(fault) if fault.is(error::code::NO_SUCH_TABLE) => {
                let text = "it has no table `resource_server`, so there is nothing to revert";
                Err(StoreError::Unusable(text.into()).into())
            }
            Err(fault) => Err(fault),
            Ok(_) => schema::server_row(&mut session).await,
        }
    })
    .await?;
    let mut taken = match row.step {
        MigrationStep::Reverting => store.go_on_alone().await?,
        _ => {
            store.open_alone().await?;
            store.have_alone().await?
        }
    };
    let work = php::revert::revert(&mut taken.session, &taken.row, taken.tenure, rehearse);
    let report = store.while_alive(taken.tenure, work).await;
    match &report {
        // The row that would be freed is gone with its table.
        Ok(report) if report.obstacles.is_empty() && !rehearse => {}
        _ => store.close().await,
    }
    Ok(report?)
}
