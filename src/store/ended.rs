//! Ended tickets as the SQL stores keep them: a row for each run of them that was stored together, named by
//! the number of the last. A busy lock ends tickets by the hundred, and nobody looks for a single one.

use crate::lock::rows::{ENDED_MAX, EndedRow};
use crate::lock::{EndReason, Ticket};

/// A ticket and its reason, bytes.
const ENTRY: usize = 17;

/// The runs of consecutive numbers in rows that are in the order of their numbers.
pub(super) fn runs(rows: &[EndedRow]) -> impl Iterator<Item = Run<'_>> {
    rows.chunk_by(|a, b| a.n.checked_add(1) == Some(b.n))
        .filter_map(|rows| {
            Some(Run {
                n: rows.last()?.n,
                rows,
            })
        })
}

/// Consecutive ended tickets.
pub(super) struct Run<'a> {
    /// The number of the last.
    pub n: u64,
    rows: &'a [EndedRow],
}

impl Run<'_> {
    /// The tickets with their reasons, oldest first.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.rows.len() * ENTRY);
        for row in self.rows {
            bytes.extend_from_slice(&row.ticket.bits().to_be_bytes());
            bytes.push(number(row.reason));
        }
        bytes
    }

    /// Runs with this number or a lower one hold nothing that is still remembered; `None`: there can be none.
    pub fn outlives(&self) -> Option<u64> {
        self.n.checked_sub(ENDED_MAX)
    }
}

/// The rows of a run; `None`: these are no bytes of ours.
pub(super) fn rows(n: u64, bytes: &[u8]) -> Option<Vec<EndedRow>> {
    let (entries, rest) = bytes.as_chunks::<ENTRY>();
    let first = n.checked_add(1)?.checked_sub(entries.len() as u64)?;
    if !rest.is_empty() {
        return None;
    }
    let row = |(place, entry): (usize, &[u8; ENTRY])| {
        let (ticket, reason) = entry.split_first_chunk::<16>()?;
        Some(EndedRow {
            n: first + place as u64,
            ticket: Ticket::from_bits(u128::from_be_bytes(*ticket)),
            reason: reason_of(*reason.first()?)?,
        })
    };
    entries.iter().enumerate().map(row).collect()
}

/// The newest of the rows of all runs, each once.
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
        }
    }

    #[test]
    fn runs_come_back_as_they_went() {
        let all = [
            ended(0, EndReason::Released),
            ended(1, EndReason::Expired),
            ended(7, EndReason::ForcedOff),
            ended(u64::MAX - 1, EndReason::Released),
            ended(u64::MAX, EndReason::Released),
        ];
        let runs: Vec<_> = runs(&all).collect();
        assert_eq!(
            runs.iter().map(|run| run.n).collect::<Vec<_>>(),
            [1, 7, u64::MAX]
        );
        let back = runs[..2]
            .iter()
            .flat_map(|run| rows(run.n, &run.bytes()).unwrap());
        assert_eq!(back.collect::<Vec<_>>(), all[..3]);
    }

    #[test]
    fn bytes_of_somebody_else_are_refused() {
        let good = runs(&[ended(4, EndReason::Expired)])
            .next()
            .unwrap()
            .bytes();
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
