//! The terminal: the command's process group is in its foreground while it runs, as it would be without us.

use std::fs::File;

use nix::sys::signal::{SigSet, Signal};
use rustix::process::{Pid, getpgrp};
use rustix::termios::{tcgetpgrp, tcsetpgrp};

/// The terminal that this process is in the foreground of, or was before the command.
pub struct Terminal {
    tty: File,
    own: Pid,
}

impl Terminal {
    /// `None`: there is none, or somebody else is in its foreground.
    pub fn of_this_process() -> Option<Terminal> {
        let tty = File::options()
            .read(true)
            .write(true)
            .open("/dev/tty")
            .ok()?;
        let terminal = Terminal {
            tty,
            own: getpgrp(),
        };
        terminal.is_ours().then_some(terminal)
    }

    /// Are we in the foreground?
    pub fn is_ours(&self) -> bool {
        tcgetpgrp(&self.tty).is_ok_and(|group| group == self.own)
    }

    /// Puts the command's group there.
    pub fn give_to(&self, group: Pid) {
        // What goes wrong here is seen by the command when it reads.
        let _ = tcsetpgrp(&self.tty, group);
    }

    /// Takes it back, which stops a process in the background that does not block the signal for that.
    pub fn take_back(&self) {
        let mut blocked = SigSet::empty();
        blocked.add(Signal::SIGTTOU);
        if blocked.thread_block().is_ok() {
            let _ = tcsetpgrp(&self.tty, self.own);
            let _ = blocked.thread_unblock();
        }
    }
}
