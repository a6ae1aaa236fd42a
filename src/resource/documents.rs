//! The JSON documents of one resource, as far as they are in memory.
//!
//! A document loads on first use and leaves when all resources together keep more than the budget; it
//! stays while its write is not committed or a request that will need it waits.
//!
//! One that was read without a ticket is shown in a [`Window`] as long as it is committed and in memory.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use actix::WeakAddr;
use bytes::Bytes;

use crate::lock::Selector;
use crate::resource::actor::ResourceActor;
use crate::resource::messages::Document;
use crate::resource::window::{Shutter, Window};
use crate::shared::cache_budget::Evict;
use crate::shared::server_state::Shell;
use crate::store::snapshot::DataRow;
use crate::store::{ResourceId, StoredData};

/// What is known of a selector without asking the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// In memory.
    Present,
    /// Exists; its JSON has to be loaded.
    Evicted,
    /// Never written, or deleted.
    Absent,
    /// The store has to be asked.
    Unknown,
}

struct Cell {
    id: String,
    json: Option<Bytes>,
    /// Which entry in the budget stands for `json`.
    stamp: u64,
    /// The commit that stores it; it must not leave memory before.
    written_by: u64,
    /// Asked back by the budget while it was needed: leaves as soon as it may.
    asked_back: bool,
    /// Of the window that readers look through; `None` until one asked.
    shutter: Option<Shutter>,
}

pub struct Documents {
    shell: Arc<Shell>,
    cells: HashMap<Selector, Cell>,
    /// How many selectors have a document, in memory or not.
    total: usize,
    /// How many waiting requests will need a selector's document.
    pins: HashMap<Selector, usize>,
    asked_back: usize,
    /// Deleted by these commits, which the store may not have carried out yet: what it still has is not
    /// to be read. Only where not every document is known.
    deleted: HashMap<Selector, u64>,
    /// Written or deleted while the store was read for them: what it returns is not to be believed.
    overtaken: HashSet<Selector>,
}

impl Documents {
    pub fn new(shell: Arc<Shell>, total: usize) -> Documents {
        Documents {
            shell,
            cells: HashMap::new(),
            total,
            pins: HashMap::new(),
            asked_back: 0,
            deleted: HashMap::new(),
            overtaken: HashSet::new(),
        }
    }

    pub fn total(&self) -> usize {
        self.total
    }

    pub fn known(&self, selector: &Selector) -> Known {
        match self.cells.get(selector) {
            Some(Cell { json: Some(_), .. }) => Known::Present,
            Some(_) => Known::Evicted,
            None if self.cells.len() == self.total => Known::Absent,
            None if self.deleted.contains_key(selector) => Known::Absent,
            None => Known::Unknown,
        }
    }

    /// The document, if it is in memory.
    pub fn get(&self, selector: &Selector, resource: &ResourceId) -> Option<Document> {
        let cell = self.cells.get(selector)?;
        Some(Document {
            id: cell.id.clone(),
            resource: resource.clone(),
            json: cell.json.clone()?,
        })
    }

    /// The window on a document that is in memory and committed, open. `incarnation`: the actor's.
    pub fn window(
        &mut self,
        selector: &Selector,
        resource: &ResourceId,
        incarnation: u64,
        committed: u64,
    ) -> Option<Arc<Window>> {
        let cell = self.cells.get_mut(selector)?;
        let json = cell
            .json
            .as_ref()
            .filter(|_| cell.written_by <= committed)?;
        let shutter = cell
            .shutter
            .get_or_insert_with(|| Shutter::new(selector.clone(), incarnation));
        if !shutter.is_open() {
            shutter.open(Document {
                id: cell.id.clone(),
                resource: resource.clone(),
                json: json.clone(),
            });
        }
        Some(shutter.window())
    }

    /// Whether somebody looked through a window since this was asked last.
    pub fn take_looked(&self) -> bool {
        let shutters = self.cells.values().filter_map(|cell| cell.shutter.as_ref());
        // All of them are asked.
        shutters.fold(false, |looked, shutter| shutter.take_looked() | looked)
    }

    /// A document was read from the store. One that was written or deleted meanwhile is newer and stays so.
    pub fn loaded(&mut self, selector: &Selector, data: StoredData, me: WeakAddr<ResourceActor>) {
        if matches!(self.known(selector), Known::Evicted | Known::Unknown) {
            self.keep(selector, data.id, data.json, 0, me);
        }
    }

    /// Writes a document; `commit` is the commit that will store it. Returns its row.
    pub fn write(
        &mut self,
        selector: &Selector,
        json: Bytes,
        commit: u64,
        me: WeakAddr<ResourceActor>,
    ) -> DataRow {
        let id = match self.cells.get(selector) {
            Some(cell) => cell.id.clone(),
            None => {
                self.total += 1;
                uuid::Uuid::new_v4().simple().to_string()
            }
        };
        self.deleted.remove(selector);
        self.keep(selector, id.clone(), json.clone(), commit, me);
        DataRow { id, json }
    }

    /// This document is written or deleted while the store is being read for it.
    pub fn overtake(&mut self, selector: &Selector) {
        self.overtaken.insert(selector.clone());
    }

    /// The store was read for this document. Whether it changed meanwhile.
    pub fn take_overtaken(&mut self, selector: &Selector) -> bool {
        self.overtaken.remove(selector)
    }

    fn keep(
        &mut self,
        selector: &Selector,
        id: String,
        json: Bytes,
        written_by: u64,
        me: WeakAddr<ResourceActor>,
    ) {
        // Whoever remembers the window will find it open again, once the document is committed and read.
        let shutter = self.forget(selector);
        let stamp = self.shell.budget.enter(me, selector.clone(), json.len());
        let cell = Cell {
            id,
            json: Some(json),
            stamp,
            written_by,
            asked_back: false,
            shutter,
        };
        self.cells.insert(selector.clone(), cell);
    }

    /// Takes a cell out of memory and out of the budget. Returns its shutter, closed.
    fn forget(&mut self, selector: &Selector) -> Option<Shutter> {
        let cell = self.cells.remove(selector)?;
        cell.shutter.iter().for_each(Shutter::close);
        self.asked_back -= usize::from(cell.asked_back);
        if let Some(json) = cell.json {
            self.shell.budget.leave(cell.stamp, json.len());
        }
        cell.shutter
    }

    /// Deletes a document that exists; it must be [`Known::Present`] or [`Known::Evicted`]. `commit` is the
    /// commit that will delete it in the store.
    pub fn delete(&mut self, selector: &Selector, commit: u64) {
        if self.cells.contains_key(selector) {
            self.forget(selector);
            self.total -= 1;
            if self.cells.len() != self.total {
                self.deleted.insert(selector.clone(), commit);
            }
        }
    }

    /// A request that waits will need this document.
    pub fn pin(&mut self, selector: &Selector) {
        *self.pins.entry(selector.clone()).or_default() += 1;
    }

    pub fn unpin(&mut self, selector: &Selector, committed: u64) {
        if let Some(count) = self.pins.get_mut(selector) {
            *count -= 1;
            if *count == 0 {
                self.pins.remove(selector);
            }
        }
        self.give_back(committed);
    }

    /// The budget wants a document's memory.
    pub fn evict(&mut self, evict: &Evict, committed: u64) {
        self.shell.budget.answered(evict.bytes);
        if let Some(cell) = self.cells.get_mut(&evict.selector)
            && cell.stamp == evict.stamp
            && cell.json.is_some()
        {
            cell.asked_back = true;
            self.asked_back += 1;
        }
        self.give_back(committed);
    }

    /// Lets go of what was asked back and is not needed any more.
    pub fn give_back(&mut self, committed: u64) {
        self.deleted.retain(|_, commit| *commit > committed);
        if self.asked_back == 0 {
            return;
        }
        for (selector, cell) in &mut self.cells {
            let needed = cell.written_by > committed || self.pins.contains_key(selector);
            if cell.asked_back && !needed {
                cell.asked_back = false;
                self.asked_back -= 1;
                cell.shutter.iter().for_each(Shutter::close);
                if let Some(json) = cell.json.take() {
                    self.shell.budget.leave(cell.stamp, json.len());
                }
            }
        }
    }
}

impl Drop for Documents {
    fn drop(&mut self) {
        for cell in self.cells.values() {
            if let Some(json) = &cell.json {
                self.shell.budget.leave(cell.stamp, json.len());
            }
        }
    }
}
