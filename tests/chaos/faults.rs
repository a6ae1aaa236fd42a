//! What is done to servers and their database, and the record of it.

use std::time::Duration;

use crate::client::Stage;
use crate::history::{Micros, Outage};
use crate::plan::Random;
use crate::support::{Program, Proxy, State, until};
use crate::wire::Wire;

/// The servers of a run. With a database, one proxy for each instance before it.
pub struct Cluster {
    pub instances: Vec<Program>,
    pub proxies: Vec<Proxy>,
    /// When no instance was left.
    pub deaths: Vec<Micros>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// `kill -9` of the active instance, then a new start.
    Kill,
    /// SIGTERM, then a new start.
    Stop,
    /// SIGSTOP for longer than leases and instance lease last.
    Pause,
    /// The active instance loses its database.
    CutOff,
    /// The active instance's bytes stay on the way for longer than its lease, and arrive then.
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

const OF_DATABASES: &[Fault] = &[
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
    pub fn new(instances: Vec<Program>, proxies: Vec<Proxy>) -> Cluster {
        let deaths = Vec::new();
        Cluster {
            instances,
            proxies,
            deaths,
        }
    }

    /// Until clients can begin.
    pub fn open(&mut self, stage: &Stage) {
        self.publish(stage);
        self.until_ready();
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

    fn until_ready(&mut self) {
        until("an instance is ready", || {
            self.instances.iter_mut().any(is_ready)
        });
    }

    fn active(&mut self) -> usize {
        let ready = self.instances.iter_mut().position(is_ready);
        ready.unwrap_or(0)
    }

    /// Faults of every kind in an order of chance, again and again, with calm in between, until the run is
    /// over.
    pub fn suffer(&mut self, stage: &Stage, random: &mut Random, time: Duration) -> Vec<Outage> {
        let mut outages = Vec::new();
        let mut kinds = OF_PROCESSES.to_vec();
        if !self.proxies.is_empty() {
            kinds.extend_from_slice(OF_DATABASES);
        }
        loop {
            random.shuffle(&mut kinds);
            for fault in &kinds {
                std::thread::sleep(random.millis(150, 1000));
                if stage.start.elapsed() > time {
                    return outages;
                }
                let from = stage.now();
                self.inflict(*fault, stage, random);
                self.until_ready();
                let until = stage.now();
                outages.push(Outage {
                    kind: fault.name(),
                    from,
                    until,
                });
            }
        }
    }

    fn inflict(&mut self, fault: Fault, stage: &Stage, random: &mut Random) {
        let active = self.active();
        let while_away = random.millis(1100, 2400);
        match fault {
            Fault::Kill | Fault::Stop => {
                if fault == Fault::Kill {
                    self.instances[active].kill();
                } else {
                    self.instances[active].stop();
                }
                if self.instances.len() == 1 {
                    self.deaths.push(stage.now());
                } else if random.percent(50) {
                    self.publish(stage);
                    self.until_ready();
                }
                self.instances[active].launch_again();
                self.publish(stage);
            }
            Fault::Pause => {
                self.instances[active].pause();
                std::thread::sleep(while_away);
                self.instances[active].resume();
            }
            Fault::CutOff => self.set(active..active + 1, State::Down, while_away),
            Fault::HoldBack => self.set(active..active + 1, State::Hung, while_away),
            Fault::DatabaseDown => self.set(0..self.proxies.len(), State::Down, while_away),
            Fault::DatabaseHung => self.set(0..self.proxies.len(), State::Hung, while_away),
            Fault::DatabaseRestarted => {
                self.set(0..self.proxies.len(), State::Down, Duration::from_millis(1));
            }
            Fault::DatabaseSlow => {
                let slow = State::Slow(random.millis(5, 60));
                self.set(0..self.proxies.len(), slow, while_away);
            }
        }
    }

    fn set(&self, which: std::ops::Range<usize>, state: State, time: Duration) {
        for proxy in &self.proxies[which.clone()] {
            proxy.set(state);
        }
        std::thread::sleep(time);
        for proxy in &self.proxies[which] {
            proxy.set(State::Up);
        }
    }
}

/// Within a moment: it may be paused, or gone.
fn is_ready(instance: &mut Program) -> bool {
    if !instance.is_running() {
        return false;
    }
    let (ask, limit) = (instance.ready().bytes(), Duration::from_secs(1));
    let answer = Wire::default().exchange(instance.address(), &ask, limit, None);
    answer.is_ok_and(|answer| answer.status == 200)
}

/// Lines of its log that should never be there.
pub fn complaints(instance: &Program) -> Vec<String> {
    let mut lines = instance.lines();
    lines.retain(|line| line.contains("panicked") || line.contains("invariant"));
    lines
}
