//! The conntrack table at a million entries: bytes for each, and what a look-up costs as it grows.
//!
//! `cargo bench -p pontoon-benches --bench conntrack`
#![forbid(unsafe_code)]

use std::hint::black_box;
use std::time::Instant as Clock;

use pontoon_benches::table::{flow, step, tuple, with_room};
use pontoon_switch::Instant;

fn main() {
    println!(
        "{:>10} {:>12} {:>12} {:>12} {:>12}",
        "entries", "bytes each", "insert ns", "look-up ns", "touch ns"
    );
    for n in [1_000, 10_000, 100_000, 1_000_000_u32] {
        let mut table = with_room(n);
        let now = Instant::from_millis(1);
        let started = Clock::now();
        for i in 0..n {
            table.insert(now, flow(i)).expect("room for all");
        }
        let insert = nanos(started, n);

        let looks = 1_000_000;
        let started = Clock::now();
        for i in 0..looks {
            black_box(table.lookup(&tuple(step(i, n))).expect("it is there"));
        }
        let lookup = nanos(started, looks);
        // What making the tuple costs is not the table's.
        let started = Clock::now();
        for i in 0..looks {
            black_box(tuple(step(i, n)));
        }
        let lookup = lookup - nanos(started, looks);

        let ids: Vec<_> = (0..looks.min(n))
            .map(|i| table.lookup(&tuple(step(i, n))).expect("it is there").0)
            .collect();
        let started = Clock::now();
        for id in &ids {
            table.touch(Instant::from_millis(2000), *id);
        }
        let touch = nanos(started, ids.len() as u32);
        let each = table.memory() as f64 / f64::from(n);
        println!("{n:>10} {each:>12.1} {insert:>12.1} {lookup:>12.1} {touch:>12.1}");
    }
}

fn nanos(since: Clock, n: u32) -> f64 {
    since.elapsed().as_secs_f64() * 1e9 / f64::from(n)
}
