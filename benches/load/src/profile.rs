//! One load on one server, with a profiler beside it: what scripts/profile does.

use std::process::Command;
use std::time::Duration;

use crate::process::{Bench, Result, Server, Store, cpu_seconds_of};
use crate::throughput::{self, Load};

const STORES: [(&str, Store); 3] = [
    ("memory", Store::Memory),
    ("sqlite", Store::Sqlite),
    ("mysql", Store::Mysql),
];

const LOADS: [(&str, Load); 6] = [
    ("health", Load::Health),
    ("read", Load::Read),
    ("lock", Load::LockUnlock),
    ("ephemeral", Load::Ephemeral),
    ("cycle", Load::Cycle),
    ("short-cycle", Load::ShortCycle),
];

fn pick<T: Copy>(what: &str, known: &[(&str, T)], name: &str) -> Result<T> {
    let found = known.iter().find(|(known, _)| *known == name);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
        format!("no {what} is called {name}; there are {}", names.join(", "))
    })
}

/// Runs the load for so many seconds and prints what it came to. `BENCH_PERF`: the file that `perf` writes
/// its samples of the server to meanwhile.
pub fn run(bench: &Bench, store: &str, load: &str, seconds: &str) -> Result<()> {
    let store = pick("store", &STORES, store)?;
    let load = pick("load", &LOADS, load)?;
    let seconds: f64 = seconds.parse().map_err(|_| "SECONDS is not a number")?;
    let server = bench.start(store, "profile")?;
    throughput::prepare(&server)?;
    let perf = match std::env::var("BENCH_PERF") {
        Ok(file) if !file.is_empty() => Some(record(&server, &file, seconds)?),
        _ => None,
    };
    let before = spent(&server);
    let sample = throughput::run(&server, load, Duration::from_secs_f64(seconds))?;
    let after = spent(&server);
    if let Some(mut perf) = perf {
        perf.wait().map_err(|e| format!("perf: {e}"))?;
    }
    println!(
        "{:.0} per second, server CPU {:.1} µs each, load generator {:.2} cores",
        sample.per_second, sample.server_us, sample.generator_cores
    );
    println!("for each request, by thread: CPU in µs, context switches");
    // The threads worked during the warm-up, too.
    let requests = sample.per_second * (seconds + throughput::WARM_UP.as_secs_f64());
    for (thread, after) in after {
        let earlier = before.iter().find(|(t, _)| *t == thread);
        let before = earlier.map_or(Spent::default(), |(_, before)| *before);
        println!(
            "{:8.2} {:8.3}  {thread}",
            (after.cpu_seconds - before.cpu_seconds) * 1e6 / requests,
            (after.switches - before.switches) / requests
        );
    }
    Ok(())
}

/// What a thread has used since it was started.
#[derive(Clone, Copy, Default)]
struct Spent {
    cpu_seconds: f64,
    /// How often it has given up its processor.
    switches: f64,
}

/// Of each thread of the server, named by its id and name.
fn spent(server: &Server) -> Vec<(String, Spent)> {
    let folder = format!("/proc/{}/task", server.pid());
    let threads = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let read = |thread: std::fs::DirEntry| {
        let read = |file| std::fs::read_to_string(thread.path().join(file)).ok();
        let (name, status) = (read("comm")?, read("status")?);
        let lines = status.lines().filter(|line| line.contains("ctxt_switches"));
        let counts = lines.filter_map(|line| line.rsplit('\t').next()?.parse::<f64>().ok());
        let spent = Spent {
            cpu_seconds: cpu_seconds_of(&read("stat")?),
            switches: counts.sum(),
        };
        let id = thread.file_name().to_string_lossy().into_owned();
        Some((format!("{id} {}", name.trim()), spent))
    };
    threads.filter_map(read).collect()
}

fn record(server: &Server, file: &str, seconds: f64) -> Result<std::process::Child> {
    Command::new("perf")
        .args([
            "record",
            "--quiet",
            "--event",
            "cpu-clock",
            "--freq",
            "4999",
        ])
        .args(["--call-graph", "fp", "--output", file])
        .args(["--pid", &server.pid().to_string()])
        .args(["--", "sleep", &seconds.to_string()])
        .spawn()
        .map_err(|e| format!("perf: {e}"))
}
