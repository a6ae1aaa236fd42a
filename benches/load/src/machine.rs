//! What it was measured on and with.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::process::{Bench, Result};
use crate::rows::Plan;
use crate::throughput::{CONNECTIONS, NAMES};

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().trim().to_owned()
}

fn version(binary: &Path) -> String {
    let output = Command::new(binary).arg("--version").output();
    output.map_or("?".to_owned(), |output| {
        first_line(&String::from_utf8_lossy(&output.stdout))
    })
}

/// The value after `name :` in a file of `/proc`.
fn field(file: &str, name: &str) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(name));
    let value = line.and_then(|line| line.split_once(':'));
    value.map_or("?".to_owned(), |(_, value)| value.trim().to_owned())
}

pub fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

fn file_system(folder: &Path) -> String {
    let output = Command::new("df")
        .arg("--output=fstype")
        .arg(folder)
        .output();
    output.map_or("?".to_owned(), |output| {
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines().nth(1).unwrap_or("?").trim().to_owned()
    })
}

pub fn describe(bench: &Bench, plan: &Plan) -> Result<Vec<(&'static str, String)>> {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let mut known = vec![
        ("processor", field("/proc/cpuinfo", "model name")),
        (
            "cores",
            format!("{cores}, shared with the load generator and the peers"),
        ),
        ("memory", field("/proc/meminfo", "MemTotal")),
        (
            "kernel",
            first_line(&fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default()),
        ),
        ("file system of all data", file_system(&bench.folder)),
        ("load average at the start", load_average()),
        (
            "load",
            format!(
                "{CONNECTIONS} keep-alive connections, {NAMES} names, each used by one connection; medians \
                 of {} runs of {} s in turns, each after {} s of warm-up",
                plan.rounds,
                plan.seconds,
                crate::throughput::WARM_UP.as_secs_f64()
            ),
        ),
        ("this server", version(&bench.binary)),
        (
            "its settings",
            "as they come: one worker per core, SQLite with WAL and synchronous=FULL".to_owned(),
        ),
    ];
    if let Some(mysql) = &bench.mysql {
        let sql = "SELECT VERSION(), @@innodb_flush_log_at_trx_commit, @@log_bin";
        let values = mysql.query(sql)?;
        let mut values = values.trim().split('\t');
        let mut next = || values.next().unwrap_or("?").to_owned();
        let text = format!(
            "{}, innodb_flush_log_at_trx_commit={}, log_bin={}",
            next(),
            next(),
            next()
        );
        known.push(("MySQL", text));
    }
    if let Some(etcd) = &plan.etcd {
        let text = format!("{}, one member, default settings, fsync on", version(etcd));
        known.push(("etcd", text));
    }
    if let Some(redis) = &plan.redis {
        let text = format!(
            "{}, appendonly yes, appendfsync always, save off",
            version(redis)
        );
        known.push(("Redis", text));
    }
    Ok(known)
}
