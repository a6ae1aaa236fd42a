//! A world with one lock in it: a clock that stands until it is moved, clients as request numbers, and a
//! store that is the reference `LockRows::apply`.
//!
//! Every step is held against the rules of `lock::invariants`, the stored rows included.

use std::collections::BTreeMap;

use small_resource_server::lock::command::{Grant, HolderView};
use small_resource_server::lock::rows::{Forced, LockRows};
use small_resource_server::lock::{
    Answer, Command, FencingToken, IdempotencyKey, KeyName, LockOptions, LockRequest, LockState,
    Mode, Now, Outcome, Owner, PresentedTicket, Profile, Reason, Refusal, RequestId,
    ResourceOptions, Seconds, Terms, Ticket, TicketId, Ttl, WaitPolicy, invariants,
};

/// Late enough that nothing reaches back before zero.
pub const START: Now = Now {
    mono: 1_000_000,
    wall: 1_700_000_000_000,
};

pub struct World {
    pub state: LockState,
    pub terms: Terms,
    pub now: Now,
    /// What is in the store.
    pub rows: LockRows,
    /// Whether an answer reaches its client by itself.
    pub delivers: bool,
    before_last: LockRows,
    answers: BTreeMap<RequestId, Answer>,
    next: u64,
}

impl World {
    /// A free lock whose leases do not expire by themselves, in the default profile.
    pub fn new() -> World {
        World::with(Terms::default(), 0)
    }

    /// A free lock with this `timeout`, in the default profile.
    pub fn with_timeout(seconds: i64) -> World {
        World::with(Terms::default(), seconds)
    }

    /// A free lock in the `php` profile.
    pub fn php() -> World {
        let terms = Terms {
            profile: Profile::Php,
            ..Terms::default()
        };
        World::with(terms, 1)
    }

    pub fn with(terms: Terms, timeout: i64) -> World {
        let timeout = Seconds::new(timeout).unwrap();
        World::of(terms, ResourceOptions::plain(timeout))
    }

    /// A free lock with so many slots.
    pub fn with_slots(slots: u16) -> World {
        let options = ResourceOptions {
            slots,
            ..ResourceOptions::default()
        };
        World::of(Terms::default(), options)
    }

    /// A free lock with this lock-delay in seconds.
    pub fn with_delay(lock_delay: u8) -> World {
        let options = ResourceOptions {
            lock_delay,
            ..ResourceOptions::default()
        };
        World::of(Terms::default(), options)
    }

    pub fn of(terms: Terms, options: ResourceOptions) -> World {
        World {
            state: LockState::new(options, FencingToken(0)),
            terms,
            now: START,
            rows: LockRows::default(),
            delivers: true,
            before_last: LockRows::default(),
            answers: BTreeMap::new(),
            next: 1,
        }
    }

    // ---- commands ---------------------------------------------------------------------------------

    /// Applies a command and returns what came of it; answers reach their clients unless withheld.
    pub fn apply(&mut self, command: Command) -> Outcome {
        let outcome = self.state.apply(&self.terms, self.now, command);
        self.before_last = self.rows.clone();
        outcome.changes.overlay(&mut self.rows);
        for (request, answer) in &outcome.answers {
            let earlier = self.answers.insert(*request, answer.clone());
            assert_eq!(earlier, None, "request {request} was answered twice");
        }
        if outcome.answers.iter().any(|(_, a)| *a == Answer::Deletable) {
            self.rows.head.holder = None;
            self.rows.head.delayed = false;
            self.rows.holding.clear();
            self.rows.waiting.clear();
        }
        invariants::check_rows(&self.state, &self.rows).unwrap();
        invariants::check(&self.state, &self.terms, self.now).unwrap();
        if self.delivers {
            for (request, answer) in &outcome.answers {
                if answer.is_tracked() {
                    self.deliver(*request);
                }
            }
        }
        outcome
    }

    pub fn request(&mut self) -> RequestId {
        self.next += 1;
        self.next
    }

    /// A request for the lock, to be completed and sent.
    pub fn ask(&mut self) -> Ask<'_> {
        Ask {
            world: self,
            presented: PresentedTicket::Absent,
            options: LockOptions::default(),
            policy: WaitPolicy::Poll,
        }
    }

    /// Somebody new gets the lock.
    pub fn hold(&mut self) -> Grant {
        let request = self.ask().send();
        self.granted(request)
    }

    /// Somebody new polls and gets a place.
    pub fn queue(&mut self) -> Ticket {
        let request = self.ask().send();
        self.queued(request).0
    }

    pub fn unlock(&mut self, ticket: Ticket) -> Answer {
        let request = self.request();
        self.apply(Command::Unlock {
            request,
            presented: PresentedTicket::Ticket(ticket),
        });
        self.take(request)
    }

    pub fn renew(&mut self, ticket: Ticket, ttl: Option<i64>) -> Answer {
        let request = self.request();
        self.apply(Command::Renew {
            request,
            presented: PresentedTicket::Ticket(ticket),
            ttl: ttl.map(seconds),
            exact: false,
        });
        self.take(request)
    }

    /// `"exact": true`.
    pub fn renew_exactly(&mut self, ticket: Ticket, ttl: Option<i64>) -> Answer {
        let request = self.request();
        self.apply(Command::Renew {
            request,
            presented: PresentedTicket::Ticket(ticket),
            ttl: ttl.map(seconds),
            exact: true,
        });
        self.take(request)
    }

    pub fn touch(&mut self, presented: PresentedTicket) -> Answer {
        let request = self.request();
        self.apply(Command::Touch { request, presented });
        self.take(request)
    }

    /// A write that does not wait.
    pub fn write(&mut self, presented: PresentedTicket) -> Answer {
        let request = self.write_with(presented, WaitPolicy::Never);
        self.take(request)
    }

    pub fn write_with(&mut self, presented: PresentedTicket, policy: WaitPolicy) -> RequestId {
        let request = self.request();
        let fresh = self.fresh();
        self.apply(Command::Write {
            request,
            presented,
            fresh,
            policy,
        });
        request
    }

    pub fn delete(&mut self, presented: PresentedTicket) -> Answer {
        let request = self.request();
        self.apply(Command::Delete { request, presented });
        self.take(request)
    }

    /// Removes the waiter with this ticket.
    pub fn remove(&mut self, ticket: Ticket) -> Answer {
        self.remove_id(ticket.id())
    }

    pub fn remove_id(&mut self, waiter: TicketId) -> Answer {
        let request = self.request();
        self.apply(Command::RemoveWaiter {
            request,
            waiter,
            forced: Box::new(forced()),
        });
        self.take(request)
    }

    pub fn force(&mut self, token: Option<FencingToken>) -> Answer {
        let request = self.request();
        self.apply(Command::ForceUnlock {
            request,
            token,
            forced: Box::new(forced()),
        });
        self.take(request)
    }

    /// The answer to this request went out; then time passes.
    pub fn deliver(&mut self, request: RequestId) -> Outcome {
        self.state.delivered(&self.terms, self.now, request);
        self.apply(Command::Tick)
    }

    pub fn vanish(&mut self, request: RequestId) -> Outcome {
        self.apply(Command::Vanished { request })
    }

    // ---- time -------------------------------------------------------------------------------------

    /// Time passes and the timer rings whenever it is due, as it does in a server that is not paused.
    pub fn pass(&mut self, millis: u64) {
        let end = self.now.mono + millis;
        while let Some(at) = self.state.deadline().filter(|at| *at <= end) {
            let step = at.saturating_sub(self.now.mono);
            self.jump(step);
            let next = self.state.deadline();
            assert!(next.is_none_or(|next| next > at), "the timer stands still");
        }
        self.jump(end - self.now.mono);
    }

    /// Time passes at once, as after a pause of the whole process.
    pub fn jump(&mut self, millis: u64) {
        self.now.mono += millis;
        self.now.wall += millis;
        self.apply(Command::Tick);
    }

    /// The process ends and starts again; what was stored is read back.
    pub fn restart(&mut self) {
        let options = self.state.options();
        let rows = self.rows.clone();
        self.state = LockState::restore(options, rows, &self.terms, self.now, self.now.mono);
        invariants::check(&self.state, &self.terms, self.now).unwrap();
        invariants::check_rows(&self.state, &self.rows).unwrap();
    }

    /// The resource leaves memory under its lease and is loaded again; says whether it could.
    pub fn sleep_and_wake(&mut self) -> bool {
        let Some(memory) = self.state.suspend() else {
            return false;
        };
        let (options, rows) = (self.state.options(), self.rows.clone());
        self.state = LockState::resume(options, rows, &self.terms, self.now, &memory);
        invariants::check_rows(&self.state, &self.rows).unwrap();
        true
    }

    /// The process ends before the last command's changes were durable, and starts again.
    pub fn restart_without_last(&mut self) {
        self.rows = self.before_last.clone();
        self.restart();
    }

    // ---- answers ----------------------------------------------------------------------------------

    pub fn answer(&self, request: RequestId) -> Option<&Answer> {
        self.answers.get(&request)
    }

    pub fn waits(&self, request: RequestId) -> bool {
        self.answer(request).is_none()
    }

    pub fn take(&mut self, request: RequestId) -> Answer {
        self.answers.remove(&request).expect("an answer")
    }

    pub fn granted(&self, request: RequestId) -> Grant {
        match self.answer(request) {
            Some(Answer::Granted(grant)) => Grant::clone(grant),
            other => panic!("not granted: {other:?}"),
        }
    }

    pub fn queued(&self, request: RequestId) -> (Ticket, usize) {
        match self.answer(request) {
            Some(Answer::Queued {
                ticket, position, ..
            }) => (*ticket, *position),
            other => panic!("not queued: {other:?}"),
        }
    }

    pub fn holder(&self) -> Option<HolderView> {
        self.state.holders(&self.terms, self.now).next()
    }

    /// What somebody who has to do without is told now.
    pub fn locked(&self) -> Answer {
        Answer::Refused(Refusal::Locked {
            holder: self.holder().map(Box::new),
            reserved: self.state.is_reserved(),
        })
    }

    pub fn holds(&self, ticket: Ticket) -> bool {
        self.state.token_of(ticket).is_some()
    }

    /// Locked, and nobody holds.
    pub fn is_reserved(&self) -> bool {
        self.state.is_locked() && !self.state.is_held()
    }

    pub fn fresh(&mut self) -> Ticket {
        self.next += 1;
        Ticket::from_bits(u128::from(self.next))
    }
}

/// A request for the lock.
pub struct Ask<'a> {
    world: &'a mut World,
    presented: PresentedTicket,
    options: LockOptions,
    policy: WaitPolicy,
}

impl Ask<'_> {
    pub fn ticket(self, ticket: Ticket) -> Self {
        self.presented(PresentedTicket::Ticket(ticket))
    }

    pub fn presented(self, presented: PresentedTicket) -> Self {
        Ask { presented, ..self }
    }

    pub fn owner(self, name: &str) -> Self {
        let owner = Some(Owner::parse(name).unwrap());
        self.options(|options| options.owner = owner)
    }

    pub fn ttl(self, value: i64) -> Self {
        let ttl = Some(seconds(value));
        self.options(|options| options.ttl = ttl)
    }

    pub fn key(self, text: &str) -> Self {
        let key = IdempotencyKey::parse(text);
        self.options(|options| options.key = key)
    }

    pub fn shared(self) -> Self {
        self.options(|options| options.mode = Some(Mode::Shared))
    }

    pub fn exclusive(self) -> Self {
        self.options(|options| options.mode = Some(Mode::Exclusive))
    }

    fn options(mut self, change: impl FnOnce(&mut LockOptions)) -> Self {
        change(&mut self.options);
        self
    }

    /// `?queue=0` and `?wait=` in seconds.
    pub fn wait_then_leave(self, seconds: u64) -> Self {
        let policy = WaitPolicy::UntilThenLeave(self.world.now.mono + seconds * 1000);
        Ask { policy, ..self }
    }

    pub fn with_policy(self, policy: WaitPolicy) -> Self {
        Ask { policy, ..self }
    }

    /// `?wait=` in seconds.
    pub fn wait(self, seconds: u64) -> Self {
        let policy = WaitPolicy::Until(self.world.now.mono + seconds * 1000);
        Ask { policy, ..self }
    }

    /// `?queue=0`.
    pub fn no_queue(self) -> Self {
        Ask {
            policy: WaitPolicy::Never,
            ..self
        }
    }

    pub fn send(self) -> RequestId {
        self.sent().1
    }

    /// Sends it; it must be granted at once.
    pub fn grant(self) -> Grant {
        let (world, request) = self.sent();
        world.granted(request)
    }

    /// Sends it; it must get a place at once. Says ticket and position.
    pub fn place(self) -> (Ticket, usize) {
        let (world, request) = self.sent();
        world.queued(request)
    }

    /// Sends it; it must be answered at once.
    pub fn answer(self) -> Answer {
        let (world, request) = self.sent();
        world.take(request)
    }
}

impl<'a> Ask<'a> {
    fn sent(self) -> (&'a mut World, RequestId) {
        let world = self.world;
        let request = world.request();
        let fresh = world.fresh();
        world.apply(Command::Acquire(LockRequest {
            request,
            presented: self.presented,
            fresh,
            options: self.options,
            policy: self.policy,
        }));
        (world, request)
    }
}

pub fn seconds(value: i64) -> Ttl {
    Seconds::new(value).unwrap().into()
}

/// What the ticket of a lease that was forced off is told.
pub fn by_force() -> Answer {
    Answer::Refused(Refusal::DeadByForce(Box::new(forced())))
}

/// What force-unlock is told.
pub fn forced() -> Forced {
    Forced {
        reason: Reason::parse("stuck").unwrap(),
        by: KeyName::parse("admin").unwrap(),
    }
}

pub fn presented(ticket: Ticket) -> PresentedTicket {
    PresentedTicket::Ticket(ticket)
}
