//! What this process knows to have been committed, held against the database when it is opened again: one
//! that lost acknowledged commits (an asynchronous failover, a crash with a lax flush, a restored dump) must
//! not give out the same fencing tokens again.

use super::fence::{LogId, Tenure};
use super::schema::ServerRow;
use crate::lock::FencingToken;
use crate::store::InstanceId;
use crate::store::snapshot::Snapshot;

#[derive(Debug, Default)]
pub(super) struct Witness {
    /// In which the database was ours last, and the heartbeats that were acknowledged by then; 0: never.
    epoch: u64,
    heartbeat: u64,
    log: LogId,
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

    /// The row as it was before it became ours anew. `has_tail`: the last row that we committed is in our log.
    pub fn sees_row(&mut self, row: &ServerRow, me: &InstanceId, has_tail: bool) {
        if self.epoch == 0 || row.epoch > self.epoch {
            return;
        }
        let is_ours = row.owner.as_deref() == Some(me);
        let heartbeat = row.instance.as_ref().map_or(0, |row| row.heartbeat);
        if row.epoch < self.epoch || !is_ours || heartbeat < self.heartbeat || !has_tail {
            self.has_lost = true;
        }
    }

    /// The log in which our last commit must be, if the row says that nobody else has owned the database since.
    pub fn own_log(&self, row: &ServerRow) -> Option<LogId> {
        (self.epoch != 0 && row.epoch == self.epoch).then_some(self.log)
    }

    /// It is ours in this tenure. Above which token it has to go on, if it has lost something.
    pub fn owned(&mut self, tenure: Tenure, heartbeat: u64) -> Option<FencingToken> {
        self.epoch = tenure.epoch;
        self.log = tenure.log;
        self.heartbeat = heartbeat;
        std::mem::take(&mut self.has_lost).then_some(FencingToken(self.token))
    }
}
