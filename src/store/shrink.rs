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

    #[test]
    fn a_table_that_became_nearly_empty_shrinks_and_others_do_not() {
        for (entries, kept, shrinks) in
            [(10_000, 5_000, false), (10_000, 10, true), (500, 0, false)]
        {
            let mut table: HashMap<usize, ()> = (0..entries).map(|entry| (entry, ())).collect();
            table.retain(|entry, ()| *entry < kept);
            let room = table.capacity();
            shrink_if_sparse(&mut table);
            assert_eq!(table.capacity() < room, shrinks);
            assert_eq!(table.len(), kept);
        }
    }
}
