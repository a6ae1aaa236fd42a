//! The only writer: takes what was handed in while a commit was under way and stores it as one transaction
//! (group commit), and opens the store again when it was lost.
//!
//! Nothing is answered before [`Committed`] is sent. When the outcome of a commit is not known, no actor's
//! memory can be trusted: the incarnation grows, every actor answers what it has open with 503 and
//! retires, and new ones read from the store once it is open again.
//!
//! | file | what it holds |
//! |---|---|
//! | `mod` | the actor: what it has in hand, how it ends |
//! | `opening` | the store is opened, watched, lost and opened again |
//! | `batch` | what waits, one transaction after another |
//! | `group_commit` | what waits becomes one transaction; settling beside it |
//! | `reading` | loads, documents and listings |

mod batch;
mod group_commit;
mod opening;
mod reading;

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::commits::CommitsWait;
use super::gate::Closed;
use super::registry::Registry;
use super::resource::ResourceActor;
use super::shell::Shell;
use crate::lock::ResourceName;
use crate::store::{StoreError, StoredResource};
use batch::Waiting;
pub use reading::{List, LoadData};

/// How often the store tidies up what commits put off.
const SETTLE_EVERY: Duration = Duration::from_secs(5);

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
    /// In which it serves. Another one is in force when the registry has given up a commit that hangs.
    incarnation: u64,
    /// Told once how the first attempt to open the store went.
    first_open: Option<FirstOpen>,
    waiting: Waiting,
    /// Names in the transaction that is under way, with their places in it.
    in_flight: HashMap<ResourceName, usize>,
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

impl Persistence {
    pub fn new(shell: Arc<Shell>, first_open: FirstOpen) -> Persistence {
        Persistence {
            shell,
            registry: None,
            phase: Phase::Opening,
            incarnation: 0,
            first_open: Some(first_open),
            waiting: Waiting::default(),
            in_flight: HashMap::new(),
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
}

async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    timeout(limit, work)
        .await
        .unwrap_or_else(|_| Err(late(limit)))
}

fn late(limit: Duration) -> StoreError {
    StoreError::Unavailable(format!("no answer within {} ms", limit.as_millis()))
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

/// The registry gave up a call that blocked the store for longer than `STORE_TIMEOUT_SECONDS`.
#[derive(Message)]
#[rtype(result = "()")]
pub struct GivenUp;

impl Handler<GivenUp> for Persistence {
    type Result = ();

    fn handle(&mut self, _: GivenUp, ctx: &mut Self::Context) {
        if self.incarnation != self.shell.incarnation() {
            self.lose_store(&late(self.store_timeout()), ctx);
        }
    }
}

/// An abandoned actor has read that it is; nothing more comes from it.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Left(pub Addr<ResourceActor>);

impl Handler<Left> for Persistence {
    type Result = ();

    fn handle(&mut self, msg: Left, ctx: &mut Self::Context) {
        // What it handed in before it knew must not be taken for a successor's.
        self.look(ctx);
        self.abandoned.remove(&msg.0);
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
