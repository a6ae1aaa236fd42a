//! State that all requests of one worker thread share.

use std::cell::Cell;
use std::time::Duration;

use super::policy::SharedPolicy;
use crate::cluster::client::ClusterClient;
use crate::lock::Profile;
use crate::metrics::requests::RequestSeries;
use crate::shared::caller::RequestTag;
use crate::shared::server_state::ServerState;

pub struct Worker {
    pub cluster: ClusterClient,
    pub policy: SharedPolicy,
    pub body_bytes_max: usize,
    pub body_timeout: Duration,
    pub wait_max: Duration,
    /// Whether to log one line per request.
    pub access_log: bool,
    pub series: RequestSeries,
    /// Random, so that tags differ from those of every other worker, in other processes too.
    pub id: u32,
    /// Number of tags made so far.
    pub tags: Cell<u64>,
}

impl Worker {
    pub fn server(&self) -> &ServerState {
        &self.cluster.router.server
    }

    /// A new tag, for a request without an `X-Request-Id`.
    pub fn new_tag(&self) -> RequestTag {
        let number = self.tags.get() + 1;
        self.tags.set(number);
        RequestTag::Made {
            worker: self.id,
            number,
        }
    }

    /// Whether a body that is not needed may be anything, as in the PHP server.
    pub fn is_lenient(&self) -> bool {
        self.server().profile() == Profile::Php
    }
}
