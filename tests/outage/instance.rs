//! The server as a process on a database that may fail.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use small_resource_server::lock::ResourceName;
use small_resource_server::store::members::{SLOTS, Slot};
use small_resource_server::store::mysql::Options;

use crate::support::{Answer, Call, Database, Program, STRANGE_TICKET, Setup, free_port, until};
use crate::wait;

/// `INSTANCE_LEASE_SECONDS` of the tests: room for a busy machine to be late with a heartbeat.
pub const LEASE: Duration = Duration::from_secs(3);
/// An answer that takes longer is not bounded by any time-out of the tests, whatever else the machine does.
pub const BOUND: Duration = Duration::from_secs(20);

/// One instance on this database. What a busy machine makes late is asked for again.
pub fn setup(options: &Options) -> Setup {
    let lease = LEASE.as_secs().to_string();
    Setup::new().patient().mysql(options).with_all(&[
        ("PEER_PORT", &free_port().to_string()),
        ("HTTP_WORKERS", "1"),
        ("SHUTDOWN_SECONDS", "5"),
        ("STORE_TIMEOUT_SECONDS", "2"),
        ("LISTING_TIMEOUT_SECONDS", "1"),
        ("INSTANCE_LEASE_SECONDS", &lease),
        ("TICKET_TTL_SECONDS", "3000"),
        ("CLAIM_SECONDS", "3000"),
    ])
}

/// It listens when this returns.
pub fn launch(options: &Options) -> Program {
    setup(options).launch()
}

/// It serves its database when this returns.
pub fn serving(options: &Options) -> Program {
    let instance = launch(options);
    instance.until_ready();
    instance
}

/// Under another wall clock; `offset` as `faketime` takes it. `None`: skipped.
pub fn launch_at(options: &Options, offset: &str) -> Option<Program> {
    let setup = setup(options).faketime(&[
        ("FAKETIME", offset),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ("DONT_FAKE_MONOTONIC", "1"),
    ]);
    let instance = setup?.launch();
    let first = instance.lines().swap_remove(0);
    let today = humantime::format_rfc3339(std::time::SystemTime::now()).to_string();
    assert!(
        !first.contains(&today[..10]),
        "the clock is not another one: {first}"
    );
    Some(instance)
}

/// For how many slots it answers.
pub fn slots(instance: &Program) -> usize {
    let text = instance.metrics();
    let value = |line: &str| line.strip_prefix("resource_server_slots ")?.parse().ok();
    text.lines().find_map(value).expect("a number of slots")
}

/// They answer for all names, each for its share, when this returns.
pub fn share(instances: &[&Program]) {
    let least = SLOTS / instances.len();
    until("each has its share", || {
        let has_share = |instance: &&Program| {
            instance.is_ready() && (least..=least + 1).contains(&slots(instance))
        };
        instances.iter().all(has_share)
    });
}

/// It answers for all names when this returns.
pub fn has_all(instance: &Program) {
    share(&[instance]);
}

/// A name that this instance answers for now, and no earlier call has told.
pub fn name_at(database: &Database, instance: &Program) -> String {
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    let settings = instance.setup().settings();
    let find = |wanted: &str| {
        let mut found = settings.iter().rev().filter(|(name, _)| name == wanted);
        found.next().map(|(_, value)| value.clone())
    };
    let address = find("ADVERTISE_ADDRESS").or_else(|| find("PEER_PORT"));
    let sql = format!(
        "SELECT CAST(slot AS CHAR) FROM resource_slot JOIN resource_instance ON id = owner WHERE address LIKE '%{}'",
        address.expect("a port of its own for other instances")
    );
    let own = wait(database.texts(&sql));
    assert!(!own.is_empty(), "it has no names");
    loop {
        let call = CALLS.fetch_add(1, Ordering::SeqCst);
        let name = format!("name-{call}");
        let slot = Slot::of(&ResourceName::parse(&name).unwrap()).number();
        if own.contains(&slot.to_string()) {
            return name;
        }
    }
}

/// It lives, says why it does not serve, and answers every route 503 in bounded time.
pub fn refuses(instance: &Program, codes: &[&str]) {
    let check = |answer: &Answer| {
        assert_eq!(answer.status, 503, "{answer:?}");
        assert!(codes.contains(&answer.code().as_str()), "{answer:?}");
    };
    instance.health().expect(200);
    check(&instance.ready().send());
    for call in every_route(instance) {
        let start = Instant::now();
        check(&call.send());
        assert!(start.elapsed() < BOUND, "{:?}", start.elapsed());
    }
}

pub fn every_route(instance: &Program) -> Vec<Call> {
    vec![
        instance.create("another", 0),
        instance.describe("printer"),
        instance.call("GET", "/resource"),
        instance.read("printer/s"),
        instance.get("printer/s"),
        instance.lock("printer/s"),
        instance.lock("printer/s").query("wait=30"),
        instance.put("printer/s", "2"),
        instance.renew("printer/s", STRANGE_TICKET),
        instance.unlock("printer/s", STRANGE_TICKET),
        instance.delete("printer/s"),
        instance.delete("printer"),
    ]
}

/// While `during` lasts, the process does little, says little, and needs no more memory than before.
pub fn stays_calm(instance: &Program, during: Duration) {
    let (time, lines) = (instance.processor_time(), instance.lines().len());
    let memory = instance.memory();
    std::thread::sleep(during);
    let used = instance.processor_time() - time;
    assert!(
        used < during / 2,
        "{used:?} of processor time in {during:?}"
    );
    let more = instance.memory().saturating_sub(memory);
    assert!(more < 32 << 20, "{more} bytes more");
    let said = instance.lines()[lines..].to_vec();
    assert!(said.len() < 20, "{said:#?}");
}

pub fn metric(instance: &Program, name: &str) -> u64 {
    let text = instance.metrics();
    let begin = format!("resource_server_{name} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&begin));
    line.unwrap_or_else(|| panic!("no {name} in {text}"))
        .parse()
        .unwrap()
}
