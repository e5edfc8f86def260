//! A conntrack table full of flows.

use std::net::{Ipv4Addr, SocketAddr};

use pontoon_nat::config::Filtering;
use pontoon_nat::flow::{Flags, Limits, NewFlow, Protocol, Segment, State, Table, Tuple};
use pontoon_nat::routed::Mapping;
use pontoon_nat::routed::ports::Ports;
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
        mark: 0,
        track: None,
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

/// What flows are of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Connections that are followed.
    Tcp,
    /// Datagrams.
    Udp,
}

/// Flows that leave by the gateway's own addresses, each by the port of its endpoint whomever it talks to.
#[derive(Debug)]
pub struct Masqueraded {
    /// The flows.
    pub table: Table,
    /// Their ports.
    pub ports: Ports,
}

impl Masqueraded {
    /// The `n`th tuple: of fifty thousand endpoints, since an address has ports for no more, and with a peer of its own.
    pub fn tuple(n: u32) -> Tuple {
        let src = tuple(n % 50_000).src;
        let dst = SocketAddr::new(Ipv4Addr::from(0xc633_0000 + n).into(), 443);
        Tuple {
            protocol: Protocol::Tcp,
            src,
            dst,
        }
    }

    /// The first `n` flows.
    pub fn new(now: Instant, kind: Kind, n: u32) -> Self {
        let mut all = Self {
            table: with_room(n),
            ports: Ports::new((13, 17), Filtering::AddressDependent),
        };
        let address = Ipv4Addr::new(192, 0, 2, 1).into();
        let syn = Segment {
            seq: 1,
            ack: 0,
            window: 64_240,
            flags: Flags::SYN,
            len: 0,
            window_scale: Some(7),
        };
        let (protocol, state, track) = match kind {
            Kind::Tcp => (Protocol::Tcp, State::Established, Some(syn)),
            Kind::Udp => (Protocol::Udp, State::UdpReplied, None),
        };
        for i in 0..n {
            let tuple = Tuple {
                protocol,
                ..Self::tuple(i)
            };
            let external = all
                .ports
                .allot(
                    &all.table,
                    &tuple,
                    tuple.dst,
                    PortId(1),
                    address,
                    Mapping::EndpointIndependent,
                )
                .expect("a port for each endpoint");
            let flow = NewFlow {
                tuple,
                reply: Some(Tuple {
                    dst: external,
                    ..tuple.reversed()
                }),
                state,
                track,
                ..flow(i)
            };
            all.table.insert(now, flow).expect("room for all");
        }
        all
    }
}

/// The `i`th step of a walk through `0..n` with a large odd stride, so that neighbours in time are none in memory.
pub fn step(i: u32, n: u32) -> u32 {
    (u64::from(i) * 2_654_435_761 % u64::from(n)) as u32
}
