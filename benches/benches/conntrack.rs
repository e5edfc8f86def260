//! The conntrack table as it grows: bytes for each flow, and what a look-up costs in either direction.
//!
//! `cargo bench -p pontoon-benches --bench conntrack`
#![forbid(unsafe_code)]

use std::hint::black_box;
use std::time::Instant as Clock;

use pontoon_benches::table::{Kind, Masqueraded, flow, step, tuple, with_room};
use pontoon_nat::flow::{Direction, Table, Tuple};
use pontoon_switch::Instant;

/// Look-ups that are timed.
const LOOKS: u32 = 1_000_000;

fn main() {
    println!("Bytes for each of a million flows, by the capacity of what holds them:");
    println!("{:<22} {:>8} {:>8} {:>8}", "", "table", "ports", "all");
    let n = 1_000_000;
    for (name, kind) in [("TCP, followed", Kind::Tcp), ("UDP, with its filter", Kind::Udp)] {
        let all = Masqueraded::new(Instant::from_millis(1), kind, n);
        let each = |bytes: usize| bytes as f64 / f64::from(n);
        let (table, ports) = (each(all.table.memory()), each(all.ports.memory()));
        println!("{name:<22} {table:>8.1} {ports:>8.1} {:>8.1}", table + ports);
    }

    println!("\nNanoseconds, of flows that are masqueraded:");
    println!(
        "{:>10} {:>10} {:>10} {:>10} {:>10}",
        "flows", "enter", "original", "reply", "touch"
    );
    for n in [1_000, 10_000, 100_000, 1_000_000] {
        let now = Instant::from_millis(1);
        let started = Clock::now();
        let all = Masqueraded::new(now, Kind::Tcp, n);
        row(n, started, all.table, Masqueraded::tuple, |table, i| {
            let (id, _) = table.lookup(&Masqueraded::tuple(i)).expect("it is there");
            table
                .translated(id, Direction::Original)
                .expect("it is there")
                .reversed()
        });
    }

    println!("\nNanoseconds, of flows that are relayed:");
    println!(
        "{:>10} {:>10} {:>10} {:>10} {:>10}",
        "flows", "enter", "original", "reply", "touch"
    );
    for n in [1_000, 10_000, 100_000, 1_000_000] {
        let mut table = with_room(n);
        let started = Clock::now();
        for i in 0..n {
            table
                .insert(Instant::from_millis(1), flow(i))
                .expect("room for all");
        }
        row(n, started, table, tuple, |_, i| tuple(i).reversed());
    }
}

/// Times a table of `n` flows, the entering of which began at `started`; `tuple` and `reply` make a flow's tuples.
fn row(
    n: u32,
    started: Clock,
    mut table: Table,
    tuple: impl Fn(u32) -> Tuple,
    reply: impl Fn(&Table, u32) -> Tuple,
) {
    let enter = nanos(started, n);
    // The tuples are made beforehand: what that costs is not the table's.
    let originals: Vec<_> = (0..LOOKS).map(|i| tuple(step(i, n))).collect();
    let original = look(&table, &originals);
    let replies: Vec<_> = (0..LOOKS).map(|i| reply(&table, step(i, n))).collect();
    let back = look(&table, &replies);
    let ids: Vec<_> = originals
        .iter()
        .take(n as usize)
        .map(|t| table.lookup(t).expect("it is there").0)
        .collect();
    let started = Clock::now();
    for id in &ids {
        table.touch(Instant::from_millis(2000), *id);
    }
    let touch = nanos(started, ids.len() as u32);
    println!("{n:>10} {enter:>10.1} {original:>10.1} {back:>10.1} {touch:>10.1}");
}

fn look(table: &Table, tuples: &[Tuple]) -> f64 {
    let started = Clock::now();
    for tuple in tuples {
        black_box(table.lookup(tuple).expect("it is there"));
    }
    nanos(started, LOOKS)
}

fn nanos(since: Clock, n: u32) -> f64 {
    since.elapsed().as_secs_f64() * 1e9 / f64::from(n)
}
