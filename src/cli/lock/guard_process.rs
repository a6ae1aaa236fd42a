//! The guard process: kills the command's process group when the lock's deadline passes, or when the process that
//! holds the lock is gone. So the command ends in time even if the holding process is killed or stopped.
//!
//! It reads lines from its standard input, which is a pipe from the holding process: `deadline <nanoseconds on
//! the boot clock>`, `start <process group>`, `done`. If the pipe ends without `done`, the holding process is
//! gone. The command asks over a socket whether it may run, and may run only once its group is known here. So
//! at no moment does a command run that nothing would kill.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener as StdListener};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use small_resource_client::BootTime;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::pipe::Receiver;
use tokio::net::{UnixListener, UnixStream};

use super::super::remote;
use super::command::{GO, THIS_PROGRAM};

/// The guard process as the process that holds the lock sees it.
pub struct GuardProcess {
    child: Child,
    commands: ChildStdin,
    /// Name of the abstract socket on which the command asks.
    pub socket: String,
    /// The deadline that was sent last.
    told: Option<BootTime>,
}

impl GuardProcess {
    /// Starts the guard process and waits until it listens.
    pub fn start() -> io::Result<GuardProcess> {
        let socket = format!("small-resource-lock-{}", uuid::Uuid::new_v4().simple());
        let mut child = Command::new(THIS_PROGRAM)
            .args(["guard-process", &socket])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // Signals to our own process group are not meant for it.
            .process_group(0)
            .spawn()?;
        let commands = child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let mut ready = [0];
        let answer = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe);
        answer.and_then(|mut stdout| {
            io::Read::read_exact(&mut stdout, &mut ready).map_err(|e| e.kind())
        })?;
        Ok(GuardProcess {
            child,
            commands,
            socket,
            told: None,
        })
    }

    /// Sends the deadline, if it is not the one that was sent last. Fails if the guard process is gone.
    pub fn deadline(&mut self, deadline: Option<BootTime>) -> io::Result<()> {
        match deadline {
            Some(moment) if self.told != deadline => {
                self.told = deadline;
                writeln!(self.commands, "deadline {}", moment.since_boot().as_nanos())
            }
            _ => Ok(()),
        }
    }

    /// Lets the command of this process group run. Fails if the guard process is gone.
    pub fn let_run(&mut self, group: Pid) -> io::Result<()> {
        writeln!(self.commands, "start {}", group.as_raw_nonzero())
    }

    /// To be called when the command's whole group has ended; waits for the end of the guard process.
    pub fn done(mut self) {
        let _ = writeln!(self.commands, "done");
        drop(self.commands);
        let _ = self.child.wait();
    }
}

/// `guard-process`: the process itself.
pub fn watch_over(socket: &str) -> ExitCode {
    remote::block_on("lock", async {
        match guard(socket).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        }
    })
}

async fn guard(socket: &str) -> io::Result<()> {
    let listener = StdListener::bind_addr(&SocketAddr::from_abstract_name(socket)?)?;
    listener.set_nonblocking(true)?;
    let listener = UnixListener::from_std(listener)?;
    let input = io::stdin().as_fd().try_clone_to_owned()?;
    let mut lines = BufReader::new(Receiver::from_owned_fd(input)?).lines();
    let mut deadline: Option<BootTime> = None;
    // The process that may run once it asks. It leads the command's group, so its id is the id of the group.
    let mut announced: Option<i32> = None;
    let mut asking: Option<UnixStream> = None;
    // The group to kill; set once the command may run.
    let mut group: Option<Pid> = None;
    let kill = |group: Option<Pid>| {
        if let Some(group) = group {
            let _ = kill_process_group(group, Signal::KILL);
        }
    };
    io::stdout().write_all(b"r")?;
    io::stdout().flush()?;
    loop {
        tokio::select! {
            // The deadline counts before anything else.
            biased;
            () = reached(deadline) => {
                kill(group);
                // Kills once per deadline; the holding process does the rest.
                deadline = None;
            }
            line = lines.next_line() => match line {
                Ok(Some(line)) if line == "done" => return Ok(()),
                Ok(Some(line)) => match line.split_once(' ') {
                    Some(("deadline", nanos)) => {
                        let nanos = nanos.parse().map(Duration::from_nanos);
                        deadline = nanos.map(BootTime::from_boot).ok();
                    }
                    Some(("start", id)) => announced = id.parse().ok(),
                    _ => {}
                },
                Ok(None) | Err(_) => {
                    kill(group);
                    return Ok(());
                }
            },
            accepted = listener.accept() => asking = accepted.ok().map(|(stream, _)| stream),
        }
        if announced.is_none() {
            continue;
        }
        if let Some(mut stream) = asking.take() {
            let peer = stream.peer_cred().ok();
            // Only the announced process may run.
            if peer.is_some_and(|peer| peer.pid() == announced) {
                group = announced.take().and_then(Pid::from_raw);
                let _ = stream.write_all(&[GO]).await;
            }
        }
    }
}

/// Resolves at this moment; `None`: never.
pub async fn reached(moment: Option<BootTime>) {
    match moment {
        Some(moment) => moment.reached().await,
        None => std::future::pending().await,
    }
}
