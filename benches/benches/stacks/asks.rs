//! What is asked of Pontoon, as one table, and whether a run meets it.

use crate::peers::{Kind, PEERS};
use crate::results::{Metric, Results};
use crate::rows::{ROWS, Row};

/// One ask.
struct Ask {
    peer: &'static str,
    row: &'static str,
    metric: Metric,
    than: Than,
}

/// What a figure is held against.
#[derive(Clone, Copy)]
enum Than {
    /// At least so many times the kernel's.
    Kernel(f64),
    /// At least so many times the best of the other user-mode stacks'.
    Best(f64),
    /// At least so many times its own of another row.
    Own(&'static str, f64),
    AtLeast(f64),
    AtMost(f64),
}

use Metric::{Cpu, Extra, Value};
use Than::{AtLeast, AtMost, Best, Kernel, Own};

const ASKS: &[Ask] = &[
    ask("tcp-out-1500", Value, Kernel(0.5)),
    ask("tcp-out-1500", Value, Best(10.0)),
    ask("tcp-in-1500", Value, Kernel(0.5)),
    ask("tcp-in-1500", Value, Best(6.0)),
    ask("tcp-in-1500", Cpu, AtMost(0.3)),
    ask("tcp-published-1500", Value, Kernel(0.5)),
    ask("tcp-out-65520", Value, Best(1.1)),
    ask("tcp-in-65520", Value, Best(1.1)),
    ask("tcp-in-65520", Cpu, AtMost(0.3)),
    ask("tcp-out-1500-x8", Value, Own("tcp-out-1500", 0.9)),
    ask("tcp-in-1500-x8", Value, Own("tcp-in-1500", 0.9)),
    ask("c2c-1500", Value, Kernel(0.9)),
    ask("tcp-rr", Value, Best(1.0)),
    ask("udp-rr", Value, Best(1.0)),
    ask("crr-1", Value, Best(1.3)),
    ask("crr-16", Value, Best(1.3)),
    ask("crr-published-1", Value, Best(1.3)),
    ask("crr-published-16", Value, Best(1.3)),
    // "Steady": what is left is the noise of a machine.
    ask("crr-steady", Value, AtLeast(0.9)),
    ask("udp-64-out", Value, Best(1.3)),
    ask("udp-64-in", Value, Best(1.3)),
    ask("udp-1400-out", Value, Best(1.3)),
    ask("udp-1400-in", Value, Best(1.3)),
    ask("udp-gso-out", Value, Own("udp-plain-out", 5.0)),
    ask("udp-gso-in", Value, Own("udp-plain-in", 5.0)),
    ask("idle", Value, AtLeast(crate::rows::IDLE as f64)),
    ask("idle", Extra("bytes_each"), AtMost(512.0)),
    // One each, and a few that the stack has anyway.
    ask("idle", Extra("fds_each"), AtMost(1.01)),
    ask("idle", Extra("beyond_refused"), AtLeast(1.0)),
    ask("rr-with-idle", Extra("ratio"), AtMost(1.1)),
    ask("ready-ms", Value, AtMost(5.0)),
    ask("resident", Value, AtMost(6.0)),
    ask("resident", Extra("wakeups"), AtMost(0.0)),
    routed("tcp-out-1500", Kernel(0.8)),
    routed("tcp-in-1500", Kernel(0.8)),
    routed("tcp-published-1500", Kernel(0.8)),
    routed("tcp-out-65520", Kernel(0.8)),
    routed("tcp-in-65520", Kernel(0.8)),
];

/// An ask of rootless egress.
const fn ask(row: &'static str, metric: Metric, than: Than) -> Ask {
    Ask {
        peer: "pontoon",
        row,
        metric,
        than,
    }
}

/// An ask of routed egress.
const fn routed(row: &'static str, than: Than) -> Ask {
    Ask {
        peer: "routed",
        ..ask(row, Value, than)
    }
}

/// An ask and how a run stands to it.
pub(crate) struct Verdict {
    pub(crate) row: &'static str,
    /// What is asked, in words.
    pub(crate) asked: String,
    /// What was measured, in the same terms.
    pub(crate) measured: Option<f64>,
    /// `None` if a figure it takes is missing.
    pub(crate) met: Option<bool>,
}

/// Which kind of peer Pontoon is compared with where there are several: the best of the user-mode stacks in a row.
pub(crate) fn best_peer(results: &Results, row: &Row, metric: Metric) -> Option<f64> {
    let all = PEERS
        .iter()
        .filter(|p| p.kind == Kind::Other)
        .filter_map(|p| results.median(row.name, p.name, metric));
    if row.more_is_better() && metric != Metric::Cpu {
        all.max_by(f64::total_cmp)
    } else {
        all.min_by(f64::total_cmp)
    }
}

/// All asks of the rows that were measured.
pub(crate) fn verdicts(results: &Results) -> Vec<Verdict> {
    ASKS.iter()
        .filter(|a| results.has_row(a.row) && (a.peer == "pontoon" || results.has_peer(a.peer)))
        .map(|a| {
            let row = ROWS.iter().find(|r| r.name == a.row).expect("asks name rows");
            let ours = results.median(a.row, a.peer, a.metric);
            let mut what = match a.metric {
                Value => String::new(),
                Cpu => format!("CPU {} ", row.cpu_unit()),
                Extra(name) => format!("{name} "),
            };
            if a.peer != "pontoon" {
                what.insert_str(0, &format!("{} ", a.peer));
            }
            let over = |theirs: Option<f64>| Some(ours? / theirs.filter(|&t| t > 0.0)?);
            let (asked, measured, met) = match a.than {
                Kernel(f) => {
                    let r = over(results.median(a.row, "kernel", a.metric));
                    (format!("{what}≥ {f} × kernel"), r, r.map(|r| r >= f))
                }
                Best(f) => {
                    let r = over(best_peer(results, row, a.metric));
                    (format!("{what}≥ {f} × best peer"), r, r.map(|r| r >= f))
                }
                Own(other, f) => {
                    let r = over(results.median(other, a.peer, a.metric));
                    (format!("{what}≥ {f} × own {other}"), r, r.map(|r| r >= f))
                }
                AtLeast(f) => (format!("{what}≥ {f}"), ours, ours.map(|o| o >= f)),
                AtMost(f) => (format!("{what}≤ {f}"), ours, ours.map(|o| o <= f)),
            };
            Verdict {
                row: a.row,
                asked,
                measured,
                met,
            }
        })
        .collect()
}
