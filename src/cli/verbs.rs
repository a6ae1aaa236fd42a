//! The client verbs besides `lock`: who holds what, documents, and the lock of a ticket in the environment.

use std::fmt::Display;
use std::io::Read;
use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;
use serde_json::json;
use serde_json::value::RawValue;
use small_resource_client::{Client, Error, Event, Guard, PastLease, Resource, Ticket};

use super::output::{print, printable, say, table};
use super::remote::{self, EXIT_FAILED, EXIT_REFUSED, EXIT_USAGE, ServerArgs, sentence, whoami};

/// The largest `MAX_BODY_BYTES` that a server can have.
const DOCUMENT_BYTES_MAX: u64 = 1 << 30;

#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct VerbArgs {
    #[command(flatten)]
    server: ServerArgs,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Verb {
    /// List who holds what
    Locks {
        /// What the names begin with
        #[arg(default_value = "")]
        prefix: String,
        #[command(flatten)]
        args: VerbArgs,
    },
    /// Show a resource: who holds it, who waits
    Show {
        name: String,
        #[command(flatten)]
        args: VerbArgs,
    },
    /// Show the last leases of a resource
    History {
        name: String,
        #[command(flatten)]
        args: VerbArgs,
    },
    /// Print events as they happen, also after the server was away
    Watch {
        /// What the names begin with
        #[arg(default_value = "")]
        prefix: String,
        #[command(flatten)]
        args: VerbArgs,
    },
    /// Print a document
    Get {
        name: String,
        selector: String,
        #[command(flatten)]
        args: VerbArgs,
    },
    /// Write a document from standard input, under the lock of LOCK_TICKET if that is set
    Put {
        name: String,
        selector: String,
        #[command(flatten)]
        args: VerbArgs,
    },
    /// Renew the lock of LOCK_TICKET
    Renew {
        /// The resource [default: LOCK_NAME]
        name: Option<String>,
        /// How long the lock is held from now on, at least
        #[arg(short, long, value_name = "DURATION", default_value = "30s", value_parser = remote::duration)]
        ttl: Duration,
        #[command(flatten)]
        args: VerbArgs,
    },
    /// Release the lock of LOCK_TICKET
    Unlock {
        /// The resource [default: LOCK_NAME]
        name: Option<String>,
        #[command(flatten)]
        args: VerbArgs,
    },
    /// End somebody else's lease, or their place in the queue
    ForceUnlock {
        name: String,
        /// Why; the client that loses the lock is told
        #[arg(long)]
        reason: String,
        /// End the lease only if it has this token
        #[arg(long, value_name = "N")]
        fencing_token: Option<u64>,
        /// End no lease, but the place in the queue with this id (see `show`)
        #[arg(long, value_name = "ID", conflicts_with = "fencing_token")]
        waiter: Option<String>,
        #[command(flatten)]
        args: VerbArgs,
    },
}

/// Prints what a verb came to: JSON for programs, text for people.
fn print_either(as_json: bool, json: impl Display, text: &str) -> ExitCode {
    match as_json {
        true => print(&format!("{json}\n")),
        false => print(text),
    }
}

impl Verb {
    /// Its name on the command line, and the arguments that it shares with the others.
    fn shared(&self) -> (&'static str, &VerbArgs) {
        match self {
            Verb::Locks { args, .. } => ("locks", args),
            Verb::Show { args, .. } => ("show", args),
            Verb::History { args, .. } => ("history", args),
            Verb::Watch { args, .. } => ("watch", args),
            Verb::Get { args, .. } => ("get", args),
            Verb::Put { args, .. } => ("put", args),
            Verb::Renew { args, .. } => ("renew", args),
            Verb::Unlock { args, .. } => ("unlock", args),
            Verb::ForceUnlock { args, .. } => ("force-unlock", args),
        }
    }

    /// Runs the verb. Exit code 1: the server refused, or there is no such name or document; 64: the arguments
    /// cannot be used; 125: no server answered.
    pub fn run(&self) -> ExitCode {
        let (verb, args) = self.shared();
        let client = match args.server.client(&whoami()) {
            Ok(client) => client,
            Err(sentence) => return remote::fail(verb, EXIT_USAGE, &sentence),
        };
        remote::block_on(verb, async {
            let error = match self.ask(&client, args.json).await {
                Ok(code) => return code,
                Err(error) => error,
            };
            let code = match error {
                Error::Unreachable(_) => EXIT_FAILED,
                Error::Invalid(_) => EXIT_USAGE,
                _ => EXIT_REFUSED,
            };
            remote::fail(verb, code, &sentence(&error))
        })
    }

    /// Asks the server and prints the answer.
    async fn ask(&self, client: &Client, as_json: bool) -> Result<ExitCode, Error> {
        match self {
            Verb::Locks { prefix, .. } => locks(client, prefix, as_json).await,
            Verb::Show { name, .. } => show(client, name, as_json).await,
            Verb::History { name, .. } => history(client, name, as_json).await,
            Verb::Watch { prefix, .. } => watch(client, prefix, as_json).await,
            Verb::Get { name, selector, .. } => get(client, name, selector).await,
            Verb::Put { name, selector, .. } => put(client, name, selector, as_json).await,
            Verb::Renew { name, ttl, .. } => {
                let guard = Guard::resume(client, ticket(name.as_deref(), *ttl)?).await?;
                let left = guard
                    .deadline()
                    .map(|deadline| deadline.remaining().as_millis());
                let ticket = guard.into_ticket();
                let value = json!({"renewed": true, "fencingToken": ticket.fencing_token, "remainingMs": left});
                let text = format!("{:?} is renewed\n", printable(&ticket.name));
                Ok(print_either(as_json, value, &text))
            }
            Verb::Unlock { name, .. } => {
                let ticket = ticket(name.as_deref(), Duration::from_secs(30))?;
                client.unlock(&ticket).await?;
                let text = format!("{:?} is released\n", printable(&ticket.name));
                Ok(print_either(as_json, json!({"unlocked": true}), &text))
            }
            Verb::ForceUnlock {
                name,
                reason,
                fencing_token,
                waiter,
                ..
            } => {
                let forced = match waiter {
                    Some(waiter) => client.remove_waiter(name, reason, waiter).await?,
                    None => client.force_unlock(name, reason, *fencing_token).await?,
                };
                let text = match (forced.forced, waiter) {
                    (true, None) => "forced off\n",
                    (false, None) => "nobody held it\n",
                    (true, Some(_)) => "removed\n",
                    (false, Some(_)) => "it was removed before\n",
                };
                Ok(print_either(as_json, &forced.json, text))
            }
        }
    }
}

/// The ticket in the environment variables that `lock` sets for its command and `--print-env` prints.
fn ticket(name: Option<&str>, ttl: Duration) -> Result<Ticket, Error> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let of_environment = variable("LOCK_NAME");
    let missing = |what: &str| {
        Error::Invalid(format!(
            "{what} is not set: `lock` sets it for its command, --print-env prints it"
        ))
    };
    let name = name.map(str::to_owned).or_else(|| of_environment.clone());
    let name = name.ok_or_else(|| missing("LOCK_NAME"))?;
    // With several locks, each has a ticket of its own in LOCKS.
    let all: Vec<serde_json::Value> = variable("LOCKS")
        .and_then(|locks| serde_json::from_str(&locks).ok())
        .unwrap_or_default();
    let of_many = all.iter().find(|lock| lock["name"] == name.as_str());
    let ticket = match of_many.and_then(|lock| lock["ticket"].as_str()) {
        Some(ticket) => Some(ticket.to_owned()),
        None if of_environment.as_ref().is_none_or(|own| *own == name) => variable("LOCK_TICKET"),
        None => None,
    };
    let ticket = ticket.ok_or_else(|| missing("LOCK_TICKET"))?;
    Ok(Ticket {
        name,
        ticket,
        fencing_token: 0,
        ttl,
    })
}

async fn get(client: &Client, name: &str, selector: &str) -> Result<ExitCode, Error> {
    let found = client.read::<Box<RawValue>>(name, selector).await?;
    let Some(document) = found else {
        let sentence = format!("Nothing was ever written at {selector:?} of {name:?}.");
        return Ok(remote::fail("get", EXIT_REFUSED, &sentence));
    };
    Ok(print(&format!("{}\n", document.get())))
}

/// The JSON text on standard input. It is parsed while it is read, so that input without an end (`/dev/zero`) is
/// refused at its first byte that is not JSON, and not kept in memory until then.
fn document_from_input() -> Result<Box<RawValue>, Error> {
    let mut input = std::io::stdin().lock().take(DOCUMENT_BYTES_MAX + 1);
    let read: Result<Box<RawValue>, _> = serde_json::from_reader(&mut input);
    if input.limit() == 0 {
        let why = "standard input is larger than 1 GiB, which no server accepts";
        return Err(Error::Invalid(why.into()));
    }
    read.map_err(|error| Error::Invalid(format!("standard input is not JSON: {error}")))
}

async fn put(
    client: &Client,
    name: &str,
    selector: &str,
    as_json: bool,
) -> Result<ExitCode, Error> {
    let value = document_from_input()?;
    match ticket(Some(name), Duration::from_secs(30)) {
        Ok(ticket) => client.write_with(&ticket, selector, &value).await?,
        Err(_) => client.write(name, selector, &value).await?,
    }
    Ok(print_either(as_json, json!({"written": true}), ""))
}

async fn locks(client: &Client, prefix: &str, as_json: bool) -> Result<ExitCode, Error> {
    let all = client.list(prefix).collect().await?;
    let row = |resource: &Resource| {
        let holder = resource.holder.clone().unwrap_or_default();
        let held = match (resource.locked, holder.owner) {
            (false, _) => String::new(),
            (true, owner) => owner.unwrap_or_else(|| "(unnamed)".into()),
        };
        vec![
            resource.name.clone(),
            held,
            holder.acquired_at.unwrap_or_default(),
            resource.waiting.to_string(),
            holder.reason.unwrap_or_default(),
        ]
    };
    let rows: Vec<_> = all.iter().map(row).collect();
    let text = table(&["NAME", "HOLDER", "SINCE", "WAITING", "REASON"], &rows);
    let json = array(all.iter().map(|resource| &*resource.json));
    Ok(print_either(as_json, json, &text))
}

/// A JSON array of values that are JSON.
fn array<'a>(values: impl Iterator<Item = &'a str>) -> String {
    format!("[{}]", values.collect::<Vec<_>>().join(","))
}

async fn show(client: &Client, name: &str, as_json: bool) -> Result<ExitCode, Error> {
    let Some(resource) = client.describe(name).await? else {
        let sentence = format!("There is no resource {name:?}.");
        return Ok(remote::fail("show", EXIT_REFUSED, &sentence));
    };
    let mut rows: Vec<Vec<String>> = Vec::new();
    let row = |part: String, texts: [&Option<String>; 4], token: String| {
        let [owner, mode, since, reason] = texts.map(|text| text.clone().unwrap_or_default());
        vec![part, owner, mode, since, token, reason]
    };
    for holder in &resource.holders {
        let texts = [
            &holder.owner,
            &holder.mode,
            &holder.acquired_at,
            &holder.reason,
        ];
        rows.push(row("holds".into(), texts, holder.fencing_token.to_string()));
    }
    for waiter in &resource.queue {
        let texts = [
            &waiter.owner,
            &waiter.mode,
            &waiter.waiting_since,
            &waiter.reason,
        ];
        let part = format!("waits, {}", waiter.position);
        rows.push(row(part, texts, waiter.id.clone().unwrap_or_default()));
    }
    let mut text = format!(
        "{}: {} waiting, {} documents\n",
        printable(&resource.name),
        resource.waiting,
        resource.selectors
    );
    text += &table(
        &["", "OWNER", "MODE", "SINCE", "TOKEN OR ID", "REASON"],
        &rows,
    );
    Ok(print_either(as_json, &resource.json, &text))
}

async fn history(client: &Client, name: &str, as_json: bool) -> Result<ExitCode, Error> {
    let leases = client.history(name).await?;
    let time = |millis: Option<u64>| {
        let time = millis
            .map(|millis| humantime::format_duration(Duration::from_millis(millis)).to_string());
        time.unwrap_or_default()
    };
    let row = |lease: &PastLease| {
        vec![
            lease.fencing_token.to_string(),
            lease.owner.clone().unwrap_or_default(),
            lease.acquired_at.clone().unwrap_or_default(),
            time(lease.queued_ms),
            time(lease.held_ms),
            end_of(lease),
            lease.reason.clone().unwrap_or_default(),
        ]
    };
    let rows: Vec<_> = leases.iter().map(row).collect();
    let text = table(
        &["TOKEN", "OWNER", "SINCE", "WAITED", "HELD", "END", "REASON"],
        &rows,
    );
    let json = array(leases.iter().map(|lease| &*lease.json));
    Ok(print_either(as_json, json, &text))
}

/// How a lease ended; if it was forced off, also by whom and why.
fn end_of(lease: &PastLease) -> String {
    let mut end = lease.end.clone();
    if let Some(forced) = &lease.forced {
        for (before, text) in [(" by ", &forced.by), (": ", &forced.reason)] {
            if let Some(text) = text {
                end += &format!("{before}{text}");
            }
        }
    }
    end
}

/// Prints events until nobody reads them, or the server refuses. When the stream ends it connects again, and says that
/// events are missing.
async fn watch(client: &Client, prefix: &str, as_json: bool) -> Result<ExitCode, Error> {
    let mut watch = client.watch(prefix).await?;
    loop {
        let why = match watch.next().await {
            Ok(Some(event)) => {
                let printed = print_either(as_json, &event.json, &event_line(&event));
                if printed != ExitCode::SUCCESS {
                    return Ok(printed);
                }
                continue;
            }
            Ok(None) => "The server ended the stream of events.".to_owned(),
            Err(error @ Error::Unreachable(_)) => sentence(&error),
            Err(error) => return Err(error),
        };
        say(&format!("watch: {why} Connecting again."));
        watch.reconnect().await?;
        say("watch: Connected again; the events in between are missing.");
    }
}

fn event_line(event: &Event) -> String {
    let mut line = format!("{} {}", event.at.as_deref().unwrap_or("-"), event.kind);
    let token = event.fencing_token.map(|token| token.to_string());
    let missed = event.missed.map(|missed| missed.to_string());
    for (label, value) in [
        ("", &event.name),
        ("", &event.selector),
        ("owner=", &event.owner),
        ("token=", &token),
        ("reason=", &event.reason),
        ("missed=", &missed),
    ] {
        if let Some(value) = value {
            line += &format!(" {label}{}", printable(value));
        }
    }
    line.push('\n');
    line
}
