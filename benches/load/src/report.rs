//! The rows of the table, and the table as text and as JSON.

use std::fmt::Write;

use serde_json::{Value, json};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    AtLeast,
    AtMost,
}

/// One line of the table.
#[derive(Clone, Debug)]
pub struct Row {
    pub what: String,
    pub goal: Goal,
    /// What is to be reached, in the same unit as `measured`.
    pub target: f64,
    pub unit: &'static str,
    /// Why there is none, where it could not be measured.
    pub measured: Result<f64, String>,
    /// What else a reader should know: absolute figures, CPU, the yardstick.
    pub detail: String,
}

impl Row {
    pub fn met(&self) -> Option<bool> {
        let measured = *self.measured.as_ref().ok()?;
        Some(match self.goal {
            Goal::AtLeast => measured >= self.target,
            Goal::AtMost => measured <= self.target,
        })
    }

    /// How far it got: 1 is the target, more is better.
    pub fn reached(&self) -> Option<f64> {
        let measured = *self.measured.as_ref().ok()?;
        Some(match self.goal {
            Goal::AtLeast => measured / self.target,
            Goal::AtMost => self.target / measured.max(self.target * 1e-6),
        })
    }

    pub fn target_text(&self) -> String {
        let sign = match self.goal {
            Goal::AtLeast => "≥",
            Goal::AtMost => "≤",
        };
        format!("{sign} {}{}", figure(self.target), self.unit)
    }

    pub fn measured_text(&self) -> String {
        match &self.measured {
            Ok(measured) => format!("{}{}", figure(*measured), self.unit),
            Err(why) => format!("not measured: {why}"),
        }
    }

    fn verdict(&self) -> &'static str {
        match self.met() {
            Some(true) => "yes",
            Some(false) => "**no**",
            None => "–",
        }
    }

    fn json(&self) -> Value {
        json!({
            "what": self.what,
            "target": self.target_text(),
            "target_value": self.target,
            "unit": self.unit.trim(),
            "measured": self.measured.as_ref().ok(),
            "met": self.met(),
            "detail": self.detail,
        })
    }
}

/// Three digits that matter; thousands with commas.
pub fn figure(value: f64) -> String {
    if value.abs() >= 100.0 {
        let digits = format!("{value:.0}");
        let mut text = String::new();
        for (index, digit) in digits.chars().enumerate() {
            if index > 0 && (digits.len() - index) % 3 == 0 {
                text.push(',');
            }
            text.push(digit);
        }
        return text;
    }
    match value.abs() {
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 0.1 || v == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// Everything that a run found out.
pub struct Report {
    pub rows: Vec<Row>,
    /// The medians that the ratios were made of.
    pub figures: Vec<Figure>,
    /// What it was measured on and with, as pairs of name and value.
    pub machine: Vec<(&'static str, String)>,
}

/// One load on one server.
pub struct Figure {
    pub what: &'static str,
    pub per_second: f64,
    pub server_us: f64,
    pub generator_cores: f64,
}

impl Figure {
    /// How much of the CPU that server and load generator used was the generator's, from 0 to 1.
    fn generator_share(&self) -> f64 {
        let server_cores = self.per_second * self.server_us / 1e6;
        self.generator_cores / (self.generator_cores + server_cores).max(f64::MIN_POSITIVE)
    }
}

const FIGURES: &str = "
## The figures behind the ratios

Medians of short runs in turns. The load generator runs on the same cores: where its share of the CPU is large, it
limits the rate as much as the server does, and the server's CPU time for each request is the fairer comparison.

";

const PROMISES: &str = "\
What the peers promise, besides speed:

- This server: what was granted or released is committed before it is answered (not with the memory store), the
  queue is in order of arrival, a waiter is woken by the release, and every grant has a fencing token that grows.
- etcd: committed before it is answered, replicated where it has several members (here it has one, as the others);
  its lock queues in order and its revision serves as a fencing token. Each connection here takes its locks under
  one lease, made beforehand.
- Redis with `appendfsync always`: on disk before it is answered; no queue, no waiting, no fencing token, and `DEL`
  releases whoever's lock it is. Without fsync (its default is once a second) it is faster and loses grants when
  the machine fails.
";

impl Report {
    pub fn markdown(&self) -> String {
        let mut text = String::from(
            "# Speed\n\nWritten by `make bench`; all of it was measured in one run.\n\n",
        );
        text.push_str(
            "| what | to reach | measured | reached | in detail |\n|---|---|---|---|---|\n",
        );
        for row in &self.rows {
            let (target, measured) = (row.target_text(), row.measured_text());
            let (what, verdict, detail) = (&row.what, row.verdict(), &row.detail);
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "| {what} | {target} | {measured} | {verdict} | {detail} |"
            );
        }
        text.push_str(FIGURES);
        text.push_str(
            "| load | per second | server CPU each | load generator, its share of both |\n|---|---|---|---|\n",
        );
        for f in &self.figures {
            let (rate, cpu) = (figure(f.per_second), figure(f.server_us));
            let (cores, share) = (f.generator_cores, f.generator_share() * 100.0);
            let _ = writeln!(
                text,
                "| {} | {rate} | {cpu} µs | {cores:.2} cores, {share:.0} % |",
                f.what
            );
        }
        text.push_str("\n## Machine and settings\n\n");
        for (name, value) in &self.machine {
            let _ = writeln!(text, "- {name}: {value}");
        }
        let _ = write!(text, "\n{PROMISES}");
        text
    }

    pub fn json(&self) -> String {
        let figures: Vec<Value> = self
            .figures
            .iter()
            .map(|f| {
                json!({
                    "what": f.what,
                    "per_second": f.per_second,
                    "server_cpu_us": f.server_us,
                    "generator_cores": f.generator_cores,
                    "generator_share": f.generator_share(),
                })
            })
            .collect();
        let machine: serde_json::Map<String, Value> = self
            .machine
            .iter()
            .map(|(name, value)| ((*name).to_owned(), json!(value)))
            .collect();
        let rows: Vec<Value> = self.rows.iter().map(Row::json).collect();
        let all = json!({ "rows": rows, "figures": figures, "machine": machine });
        format!("{all:#}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(goal: Goal, measured: f64) -> Row {
        Row {
            what: String::new(),
            goal,
            target: 0.5,
            unit: "",
            measured: Ok(measured),
            detail: String::new(),
        }
    }

    #[test]
    fn a_target_is_met_from_its_own_side() {
        assert_eq!(row(Goal::AtLeast, 0.6).met(), Some(true));
        assert_eq!(row(Goal::AtLeast, 0.4).met(), Some(false));
        assert_eq!(row(Goal::AtMost, 0.6).met(), Some(false));
        assert_eq!(row(Goal::AtMost, 0.4).met(), Some(true));
        assert!(row(Goal::AtMost, 0.25).reached().is_some_and(|r| r == 2.0));
        assert!(row(Goal::AtLeast, 0.25).reached().is_some_and(|r| r == 0.5));
    }

    #[test]
    fn figures_are_short() {
        assert_eq!(figure(1234567.8), "1,234,568");
        assert_eq!(figure(999.6), "1,000");
        assert_eq!(figure(12.34), "12.3");
        assert_eq!(figure(0.834), "0.83");
        assert_eq!(figure(0.0123), "0.012");
    }
}
