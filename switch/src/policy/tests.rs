use super::*;

const OWN: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const OTHER: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);

fn guard() -> Guard {
    let addresses = ["10.9.0.2/32", "fd00:9::/64"].map(|n| n.parse().expect("a network"));
    Guard::new(&Policy::container(OWN, addresses))
}

/// A frame from `OWN`, with a tag if one is given.
fn ethernet(vlan: Option<u16>, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut b = vec![0xff; 6];
    b.extend_from_slice(&OWN.0);
    if let Some(vlan) = vlan {
        b.extend_from_slice(&[0x81, 0x00]);
        b.extend_from_slice(&vlan.to_be_bytes());
    }
    b.extend_from_slice(&ethertype.to_be_bytes());
    b.extend_from_slice(payload);
    b
}

fn arp(hardware: MacAddr, sender: [u8; 4]) -> Vec<u8> {
    let mut b = vec![0, 1, 8, 0, 6, 4, 0, 2];
    b.extend_from_slice(&hardware.0);
    b.extend_from_slice(&sender);
    b.extend_from_slice(&[0; 10]);
    b
}

fn v4(source: [u8; 4], protocol: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let mut b = vec![0x45, 0, 0, 0, 0, 0];
    b.extend_from_slice(&fragment.to_be_bytes());
    b.extend_from_slice(&[64, protocol, 0, 0]);
    b.extend_from_slice(&source);
    b.extend_from_slice(&[255, 255, 255, 255]);
    b.extend_from_slice(payload);
    b
}

fn v6(source: &str, next: u8, payload: &[u8]) -> Vec<u8> {
    let source: Ipv6Addr = source.parse().expect("an address");
    let mut b = vec![0x60, 0, 0, 0, 0, 0, next, 255];
    b.extend_from_slice(&source.octets());
    b.extend_from_slice(&[0xff; 16]);
    b.extend_from_slice(payload);
    b
}

fn udp(from: u16, to: u16) -> Vec<u8> {
    [from.to_be_bytes(), to.to_be_bytes(), [0, 8], [0, 0]].concat()
}

fn icmp(kind: u8, target: &str) -> Vec<u8> {
    let target: Ipv6Addr = target.parse().expect("an address");
    [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &target.octets()].concat()
}

/// What the guard says of it, without a tag and behind one.
fn admit(ethertype: u16, payload: &[u8]) -> Result<(), DropReason> {
    let plain = guard().admit(OWN, &ethernet(None, ethertype, payload));
    let tagged = guard().admit(OWN, &ethernet(Some(5), ethertype, payload));
    assert_eq!(plain, tagged, "a tag makes no difference");
    plain
}

#[test]
fn source_mac() {
    let frame = ethernet(None, headers::IPV4, &v4([10, 9, 0, 2], 6, 0, &[]));
    assert_eq!(guard().admit(OWN, &frame), Ok(()));
    assert_eq!(guard().admit(OTHER, &frame), Err(DropReason::Spoofed));
    assert_eq!(Guard::new(&Policy::default()).admit(OTHER, &frame), Ok(()));
}

#[test]
fn arp_sender() {
    assert_eq!(admit(headers::ARP, &arp(OWN, [10, 9, 0, 2])), Ok(()));
    assert_eq!(admit(headers::ARP, &arp(OWN, [0, 0, 0, 0])), Ok(()), "a probe");
    assert_eq!(
        admit(headers::ARP, &arp(OWN, [10, 9, 0, 1])),
        Err(DropReason::BadSourceAddress)
    );
    assert_eq!(
        admit(headers::ARP, &arp(OTHER, [10, 9, 0, 2])),
        Err(DropReason::Spoofed)
    );
    assert_eq!(
        admit(headers::ARP, &arp(OWN, [10, 9, 0, 2])[..27]),
        Err(DropReason::Malformed)
    );
}

#[test]
fn a_bound_mac_is_enough_to_check_arp() {
    let guard = Guard::new(&Policy {
        mac: MacPolicy::Only(OWN),
        ..Policy::default()
    });
    let says = |hardware| guard.admit(OWN, &ethernet(None, headers::ARP, &arp(hardware, [9, 9, 9, 9])));
    assert_eq!((says(OWN), says(OTHER)), (Ok(()), Err(DropReason::Spoofed)));
    assert_eq!(guard.admit(OWN, &ethernet(None, headers::IPV6, &[0; 3])), Ok(()));
}

#[test]
fn ipv4_source() {
    assert_eq!(
        admit(headers::IPV4, &v4([10, 9, 0, 3], 6, 0, &[])),
        Err(DropReason::BadSourceAddress)
    );
    assert_eq!(
        admit(headers::IPV4, &v4([0, 0, 0, 0], 17, 0, &udp(68, 67))),
        Ok(()),
        "a DHCP client"
    );
    assert_eq!(
        admit(headers::IPV4, &v4([0, 0, 0, 0], 17, 0, &udp(68, 53))),
        Err(DropReason::BadSourceAddress)
    );
    assert_eq!(
        admit(headers::IPV4, &v4([0, 0, 0, 0], 6, 0, &udp(68, 67))),
        Err(DropReason::BadSourceAddress)
    );
    assert_eq!(admit(headers::IPV4, &[0x45; 19]), Err(DropReason::Malformed));
}

#[test]
fn ipv6_source() {
    assert_eq!(
        admit(headers::IPV6, &v6("fd00:9::77", 6, &[])),
        Ok(()),
        "any address of the prefix"
    );
    assert_eq!(admit(headers::IPV6, &v6("fe80::1", 6, &[])), Ok(()));
    assert_eq!(
        admit(headers::IPV6, &v6("fd00:8::1", 6, &[])),
        Err(DropReason::BadSourceAddress)
    );
    assert_eq!(
        admit(headers::IPV6, &v6("::", 58, &icmp(135, "fd00:9::77"))),
        Ok(()),
        "duplicate detection"
    );
    assert_eq!(
        admit(headers::IPV6, &v6("::", 17, &udp(1, 2))),
        Err(DropReason::BadSourceAddress)
    );
}

#[test]
fn neighbour_advertisements_are_for_own_addresses() {
    assert_eq!(
        admit(headers::IPV6, &v6("fe80::1", 58, &icmp(136, "fd00:9::5"))),
        Ok(())
    );
    let stolen = v6("fe80::1", 58, &icmp(136, "2001:db8::1"));
    assert_eq!(admit(headers::IPV6, &stolen), Err(DropReason::BadSourceAddress));
}

#[test]
fn rogue_dhcp_servers() {
    for to in [67, 68, 9999] {
        let reply = v4([10, 9, 0, 2], 17, 0, &udp(67, to));
        assert_eq!(
            admit(headers::IPV4, &reply),
            Err(DropReason::RogueDhcp),
            "to {to}"
        );
    }
    let first = v4([10, 9, 0, 2], 17, 0x2000, &udp(67, 68));
    assert_eq!(
        admit(headers::IPV4, &first),
        Err(DropReason::RogueDhcp),
        "the first fragment"
    );
    let cut = v4([10, 9, 0, 2], 17, 0, &udp(67, 68)[..3]);
    assert_eq!(admit(headers::IPV4, &cut), Err(DropReason::Malformed));
    let v6_reply = v6("fe80::1", 17, &udp(547, 546));
    assert_eq!(admit(headers::IPV6, &v6_reply), Err(DropReason::RogueDhcp));
    assert_eq!(
        admit(headers::IPV4, &v4([10, 9, 0, 2], 17, 0, &udp(5000, 67))),
        Ok(())
    );
}

#[test]
fn rogue_routers() {
    for kind in [134, 137] {
        let message = icmp(kind, "::");
        assert_eq!(
            admit(headers::IPV6, &v6("fe80::1", 58, &message)),
            Err(DropReason::RogueRouter)
        );
        // Behind hop-by-hop, destination options and an atomic fragment header.
        let mut hidden = vec![60, 0, 1, 4, 0, 0, 0, 0];
        hidden.extend_from_slice(&[44, 0, 1, 4, 0, 0, 0, 0]);
        hidden.extend_from_slice(&[58, 0, 0, 0, 0, 0, 0, 1]);
        hidden.extend_from_slice(&message);
        assert_eq!(
            admit(headers::IPV6, &v6("fe80::1", 0, &hidden)),
            Err(DropReason::RogueRouter)
        );
    }
    assert_eq!(
        admit(headers::IPV6, &v6("fe80::1", 58, &icmp(133, "::"))),
        Ok(()),
        "a solicitation"
    );
    // A chain that does not end inside the packet, or not soon, hides what it carries: not let through.
    assert_eq!(
        admit(headers::IPV6, &v6("fe80::1", 0, &[58, 200, 0, 0, 0, 0, 0, 0])),
        Err(DropReason::Malformed)
    );
    let endless = [60u8, 0, 1, 4, 0, 0, 0, 0].repeat(50);
    assert_eq!(
        admit(headers::IPV6, &v6("fe80::1", 60, &endless)),
        Err(DropReason::Malformed)
    );
}

#[test]
fn what_is_behind_three_tags_is_not_let_through() {
    let packet = v4([10, 9, 0, 2], 6, 0, &[]);
    let tags = [&[0, 6, 0x81, 0, 0, 7][..], &headers::IPV4.to_be_bytes(), &packet].concat();
    let two = ethernet(None, 0x8100, &tags);
    let three = ethernet(Some(5), 0x8100, &tags);
    assert_eq!(guard().admit(OWN, &two), Ok(()));
    assert_eq!(guard().admit(OWN, &three), Err(DropReason::Malformed));
    assert_eq!(Guard::new(&Policy::default()).admit(OWN, &three), Ok(()));
}

#[test]
fn what_is_allowed_is_let_through() {
    let router = Policy {
        router_advertisements: Permission::Allow,
        ..Policy::container(OWN, [])
    };
    let advertisement = ethernet(None, headers::IPV6, &v6("fe80::1", 58, &icmp(134, "::")));
    assert_eq!(Guard::new(&router).admit(OWN, &advertisement), Ok(()));
    let server = Policy {
        dhcp_server: Permission::Deny,
        ..Policy::default()
    };
    let offer = ethernet(None, headers::IPV4, &v4([1, 2, 3, 4], 17, 0, &udp(67, 68)));
    assert_eq!(
        Guard::new(&server).admit(OTHER, &offer),
        Err(DropReason::RogueDhcp)
    );
    assert_eq!(Guard::new(&Policy::default()).admit(OTHER, &offer), Ok(()));
    // Not IP, not ARP: nothing to hold it against.
    assert_eq!(admit(0x88cc, &[1, 2, 3]), Ok(()));
}
