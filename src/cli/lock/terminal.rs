//! The terminal: while the command runs, its process group is in the foreground, as it would be without `lock`.

use std::fs::File;

use nix::sys::signal::{SigSet, Signal};
use rustix::process::{Pid, getpgrp};
use rustix::termios::{tcgetpgrp, tcsetpgrp};

/// The terminal of this process's session; `None`: it has none.
pub fn of_this_process() -> Option<File> {
    let mut options = File::options();
    options.read(true).write(true).open("/dev/tty").ok()
}

/// Is this process in the foreground?
pub fn is_ours(tty: &File) -> bool {
    foreground(tty) == Some(getpgrp())
}

/// Puts the command's group in the foreground if this process is there.
pub fn give_to(tty: &File, group: Pid) {
    if is_ours(tty) {
        // If this fails, the command finds out when it reads from the terminal.
        let _ = tcsetpgrp(tty, group);
    }
}

/// Takes the terminal back if the command's group has it. Blocks SIGTTOU meanwhile, which would stop this process for
/// doing so from the background.
pub fn take_back(tty: &File, group: Pid) {
    let mut blocked = SigSet::empty();
    blocked.add(Signal::SIGTTOU);
    if foreground(tty) == Some(group) && blocked.thread_block().is_ok() {
        let _ = tcsetpgrp(tty, getpgrp());
        let _ = blocked.thread_unblock();
    }
}

fn foreground(tty: &File) -> Option<Pid> {
    tcgetpgrp(tty).ok()
}
