//! The database is down, dies under load, hangs, or does not want us.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mysql_async::prelude::Queryable;
use small_resource_server::store::mysql::Options;

use crate::instance::{BOUND, LEASE, launch, refuses, serving, stays_calm};
use crate::private::PrivateServer;
use crate::support::{Answer, Database, Program, Proxy, until};
use crate::{turn, wait};

const AWAY: &[&str] = &["store_unavailable", "starting"];

#[test]
fn a_database_that_is_down_at_the_start_is_waited_for() {
    let Some(mut server) = PrivateServer::new(&[]) else {
        return;
    };
    let _turn = turn();
    let instance = launch(&server.options());
    instance.logged(&["waiting for the store"]);
    refuses(&instance, AWAY);
    stays_calm(&instance, Duration::from_secs(2));
    refuses(&instance, AWAY);
    server.start();
    instance.until_ready();
    instance.logged(&["the store is open: serving"]);
    instance.prepare("printer");
    assert_eq!(instance.data("printer/s"), r#"{"v":1}"#);
}

#[test]
fn a_database_that_hangs_at_the_start_is_waited_for() {
    let Some(database) = Database::new() else {
        return;
    };
    let proxy = Proxy::to(&database.options());
    proxy.hold_answers(true);
    let instance = launch(&proxy.between(database.options()));
    instance.logged(&["waiting for the store"]);
    refuses(&instance, AWAY);
    proxy.hold_answers(false);
    instance.until_ready();
    instance.prepare("printer");
}

/// What clients of a contended lock and writers of their own resources were told.
#[derive(Default)]
struct Told {
    /// Each fencing token, with how often it was told as a new grant.
    tokens: Mutex<Vec<u64>>,
    written: Mutex<BTreeMap<String, u64>>,
    refused: Mutex<Vec<Duration>>,
    over: AtomicBool,
}

impl Told {
    fn send(&self, call: &crate::support::Call) -> Answer {
        let start = Instant::now();
        let answer = call.send();
        if answer.status == 503 {
            self.refused.lock().unwrap().push(start.elapsed());
            std::thread::sleep(Duration::from_millis(20));
        }
        answer
    }

    fn write(&self, instance: &Program, name: &str) {
        let path = format!("{name}/s");
        for value in 1.. {
            if self.over.load(Ordering::SeqCst) {
                return;
            }
            let answer = self.send(&instance.put(&path, &value.to_string()));
            match answer.status {
                204 => self.written.lock().unwrap().insert(name.to_owned(), value),
                503 => None,
                _ => panic!("{answer:?}"),
            };
        }
    }

    fn contend(&self, instance: &Program) {
        while !self.over.load(Ordering::SeqCst) {
            let key = uuid::Uuid::new_v4().to_string();
            let lock = instance
                .lock("contended/s")
                .query("wait=5")
                .idempotency_key(&key);
            let granted = loop {
                let answer = self.send(&lock);
                let settled = answer.status == 200 && answer.json()["locked"] == true;
                if settled || self.over.load(Ordering::SeqCst) {
                    break answer;
                }
            };
            if granted.status != 200 || granted.json()["locked"] != true {
                return;
            }
            self.tokens.lock().unwrap().push(granted.token());
            let unlock = instance.unlock("contended/s", &granted.ticket());
            while self.send(&unlock).status == 503 {
                if self.over.load(Ordering::SeqCst) {
                    return;
                }
            }
        }
    }

    fn check(&self, instance: &Program) {
        let mut tokens = self.tokens.lock().unwrap().clone();
        tokens.sort_unstable();
        let grants = tokens.len();
        tokens.dedup();
        assert_eq!(tokens.len(), grants, "a fencing token was granted twice");
        for (name, value) in &*self.written.lock().unwrap() {
            let stored: u64 = instance.data(&format!("{name}/s")).parse().unwrap();
            assert!(
                stored >= *value,
                "{name}: {value} was acknowledged, {stored} is there"
            );
        }
        for took in &*self.refused.lock().unwrap() {
            assert!(*took < BOUND, "a refusal took {took:?}");
        }
    }
}

#[test]
fn a_database_that_is_killed_under_load_loses_nothing_and_grants_nothing_twice() {
    let Some(mut server) = PrivateServer::new(&[]) else {
        return;
    };
    let _turn = turn();
    server.start();
    let instance = serving(&server.options());
    let writers = ["a", "b", "c"];
    for name in writers.iter().chain(&["contended", "held"]) {
        instance.prepare(name);
    }
    let (ticket, token) = instance.hold_with(instance.lock("held/s").body(r#"{"owner":"me"}"#));
    let waiter = instance.queue("held/s");
    let told = Told::default();
    std::thread::scope(|scope| {
        for name in writers {
            scope.spawn(|| told.write(&instance, name));
        }
        for _ in 0..2 {
            scope.spawn(|| told.contend(&instance));
        }
        let progress = |more: usize| {
            let before = told.tokens.lock().unwrap().len();
            until("the clients get on", || {
                told.tokens.lock().unwrap().len() >= before + more
                    && told.written.lock().unwrap().len() == writers.len()
            });
        };
        progress(20);
        server.kill();
        until("it is noticed", || !instance.is_ready());
        stays_calm(&instance, LEASE);
        server.start();
        instance.until_ready();
        progress(20);
        told.over.store(true, Ordering::SeqCst);
    });
    assert!(!told.refused.lock().unwrap().is_empty());
    told.check(&instance);
    let holder = &instance.described("held")["holder"];
    assert_eq!(
        (&holder["owner"], &holder["fencingToken"]),
        (&"me".into(), &token.into())
    );
    let other = instance.lock("held/s").ticket(&waiter).settled();
    assert_eq!(
        (other.json()["locked"].as_bool(), other.ticket()),
        (Some(false), waiter.clone())
    );
    assert_eq!(instance.unlock("held/s", &ticket).settled().status, 200);
    let next = instance.lock("held/s").ticket(&waiter).settled();
    assert_eq!(next.json()["locked"], true);
    assert!(next.token() > token);
}

#[test]
fn what_was_committed_without_an_answer_is_found_by_whoever_asks_again() {
    let Some(database) = Database::new() else {
        return;
    };
    let proxy = Proxy::to(&database.options());
    let instance = serving(&proxy.between(database.options()));
    instance.prepare("printer");
    proxy.hold_answers(true);
    let lock = instance.lock("printer/s").idempotency_key("attempt");
    let mut granted = lock.open();
    let sql = "SELECT COUNT(*) FROM resource_log WHERE LENGTH(changes) > 1";
    until("the grant is committed", || wait(database.number(sql)) == 1);
    let unknown = granted.answer();
    assert_eq!(unknown.status, 503, "{unknown:?}");
    // The way of the commit's answer stays cut for good; new connections find the server.
    proxy.let_new_connections_pass();
    instance.until_ready();
    let other = instance.lock("printer/s").settled();
    assert_eq!(
        other.json()["locked"],
        false,
        "the lock may be someone's: {other:?}"
    );
    let again = lock.settled();
    assert_eq!(again.json()["locked"], true, "{again:?}");
    let stored = wait(database.texts("SELECT LOWER(HEX(ticket)) FROM resource_lock"));
    assert_eq!(stored, [again.ticket()]);
}

#[test]
fn a_hung_database_hangs_nobody() {
    let Some(database) = Database::new() else {
        return;
    };
    let _turn = turn();
    let proxy = Proxy::to(&database.options());
    let instance = serving(&proxy.between(database.options()));
    instance.prepare("printer");
    let (ticket, token) = instance.hold("printer/s");
    let mut waiting = instance.lock("printer/s").query("wait=60").open();
    until("it waits", || instance.described("printer")["waiting"] == 1);
    proxy.hold_answers(true);
    let start = Instant::now();
    let refused = settled_refusal(&instance);
    assert!(start.elapsed() < BOUND, "{:?}", start.elapsed());
    assert_eq!(refused.code(), "store_unavailable");
    assert_eq!(waiting.answer().status, 503);
    // Nor from memory.
    refuses(&instance, AWAY);
    for _ in 0..300 {
        assert_eq!(
            instance
                .put("printer/s", &"7".repeat(100_000))
                .send()
                .status,
            503
        );
    }
    stays_calm(&instance, Duration::from_secs(3));
    refuses(&instance, AWAY);
    proxy.hold_answers(false);
    instance.until_ready();
    assert_eq!(instance.data("printer/s"), r#"{"v":1}"#);
    let kept = instance.renew("printer/s", &ticket).settled();
    assert_eq!((kept.status, kept.token()), (200, token));
}

/// The first 503 to a change.
fn settled_refusal(instance: &Program) -> Answer {
    let mut refused = None;
    until("changes are refused", || {
        let answer = instance.create("another", 0).send();
        let is_refused = answer.status == 503;
        refused = Some(answer);
        is_refused
    });
    refused.unwrap()
}

#[test]
fn connections_that_are_cut_are_made_again() {
    let Some(database) = Database::new() else {
        return;
    };
    let instance = serving(&database.options());
    instance.prepare("printer");
    let (ticket, token) = instance.hold_with(instance.lock("printer/s").body(r#"{"ttl":3000}"#));
    for value in 0..3 {
        wait(database.kill_all());
        let put = instance.put("printer/s", &value.to_string());
        let written = put.ticket(&ticket).settled();
        assert_eq!(written.status, 204, "{written:?}");
        assert_eq!(instance.data("printer/s"), value.to_string());
    }
    let kept = instance.renew("printer/s", &ticket).settled();
    assert_eq!((kept.status, kept.token()), (200, token));
    assert_eq!(kept.json()["ttl"], 3000);
    instance.logged(&["the store was lost"]);
    instance.logged(&["the store is open: serving"]);
}

#[test]
fn a_full_disk_is_an_outage_until_there_is_room() {
    // More than the server has in one file of its own.
    let (log, limit) = match std::env::var_os("MYSQLD") {
        Some(_) => ("--innodb-redo-log-capacity=8M", 40 << 20),
        None => ("--innodb-log-file-size=8M", 14 << 20),
    };
    let Some(mut server) = PrivateServer::new(&[log]) else {
        return;
    };
    let _turn = turn();
    server.start();
    let instance = serving(&server.options());
    instance.prepare("printer");
    let (ticket, token) = instance.hold("printer/s");
    server.limit_files(Some(limit));
    let document = |number: usize| format!("\"{number} {}\"", "x".repeat(2_000_000));
    let put = |number: usize| {
        let path = format!("printer/{number}");
        instance
            .put(&path, &document(number))
            .ticket(&ticket)
            .send()
    };
    let mut stored = 0;
    let refused = loop {
        let answer = put(stored);
        if answer.status != 204 {
            break answer;
        }
        stored += 1;
        assert!(stored < 40, "the disk is never full");
    };
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (503, "store_unavailable")
    );
    let start = Instant::now();
    assert_eq!(put(stored).status, 503);
    assert!(start.elapsed() < BOUND, "{:?}", start.elapsed());
    instance.call("GET", "/health").no_key().expect(200);
    stays_calm(&instance, Duration::from_secs(1));
    server.limit_files(None);
    until("there is room", || put(stored).status == 204);
    for number in 0..=stored {
        assert!(instance.data(&format!("printer/{number}")) == document(number));
    }
    let kept = instance.renew("printer/s", &ticket).settled();
    assert_eq!((kept.status, kept.token()), (200, token));
}

/// A user who is allowed nothing but this database.
fn plain_user(database: &Database) -> Options {
    let user = format!("u{}", &database.name[5..30]);
    let sql = format!(
        "CREATE USER '{user}'@'%' IDENTIFIED BY 'secret'; \
         GRANT ALL PRIVILEGES ON {}.* TO '{user}'@'%'",
        database.name
    );
    wait(async { database.admin().await.query_drop(sql).await.unwrap() });
    Options {
        user,
        password: "secret".into(),
        ..database.options()
    }
}

/// Something that keeps the database from being used, and how it ends. Reads may still be answered.
fn refuses_changes_until(database: &Database, options: &Options, begin: &str, end: &str) {
    let instance = serving(options);
    instance.prepare("printer");
    let (ticket, token) = instance.hold("printer/s");
    wait(database.run(begin));
    wait(database.kill_all());
    let start = Instant::now();
    let refused = settled_refusal(&instance);
    assert!(start.elapsed() < BOUND, "{:?}", start.elapsed());
    assert_eq!(refused.code(), "store_unavailable");
    stays_calm(&instance, Duration::from_secs(1));
    refuses(&instance, AWAY);
    wait(database.run(end));
    instance.until_ready();
    let written = instance.put("printer/s", "2").ticket(&ticket).settled();
    assert_eq!((written.status, written.token()), (204, token));
    let told = instance.log();
    assert!(!told.contains("secret"), "the log has the password: {told}");
    wait(database.run(&format!("DROP USER '{}'@'%'", options.user)));
}

#[test]
fn revoked_credentials_are_an_outage_until_they_are_back() {
    let Some(database) = Database::new() else {
        return;
    };
    let _turn = turn();
    let options = plain_user(&database);
    let user = &options.user;
    let begin = format!("ALTER USER '{user}'@'%' IDENTIFIED BY 'changed'");
    let end = format!("ALTER USER '{user}'@'%' IDENTIFIED BY 'secret'");
    refuses_changes_until(&database, &options, &begin, &end);
}

#[test]
fn revoked_privileges_are_an_outage_until_they_are_back() {
    let Some(database) = Database::new() else {
        return;
    };
    let _turn = turn();
    let options = plain_user(&database);
    let (name, user) = (&database.name, &options.user);
    let begin = format!("REVOKE ALL PRIVILEGES ON {name}.* FROM '{user}'@'%'");
    let end = format!("GRANT ALL PRIVILEGES ON {name}.* TO '{user}'@'%'");
    refuses_changes_until(&database, &options, &begin, &end);
}
