//! Our own addresses: announced, answered for, defended, given up.

use super::*;

fn announcement(addr: &str) -> Said {
    Said::Arp {
        to: MacAddr::BROADCAST,
        reply: false,
        sender: ip(addr),
        target: ip(addr),
    }
}

const ALL_NODES: MacAddr = MacAddr([0x33, 0x33, 0, 0, 0, 1]);

fn unsolicited(addr: &str) -> Said {
    Said::Advertise {
        to: ALL_NODES,
        target: ip(addr),
        flags: 0x20,
    }
}

#[test]
fn fixed_addresses_are_used_at_once_and_announced_twice() {
    let mut site = Site::new(fixed());
    assert_eq!(site.uplink.address(ip("0.0.0.0")), Some(ip("192.0.2.10")));
    assert_eq!(site.uplink.address(ip("::")), Some(ip("2001:db8::10")));
    assert!(site.uplink.owns(ip(LOCAL)) && site.uplink.owns(ip("192.0.2.10")));
    assert_eq!(
        site.events(),
        [
            UplinkEvent::AddressGained(ip("192.0.2.10")),
            UplinkEvent::AddressGained(ip("2001:db8::10")),
        ]
    );
    site.run(SECOND * 60);
    let said = site.said();
    for expected in [
        announcement("192.0.2.10"),
        unsolicited("2001:db8::10"),
        unsolicited(LOCAL),
        // Their groups are one.
        Said::Groups(vec![(4, ip("ff02::1:ff00:10"))]),
    ] {
        assert_eq!(said.iter().filter(|&s| *s == expected).count(), 2, "{expected:?}");
    }
    assert_eq!(said.len(), 8);
    assert_eq!(site.uplink.deadline(), None);
    site.uplink.renew(site.now);
    site.run(SECOND * 60);
    assert_eq!(site.said(), said, "the same when the link comes up again");
    let status = site.uplink.status();
    assert_eq!(status.gateways, [ip("192.0.2.1"), ip("2001:db8::1")]);
    assert_eq!(status.addresses.len(), 3);
}

#[test]
fn questions_for_our_addresses_are_answered() {
    let mut site = Site::settled();
    site.hear(&arp(OTHER, MacAddr::BROADCAST, 1, "192.0.2.7", "192.0.2.10"));
    // A probe has no sender (RFC 5227 section 2.1.1).
    site.hear(&arp(OTHER, MacAddr::BROADCAST, 1, "0.0.0.0", "192.0.2.10"));
    site.hear(&arp(OTHER, MacAddr::BROADCAST, 1, "192.0.2.7", "192.0.2.8"));
    let answer = |target: &str| Said::Arp {
        to: OTHER,
        reply: true,
        sender: ip("192.0.2.10"),
        target: ip(target),
    };
    assert_eq!(site.said(), [answer("192.0.2.7"), answer("0.0.0.0")]);

    let solicit = |src: &str, target: &str, option: bool| {
        let IpAddr::V6(addr) = ip(target) else {
            panic!("IPv6")
        };
        let [.., a, b, c] = addr.octets();
        let group = format!("ff02::1:ff{a:02x}:{b:02x}{c:02x}");
        let mut body = addr.octets().to_vec();
        if option {
            body.extend([1, 1]);
            body.extend(OTHER.0);
        }
        let to = MacAddr([0x33, 0x33, 0xff, a, b, c]);
        Between::v6(src, &group)
            .macs(OTHER, to)
            .ttl(255)
            .icmp(135, 0, [0; 4], &body)
    };
    for target in ["2001:db8::10", LOCAL] {
        site.hear(&solicit("2001:db8::7", target, true));
        site.hear(&solicit("::", target, false));
        let solicited = Said::Advertise {
            to: OTHER,
            target: ip(target),
            flags: 0x60,
        };
        assert_eq!(site.said(), [solicited, unsolicited(target)]);
    }
    site.hear(&solicit("2001:db8::7", "2001:db8::8", true));
    assert_eq!(site.said(), []);
    assert!(site.drops().is_empty());
    // From beyond the link nobody may ask (RFC 4861 section 7.1.1).
    let mut far = solicit("2001:db8::7", "2001:db8::10", true);
    far[14 + 7] = 254;
    site.hear(&far);
    assert_eq!(site.drops(), [DropReason::Malformed]);
}

#[test]
fn a_fixed_address_that_another_claims_is_defended_once_in_ten_seconds_and_kept() {
    let mut site = Site::settled();
    for _ in 0..30 {
        site.hear(&arp(OTHER, MacAddr::BROADCAST, 1, "192.0.2.10", "192.0.2.10"));
        site.hear(&advert(OTHER, ALL_NODES, "2001:db8::10", "ff02::1", 0x20));
        site.run(SECOND);
    }
    let said = site.said();
    let count = |what: Said| said.iter().filter(|&s| *s == what).count();
    assert_eq!(count(announcement("192.0.2.10")), 3);
    // An advertisement from our own address is a lie beyond the address.
    assert_eq!(site.drops(), vec![DropReason::BadSourceAddress; 30]);
    let IpAddr::V6(target) = ip("2001:db8::10") else {
        panic!("IPv6")
    };
    let body = [&target.octets()[..], &[2, 1], &OTHER.0].concat();
    let between = Between::v6("2001:db8::9", "ff02::1")
        .macs(OTHER, ALL_NODES)
        .ttl(255);
    site.hear(&between.icmp(136, 0, [0x20, 0, 0, 0], &body));
    assert_eq!(site.said(), [unsolicited("2001:db8::10")]);
    assert!(site.uplink.owns(ip("192.0.2.10")) && site.uplink.owns(ip("2001:db8::10")));
    assert!(site.events().is_empty());
}
