//! Several instances on one database, each of which answers for a share of the names: what it costs to ask the one that
//! does not, and for how long nobody is granted a name whose instance dies, comes or goes.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use crate::client::{Connection, Paths, create, expect, lock, unlock};
use crate::handoff::{self, Chain, percentile};
use crate::process::{Bench, Mysql, Result, Server, Store, peak_bytes_of, resident_bytes};
use crate::report::{Goal, Row, figure};
use crate::rows::{NO_MYSQL, Plan, at_most, median};
use crate::scale::block_on;
use crate::throughput::{self, CONNECTIONS, Load, NAMES, Sample, Target};

const PLACE: &str = "several";
/// Into so many slots the names are divided, by the CRC-32 of their bytes.
const SLOTS: u32 = 1024;
/// Requests one after the other, for the latency of one.
const REQUESTS: usize = 5000;
const WAITERS: usize = 10_000;
/// How often an instance is ended in each way.
const ENDS: usize = 3;
/// Names that are locked and unlocked while an instance comes or goes, and how long each then rests.
const WATCHED: usize = 128;
const REST: Duration = Duration::from_millis(20);
/// Before anything happens, and after it.
const CALM: Duration = Duration::from_millis(1500);
/// `INSTANCE_LEASE_SECONDS` as it comes, in seconds.
const LEASE: f64 = 4.0;
/// How long it may take until each instance has its share.
const PATIENCE: Duration = Duration::from_secs(60);

/// All rows; one that says why where there is no database.
pub fn rows(bench: &Bench, plan: &Plan) -> Result<Vec<Row>> {
    let Some(mysql) = &bench.mysql else {
        return Ok(vec![Row {
            what: "CPU of a request that is passed on, of one that is not".to_owned(),
            goal: Goal::AtMost,
            target: 1.6,
            unit: " ×",
            measured: Err(NO_MYSQL.to_owned()),
            detail: String::new(),
        }]);
    };
    let one = bench.start(Store::Mysql, PLACE)?;
    throughput::prepare(&one)?;
    let run = |_| throughput::run(&one, Load::LockUnlock, plan.run());
    let alone = (0..plan.rounds).map(run).collect::<Result<Vec<Sample>>>()?;
    let two = bench.start_beside(PLACE, "two")?;
    let map = Map::of(mysql, 2)?;
    let mut rows = wait_rows(plan, mysql, &one, &two)?;
    let both = ask_all(plan, &map, &[&one, &two])?;
    rows.extend(passed_on_rows(plan, &map, &one, &two)?);
    let three = bench.start_beside(PLACE, "three")?;
    let map = Map::of(mysql, 3)?;
    let all = ask_all(plan, &map, &[&one, &two, &three])?;
    rows.extend([in_turn_row(2, &both, &alone), in_turn_row(3, &all, &alone)]);
    three.stop()?;
    rows.extend(change_rows(bench, mysql, &[&one, &two])?);
    Ok(rows)
}

// ---- whose each name is ---------------------------------------------------------------------------

/// Which instance each slot belongs to, by the port at which others reach it.
struct Map(BTreeMap<u32, u16>);

impl Map {
    /// As soon as so many instances have their shares.
    fn of(mysql: &Mysql, instances: u32) -> Result<Map> {
        let sql = format!(
            "SELECT slot, SUBSTRING_INDEX(address, ':', -1) FROM bench_{PLACE}.resource_slot \
             JOIN bench_{PLACE}.resource_instance ON id = owner WHERE state = 1"
        );
        let until = Instant::now() + PATIENCE;
        loop {
            let told = mysql.query(&sql)?;
            let row = |line: &str| {
                let (slot, port) = line.split_once('\t')?;
                Some((slot.parse().ok()?, port.parse().ok()?))
            };
            let map = Map(told.lines().filter_map(row).collect());
            let mut counts: BTreeMap<u16, u32> = BTreeMap::new();
            map.0
                .values()
                .for_each(|port| *counts.entry(*port).or_default() += 1);
            let share = SLOTS / instances;
            let has_share = |count: &u32| (share..=share + 1).contains(count);
            if counts.len() == instances as usize && counts.values().all(has_share) {
                return Ok(map);
            }
            if Instant::now() > until {
                return Err(format!("slots of {instances} instances: {counts:?}"));
            }
            sleep(REST);
        }
    }

    fn port(&self, name: &str) -> Option<u16> {
        self.0.get(&(crc32(name) % SLOTS)).copied()
    }

    fn has(&self, server: &Server, name: &str) -> bool {
        self.port(name) == server.peer_port
    }

    /// The first that begin with this word.
    fn names(&self, word: &str, count: usize, wanted: impl Fn(&str) -> bool) -> Vec<String> {
        let all = (0..).map(|number| format!("{word}-{number}"));
        all.filter(|name| wanted(name)).take(count).collect()
    }
}

/// As zlib and MySQL have it.
fn crc32(text: &str) -> u32 {
    let of_bit = |crc: u32, _| (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg());
    let of_byte = |crc: u32, byte: u8| (0..8).fold(crc ^ u32::from(byte), of_bit);
    !text.bytes().fold(!0, of_byte)
}

// ---- throughput and latency -----------------------------------------------------------------------

/// What one run after the other took when the instances were asked in these two ways, each by as many clients: how many
/// changes a commit takes along, and with that what each costs, depends on how many clients there are.
struct Asked {
    /// By somebody who knows whose a name is.
    owners: Vec<Sample>,
    /// By a balancer that knows nothing.
    in_turn: Vec<Sample>,
}

fn ask_all(plan: &Plan, map: &Map, servers: &[&Server]) -> Result<Asked> {
    let names = |wanted: &dyn Fn(usize, &Server) -> bool| -> Result<Vec<(&Server, Vec<usize>)>> {
        let of = |server| {
            (0..NAMES)
                .filter(|number| wanted(*number, server))
                .collect()
        };
        let asked: Vec<(&Server, Vec<usize>)> = servers.iter().map(|s| (*s, of(s))).collect();
        match asked.iter().map(|(_, names)| names.len()).min() {
            Some(least) if least >= CONNECTIONS => Ok(asked),
            least => Err(format!("only {least:?} names for one instance")),
        }
    };
    let has = |number: usize, server: &Server| map.has(server, &format!("b{number}"));
    let is_next = |number: usize, server: &Server| {
        servers[number % servers.len()].peer_port == server.peer_port
    };
    let run = |asked| {
        let all = servers.to_vec();
        throughput::run_at(&Target { asked, all }, Load::LockUnlock, plan.run())
    };
    let (of_owners, of_all) = (names(&has)?, names(&is_next)?);
    // Names that have moved, or rested, are loaded first.
    run(of_owners.clone())?;
    let (mut owners, mut in_turn) = (Vec::new(), Vec::new());
    for _ in 0..plan.rounds {
        owners.push(run(of_owners.clone())?);
        in_turn.push(run(of_all.clone())?);
    }
    Ok(Asked { owners, in_turn })
}

fn middle(samples: &[Sample], value: fn(&Sample) -> f64) -> f64 {
    median(samples.iter().map(value).collect())
}

/// Where all of them share these cores, CPU is what counts.
fn in_turn_row(instances: u32, asked: &Asked, alone: &[Sample]) -> Row {
    let us = |samples: &[Sample]| figure(middle(samples, |s| s.server_us));
    let rate = |samples: &[Sample]| figure(middle(samples, |s| s.per_second));
    let database = |samples: &[Sample]| figure(middle(samples, |s| s.database_us));
    let pairs = asked.in_turn.iter().zip(&asked.owners);
    at_most(
        format!(
            "CPU of a lock + unlock, {instances} instances asked in turn, of the same asked by who owns the name, MySQL"
        ),
        1.6,
        " ×",
        median(pairs.map(|(t, o)| t.server_us / o.server_us).collect()),
        format!(
            "{} against {} µs for each request, of one instance {}; {}, {}, {} durable requests/s of all on these cores; \
             database {}, {}, {} µs",
            us(&asked.in_turn),
            us(&asked.owners),
            us(alone),
            rate(&asked.in_turn),
            rate(&asked.owners),
            rate(alone),
            database(&asked.in_turn),
            database(&asked.owners),
            database(alone),
        ),
    )
}

/// Of names of the first instance, asked there and at the second.
fn passed_on_rows(plan: &Plan, map: &Map, owner: &Server, front: &Server) -> Result<Vec<Row>> {
    let is_own = |number: &usize| map.has(owner, &format!("b{number}"));
    let names: Vec<usize> = (0..NAMES).filter(is_own).collect();
    if names.len() < CONNECTIONS {
        return Err(format!("only {} names belong to one instance", names.len()));
    }
    let own = format!("b{}", names[0]);
    let run = |asked| {
        let target = Target {
            asked: vec![(asked, names.clone())],
            all: vec![owner, front],
        };
        throughput::run_at(&target, Load::LockUnlock, plan.run())
    };
    let (mut here, mut there) = (Vec::new(), Vec::new());
    let (mut near, mut far) = (Vec::new(), Vec::new());
    for _ in 0..plan.rounds {
        here.push(run(owner)?);
        there.push(run(front)?);
        near.push(block_on(latencies(owner, &own))?);
        far.push(block_on(latencies(front, &own))?);
    }
    let us = |samples: &[Sample]| figure(middle(samples, |s| s.server_us));
    let rate = |samples: &[Sample]| figure(middle(samples, |s| s.per_second));
    let pairs = there.iter().zip(&here);
    let cpu = at_most(
        "CPU of a lock + unlock that is passed on, of one that is not, MySQL".to_owned(),
        1.6,
        " ×",
        median(pairs.map(|(t, h)| t.server_us / h.server_us).collect()),
        format!(
            "both instances' {} against {} µs for each request; {} against {} requests/s on these cores",
            us(&there),
            us(&here),
            rate(&there),
            rate(&here),
        ),
    );
    let hop = |name: &str, percent: f64, target: f64| {
        let ms = |runs: &[Vec<f64>]| {
            median(runs.iter().map(|run| percentile(run, percent)).collect()) * 1e3
        };
        let (near, far) = (ms(&near), ms(&far));
        at_most(
            format!("what passing on adds to a read, {name}"),
            target,
            " ms",
            (far - near).max(0.0),
            format!("{} against {} ms", figure(far), figure(near)),
        )
    };
    Ok(vec![cpu, hop("p50", 50.0, 0.3), hop("p99", 99.0, 1.0)])
}

/// Of reads, which need no commit, by one client that is alone.
async fn latencies(server: &Server, name: &str) -> io::Result<Vec<f64>> {
    let mut c = Connection::open(&server.address).await?;
    let path = Paths::of(name).read;
    let mut seconds = Vec::with_capacity(REQUESTS);
    for _ in 0..REQUESTS {
        let sent = Instant::now();
        let answer = c.send("GET", &path, None, b"").await?;
        seconds.push(sent.elapsed().as_secs_f64());
        expect(&c, &answer, "read", answer.status == 200)?;
    }
    seconds.sort_by(f64::total_cmp);
    Ok(seconds)
}

fn wait_rows(plan: &Plan, mysql: &Mysql, owner: &Server, front: &Server) -> Result<Vec<Row>> {
    let map = Map::of(mysql, 2)?;
    let rounds = plan.rounds.min(3);
    let names = map.names("waits", 2 * rounds, |name| map.has(owner, name));
    let ends = [owner.pid(), front.pid()];
    let before = ends.map(resident_bytes);
    let mut peaks = None;
    let (mut here, mut there) = (Vec::new(), Vec::new());
    for pair in names.chunks(2) {
        there.push(handoff::run(front, &pair[0], WAITERS, plan.run())?);
        // Nobody has waited at the owner itself so far.
        peaks.get_or_insert_with(|| ends.map(peak_bytes_of));
        here.push(handoff::run(owner, &pair[1], WAITERS, plan.run())?);
    }
    let peaks = peaks.unwrap_or(before);
    let late = |chain: &Chain| percentile(&chain.after_sending, 99.0);
    let ms = |chains: &[Chain], percent: f64| {
        let each = chains.iter().map(|c| percentile(&c.after_sending, percent));
        figure(median(each.collect()) * 1e3)
    };
    let each = |end: usize| peaks[end].saturating_sub(before[end]) as f64 / WAITERS as f64;
    let pairs = there.iter().zip(&here);
    Ok(vec![at_most(
        format!(
            "hand-off p99 with {} waits that are passed on, of local ones",
            figure(WAITERS as f64)
        ),
        2.0,
        " ×",
        median(pairs.map(|(far, near)| late(far) / late(near)).collect()),
        format!(
            "{} against {} ms from the sending of the unlock, p50 {} against {} ms; {} bytes for each wait where it is \
             asked, {} where it waits",
            ms(&there, 99.0),
            ms(&here, 99.0),
            ms(&there, 50.0),
            ms(&here, 50.0),
            figure(each(1)),
            figure(each(0)),
        ),
    )])
}

// ---- instances that come and go -------------------------------------------------------------------

/// One lock + unlock.
struct Cycle {
    begun: Instant,
    ended: Instant,
}

impl Cycle {
    fn seconds(&self) -> f64 {
        (self.ended - self.begun).as_secs_f64()
    }
}

/// Clients that lock and unlock a name each, again and again, at instances in turn. The first failure of any request
/// is the failure of all.
struct Watch {
    ends: Arc<AtomicBool>,
    thread: JoinHandle<Result<Vec<Vec<Cycle>>>>,
}

impl Watch {
    fn start(fronts: &[&Server], names: &[String]) -> Result<Watch> {
        block_on(create_all(fronts[0], names))?;
        let ends = Arc::new(AtomicBool::new(false));
        let places = names.iter().zip(fronts.iter().cycle());
        let places = places.map(|(name, front)| (name.clone(), front.address.clone()));
        let (places, ending) = (places.collect(), ends.clone());
        let thread = std::thread::spawn(move || block_on(watch(places, ending)));
        sleep(CALM);
        Ok(Watch { ends, thread })
    }

    /// What each name went through.
    fn end(self) -> Result<Vec<Vec<Cycle>>> {
        sleep(CALM);
        self.ends.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| "a client panicked")?
    }
}

async fn create_all(server: &Server, names: &[String]) -> io::Result<()> {
    let mut c = Connection::open(&server.address).await?;
    for name in names {
        create(&mut c, name).await?;
    }
    Ok(())
}

async fn watch(
    places: Vec<(String, String)>,
    ends: Arc<AtomicBool>,
) -> io::Result<Vec<Vec<Cycle>>> {
    let mut clients = Vec::new();
    for (name, address) in places {
        let mut c = Connection::open(&address).await?;
        let (paths, ends) = (Paths::of(&name), ends.clone());
        clients.push(tokio::task::spawn_local(async move {
            let mut cycles = Vec::new();
            while !ends.load(Ordering::Relaxed) {
                let begun = Instant::now();
                let (ticket, _) = lock(&mut c, &paths.lock).await?;
                unlock(&mut c, &paths.unlock, &ticket).await?;
                let ended = Instant::now();
                cycles.push(Cycle { begun, ended });
                tokio::time::sleep(REST).await;
            }
            io::Result::Ok(cycles)
        }));
    }
    let mut all = Vec::new();
    for client in clients {
        all.push(client.await.map_err(io::Error::other)??);
    }
    Ok(all)
}

fn sorted(seconds: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut all: Vec<f64> = seconds.collect();
    all.sort_by(f64::total_cmp);
    all
}

fn longest(cycles: &[Cycle]) -> f64 {
    cycles.iter().map(Cycle::seconds).fold(0.0, f64::max)
}

/// What was seen at the two that stay, in seconds.
#[derive(Default)]
struct Changes {
    /// The longest cycle of each name that moved.
    joined: Vec<f64>,
    left: Vec<f64>,
    /// From the kill to the first grant of a name of the dead one, and of the last.
    killed: Vec<f64>,
    killed_last: Vec<f64>,
    /// p99 of a cycle of any other name meanwhile, by that of before.
    others: Vec<f64>,
}

/// A third instance joins and is killed, joins and is told to end, again and again.
fn change_rows(bench: &Bench, mysql: &Mysql, stay: &[&Server]) -> Result<Vec<Row>> {
    let mut seen = Changes::default();
    for round in 0..ENDS {
        let third = join(bench, mysql, stay, &format!("killed-{round}"), &mut seen)?;
        kill(mysql, stay, third, &format!("k{round}"), &mut seen)?;
        let third = join(bench, mysql, stay, &format!("ended-{round}"), &mut seen)?;
        leave(mysql, stay, third, &format!("l{round}"), &mut seen)?;
    }
    let most = |seconds: &[f64]| seconds.iter().copied().fold(0.0, f64::max);
    let each = |seconds: &[f64]| {
        let each: Vec<String> = seconds.iter().copied().map(figure).collect();
        each.join(", ")
    };
    let moved = |what: &str, seconds: &[f64]| {
        let seconds = sorted(seconds.iter().copied());
        at_most(
            format!("{what}: longest lock + unlock of a name that moves, p99 of the names"),
            0.1,
            " s",
            percentile(&seconds, 99.0),
            format!(
                "{} s at most, p50 {} s, of {} names that moved; no request failed",
                figure(most(&seconds)),
                figure(percentile(&seconds, 50.0)),
                seconds.len()
            ),
        )
    };
    Ok(vec![
        at_most(
            "kill -9 of one of three instances to the first grant of a name of its own".to_owned(),
            LEASE + 1.5,
            " s",
            most(&seen.killed),
            format!(
                "{} s in {ENDS} tries, of its last name {} s; no request failed at the others",
                each(&seen.killed),
                each(&seen.killed_last)
            ),
        ),
        at_most(
            "p99 of a lock + unlock of other names meanwhile, of before".to_owned(),
            2.0,
            " ×",
            median(seen.others.clone()),
            format!("{} in {ENDS} tries", each(&seen.others)),
        ),
        moved("2 → 3 instances", &seen.joined),
        moved("3 → 2 instances by SIGTERM", &seen.left),
    ])
}

fn join(
    bench: &Bench,
    mysql: &Mysql,
    stay: &[&Server],
    log: &str,
    seen: &mut Changes,
) -> Result<Server> {
    let before = Map::of(mysql, 2)?;
    let names = before.names(log, WATCHED, |_| true);
    let watch = Watch::start(stay, &names)?;
    let third = bench.start_beside(PLACE, log)?;
    let after = Map::of(mysql, 3)?;
    let cycles = watch.end()?;
    let has_moved = |name: &String| before.port(name) != after.port(name);
    let moved = names
        .iter()
        .zip(&cycles)
        .filter(|(name, _)| has_moved(name));
    seen.joined.extend(moved.map(|(_, cycles)| longest(cycles)));
    Ok(third)
}

fn leave(
    mysql: &Mysql,
    stay: &[&Server],
    third: Server,
    word: &str,
    seen: &mut Changes,
) -> Result<()> {
    let map = Map::of(mysql, 3)?;
    let names = map.names(word, WATCHED, |name| map.has(&third, name));
    let watch = Watch::start(stay, &names)?;
    third.stop()?;
    Map::of(mysql, 2)?;
    seen.left
        .extend(watch.end()?.iter().map(|cycles| longest(cycles)));
    Ok(())
}

fn kill(
    mysql: &Mysql,
    stay: &[&Server],
    third: Server,
    word: &str,
    seen: &mut Changes,
) -> Result<()> {
    let map = Map::of(mysql, 3)?;
    let mut names = map.names(word, WATCHED / 2, |name| map.has(&third, name));
    names.extend(map.names(word, WATCHED / 2, |name| !map.has(&third, name)));
    let watch = Watch::start(stay, &names)?;
    let killed = Instant::now();
    drop(third);
    Map::of(mysql, 2)?;
    let back = Instant::now();
    let cycles = watch.end()?;
    let (own, others) = cycles.split_at(WATCHED / 2);
    // The one that was under way, or came first.
    let granted = own.iter().filter_map(|cycles| {
        let took = |one: &&Cycle| one.ended - one.begun;
        let waited = cycles
            .iter()
            .filter(|c| c.ended > killed)
            .max_by_key(took)?;
        Some((waited.ended - killed).as_secs_f64())
    });
    let granted = sorted(granted);
    seen.killed.extend(granted.first());
    seen.killed_last.extend(granted.last());
    let late = |from: Option<Instant>, until: Instant| {
        let all = others.iter().flatten();
        let then = all.filter(|c| from.is_none_or(|from| c.begun >= from) && c.begun < until);
        percentile(&sorted(then.map(Cycle::seconds)), 99.0)
    };
    seen.others
        .push(late(Some(killed), back) / late(None, killed));
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_crc_is_that_of_everybody() {
        assert_eq!(super::crc32("123456789"), 0xCBF4_3926);
    }
}
