//! The two actors of which there is one each, started and known to each other.

use std::sync::Arc;

use actix::prelude::*;
use tokio::sync::oneshot;

use super::persistence::{Attach, Persistence};
use super::registry::Registry;
use super::shell::Shell;
use crate::store::StoreError;

/// What is left to do with them.
pub struct Started {
    pub persistence: Addr<Persistence>,
    pub registry: Addr<Registry>,
    /// Says once how the first attempt to open the store went.
    pub first_open: oneshot::Receiver<Result<(), StoreError>>,
}

/// Starts the persistence actor in `writing`, whose thread a store may block, and the registry in `finding`.
pub fn start(shell: &Arc<Shell>, writing: &ArbiterHandle, finding: &ArbiterHandle) -> Started {
    let (told, first_open) = oneshot::channel();
    let writer = Persistence::new(shell.clone(), told);
    let persistence = Persistence::start_in_arbiter(writing, |_| writer);
    let book = Registry::new(shell.clone(), persistence.clone());
    let registry = Registry::start_in_arbiter(finding, |_| book);
    persistence.do_send(Attach(registry.clone()));
    Started {
        persistence,
        registry,
        first_open,
    }
}
