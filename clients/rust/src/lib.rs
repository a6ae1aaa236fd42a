//! Locks from a small-resource-server, for Rust on tokio.
//!
//! **The client knows that it lost the lock before anybody else can hold it.** A guard is renewed in the background; when
//! no renewal is answered in time, or the server says that the lock is gone, [`Guard::lost`] resolves, at the latest a
//! [margin](Lock::margin) before the lease can end. Time is counted from the sending of each request, on a clock that
//! runs on while the machine is suspended, and never from a wall clock. A loss is final.
//!
//! ```
//! # use std::time::Duration;
//! # use small_resource_client::{Client, Error};
//! # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/example.rs")); }
//! # fn work(_: u64) {}
//! # example::run(async |url: String, key: String| -> Result<(), Error> {
//! let client = Client::builder(url).key(key).owner("sync-worker").build()?; // e.g. "https://locks:9501"
//! let lock = client
//!     .lock("shop:42:inventory")
//!     .ttl(Duration::from_secs(30))
//!     .wait(Duration::from_secs(20))
//!     .reason("nightly sync")
//!     .create(true);
//!
//! let guard = lock.acquire().await?; // Error::NotObtained when the wait is over
//! work(guard.fencing_token()?); // an error once the lock is lost
//! guard.release().await?;
//!
//! // Dropped where it stands when the lock is lost; released whatever happens.
//! let stock: u32 = lock
//!     .with(|guard| async move {
//!         let stock = guard.read::<u32>("stock").await?.unwrap_or(0);
//!         guard.write("stock", &(stock + 1)).await?;
//!         Ok::<_, Error>(stock + 1)
//!     })
//!     .await??;
//! # assert_eq!(stock, 1);
//! # Ok(())
//! # });
//! ```
//!
//! To see the place in the queue while waiting:
//!
//! ```
//! # use small_resource_client::{Client, Error};
//! # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/example.rs")); }
//! # example::run(async |url: String, key: String| -> Result<(), Error> {
//! # let client = Client::builder(url).key(key).build()?;
//! let mut place = client.lock("printer").create(true).enqueue().await?;
//! while let Some(state) = place.changed().await {
//!     println!("number {} in the queue", state.position);
//! }
//! let guard = place.acquire().await?;
//! # guard.release().await?;
//! # Ok(())
//! # });
//! ```
//!
//! Several locks, all or none:
//!
//! ```
//! # use small_resource_client::{Client, Error};
//! # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/example.rs")); }
//! # example::run(async |url: String, key: String| -> Result<(), Error> {
//! # let client = Client::builder(url).key(key).build()?;
//! let guards = client.all(["account:7", "account:3"]).create(true).acquire().await?;
//! assert_eq!(guards[0].name(), "account:3");
//! guards.release().await?;
//! # Ok(())
//! # });
//! ```
//!
//! Features: `blocking` for programs without a runtime, `tokio-util` for [`CancellationToken`]s that are cancelled with
//! the loss.
//!
//! [`CancellationToken`]: https://docs.rs/tokio-util/latest/tokio_util/sync/struct.CancellationToken.html

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod all;
mod attempt;
mod background;
#[cfg(feature = "blocking")]
pub mod blocking;
mod client;
mod clock;
mod documents;
mod error;
mod guard;
mod holder;
mod lease;
mod lock;
mod looking;
mod names;
mod place;
mod renewal;
mod terms;
mod ticket;
mod tls;
mod transport;
mod watch;

pub use all::{Guards, LockAll};
pub use client::{Client, ClientBuilder};
pub use clock::BootTime;
pub use error::{Error, LossReason, Lost};
pub use guard::Guard;
pub use holder::{Forced, Holder};
pub use lock::Lock;
pub use looking::{ForcedOff, Listing, PastLease, Resource, Waiter};
pub use place::{Place, QueueState};
pub use ticket::Ticket;
pub use watch::{Event, Watch};
