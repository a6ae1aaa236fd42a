//! Hand-offs: a chain of clients on one name, each of which waits, is granted, releases and waits again.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::task::LocalSet;

use crate::client::{Connection, Paths, create, expect, lock, unlock};
use crate::process::{Result, Server, cpu_seconds};

/// How long the places in the queue may take to be taken, or given up.
const PATIENCE: Duration = Duration::from_secs(120);
/// Hand-offs at the start of a chain that are not counted.
const WARM_UP: usize = 20;
const CONNECTS_AT_ONCE: usize = 128;

/// One lease of the chain.
struct Link {
    token: u64,
    /// Its unlock is sent at once.
    granted: Instant,
    unlock_answered: Instant,
}

/// What a chain came to.
#[derive(Clone, Debug, Default)]
pub struct Chain {
    /// From the answer of an unlock to the answer of the next waiter, in seconds, sorted; zero when the
    /// waiter's answer was there first.
    pub after_answer: Vec<f64>,
    /// From the sending of an unlock to the answer of the next waiter, in seconds, sorted.
    pub after_sending: Vec<f64>,
    /// The server's CPU seconds for each hand-off: those of the whole chain over their number.
    pub each_cpu_seconds: f64,
}

pub fn percentile(sorted: &[f64], percent: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    let index = (last as f64 * percent / 100.0).round() as usize;
    sorted.get(index).copied().unwrap_or(0.0)
}

/// Runs a chain of `waiters` on the name for `duration`.
pub fn run(server: &Server, name: &str, waiters: usize, duration: Duration) -> Result<Chain> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| e.to_string())?;
    let chain = LocalSet::new().block_on(&runtime, run_chain(server, name, waiters, duration));
    chain.map_err(|e| format!("hand-offs with {waiters} waiters: {e}"))
}

async fn run_chain(
    server: &Server,
    name: &str,
    waiters: usize,
    duration: Duration,
) -> io::Result<Chain> {
    let mut first = Connection::open(&server.address).await?;
    let paths = Rc::new(Paths::of(name));
    create(&mut first, name).await?;
    let (ticket, _) = lock(&mut first, &paths.lock).await?;
    let links = Rc::new(RefCell::new(Vec::new()));
    let mut clients = Vec::with_capacity(waiters);
    while clients.len() < waiters {
        for _ in 0..CONNECTS_AT_ONCE.min(waiters - clients.len()) {
            let connection = Connection::open(&server.address).await?;
            let links = links.clone();
            clients.push(tokio::task::spawn_local(link(
                connection,
                paths.clone(),
                links,
            )));
        }
    }
    queue_reaches(&mut first, name, waiters).await?;
    let cpu_before = cpu_seconds(server.pid());
    unlock(&mut first, &paths.unlock, &ticket).await?;
    tokio::time::sleep(duration).await;
    let cpu = cpu_seconds(server.pid()) - cpu_before;
    let done = links.take();
    // Nobody ends by itself but by a failure.
    if let Some(failed) = clients.iter().position(|client| client.is_finished()) {
        return Err(clients
            .swap_remove(failed)
            .await
            .map_err(io::Error::other)?);
    }
    for client in clients {
        client.abort();
    }
    queue_reaches(&mut first, name, 0).await?;
    evaluate(done, cpu)
}

/// Waits, is granted, releases, and waits again, until it fails or is aborted.
async fn link(mut c: Connection, paths: Rc<Paths>, links: Rc<RefCell<Vec<Link>>>) -> io::Error {
    loop {
        let (ticket, token) = match lock(&mut c, &paths.lock_waiting).await {
            Ok(granted) => granted,
            Err(error) => return error,
        };
        let granted = Instant::now();
        if let Err(error) = unlock(&mut c, &paths.unlock, &ticket).await {
            return error;
        }
        links.borrow_mut().push(Link {
            token,
            granted,
            unlock_answered: Instant::now(),
        });
    }
}

/// Waits until so many tickets wait for the name.
pub async fn queue_reaches(c: &mut Connection, name: &str, waiters: usize) -> io::Result<()> {
    let until = Instant::now() + PATIENCE;
    let path = format!("/resource/{name}");
    loop {
        let answer = c.send("GET", &path, None, b"").await?;
        expect(c, &answer, "describe", answer.status == 200)?;
        let described: serde_json::Value = serde_json::from_slice(c.body(&answer))?;
        if described["waiting"] == waiters {
            return Ok(());
        }
        if Instant::now() > until {
            let message = format!("{} wait instead of {waiters}", described["waiting"]);
            return Err(io::Error::other(message));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn evaluate(mut links: Vec<Link>, cpu: f64) -> io::Result<Chain> {
    links.sort_by_key(|link| link.token);
    let mut chain = Chain {
        each_cpu_seconds: cpu / links.len().max(1) as f64,
        ..Chain::default()
    };
    for pair in links.windows(2).skip(WARM_UP) {
        let (one, next) = (&pair[0], &pair[1]);
        if next.token != one.token + 1 {
            return Err(io::Error::other("somebody else was granted in between"));
        }
        let since = |from: Instant| next.granted.saturating_duration_since(from).as_secs_f64();
        chain.after_answer.push(since(one.unlock_answered));
        chain.after_sending.push(since(one.granted));
    }
    if chain.after_answer.is_empty() {
        return Err(io::Error::other("no hand-off was counted"));
    }
    chain.after_answer.sort_by(f64::total_cmp);
    chain.after_sending.sort_by(f64::total_cmp);
    Ok(chain)
}

#[cfg(test)]
mod tests {
    use super::percentile;

    #[test]
    fn percentiles_are_members() {
        let sorted: Vec<f64> = (0..101).map(f64::from).collect();
        assert_eq!(percentile(&sorted, 50.0), 50.0);
        assert_eq!(percentile(&sorted, 99.0), 99.0);
        assert_eq!(percentile(&[], 50.0), 0.0);
    }
}
