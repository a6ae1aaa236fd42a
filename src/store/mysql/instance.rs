//! Which of several instances serves the database: one row with an epoch and a heartbeat number.
//!
//! No clock of another machine is compared. A stand-by takes over when it has seen the same heartbeat
//! number for a whole lease on its own monotonic clock. Taking is one statement, so that an instance that
//! is cut off in the middle of it leaves no lock behind.

use std::time::{Duration, Instant};

use super::error::{Fault, code};
use super::schema::ServerRow;
use super::session::{Columns, Session};
use super::sql::Sql;
use crate::store::InstanceId;

/// Of what instances prove to each other that they know.
const SECRET_BYTES: usize = 32;

/// A sign of life of another instance, and when it was first seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SeenOwner {
    epoch: u64,
    heartbeat: u64,
    at: Instant,
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
/// known to be so no earlier than the answer, and to be so still no later than the question.
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
    match seen {
        Some(seen) if (seen.epoch, seen.heartbeat) == (row.epoch, row.heartbeat) => {
            if asked_at.saturating_duration_since(seen.at) >= lease {
                Claim::Silent
            } else {
                Claim::Wait(seen.clone())
            }
        }
        _ => Claim::Wait(SeenOwner {
            epoch: row.epoch,
            heartbeat: row.heartbeat,
            at: answered_at,
        }),
    }
}

/// Makes the row ours in the next epoch, if it is still as it was read. The writer of the epoch before is
/// cut off: stopped in the middle of a transaction, it would keep its row lock. Only on the server that it
/// belongs to: on another one its number is somebody else's.
pub(super) async fn take(
    session: &mut Session,
    row: &ServerRow,
    me: &InstanceId,
    address: Option<&str>,
) -> Result<Option<u64>, Fault> {
    let is_of_this_server = match &row.server {
        Some(server) => *server == session.server.id,
        // Version 2.0.0 wrote it, which knew of one server only.
        None => !session.server.is_member,
    };
    if let Some(connection) = row.connection.filter(|_| is_of_this_server) {
        kill(session, connection).await?;
    }
    let mut sql = Sql::new(
        "UPDATE resource_server SET epoch = epoch + 1, heartbeat = heartbeat + 1, owner = ",
    );
    sql.bytes(me);
    sql.push(", connection = CONNECTION_ID(), server = ");
    sql.text(&session.server.id);
    sql.push(", address = ").or_null(address, |sql, address| {
        sql.text(address);
    });
    // Another one for each owner.
    sql.push(", peer_secret = ")
        .bytes(&rand::random::<[u8; SECRET_BYTES]>());
    sql.push(" WHERE id = 1 AND epoch = ");
    sql.number(row.epoch).push(" AND owner <=> ");
    sql.or_null(row.owner.as_deref(), |sql, owner| {
        sql.bytes(owner);
    });
    if row.owner.as_deref() != Some(me) {
        sql.push(" AND heartbeat = ").number(row.heartbeat);
    }
    let changed = session.change(sql.as_str()).await?;
    Ok((changed > 0).then_some(row.epoch + 1))
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

/// One sign of life. `false`: the row is not ours any more.
///
/// # Errors
/// Among others: the server has become read-only, so another one is the primary, or soon will be. (An
/// account with the right to write all the same would go on writing to what nobody reads.)
pub(super) async fn beat(
    session: &mut Session,
    epoch: u64,
    me: &InstanceId,
) -> Result<bool, Fault> {
    let mut sql = Sql::new("UPDATE resource_server SET heartbeat = heartbeat + 1");
    mine(&mut sql, epoch, me);
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
pub(super) async fn record_writer(
    session: &mut Session,
    epoch: u64,
    me: &InstanceId,
) -> Result<bool, Fault> {
    let mut sql = Sql::new("UPDATE resource_server SET connection = CONNECTION_ID()");
    sql.push(", server = ").text(&session.server.id);
    // A heartbeat, so that the row changes in any case.
    sql.push(", heartbeat = heartbeat + 1");
    mine(&mut sql, epoch, me);
    Ok(session.change(sql.as_str()).await? > 0)
}

/// Frees the row. The next epoch begins, so that nothing of ours can land later.
pub(super) async fn release(session: &mut Session, me: &InstanceId) -> Result<(), Fault> {
    let mut sql = Sql::new(
        "UPDATE resource_server SET epoch = epoch + 1, owner = NULL, connection = NULL, \
         server = NULL, address = NULL, peer_secret = NULL",
    );
    sql.push(" WHERE id = 1 AND owner = ").bytes(me);
    session.change(sql.as_str()).await?;
    Ok(())
}

fn mine(sql: &mut Sql, epoch: u64, me: &InstanceId) {
    sql.push(" WHERE id = 1 AND epoch = ").number(epoch);
    sql.push(" AND owner = ").bytes(me);
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
            server: None,
            address: None,
            peer_secret: None,
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

    #[test]
    fn a_silent_owner_is_waited_for_a_whole_lease() {
        let start = Instant::now();
        let Claim::Wait(seen) = judged(&row(Some(2), 3), None, start) else {
            panic!("taken without waiting");
        };
        // The lease counts from the first answer to the last question.
        let early = judged(&row(Some(2), 3), Some(&seen), start + LEASE);
        assert_eq!(early, Claim::Wait(seen.clone()));
        let late = start + LEASE + Duration::from_millis(5);
        assert_eq!(judged(&row(Some(2), 3), Some(&seen), late), Claim::Silent);
    }

    #[test]
    fn a_heartbeat_begins_the_wait_anew() {
        let start = Instant::now();
        let Claim::Wait(seen) = judged(&row(Some(2), 3), None, start) else {
            panic!("taken without waiting");
        };
        let late = start + 2 * LEASE;
        let Claim::Wait(again) = judged(&row(Some(2), 4), Some(&seen), late) else {
            panic!("taken from a living owner");
        };
        assert!(again.at >= late);
    }
}
