//! Routed egress: networks with a link to the world, on which the gateway translates frames.
//!
//! # Theory of operation
//!
//! Who knows what a router with masquerade does is the kernel. So there are two routers, with the same containers behind them
//! and the same world before them (`pontoon_fixtures::lab::Wan`): [`Way::Kernel`] is a bridge, a veth and nft's masquerade
//! and DNAT with connection tracking, [`Way::Pontoon`] a network of the daemon's with `--uplink`. A test of [`either_way!`] is one
//! probe, which asks by real programs and writes down what came of it, a line for each; and the lines that are expected, which are
//! the same for both. Where the two are meant to differ, as an RFC asks for what the kernel does not do, the line begins with
//! `kernel|` or `pontoon|`, and a comment names the reason. So the kernel's own outcome is checked with every run as Pontoon's is,
//! and none of the expectations can be a guess.
//!
//! What only Pontoon has (its four kinds of links, DHCP, routes between networks, restarts) is tested without the kernel beside it.

use pontoon_fixtures::lab::{Done, World};

use site::{Site, Way};

/// A probe that has to come to the same outcome by the kernel's router and by Pontoon's: see the module.
macro_rules! either_way {
    ($(#[doc = $doc:literal])* fn $name:ident($world:ident, $way:ident, $log:ident) $body:block says $expected:literal) => {
        $(#[doc = $doc])*
        mod $name {
            #[allow(unused_imports)]
            use super::*;
            #[allow(unused_imports)]
            use $crate::uplink::Log;
            fn probe($world: &pontoon_fixtures::lab::World, $way: $crate::uplink::Way, $log: &mut Log) $body
            #[test]
            fn by_the_kernel() {
                $crate::uplink::compare($crate::uplink::Way::Kernel, probe, $expected);
            }
            #[test]
            fn by_pontoon() {
                $crate::uplink::compare($crate::uplink::Way::Pontoon, probe, $expected);
            }
        }
    };
}

mod addresses;
mod carrier;
mod conntrack;
mod errors;
mod failures;
mod groups;
mod kinds;
mod odd;
mod out;
mod ports;
mod published;
mod restarts;
mod routes;
mod run;
mod scans;
mod site;

/// Runs a probe on one router, and wants it to say what is expected of that.
fn compare(way: Way, probe: fn(&World, Way, &mut Log), expected: &str) {
    let world = crate::world();
    let mut log = Log::default();
    probe(&world, way, &mut log);
    let expected: Vec<&str> = expected
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty())
        .filter_map(|l| match l.split_once("| ") {
            Some(("kernel", rest)) => (way == Way::Kernel).then_some(rest),
            Some(("pontoon", rest)) => (way == Way::Pontoon).then_some(rest),
            _ => Some(l),
        })
        .collect();
    assert!(
        log.0 == expected,
        "by {way:?}; expected, and not so (-), and what came instead (+):\n{}",
        differences(&expected, &log.0)
    );
}

/// Lines of both, with a mark before those that only one has. They are short, so whatever is not at its place is shown.
fn differences(expected: &[&str], found: &[String]) -> String {
    let mut text = String::new();
    let mut rest = found;
    for line in expected {
        match rest.iter().position(|f| f == line) {
            Some(at) => {
                text.extend(rest[..at].iter().map(|f| format!("+ {f}\n")));
                text += &format!("  {line}\n");
                rest = &rest[at + 1..];
            }
            None => text += &format!("- {line}\n"),
        }
    }
    text.extend(rest.iter().map(|f| format!("+ {f}\n")));
    text
}

/// What came of a probe.
#[derive(Debug, Default)]
struct Log(Vec<String>);

impl Log {
    /// Writes down what came of one thing, a line for each line of it.
    fn add(&mut self, what: &str, came: impl std::fmt::Display) {
        let came = came.to_string();
        if came.trim().is_empty() {
            self.0.push(format!("{what}: nothing"));
        }
        for line in came.lines().filter(|l| !l.trim().is_empty()) {
            self.0.push(format!("{what}: {}", line.trim()));
        }
    }

    /// Writes down lines as they are.
    fn all(&mut self, lines: &str) {
        self.0.extend(lines.lines().map(str::to_owned));
    }
}

/// What a command said; what it complained of last, without what it did or how long that took, if it failed. One that
/// `timeout` ended got no answer.
fn came(done: &Done) -> String {
    if done.success() {
        return done.text();
    }
    if done.code().is_none_or(|code| code == 124) {
        return "no answer".to_owned();
    }
    let errors = done.errors();
    let last = errors.lines().last().unwrap_or_default();
    last.rsplit(": ").next().unwrap_or_default().to_owned()
}

/// What `ping` came to: the errors it was told of, each once, and how many answers there were.
fn pinged(done: &Done) -> String {
    let (text, errors) = (done.text(), done.errors());
    let mut lines = Vec::new();
    for line in text.lines().chain(errors.lines()) {
        let words: Vec<&str> = line
            .split_whitespace()
            .filter(|w| !w.starts_with("icmp_seq="))
            .collect();
        let line = words.join(" ");
        let said = line.starts_with("From ") || line.contains("local error");
        if said && !lines.contains(&line) {
            lines.push(line);
        }
    }
    let received = text.split(" received").next().and_then(|s| s.rsplit(' ').next());
    lines.push(format!("{} received", received.unwrap_or("none")));
    lines.join("\n")
}

/// An address with its port made unknown, for ports that nobody chose.
fn masked(text: &str) -> String {
    let mask = |line: &str| match line.rsplit_once([':', ' ']) {
        Some((address, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => {
            format!("{address} PORT")
        }
        _ => line.to_owned(),
    };
    text.lines().map(mask).collect::<Vec<_>>().join("\n")
}
