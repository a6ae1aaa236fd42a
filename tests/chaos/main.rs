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
mod link;
mod plan;
mod run;
mod server;
#[path = "../support/mod.rs"]
mod support;
mod wire;

use faults::Cluster;
use link::Link;
use plan::Plan;
use server::Instance;

fn time_settings() -> Vec<(&'static str, String)> {
    vec![
        ("CLAIM_SECONDS", format!("0.{:03}", run::CLAIM_MILLIS)),
        ("STORE_TIMEOUT_SECONDS", "2".into()),
        ("INSTANCE_LEASE_SECONDS", "1".into()),
    ]
}

#[test]
fn histories_of_a_server_with_sqlite_under_faults_break_no_rule() {
    let plan = Plan::from_env();
    if !plan.is_wanted("sqlite") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut settings = time_settings();
    let path = folder.path().join("chaos.db");
    settings.push(("STORE", "sqlite".into()));
    settings.push(("SQLITE_PATH", path.to_str().unwrap().to_owned()));
    let instances = vec![Instance::new(folder.path(), &settings)];
    run::run(&plan, "sqlite", Cluster::new(instances, Vec::new()));
}

/// Two instances on a database, each with a link of its own to it.
fn pair(
    folder: &std::path::Path,
    database: &support::Database,
    times: &[(&'static str, String)],
) -> (Vec<Instance>, Vec<Link>) {
    let options = database.options();
    let links: Vec<Link> = (0..2)
        .map(|_| Link::to(options.host.clone(), options.port))
        .collect();
    let instance = |link: &Link| {
        let mut settings = times.to_vec();
        settings.extend([
            ("STORE", "mysql".into()),
            ("MYSQL_HOST", "127.0.0.1".into()),
            ("MYSQL_PORT", link.address.port().to_string()),
            ("MYSQL_DATABASE", options.database.clone()),
            ("MYSQL_USER", options.user.clone()),
            ("MYSQL_PASSWORD", options.password.clone()),
        ]);
        Instance::new(folder, &settings)
    };
    (links.iter().map(instance).collect(), links)
}

#[test]
fn an_instance_whose_database_is_silent_answers_nothing_once_another_one_serves() {
    let Some(database) = support::Database::new() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    // The store's own time-out must not be what saves it.
    let times = [
        ("STORE_TIMEOUT_SECONDS", "60".to_owned()),
        ("INSTANCE_LEASE_SECONDS", "1".to_owned()),
    ];
    let (mut instances, links) = pair(folder.path(), &database, &times);
    let ask = |instance: &Instance, method: &str, target: &str, body: &str| {
        let key = [("x-api-key", server::KEY.to_owned())];
        let bytes = wire::request(method, target, &key, body);
        let to = instance.address().unwrap();
        let answer = wire::Wire::default().exchange(to, &bytes, server::DEADLINE, None);
        let answer = answer.unwrap_or_else(|failure| panic!("{method} {target}: {failure:?}"));
        (answer.status, answer.body)
    };
    instances[0].start();
    server::until("the first one is ready", || instances[0].is_ready());
    instances[1].start();
    assert_eq!(
        ask(&instances[0], "POST", "/resource", r#"{"name":"a"}"#).0,
        201
    );
    assert_eq!(ask(&instances[0], "PUT", "/resource/a/s", "1").0, 204);
    let read = "/resource/a/s?lock=0&raw=1";
    assert_eq!(ask(&instances[0], "GET", read, ""), (200, b"1".to_vec()));
    links[0].set(link::State::Hung);
    server::until("the second one serves", || {
        ask(&instances[1], "PUT", "/resource/a/s", "2").0 == 204
    });
    assert_eq!(ask(&instances[0], "GET", read, "").0, 503);
    assert_eq!(ask(&instances[1], "GET", read, ""), (200, b"2".to_vec()));
    links[0].set(link::State::Up);
}

#[test]
fn histories_of_two_instances_on_one_database_under_faults_break_no_rule() {
    let plan = Plan::from_env();
    if !plan.is_wanted("mysql") {
        return;
    }
    let Some(database) = support::Database::new() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let (instances, links) = pair(folder.path(), &database, &time_settings());
    run::run(&plan, "mysql", Cluster::new(instances, links));
}
