//! The measuring side of `make bench`: starts servers, loads them, writes the table.
//!
//! | file | what it holds |
//! |---|---|
//! | `rows` | what is measured, in which order, and the rows that come of it |
//! | `throughput` | requests per second |
//! | `handoff` | from one holder to the next |
//! | `readers` | readers of events that take nothing |
//! | `several` | one, two and three instances on one database |
//! | `scale` | many resources, leases and waits |
//! | `commits` | what a commit costs without a lock server |
//! | `client`, `peers` | connections to us, to etcd and to Redis |
//! | `process` | servers as processes |
//! | `profile` | one load on one server, with a profiler beside it |
//! | `machine` | what it was measured on |
//! | `report`, `svg` | the table as text, JSON and plot |
//!
//! scripts/bench and scripts/profile start it and say which variables there are.

#![forbid(unsafe_code)]

mod client;
mod commits;
mod handoff;
mod machine;
mod peers;
mod process;
mod profile;
mod readers;
mod report;
mod rows;
mod scale;
mod several;
mod svg;
mod throughput;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;

use process::{Bench, Mysql, Result};
use report::Report;
use rows::Plan;

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn number<T: FromStr>(name: &str, default: T) -> Result<T> {
    match variable(name) {
        None => Ok(default),
        Some(text) => text
            .parse()
            .map_err(|_| format!("{name}={text} is not a number")),
    }
}

fn plan() -> Result<Plan> {
    let resources = if variable("BENCH_FULL").is_some() {
        1_000_000
    } else {
        200_000
    };
    Ok(Plan {
        seconds: number("BENCH_SECONDS", 2.0)?,
        rounds: number("BENCH_ROUNDS", 5)?,
        resources: number("BENCH_RESOURCES", resources)?,
        idle: 10_000,
        etcd: variable("BENCH_ETCD").map(PathBuf::from),
        redis: variable("BENCH_REDIS").map(PathBuf::from),
    })
}

fn measure(bench: &Bench, plan: &Plan) -> Result<Report> {
    let only = variable("BENCH_ONLY");
    let wanted = |part: &str| {
        only.as_ref()
            .is_none_or(|only| only.split(',').any(|o| o == part))
    };
    let mut machine = machine::describe(bench, plan)?;
    let (mut rows, mut figures) = (Vec::new(), Vec::new());
    if wanted("throughput") {
        (rows, figures) = rows::throughput(bench, plan)?;
    }
    if wanted("handoff") {
        rows.extend(rows::hand_offs(bench, plan)?);
    }
    if wanted("held") {
        rows.extend(rows::held(bench, plan)?);
    }
    if wanted("idle") {
        rows.extend(rows::idle(bench, plan)?);
    }
    if wanted("several") {
        rows.extend(several::rows(bench, plan)?);
    }
    machine.push(("load average at the end", machine::load_average()));
    Ok(Report {
        rows,
        figures,
        machine,
    })
}

fn write(report: &Report, folder: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    std::fs::write(folder.join("results.md"), report.markdown())?;
    std::fs::write(folder.join("results.json"), report.json())?;
    std::fs::write(folder.join("results.svg"), svg::plot(&report.rows))
}

fn clear(bench: &Bench) -> Result<()> {
    bench.mysql.as_ref().map_or(Ok(()), commits::drop_databases)
}

fn run() -> Result<()> {
    let need = |name: &str| variable(name).ok_or(format!("{name} is not set; use scripts/bench"));
    let bench = Bench {
        binary: need("BENCH_SERVER")?.into(),
        folder: need("BENCH_FOLDER")?.into(),
        mysql: variable("TEST_MYSQL_URL").and_then(|url| Mysql::parse(&url)),
        earlier: variable("BENCH_EARLIER").map(PathBuf::from),
    };
    clear(&bench)?;
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [store, load, seconds] = &words[..] {
        profile::run(&bench, store, load, seconds)?;
        return clear(&bench);
    }
    let out = PathBuf::from(need("BENCH_OUT")?);
    let report = measure(&bench, &plan()?)?;
    clear(&bench)?;
    write(&report, &out).map_err(|e| format!("{}: {e}", out.display()))?;
    println!("{}", report.markdown());
    Ok(())
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::FAILURE
        }
    }
}
