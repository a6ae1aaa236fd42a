//! The only writer: takes what was handed in while a commit was under way and stores it as one transaction
//! (group commit), and opens the store again when it was lost.
//!
//! Nothing is answered before [`Committed`] is sent. When the outcome of a commit is not known, no actor's
//! memory can be trusted: the incarnation grows, every actor answers what it has open with 503 and
//! retires, and new ones read from the store once it is open again.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::commits::{Commit, CommitsWait};
use super::gate::{Closed, boottime_ms};
use super::messages::{Abandon, AbandonAll, Committed, Load, Reply};
use super::registry::Registry;
use super::resource::ResourceActor;
use super::shell::Shell;
use crate::lock::{ResourceName, Selector};
use crate::store::{
    ListQuery, ListedResource, Opened, ResourceId, Snapshot, StoreError, StoredData, StoredResource,
};

/// A transaction stays below this many rows, so that nobody waits long for another's.
const BATCH_ROWS_MAX: usize = 4096;
/// And below this many bytes of data, unless a single snapshot is larger.
const BATCH_BYTES_MAX: usize = 8 << 20;
/// How often the store tidies up what commits put off.
const SETTLE_EVERY: Duration = Duration::from_secs(2);
/// Pause between two attempts to open a store that is away.
const REOPEN_PAUSE: Duration = Duration::from_millis(250);
/// Pause between two looks at a store that another instance serves.
const STANDBY_PAUSE: Duration = Duration::from_millis(100);

struct Member {
    actor: Addr<ResourceActor>,
    seq: u64,
    snapshot: Snapshot,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Opening,
    Serving,
    /// The store is given back, and must not be taken again.
    Finished,
}

type LoadAnswer = oneshot::Sender<Result<Option<StoredResource>, StoreError>>;
type FirstOpen = oneshot::Sender<Result<(), StoreError>>;

pub struct Persistence {
    shell: Arc<Shell>,
    registry: Option<Addr<Registry>>,
    phase: Phase,
    /// Told once how the first attempt to open the store went.
    first_open: Option<FirstOpen>,
    waiting: HashMap<ResourceName, Member>,
    in_flight: HashSet<ResourceName>,
    /// Loads of names that have a commit waiting or in flight.
    deferred: Vec<(ResourceName, LoadAnswer)>,
    /// Actors whose commit was refused: what they still send is built on state that is not stored.
    abandoned: HashSet<Addr<ResourceActor>>,
    beating: bool,
    settling: bool,
    /// Counts attempts to open the store.
    attempt: u64,
    last_complaint: String,
    drained: Vec<oneshot::Sender<()>>,
}

/// How a batch went: each member stored or refused, or everything in doubt.
type BatchResult = Result<Vec<Result<(), StoreError>>, StoreError>;

impl Persistence {
    pub fn new(shell: Arc<Shell>, first_open: FirstOpen) -> Persistence {
        Persistence {
            shell,
            registry: None,
            phase: Phase::Opening,
            first_open: Some(first_open),
            waiting: HashMap::new(),
            in_flight: HashSet::new(),
            deferred: Vec::new(),
            abandoned: HashSet::new(),
            beating: false,
            settling: false,
            attempt: 0,
            last_complaint: String::new(),
            drained: Vec::new(),
        }
    }

    fn store_timeout(&self) -> Duration {
        Duration::from_millis(self.shell.settings.store_timeout_ms)
    }

    // ---- opening and losing the store --------------------------------------------------------------

    /// An attempt is never cut short: a store that is being migrated would begin again each time. What it
    /// asks of a database it bounds itself.
    fn open_store(&mut self, ctx: &mut Context<Self>) {
        if self.phase == Phase::Finished {
            return;
        }
        self.attempt += 1;
        let attempt = self.attempt;
        let patience = self.store_timeout().mul_f32(1.5);
        let late = ctx.run_later(patience, move |actor, _| {
            actor.still_opening(attempt, patience)
        });
        let store = self.shell.store.clone();
        let sent = boottime_ms();
        async move { store.open().await }
            .into_actor(self)
            .map(move |result, actor, ctx| {
                ctx.cancel_future(late);
                actor.opened(result, sent, ctx);
            })
            .spawn(ctx);
    }

    fn still_opening(&mut self, attempt: u64, after: Duration) {
        if self.phase != Phase::Opening || self.attempt != attempt {
            return;
        }
        let text = format!("opening it takes longer than {} ms", after.as_millis());
        self.shell.gate.close(Closed::StoreAway);
        self.complain(&format!("waiting for the store: {text}"));
        if let Some(first) = self.first_open.take() {
            let _ = first.send(Err(StoreError::Unavailable(text)));
        }
    }

    fn opened(&mut self, result: Result<Opened, StoreError>, sent: u64, ctx: &mut Context<Self>) {
        if self.phase == Phase::Finished {
            return;
        }
        let first = self.first_open.take();
        let told = result.clone().map(|_| ());
        self.act_on(result, sent, ctx);
        // Only now: whoever is told finds the gate as the result left it.
        if let Some(first) = first {
            let _ = first.send(told);
        }
    }

    fn act_on(&mut self, result: Result<Opened, StoreError>, sent: u64, ctx: &mut Context<Self>) {
        let pause = match result {
            Ok(opened) => return self.serve(opened, sent, ctx),
            Err(StoreError::Standby) => {
                self.shell.gate.close(Closed::Standby);
                self.complain("stand-by: another instance is active");
                STANDBY_PAUSE
            }
            Err(error) => {
                self.shell.gate.close(Closed::StoreAway);
                self.shell.metrics.store.failed(&error);
                self.complain(&format!("waiting for the store: {error}"));
                REOPEN_PAUSE
            }
        };
        ctx.run_later(pause, |actor, ctx| actor.open_store(ctx));
    }

    /// Logs a state once, not at every attempt.
    fn complain(&mut self, text: &str) {
        if self.last_complaint != text {
            log::warn!("{text}");
            self.last_complaint = text.to_owned();
        }
    }

    fn serve(&mut self, opened: Opened, sent: u64, ctx: &mut Context<Self>) {
        self.shell.raise_floor(opened.floor);
        self.shell.use_recorded_profile(opened.recorded_profile);
        self.shell.next_incarnation();
        self.phase = Phase::Serving;
        if let Some(times) = self.shell.store.heartbeat_ms() {
            self.shell.gate.valid_until(sent + times.valid_ms);
            if !self.beating {
                self.beating = true;
                self.beat_later(ctx);
            }
        }
        self.shell.gate.open();
        if !self.last_complaint.is_empty() {
            log::warn!("the store is open: serving");
            self.last_complaint.clear();
        }
    }

    /// From now on nothing that is in memory counts. `why` is what open requests are told.
    fn lose_store(&mut self, error: &StoreError, ctx: &mut Context<Self>) {
        if self.phase != Phase::Serving {
            return;
        }
        self.phase = Phase::Opening;
        let why = match error {
            StoreError::Standby => Closed::Standby,
            _ => Closed::StoreAway,
        };
        log::error!("the store was lost: {error}");
        self.shell.metrics.store.failed(error);
        self.shell.gate.close(why.clone());
        self.shell.next_incarnation();
        self.waiting.clear();
        self.abandoned.clear();
        self.count();
        for (_, load) in self.deferred.drain(..) {
            let _ = load.send(Err(error.clone()));
        }
        if let Some(registry) = &self.registry {
            registry.do_send(AbandonAll {
                reply: Reply::Closed(why),
            });
        }
        self.notify_drained();
        self.open_store(ctx);
    }

    fn beat_later(&mut self, ctx: &mut Context<Self>) {
        let Some(times) = self.shell.store.heartbeat_ms() else {
            return;
        };
        let every = Duration::from_millis(times.every_ms);
        ctx.run_later(every, |actor, ctx| actor.beat(ctx));
    }

    fn beat(&mut self, ctx: &mut Context<Self>) {
        if self.phase != Phase::Serving {
            return self.beat_later(ctx);
        }
        let store = self.shell.store.clone();
        let sent = boottime_ms();
        let incarnation = self.shell.incarnation();
        within(self.store_timeout(), async move { store.heartbeat().await })
            .into_actor(self)
            .map(move |result, actor, ctx| {
                let current = actor.shell.incarnation() == incarnation;
                match (result, actor.shell.store.heartbeat_ms()) {
                    (Ok(()), Some(times)) if current => {
                        actor.shell.gate.valid_until(sent + times.valid_ms);
                    }
                    (Err(error), _) if current => actor.lose_store(&error, ctx),
                    _ => {}
                }
                actor.beat_later(ctx);
            })
            .spawn(ctx);
    }

    // ---- group commit ------------------------------------------------------------------------------

    /// Takes in what was handed in and stores it, until a commit is under way or there is nothing to do.
    fn work(&mut self, ctx: &mut Context<Self>) {
        loop {
            self.take_in();
            self.flush(ctx);
            if !self.in_flight.is_empty() || self.shell.commits.rest() {
                return;
            }
        }
    }

    /// Knows of everything that was handed in by now.
    fn look(&mut self, ctx: &mut Context<Self>) {
        if self.in_flight.is_empty() {
            self.work(ctx);
        } else {
            self.take_in();
        }
    }

    fn take_in(&mut self) {
        for commit in self.shell.commits.take() {
            // One of an earlier incarnation, or of an abandoned actor, rests on state that is not stored; its
            // actor has been told, or is about to be.
            let stale = commit.incarnation != self.shell.incarnation();
            if self.phase == Phase::Finished && !stale {
                let reply = Reply::Closed(Closed::Stopping);
                commit.actor.do_send(Abandon { reply });
            } else if !stale
                && self.phase == Phase::Serving
                && !self.abandoned.contains(&commit.actor)
            {
                self.add(commit);
            }
        }
        self.count();
    }

    fn add(&mut self, commit: Commit) {
        let name = commit.snapshot.name.clone();
        match self.waiting.get_mut(&name) {
            Some(member) => {
                member.seq = commit.seq;
                member.snapshot.merge(commit.snapshot);
            }
            None => {
                let member = Member {
                    actor: commit.actor,
                    seq: commit.seq,
                    snapshot: commit.snapshot,
                };
                self.waiting.insert(name, member);
            }
        }
    }

    /// Takes the next batch: everything that waits, up to the caps.
    fn next_batch(&mut self) -> Vec<Member> {
        let (mut rows, mut bytes) = (0, 0);
        let mut names = Vec::new();
        for (name, member) in &self.waiting {
            let (r, b) = (member.snapshot.rows(), member.snapshot.bytes());
            if !names.is_empty() && (rows + r > BATCH_ROWS_MAX || bytes + b > BATCH_BYTES_MAX) {
                break;
            }
            rows += r;
            bytes += b;
            names.push(name.clone());
        }
        if names.len() == self.waiting.len() {
            return self.waiting.drain().map(|(_, member)| member).collect();
        }
        let take = |name: &ResourceName| self.waiting.remove(name);
        names.iter().filter_map(take).collect()
    }

    fn flush(&mut self, ctx: &mut Context<Self>) {
        if !self.in_flight.is_empty() || self.waiting.is_empty() || self.phase != Phase::Serving {
            return;
        }
        let batch = self.next_batch();
        let mut snapshots = Vec::with_capacity(batch.len());
        let mut members = Vec::with_capacity(batch.len());
        for member in batch {
            self.in_flight.insert(member.snapshot.name.clone());
            members.push((member.actor, member.seq));
            snapshots.push(member.snapshot);
        }
        let store = self.shell.store.clone();
        let limit = self.store_timeout();
        let incarnation = self.shell.incarnation();
        let rows = snapshots.iter().map(Snapshot::rows).sum();
        self.shell.metrics.store.batch(snapshots.len(), rows);
        self.count();
        let sent = Instant::now();
        async move { store_batch(store.as_ref(), &snapshots, limit).await }
            .into_actor(self)
            .map(move |result, actor, ctx| {
                actor.in_flight.clear();
                actor.shell.metrics.store.committed(sent.elapsed());
                actor.count();
                if actor.shell.incarnation() == incarnation {
                    actor.stored(members, result, ctx);
                }
                actor.work(ctx);
                actor.run_deferred(ctx);
                actor.notify_drained();
            })
            .spawn(ctx);
    }

    /// Beside the commits, which take turns with it in the store.
    fn settle(&mut self, ctx: &mut Context<Self>) {
        if self.settling || self.phase != Phase::Serving {
            return;
        }
        self.settling = true;
        let store = self.shell.store.clone();
        let incarnation = self.shell.incarnation();
        async move { store.settle().await }
            .into_actor(self)
            .map(move |result, actor, ctx| {
                actor.settling = false;
                match result {
                    Err(refused @ StoreError::Rejected(_)) => log::error!("settling: {refused}"),
                    Err(error) if actor.shell.incarnation() == incarnation => {
                        actor.lose_store(&error, ctx);
                    }
                    _ => {}
                }
            })
            .spawn(ctx);
    }

    fn count(&self) {
        let metrics = &self.shell.metrics.store;
        metrics.queue.set(self.waiting.len() as i64);
        metrics.in_flight.set(self.in_flight.len() as i64);
    }

    fn stored(
        &mut self,
        members: Vec<(Addr<ResourceActor>, u64)>,
        result: BatchResult,
        ctx: &mut Context<Self>,
    ) {
        let verdicts = match result {
            Ok(verdicts) => verdicts,
            Err(error) => return self.lose_store(&error, ctx),
        };
        for ((actor, seq), verdict) in members.into_iter().zip(verdicts) {
            match verdict {
                Ok(()) => actor.do_send(Committed { seq }),
                Err(error) => self.abandon(actor, &error),
            }
        }
    }

    /// One actor's change was refused: it starts over from what is stored.
    fn abandon(&mut self, actor: Addr<ResourceActor>, error: &StoreError) {
        log::error!("{error}");
        self.shell.metrics.store.failed(error);
        self.waiting.retain(|_, member| member.actor != actor);
        self.shell.restart_leases();
        actor.do_send(Abandon {
            reply: Reply::Refused,
        });
        self.abandoned.insert(actor);
    }

    fn notify_drained(&mut self) {
        if self.waiting.is_empty() && self.in_flight.is_empty() {
            for drained in self.drained.drain(..) {
                let _ = drained.send(());
            }
        }
    }

    // ---- reading -----------------------------------------------------------------------------------

    fn is_busy(&self, name: &ResourceName) -> bool {
        self.in_flight.contains(name) || self.waiting.contains_key(name)
    }

    fn run_deferred(&mut self, ctx: &mut Context<Self>) {
        let (busy, ready): (Vec<_>, Vec<_>) = std::mem::take(&mut self.deferred)
            .into_iter()
            .partition(|(name, _)| self.is_busy(name));
        self.deferred = busy;
        for (name, load) in ready {
            self.start_load(name, load, ctx);
        }
    }

    fn start_load(&mut self, name: ResourceName, load: LoadAnswer, ctx: &mut Context<Self>) {
        let store = self.shell.store.clone();
        self.read(async move { store.load(&name).await }, load, ctx);
    }

    /// Runs one read within the time-out; a failure means that the store is lost.
    fn read<T: Send + 'static>(
        &mut self,
        read: impl Future<Output = Result<T, StoreError>> + 'static,
        answer: oneshot::Sender<Result<T, StoreError>>,
        ctx: &mut Context<Self>,
    ) {
        if self.phase != Phase::Serving {
            let away = StoreError::Unavailable("not open".to_owned());
            let _ = answer.send(Err(away));
            return;
        }
        let incarnation = self.shell.incarnation();
        within(self.store_timeout(), read)
            .into_actor(self)
            .map(move |result, actor, ctx| {
                match &result {
                    Err(error @ StoreError::Rejected(text)) => {
                        log::error!("a row cannot be read: {text}");
                        actor.shell.metrics.store.failed(error);
                    }
                    Err(error) if actor.shell.incarnation() == incarnation => {
                        actor.lose_store(error, ctx);
                    }
                    _ => {}
                }
                let _ = answer.send(result);
            })
            .spawn(ctx);
    }
}

async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let late = |_| StoreError::Unavailable(format!("no answer within {} ms", limit.as_millis()));
    timeout(limit, work).await.unwrap_or_else(|e| Err(late(e)))
}

/// Stores a batch as one transaction. When it is refused for what one member contains, each member is
/// stored by itself, so that one does not cost the others.
async fn store_batch(
    store: &dyn crate::store::Store,
    snapshots: &[Snapshot],
    limit: Duration,
) -> BatchResult {
    match within(limit, store.commit(snapshots)).await {
        Ok(()) => return Ok(snapshots.iter().map(|_| Ok(())).collect()),
        Err(refused @ StoreError::Rejected(_)) if snapshots.len() == 1 => {
            return Ok(vec![Err(refused)]);
        }
        Err(StoreError::Rejected(_)) => {}
        Err(error) => return Err(error),
    }
    let mut verdicts = Vec::with_capacity(snapshots.len());
    for snapshot in snapshots {
        match within(limit, store.commit(std::slice::from_ref(snapshot))).await {
            Ok(()) => verdicts.push(Ok(())),
            Err(refused @ StoreError::Rejected(_)) => verdicts.push(Err(refused)),
            Err(error) => return Err(error),
        }
    }
    Ok(verdicts)
}

impl Actor for Persistence {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(1024);
        ctx.run_interval(SETTLE_EVERY, |actor, ctx| actor.settle(ctx));
        self.open_store(ctx);
    }
}

/// The registry, which is started after the persistence actor.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Attach(pub Addr<Registry>);

impl Handler<Attach> for Persistence {
    type Result = ();

    fn handle(&mut self, msg: Attach, _: &mut Self::Context) {
        self.registry = Some(msg.0);
    }
}

impl Handler<CommitsWait> for Persistence {
    type Result = ();

    fn handle(&mut self, _: CommitsWait, ctx: &mut Self::Context) {
        self.look(ctx);
    }
}

/// An abandoned actor has read that it is; nothing more comes from it.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Left(pub Addr<ResourceActor>);

impl Handler<Left> for Persistence {
    type Result = ();

    fn handle(&mut self, msg: Left, _: &mut Self::Context) {
        self.abandoned.remove(&msg.0);
    }
}

/// What a read that got no answer comes to: its asker is told that the store is away.
async fn answered<T>(answer: oneshot::Receiver<Result<T, StoreError>>) -> Result<T, StoreError> {
    let lost = |_| Err(StoreError::Unavailable("the read was given up".to_owned()));
    answer.await.unwrap_or_else(lost)
}

impl Handler<Load> for Persistence {
    type Result = ResponseFuture<Result<Option<StoredResource>, StoreError>>;

    fn handle(&mut self, msg: Load, ctx: &mut Self::Context) -> Self::Result {
        let (tx, rx) = oneshot::channel();
        // An actor that died may have left a commit.
        self.look(ctx);
        if self.is_busy(&msg.name) {
            self.deferred.push((msg.name, tx));
        } else {
            self.start_load(msg.name, tx, ctx);
        }
        Box::pin(answered(rx))
    }
}

/// Read one document.
#[derive(Message)]
#[rtype(result = "Result<Option<StoredData>, StoreError>")]
pub struct LoadData {
    pub id: ResourceId,
    pub selector: Selector,
}

impl Handler<LoadData> for Persistence {
    type Result = ResponseFuture<Result<Option<StoredData>, StoreError>>;

    fn handle(&mut self, msg: LoadData, ctx: &mut Self::Context) -> Self::Result {
        let (tx, rx) = oneshot::channel();
        let store = self.shell.store.clone();
        let read = async move { store.load_data(&msg.id, &msg.selector).await };
        self.read(read, tx, ctx);
        Box::pin(answered(rx))
    }
}

/// Read a page of committed resources.
#[derive(Message)]
#[rtype(result = "Result<Vec<ListedResource>, StoreError>")]
pub struct List(pub ListQuery);

impl Handler<List> for Persistence {
    type Result = ResponseFuture<Result<Vec<ListedResource>, StoreError>>;

    fn handle(&mut self, msg: List, ctx: &mut Self::Context) -> Self::Result {
        let (tx, rx) = oneshot::channel();
        let store = self.shell.store.clone();
        self.read(async move { store.list(&msg.0).await }, tx, ctx);
        Box::pin(answered(rx))
    }
}

/// Store what waits, give the store back, and be done.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Finish;

impl Handler<Finish> for Persistence {
    type Result = ResponseActFuture<Self, ()>;

    fn handle(&mut self, _: Finish, ctx: &mut Self::Context) -> Self::Result {
        let (tx, rx) = oneshot::channel();
        self.drained.push(tx);
        self.look(ctx);
        self.notify_drained();
        let drained = async move {
            let _ = rx.await;
        };
        // From here on nothing may open the store again: not a heartbeat that finds it closed, nor the
        // next look of a stand-by.
        let finish = drained.into_actor(self).then(|(), actor, _| {
            actor.phase = Phase::Finished;
            actor.shell.gate.close(Closed::Stopping);
            let store = actor.shell.store.clone();
            async move { store.close().await }.into_actor(actor)
        });
        Box::pin(finish)
    }
}
