//! What can go wrong, as the caller sees it.

use std::fmt;

use crate::holder::Holder;

/// Why something did not work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The wait was over before the lock was ours. Our place in the queue has been given up.
    #[error("{}", not_obtained(name, holder.as_deref(), *position))]
    NotObtained {
        /// The resource that was not obtained.
        name: String,
        /// Who had it, as far as known. `None`: nobody, or it was not told.
        holder: Option<Box<Holder>>,
        /// Our place in the queue at the end, 1 being next. `None`: nothing was told.
        position: Option<u64>,
    },

    /// The lock was lost, or may have been: do not go on.
    #[error(transparent)]
    Lost(#[from] Lost),

    /// The server understood the request and refused it.
    #[error("{message} ({status} {code})")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The server's stable code, e.g. `key_unknown`; empty where the answer was not the server's own.
        code: String,
        /// The server's sentence.
        message: String,
    },

    /// No server answered in time. What was asked may or may not have happened. Begins with the address of the server
    /// that was asked last.
    #[error("no answer from {0}")]
    Unreachable(String),

    /// The request cannot be made; the sentence says why.
    #[error("{0}")]
    Invalid(String),

    /// An answer or a document is not what was expected.
    #[error("{what} is not understood: {error}")]
    NotUnderstood {
        /// What was read.
        what: String,
        /// What is wrong with it.
        error: String,
    },
}

impl Error {
    /// The server's stable code, where it gave one.
    pub fn code(&self) -> Option<&str> {
        match self {
            Error::Lost(lost) => Some(lost.reason.code()),
            Error::Refused { code, .. } if !code.is_empty() => Some(code),
            _ => None,
        }
    }

    pub(crate) fn not_understood(what: impl Into<String>, error: impl fmt::Display) -> Error {
        Error::NotUnderstood {
            what: what.into(),
            error: error.to_string(),
        }
    }
}

fn not_obtained(name: &str, holder: Option<&Holder>, position: Option<u64>) -> String {
    let mut text = format!("{name:?} was not obtained in time");
    if let Some(owner) = holder.and_then(|holder| holder.owner.as_deref()) {
        text += &format!("; {owner} holds it");
    }
    if let Some(position) = position {
        text += &format!("; our place in the queue was {position}");
    }
    text
}

/// A lock is not ours any more. Final: a guard that was lost stays lost.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the lock {name:?} is lost: {reason}")]
pub struct Lost {
    /// The resource.
    pub name: String,
    /// What ended it.
    pub reason: LossReason,
}

/// What ended a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LossReason {
    /// No renewal was answered in time, so that somebody else may soon hold it.
    NotRenewed,
    /// The server says that the lease ran out.
    Expired,
    /// Somebody forced it off.
    ForcedOff {
        /// Why, in the words of whoever did it.
        reason: Option<String>,
        /// The name of the key that did it.
        by: Option<String>,
    },
    /// It was released.
    Released,
    /// The resource was deleted.
    Deleted,
    /// The server does not know the ticket.
    Unknown,
}

impl LossReason {
    /// The server's stable code for it; `not_renewed` where only the client knows.
    pub fn code(&self) -> &'static str {
        match self {
            LossReason::NotRenewed => "not_renewed",
            LossReason::Expired => "lease_expired",
            LossReason::ForcedOff { .. } => "lease_forced_off",
            LossReason::Released => "ticket_released",
            LossReason::Deleted => "resource_unknown",
            LossReason::Unknown => "ticket_unknown",
        }
    }
}

impl fmt::Display for LossReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LossReason::NotRenewed => f.write_str("no renewal was answered in time"),
            LossReason::Expired => f.write_str("the lease expired"),
            LossReason::ForcedOff { reason, by } => {
                f.write_str("it was forced off")?;
                by.iter().try_for_each(|by| write!(f, " by {by}"))?;
                reason.iter().try_for_each(|reason| write!(f, ": {reason}"))
            }
            LossReason::Released => f.write_str("it was released"),
            LossReason::Deleted => f.write_str("the resource was deleted"),
            LossReason::Unknown => f.write_str("the server does not know the ticket"),
        }
    }
}
