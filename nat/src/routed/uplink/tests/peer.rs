//! Against a host that is not of our making: smoltcp's, which asks and answers by its own lights.

use std::net::SocketAddr;

use pontoon_fixtures::sim::{self, Container};

use super::*;
use crate::packet::Packet;

/// Carries frames to and fro until nobody says anything; the packets for the router.
fn converse(site: &mut Site, host: &mut Container) -> Vec<Packet> {
    let mut packets = Vec::new();
    for _ in 0..10 {
        for (frame, offload) in std::mem::take(&mut site.tap.frames) {
            host.receive(&frame, offload);
        }
        host.poll(site.now);
        for (frame, offload) in host.transmit() {
            if let Received::Packet(packet) = site.hear_as(&frame, offload) {
                packets.push(packet);
            }
        }
        site.run(Duration::from_millis(10));
    }
    packets
}

#[test]
fn a_host_of_another_make_is_found_and_finds_us() {
    for (ours, theirs) in [("192.0.2.10", "192.0.2.77"), ("2001:db8::10", "2001:db8::77")] {
        let mut site = Site::settled();
        let mut host = Container::new(sim::Config {
            mac: OTHER,
            addresses: vec![(ip("192.0.2.77"), 24), (ip("2001:db8::77"), 64)],
            gateways: vec![ip("192.0.2.10"), ip("2001:db8::10")],
            ..sim::Config::default()
        });
        let socket = host.udp_bind(2000);
        let send = |site: &mut Site| {
            let mut frame = Between::v4("192.0.2.10", "192.0.2.77").udp(1000, 2000, b"hello");
            if ours.contains(':') {
                frame = Between::v6(ours, theirs).udp(1000, 2000, b"hello");
            }
            let hop = site.uplink.hop(ip(theirs)).expect("on the link");
            let mut frame = Frame::whole(&mut frame, Offload::NONE);
            site.uplink.transmit(site.now, &mut frame, hop, &mut site.tap);
        };
        send(&mut site);
        assert!(converse(&mut site, &mut host).is_empty());
        assert_eq!(host.peer_mac(), Some(OURS));
        let (from, data) = host.udp_recv(socket).expect("what waited");
        assert_eq!(
            (from, &data[..]),
            (SocketAddr::new(ip(ours), 1000), &b"hello"[..])
        );
        // A host that never heard of us asks.
        let mut host = Container::new(sim::Config {
            mac: OTHER,
            addresses: vec![(ip("192.0.2.77"), 24), (ip("2001:db8::77"), 64)],
            gateways: vec![ip("192.0.2.10"), ip("2001:db8::10")],
            ..sim::Config::default()
        });
        let socket = host.udp_bind(2000);
        host.poll(site.now);
        host.udp_send(socket, SocketAddr::new(ip(ours), 1000), b"answer");
        host.udp_send(socket, SocketAddr::new(beyond(ours), 1000), b"to be forwarded");
        let packets = converse(&mut site, &mut host);
        let to: Vec<IpAddr> = packets.iter().map(|p| p.dst).collect();
        assert_eq!(to, [ip(ours), beyond(ours)]);
        // Half a minute later it is asked whether it is still there, and is.
        site.run(SECOND * 31);
        send(&mut site);
        converse(&mut site, &mut host);
        assert!(host.udp_recv(socket).is_some());
        site.run(SECOND * 10);
        assert_eq!(site.said(), [], "one question was enough");
        assert!(site.drops().is_empty() && site.events().is_empty());
    }
}

fn beyond(like: &str) -> IpAddr {
    ip(if like.contains(':') {
        "fd00::100"
    } else {
        "10.0.2.100"
    })
}
