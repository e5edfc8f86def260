//! What becomes of those that ask when there is little left.

use std::collections::{BTreeMap, HashMap, HashSet};

use proptest::prelude::*;

use super::*;

const B: PortId = PortId(2);
const C: PortId = PortId(3);

/// A flow of `container`'s endpoint number `n` in a range: below 1024, or above.
fn nth(protocol: Protocol, container: PortId, low: bool, n: u32) -> Tuple {
    let (first, size) = if low { (1, 1023) } else { (1024, 64_512) };
    let [_, _, _, host] = container.0.to_be_bytes();
    let [_, _, x, y] = (n / size).to_be_bytes();
    Tuple {
        protocol,
        src: SocketAddr::from(([10, host, x, y], (first + n % size) as u16)),
        dst: end("198.51.100.1:80"),
    }
}

/// What `container` gets who asks for a port for each of `n` endpoints, each with its flow.
fn take(rig: &mut Rig, protocol: Protocol, container: PortId, low: bool, n: u32) -> Vec<(Tuple, SocketAddr)> {
    let ask = |n| {
        let tuple = nth(protocol, container, low, n);
        match rig.allot_for(container, &tuple) {
            Ok(external) => Some((tuple, external)),
            Err(reason) => {
                assert_eq!(reason, DropReason::PortsExhausted);
                None
            }
        }
    };
    (0..n).filter_map(ask).collect()
}

/// One that sends from each of its ports does not keep the others from the world.
#[test]
fn the_greedy_leave_something_to_each_that_comes_later() {
    // Eight ninths each of what there is, rounded up.
    for (protocol, low, expected) in [
        (Protocol::Tcp, false, [57_344, 6372, 708]),
        (Protocol::Udp, false, [57_344, 6372, 708]),
        (Protocol::Icmp, false, [58_255, 6472, 720]),
        (Protocol::Tcp, true, [910, 101, 11]),
        (Protocol::Udp, true, [910, 101, 11]),
    ] {
        let mut rig = Rig::independent();
        [A, B, C]
            .into_iter()
            .for_each(|container| rig.ports.attach(container));
        let held = [A, B, C].map(|container| take(&mut rig, protocol, container, low, 64_512));
        assert_eq!([0, 1, 2].map(|i| held[i].len()), expected, "{protocol:?} {low}");
        let different: HashSet<_> = held.iter().flatten().map(|(_, external)| external).collect();
        assert_eq!(different.len(), expected.iter().sum::<usize>());
        // One who has a port may open further flows by it.
        let further = Tuple {
            dst: end("198.51.100.2:80"),
            ..held[0][0].0
        };
        assert_eq!(rig.allot_for(A, &further), Ok(held[0][0].1));
        rig.ports.take_back(&further, held[0][0].1);
        for (tuple, external) in held.iter().flatten() {
            rig.ports.take_back(tuple, *external);
        }
        assert!(rig.is_clear());
        assert_eq!(take(&mut rig, protocol, B, low, 64_512).len(), expected[0]);
    }
}

/// Ranges, protocols and addresses are shared each by itself.
#[test]
fn who_has_its_share_of_one_range_may_still_take_of_another() {
    let mut rig = Rig::independent();
    [A, B]
        .into_iter()
        .for_each(|container| rig.ports.attach(container));
    take(&mut rig, Protocol::Tcp, A, false, 64_512);
    let refused = |rig: &mut Rig, tuple| rig.allot_for(A, &tuple).is_err();
    assert!(refused(&mut rig, nth(Protocol::Tcp, A, false, 64_511)));
    assert!(!refused(&mut rig, nth(Protocol::Tcp, A, true, 21)));
    assert!(!refused(&mut rig, nth(Protocol::Udp, A, false, 64_511)));
    let more = nth(Protocol::Tcp, A, false, 64_511);
    let other: IpAddr = "192.0.2.2".parse().unwrap();
    let there = (rig.ports).allot(&rig.flows, &more, more.dst, A, other, rig.mapping);
    assert_eq!(there, Ok(SocketAddr::new(other, more.src.port())));
}

#[test]
fn one_that_is_alone_gets_nearly_all_until_somebody_comes() {
    let mut rig = Rig::independent();
    rig.ports.attach(A);
    let first = take(&mut rig, Protocol::Tcp, A, false, 64_512);
    assert_eq!(first.len(), 64_008);
    rig.ports.attach(B);
    assert_eq!(take(&mut rig, Protocol::Tcp, B, false, 64_512).len(), 448);
    for (tuple, external) in &first[..5000] {
        rig.ports.take_back(tuple, *external);
    }
    assert!(rig.allot_for(A, &first[0].0).is_err(), "no longer alone");
    rig.ports.detach(B);
    assert_eq!(rig.allot_for(A, &first[0].0), Ok(first[0].1));
}

#[test]
fn the_ports_of_an_address_run_out_and_come_back() {
    let mut rig = Rig::independent();
    let src = |n: u32| SocketAddr::from(([10, 1, (n >> 8) as u8, n as u8], 700));
    let flow = |n| Tuple {
        src: src(n),
        ..tuple(Protocol::Udp, "10.1.0.0:1", "198.51.100.1:80")
    };
    let mut flows: Vec<_> = (0..1016).map(|n| rig.out(flow(n)).unwrap()).collect();
    // The first half have kept their parity.
    assert!(flows[..511].iter().all(|(_, e)| e.port() % 2 == 0));
    assert_eq!(rig.out(flow(2000)).unwrap_err(), DropReason::PortsExhausted);
    flows.extend((1016..1023).map(|n| rig.out_of(B, flow(n)).unwrap()));
    let had: HashSet<u16> = flows.iter().map(|(_, external)| external.port()).collect();
    assert_eq!(had.len(), 1023, "every port below 1024 but 0");
    assert_eq!(rig.out_of(C, flow(2000)).unwrap_err(), DropReason::PortsExhausted);
    assert!(
        rig.out(tuple(Protocol::Tcp, "10.1.0.0:700", "198.51.100.1:80"))
            .is_ok()
    );
    let (id, external) = flows.swap_remove(100);
    rig.end(id);
    assert_eq!(rig.out(flow(2000)).unwrap_err(), DropReason::PortsExhausted);
    assert_eq!(rig.out_of(C, flow(2000)).unwrap().1, external);
    assert_eq!(rig.out_of(C, flow(2001)).unwrap_err(), DropReason::PortsExhausted);
}

/// Addresses come and go, their sets of ports do not pile up.
#[test]
fn addresses_that_nobody_uses_are_forgotten() {
    for mapping in [Mapping::EndpointIndependent, Mapping::PerConnection] {
        let mut rig = Rig::new(mapping, Filtering::AddressDependent);
        let flow = tuple(Protocol::Udp, "10.0.2.2:5000", "198.51.100.1:80");
        let kept = rig.allot(&flow).unwrap();
        for n in 0..1000_u16 {
            let [x, y] = n.to_be_bytes();
            let address = IpAddr::from([203, 0, x, y]);
            let external = (rig.ports).allot(&rig.flows, &flow, flow.dst, A, address, mapping);
            rig.ports.take_back(&flow, external.unwrap());
        }
        assert!(rig.ports.pools.len() <= 16, "{mapping:?}");
        let second = nth(Protocol::Udp, B, false, 5000 - 1024);
        let another = rig.allot_for(B, &second).unwrap();
        assert_eq!(another == kept, mapping == Mapping::PerConnection);
    }
}

#[test]
fn connections_to_one_peer_run_out_of_ports_and_come_back() {
    let mut rig = Rig::per_connection();
    let flow = |n: u32| Tuple {
        src: SocketAddr::from(([10, 1, (n >> 8) as u8, n as u8], 700)),
        ..tuple(Protocol::Tcp, "10.1.0.0:1", "198.51.100.1:80")
    };
    let mut flows = Vec::new();
    let refused = (0..5000).find_map(|n| match rig.out(flow(n)) {
        Ok((id, _)) => {
            flows.push(id);
            None
        }
        Err(reason) => Some(reason),
    });
    assert_eq!(refused, Some(DropReason::PortsExhausted));
    assert!(flows.len() > 900, "{} of 1023 were found", flows.len());
    flows.drain(..100).for_each(|id| rig.end(id));
    let again = (6000..6050).filter(|&n| rig.out(flow(n)).is_ok()).count();
    assert!(again > 40, "{again} of 50");
}

proptest! {
    /// What is counted is what is: of the 23 ports that are not reserved from the beginning, a container gets one if by the rule it
    /// may, and else none.
    #[test]
    fn shares_are_what_the_rule_says(
        ops in proptest::collection::vec((0_u8..16, 1_u32..4, 1_u16..1024, 0_usize..64), 1..300),
    ) {
        let mut rig = Rig::independent();
        let any = |port| SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port);
        let mut reserved: HashSet<u16> = (1..=1000).collect();
        for &port in &reserved {
            prop_assert!(rig.ports.reserve(Protocol::Tcp, any(port)));
        }
        let mut attached = HashSet::new();
        let mut live: Vec<(PortId, Tuple, SocketAddr)> = Vec::new();
        for (op, container, port, pick) in ops {
            let container = PortId(container);
            let used: BTreeMap<u16, PortId> = live.iter().map(|(c, _, e)| (e.port(), *c)).collect();
            match op {
                0 => {
                    rig.ports.attach(container);
                    attached.insert(container);
                }
                1 => {
                    rig.ports.detach(container);
                    attached.remove(&container);
                }
                2 => {
                    // Of one address, and more often than not one that is used.
                    let port = used.keys().nth(pick).copied().unwrap_or(port);
                    prop_assert_eq!(rig.ports.reserve(Protocol::Tcp, ours(port)), reserved.insert(port));
                }
                3 => {
                    let was = rig.ports.unreserve(Protocol::Tcp, ours(port))
                        || rig.ports.unreserve(Protocol::Tcp, any(port));
                    prop_assert_eq!(was, reserved.remove(&port));
                }
                4..=7 if !live.is_empty() => {
                    let (_, tuple, external) = live.swap_remove(pick % live.len());
                    rig.ports.take_back(&tuple, external);
                }
                _ => {
                    let tuple = nth(Protocol::Tcp, container, true, u32::from(port) + pick as u32 % 3 * 1023);
                    if live.iter().all(|(_, t, _)| t.src != tuple.src) {
                        let free = (1..1024).filter(|p| !reserved.contains(p) && !used.contains_key(p)).count();
                        let held = used.values().filter(|&&c| c == container).count();
                        let alone = attached.iter().all(|&c| c == container);
                        let may = held < free * if alone { 127 } else { 8 };
                        let allotted = rig.allot_for(container, &tuple);
                        prop_assert_eq!(allotted.is_ok(), may, "holds {}, {} are free", held, free);
                        live.extend(allotted.map(|external| (container, tuple, external)));
                    }
                }
            }
            let mut held: HashMap<PortId, u32> = HashMap::new();
            let mut taken = reserved.clone();
            for (container, _, external) in &live {
                *held.entry(*container).or_default() += 1;
                taken.insert(external.port());
            }
            let mut held: Vec<_> = held.into_iter().collect();
            held.sort_unstable();
            let (counted, free) = rig.ports.pools.shares(Protocol::Tcp, OURS, 1);
            prop_assert_eq!(counted, held);
            prop_assert!(live.is_empty() || free as usize == 1023 - taken.len());
        }
        for (_, tuple, external) in live {
            rig.ports.take_back(&tuple, external);
        }
        prop_assert!(rig.is_clear());
    }
}
