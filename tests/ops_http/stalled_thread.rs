//! One thread of the process stands still: a tracer stops it, and nothing of the program knows of that.

use crate::support::{Program, StoppedThread, serving_threads};

/// The store is the process's own, and nothing blocks the thread that writes to it.
#[test]
fn a_process_of_which_one_serving_thread_stands_still_ends_and_says_why() {
    let words = [
        "the actor that writes to the store stands still",
        "the actor that finds resources stands still",
        "a thread that serves requests stands still",
        "a thread that serves requests stands still",
    ];
    let mut programs: Vec<_> = words.iter().map(|_| Program::new()).collect();
    let mut stopped = Vec::new();
    for (place, program) in programs.iter().enumerate() {
        let threads = serving_threads(program);
        assert_eq!(threads.len(), words.len());
        let Some(thread) = StoppedThread::stop(threads[place]) else {
            return;
        };
        stopped.push(thread);
    }
    for ((program, thread), said) in programs.iter_mut().zip(stopped).zip(words) {
        program.logged(&[said]);
        thread.wait_for_end();
        let status = program.end();
        assert_eq!(status.code(), Some(1), "{}", program.log());
    }
}
