//! Several instances on one database, and restarts: one serves, another takes over, all is as it was.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::instance::{
    LEASE, becomes_active, becomes_standby, is_standby, launch, launch_at, serving,
};
use crate::private::PrivateServer;
use crate::support::{
    Connection, Database, Program, Proxy, Setup, StoppedThread, Store, serving_threads, until,
};
use crate::{turn, wait};

/// Far more than taking over takes, on any machine.
const SOON: Duration = Duration::from_secs(20);

/// A holder, a queue and a document, as clients know them.
struct Scene {
    holder: (String, u64),
    queue: Vec<String>,
    endless: (String, u64),
    described: Value,
}

impl Scene {
    fn set(instance: &Program) -> Scene {
        instance.prepare("printer");
        let body = r#"{"owner":"me","ttl":3000}"#;
        let holder = instance.hold_with(instance.lock("printer/s").body(body));
        let queue = (0..3).map(|_| instance.queue("printer/s")).collect();
        instance.prepare("endless");
        let endless = instance.hold_with(instance.lock("endless/s").body(r#"{"ttl":0}"#));
        let described = without_expiry(instance.described("printer"));
        Scene {
            holder,
            queue,
            endless,
            described,
        }
    }

    /// Everything is as it was, and goes on from there.
    fn check(&self, instance: &Program) {
        assert_eq!(
            without_expiry(instance.described("printer")),
            self.described
        );
        assert_eq!(instance.data("printer/s"), r#"{"v":1}"#);
        for (place, ticket) in self.queue.iter().enumerate() {
            let answer = instance.lock("printer/s").ticket(ticket).settled();
            assert_eq!(answer.ticket(), *ticket);
            assert_eq!(answer.json()["position"], place + 1);
        }
        let (ticket, token) = &self.holder;
        let kept = instance.renew("printer/s", ticket).settled();
        assert_eq!((kept.status, kept.token()), (200, *token), "{kept:?}");
        assert_eq!(kept.json()["ttl"], 3000);
        let (ticket, token) = &self.endless;
        let kept = instance.renew("endless/s", ticket).settled();
        assert_eq!((kept.status, kept.token()), (200, *token), "{kept:?}");
        assert!(kept.json()["expiresAt"].is_null(), "{kept:?}");
        assert_eq!(
            instance
                .unlock("printer/s", &self.holder.0)
                .settled()
                .status,
            200
        );
        let next = instance.lock("printer/s").ticket(&self.queue[0]).settled();
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
    let active = serving(&database.options());
    let standby = launch(&database.options());
    becomes_standby(&standby);
    (active, standby)
}

#[test]
fn when_the_active_one_is_killed_the_stand_by_serves_with_everything_as_it_was() {
    let Some(database) = Database::new() else {
        return;
    };
    let _turn = turn();
    let (mut active, standby) = pair(&database);
    let scene = Scene::set(&active);
    active.kill();
    let start = Instant::now();
    becomes_active(&standby);
    let took = start.elapsed();
    println!("took over {took:?} after the kill; INSTANCE_LEASE_SECONDS is {LEASE:?}");
    assert!(took < LEASE + SOON, "{took:?}");
    scene.check(&standby);
}

#[test]
fn on_sigterm_the_stand_by_serves_at_once() {
    let Some(database) = Database::new() else {
        return;
    };
    let _turn = turn();
    let (mut active, standby) = pair(&database);
    let scene = Scene::set(&active);
    // A balancer keeps connections, and someone is in the middle of sending a body.
    let mut idle = active.call("GET", "/health").no_key().open();
    assert_eq!(idle.answer().status, 200);
    let put = active
        .put("endless/s", "[1,2,3]")
        .ticket(&scene.endless.0)
        .bytes();
    let mut slow = active.call("GET", "/health").no_key().open();
    assert_eq!(slow.answer().status, 200);
    slow.write(&put[..put.len() - 3]);
    let mut waiting = active.lock("endless/s").query("wait=60").open();
    until("it waits", || active.described("endless")["waiting"] == 1);
    active.signal(Signal::TERM);
    let start = Instant::now();
    becomes_active(&standby);
    let took = start.elapsed();
    println!("took over {took:?} after SIGTERM");
    active.logged(&["shutting down"]);
    slow.try_write(&put[put.len() - 3..]);
    not_written(&mut slow);
    // It was never told its ticket, so that nobody could take its place.
    let refused = waiting.answer();
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (503, "shutting_down")
    );
    assert_eq!(standby.described("endless")["waiting"], 0);
    scene.check(&standby);
    assert_eq!(standby.data("endless/s"), r#"{"v":1}"#);
    assert!(active.end().success());
    assert!(took < LEASE, "it waited for the lease: {took:?}");
}

/// Refused, or hung up on.
fn not_written(connection: &mut Connection) {
    if let Some(answer) = connection.unchecked_answer() {
        assert_eq!(answer.status, 503, "{answer:?}");
    }
}

#[test]
fn a_restart_of_the_database_leaves_one_active_instance_with_everything_as_it_was() {
    let Some(mut server) = PrivateServer::new(&[]) else {
        return;
    };
    let _turn = turn();
    server.start();
    let active = serving(&server.options());
    let standby = launch(&server.options());
    becomes_standby(&standby);
    let scene = Scene::set(&active);
    server.kill();
    let code = |instance: &Program| instance.ready().send().code();
    let both = [&active, &standby];
    until("both notice", || {
        both.iter().all(|i| code(i) == "store_unavailable")
    });
    server.start();
    let mut codes = Vec::new();
    until("one is active and the other stands by", || {
        codes = both.iter().map(|i| code(i)).collect();
        codes.iter().all(String::is_empty) && both.iter().filter(|i| is_standby(i)).count() == 1
    });
    // Whichever is asked.
    scene.check(both[1]);
}

#[test]
fn a_stand_by_that_is_stopped_does_not_take_over_on_its_way_out() {
    let Some(database) = Database::new() else {
        return;
    };
    let (mut active, mut standby) = pair(&database);
    standby.signal(Signal::TERM);
    active.signal(Signal::TERM);
    assert!(standby.end().success());
    assert!(active.end().success());
    let free = "SELECT COUNT(*) FROM resource_server WHERE owner IS NULL";
    assert_eq!(
        wait(database.number(free)),
        1,
        "someone took the database with it"
    );
}

#[test]
fn an_instance_that_was_paused_past_its_lease_tells_nothing_of_before_and_becomes_a_stand_by() {
    let Some(database) = Database::new() else {
        return;
    };
    let _turn = turn();
    let (active, standby) = pair(&database);
    let scene = Scene::set(&active);
    active.pause();
    // They wait where the system keeps them until the process reads again.
    let reads: Vec<_> = (0..8).map(|_| active.read("endless/s").open()).collect();
    let write = active.put("endless/s", "2").open();
    becomes_active(&standby);
    let (ticket, _) = &scene.endless;
    let new = standby.put("endless/s", "7").ticket(ticket).settled();
    assert_eq!(new.status, 204, "{new:?}");
    active.resume();
    for mut read in reads {
        let answer = read.answer();
        let is_new = answer.status == 200 && answer.json()["data"] == "7";
        assert!(answer.status == 503 || is_new, "{answer:?}");
    }
    let mut write = write;
    let answer = write.answer();
    assert!([409, 503].contains(&answer.status), "{answer:?}");
    becomes_standby(&active);
    assert_eq!(active.data("endless/s"), "7");
    scene.check(&standby);
}

#[test]
fn an_instance_that_was_paused_in_mid_transaction_commits_nothing() {
    let Some(database) = Database::new() else {
        return;
    };
    let _turn = turn();
    let proxy = Proxy::to(&database.options());
    let active = serving(&proxy.between(database.options()));
    let standby = launch(&database.options());
    becomes_standby(&standby);
    let scene = Scene::set(&active);
    // Escaped it needs a packet of its own; the one before it has begun the transaction and locked the row.
    let large = format!("\"{}\"", "\\\\".repeat((1 << 20) - 1));
    let mut paused = active
        .put("printer/s", &large)
        .ticket(&scene.holder.0)
        .open();
    proxy.hold_requests_after(40_000);
    wait(proxy.request_is_held());
    active.pause();
    becomes_active(&standby);
    scene.check(&standby);
    active.resume();
    proxy.hold_requests(false);
    let answer = paused.answer();
    assert_eq!(answer.status, 503, "{answer:?}");
    becomes_standby(&active);
    assert_eq!(active.data("printer/s"), r#"{"v":1}"#);
    assert_eq!(standby.data("printer/s"), r#"{"v":1}"#);
    assert!(standby.is_ready());
}

#[test]
fn a_lease_runs_anew_in_full_after_a_take_over() {
    let Some(database) = Database::new() else {
        return;
    };
    let (mut active, standby) = pair(&database);
    active.prepare("printer");
    let ttl = Duration::from_secs(4);
    let (ticket, token) = active.hold_with(active.lock("printer/s").body(r#"{"ttl":4}"#));
    let next = active.queue("printer/s");
    active.kill();
    let killed = Instant::now();
    becomes_active(&standby);
    let waiting = standby.lock("printer/s").ticket(&next).query("wait=60");
    let granted = waiting.settled();
    assert_eq!(granted.json()["locked"], true, "{granted:?}");
    // The one that took over did so after the kill, and only then the lease began anew.
    assert!(killed.elapsed() >= ttl, "{:?}", killed.elapsed());
    assert!(granted.token() > token);
    let late = standby.put("printer/s", "2").ticket(&ticket).settled();
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
fn several_that_start_together_have_one_active_among_them_and_all_answer() {
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
    let actives = || instances.iter().filter(|i| !is_standby(i)).count();
    until("one is active, and all answer", || {
        instances.iter().all(|instance| instance.is_ready()) && actives() == 1
    });
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

/// One thread of the active instance stands still, be it the one that finds resources or one that serves
/// requests. Its heartbeat would go on for ever; the lease is so long that only an instance that gives the
/// database back lets another one serve in time.
#[test]
fn an_instance_of_which_a_thread_stands_still_makes_room_for_another() {
    if Database::is_skipped() {
        return;
    }
    for place in [1, 2] {
        let setup = Setup::on(Store::Mysql).with("INSTANCE_LEASE_SECONDS", "600");
        let mut active = setup.start();
        active.create("a", 0).expect(201);
        let (_, token) = active.hold("a/s");
        let standby = active.launch_beside();
        becomes_standby(&standby);
        let Some(thread) = StoppedThread::stop(serving_threads(&active)[place]) else {
            return;
        };
        active.logged(&["stands still"]);
        thread.wait_for_end();
        assert_eq!(active.end().code(), Some(1));
        becomes_active(&standby);
        let holder = &standby.describe("a").expect(200).json()["holder"];
        assert_eq!(holder["fencingToken"], token);
    }
}

/// A newer program has migrated the database meanwhile: waiting does not make this one understand it.
#[test]
fn an_instance_that_stands_by_ends_when_the_schema_becomes_a_newer_one() {
    if Database::is_skipped() {
        return;
    }
    let setup = Setup::on(Store::Mysql);
    let active = setup.start();
    let mut standby = active.launch_beside();
    becomes_standby(&standby);
    wait(
        setup
            .database()
            .run("UPDATE resource_server SET version = 1000"),
    );
    standby.logged(&["its schema has version 1000", "start a newer program"]);
    assert_eq!(standby.end().code(), Some(78));
    active.ready().expect(200);
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
