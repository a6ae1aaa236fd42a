//! The same for programs without a runtime: each call waits for its answer.
//!
//! A [`Client`] has a thread of its own, on which leases are renewed. Not to be used on a runtime of tokio: it panics
//! there, as every blocking call should not be made there.
//!
//! ```
//! # use std::time::Duration;
//! # use small_resource_client::{Error, blocking::Client};
//! # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/example.rs")); }
//! # fn part_of_the_work() {}
//! # example::run_blocking(|url: String, key: String| -> Result<(), Error> {
//! let client = Client::new(small_resource_client::Client::builder(url).key(key).build()?)?;
//! let guard = client.acquire(|locks| locks.lock("nightly").wait(Duration::from_secs(60)).create(true))?;
//! for _ in 0..3 {
//!     guard.check()?; // an error once the lock is lost
//!     part_of_the_work();
//! }
//! guard.release()?;
//! # Ok(())
//! # });
//! ```

use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::Runtime;

use crate::{Error, Lock, Lost, Resource, Ticket};

/// A client whose calls wait for their answers.
#[derive(Clone, Debug)]
pub struct Client {
    client: crate::Client,
    runtime: Arc<Background>,
}

/// A lock that is held; see [`crate::Guard`].
#[derive(Debug)]
#[must_use = "a guard that is dropped at once is a lock that is released at once"]
pub struct Guard {
    guard: crate::Guard,
    runtime: Arc<Background>,
}

/// Ends without waiting for what runs on it.
#[derive(Debug)]
struct Background(Option<Runtime>);

impl Background {
    fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        match &self.0 {
            Some(runtime) => runtime.block_on(work),
            None => unreachable!("it is taken when it is dropped only"),
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl Client {
    /// Starts the thread that renews.
    ///
    /// # Errors
    /// [`Error::Invalid`]: there is no thread to be had.
    pub fn new(client: crate::Client) -> Result<Client, Error> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(1).thread_name("locks").enable_all();
        let runtime = builder.build();
        let runtime = runtime.map_err(|error| Error::Invalid(format!("no thread: {error}")))?;
        Ok(Client {
            client,
            runtime: Arc::new(Background(Some(runtime))),
        })
    }

    /// Waits in the queue until the lock is ours; see [`Lock::acquire`].
    ///
    /// # Errors
    /// As there.
    pub fn acquire(&self, lock: impl FnOnce(&crate::Client) -> Lock) -> Result<Guard, Error> {
        let guard = self.runtime.wait(lock(&self.client).acquire())?;
        Ok(self.guard(guard))
    }

    /// Takes the lock if nobody has it; see [`Lock::try_acquire`].
    ///
    /// # Errors
    /// As there.
    pub fn try_acquire(
        &self,
        lock: impl FnOnce(&crate::Client) -> Lock,
    ) -> Result<Option<Guard>, Error> {
        let guard = self.runtime.wait(lock(&self.client).try_acquire())?;
        Ok(guard.map(|guard| self.guard(guard)))
    }

    /// Takes up a lock that was left as a ticket; see [`crate::Guard::resume`].
    ///
    /// # Errors
    /// As there.
    pub fn resume(&self, ticket: Ticket) -> Result<Guard, Error> {
        let guard = self
            .runtime
            .wait(crate::Guard::resume(&self.client, ticket))?;
        Ok(self.guard(guard))
    }

    /// See [`crate::Client::describe`].
    ///
    /// # Errors
    /// As there.
    pub fn describe(&self, name: &str) -> Result<Option<Resource>, Error> {
        self.runtime.wait(self.client.describe(name))
    }

    fn guard(&self, guard: crate::Guard) -> Guard {
        Guard {
            guard,
            runtime: Arc::clone(&self.runtime),
        }
    }
}

impl Guard {
    /// Is the lock certainly still ours? Ask before each step that matters.
    ///
    /// # Errors
    /// It is lost, for good.
    pub fn check(&self) -> Result<(), Lost> {
        self.guard.check()
    }

    /// See [`crate::Guard::fencing_token`].
    ///
    /// # Errors
    /// The lock is lost.
    pub fn fencing_token(&self) -> Result<u64, Lost> {
        self.guard.fencing_token()
    }

    /// See [`crate::Guard::read`].
    ///
    /// # Errors
    /// As there.
    pub fn read<T: DeserializeOwned>(&self, selector: &str) -> Result<Option<T>, Error> {
        self.runtime.wait(self.guard.read(selector))
    }

    /// See [`crate::Guard::write`].
    ///
    /// # Errors
    /// As there.
    pub fn write<T: Serialize + ?Sized>(&self, selector: &str, value: &T) -> Result<(), Error> {
        self.runtime.wait(self.guard.write(selector, value))
    }

    /// See [`crate::Guard::into_ticket`].
    pub fn into_ticket(self) -> Ticket {
        self.guard.into_ticket()
    }

    /// See [`crate::Guard::release`].
    ///
    /// # Errors
    /// As there.
    pub fn release(self) -> Result<(), Error> {
        self.runtime.wait(self.guard.release())
    }
}
