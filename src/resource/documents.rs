//! The JSON documents of one resource, as far as they are in memory.
//!
//! A document loads on first use and leaves when all resources together keep more than the budget; it
//! stays while its write is not committed or a request that will need it waits.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::sync::Arc;

use actix::WeakRecipient;
use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::lock::Selector;
use crate::resource::messages::{Document, EntityTag};
use crate::shared::cache_budget::Evict;
use crate::shared::server_state::ServerState;
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

enum Content {
    /// Only the store can say.
    NotLoaded,
    /// The store may not have carried out the deletion yet: what it still has must not be read.
    Deleted,
    Evicted {
        id: String,
        tag: Option<EntityTag>,
    },
    /// `tag`: made when it is wanted first. `stamp`: the entry in the budget that stands for `json`.
    Loaded {
        id: String,
        json: Bytes,
        tag: OnceCell<EntityTag>,
        stamp: u64,
    },
}

impl Content {
    fn exists(&self) -> bool {
        matches!(self, Content::Evicted { .. } | Content::Loaded { .. })
    }
}

/// All that is in memory of one selector.
struct DocumentState {
    content: Content,
    /// The commit that stores or deletes it; it must not leave memory before that is durable.
    commit: u64,
    /// Waiting requests that will need it.
    pins: usize,
    /// Wanted back by the budget: leaves as soon as it may.
    asked_back: bool,
}

impl DocumentState {
    fn is_needed(&self, committed: u64) -> bool {
        self.commit > committed || self.pins > 0
    }
}

/// In memory only: what the store holds of it is one row for each document.
pub struct Documents {
    server: Arc<ServerState>,
    /// Whom the budget asks for memory back.
    owner: WeakRecipient<Evict>,
    states: HashMap<Selector, DocumentState>,
    /// How many selectors have a document, in memory or not.
    total: usize,
    /// How many of `states` are documents that exist.
    known: usize,
    /// Some state may have to change or go when a commit is durable or a pin is gone.
    uncommitted: bool,
}

impl Documents {
    pub fn new(server: Arc<ServerState>, owner: WeakRecipient<Evict>, total: usize) -> Documents {
        Documents {
            server,
            owner,
            states: HashMap::new(),
            total,
            known: 0,
            uncommitted: false,
        }
    }

    pub fn total(&self) -> usize {
        self.total
    }

    pub fn known(&self, selector: &Selector) -> Known {
        match self.states.get(selector).map(|state| &state.content) {
            Some(Content::Loaded { .. }) => Known::Present,
            Some(Content::Evicted { .. }) => Known::Evicted,
            Some(Content::Deleted) => Known::Absent,
            Some(Content::NotLoaded) | None if self.known == self.total => Known::Absent,
            Some(Content::NotLoaded) | None => Known::Unknown,
        }
    }

    /// Whether this selector is one of the `max` that a resource may have, or can become one.
    pub fn has_room_for(&self, selector: &Selector, max: usize) -> bool {
        let exists = matches!(self.known(selector), Known::Present | Known::Evicted);
        exists || self.total < max
    }

    /// The document, if it is in memory.
    pub fn get(&self, selector: &Selector, resource: &ResourceId) -> Option<Document> {
        match &self.states.get(selector)?.content {
            Content::Loaded { id, json, tag, .. } => Some(Document {
                id: id.clone(),
                resource: resource.clone(),
                json: json.clone(),
                tag: *tag.get_or_init(|| tag_of(json)),
            }),
            _ => None,
        }
    }

    /// The tag of a document that exists, as far as it can be told without the store.
    pub fn tag(&self, selector: &Selector) -> Option<EntityTag> {
        match &self.states.get(selector)?.content {
            Content::Loaded { json, tag, .. } => Some(*tag.get_or_init(|| tag_of(json))),
            Content::Evicted { tag, .. } => *tag,
            Content::NotLoaded | Content::Deleted => None,
        }
    }

    /// A document was read from the store. One that was written or deleted meanwhile is newer and stays so.
    pub fn loaded(&mut self, selector: &Selector, data: StoredData) {
        if matches!(self.known(selector), Known::Evicted | Known::Unknown) {
            self.keep(selector, data.id, data.json, OnceCell::new(), 0);
        }
    }

    /// Writes a document; `commit` is the commit that will store it. Returns its row and its tag.
    pub fn write(
        &mut self,
        selector: &Selector,
        json: Bytes,
        commit: u64,
    ) -> (StoredData, EntityTag) {
        let id = match self.states.get(selector).map(|state| &state.content) {
            Some(Content::Evicted { id, .. } | Content::Loaded { id, .. }) => id.clone(),
            _ => {
                self.total += 1;
                uuid::Uuid::new_v4().simple().to_string()
            }
        };
        let tag = tag_of(&json);
        self.keep(selector, id.clone(), json.clone(), tag.into(), commit);
        (StoredData { id, json }, tag)
    }

    fn keep(
        &mut self,
        selector: &Selector,
        id: String,
        json: Bytes,
        tag: OnceCell<EntityTag>,
        commit: u64,
    ) {
        let bytes = json.len();
        let stamp = self
            .server
            .budget
            .lock()
            .enter(self.owner.clone(), selector.clone(), bytes);
        let content = Content::Loaded {
            id,
            json,
            tag,
            stamp,
        };
        self.set(selector, content, commit);
    }

    /// Deletes a document that exists; it must be [`Known::Present`] or [`Known::Evicted`]. `commit` is the
    /// commit that will delete it in the store.
    pub fn delete(&mut self, selector: &Selector, commit: u64) {
        let state = self.states.get(selector);
        if state.is_some_and(|state| state.content.exists()) {
            self.set(selector, Content::Deleted, commit);
            self.total -= 1;
            self.uncommitted = true;
        }
    }

    /// Replaces what is in memory of a selector; who is pinned stays so.
    fn set(&mut self, selector: &Selector, content: Content, commit: u64) {
        let state = self
            .states
            .entry(selector.clone())
            .or_insert(DocumentState {
                content: Content::NotLoaded,
                commit: 0,
                pins: 0,
                asked_back: false,
            });
        self.known += usize::from(content.exists());
        self.known -= usize::from(state.content.exists());
        let before = std::mem::replace(&mut state.content, content);
        state.commit = commit;
        state.asked_back = false;
        release(&self.server, &before);
    }

    /// A request that waits will need this document.
    pub fn pin(&mut self, selector: &Selector) {
        if let Some(state) = self.states.get_mut(selector) {
            state.pins += 1;
        } else {
            self.set(selector, Content::NotLoaded, 0);
            self.pin(selector);
        }
    }

    pub fn unpin(&mut self, selector: &Selector, committed: u64) {
        if let Some(state) = self.states.get_mut(selector) {
            state.pins = state.pins.saturating_sub(1);
            self.uncommitted |= !state.content.exists();
        }
        self.give_back(committed);
    }

    /// The budget wants a document's memory.
    pub fn evict(&mut self, evict: &Evict, committed: u64) {
        if let Some(state) = self.states.get_mut(&evict.selector)
            && matches!(state.content, Content::Loaded { stamp, .. } if stamp == evict.stamp)
        {
            state.asked_back = true;
            self.uncommitted = true;
        }
        self.give_back(committed);
    }

    /// Lets go of what was asked back or deleted and is not needed any more.
    pub fn give_back(&mut self, committed: u64) {
        if !self.uncommitted {
            return;
        }
        let (server, mut uncommitted) = (&self.server, false);
        self.states.retain(|_, state| {
            let needed = state.is_needed(committed);
            match &mut state.content {
                Content::NotLoaded | Content::Deleted => {
                    uncommitted |= needed;
                    return needed;
                }
                Content::Loaded { id, tag, .. } if state.asked_back && !needed => {
                    let evicted = Content::Evicted {
                        id: std::mem::take(id),
                        tag: tag.get().copied(),
                    };
                    state.asked_back = false;
                    release(server, &std::mem::replace(&mut state.content, evicted));
                }
                Content::Loaded { .. } | Content::Evicted { .. } => uncommitted |= state.asked_back,
            }
            true
        });
        self.uncommitted = uncommitted;
    }
}

/// Strong: whoever writes other bytes that come to the same has broken SHA-256.
fn tag_of(json: &[u8]) -> EntityTag {
    let digest = Sha256::digest(json);
    let mut first = [0; size_of::<EntityTag>()];
    first.copy_from_slice(&digest[..size_of::<EntityTag>()]);
    EntityTag::from_be_bytes(first)
}

/// What leaves memory leaves the budget.
fn release(server: &ServerState, content: &Content) {
    if let Content::Loaded { json, stamp, .. } = content {
        server.budget.lock().leave(*stamp, json.len());
    }
}

impl Drop for Documents {
    fn drop(&mut self) {
        for state in self.states.values() {
            release(&self.server, &state.content);
        }
    }
}
