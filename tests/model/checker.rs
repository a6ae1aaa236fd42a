//! All interleavings of a few clients, a clock, a network that loses answers and a server that crashes.
//!
//! A request is sent, arrives, and is answered in separate steps, so that it may be late by any number of
//! other steps; what the server decides is durable when it answers. The rules are judged from outside:
//! from what was asked, what was answered and what is on the disk.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use small_resource_server::lock::command::Event;
use small_resource_server::lock::rows::{Forced, HolderRow};
use small_resource_server::lock::{
    Answer, Command, EndReason, FencingToken, IdempotencyKey, KeyName, LockOptions, LockRequest,
    Millis, Mode, Now, Outcome, PresentedTicket, Reason, Refusal, RequestId, ResourceOptions,
    Seconds, Terms, Ticket, Ttl, WaitPolicy,
};
use stateright::semantics::{ConsistencyTester, LinearizabilityTester};
use stateright::{Model, Property};

use crate::beliefs::{self, Belief};
use crate::linear::{LockedRegister, Op as Operation, Ret};
use crate::server::{Disk, Fault, Server};

pub const TOGETHER: &str = "clients that rightly believe that they hold may hold together";
pub const NOT_EARLY: &str = "no lease ends while its client counts on it";
pub const TOKENS_GROW: &str = "fencing tokens strictly grow, across crashes too";
pub const GUARDED: &str = "data changes only by a holder that may write, or while nobody holds";
pub const DELAYED: &str = "nobody is granted during the lock-delay";
pub const IN_ORDER: &str = "grants follow the order of arrival among near tickets";
pub const WOKEN: &str = "nobody waits for a lock that is free or its own";
pub const KEPT: &str = "nothing acknowledged is lost";
pub const LINEARIZABLE: &str = "the history is linearizable";

const TICK: Millis = 1_000;
const START: Millis = 10_000;

fn terms() -> Terms {
    Terms {
        claim_ms: TICK,
        ticket_ttl_ms: 3 * TICK,
        ..Terms::default()
    }
}

// ---- what there is --------------------------------------------------------------------------------

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// Asks for the lock, without waiting.
    Poll,
    /// Asks for the lock and waits for two ticks.
    Wait,
    /// Asks for the lock and waits for two ticks, and leaves no place behind then.
    WaitThenLeave,
    /// Asks to share, without waiting; as a holder, for nothing more than to share.
    PollShared,
    /// Asks to share and waits for two ticks.
    WaitShared,
    /// A reader asks to have the lock to itself, and would wait.
    Promote,
    Renew,
    /// Its lease is to end a tick from now.
    RenewExact,
    /// Ends every lease.
    Force,
    Write,
    WriteAndRelease,
    Read,
    Unlock,
}

impl Op {
    fn asks(self) -> bool {
        use Op::*;
        matches!(
            self,
            Poll | Wait | WaitThenLeave | PollShared | WaitShared | Promote
        )
    }

    fn shares(self) -> bool {
        matches!(self, Op::PollShared | Op::WaitShared)
    }

    fn mode(self) -> Option<Mode> {
        match self {
            Op::PollShared | Op::WaitShared => Some(Mode::Shared),
            Op::Promote => Some(Mode::Exclusive),
            _ => None,
        }
    }
}

/// What a client may do.
#[derive(Clone, Copy, Debug)]
pub enum Plan {
    /// So many of these, in any order.
    Any(u8, &'static [Op]),
    /// These, in this order.
    Script(&'static [Op]),
}

#[derive(Clone, Debug)]
pub struct Setting {
    pub plans: Vec<Plan>,
    /// The first client sends an idempotency key with its attempts.
    pub keyed: bool,
    /// Of the resource.
    pub options: ResourceOptions,
    /// Of every lease, in ticks; 0: they do not expire.
    pub ttl: i64,
    pub ticks: u8,
    pub crashes: u8,
    pub losses: u8,
    /// Record the history and check, instead of the other rules, that it is linearizable.
    pub linear: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Reply {
    Held {
        ticket: Option<Ticket>,
        token: FencingToken,
        mode: Mode,
        ttl: Ttl,
    },
    Place(Ticket),
    Wrote {
        version: u8,
    },
    Value,
    Released,
    Dead,
    Refused,
    /// Refused after a wait that left no place.
    LeftWithout,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Stage {
    /// On its way to the server.
    Sent,
    /// The server has it and does not answer yet.
    Waiting,
    Answered {
        reply: Reply,
        tracked: bool,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Call {
    request: RequestId,
    op: Op,
    sent: Millis,
    /// The ticket that it presents.
    shown: Option<Ticket>,
    stage: Stage,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Client {
    done: u8,
    ticket: Option<Ticket>,
    belief: Option<Belief>,
    call: Option<Call>,
    /// When its place was taken, counted over all clients.
    arrived: Option<u8>,
    /// Its ticket has held the lock, or is no place any more for another reason.
    held: bool,
    /// When the server last heard of its ticket.
    heard: Millis,
}

type History = LinearizabilityTester<u64, LockedRegister>;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World<F: Fault> {
    options: ResourceOptions,
    server: Server<F>,
    disk: Disk,
    now: Millis,
    clients: Vec<Client>,
    ticks: u8,
    crashes: u8,
    losses: u8,
    arrivals: u8,
    highest: FencingToken,
    /// Tokens that somebody still counts on, and what they became.
    promoted: Vec<(FencingToken, FencingToken)>,
    /// Of leases that were forced off, while answers that tell of them are on their way.
    forced: Vec<FencingToken>,
    /// Nobody may be granted before.
    delayed: Option<Millis>,
    /// The newest version whose write was acknowledged.
    acknowledged: u8,
    lapses: u64,
    history: Option<History>,
    /// In the last step.
    seen: Vec<&'static str>,
    pub broken: Option<&'static str>,
}

/// What must happen in some interleaving, or the checker would check nothing.
pub mod seen {
    pub const EXPIRY: &str = "a lease expires";
    pub const WOKEN_UP: &str = "a waiter is woken";
    pub const TAKEN_BACK: &str = "a grant is taken back";
    pub const STALE_REFUSED: &str = "a stale write is refused";
    pub const RESERVED_USED: &str = "a waiting ticket comes back and gets the lock";
    pub const BESIDE: &str = "a lease begins beside another";
    pub const READER_WAITS: &str = "a reader waits although readers hold";
    pub const PROMOTED: &str = "a reader is promoted";
    pub const PROMOTED_PAST: &str = "a reader is promoted past somebody who waits";
    pub const NOT_PROMOTED: &str = "a promotion is refused at once";
    pub const DEMOTED: &str = "a writer lets others share";
    pub const NOT_EXCLUSIVE: &str = "a reader's write is refused";
    pub const HELD_OFF: &str = "somebody waits for the end of a lock-delay";
    pub const AFTER_DELAY: &str = "somebody is granted after a lock-delay";
    pub const GONE: &str = "an ephemeral name goes";
    pub const AGAIN: &str = "an ephemeral name that was gone is granted again";
    pub const LOSS_TOLD: &str = "a lost lease is told of although its name is gone";
    pub const CUT: &str = "an exact renewal makes a lease end earlier";
    pub const LEFT: &str = "a wait ends and leaves no place";
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Send(usize, Op),
    /// The request reaches the server; what follows from it is durable.
    Arrive(usize),
    /// The answer reaches its client, and the server knows.
    Receive(usize),
    /// The answer is lost; the server finds the connection broken, or does not notice.
    Lose(usize, bool),
    /// The client of a request that waits hangs up.
    HangUp(usize),
    Tick,
    /// The process ends and starts again: with all that was decided, or without what the request of this
    /// client, just arrived, had led to.
    Crash(Option<usize>),
}

// ---- how it goes on -------------------------------------------------------------------------------

pub struct Checked<F: Fault> {
    pub setting: Setting,
    /// Which of [`seen`] have happened.
    pub seen: Arc<Mutex<BTreeSet<&'static str>>>,
    _fault: F,
}

impl<F: Fault> World<F> {
    fn start(setting: &Setting) -> Self {
        World {
            options: setting.options,
            server: Server::start(setting.options),
            disk: Disk {
                exists: !setting.options.ephemeral,
                ..Disk::default()
            },
            now: START,
            clients: vec![Client::default(); setting.plans.len()],
            ticks: setting.ticks,
            crashes: setting.crashes,
            losses: setting.losses,
            arrivals: 0,
            highest: FencingToken(0),
            promoted: Vec::new(),
            forced: Vec::new(),
            delayed: None,
            acknowledged: 0,
            lapses: 0,
            history: setting
                .linear
                .then(|| LinearizabilityTester::new(LockedRegister::default())),
            seen: Vec::new(),
            broken: None,
        }
    }

    fn clock(&self) -> Now {
        Now {
            mono: self.now,
            wall: 0,
        }
    }

    fn judge(&mut self, rule: &'static str, holds: bool) {
        if !holds && self.history.is_none() {
            self.broken.get_or_insert(rule);
        }
    }

    /// Forgets what can make no difference any more, so that equal worlds are the same state.
    fn normalise(&mut self) {
        let mut order: Vec<usize> = (0..self.clients.len())
            .filter(|index| self.clients[*index].arrived.is_some())
            .collect();
        order.sort_by_key(|index| self.clients[*index].arrived);
        self.arrivals = order.len() as u8;
        for (rank, index) in (1..).zip(order) {
            self.clients[index].arrived = Some(rank);
        }
        for client in &mut self.clients {
            if client.ticket.is_none() {
                client.heard = 0;
                client.held = false;
            }
        }
        let clients = &self.clients;
        self.promoted.retain(|(from, _)| {
            let believed =
                |client: &Client| client.belief.as_ref().is_some_and(|b| b.token == *from);
            clients.iter().any(believed)
        });
        self.forced.retain(|token| {
            let on_its_way = |client: &Client| {
                matches!(&client.call, Some(Call { stage: Stage::Answered { reply: Reply::Held { token: told, .. }, .. }, .. }) if told == token)
            };
            clients.iter().any(on_its_way)
        });
        let now = self.now;
        self.delayed.take_if(|until| *until <= now);
    }

    /// All that hold, as stored.
    fn holders(&self) -> impl Iterator<Item = &HolderRow> {
        let rows = &self.disk.rows;
        rows.head.holder.as_deref().into_iter().chain(&rows.holding)
    }

    fn is_delayed(&self) -> bool {
        self.delayed.is_some_and(|until| self.now < until)
    }

    fn send(&mut self, index: usize, op: Op) {
        let now = self.now;
        let client = &mut self.clients[index];
        client.done += 1;
        let request = index as u64 * 32 + u64::from(client.done);
        let shown = client.ticket;
        if matches!(op, Op::Unlock | Op::WriteAndRelease) {
            // From now on it does not count on its lease any more.
            client.belief = None;
            client.arrived = None;
        }
        if let Some(belief) = &mut client.belief {
            match op {
                Op::RenewExact => belief.cut(now),
                _ if op.shares() => belief.mode = Mode::Shared,
                _ => {}
            }
        }
        client.call = Some(Call {
            request,
            op,
            sent: now,
            shown,
            stage: Stage::Sent,
        });
        if let Some(history) = &mut self.history {
            let value = request as u8;
            let operation = match op {
                _ if op.asks() => Operation::Lock,
                Op::Renew | Op::RenewExact => Operation::Renew,
                Op::Write => Operation::Write {
                    value,
                    release: false,
                },
                Op::WriteAndRelease => Operation::Write {
                    value,
                    release: true,
                },
                Op::Read => Operation::Read,
                Op::Unlock => Operation::Unlock,
                _ => unreachable!("not an operation of one register: {op:?}"),
            };
            history.on_invoke(request, operation).unwrap();
        }
    }

    fn arrive(&mut self, index: usize, setting: &Setting) {
        let call = self.clients[index].call.clone().unwrap();
        let asks = call.op.asks();
        let knows_place = call.shown.is_some_and(|t| self.server.core().is_live(t));
        let presents = !matches!(call.op, Op::Read | Op::Force);
        let client = &mut self.clients[index];
        if knows_place && presents {
            client.heard = self.now;
        } else if !knows_place {
            // It does not know yet that it has no place any more.
            client.held = true;
        }
        if let Some(call) = &mut client.call {
            call.stage = Stage::Waiting;
        }
        if asks && !knows_place {
            self.arrivals += 1;
            client.arrived = Some(self.arrivals);
        }
        let presented = call
            .shown
            .map_or(PresentedTicket::Absent, PresentedTicket::Ticket);
        let request = call.request;
        let fresh = Ticket::from_bits(request.into());
        let key = IdempotencyKey::parse("k").filter(|_| setting.keyed && index == 0);
        let ttl = Seconds::new(setting.ttl).map(Ttl::from);
        let command = match call.op {
            Op::Read => {
                let value = self.server.data.value;
                self.answered(index, Reply::Value, false);
                return self.returned(request, Ret::Value(value));
            }
            op if op.asks() => Command::Acquire(LockRequest {
                request,
                presented,
                fresh,
                options: LockOptions {
                    ttl,
                    key,
                    mode: op.mode(),
                    ..LockOptions::default()
                },
                policy: match op {
                    Op::Poll | Op::PollShared => WaitPolicy::Poll,
                    Op::WaitThenLeave => WaitPolicy::UntilThenLeave(self.now + 2 * TICK),
                    _ => WaitPolicy::Until(self.now + 2 * TICK),
                },
            }),
            Op::Renew => Command::Renew {
                request,
                presented,
                ttl,
                exact: false,
            },
            Op::RenewExact => Command::Renew {
                request,
                presented,
                ttl: Ttl::from_millis(TICK),
                exact: true,
            },
            Op::Force => Command::ForceUnlock {
                request,
                token: None,
                forced: Box::new(Forced {
                    reason: Reason::parse("stuck").unwrap(),
                    by: KeyName::parse("admin").unwrap(),
                }),
            },
            Op::Write | Op::WriteAndRelease => Command::Write {
                request,
                presented,
                fresh,
                policy: WaitPolicy::Never,
            },
            Op::Unlock => Command::Unlock { request, presented },
            op => unreachable!("{op:?} asks"),
        };
        self.serve(command);
    }

    /// The server carries out a command; all of it becomes durable, then the answers leave.
    fn delivered(&mut self, request: RequestId) {
        let clock = self.clock();
        self.server.delivered(&terms(), clock, request);
        self.serve(Command::Tick);
    }

    fn serve(&mut self, command: Command) {
        let mut before = StateBefore {
            held: self
                .holders()
                .map(|row| (row.ticket.ticket, (row.token, row.ticket.mode)))
                .collect(),
            token: self.highest,
        };
        let existed = self.server.exists();
        let outcome = self.apply(&command);
        for event in &outcome.events {
            if let Some(ended) = self.take_event(event) {
                before.held.retain(|_, (token, _)| *token != ended);
            }
        }
        if existed && !self.server.exists() {
            self.seen.push(seen::GONE);
        } else if !existed && self.server.exists() && self.highest > FencingToken(1) {
            self.seen.push(seen::AGAIN);
        }
        for (request, answer) in &outcome.answers {
            self.take_answer(*request, answer, &before, &command);
        }
        self.check_waiting();
        self.check_kept();
    }

    /// What the actor of a resource does in one step: where a write also releases, it writes, then releases.
    fn apply(&mut self, command: &Command) -> Outcome {
        let clock = self.clock();
        let mut outcome = self
            .server
            .apply(&terms(), clock, command.clone(), &mut self.disk);
        let Command::Write {
            request, presented, ..
        } = command
        else {
            return outcome;
        };
        let is_own = |answer: &&(RequestId, Answer)| answer.0 == *request;
        let Some((_, Answer::Writable { token })) = outcome.answers.iter().find(is_own) else {
            return outcome;
        };
        let releases = token.is_some() && self.op_of(*request) == Some(Op::WriteAndRelease);
        self.server.data.version += 1;
        if self.history.is_some() {
            self.server.data.value = *request as u8;
        }
        self.disk.data = self.server.data;
        if releases {
            let (request, presented) = (*request, *presented);
            let unlock = Command::Unlock { request, presented };
            let released = self.server.apply(&terms(), clock, unlock, &mut self.disk);
            let others = released.answers.into_iter().filter(|a| a.0 != request);
            outcome.answers.extend(others);
            outcome.events.extend(released.events);
        }
        outcome
    }

    fn op_of(&self, request: RequestId) -> Option<Op> {
        let call = self.clients[(request / 32) as usize].call.as_ref();
        call.filter(|call| call.request == request)
            .map(|call| call.op)
    }

    /// Says which lease ended without its holder asking for it.
    fn take_event(&mut self, event: &Event) -> Option<FencingToken> {
        let lapsed = match event {
            Event::Granted(view) => {
                self.judge(TOKENS_GROW, view.token > self.highest);
                self.judge(DELAYED, !self.is_delayed());
                self.highest = view.token;
                if self.holders().count() > 1 {
                    self.seen.push(seen::BESIDE);
                }
                if self.delayed.is_some() {
                    self.seen.push(seen::AFTER_DELAY);
                }
                return None;
            }
            Event::Promoted { from, holder } => {
                self.judge(TOKENS_GROW, holder.token > self.highest);
                self.judge(DELAYED, !self.is_delayed());
                self.highest = holder.token;
                self.promoted.push((*from, holder.token));
                self.seen.push(seen::PROMOTED);
                if self
                    .clients
                    .iter()
                    .any(|client| Self::waits(client) && client.ticket.is_none())
                {
                    self.seen.push(seen::PROMOTED_PAST);
                }
                return None;
            }
            Event::Demoted(_) => {
                self.seen.push(seen::DEMOTED);
                return None;
            }
            Event::Ended {
                reason: EndReason::Expired,
                holder,
                ..
            } => {
                self.seen.push(seen::EXPIRY);
                self.begin_delay();
                holder.token
            }
            Event::Ended {
                reason: EndReason::ForcedOff,
                holder,
                ..
            } => {
                self.begin_delay();
                self.forget_forced(holder.token);
                holder.token
            }
            Event::TakenBack(token) => {
                self.seen.push(seen::TAKEN_BACK);
                *token
            }
            Event::Ended { .. } | Event::Queued { .. } | Event::PlaceEnded { .. } => return None,
        };
        if let Some(history) = &mut self.history {
            self.lapses += 1;
            let thread = 1_000 + self.lapses;
            history
                .on_invret(thread, Operation::Lapse, Ret::Ended(lapsed))
                .unwrap();
        }
        Some(lapsed)
    }

    fn begin_delay(&mut self) {
        let delay_ms = self.options.lock_delay_ms();
        if delay_ms > 0 {
            self.delayed = Some(self.now + delay_ms);
        }
    }

    /// Whoever believed in this lease is wrong through no fault of the lock.
    fn forget_forced(&mut self, token: FencingToken) {
        self.forced.push(token);
        for (from, to) in &self.promoted {
            if self.forced.contains(to) {
                self.forced.push(*from);
            }
        }
        let forced = &self.forced;
        for client in &mut self.clients {
            client
                .belief
                .take_if(|belief| forced.contains(&belief.token));
        }
    }

    fn take_answer(
        &mut self,
        request: RequestId,
        answer: &Answer,
        before: &StateBefore,
        command: &Command,
    ) {
        let index = (request / 32) as usize;
        let call = self.clients[index].call.clone();
        let Some(call) = call.filter(|call| call.request == request) else {
            return;
        };
        let (reply, ret) = match answer {
            Answer::Granted(grant) => {
                let token = grant.holder.token;
                if grant.new {
                    let own = matches!(command, Command::Acquire(LockRequest { request: r, .. }) if *r == request);
                    self.check_order(index, own, &call, command);
                }
                let reply = Reply::Held {
                    ticket: Some(grant.ticket),
                    token,
                    mode: grant.holder.mode,
                    ttl: grant.ttl,
                };
                (reply, Ret::Held(token, grant.new))
            }
            Answer::Renewed { token, ttl, .. } => {
                if call.op == Op::RenewExact {
                    self.seen.push(seen::CUT);
                }
                let reply = Reply::Held {
                    ticket: None,
                    token: *token,
                    // Not told in which mode, so it counts on the least there is.
                    mode: match self.options.slots {
                        1 => Mode::Shared,
                        _ => Mode::Exclusive,
                    },
                    ttl: *ttl,
                };
                (reply, Ret::Held(*token, false))
            }
            Answer::Queued { ticket, .. } => (Reply::Place(*ticket), Ret::Nothing),
            Answer::Writable { token } => {
                self.check_write(index, &call, *token, before);
                let version = self.server.data.version;
                (Reply::Wrote { version }, Ret::Wrote(*token))
            }
            Answer::Unlocked { .. } => {
                let ended = call.shown.and_then(|shown| before.held.get(&shown));
                let ret = ended.map_or(Ret::Nothing, |(token, _)| Ret::Ended(*token));
                (Reply::Released, ret)
            }
            Answer::Refused(Refusal::Dead(death)) => {
                if call.op == Op::Write {
                    self.seen.push(seen::STALE_REFUSED);
                }
                if death.is_some() && !self.server.exists() {
                    self.seen.push(seen::LOSS_TOLD);
                }
                (Reply::Dead, Ret::Nothing)
            }
            Answer::Refused(Refusal::DeadByForce(_)) | Answer::Refused(Refusal::NoResource) => {
                (Reply::Dead, Ret::Nothing)
            }
            Answer::Refused(Refusal::Locked { .. }) if call.op == Op::WaitThenLeave => {
                self.seen.push(seen::LEFT);
                (Reply::LeftWithout, Ret::Nothing)
            }
            Answer::Refused(Refusal::Locked { .. }) if call.op == Op::Promote => {
                self.seen.push(seen::NOT_PROMOTED);
                (Reply::Refused, Ret::Nothing)
            }
            Answer::Refused(Refusal::NotExclusive) => {
                self.seen.push(seen::NOT_EXCLUSIVE);
                (Reply::Refused, Ret::Nothing)
            }
            _ => (Reply::Refused, Ret::Nothing),
        };
        self.answered(index, reply, answer.is_tracked());
        self.returned(request, ret);
    }

    fn answered(&mut self, index: usize, reply: Reply, tracked: bool) {
        if let Some(call) = &mut self.clients[index].call {
            call.stage = Stage::Answered { reply, tracked };
        }
    }

    fn returned(&mut self, request: RequestId, ret: Ret) {
        if let Some(history) = &mut self.history {
            history.on_return(request, ret).unwrap();
        }
    }

    fn receive(&mut self, index: usize) {
        let client = &mut self.clients[index];
        let call = client.call.take().unwrap();
        let Stage::Answered { reply, tracked } = call.stage else {
            unreachable!()
        };
        match reply {
            Reply::Held {
                ticket,
                token,
                mode,
                ttl,
            } => {
                client.ticket = ticket.or(client.ticket);
                client.held = true;
                client.arrived = None;
                match &mut client.belief {
                    _ if self.forced.contains(&token) => client.belief = None,
                    Some(belief) if belief.token == token => {
                        belief.extend(call.sent, ttl);
                        if ticket.is_some() {
                            belief.mode = mode;
                        }
                    }
                    belief => *belief = Some(Belief::new(token, mode, call.sent, ttl)),
                }
            }
            Reply::Place(ticket) => {
                if client.ticket != Some(ticket) {
                    client.held = false;
                    client.heard = self.now;
                }
                client.ticket = Some(ticket);
                client.belief = None;
            }
            Reply::Wrote { version } => {
                self.acknowledged = self.acknowledged.max(version);
                if call.op == Op::WriteAndRelease {
                    client.ticket = None;
                }
            }
            Reply::Released | Reply::Dead => {
                client.ticket = None;
                client.belief = None;
                client.arrived = None;
            }
            Reply::LeftWithout => client.arrived = None,
            Reply::Value | Reply::Refused => {}
        }
        if tracked {
            let request = call.request;
            self.delivered(request);
        }
    }

    fn lose(&mut self, index: usize, noticed: bool) {
        let call = self.clients[index].call.take().unwrap();
        let tracked = matches!(call.stage, Stage::Answered { tracked: true, .. });
        let request = call.request;
        if noticed && (tracked || call.stage == Stage::Waiting) {
            if call.shown.is_none() {
                self.clients[index].arrived = None;
            }
            self.serve(Command::Vanished { request });
        } else if tracked {
            self.delivered(request);
        }
    }

    fn crash(&mut self, lost: Option<usize>) {
        for (index, client) in self.clients.iter_mut().enumerate() {
            let reached = client.call.as_ref().is_some_and(|c| c.stage != Stage::Sent);
            if reached || lost == Some(index) {
                client.call = None;
            }
            // A ticket that had been dropped by then does not come back.
            let ticket = client.ticket;
            if self
                .disk
                .rows
                .waiting
                .iter()
                .any(|row| Some(row.ticket) == ticket)
            {
                client.heard = self.now;
            }
        }
        if self.is_delayed() {
            self.begin_delay();
        }
        self.server = Server::restart(self.options, &self.disk, &terms(), self.clock());
        self.check_waiting();
        self.check_kept();
    }

    // ---- rules ------------------------------------------------------------------------------------

    fn waits(client: &Client) -> bool {
        client
            .call
            .as_ref()
            .is_some_and(|call| call.stage == Stage::Waiting && call.op.asks())
    }

    /// `own`: the request was granted as it arrived, not woken.
    fn check_order(&mut self, index: usize, own: bool, call: &Call, command: &Command) {
        if !own {
            self.seen.push(seen::WOKEN_UP);
        } else if call.shown.is_some() && !self.clients[index].held {
            self.seen.push(seen::RESERVED_USED);
        }
        let arrived = self.clients[index].arrived;
        let overtakes = self.clients.iter().enumerate().any(|(other, client)| {
            // Not known of one that gave its place up in vain, or whose grant was taken back.
            let earlier = arrived.is_some() && client.arrived.is_some() && client.arrived < arrived;
            other != index && Self::waits(client) && earlier
        });
        // One that shows a ticket, or its key, may be the one that the lock was reserved for.
        let keyed = matches!(command, Command::Acquire(LockRequest { options, .. }) if options.key.is_some());
        let reserved = own && (call.shown.is_some() || keyed);
        self.judge(IN_ORDER, reserved || !overtakes);
    }

    fn check_write(
        &mut self,
        index: usize,
        call: &Call,
        token: Option<FencingToken>,
        before: &StateBefore,
    ) {
        let allowed = match (call.shown, token) {
            (Some(shown), Some(token)) => {
                before.held.get(&shown) == Some(&(token, Mode::Exclusive)) || token > before.token
            }
            (Some(_), None) => false,
            (None, _) => before.held.is_empty() && !self.is_delayed(),
        };
        let now = self.now;
        let others = self.clients.iter().enumerate();
        let beliefs = others
            .filter(|(other, _)| *other != index)
            .filter_map(|(_, client)| client.belief.as_ref());
        let beside = token.is_some() && self.options.slots > 1;
        let mut beliefs = beliefs.filter(|belief| belief.counts(now));
        let alone = beliefs.all(|belief| beside && belief.mode == Mode::Exclusive);
        self.judge(GUARDED, allowed && alone);
    }

    fn check_waiting(&mut self) {
        let held: Vec<Ticket> = self.holders().map(|row| row.ticket.ticket).collect();
        let free = !self.server.core().is_locked();
        let first = self
            .clients
            .iter()
            .filter(|client| client.arrived.is_some())
            .min_by_key(|client| client.arrived)
            .and_then(|client| client.call.as_ref());
        let first = first.map(|call| call.request);
        // Those that were told their place in an answer that was lost stand in it for a while.
        let is_known = |ticket: Ticket| {
            let own = |client: &Client| {
                let fresh = client.call.as_ref().map(|call| call.request.into());
                client.ticket == Some(ticket) || fresh.map(Ticket::from_bits) == Some(ticket)
            };
            self.clients.iter().any(own)
        };
        let waiting = &self.disk.rows.waiting;
        let reserved =
            self.server.core().is_reserved() || waiting.iter().any(|row| !is_known(row.ticket));
        let mut reader_waits = false;
        let asleep = self.clients.iter().any(|client| {
            let Some(call) = client.call.as_ref().filter(|_| Self::waits(client)) else {
                return false;
            };
            let fresh = Ticket::from_bits(call.request.into());
            let own = held.contains(&call.shown.unwrap_or(fresh));
            let next = first == Some(call.request) && !reserved;
            reader_waits |= call.op.shares() && !self.holds_exclusively() && !held.is_empty();
            free || own || (next && self.has_room(call.op))
        });
        if reader_waits {
            self.seen.push(seen::READER_WAITS);
        }
        if self.is_delayed() && self.clients.iter().any(Self::waits) {
            self.seen.push(seen::HELD_OFF);
        }
        self.judge(WOKEN, !asleep);
    }

    fn holds_exclusively(&self) -> bool {
        self.holders().any(|row| row.ticket.mode == Mode::Exclusive)
    }

    /// Whether a lease of this kind may stand beside those there are.
    fn has_room(&self, op: Op) -> bool {
        let holders = self.holders().count();
        match op.shares() {
            _ if self.is_delayed() => false,
            true => !self.holds_exclusively(),
            false => {
                holders == 0
                    || (self.holds_exclusively() && holders < usize::from(self.options.slots))
            }
        }
    }

    fn check_kept(&mut self) {
        let held: Vec<Ticket> = self.holders().map(|row| row.ticket.ticket).collect();
        for client in &mut self.clients {
            client.held |= client.ticket.is_some_and(|ticket| held.contains(&ticket));
        }
        let core = self.server.core();
        let lost_place = self.clients.iter().any(|client| {
            let given_up = client
                .call
                .as_ref()
                .is_some_and(|c| matches!(c.op, Op::Unlock | Op::WriteAndRelease));
            let expected = client.arrived.is_some()
                && !client.held
                && !given_up
                && self.now < client.heard + terms().ticket_ttl_ms;
            expected && client.ticket.is_some_and(|ticket| !core.is_live(ticket))
        });
        let lost_write = self.server.data.version < self.acknowledged;
        self.judge(KEPT, !lost_place && !lost_write);
    }

    fn check_beliefs(&mut self) {
        let now = self.now;
        for client in &mut self.clients {
            client.belief.take_if(|belief| !belief.counts(now));
        }
        let mut held = self.server.held(&terms(), now);
        // Whoever was promoted and does not know it yet holds more than it thinks.
        for (from, to) in self.promoted.iter().rev() {
            if held.contains(to) {
                held.push(*from);
            }
        }
        let slots = usize::from(self.options.slots);
        let believed: Vec<&Belief> = self.clients.iter().flat_map(|c| &c.belief).collect();
        let one = beliefs::stand_together(believed.iter().copied(), slots, now).is_ok();
        let holds = beliefs::not_early(believed, &held, now).is_ok();
        self.judge(TOGETHER, one);
        self.judge(NOT_EARLY, holds);
    }
}

struct StateBefore {
    held: BTreeMap<Ticket, (FencingToken, Mode)>,
    /// The highest.
    token: FencingToken,
}

impl<F: Fault> Model for Checked<F> {
    type State = World<F>;
    type Action = Step;

    fn init_states(&self) -> Vec<World<F>> {
        vec![World::start(&self.setting)]
    }

    fn actions(&self, world: &World<F>, steps: &mut Vec<Step>) {
        if world.broken.is_some() {
            return;
        }
        for (index, client) in world.clients.iter().enumerate() {
            match client.call.as_ref().map(|call| &call.stage) {
                None => self.sends(index, client, steps),
                Some(Stage::Sent) => {
                    steps.push(Step::Arrive(index));
                    if world.crashes > 0 {
                        steps.push(Step::Crash(Some(index)));
                    }
                }
                Some(Stage::Waiting) if world.losses > 0 => steps.push(Step::HangUp(index)),
                Some(Stage::Waiting) => {}
                Some(Stage::Answered { tracked, .. }) => {
                    steps.push(Step::Receive(index));
                    if world.losses > 0 {
                        steps.push(Step::Lose(index, true));
                        if *tracked {
                            steps.push(Step::Lose(index, false));
                        }
                    }
                }
            }
        }
        if world.ticks > 0 {
            steps.push(Step::Tick);
        }
        if world.crashes > 0 {
            steps.push(Step::Crash(None));
        }
    }

    fn next_state(&self, last: &World<F>, step: Step) -> Option<World<F>> {
        let mut world = last.clone();
        match step {
            Step::Send(index, op) => world.send(index, op),
            Step::Arrive(index) => world.arrive(index, &self.setting),
            Step::Receive(index) => world.receive(index),
            Step::Lose(index, noticed) => {
                world.losses -= 1;
                world.lose(index, noticed);
            }
            Step::HangUp(index) => {
                world.losses -= 1;
                world.lose(index, true);
            }
            Step::Tick => {
                world.ticks -= 1;
                world.now += TICK;
                world.serve(Command::Tick);
            }
            Step::Crash(lost) => {
                world.crashes -= 1;
                world.crash(lost);
            }
        }
        world.check_beliefs();
        world.normalise();
        if !world.seen.is_empty() {
            let mut seen = self.seen.lock().unwrap();
            seen.extend(world.seen.drain(..));
        }
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        if self.setting.linear {
            return vec![Property::always(LINEARIZABLE, |_, w: &World<F>| {
                w.history.as_ref().is_none_or(|h| h.is_consistent())
            })];
        }
        vec![
            Property::always(TOGETHER, |_, w: &World<F>| w.broken != Some(TOGETHER)),
            Property::always(NOT_EARLY, |_, w: &World<F>| w.broken != Some(NOT_EARLY)),
            Property::always(TOKENS_GROW, |_, w: &World<F>| w.broken != Some(TOKENS_GROW)),
            Property::always(GUARDED, |_, w: &World<F>| w.broken != Some(GUARDED)),
            Property::always(IN_ORDER, |_, w: &World<F>| w.broken != Some(IN_ORDER)),
            Property::always(WOKEN, |_, w: &World<F>| w.broken != Some(WOKEN)),
            Property::always(KEPT, |_, w: &World<F>| w.broken != Some(KEPT)),
            Property::always(DELAYED, |_, w: &World<F>| w.broken != Some(DELAYED)),
        ]
    }
}

impl<F: Fault> Checked<F> {
    pub fn new(setting: Setting, fault: F) -> Self {
        Checked {
            setting,
            seen: Arc::default(),
            _fault: fault,
        }
    }

    fn sends(&self, index: usize, client: &Client, steps: &mut Vec<Step>) {
        match self.setting.plans[index] {
            Plan::Any(count, ops) => {
                if client.done < count {
                    let sensible = ops.iter().filter(|op| match op {
                        Op::Renew | Op::RenewExact | Op::Unlock | Op::WriteAndRelease => {
                            client.ticket.is_some()
                        }
                        Op::Poll | Op::Wait | Op::WaitThenLeave | Op::WaitShared => {
                            client.belief.is_none()
                        }
                        Op::PollShared => true,
                        Op::Promote => client.ticket.is_some(),
                        Op::Write | Op::Read | Op::Force => true,
                    });
                    steps.extend(sensible.map(|op| Step::Send(index, *op)));
                }
            }
            Plan::Script(ops) => {
                steps.extend(
                    ops.get(usize::from(client.done))
                        .map(|op| Step::Send(index, *op)),
                );
            }
        }
    }
}
