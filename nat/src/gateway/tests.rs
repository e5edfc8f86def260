//! A whole network in memory with a hostile container on it: what of its frames reaches another container, and what the
//! gateway holds for it.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ipnet::IpNet;
use pontoon_fixtures::hostile::{Flood, Host as Party, Mutator, Scene, captured, claims, corpus};
use pontoon_fixtures::packet::{Between, Tcp, flags};
use pontoon_switch::frame::VNET_HEADER;
use pontoon_switch::port::pair::{Packet as Wired, PairPort, Wire, pair};
use pontoon_switch::{Network, Offload, Policy, PortConfig};

use super::*;
use crate::host::sim::SimHost;
use crate::host::sim::tcp::Outcome;
use crate::rig::{CONTAINER, GATEWAY, config};

/// Frames of each random run.
const FRAMES: usize = 200_000;
/// Host sockets that the containers may have.
const SOCKETS: u32 = 200;

/// Who is there: the configuration's gateway and two containers.
fn scene() -> Scene {
    let party = |mac, last: u8| Party {
        mac,
        ip4: Ipv4Addr::new(10, 0, 2, last),
        ip6: Ipv6Addr::new(0xfd00, 2, 0, 0, 0, 0, 0, last.into()),
    };
    Scene {
        own: party(CONTAINER, 100),
        gateway: party(GATEWAY, 2),
        names: party(GATEWAY, 2),
        victim: party(MacAddr([2, 0, 0, 0, 0, 0x65]), 101),
        server: Party {
            mac: MacAddr::default(),
            ip4: Ipv4Addr::new(198, 51, 100, 10),
            ip6: Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 0x10),
        },
    }
}

/// How the hostile container hangs on the network.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    /// As `pontoon run` does it: held to its own addresses, with a victim beside it.
    Guarded,
    /// As `pontoon slirp4netns` does it: alone, and free to choose its addresses.
    Free,
}

struct World {
    now: Instant,
    scene: Scene,
    network: Network<Gateway<SimHost>>,
    hostile: PairPort,
    port: PortId,
    victim: Option<PairPort>,
    /// The last frames that the hostile container got.
    answers: Vec<Vec<u8>>,
}

impl World {
    fn new(way: Way) -> Self {
        let scene = scene();
        let mut host = SimHost::default();
        host.tcp.send_capacity = 100_000;
        for to in [IpAddr::from(scene.server.ip4), scene.server.ip6.into()] {
            for port in 10..=1000 {
                host.tcp.servers.insert((to, port).into(), Outcome::Wait);
            }
            host.tcp.servers.insert((to, 80).into(), Outcome::Accept);
        }
        let secrets = Secrets {
            index: (1, 2),
            sequence: (3, 4),
        };
        let config = Config {
            max_flows: 1000,
            max_flows_per_container: 500,
            ..config()
        };
        let mut gateway = Gateway::new(config, host, secrets);
        gateway.limit_sockets(SOCKETS);
        let mut network = Network::new(gateway);
        let now = Instant::from_millis(1000);
        let mut attach = |name: &str, who: Party| {
            let (on_switch, by_hand) = pair(Wire::default());
            let addresses = [IpAddr::from(who.ip4), who.ip6.into()];
            let (policy, addresses) = match way {
                Way::Guarded => (
                    Policy::container(who.mac, addresses.map(IpNet::from)),
                    addresses.to_vec(),
                ),
                Way::Free => (Policy::default(), Vec::new()),
            };
            let name = name.to_owned();
            let config = PortConfig {
                name: name.clone(),
                policy,
            };
            let port = network.add_port(now, Box::new(on_switch), config).unwrap();
            network.station_mut().attach(Endpoint {
                port,
                names: vec![name.clone()],
                name,
                mac: who.mac,
                addresses,
            });
            (port, by_hand)
        };
        let (port, hostile) = attach("hostile", scene.own);
        let victim = (way == Way::Guarded).then(|| attach("victim", scene.victim).1);
        Self {
            now,
            scene,
            network,
            hostile,
            port,
            victim,
            answers: Vec::new(),
        }
    }

    fn send(&mut self, bytes: Vec<u8>, offload: Offload) {
        assert!(self.hostile.push(Wired { bytes, offload }));
    }

    /// Lets everything happen that happens now; every frame that the victim got is held against what it may get.
    fn settle(&mut self) {
        for round in 0.. {
            assert!(round < 1000, "something goes on for ever");
            self.network.poll_all(self.now);
            let ready = self.network.station_mut().host_mut().take_ready();
            let quiet = ready.is_empty();
            for (token, ready) in ready {
                self.network.ready(self.now, token.encode(), ready);
            }
            self.answers
                .extend(std::iter::from_fn(|| self.hostile.pop()).map(|f| f.bytes));
            self.answers.drain(..self.answers.len().saturating_sub(64));
            let host = self.network.station_mut().host_mut();
            host.udp.borrow_mut().sent.clear();
            host.tcp.far.clear();
            while let Some(frame) = self.victim.as_ref().and_then(PairPort::pop) {
                assert_may_reach_the_victim(&self.scene, &frame.bytes);
            }
            if quiet {
                return;
            }
        }
    }

    fn pass(&mut self, span: Duration) {
        let end = self.now + span;
        while let Some(due) = self.network.deadline().filter(|&d| d <= end) {
            self.now = due.max(self.now + Duration::from_micros(100));
            self.settle();
        }
        self.now = end;
        self.settle();
    }

    fn assert_bounded(&mut self) {
        let gateway = self.network.station_mut();
        let held = gateway.table().container_len(self.port);
        assert!(held <= 500 && gateway.table().len() <= 1000, "{held} flows");
        assert!(gateway.tcp.len() <= 500 && gateway.udp.mappings() <= SOCKETS as usize);
        // A datagram in reassembly is let go of before a piece more than the bound is kept.
        assert!(gateway.fragments.memory() <= (4 << 20) + (64 << 10));
        let neighbours = &gateway.shared.neighbours;
        assert!(neighbours.learned_len() <= 4096);
        assert!(
            neighbours.waiting() <= (64, 256 << 10),
            "{:?}",
            neighbours.waiting()
        );
        assert!(gateway.dns.outstanding() <= 4096 && gateway.dns.connections() <= 32);
        let host = gateway.host_mut();
        let names = host.udp.borrow_mut().open();
        let sockets = host.tcp.open() + names + host.ping.borrow_mut().open();
        // Name servers are asked by 128 sockets and 128 connections at most.
        assert!(sockets <= SOCKETS as usize + 256, "{sockets} sockets");
    }

    /// After a day's silence nothing of it all is left.
    fn assert_all_ends(&mut self) {
        self.pass(Duration::from_secs(6 * 24 * 3600));
        let gateway = self.network.station_mut();
        assert_eq!(gateway.table().len(), 0, "{:?}", gateway.flow_counts());
        assert!(gateway.fragments.is_empty() && gateway.tcp.is_empty());
        assert_eq!((gateway.udp.mappings(), gateway.dns.outstanding()), (0, 0));
        assert_eq!(gateway.shared.neighbours.waiting(), (0, 0));
        let host = gateway.host_mut();
        let open = (
            host.tcp.open(),
            host.udp.borrow_mut().open(),
            host.ping.borrow_mut().open(),
        );
        assert_eq!(open, (0, 0, 0), "sockets left open");
    }
}

/// Whatever reaches the victim is from the gateway, or from the container under its own addresses, and it is neither a DHCP
/// server's nor a router's.
fn assert_may_reach_the_victim(scene: &Scene, bytes: &[u8]) {
    let src = MacAddr::first(&bytes[6..]).expect("a source");
    if src == scene.gateway.mac {
        return;
    }
    assert_eq!(src, scene.own.mac, "{bytes:02x?}");
    let mut at = 12;
    while matches!(bytes[at..at + 2], [0x81, 0] | [0x88, 0xa8]) {
        at += 4;
    }
    let body = &bytes[at + 2..];
    match bytes[at..at + 2] {
        [8, 0] => {
            let ip = Ipv4Addr::new(body[12], body[13], body[14], body[15]);
            assert!(ip == scene.own.ip4 || ip.is_unspecified(), "{bytes:02x?}");
            let header = usize::from(body[0] & 15) * 4;
            let first = body[6] & 0x1f == 0 && body[7] == 0;
            assert!(
                body[9] != 17 || !first || body[header..header + 2] != [0, 67],
                "{bytes:02x?}"
            );
        }
        [0x86, 0xdd] => {
            let ip = Ipv6Addr::from(*body[8..].first_chunk::<16>().expect("a header"));
            let own = ip == scene.own.ip6 || ip.is_unspecified() || ip.is_unicast_link_local();
            let router = body[6] == 58 && matches!(body.get(40), Some(134 | 137));
            assert!(own && !router, "{bytes:02x?}");
        }
        [8, 6] => {
            let sender = Ipv4Addr::new(body[14], body[15], body[16], body[17]);
            assert_eq!(body[8..14], scene.own.mac.0, "{bytes:02x?}");
            assert!(sender == scene.own.ip4 || sender.is_unspecified(), "{bytes:02x?}");
        }
        _ => {}
    }
}

#[test]
fn no_claim_to_be_another_gets_past_the_port() {
    let mut w = World::new(Way::Guarded);
    let victim = w.scene.victim;
    // What the gateway tells all of itself.
    w.settle();
    for (what, frame) in claims(&w.scene) {
        let before = w.network.port(w.port).expect("there").drops.total();
        w.send(frame, Offload::NONE);
        w.network.poll_all(w.now);
        let port = w.network.port(w.port).expect("there");
        assert_eq!(port.drops.total(), before + 1, "{what}: {:?}", port.drops);
        assert_eq!(w.victim.as_ref().and_then(PairPort::pop), None, "{what}");
        let neighbours = &w.network.station().shared.neighbours;
        assert_eq!(neighbours.lookup(victim.ip4.into()), Some(victim.mac), "{what}");
        assert_eq!(neighbours.lookup(victim.ip6.into()), Some(victim.mac), "{what}");
    }
    assert_eq!(w.network.station().table().len(), 0);
}

/// Nothing that real programs send is taken for malformed; what is dropped of it is not for this container or this network.
#[test]
fn what_real_programs_sent_is_understood() {
    let mut w = World::new(Way::Guarded);
    for (what, frame) in captured(&w.scene) {
        let before = (
            w.network.port(w.port).expect("there").drops.clone(),
            w.network.station_drops().clone(),
        );
        w.send(frame, Offload::NONE);
        w.settle();
        let port = w.network.port(w.port).expect("there");
        for reason in [
            DropReason::BadLength,
            DropReason::BadSource,
            DropReason::BadOffload,
            DropReason::Spoofed,
            DropReason::Malformed,
            DropReason::BadChecksum,
            DropReason::BadSourceAddress,
        ] {
            let now = port.drops.get(reason) + w.network.station_drops().get(reason);
            assert_eq!(
                now,
                before.0.get(reason) + before.1.get(reason),
                "{what}: {reason:?}"
            );
        }
    }
    // Of each kind it has met something.
    let counts = w.network.station().flow_counts();
    for kind in ["tcp/syn-received", "udp/new", "icmp/echo"] {
        assert!(counts.contains_key(kind), "{counts:?}");
    }
    w.assert_all_ends();
}

/// Frames of the corpus, changed, with virtio-net headers of garbage as often as the header's own check lets them by.
fn random_run(way: Way, seed: u64) {
    let mut w = World::new(way);
    let all = corpus(&w.scene);
    for frame in &all {
        w.send(frame.clone(), Offload::NONE);
        w.settle();
    }
    let mut mutator = Mutator::new(w.scene, all, seed);
    let mut refused = 0;
    for n in 0..FRAMES {
        let bytes = mutator.frame();
        let header: [u8; VNET_HEADER] = mutator.vnet_header();
        let offload = Offload::decode(&header, &bytes).unwrap_or_else(|_| {
            refused += 1;
            Offload::NONE
        });
        w.send(bytes, offload);
        if n % 16 == 0 {
            w.now += Duration::from_millis(1);
            w.settle();
        }
        if n % 1000 == 0 {
            w.pass(Duration::from_millis(500));
            w.assert_bounded();
        }
    }
    w.settle();
    assert!(
        (FRAMES / 10..FRAMES).contains(&refused),
        "{refused} headers of {FRAMES} were refused"
    );
    w.assert_bounded();
    assert!(w.network.station().table().len() > 50, "the frames meet nothing");
    w.assert_all_ends();
}

#[test]
fn changed_frames_of_a_container_that_is_held_to_its_addresses() {
    random_run(Way::Guarded, 1);
}

#[test]
fn changed_frames_of_a_container_that_chooses_its_addresses() {
    random_run(Way::Free, 2);
}

/// A frame that opens a socket, or is refused one, ends its port's turn, and so do eight that open flows; others do not.
#[test]
fn what_opens_sockets_does_not_hold_up_the_others() {
    for (name, flood) in Flood::ALL {
        let mut w = World::new(Way::Guarded);
        w.network
            .station_mut()
            .set_resolvers(vec!["192.0.2.53:53".parse().unwrap()]);
        for n in 0..1000 {
            w.send(flood.frame(&w.scene, n), Offload::NONE);
        }
        let mut turns = 1;
        while w.network.poll_port(w.now, w.port, 64) {
            turns += 1;
        }
        let least = match flood {
            Flood::Syn | Flood::UdpSources { addresses: false } | Flood::Echo => 1000,
            // The first are asked from a socket each, which the others share.
            Flood::Questions => 32 + (1000 - 32) / 8,
            Flood::UdpDestinations => 1000 / 8,
            Flood::UdpSources { addresses: true }
            | Flood::Fragments
            | Flood::Overlaps
            | Flood::Neighbours
            | Flood::Macs => 1000 / 64,
        };
        assert!((least..least + 64).contains(&turns), "{name}: {turns} turns");
    }
}

#[test]
fn floods_are_bounded_and_leave_nothing() {
    for (name, flood) in Flood::ALL {
        for way in [Way::Guarded, Way::Free] {
            let mut w = World::new(way);
            w.network
                .station_mut()
                .set_resolvers(vec!["192.0.2.53:53".parse().unwrap()]);
            for n in 0..20_000 {
                w.send(flood.frame(&w.scene, n), Offload::NONE);
                if n % 64 == 0 {
                    w.now += Duration::from_micros(300);
                    w.settle();
                }
            }
            w.settle();
            w.assert_bounded();
            // A connection opens in the midst of it: flows that never saw an answer make room, at the second try at the latest.
            let (own, server) = (w.scene.own, w.scene.server);
            let syn = Between::new(own.ip4.into(), server.ip4.into())
                .macs(own.mac, w.scene.gateway.mac)
                .tcp(Tcp {
                    src: 500,
                    dst: 80,
                    flags: flags::SYN,
                    window: 1000,
                    ..Tcp::default()
                });
            let asks = Between::new(own.ip4.into(), w.scene.gateway.ip4.into()).macs(own.mac, own.mac);
            w.send(asks.arp_request(), Offload::NONE);
            for _ in 0..2 {
                w.send(syn.clone(), Offload::NONE);
                w.settle();
            }
            let accepted = |f: &Vec<u8>| {
                f[12..14] == [8, 0]
                    && f[23] == 6
                    && f[36..38] == [1, 0xf4]
                    && f[47] == flags::SYN | flags::ACK
            };
            assert!(
                w.answers.iter().any(accepted),
                "{name} {way:?}: {:?}",
                w.network.station().flow_counts()
            );
            w.assert_all_ends();
        }
    }
}
