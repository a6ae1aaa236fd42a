//! A read that fails is its asker's matter, and nobody else's.

use std::time::{Duration, Instant};

use crate::instance::{BOUND, serving};
use crate::private::PrivateServer;
use crate::support::{Connection, Database, Program, Proxy, State, until};
use crate::{turn, wait};

fn was_lost(instance: &Program) -> bool {
    instance.log().contains("the store was lost")
}

/// How many statements in this database wait for a lock.
fn waits_for_a_table(database: &Database) -> u64 {
    wait(database.number(&format!(
        "SELECT COUNT(*) FROM information_schema.processlist WHERE db = '{}' AND state LIKE '%lock%'",
        database.name
    )))
}

/// Somebody who holds `printer` and somebody who waits for it: what the askers of reads must not touch.
struct Others {
    ticket: String,
    token: u64,
    waiting: Connection,
}

impl Others {
    fn of(instance: &Program) -> Others {
        instance.prepare("printer");
        let lock = instance.lock("printer/s").body(r#"{"ttl":3000}"#);
        let (ticket, token) = instance.hold_with(lock);
        let waiting = instance.lock("printer/s").query("wait=60").open();
        until("it waits", || instance.described("printer")["waiting"] == 1);
        Others {
            ticket,
            token,
            waiting,
        }
    }

    fn untouched(mut self, instance: &Program) -> Others {
        assert!(self.waiting.is_silent(), "the waiter lost its place");
        let kept = instance.renew("printer/s", &self.ticket).settled();
        assert_eq!((kept.status, kept.token()), (200, self.token));
        assert!(!was_lost(instance));
        self
    }

    fn release_to_waiter(mut self, instance: &Program) {
        let unlocked = instance.unlock("printer/s", &self.ticket).settled();
        assert_eq!(unlocked.status, 200);
        assert_eq!(self.waiting.answer().json()["locked"], true);
        assert!(!was_lost(instance));
    }
}

#[test]
fn reads_that_the_database_does_not_answer_cost_nobody_else_anything() {
    let Some(database) = Database::new() else {
        return;
    };
    let _turn = turn();
    let instance = serving(&database.options());
    let others = Others::of(&instance);

    // Reads stand in front of this lock until they are given up; commits of locks need no documents.
    let admin = wait(database.hold_table("resource_data"));
    let start = Instant::now();
    std::thread::scope(|scope| {
        for number in 0..20 {
            let instance = &instance;
            scope.spawn(move || {
                let answer = instance.read(&format!("unknown-{number}/s")).send();
                assert_eq!(answer.status, 503, "{answer:?}");
            });
        }
    });
    assert!(start.elapsed() < 2 * BOUND, "{:?}", start.elapsed());
    let others = others.untouched(&instance);
    assert!(instance.is_ready());

    // What was given up has ended in the database too, though the table is still locked.
    until("reads have ended", || waits_for_a_table(&database) == 0);
    drop(admin);
    others.release_to_waiter(&instance);
}

/// Names that are stored and in nobody's memory, each with a client of its own.
const STRANGERS: usize = 3_000;

#[test]
fn many_clients_with_a_name_of_their_own_after_a_restart_cost_nobody_the_store() {
    let Some(database) = Database::new() else {
        return;
    };
    let _turn = turn();
    let proxy = Proxy::to(&database.options());
    let instance = serving(&proxy.between(database.options()));
    let digits = "(SELECT 0 AS d UNION SELECT 1 UNION SELECT 2 UNION SELECT 3 UNION SELECT 4 UNION SELECT 5 \
                  UNION SELECT 6 UNION SELECT 7 UNION SELECT 8 UNION SELECT 9)";
    wait(database.run(&format!(
        "INSERT INTO resource (id, name, timeout) SELECT CONCAT('id-', n), CONCAT('name-', n), 0 FROM \
         (SELECT a.d + 10 * b.d + 100 * c.d + 1000 * e.d AS n FROM {digits} a, {digits} b, {digits} c, {digits} e) x \
         WHERE n < {STRANGERS}"
    )));
    let others = Others::of(&instance);

    // A round trip of 10 ms, and fewer connections than loads: many wait longer than STORE_TIMEOUT_SECONDS.
    proxy.set(State::Slow(Duration::from_millis(5)));
    let locks = (0..STRANGERS).map(|n| instance.lock(&format!("name-{n}/s")).open());
    let mut locks: Vec<_> = locks.collect();
    let mut refused = 0;
    for lock in &mut locks {
        let answer = lock.answer();
        match answer.status {
            200 => assert_eq!(answer.json()["locked"], true),
            _ => {
                answer.assert_refused(503, "store_unavailable");
                refused += 1;
            }
        }
    }
    assert!(refused > 0, "no load had to wait: the test proves nothing");
    others.untouched(&instance).release_to_waiter(&instance);
}

#[test]
fn a_listing_that_the_database_does_not_answer_is_too_busy_and_ends_there_too() {
    let Some(database) = Database::new() else {
        return;
    };
    let _turn = turn();
    let instance = serving(&database.options());
    instance.prepare("printer");
    let (ticket, token) = instance.hold_with(instance.lock("printer/s").body(r#"{"ttl":3000}"#));
    let listing = |query: &str| instance.list(query).send();
    let admin = wait(database.hold_table("resource_options"));
    for query in [
        "",
        "locked=1",
        "sort=held",
        "sort=waiting",
        "prefix=p&sort=held",
    ] {
        let start = Instant::now();
        let refused = listing(query);
        assert_eq!((refused.status, refused.code().as_str()), (503, "too_busy"));
        assert_eq!(refused.header("Retry-After"), Some("1"));
        assert!(start.elapsed() < BOUND, "{:?}", start.elapsed());
    }
    let kept = instance.renew("printer/s", &ticket).settled();
    assert_eq!((kept.status, kept.token()), (200, token));
    assert!(instance.is_ready() && !was_lost(&instance));
    until("listings have ended", || waits_for_a_table(&database) == 0);
    drop(admin);
    until("listings are answered again", || listing("").status == 200);
    assert_eq!(instance.unlock("printer/s", &ticket).settled().status, 200);
}

#[test]
fn a_user_with_too_few_connections_gets_refusals_and_keeps_the_store() {
    let Some(mut server) = PrivateServer::new(&[]) else {
        return;
    };
    let _turn = turn();
    server.start();
    // One writes, one sends heartbeats, and one is left for reads.
    wait(server.run("ALTER USER 'app'@'%' WITH MAX_USER_CONNECTIONS 3"));
    let instance = serving(&server.app_options());
    let connections = "SELECT COUNT(*) FROM information_schema.processlist WHERE user = 'app'";
    until("it writes and sends heartbeats", || {
        wait(server.text(connections)) == "2"
    });
    let others = Others::of(&instance);
    let refused = std::thread::scope(|scope| {
        let workers = (0..8).map(|worker| {
            let instance = &instance;
            scope.spawn(move || {
                let names = (0..40).map(|n| format!("unknown-{worker}-{n}/s"));
                let answers = names.map(|name| instance.read(&name).send().status);
                answers.filter(|status| *status == 503).count()
            })
        });
        let workers: Vec<_> = workers.collect();
        let counts = workers.into_iter().map(|worker| worker.join().unwrap());
        counts.sum::<usize>()
    });
    assert!(
        refused > 0,
        "the limit was never reached: the test proves nothing"
    );
    others.untouched(&instance).release_to_waiter(&instance);
}

#[test]
fn a_statement_that_can_never_succeed_is_refused_and_the_rest_is_served() {
    let Some(database) = Database::new() else {
        return;
    };
    let options = database.options();
    let mut instance = serving(&options);
    instance.prepare("printer");
    instance.prepare("other");
    instance.stop();
    wait(database.run("ALTER TABLE resource_data CHANGE data other LONGTEXT"));
    instance.start_again();
    let (ticket, _) = instance.hold_with(instance.lock("other/s").body(r#"{"ttl":3000}"#));
    for _ in 0..3 {
        let answer = instance.read("printer/s").send();
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (503, "store_refused")
        );
    }
    std::thread::sleep(Duration::from_millis(100));
    assert!(instance.is_ready() && !was_lost(&instance));
    assert_eq!(instance.unlock("other/s", &ticket).settled().status, 200);
    wait(database.run("ALTER TABLE resource_data CHANGE other data LONGTEXT"));
    assert_eq!(instance.data("printer/s"), r#"{"v":1}"#);
}
