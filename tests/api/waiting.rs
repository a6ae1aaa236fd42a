//! The queue: who waits, in which order they are served, and what becomes of those who leave.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::stores::check_granted;
use crate::support::{Server, until};

/// Longer than any `CLAIM_SECONDS` that these tests set. Passing this much time is no condition that
/// could be polled: nearness shows only when a lock is released.
fn outlast_claims() {
    std::thread::sleep(Duration::from_millis(400));
}

/// Near for 100 ms.
const SHORT_CLAIM: (&str, &str) = ("CLAIM_SECONDS", "0.1");

api_tests! {
    fn a_waiter_is_answered_when_the_lock_is_released(store) {
        let app = Server::start(store);
        app.create("printer", 0).expect(201);
        let (holder, token) = app.hold("printer/s");
        let mut waiter = app.wait("printer/s");
        assert!(waiter.is_silent());
        app.unlock("printer/s", &holder).expect(200);
        let granted = waiter.answer();
        check_granted(&granted);
        assert!(granted.token() > token);
        assert_eq!(app.waiting("printer"), 0);
    }

    fn a_wait_that_is_over_is_answered_with_the_place_and_never_early(store) {
        let app = Server::start(store);
        app.prepare("printer");
        app.hold("printer/s");
        let start = Instant::now();
        let locking = app.lock("printer/s").query("wait=0.3").expect(200);
        assert!(start.elapsed() >= Duration::from_millis(300));
        assert_eq!(locking.json(), json!({"locked": false, "ticket": locking.ticket(), "position": 1}));
        let start = Instant::now();
        let reading = app.get("printer/s").query("wait=0.3").expect(202);
        assert!(start.elapsed() >= Duration::from_millis(300));
        assert_eq!(reading.json(), json!({"unavailable": true, "position": 2}));
        assert_eq!(reading.header("Retry-After"), Some("1"));
    }

    fn lock_wait_seconds_applies_where_the_request_says_nothing(store) {
        let app = Server::start_with(store, &[("LOCK_WAIT_SECONDS", "0.3")]);
        app.prepare("printer");
        app.hold("printer/s");
        for call in [app.lock("printer/s"), app.get("printer/s")] {
            let start = Instant::now();
            call.send();
            assert!(start.elapsed() >= Duration::from_millis(300));
        }
        app.put("printer/s", "1").refused(409, "locked");
    }

    fn wait_0_goes_before_lock_wait_seconds(store) {
        let app = Server::start_with(store, &[("LOCK_WAIT_SECONDS", "300")]);
        app.prepare("printer");
        app.hold("printer/s");
        app.lock("printer/s").query("wait=0").expect(200);
        app.get("printer/s").query("wait=0").expect(202);
        app.lock("printer/s").query("queue=0").refused(409, "locked");
    }

    fn waiters_are_served_in_the_order_of_their_arrival(store) {
        let app = Server::start(store);
        app.create("printer", 0).expect(201);
        let (mut ticket, mut token) = app.hold("printer/s");
        let mut waiters: Vec<_> = (0..5).map(|_| app.wait("printer/s")).collect();
        for turn in 0..waiters.len() {
            app.unlock("printer/s", &ticket).expect(200);
            let granted = waiters[turn].answer();
            check_granted(&granted);
            assert!(granted.token() > token);
            assert!(waiters[turn + 1..].iter_mut().all(|waiter| waiter.is_silent()));
            (ticket, token) = (granted.ticket(), granted.token());
        }
    }

    fn a_release_is_reserved_for_the_first_near_ticket_and_for_nobody_else(store) {
        let app = Server::start(store);
        app.prepare("printer");
        let (holder, _) = app.hold("printer/s");
        let first = app.queue("printer/s");
        let second = app.queue("printer/s");
        app.unlock("printer/s", &holder).expect(200);
        assert_eq!(app.lock("printer/s").ticket(&second).expect(200).json()["position"], 2);
        assert_eq!(app.lock("printer/s").expect(200).json()["position"], 3);
        app.get("printer/s").expect(202);
        app.lock("printer/s").query("queue=0").refused(409, "locked");
        let granted = app.lock("printer/s").ticket(&first).expect(200);
        assert_eq!((granted.ticket(), granted.json()["locked"] == true), (first, true));
    }

    fn a_reservation_that_nobody_claims_goes_to_the_next(store) {
        let app = Server::start_with(store, &[SHORT_CLAIM]);
        app.create("printer", 0).expect(201);
        let (holder, _) = app.hold("printer/s");
        let silent = app.queue("printer/s");
        let mut waiter = app.wait("printer/s");
        app.unlock("printer/s", &holder).expect(200);
        let granted = waiter.answer();
        check_granted(&granted);
        // The one that was passed over keeps its place.
        let again = app.lock("printer/s").ticket(&silent).expect(200);
        assert_eq!(again.json()["position"], 1);
        assert_eq!(app.lock("printer/s").expect(200).json()["position"], 2);
    }

    fn a_release_passes_over_those_who_are_not_near(store) {
        let app = Server::start_with(store, &[SHORT_CLAIM]);
        app.create("printer", 0).expect(201);
        let (holder, _) = app.hold("printer/s");
        let silent: Vec<String> = (0..3).map(|_| app.queue("printer/s")).collect();
        outlast_claims();
        let mut waiter = app.wait("printer/s");
        app.unlock("printer/s", &holder).expect(200);
        let granted = waiter.answer();
        check_granted(&granted);
        app.unlock("printer/s", &granted.ticket()).expect(200);
        let taken = app.lock("printer/s").ticket(&silent[1]).expect(200);
        assert_eq!(taken.json()["locked"], true);
    }

    fn when_nobody_is_near_the_next_request_gets_the_lock_whatever_its_place(store) {
        let app = Server::start_with(store, &[SHORT_CLAIM]);
        app.create("printer", 0).expect(201);
        let (holder, _) = app.hold("printer/s");
        let silent = app.queue("printer/s");
        outlast_claims();
        app.unlock("printer/s", &holder).expect(200);
        let (newcomer, _) = app.hold("printer/s");
        assert_eq!(app.lock("printer/s").ticket(&silent).expect(200).json()["position"], 1);
        app.unlock("printer/s", &newcomer).expect(200);
        assert_eq!(app.lock("printer/s").ticket(&silent).expect(200).json()["locked"], true);
    }

    fn a_ticket_not_presented_for_its_time_is_dropped(store) {
        let app = Server::start_with(store, &[SHORT_CLAIM, ("TICKET_TTL_SECONDS", "0.2")]);
        app.create("printer", 0).expect(201);
        app.hold("printer/s");
        let forgotten = app.queue("printer/s");
        until("the ticket is dropped", || app.waiting("printer") == 0);
        app.unlock("printer/s", &forgotten).refused(403, "ticket_unknown");
        let anew = app.lock("printer/s").ticket(&forgotten).expect(200);
        assert_ne!(anew.ticket(), forgotten);
    }

    fn an_open_request_keeps_its_ticket_near_and_alive(store) {
        let app = Server::start_with(store, &[SHORT_CLAIM, ("TICKET_TTL_SECONDS", "0.2")]);
        app.create("printer", 0).expect(201);
        let (holder, _) = app.hold("printer/s");
        let mut waiter = app.wait("printer/s");
        outlast_claims();
        assert_eq!(app.waiting("printer"), 1);
        app.unlock("printer/s", &holder).expect(200);
        check_granted(&waiter.answer());
    }

    fn a_waiter_that_hangs_up_leaves_at_once(store) {
        let app = Server::start(store);
        app.prepare("printer");
        app.hold("printer/s");
        app.wait("printer/s").hang_up();
        until("FIN ends the wait", || app.waiting("printer") == 0);
        app.wait("printer/s").reset();
        until("RST ends the wait", || app.waiting("printer") == 0);
        let mut half_closed = app.wait("printer/s");
        half_closed.end_sending();
        until("a closed sending side ends the wait", || app.waiting("printer") == 0);
        let reading = app.get("printer/s").query("wait=60").open();
        until("it waits", || app.waiting("printer") == 1);
        reading.hang_up();
        until("FIN ends the wait", || app.waiting("printer") == 0);
    }

    fn those_behind_one_that_hung_up_move_up(store) {
        let app = Server::start(store);
        app.create("printer", 0).expect(201);
        let (holder, _) = app.hold("printer/s");
        let first = app.wait("printer/s");
        let mut second = app.wait("printer/s");
        first.reset();
        until("the first leaves", || app.waiting("printer") == 1);
        app.unlock("printer/s", &holder).expect(200);
        check_granted(&second.answer());
    }

    /// The end of the connection and the release arrive together.
    fn a_lock_granted_to_a_client_that_is_gone_goes_on_to_the_next(store) {
        let app = Server::start(store);
        app.create("printer", 0).expect(201);
        for round in 0..12 {
            let (holder, _) = app.hold("printer/s");
            let leaving = app.wait("printer/s");
            let mut staying = app.wait("printer/s");
            let unlock = app.unlock("printer/s", &holder);
            if round % 2 == 0 {
                leaving.reset();
            } else {
                leaving.hang_up();
            }
            unlock.expect(200);
            let granted = staying.answer();
            assert_eq!(granted.json()["locked"], true, "round {round}: {granted:?}");
            app.unlock("printer/s", &granted.ticket()).expect(200);
        }
    }

    fn a_ticket_that_its_client_knows_outlives_a_broken_connection(store) {
        let app = Server::start(store);
        app.create("printer", 0).expect(201);
        let (holder, _) = app.hold("printer/s");
        let ticket = app.queue("printer/s");
        let behind = app.queue("printer/s");
        app.lock("printer/s").ticket(&ticket).query("wait=60").open().reset();
        let place = app.lock("printer/s").ticket(&ticket).expect(200);
        assert_eq!(place.json()["position"], 1);
        app.unlock("printer/s", &holder).expect(200);
        assert_eq!(app.lock("printer/s").ticket(&behind).expect(200).json()["locked"], false);
        assert_eq!(app.lock("printer/s").ticket(&ticket).expect(200).json()["locked"], true);
    }

    fn two_requests_with_one_ticket_are_both_answered(store) {
        let app = Server::start(store);
        app.create("printer", 0).expect(201);
        let (holder, _) = app.hold("printer/s");
        let ticket = app.queue("printer/s");
        let both = [(); 2].map(|()| app.lock("printer/s").ticket(&ticket).query("wait=60").open());
        app.unlock("printer/s", &holder).expect(200);
        let answers = both.map(|mut connection| connection.answer());
        check_granted(&answers[0]);
        assert_eq!(answers[0].ticket(), ticket);
        assert_eq!(answers[1].token(), answers[0].token());
    }

    fn too_many_waiters_are_503(store) {
        let app = Server::start_with(store, &[("MAX_WAITERS", "1")]);
        app.create("printer", 0).expect(201);
        app.create("scanner", 0).expect(201);
        app.hold("printer/s");
        let (holder, _) = app.hold("scanner/s");
        let first = app.wait("printer/s");
        app.lock("printer/s").query("wait=60").refused(503, "too_many_waiters");
        app.lock("scanner/s").query("wait=60").refused(503, "too_many_waiters");
        assert_eq!((app.waiting("printer"), app.waiting("scanner")), (1, 0));
        first.hang_up();
        until("the place is free", || app.waiting("printer") == 0);
        let mut next = app.wait("scanner/s");
        app.unlock("scanner/s", &holder).expect(200);
        check_granted(&next.answer());
    }

    fn a_full_queue_of_one_resource_is_503(store) {
        let app = Server::start_with(store, &[("MAX_WAITERS_PER_RESOURCE", "2")]);
        app.create("printer", 0).expect(201);
        let (holder, _) = app.hold("printer/s");
        let first = app.queue("printer/s");
        app.queue("printer/s");
        app.lock("printer/s").refused(503, "too_many_waiters");
        // Those inside go on.
        app.lock("printer/s").ticket(&first).expect(200);
        app.unlock("printer/s", &holder).expect(200);
        assert_eq!(app.lock("printer/s").ticket(&first).expect(200).json()["locked"], true);
        app.queue("printer/s");
    }

    fn waiters_get_503_when_the_server_stops(store) {
        let mut app = Server::start(store);
        app.prepare("printer");
        app.hold("printer/s");
        let mut locking = app.wait("printer/s");
        let mut reading = app.get("printer/s").query("wait=60").open();
        until("both wait", || app.waiting("printer") == 2);
        let thread = app.begin_stop().unwrap();
        for waiter in [&mut locking, &mut reading] {
            let answer = waiter.answer();
            assert_eq!((answer.status, answer.code().as_str()), (503, "shutting_down"));
        }
        drop((locking, reading));
        thread.join().unwrap();
    }

    /// Each of these clients locks, works and unlocks; between its answers nobody else may hold.
    fn contending_clients_take_turns(store) {
        let app = Server::start(store);
        app.create("counter", 0).expect(201);
        app.put("counter/n", "0").expect(204);
        let clients = 8;
        let rounds = 6;
        std::thread::scope(|scope| {
            for _ in 0..clients {
                scope.spawn(|| {
                    for _ in 0..rounds {
                        let read = app.get("counter/n").query("wait=60").expect(200);
                        let count: u64 = read.json()["data"].as_str().unwrap().parse().unwrap();
                        let next = (count + 1).to_string();
                        app.put("counter/n?unlock=1", &next).ticket(&read.ticket()).expect(204);
                    }
                });
            }
        });
        assert_eq!(app.data("counter/n"), (clients * rounds).to_string());
    }
}
