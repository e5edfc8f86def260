//! A link to the world that is lost and made anew: its flows wait for it.

use std::net::IpAddr;
use std::time::Duration;

use pontoon_fixtures::packet::{Between, Tcp, flags};
use pontoon_nat::publish::Transport;
use pontoon_nat::routed::{Addressing6, Nat, Route, Via};
use pontoon_switch::{DropReason, MacAddr};

use crate::world::*;

/// Another address on the same link.
const OTHER: &str = "192.0.2.78";
const OTHER6: &str = "2001:db8:1::78";

fn segment(src: u16, dst: u16, seq: u32, ack: u32) -> Tcp<'static> {
    Tcp {
        src,
        dst,
        seq,
        ack,
        flags: flags::ACK,
        window: 60_000,
        ..Tcp::default()
    }
}

/// Connections of A's by both IP versions, and one to its published port.
fn connected() -> World {
    let mut w = World::plain();
    w.publish(Transport::Tcp, "0.0.0.0:8080", A, &format!("{A4}:80"));
    w.connect(5000, FAR, 7);
    w.connect(5000, FAR6, 7);
    let syn = Tcp {
        flags: flags::SYN,
        ..segment(5555, 8080, 1000, 0)
    };
    w.inward(World::far(FAR, OWN).tcp(syn));
    let answer = Tcp {
        flags: flags::SYN | flags::ACK,
        ..segment(80, 5555, 7000, 1001)
    };
    w.out(World::from(A, FAR).tcp(answer));
    w.inward(World::far(FAR, OWN).tcp(segment(5555, 8080, 1001, 7001)));
    w
}

fn states(w: &World) -> Vec<String> {
    w.flows().into_iter().map(|f| f.state).collect()
}

#[test]
fn flows_go_on_when_it_has_the_same_addresses_again() {
    let mut w = connected();
    assert_eq!(states(&w), ["established"; 3]);
    assert!(w.leave(WORLD) && !w.leave(WORLD));
    // Meanwhile there is no way, old flow or new.
    for frame in [
        World::from(A, FAR).tcp(segment(5000, 7, 1001, 5001)),
        World::from(A, FAR).tcp(segment(80, 5555, 7001, 1001)),
        World::from(A, FAR2).udp(6000, 7, b"new"),
    ] {
        w.lan(A, frame);
        let (from, kind, code, ..) = icmp(&w.one_inside());
        assert_eq!((from, kind, code), (ip("10.0.2.2"), 3, 0));
    }
    // Routes that are told again do not end what waits.
    w.set_routes(Vec::new());
    w.pass(Duration::from_secs(60));
    w.add_world(Link::default(), OWN, OWN6);
    assert_eq!(states(&w), ["established"; 3]);
    let sent = w.out(World::from(A, FAR).tcp(segment(5000, 7, 1001, 5001)));
    assert_eq!(ends(&sent), format!("{OWN}:5000 > {FAR}:7"));
    let sent = w.out(World::from(A, FAR6).tcp(segment(5000, 7, 1001, 5001)));
    assert_eq!(ends(&sent), format!("[{OWN6}]:5000 > [{FAR6}]:7"));
    let got = w.inward(World::far(FAR, OWN).tcp(segment(5555, 8080, 1001, 7001)));
    assert_eq!(ends(&got), format!("{FAR}:5555 > {A4}:80"));
    assert_eq!(w.flows().len(), 3);
}

#[test]
fn flows_of_an_address_that_it_has_no_more_end() {
    let mut w = connected();
    w.leave(WORLD);
    w.add_world(Link::default(), OTHER, OWN6);
    // Both of IPv4 had the old one.
    assert_eq!(states(&w), ["established"]);
    let sent = w.out(World::from(A, FAR6).tcp(segment(5000, 7, 1001, 5001)));
    assert_eq!(ends(&sent), format!("[{OWN6}]:5000 > [{FAR6}]:7"));
    // Lost once more: the second time is like the first.
    w.leave(WORLD);
    w.add_world(Link::default(), OTHER, OTHER6);
    assert!(w.flows().is_empty());
    // Their ports are free again.
    let syn = Tcp {
        flags: flags::SYN,
        ..segment(5000, 7, 1000, 0)
    };
    assert_eq!(
        ends(&w.out(World::from(A, FAR).tcp(syn))),
        format!("{OTHER}:5000 > {FAR}:7")
    );
}

#[test]
fn flows_of_a_version_that_has_no_address_yet_wait_on() {
    let mut w = connected();
    w.leave(WORLD);
    w.add_world(Link::default(), None, OWN6);
    assert_eq!(states(&w), ["established"; 3]);
    w.leave(WORLD);
    w.add_world(Link::default(), OWN, None);
    assert_eq!(states(&w), ["established"; 3]);
    let sent = w.out(World::from(A, FAR).tcp(segment(5000, 7, 1001, 5001)));
    assert_eq!(ends(&sent), format!("{OWN}:5000 > {FAR}:7"));
}

#[test]
fn plainly_routed_flows_have_no_address_to_lose() {
    let link = Link {
        nat6: Nat::Route,
        ..Link::default()
    };
    let mut w = World::new(config(), link);
    w.out(World::from(A, FAR6).udp(5000, 7, b"out"));
    w.leave(WORLD);
    w.add_world(link, OTHER, OTHER6);
    let got = w.inward(World::far(FAR6, A6).udp(7, 5000, b"back"));
    assert_eq!(ends(&got), format!("[{FAR6}]:7 > [{A6}]:5000"));
}

/// A router's word that it is there, and which prefix is the link's.
fn advertise(w: &mut World, prefix: &str) {
    let mut body = [0; 40];
    body[8..12].copy_from_slice(&[3, 4, 64, 0xc0]);
    body[12..16].copy_from_slice(&3600u32.to_be_bytes());
    body[16..20].copy_from_slice(&3600u32.to_be_bytes());
    let IpAddr::V6(prefix) = ip(prefix) else {
        panic!("{prefix}")
    };
    body[24..].copy_from_slice(&prefix.octets());
    let to_all = MacAddr([0x33, 0x33, 0, 0, 0, 1]);
    let advert = Between::new(ip("fe80::1"), ip("ff02::1"))
        .macs(ROUTER, to_all)
        .ttl(255);
    w.link(WORLD, advert.icmp(134, 0, [64, 0, 7, 8], &body));
}

#[test]
fn nothing_leaves_as_from_an_address_that_is_not_the_links_yet() {
    let slaac = Some(Addressing6::Slaac);
    let own = "2001:db8:1::ff:fe00:909";
    let mut w = World::without_links(config());
    w.add_link(Link::default(), None, slaac);
    advertise(&mut w, "2001:db8:1::");
    w.pass(Duration::from_secs(3));
    let ask = |w: &mut World| {
        w.outside();
        w.inside();
        w.lan(A, World::from(A, FAR6).udp(5000, 7, b"out"));
    };
    let out = |w: &mut World| ends(&w.one_outside());
    ask(&mut w);
    assert_eq!(out(&mut w), format!("[{own}]:5000 > [{FAR6}]:7"));
    w.leave(WORLD);
    w.add_link(Link::default(), None, slaac);
    // Neither while nobody has given an address, nor while it is being asked for.
    for advertised in [false, true] {
        if advertised {
            advertise(&mut w, "2001:db8:1::");
        }
        ask(&mut w);
        assert_eq!(icmp(&w.one_inside()).1, 1, "unreachable");
        assert!(w.outside().is_empty() && w.flows().len() == 1);
    }
    w.pass(Duration::from_secs(3));
    ask(&mut w);
    assert_eq!(out(&mut w), format!("[{own}]:5000 > [{FAR6}]:7"));
    // Another prefix, another address.
    w.leave(WORLD);
    w.add_link(Link::default(), None, slaac);
    advertise(&mut w, "2001:db8:7::");
    assert_eq!(w.flows().len(), 1);
    w.pass(Duration::from_secs(3));
    assert!(w.flows().is_empty());
}

#[test]
fn a_hairpin_goes_with_its_address_and_one_at_home_stays() {
    let mut w = World::plain();
    w.publish(Transport::Tcp, "0.0.0.0:8080", A, &format!("{A4}:80"));
    let syn = |src| Tcp {
        flags: flags::SYN,
        ..segment(src, 8080, 1000, 0)
    };
    w.lan(B, World::from(B, OWN).tcp(syn(5001)));
    w.lan(B, World::from(B, "10.0.2.2").tcp(syn(5002)));
    assert_eq!(w.flows().len(), 2);
    w.leave(WORLD);
    w.add_world(Link::default(), OWN, OWN6);
    assert_eq!(w.flows().len(), 2);
    w.leave(WORLD);
    w.add_world(Link::default(), OTHER, OWN6);
    let flows = w.flows();
    assert_eq!(flows.len(), 1);
    assert_eq!(flows[0].original.1.to_string(), "10.0.2.2:8080");
}

#[test]
fn what_a_container_resets_meanwhile_is_over() {
    let mut w = connected();
    w.leave(WORLD);
    let reset = Tcp {
        flags: flags::RST,
        ..segment(5000, 7, 1001, 0)
    };
    w.lan(A, World::from(A, FAR).tcp(reset));
    assert_eq!(states(&w), ["closed", "established", "established"]);
    // One beside the window ends nothing.
    let blind = Tcp {
        seq: 9_000_000,
        ..reset
    };
    w.lan(A, World::from(A, FAR6).tcp(blind));
    assert_eq!(states(&w), ["closed", "established", "established"]);
}

#[test]
fn what_waits_is_not_another_links() {
    let mut w = connected();
    w.leave(WORLD);
    w.add_peer(true);
    w.set_routes(vec![Route {
        net: format!("{FAR}/32").parse().unwrap(),
        via: Via::Link(PEER.0),
    }]);
    // The way to that one is another now.
    assert_eq!(w.flows().len(), 2);
    let before = w.dropped(DropReason::BadSourceAddress) + w.dropped(DropReason::Forbidden);
    w.link(
        PEER,
        crate::peers::from_peer(FAR, OWN).tcp(segment(5555, 8080, 1001, 7001)),
    );
    assert!(w.inside().is_empty());
    assert!(w.dropped(DropReason::BadSourceAddress) + w.dropped(DropReason::Forbidden) > before);
}
