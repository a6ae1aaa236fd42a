//! What is done to servers and their database, and the record of it.

use std::time::Duration;

use crate::client::Stage;
use crate::history::{Micros, Outage};
use crate::link::{Link, State};
use crate::plan::Random;
use crate::server::{Instance, until};

/// The servers of a run. With a database, one link for each instance.
pub struct Cluster {
    pub instances: Vec<Instance>,
    pub links: Vec<Link>,
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
    pub fn new(instances: Vec<Instance>, links: Vec<Link>) -> Cluster {
        let deaths = Vec::new();
        Cluster {
            instances,
            links,
            deaths,
        }
    }

    pub fn start(&mut self, stage: &Stage) {
        for instance in &mut self.instances {
            instance.start();
        }
        self.publish(stage);
        self.until_ready();
    }

    /// Tells the clients where the instances listen.
    fn publish(&self, stage: &Stage) {
        let addresses = self.instances.iter().filter_map(Instance::address);
        *stage.instances.write().unwrap() = addresses.collect();
    }

    /// Ends every instance with SIGKILL and starts them again.
    pub fn die_and_start(&mut self, stage: &Stage) {
        for instance in &mut self.instances {
            instance.kill();
        }
        self.deaths.push(stage.now());
        self.start(stage);
    }

    pub fn until_ready(&self) {
        until("an instance is ready", || {
            self.instances.iter().any(Instance::is_ready)
        });
    }

    fn active(&self) -> usize {
        let ready = self.instances.iter().position(Instance::is_ready);
        ready.unwrap_or(0)
    }

    /// Faults of every kind in an order of chance, again and again, with calm in between, until the run is
    /// over.
    pub fn suffer(&mut self, stage: &Stage, random: &mut Random, time: Duration) -> Vec<Outage> {
        let mut outages = Vec::new();
        let mut kinds = OF_PROCESSES.to_vec();
        if !self.links.is_empty() {
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
                self.instances[active].start();
                self.publish(stage);
            }
            Fault::Pause => {
                self.instances[active].pause();
                std::thread::sleep(while_away);
                self.instances[active].resume();
            }
            Fault::CutOff => self.link(active..active + 1, State::Down, while_away),
            Fault::HoldBack => self.link(active..active + 1, State::Hung, while_away),
            Fault::DatabaseDown => self.link(0..self.links.len(), State::Down, while_away),
            Fault::DatabaseHung => self.link(0..self.links.len(), State::Hung, while_away),
            Fault::DatabaseRestarted => {
                self.link(0..self.links.len(), State::Down, Duration::from_millis(1));
            }
            Fault::DatabaseSlow => {
                let slow = State::Slow(random.millis(5, 60));
                self.link(0..self.links.len(), slow, while_away);
            }
        }
    }

    fn link(&self, which: std::ops::Range<usize>, state: State, time: Duration) {
        for link in &self.links[which.clone()] {
            link.set(state);
        }
        std::thread::sleep(time);
        for link in &self.links[which] {
            link.set(State::Up);
        }
    }
}
