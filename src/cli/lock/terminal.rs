//! The terminal: the command's process group is in its foreground while it runs, as it would be without us.

use std::fs::File;

use nix::sys::signal::{SigSet, Signal};
use rustix::process::{Pid, getpgrp};
use rustix::termios::{tcgetpgrp, tcsetpgrp};

/// The terminal of this process' session.
pub struct Terminal {
    tty: File,
    own: Pid,
}

impl Terminal {
    /// `None`: there is none.
    pub fn of_this_process() -> Option<Terminal> {
        let tty = File::options()
            .read(true)
            .write(true)
            .open("/dev/tty")
            .ok()?;
        Some(Terminal {
            tty,
            own: getpgrp(),
        })
    }

    /// Is this process in the foreground?
    pub fn is_ours(&self) -> bool {
        self.foreground() == Some(self.own)
    }

    /// Puts the command's group in the foreground if this process is there.
    pub fn give_to(&self, group: Pid) {
        if self.is_ours() {
            // What goes wrong here is seen by the command when it reads.
            let _ = tcsetpgrp(&self.tty, group);
        }
    }

    /// Takes the terminal back from the command's group if that has it, which would stop a process in the background
    /// that does not block the signal for that.
    pub fn take_back(&self, group: Pid) {
        let mut blocked = SigSet::empty();
        blocked.add(Signal::SIGTTOU);
        if self.foreground() == Some(group) && blocked.thread_block().is_ok() {
            let _ = tcsetpgrp(&self.tty, self.own);
            let _ = blocked.thread_unblock();
        }
    }

    fn foreground(&self) -> Option<Pid> {
        tcgetpgrp(&self.tty).ok()
    }
}
