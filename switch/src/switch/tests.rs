use std::collections::HashSet;

use proptest::prelude::*;

use super::*;
use crate::StormLimit;
use crate::policy::{MacPolicy, Policy};

const GATEWAY: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xfe]);

fn mac(n: u8) -> MacAddr {
    MacAddr([2, 0, 0, 0, 1, n])
}

fn frame(dst: MacAddr, src: MacAddr, vlan: Option<u16>) -> Vec<u8> {
    let mut b = [dst.0, src.0].concat();
    if let Some(vlan) = vlan {
        b.extend_from_slice(&[0x81, 0]);
        b.extend_from_slice(&vlan.to_be_bytes());
    }
    b.extend_from_slice(&[0x88, 0xb5, 1, 2, 3, 4]);
    b
}

/// A switch with the gateway and three open ports.
fn three() -> (Switch, [PortId; 3]) {
    let mut switch = Switch::new(Some(GATEWAY));
    let ports = [(); 3].map(|()| switch.add_port(&Policy::default()).expect("room"));
    (switch, ports)
}

fn decide(switch: &mut Switch, port: PortId, dst: MacAddr, src: MacAddr) -> Decision {
    switch.decide(Instant::ZERO, Ingress::Port(port), &frame(dst, src, None))
}

fn to(reach: Reach, vlan: u16) -> Decision {
    Decision::Flood(Flood { reach, vlan })
}

fn unknown(n: u8, vlan: u16) -> Decision {
    to(Reach::Unknown(mac(n)), vlan)
}

fn flooded(switch: &Switch, reach: Reach, ingress: Ingress) -> Vec<PortId> {
    let bytes = frame(MacAddr::BROADCAST, mac(1), None);
    switch
        .flooded(Flood { reach, vlan: 0 }, ingress, &bytes)
        .collect()
}

#[test]
fn learns_and_forwards() {
    let (mut switch, [a, b, c]) = three();
    assert_eq!(decide(&mut switch, a, mac(2), mac(1)), unknown(2, 0));
    assert_eq!(flooded(&switch, Reach::Unknown(mac(2)), Ingress::Port(a)), [b, c]);
    assert_eq!(decide(&mut switch, b, mac(1), mac(2)), Decision::Port(a));
    assert_eq!(decide(&mut switch, a, mac(2), mac(1)), Decision::Port(b));
    // It moves.
    assert_eq!(decide(&mut switch, c, mac(2), mac(1)), Decision::Port(b));
    assert_eq!(decide(&mut switch, b, mac(1), mac(2)), Decision::Port(c));
    assert_eq!(switch.fdb().counters().moved, 1);
    assert_eq!(
        decide(&mut switch, c, mac(1), mac(3)),
        Decision::Drop(DropReason::SamePort)
    );
}

#[test]
fn vlans_are_learned_apart() {
    let (mut switch, [a, b, _]) = three();
    decide(&mut switch, a, mac(9), mac(1));
    let tagged = frame(mac(1), mac(2), Some(5));
    assert_eq!(
        switch.decide(Instant::ZERO, Ingress::Port(b), &tagged),
        unknown(1, 5)
    );
    let priority = frame(mac(1), mac(2), Some(0xe000));
    assert_eq!(
        switch.decide(Instant::ZERO, Ingress::Port(b), &priority),
        Decision::Port(a)
    );
}

#[test]
fn the_station_is_on_the_untagged_network() {
    let (mut switch, [a, b, c]) = three();
    assert_eq!(decide(&mut switch, a, GATEWAY, mac(1)), Decision::Station);
    assert_eq!(
        decide(&mut switch, a, MacAddr::BROADCAST, mac(1)),
        to(Reach::Everyone, 0)
    );
    let mut tagged = |dst| switch.decide(Instant::ZERO, Ingress::Port(a), &frame(dst, mac(1), Some(5)));
    assert_eq!(tagged(GATEWAY), Decision::Drop(DropReason::Vlan));
    assert_eq!(tagged(MacAddr::BROADCAST), to(Reach::Ports, 5));
    let mut station = |dst| switch.decide(Instant::ZERO, Ingress::Station, &frame(dst, GATEWAY, None));
    assert_eq!(station(mac(1)), Decision::Port(a));
    assert_eq!(station(MacAddr::BROADCAST), to(Reach::Ports, 0));
    assert_eq!(station(GATEWAY), Decision::Drop(DropReason::SamePort));
    assert_eq!(flooded(&switch, Reach::Ports, Ingress::Station), [a, b, c]);
}

#[test]
fn bad_frames_are_dropped_with_their_reason() {
    let (mut switch, [a, ..]) = three();
    let drop = |switch: &mut Switch, bytes: &[u8]| switch.decide(Instant::ZERO, Ingress::Port(a), bytes);
    assert_eq!(drop(&mut switch, &[0; 13]), Decision::Drop(DropReason::BadLength));
    assert_eq!(
        drop(&mut switch, &vec![2; MAX_FRAME + 1]),
        Decision::Drop(DropReason::BadLength)
    );
    for (dst, src, reason) in [
        (mac(2), MacAddr([0; 6]), DropReason::BadSource),
        (mac(2), MacAddr::BROADCAST, DropReason::BadSource),
        (mac(2), GATEWAY, DropReason::Spoofed),
        (MacAddr([1, 0x80, 0xc2, 0, 0, 0]), mac(1), DropReason::Reserved),
        (MacAddr([1, 0x80, 0xc2, 0, 0, 0xf]), mac(1), DropReason::Reserved),
    ] {
        assert_eq!(decide(&mut switch, a, dst, src), Decision::Drop(reason));
    }
    let group = MacAddr([1, 0x80, 0xc2, 0, 0, 0x10]);
    assert_eq!(decide(&mut switch, a, group, mac(1)), to(Reach::Everyone, 0));
}

#[test]
fn a_bound_address_is_safe_from_others() {
    let mut switch = Switch::new(Some(GATEWAY));
    let only = |n| Policy {
        mac: MacPolicy::Only(mac(n)),
        ..Policy::default()
    };
    let a = switch.add_port(&only(1)).expect("room");
    let b = switch.add_port(&only(2)).expect("room");
    let open = switch.add_port(&Policy::default()).expect("room");
    assert_eq!(
        switch.add_port(&only(1)).expect_err("taken"),
        AddPortError::AddressTaken(mac(1))
    );
    let gateway = Policy {
        mac: MacPolicy::Only(GATEWAY),
        ..Policy::default()
    };
    assert_eq!(
        switch.add_port(&gateway).expect_err("taken"),
        AddPortError::AddressTaken(GATEWAY)
    );
    // Known before it has sent anything.
    assert_eq!(decide(&mut switch, b, mac(1), mac(2)), Decision::Port(a));
    assert_eq!(
        decide(&mut switch, b, mac(1), mac(3)),
        Decision::Drop(DropReason::Spoofed)
    );
    assert_eq!(
        decide(&mut switch, open, mac(2), mac(1)),
        Decision::Drop(DropReason::Spoofed)
    );
    // Unknown unicast does not go where it cannot belong.
    assert_eq!(flooded(&switch, Reach::Unknown(mac(7)), Ingress::Port(a)), [open]);
    assert_eq!(switch.set_policy(b, &only(4)), Ok(true));
    assert_eq!(decide(&mut switch, a, mac(4), mac(1)), Decision::Port(b));
    assert_eq!(decide(&mut switch, a, mac(2), mac(1)), unknown(2, 0));
    assert_eq!(
        switch.set_policy(b, &only(1)),
        Err(AddPortError::AddressTaken(mac(1)))
    );
}

#[test]
fn numbers_are_not_used_again() {
    let mut switch = Switch::new(None);
    let mut seen = HashSet::new();
    for _ in 0..5000 {
        let id = switch.add_port(&Policy::default()).expect("room");
        assert!(seen.insert(id) && id != PortId::STATION);
        assert!(switch.remove_port(id) && !switch.remove_port(id) && !switch.has_port(id));
    }
    assert!(switch.members.len() < 4, "slots are used again");
}

#[test]
fn a_switch_can_be_full() {
    let mut switch = Switch::new(None);
    for _ in 0..PortId::MAX_PORTS {
        switch.add_port(&Policy::default()).expect("room");
    }
    assert_eq!(switch.add_port(&Policy::default()), Err(AddPortError::Full));
}

#[test]
fn a_removed_port_neither_sends_nor_gets() {
    let (mut switch, [a, b, c]) = three();
    decide(&mut switch, a, mac(9), mac(1));
    assert!(switch.remove_port(a));
    assert_eq!(decide(&mut switch, b, mac(1), mac(2)), unknown(1, 0));
    assert_eq!(flooded(&switch, Reach::Everyone, Ingress::Port(b)), [c]);
    assert_eq!(
        decide(&mut switch, a, mac(2), mac(1)),
        Decision::Drop(DropReason::NoPort)
    );
}

#[test]
fn a_station_that_is_absent_attracts_nothing() {
    let (mut switch, [a, b, _]) = three();
    assert_eq!(switch.place_station(StationPlace::Absent), Ok(()));
    assert_eq!(switch.entries(Instant::ZERO).count(), 0);
    let gateway = to(Reach::Unknown(GATEWAY), 0);
    assert_eq!(decide(&mut switch, a, GATEWAY, mac(1)), gateway);
    assert_eq!(
        decide(&mut switch, a, MacAddr::BROADCAST, mac(1)),
        to(Reach::Ports, 0)
    );
    let own = frame(mac(1), GATEWAY, None);
    assert_eq!(
        switch.decide(Instant::ZERO, Ingress::Station, &own),
        Decision::Drop(DropReason::NoPort)
    );
    // Its address is anyone's.
    assert_eq!(decide(&mut switch, b, mac(1), GATEWAY), Decision::Port(a));
    assert_eq!(decide(&mut switch, a, GATEWAY, mac(1)), Decision::Port(b));
    assert_eq!(switch.place_station(StationPlace::Untagged), Ok(()));
    assert_eq!(decide(&mut switch, a, GATEWAY, mac(1)), Decision::Station);
    assert_eq!(
        decide(&mut switch, b, mac(1), GATEWAY),
        Decision::Drop(DropReason::Spoofed)
    );
    // Unless somebody was given it meanwhile.
    assert_eq!(switch.place_station(StationPlace::Absent), Ok(()));
    let only = Policy {
        mac: MacPolicy::Only(GATEWAY),
        ..Policy::default()
    };
    assert_eq!(switch.set_policy(b, &only), Ok(true));
    assert_eq!(
        switch.place_station(StationPlace::Untagged),
        Err(AddPortError::AddressTaken(GATEWAY))
    );
    let mut none = Switch::new(None);
    assert_eq!(none.place_station(StationPlace::Untagged), Ok(()));
    let only = none.add_port(&Policy::default()).expect("room");
    assert_eq!(
        decide(&mut none, only, MacAddr::BROADCAST, mac(1)),
        to(Reach::Ports, 0)
    );
}

#[test]
fn bound_addresses_are_in_the_table_of_their_vlans() {
    let vlan = |n| VlanId::new(n).expect("a VLAN");
    let with = |vlan| Policy {
        mac: MacPolicy::Only(mac(1)),
        vlan,
        ..Policy::default()
    };
    let mut switch = Switch::new(Some(GATEWAY));
    let a = switch.add_port(&with(VlanMode::Access(vlan(10)))).expect("room");
    let trunk = with(VlanMode::Trunk {
        native: Some(vlan(5)),
        allowed: "20,30".parse().expect("a list"),
    });
    let table = |switch: &Switch| {
        let mut vlans: Vec<_> = switch
            .entries(Instant::ZERO)
            .filter(|e| e.port == a)
            .map(|e| (e.vlan, e.mac))
            .collect();
        vlans.sort_unstable();
        vlans
    };
    assert_eq!(table(&switch), [(10, mac(1))]);
    assert_eq!(switch.set_policy(a, &trunk), Ok(true));
    assert_eq!(table(&switch), [(5, mac(1)), (20, mac(1)), (30, mac(1))]);
    // Safe in each of them.
    let open = switch.add_port(&Policy::default()).expect("room");
    let taken = frame(mac(9), mac(1), Some(20));
    assert_eq!(
        switch.decide(Instant::ZERO, Ingress::Port(open), &taken),
        Decision::Drop(DropReason::Spoofed)
    );
    assert_eq!(switch.set_policy(a, &with(VlanMode::Transparent)), Ok(true));
    assert_eq!(table(&switch), [(0, mac(1))]);
    // What was learned in VLANs that a port left is not looked for there.
    switch.decide(
        Instant::ZERO,
        Ingress::Port(open),
        &frame(mac(9), mac(7), Some(20)),
    );
    let access = Policy {
        vlan: VlanMode::Access(vlan(30)),
        ..Policy::default()
    };
    assert_eq!(switch.fdb().share(open), 1);
    assert_eq!(switch.set_policy(open, &access), Ok(true));
    assert_eq!(switch.fdb().share(open), 0);
}

#[test]
fn bridge_protocols_are_refused_where_the_policy_says_so() {
    let mut switch = Switch::new(Some(GATEWAY));
    let container = switch.add_port(&Policy::container(mac(1), [])).expect("room");
    let uplink = switch.add_port(&Policy::default()).expect("room");
    for group in [
        [1, 0, 0x0c, 0xcc, 0xcc, 0xcc],
        [1, 0, 0x0c, 0xcc, 0xcc, 0xcd],
        [1, 0x80, 0xc2, 0, 0, 0x21],
    ] {
        let group = MacAddr(group);
        assert_eq!(
            decide(&mut switch, container, group, mac(1)),
            Decision::Drop(DropReason::Reserved)
        );
        assert_eq!(decide(&mut switch, uplink, group, mac(2)), to(Reach::Everyone, 0));
    }
    let other = MacAddr([1, 0, 0x0c, 0xcc, 0xcc, 0xce]);
    assert_eq!(
        decide(&mut switch, container, other, mac(1)),
        to(Reach::Everyone, 0)
    );
}

#[test]
fn a_storm_is_not_copied_and_leaves_the_station_reachable() {
    let mut switch = Switch::new(Some(GATEWAY));
    let limited = |n| Policy {
        storm: Some(StormLimit::per_second(n)),
        ..Policy::container(mac(1), [])
    };
    let a = switch.add_port(&limited(3)).expect("room");
    let b = switch.add_port(&Policy::default()).expect("room");
    let at = |switch: &mut Switch, ms, dst| {
        switch.decide(
            Instant::from_millis(ms),
            Ingress::Port(a),
            &frame(dst, mac(1), None),
        )
    };
    let everyone = to(Reach::Everyone, 0);
    let noisy = Decision::StationOnly(DropReason::Storm);
    assert_eq!(at(&mut switch, 0, MacAddr::BROADCAST), everyone);
    assert_eq!(at(&mut switch, 0, MacAddr([0x33; 6])), everyone);
    assert_eq!(at(&mut switch, 0, mac(9)), unknown(9, 0));
    assert_eq!(at(&mut switch, 0, MacAddr::BROADCAST), noisy);
    assert_eq!(at(&mut switch, 0, mac(9)), Decision::Drop(DropReason::Storm));
    // What has one destination is not counted.
    assert_eq!(at(&mut switch, 0, GATEWAY), Decision::Station);
    switch.decide(Instant::ZERO, Ingress::Port(b), &frame(mac(1), mac(9), None));
    assert_eq!(at(&mut switch, 0, mac(9)), Decision::Port(b));
    assert_eq!(at(&mut switch, 334, MacAddr::BROADCAST), everyone);
    assert_eq!(at(&mut switch, 334, MacAddr::BROADCAST), noisy);
    // The same limit anew is no new second's worth; another is.
    assert_eq!(switch.set_policy(a, &limited(3)), Ok(true));
    assert_eq!(at(&mut switch, 334, MacAddr::BROADCAST), noisy);
    assert_eq!(switch.set_policy(a, &limited(4)), Ok(true));
    assert_eq!(at(&mut switch, 334, MacAddr::BROADCAST), everyone);
}

/// One step of a random history.
fn step() -> impl Strategy<Value = (usize, u8, u8, Option<u16>, u64)> {
    (
        0usize..5,
        0u8..8,
        0u8..8,
        proptest::option::of(0u16..3),
        0u64..200,
    )
}

fn address(n: u8) -> MacAddr {
    match n {
        6 => GATEWAY,
        7 => MacAddr::BROADCAST,
        n => mac(n),
    }
}

proptest! {
    /// Same inputs, same answers; no frame goes back; every egress is a port; answers follow what was learned.
    #[test]
    fn any_history_is_decided_alike_and_never_back(steps in proptest::collection::vec(step(), 1..200)) {
        let (mut one, ports) = three();
        let (mut two, _) = three();
        let mut now = Instant::ZERO;
        for (from, dst, src, vlan, wait) in steps {
            now += std::time::Duration::from_secs(wait);
            let ingress = ports.get(from).map_or(Ingress::Station, |&p| Ingress::Port(p));
            let src = if ingress == Ingress::Station { GATEWAY } else { address(src) };
            let bytes = frame(address(dst), src, vlan);
            let decision = one.decide(now, ingress, &bytes);
            prop_assert_eq!(decision, two.decide(now, ingress, &bytes));
            match decision {
                Decision::Drop(_) => {}
                Decision::StationOnly(_) | Decision::Reshaped(..) => prop_assert!(false, "nothing is configured"),
                Decision::Station => prop_assert!(ingress != Ingress::Station && address(dst) == GATEWAY),
                Decision::Port(egress) => {
                    prop_assert!(ingress != Ingress::Port(egress) && one.has_port(egress));
                }
                Decision::Flood(flood) => {
                    prop_assert!(flood.reach != Reach::Everyone || ingress != Ingress::Station);
                    for egress in one.flooded(flood, ingress, &bytes) {
                        prop_assert!(ingress != Ingress::Port(egress) && one.has_port(egress));
                    }
                }
            }
            if let (Ingress::Port(port), false) = (ingress, matches!(decision, Decision::Drop(DropReason::BadSource | DropReason::Spoofed))) {
                prop_assert_eq!(one.fdb().lookup(now, vlan.unwrap_or(0), src), Some(port));
            }
        }
    }

    #[test]
    fn any_bytes_are_decided(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        let mut switch = Switch::new(Some(GATEWAY));
        let network = "10.0.0.0/8".parse().expect("a network");
        let port = switch.add_port(&Policy { mac: MacPolicy::Any, ..Policy::container(mac(1), [network]) });
        let port = port.expect("room");
        let decision = switch.decide(Instant::ZERO, Ingress::Port(port), &bytes);
        prop_assert!(decision != Decision::Port(port));
    }
}
