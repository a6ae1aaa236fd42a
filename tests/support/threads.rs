//! Single threads of a process, which a tracer can stop: nothing of the program knows of that.

use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::program::Program;
use super::skip;

/// Those that the framework runs actors and connections on, in the order in which they were started: the actor
/// that writes to the store, the one that finds resources, and those that serve requests.
pub fn serving_threads(program: &Program) -> Vec<Pid> {
    let folder = format!("/proc/{}/task", program.pid());
    let mut threads: Vec<i32> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|id| {
            let name = std::fs::read_to_string(format!("{folder}/{id}/comm")).unwrap();
            name.starts_with("actix-rt|")
        })
        .map(|id| id.parse().unwrap())
        .collect();
    threads.sort_unstable();
    threads.into_iter().map(Pid::from_raw).collect()
}

/// It does nothing any more. To be used on the thread that stopped it.
pub struct StoppedThread(Pid);

impl StoppedThread {
    /// `None`: skipped, this machine does not let a process trace its children.
    pub fn stop(thread: Pid) -> Option<StoppedThread> {
        if let Err(error) = ptrace::attach(thread) {
            skip(&format!("a thread cannot be traced here: {error}"));
            return None;
        }
        let stopped = waitpid(thread, Some(WaitPidFlag::__WALL)).unwrap();
        assert!(matches!(stopped, WaitStatus::Stopped(..)), "{stopped:?}");
        Some(StoppedThread(thread))
    }

    /// Its process is not gone before its tracer knows of the end.
    pub fn wait_for_end(self) {
        let ended = waitpid(self.0, Some(WaitPidFlag::__WALL));
        assert!(ended.is_ok(), "{ended:?}");
    }
}
