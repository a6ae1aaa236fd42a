//! The lock core alone: one operation at a time, without a runtime, a clock or a store.
//!
//! `cargo bench --bench core` measures time. `core --count OPERATION N` does the operation N times and ends:
//! scripts/callgrind counts the instructions of that, which noise cannot change.

use std::collections::VecDeque;
use std::hint::black_box;
use std::process::ExitCode;

use criterion::Criterion;
use small_resource_server::lock::{
    Answer, Command, FencingToken, LockOptions, LockRequest, LockState, Now, PresentedTicket,
    RequestId, ResourceOptions, Terms, Ticket, WaitPolicy,
};

/// Late enough that nothing reaches back before zero.
const NOW: Now = Now {
    mono: 1_000_000,
    wall: 1_700_000_000_000,
};

/// One lock, and whoever wants it.
struct World {
    state: LockState,
    terms: Terms,
    next: u64,
    holder: Option<Ticket>,
    /// Tickets of those who polled, in the order of the queue.
    polling: VecDeque<Ticket>,
}

impl World {
    fn new() -> World {
        World {
            state: LockState::new(ResourceOptions::default(), FencingToken(0)),
            terms: Terms::default(),
            next: 0,
            holder: None,
            polling: VecDeque::new(),
        }
    }

    /// A lock that is held while `waiters` have a request open for it.
    fn with_waiters(waiters: usize) -> World {
        let mut world = World::new();
        for _ in 0..=waiters {
            world.acquire(PresentedTicket::Absent, WaitPolicy::Forever);
        }
        world
    }

    /// A lock that is held while `waiters` have a ticket for it.
    fn with_polling(waiters: usize) -> World {
        let mut world = World::new();
        for _ in 0..=waiters {
            world.acquire(PresentedTicket::Absent, WaitPolicy::Poll);
        }
        world
    }

    /// Applies the command; its answers reach their clients.
    fn apply(&mut self, command: Command) {
        let outcome = self.state.apply(&self.terms, NOW, command);
        for (request, answer) in &outcome.answers {
            match answer {
                Answer::Granted(grant) => self.holder = Some(grant.ticket),
                Answer::Queued { ticket, .. } if self.polling.back() != Some(ticket) => {
                    self.polling.push_back(*ticket);
                }
                _ => {}
            }
            if answer.is_tracked() {
                self.deliver(*request);
            }
        }
        black_box(outcome);
    }

    fn deliver(&mut self, request: RequestId) {
        self.state.delivered(&self.terms, NOW, request);
    }

    fn request(&mut self) -> RequestId {
        self.next += 1;
        self.next
    }

    fn acquire(&mut self, presented: PresentedTicket, policy: WaitPolicy) {
        let request = self.request();
        self.apply(Command::Acquire(LockRequest {
            request,
            presented,
            fresh: Ticket::from_bits(u128::from(request)),
            options: LockOptions::default(),
            policy,
        }));
    }

    fn unlock(&mut self) {
        let ticket = self.holder.take().expect("somebody holds");
        let request = self.request();
        self.apply(Command::Unlock {
            request,
            presented: PresentedTicket::Ticket(ticket),
        });
    }

    // ---- the operations ---------------------------------------------------------------------------

    fn lock_and_unlock(&mut self) {
        self.acquire(PresentedTicket::Absent, WaitPolicy::Poll);
        self.unlock();
    }

    /// The holder releases, the first waiter is granted, and another one comes to wait.
    fn hand_off(&mut self) {
        self.unlock();
        assert!(self.holder.is_some(), "nobody was granted");
        self.acquire(PresentedTicket::Absent, WaitPolicy::Forever);
    }

    /// Somebody in the middle of the queue asks again.
    fn poll(&mut self) {
        let ticket = self.polling[self.polling.len() / 2];
        self.acquire(PresentedTicket::Ticket(ticket), WaitPolicy::Poll);
        self.polling.truncate(POLLING);
    }
}

const POLLING: usize = 10_000;

type Operation = (&'static str, fn() -> World, fn(&mut World));

const OPERATIONS: [Operation; 4] = [
    ("lock_unlock", World::new, World::lock_and_unlock),
    ("hand_off_10", || World::with_waiters(10), World::hand_off),
    (
        "hand_off_10000",
        || World::with_waiters(10_000),
        World::hand_off,
    ),
    ("poll_10000", || World::with_polling(POLLING), World::poll),
];

fn measure_time() {
    let mut criterion = Criterion::default().configure_from_args();
    for (name, world, operation) in OPERATIONS {
        let mut world = world();
        criterion.bench_function(name, |bencher| bencher.iter(|| operation(&mut world)));
    }
    criterion.final_summary();
}

/// Does one operation so many times.
fn count(name: &str, times: &str) -> Option<()> {
    let (_, world, operation) = OPERATIONS.iter().find(|operation| operation.0 == name)?;
    let times: u64 = times.parse().ok()?;
    let mut world = world();
    for _ in 0..times {
        operation(&mut world);
    }
    black_box(world.state.is_held());
    Some(())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["--operations", ..] => OPERATIONS.iter().for_each(|o| println!("{}", o.0)),
        ["--count", name, times, ..] if count(name, times).is_none() => {
            eprintln!("no such operation or number: {name} {times}");
            return ExitCode::FAILURE;
        }
        ["--count", ..] => {}
        _ => measure_time(),
    }
    ExitCode::SUCCESS
}
