//! Which ports are allotted, to whom, and who comes in by them.

mod inbound;
mod mapping;
mod shares;

use std::net::Ipv4Addr;

use pontoon_switch::Instant;

use super::*;
use crate::flow::{FlowId, Limits, NewFlow, State};

const A: PortId = PortId(1);
const OURS: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

fn end(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn ours(port: u16) -> SocketAddr {
    SocketAddr::new(OURS, port)
}

fn tuple(protocol: Protocol, src: &str, dst: &str) -> Tuple {
    Tuple {
        protocol,
        src: end(src),
        dst: end(dst),
    }
}

/// A gateway's table and ports.
struct Rig {
    flows: Table,
    ports: Ports,
    mapping: Mapping,
}

impl Rig {
    fn new(mapping: Mapping, filtering: Filtering) -> Self {
        let limits = Limits {
            total: 200_000,
            per_container: 200_000,
        };
        Self {
            flows: Table::new(limits, (1, 2)),
            ports: Ports::new((3, 4), filtering),
            mapping,
        }
    }

    fn independent() -> Self {
        Self::new(Mapping::EndpointIndependent, Filtering::AddressDependent)
    }

    fn per_connection() -> Self {
        Self::new(Mapping::PerConnection, Filtering::AddressDependent)
    }

    fn allot(&mut self, tuple: &Tuple) -> Result<SocketAddr, DropReason> {
        self.allot_for(A, tuple)
    }

    fn allot_for(&mut self, container: PortId, tuple: &Tuple) -> Result<SocketAddr, DropReason> {
        let to = tuple.dst;
        (self.ports).allot(&self.flows, tuple, to, container, OURS, self.mapping)
    }

    fn enter(&mut self, original: Tuple, reply: Tuple) -> FlowId {
        let flow = NewFlow {
            tuple: original,
            reply: Some(reply),
            container: A,
            outbound: true,
            state: State::UdpNew,
            data: 0,
            shares_socket: false,
            mark: 0,
            track: None,
        };
        self.flows.insert(Instant::ZERO, flow).unwrap()
    }

    /// A flow from a container to the world.
    fn out(&mut self, tuple: Tuple) -> Result<(FlowId, SocketAddr), DropReason> {
        self.out_of(A, tuple)
    }

    /// The same from a certain container.
    fn out_of(&mut self, container: PortId, tuple: Tuple) -> Result<(FlowId, SocketAddr), DropReason> {
        let external = self.allot_for(container, &tuple)?;
        let reply = Tuple {
            dst: external,
            ..tuple.reversed()
        };
        Ok((self.enter(tuple, reply), external))
    }

    /// A flow that comes in by a mapping.
    fn come_in(&mut self, protocol: Protocol, external: SocketAddr, remote: SocketAddr) -> FlowId {
        let inbound = self.ports.inbound(protocol, external, remote).unwrap();
        assert!(inbound.allowed && self.ports.adopt(protocol, external, remote));
        let original = Tuple {
            protocol,
            src: remote,
            dst: external,
        };
        let reply = Tuple {
            src: inbound.internal,
            ..original.reversed()
        };
        self.enter(original, reply)
    }

    fn end(&mut self, id: FlowId) {
        let ended = self.flows.remove(id).unwrap();
        self.ports.release(&ended.tuple(), &ended.reply().unwrap());
    }

    fn is_clear(&self) -> bool {
        let ports = &self.ports;
        ports.by_internal.is_empty()
            && ports.by_external.is_empty()
            && ports.peers.len() == 0
            && ports.pools.is_clear()
    }
}
