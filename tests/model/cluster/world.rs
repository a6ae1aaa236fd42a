//! Processes, their clients and the database, and everything that may happen next.
//!
//! A process may stop at any point for any time: nothing has to happen. So a commit is one step, although its
//! statement is sent, carried out and answered at different times: what lies between is a process that waits. Only
//! a grant is answered in a step of its own, because the gate is asked again there; and a commit whose
//! connection is cut stays with the database, which may carry it out whenever it likes, or never.
//!
//! Time passes in ticks, four to a lease. Comparisons are not strict (an answer may leave *at* three ticks after
//! the heartbeat, a fence is allowed *at* four), so that events between two ticks lose no order: whatever can
//! happen at fractions of a tick happens here at whole ones, and some more. Larger settings have a coarse clock,
//! two ticks to a lease, where answers leave for one.
//!
//! Who may be fenced is told by `silent`, the ticks since its last heartbeat was committed: nobody can have watched it
//! for longer. That a watch that looks now and then, and is interrupted, allows no more than that is checked by
//! settings with `watches`.

use std::collections::BTreeMap;

use super::database::{Database, Entry, Id, Instance, Key, Lock, LogId, Row, Rows, Slot, Write};
use super::faults::Fault;
use super::transactions::{Refusal, Transaction, What, changes, lineage};

pub const TOKENS_GROW: &str = "fencing tokens strictly grow";
pub const ONE_HOLDER: &str = "nobody is granted what another client counts on";
pub const KEPT: &str = "no answer is older than what was acknowledged";
pub const ONE_SERVES: &str = "a slot is served by one instance";
pub const WHOLE_LOGS: &str = "a log is contiguous and ends with its seal";
pub const JUSTLY_FENCED: &str = "nobody is fenced that was not silent for a whole lease of looking";
pub const SERVED_AGAIN: &str = "once nothing fails any more every slot is served within a lease";

/// Looks of a watch that are further apart start it anew.
const GAP_MAX: u8 = 1;

#[derive(Clone, Copy, Debug)]
pub struct Setting {
    pub processes: u8,
    /// Names; each has a slot of its own.
    pub slots: u8,
    /// Of the database.
    pub nodes: u8,
    /// One instance owns all slots, the others wait and take its place. Otherwise all have a share.
    pub one_owner: bool,
    /// A lock is granted so often.
    pub tokens: u8,
    pub deletes: bool,
    /// Leases end by themselves, and are renewed without a commit.
    pub expiry: bool,
    /// Changes are written to the tables also when nothing is given away.
    pub checkpoints: bool,
    /// Slots that are given away.
    pub moves: u8,
    pub crashes: u8,
    /// Commits whose answer is lost or whose connection is cut.
    pub cuts: u8,
    /// Times that the database is away for everybody.
    pub outages: u8,
    /// Lives of a process, and logs that it begins.
    pub lives: u8,
    pub logs: u8,
    /// Heartbeats are answered late.
    pub late_beats: bool,
    /// Instances watch each other look by look.
    pub watches: bool,
    /// [`SERVED_AGAIN`] is asked of every state.
    pub recovers: bool,
    /// In ticks.
    pub lease: u8,
    /// Answers leave for so many ticks after a heartbeat.
    pub gate: u8,
    pub fault: Option<Fault>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Memory {
    Unknown,
    Loaded(Lock),
    /// As it was when no request was taken any more; to whom it goes.
    Leaving(Id),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Doubt {
    None,
    /// What became of the last commit is not known.
    Unknown,
    /// A new log was begun; this one before it is not settled.
    Unsettled(LogId),
}

/// Of another instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Watch {
    id: Id,
    /// Ticks since its heartbeat was seen first, and since the last look.
    since: u8,
    looked: u8,
    /// There was a heartbeat after the last look.
    is_old: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Process {
    is_up: bool,
    /// Used up so far.
    lives: u8,
    logs: u8,
    /// `None`: it waits, or found itself fenced.
    id: Option<Id>,
    log: LogId,
    /// The position of its next row.
    next: u8,
    /// Ticks in which answers may leave, this one included.
    gate: u8,
    /// Ticks since a heartbeat was committed whose answer is on its way.
    beat: Option<u8>,
    doubt: Doubt,
    memory: Vec<Memory>,
    /// A grant that is committed and not answered: slot and token.
    unanswered: Option<(u8, u8)>,
    /// Whose log it has replayed.
    replayed: Option<Id>,
    /// A commit that is with the database on a connection that was cut.
    ghost: Option<Transaction>,
    /// The token floor as it was at the start.
    floor: u8,
    watches: Vec<Watch>,
}

/// What the clients of a name know, all together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Clients {
    /// The highest rank of what was acknowledged.
    told: u8,
    /// The highest token that was granted.
    granted: u8,
    /// Who counts on the lock, by its token, and the process that it was told by last.
    held: Option<(u8, u8)>,
    /// Whoever was granted last has given it back.
    is_over: bool,
    /// Somebody asked for the name to be deleted, since the last grant.
    is_gone: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    database: Database,
    /// Ticks for which the database has been away.
    away: Option<u8>,
    /// Ticks since it came back.
    back: u8,
    silent: BTreeMap<Id, u8>,
    processes: Vec<Process>,
    clients: Vec<Clients>,
    crashes: u8,
    cuts: u8,
    moves: u8,
    outages: u8,
    pub broken: Option<&'static str>,
    /// In the last step.
    pub seen: Option<&'static str>,
}

/// What must happen in some order of steps, or the checker would check nothing.
pub mod seen {
    pub const SEALED_OUT: &str = "a commit that was under way lands after the seal and is refused";
    pub const LANDS_LATE: &str = "a commit lands after its process has gone";
    pub const FENCED_GRANT: &str = "a grant is refused to an instance that was fenced";
    pub const UNTOLD: &str = "a grant is not answered because the gate has closed";
    pub const OTHER_EXECUTOR: &str = "a fenced instance is replayed by another than fenced it";
    pub const SWEPT: &str = "a slot that was given to a buried instance is taken";
    pub const GIVEN: &str = "a slot is given away";
    pub const MADE_AGAIN: &str = "a name that was deleted is granted again by another instance";
    pub const REPLAYED: &str = "an acknowledged grant is found in the log of a fenced instance";
    pub const REOPENED: &str = "an instance goes on with a new log";
    pub const TAKEN_OVER: &str = "whoever waits takes the place of the one that has all";
    pub const INTERRUPTED: &str = "a watch starts anew after an interruption";
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fate {
    Answered,
    /// Carried out, but the answer is lost.
    Lost,
    /// The connection is cut before.
    Cut,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    Tick,
    /// A node applies the next commit of another one.
    Apply(u8),
    Away,
    Back,
    Crash(u8),
    /// A process starts, or comes back under a new name.
    Start(u8),
    Beat(u8),
    /// The answer of its heartbeat arrives.
    BeatAnswered(u8),
    Look(u8),
    Do(u8, What, Fate),
    /// The database carries out what is left of a connection that was cut.
    Lands(u8),
    /// A grant is answered, or refused because the gate has closed.
    Answer(u8),
    /// It reads who owns the slot, and what there is of its name.
    Load(u8, u8),
    /// It takes no more requests for the slot, which is to go to this instance.
    Leave(u8, u8, Id),
    /// The client gives the lock back, or goes.
    HangUp(u8),
    Renew(u8, u8),
    GoOn(u8),
}

// ---- as it begins ---------------------------------------------------------------------------------

impl Process {
    fn new(number: u8, setting: &Setting) -> Process {
        Process {
            is_up: true,
            lives: 0,
            logs: 0,
            id: None,
            log: LogId {
                process: number,
                number: 0,
            },
            next: 0,
            gate: 0,
            beat: None,
            doubt: Doubt::None,
            memory: vec![Memory::Unknown; usize::from(setting.slots)],
            unanswered: None,
            replayed: None,
            ghost: None,
            floor: 0,
            watches: Vec::new(),
        }
    }

    /// Forgets all but what makes names new, and what the database still has of it.
    fn forget(&mut self, setting: &Setting) {
        *self = Process {
            is_up: self.is_up,
            lives: self.lives,
            logs: self.logs,
            ghost: self.ghost,
            ..Process::new(self.log.process, setting)
        };
    }

    fn forget_slots(&mut self) {
        self.memory.fill(Memory::Unknown);
        self.unanswered = None;
        self.replayed = None;
    }

    fn leaving(&self) -> Option<(u8, Id)> {
        let slots = self.memory.iter().enumerate();
        let mut leaving = slots.filter_map(|(slot, memory)| match memory {
            Memory::Leaving(to) => Some((slot as u8, *to)),
            _ => None,
        });
        leaving.next()
    }

    /// The next name that it can have.
    fn next_id(&self) -> Id {
        Id {
            process: self.log.process,
            life: self.lives,
        }
    }

    fn next_log(&self) -> LogId {
        LogId {
            process: self.log.process,
            number: self.logs,
        }
    }

    /// What it would answer about a slot, without a commit.
    fn serves(&self, slot: usize) -> Option<Lock> {
        let is_open = self.id.is_some() && self.gate > 0 && self.doubt == Doubt::None;
        match self.memory[slot] {
            Memory::Loaded(lock) if is_open => Some(lock),
            _ => None,
        }
    }
}

impl World {
    /// All instances serve, and have what is theirs in memory.
    pub fn start(setting: &Setting) -> World {
        let mut rows = Rows::default();
        let mut processes = Vec::new();
        let mut silent = BTreeMap::new();
        for number in 0..setting.processes {
            let mut process = Process::new(number, setting);
            if number == 0 || !setting.one_owner {
                let (id, log) = (process.next_id(), process.next_log());
                let row = Instance { log, fenced: None };
                rows.write((Key::Instance(id), Some(Row::Instance(row))));
                rows.write((Key::Log(log, 1), Some(Row::Log(Entry::First(None)))));
                silent.insert(id, 0);
                process.join(id, log, setting);
            }
            processes.push(process);
        }
        for slot in 0..setting.slots {
            let owner = match setting.one_owner {
                true => 0,
                false => slot % setting.processes,
            };
            let process = &mut processes[usize::from(owner)];
            let owner = process.id.expect("owners have joined");
            rows.write((Key::Slot(slot), Some(Row::Slot(Slot { owner, floor: 0 }))));
            process.memory[usize::from(slot)] = Memory::Loaded(Lock::default());
        }
        World {
            database: Database::new(setting.nodes, rows),
            away: None,
            back: setting.lease,
            silent,
            processes,
            clients: vec![Clients::default(); usize::from(setting.slots)],
            crashes: setting.crashes,
            cuts: setting.cuts,
            moves: setting.moves,
            outages: setting.outages,
            broken: None,
            seen: None,
        }
    }

    fn judge(&mut self, rule: &'static str, holds: bool) {
        if !holds {
            self.broken.get_or_insert(rule);
        }
    }

    fn node(&self, process: u8) -> u8 {
        process % self.database.nodes()
    }

    fn process(&mut self, number: u8) -> &mut Process {
        &mut self.processes[usize::from(number)]
    }

    /// Whether it may be fenced by somebody who has looked all the time.
    fn is_silent(&self, id: Id, setting: &Setting) -> bool {
        let is_silent = |ticks: &u8| *ticks >= setting.lease;
        is_silent(&self.back) && self.silent.get(&id).is_some_and(is_silent)
    }
}

impl Process {
    fn join(&mut self, id: Id, log: LogId, setting: &Setting) {
        self.id = Some(id);
        self.lives = id.life + 1;
        self.logs = log.number + 1;
        self.log = log;
        self.next = 2;
        self.gate = setting.open_ticks();
    }
}

impl Setting {
    fn has(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    /// In how many ticks answers leave, that of the heartbeat included.
    fn open_ticks(&self) -> u8 {
        match self.has(Fault::GateWithoutMargin) {
            true => self.lease + 1,
            false => self.gate + 1,
        }
    }
}

// ---- what may happen ------------------------------------------------------------------------------

impl World {
    pub fn steps(&self, setting: &Setting) -> Vec<Step> {
        let mut steps = vec![Step::Tick];
        if self.away.is_some() {
            steps.push(Step::Back);
        } else if self.outages > 0 {
            steps.push(Step::Away);
        }
        steps.extend((0..self.database.nodes()).map(Step::Apply));
        for (slot, clients) in (0..).zip(&self.clients) {
            if clients.held.is_some() {
                steps.push(Step::HangUp(slot));
            }
        }
        for number in 0..setting.processes {
            self.steps_of(number, setting, &mut steps);
        }
        steps
    }

    fn steps_of(&self, number: u8, setting: &Setting, steps: &mut Vec<Step>) {
        let process = &self.processes[usize::from(number)];
        if process.ghost.is_some() {
            steps.push(Step::Lands(number));
        }
        if !process.is_up {
            return steps.push(Step::Start(number));
        }
        if self.crashes > 0 {
            steps.push(Step::Crash(number));
        }
        if process.beat.is_some() {
            steps.push(Step::BeatAnswered(number));
        }
        if setting.watches {
            steps.push(Step::Look(number));
        }
        let Some(id) = process.id else {
            let owner = self.database.view(self.node(number)).slot(0).owner;
            if setting.one_owner {
                self.do_steps(number, What::TakeOver(owner), steps);
            } else {
                steps.push(Step::Start(number));
            }
            return;
        };
        if self.silent.get(&id) != Some(&0) || process.gate < setting.open_ticks() {
            steps.push(Step::Beat(number));
        }
        if process.unanswered.is_some() {
            steps.push(Step::Answer(number));
        }
        match process.doubt {
            Doubt::Unknown if setting.has(Fault::GoesOnInDoubt) => steps.push(Step::GoOn(number)),
            Doubt::Unknown => self.do_steps(number, What::Reopen(process.next_log()), steps),
            Doubt::Unsettled(log) => self.do_steps(number, What::Settle(log), steps),
            Doubt::None => {
                self.steps_on_slots(number, setting, steps);
                if !setting.one_owner {
                    self.steps_on_others(number, id, setting, steps);
                }
            }
        }
    }

    fn do_steps(&self, number: u8, what: What, steps: &mut Vec<Step>) {
        steps.push(Step::Do(number, what, Fate::Answered));
        if self.cuts > 0 {
            steps.push(Step::Do(number, what, Fate::Lost));
            if self.processes[usize::from(number)].ghost.is_none() {
                steps.push(Step::Do(number, what, Fate::Cut));
            }
        }
    }

    fn steps_on_slots(&self, number: u8, setting: &Setting, steps: &mut Vec<Step>) {
        let process = &self.processes[usize::from(number)];
        for slot in 0..setting.slots {
            let Memory::Loaded(lock) = process.memory[usize::from(slot)] else {
                if process.memory[usize::from(slot)] == Memory::Unknown {
                    steps.push(Step::Load(number, slot));
                }
                continue;
            };
            let clients = &self.clients[usize::from(slot)];
            let is_counted_on = clients.held.is_some_and(|(token, _)| token == lock.token);
            if lock.held {
                if setting.expiry {
                    steps.push(Step::Renew(number, slot));
                }
                if setting.expiry || !is_counted_on {
                    let free = Lock {
                        held: false,
                        ..lock
                    };
                    self.do_steps(number, What::Change(slot, free), steps);
                }
            } else {
                if lock.token < setting.tokens && process.unanswered.is_none() {
                    let granted = Lock {
                        exists: true,
                        held: true,
                        token: lock.token + 1,
                    };
                    self.do_steps(number, What::Change(slot, granted), steps);
                }
                if lock.exists && setting.deletes {
                    self.do_steps(number, What::Delete(slot), steps);
                }
            }
            if self.moves > 0 && process.leaving().is_none() {
                let rows = self.database.view(self.node(number));
                let others = rows
                    .instances()
                    .filter(|(id, row)| row.fenced.is_none() && id.process != number);
                steps.extend(others.map(|(id, _)| Step::Leave(number, slot, id)));
            }
        }
        let rows = self.database.view(self.node(number));
        let is_pending = !changes(&rows, &[process.log]).is_empty();
        let is_checked_first = !setting.has(Fault::GivenWithoutCheckpoint);
        match process.leaving() {
            Some((slot, to)) if !is_pending || !is_checked_first => {
                self.do_steps(number, What::Give(slot, to), steps);
            }
            leaving if is_pending && (leaving.is_some() || setting.checkpoints) => {
                self.do_steps(number, What::Checkpoint, steps);
            }
            _ => {}
        }
    }

    fn steps_on_others(&self, number: u8, me: Id, setting: &Setting, steps: &mut Vec<Step>) {
        let process = &self.processes[usize::from(number)];
        let rows = self.database.view(self.node(number));
        for (id, row) in rows.instances().filter(|(id, _)| *id != me) {
            let has_seal = || matches!(rows.last(row.log), Some((_, Entry::Seal)));
            if row.fenced.is_none() && !(setting.has(Fault::SealWithoutRow) && has_seal()) {
                if self.may_fence(number, id, setting) {
                    self.do_steps(number, What::Fence(id), steps);
                }
                continue;
            }
            if process.replayed == Some(id) || setting.has(Fault::NoReplay) {
                let heirs = rows.instances().filter(|(_, row)| row.fenced.is_none());
                for (heir, _) in heirs {
                    self.do_steps(number, What::Bury(id, heir), steps);
                }
            } else if process
                .replayed
                .is_none_or(|other| rows.instance(other).is_none())
            {
                self.do_steps(number, What::Replay(id), steps);
            }
        }
        if !setting.has(Fault::NobodySweeps) {
            let lost = rows
                .slots()
                .filter(|(_, slot)| rows.instance(slot.owner).is_none());
            for (slot, _) in lost {
                self.do_steps(number, What::Sweep(slot), steps);
            }
        }
    }

    /// Whether it has seen the other one silent for a whole lease.
    fn may_fence(&self, number: u8, id: Id, setting: &Setting) -> bool {
        if !setting.watches {
            return self.is_silent(id, setting);
        }
        let watches = &self.processes[usize::from(number)].watches;
        // With an old heartbeat the fence finds that it is not the last one.
        watches.iter().any(|watch| {
            watch.id == id && watch.looked == 0 && watch.since >= setting.lease && !watch.is_old
        })
    }
}

// ---- how it goes on -------------------------------------------------------------------------------

impl World {
    /// `None`: nothing comes of it.
    pub fn after(&self, step: Step, setting: &Setting) -> Option<World> {
        let mut world = self.clone();
        world.seen = None;
        let happens = match step {
            Step::Tick => world.tick(setting),
            Step::Apply(node) => world.database.apply(node),
            Step::Away => {
                world.outages -= 1;
                world.away = Some(0);
                true
            }
            Step::Back => {
                // One that is shorter than the looks of a watch are apart is none.
                if world.away.take() > Some(GAP_MAX) {
                    world.back = 0;
                }
                true
            }
            Step::Crash(number) => {
                world.crashes -= 1;
                world.process(number).forget(setting);
                world.process(number).is_up = false;
                true
            }
            Step::Start(number) => world.start_process(number, setting),
            Step::Beat(number) => world.beat(number, setting),
            Step::BeatAnswered(number) => world.beat_answered(number, setting),
            Step::Look(number) => world.look(number, setting),
            Step::Do(number, what, fate) => world.perform(number, what, fate, setting),
            Step::Lands(number) => world.land(number, setting),
            Step::Answer(number) => world.answer(number),
            Step::Load(number, slot) => world.load(number, slot, setting),
            Step::Leave(number, slot, to) => {
                world.moves -= 1;
                let process = world.process(number);
                // Whoever waits for an answer is sent to the next owner.
                process.unanswered.take_if(|(of, _)| *of == slot);
                process.memory[usize::from(slot)] = Memory::Leaving(to);
                true
            }
            Step::HangUp(slot) => {
                let clients = &mut world.clients[usize::from(slot)];
                clients.held = None;
                clients.is_over = true;
                true
            }
            Step::Renew(number, slot) => world.renew(number, slot),
            Step::GoOn(number) => world.go_on(number),
        };
        if !happens {
            return None;
        }
        world.check();
        world.normalise();
        Some(world)
    }

    /// So that worlds of which the same can become are the same state.
    fn normalise(&mut self) {
        for (log, fall) in self.database.compact() {
            let process = self.process(log.process);
            if process.id.is_some() && process.log == log {
                process.next -= fall;
            }
            if let Some(ghost) = process.ghost.as_mut().filter(|ghost| ghost.log == log) {
                // What is before the first row that is kept is taken.
                ghost.n = ghost.n.saturating_sub(fall).max(1);
            }
        }
    }

    fn tick(&mut self, setting: &Setting) -> bool {
        let before = self.clone();
        let later = |ticks: &mut u8, most: u8| *ticks = most.min(*ticks + 1);
        self.silent
            .values_mut()
            .for_each(|t| later(t, setting.lease));
        later(&mut self.back, setting.lease);
        self.away.iter_mut().for_each(|t| later(t, GAP_MAX + 1));
        for process in &mut self.processes {
            process.gate = process.gate.saturating_sub(1);
            process
                .beat
                .iter_mut()
                .for_each(|t| later(t, setting.lease));
            for watch in &mut process.watches {
                later(&mut watch.since, setting.lease);
                later(&mut watch.looked, GAP_MAX + 1);
            }
        }
        *self != before
    }

    fn is_away(&self) -> bool {
        self.away.is_some()
    }

    /// The writes are committed, if this node was not behind with them.
    fn commit(&mut self, number: u8, writes: Vec<Write>) -> bool {
        let node = self.node(number);
        if !self.database.commit(node, writes) {
            return false;
        }
        let head = self.database.head();
        let is_whole = head.logs_are_whole();
        self.silent.retain(|id, _| head.instance(*id).is_some());
        for (id, _) in head.instances() {
            self.silent.entry(id).or_insert(0);
        }
        self.judge(WHOLE_LOGS, is_whole);
        true
    }

    fn start_process(&mut self, number: u8, setting: &Setting) -> bool {
        let process = self.process(number);
        let was_up = std::mem::replace(&mut process.is_up, true);
        if setting.one_owner {
            return !was_up;
        }
        let (id, log) = (process.next_id(), process.next_log());
        let is_possible = id.life < setting.lives && log.number < setting.logs;
        if !is_possible || self.is_away() || !self.database.takes_writes() {
            return false;
        }
        let row = Instance { log, fenced: None };
        let writes = vec![
            (Key::Instance(id), Some(Row::Instance(row))),
            (Key::Log(log, 1), Some(Row::Log(Entry::First(None)))),
        ];
        let floors = self
            .database
            .head()
            .slots()
            .map(|(_, slot)| slot.floor)
            .max();
        let process = self.process(number);
        process.join(id, log, setting);
        process.floor = floors.unwrap_or(0);
        self.commit(number, writes)
    }

    fn beat(&mut self, number: u8, setting: &Setting) -> bool {
        if self.is_away() || !self.database.takes_writes() {
            return false;
        }
        let process = self.processes[usize::from(number)].clone();
        let id = process.id.expect("it has joined");
        let rows = self.database.view(self.node(number)).into_owned();
        let owns_what_it_serves = (0..setting.slots).all(|slot| {
            rows.slot(slot).owner == id || process.memory[usize::from(slot)] == Memory::Unknown
        });
        let is_guarded_by_slots = matches!(
            setting.fault,
            Some(Fault::EpochGuard | Fault::SharedSlotGuard)
        );
        let row = rows.serving(id);
        let Some(row) = row.filter(|_| !is_guarded_by_slots || owns_what_it_serves) else {
            self.process(number).forget(setting);
            return true;
        };
        let is_replicated = self.database.nodes() > 1;
        let writes = vec![(Key::Instance(id), Some(Row::Instance(row)))];
        if is_replicated && !self.commit(number, writes) {
            return false;
        }
        self.silent.insert(id, 0);
        for process in &mut self.processes {
            let watches = process.watches.iter_mut().filter(|watch| watch.id == id);
            watches.for_each(|watch| watch.is_old = true);
            // A fence names the heartbeat that it takes for the last.
            process.ghost.take_if(|ghost| {
                matches!(ghost.what, What::Fence(dead) | What::TakeOver(dead) if dead == id)
            });
        }
        let process = self.process(number);
        if setting.late_beats {
            process.beat = Some(0);
        } else {
            process.gate = setting.open_ticks();
        }
        true
    }

    fn beat_answered(&mut self, number: u8, setting: &Setting) -> bool {
        let process = self.process(number);
        let age = match (process.beat.take(), setting.has(Fault::GateFromAnswer)) {
            (Some(age), false) => age,
            _ => 0,
        };
        process.gate = process.gate.max(setting.open_ticks().saturating_sub(age));
        true
    }

    fn look(&mut self, number: u8, setting: &Setting) -> bool {
        if self.is_away() {
            return false;
        }
        let before = self.processes[usize::from(number)].watches.clone();
        let rows = self.database.view(self.node(number)).into_owned();
        let others = rows.serving_ids().filter(|id| id.process != number);
        let is_continuous = setting.has(Fault::WatchWithoutContinuity);
        let mut watches = Vec::new();
        for id in others {
            let known = before.iter().find(|watch| watch.id == id);
            let is_gap = known.is_some_and(|watch| watch.looked > GAP_MAX) && !is_continuous;
            if is_gap && known.is_some_and(|watch| watch.since >= setting.lease) {
                self.seen = Some(seen::INTERRUPTED);
            }
            let since = match known {
                Some(watch) if !watch.is_old && !is_gap => watch.since,
                _ => 0,
            };
            watches.push(Watch {
                id,
                since,
                looked: 0,
                is_old: false,
            });
        }
        self.process(number).watches = watches;
        self.processes[usize::from(number)].watches != before
    }

    fn transaction(&self, number: u8, what: What) -> Transaction {
        let process = &self.processes[usize::from(number)];
        let (mut by, mut log) = (process.next_id(), process.log);
        if let Some(id) = process.id {
            by = id;
        }
        match what {
            What::TakeOver(_) => log = process.next_log(),
            // As the row says, whatever it was taken for.
            What::Reopen(_) => {
                let row = self.database.view(self.node(number)).instance(by);
                log = row.map_or(log, |row| row.log);
            }
            _ => {}
        }
        Transaction {
            by,
            log,
            n: process.next,
            what,
        }
    }

    fn is_possible(&self, number: u8, what: What, setting: &Setting) -> bool {
        let process = &self.processes[usize::from(number)];
        match what {
            What::TakeOver(dead) => {
                process.lives < setting.lives
                    && process.logs < setting.logs
                    && self.may_fence(number, dead, setting)
            }
            What::Reopen(_) => process.logs < setting.logs,
            _ => true,
        }
    }

    fn perform(&mut self, number: u8, what: What, fate: Fate, setting: &Setting) -> bool {
        let is_possible = self.is_possible(number, what, setting);
        if self.is_away() || !self.database.takes_writes() || !is_possible {
            return false;
        }
        let transaction = self.transaction(number, what);
        let rows = self.database.view(self.node(number)).into_owned();
        let writes = match transaction.writes(&rows, setting.fault) {
            Ok(writes) => writes,
            Err(refusal) => {
                return fate == Fate::Answered && self.refused(number, what, refusal, setting);
            }
        };
        match what {
            What::Change(slot, lock) => self.lease_ends(number, slot, lock),
            What::Delete(slot) => self.clients[usize::from(slot)].is_gone = true,
            _ => {}
        }
        match what {
            What::TakeOver(_) => self.use_up(number, true),
            What::Reopen(_) => self.use_up(number, false),
            _ => {}
        }
        if fate == Fate::Cut {
            self.cuts -= 1;
            self.process(number).ghost = Some(transaction);
            self.fall_into_doubt(number, setting);
            return true;
        }
        self.note(number, what, &rows);
        if !self.commit(number, writes) {
            return false;
        }
        if let What::Fence(dead) | What::TakeOver(dead) = what {
            let is_just = self.is_silent(dead, setting);
            self.judge(JUSTLY_FENCED, is_just || !setting.watches);
        }
        if fate == Fate::Lost {
            self.cuts -= 1;
            self.fall_into_doubt(number, setting);
        } else {
            self.done(number, transaction, setting);
        }
        true
    }

    /// Names are not used twice, whatever becomes of the commit.
    fn use_up(&mut self, number: u8, is_new_life: bool) {
        let process = self.process(number);
        process.logs += 1;
        process.lives += u8::from(is_new_life);
    }

    fn note(&mut self, number: u8, what: What, rows: &Rows) {
        self.seen = match what {
            What::Replay(dead) => {
                let row = rows.instance(dead);
                let logs = row.map_or(Vec::new(), |row| lineage(rows, row.log));
                let is_kept = |(slot, lock): &(u8, Lock)| {
                    let held = self.clients[usize::from(*slot)].held;
                    held.is_some_and(|(token, _)| token == lock.token) && lock.held
                };
                let is_own = row.is_some_and(|row| {
                    row.fenced.is_none_or(|executor| executor.process == number)
                });
                if !is_own {
                    Some(seen::OTHER_EXECUTOR)
                } else {
                    let kept = changes(rows, &logs).iter().any(is_kept);
                    kept.then_some(seen::REPLAYED)
                }
            }
            What::Sweep(_) => Some(seen::SWEPT),
            What::Give(..) => Some(seen::GIVEN),
            What::Reopen(_) => Some(seen::REOPENED),
            What::TakeOver(_) => Some(seen::TAKEN_OVER),
            What::Change(slot, lock) if lock.held => {
                let before = rows.lock(slot);
                let has_own = changes(rows, &[self.processes[usize::from(number)].log]);
                let is_again = !before.exists && before.token > 0 && has_own.is_empty();
                is_again.then_some(seen::MADE_AGAIN)
            }
            _ => None,
        };
    }

    fn refused(&mut self, number: u8, what: What, refusal: Refusal, setting: &Setting) -> bool {
        match refusal {
            Refusal::Void => false,
            Refusal::Fenced => {
                if matches!(what, What::Change(_, lock) if lock.held) {
                    self.seen = Some(seen::FENCED_GRANT);
                }
                self.process(number).forget(setting);
                true
            }
            Refusal::Taken => {
                self.fall_into_doubt(number, setting);
                true
            }
        }
    }

    fn fall_into_doubt(&mut self, number: u8, setting: &Setting) {
        let process = self.process(number);
        process.forget_slots();
        match process.id {
            Some(_) => process.doubt = Doubt::Unknown,
            None => process.forget(setting),
        }
    }

    /// A lease that ends by itself ends for its client first, unless another instance has renewed it since.
    fn lease_ends(&mut self, number: u8, slot: u8, lock: Lock) {
        let owner = self.database.head().slot(slot).owner;
        let is_owner = self.processes[usize::from(number)].id == Some(owner);
        let clients = &mut self.clients[usize::from(slot)];
        if !lock.held {
            clients
                .held
                .take_if(|(token, by)| *token == lock.token && (*by == number || is_owner));
        }
    }

    fn done(&mut self, number: u8, transaction: Transaction, setting: &Setting) {
        let process = self.process(number);
        process.next += 1;
        let has_gate = process.gate > 0;
        match transaction.what {
            What::Change(slot, lock) => {
                process.memory[usize::from(slot)] = Memory::Loaded(lock);
                if lock.held {
                    process.unanswered = Some((slot, lock.token));
                } else {
                    process.unanswered.take_if(|(of, _)| *of == slot);
                    self.tell(slot, lock, has_gate);
                }
            }
            What::Delete(slot) => {
                let Memory::Loaded(lock) = process.memory[usize::from(slot)] else {
                    unreachable!("only what is loaded is deleted");
                };
                let gone = Lock {
                    exists: false,
                    ..lock
                };
                process.memory[usize::from(slot)] = Memory::Loaded(gone);
                self.tell(slot, gone, has_gate);
            }
            What::Checkpoint if setting.has(Fault::LastRowDeleted) => process.next -= 1,
            What::Give(slot, _) => process.memory[usize::from(slot)] = Memory::Unknown,
            What::Replay(dead) => process.replayed = Some(dead),
            What::Bury(..) => process.replayed = None,
            What::Reopen(new) => {
                process.doubt = Doubt::Unsettled(transaction.log);
                process.log = new;
                process.next = 2;
            }
            What::Settle(_) => process.doubt = Doubt::None,
            What::TakeOver(_) => {
                process.join(transaction.by, transaction.log, setting);
                let rows = self.database.view(self.node(number)).into_owned();
                let before = lineage(&rows, transaction.log).into_iter().rev().nth(1);
                self.process(number).doubt = before.map_or(Doubt::None, Doubt::Unsettled);
            }
            What::Checkpoint | What::Fence(_) | What::Sweep(_) => {}
        }
    }

    fn tell(&mut self, slot: u8, lock: Lock, has_gate: bool) {
        let clients = &mut self.clients[usize::from(slot)];
        if has_gate {
            clients.told = clients.told.max(lock.rank());
        }
    }

    fn land(&mut self, number: u8, setting: &Setting) -> bool {
        if self.is_away() || !self.database.takes_writes() {
            return false;
        }
        let Some(transaction) = self.process(number).ghost.take() else {
            return false;
        };
        let rows = self.database.view(self.node(number)).into_owned();
        let is_of_the_living = self.processes[usize::from(number)].id == Some(transaction.by);
        match transaction.writes(&rows, setting.fault) {
            Ok(writes) => {
                if self.commit(number, writes) && !is_of_the_living {
                    self.seen = Some(seen::LANDS_LATE);
                }
            }
            Err(_) => {
                let has_seal = rows
                    .log(transaction.log)
                    .any(|(n, entry)| n == transaction.n && entry == Entry::Seal);
                if has_seal {
                    self.seen = Some(seen::SEALED_OUT);
                }
            }
        }
        true
    }

    fn answer(&mut self, number: u8) -> bool {
        let process = self.process(number);
        let has_gate = process.gate > 0;
        let Some((slot, token)) = process.unanswered.take() else {
            return false;
        };
        if !has_gate {
            self.seen = Some(seen::UNTOLD);
            return true;
        }
        let clients = self.clients[usize::from(slot)];
        self.judge(ONE_HOLDER, clients.held.is_none());
        self.judge(TOKENS_GROW, token > clients.granted);
        self.clients[usize::from(slot)] = Clients {
            told: clients.told.max(2 * token),
            granted: token,
            held: Some((token, number)),
            is_over: false,
            is_gone: false,
        };
        true
    }

    fn load(&mut self, number: u8, slot: u8, setting: &Setting) -> bool {
        let node = self.node(number);
        let is_elsewhere = setting.has(Fault::ReadElsewhere);
        // A session that reads waits until its node has applied what is committed.
        if self.is_away() || !(is_elsewhere || self.database.is_current(node)) {
            return false;
        }
        let rows = self.database.view(node).into_owned();
        let process = &self.processes[usize::from(number)];
        if process.id != Some(rows.slot(slot).owner) {
            return false;
        }
        let tables = match is_elsewhere {
            true => self
                .database
                .view((node + 1) % self.database.nodes())
                .into_owned(),
            false => rows,
        };
        let mut lock = tables.lock(slot);
        if setting.has(Fault::FloorCached) && !lock.exists {
            lock.token = process.floor;
        }
        // (There is nothing in the log of an instance that follows the protocol.)
        if let Some((_, changed)) = changes(&tables, &[process.log])
            .into_iter()
            .rfind(|(of, _)| *of == slot)
        {
            lock = changed;
        }
        self.process(number).memory[usize::from(slot)] = Memory::Loaded(lock);
        true
    }

    fn renew(&mut self, number: u8, slot: u8) -> bool {
        let at = usize::from(slot);
        let Some(lock) = self.processes[usize::from(number)].serves(at) else {
            return false;
        };
        let clients = &mut self.clients[at];
        let is_told = Some((lock.token, number));
        let is_asking = lock.token == clients.granted && !clients.is_over;
        if !is_asking || clients.held == is_told {
            return false;
        }
        clients.held = is_told;
        true
    }

    /// The fault: reads where its log ends, and goes on there.
    fn go_on(&mut self, number: u8) -> bool {
        let rows = self.database.view(self.node(number)).into_owned();
        let process = self.process(number);
        process.doubt = Doubt::None;
        process.next = rows.last(process.log).map_or(0, |(n, _)| n) + 1;
        true
    }

    /// What every instance would answer now.
    fn check(&mut self) {
        for slot in 0..self.clients.len() {
            let served: Vec<Lock> = self
                .processes
                .iter()
                .filter_map(|p| p.serves(slot))
                .collect();
            self.judge(ONE_SERVES, served.len() < 2);
            let clients = self.clients[slot];
            for lock in served {
                let has = |(token, _): (u8, u8)| lock.held && lock.token == token;
                // Of a name that is gone nobody sees a token.
                let is_new = match lock.exists {
                    true => lock.rank() >= clients.told,
                    false => clients.is_gone || clients.told == 0,
                };
                self.judge(KEPT, is_new && clients.held.is_none_or(has));
            }
        }
    }
}

// ---- when nothing fails any more ------------------------------------------------------------------

impl World {
    /// Whether every slot is served within a lease from here on, if nothing fails any more, everybody who is up does
    /// what it can, and nobody who has crashed comes back.
    pub fn is_served_again(&self, setting: &Setting) -> bool {
        let calm = Setting {
            lives: u8::MAX,
            logs: u8::MAX,
            ..*setting
        };
        let mut world = self.clone();
        (world.crashes, world.cuts, world.moves, world.outages) = (0, 0, 0, 0);
        if world.processes.iter().all(|process| !process.is_up) {
            return true;
        }
        let mut ticks = 0;
        loop {
            let is_served = |slot: usize| world.processes.iter().any(|p| p.serves(slot).is_some());
            if (0..world.clients.len()).all(is_served) {
                return true;
            }
            let helps = |step: &Step| world.helps(*step).then(|| world.after(*step, &calm))?;
            let next = world.steps(&calm).iter().find_map(helps);
            world = match next {
                Some(next) => next,
                None if ticks == calm.lease => return false,
                None => {
                    ticks += 1;
                    world.after(Step::Tick, &calm).expect("time passes")
                }
            };
        }
    }

    fn helps(&self, step: Step) -> bool {
        match step {
            Step::Start(number) => self.processes[usize::from(number)].is_up,
            Step::Do(_, What::Change(..) | What::Delete(_), _) => false,
            Step::Tick
            | Step::Away
            | Step::Crash(_)
            | Step::Leave(..)
            | Step::HangUp(_)
            | Step::Renew(..) => false,
            _ => true,
        }
    }
}
