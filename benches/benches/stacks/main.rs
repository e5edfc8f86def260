//! Pontoon beside other user-mode stacks and the kernel: bulk data, request/response, connections, floods, idle ones, in
//! one run.
//!
//! ```text
//! cargo bench -p pontoon-benches --bench stacks                     five rounds of four seconds
//! cargo bench -p pontoon-benches --bench stacks -- --quick          one round of one second
//! cargo bench -p pontoon-benches --bench stacks -- --help           what else there is
//! ```
//!
//! Client and server are in network namespaces of the bench's own (`pontoon_fixtures::lab`, and see [`net`]). All stacks
//! run as an ordinary user, Pontoon's routed egress, the kernel's path and Open vSwitch as root. The rounds are interleaved, every stack once in
//! each and another one first each time, so that whatever else the machine does falls on all of them; a figure is
//! the median. A stack that is not installed, dies or hangs has no figure and a reason, and the run goes on; every
//! measurement is bounded in time. Needs root, for the lab.
#![forbid(unsafe_code)]

mod asks;
mod measure;
mod net;
mod peers;
mod process;
mod report;
mod results;
mod rows;
mod svg;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use measure::{BEYOND, LOAD, Pace};
use peers::{PEERS, Peer, Plan, Running};
use pontoon_fixtures::lab::{Proc, World, build};
use results::{Outcome, Results};
use rows::{ROWS, Row, Work};
use serde_json::json;

/// Pontoon beside other user-mode stacks and the kernel, measured side by side.
#[derive(Parser, Debug)]
struct Args {
    /// One round of one second for each row, and fewer connections where they are counted
    #[arg(long)]
    quick: bool,
    /// Only these rows (names as in the table; a name with * at its end stands for all that begin so)
    #[arg(long, value_name = "ROW,..", value_delimiter = ',')]
    only: Vec<String>,
    /// Only these stacks: pontoon, before, fallback, routed, slirp4netns, pasta, kernel, ovs, ovs-tso, probe
    ///
    /// slirp4netns, pasta and Open vSwitch are the installed ones (Debian: slirp4netns, passt, openvswitch-switch) unless a
    /// path is given by the option of that name. `before` is another Pontoon, which --before names.
    #[arg(long, value_name = "NAME,..", value_delimiter = ',')]
    peers: Vec<String>,
    /// Print JSON, with every round, instead of tables
    #[arg(long)]
    json: bool,
    /// Write the JSON to this file too
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// Draw a chart
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Rounds of each row [default: 5, quick: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: Option<u32>,
    /// Seconds of each measurement [default: 4, quick: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=60))]
    seconds: Option<u32>,
    /// Add the measurements of an earlier run, as --save or --json wrote them; repeatable
    #[arg(long, value_name = "FILE")]
    add: Vec<PathBuf>,
    /// Measure nothing: report on what --add gives
    #[arg(long, requires = "add")]
    report: bool,
    /// Another Pontoon than the one built from this source
    #[arg(long, value_name = "PATH")]
    pontoon: Option<String>,
    /// A second Pontoon to compare with, as stack `before`
    #[arg(long, value_name = "PATH")]
    before: Option<String>,
    /// Another slirp4netns than the installed one
    #[arg(long, value_name = "PATH")]
    slirp4netns: Option<String>,
    /// Another pasta than the installed one
    #[arg(long, value_name = "PATH")]
    pasta: Option<String>,
    /// Another ovs-vswitchd than the installed one
    #[arg(long, value_name = "PATH")]
    ovs: Option<String>,
    /// List rows and stacks
    #[arg(long)]
    list: bool,
    /// What `cargo bench` says.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    if args.list {
        for row in ROWS {
            println!("{:20} {} {}", row.name, row.title, row.unit);
        }
        println!(
            "\nstacks: {}",
            PEERS.iter().map(|p| p.name).collect::<Vec<_>>().join(", ")
        );
        return Ok(());
    }
    let rows = chosen_rows(&args.only)?;
    let peers = chosen_peers(&args)?;
    let mut results = Results::default();
    let mut hows = Vec::new();
    for file in &args.add {
        hows.push(results.add_file(file)?);
    }
    let rounds = args.rounds.unwrap_or(if args.quick { 1 } else { 5 });
    let seconds = args.seconds.unwrap_or(if args.quick { 1 } else { 4 });
    let pace = Pace {
        seconds,
        steady: if args.quick { 20_000 } else { 100_000 },
        opening: if args.quick { 10 } else { 60 },
        watch: if args.quick { 2 } else { 10 },
    };
    if !args.report {
        run(&args, &rows, &peers, rounds as usize, pace, &mut results)?;
        hows.push(format!(
            "Median of {rounds} round{} of {seconds} s, {} CPUs, Linux {}",
            if rounds == 1 { "" } else { "s" },
            std::thread::available_parallelism().map_or(0, usize::from),
            std::fs::read_to_string("/proc/sys/kernel/osrelease")
                .unwrap_or_default()
                .trim(),
        ));
    }
    hows.sort();
    hows.dedup();
    let how = hows.join("; ");
    let asks: Vec<_> = asks::verdicts(&results)
        .into_iter()
        .map(|v| json!({ "row": v.row, "ask": v.asked, "measured": v.measured, "met": v.met }))
        .collect();
    let all = json!({ "how": how, "rows": results.json(), "asks": asks });
    if let Some(file) = &args.save {
        std::fs::write(file, format!("{all:#}\n")).with_context(|| format!("write {}", file.display()))?;
    }
    if let Some(file) = &args.svg {
        std::fs::write(file, svg::chart(&results, &how))
            .with_context(|| format!("write {}", file.display()))?;
    }
    if args.json {
        println!("{all:#}");
    } else {
        print!("{}", report::tables(&results, &how));
    }
    Ok(())
}

fn chosen_rows(only: &[String]) -> Result<Vec<&'static Row>> {
    let fits = |row: &Row, name: &str| match name.strip_suffix('*') {
        Some(start) => row.name.starts_with(start),
        None => row.name == name,
    };
    for name in only {
        ensure!(
            ROWS.iter().any(|r| fits(r, name)),
            "there is no row `{name}`; --list names them"
        );
    }
    Ok(ROWS
        .iter()
        .filter(|r| only.is_empty() || only.iter().any(|name| fits(r, name)))
        .collect())
}

fn chosen_peers(args: &Args) -> Result<Vec<&'static Peer>> {
    for name in &args.peers {
        ensure!(
            PEERS.iter().any(|p| p.name == name),
            "there is no stack `{name}`; --list names them"
        );
    }
    Ok(PEERS
        .iter()
        .filter(|p| p.name != "before" || args.before.is_some())
        .filter(|p| args.peers.is_empty() || args.peers.iter().any(|name| name == p.name))
        .collect())
}

/// Has the binary under test and all it needs, measures, and adds to `results`.
fn run(
    args: &Args,
    rows: &[&'static Row],
    peers: &[&'static Peer],
    rounds: usize,
    pace: Pace,
    results: &mut Results,
) -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "the lab builds network namespaces as test hosts and needs root"
    );
    raise_descriptors();
    quiet_panics();
    let binary = match &args.pontoon {
        Some(path) => path.clone(),
        None => build("pontoon", "pontoon", &["--release"]),
    };
    let world = World::new(&binary);
    for (program, path) in [
        ("pontoon-before", &args.before),
        ("slirp4netns", &args.slirp4netns),
        ("pasta", &args.pasta),
        ("ovs-vswitchd", &args.ovs),
    ] {
        if let Some(path) = path {
            peers::install(&world, program, path)?;
        }
    }
    if peers.iter().any(|p| p.name == "probe") {
        peers::provide_probe(&world)?;
    }
    let kernel = net::build(&world, peers.iter().any(|p| p.name == "kernel"));
    let serve = |port: u16| -> Proc {
        let mut server = world
            .server()
            .cmd(["lab-load", "serve", &port.to_string()])
            .spawn();
        server.wait_for("listening");
        server
    };
    let _servers = [serve(LOAD), serve(BEYOND)];
    let mut bench = Bench {
        world: &world,
        kernel,
        pace,
        next: 1,
        results,
    };
    let mut mtus: Vec<u32> = rows.iter().filter(|r| !r.afresh()).map(|r| r.mtu).collect();
    mtus.sort_unstable();
    mtus.dedup();
    for mtu in mtus {
        let rows: Vec<_> = rows
            .iter()
            .copied()
            .filter(|r| !r.afresh() && r.mtu == mtu)
            .collect();
        bench.together(&rows, peers, mtu, rounds);
    }
    for row in rows.iter().filter(|r| r.afresh()) {
        bench.alone(row, peers, rounds);
    }
    Ok(())
}

struct Bench<'w, 'r> {
    world: &'w World,
    kernel: Result<(), String>,
    pace: Pace,
    /// Number of the next container.
    next: u16,
    results: &'r mut Results,
}

impl<'w> Bench<'w, '_> {
    /// All rows of one MTU: the stacks run beside each other, idle but for the one that is measured.
    fn together(&mut self, rows: &[&'static Row], peers: &[&'static Peer], mtu: u32, rounds: usize) {
        let neighbour = rows.iter().any(|r| r.work == Work::Neighbours);
        let mut running: Vec<Option<Running<'w>>> = peers.iter().map(|_| None).collect();
        for round in 0..rounds {
            for row in rows.iter().filter(|r| round < r.rounds) {
                // Who goes first changes from round to round.
                for p in (0..peers.len()).map(|i| (i + round) % peers.len()) {
                    let peer = peers[p];
                    if !report::can(peer, row) {
                        continue;
                    }
                    let slot = &mut running[p];
                    // One that died in the last row is started again for this one.
                    if slot.as_mut().is_some_and(|r| !r.alive()) {
                        *slot = None;
                    }
                    if slot.is_none() {
                        match self.start(peer, mtu, neighbour) {
                            Ok(r) => *slot = Some(r),
                            Err(why) => {
                                self.add(row, peer, round, Err(why));
                                continue;
                            }
                        }
                    }
                    let Some(r) = slot.as_mut() else { continue };
                    let pace = self.pace;
                    let outcome = guarded(|| measure::measure(row, r, pace));
                    let outcome = outcome.map_err(|why| {
                        if r.alive() {
                            why
                        } else {
                            format!("{why}; it {}", r.last_words())
                        }
                    });
                    // One that hangs may spin, and would be in the way of all that follow.
                    if outcome.is_err() {
                        *slot = None;
                    }
                    self.add(row, peer, round, outcome);
                }
            }
        }
    }

    /// A row for which each stack is started afresh, alone.
    fn alone(&mut self, row: &'static Row, peers: &[&'static Peer], rounds: usize) {
        for round in 0..rounds.min(row.rounds) {
            for p in (0..peers.len()).map(|i| (i + round) % peers.len()) {
                let peer = peers[p];
                if !report::can(peer, row) {
                    continue;
                }
                let (world, pace) = (self.world, self.pace);
                let outcome = if row.work == Work::Ready {
                    guarded(|| measure::ready(world, peer, peer.ready))
                } else if row.work == Work::ReadyRun {
                    guarded(|| measure::ready(world, peer, peer.ready_run))
                } else {
                    self.start(peer, row.mtu, false)
                        .and_then(|mut r| guarded(|| measure::measure(row, &mut r, pace)))
                };
                self.add(row, peer, round, outcome);
            }
        }
    }

    fn start(&mut self, peer: &Peer, mtu: u32, neighbour: bool) -> Result<Running<'w>, String> {
        if peer.name == "kernel" {
            self.kernel.clone()?;
        }
        let n = self.next;
        self.next += 1;
        let (world, plan) = (self.world, Plan { mtu, n, neighbour });
        guarded(|| peer.start(world, plan)).map_err(|why| format!("does not start: {why}"))
    }

    fn add(&mut self, row: &Row, peer: &Peer, round: usize, outcome: Result<Outcome, String>) {
        let said = match &outcome {
            Ok(o) => {
                let cpu = o
                    .cpu
                    .map(|c| format!(", CPU {} {}", report::number(c), row.cpu_unit()));
                let note = o.note.as_ref().map(|n| format!(" ({n})"));
                format!(
                    "{} {}{}{}",
                    report::number(o.value),
                    row.unit,
                    cpu.unwrap_or_default(),
                    note.unwrap_or_default()
                )
            }
            Err(why) => format!("– {why}"),
        };
        eprintln!(
            "{:7.1} s  {:19} {:12} round {}: {said}",
            since_start().as_secs_f64(),
            row.name,
            peer.name,
            round + 1
        );
        self.results.add(row.name, peer.name, outcome);
    }
}

fn since_start() -> std::time::Duration {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

/// Runs `work`; an error or a panic (the lab panics) becomes a line of text.
fn guarded<T>(work: impl FnOnce() -> Result<T>) -> Result<T, String> {
    let first_line = |s: &str| s.lines().next().unwrap_or_default().trim().to_owned();
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(t)) => Ok(t),
        Ok(Err(e)) => Err(first_line(&format!("{e:#}"))),
        Err(panic) => {
            let text = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or(panic.downcast_ref::<&str>().copied());
            Err(first_line(text.unwrap_or("panicked")))
        }
    }
}

/// Panics of the lab within [`guarded`] are reported in the table.
fn quiet_panics() {
    std::panic::set_hook(Box::new(|info| eprintln!("  ({info})")));
}

/// Everything that is started may have as many descriptors as the machine allows.
fn raise_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    );
}
