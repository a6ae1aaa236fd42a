//! The README is right: its session runs as it stands, and its table names every setting.

use std::io::Read;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use small_resource_server::config::variables::VARIABLES;

const README: &str = include_str!("../README.md");

/// The text between `<!-- name -->` and `<!-- /name -->`.
fn section(name: &str) -> &'static str {
    let (_, rest) = README.split_once(&format!("<!-- {name} -->")).unwrap();
    rest.split_once(&format!("<!-- /{name} -->")).unwrap().0
}

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The binary with the development configuration, as `make run` starts it, on a free port.
fn start(folder: &std::path::Path) -> (Server, u16) {
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let root = env!("CARGO_MANIFEST_DIR");
    let child = Command::new(env!("CARGO_BIN_EXE_small-resource-server"))
        .env("CONFIG_FILE", format!("{root}/config/development.conf"))
        .env("HTTP_PORT", port.to_string())
        .current_dir(folder)
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let server = Server(child);
    let until = Instant::now() + Duration::from_secs(60);
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < until, "the server did not start");
        std::thread::sleep(Duration::from_millis(20));
    }
    (server, port)
}

#[test]
fn the_first_session_runs_as_it_stands() {
    let folder = tempfile::tempdir().unwrap();
    let (_server, port) = start(folder.path());
    let block = section("session");
    let script = block
        .split_once("```sh\n")
        .and_then(|(_, rest)| rest.split_once("```"))
        .unwrap()
        .0
        .replace("/tmp/", &format!("{}/", folder.path().display()));
    let mut bash = Command::new("bash")
        .args(["-euo", "pipefail", "-c", &script])
        .env("SERVER", format!("http://127.0.0.1:{port}"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = String::new();
    bash.stdout
        .take()
        .unwrap()
        .read_to_string(&mut output)
        .unwrap();
    assert!(bash.wait().unwrap().success(), "{output}");
    for expected in [
        r#""name":"shop:42:inventory","timeout":30}"#,
        r#""locked":true"#,
        r#""owner":"me""#,
        r#"{"apples": 5}"#,
        r#"{"unlocked":true}"#,
        r#""owner":"someone else""#,
        r#""code":"ticket_released""#,
    ] {
        assert!(output.contains(expected), "no {expected} in:\n{output}");
    }
    let token = |owner: &str| {
        let grant = output
            .split('{')
            .find(|part| {
                part.contains(&format!("\"owner\":\"{owner}\"")) && part.contains("ticket")
            })
            .unwrap();
        let (_, rest) = grant.split_once("\"fencingToken\":").unwrap();
        rest.split(',').next().unwrap().parse::<u64>().unwrap()
    };
    assert!(token("someone else") > token("me"));
}

#[test]
fn the_configuration_table_names_every_setting_with_its_default() {
    let table = section("configuration");
    for variable in VARIABLES {
        let row = table
            .lines()
            .find(|line| line.starts_with(&format!("| `{}` ", variable.name)))
            .unwrap_or_else(|| panic!("{} is not in the table", variable.name));
        assert!(
            variable.default.is_empty() || row.contains(variable.default),
            "the default of {} is not {}",
            variable.name,
            variable.default
        );
    }
}
