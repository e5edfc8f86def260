//! IPv6 packets with segments left in a routing header (RFC 8200 section 4.4): carried for others, heeded by nobody here.

use std::net::{IpAddr, Ipv6Addr};

use pontoon_fixtures::packet::{Between, Parsed, Payload, Tcp, flags};
use pontoon_nat::config::{Config, Egress};
use pontoon_nat::publish::Transport;
use pontoon_nat::routed::Nat;
use pontoon_switch::DropReason;

use crate::world::*;

/// A node in the world that heeds routing headers.
const NODE: &str = "2001:db8:3::1";
/// Segment routing, the deprecated kind, one that nobody knows.
const SEGMENTS: u8 = 4;
const DEPRECATED: u8 = 0;
const UNKNOWN: u8 = 253;

fn octets(addr: &str) -> [u8; 16] {
    let IpAddr::V6(addr) = ip(addr) else {
        panic!("IPv6");
    };
    addr.octets()
}

/// `frame`, which is for the last of the segments, by way of `node`.
fn by(node: &str, kind: u8, frame: &[u8]) -> Vec<u8> {
    let mut routed = frame.to_vec();
    let header = [&[frame[20], 2, kind, 1, 0, 0, 0, 0][..], &frame[38..54]].concat();
    routed.splice(54..54, header);
    routed[20] = 43;
    let len = (routed.len() - 54) as u16;
    routed[18..20].copy_from_slice(&len.to_be_bytes());
    routed[38..54].copy_from_slice(&octets(node));
    routed
}

/// A packet with one segment left as it is behind that one, without the header: the node that it is to go by, and the packet.
fn behind(frame: &[u8]) -> (IpAddr, Vec<u8>) {
    assert_eq!((frame[20], &frame[55..58]), (43, &[2, frame[56], 1][..]));
    let node = Ipv6Addr::from(*frame[38..].first_chunk::<16>().expect("an address"));
    let mut bare = frame.to_vec();
    bare[20] = frame[54];
    bare.copy_within(62..78, 38);
    bare.drain(54..78);
    let len = (bare.len() - 54) as u16;
    bare[18..20].copy_from_slice(&len.to_be_bytes());
    (node.into(), bare)
}

/// Sends from A, and gives the one frame that leaves for the world, whose checksum is not over its destination.
fn out(w: &mut World, frame: Vec<u8>) -> Vec<u8> {
    w.lan(A, frame);
    w.one_outside_unverified()
}

fn syn() -> Tcp<'static> {
    Tcp {
        src: 5000,
        dst: 80,
        seq: 1000,
        flags: flags::SYN,
        window: 1000,
        ..Tcp::default()
    }
}

#[test]
fn a_containers_packet_goes_by_the_node_and_the_answer_comes_from_the_last() {
    let mut w = World::plain();
    let sent = out(
        &mut w,
        by(NODE, SEGMENTS, &World::from(A, FAR6).udp(5000, 7, b"ping")),
    );
    // Its checksum, over the last of the segments, is right.
    let (node, bare) = behind(&sent);
    assert_eq!(node, ip(NODE));
    assert_eq!(ends(&bare), format!("[{OWN6}]:5000 > [{FAR6}]:7"));
    assert_eq!(Parsed::of(&bare).unwrap().ttl, 63);
    let back = w.inward(World::far(FAR6, OWN6).udp(7, 5000, b"pong"));
    assert_eq!(ends(&back), format!("[{FAR6}]:7 > [{A6}]:5000"));
    // With segments or without, it is one flow.
    w.out(World::from(A, FAR6).udp(5000, 7, b"ping"));
    assert_eq!(w.flows().len(), 1);
    assert_eq!(w.flows()[0].original.1, format!("[{FAR6}]:7").parse().unwrap());
}

#[test]
fn tcp_is_followed_with_segments_left() {
    let mut w = World::plain();
    let frame = by(NODE, SEGMENTS, &World::from(A, FAR6).tcp(syn()));
    let mut spoilt = frame.clone();
    *spoilt.last_mut().unwrap() ^= 1;
    w.lan(A, spoilt);
    assert_eq!(w.dropped(DropReason::BadChecksum), 1);
    let (_, bare) = behind(&out(&mut w, frame));
    assert_eq!(ends(&bare), format!("[{OWN6}]:5000 > [{FAR6}]:80"));
    assert_eq!(w.flows()[0].state, "syn-sent");
    // What belongs to no connection is not answered in the node's name.
    let stray = Tcp {
        src: 5001,
        flags: flags::ACK,
        ..syn()
    };
    w.lan(A, by(NODE, SEGMENTS, &World::from(A, FAR6).tcp(stray)));
    assert!(w.nothing());
}

#[test]
fn rfc5095_the_deprecated_header_is_carried_nowhere_and_unknown_ones_are() {
    let mut w = World::plain();
    let frame = World::from(A, FAR6).udp(5000, 7, b"ping");
    let before = w.dropped(DropReason::Malformed);
    w.lan(A, by(NODE, DEPRECATED, &frame));
    w.link(
        WORLD,
        by(A6, DEPRECATED, &World::far(FAR6, OWN6).udp(7, 5000, b"x")),
    );
    assert!(w.nothing());
    assert_eq!(w.dropped(DropReason::Malformed) - before, 2);
    // Who is the last is not known: the flow is one to the node.
    let (node, bare) = behind(&out(&mut w, by(NODE, UNKNOWN, &frame)));
    assert_eq!(node, ip(NODE));
    assert_eq!(ends(&bare), format!("[{OWN6}]:5000 > [{FAR6}]:7"));
    assert_eq!(w.flows()[0].original.1, format!("[{NODE}]:7").parse().unwrap());
    out(&mut w, by(NODE, UNKNOWN, &World::from(A, FAR6).tcp(syn())));
}

#[test]
fn the_gateway_itself_heeds_none() {
    let mut w = World::plain();
    let before = w.dropped(DropReason::Malformed);
    for own in ["fd00:2::2", OWN6] {
        w.lan(A, by(own, SEGMENTS, &World::from(A, FAR6).echo(1, 1, b"x")));
        w.lan(A, by(own, UNKNOWN, &World::from(A, FAR6).echo(1, 1, b"x")));
    }
    w.link(WORLD, by(OWN6, SEGMENTS, &World::far(FAR6, A6).echo(1, 1, b"x")));
    assert!(w.nothing());
    assert_eq!(w.dropped(DropReason::Malformed) - before, 5);
    // Nor is there a way around what is not reached directly: to the gateway from outside, to loopback.
    for (node, last) in [(NODE, OWN6), (NODE, "fd00:2::101"), ("::1", FAR6), (NODE, "::1")] {
        w.lan(A, by(node, SEGMENTS, &World::from(A, last).udp(5000, 7, b"x")));
        assert_eq!(icmp(&w.one_inside()).1, 1, "{node} {last}");
        assert!(w.outside().is_empty());
    }
    assert!(w.flows().is_empty());
    // The relays of the other egress have no use for it.
    let config = Config {
        egress: Egress::Host,
        ..config()
    };
    let mut w = World::without_links(config);
    w.lan(A, by(NODE, SEGMENTS, &World::from(A, FAR6).udp(5000, 7, b"x")));
    assert_eq!(w.dropped(DropReason::Malformed), 1);
    assert!(w.flows().is_empty());
}

#[test]
fn plainly_routed_it_is_judged_by_its_destination() {
    let link = Link {
        nat6: Nat::Route,
        ..Link::default()
    };
    let mut w = World::new(config(), link);
    let frame = by(NODE, SEGMENTS, &World::from(A, FAR6).udp(5000, 7, b"ping"));
    let mut sent = out(&mut w, frame.clone());
    sent[..14].copy_from_slice(&frame[..14]);
    assert_eq!(sent[21], 63);
    sent[21] = 64;
    assert_eq!(sent, frame, "nothing but the hop limit");
    w.publish(Transport::Udp, "[::]:9", A, &format!("[{A6}]:9"));
    // The last one's port is published, the destination's is not; and the other way round.
    w.link(
        WORLD,
        by("fd00:2::101", SEGMENTS, &World::far(FAR6, A6).udp(7, 9, b"x")),
    );
    assert!(w.inside_offloaded().is_empty());
    assert_eq!(w.dropped(DropReason::Filtered), 1);
    w.outside_offloaded();
    w.link(
        WORLD,
        by(A6, SEGMENTS, &World::far(FAR6, "fd00:2::101").udp(7, 9, b"x")),
    );
    let got = w.inside_offloaded().remove(0).0;
    assert_eq!((got[..6].to_vec(), behind(&got).0), (mac(A).0.to_vec(), ip(A6)));
}

#[test]
fn errors_about_it_reach_the_container() {
    let mut w = World::plain();
    let frame = by(NODE, SEGMENTS, &World::from(A, FAR6).udp(5000, 7, b"ping"));
    let sent = out(&mut w, frame.clone());
    // From before the node, and from behind it.
    let mut passed = sent.clone();
    passed.copy_within(62..78, 38);
    passed[57] = 0;
    for (quoted, dst) in [(&sent, NODE), (&passed, FAR6)] {
        let error = World::far("2001:db8:9::1", OWN6).icmp(1, 3, [0; 4], &quoted[14..]);
        let (src, kind, _, _, body) = icmp(&w.inward(error));
        assert_eq!((src, kind), (ip("2001:db8:9::1"), 1));
        assert_eq!(body[8..24], octets(A6));
        assert_eq!(body[24..40], octets(dst));
        assert_eq!(body[40..43], frame[54..57]);
        assert_eq!(body[44..], frame[58..], "its checksum as well");
    }
    assert_eq!(w.flows().len(), 1);
    // One that arises here quotes the packet as it came; and one that has segments left itself is not carried.
    let mut last_hop = frame.clone();
    last_hop[21] = 1;
    w.lan(A, last_hop);
    let (_, kind, _, _, body) = icmp(&w.one_inside());
    assert_eq!((kind, &body[8..]), (3, &frame[22..]));
    let quoted = Between::v6(FAR6, A6).udp(7, 5000, b"pong");
    let error = World::from(A, FAR6).icmp(1, 3, [0; 4], &quoted[14..]);
    w.lan(A, by(NODE, SEGMENTS, &error));
    assert!(w.nothing());
}

#[test]
fn one_that_cannot_be_delivered_is_told_as_it_was_sent() {
    let mut w = World::plain();
    w.answering = false;
    let frame = by(
        "2001:db8:1::50",
        SEGMENTS,
        &World::from(A, FAR6).udp(5000, 7, b"ping"),
    );
    w.lan(A, frame.clone());
    w.pass(std::time::Duration::from_secs(5));
    let told = w.one_inside();
    assert!(matches!(
        Parsed::of(&told).unwrap().payload,
        Payload::Icmp { kind: 1, code: 3, .. }
    ));
    assert_eq!(icmp(&told).4[8..], frame[22..]);
}
