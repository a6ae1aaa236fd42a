//! What is measured, in which order, and the rows that come of it.

use std::path::PathBuf;
use std::time::Duration;

use crate::commits::{file_commit_seconds, mysql_commit_seconds};
use crate::handoff::{self, Chain, percentile};
use crate::process::{Bench, Result, Server, Store};
use crate::readers;
use crate::report::{Figure, Goal, Row, figure};
use crate::scale::{self, RELEASED_BYTES_MAX};
use crate::throughput::{self, CONNECTIONS, Load, Sample};

/// How much of everything.
pub struct Plan {
    pub seconds: f64,
    pub rounds: usize,
    pub resources: usize,
    /// Held leases, and open waits, of the idle server.
    pub idle: usize,
    pub etcd: Option<PathBuf>,
    pub redis: Option<PathBuf>,
}

impl Plan {
    pub fn run(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    percentile(&values, 50.0)
}

/// One load on one server, run once in every round.
struct Subject<'a> {
    what: &'static str,
    server: &'a Server,
    load: Load,
    /// Stuck readers of events beside it.
    readers: usize,
    samples: Vec<Sample>,
}

impl Subject<'_> {
    fn run(&self, plan: &Plan) -> Result<Sample> {
        let readers = readers::attach(self.server, self.readers)?;
        if self.readers > 0 {
            // Until they are stuck they take what fits into their kernel: that is not what is asked here.
            let mut before = None;
            while before != Some(readers.piled_up()?) {
                before = Some(readers.piled_up()?);
                throughput::run(self.server, self.load, plan.run())?;
            }
        }
        throughput::run(self.server, self.load, plan.run())
    }

    fn median(&self, value: impl Fn(&Sample) -> f64) -> f64 {
        median(self.samples.iter().map(value).collect())
    }

    fn figure(&self) -> Figure {
        Figure {
            what: self.what,
            per_second: self.median(|s| s.per_second),
            server_us: self.median(|s| s.server_us),
            generator_cores: self.median(|s| s.generator_cores),
        }
    }

    /// The median of the ratios of the runs of one round: what disturbs the machine disturbs both.
    fn ratio(&self, other: &Subject<'_>, value: impl Fn(&Sample) -> f64) -> f64 {
        let pairs = self.samples.iter().zip(&other.samples);
        median(
            pairs
                .map(|(mine, other)| value(mine) / value(other))
                .collect(),
        )
    }
}

pub const NO_MYSQL: &str = "no MariaDB or MySQL could be had";
const NO_ETCD: &str = "no etcd could be had";
const NO_REDIS: &str = "no Redis could be had";
const NO_EARLIER: &str = "BENCH_EARLIER names no earlier version";

/// Readers of events that take nothing.
const READERS: usize = 1000;

/// The servers of the throughput rows, which all run at once; only the one under load does anything.
struct Field {
    memory: Server,
    sqlite: Server,
    mysql: Option<Server>,
    etcd: Option<Server>,
    redis: Option<Server>,
    /// Of an earlier version.
    earlier: Option<Server>,
    earlier_mysql: Option<Server>,
}

impl Field {
    fn start(bench: &Bench, plan: &Plan) -> Result<Field> {
        let field = Field {
            memory: bench.start(Store::Memory, "memory")?,
            sqlite: bench.start(Store::Sqlite, "sqlite")?,
            mysql: match bench.mysql {
                Some(_) => Some(bench.start(Store::Mysql, "mysql")?),
                None => None,
            },
            etcd: plan
                .etcd
                .as_deref()
                .map(|b| bench.start_etcd(b))
                .transpose()?,
            redis: plan
                .redis
                .as_deref()
                .map(|b| bench.start_redis(b))
                .transpose()?,
            earlier: bench.start_earlier(Store::Memory)?,
            earlier_mysql: match bench.mysql {
                Some(_) => bench.start_earlier(Store::Mysql)?,
                None => None,
            },
        };
        let ours = [
            Some(&field.memory),
            Some(&field.sqlite),
            field.mysql.as_ref(),
            field.earlier.as_ref(),
            field.earlier_mysql.as_ref(),
        ];
        for server in ours.into_iter().flatten() {
            throughput::prepare(server)?;
        }
        Ok(field)
    }

    fn subjects(&self) -> Vec<Subject<'_>> {
        let memory = Some(&self.memory);
        let listed = [
            ("bare handler, before locks", memory, Load::Health),
            ("lock + unlock, memory", memory, Load::LockUnlock),
            (BESIDE_READERS, memory, Load::LockUnlock),
            (
                "lock + unlock, memory, earlier version",
                self.earlier.as_ref(),
                Load::LockUnlock,
            ),
            ("bare handler, before reads", memory, Load::Health),
            ("read `lock=0`", memory, Load::Read),
            ("bare handler, before SQLite", memory, Load::Health),
            (
                "lock + unlock, SQLite",
                Some(&self.sqlite),
                Load::LockUnlock,
            ),
            (
                "ephemeral lock + unlock, SQLite",
                Some(&self.sqlite),
                Load::Ephemeral,
            ),
            (
                "lock + unlock, MySQL",
                self.mysql.as_ref(),
                Load::LockUnlock,
            ),
            (
                "lock + unlock, MySQL, earlier version",
                self.earlier_mysql.as_ref(),
                Load::LockUnlock,
            ),
            (
                "ephemeral lock + unlock, MySQL",
                self.mysql.as_ref(),
                Load::Ephemeral,
            ),
            ("lock + unlock, etcd", self.etcd.as_ref(), Load::Etcd),
            (
                "`SET NX PX` + `DEL`, Redis",
                self.redis.as_ref(),
                Load::Redis,
            ),
            ("cycle with 4 KiB, MySQL", self.mysql.as_ref(), Load::Cycle),
            (
                "the same with `?unlock=1`",
                self.mysql.as_ref(),
                Load::ShortCycle,
            ),
        ];
        let subject = |(what, server, load): (_, Option<_>, _)| {
            Some(Subject {
                what,
                server: server?,
                load,
                readers: if what == BESIDE_READERS { READERS } else { 0 },
                samples: Vec::new(),
            })
        };
        listed.into_iter().filter_map(subject).collect()
    }
}

/// Rows of requests per second: all loads in turns, several rounds.
pub fn throughput(bench: &Bench, plan: &Plan) -> Result<(Vec<Row>, Vec<Figure>)> {
    let field = Field::start(bench, plan)?;
    let mut subjects = field.subjects();
    let mut commits = Vec::new();
    for round in 0..plan.rounds {
        for subject in &mut subjects {
            let sample = subject.run(plan)?;
            eprintln!(
                "{} of {}: {:42} {:>8}/s, server {:>6} µs each, load generator {:.2} cores",
                round + 1,
                plan.rounds,
                subject.what,
                figure(sample.per_second),
                figure(sample.server_us),
                sample.generator_cores
            );
            subject.samples.push(sample);
        }
        if let Some(mysql) = &bench.mysql {
            commits.push(mysql_commit_seconds(mysql)?);
        }
    }
    let find = |what: &str| subjects.iter().find(|s| s.what == what);
    let mut rows = bare_rows(&find);
    rows.extend(own_rows(&find));
    rows.extend(peer_rows(&find));
    rows.push(cycle_row(&find, median(commits)));
    Ok((rows, subjects.iter().map(Subject::figure).collect()))
}

/// `this` against `that`, in requests per second.
fn ratio_row(
    what: &str,
    this: std::result::Result<&Subject<'_>, &str>,
    that: std::result::Result<&Subject<'_>, &str>,
    target: f64,
) -> Row {
    let both = this.and_then(|this| that.map(|that| (this, that)));
    let measured = both.map(|(this, that)| this.ratio(that, |s| s.per_second));
    let detail = both.map_or(String::new(), |(this, that)| {
        format!(
            "{} against {} requests/s; server CPU {} against {} µs",
            figure(this.median(|s| s.per_second)),
            figure(that.median(|s| s.per_second)),
            figure(this.median(|s| s.server_us)),
            figure(that.median(|s| s.server_us)),
        )
    });
    Row {
        what: what.to_owned(),
        goal: Goal::AtLeast,
        target,
        unit: " ×",
        measured: measured.map_err(str::to_owned),
        detail,
    }
}

type Find<'a, 'b> = dyn Fn(&str) -> Option<&'a Subject<'b>> + 'a;

fn bare_rows(find: &Find<'_, '_>) -> Vec<Row> {
    let listed = [
        ("lock + unlock, memory", "bare handler, before locks", 0.80),
        ("read `lock=0`", "bare handler, before reads", 0.80),
        ("lock + unlock, SQLite", "bare handler, before SQLite", 0.50),
    ];
    let row = |(this, bare, target)| {
        let (one, other) = (find(this).ok_or("-"), find(bare).ok_or("-"));
        ratio_row(&format!("{this}, of the bare handler"), one, other, target)
    };
    listed.map(row).into()
}

const BESIDE_READERS: &str = "lock + unlock, memory, 1,000 stuck readers";

/// The server against itself: with an earlier version, with readers of events beside it, and what a name costs
/// that is made for each lock.
fn own_rows(find: &Find<'_, '_>) -> Vec<Row> {
    let memory = || find("lock + unlock, memory").ok_or("-");
    let earlier = find("lock + unlock, memory, earlier version").ok_or(NO_EARLIER);
    let of_existing = |store: &str, missing| {
        let ephemeral = find(&format!("ephemeral lock + unlock, {store}")).ok_or(missing);
        let existing = find(&format!("lock + unlock, {store}")).ok_or(missing);
        let what = format!("lock + unlock of a name made on the fly, of an existing one, {store}");
        ratio_row(&what, ephemeral, existing, 0.5)
    };
    let what = "exclusive lock + unlock, memory, of the earlier version";
    vec![
        ratio_row(what, memory(), earlier, 0.98),
        ratio_row(
            "lock + unlock, one instance on MySQL, of the earlier version",
            find("lock + unlock, MySQL").ok_or(NO_MYSQL),
            find("lock + unlock, MySQL, earlier version").ok_or(NO_EARLIER),
            0.97,
        ),
        ratio_row(
            "lock + unlock, memory, beside 1,000 stuck readers of events, of without",
            find(BESIDE_READERS).ok_or("-"),
            memory(),
            0.95,
        ),
        of_existing("SQLite", "-"),
        of_existing("MySQL", NO_MYSQL),
    ]
}

fn peer_rows(find: &Find<'_, '_>) -> Vec<Row> {
    let mysql = find("lock + unlock, MySQL").ok_or(NO_MYSQL);
    let etcd = find("lock + unlock, etcd").ok_or(NO_ETCD);
    let redis = find("`SET NX PX` + `DEL`, Redis").ok_or(NO_REDIS);
    let mut of_redis = ratio_row("lock + unlock, MySQL, of Redis", mysql, redis, 1.0);
    let memory = find("lock + unlock, memory");
    if let (Ok(mysql), Ok(redis), Some(memory)) = (mysql, redis, memory) {
        of_redis
            .detail
            .push_str(&redis_budget(mysql, redis, memory));
    }
    vec![
        ratio_row("lock + unlock, MySQL, of etcd", mysql, etcd, 3.0),
        of_redis,
    ]
}

/// What there would be to spend at the rate of Redis, and what two parts of a lock in MySQL take of it.
fn redis_budget(mysql: &Subject<'_>, redis: &Subject<'_>, memory: &Subject<'_>) -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let generator = |s: &Sample| s.generator_cores * 1e6 / s.per_second;
    format!(
        "; {cores} cores have {} µs for each of Redis' requests: of that a lock without a store takes {} µs with \
         the load generator, and MySQL itself {} µs",
        figure(cores as f64 * 1e6 / redis.median(|s| s.per_second)),
        figure(memory.median(|s| s.server_us + generator(s))),
        figure(mysql.median(|s| s.database_us)),
    )
}

fn cycle_row(find: &Find<'_, '_>, commit_seconds: f64) -> Row {
    let cycle = find("cycle with 4 KiB, MySQL");
    let short = find("the same with `?unlock=1`");
    let rate = |subject: &Subject<'_>| subject.median(|s| s.per_second);
    let detail = cycle.map_or(String::new(), |cycle| {
        let commits = 1.0 / commit_seconds;
        format!(
            "{:.1} cycles for each of the {} commits/s that the database makes for one client (three commits \
             in a row: at most {:.1} with {CONNECTIONS} clients); {} cycles/s with `?unlock=1`",
            rate(cycle) / commits,
            figure(commits),
            CONNECTIONS as f64 / 3.0,
            figure(short.map_or(0.0, rate)),
        )
    });
    Row {
        what: "lock, write 4 KiB, unlock, MySQL".to_owned(),
        goal: Goal::AtLeast,
        target: 5000.0,
        unit: " cycles/s",
        measured: cycle.map(rate).ok_or(NO_MYSQL.to_owned()),
        detail,
    }
}

// ---- hand-offs ------------------------------------------------------------------------------------

/// One commit of a store on this machine, in seconds; none for the memory store.
fn commit_seconds(bench: &Bench, store: Store) -> Result<f64> {
    match (store, &bench.mysql) {
        (Store::Memory, _) => Ok(0.0),
        (Store::Sqlite, _) => file_commit_seconds(&bench.folder),
        (Store::Mysql, Some(mysql)) => mysql_commit_seconds(mysql),
        (Store::Mysql, None) => Err(NO_MYSQL.to_owned()),
    }
}

fn stores(bench: &Bench) -> Vec<Store> {
    let mut stores = vec![Store::Memory, Store::Sqlite];
    if bench.mysql.is_some() {
        stores.push(Store::Mysql);
    }
    stores
}

/// The latency of hand-offs with 100 waiters, and their cost with 10 and with 10,000, for each store.
pub fn hand_offs(bench: &Bench, plan: &Plan) -> Result<Vec<Row>> {
    let mut latency = Vec::new();
    let mut cost = Vec::new();
    for store in stores(bench) {
        let server = bench.start(store, &format!("queue_{}", store.name().to_lowercase()))?;
        latency.extend(latency_rows(bench, plan, store, &server)?);
        cost.push(queue_row(plan, store, &server)?);
    }
    latency.extend(cost);
    Ok(latency)
}

fn latency_rows(bench: &Bench, plan: &Plan, store: Store, server: &Server) -> Result<[Row; 2]> {
    let mut runs = Vec::new();
    let mut commits = Vec::new();
    for round in 0..plan.rounds {
        commits.push(commit_seconds(bench, store)?);
        runs.push(handoff::run(
            server,
            &format!("near{round}"),
            100,
            plan.run(),
        )?);
    }
    let commit_ms = median(commits) * 1e3;
    let ms = |percent: f64, values: fn(&Chain) -> &Vec<f64>| {
        let each = runs.iter().map(|run| percentile(values(run), percent));
        median(each.collect()) * 1e3
    };
    let row = |name: &str, percent: f64, extra: f64| Row {
        what: format!("hand-off {name}, {}, 100 waiters", store.name()),
        goal: Goal::AtMost,
        target: commit_ms + extra,
        unit: " ms",
        measured: Ok(ms(percent, |chain| &chain.after_answer)),
        detail: format!(
            "one commit here: {} ms; from the sending of the unlock: {} ms",
            figure(commit_ms),
            figure(ms(percent, |chain| &chain.after_sending))
        ),
    };
    let late = if store == Store::Memory { 1.0 } else { 5.0 };
    let rows = [row("p50", 50.0, 1.0), row("p99", 99.0, late)];
    for row in &rows {
        eprintln!("{}: {} ({})", row.what, row.measured_text(), row.detail);
    }
    Ok(rows)
}

fn queue_row(plan: &Plan, store: Store, server: &Server) -> Result<Row> {
    const LONG: usize = 10_000;
    let (mut short, mut long) = (Vec::new(), Vec::new());
    for round in 0..plan.rounds.min(3) {
        short.push(handoff::run(
            server,
            &format!("short{round}"),
            10,
            plan.run(),
        )?);
        long.push(handoff::run(
            server,
            &format!("long{round}"),
            LONG,
            plan.run(),
        )?);
    }
    let ratio = |value: fn(&Chain) -> f64| {
        let pairs = long.iter().zip(&short);
        median(
            pairs
                .map(|(long, short)| value(long) / value(short))
                .collect(),
        )
    };
    let us = |chains: &[Chain], value: fn(&Chain) -> f64| {
        figure(median(chains.iter().map(value).collect()) * 1e6)
    };
    // A client releases as soon as it is granted.
    let period = |chain: &Chain| percentile(&chain.after_sending, 50.0);
    let row = Row {
        what: format!("CPU of a hand-off, 10,000 waiters to 10, {}", store.name()),
        goal: Goal::AtMost,
        target: 1.5,
        unit: " ×",
        measured: Ok(ratio(|chain| chain.each_cpu_seconds)),
        detail: format!(
            "server CPU {} against {} µs; from grant to grant, load generator included, {} against {} µs (p50)",
            us(&long, |chain| chain.each_cpu_seconds),
            us(&short, |chain| chain.each_cpu_seconds),
            us(&long, period),
            us(&short, period),
        ),
    };
    eprintln!("{}: {} ({})", row.what, row.measured_text(), row.detail);
    Ok(row)
}

// ---- many at once ---------------------------------------------------------------------------------

pub fn at_most(
    what: String,
    target: f64,
    unit: &'static str,
    measured: f64,
    detail: String,
) -> Row {
    let row = Row {
        what,
        goal: Goal::AtMost,
        target,
        unit,
        measured: Ok(measured),
        detail,
    };
    eprintln!("{}: {} ({})", row.what, row.measured_text(), row.detail);
    row
}

pub fn held(bench: &Bench, plan: &Plan) -> Result<Vec<Row>> {
    let held = scale::hold(bench, plan.resources)?;
    let resources = figure(held.resources as f64);
    let mb = |bytes: u64| bytes as f64 / 1e6;
    Ok(vec![
        at_most(
            format!("memory of each of {resources} held resources at rest"),
            1200.0,
            " bytes",
            held.bytes_each,
            format!(
                "{} MB in all, SQLite, {} s after the last grant, {} resources with an actor still; at most \
                 {} MB while they were taken",
                figure(mb(held.rest_bytes)),
                figure(held.rest_seconds),
                held.live_at_rest,
                figure(mb(held.peak_bytes))
            ),
        ),
        at_most(
            "memory after their release and retirement".to_owned(),
            mb(RELEASED_BYTES_MAX),
            " MB",
            mb(held.bytes_after_release),
            format!(
                "{} s after the last release, {} resources still in memory",
                figure(held.retired_seconds),
                held.live_after_release
            ),
        ),
        at_most(
            format!("start with {resources} resources, later than with none"),
            1.0,
            " s",
            (held.start_full_seconds - held.start_empty_seconds).max(0.0),
            format!(
                "ready after {} s, with none after {} s",
                figure(held.start_full_seconds),
                figure(held.start_empty_seconds)
            ),
        ),
    ])
}

pub fn idle(bench: &Bench, plan: &Plan) -> Result<Vec<Row>> {
    let seconds = 10;
    let percent = scale::idle_percent(bench, plan.idle, Duration::from_secs(seconds))?;
    let count = figure(plan.idle as f64);
    Ok(vec![at_most(
        format!("CPU with {count} held leases and as many open waits"),
        1.0,
        " % of a core",
        percent,
        format!("over {seconds} s, SQLite"),
    )])
}
