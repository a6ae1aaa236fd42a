//! The README is right: its session and its examples run as they stand, and its table names every setting.

mod support;

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use small_resource_server::config::variables::VARIABLES;
use support::{Program, Setup, until};

const README: &str = include_str!("../README.md");

/// The text between `<!-- name -->` and `<!-- /name -->`.
fn section(name: &str) -> &'static str {
    let (_, rest) = README.split_once(&format!("<!-- {name} -->")).unwrap();
    rest.split_once(&format!("<!-- /{name} -->")).unwrap().0
}

/// What the section has for the shell, as one script.
fn script(name: &str) -> String {
    let blocks = section(name).split("```sh\n").skip(1);
    blocks
        .map(|rest| rest.split_once("```").unwrap().0)
        .collect()
}

/// The binary with the development configuration, as `make run` starts it, on a free port.
fn start() -> Program {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    Setup::of_file(&root.join("config/development.conf")).start()
}

/// What the script prints.
fn run(script: &str, server: &Program) -> String {
    let folder = server.setup().folder().display();
    let script = script.replace("/tmp/", &format!("{folder}/"));
    let mut bash = Command::new("bash")
        .args(["-euo", "pipefail", "-c", &script])
        .env("SERVER", format!("http://{}", server.address()))
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
    output
}

/// Is the answer as it is shown? `…` stands for any text.
fn is_as_shown(answer: &Value, shown: &Value) -> bool {
    match (answer, shown) {
        (Value::String(_) | Value::Number(_), Value::String(shown)) if shown == "…" => true,
        (Value::Object(answer), Value::Object(shown)) => {
            answer.len() == shown.len()
                && answer.iter().all(|(key, value)| {
                    let shown = shown.get(key);
                    shown.is_some_and(|shown| is_as_shown(value, shown))
                })
        }
        (Value::Array(answer), Value::Array(shown)) => {
            let mut pairs = answer.iter().zip(shown);
            answer.len() == shown.len() && pairs.all(|(answer, shown)| is_as_shown(answer, shown))
        }
        _ => answer == shown,
    }
}

#[test]
fn the_first_session_runs_as_it_stands() {
    let server = start();
    let output = run(&script("session"), &server);
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
    // Again, on what the first left behind.
    let again = run(&script("session"), &server);
    assert_eq!(again.matches(r#"{"unlocked":true}"#).count(), 2, "{again}");
    assert!(again.contains(r#""locked":true"#), "{again}");
}

/// What cron runs, and in what environment, for the crontab in the section.
fn crontab(name: &str) -> (Vec<(&'static str, &'static str)>, String) {
    let (_, rest) = section(name).split_once("```crontab\n").unwrap();
    let lines = rest.split_once("```").unwrap().0.lines();
    let (mut variables, mut command) = (Vec::new(), None);
    for line in lines {
        match line.split_once('=') {
            Some((name, value)) if !name.contains(' ') => variables.push((name, value)),
            // Five fields say when.
            _ => {
                command = Some(
                    line.split_whitespace()
                        .skip(5)
                        .collect::<Vec<_>>()
                        .join(" "),
                )
            }
        }
    }
    (variables, command.expect("a job"))
}

#[test]
fn the_job_in_the_crontab_runs_under_its_lock() {
    let server = start();
    let folder = server.setup().folder();
    let job = "#!/bin/sh\necho \"$LOCK_NAME $LOCK_FENCING_TOKEN\" >> ran; while [ ! -e go ]; do sleep 0.05; done\n";
    std::fs::write(folder.join("job.sh"), job).unwrap();
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(folder.join("job.sh"), executable).unwrap();
    let binary = Path::new(env!("CARGO_BIN_EXE_small-resource-server"));
    let (variables, command) = crontab("job");
    let here = format!("http://{}", server.address());
    let on_a_machine = || {
        let mut cron = Command::new("/bin/sh");
        cron.args(["-c", &command])
            .env_clear()
            .envs(variables.iter().copied())
            .current_dir(folder);
        // The README's server stands elsewhere.
        assert!(variables.contains(&("LOCK_SERVER", "http://localhost:9501")));
        let path = format!("{}:/usr/bin:/bin", binary.parent().unwrap().display());
        cron.env("LOCK_SERVER", &here).env("PATH", path);
        cron.spawn().unwrap()
    };
    let ran = || std::fs::read_to_string(folder.join("ran")).unwrap_or_default();
    let mut machines = [on_a_machine(), on_a_machine()];
    let looker = server.describe("nightly").key("development-read");
    until("one runs the job, the other waits", || {
        let seen = looker.send();
        seen.status == 200 && seen.json()["waiting"] == 1 && !ran().is_empty()
    });
    assert_eq!(ran(), "nightly 1\n");
    std::fs::write(folder.join("go"), "").unwrap();
    for machine in &mut machines {
        assert!(machine.wait().unwrap().success());
    }
    assert_eq!(ran(), "nightly 1\nnightly 2\n");
}

#[test]
fn the_examples_go_on_from_the_session_and_are_answered_as_they_show() {
    let server = start();
    let examples = script("api");
    // From here on each answer is one line, and its status the next.
    let telling = r#"
        echo "--- examples ---"
        curl() { command curl -sS -w '\n%{http_code}\n' "$@"; }
    "#;
    let all = format!("{}{telling}{examples}", script("session"));
    let output = run(&all, &server);
    let (_, answers) = output.split_once("--- examples ---\n").unwrap();
    let mut answers = answers.lines();
    let json = |text: &str| match text {
        "" => Value::Null,
        _ => serde_json::from_str(text).unwrap(),
    };
    // # 200 {"locked": true, …
    let comments = examples.lines().filter_map(|line| line.strip_prefix("# "));
    let shown = comments.filter(|comment| comment.starts_with(|c: char| c.is_ascii_digit()));
    for shown in shown {
        let (status, body) = shown.split_once(' ').unwrap_or((shown, ""));
        let answer = answers.next().unwrap();
        assert_eq!(answers.next(), Some(status), "{answer} is not {shown}");
        let as_shown = is_as_shown(&json(answer), &json(body));
        assert!(as_shown, "{answer} is not {shown}");
    }
    assert_eq!(answers.next(), None, "an answer that is not shown");
}

#[test]
fn the_key_of_a_team_reaches_its_names_and_no_others() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let setup = Setup::of_file(&root.join("config/development.conf"));
    let file = setup.folder().join("keys.toml");
    let binary = Path::new(env!("CARGO_BIN_EXE_small-resource-server"));
    let path = format!("{}:/usr/bin:/bin", binary.parent().unwrap().display());
    let script = script("keys").replace("/tmp/keys.toml", file.to_str().unwrap());
    let made = Command::new("bash")
        .args(["-euo", "pipefail", "-c", &script])
        .env("PATH", path)
        .status();
    assert!(made.unwrap().success());
    let server = setup.with("KEYS_FILE", file.to_str().unwrap()).start();
    let lock = |name: &str| {
        let lock = server.lock(&format!("{name}/s")).query("create=1");
        lock.key("the key of billing").send().status
    };
    assert_eq!((lock("billing:7"), lock("shipping:7")), (200, 401));
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
