//! Many at once: resources held, resources in the store at the start, leases and waits that do nothing.

use std::io;
use std::time::{Duration, Instant};

use tokio::task::LocalSet;

use crate::client::{Connection, Paths, Ticket, contains, create, expect, lock, write_request};
use crate::handoff::{percentile, queue_reaches};
use crate::process::{Bench, Result, Server, Store, cpu_seconds, peak_bytes_of, resident_bytes};

const CONNECTIONS: usize = 128;
/// Requests on one connection before their answers are read; no more than the server takes at once.
const PIPELINED: usize = 16;
/// How long retirement may take.
const RETIREMENT: Duration = Duration::from_secs(90);
const STARTS: usize = 3;
/// Which memory counts as given back, in bytes.
pub const RELEASED_BYTES_MAX: u64 = 150_000_000;

#[derive(Clone, Copy, Debug)]
pub struct Held {
    pub resources: usize,
    /// Of each, when all are held and at rest.
    pub bytes_each: f64,
    /// The whole process then, and the most it was seen to have while they were taken.
    pub rest_bytes: u64,
    pub peak_bytes: u64,
    /// Resources that had an actor still when waiting for rest ended.
    pub live_at_rest: usize,
    /// From the last grant until all were at rest, or waiting ended.
    pub rest_seconds: f64,
    pub bytes_after_release: u64,
    /// Resources that were in memory still when waiting ended.
    pub live_after_release: usize,
    /// From the last release until all had retired and the memory was given back, or waiting ended.
    pub retired_seconds: f64,
    /// Seconds from the start of the process to `/ready`, with these resources in the store and without.
    pub start_full_seconds: f64,
    pub start_empty_seconds: f64,
}

pub fn block_on<T>(work: impl Future<Output = io::Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| e.to_string())?;
    let done = LocalSet::new().block_on(&runtime, work);
    done.map_err(|e| e.to_string())
}

/// Holds `resources` at once in a server with SQLite, then releases them, then starts it anew.
///
/// Not with the memory store: what that keeps of a released resource is in the process by design.
pub fn hold(bench: &Bench, resources: usize) -> Result<Held> {
    let server = bench.start(Store::Sqlite, "held")?;
    let before = resident_bytes(server.pid());
    let tickets = block_on(take_all(&server, resources))?;
    let peak_bytes = peak_bytes_of(server.pid());
    let rest = checkpoint(&server, |rest| rest.live == 0)?;
    block_on(release_all(&server, tickets))?;
    let given_back = |rest: &Rest| rest.live == 0 && rest.bytes <= RELEASED_BYTES_MAX;
    let released = checkpoint(&server, given_back)?;
    server.stop()?;
    let (start_full_seconds, start_empty_seconds) = starts(bench)?;
    Ok(Held {
        resources,
        bytes_each: rest.bytes.saturating_sub(before) as f64 / resources as f64,
        rest_bytes: rest.bytes,
        peak_bytes,
        live_at_rest: rest.live,
        rest_seconds: rest.seconds,
        bytes_after_release: released.bytes,
        live_after_release: released.live,
        retired_seconds: released.seconds,
        start_full_seconds,
        start_empty_seconds,
    })
}

/// A server that is left alone.
struct Rest {
    /// Resources that have an actor.
    live: usize,
    bytes: u64,
    /// How long it was waited for.
    seconds: f64,
}

/// Waits until the server is at rest as `enough` says, or [`RETIREMENT`] is over.
fn checkpoint(server: &Server, enough: impl Fn(&Rest) -> bool) -> Result<Rest> {
    let begun = Instant::now();
    loop {
        std::thread::sleep(Duration::from_millis(250));
        let rest = Rest {
            live: block_on(live_resources(server))?,
            bytes: resident_bytes(server.pid()),
            seconds: begun.elapsed().as_secs_f64(),
        };
        if enough(&rest) || begun.elapsed() > RETIREMENT {
            return Ok(rest);
        }
    }
}

/// How many resources the server has in memory, as its metrics say.
async fn live_resources(server: &Server) -> io::Result<usize> {
    metric(server, "actors_live").await
}

/// What the server's metrics say under this name.
async fn metric(server: &Server, name: &str) -> io::Result<usize> {
    let mut c = Connection::open(&server.address).await?;
    let answer = c.send("GET", "/metrics", None, b"").await?;
    expect(&c, &answer, "metrics", answer.status == 200)?;
    let text = String::from_utf8_lossy(c.body(&answer));
    let series = format!("resource_server_{name} ");
    let mut values = text
        .lines()
        .filter_map(|line| line.strip_prefix(&series)?.parse().ok());
    values
        .next()
        .ok_or_else(|| io::Error::other(format!("no {name}")))
}

/// Medians of starts with what `hold` left in the store, and with an empty store, in turns.
fn starts(bench: &Bench) -> Result<(f64, f64)> {
    let (mut full, mut empty) = (Vec::new(), Vec::new());
    for _ in 0..STARTS {
        for (place, seconds) in [("held", &mut full), ("empty", &mut empty)] {
            let begun = Instant::now();
            let server = bench.start(Store::Sqlite, place)?;
            seconds.push(begun.elapsed().as_secs_f64());
            server.stop()?;
        }
    }
    full.sort_by(f64::total_cmp);
    empty.sort_by(f64::total_cmp);
    Ok((percentile(&full, 50.0), percentile(&empty, 50.0)))
}

/// Creates and locks `held0`, `held1`, and so on; says each connection's tickets in the order of its names.
async fn take_all(server: &Server, resources: usize) -> io::Result<Vec<Vec<Ticket>>> {
    let tasks: Vec<_> = (0..CONNECTIONS)
        .map(|index| {
            let address = server.address.clone();
            tokio::task::spawn_local(take_some(address, index, resources))
        })
        .collect();
    let mut tickets = Vec::with_capacity(CONNECTIONS);
    for task in tasks {
        tickets.push(task.await.map_err(io::Error::other)??);
    }
    Ok(tickets)
}

async fn take_some(address: String, index: usize, resources: usize) -> io::Result<Vec<Ticket>> {
    let mut c = Connection::open(&address).await?;
    let names: Vec<usize> = (index..resources).step_by(CONNECTIONS).collect();
    let mut tickets = Vec::with_capacity(names.len());
    let mut requests = Vec::new();
    for some in names.chunks(PIPELINED / 2) {
        requests.clear();
        for name in some {
            let body = format!("{{\"name\":\"held{name}\",\"timeout\":0}}");
            write_request(&mut requests, "POST", "/resource", None, body.as_bytes());
            let path = format!("/resource/held{name}/q/lock");
            write_request(&mut requests, "PUT", &path, None, b"");
        }
        c.write(&requests).await?;
        for _ in some {
            let created = c.answer().await?;
            expect(&c, &created, "create", created.status == 201)?;
            let locked = c.answer().await?;
            let good = locked.status == 200 && contains(c.body(&locked), b"\"locked\":true");
            expect(&c, &locked, "lock", good)?;
            tickets.extend(locked.ticket);
        }
    }
    Ok(tickets)
}

async fn release_all(server: &Server, tickets: Vec<Vec<Ticket>>) -> io::Result<()> {
    let tasks: Vec<_> = tickets
        .into_iter()
        .enumerate()
        .map(|(index, tickets)| {
            let address = server.address.clone();
            tokio::task::spawn_local(release_some(address, index, tickets))
        })
        .collect();
    for task in tasks {
        task.await.map_err(io::Error::other)??;
    }
    Ok(())
}

async fn release_some(address: String, index: usize, tickets: Vec<Ticket>) -> io::Result<()> {
    let mut c = Connection::open(&address).await?;
    let mut name = index;
    let mut requests = Vec::new();
    for some in tickets.chunks(PIPELINED) {
        requests.clear();
        for ticket in some {
            let path = format!("/resource/held{name}/q/unlock");
            write_request(&mut requests, "PUT", &path, Some(ticket), b"");
            name += CONNECTIONS;
        }
        c.write(&requests).await?;
        for _ in some {
            let answer = c.answer().await?;
            expect(&c, &answer, "unlock", answer.status == 200)?;
        }
    }
    Ok(())
}

/// What a server does with `count` held leases, which expire one day, and as many open waits for them: the
/// share of one core, in percent.
pub fn idle_percent(bench: &Bench, count: usize, duration: Duration) -> Result<f64> {
    let server = bench.start(Store::Sqlite, "idle")?;
    block_on(idle(&server, count, duration))
}

async fn idle(server: &Server, count: usize, duration: Duration) -> io::Result<f64> {
    let mut tasks = Vec::with_capacity(count);
    for start in (0..count).step_by(CONNECTIONS) {
        for name in start..count.min(start + CONNECTIONS) {
            let connection = Connection::open(&server.address).await?;
            tasks.push(tokio::task::spawn_local(hold_and_wait(connection, name)));
        }
        // Connections are opened in groups, so that the listener's queue never overflows.
        tokio::task::yield_now().await;
    }
    let mut looking = Connection::open(&server.address).await?;
    for name in 0..count {
        queue_reaches(&mut looking, &format!("idle{name}"), 1).await?;
    }
    // The store has its own to do after so many grants.
    while metric(server, "store_pending_resources").await? > 0 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let before = cpu_seconds(server.pid());
    let begun = Instant::now();
    tokio::time::sleep(duration).await;
    let used = (cpu_seconds(server.pid()) - before) / begun.elapsed().as_secs_f64();
    for task in &tasks {
        if task.is_finished() {
            return Err(io::Error::other("a wait ended"));
        }
    }
    Ok(used * 100.0)
}

/// Holds a lease and waits for it behind itself, which for the server is another client.
async fn hold_and_wait(mut c: Connection, name: usize) -> io::Result<()> {
    let name = format!("idle{name}");
    let paths = Paths::of(&name);
    create(&mut c, &name).await?;
    lock(&mut c, &paths.lock).await?;
    lock(&mut c, &paths.lock_waiting).await?;
    Ok(())
}
