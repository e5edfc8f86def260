//! A conntrack table full of flows.

use std::net::{Ipv4Addr, SocketAddr};

use pontoon_nat::flow::{Limits, NewFlow, Protocol, State, Table, Tuple};
use pontoon_switch::{Instant, PortId};

/// The `n`th tuple, as containers make them: few sources, many ports and destinations.
pub fn tuple(n: u32) -> Tuple {
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

/// The `n`th flow.
pub fn flow(n: u32) -> NewFlow {
    NewFlow {
        tuple: tuple(n),
        reply: None,
        container: PortId(1),
        outbound: true,
        state: State::Established,
        data: n,
        shares_socket: false,
    }
}

/// An empty table with room for `n` flows, under a key that is always the same.
pub fn with_room(n: u32) -> Table {
    Table::new(
        Limits {
            total: n,
            per_container: n,
        },
        (7, 11),
    )
}

/// A table with the first `n` flows in it.
pub fn full(now: Instant, n: u32) -> Table {
    // One more has to fit, for what is measured.
    let mut table = with_room(n + 1);
    for i in 0..n {
        table.insert(now, flow(i)).expect("room for all");
    }
    table
}

/// The `i`th step of a walk through `0..n` with a large odd stride, so that neighbours in time are none in memory.
pub fn step(i: u32, n: u32) -> u32 {
    (u64::from(i) * 2_654_435_761 % u64::from(n)) as u32
}
