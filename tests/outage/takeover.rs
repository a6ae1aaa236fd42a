//! Several instances on one database, and restarts: another one has the names then, and all is as it was.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::instance::{LEASE, has_all, launch, launch_at, metric, name_at, serving, share};
use crate::private::PrivateServer;
use crate::support::{
    Database, Program, Proxy, Setup, StoppedThread, Store, serving_threads, until,
};
use crate::{turn, wait};

/// Far more than taking over takes, on any machine.
const SOON: Duration = Duration::from_secs(20);

/// A holder, a queue and a document, as clients know them.
struct Scene {
    printer: String,
    forever: String,
    holder: (String, u64),
    queue: Vec<String>,
    endless: (String, u64),
    described: Value,
}

impl Scene {
    /// Of names that this instance answers for.
    fn set(database: &Database, instance: &Program) -> Scene {
        Scene::named([(); 2].map(|()| name_at(database, instance)), instance)
    }

    fn named([printer, forever]: [String; 2], instance: &Program) -> Scene {
        let (at, endless_at) = (&format!("{printer}/s"), &format!("{forever}/s"));
        instance.prepare(&printer);
        let body = r#"{"owner":"me","ttl":3000}"#;
        let holder = instance.hold_with(instance.lock(at).body(body));
        let queue = (0..3).map(|_| instance.queue(at)).collect();
        instance.prepare(&forever);
        let endless = instance.hold_with(instance.lock(endless_at).body(r#"{"ttl":0}"#));
        let described = without_expiry(instance.described(&printer));
        Scene {
            printer,
            forever,
            holder,
            queue,
            endless,
            described,
        }
    }

    fn at(&self) -> String {
        format!("{}/s", self.printer)
    }

    fn endless_at(&self) -> String {
        format!("{}/s", self.forever)
    }

    /// Everything is as it was, and goes on from there.
    fn check(&self, instance: &Program) {
        let (at, endless_at) = (&self.at(), &self.endless_at());
        assert_eq!(
            without_expiry(instance.described(&self.printer)),
            self.described
        );
        assert_eq!(instance.data(at), r#"{"v":1}"#);
        for (place, ticket) in self.queue.iter().enumerate() {
            let answer = instance.lock(at).ticket(ticket).settled();
            assert_eq!(answer.ticket(), *ticket);
            assert_eq!(answer.json()["position"], place + 1);
        }
        let (ticket, token) = &self.holder;
        let kept = instance.renew(at, ticket).settled();
        assert_eq!((kept.status, kept.token()), (200, *token), "{kept:?}");
        assert_eq!(kept.json()["ttl"], 3000);
        let (ticket, token) = &self.endless;
        let kept = instance.renew(endless_at, ticket).settled();
        assert_eq!((kept.status, kept.token()), (200, *token), "{kept:?}");
        assert!(kept.json()["expiresAt"].is_null(), "{kept:?}");
        assert_eq!(instance.unlock(at, &self.holder.0).settled().status, 200);
        let next = instance.lock(at).ticket(&self.queue[0]).settled();
        assert_eq!(next.json()["locked"], true, "{next:?}");
        assert!(next.token() > self.holder.1);
    }
}

/// A lease runs anew in full, so that its expiry may differ.
/// What is stored: not when a lease ends, nor who asked for it from where and when, which begin anew.
fn without_expiry(mut described: Value) -> Value {
    described["holder"]["expiresAt"].take();
    for holder in described["holders"].as_array_mut().into_iter().flatten() {
        for field in ["client", "expiresAt", "expiresInMs", "renewedAt"] {
            holder[field].take();
        }
    }
    for place in described["queue"].as_array_mut().into_iter().flatten() {
        for field in ["client", "lastSeenAt", "near"] {
            place[field].take();
        }
    }
    described
}

fn pair(database: &Database) -> (Program, Program) {
    let owner = serving(&database.options());
    let other = launch(&database.options());
    share(&[&owner, &other]);
    (owner, other)
}

#[test]
fn when_one_is_killed_the_other_serves_its_names_with_everything_as_it_was() {
    let Some(database) = Database::new() else {
        return;
    };
    let _turn = turn();
    let (mut owner, other) = pair(&database);
    let scene = Scene::set(&database, &owner);
    owner.kill();
    let start = Instant::now();
    has_all(&other);
    let took = start.elapsed();
    println!("took over {took:?} after the kill; INSTANCE_LEASE_SECONDS is {LEASE:?}");
    assert!(took < LEASE + SOON, "{took:?}");
    scene.check(&other);
    assert_eq!(metric(&other, "takeovers_total"), 1);
    other.logged(&["taking over from the instance at 127.0.0.1:"]);
}

#[test]
fn on_sigterm_the_other_one_serves_at_once() {
    let Some(database) = Database::new() else {
        return;
    };
    let _turn = turn();
    let (mut owner, other) = pair(&database);
    let scene = Scene::set(&database, &owner);
    // A balancer keeps connections, and someone is in the middle of sending a body.
    let mut idle = owner.call("GET", "/health").no_key().open();
    assert_eq!(idle.answer().status, 200);
    let put = owner
        .put(&scene.endless_at(), "[1,2,3]")
        .ticket(&scene.endless.0)
        .bytes();
    let mut slow = owner.call("GET", "/health").no_key().open();
    assert_eq!(slow.answer().status, 200);
    slow.write(&put[..put.len() - 3]);
    let mut waiting = owner.lock(&scene.endless_at()).query("wait=60").open();
    until("it waits", || {
        owner.described(&scene.forever)["waiting"] == 1
    });
    owner.signal(Signal::TERM);
    let start = Instant::now();
    has_all(&other);
    let took = start.elapsed();
    println!("took over {took:?} after SIGTERM");
    owner.logged(&["shutting down"]);
    slow.try_write(&put[put.len() - 3..]);
    let answer = slow.unchecked_answer();
    // Passed on, if it came before this one ended.
    let is_written = answer.as_ref().is_some_and(|answer| answer.status == 204);
    let refused = answer.filter(|answer| answer.status != 204);
    assert!(refused.is_none_or(|answer| answer.status == 503));
    // It was never told its ticket, so that nobody could take its place.
    let refused = waiting.answer();
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (503, "shutting_down")
    );
    until("its place is gone", || other.waiting(&scene.forever) == 0);
    scene.check(&other);
    let data = if is_written { "[1,2,3]" } else { r#"{"v":1}"# };
    assert_eq!(other.data(&scene.endless_at()), data);
    assert!(owner.end().success());
    assert!(took < LEASE, "it waited for the lease: {took:?}");
}

#[test]
fn after_a_restart_of_the_database_all_instances_serve_with_everything_as_it_was() {
    let Some(mut server) = PrivateServer::new(&[]) else {
        return;
    };
    let _turn = turn();
    server.start();
    let owner = serving(&server.options());
    let other = launch(&server.options());
    share(&[&owner, &other]);
    let names = ["printer", "endless"].map(str::to_owned);
    let scene = Scene::named(names, &owner);
    server.kill();
    let code = |instance: &Program| instance.ready().send().code();
    let both = [&owner, &other];
    until("both notice", || {
        both.iter().all(|i| code(i) == "store_unavailable")
    });
    server.start();
    share(&both);
    // Whichever is asked.
    scene.check(both[1]);
}

#[test]
fn all_that_are_stopped_at_once_leave_everything_to_the_next_one() {
    let Some(database) = Database::new() else {
        return;
    };
    let (mut owner, mut other) = pair(&database);
    other.signal(Signal::TERM);
    owner.signal(Signal::TERM);
    assert!(other.end().success());
    assert!(owner.end().success());
    let left = "SELECT COUNT(*) FROM resource_instance WHERE state < 3";
    assert_eq!(
        wait(database.number(left)),
        0,
        "one did not say that it ended"
    );
    let next = serving(&database.options());
    has_all(&next);
}

#[test]
fn an_instance_that_was_paused_past_its_lease_tells_nothing_of_before_and_comes_back() {
    let Some(database) = Database::new() else {
        return;
    };
    let _turn = turn();
    let (owner, other) = pair(&database);
    let scene = Scene::set(&database, &owner);
    owner.pause();
    // They wait where the system keeps them until the process reads again.
    let reads: Vec<_> = (0..8)
        .map(|_| owner.read(&scene.endless_at()).open())
        .collect();
    let write = owner.put(&scene.endless_at(), "2").open();
    has_all(&other);
    let (ticket, _) = &scene.endless;
    let new = other.put(&scene.endless_at(), "7").ticket(ticket).settled();
    assert_eq!(new.status, 204, "{new:?}");
    owner.resume();
    for mut read in reads {
        let answer = read.answer();
        let is_new = answer.status == 200 && answer.json()["data"] == "7";
        assert!(answer.status == 503 || is_new, "{answer:?}");
    }
    let mut write = write;
    let answer = write.answer();
    assert!([409, 503].contains(&answer.status), "{answer:?}");
    share(&[&owner, &other]);
    assert_eq!(owner.data(&scene.endless_at()), "7");
    scene.check(&other);
}

#[test]
fn an_instance_that_was_paused_in_mid_transaction_commits_nothing() {
    let Some(database) = Database::new() else {
        return;
    };
    let _turn = turn();
    let proxy = Proxy::to(&database.options());
    let owner = serving(&proxy.between(database.options()));
    let other = launch(&database.options());
    share(&[&owner, &other]);
    let scene = Scene::set(&database, &owner);
    // Escaped it needs a packet of its own; the one before it has begun the transaction and locked the row.
    let large = format!("\"{}\"", "\\\\".repeat((1 << 20) - 1));
    let mut paused = owner
        .put(&scene.at(), &large)
        .ticket(&scene.holder.0)
        .open();
    proxy.hold_requests_after(40_000);
    wait(proxy.request_is_held());
    owner.pause();
    has_all(&other);
    scene.check(&other);
    owner.resume();
    proxy.hold_requests(false);
    let answer = paused.answer();
    assert_eq!(answer.status, 503, "{answer:?}");
    share(&[&owner, &other]);
    assert_eq!(owner.data(&scene.at()), r#"{"v":1}"#);
    assert_eq!(other.data(&scene.at()), r#"{"v":1}"#);
    assert!(other.is_ready());
}

#[test]
fn a_lease_runs_anew_in_full_after_a_take_over() {
    let Some(database) = Database::new() else {
        return;
    };
    let (mut owner, other) = pair(&database);
    let printer = &name_at(&database, &owner);
    let at = &format!("{printer}/s");
    owner.prepare(printer);
    let ttl = Duration::from_secs(4);
    let (ticket, token) = owner.hold_with(owner.lock(at).body(r#"{"ttl":4}"#));
    let next = owner.queue(at);
    owner.kill();
    let killed = Instant::now();
    has_all(&other);
    let waiting = other.lock(at).ticket(&next).query("wait=60");
    let granted = waiting.settled();
    assert_eq!(granted.json()["locked"], true, "{granted:?}");
    // The one that took over did so after the kill, and only then the lease began anew.
    assert!(killed.elapsed() >= ttl, "{:?}", killed.elapsed());
    assert!(granted.token() > token);
    let late = other.put(at, "2").ticket(&ticket).settled();
    assert_eq!((late.status, late.code().as_str()), (403, "lease_expired"));
}

#[test]
fn the_wall_clock_of_the_next_instance_decides_nothing() {
    let Some(database) = Database::new() else {
        return;
    };
    let mut first = serving(&database.options());
    first.prepare("printer");
    first.prepare("scanner");
    let (ticket, token) = first.hold_with(first.lock("printer/s").body(r#"{"ttl":3000}"#));
    let endless = first.hold_with(first.lock("scanner/s").body(r#"{"ttl":0}"#));
    let queued = first.queue("printer/s");
    first.signal(Signal::TERM);
    assert!(first.end().success());
    for offset in ["+400d", "-400d"] {
        let Some(mut next) = launch_at(&database.options(), offset) else {
            return;
        };
        next.until_ready();
        let place = next.lock("printer/s").ticket(&queued).settled();
        assert_eq!(place.json()["locked"], false, "{offset}: {place:?}");
        assert_eq!(
            place.ticket(),
            queued,
            "{offset}: the waiter lost its place"
        );
        for (path, ticket, token) in [
            ("printer/s", &ticket, token),
            ("scanner/s", &endless.0, endless.1),
        ] {
            let kept = next.renew(path, ticket).settled();
            assert_eq!(
                (kept.status, kept.token()),
                (200, token),
                "{offset}: {kept:?}"
            );
        }
        next.kill();
    }
}

#[test]
fn several_that_start_together_share_all_names_and_all_answer() {
    let Some(database) = Database::new() else {
        return;
    };
    let options = database.options();
    let instances = std::thread::scope(|scope| {
        let starts: Vec<_> = (0..3).map(|_| scope.spawn(|| launch(&options))).collect();
        starts
            .into_iter()
            .map(|start| start.join().unwrap())
            .collect::<Vec<_>>()
    });
    share(&instances.iter().collect::<Vec<_>>());
    instances[0].prepare("printer");
    for instance in &instances {
        assert_eq!(instance.data("printer/s"), r#"{"v":1}"#);
    }
}

#[test]
fn after_a_restore_tokens_go_on_above_all_that_were_given_out() {
    let Some(database) = Database::new() else {
        return;
    };
    let options = database.options();
    let mut instance = serving(&options);
    instance.prepare("printer");
    let (ticket, token) = instance.hold("printer/s");
    assert_eq!(instance.unlock("printer/s", &ticket).settled().status, 200);
    // A name that is not the restored database's is told, and nothing is made under it.
    let other = Database::new().unwrap();
    for said in ["does not exist", "has no table"] {
        let setup = instance.setup().clone();
        let setup = setup.with("MYSQL_DATABASE", &other.name);
        let refused = setup.output(&["after-restore"]);
        let text = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(1), "{text}");
        assert!(text.contains(&other.name) && text.contains(said), "{text}");
        let tables = "SELECT table_name FROM information_schema.tables WHERE table_schema = ";
        let tables = wait(other.texts(&format!("{tables}'{}'", other.name)));
        assert!(tables.is_empty(), "{tables:?}");
        wait(other.run(&format!("CREATE DATABASE IF NOT EXISTS {}", other.name)));
    }
    let refused = instance.setup().output(&["after-restore"]);
    assert_eq!(refused.status.code(), Some(1), "an instance runs");
    instance.stop();
    let done = instance
        .setup()
        .output(&["after-restore", "--above", "5000"]);
    let said = String::from_utf8([done.stdout, done.stderr].concat()).unwrap();
    assert_eq!(done.status.code(), Some(0), "{said}");
    assert!(said.contains("above 5000"), "{said}");
    instance.start_again();
    let (_, later) = instance.hold("printer/s");
    assert!(token < 5000 && later > 5000, "{token}, {later}");
    instance.prepare("new");
    assert!(instance.hold("new/s").1 > 5000);
}

/// One thread of an instance stands still, be it the one that finds resources or one that serves
/// requests. Its heartbeat would go on for ever; the lease is so long that only an instance that gives the
/// database back lets another one serve in time.
#[test]
fn an_instance_of_which_a_thread_stands_still_makes_room_for_another() {
    if Database::is_skipped() {
        return;
    }
    for place in [1, 2] {
        let setup = Setup::on(Store::Mysql).with("INSTANCE_LEASE_SECONDS", "600");
        let mut owner = setup.start();
        owner.create("a", 0).expect(201);
        let (_, token) = owner.hold("a/s");
        let other = owner.launch_beside();
        share(&[&owner, &other]);
        let Some(thread) = StoppedThread::stop(serving_threads(&owner)[place]) else {
            return;
        };
        owner.logged(&["stands still"]);
        thread.wait_for_end();
        assert_eq!(owner.end().code(), Some(1));
        has_all(&other);
        let holder = &other.describe("a").expect(200).json()["holder"];
        assert_eq!(holder["fencingToken"], token);
    }
}

/// A balancer may not have noticed yet, and there is nobody else to ask.
#[test]
fn a_lone_instance_that_is_told_to_end_serves_until_its_delay_is_over() {
    if Database::is_skipped() {
        return;
    }
    let setup = Setup::on(Store::Mysql).with("SHUTDOWN_DELAY_SECONDS", "3");
    let mut lone = setup.start();
    lone.create("a", 0).expect(201);
    lone.signal(Signal::TERM);
    lone.logged(&["SIGTERM"]);
    until("it is not ready", || lone.ready().send().status == 503);
    lone.ready().refused(503, "shutting_down");
    let (ticket, token) = lone.hold("a/s");
    lone.unlock("a/s", &ticket).expect(200);
    assert!(lone.end().success());
    // Given back: the next one waits for no lease.
    lone.start_again();
    assert!(lone.hold("a/s").1 > token);
}
