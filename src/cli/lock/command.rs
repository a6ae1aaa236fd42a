//! The command: looked up before the locks are asked for, and started so that the guard process knows it before it
//! runs.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode};

use super::super::remote::{self, EXIT_FAILED};

const EXIT_NOT_EXECUTABLE: u8 = 126;
const EXIT_NOT_FOUND: u8 = 127;

/// The environment variable with the socket of the guard process; removed before the command runs.
const GUARD_SOCKET: &str = "SMALL_RESOURCE_LOCK_GUARD";
/// This very program, even if its file has been replaced meanwhile.
pub const THIS_PROGRAM: &str = "/proc/self/exe";
/// The answer of the guard process once it knows the command's process group.
pub const GO: u8 = b'g';

/// The command with the path of its program, which is searched in `PATH` unless its name has a slash; or exit code and
/// sentence.
pub fn look_up(mut command: Vec<OsString>) -> Result<Vec<OsString>, (u8, String)> {
    let Some(name) = command.first_mut() else {
        return Err((EXIT_NOT_FOUND, "No command was given.".into()));
    };
    let candidates: Vec<PathBuf> = if name.as_encoded_bytes().contains(&b'/') {
        vec![PathBuf::from(&*name)]
    } else {
        let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
        let folders = std::env::split_paths(&path);
        folders.map(|folder| folder.join(&*name)).collect()
    };
    let shown = Path::new(&*name).display();
    if let Some(program) = candidates.iter().find(|path| is_executable(path)) {
        *name = program.into();
        return Ok(command);
    }
    Err(match candidates.iter().any(|path| path.exists()) {
        true => {
            let sentence = format!("{shown} is not a program that can be executed.");
            (EXIT_NOT_EXECUTABLE, sentence)
        }
        false => {
            let sentence = format!("The command {shown} was not found.");
            (EXIT_NOT_FOUND, sentence)
        }
    })
}

/// Starts the command that [`look_up`] returned in a process group of its own, where it waits until the guard process
/// lets it run.
pub fn start(
    command: &[OsString],
    environment: &[(&str, String)],
    guard_socket: &str,
) -> io::Result<Child> {
    Command::new(THIS_PROGRAM)
        .args(["guarded-command", "--"])
        .args(command)
        .envs(environment.iter().cloned())
        .env(GUARD_SOCKET, guard_socket)
        .process_group(0)
        .spawn()
}

fn is_executable(path: &Path) -> bool {
    let runs = |data: std::fs::Metadata| data.is_file() && data.permissions().mode() & 0o111 != 0;
    path.metadata().is_ok_and(runs) && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
}

/// `guarded-command`: waits until the guard process knows this process, then becomes the command. If the guard
/// process is gone, because the process that holds the lock is, the command does not run.
pub fn become_command(command: &[OsString]) -> ExitCode {
    let Some((program, arguments)) = command.split_first() else {
        return ExitCode::from(EXIT_NOT_FOUND);
    };
    let name = std::env::var(GUARD_SOCKET).unwrap_or_default();
    if let Err(error) = let_run(&name) {
        return remote::fail(
            "lock",
            EXIT_FAILED,
            &format!("The command was not started: {error}."),
        );
    }
    let error = Command::new(program)
        .args(arguments)
        .env_remove(GUARD_SOCKET)
        .exec();
    let code = match error.kind() {
        io::ErrorKind::NotFound => EXIT_NOT_FOUND,
        _ => EXIT_NOT_EXECUTABLE,
    };
    let sentence = format!("{}: {error}.", Path::new(program).display());
    remote::fail("lock", code, &sentence)
}

fn let_run(name: &str) -> io::Result<()> {
    let mut guard = UnixStream::connect_addr(&SocketAddr::from_abstract_name(name)?)?;
    let mut answer = [0];
    guard.read_exact(&mut answer)?;
    if answer == [GO] {
        Ok(())
    } else {
        Err(io::ErrorKind::InvalidData.into())
    }
}
