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
    ///
    /// # Errors
    /// The process cannot be started, or ends before it listens.
    pub fn start() -> io::Result<GuardProcess> {
        let socket = format!("small-resource-lock-{}", uuid::Uuid::new_v4().simple());
        let mut child = Command::new(THIS_PROGRAM)
            .args(["lock-guard", &socket])
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

    /// Sends the deadline, if it is not the one that was sent last.
    ///
    /// # Errors
    /// The guard process is gone.
    pub fn deadline(&mut self, deadline: Option<BootTime>) -> io::Result<()> {
        match deadline {
            Some(moment) if self.told != deadline => {
                self.told = deadline;
                writeln!(self.commands, "deadline {}", moment.since_boot().as_nanos())
            }
            _ => Ok(()),
        }
    }

    /// Lets the command of this process group run.
    ///
    /// # Errors
    /// The guard process is gone.
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

/// What the guard process has been told.
#[derive(Default)]
struct ParentCommands {
    deadline: Option<BootTime>,
    /// The process group that may run once it asks.
    started: Option<i32>,
    /// A process that asks whether it may run.
    asking: Option<UnixStream>,
    /// The process group to kill; set once the command may run.
    group: Option<Pid>,
}

/// `lock-guard`: the process itself.
pub fn watch_over(socket: &str) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let outcome = runtime.and_then(|runtime| runtime.block_on(guard(socket)));
    if outcome.is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

async fn guard(socket: &str) -> io::Result<()> {
    let listener = StdListener::bind_addr(&SocketAddr::from_abstract_name(socket)?)?;
    listener.set_nonblocking(true)?;
    let listener = UnixListener::from_std(listener)?;
    let input = io::stdin().as_fd().try_clone_to_owned()?;
    let mut lines = BufReader::new(Receiver::from_owned_fd(input)?).lines();
    let mut commands = ParentCommands::default();
    io::stdout().write_all(b"r")?;
    io::stdout().flush()?;
    loop {
        tokio::select! {
            // The deadline counts before anything else.
            biased;
            () = reached(commands.deadline) => {
                commands.kill();
                // Kills once per deadline; the holding process does the rest.
                commands.deadline = None;
            }
            line = lines.next_line() => match line {
                Ok(Some(line)) if line == "done" => return Ok(()),
                Ok(Some(line)) => commands.take(&line),
                Ok(None) | Err(_) => {
                    commands.kill();
                    return Ok(());
                }
            },
            asking = listener.accept() => commands.asking = asking.ok().map(|(stream, _)| stream),
        }
        commands.let_run().await;
    }
}

/// Resolves at this moment; `None`: never.
pub async fn reached(moment: Option<BootTime>) {
    match moment {
        Some(moment) => moment.reached().await,
        None => std::future::pending().await,
    }
}

impl ParentCommands {
    fn take(&mut self, line: &str) {
        match line.split_once(' ') {
            Some(("deadline", nanos)) => {
                let moment = nanos
                    .parse()
                    .map(|nanos| BootTime::from_boot(Duration::from_nanos(nanos)));
                self.deadline = moment.ok();
            }
            Some(("start", group)) => self.started = group.parse().ok(),
            _ => {}
        }
    }

    /// Lets the command run that was announced, once it asks.
    async fn let_run(&mut self) {
        let (Some(started), Some(asking)) = (self.started, &mut self.asking) else {
            return;
        };
        let peer = asking.peer_cred().ok();
        // Only the announced process may run. It leads the command's group, so its id is the id of the group.
        if peer.is_some_and(|peer| peer.pid() == Some(started)) {
            self.group = Pid::from_raw(started);
            let _ = asking.write_all(&[GO]).await;
            self.started = None;
        }
        self.asking = None;
    }

    fn kill(&self) {
        if let Some(group) = self.group {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}
