//! One load on one server, with a profiler beside it: what scripts/profile does.

use std::process::Command;
use std::time::Duration;

use crate::process::{Bench, Result, Server, Store};
use crate::throughput::{self, Load};

const STORES: [(&str, Store); 3] = [
    ("memory", Store::Memory),
    ("sqlite", Store::Sqlite),
    ("mysql", Store::Mysql),
];

const LOADS: [(&str, Load); 5] = [
    ("health", Load::Health),
    ("read", Load::Read),
    ("lock", Load::LockUnlock),
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
    throughput::run(&server, load, Duration::from_millis(500))?;
    let perf = match std::env::var("BENCH_PERF") {
        Ok(file) if !file.is_empty() => Some(record(&server, &file, seconds)?),
        _ => None,
    };
    let before = switches(&server);
    let sample = throughput::run(&server, load, Duration::from_secs_f64(seconds))?;
    let after = switches(&server);
    if let Some(mut perf) = perf {
        perf.wait().map_err(|e| format!("perf: {e}"))?;
    }
    println!(
        "{:.0} per second, server CPU {:.1} µs each, load generator {:.2} cores",
        sample.per_second, sample.server_us, sample.generator_cores
    );
    println!("context switches for each request, by thread:");
    let requests = sample.per_second * seconds;
    for (thread, count) in after {
        let earlier = before.iter().find(|(t, _)| *t == thread);
        let made = count - earlier.map_or(0.0, |(_, count)| *count);
        println!("{:8.3}  {thread}", made / requests);
    }
    Ok(())
}

/// How often each thread of the server has given up its processor, named by its id and name.
fn switches(server: &Server) -> Vec<(String, f64)> {
    let folder = format!("/proc/{}/task", server.pid());
    let threads = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let read = |thread: std::fs::DirEntry| {
        let read = |file| std::fs::read_to_string(thread.path().join(file)).ok();
        let (name, status) = (read("comm")?, read("status")?);
        let lines = status.lines().filter(|line| line.contains("ctxt_switches"));
        let counts = lines.filter_map(|line| line.rsplit('\t').next()?.parse::<f64>().ok());
        let id = thread.file_name().to_string_lossy().into_owned();
        Some((format!("{id} {}", name.trim()), counts.sum()))
    };
    threads.filter_map(read).collect()
}

fn record(server: &Server, file: &str, seconds: f64) -> Result<std::process::Child> {
    Command::new("perf")
        .args(["record", "--quiet", "--event", "cpu-clock", "--freq", "4999"])
        .args(["--call-graph", "fp", "--output", file])
        .args(["--pid", &server.pid().to_string()])
        .args(["--", "sleep", &seconds.to_string()])
        .spawn()
        .map_err(|e| format!("perf: {e}"))
}
