//! The conntrack table at a million entries: bytes for each, and what a look-up costs as it grows.
//!
//! `cargo bench -p pontoon-benches --bench conntrack`
#![forbid(unsafe_code)]

use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Instant as Clock;

use pontoon_nat::flow::{Limits, NewFlow, Protocol, State, Table, Tuple};
use pontoon_switch::{Instant, PortId};

fn tuple(n: u32) -> Tuple {
    // As containers make them: few sources, many ports and destinations.
    let src = SocketAddr::new(
        Ipv4Addr::new(10, 0, 2, (n % 200) as u8 + 2).into(),
        1024 + (n / 200 % 60_000) as u16,
    );
    let dst = SocketAddr::new(Ipv4Addr::from(0xc633_0000 + n / 50).into(), 443);
    Tuple {
        protocol: Protocol::Tcp,
        src,
        dst,
    }
}

fn main() {
    println!(
        "{:>10} {:>12} {:>12} {:>12} {:>12}",
        "entries", "bytes each", "insert ns", "look-up ns", "touch ns"
    );
    for n in [1_000, 10_000, 100_000, 1_000_000_u32] {
        let mut table = Table::new(
            Limits {
                total: n,
                per_container: n,
            },
            (7, 11),
        );
        let now = Instant::from_millis(1);
        let started = Clock::now();
        for i in 0..n {
            let new = NewFlow {
                tuple: tuple(i),
                reply: None,
                container: PortId(1),
                outbound: true,
                state: State::Established,
                data: i,
            };
            table.insert(now, new).expect("room for all");
        }
        let insert = nanos(started, n);

        // A walk with a large odd step, so that neighbours in time are no neighbours in memory.
        let step = |i: u32| (u64::from(i) * 2_654_435_761 % u64::from(n)) as u32;
        let looks = 1_000_000;
        let started = Clock::now();
        for i in 0..looks {
            black_box(table.lookup(&tuple(step(i))).expect("it is there"));
        }
        let lookup = nanos(started, looks);
        // What making the tuple costs is not the table's.
        let started = Clock::now();
        for i in 0..looks {
            black_box(tuple(step(i)));
        }
        let lookup = lookup - nanos(started, looks);

        let ids: Vec<_> = (0..looks.min(n))
            .map(|i| table.lookup(&tuple(step(i))).expect("it is there").0)
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
