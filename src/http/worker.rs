//! What every request of one worker thread shares.

use std::cell::Cell;
use std::time::Duration;

use super::errors::ApiError;
use super::policy::SharedPolicy;
use crate::cluster::door::FrontDoor;
use crate::lock::{Profile, Refusal};
use crate::metrics::requests::WorkerRequests;
use crate::shared::caller::RequestTag;
use crate::shared::server_state::ServerState;

/// What every request of one worker thread shares.
pub struct Worker {
    pub door: FrontDoor,
    pub policy: SharedPolicy,
    pub body_bytes_max: usize,
    pub body_timeout: Duration,
    pub wait_max: Duration,
    /// One log line per request.
    pub access_log: bool,
    pub numbers: WorkerRequests,
    /// Differs from that of every other worker, of other processes too.
    pub id: u32,
    /// How many tags were made.
    pub tags: Cell<u64>,
}

impl Worker {
    pub fn server(&self) -> &ServerState {
        &self.door.router.server
    }

    /// For a request that brings none.
    pub fn new_tag(&self) -> RequestTag {
        let number = self.tags.get() + 1;
        self.tags.set(number);
        RequestTag::Made {
            worker: self.id,
            number,
        }
    }

    /// Refused before anything else of it happens: what the store cannot hold must not end what others
    /// have under way with the resource.
    pub fn check_document(&self, json: &[u8]) -> Result<(), ApiError> {
        if self.server().store.takes_document(json) {
            Ok(())
        } else {
            Err(ApiError::Refused(Refusal::TooLargeToStore))
        }
    }

    /// Clients of the PHP server may send whatever body they like where none is needed.
    pub fn is_lenient(&self) -> bool {
        self.server().profile() == Profile::Php
    }
}
