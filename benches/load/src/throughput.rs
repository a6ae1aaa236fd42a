//! How many requests a second: loops over keep-alive connections, each with names of its own, so that
//! nobody waits for anybody and every peer does the same work.

use std::io;
use std::ops::Range;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use tokio::task::LocalSet;

use crate::client::{Connection, Paths, create, expect, lock, unlock};
use crate::peers::{Etcd, Redis};
use crate::process::{Result, Server, cpu_seconds};

pub const CONNECTIONS: usize = 64;
pub const NAMES: usize = 1000;

/// What one round of a loop is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// The bare handler.
    Health,
    /// GET `lock=0`.
    Read,
    LockUnlock,
    /// The same of names that are not there before and gone afterwards.
    Ephemeral,
    /// Lock, write 4 KiB, unlock: three requests.
    Cycle,
    /// Lock, write 4 KiB and release by `?unlock=1`: two requests.
    ShortCycle,
    Etcd,
    Redis,
}

impl Load {
    /// How many of what is counted a round has: requests, except that a cycle counts as one.
    fn counts(self) -> u64 {
        match self {
            Load::Health | Load::Read | Load::Cycle | Load::ShortCycle => 1,
            Load::LockUnlock | Load::Ephemeral | Load::Etcd | Load::Redis => 2,
        }
    }
}

/// One short run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    pub per_second: f64,
    /// CPU microseconds for each request (or cycle), of the server's process or of all instances together.
    pub server_us: f64,
    /// The same of the server's database, as far as it is known.
    pub database_us: f64,
    /// How many cores the load generator used.
    pub generator_cores: f64,
}

enum Client {
    Http(Connection),
    Etcd(Etcd),
    Redis(Redis),
}

impl Client {
    async fn open(load: Load, address: &str) -> io::Result<Client> {
        Ok(match load {
            Load::Etcd => Client::Etcd(Etcd::open(address).await?),
            Load::Redis => Client::Redis(Redis::open(address).await?),
            _ => Client::Http(Connection::open(address).await?),
        })
    }

    async fn round(&mut self, load: Load, name: &Name, json: &[u8]) -> io::Result<()> {
        let number = &name.number;
        match self {
            Client::Http(connection) => http_round(connection, load, name, json).await,
            Client::Etcd(etcd) => etcd.lock_and_unlock(*number).await,
            // As long as a ticket of ours.
            Client::Redis(redis) => {
                let owner = "0123456789abcdef0123456789abcdef";
                redis.lock_and_unlock(*number, owner).await
            }
        }
    }
}

async fn http_round(c: &mut Connection, load: Load, name: &Name, json: &[u8]) -> io::Result<()> {
    let paths = &name.paths;
    let read = match load {
        Load::Health => Some("/health"),
        Load::Read => Some(paths.read.as_str()),
        _ => None,
    };
    if let Some(path) = read {
        let answer = c.send("GET", path, None, b"").await?;
        return expect(c, &answer, "read", answer.status == 200);
    }
    if load == Load::Ephemeral {
        let paths = &name.ephemeral;
        let (ticket, _) = lock(c, &paths.lock_creating).await?;
        return unlock(c, &paths.unlock, &ticket).await;
    }
    let (ticket, _) = lock(c, &paths.lock).await?;
    let written = match load {
        Load::Cycle => Some(&paths.write),
        Load::ShortCycle => Some(&paths.write_and_release),
        _ => None,
    };
    if let Some(path) = written {
        let answer = c.send("PUT", path, Some(&ticket), json).await?;
        expect(c, &answer, "write", answer.status == 204)?;
    }
    if load != Load::ShortCycle {
        unlock(c, &paths.unlock, &ticket).await?;
    }
    Ok(())
}

/// One of the names that the loops use.
struct Name {
    number: usize,
    paths: Paths,
    /// Of a name that is never there for longer than it is held.
    ephemeral: Paths,
}

/// Those of all these that this connection uses, and nobody else.
fn names_of(connection: usize, all: &[usize]) -> Vec<Name> {
    let numbers = all.iter().copied().skip(connection).step_by(CONNECTIONS);
    let name = |number| Name {
        number,
        paths: Paths::of(&format!("b{number}")),
        ephemeral: Paths::of(&format!("e{number}")),
    };
    numbers.map(name).collect()
}

/// A JSON text of 4 KiB.
pub fn document() -> Vec<u8> {
    format!("{{\"filled\":\"{}\"}}", "x".repeat(4096 - 13)).into_bytes()
}

/// How long the loops run before they are counted: connections are new in each run, and a server that had
/// nothing to do for a while has to find its resources again.
pub const WARM_UP: Duration = Duration::from_millis(400);

/// Whom the loops ask, and for what.
pub struct Target<'a> {
    /// Each over [`CONNECTIONS`] connections, for as many names of its own at least: numbers below [`NAMES`].
    pub asked: Vec<(&'a Server, Vec<usize>)>,
    /// Whose CPU is counted.
    pub all: Vec<&'a Server>,
}

/// One run of `duration` against one server, after [`WARM_UP`]. The first failure of any request fails it: a
/// figure with errors in it means nothing.
pub fn run(server: &Server, load: Load, duration: Duration) -> Result<Sample> {
    let target = Target {
        asked: vec![(server, (0..NAMES).collect())],
        all: vec![server],
    };
    run_at(&target, load, duration)
}

/// As [`run`], of several instances.
pub fn run_at(target: &Target<'_>, load: Load, duration: Duration) -> Result<Sample> {
    let loop_of = |connection: usize| {
        let (server, names) = &target.asked[connection / CONNECTIONS];
        Loop {
            address: server.address.clone(),
            names: names_of(connection % CONNECTIONS, names),
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let connections = CONNECTIONS * target.asked.len();
    let threads = threads.clamp(1, connections);
    let barrier = Arc::new(Barrier::new(threads + 1));
    let handles: Vec<_> = (0..threads)
        .map(|thread| {
            let barrier = barrier.clone();
            let mine = (thread..connections).step_by(threads);
            let mine: Vec<Loop> = mine.map(loop_of).collect();
            std::thread::spawn(move || generate(load, duration, mine, &barrier))
        })
        .collect();
    // Everybody is connected from here on.
    barrier.wait();
    std::thread::sleep(WARM_UP);
    let begun = Instant::now();
    let database = target.asked[0].0.database;
    let spent = || {
        let servers: f64 = target.all.iter().map(|s| cpu_seconds(s.pid())).sum();
        let database = database.map_or(0.0, cpu_seconds);
        [servers, database, cpu_seconds(std::process::id())]
    };
    let before = spent();
    let mut rounds = 0;
    for handle in handles {
        let done = handle.join().map_err(|_| "a load thread panicked")?;
        rounds += done.map_err(|e| format!("{load:?}: {e}"))?;
    }
    let elapsed = begun.elapsed().as_secs_f64();
    let after = spent();
    let counted = (rounds * load.counts()) as f64;
    Ok(Sample {
        per_second: counted / elapsed,
        server_us: (after[0] - before[0]) * 1e6 / counted.max(1.0),
        database_us: (after[1] - before[1]) * 1e6 / counted.max(1.0),
        generator_cores: (after[2] - before[2]) / elapsed,
    })
}

/// What one connection does again and again.
struct Loop {
    address: String,
    names: Vec<Name>,
}

/// One thread's share of the connections; says how many rounds were done.
fn generate(load: Load, duration: Duration, mine: Vec<Loop>, barrier: &Barrier) -> io::Result<u64> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let opened = runtime.and_then(|runtime| {
        let clients = runtime.block_on(async {
            let mut clients = Vec::new();
            for Loop { address, names } in mine {
                clients.push((names, Client::open(load, &address).await?));
            }
            io::Result::Ok(clients)
        })?;
        Ok((runtime, clients))
    });
    // Whoever failed lets the others begin all the same.
    barrier.wait();
    let (runtime, clients) = opened?;
    let from = Instant::now() + WARM_UP;
    let counted = from..from + duration;
    runtime.block_on(LocalSet::new().run_until(async {
        let loops: Vec<_> = clients
            .into_iter()
            .map(|(names, client)| {
                tokio::task::spawn_local(repeat(client, load, names, counted.clone()))
            })
            .collect();
        let mut rounds = 0;
        for done in loops {
            rounds += done.await.map_err(io::Error::other)??;
        }
        Ok(rounds)
    }))
}

/// Says how many rounds began in the time that is counted.
async fn repeat(
    mut client: Client,
    load: Load,
    names: Vec<Name>,
    counted: Range<Instant>,
) -> io::Result<u64> {
    let json = document();
    let mut rounds = 0;
    for name in names.iter().cycle() {
        let now = Instant::now();
        if now >= counted.end {
            break;
        }
        client.round(load, name, &json).await?;
        rounds += u64::from(now >= counted.start);
    }
    Ok(rounds)
}

/// Makes the names and gives each a document.
pub fn prepare(server: &Server) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| e.to_string())?;
    let address = server.address.clone();
    let prepared = runtime.block_on(LocalSet::new().run_until(async {
        let tasks: Vec<_> = (0..CONNECTIONS)
            .map(|index| tokio::task::spawn_local(prepare_some(address.clone(), index)))
            .collect();
        for task in tasks {
            task.await.map_err(io::Error::other)??;
        }
        io::Result::Ok(())
    }));
    prepared.map_err(|e| format!("preparing: {e}"))
}

async fn prepare_some(address: String, index: usize) -> io::Result<()> {
    let mut connection = Connection::open(&address).await?;
    let c = &mut connection;
    let all: Vec<usize> = (0..NAMES).collect();
    for Name { number, paths, .. } in names_of(index, &all) {
        create(c, &format!("b{number}")).await?;
        let answer = c.send("PUT", &paths.write, None, b"{\"a\":1}").await?;
        expect(c, &answer, "write", answer.status == 204)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_document_has_four_kib() {
        assert_eq!(super::document().len(), 4096);
    }
}
