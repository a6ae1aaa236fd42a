//! Encoding of journal rows: a byte for the format, then the changes of one lock after the other, each with the
//! id of its resource, in [postcard](https://postcard.jamesmunns.com/wire-format).

use std::borrow::Cow;
use std::collections::HashMap;

use super::version1::{self, LockChangesV1};
use crate::store::StoreError;
use crate::store::snapshot::{LockChanges, ResourceId};

/// Format of a row: its first byte.
const FORM: u8 = 2;
/// The format that version 2.0.0 wrote.
const FORM_V1: u8 = 1;
/// A row without changes.
pub(in crate::store) const EMPTY: &[u8] = &[FORM];
/// Format of a seal: the last row of a log, to which nothing can be appended any more.
const FORM_SEAL: u8 = 3;
pub(in crate::store) const SEAL: &[u8] = &[FORM_SEAL];
/// Changes of one lock are split into pieces of this many rows, so that a journal row does not much exceed the
/// size it should have.
const PIECE_ROWS: usize = 64;

/// Encodes the changes of these locks as rows of at most `row_bytes`; only a row with a single piece may be
/// larger.
///
/// # Errors
/// [`StoreError::Rejected`]: a change cannot be encoded.
pub(super) fn write<'a>(
    locks: impl IntoIterator<Item = (&'a ResourceId, &'a LockChanges)>,
    row_bytes: usize,
) -> Result<Vec<Vec<u8>>, StoreError> {
    let mut full = Vec::new();
    let mut row = vec![FORM];
    for (id, changes) in locks {
        for piece in pieces(changes) {
            let begin = row.len();
            row = postcard::to_extend(&(id, &piece), row)
                .map_err(|error| StoreError::Rejected(error.to_string()))?;
            if row.len() > row_bytes && begin > 1 {
                let mut next = vec![FORM];
                next.extend_from_slice(&row[begin..]);
                row.truncate(begin);
                full.push(std::mem::replace(&mut row, next));
            }
        }
    }
    if row.len() > 1 {
        full.push(row);
    }
    Ok(full)
}

/// One row with the changes of both rows in turn. `None`: `row` is empty, or the result would exceed
/// `row_bytes`.
pub(super) fn join(row: &[u8], later: &[u8], row_bytes: usize) -> Option<Vec<u8>> {
    let (_, later) = later.split_first()?;
    let fits = !row.is_empty() && row.len() + later.len() <= row_bytes;
    fits.then(|| [row, later].concat())
}

/// Splits changes into pieces of about [`PIECE_ROWS`] rows.
fn pieces(changes: &LockChanges) -> Vec<Cow<'_, LockChanges>> {
    if changes.rows() <= PIECE_ROWS {
        return vec![Cow::Borrowed(changes)];
    }
    let (mut rest, mut pieces) = (changes.clone(), Vec::new());
    while !rest.is_empty() {
        let mut piece = LockChanges {
            head: rest.head.take(),
            ended: std::mem::take(&mut rest.ended),
            ..LockChanges::default()
        };
        while piece.rows() < PIECE_ROWS
            && let Some((ticket, row)) = rest.holding.pop_first()
        {
            piece.holding.insert(ticket, row);
        }
        while piece.rows() < PIECE_ROWS
            && let Some((ticket, row)) = rest.waiting.pop_first()
        {
            piece.waiting.insert(ticket, row);
        }
        pieces.push(Cow::Owned(piece));
    }
    pieces
}

/// Decodes journal rows in their order and merges the changes of each resource.
///
/// # Errors
/// [`StoreError::Unusable`]: a newer program wrote a row, or a row is damaged.
pub(in crate::store) fn read(
    rows: impl IntoIterator<Item = Vec<u8>>,
) -> Result<Vec<(ResourceId, LockChanges)>, StoreError> {
    let mut found: HashMap<ResourceId, LockChanges> = HashMap::new();
    for row in rows {
        if row == SEAL {
            continue;
        }
        let Some((&form @ (FORM | FORM_V1), mut rest)) = row.split_first() else {
            let text =
                "its journal has a format that this program does not know; a newer one wrote it";
            return Err(StoreError::Unusable(text.to_owned()));
        };
        while !rest.is_empty() {
            let read = match form {
                FORM => postcard::take_from_bytes::<(ResourceId, LockChanges)>(rest),
                _ => postcard::take_from_bytes::<(ResourceId, LockChangesV1)>(rest)
                    .map(|((id, changes), left)| ((id, version1::changes(changes)), left)),
            };
            let ((id, changes), left) = read.map_err(|error| {
                StoreError::Unusable(format!("its journal cannot be decoded: {error}"))
            })?;
            found.entry(id).or_default().merge(&changes);
            rest = left;
        }
    }
    Ok(found.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{ended, head, snapshot, waiting};
    use super::*;
    use crate::lock::{FencingToken, Ticket};

    const ROW_BYTES: usize = 1_000;

    fn rows_of(changes: impl IntoIterator<Item = LockChanges>) -> Vec<Vec<u8>> {
        let snapshot = snapshot("1", changes);
        write([(&snapshot.id, &snapshot.lock)], ROW_BYTES).unwrap()
    }

    #[test]
    fn what_was_written_is_read_whole_and_in_order() {
        let first = rows_of([head(1), waiting(7), ended(0)]);
        let mut left = head(2);
        left.leave(Ticket::from_bits(7));
        let second = rows_of([left]);
        let mut rows = vec![join(&first[0], &second[0], ROW_BYTES).unwrap()];
        let many = (0..5_000).map(|bits| waiting(u128::MAX - bits));
        rows.extend(rows_of(many.chain((1..80).map(ended))));
        let found = read(rows).unwrap();
        let [(id, changes)] = &found[..] else {
            panic!("{} resources", found.len());
        };
        assert_eq!(id.as_str(), "1");
        assert_eq!(changes.head.as_ref().unwrap().token, FencingToken(2));
        assert_eq!(changes.waiting.len(), 5_001);
        assert_eq!(changes.waiting[&Ticket::from_bits(7)], None);
        let numbers: Vec<u64> = changes.ended.iter().map(|row| row.n).collect();
        assert_eq!(numbers, (16..80).collect::<Vec<_>>());
    }

    #[test]
    fn a_row_has_a_size_that_only_one_piece_goes_beyond() {
        let locks: Vec<_> = (0..1_000).map(|n| snapshot("1", [head(n)])).collect();
        let locks = locks.iter().map(|lock| (&lock.id, &lock.lock));
        let rows = write(locks, ROW_BYTES).unwrap();
        assert!(rows.len() > 1);
        assert!(rows.iter().all(|row| row.len() <= ROW_BYTES));
        let large = rows_of((0..64).map(|bits| waiting(u128::MAX - bits)));
        assert!(large.len() == 1 && large[0].len() > ROW_BYTES);
        assert!(write([], ROW_BYTES).unwrap().is_empty());
    }

    #[test]
    fn what_is_of_an_unknown_form_or_cut_off_is_refused() {
        let rows = rows_of([head(1)]);
        let mut newer = rows.clone();
        newer[0][0] = FORM_SEAL + 1;
        let mut short = rows.clone();
        short[0].pop();
        for bad in [newer, short, vec![Vec::new()]] {
            assert!(matches!(read(bad), Err(StoreError::Unusable(_))));
        }
    }
}
