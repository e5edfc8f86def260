//! Who comes in by a mapping.

use super::*;

/// RFC 4787 REQ-8 with filtering by address.
#[test]
fn a_datagram_comes_in_from_an_address_that_the_mapping_has_a_flow_with() {
    let mut rig = Rig::independent();
    let flow = |peer| tuple(Protocol::Udp, "10.0.2.2:5000", peer);
    let (out, external) = rig.out(flow("198.51.100.1:80")).unwrap();
    let (again, _) = rig.out(flow("198.51.100.1:81")).unwrap();
    let asks = |rig: &Rig, remote| rig.ports.inbound(Protocol::Udp, external, end(remote));
    let inbound = asks(&rig, "198.51.100.1:9").unwrap();
    assert_eq!((inbound.internal, inbound.container), (end("10.0.2.2:5000"), A));
    assert!(inbound.allowed);
    assert!(!asks(&rig, "198.51.100.2:80").unwrap().allowed);
    assert!(
        rig.ports
            .inbound(Protocol::Udp, ours(5001), end("198.51.100.1:9"))
            .is_none()
    );
    assert!(
        rig.ports
            .inbound(Protocol::Tcp, external, end("198.51.100.1:9"))
            .is_none()
    );
    // As long as one flow with it lives, be it one that came in.
    let came = rig.come_in(Protocol::Udp, external, end("198.51.100.1:9"));
    rig.end(out);
    rig.end(again);
    assert!(asks(&rig, "198.51.100.1:10").unwrap().allowed);
    rig.end(came);
    assert!(asks(&rig, "198.51.100.1:9").is_none() && rig.is_clear());
    assert!(!rig.ports.adopt(Protocol::Udp, external, end("198.51.100.1:9")));
}

#[test]
fn anyone_comes_in_by_endpoint_independent_filtering() {
    let anyone = end("203.0.113.77:7");
    for (filtering, protocol, allowed) in [
        (Filtering::EndpointIndependent, Protocol::Udp, true),
        (Filtering::EndpointIndependent, Protocol::Tcp, true),
        (Filtering::AddressDependent, Protocol::Udp, false),
        (Filtering::AddressDependent, Protocol::Tcp, false),
    ] {
        let mut rig = Rig::new(Mapping::EndpointIndependent, filtering);
        let (out, external) = rig
            .out(tuple(protocol, "10.0.2.2:5000", "198.51.100.1:80"))
            .unwrap();
        let inbound = rig.ports.inbound(protocol, external, anyone).unwrap();
        assert_eq!(inbound.allowed, allowed, "{protocol:?} {filtering:?}");
        if allowed {
            let came = rig.come_in(protocol, external, anyone);
            rig.end(out);
            rig.end(came);
            assert!(rig.is_clear());
        }
    }
}

/// An echo request from outside shows the rewriter's 0 for a port, and a container may ping with the identifier 0.
#[test]
fn nobody_comes_in_by_what_has_no_ports() {
    for filtering in [Filtering::EndpointIndependent, Filtering::AddressDependent] {
        for (protocol, src, dst, external) in [
            (Protocol::Icmp, "10.0.2.2:0", "198.51.100.1:0", "192.0.2.1:0"),
            (Protocol::Icmp, "10.0.2.2:77", "198.51.100.1:0", "192.0.2.1:77"),
            (
                Protocol::Icmp6,
                "[fd00::2]:0",
                "[2001:db8::1]:0",
                "[2001:db8::2]:0",
            ),
            (Protocol::Other(47), "10.0.2.2:0", "198.51.100.1:0", "192.0.2.1:0"),
        ] {
            let mut rig = Rig::new(Mapping::EndpointIndependent, filtering);
            let (ping, external) = (tuple(protocol, src, dst), end(external));
            let allotted = (rig.ports).allot(&rig.flows, &ping, ping.dst, A, external.ip(), rig.mapping);
            assert_eq!(allotted, Ok(external));
            let reply = Tuple {
                dst: external,
                ..ping.reversed()
            };
            let id = rig.enter(ping, reply);
            assert_eq!(rig.ports.inbound(protocol, external, ping.dst), None);
            assert!(!rig.ports.adopt(protocol, external, ping.dst));
            rig.end(id);
            assert!(rig.is_clear(), "{protocol:?}");
        }
    }
}

/// A flow that was allotted a port but not entered leaves nothing, and what it called is as it was.
#[test]
fn what_is_taken_back_was_never_there() {
    let mut rig = Rig::independent();
    let (theirs, _) = rig
        .out(tuple(Protocol::Udp, "10.0.2.3:7000", "198.51.100.1:80"))
        .unwrap();
    // Its own mapping is new, or there by another flow, or the called one.
    let call = tuple(Protocol::Udp, "10.0.2.2:6000", "192.0.2.1:7000");
    let external = rig.allot(&call).unwrap();
    rig.ports.take_back(&call, external);
    assert_eq!(rig.ports.inbound(Protocol::Udp, external, call.dst), None);
    let (own, external) = rig
        .out(tuple(Protocol::Udp, "10.0.2.2:6000", "198.51.100.1:80"))
        .unwrap();
    rig.allot(&call).unwrap();
    rig.ports.take_back(&call, external);
    let asks = |rig: &Rig, at, remote| {
        let inbound = rig.ports.inbound(Protocol::Udp, at, end(remote));
        inbound.unwrap().allowed
    };
    assert!(asks(&rig, external, "198.51.100.1:81"));
    assert!(!asks(&rig, external, "192.0.2.1:7000"));
    let itself = tuple(Protocol::Udp, "10.0.2.3:7000", "192.0.2.1:7000");
    let external = rig.allot(&itself).unwrap();
    rig.ports.take_back(&itself, external);
    assert!(asks(&rig, ours(7000), "198.51.100.1:81"));
    assert!(!asks(&rig, ours(7000), "192.0.2.1:7000"));
    rig.end(own);
    rig.end(theirs);
    assert!(rig.is_clear());
}

/// One container calls another one's mapping: the flow counts at both.
#[test]
fn a_hairpin_flow_holds_both_mappings() {
    let mut rig = Rig::new(Mapping::EndpointIndependent, Filtering::EndpointIndependent);
    let (own, theirs) = rig
        .out(tuple(Protocol::Udp, "10.0.2.3:7000", "198.51.100.1:80"))
        .unwrap();
    let call = tuple(Protocol::Udp, "10.0.2.2:6000", "192.0.2.1:7000");
    let external = rig.allot(&call).unwrap();
    let inbound = rig.ports.inbound(Protocol::Udp, theirs, external).unwrap();
    assert!(inbound.allowed && rig.ports.adopt(Protocol::Udp, theirs, external));
    let reply = Tuple {
        protocol: Protocol::Udp,
        src: inbound.internal,
        dst: external,
    };
    let id = rig.enter(call, reply);
    rig.end(own);
    assert!(rig.ports.inbound(Protocol::Udp, theirs, external).is_some());
    rig.end(id);
    assert!(rig.is_clear());
}

/// The same with filtering by address: what is counted at the called one is the caller as it is seen there.
#[test]
fn a_hairpin_flow_lets_the_caller_in() {
    let mut rig = Rig::independent();
    rig.out(tuple(Protocol::Udp, "10.0.2.3:7000", "198.51.100.1:80"))
        .unwrap();
    let call = tuple(Protocol::Udp, "10.0.2.2:6000", "192.0.2.1:7000");
    let external = rig.allot(&call).unwrap();
    assert!(rig.ports.adopt(Protocol::Udp, ours(7000), external));
    let asks = |rig: &Rig| {
        let inbound = rig.ports.inbound(Protocol::Udp, ours(7000), ours(6001));
        inbound.unwrap().allowed
    };
    assert!(asks(&rig));
    let reply = Tuple {
        protocol: Protocol::Udp,
        src: end("10.0.2.3:7000"),
        dst: external,
    };
    let id = rig.enter(call, reply);
    rig.end(id);
    assert!(!asks(&rig), "nothing is left of the call");
}
