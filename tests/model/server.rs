//! A server as its clients see it: the core, one document, a disk. And ways in which it could be broken,
//! each a thin wrapper around the sound core, so that the checker can be shown to notice.

use std::fmt::Debug;
use std::hash::Hash;
use std::marker::PhantomData;

use small_resource_server::lock::rows::LockRows;
use small_resource_server::lock::{
    Answer, Command, FencingToken, LockState, Millis, Now, Outcome, RequestId, ResourceOptions,
    Terms, Ttl,
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
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Server<F: Fault> {
    core: LockState,
    pub data: Data,
    fault: PhantomData<F>,
}

impl<F: Fault> Server<F> {
    pub fn start() -> Self {
        Server {
            core: LockState::new(ResourceOptions::default(), FencingToken(0)),
            data: Data::default(),
            fault: PhantomData,
        }
    }

    pub fn restart(disk: &Disk, terms: &Terms, now: Now) -> Self {
        let disk = F::read(disk.clone());
        Server {
            core: LockState::restore(ResourceOptions::default(), disk.rows, terms, now, now.mono),
            data: disk.data,
            fault: PhantomData,
        }
    }

    pub fn apply(&mut self, terms: &Terms, now: Now, command: Command) -> Outcome {
        let mut outcome = self.core.apply(terms, now, F::twist(command.clone()));
        outcome.answers = F::answers(&self.core, &command, outcome.answers);
        outcome
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
            Command::Acquire { wish, .. } => wish.ttl = less(wish.ttl),
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
                if matches!(answer, Answer::Dead(_)) {
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

impl Fault for EveryoneGranted {
    fn answers(
        core: &LockState,
        _command: &Command,
        mut answers: Vec<(RequestId, Answer)>,
    ) -> Vec<(RequestId, Answer)> {
        let now = Now::default();
        for (_, answer) in &mut answers {
            if let (Answer::Queued { ticket, .. }, Some(holder)) =
                (&answer, core.holder(&Terms::default(), now))
            {
                *answer = Answer::Granted(Box::new(small_resource_server::lock::command::Grant {
                    ticket: *ticket,
                    holder,
                    ttl: Ttl::ZERO,
                    waited_ms: 0,
                    new: false,
                    ended: None,
                }));
            }
        }
        answers
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
                if matches!(answer, Answer::Locked(_)) {
                    *answer = Answer::Writable { token: None };
                }
            }
        }
        answers
    }
}
