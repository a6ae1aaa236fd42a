//! Evidence from outside: real processes under faults, histories recorded by their clients, and a checker
//! that knows the rules and nothing of the server.
//!
//! `make chaos` runs it with `CHAOS_SECONDS`, `CHAOS_SEED`, `CHAOS_STORE` (sqlite, mysql or both) and
//! `CHAOS_CLIENTS`.

mod broken;
mod checker;
mod client;
mod clocks;
#[allow(dead_code)] // shared with the tests of the store, which use all of it
#[path = "../mysql/database.rs"]
mod database;
mod faults;
mod history;
mod hostile;
mod link;
mod plan;
mod run;
mod server;
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

#[test]
fn histories_of_two_instances_on_one_database_under_faults_break_no_rule() {
    let plan = Plan::from_env();
    if !plan.is_wanted("mysql") {
        return;
    }
    let Some(database) = database::Database::new() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let options = database.options();
    let links: Vec<Link> = (0..2)
        .map(|_| Link::to(options.host.clone(), options.port))
        .collect();
    let instance = |link: &Link| {
        let mut settings = time_settings();
        settings.extend([
            ("STORE", "mysql".into()),
            ("MYSQL_HOST", "127.0.0.1".into()),
            ("MYSQL_PORT", link.address.port().to_string()),
            ("MYSQL_DATABASE", options.database.clone()),
            ("MYSQL_USER", options.user.clone()),
            ("MYSQL_PASSWORD", options.password.clone()),
        ]);
        Instance::new(folder.path(), &settings)
    };
    let instances = links.iter().map(instance).collect();
    run::run(&plan, "mysql", Cluster::new(instances, links));
}
