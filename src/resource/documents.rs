//! The JSON documents of one resource that are in memory.
//!
//! A document is loaded on first use, and evicted when all resources together exceed the cache budget. It stays in
//! memory while its write is not durable, it is being read from the store, or a waiting request needs it.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::sync::Arc;

use actix::WeakRecipient;
use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::lock::{Refusal, Selector};
use crate::resource::messages::{Condition, Document, EntityTag};
use crate::shared::resource_notice::ResourceNotice;
use crate::shared::server_state::ServerState;
use crate::store::{ResourceId, StoredData};

enum Content {
    /// Not known: the store has to be read.
    NotLoaded,
    /// Deleted. The deletion may not be stored yet, so the store must not be read.
    Deleted,
    Evicted {
        id: String,
        tag: Option<EntityTag>,
    },
    /// `tag`: computed on first use. `stamp`: the entry of `json` in the cache budget.
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

/// What is in memory of one selector.
struct DocumentState {
    content: Content,
    /// Number of the commit that stores or deletes the document. It must not leave memory before that is durable.
    commit: u64,
    /// Number of waiting requests that will need the document, plus one while it is being read from the store.
    pins: usize,
    /// The budget asked to evict the document: it leaves memory as soon as it is not needed.
    asked_back: bool,
}

impl DocumentState {
    fn is_needed(&self, committed: u64) -> bool {
        self.commit > committed || self.pins > 0
    }
}

/// The documents of one resource. In memory only; the store holds one row for each document.
pub struct Documents {
    server: Arc<ServerState>,
    /// The actor that the budget asks to evict a document.
    owner: WeakRecipient<ResourceNotice>,
    states: HashMap<Selector, DocumentState>,
    /// Number of documents, in memory or not.
    total: usize,
    /// Number of entries in `states` whose document exists.
    known: usize,
    /// Some entry of `states` may be evicted or dropped once a commit is durable or a pin is released.
    uncommitted: bool,
}

impl Documents {
    pub fn new(
        server: Arc<ServerState>,
        owner: WeakRecipient<ResourceNotice>,
        total: usize,
    ) -> Documents {
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

    /// Whether the document exists. `None`: it has to be loaded first, because memory does not say whether it exists or,
    /// if its JSON is needed (`json`), because that was evicted.
    pub fn exists(&self, selector: &Selector, json: bool) -> Option<bool> {
        match self.states.get(selector).map(|state| &state.content) {
            Some(Content::Evicted { .. }) if json => None,
            Some(Content::Evicted { .. } | Content::Loaded { .. }) => Some(true),
            Some(Content::Deleted) => Some(false),
            // It does not exist if all documents that do are in `states`.
            Some(Content::NotLoaded) | None => (self.known == self.total).then_some(false),
        }
    }

    /// Why a write of this selector is refused: its condition does not hold, or there are `max` documents already.
    pub fn refusal(
        &self,
        selector: &Selector,
        condition: Option<&Condition>,
        max: usize,
    ) -> Option<Refusal> {
        if !condition.is_none_or(|c| c.holds(self.tag(selector))) {
            return Some(Refusal::ConditionFailed);
        }
        let has_room = self.exists(selector, false) == Some(true) || self.total < max;
        (!has_room).then_some(Refusal::TooManySelectors(max))
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

    /// The tag of a document, if the document exists and the tag is known without the store.
    pub fn tag(&self, selector: &Selector) -> Option<EntityTag> {
        match &self.states.get(selector)?.content {
            Content::Loaded { json, tag, .. } => Some(*tag.get_or_init(|| tag_of(json))),
            Content::Evicted { tag, .. } => *tag,
            Content::NotLoaded | Content::Deleted => None,
        }
    }

    /// Takes in a document that was read from the store, unless memory has a newer state of it.
    pub fn loaded(&mut self, selector: &Selector, data: StoredData) {
        if self.exists(selector, true).is_none() {
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

    /// Puts a document into memory and into the cache budget.
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

    /// Deletes a document that is known to exist. `commit` is the commit that will delete it in the store.
    pub fn delete(&mut self, selector: &Selector, commit: u64) {
        let state = self.states.get(selector);
        if state.is_some_and(|state| state.content.exists()) {
            self.set(selector, Content::Deleted, commit);
            self.total -= 1;
            self.uncommitted = true;
        }
    }

    /// Replaces the content of a selector. Its pins stay.
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

    /// Keeps a document, once it is in memory or deleted, for a waiting request or a read until [`Documents::unpin`].
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

    /// The budget asks to evict the document with this stamp: done now, or as soon as it is not needed.
    pub fn evict(&mut self, selector: &Selector, asked: u64, committed: u64) {
        if let Some(state) = self.states.get_mut(selector)
            && matches!(state.content, Content::Loaded { stamp, .. } if stamp == asked)
        {
            state.asked_back = true;
            self.uncommitted = true;
        }
        self.give_back(committed);
    }

    /// Evicts the documents that the budget asked for, and drops entries without a document, unless they are needed.
    /// `committed`: number of the last durable commit.
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

/// A strong tag: other bytes with the same tag would be a collision of SHA-256.
fn tag_of(json: &[u8]) -> EntityTag {
    let digest = Sha256::digest(json);
    let mut first = [0; size_of::<EntityTag>()];
    first.copy_from_slice(&digest[..size_of::<EntityTag>()]);
    EntityTag::from_be_bytes(first)
}

/// Takes a document that leaves memory out of the cache budget.
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
