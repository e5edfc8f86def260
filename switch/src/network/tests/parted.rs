//! VLANs, isolation and storms from wire to wire, and containers on a LAN.

use super::*;
use crate::offload::tests::{Kind, super_frame};
use crate::{Peers, Service, StationPlace, StormLimit, Transport, VlanId, VlanMode, VlanTag};

fn vlan(n: u16) -> VlanId {
    VlanId::new(n).expect("a VLAN")
}

fn trunk(native: Option<u16>, allowed: &str) -> VlanMode {
    VlanMode::Trunk {
        native: native.map(vlan),
        allowed: allowed.parse().expect("a list"),
    }
}

/// A network with a port for each policy, on these wires.
fn with(policies: Vec<(Wire, Policy)>) -> Net {
    let wires: Vec<Wire> = policies.iter().map(|(wire, _)| *wire).collect();
    let mut net = net(&wires);
    for (n, (_, policy)) in policies.into_iter().enumerate() {
        assert!(net.network.set_policy(net.ids[n], policy).expect("free"));
    }
    net
}

fn on(mode: VlanMode) -> (Wire, Policy) {
    let policy = Policy {
        vlan: mode,
        ..Policy::default()
    };
    (Wire::default(), policy)
}

fn tagged(dst: MacAddr, src: MacAddr, tci: u16) -> Vec<u8> {
    let mut b = frame(dst, src, 60);
    let [t, u] = tci.to_be_bytes();
    b.splice(12..12, [0x81, 0, t, u]);
    b
}

#[test]
fn a_flooded_super_frame_takes_two_forms_and_stays_whole_in_both() {
    let bare = Wire {
        capabilities: Capabilities::NONE,
        ..Wire::default()
    };
    let access = VlanMode::Access(vlan(10));
    let policies = vec![
        on(access.clone()),
        on(trunk(None, "10,20")),
        on(access.clone()),
        (bare, on(trunk(Some(20), "10")).1),
        on(VlanMode::Transparent),
        on(trunk(Some(10), "20")),
        on(VlanMode::Access(vlan(20))),
        (bare, on(access).1),
    ];
    for kind in Kind::ALL {
        let mut net = with(policies.clone());
        net.network
            .place_station(StationPlace::Vlan(vlan(10)))
            .expect("free");
        let (mut bytes, offload) = super_frame(kind, None, 0, 40_000, 1400);
        bytes[..6].copy_from_slice(&MacAddr::BROADCAST.0);
        let tag = VlanTag {
            tpid: 0x8100,
            tci: 10,
        };
        let (mut in_a_tag, offload_in_a_tag) = super_frame(kind, Some(tag), 0, 40_000, 1400);
        in_a_tag[..6].copy_from_slice(&MacAddr::BROADCAST.0);
        let plain = Packet {
            bytes: bytes.clone(),
            offload,
        };
        let in_a_tag = Packet {
            bytes: in_a_tag,
            offload: offload_in_a_tag,
        };
        // From an access port, and from the trunk with its tag: the same comes out everywhere else.
        for (from, packet) in [(0, plain.clone()), (1, in_a_tag.clone())] {
            net.send(from, packet);
            let back = net.ends[from].pop().expect("the station's echo");
            assert_eq!(
                back.bytes.len(),
                [bytes.len(), in_a_tag.bytes.len()][from],
                "{kind:?}"
            );
            if from == 0 {
                assert_eq!(net.ends[1].pop(), Some(in_a_tag.clone()), "{kind:?}");
            } else {
                assert_eq!(net.ends[0].pop(), Some(plain.clone()), "{kind:?}");
            }
            assert_eq!(net.ends[2].pop(), Some(plain.clone()), "{kind:?}");
            assert_eq!(net.ends[4].pop(), Some(in_a_tag.clone()), "{kind:?}");
            assert_eq!(net.ends[5].pop(), Some(plain.clone()), "{kind:?}");
            assert_eq!(net.ends[6].pop(), None, "{kind:?}");
            // Cut and summed behind a tag, and without one: the same segments.
            let cut =
                |n: usize| std::iter::from_fn(|| net.ends[n].pop().map(|p| p.bytes)).collect::<Vec<_>>();
            let (with_tag, without) = (cut(3), cut(7));
            assert_eq!(without.len(), 40_000usize.div_ceil(1400), "{kind:?}");
            let untagged = with_tag.into_iter().map(|mut b| {
                assert_eq!(b.splice(12..16, []).collect::<Vec<_>>(), [0x81, 0, 0, 10]);
                b
            });
            assert_eq!(untagged.collect::<Vec<_>>(), without, "{kind:?}");
            for n in 0..8 {
                while net.ends[n].pop().is_some() {}
            }
        }
    }
}

#[test]
fn what_is_of_no_vlan_of_the_port_is_dropped_and_counted() {
    let mut net = with(vec![
        on(VlanMode::Access(vlan(10))),
        on(trunk(None, "10")),
        on(trunk(Some(20), "10")),
    ]);
    net.send_bytes(0, tagged(MacAddr::BROADCAST, mac(1), 20));
    net.send_bytes(1, frame(MacAddr::BROADCAST, mac(2), 60));
    net.send_bytes(1, tagged(MacAddr::BROADCAST, mac(2), 20));
    // The station is on another VLAN.
    net.send_bytes(0, frame(GATEWAY, mac(1), 60));
    assert_eq!(net.drops(0), [(DropReason::Vlan, 2)]);
    assert_eq!(net.drops(1), [(DropReason::Vlan, 2)]);
    assert!(net.ends.iter().all(|end| end.waiting() == 0));
    // VLAN hopping: a second tag behind one that an access port or a native VLAN would take out.
    let mut hop = tagged(MacAddr::BROADCAST, mac(1), 20);
    hop.splice(12..12, [0x81, 0, 0, 10]);
    net.send_bytes(0, hop.clone());
    assert_eq!(net.drops(0), [(DropReason::Vlan, 3)]);
    net.send_bytes(1, hop.clone());
    assert_eq!(net.ends[2].pop().map(|p| p.bytes), Some(hop));
    assert_eq!(
        (net.ends[0].waiting(), net.drops(0)),
        (0, vec![(DropReason::Vlan, 4)])
    );
    let table: Vec<u16> = net.network.fdb(Instant::ZERO).map(|e| e.vlan).collect();
    assert_eq!(table, [0, 10], "the station, and the frame that was let in");
}

#[test]
fn a_station_on_a_vlan_is_without_tags() {
    let mut net = with(vec![
        on(VlanMode::Access(vlan(10))),
        on(trunk(None, "10,20")),
        on(VlanMode::Transparent),
    ]);
    net.network
        .place_station(StationPlace::Vlan(vlan(10)))
        .expect("free");
    for (from, sent) in [
        (0, frame(GATEWAY, mac(1), 60)),
        (1, tagged(GATEWAY, mac(2), 10)),
        (2, tagged(GATEWAY, mac(3), 0xe00a)),
    ] {
        net.send_bytes(from, sent.clone());
        let mut answer = net.ends[from].pop().expect("an answer").bytes;
        let tag: Vec<u8> = if from == 0 {
            Vec::new()
        } else {
            answer.splice(12..16, []).collect()
        };
        assert_eq!(tag, [0x81, 0, 0, 10][..if from == 0 { 0 } else { 4 }]);
        assert_eq!(answer, frame(mac(from as u8 + 1), GATEWAY, 60));
    }
    net.send_bytes(1, tagged(GATEWAY, mac(2), 20));
    net.send_bytes(2, frame(GATEWAY, mac(3), 60));
    assert_eq!(net.network.station().seen, net.ids, "once each");
    let station = net.network.fdb(Instant::ZERO).find(|e| e.mac == GATEWAY);
    assert_eq!(station.map(|e| e.vlan), Some(10));
    // What it says to everyone, out of a buffer without room, with a tag where one belongs.
    net.network.station_mut().hello = true;
    net.network.flush(Instant::ZERO);
    let hello = frame(MacAddr::BROADCAST, GATEWAY, 40);
    assert_eq!(net.ends[0].pop().map(|p| p.bytes), Some(hello.clone()));
    for n in [1, 2] {
        let mut got = net.ends[n].pop().expect("hello").bytes;
        got.splice(12..16, []);
        assert_eq!(got, hello);
    }
}

#[test]
fn isolated_ports_see_the_station_and_linked_ones_only() {
    let isolated = || Policy {
        peers: Peers::Linked,
        ..Policy::default()
    };
    let mut net = with([(); 3].map(|()| (Wire::default(), isolated())).into());
    let arp = |dst, src: MacAddr| {
        let mut b = frame(dst, src, 60);
        b[12..14].copy_from_slice(&[8, 6]);
        b
    };
    let service = Service {
        transport: Transport::Tcp,
        port: 5432,
    };
    net.send_bytes(0, arp(MacAddr::BROADCAST, mac(1)));
    assert_eq!(
        net.ends[0].pop().map(|p| p.bytes.len()),
        Some(60),
        "the station answers"
    );
    assert!(net.ends[1].pop().is_none() && net.ends[2].pop().is_none());
    assert_eq!(net.drops(0), [], "it went where it may");
    net.send_bytes(0, arp(mac(2), mac(1)));
    assert_eq!(net.drops(0), [(DropReason::Isolated, 1)]);

    assert!(net.network.set_link(net.ids[0], net.ids[1], &[service]));
    assert!(!net.network.set_link(net.ids[0], net.ids[0], &[service]));
    assert!(!net.network.set_link(net.ids[0], PortId(77), &[service]));
    net.send_bytes(0, arp(MacAddr::BROADCAST, mac(1)));
    assert!(net.ends[0].pop().is_some() && net.ends[1].pop().is_some() && net.ends[2].pop().is_none());
    net.send_bytes(1, arp(mac(1), mac(2)));
    assert!(net.ends[0].pop().is_some());
    net.send_bytes(1, frame(mac(1), mac(2), 60));
    assert_eq!(net.drops(1), [(DropReason::Isolated, 1)]);
    // Unknown unicast is for whom it would be let through to, and that is nobody.
    net.send_bytes(1, frame(mac(9), mac(2), 60));
    assert_eq!(net.drops(1), [(DropReason::Isolated, 2)]);
    // The station's own frames reach all.
    net.network.station_mut().hello = true;
    net.network.flush(Instant::ZERO);
    assert!(net.ends.iter().all(|end| end.pop().is_some()));
    let links = |net: &Net| {
        net.network
            .links()
            .map(|(a, b, s)| (a, b, s.len()))
            .collect::<Vec<_>>()
    };
    assert_eq!(links(&net), [(net.ids[0], net.ids[1], 1)]);
    net.network.remove_port(net.ids[1]);
    assert_eq!(links(&net), []);
    // One that has nothing against anybody does not reach those that have.
    assert!(
        net.network
            .set_policy(net.ids[0], Policy::default())
            .expect("free")
    );
    net.send_bytes(0, frame(MacAddr::BROADCAST, mac(1), 60));
    assert!(net.ends[2].pop().is_none());
    assert!(
        net.network
            .set_policy(net.ids[2], Policy::default())
            .expect("free")
    );
    net.send_bytes(0, frame(MacAddr::BROADCAST, mac(1), 60));
    assert!(net.ends[2].pop().is_some());
}

#[test]
fn a_noisy_port_still_reaches_the_station() {
    let noisy = Policy {
        storm: Some(StormLimit::per_second(5)),
        ..Policy::default()
    };
    let mut net = with(vec![
        (Wire::default(), noisy),
        (Wire::default(), Policy::default()),
    ]);
    for _ in 0..20 {
        net.send_bytes(0, frame(MacAddr::BROADCAST, mac(1), 60));
    }
    assert_eq!((net.ends[1].waiting(), net.ends[0].waiting()), (5, 20));
    assert_eq!(net.drops(0), [(DropReason::Storm, 15)]);
}

/// Two LANs on a switch without a gateway, by host interfaces that hear all that is on theirs, and a container on each.
#[test]
fn what_is_a_lans_own_stays_there() {
    let container = |n, mode| Policy {
        vlan: mode,
        ..Policy::container(mac(n), ["192.0.2.0/24".parse().expect("a network")])
    };
    let (one, two) = (VlanMode::Access(vlan(1)), VlanMode::Access(vlan(2)));
    for apart in [true, false] {
        let mode = |mode: &VlanMode| {
            if apart {
                mode.clone()
            } else {
                VlanMode::Transparent
            }
        };
        let mut net = with(vec![
            on(mode(&one)),
            on(mode(&two)),
            (Wire::default(), container(3, mode(&one))),
            (Wire::default(), container(4, mode(&two))),
        ]);
        net.network
            .place_station(StationPlace::Absent)
            .expect("it can go");
        let (left, right, c, d) = (0, 1, 2, 3);
        let heard = |net: &Net| {
            let waiting = net.ends.iter().map(|end| {
                let n = end.waiting();
                while end.pop().is_some() {}
                n
            });
            waiting.collect::<Vec<_>>()
        };
        let other_lan = usize::from(!apart);
        // Hosts 11 and 12 are on the left LAN. At first nobody knows where 12 is: it may be on the right one, if that is the
        // same network; it is no container, and it is not sent back.
        net.send_bytes(left, frame(mac(12), mac(11), 60));
        assert_eq!(heard(&net), [0, other_lan, 0, 0]);
        net.send_bytes(left, frame(mac(11), mac(12), 60));
        net.send_bytes(left, frame(mac(12), mac(11), 60));
        assert_eq!(heard(&net), [0, 0, 0, 0], "the LAN carries its own");
        assert_eq!(net.drops(left), [(DropReason::SamePort, 2)]);
        // To everybody: to all but where it came from.
        net.send_bytes(left, frame(MacAddr::BROADCAST, mac(11), 60));
        assert_eq!(heard(&net), [0, other_lan, 1, other_lan]);
        // To and from the container, which is known before it has spoken.
        net.send_bytes(left, frame(mac(3), mac(11), 60));
        assert_eq!(heard(&net), [0, 0, 1, 0]);
        net.send_bytes(c, frame(mac(11), mac(3), 60));
        assert_eq!(heard(&net), [1, 0, 0, 0]);
        // The LAN gives a container's frame back, as one with a loop, or a port that reflects, does: nobody moves.
        for from in [left, right] {
            let theirs = if apart { mac(3 + from as u8) } else { mac(3) };
            net.send_bytes(from, frame(mac(11), theirs, 60));
            net.send_bytes(from, frame(MacAddr::BROADCAST, theirs, 60));
            assert_eq!(heard(&net), [0, 0, 0, 0]);
            assert!(net.drops(from).contains(&(DropReason::Spoofed, 2)));
        }
        net.send_bytes(left, frame(mac(3), mac(11), 60));
        assert_eq!(heard(&net), [0, 0, 1, 0]);
        // The address of the gateway that is not there is one like others.
        net.send_bytes(d, frame(GATEWAY, mac(4), 60));
        assert_eq!(heard(&net), [other_lan, 1, 0, 0]);
        assert_eq!(net.network.station().seen, []);
        assert!(net.network.fdb(Instant::ZERO).all(|e| e.port != PortId::STATION));
    }
}
