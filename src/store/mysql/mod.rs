//! The production store: MySQL 8 or MariaDB, shared by several instances of which one is active.
//!
//! Driven by `persistence` like every store. One connection writes, one sends heartbeats, a few
//! read; opening has one of its own, which becomes the writer when the database is ours. Nothing waits
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
//! | `fence` | the log of an owner, and what fences it |
//! | `instance` | whose the database is: heartbeat, take-over |
//! | `commit` | a batch as one transaction; what checkpointing the journal writes |
//! | `write` | the one connection that writes: transactions, checkpointing |
//! | `witness` | whether the database has lost what this process committed |
//! | `read` | load, load a document, list |
//! | `php` | from the PHP server's tables and back |

mod commit;
mod error;
mod fence;
mod history;
mod instance;
mod options;
mod php;
mod read;
mod schema;
mod server;
mod session;
mod settings;
mod sql;
mod witness;
mod write;

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use parking_lot::MutexGuard;
use tokio::sync::Mutex;

use self::error::Fault;
use self::fence::{LogPlace, Tenure};
use self::instance::{Claim, SeenOwner};
use self::schema::{MigrationStep, ServerRow};
use self::server::Server;
use self::session::{Readers, Session, Sets, within};
use self::sql::Sql;
use self::witness::Witness;
use self::write::Writer;
use super::journal::Journal;
use super::listing::{self, FewRows, Walk, is_counted};
use super::{
    ActiveInstance, DocumentSize, HeartbeatTimes, InstanceId, ListOrder, ListQuery, ListedResource,
    Opened, ResourceId, Snapshot, Store, StoreError, StoredData, StoredResource,
};
use crate::lock::{FencingToken, ResourceName, Selector};
use crate::store::history::{PastLease, PastLeases};

pub use options::{Options, PeerPort, Tls};
pub use php::revert::RevertReport;

/// Rows in a MySQL or MariaDB database.
pub struct MysqlStore {
    options: Options,
    me: InstanceId,
    tenure: parking_lot::Mutex<Option<Tenure>>,
    /// The row may have our name in it, so closing has to free it.
    claimed: AtomicBool,
    /// The server's `max_allowed_packet` as the last writer found it, bytes.
    packet_bytes_max: AtomicUsize,
    opening: Mutex<OpeningState>,
    writer: Mutex<Writer>,
    heartbeat_session: Mutex<Option<Session>>,
    readers: Readers,
    /// The server on which the database became ours.
    home: parking_lot::Mutex<Option<Server>>,
    journal: Journal,
    witness: parking_lot::Mutex<Witness>,
    /// Whose the database is, as it was last read by opening.
    active: parking_lot::Mutex<Option<ActiveInstance>>,
    /// What was said about the database's own settings.
    warned: Mutex<Vec<String>>,
}

/// What opening remembers from one call to the next.
#[derive(Default)]
struct OpeningState {
    session: Option<Session>,
    seen: Option<SeenOwner>,
}

/// A database that has become ours.
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
            me: *uuid::Uuid::new_v4().as_bytes(),
            tenure: parking_lot::Mutex::default(),
            claimed: AtomicBool::new(false),
            packet_bytes_max: AtomicUsize::new(usize::MAX),
            opening: Mutex::default(),
            writer: Mutex::default(),
            heartbeat_session: Mutex::default(),
            readers: Readers::new(options.pool_size),
            home: parking_lot::Mutex::default(),
            journal: Journal::new(commit::LAYOUT),
            witness: parking_lot::Mutex::default(),
            active: parking_lot::Mutex::default(),
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

    fn see_active(&self, row: &ServerRow) {
        let mut active = self.active.lock();
        *active = row.active(&self.me);
    }

    fn set_home(&self, server: Option<Server>) {
        let mut home = self.home.lock();
        *home = server;
    }

    /// Tries to make the database ours. `None`: another instance is alive, as far as one can tell.
    async fn claim(&self, opening: &mut OpeningState) -> Result<Option<Taken>, Fault> {
        // What is remembered survives no look that fails or is given up.
        let OpeningState { session, mut seen } = std::mem::take(opening);
        let mut session = match session {
            Some(session) => session,
            None => Session::connect_creating(&self.options).await?,
        };
        loop {
            match self.claim_once(&mut session, &mut seen).await {
                Ok(ControlFlow::Break(None)) => {
                    // Documents are accepted in the name of the owner, on the same server.
                    self.note_packet(&session);
                    let session = Some(session);
                    *opening = OpeningState { session, seen };
                    return Ok(None);
                }
                Ok(ControlFlow::Break(Some((row, tenure)))) => {
                    return Ok(Some(Taken {
                        session,
                        row,
                        tenure,
                    }));
                }
                Ok(ControlFlow::Continue(())) => {}
                Err(fault) if fault.is_passing() => tokio::time::sleep(RETRY_PAUSE).await,
                Err(fault) => return Err(fault),
            }
        }
    }

    /// Goes on where the row changed meanwhile, so that it has to be judged anew.
    async fn claim_once(
        &self,
        session: &mut Session,
        seen: &mut Option<SeenOwner>,
    ) -> Result<ControlFlow<Option<(ServerRow, Tenure)>>, Fault> {
        let asked_at = Instant::now();
        let row = schema::server_row(session).await?;
        let lease = self.options.instance_lease;
        match instance::judge(
            &row,
            &self.me,
            seen.as_ref(),
            lease,
            asked_at,
            Instant::now(),
        ) {
            Claim::Wait(owner) => {
                self.see_active(&row);
                *seen = Some(owner);
                return Ok(ControlFlow::Break(None));
            }
            Claim::Now => {}
            Claim::Silent => log::warn!("the active instance is silent; taking over"),
        }
        self.claimed.store(true, Ordering::SeqCst);
        let address = self.options.peer_address().await?;
        let taken = instance::take(session, &row, &self.me, address.as_deref()).await?;
        let Some(tenure) = taken else {
            return Ok(ControlFlow::Continue(()));
        };
        let own_log = self.witness().own_log(&row);
        let has_tail = match own_log {
            Some(log) => instance::goes_on(session, &log, self.journal.last()).await?,
            None => true,
        };
        self.witness().sees_row(&row, &self.me, has_tail);
        self.journal.reset(1);
        // Read anew: what the old owner still committed is in it, and nothing of it comes after.
        let row = schema::read_server_row(session).await?;
        let Some(row) = row.filter(|row| row.is_in(tenure)) else {
            return Ok(ControlFlow::Continue(()));
        };
        self.see_active(&row);
        Ok(ControlFlow::Break(Some((row, tenure))))
    }

    async fn take_over(&self, opening: &mut OpeningState) -> Result<Taken, StoreError> {
        match within(self.options.timeout, self.claim(opening)).await? {
            Some(taken) => {
                self.set_home(Some(taken.session.server.clone()));
                Ok(taken)
            }
            None => Err(StoreError::Standby),
        }
    }

    /// Says what a session cannot set right about the database; each sentence once.
    async fn warn(&self, session: &mut Session) -> Result<(), Fault> {
        let mut warnings = std::mem::take(&mut session.refused);
        warnings.extend(settings::warnings(session).await?);
        let mut said = self.warned.lock().await;
        for warning in warnings {
            if !said.contains(&warning) {
                log::warn!("{warning}");
                said.push(warning);
            }
        }
        Ok(())
    }

    /// A database that has lost acknowledged commits gives no token out again that clients have seen.
    async fn go_on_above_what_was_lost(&self, taken: &mut Taken) -> Result<(), Fault> {
        let instance = taken.row.instance.as_ref();
        let heartbeat = instance.map_or(0, |instance| instance.heartbeat);
        let lost = self.witness().owned(taken.tenure, heartbeat);
        let Some(token) = lost else {
            return Ok(());
        };
        log::error!(
            "the database has lost changes that it had acknowledged: locks and documents are as they were some \
             time ago; fencing tokens go on above {}",
            token.0
        );
        let packet_bytes_max = taken.session.packet_bytes_max;
        let place = self.place_in(taken.tenure);
        let script = commit::raising_script(token, place, packet_bytes_max)?;
        let raised = self.send_opening(&mut taken.session, &script, place);
        self.while_alive(taken.tenure, raised).await?;
        taken.row.token_floor = taken.row.token_floor.max(token);
        Ok(())
    }

    /// Brings the schema up to date, and stays the owner meanwhile.
    async fn migrate(&self, taken: &mut Taken) -> Result<(), Fault> {
        if taken.row.version == schema::VERSION && taken.row.step == MigrationStep::Ready {
            return Ok(());
        }
        let migration = schema::migrate(
            &mut taken.session,
            &taken.row,
            taken.tenure,
            self.options.adopt,
        );
        let migrated = self.while_alive(taken.tenure, migration).await;
        migrated.map_err(|fault| match fence::is_fenced(&fault) {
            true => StoreError::Standby.into(),
            false => fault.stops_migration(),
        })?;
        let row = schema::read_server_row(&mut taken.session).await?;
        taken.row = row.ok_or_else(|| Fault::Away("the row of resource_server is gone".into()))?;
        Ok(())
    }

    /// Work that may take longer than any time-out: it goes on as long as heartbeats beside it succeed.
    async fn while_alive<T>(
        &self,
        tenure: Tenure,
        work: impl Future<Output = Result<T, Fault>>,
    ) -> Result<T, Fault> {
        let every = Duration::from_millis(self.options.heartbeat().every_ms);
        let heartbeats = async {
            loop {
                tokio::time::sleep(every).await;
                match self.beat(tenure, true).await {
                    Ok(true) => {}
                    Ok(false) => return Fault::from(StoreError::Standby),
                    // Reverting removes the table as its last step.
                    Err(fault) if fault.is(error::code::NO_SUCH_TABLE) => {}
                    Err(fault) => return fault,
                }
            }
        };
        tokio::select! {
            result = work => result,
            fault = heartbeats => Err(fault),
        }
    }

    /// One heartbeat; a kept connection that turns out to be dead costs a second try.
    async fn beat(&self, tenure: Tenure, is_opening: bool) -> Result<bool, Fault> {
        let patience = self.options.timeout.min(self.options.instance_lease / 4);
        let mut heartbeat_session = self.heartbeat_session.lock().await;
        let kept = heartbeat_session.take();
        if let Some(session) = kept {
            let beaten = self.beat_on(&mut heartbeat_session, session, tenure, is_opening);
            match within(patience, beaten).await {
                Err(Fault::Away(text)) => log::debug!("the heartbeat connection was gone: {text}"),
                result => return result,
            }
        }
        within(patience, async {
            let session = Session::connect(&self.options, self.home().as_ref()).await?;
            self.beat_on(&mut heartbeat_session, session, tenure, is_opening)
                .await
        })
        .await
    }

    /// The heartbeat has its connection before anything is served: where connections are few, reads would take the
    /// last one, and the store would be lost for want of it.
    async fn open_heartbeat_session(&self, taken: &Taken) -> Result<(), StoreError> {
        let connecting = Session::connect(&self.options, Some(&taken.session.server));
        match within(self.options.timeout, connecting).await {
            Ok(session) => *self.heartbeat_session.lock().await = Some(session),
            Err(fault) => {
                let error = StoreError::from(fault);
                let text = format!(
                    "no second connection for the heartbeat can be had; at least 3 are needed: {}",
                    error.detail()
                );
                return Err(StoreError::Unavailable(text));
            }
        }
        Ok(())
    }

    async fn beat_on(
        &self,
        heartbeat_session: &mut Option<Session>,
        mut session: Session,
        tenure: Tenure,
        is_opening: bool,
    ) -> Result<bool, Fault> {
        loop {
            match instance::beat(&mut session, tenure, is_opening).await {
                // A long commit holds the row.
                Err(fault) if fault.is_passing() => tokio::time::sleep(RETRY_PAUSE).await,
                result => {
                    *heartbeat_session = Some(session);
                    return result;
                }
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

    async fn free(&self) -> Result<(), Fault> {
        let mut session = Session::connect(&self.options, self.home().as_ref()).await?;
        loop {
            match instance::release(&mut session, &self.me).await {
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

    /// An instance that owns the database goes on with a new log without waiting: nothing of the old one can
    /// land then. [`StoreError::Standby`] comes at once; what was seen is remembered for the next call,
    /// which takes over only if it comes soon: see [`instance::judge`].
    async fn open(&self) -> Result<Opened, StoreError> {
        let mut opening = self.opening.lock().await;
        let mut writer = self.writer.lock().await;
        self.set_tenure(None);
        *writer = Writer {
            session: None,
            in_doubt: true,
        };
        // Every connection: the name may lead to another server by now, and those that are open still lead to
        // the old one.
        *self.heartbeat_session.lock().await = None;
        self.readers.renew();
        self.set_home(None);
        let mut taken = self.take_over(&mut opening).await?;
        self.open_heartbeat_session(&taken).await?;
        php::revert::refuse_half_reverted(&taken.row)?;
        self.migrate(&mut taken).await?;
        let engines = schema::refuse_foreign_engines(&mut taken.session);
        within(self.options.timeout, engines).await?;
        within(self.options.timeout, self.warn(&mut taken.session)).await?;
        let left = self.checkpoint_left(&mut taken.session, taken.tenure);
        self.while_alive(taken.tenure, left).await?;
        self.go_on_above_what_was_lost(&mut taken).await?;
        self.note_packet(&taken.session);
        *writer = Writer {
            session: Some(taken.session),
            in_doubt: false,
        };
        self.set_tenure(Some(taken.tenure));
        log::info!(
            "this instance owns the database, epoch {}",
            taken.tenure.epoch
        );
        Ok(Opened {
            token_floor: taken.row.token_floor,
            recorded_profile: taken.row.profile,
        })
    }

    async fn commit(&self, batch: &[Snapshot]) -> Result<(), StoreError> {
        let mut writer = self.writer.lock().await;
        self.place(&writer)?;
        if batch.iter().all(Snapshot::is_empty) {
            return Ok(());
        }
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

    async fn heartbeat(&self) -> Result<(), StoreError> {
        let Some(tenure) = self.tenure() else {
            return Err(StoreError::Unavailable("the database is not open".into()));
        };
        let beaten = self.beat(tenure, false).await?;
        if !beaten {
            if self.tenure() != Some(tenure) {
                let text = "the database is being opened anew";
                return Err(StoreError::Unavailable(text.into()));
            }
            self.set_tenure(None);
            return Err(StoreError::Standby);
        }
        self.witness().heartbeat_acknowledged();
        self.check_writer().await;
        Ok(())
    }

    fn heartbeat_ms(&self) -> Option<HeartbeatTimes> {
        Some(self.options.heartbeat())
    }

    fn active(&self) -> Option<ActiveInstance> {
        let active = self.active.lock();
        active.clone()
    }

    fn takes_document(&self, json: &[u8]) -> bool {
        commit::fits(json, self.packet_bytes_max.load(Ordering::Relaxed))
    }

    async fn close(&self) {
        if self.tenure().is_some()
            && let Err(error) = self.checkpoint_all().await
        {
            log::debug!("the journal is left to whoever opens the database next: {error}");
        }
        let mut writer = self.writer.lock().await;
        *writer = Writer {
            session: None,
            in_doubt: true,
        };
        self.set_tenure(None);
        if self.claimed.load(Ordering::SeqCst)
            && let Err(fault) = within(self.options.timeout, self.free()).await
        {
            log::warn!("the next instance has to wait, this one could not say goodbye: {fault:?}");
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
    within(options.timeout, async {
        let mut session = Session::connect(options, None).await?;
        match schema::version(&mut session).await {
            Err(fault) if fault.is(error::code::NO_SUCH_TABLE) => {
                let text = "it has no table `resource_server`, so there is nothing to revert";
                Err(StoreError::Unusable(text.into()).into())
            }
            result => result.map(|_| ()),
        }
    })
    .await?;
    let mut taken = take_when_silent(&store).await?;
    if taken.row.step != MigrationStep::Reverting {
        store.migrate(&mut taken).await?;
        let left = store.checkpoint_left(&mut taken.session, taken.tenure);
        store.while_alive(taken.tenure, left).await?;
    }
    let work = php::revert::revert(&mut taken.session, &taken.row, taken.tenure, rehearse);
    let report = store.while_alive(taken.tenure, work).await;
    match &report {
        // The row that would be freed is gone with its table.
        Ok(report) if report.obstacles.is_empty() && !rehearse => {}
        _ => store.close().await,
    }
    Ok(report?)
}

/// [`StoreError::Standby`] as soon as a sign of life is seen.
async fn take_when_silent(store: &MysqlStore) -> Result<Taken, StoreError> {
    let every = Duration::from_millis(store.options.heartbeat().every_ms);
    let mut opening = OpeningState::default();
    loop {
        let before = opening.seen.clone();
        match store.take_over(&mut opening).await {
            Err(StoreError::Standby) => {}
            result => return result,
        }
        if let (Some(before), Some(now)) = (&before, &opening.seen)
            && !before.is_same_sign(now)
        {
            return Err(StoreError::Standby);
        }
        tokio::time::sleep(every).await;
    }
}
