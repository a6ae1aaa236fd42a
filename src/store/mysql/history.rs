//! Past leases: one row for each name, which the instance that owns the name reads, extends and writes again.
//! No other process changes it meanwhile, because the transaction that writes is fenced like every other.

use std::collections::HashMap;

use super::commit;
use super::database::MysqlStore;
use super::error::Fault;
use super::rows::{self, Sets};
use super::session::Session;
use super::sql::Sql;
use crate::lock::ResourceName;
use crate::store::StoreError;
use crate::store::history::{self, PastLease, PastLeases};

/// How many names' rows are read and written at once.
const NAMES_AT_ONCE: usize = 500;

fn select(names: &[&ResourceName]) -> Sql {
    let mut sql = Sql::new("SELECT name, leases FROM resource_history WHERE name IN (");
    sql.list(names, |sql, name| sql.bytes(name.as_str().as_bytes()));
    sql.push(")");
    sql
}

/// Past leases by the bytes of the name.
fn stored(sets: Sets) -> Result<HashMap<Vec<u8>, Vec<PastLease>>, Fault> {
    let stored = rows::all::<(Vec<u8>, Vec<u8>)>(sets.into_iter().flatten())?;
    let decoded = |(name, leases): (_, Vec<u8>)| (name, history::decode(&leases));
    Ok(stored.into_iter().map(decoded).collect())
}

impl MysqlStore {
    pub(super) async fn past_leases(
        &self,
        name: &ResourceName,
    ) -> Result<Vec<PastLease>, StoreError> {
        let sets = self.read(&select(&[name])).await?;
        Ok(stored(sets)?.into_values().next().unwrap_or_default())
    }

    pub(super) async fn append_past_leases(
        &self,
        news: &PastLeases,
        most: usize,
    ) -> Result<(), StoreError> {
        for some in news.chunks(NAMES_AT_ONCE) {
            // If there are `most` new leases, nothing is left of the old ones.
            let extended = some.iter().filter(|(_, newer)| newer.len() < most);
            let names: Vec<_> = extended.map(|(name, _)| name).collect();
            let mut known = match names.is_empty() {
                true => HashMap::new(),
                false => stored(self.read(&select(&names)).await?)?,
            };
            let mut rows = Vec::with_capacity(some.len());
            for (name, newer) in some {
                let name = name.as_str().as_bytes();
                let mut leases = known.remove(name).unwrap_or_default();
                history::append(&mut leases, newer, most);
                rows.push((name, history::encode(&leases)));
            }
            let mut writer = self.writer.lock().await;
            let script = async |_: &mut Session, place| commit::history_script(&rows, place);
            self.transact(&mut writer, script).await?;
        }
        Ok(())
    }
}
