//! Published ports.

use std::net::IpAddr;
use std::time::Duration;

use pontoon_fixtures::packet::{Between, Tcp, flags};
use pontoon_nat::publish::{SourceAction, SourceRule, Transport};
use pontoon_switch::DropReason;

use crate::world::*;

fn syn(src: u16, dst: u16) -> Tcp<'static> {
    Tcp {
        src,
        dst,
        seq: 1000,
        flags: flags::SYN,
        window: 1000,
        ..Tcp::default()
    }
}

#[test]
fn a_client_in_the_world_is_led_to_the_container_and_seen_as_itself() {
    let mut w = World::plain();
    w.publish(Transport::Tcp, "0.0.0.0:8080", A, &format!("{A4}:80"));
    w.publish(Transport::Tcp, "[::]:8080", A, &format!("[{A6}]:80"));
    for (far, own, inner) in [(FAR, OWN, A4), (FAR6, OWN6, A6)] {
        let got = w.inward(World::far(far, own).tcp(syn(5555, 8080)));
        let (far_, inner_) = (bracket(far), bracket(inner));
        assert_eq!(ends(&got), format!("{far_}:5555 > {inner_}:80"));
        let answer = Tcp {
            src: 80,
            dst: 5555,
            seq: 7000,
            ack: 1001,
            flags: flags::SYN | flags::ACK,
            window: 1000,
            ..Tcp::default()
        };
        let back = w.out(World::from(A, far).tcp(answer));
        assert_eq!(ends(&back), format!("{}:8080 > {far_}:5555", bracket(own)));
    }
    let flow = &w.flows()[0];
    assert!(!flow.outbound && flow.state == "syn-received");
}

fn bracket(addr: &str) -> String {
    if addr.contains(':') {
        format!("[{addr}]")
    } else {
        addr.to_owned()
    }
}

#[test]
fn rfc5382_req8_a_container_reaches_published_ports_its_own_too() {
    let mut w = World::plain();
    w.publish(Transport::Tcp, "0.0.0.0:8080", A, &format!("{A4}:80"));
    for (port, own) in [(B, OWN), (A, OWN), (B, "10.0.2.2")] {
        w.lan(port, World::from(port, own).tcp(syn(5555, 8080)));
        let got = w.one_inside();
        let seen = tcp_ports(&got).0;
        assert_eq!(ends(&got), format!("{own}:{seen} > {A4}:80"));
        let answer = Tcp {
            src: 80,
            dst: seen,
            seq: 7000,
            ack: 1001,
            flags: flags::SYN | flags::ACK,
            window: 1000,
            ..Tcp::default()
        };
        w.lan(A, World::from(A, own).tcp(answer));
        let back = w.one_inside();
        assert_eq!(ends(&back), format!("{own}:8080 > 10.0.2.{}:5555", 99 + port.0));
        w.gateway.flush_flows(w.now, None, &mut Nowhere);
    }
}

struct Nowhere;

impl pontoon_switch::Out for Nowhere {
    fn send(&mut self, _: &mut pontoon_switch::Frame<'_>) {}
    fn send_by(&mut self, _: pontoon_switch::PortId, _: &mut pontoon_switch::Frame<'_>) {}
    fn drop(&mut self, _: Option<pontoon_switch::PortId>, _: DropReason) {}
}

#[test]
fn a_rule_that_is_taken_back_ends_its_flows_and_no_others() {
    let mut w = World::plain();
    let rule = w.publish(Transport::Udp, "0.0.0.0:53", A, &format!("{A4}:5353"));
    w.inward(World::far(FAR, OWN).udp(9999, 53, b"q"));
    w.out(World::from(A, FAR).udp(40_000, 7, b"x"));
    assert_eq!(w.flows().len(), 2);
    assert_eq!(
        [w.gateway.unpublish(&[rule]), w.gateway.unpublish(&[rule])],
        [1, 0]
    );
    let left = w.flows();
    assert_eq!((left.len(), left[0].outbound), (1, true));
    w.link(WORLD, World::far(FAR, OWN).udp(9999, 53, b"q"));
    assert_eq!(icmp(&w.one_outside()).1, 3);
}

#[test]
fn a_container_that_goes_takes_its_flows_and_rules_along() {
    let mut w = World::plain();
    w.publish(Transport::Udp, "0.0.0.0:53", A, &format!("{A4}:5353"));
    w.inward(World::far(FAR, OWN).udp(9999, 53, b"q"));
    w.out(World::from(A, FAR).udp(40_000, 7, b"x"));
    w.lan(B, World::from(B, FAR).udp(40_001, 7, b"x"));
    w.outside();
    w.gateway.detach(w.now, A, &mut Nowhere);
    assert_eq!(w.flows().len(), 1);
    w.link(WORLD, World::far(FAR, OWN).udp(9999, 53, b"q"));
    assert!(w.inside().is_empty());
}

#[test]
fn rules_on_clients_hold_for_old_flows_as_well() {
    let mut w = World::plain();
    w.publish(Transport::Tcp, "0.0.0.0:8080", A, &format!("{A4}:80"));
    w.inward(World::far(FAR, OWN).tcp(syn(5555, 8080)));
    let deny = vec![SourceRule {
        action: SourceAction::Deny,
        net: "198.51.100.0/24".parse().unwrap(),
    }];
    w.gateway.set_sources(A, Transport::Tcp, 80, deny);
    w.settle();
    assert!(w.flows().is_empty());
    w.link(WORLD, World::far(FAR, OWN).tcp(syn(5556, 8080)));
    assert_eq!(
        ends(&w.one_outside()),
        format!("{OWN}:8080 > {FAR}:5556"),
        "a reset"
    );
    assert_eq!(w.dropped(DropReason::Denied), 1);
    w.inward(World::far(FAR2, OWN).tcp(syn(5555, 8080)));
}

#[test]
fn a_published_port_is_allotted_to_nobody_else() {
    let mut w = World::plain();
    w.publish(Transport::Udp, "0.0.0.0:5000", A, &format!("{A4}:5000"));
    w.lan(B, World::from(B, FAR).udp(5000, 7, b"x"));
    assert_ne!(tcp_ports(&w.one_outside()).0, 5000);
}

/// A hairpin is a flow of its caller; it ends with what it leads to all the same.
#[test]
fn what_leads_to_a_container_ends_with_it_whoever_opened_it() {
    for by_rule in [true, false] {
        let mut w = World::plain();
        let rule = w.publish(Transport::Udp, "0.0.0.0:53", A, &format!("{A4}:5353"));
        w.lan(B, World::from(B, OWN).udp(4000, 53, b"q"));
        w.one_inside();
        assert_eq!(w.flows().len(), 1);
        if by_rule {
            assert_eq!(w.gateway.unpublish(&[rule]), 1);
        } else {
            w.gateway.detach(w.now, A, &mut Nowhere);
        }
        assert!(w.flows().is_empty(), "{by_rule}");
    }
}

/// What a server sends of itself comes from where its clients find it (RFC 4787 REQ-1).
#[test]
fn a_published_port_is_the_containers_own_outward_as_well() {
    let mut w = World::plain();
    w.publish(Transport::Udp, "0.0.0.0:5061", A, &format!("{A4}:5060"));
    let sent = w.out(World::from(A, FAR).udp(5060, 7, b"x"));
    assert_eq!(ends(&sent), format!("{OWN}:5061 > {FAR}:7"));
    let back = w.inward(World::far(FAR, OWN).udp(7, 5061, b"y"));
    assert_eq!(ends(&back), format!("{FAR}:7 > {A4}:5060"));
}

#[test]
fn a_flow_is_marked_with_the_number_of_its_rule() {
    let mut w = World::plain();
    let rule = w.publish(Transport::Udp, "0.0.0.0:53", A, &format!("{A4}:5353"));
    w.inward(World::far(FAR, OWN).udp(4000, 53, b"q"));
    w.out(World::from(A, FAR).udp(40_000, 7, b"x"));
    let mut marks: Vec<u32> = w.flows().iter().map(|f| f.mark).collect();
    marks.sort_unstable();
    assert_eq!(marks, [0, rule.0]);
}

/// A client's kernel gives one source port to connections to different ports; behind rules that lead to one port of a container's
/// they would be one flow.
#[test]
fn connections_from_one_port_of_a_client_are_kept_apart() {
    let mut w = World::plain();
    let inner = format!("{A4}:80");
    for transport in [Transport::Tcp, Transport::Udp] {
        for port in [8080, 8081] {
            w.publish(transport, &format!("0.0.0.0:{port}"), A, &inner);
        }
    }
    let first = w.inward(World::far(FAR, OWN).tcp(syn(5555, 8080)));
    assert_eq!(ends(&first), format!("{FAR}:5555 > {inner}"));
    let second = w.inward(World::far(FAR, OWN).tcp(syn(5555, 8081)));
    let chosen = tcp_ports(&second).0;
    assert_ne!(chosen, 5555);
    assert_eq!(ends(&second), format!("{FAR}:{chosen} > {inner}"));
    for (port, published) in [(5555, 8080), (chosen, 8081)] {
        let answer = Tcp {
            src: 80,
            dst: port,
            seq: 7000,
            ack: 1001,
            flags: flags::SYN | flags::ACK,
            window: 1000,
            ..Tcp::default()
        };
        let back = w.out(World::from(A, FAR).tcp(answer));
        assert_eq!(ends(&back), format!("{OWN}:{published} > {FAR}:5555"));
    }
    // Of UDP the class of ports is kept (RFC 4787 REQ-4).
    w.inward(World::far(FAR, OWN).udp(5556, 8080, b"x"));
    let chosen = tcp_ports(&w.inward(World::far(FAR, OWN).udp(5556, 8081, b"x"))).0;
    assert!(
        chosen != 5556 && chosen.is_multiple_of(2) && chosen >= 1024,
        "{chosen}"
    );
}

#[test]
fn who_is_led_to_a_container_that_does_not_answer_is_told_of_what_he_sent() {
    let mut w = World::plain();
    w.publish(Transport::Udp, "0.0.0.0:9", A, "10.0.2.150:99");
    w.publish(Transport::Udp, "[::]:9", A, "[fd00:2::150]:99");
    for (far, own, gateway, address) in [(FAR, OWN, "10.0.2.2", 26..34), (FAR6, OWN6, "fd00:2::2", 22..54)] {
        let unreachable = if ip(far).is_ipv4() { (3, 1) } else { (1, 3) };
        let before = w.dropped(DropReason::NoNeighbour);
        let sent = World::far(far, own).udp(7, 9, b"hello");
        w.link(WORLD, sent.clone());
        w.lan(B, World::from(B, own).udp(8, 9, b"hello"));
        w.pass(Duration::from_millis(2900));
        assert!(w.outside().is_empty(), "there is still hope");
        w.inside_offloaded();
        w.pass(Duration::from_millis(200));
        let (src, kind, code, _, body) = icmp(&w.one_outside());
        assert_eq!((src, (kind, code)), (ip(own), unreachable));
        // Addresses, ports and the checksum as the client sent them.
        assert_eq!(body[address.start - 14..], sent[address.start..]);
        let told: Vec<_> = w.inside().iter().map(|f| icmp(f)).collect();
        let (src, kind, code, _, body) = &told[0];
        assert_eq!((told.len(), *src, (*kind, *code)), (1, ip(gateway), unreachable));
        let asked = World::from(B, own).udp(8, 9, b"hello");
        assert_eq!(body[address.start - 14..], asked[address.start..]);
        assert_eq!(w.dropped(DropReason::NoNeighbour) - before, 2);
    }
    // RFC 5508 REQ-6: as any error it ends nothing.
    assert_eq!(w.flows().len(), 4);
}

#[test]
fn what_waits_for_a_container_has_it_asked_for_until_it_answers() {
    let mut w = World::plain();
    w.publish(Transport::Udp, "0.0.0.0:9", A, "10.0.2.150:99");
    w.publish(Transport::Udp, "[::]:9", A, "[fd00:2::150]:99");
    let late = mac(A);
    // Router advertisements aside.
    let inside = |w: &mut World| -> Vec<Vec<u8>> {
        let frames = w.inside_offloaded().into_iter().map(|(f, _)| f);
        frames.filter(|f| f[..6] != [0x33, 0x33, 0, 0, 0, 1]).collect()
    };
    for (far, own, address) in [(FAR, OWN, "10.0.2.150"), (FAR6, OWN6, "fd00:2::150")] {
        let answer = if ip(own).is_ipv4() {
            Between::v4(address, "10.0.2.2").macs(late, GATEWAY).arp_request()
        } else {
            let IpAddr::V6(target) = ip(address) else {
                unreachable!()
            };
            let body = [&target.octets()[..], &[2, 1], &late.0].concat();
            let between = Between::v6(address, "fd00:2::2").macs(late, GATEWAY).ttl(255);
            between.icmp(136, 0, [0x60, 0, 0, 0], &body)
        };
        // Nine packets: eight may wait, and the latest do.
        for number in 0..9u8 {
            w.link(WORLD, World::far(far, own).udp(7, 9, &[number]));
        }
        assert_eq!(inside(&mut w).len(), 1, "one question");
        assert_eq!(
            w.dropped(DropReason::NoNeighbour),
            if ip(own).is_ipv4() { 1 } else { 2 }
        );
        for until_then in [990, 980] {
            w.pass(Duration::from_millis(until_then));
            assert!(inside(&mut w).is_empty(), "not within a second");
            w.pass(Duration::from_millis(20));
            assert_eq!(inside(&mut w).len(), 1, "one more");
        }
        w.pass(Duration::from_millis(900));
        w.lan(A, answer);
        let mut came = inside(&mut w);
        // The gateway's own answer aside.
        came.retain(|f| f[12..14] != [8, 6]);
        let data: Vec<u8> = came.iter().filter_map(|f| f.last().copied()).collect();
        assert!(came.iter().all(|f| f[..6] == late.0));
        assert_eq!(data, [1, 2, 3, 4, 5, 6, 7, 8]);
        w.pass(Duration::from_secs(10));
        assert!(inside(&mut w).is_empty() && w.outside().is_empty());
    }
}

#[test]
fn nobody_is_told_of_an_error_that_cannot_be_delivered() {
    let mut w = World::plain();
    w.publish(Transport::Udp, "0.0.0.0:1000", A, "10.0.2.150:99");
    w.link(WORLD, World::far(FAR, OWN).udp(7, 1000, b"x"));
    // The client's own error about it belongs to the flow, and waits as well.
    let quoted = Between::v4(OWN, FAR).udp(1000, 7, b"y");
    w.link(WORLD, World::far(FAR, OWN).icmp(3, 3, [0; 4], &quoted[14..]));
    w.pass(Duration::from_secs(4));
    assert_eq!(icmp(&w.one_outside()).1, 3, "about the datagram alone");
    assert_eq!(w.dropped(DropReason::NoNeighbour), 2);
}
