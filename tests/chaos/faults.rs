//! What is done to servers and their database, and the record of it.

use std::time::Duration;

use crate::client::Stage;
use crate::history::{Micros, Outage};
use crate::plan::Random;
use crate::support::{Program, Proxy, State, until};
use crate::wire::Wire;

/// The servers of a run. With a database, one instance's links at the same place.
pub struct Cluster {
    pub instances: Vec<Program>,
    pub links: Vec<Links>,
    /// When no instance was left.
    pub deaths: Vec<Micros>,
}

/// What lies between an instance and the rest of the world.
pub struct Links {
    pub database: Proxy,
    /// Between the other instances and it.
    pub peers: Proxy,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// `kill -9` of an instance, then a new start.
    Kill,
    /// SIGTERM, then a new start.
    Stop,
    /// SIGSTOP for longer than leases and instance lease last.
    Pause,
    /// SIGTERM and a new start of each instance in turn.
    Rolling,
    /// No other instance reaches one of them.
    PeersCut,
    /// What others send to one of them, or what it answers, stays on the way.
    PeersHeldBack,
    /// One of them loses its database.
    CutOff,
    /// The bytes that one of them sends to its database stay on the way for longer than its lease, and arrive then.
    HoldBack,
    /// Every connection to the database is cut, and it cannot be reached for a while.
    DatabaseDown,
    /// The database accepts and never answers.
    DatabaseHung,
    /// Connections are cut, once.
    DatabaseRestarted,
    /// Every message to and from the database takes its time.
    DatabaseSlow,
}

const OF_PROCESSES: &[Fault] = &[Fault::Kill, Fault::Pause, Fault::Stop];

const OF_SEVERAL: &[Fault] = &[
    Fault::Rolling,
    Fault::PeersCut,
    Fault::PeersHeldBack,
    Fault::CutOff,
    Fault::HoldBack,
    Fault::DatabaseDown,
    Fault::DatabaseHung,
    Fault::DatabaseRestarted,
    Fault::DatabaseSlow,
];

impl Fault {
    pub fn name(self) -> &'static str {
        match self {
            Fault::Kill => "kill -9",
            Fault::Stop => "SIGTERM",
            Fault::Pause => "SIGSTOP",
            Fault::Rolling => "rolling restart",
            Fault::PeersCut => "link between instances cut",
            Fault::PeersHeldBack => "link between instances held up",
            Fault::CutOff => "cut off from the database",
            Fault::HoldBack => "bytes to the database held back",
            Fault::DatabaseDown => "database down",
            Fault::DatabaseHung => "database hung",
            Fault::DatabaseRestarted => "database connections cut",
            Fault::DatabaseSlow => "database slow",
        }
    }
}

impl Cluster {
    pub fn new(instances: Vec<Program>, links: Vec<Links>) -> Cluster {
        let deaths = Vec::new();
        Cluster {
            instances,
            links,
            deaths,
        }
    }

    /// Until clients can begin.
    pub fn open(&mut self, stage: &Stage) {
        self.publish(stage);
        self.until_one_serves();
    }

    /// Tells the clients where the instances listen.
    fn publish(&mut self, stage: &Stage) {
        let running = self.instances.iter_mut().filter_map(|instance| {
            let is_running = instance.is_running();
            is_running.then_some(instance.address())
        });
        *stage.instances.write().unwrap() = running.collect();
    }

    /// Ends every instance with SIGKILL and starts them again.
    pub fn die_and_start(&mut self, stage: &Stage) {
        for instance in &mut self.instances {
            instance.kill();
        }
        self.deaths.push(stage.now());
        self.instances.iter_mut().for_each(Program::launch_again);
        self.open(stage);
    }

    fn until_one_serves(&mut self) {
        until("an instance serves", || {
            self.instances.iter_mut().any(serves)
        });
    }

    /// One that serves, if any does.
    fn victim(&mut self, random: &mut Random) -> usize {
        let mut all: Vec<usize> = (0..self.instances.len()).collect();
        random.shuffle(&mut all);
        let serving = all.iter().find(|one| serves(&mut self.instances[**one]));
        *serving.unwrap_or(&all[0])
    }

    /// Requests that were passed on since the instances started.
    pub fn passed_on(&mut self) -> u64 {
        let counts = self.instances.iter_mut().map(|instance| {
            let text = numbers(instance).unwrap_or_default();
            let name = "resource_server_forwarded_requests_total ";
            let count = text.lines().find_map(|line| line.strip_prefix(name));
            count.map_or(0, |count| count.parse().expect("a count"))
        });
        counts.sum()
    }

    /// Faults of every kind in an order of chance, again and again, with calm in between, until the run is
    /// over.
    pub fn suffer(&mut self, stage: &Stage, random: &mut Random, time: Duration) -> Vec<Outage> {
        let mut outages = Vec::new();
        let mut kinds = OF_PROCESSES.to_vec();
        if !self.links.is_empty() {
            kinds.extend_from_slice(OF_SEVERAL);
        }
        loop {
            random.shuffle(&mut kinds);
            for fault in &kinds {
                std::thread::sleep(random.millis(150, 1000));
                if stage.start.elapsed() > time {
                    return outages;
                }
                let from = stage.now();
                match fault {
                    Fault::Kill | Fault::Stop | Fault::Pause => {
                        let victim = self.victim(random);
                        self.hit(*fault, victim, stage, random);
                    }
                    Fault::Rolling => {
                        for instance in 0..self.instances.len() {
                            self.hit(Fault::Stop, instance, stage, random);
                            self.until_one_serves();
                        }
                    }
                    _ => self.disturb(*fault, random),
                }
                self.until_one_serves();
                let until = stage.now();
                outages.push(Outage {
                    kind: fault.name(),
                    from,
                    until,
                });
            }
        }
    }

    /// One process.
    fn hit(&mut self, fault: Fault, victim: usize, stage: &Stage, random: &mut Random) {
        match fault {
            Fault::Pause => {
                self.instances[victim].pause();
                std::thread::sleep(random.millis(1100, 2400));
                return self.instances[victim].resume();
            }
            Fault::Kill => self.instances[victim].kill(),
            _ => self.instances[victim].stop(),
        }
        if self.instances.len() == 1 {
            self.deaths.push(stage.now());
        } else if random.percent(50) {
            self.publish(stage);
            self.until_one_serves();
        }
        self.instances[victim].launch_again();
        self.publish(stage);
    }

    /// What connects processes.
    fn disturb(&mut self, fault: Fault, random: &mut Random) {
        let victim = self.victim(random);
        let while_away = random.millis(1100, 2400);
        let (one, all) = (&self.links[victim..=victim], &self.links[..]);
        match fault {
            Fault::PeersCut => {
                self.links[victim].peers.set(State::Down);
                std::thread::sleep(while_away);
                self.links[victim].peers.set(State::Up);
            }
            Fault::PeersHeldBack => {
                let hold: fn(&Proxy, bool) = match random.percent(50) {
                    true => Proxy::hold_requests,
                    false => Proxy::hold_answers,
                };
                hold(&self.links[victim].peers, true);
                std::thread::sleep(while_away);
                hold(&self.links[victim].peers, false);
            }
            Fault::CutOff => set(one, State::Down, while_away),
            Fault::HoldBack => set(one, State::Hung, while_away),
            Fault::DatabaseDown => set(all, State::Down, while_away),
            Fault::DatabaseHung => set(all, State::Hung, while_away),
            Fault::DatabaseRestarted => set(all, State::Down, Duration::from_millis(1)),
            _ => set(all, State::Slow(random.millis(5, 60)), while_away),
        }
    }
}

/// The way to the database, for a while.
fn set(links: &[Links], state: State, time: Duration) {
    for link in links {
        link.database.set(state);
    }
    std::thread::sleep(time);
    for link in links {
        link.database.set(State::Up);
    }
}

/// What it says of itself within a moment: it may be paused, or gone.
fn numbers(instance: &mut Program) -> Option<String> {
    if !instance.is_running() {
        return None;
    }
    let ask = instance.call("GET", "/metrics").bytes();
    let limit = Duration::from_secs(1);
    let answer = Wire::default().exchange(instance.address(), &ask, limit, None);
    Some(answer.ok()?.text().to_owned())
}

fn serves(instance: &mut Program) -> bool {
    let text = numbers(instance).unwrap_or_default();
    text.lines().any(|line| line == "resource_server_active 1")
}

/// Lines of its log that should never be there.
pub fn complaints(instance: &Program) -> Vec<String> {
    let mut lines = instance.lines();
    lines.retain(|line| line.contains("panicked") || line.contains("invariant"));
    lines
}
