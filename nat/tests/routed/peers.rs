//! Routes to other networks and beyond.

use pontoon_fixtures::packet::{Between, Tcp, flags};
use pontoon_nat::config::{Config, Egress};
use pontoon_nat::routed::{Route, Via};
use pontoon_switch::{DropReason, MacAddr};

use crate::world::*;

const OTHER: &str = "10.0.3.7";

fn networks(ours_open: bool, egress: Egress) -> World {
    let mut w = World::without_links(Config { egress, ..config() });
    w.add_peer(ours_open);
    w.set_routes(vec![Route {
        net: "10.0.3.0/24".parse().unwrap(),
        via: Via::Link(PEER.0),
    }]);
    w.settle();
    w.inside();
    w
}

pub(crate) fn from_peer(src: &str, dst: &str) -> Between {
    Between::v4(src, dst).macs(MacAddr([2, 0, 0, 0, 8, 2]), MacAddr([2, 0, 0, 0, 8, 1]))
}

#[test]
fn a_network_opens_flows_to_another_by_its_own_addresses_and_not_the_other_way() {
    for egress in [Egress::Host, Egress::None, Egress::Uplink] {
        let mut w = networks(true, egress);
        w.lan(A, World::from(A, OTHER).udp(5000, 7, b"hello"));
        let sent = w.at_peer();
        assert_eq!(ends(&sent[0]), format!("{A4}:5000 > {OTHER}:7"), "{egress:?}");
        assert_eq!(sent[0][..12], [2, 0, 0, 0, 8, 2, 2, 0, 0, 0, 8, 1]);
        w.link(PEER, from_peer(OTHER, A4).udp(7, 5000, b"hello yourself"));
        assert_eq!(ends(&w.one_inside()), format!("{OTHER}:7 > {A4}:5000"));
        w.link(PEER, from_peer(OTHER, A4).udp(7, 9, b"may I"));
        assert!(w.inside().is_empty());
        assert_eq!(icmp(&w.at_peer()[0]).2, 13);
        assert_eq!(w.dropped(DropReason::Forbidden), 1);
    }
}

#[test]
fn the_other_side_lets_in_what_was_allowed_and_opens_nothing() {
    let mut w = networks(false, Egress::Host);
    w.link(
        PEER,
        from_peer(OTHER, A4).tcp(Tcp {
            src: 4000,
            dst: 80,
            seq: 1,
            flags: flags::SYN,
            window: 1000,
            ..Tcp::default()
        }),
    );
    assert_eq!(ends(&w.one_inside()), format!("{OTHER}:4000 > {A4}:80"));
    let flow = &w.flows()[0];
    assert!(!flow.outbound);
    w.lan(A, World::from(A, OTHER).udp(5000, 7, b"may I"));
    assert_eq!(icmp(&w.one_inside()).2, 13);
    // Nor does anything pass on to elsewhere, or from an address that is ours.
    w.link(PEER, from_peer(OTHER, "198.51.100.1").udp(7, 9, b"by you"));
    w.link(PEER, from_peer(B4, A4).udp(7, 9, b"I am b"));
    assert!(w.inside().is_empty());
}

#[test]
fn subnets_behind_a_container_are_reached_by_it() {
    let mut w = World::plain();
    w.set_routes(vec![Route {
        net: "10.50.0.0/16".parse().unwrap(),
        via: Via::Router(ip(B4)),
    }]);
    w.lan(A, World::from(A, "10.50.1.1").udp(5000, 7, b"hello"));
    let got = w.one_inside();
    assert_eq!(ends(&got), format!("{A4}:5000 > 10.50.1.1:7"));
    assert_eq!(got[..6], mac(B).0);
    // And those behind it reach the world, masqueraded.
    w.lan(
        B,
        Between::v4("10.50.1.1", FAR)
            .macs(mac(B), GATEWAY)
            .udp(5000, 7, b"x"),
    );
    assert_eq!(ends(&w.one_outside()), format!("{OWN}:5000 > {FAR}:7"));
    let back = w.inward(World::far(FAR, OWN).udp(7, 5000, b"y"));
    assert_eq!(
        (ends(&back), back[..6].to_vec()),
        (format!("{FAR}:7 > 10.50.1.1:5000"), mac(B).0.to_vec())
    );
}

#[test]
fn routers_on_the_link_to_the_world_are_chosen_by_route() {
    let mut w = World::plain();
    w.set_routes(vec![Route {
        net: "203.0.113.0/24".parse().unwrap(),
        via: Via::Router(ip("192.0.2.50")),
    }]);
    w.out(World::from(A, FAR2).udp(5000, 7, b"x"));
}

/// Who knows a flow's addresses is not one of its ends for that.
#[test]
fn packets_of_a_flow_are_taken_from_its_own_link_only() {
    let mut w = World::plain();
    w.add_peer(true);
    let peer = Route {
        net: "10.0.3.0/24".parse().unwrap(),
        via: Via::Link(PEER.0),
    };
    w.set_routes(vec![peer]);
    w.lan(A, World::from(A, OTHER).udp(5000, 7, b"to the peer"));
    w.lan(A, World::from(A, FAR).udp(6000, 53, b"to the world"));
    w.outside();
    w.at_peer();
    let before = w.dropped(DropReason::BadSourceAddress);
    w.link(WORLD, World::far(OTHER, A4).udp(7, 5000, b"from the world"));
    w.link(PEER, from_peer(FAR, OWN).udp(53, 6000, b"from the peer"));
    w.link(PEER, from_peer(A4, FAR).udp(6000, 53, b"as if from a"));
    let error = from_peer(FAR, OWN).icmp(3, 3, [0; 4], &World::far(OWN, FAR).udp(6000, 53, b"x")[14..]);
    w.link(PEER, error);
    assert!(w.inside().is_empty() && w.outside().is_empty());
    assert_eq!(w.dropped(DropReason::BadSourceAddress) - before, 4);
    w.link(PEER, from_peer(OTHER, A4).udp(7, 5000, b"from the peer"));
    w.one_inside();
}

#[test]
fn a_route_that_goes_takes_its_flows_along_and_nothing_leaks() {
    for egress in [Egress::Uplink, Egress::Host] {
        let mut w = networks(true, egress);
        w.lan(A, World::from(A, OTHER).udp(5000, 7, b"hello"));
        assert_eq!(w.at_peer().len(), 1);
        w.set_routes(Vec::new());
        assert!(w.flows().is_empty(), "{egress:?}");
        w.lan(A, World::from(A, OTHER).udp(5000, 7, b"hello"));
        assert!(w.at_peer().is_empty() && w.outside().is_empty());
    }
}

#[test]
fn a_link_that_goes_takes_its_flows_along() {
    let mut w = networks(true, Egress::None);
    w.lan(A, World::from(A, OTHER).udp(5000, 7, b"hello"));
    assert_eq!(w.flows().len(), 1);
    assert!(w.leave(PEER) && !w.leave(PEER));
    assert!(w.flows().is_empty());
}

#[test]
fn a_peer_speaks_for_its_own_addresses_only() {
    let mut w = networks(false, Egress::Host);
    for src in ["198.51.100.7", "127.0.0.1", "224.0.0.1", "10.0.2.2", "10.0.4.1"] {
        w.link(PEER, from_peer(src, A4).udp(7, 9, b"x"));
        assert!(w.inside().is_empty(), "{src}");
    }
}
