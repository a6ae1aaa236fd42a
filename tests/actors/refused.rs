//! Commits that the store refuses for what they contain.

use actix::System;
use small_resource_server::lock::Refusal;
use small_resource_server::resource::messages::Call;
use small_resource_server::resource::messages::Reply;
use small_resource_server::shared::caller::Caller;
use tokio::sync::oneshot;

use crate::bed::{Bed, NEVER, name, read, write};

#[test]
fn one_that_is_refused_costs_nobody_else_his() {
    System::new().block_on(async {
        let bed = Bed::start(1 << 20, NEVER).await;
        let all = ["a", "b", "c"];
        for each in all {
            bed.create(each).await;
        }
        // One commit is under way, so that the others come together.
        bed.create("first").await;
        *bed.store.held_up.lock().unwrap() = Some(name("first"));
        let first = bed.begin("first", write("s", "1")).await;
        *bed.store.refused.lock().unwrap() = Some(name("b"));
        let mut writers = Vec::new();
        for each in all {
            writers.push(bed.begin(each, write("s", "1")).await);
        }
        *bed.store.held_up.lock().unwrap() = None;
        assert!(matches!(first.await.unwrap(), Reply::Written { .. }));
        for (each, writer) in all.into_iter().zip(writers) {
            let reply = writer.await.unwrap();
            match each {
                "b" => assert_eq!(reply, Reply::Refused(Refusal::NotStored, None)),
                _ => assert!(matches!(reply, Reply::Written { .. }), "{each}: {reply:?}"),
            }
        }
        assert_eq!(
            bed.ask("b", read("s")).await,
            Reply::Refused(Refusal::NoSelector, None)
        );
        // And whoever comes next is not left waiting.
        *bed.store.refused.lock().unwrap() = None;
        bed.put("b", "s", "1").await;
    });
}

/// What an actor did before it read that its commit was refused rests on a change that did not happen. It is
/// handed in after the refusal and before the actor has read of it, while another commit is under way.
#[test]
fn nothing_that_rests_on_a_refused_commit_is_stored() {
    System::new().block_on(async {
        let bed = Bed::start(1 << 20, NEVER).await;
        bed.create("a").await;
        bed.create("other").await;
        let actor = bed.actor("a").await;
        let (go, gone) = oneshot::channel::<()>();
        let (reply, second) = oneshot::channel();
        let call = Call {
            request: bed.server.next_requests(1),
            op: write("t", "2"),
            caller: Caller::nobody().clone(),
            reply,
        };
        let store = bed.store.clone();
        // Takes its turns before the commit, which begins later: the refusal finds the call in the mailbox.
        actix_rt::spawn(async move {
            let mut gone = gone;
            while gone.try_recv().is_err() {
                tokio::task::yield_now().await;
            }
            *store.held_up.lock().unwrap() = Some(name("other"));
            actor.do_send(Box::new(call));
        });
        *bed.store.held_up.lock().unwrap() = Some(name("a"));
        *bed.store.refused.lock().unwrap() = Some(name("a"));
        let first = bed.begin("a", write("s", "1")).await;
        let other = bed.begin("other", write("s", "1")).await;
        go.send(()).unwrap();
        let refused = Reply::Refused(Refusal::NotStored, None);
        assert_eq!(first.await.unwrap(), refused);
        assert_eq!(*second.await.unwrap(), refused);
        *bed.store.refused.lock().unwrap() = None;
        *bed.store.held_up.lock().unwrap() = None;
        assert!(matches!(other.await.unwrap(), Reply::Written { .. }));
        for at in ["s", "t"] {
            assert_eq!(
                bed.ask("a", read(at)).await,
                Reply::Refused(Refusal::NoSelector, None)
            );
        }
    });
}
