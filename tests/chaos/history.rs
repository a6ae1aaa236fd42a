//! What clients saw: one record per request, written down by the client itself. The checker knows nothing
//! else.

use std::fmt;

/// Since the start of the run, on the monotonic clock that all clients share.
pub type Micros = u64;

pub const SECOND: Micros = 1_000_000;

/// A ticket, as the number that its hexadecimal digits are.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u128);

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = format!("{:032x}", self.0);
        write!(f, "{}…", &digits[..8])
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    #[default]
    Exclusive,
    Shared,
}

/// What there is behind a name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// One holder.
    #[default]
    Plain,
    /// Clients ask to share it too, and promote and demote their leases.
    Shared,
    /// So many holders at once.
    Slots(usize),
    /// One holder, and this long a lock-delay.
    Delayed(Micros),
    /// One holder, made on the fly, and gone when nobody has a use for it. Has no document.
    Ephemeral,
}

impl Kind {
    /// Whether leases may stand beside each other.
    pub fn has_several(self) -> bool {
        matches!(self, Kind::Shared | Kind::Slots(_))
    }

    pub fn delay(self) -> Micros {
        match self {
            Kind::Delayed(delay) => delay,
            _ => 0,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// Asks for the lock. Requests of one `attempt` are retries of each other, with one Idempotency-Key if
    /// `keyed`. With a `mode` and the ticket of a holder it promotes or demotes.
    Lock {
        attempt: u64,
        keyed: bool,
        presented: Option<Ticket>,
        mode: Option<Mode>,
        ttl: Micros,
        wait: Micros,
    },
    Read,
    /// `value` is written by no other request.
    Write {
        presented: Option<Ticket>,
        value: u64,
        release: bool,
    },
    /// `ttl`: what the lease has been asked for all along.
    Renew {
        presented: Ticket,
        ttl: Micros,
    },
    Unlock {
        presented: Ticket,
    },
    /// Ends the lease of this token, or whichever holds.
    Force {
        token: Option<u64>,
    },
    Describe,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    Released,
    Expired,
    ForcedOff,
    Unknown,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// `ended`: what the server said about the dead ticket that was presented.
    Granted {
        ticket: Ticket,
        token: u64,
        mode: Mode,
        ended: Option<Reason>,
    },
    Queued {
        ticket: Ticket,
        position: u64,
        ended: Option<Reason>,
    },
    /// `None`: never written.
    Value(Option<u64>),
    Written {
        token: Option<u64>,
    },
    Renewed {
        token: u64,
    },
    Unlocked,
    /// 403, and why.
    Dead(Reason),
    /// 409 `locked`, with the token of the lease that is in the way.
    Locked {
        holder: Option<u64>,
    },
    /// 409: one who shares may not do this.
    NotExclusive,
    /// The first of the holders.
    Described {
        holder: Option<u64>,
    },
    Forced {
        token: Option<u64>,
    },
    /// Any other refusal: nothing happened.
    Refused(u16),
    /// 503: not known.
    Unavailable,
    /// No answer, or half of one: it may have happened, or may still happen.
    Lost,
    /// The connection was not even made.
    NotSent,
}

impl Outcome {
    /// May this request have changed something although nobody was told so?
    pub fn is_unknown(&self) -> bool {
        matches!(self, Outcome::Lost | Outcome::Unavailable)
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    pub client: usize,
    pub name: usize,
    pub op: Op,
    pub sent: Micros,
    /// When the client had the answer, or stopped expecting one.
    pub done: Micros,
    pub outcome: Outcome,
}

impl Record {
    /// The lease that held at some moment between `sent` and `done`, as far as this answer tells.
    pub fn token(&self) -> Option<u64> {
        match self.outcome {
            Outcome::Granted { token, .. } | Outcome::Renewed { token } => Some(token),
            Outcome::Written { token }
            | Outcome::Forced { token }
            | Outcome::Locked { holder: token }
            | Outcome::Described { holder: token } => token,
            _ => None,
        }
    }

    /// No lease held at some moment between `sent` and `done`.
    pub fn saw_no_holder(&self) -> bool {
        matches!(
            self.outcome,
            Outcome::Written { token: None }
                | Outcome::Forced { token: None }
                | Outcome::Described { holder: None }
        )
    }

    pub fn presented(&self) -> Option<Ticket> {
        match self.op {
            Op::Lock { presented, .. } | Op::Write { presented, .. } => presented,
            Op::Renew { presented, .. } | Op::Unlock { presented } => Some(presented),
            Op::Read | Op::Force { .. } | Op::Describe => None,
        }
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |micros: Micros| micros as f64 / 1000.0;
        write!(
            f,
            "{:>11.3} .. {:>11.3} ms  client {:<3} name {}  {:?}  =>  {:?}",
            ms(self.sent),
            ms(self.done),
            self.client,
            self.name,
            self.op,
            self.outcome
        )
    }
}

/// From when a fault began until the server served again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outage {
    pub kind: &'static str,
    pub from: Micros,
    pub until: Micros,
}

/// A whole run.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// By name; plain where there is none.
    pub kinds: Vec<Kind>,
    pub records: Vec<Record>,
    pub outages: Vec<Outage>,
    /// When no process of the server was left; the next one gives every lease its full TTL again.
    pub deaths: Vec<Micros>,
}

/// What the server was told to do with time.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// `CLAIM_SECONDS`.
    pub claim: Micros,
    /// The longest TTL that a client which might vanish asks for.
    pub ttl_max: Micros,
    /// How long anything may take on a busy machine before it counts as never.
    pub slack: Micros,
}
