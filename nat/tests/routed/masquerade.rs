//! UDP, ICMP and other protocols out of the network and back.

use std::time::Duration;

use pontoon_fixtures::packet::{Between, Parsed, Payload};
use pontoon_nat::config::{Config, Filtering};
use pontoon_nat::routed::{Mapping, Nat};
use pontoon_switch::DropReason;

use crate::world::*;

fn udp_out(w: &mut World, sport: u16, dst: &str, dport: u16) -> Vec<u8> {
    w.out(World::from(A, dst).udp(sport, dport, b"ping"))
}

#[test]
fn what_leaves_has_the_gateways_address_and_what_comes_back_is_the_containers() {
    let mut w = World::plain();
    let sent = udp_out(&mut w, 5000, FAR, 7);
    assert_eq!(ends(&sent), format!("{OWN}:5000 > {FAR}:7"));
    let p = Parsed::of(&sent).unwrap();
    assert_eq!((p.ttl, p.src_mac, p.dst_mac), (63, OUTSIDE, ROUTER));
    let back = w.inward(World::far(FAR, OWN).udp(7, 5000, b"pong"));
    assert_eq!(ends(&back), format!("{FAR}:7 > {A4}:5000"));
    let p = Parsed::of(&back).unwrap();
    assert_eq!((p.ttl, p.src_mac, p.dst_mac), (63, GATEWAY, mac(A)));
    let flows = w.flows();
    assert_eq!(flows.len(), 1);
    // A question and its answer are soon over; RFC 4787 REQ-5 c is for flows that go on.
    assert_eq!(flows[0].state, "new");
    assert_eq!(
        flows[0].original,
        (
            format!("{A4}:5000").parse().unwrap(),
            format!("{FAR}:7").parse().unwrap()
        )
    );
    assert_eq!(
        flows[0].reply,
        (
            format!("{FAR}:7").parse().unwrap(),
            format!("{OWN}:5000").parse().unwrap()
        )
    );
    assert_eq!((flows[0].sent.packets, flows[0].received.bytes), (1, 32));
    udp_out(&mut w, 5000, FAR, 7);
    assert_eq!(w.flows()[0].state, "replied");
}

#[test]
fn ipv6_is_masqueraded_likewise() {
    let mut w = World::plain();
    let sent = udp_out(&mut w, 5000, FAR6, 7);
    assert_eq!(ends(&sent), format!("[{OWN6}]:5000 > [{FAR6}]:7"));
    let back = w.inward(World::far(FAR6, OWN6).udp(7, 5000, b"pong"));
    assert_eq!(ends(&back), format!("[{FAR6}]:7 > [{A6}]:5000"));
}

#[test]
fn rfc4787_req1_endpoint_independent_mapping() {
    let mut w = World::plain();
    // B has the port first, so that A gets another.
    w.lan(B, World::from(B, FAR).udp(5000, 7, b"b"));
    w.outside();
    let first = tcp_ports(&udp_out(&mut w, 5000, FAR, 7)).0;
    assert_ne!(first, 5000);
    assert_eq!(tcp_ports(&udp_out(&mut w, 5000, FAR2, 7)).0, first);
    assert_eq!(tcp_ports(&udp_out(&mut w, 5000, FAR2, 9)).0, first);
}

#[test]
fn mapping_by_connection_shares_a_port_among_containers_that_talk_to_different_peers() {
    let link = Link {
        mapping: Mapping::PerConnection,
        ..Link::default()
    };
    let mut w = World::new(config(), link);
    w.lan(B, World::from(B, FAR).udp(5000, 7, b"b"));
    assert_eq!(tcp_ports(&w.one_outside()).0, 5000);
    assert_eq!(tcp_ports(&udp_out(&mut w, 5000, FAR2, 7)).0, 5000);
    assert_ne!(tcp_ports(&udp_out(&mut w, 5000, FAR, 7)).0, 5000);
    let back = w.inward(World::far(FAR2, OWN).udp(7, 5000, b"to a"));
    assert_eq!(Parsed::of(&back).unwrap().dst, ip(A4));
}

#[test]
fn rfc4787_req3_ports_are_preserved_and_not_shared_and_low_ones_stay_low() {
    let mut w = World::plain();
    assert_eq!(tcp_ports(&udp_out(&mut w, 5000, FAR, 7)).0, 5000);
    w.lan(B, World::from(B, FAR).udp(5000, 7, b"b"));
    assert_ne!(tcp_ports(&w.one_outside()).0, 5000);
    assert_eq!(tcp_ports(&udp_out(&mut w, 123, FAR, 123)).0, 123);
    w.lan(B, World::from(B, FAR).udp(123, 123, b"b"));
    let low = tcp_ports(&w.one_outside()).0;
    assert!(low < 1024 && low != 123, "{low}");
}

#[test]
fn rfc4787_req4_parity_is_preserved() {
    let mut w = World::plain();
    for port in [5000, 5001, 6002, 6003] {
        w.lan(B, World::from(B, FAR).udp(port, 7, b"b"));
        w.outside();
        let got = tcp_ports(&udp_out(&mut w, port, FAR, 7)).0;
        assert!(got != port && got % 2 == port % 2, "{port} became {got}");
    }
}

#[test]
fn rfc4787_req5_a_mapping_lasts_two_minutes_and_req6_outbound_refreshes() {
    let mut w = World::plain();
    udp_out(&mut w, 5000, FAR, 7);
    w.pass(Duration::from_secs(119));
    w.inward(World::far(FAR, OWN).udp(7, 5000, b"still"));
    udp_out(&mut w, 5000, FAR, 7);
    for _ in 0..3 {
        w.pass(Duration::from_secs(250));
        udp_out(&mut w, 5000, FAR, 7);
    }
    assert_eq!(w.flows().len(), 1);
    w.pass(Duration::from_secs(302));
    assert!(w.flows().is_empty());
    w.link(WORLD, World::far(FAR, OWN).udp(7, 5000, b"late"));
    assert!(w.inside().is_empty());
}

#[test]
fn rfc4787_req8_address_dependent_filtering() {
    let mut w = World::plain();
    udp_out(&mut w, 5000, FAR, 7);
    let back = w.inward(World::far(FAR, OWN).udp(9, 5000, b"another port"));
    assert_eq!(ends(&back), format!("{FAR}:9 > {A4}:5000"));
    w.link(WORLD, World::far(FAR2, OWN).udp(7, 5000, b"another address"));
    assert!(w.nothing());
    assert_eq!(w.dropped(DropReason::Filtered), 1);
}

#[test]
fn rfc4787_req8_endpoint_independent_filtering_by_choice() {
    let config = Config {
        filtering: Filtering::EndpointIndependent,
        ..config()
    };
    let mut w = World::new(config, Link::default());
    udp_out(&mut w, 5000, FAR, 7);
    let back = w.inward(World::far(FAR2, OWN).udp(7, 5000, b"another address"));
    assert_eq!(ends(&back), format!("{FAR2}:7 > {A4}:5000"));
    assert_eq!(
        ends(&udp_out(&mut w, 5000, FAR2, 7)),
        format!("{OWN}:5000 > {FAR2}:7")
    );
    assert_eq!(w.flows().len(), 2, "the answer belongs to the flow that came in");
}

#[test]
fn rfc4787_req9_hairpin_shows_the_external_address() {
    let config = Config {
        filtering: Filtering::EndpointIndependent,
        ..config()
    };
    let mut w = World::new(config, Link::default());
    udp_out(&mut w, 5000, FAR, 7);
    w.lan(B, World::from(B, OWN).udp(6000, 5000, b"from b"));
    let got = w.one_inside();
    assert_eq!(ends(&got), format!("{OWN}:6000 > {A4}:5000"));
    w.lan(A, World::from(A, OWN).udp(5000, 6000, b"to b"));
    assert_eq!(ends(&w.one_inside()), format!("{OWN}:5000 > {B4}:6000"));
}

#[test]
fn rfc4787_req12_errors_end_no_mapping_and_reach_the_container() {
    let mut w = World::plain();
    let sent = udp_out(&mut w, 5000, FAR, 7);
    let error = World::far("203.0.113.1", OWN).icmp(3, 3, [0; 4], &sent[14..42]);
    let (src, kind, code, _, body) = icmp(&w.inward(error));
    assert_eq!((src, kind, code), (ip("203.0.113.1"), 3, 3));
    let inner = Between::v4(A4, FAR).udp(5000, 7, b"ping");
    assert_eq!(
        body[12..24],
        inner[26..38],
        "addresses and ports as the container sent them"
    );
    assert_eq!(w.flows().len(), 1);
    assert_eq!(w.flows()[0].received.packets, 0);
    w.inward(World::far(FAR, OWN).udp(7, 5000, b"pong"));
}

#[test]
fn rfc5508_req1_queries_and_their_answers_pass_whomever_they_are_to() {
    let mut w = World::plain();
    for (far, own, inner, request, reply) in [(FAR, OWN, A4, 8, 0), (FAR6, OWN6, A6, 128, 129)] {
        let sent = w.out(World::from(A, far).echo(77, 1, b"data"));
        let (src, kind, _, rest, _) = icmp(&sent);
        assert_eq!((src, kind, rest), (ip(own), request, [0, 77, 0, 1]));
        let back = w.inward(World::far(far, own).icmp(reply, 0, rest, b"data"));
        assert_eq!(Parsed::of(&back).unwrap().dst, ip(inner));
        assert_eq!(icmp(&back).3, [0, 77, 0, 1]);
    }
    // Another container's query of the same identifier is told apart.
    w.lan(B, World::from(B, FAR).echo(77, 1, b"data"));
    let other = icmp(&w.one_outside()).3;
    assert_ne!(other[..2], [0, 77]);
    let back = w.inward(World::far(FAR, OWN).icmp(0, 0, other, b"data"));
    assert_eq!(
        (Parsed::of(&back).unwrap().dst, icmp(&back).3),
        (ip(B4), [0, 77, 0, 1])
    );
    // An answer that nobody has asked for goes nowhere.
    w.link(WORLD, World::far(FAR2, OWN).icmp(0, 0, [0, 9, 0, 1], b"data"));
    assert!(w.nothing());
}

#[test]
fn rfc5508_req2_a_query_lasts_sixty_seconds() {
    let mut w = World::plain();
    w.out(World::from(A, FAR).echo(77, 1, b"data"));
    w.pass(Duration::from_secs(60));
    w.inward(World::far(FAR, OWN).icmp(0, 0, [0, 77, 0, 1], b"data"));
    w.pass(Duration::from_secs(62));
    w.link(WORLD, World::far(FAR, OWN).icmp(0, 0, [0, 77, 0, 1], b"data"));
    assert!(w.nothing());
}

#[test]
fn rfc5508_req3_an_error_with_a_wrong_checksum_is_dropped() {
    let mut w = World::plain();
    let sent = udp_out(&mut w, 5000, FAR, 7);
    let mut error = World::far(FAR, OWN).icmp(3, 3, [0; 4], &sent[14..42]);
    error[36] ^= 1;
    w.link(WORLD, error);
    assert!(w.nothing());
    assert_eq!(w.dropped(DropReason::BadChecksum), 1);
}

#[test]
fn rfc5508_req4_an_error_without_a_mapping_is_dropped() {
    let mut w = World::plain();
    let quoted = Between::v4(OWN, FAR).udp(5000, 7, b"nobody sent this");
    w.link(WORLD, World::far(FAR, OWN).icmp(3, 3, [0; 4], &quoted[14..]));
    assert!(w.nothing());
    assert_eq!(w.dropped(DropReason::NoFlow), 1);
}

#[test]
fn rfc5508_req5_an_error_of_a_container_is_passed_on() {
    let mut w = World::plain();
    udp_out(&mut w, 5000, FAR, 7);
    let got = w.inward(World::far(FAR, OWN).udp(7, 5000, b"pong"));
    w.lan(A, World::from(A, FAR).icmp(3, 3, [0; 4], &got[14..42]));
    let error = w.one_outside();
    let (src, kind, code, _, body) = icmp(&error);
    assert_eq!(
        (src, kind, code, Parsed::of(&error).unwrap().dst),
        (ip(OWN), 3, 3, ip(FAR))
    );
    let inner = Between::v4(FAR, OWN).udp(7, 5000, b"pong");
    assert_eq!(body[12..24], inner[26..38], "as it was sent");
    // Another container cannot speak of it.
    w.lan(B, World::from(B, FAR).icmp(3, 3, [0; 4], &got[14..42]));
    assert!(w.nothing());
}

#[test]
fn rfc5508_req8_refusals_are_told_as_prohibited() {
    let config = Config {
        max_flows_per_container: 2,
        ..config()
    };
    let mut w = World::new(config, Link::default());
    for port in [5000, 5001] {
        w.out(World::from(A, FAR).udp(port, 7, b"x"));
        w.inward(World::far(FAR, OWN).udp(7, port, b"y"));
        w.out(World::from(A, FAR).udp(port, 7, b"and more"));
    }
    w.lan(A, World::from(A, FAR).udp(5002, 7, b"x"));
    let (src, kind, code, ..) = icmp(&w.one_inside());
    assert_eq!((src, kind, code), (ip("10.0.2.2"), 3, 13));
    assert_eq!(w.dropped(DropReason::QuotaFull), 1);
    w.lan(B, World::from(B, FAR).udp(5002, 7, b"x"));
    assert_eq!(tcp_ports(&w.one_outside()).0, 5002, "the port was given back");
}

#[test]
fn rfc5508_req11_other_messages_are_not_passed_on() {
    let mut w = World::plain();
    let before = w.dropped(DropReason::UnknownProtocol);
    w.lan(A, World::from(A, FAR).icmp(9, 0, [1, 2, 0, 60], &[0; 8]));
    w.lan(A, World::from(A, FAR).icmp(5, 1, [10, 0, 2, 9], &[0; 28]));
    assert!(w.nothing());
    assert_eq!(w.dropped(DropReason::UnknownProtocol) - before, 2);
}

#[test]
fn other_protocols_go_by_address_alone() {
    const GRE: u8 = 47;
    let mut w = World::plain();
    let sent = w.out(World::from(A, FAR).ip(GRE, b"\0\0\x08\0hello"));
    let p = Parsed::of(&sent).unwrap();
    assert_eq!((p.src, p.protocol), (ip(OWN), GRE));
    let back = w.inward(World::far(FAR, OWN).ip(GRE, b"\0\0\x08\0world"));
    let p = Parsed::of(&back).unwrap();
    assert_eq!((p.dst, p.payload), (ip(A4), Payload::Other(b"\0\0\x08\0world")));
    // Nothing would tell B's from A's.
    w.lan(B, World::from(B, FAR).ip(GRE, b"\0\0\x08\0hello"));
    assert_eq!(icmp(&w.one_inside()).1, 3);
    w.lan(B, World::from(B, FAR2).ip(GRE, b"\0\0\x08\0hello"));
    assert_eq!(Parsed::of(&w.one_outside()).unwrap().src, ip(OWN));
}

#[test]
fn plain_routing_leaves_addresses_alone_and_lets_in_what_is_published_and_echo() {
    let link = Link {
        nat6: Nat::Route,
        ..Link::default()
    };
    let mut w = World::new(config(), link);
    let sent = udp_out(&mut w, 5000, FAR6, 7);
    assert_eq!(ends(&sent), format!("[{A6}]:5000 > [{FAR6}]:7"));
    let back = w.inward(World::far(FAR6, A6).udp(7, 5000, b"pong"));
    assert_eq!(ends(&back), format!("[{FAR6}]:7 > [{A6}]:5000"));
    w.link(WORLD, World::far(FAR6, A6).udp(7, 9, b"who asked"));
    assert_eq!(icmp(&w.one_outside()).1, 1);
    w.inward(World::far(FAR6, A6).echo(1, 1, b"x"));
    w.publish(
        pontoon_nat::publish::Transport::Udp,
        "[::]:99",
        A,
        &format!("[{A6}]:9"),
    );
    let got = w.inward(World::far(FAR6, A6).udp(8, 9, b"asked"));
    assert_eq!(ends(&got), format!("[{FAR6}]:8 > [{A6}]:9"));
}

#[test]
fn an_unreachable_neighbour_is_told_to_who_sent() {
    let mut w = World::plain();
    w.answering = false;
    w.lan(A, World::from(A, "192.0.2.50").udp(5000, 7, b"hello"));
    w.pass(Duration::from_secs(5));
    let frames = w.inside();
    let (src, kind, code, _, body) = icmp(&frames[0]);
    assert_eq!((src, kind, code), (ip("10.0.2.2"), 3, 1));
    let inner = Between::v4(A4, "192.0.2.50").udp(5000, 7, b"hello");
    assert_eq!(body[12..24], inner[26..38]);
}

#[test]
fn without_a_link_the_network_is_unreachable() {
    let mut w = World::without_links(config());
    w.lan(A, World::from(A, FAR).udp(5000, 7, b"hello"));
    let (_, kind, code, ..) = icmp(&w.one_inside());
    assert_eq!((kind, code), (3, 0));
    assert_eq!(w.dropped(DropReason::NoEgress), 1);
}

#[test]
fn the_gateway_is_a_host_on_its_link() {
    let mut w = World::plain();
    w.link(WORLD, World::far(FAR, OWN).echo(7, 1, b"are you there"));
    let (src, kind, _, rest, body) = icmp(&w.one_outside());
    assert_eq!(
        (src, kind, rest, &body[..]),
        (ip(OWN), 0, [0, 7, 0, 1], &b"are you there"[..])
    );
    w.link(WORLD, World::far(FAR, OWN).udp(7, 5000, b"x"));
    let (_, kind, code, ..) = icmp(&w.one_outside());
    assert_eq!((kind, code), (3, 3));
    w.link(WORLD, World::far(FAR, OWN).ip(132, b"sctp here"));
    let (_, kind, code, ..) = icmp(&w.one_outside());
    assert_eq!((kind, code), (3, 2));
    // A container asks as well.
    w.lan(A, World::from(A, OWN).echo(7, 1, b"x"));
    assert_eq!(icmp(&w.one_inside()).0, ip(OWN));
}

#[test]
fn forged_sources_from_the_world_go_nowhere() {
    let mut w = World::plain();
    w.publish(
        pontoon_nat::publish::Transport::Udp,
        "0.0.0.0:9",
        A,
        &format!("{A4}:9"),
    );
    for src in [OWN, "127.0.0.1", "0.0.0.1", "224.0.0.5", "255.255.255.255"] {
        w.link(WORLD, World::far(src, OWN).udp(7, 9, b"x"));
        assert!(w.nothing(), "{src}");
    }
    // A peer that has an address of the containers' subnet appears as the gateway (RFC 4787 REQ-7).
    let got = w.inward(World::far("10.0.2.200", OWN).udp(7, 9, b"x"));
    assert_eq!(Parsed::of(&got).unwrap().src, ip("10.0.2.2"));
    w.lan(A, World::from(A, "10.0.2.2").udp(9, tcp_ports(&got).0, b"y"));
    assert_eq!(ends(&w.one_outside()), format!("{OWN}:9 > 10.0.2.200:7"));
}
