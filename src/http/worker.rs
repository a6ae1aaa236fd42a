//! What every handler of one worker thread shares, and the way from a handler to a resource.

use std::time::Duration;

use super::context::RequestContext;
use super::errors::ApiError;
use super::policy::SharedPolicy;
use crate::cluster::door::FrontDoor;
use crate::lock::{Profile, Refusal, ResourceName};
use crate::resource::messages::{Op, Reply};
use crate::shared::server_state::ServerState;

/// What every handler of one worker thread shares.
pub struct Worker {
    pub door: FrontDoor,
    pub policy: SharedPolicy,
    pub body_bytes_max: usize,
    pub body_timeout: Duration,
    pub wait_max: Duration,
}

impl Worker {
    pub fn server(&self) -> &ServerState {
        &self.door.router.server
    }

    /// One message, one reply; and no reply of ours leaves when the store may no longer be ours.
    pub async fn ask(&self, known: &RequestContext, name: &ResourceName, op: &Op) -> Reply {
        if let Some(connection) = &known.connection {
            connection.begin_wait();
        }
        *self.door.ask(name, op, &known.caller).await
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
