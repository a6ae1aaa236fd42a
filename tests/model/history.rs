//! Long random histories of several clients: every answer is compared with the reference model's, every
//! state held against the invariants, and what clients believe against what is.
//!
//! The store lags behind as it does under group commit: answers wait until the changes before them are
//! durable, and a crash loses whatever is not. A failure prints its seed, which is kept in
//! `regressions.txt` and replayed first from then on.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use small_resource_server::lock::command::Event;
use small_resource_server::lock::rows::{Forced, HeadRow, LockRows};
use small_resource_server::lock::{
    Answer, Command, EndReason, FencingToken, IdempotencyKey, KeyName, LockOptions, LockRequest,
    LockState, Mode, Now, Owner, PresentedTicket, Profile, Reason, RequestId, ResourceOptions,
    Seconds, Terms, Ticket, Ttl, WaitPolicy, invariants,
};

use crate::beliefs::{self, Belief};
use crate::reference::Model;

const CLIENTS: usize = 4;

#[derive(Clone, Copy, Debug)]
enum Show {
    Nothing,
    Current,
    Old(u8),
    Stranger,
}

#[derive(Clone, Copy, Debug)]
enum Wants {
    Lock {
        key: Option<u8>,
        ttl: Option<u8>,
        owner: bool,
        mode: Option<Mode>,
    },
    Touch,
    Write,
    Renew {
        ttl: Option<u8>,
        exact: bool,
    },
    Unlock,
    Force {
        by_token: bool,
    },
    /// Of the waiters this one, or where nobody waits the client's own ticket.
    Remove {
        place: usize,
    },
    Delete,
}

/// How long a request may wait.
#[derive(Clone, Copy, Debug)]
enum Waits {
    Never,
    Poll,
    Millis(u16),
    ThenLeave(u16),
    Forever,
}

/// What becomes of an answer that left the server.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Received,
    /// The client has it before the server knows that it was delivered.
    ReceivedBeforeDelivered,
    /// The connection was found broken before the answer left.
    Vanished,
    /// It left, and then the connection was found broken.
    DeliveredThenVanished,
    /// It left, the client never saw it, and nobody knows.
    LostUnnoticed,
}

#[derive(Clone, Debug)]
enum Action {
    Send {
        client: usize,
        show: Show,
        wants: Wants,
        waits: Waits,
        /// What the answer to a lock or a write needs has to be loaded first.
        loads: bool,
    },
    /// What one of those needs is there; or it has to be loaded once more.
    Loaded {
        pick: usize,
        again: bool,
    },
    Pass(u64),
    /// Time passes and no timer rings: the next command finds it passed.
    Pause(u64),
    Commit,
    Answer {
        pick: usize,
        fate: Fate,
    },
    /// The server learns that an answer was delivered which its client has had for a while.
    DeliveredLate,
    /// The client of an open request hangs up.
    HangUp {
        pick: usize,
    },
    /// The resource leaves memory under its lease, if it may, and is loaded again after this long.
    Sleep(u64),
    /// The process ends. Of the answers under way those that `received` says arrive all the same.
    Crash {
        received: u16,
        leases_later: u16,
    },
}

struct Call {
    client: usize,
    sent: u64,
    shown: Option<Ticket>,
    /// Its answer is on the way, durable or not yet.
    answered: bool,
}

#[derive(Default)]
struct Client {
    ticket: Option<Ticket>,
    /// Tickets that it no longer counts on.
    past: Vec<Ticket>,
    belief: Option<Belief>,
    /// Its last requests that may make its lease end earlier, or let others share.
    asked_for_less: Option<RequestId>,
    asked_to_share: Option<RequestId>,
}

struct Run {
    core: LockState,
    model: Model,
    rows: LockRows,
    durable: (LockRows, Model),
    terms: Terms,
    options: ResourceOptions,
    now: Now,
    clients: [Client; CLIENTS],
    calls: BTreeMap<RequestId, Call>,
    /// Answered, and waiting for the changes before them to be durable.
    held_back: Vec<(RequestId, Answer)>,
    under_way: Vec<(RequestId, Answer)>,
    delivered_late: Vec<RequestId>,
    /// Requests that come again when what they need is loaded.
    loading: Vec<(Command, Waits)>,
    /// Leases that were ended from above; their clients are wrong through no fault of the lock.
    forced: Vec<FencingToken>,
    /// Tokens and what they became.
    promoted: Vec<(FencingToken, FencingToken)>,
    next: u64,
}

fn ttl_of(choice: Option<u8>) -> Option<Ttl> {
    let millis = [0, 1_000, 1_500, 10_000, 100_001];
    choice.and_then(|c| Ttl::from_millis(millis[usize::from(c) % millis.len()]))
}

impl Run {
    fn new(terms: Terms, options: ResourceOptions) -> Run {
        let model = Model::new(terms, options, FencingToken(0));
        Run {
            core: LockState::new(options, FencingToken(0)),
            rows: LockRows::default(),
            durable: (LockRows::default(), model.clone()),
            model,
            terms,
            options,
            now: Now {
                mono: 500_000,
                wall: 9_000_000,
            },
            clients: Default::default(),
            calls: BTreeMap::new(),
            held_back: Vec::new(),
            under_way: Vec::new(),
            delivered_late: Vec::new(),
            loading: Vec::new(),
            forced: Vec::new(),
            promoted: Vec::new(),
            next: 0,
        }
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn act(&mut self, action: &Action) {
        match action {
            Action::Send {
                client,
                show,
                wants,
                waits,
                loads,
            } => self.send(*client, *show, *wants, *waits, *loads),
            Action::Loaded { pick, again } => self.loaded(*pick, *again),
            Action::Pass(millis) => self.pass(*millis),
            Action::Pause(millis) => {
                self.now.mono += millis;
                self.now.wall += millis;
            }
            Action::Commit => self.commit(),
            Action::Answer { pick, fate } => self.resolve(*pick, *fate),
            Action::DeliveredLate => {
                if let Some(request) = self.delivered_late.pop() {
                    self.delivered(request);
                }
            }
            Action::HangUp { pick } => self.hang_up(*pick),
            Action::Sleep(millis) => self.sleep(*millis),
            Action::Crash {
                received,
                leases_later,
            } => self.crash(*received, u64::from(*leases_later)),
        }
        self.check();
    }

    // ---- the two sides ----------------------------------------------------------------------------

    fn apply(&mut self, command: Command) {
        let expected = self.model.apply(self.now, &command);
        let outcome = self.core.apply(&self.terms, self.now, command);
        outcome.changes.overlay(&mut self.rows);
        for event in &outcome.events {
            if let Event::Promoted { from, holder } = event {
                self.promoted.push((*from, holder.token));
            }
            if let Event::Ended {
                reason: EndReason::ForcedOff,
                holder,
                ..
            } = event
            {
                self.forced.push(holder.token);
                for (from, to) in self.promoted.iter().rev() {
                    if self.forced.contains(to) {
                        self.forced.push(*from);
                    }
                }
            }
        }
        for (request, answer) in &outcome.answers {
            if let Some(call) = self.calls.get_mut(request) {
                call.answered = true;
            }
            if *answer == Answer::Deletable {
                self.start_anew();
            }
        }
        let answers: BTreeMap<_, _> = outcome.answers.iter().cloned().collect();
        assert_eq!(answers.len(), outcome.answers.len(), "answered twice");
        assert_eq!(answers, expected, "the core and the model disagree");
        self.held_back.extend(outcome.answers);
        self.forget_forced();
        invariants::check_rows(&self.core, &self.rows).unwrap();
    }

    /// Deleted, and created again at once.
    fn start_anew(&mut self) {
        let token = self.core.token();
        self.forced.extend((1..=token.0).map(FencingToken));
        self.core = LockState::new(self.options, token);
        self.model = Model::new(self.terms, self.options, token);
        self.rows = LockRows {
            head: HeadRow {
                token,
                ..HeadRow::default()
            },
            ..LockRows::default()
        };
    }

    fn check(&self) {
        let locked = (self.core.is_locked(), self.core.waiting());
        assert_eq!(self.core.token(), self.model.token());
        let paused = self.core.deadline().is_some_and(|at| at <= self.now.mono);
        if !paused {
            assert_eq!(locked, (self.model.is_locked(), self.model.waiting()));
            invariants::check(&self.core, &self.terms, self.now).unwrap();
        }
        if let Some(due) = self.model.next_due() {
            let rings = self.core.deadline();
            assert!(
                rings.is_some_and(|at| at <= due),
                "the timer rings too late"
            );
        }
        let beliefs = || self.clients.iter().filter_map(|c| c.belief.as_ref());
        let slots = usize::from(self.options.slots);
        beliefs::stand_together(beliefs(), slots, self.now.mono).unwrap();
        let mut held: Vec<FencingToken> = self
            .core
            .holders(&self.terms, self.now)
            .map(|holder| holder.token)
            .collect();
        // Whoever was promoted and does not know it yet holds more than it thinks.
        for (from, to) in self.promoted.iter().rev() {
            if held.contains(to) {
                held.push(*from);
            }
        }
        beliefs::not_early(beliefs(), &held, self.now.mono).unwrap();
    }

    fn pass(&mut self, millis: u64) {
        let end = self.now.mono + millis;
        while let Some(at) = self.core.deadline().filter(|at| *at <= end) {
            let step = at.saturating_sub(self.now.mono);
            self.now.mono += step;
            self.now.wall += step;
            self.apply(Command::Tick);
        }
        let step = end - self.now.mono;
        self.now.mono += step;
        self.now.wall += step;
        self.apply(Command::Tick);
    }

    fn commit(&mut self) {
        self.durable = (self.rows.clone(), self.model.clone());
        self.under_way.append(&mut self.held_back);
    }

    /// To the model nothing happens, but that tickets which ended are remembered for longer.
    fn sleep(&mut self, millis: u64) {
        let durable = self.rows == self.durable.0 && self.held_back.is_empty();
        let Some(memory) = self.core.suspend().filter(|_| durable) else {
            return;
        };
        self.now.mono += millis;
        self.now.wall += millis;
        let rows = self.rows.clone();
        self.core = LockState::resume(self.options, rows, &self.terms, self.now, &memory);
        self.model.remember_ended_from(self.now);
        invariants::check_rows(&self.core, &self.rows).unwrap();
        self.apply(Command::Tick);
    }

    fn crash(&mut self, received: u16, leases_later: u64) {
        for (bit, (request, answer)) in std::mem::take(&mut self.under_way).into_iter().enumerate()
        {
            if bit >= 16 || received >> bit & 1 == 1 {
                self.receive(request, &answer);
            }
        }
        self.held_back.clear();
        self.delivered_late.clear();
        self.loading.clear();
        self.calls.clear();
        let from = self.now.mono + leases_later;
        self.rows = self.durable.0.clone();
        self.model = self.durable.1.clone();
        self.model.restart(self.now, from);
        let rows = self.rows.clone();
        self.core = LockState::restore(self.options, rows, &self.terms, self.now, from);
        invariants::check_rows(&self.core, &self.rows).unwrap();
    }

    // ---- clients ----------------------------------------------------------------------------------

    fn send(&mut self, index: usize, show: Show, wants: Wants, waits: Waits, loads: bool) {
        let client = &mut self.clients[index];
        let presented = match show {
            Show::Nothing => PresentedTicket::Absent,
            Show::Stranger => PresentedTicket::Malformed,
            Show::Current => client
                .ticket
                .map_or(PresentedTicket::Absent, PresentedTicket::Ticket),
            Show::Old(n) if client.past.is_empty() => {
                PresentedTicket::Ticket(Ticket::from_bits(n.into()))
            }
            Show::Old(n) => {
                PresentedTicket::Ticket(client.past[usize::from(n) % client.past.len()])
            }
        };
        let shown = match presented {
            PresentedTicket::Ticket(ticket) => Some(ticket),
            _ => None,
        };
        let gives_up = matches!(wants, Wants::Unlock | Wants::Delete);
        if gives_up && shown.is_some() {
            client.past.extend(shown);
            if shown == client.ticket {
                client.ticket = None;
                client.belief = None;
            }
        }
        let request = self.number();
        self.expect_less(index, request, wants);
        let call = Call {
            client: index,
            sent: self.now.mono,
            shown,
            answered: false,
        };
        self.calls.insert(request, call);
        let command = self.command(request, index, presented, wants, waits);
        if loads && matches!(wants, Wants::Lock { .. } | Wants::Write) {
            return self.load(request, command, waits);
        }
        self.apply(command);
    }

    /// The first of the two times that the core sees this request, or one before the last.
    fn load(&mut self, request: RequestId, command: Command, waits: Waits) {
        let policy = WaitPolicy::Loading;
        self.apply(with_policy(command.clone(), policy));
        if self.calls.get(&request).is_some_and(|call| !call.answered) {
            self.loading.push((command, waits));
        }
    }

    fn loaded(&mut self, pick: usize, again: bool) {
        if self.loading.is_empty() {
            return;
        }
        let (mut command, waits) = self.loading.remove(pick % self.loading.len());
        let new = Ticket::from_bits(u128::from(1_000 + self.number()));
        if let Command::Acquire(LockRequest { fresh, .. }) | Command::Write { fresh, .. } =
            &mut command
        {
            *fresh = new;
        }
        let (Command::Acquire(LockRequest { request, .. }) | Command::Write { request, .. }) =
            command
        else {
            unreachable!("nothing else loads")
        };
        match again {
            true => self.load(request, command, waits),
            false => {
                let policy = self.wait_policy(waits);
                self.apply(with_policy(command, policy));
            }
        }
    }

    fn wait_policy(&self, waits: Waits) -> WaitPolicy {
        match waits {
            Waits::Never => WaitPolicy::Never,
            Waits::Poll => WaitPolicy::Poll,
            Waits::Millis(ms) => WaitPolicy::Until(self.now.mono + u64::from(ms)),
            Waits::ThenLeave(ms) => WaitPolicy::UntilThenLeave(self.now.mono + u64::from(ms)),
            Waits::Forever => WaitPolicy::Forever,
        }
    }

    /// What a client does not count on any more when it has sent this.
    fn expect_less(&mut self, index: usize, request: RequestId, wants: Wants) {
        let (now, slots) = (self.now.mono, self.options.slots);
        let client = &mut self.clients[index];
        match wants {
            Wants::Renew { exact: true, .. } => {
                client.asked_for_less = Some(request);
                client.belief.iter_mut().for_each(|belief| belief.cut(now));
            }
            Wants::Lock {
                mode: Some(Mode::Shared),
                ..
            } if slots == 1 => {
                client.asked_to_share = Some(request);
                let beliefs = client.belief.iter_mut();
                beliefs.for_each(|belief| belief.mode = Mode::Shared);
            }
            _ => {}
        }
    }

    fn command(
        &mut self,
        request: RequestId,
        client: usize,
        presented: PresentedTicket,
        wants: Wants,
        waits: Waits,
    ) -> Command {
        let fresh = Ticket::from_bits(u128::from(1_000 + self.number()));
        let policy = self.wait_policy(waits);
        match wants {
            Wants::Lock {
                key,
                ttl,
                owner,
                mode,
            } => Command::Acquire(LockRequest {
                request,
                presented,
                fresh,
                options: LockOptions {
                    owner: owner.then(|| Owner::parse("ann").unwrap()),
                    ttl: ttl_of(ttl),
                    mode,
                    // A client's keys are its own, or another could learn its ticket.
                    key: key.and_then(|k| IdempotencyKey::parse(&format!("{client}-{k}"))),
                    ..LockOptions::default()
                },
                policy,
            }),
            Wants::Touch => Command::Touch { request, presented },
            Wants::Write => Command::Write {
                request,
                presented,
                fresh,
                policy,
            },
            Wants::Renew { ttl, exact } => Command::Renew {
                request,
                presented,
                ttl: ttl_of(ttl),
                exact,
            },
            Wants::Unlock => Command::Unlock { request, presented },
            Wants::Force { by_token } => Command::ForceUnlock {
                request,
                token: by_token.then(|| self.core.token()),
                forced: Box::new(forced()),
            },
            Wants::Remove { place } => {
                let places = self.core.places(self.now, CLIENTS);
                let own = self.clients[client].ticket.or(presented.ticket());
                let own = own.unwrap_or(Ticket::from_bits(0)).id();
                Command::RemoveWaiter {
                    request,
                    waiter: places.get(place).map_or(own, |place| place.id),
                    forced: Box::new(forced()),
                }
            }
            Wants::Delete => Command::Delete { request, presented },
        }
    }

    fn receive(&mut self, request: RequestId, answer: &Answer) {
        let Some(call) = self.calls.remove(&request) else {
            return;
        };
        let client = &mut self.clients[call.client];
        let given_up = |ticket: Option<Ticket>| ticket.is_some_and(|t| client.past.contains(&t));
        match answer {
            Answer::Granted(grant) if !given_up(Some(grant.ticket)) => {
                let mut told =
                    Belief::new(grant.holder.token, grant.holder.mode, call.sent, grant.ttl);
                if client.asked_for_less > Some(request) {
                    told.cut(call.sent);
                }
                if client.asked_to_share > Some(request) {
                    told.mode = Mode::Shared;
                }
                match &mut client.belief {
                    Some(known) if known.token == told.token => {
                        if told.mode == Mode::Shared {
                            known.mode = Mode::Shared;
                        }
                        if client.asked_for_less <= Some(request) {
                            known.extend(call.sent, grant.ttl);
                        }
                    }
                    // Answers overtake each other; the higher token is the later news.
                    Some(known) if known.token > told.token => {}
                    belief => {
                        client
                            .past
                            .extend(client.ticket.filter(|old| *old != grant.ticket));
                        client.ticket = Some(grant.ticket);
                        *belief = Some(told);
                    }
                }
            }
            Answer::Queued { ticket, .. } if !given_up(Some(*ticket)) => {
                if client.belief.is_none() {
                    client
                        .past
                        .extend(client.ticket.filter(|old| old != ticket));
                    client.ticket = Some(*ticket);
                } else if client.ticket != Some(*ticket) {
                    client.past.push(*ticket);
                }
            }
            Answer::Renewed { ttl, token, .. } if !given_up(call.shown) => {
                let counts = client.asked_for_less <= Some(request);
                if let Some(known) = client.belief.as_mut().filter(|b| b.token == *token) {
                    if counts {
                        known.extend(call.sent, *ttl);
                    }
                } else if client.ticket == call.shown && client.belief.is_none() && counts {
                    // Not told in which mode, so it counts on the least there is.
                    let least = match self.options.slots {
                        1 => Mode::Shared,
                        _ => Mode::Exclusive,
                    };
                    client.belief = Some(Belief::new(*token, least, call.sent, *ttl));
                }
            }
            _ => {}
        }
        self.forget_forced();
    }

    fn delivered(&mut self, request: RequestId) {
        self.core.delivered(&self.terms, self.now, request);
        self.model.delivered(self.now, request);
        self.apply(Command::Tick);
    }

    fn forget_forced(&mut self) {
        for client in &mut self.clients {
            client
                .belief
                .take_if(|belief| self.forced.contains(&belief.token));
        }
    }

    fn resolve(&mut self, pick: usize, fate: Fate) {
        if self.under_way.is_empty() {
            return;
        }
        let (request, answer) = self.under_way.remove(pick % self.under_way.len());
        let tracked = answer.is_tracked();
        match fate {
            Fate::Received => {
                self.receive(request, &answer);
                if tracked {
                    self.delivered(request);
                }
            }
            Fate::ReceivedBeforeDelivered => {
                self.receive(request, &answer);
                if tracked {
                    self.delivered_late.push(request);
                }
            }
            Fate::Vanished if tracked => self.apply(Command::Vanished { request }),
            Fate::DeliveredThenVanished if tracked => {
                self.delivered(request);
                self.apply(Command::Vanished { request });
            }
            Fate::LostUnnoticed if tracked => self.delivered(request),
            _ => {}
        }
        self.calls.remove(&request);
    }

    /// A client that waits, or whose answer is not durable yet, hangs up.
    fn hang_up(&mut self, pick: usize) {
        let open: Vec<RequestId> = self
            .calls
            .iter()
            .filter(|(request, call)| {
                !call.answered || self.held_back.iter().any(|(r, _)| r == *request)
            })
            .map(|(request, _)| *request)
            .collect();
        if open.is_empty() {
            return;
        }
        let request = open[pick % open.len()];
        self.calls.remove(&request);
        self.loading.retain(|(command, _)| {
            !matches!(command, Command::Acquire(LockRequest { request: r, .. }) | Command::Write { request: r, .. } if *r == request)
        });
        self.apply(Command::Vanished { request });
        self.held_back.retain(|(r, _)| *r != request);
    }
}

/// The same request, with another wait policy.
fn with_policy(mut command: Command, new: WaitPolicy) -> Command {
    if let Command::Acquire(LockRequest { policy, .. }) | Command::Write { policy, .. } =
        &mut command
    {
        *policy = new;
    }
    command
}

// ---- generation -----------------------------------------------------------------------------------

fn shows() -> impl Strategy<Value = Show> {
    prop_oneof![
        3 => Just(Show::Nothing),
        8 => Just(Show::Current),
        2 => any::<u8>().prop_map(Show::Old),
        1 => Just(Show::Stranger),
    ]
}

fn ttls() -> impl Strategy<Value = Option<u8>> {
    prop_oneof![2 => Just(None), 3 => (0..5u8).prop_map(Some)]
}

fn wants() -> impl Strategy<Value = Wants> {
    let keys = prop_oneof![2 => Just(None), 1 => (0..2u8).prop_map(Some)];
    let lock =
        (keys, ttls(), any::<bool>(), modes()).prop_map(|(key, ttl, owner, mode)| Wants::Lock {
            key,
            ttl,
            owner,
            mode,
        });
    prop_oneof![
        12 => lock,
        2 => Just(Wants::Touch),
        4 => Just(Wants::Write),
        4 => (ttls(), any::<bool>()).prop_map(|(ttl, exact)| Wants::Renew { ttl, exact }),
        5 => Just(Wants::Unlock),
        1 => any::<bool>().prop_map(|by_token| Wants::Force { by_token }),
        2 => (0..CLIENTS).prop_map(|place| Wants::Remove { place }),
        1 => Just(Wants::Delete),
    ]
}

fn forced() -> Forced {
    Forced {
        reason: Reason::parse("stuck").unwrap(),
        by: KeyName::parse("admin").unwrap(),
    }
}

fn modes() -> impl Strategy<Value = Option<Mode>> {
    prop_oneof![
        3 => Just(None),
        3 => Just(Some(Mode::Shared)),
        1 => Just(Some(Mode::Exclusive)),
    ]
}

fn options() -> impl Strategy<Value = ResourceOptions> {
    let timeouts = prop_oneof![Just(0), Just(2), Just(7)];
    let delays = prop_oneof![3 => Just(0), 1 => Just(2)];
    (timeouts, prop_oneof![2 => Just(1), 1 => 2..4u16], delays).prop_map(
        |(timeout, slots, lock_delay)| ResourceOptions {
            timeout: Seconds::new(timeout).unwrap(),
            slots,
            lock_delay,
            ephemeral: false,
        },
    )
}

fn waits() -> impl Strategy<Value = Waits> {
    prop_oneof![
        1 => Just(Waits::Never),
        3 => Just(Waits::Poll),
        4 => (0..12_000u16).prop_map(Waits::Millis),
        1 => (0..5_000u16).prop_map(Waits::ThenLeave),
        1 => (0..4u16).prop_map(|s| Waits::Millis(s * 1_000)),
        1 => Just(Waits::Forever),
    ]
}

/// Steps, small and large; whole seconds are frequent, so that several things are due at one instant.
fn times() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => 0..1_500u64,
        4 => (0..6u64).prop_map(|s| s * 1_000),
        2 => (0..12u64).prop_map(|s| s * 1_000 + 1),
        2 => 1_000..70_000u64,
        1 => 100_000..100_000_000u64,
    ]
}

fn fates() -> impl Strategy<Value = Fate> {
    prop_oneof![
        8 => Just(Fate::Received),
        3 => Just(Fate::ReceivedBeforeDelivered),
        2 => Just(Fate::Vanished),
        2 => Just(Fate::DeliveredThenVanished),
        1 => Just(Fate::LostUnnoticed),
    ]
}

fn actions() -> impl Strategy<Value = Action> {
    let loads = prop_oneof![3 => Just(false), 1 => Just(true)];
    let send = (0..CLIENTS, shows(), wants(), waits(), loads).prop_map(
        |(client, show, wants, waits, loads)| Action::Send {
            client,
            show,
            wants,
            waits,
            loads,
        },
    );
    let again = prop_oneof![4 => Just(false), 1 => Just(true)];
    prop_oneof![
        16 => send,
        5 => (0..8usize, again).prop_map(|(pick, again)| Action::Loaded { pick, again }),
        5 => times().prop_map(Action::Pass),
        2 => times().prop_map(Action::Pause),
        12 => Just(Action::Commit),
        14 => (0..8usize, fates()).prop_map(|(pick, fate)| Action::Answer { pick, fate }),
        3 => Just(Action::DeliveredLate),
        3 => (0..8usize).prop_map(|pick| Action::HangUp { pick }),
        6 => times().prop_map(Action::Sleep),
        1 => (any::<u16>(), 0..3_000u16)
            .prop_map(|(received, leases_later)| Action::Crash { received, leases_later }),
    ]
}

fn terms() -> impl Strategy<Value = Terms> {
    (any::<bool>(), any::<bool>(), 1..6usize).prop_map(|(php, capped, waiters_max)| Terms {
        profile: if php { Profile::Php } else { Profile::Default },
        lease_seconds_max: Seconds::new(if capped { 20 } else { 0 }).unwrap(),
        waiters_max,
        ..Terms::default()
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(
            "tests/model/regressions.txt",
        ))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_history_is_answered_as_the_simple_model_answers_it(
        terms in terms(),
        options in options(),
        history in prop::collection::vec(actions(), 1..160),
    ) {
        let mut run = Run::new(terms, options);
        for action in &history {
            run.act(action);
        }
    }

    /// The wall clock is shown and never decides.
    #[test]
    fn any_history_goes_the_same_way_whatever_the_wall_clock_does(
        history in prop::collection::vec((actions(), -4_000_000i64..4_000_000), 1..80),
    ) {
        let timeout = ResourceOptions::plain(Seconds::new(5).unwrap());
        let mut steady = Run::new(Terms::default(), timeout);
        let mut stepping = Run::new(Terms::default(), timeout);
        for (action, step) in &history {
            steady.act(action);
            stepping.now.wall = stepping.now.wall.saturating_add_signed(*step);
            stepping.act(action);
            prop_assert_eq!(steady.core.deadline(), stepping.core.deadline());
            prop_assert_eq!(steady.core.token(), stepping.core.token());
            prop_assert_eq!(steady.core.is_locked(), stepping.core.is_locked());
            prop_assert_eq!(steady.core.waiting(), stepping.core.waiting());
        }
    }
}
