//! The places of the journal rows in their table: each row has a page of its own, which is overwritten again
//! and again.
//!
//! Inserting a row takes a page and deleting one gives it back. Both change further pages, which a commit then
//! has to write and sync. Overwriting a row with one of the same size changes only its own page.

use std::collections::{BTreeMap, VecDeque};

/// Size of a stored row that fills a page of 4096 bytes, the size that SQLite gives a new file. A row of such a
/// page has at most 4061 bytes; up to 17 are left for SQLite's header and the number of the row.
const FILLED_BYTES: usize = 4044;
const LENGTH_BYTES: usize = size_of::<u32>();
/// Maximum size of the changes in such a row, in bytes.
pub(super) const ROW_BYTES: usize = FILLED_BYTES - LENGTH_BYTES;

/// The places of the journal rows. A free place is used again, the longest free one first.
#[derive(Default)]
pub(super) struct RowSlots {
    /// By the numbers of their rows.
    used: BTreeMap<u64, i64>,
    free: VecDeque<i64>,
}

impl RowSlots {
    /// The place of the row with this number. A new number gets a place.
    pub fn place(&mut self, n: u64) -> i64 {
        // Where none is free, all places are used.
        let new_place = self.used.len() as i64 + 1;
        let place = || self.free.pop_front().unwrap_or(new_place);
        *self.used.entry(n).or_insert_with(place)
    }

    /// Frees the places of the rows up to this number.
    pub fn free(&mut self, up_to: u64) {
        let later = self.used.split_off(&(up_to + 1));
        let done = std::mem::replace(&mut self.used, later);
        self.free.extend(done.into_values());
    }
}

/// The row as it is stored: its length, the row, and zeros up to the size of a page.
pub(super) fn filled(row: &[u8]) -> Vec<u8> {
    // Rows are far shorter than 4 GiB; a longer one would be refused when it is read.
    let length = u32::try_from(row.len()).unwrap_or(u32::MAX);
    let size = FILLED_BYTES.max(LENGTH_BYTES + row.len());
    let mut filled = Vec::with_capacity(size);
    filled.extend_from_slice(&length.to_be_bytes());
    filled.extend_from_slice(row);
    filled.resize(size, 0);
    filled
}

/// The row that [`filled`] was given; `None`: the bytes were not made by it.
pub(super) fn unfilled(filled: &[u8]) -> Option<&[u8]> {
    let (length, row) = filled.split_first_chunk()?;
    row.get(..usize::try_from(u32::from_be_bytes(*length)).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_used_again_after_its_row_is_done_the_oldest_first() {
        let mut row_slots = RowSlots::default();
        assert_eq!([1, 2, 3].map(|n| row_slots.place(n)), [1, 2, 3]);
        assert_eq!(row_slots.place(3), 3, "has a place");
        assert_eq!(row_slots.place(2), 2, "has one too");
        row_slots.free(2);
        assert_eq!([4, 5, 6].map(|n| row_slots.place(n)), [1, 2, 4]);
        row_slots.free(6);
        assert_eq!([7, 8, 9, 10].map(|n| row_slots.place(n)), [3, 1, 2, 4]);
    }

    #[test]
    fn a_row_is_stored_in_one_size_and_read_as_it_was() {
        for length in [1, 17, ROW_BYTES] {
            let row = vec![7; length];
            let stored = filled(&row);
            assert_eq!(stored.len(), FILLED_BYTES);
            assert_eq!(unfilled(&stored), Some(&row[..]));
        }
        let long = vec![7; 3 * ROW_BYTES];
        assert_eq!(unfilled(&filled(&long)), Some(&long[..]));
        for damaged in [&[][..], &[0, 0, 0], &[0, 0, 0, 9, 1, 2]] {
            assert_eq!(unfilled(damaged), None);
        }
    }
}
