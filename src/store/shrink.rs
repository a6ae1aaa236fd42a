//! Gives back the memory that a hash table keeps after a burst.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash};

/// Tables with at most this capacity are left alone.
const SMALL: usize = 1024;

/// Shrinks a table that is less than an eighth full. To be called after entries were removed; if the table is
/// not that empty, it costs two comparisons.
pub fn shrink_if_sparse<K: Eq + Hash, V, S: BuildHasher>(table: &mut HashMap<K, V, S>) {
    if table.capacity() > SMALL && table.len() < table.capacity() / 8 {
        table.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(entries: usize) -> HashMap<usize, ()> {
        (0..entries).map(|entry| (entry, ())).collect()
    }

    #[test]
    fn a_table_that_became_nearly_empty_shrinks_and_others_do_not() {
        let mut burst = table(10_000);
        burst.retain(|entry, ()| *entry < 5_000);
        let room = burst.capacity();
        shrink_if_sparse(&mut burst);
        assert_eq!(burst.capacity(), room);
        burst.retain(|entry, ()| *entry < 10);
        shrink_if_sparse(&mut burst);
        assert!(burst.capacity() < SMALL);
        assert_eq!(burst.len(), 10);

        let mut small = table(500);
        small.clear();
        let room = small.capacity();
        shrink_if_sparse(&mut small);
        assert_eq!(small.capacity(), room);
    }
}
