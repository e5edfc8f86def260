//! Which port stands for which.

use std::collections::{BTreeMap, HashSet};

use proptest::prelude::*;

use super::*;

/// RFC 4787 REQ-1, RFC 5382 REQ-1.
#[test]
fn an_endpoint_has_one_port_whomever_it_talks_to_as_long_as_one_flow_lives() {
    for protocol in [Protocol::Udp, Protocol::Tcp, Protocol::Icmp] {
        let mut rig = Rig::independent();
        // Somebody else has the port already.
        let (other, preserved) = rig
            .out(tuple(protocol, "10.0.2.3:5000", "198.51.100.1:80"))
            .unwrap();
        assert_eq!(preserved, ours(5000));
        let flow = |peer| tuple(protocol, "10.0.2.2:5000", peer);
        let (first, external) = rig.out(flow("198.51.100.1:80")).unwrap();
        assert_ne!(external, preserved);
        let (second, same) = rig.out(flow("203.0.113.9:443")).unwrap();
        assert_eq!(same, external);
        rig.end(other);
        rig.end(first);
        assert_eq!(
            rig.out(flow("203.0.113.9:444")).unwrap().1,
            external,
            "it lives on"
        );
        let third = rig.flows.lookup_original(&flow("203.0.113.9:444")).unwrap();
        rig.end(second);
        rig.end(third);
        assert!(rig.is_clear());
        assert_eq!(rig.out(flow("203.0.113.9:443")).unwrap().1, ours(5000));
    }
}

#[test]
fn connections_to_different_peers_share_a_port() {
    let mut rig = Rig::per_connection();
    let to = |src, peer| tuple(Protocol::Tcp, src, peer);
    assert_eq!(
        rig.out(to("10.0.2.2:5000", "198.51.100.1:80")).unwrap().1,
        ours(5000)
    );
    assert_eq!(
        rig.out(to("10.0.2.3:5000", "198.51.100.2:80")).unwrap().1,
        ours(5000)
    );
    let (id, external) = rig.out(to("10.0.2.3:5000", "198.51.100.1:80")).unwrap();
    assert_ne!(external, ours(5000));
    assert!(external.port() >= 1024);
    rig.end(id);
    assert!(rig.is_clear());
}

/// What answers is who is called in the end: two published ports of one container's look the same to it, though callers see two.
#[test]
fn connections_are_told_apart_by_where_they_really_go() {
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let mut rig = Rig::per_connection();
        let mut call = |src, published, to| {
            let call = tuple(protocol, src, published);
            let external = (rig.ports)
                .allot(&rig.flows, &call, end(to), A, OURS, rig.mapping)
                .unwrap();
            let reply = Tuple {
                protocol,
                src: end(to),
                dst: external,
            };
            rig.enter(call, reply);
            external
        };
        let first = call("10.0.2.2:6000", "192.0.2.1:8080", "10.0.2.9:80");
        assert_eq!(first, ours(6000));
        assert_ne!(call("10.0.2.3:6000", "192.0.2.1:8081", "10.0.2.9:80"), first);
        assert_eq!(call("10.0.2.4:6000", "192.0.2.1:8082", "10.0.2.8:80"), first);
    }
    let mut rig = Rig::independent();
    let gre = |src| tuple(Protocol::Other(47), src, "192.0.2.1:0");
    let first = gre("10.0.2.2:0");
    let reply = tuple(Protocol::Other(47), "10.0.2.9:0", "192.0.2.1:0");
    rig.enter(first, reply);
    for (to, free) in [("10.0.2.9:0", false), ("10.0.2.8:0", true)] {
        let second = gre("10.0.2.3:0");
        let external = (rig.ports).allot(&rig.flows, &second, end(to), A, OURS, rig.mapping);
        assert_eq!(external.is_ok(), free);
    }
}

/// RFC 4787 REQ-3 a and REQ-4: a port stays below 1024 or above, and even or odd.
#[test]
fn class_and_parity_are_kept() {
    for mapping in [Mapping::EndpointIndependent, Mapping::PerConnection] {
        for protocol in [Protocol::Udp, Protocol::Tcp] {
            let mut rig = Rig::new(mapping, Filtering::AddressDependent);
            let mut had = HashSet::new();
            for host in 2..200 {
                for own in [7, 500, 1023, 1024, 5001, 65_535] {
                    let src = format!("10.0.2.{host}:{own}");
                    let (_, external) = rig.out(tuple(protocol, &src, "198.51.100.1:80")).unwrap();
                    let port = external.port();
                    assert!(had.insert(port), "{port} twice");
                    assert_eq!(port < 1024, own < 1024, "{own} became {port}");
                    assert!(port != 0);
                    if protocol == Protocol::Udp {
                        assert_eq!(port % 2, own % 2, "{own} became {port}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_source_port_of_zero_is_never_sent() {
    for mapping in [Mapping::EndpointIndependent, Mapping::PerConnection] {
        let mut rig = Rig::new(mapping, Filtering::AddressDependent);
        let (_, external) = rig
            .out(tuple(Protocol::Udp, "10.0.2.2:0", "198.51.100.1:514"))
            .unwrap();
        assert!(external.port() >= 1024);
        let echo = tuple(Protocol::Icmp, "10.0.2.2:0", "198.51.100.1:0");
        assert_eq!(
            rig.out(echo).unwrap().1,
            ours(0),
            "an identifier of 0 is one as others"
        );
    }
}

/// RFC 6056: who knows some of the ports does not know the next.
#[test]
fn ports_are_not_allotted_in_a_row() {
    let mut rig = Rig::independent();
    let ports: Vec<u16> = (2..202)
        .map(|host| format!("10.0.2.{host}:40000"))
        .map(|src| {
            rig.out(tuple(Protocol::Tcp, &src, "198.51.100.1:80"))
                .unwrap()
                .1
                .port()
        })
        .collect();
    let near = ports.windows(2).filter(|w| w[0].abs_diff(w[1]) < 64).count();
    assert!(near < 10, "{near} of 200 are near the one before");
    let upper = ports.iter().filter(|&&p| p > 33_000).count();
    assert!((50..150).contains(&upper), "{upper} of 200 in the upper half");
}

#[test]
fn a_reserved_port_is_allotted_to_nobody() {
    for mapping in [Mapping::EndpointIndependent, Mapping::PerConnection] {
        let mut rig = Rig::new(mapping, Filtering::AddressDependent);
        let flow = |src| tuple(Protocol::Tcp, src, "198.51.100.1:443");
        assert!(rig.ports.reserve(Protocol::Tcp, end("0.0.0.0:8080")));
        assert!(!rig.ports.reserve(Protocol::Tcp, ours(8080)), "it is any address");
        assert!(rig.ports.reserve(Protocol::Tcp, ours(8081)));
        assert!(!rig.ports.reserve(Protocol::Tcp, end("0.0.0.0:8081")));
        assert!(rig.ports.reserve(Protocol::Tcp, end("[::]:8081")));
        assert!(rig.ports.reserve(Protocol::Udp, ours(8080)));
        for src in ["10.0.2.2:8080", "10.0.2.2:8081"] {
            assert_ne!(rig.out(flow(src)).unwrap().1.port(), end(src).port());
        }
        assert_eq!(rig.out(flow("10.0.2.2:8082")).unwrap().1, ours(8082));
        assert!(rig.ports.unreserve(Protocol::Tcp, end("0.0.0.0:8080")));
        assert!(!rig.ports.unreserve(Protocol::Tcp, end("0.0.0.0:8080")));
        assert_eq!(rig.out(flow("10.0.2.3:8080")).unwrap().1, ours(8080));
    }
    // Nor if it is the last one.
    let mut rig = Rig::independent();
    for port in 1..1023 {
        assert!(rig.ports.reserve(Protocol::Tcp, ours(port)));
    }
    let last = rig.out(tuple(Protocol::Tcp, "10.0.2.2:22", "198.51.100.1:80"));
    assert_eq!(last.unwrap().1, ours(1023));
    let none = rig.out(tuple(Protocol::Tcp, "10.0.2.3:22", "198.51.100.1:80"));
    assert_eq!(none.unwrap_err(), DropReason::PortsExhausted);
}

#[test]
fn a_protocol_without_ports_goes_by_its_addresses_and_only_once_to_each_peer() {
    let mut rig = Rig::independent();
    let gre = |src, dst| tuple(Protocol::Other(47), src, dst);
    let (id, external) = rig.out(gre("10.0.2.2:0", "198.51.100.1:0")).unwrap();
    assert_eq!(external, ours(0));
    let second = rig.out(gre("10.0.2.3:0", "198.51.100.1:0"));
    assert_eq!(second.unwrap_err(), DropReason::PortsExhausted);
    assert!(rig.out(gre("10.0.2.3:0", "198.51.100.2:0")).is_ok());
    rig.end(id);
    assert!(rig.out(gre("10.0.2.3:0", "198.51.100.1:0")).is_ok());
}

#[test]
fn each_address_has_ports_of_its_own() {
    let mut rig = Rig::independent();
    let new: IpAddr = "192.0.2.2".parse().unwrap();
    let flow = tuple(Protocol::Udp, "10.0.2.2:5000", "198.51.100.1:80");
    let (old, external) = rig.out(flow).unwrap();
    let later = tuple(Protocol::Udp, "10.0.2.2:5000", "198.51.100.1:81");
    let moved = (rig.ports).allot(&rig.flows, &later, later.dst, A, new, rig.mapping);
    assert_eq!((external, moved), (ours(5000), Ok(SocketAddr::new(new, 5000))));
    rig.end(old);
    assert!(rig.ports.inbound(Protocol::Udp, ours(5000), flow.dst).is_none());
    assert!(
        rig.ports
            .inbound(Protocol::Udp, SocketAddr::new(new, 5000), later.dst)
            .is_some()
    );
}

/// The table and what is held here, with a million flows: at most 200 bytes each.
#[test]
fn a_million_flows_and_their_ports_fit_in_200_bytes_each() {
    for protocol in [Protocol::Udp, Protocol::Tcp] {
        let n = 1_000_000;
        let limits = Limits {
            total: n,
            per_container: n,
        };
        let mut rig = Rig::independent();
        rig.flows = Table::new(limits, (1, 2));
        let syn = crate::flow::Segment {
            seq: 1,
            ack: 0,
            window: 1000,
            flags: crate::flow::Flags::SYN,
            len: 0,
            window_scale: None,
        };
        for i in 0..n {
            // Fifty thousand endpoints, each with twenty peers that nobody else has.
            let own = i / 20;
            let tuple = Tuple {
                protocol,
                src: SocketAddr::from(([10, 0, 2, (own % 200) as u8], 2000 + (own / 200) as u16)),
                dst: SocketAddr::from((Ipv4Addr::from(0xc633_0000 + i), 443)),
            };
            let external = rig.allot(&tuple).unwrap();
            let flow = NewFlow {
                tuple,
                reply: Some(Tuple {
                    dst: external,
                    ..tuple.reversed()
                }),
                container: PortId(own % 200),
                outbound: true,
                state: State::UdpReplied,
                data: 0,
                shares_socket: false,
                mark: 0,
                track: (protocol == Protocol::Tcp).then_some(syn),
            };
            rig.flows.insert(Instant::ZERO, flow).unwrap();
        }
        let bytes = rig.flows.memory() + rig.ports.memory();
        assert!(
            bytes / n as usize <= 200,
            "{protocol:?}: {} bytes a flow",
            bytes / n as usize
        );
    }
}

proptest! {
    /// Whatever comes and goes: no two endpoints share a port, an endpoint has one port, class and parity are kept, and nothing is
    /// left when all flows have ended.
    #[test]
    fn mappings_are_one_to_one(
        ops in proptest::collection::vec((0_u8..10, 0_u8..12, 0_u8..6, 0_usize..64), 1..400),
    ) {
        let mut rig = Rig::independent();
        let mut live: Vec<FlowId> = Vec::new();
        for (op, host, peer, pick) in ops {
            if op < 4 {
                if !live.is_empty() {
                    let id = live.swap_remove(pick % live.len());
                    rig.end(id);
                }
            } else {
                let own = [22, 53, 1000, 5000, 5001][usize::from(op) % 5];
                let tuple = Tuple {
                    protocol: if op % 2 == 0 { Protocol::Udp } else { Protocol::Tcp },
                    src: SocketAddr::from(([10, 0, 2, host], own)),
                    dst: SocketAddr::from(([198, 51, 100, peer], 80 + pick as u16)),
                };
                if rig.flows.lookup_original(&tuple).is_none() {
                    // One that is taken back changes nothing of what is checked below.
                    let external = rig.allot(&tuple).unwrap();
                    rig.ports.take_back(&tuple, external);
                }
                if op < 9 && rig.flows.lookup_original(&tuple).is_none() {
                    let (id, external) = rig.out(tuple).unwrap();
                    prop_assert_eq!(external.port() < 1024, own < 1024);
                    prop_assert!(tuple.protocol != Protocol::Udp || external.port() % 2 == own % 2);
                    live.push(id);
                }
            }
            let mut there = BTreeMap::new();
            let mut back = BTreeMap::new();
            let mut peers = HashSet::new();
            for (id, e) in rig.flows.iter_from(0) {
                let external = rig.flows.translated(id, crate::flow::Direction::Original).unwrap().src;
                let (protocol, internal) = (e.protocol(), e.tuple().src);
                prop_assert_eq!(*there.entry((protocol, internal)).or_insert(external), external);
                prop_assert_eq!(*back.entry((protocol, external)).or_insert(internal), internal);
                if protocol == Protocol::Udp {
                    peers.insert((external, e.tuple().dst.ip()));
                }
                let inbound = rig.ports.inbound(protocol, external, e.tuple().dst).unwrap();
                prop_assert_eq!(inbound.internal, internal);
                prop_assert_eq!(inbound.allowed, protocol == Protocol::Udp);
            }
            prop_assert_eq!(rig.ports.by_external.len(), back.len());
            prop_assert_eq!(rig.ports.by_internal.len(), back.len());
            prop_assert_eq!(rig.ports.peers.len(), peers.len());
        }
        live.into_iter().for_each(|id| rig.end(id));
        prop_assert!(rig.is_clear());
    }
}
