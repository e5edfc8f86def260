//! The tables, as Markdown that reads well as plain text.

use std::fmt::Write as _;

use crate::asks::{self, Verdict};
use crate::peers::{Can, PEERS, Peer};
use crate::results::{Metric, Results};
use crate::rows::{ROWS, Row, Way, Work};

/// All tables of a run.
pub(crate) fn tables(results: &Results, how: &str) -> String {
    let peers: Vec<&Peer> = PEERS.iter().filter(|p| results.has_peer(p.name)).collect();
    let rows: Vec<&Row> = ROWS.iter().filter(|r| results.has_row(r.name)).collect();
    let mut text = format!("{how}\n\n");
    text += &figures(results, &peers, &rows);
    text += "\nCPU time of the stack's own processes:\n\n";
    text += &cpu(results, &peers, &rows);
    let extras = extras(results, &peers, &rows);
    if !extras.is_empty() {
        text += "\nBeside the figures:\n\n";
        text += &extras;
    }
    text += "\nAsked and measured:\n\n";
    text += &verdicts(&asks::verdicts(results));
    let notes = notes(results, &peers, &rows);
    if !notes.is_empty() {
        text += "\nWhat went wrong or needs saying:\n\n";
        text += &notes;
    }
    text
}

fn figures(results: &Results, peers: &[&Peer], rows: &[&Row]) -> String {
    let routed = results.has_peer("routed").then_some("routed ÷ kernel");
    let mut lines = vec![
        ["row", "unit"]
            .into_iter()
            .chain(peers.iter().map(|p| p.name))
            .chain(["÷ kernel", "÷ best peer"])
            .chain(routed)
            .map(str::to_owned)
            .collect::<Vec<_>>(),
    ];
    for row in rows {
        let mut line = vec![row.name.to_owned(), row.unit.to_owned()];
        line.extend(peers.iter().map(|p| cell(results, row, p, Metric::Value)));
        let median = |peer| results.median(row.name, peer, Metric::Value);
        let ratio = |ours: Option<f64>, theirs: Option<f64>| match (ours, theirs) {
            (Some(o), Some(t)) if t > 0.0 => number(o / t),
            _ => String::new(),
        };
        let (ours, kernel) = (median("pontoon"), median("kernel"));
        line.push(ratio(ours, kernel));
        line.push(ratio(ours, asks::best_peer(results, row, Metric::Value)));
        line.extend(routed.map(|_| ratio(median("routed"), kernel)));
        lines.push(line);
    }
    table(&lines)
}

fn cpu(results: &Results, peers: &[&Peer], rows: &[&Row]) -> String {
    let peers: Vec<&&Peer> = peers.iter().filter(|p| !p.programs.is_empty()).collect();
    let mut lines = vec![
        ["row", "unit"]
            .into_iter()
            .chain(peers.iter().map(|p| p.name))
            .map(str::to_owned)
            .collect::<Vec<_>>(),
    ];
    for row in rows.iter().filter(|r| !r.cpu_unit().is_empty()) {
        let mut line = vec![row.name.to_owned(), row.cpu_unit().to_owned()];
        line.extend(peers.iter().map(|p| cell(results, row, p, Metric::Cpu)));
        lines.push(line);
    }
    table(&lines)
}

/// Median and, where there were several rounds, the spread.
fn cell(results: &Results, row: &Row, peer: &Peer, metric: Metric) -> String {
    let Some(median) = results.median(row.name, peer.name, metric) else {
        return if can(peer, row) { "–" } else { "" }.to_owned();
    };
    let failed = results
        .cell(row.name, peer.name)
        .is_some_and(|c| !c.failed.is_empty());
    let mut text = number(median);
    match results.spread(row.name, peer.name, metric) {
        Some((low, high)) if low < high => {
            let _ = write!(text, " ({}–{})", number(low), number(high));
        }
        Some(_) | None => {}
    }
    if failed {
        text.push('!');
    }
    text
}

/// True if a peer is made for what a row does.
pub(crate) fn can(peer: &Peer, row: &Row) -> bool {
    let stack = !peer.programs.is_empty();
    if peer.can == Can::OnlyBulk {
        return match row.work {
            Work::Bulk { way, streams } => way != Way::Published && streams == 1,
            work => work == Work::Neighbours,
        };
    }
    match row.work {
        Work::Neighbours => peer.can != Can::NoNeighbours,
        Work::Ready => !peer.ready.is_empty(),
        Work::ReadyRun => !peer.ready_run.is_empty(),
        Work::Resident => peer.can != Can::OnlyNeighbours && stack,
        Work::Bulk { .. }
        | Work::TcpRr
        | Work::UdpRr
        | Work::Crr { .. }
        | Work::Steady
        | Work::Flood { .. }
        | Work::Quic { .. }
        | Work::Idle
        | Work::RrWithIdle => peer.can != Can::OnlyNeighbours,
    }
}

/// Latencies are in the JSON; here is what rows are judged by.
const TELLING: &[&str] = &[
    "p50_us",
    "opened",
    "ended",
    "silent",
    "bytes_each",
    "fds_each",
    "alone_us",
    "ratio",
    "per_second",
    "wakeups",
    "all_pss_mb",
    "min_ms",
    "max_ms",
];

fn extras(results: &Results, peers: &[&Peer], rows: &[&Row]) -> String {
    let mut lines = vec![
        ["row", "what"]
            .into_iter()
            .chain(peers.iter().map(|p| p.name))
            .map(str::to_owned)
            .collect::<Vec<_>>(),
    ];
    for row in rows {
        for &name in TELLING {
            let median = |p: &&Peer| results.median(row.name, p.name, Metric::Extra(name));
            if peers.iter().any(|p| median(p).is_some()) {
                let mut line = vec![row.name.to_owned(), name.to_owned()];
                line.extend(peers.iter().map(|p| median(p).map(number).unwrap_or_default()));
                lines.push(line);
            }
        }
    }
    if lines.len() == 1 {
        String::new()
    } else {
        table(&lines)
    }
}

fn verdicts(all: &[Verdict]) -> String {
    let mut lines = vec![["row", "ask", "measured", ""].map(str::to_owned).to_vec()];
    for v in all {
        let met = match v.met {
            Some(true) => "pass",
            Some(false) => "FAIL",
            None => "–",
        };
        lines.push(vec![
            v.row.to_owned(),
            v.asked.clone(),
            v.measured.map_or("–".into(), number),
            met.to_owned(),
        ]);
    }
    table(&lines)
}

fn notes(results: &Results, peers: &[&Peer], rows: &[&Row]) -> String {
    let mut text = String::new();
    for row in rows {
        for peer in peers {
            let Some(cell) = results.cell(row.name, peer.name) else {
                continue;
            };
            let said: Vec<&String> = cell
                .failed
                .iter()
                .chain(cell.rounds.iter().filter_map(|o| o.note.as_ref()))
                .collect();
            if let [first, rest @ ..] = said.as_slice() {
                let more = if rest.is_empty() {
                    String::new()
                } else {
                    format!(" (and {} more)", rest.len())
                };
                let _ = writeln!(text, "- {}, {}: {first}{more}", row.name, peer.name);
            }
        }
    }
    text
}

/// Three digits that mean something, and no fewer before the point.
pub(crate) fn number(x: f64) -> String {
    let magnitude = x.abs();
    if magnitude >= 1000.0 {
        let whole = x.round().abs().to_string();
        let mut text = String::new();
        for (i, c) in whole.chars().enumerate() {
            if i > 0 && (whole.len() - i).is_multiple_of(3) {
                text.push(',');
            }
            text.push(c);
        }
        if x < 0.0 { format!("-{text}") } else { text }
    } else if magnitude >= 100.0 || x == x.round() {
        format!("{x:.0}")
    } else if magnitude >= 10.0 {
        format!("{x:.1}")
    } else if magnitude >= 1.0 {
        format!("{x:.2}")
    } else {
        format!("{x:.3}")
    }
}

/// A Markdown table with columns as wide as they need to be; the first line is its head.
fn table(lines: &[Vec<String>]) -> String {
    let columns = lines.first().map_or(0, Vec::len);
    let widths: Vec<usize> = (0..columns)
        .map(|c| lines.iter().map(|l| l[c].chars().count()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for (i, line) in lines.iter().enumerate() {
        for (cell, width) in line.iter().zip(&widths) {
            let _ = write!(text, "| {cell:width$} ");
        }
        text += "|\n";
        if i == 0 {
            for width in &widths {
                let _ = write!(text, "|{}", "-".repeat(width + 2));
            }
            text += "|\n";
        }
    }
    text
}
