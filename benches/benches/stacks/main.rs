//! Pontoon beside other user-mode stacks: iperf3 from a container through each of them, in one run.
//!
//! ```text
//! cargo bench -p pontoon-benches --bench stacks               five rounds of four seconds, table
//! cargo bench -p pontoon-benches --bench stacks -- --quick    one round of two seconds
//! cargo bench -p pontoon-benches --bench stacks -- --json     JSON instead of the table
//! ```
//!
//! Client and server are in network namespaces of the bench's own (`pontoon_fixtures::lab`), the server behind a router.
//! All stacks run as an ordinary user. The rounds are interleaved, every stack once in each, so that whatever else the
//! machine does falls on all of them; the figure is the median. Needs root, for the lab.
#![forbid(unsafe_code)]

mod peers;

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use peers::{PEERS, Peer, Running};
use pontoon_fixtures::lab::{World, build, require};
use serde_json::json;

/// One line of the table: what is measured.
struct Row {
    name: &'static str,
    mtu: u32,
    /// For `iperf3` in the container.
    args: &'static [&'static str],
}

const ROWS: &[Row] = &[
    Row {
        name: "out",
        mtu: 1500,
        args: &["-c", "198.51.100.10"],
    },
    Row {
        name: "in",
        mtu: 1500,
        args: &["-c", "198.51.100.10", "-R"],
    },
    Row {
        name: "out",
        mtu: 65520,
        args: &["-c", "198.51.100.10"],
    },
    Row {
        name: "in",
        mtu: 65520,
        args: &["-c", "198.51.100.10", "-R"],
    },
];

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let known = ["--quick", "--json"];
    ensure!(
        args.iter().all(|a| known.contains(&a.as_str())),
        "unknown argument among {args:?}: there are {known:?}"
    );
    let quick = args.iter().any(|a| a == "--quick");
    let (rounds, seconds) = if quick { (1, 2) } else { (5, 4) };
    for program in ["iperf3", "slirp4netns", "pasta"] {
        require(program);
    }
    let binary = build("pontoon", "pontoon", &["--release"]);
    let world = World::new(&binary);
    let _server = world.server().iperf3(5201);

    let mut all: BTreeMap<(usize, usize), Vec<f64>> = BTreeMap::new();
    let mut mtus: Vec<u32> = ROWS.iter().map(|r| r.mtu).collect();
    mtus.dedup();
    for mtu in mtus {
        let running: Vec<Running<'_>> = PEERS.iter().map(|p| (p.start)(&world, mtu)).collect();
        for round in 0..rounds {
            for (r, row) in ROWS.iter().enumerate().filter(|(_, row)| row.mtu == mtu) {
                // Who goes first changes from round to round.
                for p in (0..PEERS.len()).map(|i| (i + round) % PEERS.len()) {
                    let gbits = measure(&running[p], row, seconds)
                        .with_context(|| format!("{} {} at MTU {mtu}", PEERS[p].name, row.name))?;
                    eprintln!(
                        "{:12} MTU {mtu:5} {:4} round {}: {gbits:7.2} Gbit/s",
                        PEERS[p].name,
                        row.name,
                        round + 1
                    );
                    all.entry((r, p)).or_default().push(gbits);
                }
            }
        }
    }
    if args.iter().any(|a| a == "--json") {
        print_json(&all, rounds, seconds)
    } else {
        print_table(&all, rounds, seconds)
    }
    Ok(())
}

/// Gbit/s that arrived.
fn measure(running: &Running<'_>, row: &Row, seconds: u32) -> Result<f64> {
    let done = running
        .cmd(&["iperf3", "-J", "-t", &seconds.to_string()])
        .args(row.args)
        .limit(60)
        .run();
    ensure!(done.success(), "{done}");
    let bits = done.json()["end"]["sum_received"]["bits_per_second"]
        .as_f64()
        .context("no figure in iperf3's report")?;
    Ok(bits / 1e9)
}

fn median(values: &[f64]) -> f64 {
    let mut v = values.to_vec();
    v.sort_by(f64::total_cmp);
    let mid = v.len() / 2;
    if v.len() % 2 == 1 {
        v[mid]
    } else {
        (v[mid - 1] + v[mid]) / 2.0
    }
}

type All = BTreeMap<(usize, usize), Vec<f64>>;

fn print_table(all: &All, rounds: usize, seconds: u32) {
    println!(
        "\niperf3, one TCP stream over IPv4, Gbit/s, median of {rounds} × {seconds} s; in brackets: {} ahead of it by",
        PEERS[0].name
    );
    print!("{:>6} {:>4}", "MTU", "");
    for p in PEERS {
        print!(" {:>18}", p.name);
    }
    println!();
    for (r, row) in ROWS.iter().enumerate() {
        print!("{:>6} {:>4}", row.mtu, row.name);
        let ours = median(&all[&(r, 0)]);
        for p in 0..PEERS.len() {
            let theirs = median(&all[&(r, p)]);
            let ratio = if p == 0 {
                String::new()
            } else {
                format!(" ({:.1}x)", ours / theirs)
            };
            print!(" {:>18}", format!("{theirs:.2}{ratio}"));
        }
        println!();
    }
}

fn print_json(all: &All, rounds: usize, seconds: u32) {
    let rows: Vec<_> = ROWS
        .iter()
        .enumerate()
        .map(|(r, row)| {
            let ours = median(&all[&(r, 0)]);
            let stacks: serde_json::Map<String, serde_json::Value> = PEERS
                .iter()
                .enumerate()
                .map(|(p, Peer { name, .. })| {
                    let rounds = &all[&(r, p)];
                    let m = median(rounds);
                    (
                        (*name).to_owned(),
                        json!({ "median": m, "rounds": rounds, "pontoon_ahead": ours / m }),
                    )
                })
                .collect();
            json!({ "direction": row.name, "mtu": row.mtu, "unit": "Gbit/s", "stacks": stacks })
        })
        .collect();
    println!(
        "{:#}",
        json!({ "rounds": rounds, "seconds": seconds, "rows": rows })
    );
}
