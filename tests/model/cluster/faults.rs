//! Ways in which the protocol could be broken, each of which the checker has to notice.

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// As version 2.0.0: a commit reads the owner's row under a lock, and a take-over changes it. There is no seal.
    EpochGuard,
    /// A commit reads the row of its slot under a shared lock, and whoever finds the owner silent takes the slot.
    SharedSlotGuard,
    /// A fence marks the row of an instance and does not seal its log.
    RowWithoutSeal,
    /// A fence seals the log of an instance and does not mark its row.
    SealWithoutRow,
    /// A slot is given away while its changes are in the giver's log alone.
    GivenWithoutCheckpoint,
    /// The log of a fenced instance is deleted without a look at it.
    NoReplay,
    /// The slots of a fenced instance are taken before its log is replayed.
    SlotsBeforeReplay,
    /// The token floor is one for all slots, and an instance reads it once.
    FloorCached,
    /// Slots are read at one node, locks at another.
    ReadElsewhere,
    /// Answers leave for a whole lease after a heartbeat.
    GateWithoutMargin,
    /// The gate counts from the answer of a heartbeat, and not from when it was sent.
    GateFromAnswer,
    /// A watch goes on after an interruption.
    WatchWithoutContinuity,
    /// A checkpoint leaves no row in the log.
    LastRowDeleted,
    /// After a commit of unknown outcome everything is read again, and the log goes on.
    GoesOnInDoubt,
    /// The new log does not name the one that it goes on from.
    PredecessorForgotten,
    /// Nobody takes slots whose owner has no row.
    NobodySweeps,
}
