//! The production store: MySQL 8 or MariaDB, shared by several instances, each of which owns a part of all names.
//!
//! Driven by `persistence` like every store. One connection writes, one sends heartbeats, a few
//! read; opening has one of its own, which becomes the writer. Nothing waits
//! longer than [`Options::timeout`] for the server, migrations excepted, which are given up as soon as a
//! heartbeat beside them fails.
//!
//! | file | what it holds |
//! |---|---|
//! | `options` | how to reach the server |
//! | `session` | one connection; the connections that read |
//! | `server` | which server a connection leads to |
//! | `settings` | what each session sets, whatever is set globally |
//! | `error` | what a failure means for a store |
//! | `sql` | SQL text with literals made here |
//! | `schema` | the tables, and their versions |
//! | `fence` | the log of an instance, and what fences it |
//! | `instance` | an instance in the database: heartbeat, joining, having it alone |
//! | `watch` | whether another instance is silent |
//! | `looks` | what was seen of the others |
//! | `slots` | whose each slot of names is, and how that changes |
//! | `open` | coming to take part in a database |
//! | `burial` | taking over from an instance that is dead |
//! | `commit` | a batch as one transaction; what checkpointing the journal writes |
//! | `write` | the one connection that writes: transactions, checkpointing |
//! | `witness` | whether the database has lost what this process committed |
//! | `read` | load, load a document, list |
//! | `php` | from the PHP server's tables and back |

mod burial;
mod commit;
mod error;
mod fence;
mod history;
mod instance;
mod looks;
mod open;
mod options;
mod php;
mod read;
mod schema;
mod server;
mod session;
mod settings;
mod slots;
mod sql;
mod watch;
mod witness;
mod write;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use parking_lot::MutexGuard;
use tokio::sync::Mutex;

use self::error::Fault;
use self::fence::{LogPlace, Tenure};
use self::instance::SeenOwner;
use self::looks::Looks;
use self::schema::{MigrationStep, ServerRow};
use self::server::Server;
use self::session::{Readers, Session, Sets, within};
use self::sql::Sql;
use self::witness::Witness;
use self::write::Writer;
use super::journal::Journal;
use super::listing::{self, FewRows, Walk, is_counted};
use super::members::{Members, Slot};
use super::{
    DocumentSize, HeartbeatTimes, InstanceId, ListOrder, ListQuery, ListedResource, Opened,
    ResourceId, Snapshot, Store, StoreError, StoredData, StoredResource,
};
use crate::lock::{FencingToken, ResourceName, Selector};
use crate::store::history::{PastLease, PastLeases};

pub use options::{Options, PeerPort, Tls};
pub use php::revert::RevertReport;

/// Rows in a MySQL or MariaDB database.
pub struct MysqlStore {
    options: Options,
    tenure: parking_lot::Mutex<Option<Tenure>>,
    /// The server's `max_allowed_packet` as the last writer found it, bytes.
    packet_bytes_max: AtomicUsize,
    opening: Mutex<OpeningState>,
    writer: Mutex<Writer>,
    heartbeat_session: Mutex<Option<Session>>,
    readers: Readers,
    /// The server on which we came to take part.
    home: parking_lot::Mutex<Option<Server>>,
    journal: Journal,
    witness: parking_lot::Mutex<Witness>,
    looks: parking_lot::Mutex<Looks>,
    /// What was said about the database's own settings.
    warned: Mutex<Vec<String>>,
}

/// What opening remembers from one call to the next.
#[derive(Default)]
struct OpeningState {
    session: Option<Session>,
    seen: Option<SeenOwner>,
}

/// A database that we have come to take part in, or that is ours alone: the tenure says which.
struct Taken {
    session: Session,
    row: ServerRow,
    tenure: Tenure,
}

/// Between two tries of what someone else's lock or deadlock made fail.
const RETRY_PAUSE: Duration = Duration::from_millis(20);
impl MysqlStore {
    /// Connects to nothing yet.
    pub fn new(options: Options) -> MysqlStore {
        MysqlStore {
            tenure: parking_lot::Mutex::default(),
            packet_bytes_max: AtomicUsize::new(usize::MAX),
            opening: Mutex::default(),
            writer: Mutex::default(),
            heartbeat_session: Mutex::default(),
            readers: Readers::new(options.pool_size),
            home: parking_lot::Mutex::default(),
            journal: Journal::new(commit::LAYOUT),
            witness: parking_lot::Mutex::default(),
            looks: parking_lot::Mutex::default(),
            warned: Mutex::default(),
            options,
        }
    }

    fn home(&self) -> Option<Server> {
        let home = self.home.lock();
        home.clone()
    }

    fn witness(&self) -> MutexGuard<'_, Witness> {
        self.witness.lock()
    }

    fn looks(&self) -> MutexGuard<'_, Looks> {
        self.looks.lock()
    }

    fn set_home(&self, server: Option<Server>) {
        let mut home = self.home.lock();
        *home = server;
    }

    /// One heartbeat, and a look; a kept connection that turns out to be dead costs a second try. `false`: this instance was
    /// taken for dead.
    async fn beat(&self, tenure: Tenure) -> Result<bool, Fault> {
        let patience = self.options.timeout.min(self.options.instance_lease / 4);
        let mut heartbeat_session = self.heartbeat_session.lock().await;
        let kept = heartbeat_session.take();
        if let Some(session) = kept {
            let beaten = self.beat_on(&mut heartbeat_session, session, tenure);
            match within(patience, beaten).await {
                Err(Fault::Away(text)) => log::debug!("the heartbeat connection was gone: {text}"),
                result => return result,
            }
        }
        within(patience, async {
            let session = Session::connect(&self.options, self.home().as_ref()).await?;
            self.beat_on(&mut heartbeat_session, session, tenure).await
        })
        .await
    }

    async fn beat_on(
        &self,
        heartbeat_session: &mut Option<Session>,
        mut session: Session,
        tenure: Tenure,
    ) -> Result<bool, Fault> {
        loop {
            match self.look_on(&mut session, tenure).await {
                // A long commit holds the row.
                Err(fault) if fault.is_passing() => tokio::time::sleep(RETRY_PAUSE).await,
                result => {
                    *heartbeat_session = Some(session);
                    return result;
                }
            }
        }
    }

    /// One heartbeat, and what is seen of the others unless the database is ours alone.
    async fn look_on(&self, session: &mut Session, tenure: Tenure) -> Result<bool, Fault> {
        let Some(mut beaten) = instance::beat(session, tenure).await? else {
            return Ok(false);
        };
        if tenure.epoch.is_some() {
            return Ok(true);
        }
        let version = beaten.row.epoch;
        if version < self.looks().version() && !session.server.is_member {
            let text = "the database is as it was some time ago";
            return Err(Fault::Away(text.into()));
        }
        let wants_owners = self.looks().wants_owners(version);
        let owners = match wants_owners {
            true => {
                let owners;
                (owners, beaten) = slots::look(session).await?;
                Some(owners)
            }
            false => None,
        };
        let own = beaten.row.instance(&tenure.id).map(|row| row.heartbeat);
        let mut witness = self.witness();
        witness.sees_epoch(version);
        witness.heartbeat_acknowledged(own.unwrap_or_default());
        drop(witness);
        let mut looks = self.looks();
        if let Some(owners) = owners {
            looks.see_owners(&tenure.id, version, owners);
        }
        looks.see(beaten, self.options.instance_lease);
        Ok(true)
    }

    /// A heartbeat, and what it tells of the others.
    async fn look(&self) -> Result<Members, StoreError> {
        let Some(tenure) = self.tenure() else {
            return Err(StoreError::Unavailable("the database is not open".into()));
        };
        let beaten = self.beat(tenure).await?;
        let is_current = self.tenure() == Some(tenure);
        if !beaten && is_current {
            self.set_tenure(None);
            return Err(StoreError::Standby);
        }
        let members = self.looks().members(tenure.id);
        members.filter(|_| is_current).ok_or_else(|| {
            let text = "the database is being opened anew";
            StoreError::Unavailable(text.into())
        })
    }

    async fn take_over_from(&self, dead: &InstanceId) -> Result<(), StoreError> {
        let begun = {
            let mut writer = self.writer.lock().await;
            self.begin_burial(&mut writer, dead).await?
        };
        let Some(mut burial) = begun else {
            return Ok(());
        };
        loop {
            // Others' commits go on in between.
            let mut writer = self.writer.lock().await;
            if self.bury(&mut writer, &mut burial).await?.is_break() {
                return Ok(());
            }
        }
    }

    async fn read(&self, sql: &Sql) -> Result<Sets, StoreError> {
        let home = self.home();
        let reading = self
            .readers
            .read(&self.options, home.as_ref(), sql.as_str());
        within(self.options.timeout, reading)
            .await
            .map_err(Fault::of_read)
    }

    /// As [`MysqlStore::read`], of one SELECT that the server ends at this time.
    async fn read_until(&self, mut sql: Sql, deadline: Instant) -> Result<Sets, StoreError> {
        let left = deadline.saturating_duration_since(Instant::now());
        sql.limit(left.max(Duration::from_millis(1)));
        self.read(&sql).await
    }

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

#[async_trait]
impl Store for MysqlStore {
    fn kind(&self) -> &'static str {
        "mysql"
    }

    /// This process is another instance from then on, which has what the one before it had: nothing of that one can land.
    /// [`StoreError::Standby`] comes at once; what was seen is remembered for the next call, which takes over only if it comes
    /// soon: see [`instance::judge`].
    async fn open(&self) -> Result<Opened, StoreError> {
        let mut opening = self.opening.lock().await;
        let mut writer = self.writer.lock().await;
        self.open_with(&mut opening, &mut writer).await
    }

    async fn open_alone(&self) -> Result<Opened, StoreError> {
        let begun = Instant::now();
        let every = Duration::from_millis(self.options.heartbeat().every_ms);
        let mut opened = loop {
            match self.open().await {
                Err(StoreError::Standby) if begun.elapsed() < 2 * self.options.instance_lease => {
                    tokio::time::sleep(every).await;
                }
                result => break result?,
            }
        };
        if let Err(error) = self.outlive_others().await {
            self.close().await;
            return Err(error);
        }
        let members = self.look().await?;
        opened.token_floor = members.token_floor;
        opened.members = Some(members);
        Ok(opened)
    }

    async fn commit(&self, batch: &[Snapshot]) -> Result<(), StoreError> {
        let mut writer = self.writer.lock().await;
        self.place(&writer)?;
        if batch.iter().all(Snapshot::is_empty) {
            return Ok(());
        }
        self.refuse_what_was_given(batch)?;
        let entry = self.journal.enter(batch)?;
        let script = async |session: &mut Session, place: LogPlace| {
            Ok(commit::script(&entry, place, session.packet_bytes_max)?)
        };
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
        let script = async |session: &mut Session, place: LogPlace| {
            Ok(slots::giving(place, slots, &to, session.packet_bytes_max)?)
        };
        let Some(sets) = self.attempt(&mut writer, script).await? else {
            return Ok(false);
        };
        let version = instance::epoch(sets)?;
        self.looks().gave(slots, to, version);
        self.witness().sees_epoch(version);
        Ok(true)
    }

    async fn take_over(&self, dead: InstanceId) -> Result<(), StoreError> {
        self.take_over_from(&dead).await
    }

    async fn leave(&self) -> Result<(), StoreError> {
        let mut writer = self.writer.lock().await;
        let script = async |session: &mut Session, place: LogPlace| {
            Ok(commit::leaving_script(place, session.packet_bytes_max)?)
        };
        self.transact(&mut writer, script).await
    }

    async fn raise_tokens(&self, above: FencingToken) -> Result<(), StoreError> {
        let mut writer = self.writer.lock().await;
        let script = async |session: &mut Session, place: LogPlace| {
            Ok(commit::raising_script(
                above,
                place,
                session.packet_bytes_max,
            )?)
        };
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
        let token: u64 = session::value(sets.pop().unwrap_or_default())?;
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
        let mut after = after.as_bytes().to_vec();
        loop {
            let sql = read::document_sizes_sql(id, &after, limit);
            let page = read::document_sizes(self.read(&sql).await?)?;
            sizes.extend(page.sizes);
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
        let mut few = FewRows::default();
        if is_counted(query) && !query.prefix.is_empty() {
            let sql = read::count_names_sql(query);
            few.names = read::is_few(self.read_until(sql, deadline).await?)?;
        }
        if is_counted(query) && !few.names {
            few.held = read::is_few(self.read_until(read::count_held_sql(), deadline).await?)?;
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
            let page = read::page(self.read_until(sql, deadline).await?)?;
            let wanted = query.limit - listed.len();
            listed.extend(page.listed.into_iter().take(wanted));
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
        *self.opening.lock().await = OpeningState::default();
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
