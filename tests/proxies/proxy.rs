//! nginx or HAProxy as a process, with the configuration from `config/` in front of a server under test.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::support::{Answer, Client, Connection, Program, eventually, free_port, request, until};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Nginx,
    Haproxy,
}

pub const BOTH: [Kind; 2] = [Kind::Nginx, Kind::Haproxy];

/// A running proxy; killed when dropped.
pub struct ReverseProxy {
    pub kind: Kind,
    pub port: u16,
    child: Child,
    folder: TempDir,
}

impl ReverseProxy {
    pub fn start(kind: Kind, server: &Program) -> ReverseProxy {
        ReverseProxy::start_before(kind, &[server.address().port()])
    }

    /// Before one instance, or two.
    pub fn start_before(kind: Kind, servers: &[u16]) -> ReverseProxy {
        // Another process may take the port before the proxy has it: then another one is tried.
        eventually("a proxy runs", || ReverseProxy::try_start(kind, servers))
    }

    fn try_start(kind: Kind, servers: &[u16]) -> Option<ReverseProxy> {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let config = configuration(kind, port, servers);
        let path = folder.path().join("proxy.conf");
        std::fs::write(&path, config).unwrap();
        let mut command = command(kind, folder.path(), &path, servers);
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut proxy = ReverseProxy {
            kind,
            port,
            child,
            folder,
        };
        let runs = eventually("it listens or has given up", || {
            if proxy.child.try_wait().unwrap().is_some() {
                return Some(false);
            }
            TcpStream::connect(proxy.address()).ok().map(|_| true)
        });
        if !runs {
            let log = proxy.log();
            assert!(log.to_lowercase().contains("address"), "{kind:?}: {log}");
            return None;
        }
        proxy.wait_for_backend();
        Some(proxy)
    }

    /// Until its health checks have found the server.
    fn wait_for_backend(&self) {
        until("the proxy finds the server", || {
            let answer = self.connect().ask_through("GET", "/health", &[], "");
            answer.status == 200
        });
    }

    /// What it has said so far, warnings included.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    pub fn connect(&self) -> Connection {
        Connection::to(self.address())
    }

    /// From an address of its own, 127.0.0.`last`.
    pub fn connect_from(&self, last: u8) -> Connection {
        Client::at(self.address()).connect_from(last)
    }
}

/// Nothing is promised of every answer here: HAProxy writes names of headers in its own way unless it is told
/// about them, and what is said while the server is away is the proxy's.
pub trait AskThrough {
    fn ask_through(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer;
}

impl AskThrough for Connection {
    #[track_caller]
    fn ask_through(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        self.write(&request(method, target, headers, body));
        self.unchecked_answer().expect("an answer")
    }
}

impl Drop for ReverseProxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub fn read(name: &str) -> String {
    std::fs::read_to_string(root().join("config").join(name)).unwrap()
}

/// The file from `config/` with the ports changed, the second server taken in where there is one, and nothing else.
fn configuration(kind: Kind, port: u16, servers: &[u16]) -> String {
    let replaced = |text: &str, from: &str, to: &str| {
        assert_eq!(text.matches(from).count(), 1, "{from}");
        text.replace(from, to)
    };
    if kind == Kind::Haproxy {
        let here = format!("bind 127.0.0.1:{port}");
        return replaced(&read("haproxy.cfg"), "bind :80", &here);
    }
    let here = format!("listen 127.0.0.1:{port};");
    let text = replaced(&read("nginx.conf"), "listen 80;", &here);
    let first = format!("server 127.0.0.1:{} ", servers[0]);
    let mut text = replaced(&text, "server 127.0.0.1:9501 ", &first);
    if let Some(second) = servers.get(1) {
        let second = format!("server 127.0.0.1:{second} ");
        text = replaced(&text, "#server 127.0.0.2:9501 ", &second);
    }
    format!(
        "daemon off;\nmaster_process off;\npid nginx.pid;\nerror_log stderr warn;\nevents {{ worker_connections 4096; }}\nhttp {{\naccess_log off;\nclient_body_temp_path body;\nproxy_temp_path proxy;\nfastcgi_temp_path fastcgi;\nuwsgi_temp_path uwsgi;\nscgi_temp_path scgi;\n{text}\n}}\n"
    )
}

fn command(kind: Kind, folder: &Path, config: &Path, servers: &[u16]) -> Command {
    match kind {
        Kind::Nginx => {
            let mut command = Command::new(program("nginx"));
            command.arg("-p").arg(folder).arg("-c").arg(config);
            command.args(["-e", "stderr"]);
            command
        }
        Kind::Haproxy => {
            let mut command = Command::new(program("haproxy"));
            command.arg("-db").arg("-f").arg(config);
            for (name, server) in ["INSTANCE_ONE", "INSTANCE_TWO"].iter().zip(servers) {
                command.env(name, format!("127.0.0.1:{server}"));
            }
            command
        }
    }
}

/// Where the program is; it is installed when it is nowhere.
fn program(name: &str) -> PathBuf {
    find(name).unwrap_or_else(|| {
        let script = root().join("scripts/with-proxies");
        let installed = Command::new(script).arg("true").status();
        assert!(
            installed.is_ok_and(|status| status.success()),
            "{name} cannot be installed"
        );
        find(name).unwrap()
    })
}

fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/usr/local/sbin";
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}
