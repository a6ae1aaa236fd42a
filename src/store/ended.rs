//! Ended tickets as the SQL stores keep them: one row for each run of consecutive tickets that were stored
//! together, keyed by the number of the last. A row per ticket would be wasteful: a busy lock ends tickets by
//! the hundred, and nobody reads a single one.

use super::StoreError;
use crate::lock::rows::{ENDED_MAX, EndedMore, EndedRow};
use crate::lock::{EndReason, Ticket};

/// Size of an entry in bytes: 16 for the ticket, 1 for the reason.
const ENTRY: usize = 17;
/// Flag in the byte of the reason: two bytes of length follow, and then an [`EndedMore`] of that many bytes.
const HAS_MORE: u8 = 0x80;

/// Splits rows that are ordered by number into runs of consecutive numbers, and encodes each: its number, which
/// is that of its last ticket, and its entries.
///
/// # Errors
/// [`StoreError::Rejected`]: an entry cannot be encoded.
pub(super) fn runs(rows: &[EndedRow]) -> Result<Vec<(u64, Vec<u8>)>, StoreError> {
    rows.chunk_by(|a, b| a.n.checked_add(1) == Some(b.n))
        .filter_map(|run| Some((run.last()?.n, run)))
        .map(|(n, run)| Ok((n, entries(run)?)))
        .collect()
}

/// Encodes the tickets of a run with their reasons, oldest first.
fn entries(run: &[EndedRow]) -> Result<Vec<u8>, StoreError> {
    let mut bytes = Vec::with_capacity(run.len() * ENTRY);
    for row in run {
        bytes.extend_from_slice(&row.ticket.bits().to_be_bytes());
        let Some(more) = &row.more else {
            bytes.push(number(row.reason));
            continue;
        };
        let refused = |why: String| StoreError::Rejected(why);
        let more = postcard::to_allocvec(more).map_err(|error| refused(error.to_string()))?;
        let length = u16::try_from(more.len()).map_err(|error| refused(error.to_string()))?;
        bytes.push(number(row.reason) | HAS_MORE);
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&more);
    }
    Ok(bytes)
}

/// Once the run `n` is stored, runs with the returned number or a lower one contain only tickets that are no
/// longer remembered. `None`: there are no such runs.
pub(super) fn outlived_by(n: u64) -> Option<u64> {
    n.checked_sub(ENDED_MAX)
}

/// Decodes the rows of the run `n`. `None`: the bytes are not the entries of a run.
pub(super) fn rows(n: u64, mut bytes: &[u8]) -> Option<Vec<EndedRow>> {
    let mut rows = Vec::new();
    while !bytes.is_empty() {
        let (ticket, rest) = bytes.split_first_chunk::<16>()?;
        let (&reason, rest) = rest.split_first()?;
        let (more, rest) = more_of(reason, rest)?;
        rows.push(EndedRow {
            n: 0,
            ticket: Ticket::from_bits(u128::from_be_bytes(*ticket)),
            reason: reason_of(reason & !HAS_MORE)?,
            more,
        });
        bytes = rest;
    }
    let first = n.checked_add(1)?.checked_sub(rows.len() as u64)?;
    for (place, row) in (0..).zip(&mut rows) {
        row.n = first + place;
    }
    Some(rows)
}

/// Decodes the [`EndedMore`] of an entry, if its reason has the flag. Also returns the bytes after it.
fn more_of(reason: u8, bytes: &[u8]) -> Option<(Option<Box<EndedMore>>, &[u8])> {
    if reason & HAS_MORE == 0 {
        return Some((None, bytes));
    }
    let (length, bytes) = bytes.split_first_chunk::<2>()?;
    let (more, rest) = bytes.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    let more: EndedMore = postcard::from_bytes(more).ok()?;
    Some((Some(Box::new(more)), rest))
}

/// The newest [`ENDED_MAX`] of these rows, ordered by number and without duplicates.
pub(super) fn newest(mut rows: Vec<EndedRow>) -> Vec<EndedRow> {
    rows.sort_by_key(|row| row.n);
    rows.dedup_by_key(|row| row.n);
    if let Some(newest) = rows.last().map(|row| row.n) {
        rows.retain(|row| !row.is_outlived_by(newest));
    }
    rows
}

fn number(reason: EndReason) -> u8 {
    match reason {
        EndReason::Released => 1,
        EndReason::Expired => 2,
        EndReason::ForcedOff => 3,
    }
}

/// The inverse of [`number`].
fn reason_of(byte: u8) -> Option<EndReason> {
    let all = [
        EndReason::Released,
        EndReason::Expired,
        EndReason::ForcedOff,
    ];
    all.into_iter().find(|reason| number(*reason) == byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(n: u64, reason: EndReason) -> EndedRow {
        EndedRow {
            n,
            ticket: Ticket::from_bits(u128::MAX - u128::from(n)),
            reason,
            more: None,
        }
    }

    #[test]
    fn bytes_of_somebody_else_are_refused() {
        let (_, good) = runs(&[ended(4, EndReason::Expired)]).unwrap().remove(0);
        assert!(rows(4, &good).is_some());
        assert!(rows(4, &good[1..]).is_none());
        let mut odd = good.clone();
        odd[16] = 9;
        assert!(rows(4, &odd).is_none());
        assert!(rows(0, &[good.clone(), good].concat()).is_none());
    }

    #[test]
    fn only_the_newest_count_and_each_once() {
        let both = [0..50, 40..100];
        let all = both
            .into_iter()
            .flatten()
            .map(|n| ended(n, EndReason::Expired));
        let newest = newest(all.collect());
        let numbers: Vec<u64> = newest.iter().map(|row| row.n).collect();
        assert_eq!(numbers, (36..100).collect::<Vec<_>>());
    }
}
