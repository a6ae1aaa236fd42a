//! A server as its clients see it: the core, one document, a disk. And ways in which it could be broken,
//! each a thin wrapper around the sound core, so that the checker can be shown to notice.

use std::fmt::Debug;
use std::hash::Hash;
use std::marker::PhantomData;

use small_resource_server::lock::command::{Grant, HolderView};
use small_resource_server::lock::rows::{EndedRow, HeadRow, LockRows};
use small_resource_server::lock::{
    Answer, Command, FencingToken, LockRequest, LockState, Millis, Mode, Now, Outcome, Refusal,
    RequestId, ResourceOptions, Terms, Ticket, Ttl,
};

/// The document: how often it was written, and what was written last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Data {
    pub version: u8,
    pub value: u8,
}

/// What is durable.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Disk {
    pub rows: LockRows,
    pub data: Data,
    /// An ephemeral name has rows only while somebody has a use for it.
    pub exists: bool,
    /// The highest token that any resource reached which is gone.
    pub token_floor: FencingToken,
}

/// What goes wrong in a broken server; in the sound one nothing does.
pub trait Fault: Clone + Copy + Debug + PartialEq + Eq + Hash + Send + Sync + 'static {
    /// The command that the core gets to see.
    fn twist(command: Command) -> Command {
        command
    }
    /// The answers that leave.
    fn answers(
        _core: &LockState,
        _command: &Command,
        answers: Vec<(RequestId, Answer)>,
    ) -> Vec<(RequestId, Answer)> {
        answers
    }
    /// What is read after a crash.
    fn read(disk: Disk) -> Disk {
        disk
    }
    /// What the core believes the resource was created with.
    fn options(options: ResourceOptions) -> ResourceOptions {
        options
    }
    /// Above which token a name that was gone begins.
    fn token_floor(token_floor: FencingToken) -> FencingToken {
        token_floor
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Server<F: Fault> {
    options: ResourceOptions,
    core: LockState,
    pub data: Data,
    exists: bool,
    /// What is remembered of tickets while their name is gone, and until when; in memory only.
    lost: Vec<(EndedRow, Millis)>,
    fault: PhantomData<F>,
}

impl<F: Fault> Server<F> {
    pub fn start(options: ResourceOptions) -> Self {
        Server {
            options,
            core: LockState::new(F::options(options), FencingToken(0)),
            data: Data::default(),
            exists: !options.ephemeral,
            lost: Vec::new(),
            fault: PhantomData,
        }
    }

    pub fn restart(options: ResourceOptions, disk: &Disk, terms: &Terms, now: Now) -> Self {
        let disk = F::read(disk.clone());
        let restored = F::options(options);
        let core = match disk.exists || !options.ephemeral {
            true => LockState::restore(restored, disk.rows, terms, now, now.mono),
            false => LockState::new(restored, F::token_floor(disk.token_floor)),
        };
        Server {
            core,
            data: disk.data,
            exists: disk.exists || !options.ephemeral,
            ..Server::start(options)
        }
    }

    /// Carries out a command; what follows from it is on the disk.
    pub fn apply(&mut self, terms: &Terms, now: Now, command: Command, disk: &mut Disk) -> Outcome {
        if !self.exists {
            match command {
                Command::Acquire(_) => self.make(disk),
                _ => return self.answer_for_nothing(&command),
            }
        }
        let mut outcome = self.core.apply(terms, now, F::twist(command.clone()));
        outcome.changes.overlay(&mut disk.rows);
        outcome.answers = F::answers(&self.core, &command, outcome.answers);
        let writes = outcome
            .answers
            .iter()
            .any(|(_, answer)| matches!(answer, Answer::Writable { .. }));
        if self.options.ephemeral && self.core.is_idle() && self.data == Data::default() && !writes
        {
            self.leave_no_rows(now, disk);
        }
        outcome
    }

    /// This answer went out.
    pub fn delivered(&mut self, terms: &Terms, now: Now, request: RequestId) {
        if self.exists {
            self.core.delivered(terms, now, request);
        }
    }

    /// `?create=1` on a name that there is not.
    fn make(&mut self, disk: &mut Disk) {
        let token_floor = F::token_floor(disk.token_floor);
        self.core = LockState::new(F::options(self.options), token_floor);
        disk.rows.head = HeadRow {
            token: token_floor,
            ..HeadRow::default()
        };
        let recalled = self.core.recall(std::mem::take(&mut self.lost));
        recalled.overlay(&mut disk.rows);
        self.exists = true;
        disk.exists = true;
    }

    fn leave_no_rows(&mut self, now: Now, disk: &mut Disk) {
        self.lost = self.core.lost_tickets(now.mono);
        disk.token_floor = disk.token_floor.max(self.core.token());
        disk.rows = LockRows::default();
        disk.exists = false;
        self.exists = false;
        self.core = LockState::new(F::options(self.options), F::token_floor(disk.token_floor));
    }

    /// Whoever lost a lease is told so; for the others there is nothing.
    fn answer_for_nothing(&self, command: &Command) -> Outcome {
        let (Command::Unlock { request, presented }
        | Command::Renew {
            request, presented, ..
        }
        | Command::Write {
            request, presented, ..
        }) = command
        else {
            return Outcome::default();
        };
        let lost = self
            .lost
            .iter()
            .find(|(lost, _)| Some(lost.ticket) == presented.ticket());
        let answer = lost.map_or(Answer::Refused(Refusal::NoResource), |(lost, _)| {
            Answer::Refused(lost.refusal())
        });
        Outcome {
            answers: vec![(*request, answer)],
            ..Outcome::default()
        }
    }

    pub fn exists(&self) -> bool {
        self.exists
    }

    pub fn core(&self) -> &LockState {
        &self.core
    }

    pub fn held(&self, terms: &Terms, mono: Millis) -> Vec<FencingToken> {
        let now = Now { mono, wall: 0 };
        let holders = self.core.holders(terms, now);
        holders.map(|holder| holder.token).collect()
    }
}

macro_rules! faults {
    ($($(#[$doc:meta])* $name:ident)*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
            pub struct $name;
        )*
    };
}

faults! {
    Sound
    /// Every lease is two seconds shorter than its client was told.
    LeaseEndsEarly
    /// After a restart the queue stands the other way round.
    QueueReversed
    /// A write that was acknowledged is not there after a restart.
    WriteDropped
    /// A holder that lost its lease may still write.
    StaleWriterAccepted
    /// After a restart the last token is given once more.
    TokenReused
    /// Whoever asks while the lock is taken is told that it is its own.
    EveryoneGranted
    /// A release gives the lock to the next, and does not tell it.
    ReleaseWakesNobody
    /// A holder is forgotten by a restart.
    HolderForgotten
    /// The queue is forgotten by a restart.
    QueueForgotten
    /// A write without a ticket is let through whoever holds.
    GuardMissing
    /// A reader is granted beside readers, whoever waits before it.
    ReaderLetPast
    /// A resource takes one holder more than it has slots.
    SlotTooMany
    /// A reader is promoted although others share.
    PromotedBesideOthers
    /// A reader may write.
    ReaderMayWrite
    /// The lock-delay does not run.
    DelaySkipped
    /// The lock-delay is over with a restart.
    DelayForgotten
    /// Of several holders a restart forgets all but one.
    OthersForgotten
    /// A name that was gone begins with the first token.
    FloorForgotten
    /// A renewal without `exact` makes a lease end earlier.
    RenewalCuts
}

impl Fault for Sound {}

fn less(ttl: Option<Ttl>) -> Option<Ttl> {
    ttl.and_then(|ttl| Ttl::from_millis(ttl.millis() - 2_000))
}

fn more(ttl: Ttl) -> Ttl {
    Ttl::from_millis(ttl.millis() + 2_000).unwrap()
}

impl Fault for LeaseEndsEarly {
    fn twist(mut command: Command) -> Command {
        match &mut command {
            Command::Acquire(LockRequest { options, .. }) => options.ttl = less(options.ttl),
            Command::Renew { ttl, .. } => *ttl = less(*ttl),
            _ => {}
        }
        command
    }

    fn answers(
        _core: &LockState,
        _command: &Command,
        mut answers: Vec<(RequestId, Answer)>,
    ) -> Vec<(RequestId, Answer)> {
        for (_, answer) in &mut answers {
            match answer {
                Answer::Granted(grant) => grant.ttl = more(grant.ttl),
                Answer::Renewed { ttl, .. } => *ttl = more(*ttl),
                _ => {}
            }
        }
        answers
    }
}

impl Fault for QueueReversed {
    fn read(mut disk: Disk) -> Disk {
        let waiting = &mut disk.rows.waiting;
        let mut seqs: Vec<u64> = waiting.iter().map(|row| row.seq).collect();
        seqs.reverse();
        for (row, seq) in waiting.iter_mut().zip(seqs) {
            row.seq = seq;
        }
        disk
    }
}

impl Fault for WriteDropped {
    fn read(mut disk: Disk) -> Disk {
        disk.data = Data::default();
        disk
    }
}

impl Fault for StaleWriterAccepted {
    fn answers(
        core: &LockState,
        command: &Command,
        mut answers: Vec<(RequestId, Answer)>,
    ) -> Vec<(RequestId, Answer)> {
        if matches!(command, Command::Write { .. }) {
            for (_, answer) in &mut answers {
                if matches!(answer, Answer::Refused(Refusal::Dead(_))) {
                    let token = Some(core.token());
                    *answer = Answer::Writable { token };
                }
            }
        }
        answers
    }
}

impl Fault for TokenReused {
    fn read(mut disk: Disk) -> Disk {
        let head = &mut disk.rows.head;
        if head.holder.is_none() {
            head.token = FencingToken(head.token.0.saturating_sub(1));
        }
        disk
    }
}

/// As if this ticket had been granted.
fn granted(ticket: Ticket, holder: HolderView, new: bool) -> Answer {
    Answer::Granted(Box::new(Grant {
        ticket,
        holder,
        ttl: Ttl::ZERO,
        waited_ms: 0,
        new,
        ended: None,
    }))
}

impl Fault for EveryoneGranted {
    fn answers(
        core: &LockState,
        _command: &Command,
        mut answers: Vec<(RequestId, Answer)>,
    ) -> Vec<(RequestId, Answer)> {
        let now = Now::default();
        for (_, answer) in &mut answers {
            if let (Answer::Queued { ticket, .. }, Some(holder)) =
                (&answer, core.holders(&Terms::default(), now).next())
            {
                *answer = granted(*ticket, holder, false);
            }
        }
        answers
    }
}

impl Fault for ReaderLetPast {
    fn answers(
        core: &LockState,
        command: &Command,
        mut answers: Vec<(RequestId, Answer)>,
    ) -> Vec<(RequestId, Answer)> {
        let reads = matches!(command, Command::Acquire(LockRequest { options, .. }) if options.mode == Some(Mode::Shared));
        let first = core.holders(&Terms::default(), Now::default()).next();
        for (_, answer) in answers.iter_mut().filter(|_| reads) {
            if let (Answer::Queued { ticket, .. }, Some(holder)) = (&answer, &first)
                && holder.mode == Mode::Shared
            {
                let token = core.token().next();
                let holder = HolderView {
                    token,
                    ..holder.clone()
                };
                *answer = granted(*ticket, holder, true);
            }
        }
        answers
    }
}

impl Fault for SlotTooMany {
    fn options(options: ResourceOptions) -> ResourceOptions {
        ResourceOptions {
            slots: options.slots + 1,
            ..options
        }
    }
}

impl Fault for PromotedBesideOthers {
    fn answers(
        core: &LockState,
        command: &Command,
        mut answers: Vec<(RequestId, Answer)>,
    ) -> Vec<(RequestId, Answer)> {
        let Command::Acquire(LockRequest {
            presented, options, ..
        }) = command
        else {
            return answers;
        };
        let own = presented.ticket().filter(|ticket| {
            options.mode == Some(Mode::Exclusive) && core.token_of(*ticket).is_some()
        });
        let now = Now::default();
        let first = core.holders(&Terms::default(), now).next();
        for (_, answer) in &mut answers {
            if let (Answer::Refused(Refusal::Locked { .. }), Some(ticket), Some(holder)) =
                (&answer, own, &first)
            {
                let holder = HolderView {
                    token: core.token_of(ticket).unwrap_or(holder.token),
                    mode: Mode::Exclusive,
                    ..holder.clone()
                };
                *answer = granted(ticket, holder, false);
            }
        }
        answers
    }
}

impl Fault for ReaderMayWrite {
    fn answers(
        core: &LockState,
        command: &Command,
        mut answers: Vec<(RequestId, Answer)>,
    ) -> Vec<(RequestId, Answer)> {
        let presented = command.presented().ticket();
        let token = presented.and_then(|ticket| core.token_of(ticket));
        for (_, answer) in &mut answers {
            if matches!(answer, Answer::Refused(Refusal::NotExclusive)) {
                *answer = Answer::Writable { token };
            }
        }
        answers
    }
}

impl Fault for DelaySkipped {
    fn options(options: ResourceOptions) -> ResourceOptions {
        ResourceOptions {
            lock_delay: 0,
            ..options
        }
    }
}

impl Fault for DelayForgotten {
    fn read(mut disk: Disk) -> Disk {
        disk.rows.head.delayed = false;
        disk
    }
}

impl Fault for OthersForgotten {
    fn read(mut disk: Disk) -> Disk {
        disk.rows.holding.clear();
        disk
    }
}

impl Fault for FloorForgotten {
    fn token_floor(_floor: FencingToken) -> FencingToken {
        FencingToken(0)
    }
}

impl Fault for RenewalCuts {
    fn twist(mut command: Command) -> Command {
        if let Command::Renew { ttl, exact, .. } = &mut command {
            *ttl = Ttl::from_millis(1_000);
            *exact = true;
        }
        command
    }
}

impl Fault for ReleaseWakesNobody {
    fn answers(
        _core: &LockState,
        command: &Command,
        mut answers: Vec<(RequestId, Answer)>,
    ) -> Vec<(RequestId, Answer)> {
        if let Command::Unlock { request, .. } = command {
            answers.retain(|(answered, _)| answered == request);
        }
        answers
    }
}

impl Fault for HolderForgotten {
    fn read(mut disk: Disk) -> Disk {
        disk.rows.head.holder = None;
        disk
    }
}

impl Fault for QueueForgotten {
    fn read(mut disk: Disk) -> Disk {
        disk.rows.waiting.clear();
        disk
    }
}

impl Fault for GuardMissing {
    fn answers(
        _core: &LockState,
        command: &Command,
        mut answers: Vec<(RequestId, Answer)>,
    ) -> Vec<(RequestId, Answer)> {
        if matches!(command, Command::Write { .. }) {
            for (_, answer) in &mut answers {
                if matches!(answer, Answer::Refused(Refusal::Locked { .. })) {
                    *answer = Answer::Writable { token: None };
                }
            }
        }
        answers
    }
}
