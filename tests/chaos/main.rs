//! Evidence from outside: real processes under faults, histories recorded by their clients, and a checker
//! that knows the rules and nothing of the server.
//!
//! `make chaos` runs it with `CHAOS_SECONDS`, `CHAOS_SEED`, `CHAOS_STORE` (sqlite, mysql or both) and
//! `CHAOS_CLIENTS`.

mod broken;
mod checker;
mod client;
mod clocks;
mod faults;
mod history;
mod hostile;
mod plan;
mod run;
#[path = "../support/mod.rs"]
mod support;
mod wire;

use faults::Cluster;
use plan::Plan;
use small_resource_server::store::mysql::Options;
use support::{Database, Proxy, Setup, State, until};

/// With times that a run goes through often.
fn setup() -> Setup {
    Setup::new().with_all(&[
        ("CLAIM_SECONDS", &format!("0.{:03}", run::CLAIM_MILLIS)),
        ("STORE_TIMEOUT_SECONDS", "2"),
        ("INSTANCE_LEASE_SECONDS", "1"),
        ("SHUTDOWN_SECONDS", "2"),
    ])
}

#[test]
fn histories_of_a_server_with_sqlite_under_faults_break_no_rule() {
    let plan = Plan::from_env();
    if !plan.is_wanted("sqlite") {
        return;
    }
    let instances = vec![setup().sqlite().launch()];
    run::run(&plan, "sqlite", Cluster::new(instances, Vec::new()));
}

/// Two setups on a database, each with a proxy of its own before it.
fn pair(database: &Database) -> [(Setup, Proxy); 2] {
    [(); 2].map(|()| {
        let options = Options {
            pool_size: 8,
            ..database.options()
        };
        let proxy = Proxy::to(&options);
        (setup().mysql(&proxy.between(options)), proxy)
    })
}

#[test]
fn an_instance_whose_database_is_silent_answers_nothing_once_another_one_serves() {
    let Some(database) = Database::new() else {
        return;
    };
    // The store's own time-out must not be what saves it.
    let launch = |setup: Setup| setup.with("STORE_TIMEOUT_SECONDS", "60").launch();
    let [(first, proxy), (second, _)] = pair(&database);
    let first = launch(first);
    first.until_ready();
    let second = launch(second);
    first.create("a", 0).expect(201);
    first.put("a/s", "1").expect(204);
    assert_eq!(first.data("a/s"), "1");
    proxy.set(State::Hung);
    until("the second one serves", || {
        second.put("a/s", "2").send().status == 204
    });
    first.read("a/s").expect(503);
    assert_eq!(second.data("a/s"), "2");
    proxy.set(State::Up);
}

#[test]
fn histories_of_two_instances_on_one_database_under_faults_break_no_rule() {
    let plan = Plan::from_env();
    if !plan.is_wanted("mysql") {
        return;
    }
    let Some(database) = Database::new() else {
        return;
    };
    let (setups, proxies): (Vec<_>, Vec<_>) = pair(&database).into_iter().unzip();
    let instances = setups.iter().map(Setup::launch).collect();
    run::run(&plan, "mysql", Cluster::new(instances, proxies));
}
