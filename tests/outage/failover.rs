//! The database moves to another server, under a name that stays.

use std::time::{Duration, Instant};

use small_resource_server::store::mysql::Options;

use crate::instance::{launch, refuses, serving};
use crate::private::PrivateServer;
use crate::support::{Program, Proxy, until};
use crate::{turn, wait};

/// A primary, and a replica that follows it. `None`: skipped.
fn pair() -> Option<[PrivateServer; 2]> {
    let server = |id: &str| {
        let mut settings = vec!["--log-bin=binlog", id];
        // MariaDB always has them.
        if std::env::var_os("MYSQLD").is_some() {
            settings.extend(["--gtid-mode=ON", "--enforce-gtid-consistency=ON"]);
        } else {
            settings.push("--log-slave-updates");
        }
        PrivateServer::new(&settings)
    };
    let mut servers = [server("--server-id=1")?, server("--server-id=2")?];
    servers.iter_mut().for_each(PrivateServer::start);
    wait(servers[1].replicate(&servers[0]));
    Some(servers)
}

#[test]
fn after_a_failover_the_name_is_followed_although_open_connections_stay() {
    let Some([old, new]) = pair() else {
        return;
    };
    let _turn = turn();
    let proxy = Proxy::to(&old.options());
    let options = proxy.between(old.app_options());
    let instance = serving(&options);
    instance.prepare("printer");
    let (ticket, token) = instance.hold_with(
        instance
            .lock("printer/s")
            .body(r#"{"owner":"me","ttl":3000}"#),
    );
    let waiter = instance.queue("printer/s");
    instance.prepare("dead");
    instance.hold_with(instance.lock("dead/s").body(r#"{"ttl":5}"#));

    proxy.lead_to(&new.options());
    wait(new.take_the_place_of(&old));
    instance.logged(&["the store was lost"]);
    until("it serves from the new primary", || instance.is_ready());
    let kept = instance.renew("printer/s", &ticket).settled();
    assert_eq!((kept.status, kept.token()), (200, token), "{kept:?}");
    let answer = instance.lock("printer/s").ticket(&waiter).settled();
    assert_eq!(answer.json()["position"], 1);
    assert_eq!(instance.unlock("printer/s", &ticket).settled().status, 200);
    until("the lease of a client that is dead expires", || {
        instance.described("dead")["locked"] == false
    });
    // And stays: nothing leads back to the old one.
    let lost = |i: &Program| i.log().matches("the store was lost").count();
    let before = lost(&instance);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(lost(&instance), before);
}

#[test]
fn a_server_that_is_read_only_is_named_as_the_reason() {
    let Some(mut server) = PrivateServer::new(&[]) else {
        return;
    };
    server.start();
    wait(server.run("SET GLOBAL read_only = ON"));
    // With every right there is: the account could write all the same.
    let instance = launch(&server.options());
    instance.logged(&["read-only"]);
    let ready = instance.ready().send();
    assert_eq!(
        (ready.status, ready.code().as_str()),
        (503, "store_unavailable")
    );
    let said = ready.json()["error"].as_str().unwrap().to_owned();
    assert!(
        said.contains("read-only") && !said.contains("secret"),
        "{said}"
    );
    wait(server.run("SET GLOBAL read_only = OFF"));
    instance.until_ready();
    instance.prepare("printer");
    let (ticket, token) = instance.hold("printer/s");
    wait(server.run("SET GLOBAL read_only = ON"));
    let began = Instant::now();
    until("it notices without a request", || !instance.is_ready());
    assert!(began.elapsed() < Duration::from_secs(10));
    refuses(&instance, &["store_unavailable"]);
    wait(server.run("SET GLOBAL read_only = OFF"));
    let written = instance.put("printer/s", "2").ticket(&ticket).settled();
    assert_eq!((written.status, written.token()), (204, token));
}

/// Half of the connections lead to a server that does not have what was written.
#[test]
fn a_name_that_leads_to_two_servers_is_noticed_and_shows_nobody_an_old_state() {
    let Some([primary, replica]) = pair() else {
        return;
    };
    wait(replica.stop_replicating());
    wait(replica.run("SET GLOBAL read_only = OFF"));
    wait(replica.run("CREATE DATABASE IF NOT EXISTS resources"));
    let proxy = Proxy::to(&primary.options());
    let options: Options = proxy.between(primary.app_options());
    let instance = serving(&options);
    let connections = "SELECT CAST(COUNT(*) AS CHAR) FROM information_schema.processlist \
                       WHERE user = 'app'";
    until("one connection writes and one sends heartbeats", || {
        wait(primary.text(connections)) == "2"
    });
    proxy.lead_to(&replica.options());
    // The first connection that reads is made now.
    let answer = instance.read("nobody/s").send();
    assert_eq!(answer.status, 503, "{answer:?}");
    instance.logged(&["connections lead to different servers"]);
    proxy.lead_to(&primary.options());
    instance.prepare("printer");
    assert_eq!(instance.data("printer/s"), r#"{"v":1}"#);
}
