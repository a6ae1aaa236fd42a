//! A server, and the binary run against it.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{ADMIN, Program, Setup, WRITE, eventually, until};

pub const BINARY: &str = env!("CARGO_BIN_EXE_small-resource-server");

/// A server with a resource `a`, and a folder for what commands leave.
pub struct Session {
    pub server: Program,
    folder: tempfile::TempDir,
}

/// A process of the binary. Killed when dropped, which must not be what ends its command.
pub struct Process(Child);

impl Session {
    pub fn new() -> Session {
        Session::with(&Setup::new())
    }

    /// Around a server with these settings, which speaks HTTP.
    pub fn with(setup: &Setup) -> Session {
        let server = setup.start();
        server.prepare("a");
        Session {
            server,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The binary with these arguments.
    pub fn command(&self, arguments: &[&str]) -> Command {
        // The tests may themselves have been started with signals ignored, as by nohup.
        let mut command = Command::new("env");
        command
            .args(["--default-signal", BINARY])
            .args(arguments)
            .current_dir(self.folder.path())
            .env("LOCK_SERVER", format!("http://{}", self.server.address()))
            .env("LOCK_KEY", WRITE)
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs it to its end.
    pub fn output(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    pub fn start(&self, arguments: &[&str]) -> Process {
        Process(self.command(arguments).spawn().unwrap())
    }

    /// Starts `lock a` with these options around a shell script, and waits until it runs: the id of its shell.
    pub fn start_script(&self, options: &[&str], script: &str) -> (Process, i32) {
        let script = format!("echo $$ > pid.new; mv pid.new pid; {script}");
        let arguments = [&["lock", "a"], options, &["--", "sh", "-c", &script]].concat();
        let process = self.start(&arguments);
        (process, self.number_in("pid"))
    }

    /// What a command writes to a file, as soon as it is there.
    pub fn number_in(&self, file: &str) -> i32 {
        let path = self.file(file);
        eventually("a number in a file", || {
            std::fs::read_to_string(&path).ok()?.trim().parse().ok()
        })
    }

    pub fn force_off(&self, name: &str) {
        let arguments = ["force-unlock", name, "--reason", "it hangs"];
        let output = self
            .command(&arguments)
            .env("LOCK_KEY", ADMIN)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
    }

    /// Takes `a` as soon as it is free, and says whether that process was gone by then.
    pub fn is_gone_for_the_next_holder(&self, pid: i32) {
        let script =
            format!("read -r id name state rest < /proc/{pid}/stat || exit 0; [ $state = Z ]");
        let output = self.output(&["lock", "a", "--", "sh", "-c", &script]);
        assert!(
            output.status.success(),
            "it lives beside the next holder: {output:?}"
        );
    }
}

impl Process {
    pub fn of(command: &mut Command) -> Process {
        Process(command.spawn().unwrap())
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Its end, which comes by itself.
    pub fn ended(mut self) -> ExitStatus {
        eventually("it ends", || self.0.try_wait().unwrap())
    }

    /// Its end, which comes by itself: exit status, standard output, standard error.
    pub fn end(mut self) -> (ExitStatus, String, String) {
        let status = eventually("it ends", || self.0.try_wait().unwrap());
        let (mut out, mut err) = (String::new(), String::new());
        self.0
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut out)
            .unwrap();
        self.0
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut err)
            .unwrap();
        (status, out, err)
    }

    /// The lines of its standard output, as they come.
    pub fn lines(&mut self) -> Receiver<String> {
        let lines = BufReader::new(self.0.stdout.take().unwrap()).lines();
        let (sender, receiver) = channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        receiver
    }

    /// The next line of its standard error.
    pub fn complaint(&mut self) -> String {
        let mut line = String::new();
        BufReader::with_capacity(1, self.0.stderr.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        line
    }

    pub fn write(&mut self, text: &str) {
        self.0
            .stdin
            .take()
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
    }

    /// To what goes on reading.
    pub fn type_in(&mut self, text: &str) {
        let input = self.0.stdin.as_mut().unwrap();
        input.write_all(text.as_bytes()).unwrap();
        input.flush().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Is there a process of this id that is not a zombie?
pub fn is_alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

pub fn until_gone(pid: i32) {
    until("the process is gone", || !is_alive(pid));
}

pub fn lines(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
