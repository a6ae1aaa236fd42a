//! The terminal: while the command runs, its process group is in the foreground, as it would be without `lock`.

use std::fs::File;

use nix::sys::signal::{SigSet, Signal};
use rustix::process::{Pid, getpgrp};
use rustix::termios::{tcgetpgrp, tcsetpgrp};

/// The terminal of this process's session.
pub struct Terminal {
    tty: File,
    own: Pid,
}

impl Terminal {
    /// `None`: this process has no terminal.
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
            // If this fails, the command finds out when it reads from the terminal.
            let _ = tcsetpgrp(&self.tty, group);
        }
    }

    /// Takes the terminal back if the command's group has it. Blocks SIGTTOU meanwhile, which would stop this
    /// process for doing so from the background.
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
