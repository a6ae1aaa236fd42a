//! Tickets that ended, and what their clients are told.

use std::collections::HashSet;

use crate::stores::check_granted;
use crate::support::{STRANGE_TICKET, Server, is_ticket, until};

api_tests! {
    fn tickets_are_32_lowercase_hex_digits_and_never_the_same_twice(store) {
        let app = Server::start(store);
        app.create("printer", 0).expect(201);
        let mut seen = HashSet::new();
        for _ in 0..50 {
            let ticket = app.lock("printer/s").expect(200).ticket();
            assert!(is_ticket(&ticket));
            assert!(seen.insert(ticket));
        }
    }

    fn a_dead_ticket_presented_with_lock_intent_gets_a_new_one_and_the_reason(store) {
        let app = Server::start(store);
        app.prepare("printer");
        let (released, _) = app.hold("printer/s");
        app.unlock("printer/s", &released).expect(200);
        let (forced, _) = app.hold("printer/s");
        app.force_unlock("printer").expect(200);
        let expired = app.lock("printer/s").body(r#"{"ttl":1}"#).expect(200).ticket();
        until("the lease expires", || !app.is_locked("printer"));
        for (dead, reason) in [
            (&released, Some("ticket_released")), (&forced, Some("lease_forced_off")),
            (&expired, Some("lease_expired")), (&STRANGE_TICKET.to_owned(), None),
        ] {
            for call in [app.lock("printer/s"), app.get("printer/s"), app.lock("printer/s").query("wait=5")] {
                let granted = call.ticket(dead).expect(200);
                assert_ne!(granted.ticket(), *dead);
                assert_eq!(granted.header("X-Ticket-Ended"), reason);
                // The new ticket is in order.
                let kept = app.lock("printer/s").ticket(&granted.ticket()).expect(200);
                assert_eq!(kept.header("X-Ticket-Ended"), None);
                app.unlock("printer/s", &granted.ticket()).expect(200);
            }
        }
    }

    fn the_reason_is_told_in_the_queue_too(store) {
        let app = Server::start(store);
        app.prepare("printer");
        let (released, _) = app.hold("printer/s");
        app.unlock("printer/s", &released).expect(200);
        let (holder, _) = app.hold("printer/s");
        let queued = app.lock("printer/s").ticket(&released).expect(200);
        assert_eq!(queued.header("X-Ticket-Ended"), Some("ticket_released"));
        assert_ne!(queued.ticket(), released);
        let queued = app.get("printer/s").ticket(&released).expect(202);
        assert_eq!(queued.header("X-Ticket-Ended"), Some("ticket_released"));
        let mut waiting = app.lock("printer/s").ticket(&released).query("wait=60").open();
        until("it waits", || app.waiting("printer") == 3);
        app.unlock("printer/s", &holder).expect(200);
        app.unlock("printer/s", &queued.ticket()).expect(200);
        assert!(waiting.is_silent());
        let first = app.lock("printer/s").expect(200).ticket();
        app.unlock("printer/s", &first).expect(200);
    }

    fn a_waiter_told_of_its_old_ticket_hears_the_reason_with_the_grant(store) {
        let app = Server::start(store);
        app.create("printer", 0).expect(201);
        let (released, _) = app.hold("printer/s");
        app.unlock("printer/s", &released).expect(200);
        let (holder, _) = app.hold("printer/s");
        let mut waiting = app.lock("printer/s").ticket(&released).query("wait=60").open();
        until("it waits", || app.waiting("printer") == 1);
        app.unlock("printer/s", &holder).expect(200);
        let granted = waiting.answer();
        check_granted(&granted);
        assert_eq!(granted.header("X-Ticket-Ended"), Some("ticket_released"));
    }

    fn a_waiting_ticket_that_left_is_released(store) {
        let app = Server::start(store);
        app.create("printer", 0).expect(201);
        app.hold("printer/s");
        let waiter = app.queue("printer/s");
        app.unlock("printer/s", &waiter).expect(200);
        app.renew("printer/s", &waiter).refused(403, "ticket_released");
        app.put("printer/s", "1").ticket(&waiter).refused(403, "ticket_released");
    }

    fn the_last_64_endings_are_remembered(store) {
        let app = Server::start(store);
        app.create("printer", 0).expect(201);
        let mut connection = app.connect();
        let mut ended = Vec::new();
        for _ in 0..70 {
            let ticket = connection.exchange(&app.lock("printer/s")).ticket();
            assert_eq!(connection.exchange(&app.unlock("printer/s", &ticket)).status, 200);
            ended.push(ticket);
        }
        for (index, ticket) in ended.iter().enumerate() {
            let answer = connection.exchange(&app.renew("printer/s", ticket));
            let code = if index < 70 - 64 { "ticket_unknown" } else { "ticket_released" };
            assert_eq!((answer.status, answer.code().as_str()), (403, code), "{index}");
        }
    }

    fn a_dead_ticket_never_comes_back_to_life(store) {
        let app = Server::start(store);
        app.prepare("printer");
        let (dead, _) = app.hold("printer/s");
        app.unlock("printer/s", &dead).expect(200);
        for _ in 0..3 {
            let granted = app.lock("printer/s").ticket(&dead).expect(200);
            assert_ne!(granted.ticket(), dead);
            app.renew("printer/s", &dead).refused(403, "ticket_released");
            app.put("printer/s", "9").ticket(&dead).refused(403, "ticket_released");
            assert_eq!(app.unlock("printer/s", &dead).expect(200).status, 200);
            assert!(app.is_locked("printer"));
            app.unlock("printer/s", &granted.ticket()).expect(200);
        }
    }
}
