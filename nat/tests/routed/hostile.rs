//! A hostile container and a hostile world: frames of the corpus, changed, on both sides of the router.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use pontoon_fixtures::hostile::{Host as Party, Mutator, Scene, corpus};
use pontoon_nat::publish::Transport;
use pontoon_nat::routed::{Mapping, Nat};
use pontoon_switch::{MacAddr, Offload, PortId};

use crate::world::*;

/// Frames of each run.
const FRAMES: usize = 100_000;

fn party(mac: MacAddr, v4: &str, v6: &str) -> Party {
    let (IpAddr::V4(ip4), IpAddr::V6(ip6)) = (ip(v4), ip(v6)) else {
        panic!("one of each version");
    };
    Party { mac, ip4, ip6 }
}

/// What the container sees: itself, the gateway, its neighbour, somebody in the world.
fn inside() -> Scene {
    Scene {
        own: party(mac(A), A4, A6),
        gateway: party(GATEWAY, "10.0.2.2", "fd00:2::2"),
        names: party(GATEWAY, "10.0.2.2", "fd00:2::2"),
        victim: party(mac(B), B4, "fd00:2::101"),
        server: party(MacAddr::default(), FAR, FAR6),
    }
}

/// What somebody in the world sees: himself, the gateway's address there, and containers that he should not know of.
fn outside() -> Scene {
    Scene {
        own: party(ROUTER, FAR, FAR6),
        gateway: party(OUTSIDE, OWN, OWN6),
        names: party(OUTSIDE, OWN, OWN6),
        victim: party(OUTSIDE, A4, A6),
        server: party(OUTSIDE, OWN, OWN6),
    }
}

/// Nothing leaves for the world but from the gateway's Ethernet address and, where it masquerades, under its own addresses.
fn assert_may_leave(frame: &[u8], masqueraded: bool) {
    assert_eq!(frame[6..12], OUTSIDE.0);
    let body = &frame[14..];
    match frame[12..14] {
        [8, 0] => {
            let src = Ipv4Addr::new(body[12], body[13], body[14], body[15]);
            assert!(src.to_string() == OWN || src.is_unspecified(), "{src}");
        }
        [0x86, 0xdd] => {
            let src = Ipv6Addr::from(*body[8..].first_chunk::<16>().expect("a header"));
            let own = src.is_unicast_link_local() || src.is_unspecified() || src.to_string() == OWN6;
            let inside = src.segments()[..4] == [0xfd00, 2, 0, 0];
            assert!(own || (inside && !masqueraded), "{src}");
        }
        [8, 6] => {}
        _ => panic!("{frame:02x?}"),
    }
}

fn run(link: Link, seed: u64) {
    let masqueraded = link.nat6 == Nat::Masquerade;
    let mut w = World::new(config(), link);
    w.publish(Transport::Tcp, "0.0.0.0:80", A, &format!("{A4}:80"));
    w.publish(Transport::Udp, "[::]:53", A, &format!("[{A6}]:53"));
    w.add_peer(true);
    let mut sides: Vec<(PortId, Mutator)> = Vec::new();
    for (port, scene) in [(A, inside()), (WORLD, outside()), (PEER, outside())] {
        let all = corpus(&scene);
        for frame in &all {
            throw(&mut w, port, frame.clone(), Offload::NONE);
        }
        sides.push((port, Mutator::new(scene, all, seed ^ u64::from(port.0))));
    }
    for n in 0..FRAMES {
        let (port, mutator) = &mut sides[n % 3];
        let bytes = mutator.frame();
        let offload = Offload::decode(&mutator.vnet_header(), &bytes).unwrap_or(Offload::NONE);
        throw(&mut w, *port, bytes, offload);
        if n % 16 == 0 {
            w.now += Duration::from_millis(1);
        }
        if n % 500 == 0 {
            w.pass(Duration::from_millis(500));
            assert!(w.flows().len() <= 100);
            w.inside_offloaded();
            for (frame, _) in w.outside_offloaded() {
                assert_may_leave(&frame, masqueraded);
            }
            w.peer_offloaded();
        }
    }
    // After a week's silence nothing of it all is left.
    w.pass(Duration::from_secs(6 * 24 * 3600));
    assert_eq!(w.flows(), []);
    w.outside_offloaded();
    let sent = w.out(World::from(A, FAR2).udp(5000, 7, b"and it works"));
    assert_eq!(ends(&sent), format!("{OWN}:5000 > {FAR2}:7"));
}

fn throw(w: &mut World, port: PortId, bytes: Vec<u8>, offload: Offload) {
    if port == A {
        w.lan_offloaded(port, bytes, offload);
    } else {
        w.link_offloaded(port, bytes, offload);
    }
}

#[test]
fn hostile_frames_leave_nothing_behind() {
    run(Link::default(), 1);
}

#[test]
fn hostile_frames_leave_nothing_behind_with_the_other_choices() {
    let link = Link {
        mtu: 1300,
        nat6: Nat::Route,
        mapping: Mapping::PerConnection,
        ..Link::default()
    };
    run(link, 2);
}
