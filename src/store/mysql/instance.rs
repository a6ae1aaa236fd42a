//! Which of several instances serves the database: `resource_server` names the owner, which has a row in
//! `resource_instance` with a heartbeat number, and a log of its own.
//!
//! No clock of another machine is compared. A stand-by takes over when it has seen the same heartbeat
//! number for a whole lease on its own monotonic clock, and never looked away meanwhile: after an outage of the
//! database, of which the owner knows as little as the stand-by, the watch begins anew. Taking over is one
//! transaction, in one packet, so that an instance that is cut off in the middle of it leaves no lock behind: it
//! marks the row of the one that is silent, *seals* its log with a last row, and makes the database its own. What
//! the sealed log has to say is checkpointed before anything else (see `write`). An owner that does not know what
//! became of its last commit does the same to itself.
//!
//! Why nothing of the old owner lands afterwards, and nothing that it was told is missed: see
//! [`super::fence::append`]. (The idea is the sealing of logs of BookKeeper and Delos.)

use std::time::{Duration, Instant};

use super::error::{Fault, code};
use super::fence::{self, LogId, Tenure};
use super::schema::{self, ServerRow};
use super::session::{Columns, Session};
use super::sql::Sql;
use crate::store::{InstanceId, journal};

/// Of what instances prove to each other that they know.
const SECRET_BYTES: usize = 32;

/// Between two looks no more than this part of a lease may pass: else the owner may have been silent for want of
/// a database.
const LOOKS_A_LEASE: u32 = 4;

/// A sign of life of another instance, when it was first seen, and when it was last looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SeenOwner {
    epoch: u64,
    heartbeats: [u64; 2],
    at: Instant,
    looked_at: Instant,
}

impl SeenOwner {
    fn of(row: &ServerRow, at: Instant) -> SeenOwner {
        SeenOwner {
            epoch: row.epoch,
            heartbeats: row.heartbeats(),
            at,
            looked_at: at,
        }
    }

    /// No other one was seen meanwhile, whenever that was.
    pub(super) fn is_same_sign(&self, other: &SeenOwner) -> bool {
        (self.epoch, self.heartbeats) == (other.epoch, other.heartbeats)
    }
}

/// What to do about the row as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// Nobody's, or ours.
    Now,
    /// Its owner was silent for a whole lease.
    Silent,
    /// Its owner lives, as far as one can tell.
    Wait(SeenOwner),
}

/// `asked_at`: when the row was asked for; `answered_at`: when the answer was there. What was seen is
/// known to be so no earlier than the answer, and to be so still no later than the question. `seen`: by the look
/// before, if that one succeeded.
pub(super) fn judge(
    row: &ServerRow,
    me: &InstanceId,
    seen: Option<&SeenOwner>,
    lease: Duration,
    asked_at: Instant,
    answered_at: Instant,
) -> Claim {
    match &row.owner {
        None => return Claim::Now,
        Some(owner) if owner == me => return Claim::Now,
        Some(_) => {}
    }
    let now = SeenOwner::of(row, answered_at);
    let is_watched = |seen: &&SeenOwner| {
        let away = answered_at.saturating_duration_since(seen.looked_at);
        seen.is_same_sign(&now) && away <= lease / LOOKS_A_LEASE
    };
    match seen.filter(is_watched) {
        Some(seen) if asked_at.saturating_duration_since(seen.at) >= lease => Claim::Silent,
        Some(seen) => Claim::Wait(SeenOwner { at: seen.at, ..now }),
        None => Claim::Wait(now),
    }
}

/// Makes the database ours in the next epoch, if its rows are still as they were read. The writer of the epoch before
/// is cut off: stopped in the middle of a transaction, it would keep its row lock. Only on the server that it
/// belongs to: on another one its number is somebody else's.
pub(super) async fn take(
    session: &mut Session,
    row: &ServerRow,
    me: &InstanceId,
    address: Option<&str>,
) -> Result<Option<Tenure>, Fault> {
    let writer = match &row.instance {
        Some(instance) => Some((instance.connection, Some(&instance.server))),
        None => row.connection.map(|number| (number, None)),
    };
    if let Some((connection, server)) = writer {
        let is_of_this_server = match server {
            Some(server) => *server == session.server.id,
            // Version 2.0.0 wrote it, which knew of one server only.
            None => !session.server.is_member,
        };
        if is_of_this_server {
            kill(session, connection).await?;
        }
    }
    let tenure = Tenure {
        epoch: row.epoch + 1,
        id: *me,
        log: *uuid::Uuid::new_v4().as_bytes(),
    };
    let sql = taking(row, tenure, &session.server.id, address);
    Ok(run_in_time(session, &sql).await?.then_some(tenure))
}

/// Runs a transaction about rows as they were read. `false`: they were changed meanwhile, by whoever was thought to
/// be silent or by another that takes over.
async fn run_in_time(session: &mut Session, sql: &Sql) -> Result<bool, Fault> {
    match session.run(sql.as_str()).await {
        Ok(_) => Ok(true),
        Err(fault) if fault.leaves_connection() => {
            session.run("ROLLBACK").await?;
            let is_late = fence::is_refusal(&fault) || fence::is_fenced(&fault);
            if is_late { Ok(false) } else { Err(fault) }
        }
        Err(fault) => Err(fault),
    }
}

fn taking(row: &ServerRow, tenure: Tenure, server: &str, address: Option<&str>) -> Sql {
    let mut sql = Sql::new("BEGIN; ");
    let owner = |sql: &mut Sql| {
        sql.or_null(row.owner.as_deref(), |sql, owner| {
            sql.bytes(owner);
        });
    };
    if let Some(instance) = &row.instance {
        sql.push("UPDATE resource_instance SET state = IF(heartbeat = ");
        sql.number(instance.heartbeat).push(" AND log = ");
        sql.bytes(&instance.log).push(", 3, NULL) WHERE id = ");
        owner(&mut sql);
        sql.push("; ");
        seal(&mut sql, &instance.log);
    }
    sql.push("UPDATE resource_server SET epoch = IF(epoch = ");
    sql.number(row.epoch).push(" AND heartbeat = ");
    sql.number(row.heartbeat).push(" AND owner <=> ");
    owner(&mut sql);
    sql.push(", epoch + 1, NULL), owner = ").bytes(&tenure.id);
    sql.push(
        ", connection = NULL WHERE id = 1; INSERT INTO resource_instance \
         (id, state, heartbeat, log, server, connection, address, peer_secret) VALUES (",
    );
    sql.bytes(&tenure.id).push(", 1, 1, ").bytes(&tenure.log);
    sql.push(", ").text(server).push(", CONNECTION_ID(), ");
    sql.or_null(address, |sql, address| {
        sql.text(address);
    });
    // Another one for each owner.
    sql.push(", ").bytes(&rand::random::<[u8; SECRET_BYTES]>());
    sql.push(
        ") ON DUPLICATE KEY UPDATE state = 1, heartbeat = heartbeat + 1, log = VALUES(log), \
         server = VALUES(server), connection = VALUES(connection), address = VALUES(address), \
         peer_secret = VALUES(peer_secret); ",
    );
    sql.push("INSERT INTO resource_log (log, n, changes) VALUES (");
    sql.bytes(&tenure.log)
        .push(", 1, ")
        .bytes(journal::EMPTY)
        .push("); COMMIT");
    sql
}

/// Nothing can be appended to the log afterwards. (A log that never had a row has no instance.)
fn seal(sql: &mut Sql, log: &LogId) {
    sql.push("INSERT INTO resource_log (log, n, changes) SELECT log, MAX(n) + 1, ");
    sql.bytes(journal::SEAL);
    sql.push(" FROM resource_log WHERE log = ").bytes(log);
    sql.push(" GROUP BY log; ");
}

/// Whether the log goes on after this row, which was the last: with a seal, at least.
pub(super) async fn goes_on(session: &mut Session, log: &LogId, last: u64) -> Result<bool, Fault> {
    let mut sql = Sql::new("SELECT n FROM resource_log WHERE log = ");
    sql.bytes(log).push(" AND n = ").number(last + 1);
    Ok(!session.rows(sql.as_str()).await?.is_empty())
}

/// Ends a connection of ours to this database. Ids are used anew after a restart of the server, so it is
/// looked at first.
async fn kill(session: &mut Session, connection: u64) -> Result<(), Fault> {
    let listed = match listed(session, "information_schema", connection).await {
        Err(fault) if fault.is(code::NOT_CONVERTED) => {
            listed(session, "performance_schema", connection).await?
        }
        listed => listed?,
    };
    if !listed {
        return Ok(());
    }
    let mut sql = Sql::new("KILL CONNECTION ");
    match session.run(sql.number(connection).as_str()).await {
        Ok(_) => log::info!("connection {connection} of the previous epoch was ended"),
        Err(fault) if fault.is(code::NO_SUCH_THREAD) => {}
        Err(fault @ Fault::Server { .. }) => {
            log::warn!("connection {connection} of the previous epoch cannot be ended: {fault:?}");
        }
        Err(fault) => return Err(fault),
    }
    Ok(())
}

/// Whether there is such a connection to this database. `schema`: where the list of connections is. MySQL's
/// `information_schema` fails while anybody's statement has a character beyond the basic plane.
async fn listed(session: &mut Session, schema: &str, connection: u64) -> Result<bool, Fault> {
    let mut sql = Sql::new("SELECT id FROM ");
    sql.push(schema)
        .push(".processlist WHERE db = DATABASE() AND id <> CONNECTION_ID() AND id = ");
    sql.number(connection);
    Ok(!session.rows(sql.as_str()).await?.is_empty())
}

/// One sign of life. `false`: the database is not ours any more. `is_opening`: those that know no instances look
/// for it where it was up to version 3.
///
/// # Errors
/// Among others: the server has become read-only, so another one is the primary, or soon will be. (An
/// account with the right to write all the same would go on writing to what nobody reads.)
pub(super) async fn beat(
    session: &mut Session,
    tenure: Tenure,
    is_opening: bool,
) -> Result<bool, Fault> {
    let mut sql = Sql::default();
    if is_opening {
        sql.push("UPDATE resource_server SET heartbeat = heartbeat + 1 WHERE id = 1 AND epoch = ");
        sql.number(tenure.epoch).push("; ");
    }
    sql.push("UPDATE resource_instance SET heartbeat = heartbeat + 1");
    mine(&mut sql, tenure);
    sql.push("; SELECT ROW_COUNT(), CAST(@@global.read_only AS CHAR)");
    let Some(row) = session.rows(sql.as_str()).await?.pop() else {
        return Err(Fault::Away("a heartbeat has no answer".into()));
    };
    let mut row = Columns::of(row);
    let (changed, read_only): (i64, String) = (row.take()?, row.take()?);
    if !matches!(read_only.as_str(), "0" | "OFF") {
        let id = &session.server.id;
        return Err(Fault::Away(format!("the server {id} has become read-only")));
    }
    Ok(changed > 0)
}

/// Records the connection that writes from now on.
pub(super) async fn record_writer(session: &mut Session, tenure: Tenure) -> Result<bool, Fault> {
    let mut sql = Sql::new("UPDATE resource_instance SET connection = CONNECTION_ID()");
    sql.push(", server = ").text(&session.server.id);
    // A heartbeat, so that the row changes in any case.
    sql.push(", heartbeat = heartbeat + 1");
    mine(&mut sql, tenure);
    Ok(session.change(sql.as_str()).await? > 0)
}

/// Gives the database back, if it is ours. The log is sealed, so that nothing of ours can land later.
pub(super) async fn release(session: &mut Session, me: &InstanceId) -> Result<(), Fault> {
    let row = schema::read_server_row(session).await?;
    let is_ours = |row: &ServerRow| row.owner.as_deref() == Some(me);
    let Some(row) = row.filter(is_ours) else {
        return Ok(());
    };
    let mut sql = Sql::new("BEGIN; ");
    if let Some(instance) = &row.instance {
        sql.push("UPDATE resource_instance SET state = IF(log = ");
        sql.bytes(&instance.log).push(", 3, NULL) WHERE id = ");
        sql.bytes(me).push("; ");
        seal(&mut sql, &instance.log);
    }
    sql.push("UPDATE resource_server SET epoch = IF(epoch = ");
    sql.number(row.epoch).push(" AND owner <=> ").bytes(me);
    sql.push(", epoch + 1, NULL), owner = NULL WHERE id = 1; COMMIT");
    run_in_time(session, &sql).await.map(|_| ())
}

/// Nobody took this log, nor the database: the one row about that is what everybody agrees on.
fn mine(sql: &mut Sql, tenure: Tenure) {
    sql.push(" WHERE id = ").bytes(&tenure.id);
    sql.push(" AND log = ").bytes(&tenure.log);
    sql.push(" AND state = 1 AND EXISTS (SELECT 1 FROM resource_server WHERE id = 1 AND epoch = ");
    sql.number(tenure.epoch).push(" AND owner = ");
    sql.bytes(&tenure.id).push(")");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::FencingToken;
    use crate::store::mysql::schema::MigrationStep;

    const ME: InstanceId = [1; 16];
    const LEASE: Duration = Duration::from_secs(4);

    fn row(owner: Option<u8>, heartbeat: u64) -> ServerRow {
        ServerRow {
            version: 1,
            step: MigrationStep::Ready,
            profile: None,
            php_collation: None,
            token_floor: FencingToken(0),
            epoch: 7,
            heartbeat,
            owner: owner.map(|byte| vec![byte; 16]),
            connection: None,
            instance: None,
        }
    }

    fn judged(row: &ServerRow, seen: Option<&SeenOwner>, asked_at: Instant) -> Claim {
        judge(
            row,
            &ME,
            seen,
            LEASE,
            asked_at,
            asked_at + Duration::from_millis(5),
        )
    }

    #[test]
    fn a_free_row_and_an_own_row_are_taken_at_once() {
        let now = Instant::now();
        assert_eq!(judged(&row(None, 3), None, now), Claim::Now);
        assert_eq!(judged(&row(Some(1), 3), None, now), Claim::Now);
    }

    /// The owner stays at this heartbeat: looked at as often as this, until that time has passed.
    fn watched(heartbeat: u64, mut seen: SeenOwner, every: Duration, until: Duration) -> SeenOwner {
        let start = seen.at;
        let mut asked_at = start + every;
        while asked_at < start + until {
            let Claim::Wait(still) = judged(&row(Some(2), heartbeat), Some(&seen), asked_at) else {
                panic!("taken {:?} after the first look", asked_at - start);
            };
            seen = still;
            asked_at += every;
        }
        seen
    }

    fn first_look(start: Instant) -> SeenOwner {
        match judged(&row(Some(2), 3), None, start) {
            Claim::Wait(seen) => seen,
            claim => panic!("{claim:?}"),
        }
    }

    #[test]
    fn a_silent_owner_is_waited_for_a_whole_lease() {
        let seen = first_look(Instant::now());
        let start = seen.at;
        // The lease counts from the first answer to the last question.
        let seen = watched(3, seen, LEASE / 8, LEASE);
        assert_eq!(seen.at, start);
        let late = judged(&row(Some(2), 3), Some(&seen), start + LEASE);
        assert_eq!(late, Claim::Silent);
    }

    #[test]
    fn a_heartbeat_begins_the_wait_anew() {
        let seen = watched(3, first_look(Instant::now()), LEASE / 8, LEASE);
        let late = seen.at + LEASE;
        let Claim::Wait(again) = judged(&row(Some(2), 4), Some(&seen), late) else {
            panic!("taken from a living owner");
        };
        assert!(again.at >= late);
    }

    #[test]
    fn whoever_looked_away_begins_the_wait_anew() {
        let row = row(Some(2), 3);
        let most = LEASE / LOOKS_A_LEASE;
        // Be it between two looks, or that one of them took so long.
        for answer_took in [Duration::ZERO, 2 * LEASE] {
            let seen = watched(3, first_look(Instant::now()), LEASE / 8, LEASE);
            let answered_at = seen.looked_at + most.max(answer_took) + Duration::from_millis(1);
            let asked_at = answered_at - answer_took;
            let claim = judge(&row, &ME, Some(&seen), LEASE, asked_at, answered_at);
            let Claim::Wait(again) = claim else {
                panic!("taken after a pause: an answer that took {answer_took:?}");
            };
            assert_eq!(again.at, answered_at);
            // And then for a whole lease.
            let seen = watched(3, again, LEASE / 8, LEASE);
            let late = judged(&row, Some(&seen), answered_at + LEASE);
            assert_eq!(late, Claim::Silent);
        }
    }
}
