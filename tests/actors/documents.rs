//! Documents that leave memory, and documents that are loaded while the world changes.

use std::sync::atomic::Ordering;
use std::time::Duration;

use actix::System;
use small_resource_server::lock::{Answer, PresentedTicket, Refusal, Ttl};
use small_resource_server::resource::messages::Wait;
use small_resource_server::resource::messages::{Call, Op, Reply};
use small_resource_server::shared::caller::Caller;
use small_resource_server::shared::server_state::ServerState;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::bed::{Bed, DEADLINE, NEVER, acquire, name, read, selector, write};

async fn until_nothing_is_in_memory(bed: &Bed) {
    let nothing = |server: &ServerState| server.budget.lock().used() == 0;
    bed.until("no document is in memory", nothing).await;
}

#[test]
fn a_waiter_gets_its_document_however_small_the_cache_is() {
    System::new().block_on(async {
        let bed = Bed::start(0, NEVER).await;
        bed.create("printer").await;
        bed.put("printer", "s", "7").await;
        let ticket = bed.hold("printer").await;
        let wait = Wait::For(Duration::from_secs(60));
        let waiter = bed
            .begin("printer", acquire(Some(selector("s")), wait))
            .await;
        assert_eq!(bed.describe("printer").await.waiting, 1);
        let presented = PresentedTicket::Ticket(ticket);
        bed.ask("printer", Op::Unlock { presented }).await;
        let Reply::Locked { answer, document } = waiter.await.unwrap() else {
            panic!("it is granted");
        };
        assert!(matches!(answer, Answer::Granted(_)), "{answer:?}");
        assert_eq!(&*document.expect("its document").json, b"7");
        until_nothing_is_in_memory(&bed).await;
    });
}

/// A resource whose documents are in the store only.
async fn stored() -> Bed {
    let bed = Bed::start(1 << 20, 1).await;
    bed.create("printer").await;
    bed.put("printer", "s", "7").await;
    bed.put("printer", "t", "8").await;
    bed.until_nobody_is_live().await;
    bed.store.loads_held_up.store(true, Ordering::SeqCst);
    bed
}

#[test]
fn a_document_is_loaded_once_though_its_reader_left() {
    System::new().block_on(async {
        let bed = stored().await;
        let before = bed.loads();
        let reader = bed.begin("printer", read("s")).await;
        bed.until("it is read", |_| bed.loads() == before + 1).await;
        reader.abort();
        assert!(reader.await.unwrap_err().is_cancelled());
        let delete = Op::DeleteSelector {
            selector: selector("s"),
            presented: PresentedTicket::Absent,
        };
        let deleter = bed.begin("printer", delete).await;
        assert_eq!(bed.loads(), before + 1, "it is under way");
        bed.store.loads_held_up.store(false, Ordering::SeqCst);
        let deleted = deleter.await.unwrap();
        assert!(matches!(deleted, Reply::Deleted { .. }), "{deleted:?}");
        assert_eq!(
            bed.ask("printer", read("s")).await,
            Reply::Refused(Refusal::NoSelector, None)
        );
        assert_eq!(bed.describe("printer").await.selectors, 1);
        bed.put("printer", "s", "9").await;
    });
}

#[test]
fn whether_a_document_exists_is_found_out_before_its_deletion_is_refused() {
    System::new().block_on(async {
        let bed = stored().await;
        bed.store.loads_held_up.store(false, Ordering::SeqCst);
        bed.hold("printer").await;
        for presented in [PresentedTicket::Absent, PresentedTicket::Malformed] {
            let before = bed.loads();
            let delete = Op::DeleteSelector {
                selector: selector("none"),
                presented,
            };
            let refused = Reply::Refused(Refusal::NoSelector, None);
            assert_eq!(bed.ask("printer", delete).await, refused);
            assert!(bed.loads() > before, "memory did not tell");
        }
    });
}

/// The lease is over when the request arrives, but the timer has not fired yet: the request ends the lease, and with
/// it the resource.
#[test]
fn a_request_for_a_document_of_an_ephemeral_name_that_ends_with_it_is_answered() {
    System::new().block_on(async {
        let bed = Bed::start(1 << 20, NEVER).await;
        let get = acquire(Some(selector("s")), Wait::NoQueue);
        let delete = Op::DeleteSelector {
            selector: selector("s"),
            presented: PresentedTicket::Absent,
        };
        for op in [get, delete] {
            let mut lock = acquire(None, Wait::NoQueue);
            if let Op::Acquire {
                options, create, ..
            } = &mut lock
            {
                options.ttl = Ttl::from_millis(50);
                *create = true;
            }
            let granted = bed.ask("brief", lock).await;
            assert!(
                matches!(granted, Reply::Lock(Answer::Granted(_))),
                "{granted:?}"
            );
            let actor = bed.actor("brief").await;
            // All actors and timers are on this thread, which stands still.
            std::thread::sleep(Duration::from_millis(60));
            let (reply, answer) = oneshot::channel();
            actor.do_send(Box::new(Call {
                request: bed.server.next_requests(1),
                op,
                caller: Caller::nobody().clone(),
                reply,
            }));
            let answer = timeout(DEADLINE, answer).await.expect("an answer");
            assert_eq!(*answer.unwrap(), Reply::Refused(Refusal::NoResource, None));
        }
    });
}

/// The document is known to exist, so the write does not wait for the read.
#[test]
fn a_document_that_is_written_while_it_is_loaded_is_read_as_it_was_written() {
    System::new().block_on(async {
        let bed = Bed::start(0, NEVER).await;
        bed.create("printer").await;
        bed.put("printer", "s", "7").await;
        until_nothing_is_in_memory(&bed).await;
        bed.store.loads_held_up.store(true, Ordering::SeqCst);
        let reader = bed.begin("printer", read("s")).await;
        bed.put("printer", "s", "9").await;
        bed.store.loads_held_up.store(false, Ordering::SeqCst);
        let reply = reader.await.unwrap();
        let Reply::Read { document, .. } = reply else {
            panic!("{reply:?}");
        };
        assert_eq!(&*document.json, b"9");
        until_nothing_is_in_memory(&bed).await;
    });
}

/// Nothing is known of another document meanwhile, so memory has to keep that this one is deleted.
#[test]
fn a_document_that_is_deleted_while_it_is_loaded_stays_deleted() {
    System::new().block_on(async {
        let bed = Bed::start(0, NEVER).await;
        bed.create("printer").await;
        bed.put("printer", "s", "7").await;
        bed.put("printer", "t", "8").await;
        // The next actor knows only what it reads.
        *bed.store.refused.lock().unwrap() = Some(name("printer"));
        let not_stored = Reply::Refused(Refusal::NotStored, None);
        assert_eq!(bed.ask("printer", write("s", "9")).await, not_stored);
        *bed.store.refused.lock().unwrap() = None;
        let seven = bed.ask("printer", read("s")).await;
        assert!(matches!(seven, Reply::Read { .. }), "{seven:?}");
        until_nothing_is_in_memory(&bed).await;
        bed.store.loads_held_up.store(true, Ordering::SeqCst);
        let reader = bed.begin("printer", read("s")).await;
        let delete = Op::DeleteSelector {
            selector: selector("s"),
            presented: PresentedTicket::Absent,
        };
        let deleted = bed.ask("printer", delete).await;
        assert!(matches!(deleted, Reply::Deleted { .. }), "{deleted:?}");
        bed.store.loads_held_up.store(false, Ordering::SeqCst);
        let gone = Reply::Refused(Refusal::NoSelector, None);
        assert_eq!(reader.await.unwrap(), gone);
        let eight = bed.ask("printer", read("t")).await;
        assert!(matches!(eight, Reply::Read { .. }), "{eight:?}");
    });
}

/// Both wait for the document: it has to be known whether it exists. The write is in the store when the load,
/// which had looked before, comes to its end.
#[test]
fn a_document_that_was_loaded_before_it_was_written_does_not_count() {
    System::new().block_on(async {
        let bed = stored().await;
        let writer = bed.begin("printer", write("s", "9")).await;
        let reader = bed.begin("printer", read("s")).await;
        bed.store.loads_held_up.store(false, Ordering::SeqCst);
        let written = writer.await.unwrap();
        assert!(matches!(written, Reply::Written { .. }), "{written:?}");
        for reply in [reader.await.unwrap(), bed.ask("printer", read("s")).await] {
            let Reply::Read { document, .. } = reply else {
                panic!("{reply:?}");
            };
            assert_eq!(&*document.json, b"9");
        }
    });
}
