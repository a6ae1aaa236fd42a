//! Two instances on one database, one of which is active: what it costs to ask the other one, and how long nobody is
//! granted when the active one ends.

use std::io;
use std::time::{Duration, Instant};

use crate::client::{Connection, Paths, create, expect, lock, unlock};
use crate::handoff::{self, Chain, percentile};
use crate::process::{Bench, Result, Server, Store, peak_bytes_of, resident_bytes};
use crate::report::{Goal, Row, figure};
use crate::rows::{NO_MYSQL, Plan, at_most, median};
use crate::scale::block_on;
use crate::throughput::{self, Load, Sample};

const PLACE: &str = "several";
/// Requests one after the other, for the latency of one.
const REQUESTS: usize = 5000;
const WAITERS: usize = 10_000;
/// How often an active instance is ended.
const ENDS: usize = 3;
/// `INSTANCE_LEASE_SECONDS` as it comes, in seconds.
const LEASE: f64 = 4.0;

/// All rows; one that says why where there is no database.
pub fn rows(bench: &Bench, plan: &Plan) -> Result<Vec<Row>> {
    if bench.mysql.is_none() {
        return Ok(vec![Row {
            what: "CPU of a request that is passed on, of one that is not".to_owned(),
            goal: Goal::AtMost,
            target: 1.6,
            unit: " ×",
            measured: Err(NO_MYSQL.to_owned()),
            detail: String::new(),
        }]);
    }
    let active = bench.start(Store::Mysql, PLACE)?;
    let front = bench.start_beside(&active, PLACE, "front")?;
    let mut rows = wait_rows(plan, &active, &front)?;
    throughput::prepare(&active)?;
    rows.push(cpu_row(plan, &active, &front)?);
    rows.extend(hop_rows(plan, &active, &front)?);
    rows.extend(end_rows(bench, active, front)?);
    Ok(rows)
}

fn cpu_row(plan: &Plan, active: &Server, front: &Server) -> Result<Row> {
    let (mut here, mut there) = (Vec::new(), Vec::new());
    for _ in 0..plan.rounds {
        here.push(throughput::run(active, Load::LockUnlock, plan.run())?);
        there.push(throughput::run(front, Load::LockUnlock, plan.run())?);
    }
    let middle = |samples: &[Sample], value: fn(&Sample) -> f64| {
        figure(median(samples.iter().map(value).collect()))
    };
    let pairs = there.iter().zip(&here);
    Ok(at_most(
        "CPU of a lock + unlock that is passed on, of one that is not, MySQL".to_owned(),
        1.6,
        " ×",
        median(pairs.map(|(t, h)| t.server_us / h.server_us).collect()),
        format!(
            "both instances' {} against {} µs for each request; {} against {} requests/s on these cores",
            middle(&there, |s| s.server_us),
            middle(&here, |s| s.server_us),
            middle(&there, |s| s.per_second),
            middle(&here, |s| s.per_second),
        ),
    ))
}

/// Of reads, which need no commit, by one client that is alone.
fn hop_rows(plan: &Plan, active: &Server, front: &Server) -> Result<Vec<Row>> {
    let (mut here, mut there) = (Vec::new(), Vec::new());
    for _ in 0..plan.rounds {
        here.push(block_on(latencies(active))?);
        there.push(block_on(latencies(front))?);
    }
    let row = |name: &str, percent: f64, target: f64| {
        let ms = |runs: &[Vec<f64>]| {
            median(runs.iter().map(|run| percentile(run, percent)).collect()) * 1e3
        };
        let (near, far) = (ms(&here), ms(&there));
        at_most(
            format!("what passing on adds to a read, {name}"),
            target,
            " ms",
            (far - near).max(0.0),
            format!("{} against {} ms", figure(far), figure(near)),
        )
    };
    Ok(vec![row("p50", 50.0, 0.3), row("p99", 99.0, 1.0)])
}

async fn latencies(server: &Server) -> io::Result<Vec<f64>> {
    let mut c = Connection::open(&server.address).await?;
    let path = Paths::of("b0").read;
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

fn wait_rows(plan: &Plan, active: &Server, front: &Server) -> Result<Vec<Row>> {
    let ends = [active.pid(), front.pid()];
    let before = ends.map(resident_bytes);
    let mut peaks = None;
    let (mut here, mut there) = (Vec::new(), Vec::new());
    for round in 0..plan.rounds.min(3) {
        there.push(handoff::run(
            front,
            &format!("far{round}"),
            WAITERS,
            plan.run(),
        )?);
        // Nobody has waited at the active instance itself so far.
        peaks.get_or_insert_with(|| ends.map(peak_bytes_of));
        here.push(handoff::run(
            active,
            &format!("near{round}"),
            WAITERS,
            plan.run(),
        )?);
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
             asked, {} at the active instance",
            ms(&there, 99.0),
            ms(&here, 99.0),
            ms(&there, 50.0),
            ms(&here, 50.0),
            figure(each(1)),
            figure(each(0)),
        ),
    )])
}

/// The active one is killed, or told to stop, again and again; a new one starts each time.
fn end_rows(bench: &Bench, mut active: Server, mut front: Server) -> Result<Vec<Row>> {
    block_on(prepare(&active))?;
    let (mut killed, mut stopped) = (Vec::new(), Vec::new());
    for end in 0..ENDS {
        drop(active);
        killed.push(block_on(first_grant(&front))?);
        active = front;
        front = bench.start_beside(&active, PLACE, &format!("after-kill-{end}"))?;
        stopped.push(longest_pause(active, &front)?);
        active = front;
        front = bench.start_beside(&active, PLACE, &format!("after-stop-{end}"))?;
    }
    let all = |seconds: &[f64]| {
        let each: Vec<String> = seconds.iter().copied().map(figure).collect();
        format!("{} s in {ENDS} tries; no request failed", each.join(", "))
    };
    let most = |seconds: &[f64]| seconds.iter().copied().fold(0.0, f64::max);
    Ok(vec![
        at_most(
            "kill -9 of the active instance to the first grant at another".to_owned(),
            LEASE + 1.5,
            " s",
            most(&killed),
            all(&killed),
        ),
        at_most(
            "rolling restart: longest time without a grant".to_owned(),
            0.1,
            " s",
            most(&stopped),
            all(&stopped),
        ),
    ])
}

async fn prepare(server: &Server) -> io::Result<()> {
    create(&mut Connection::open(&server.address).await?, "ended").await
}

async fn first_grant(server: &Server) -> io::Result<f64> {
    let begun = Instant::now();
    grant(&mut Connection::open(&server.address).await?).await?;
    Ok(begun.elapsed().as_secs_f64())
}

async fn grant(c: &mut Connection) -> io::Result<()> {
    let paths = Paths::of("ended");
    let (ticket, _) = lock(c, &paths.lock).await?;
    unlock(c, &paths.unlock, &ticket).await
}

/// Between two grants at this one while the active one ends in order, and for a second more.
fn longest_pause(active: Server, front: &Server) -> Result<f64> {
    let ending = std::thread::spawn(move || active.stop());
    let pause = block_on(async {
        let mut c = Connection::open(&front.address).await?;
        let (mut longest, mut last) = (Duration::ZERO, Instant::now());
        let mut until = None;
        while until.is_none_or(|until| Instant::now() < until) {
            grant(&mut c).await?;
            longest = longest.max(last.elapsed());
            last = Instant::now();
            if until.is_none() && ending.is_finished() {
                until = Some(last + Duration::from_secs(1));
            }
        }
        Ok(longest.as_secs_f64())
    })?;
    ending.join().map_err(|_| "it could not be stopped")??;
    Ok(pause)
}
