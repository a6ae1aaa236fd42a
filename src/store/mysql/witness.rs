//! What this process knows to have been committed, held against the database when it is opened again: one
//! that lost acknowledged commits (an asynchronous failover, a crash with a lax flush, a restored dump) must
//! not give out the same fencing tokens again.

use super::schema::ServerRow;
use crate::lock::FencingToken;
use crate::store::InstanceId;
use crate::store::snapshot::Snapshot;

#[derive(Debug, Default)]
pub(super) struct Witness {
    /// In which the database was ours last, and the heartbeats that were acknowledged by then; 0: never.
    epoch: u64,
    heartbeat: u64,
    /// Nobody else owned it since, so its journal is as we left it: with this row, at least.
    journal_row: Option<u64>,
    /// The highest that this process has committed or read.
    token: u64,
    has_lost: bool,
}

impl Witness {
    pub fn sees_token(&mut self, token: FencingToken) {
        self.token = self.token.max(token.0);
    }

    pub fn committed(&mut self, batch: &[Snapshot]) {
        for snapshot in batch {
            let head = snapshot.lock.head.as_ref().map(|head| head.token);
            let tokens = head.into_iter().chain(snapshot.token_floor);
            tokens.for_each(|token| self.sees_token(token));
        }
    }

    pub fn heartbeat_acknowledged(&mut self) {
        self.heartbeat += 1;
    }

    /// The row as it was before it became ours anew. `journal_row`: the last that must still be there.
    pub fn sees_row(&mut self, row: &ServerRow, me: &InstanceId, journal_row: Option<u64>) {
        self.journal_row = None;
        if self.epoch == 0 || row.epoch > self.epoch {
            return;
        }
        let is_ours = row.owner.as_deref() == Some(me);
        if row.epoch < self.epoch || !is_ours || row.heartbeat < self.heartbeat {
            self.has_lost = true;
        } else {
            self.journal_row = journal_row;
        }
    }

    /// The last row of the journal as it was found; `None`: it is empty.
    pub fn sees_journal(&mut self, last: Option<u64>) {
        if self.journal_row.is_some_and(|row| last < Some(row)) {
            self.has_lost = true;
        }
        self.journal_row = None;
    }

    /// It is ours in this epoch. Above which token it has to go on, if it has lost something.
    pub fn owned(&mut self, epoch: u64, heartbeat: u64) -> Option<FencingToken> {
        self.epoch = epoch;
        self.heartbeat = heartbeat;
        std::mem::take(&mut self.has_lost).then_some(FencingToken(self.token))
    }
}
