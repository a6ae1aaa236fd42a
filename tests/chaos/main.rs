//! Evidence from outside: real processes under faults, histories recorded by their clients, and a checker
//! that knows the rules and nothing of the server.
//!
//! `make chaos` runs it with `CHAOS_SECONDS`, `CHAOS_SEED`, `CHAOS_STORE` (sqlite, mysql, galera, group_replication
//! or all) and `CHAOS_CLIENTS`.

mod broken;
mod checker;
mod client;
mod clocks;
mod engines;
mod faults;
mod history;
mod hostile;
mod plan;
mod run;
#[path = "../support/mod.rs"]
mod support;
mod wire;

use faults::{Cluster, Links};
use plan::Plan;
use small_resource_server::lock::ResourceName;
use small_resource_server::store::members::Slot;
use small_resource_server::store::mysql::Options;
use support::{Database, Program, Proxy, Setup, State, free_port, until};

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
    run::run(&plan, "sqlite", || {
        Cluster::new(vec![setup().sqlite().launch()], Vec::new())
    });
}

/// An instance to be on this database server, and what lies between it and the rest of the world.
fn place(options: &Options) -> (Setup, Links) {
    let options = Options {
        pool_size: 8,
        ..options.clone()
    };
    let port = free_port();
    let links = Links {
        database: Proxy::to(&options),
        peers: Proxy::to_peer(port),
    };
    let address = links.peers.address().to_string();
    let setup = setup().mysql(&links.database.between(options)).with_all(&[
        ("PEER_PORT", &port.to_string()),
        ("ADVERTISE_ADDRESS", &address),
    ]);
    (setup, links)
}

/// One instance for each of these, which all lead to the same data.
fn cluster(places: &[Options]) -> Cluster {
    let (setups, links): (Vec<_>, Vec<_>) = places.iter().map(place).unzip();
    Cluster::new(setups.iter().map(Setup::launch).collect(), links)
}

#[test]
fn an_instance_whose_database_is_silent_answers_nothing_once_another_one_serves() {
    let Some(database) = Database::new() else {
        return;
    };
    // The store's own time-out must not be what saves it.
    let launch = |setup: Setup| setup.with("STORE_TIMEOUT_SECONDS", "60").launch();
    let [(first, links), (second, _)] = [(); 2].map(|()| place(&database.options()));
    let first = launch(first);
    first.until_ready();
    let second = launch(second);
    let has_half = |one: &Program| one.metrics().contains("resource_server_slots 512\n");
    until("each has its share", || {
        has_half(&first) && has_half(&second)
    });
    // Whoever has all keeps the slots of the lowest numbers.
    let is_first_s = |name: &String| Slot::of(&ResourceName::parse(name).unwrap()).number() < 512;
    let mut names = (0..).map(|number| format!("name-{number}"));
    let name = &names.find(is_first_s).unwrap();
    let at = &format!("{name}/s");
    second.create(name, 0).expect(201);
    second.put(at, "1").expect(204);
    assert_eq!(first.data(at), "1");
    links.database.set(State::Hung);
    until("the second one serves", || {
        second.put(at, "2").send().status == 204
    });
    first.read(at).expect(503);
    assert_eq!(second.data(at), "2");
    links.database.set(State::Up);
}

#[test]
fn histories_of_three_instances_on_one_database_under_faults_break_no_rule() {
    let plan = Plan::from_env();
    if !plan.is_wanted("mysql") {
        return;
    }
    let Some(database) = Database::new() else {
        return;
    };
    let places = [(); 3].map(|()| database.options());
    run::run(&plan, "mysql", || cluster(&places));
}
