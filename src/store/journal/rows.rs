//! The bytes of a journal's rows: a form byte, then the changes of one lock after the other, each with the id
//! of its resource, in [postcard](https://postcard.jamesmunns.com/wire-format).

use std::borrow::Cow;
use std::collections::HashMap;

use super::version1::LockChangesV1;
use crate::store::StoreError;
use crate::store::snapshot::{LockChanges, ResourceId};

/// The form of a row; its first byte.
const FORM: u8 = 2;
/// What version 2.0.0 wrote.
const FORM_V1: u8 = 1;
/// What a row has that says nothing.
pub(in crate::store) const EMPTY: &[u8] = &[FORM];
/// The last row of a log that nobody may add to any more.
const FORM_SEAL: u8 = 3;
pub(in crate::store) const SEAL: &[u8] = &[FORM_SEAL];
/// Changes of one lock are taken apart, so that a row does not get much larger than it is wanted.
const PIECE_ROWS: usize = 64;

/// Writes the changes of these locks into rows of at most so many bytes, or of one piece of changes.
///
/// # Errors
/// [`StoreError::Rejected`]: something cannot be written down.
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

/// A row that says what both say, one after the other; `None` if it would have more bytes than that.
pub(super) fn join(row: &[u8], later: &[u8], row_bytes: usize) -> Option<Vec<u8>> {
    let (_, later) = later.split_first()?;
    let fits = !row.is_empty() && row.len() + later.len() <= row_bytes;
    fits.then(|| [row, later].concat())
}

/// The same changes, few at a time.
fn pieces(changes: &LockChanges) -> Vec<Cow<'_, LockChanges>> {
    if changes.rows() <= PIECE_ROWS {
        return vec![Cow::Borrowed(changes)];
    }
    let first = LockChanges {
        head: changes.head.clone(),
        ended: changes.ended.clone(),
        ..LockChanges::default()
    };
    let holding: Vec<_> = changes.holding.iter().collect();
    let holding = holding.chunks(PIECE_ROWS).map(|some| LockChanges {
        holding: some.iter().map(|(k, v)| (**k, (*v).clone())).collect(),
        ..LockChanges::default()
    });
    let waiting: Vec<_> = changes.waiting.iter().collect();
    let rest = waiting.chunks(PIECE_ROWS).map(|some| LockChanges {
        waiting: some.iter().map(|(k, v)| (**k, (*v).clone())).collect(),
        ..LockChanges::default()
    });
    let all = [first].into_iter().chain(holding).chain(rest);
    all.map(Cow::Owned).collect()
}

/// What rows of a journal say in their order, for each resource.
///
/// # Errors
/// [`StoreError::Unusable`]: a newer program wrote it, or it is damaged.
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
                "its journal has a form that this program does not know; a newer one wrote it";
            return Err(StoreError::Unusable(text.to_owned()));
        };
        while !rest.is_empty() {
            let read = match form {
                FORM => postcard::take_from_bytes::<(ResourceId, LockChanges)>(rest),
                _ => postcard::take_from_bytes::<(ResourceId, LockChangesV1)>(rest)
                    .map(|((id, changes), left)| ((id, changes.into()), left)),
            };
            let ((id, changes), left) = read.map_err(|error| {
                StoreError::Unusable(format!("its journal cannot be read: {error}"))
            })?;
            found.entry(id).or_default().merge(&changes);
            rest = left;
        }
    }
    Ok(found.into_iter().collect())
}

/// What was [`read`] in chunks of at most so many rows of tables, or of one lock.
pub(in crate::store) fn chunks_of_rows(
    mut read: &[(ResourceId, LockChanges)],
    rows_max: usize,
) -> impl Iterator<Item = &[(ResourceId, LockChanges)]> {
    std::iter::from_fn(move || {
        let mut rows = 0;
        let mut fits = |(_, changes): &(_, LockChanges)| {
            rows += changes.rows();
            rows <= rows_max
        };
        let count = read.iter().take_while(|lock| fits(lock)).count();
        let (chunk, rest) = read.split_at_checked(count.max(1))?;
        read = rest;
        Some(chunk)
    })
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
    fn rows_are_joined_up_to_their_size() {
        let rows = rows_of([head(1)]);
        let both = 2 * rows[0].len() - 1;
        assert!(join(&rows[0], &rows[0], both).is_some());
        assert!(join(&rows[0], &rows[0], both - 1).is_none());
        assert!(join(&[], &rows[0], both).is_none(), "there is none");
    }

    #[test]
    fn portions_have_all_of_it_and_are_small() {
        let lock = |rows: u64| {
            let snapshot = snapshot("1", (0..rows).map(|bits| waiting(u128::from(bits))));
            (snapshot.id, snapshot.lock)
        };
        let all = [1, 2, 1, 9, 3, 1, 1].map(lock);
        let counts: Vec<usize> = chunks_of_rows(&all, 4).map(<[_]>::len).collect();
        assert_eq!(counts, [3, 1, 2, 1], "9 rows are those of one lock");
        assert_eq!(chunks_of_rows(&[], 4).count(), 0);
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
