//! Windows on documents against actors that come and go, without HTTP: readers that look through a window as
//! long as it shows something, and ask otherwise, never see a version that is older than one that had been
//! answered before they looked; and what a window shows is committed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use actix::prelude::*;
use small_resource_server::app::start_actors;
use small_resource_server::lock::{Millis, PresentedTicket, Seconds};
use small_resource_server::persistence::actor::Persistence;
use small_resource_server::registry::actor::Registry;
use small_resource_server::registry::client::Router;
use small_resource_server::resource::messages::{Op, Reply};
use small_resource_server::resource::window::Window;
use small_resource_server::shared::caller::Caller;
use small_resource_server::shared::gate::Closed;
use small_resource_server::shared::server_state::Shell;

use crate::bed::{name, read, selector, settings};
use crate::store::{Scripted, number};

const PRINTER: &str = "printer";

/// What every thread needs to make a router of its own.
#[derive(Clone)]
struct Threads {
    shell: Arc<Shell>,
    registry: Addr<Registry>,
    persistence: Addr<Persistence>,
    store: Arc<Scripted>,
    /// The highest version that was answered to anybody.
    answered: Arc<AtomicU64>,
    seen_through_windows: Arc<AtomicUsize>,
}

impl Threads {
    async fn new(data_cache_bytes: usize, retire_ms: Millis) -> Threads {
        let store = Arc::new(Scripted::default());
        let shell = Arc::new(Shell::new(
            settings(data_cache_bytes, retire_ms),
            store.clone(),
        ));
        let arbiter = Arbiter::new();
        let started = start_actors(&shell, &arbiter.handle(), &arbiter.handle());
        let opened = started.first_open.await.expect("an answer");
        opened.expect("an open store");
        Threads {
            shell,
            registry: started.registry,
            persistence: started.persistence,
            store,
            answered: Arc::default(),
            seen_through_windows: Arc::default(),
        }
    }

    fn client(&self) -> Client {
        let (shell, registry) = (self.shell.clone(), self.registry.clone());
        Client {
            router: Router::new(shell, registry, self.persistence.clone()),
            bed: self.clone(),
            window: None,
        }
    }
}

/// What a worker does for the requests of one connection.
struct Client {
    router: Router,
    bed: Threads,
    window: Option<Arc<Window>>,
}

impl Client {
    /// Until the store was there to say; a refusal for its sake says nothing.
    async fn ask(&self, op: Op) -> Reply {
        loop {
            let reply = self.router.ask(&name(PRINTER), &op, &Caller::NOBODY).await;
            match *reply {
                Reply::Closed(Closed::StoreAway) => tokio::task::yield_now().await,
                reply => return reply,
            }
        }
    }

    async fn create(&self) {
        let timeout = Seconds::ZERO;
        let reply = self.ask(Op::Create { timeout }).await;
        assert!(
            matches!(reply, Reply::Created { .. } | Reply::Exists),
            "{reply:?}"
        );
    }

    async fn write(&self, version: u64) {
        let write = Op::Write {
            selector: selector("s"),
            json: version.to_string().into(),
            presented: PresentedTicket::Absent,
            release: false,
        };
        let reply = self.ask(write).await;
        assert!(matches!(reply, Reply::Written { .. }), "{reply:?}");
        self.bed.answered.fetch_max(version, Ordering::SeqCst);
    }

    /// Fills the data cache, so that something else has to leave it.
    async fn push_out(&self) {
        for text in ["a", "b"] {
            let write = Op::Write {
                selector: selector(text),
                json: "0".repeat(60).replacen('0', "1", 1).into(),
                presented: PresentedTicket::Absent,
                release: false,
            };
            self.ask(write).await;
        }
    }

    async fn delete(&self, op: Op) {
        let reply = self.ask(op).await;
        let gone = matches!(
            reply,
            Reply::Deleted { .. } | Reply::NoSelector(_) | Reply::NoResource
        );
        assert!(gone, "{reply:?}");
    }

    /// As `Worker::look`, and then as the handler does.
    fn look(&self) -> Option<u64> {
        let window = self.window.as_ref()?;
        let shell = &self.bed.shell;
        let seen = window.look(|shown| {
            shell.gate.check_answer().ok()?;
            let counts = window.is_of(shell.incarnation());
            counts.then(|| number(&shown.document.json))
        });
        seen.flatten()
    }

    async fn read(&mut self) -> Option<u64> {
        if let Some(seen) = self.look() {
            self.bed
                .seen_through_windows
                .fetch_add(1, Ordering::Relaxed);
            return Some(seen);
        }
        match self.ask(read("s")).await {
            Reply::Read {
                document, window, ..
            } => {
                self.window = window;
                Some(number(&document.json))
            }
            Reply::NoSelector(_) | Reply::NoResource => None,
            other => panic!("{other:?}"),
        }
    }

    async fn check_read(&mut self) {
        let before = self.bed.answered.load(Ordering::SeqCst);
        let Some(version) = self.read().await else {
            return;
        };
        assert!(version >= before, "read {version} after {before}");
        let committed = self.bed.store.committed.load(Ordering::SeqCst);
        assert!(
            version <= committed,
            "read {version}, committed {committed}"
        );
        self.bed.answered.fetch_max(version, Ordering::SeqCst);
    }
}

/// Lets `readers` threads read while `write` does what it does. Actors retire as soon as they are idle.
fn hammer(data_cache_bytes: usize, readers: usize, write: impl AsyncFnOnce(Client)) {
    System::new().block_on(async {
        let bed = Threads::new(data_cache_bytes, 1).await;
        bed.client().create().await;
        bed.client().write(1).await;
        let over = Arc::new(AtomicBool::new(false));
        let threads: Vec<_> = (0..readers)
            .map(|_| {
                let (bed, over) = (bed.clone(), over.clone());
                std::thread::spawn(move || {
                    System::new().block_on(async {
                        let mut client = bed.client();
                        while !over.load(Ordering::SeqCst) {
                            client.check_read().await;
                            tokio::task::yield_now().await;
                        }
                    });
                })
            })
            .collect();
        write(bed.client()).await;
        over.store(true, Ordering::SeqCst);
        for thread in threads {
            // Actors that live on this thread are needed until the last reader has its answer.
            while !thread.is_finished() {
                tokio::task::yield_now().await;
            }
            thread
                .join()
                .expect("no older version, and none that is not committed");
        }
        let seen = bed.seen_through_windows.load(Ordering::Relaxed);
        assert!(seen > 0, "nobody looked through a window");
    });
}

#[test]
fn a_look_is_never_older_than_an_answer_while_the_document_is_written() {
    hammer(1 << 20, 3, async |writer: Client| {
        for version in 2..1_000 {
            writer.write(version).await;
        }
    });
}

#[test]
fn a_look_is_never_older_than_an_answer_while_document_and_resource_come_and_go() {
    hammer(100, 3, async |writer: Client| {
        for version in 2..1_000 {
            match version % 16 {
                0 => {
                    let presented = PresentedTicket::Absent;
                    writer.delete(Op::Delete { presented }).await;
                    writer.create().await;
                }
                5 => {
                    let delete = Op::DeleteSelector {
                        selector: selector("s"),
                        presented: PresentedTicket::Absent,
                    };
                    writer.delete(delete).await;
                }
                _ => {}
            }
            writer.write(version).await;
        }
    });
}

#[test]
fn a_look_is_never_older_than_an_answer_while_the_store_is_lost_and_found() {
    hammer(1 << 20, 2, async |writer: Client| {
        for version in 2..200 {
            if version % 50 == 0 {
                writer.bed.store.failures.store(1, Ordering::SeqCst);
            }
            writer.write(version).await;
        }
    });
}

#[test]
fn a_document_that_leaves_memory_is_not_shown_any_more() {
    System::new().block_on(async {
        let mut client = Threads::new(100, 60_000).await.client();
        client.create().await;
        client.write(1).await;
        client.read().await;
        let window = client.window.take().expect("a window");
        assert!(window.look(|_| ()).is_some());
        client.push_out().await;
        while window.look(|_| ()).is_some() {
            tokio::task::yield_now().await;
        }
        assert_eq!(client.read().await, Some(1));
    });
}

#[test]
fn a_resource_whose_document_nobody_looks_at_retires_and_shows_it_no_more() {
    System::new().block_on(async {
        let bed = Threads::new(1 << 20, 1).await;
        let mut client = bed.client();
        client.create().await;
        client.write(1).await;
        client.read().await;
        let window = client.window.take().expect("a window");
        while bed.shell.metrics.actors.live.get() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(window.look(|_| ()), None);
        assert_eq!(client.read().await, Some(1));
    });
}

/// Neither to the read that comes while the deletion is being committed, nor to one after it.
#[test]
fn a_document_that_is_being_deleted_does_not_come_back_from_the_store() {
    System::new().block_on(async {
        let bed = Threads::new(1 << 20, 1).await;
        let mut client = bed.client();
        client.create().await;
        client.write(1).await;
        client.push_out().await;
        // A new actor knows none of the documents.
        while bed.shell.metrics.actors.live.get() > 0 {
            tokio::task::yield_now().await;
        }
        let store = bed.store.clone();
        let begun = store.commits.load(Ordering::SeqCst);
        *store.held_up.lock().unwrap() = Some(name(PRINTER));
        let deleter = bed.client();
        let deleted = actix_rt::spawn(async move {
            let delete = Op::DeleteSelector {
                selector: selector("s"),
                presented: PresentedTicket::Absent,
            };
            deleter.delete(delete).await;
        });
        while store.commits.load(Ordering::SeqCst) == begun {
            tokio::task::yield_now().await;
        }
        let mut reader = bed.client();
        let read = actix_rt::spawn(async move { reader.read().await });
        // Time to read the store, if it were read.
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
        *store.held_up.lock().unwrap() = None;
        deleted.await.expect("deleted");
        assert_eq!(read.await.expect("an answer"), None);
        assert_eq!(client.read().await, None);
    });
}
