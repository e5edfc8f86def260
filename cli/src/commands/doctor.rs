//! `pontoon doctor`: what this host lacks for `pontoon run`, and how to mend it.
//!
//! Nothing is changed and nothing is loaded: files are read, sockets are opened and closed, and a child makes the
//! namespaces that `run` would make and a TAP in them, all of which goes with it ([`trial`]). Each check gathers what the
//! host says and gives it to a pure function that judges it.

use std::process::ExitCode;

use anyhow::Result;
use serde::Serialize;

use crate::args::JsonArgs;
use crate::output;

mod host;
mod kernel;
mod sandbox;
#[cfg(test)]
mod tests;
pub(crate) mod trial;

/// How bad it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    /// Nothing is amiss.
    Ok,
    /// `run` works, with less.
    Warning,
    /// `run` cannot work.
    Failure,
}

impl Level {
    const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failure => "failure",
        }
    }
}

/// What one check found.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
struct Finding {
    /// What was looked at.
    check: &'static str,
    level: Level,
    /// One line: what is so.
    what: String,
    /// One line: what to do, if anything.
    remedy: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, what: impl Into<String>) -> Self {
        Self {
            check,
            level: Level::Ok,
            what: what.into(),
            remedy: None,
        }
    }

    fn warning(check: &'static str, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            check,
            level: Level::Warning,
            what: what.into(),
            remedy: Some(remedy.into()),
        }
    }

    fn failure(check: &'static str, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            check,
            level: Level::Failure,
            what: what.into(),
            remedy: Some(remedy.into()),
        }
    }
}

/// Prints what was found; fails if `run` cannot work.
pub(crate) fn doctor(args: &JsonArgs) -> Result<ExitCode> {
    let findings = examine();
    if args.json {
        output::print_json(&findings)?;
    } else {
        output::print(&render(&findings))?;
    }
    let works = findings.iter().all(|f| f.level != Level::Failure);
    Ok(if works {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn examine() -> Vec<Finding> {
    let (tun, may_open) = host::tun();
    let mut findings = vec![kernel::version(), tun];
    findings.extend(trial::findings(may_open));
    findings.extend([
        host::control_directory(),
        host::ping(),
        host::low_ports(),
        host::open_files(),
        host::ipv4(),
        host::ipv6(),
        host::resolvers(),
    ]);
    findings.extend(sandbox::findings());
    findings.extend(kernel::sockets());
    findings.extend(kernel::fallbacks());
    findings
}

fn render(findings: &[Finding]) -> String {
    use std::fmt::Write as _;
    let width = findings.iter().map(|f| f.check.len()).max().unwrap_or(0);
    let mut text = String::new();
    for f in findings {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{:<7}  {:<width$}  {}", f.level.name(), f.check, f.what);
        if let Some(remedy) = &f.remedy {
            let _ = writeln!(text, "{:7}  {:width$}  -> {remedy}", "", "");
        }
    }
    let count = |level| findings.iter().filter(|f| f.level == level).count();
    text.push_str(&match (count(Level::Failure), count(Level::Warning)) {
        (0, 0) => "\n`pontoon run` works here.\n".to_owned(),
        (0, n) => format!("\n`pontoon run` works here; warnings: {n}.\n"),
        (n, _) => format!("\n`pontoon run` cannot work here; failures: {n}.\n"),
    });
    text
}
