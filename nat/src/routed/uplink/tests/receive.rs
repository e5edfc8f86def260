//! Sorting: whose business a frame is.

use pontoon_switch::{Checksum, Gso, GsoKind};
use proptest::prelude::*;

use super::super::neighbours::{ASKED, KNOWN};
use super::super::queue::{ALL, ALL_BYTES};
use super::*;

fn inbound(src: &str, dst: &str) -> Vec<u8> {
    Between::new(ip(src), ip(dst))
        .macs(ROUTER, OURS)
        .udp(53, 4000, b"reply")
}

#[test]
fn packets_to_us_and_beyond_are_the_routers() {
    let mut site = Site::settled();
    for (src, dst) in [
        ("198.51.100.7", "192.0.2.10"),
        ("198.51.100.7", "10.0.2.100"),
        ("2001:db8:ffff::7", "2001:db8::10"),
        ("2001:db8:ffff::7", "fd00::100"),
        ("fe80::7", LOCAL),
    ] {
        let Received::Packet(packet) = site.hear(&inbound(src, dst)) else {
            panic!("{dst} is the router's")
        };
        assert_eq!((packet.src, packet.dst), (ip(src), ip(dst)));
        assert_eq!(packet.ingress, PORT);
    }
    assert!(site.drops().is_empty());
}

#[test]
fn what_is_nobodys_is_dropped_and_counted() {
    use DropReason::{BadLength, BadSource, BadSourceAddress, Forbidden, Malformed, UnknownProtocol, Vlan};
    let with = |at: usize, bytes: &[u8]| {
        let mut frame = inbound("198.51.100.7", "192.0.2.10");
        frame[at..at + bytes.len()].copy_from_slice(bytes);
        frame
    };
    let mut redirect = Between::v6("fe80::1", LOCAL)
        .macs(ROUTER, OURS)
        .ttl(255)
        .icmp(137, 0, [0; 4], &[0; 32]);
    let cases: Vec<(Vec<u8>, DropReason)> = vec![
        (vec![2; 13], BadLength),
        (with(12, &[0x81, 0]), Vlan),
        (with(12, &[0x88, 0xcc]), UnknownProtocol),
        (with(6, &[1]), BadSource),
        (with(14, &[0x65]), Malformed),
        (with(0, &[0xff; 6]), Forbidden),
        (inbound("198.51.100.7", "192.0.2.255"), Forbidden),
        (inbound("198.51.100.7", "224.0.0.251"), Forbidden),
        (inbound("192.0.2.10", "10.0.2.100"), BadSourceAddress),
        (inbound("127.0.0.1", "10.0.2.100"), BadSourceAddress),
        (inbound("0.0.0.0", "10.0.2.100"), BadSourceAddress),
        (inbound("fe80::7", "fd00::100"), Forbidden),
        (inbound("2001:db8::7", "fe80::8"), Forbidden),
        (redirect.clone(), Forbidden),
    ];
    let mut site = Site::settled();
    for (frame, reason) in cases {
        assert_eq!(site.hear(&frame), Received::Done);
        assert_eq!(site.tap.drops.pop(), Some((Some(PORT), reason)), "{frame:02x?}");
        assert!(site.tap.drops.is_empty());
    }
    redirect[60] ^= 1;
    site.hear(&redirect);
    assert_eq!(site.drops(), [DropReason::BadChecksum]);
    // What a packet socket shows besides: frames for others, and our own.
    site.hear(&with(0, &OTHER.0));
    site.hear(&with(6, &OURS.0));
    assert!(site.drops().is_empty());
    // A version that the link does not speak.
    let mut site = Site::new(world(None, None));
    site.hear(&inbound("198.51.100.7", "192.0.2.10"));
    site.hear(&inbound("2001:db8::7", "2001:db8::10"));
    site.hear(&arp(OTHER, MacAddr::BROADCAST, 1, "192.0.2.7", "192.0.2.10"));
    assert_eq!(site.drops(), [DropReason::UnknownProtocol; 3]);
    assert_eq!(site.uplink.hop(ip("192.0.2.10")), None);
}

#[test]
fn a_partial_checksum_of_a_host_on_this_machine_is_right() {
    let mut site = Site::settled();
    site.send("2001:db8:ffff::7");
    site.said();
    let mut answer = advert(ROUTER, OURS, "2001:db8::1", LOCAL, 0xe0);
    answer[56] ^= 0xff;
    site.hear(&answer);
    assert_eq!(site.drops(), [DropReason::BadChecksum]);
    let (start, offset) = (54, 2);
    let checksum = Checksum::Partial { start, offset };
    site.hear_as(&answer, Offload { checksum, gso: None });
    assert_eq!(site.said(), [packet(ROUTER, "2001:db8:ffff::7")]);
}

#[test]
fn next_hops() {
    let site = Site::settled();
    let hop = |dst: &str| site.uplink.hop(ip(dst)).map(|hop| hop.to_string());
    for (dst, expected) in [
        ("192.0.2.77", Some("192.0.2.77")),
        ("198.51.100.7", Some("192.0.2.1")),
        ("192.0.2.10", None),
        ("192.0.2.255", None),
        ("255.255.255.255", None),
        ("224.0.0.1", None),
        ("127.0.0.1", None),
        ("2001:db8::77", Some("2001:db8::77")),
        ("2001:db8:1::77", Some("2001:db8::1")),
        ("fe80::77", Some("fe80::77")),
        ("ff02::1", None),
        ("::1", None),
    ] {
        assert_eq!(hop(dst).as_deref(), expected, "{dst}");
    }
}

#[test]
fn a_cable_to_another_gateway_asks_nothing() {
    let mut site = Site::new(UplinkConfig {
        mac: OURS,
        mtu: 9000,
        kind: LinkKind::Peer {
            mac: OTHER,
            ours_open: true,
        },
    });
    assert_eq!(site.uplink.deadline(), None);
    assert_eq!(site.uplink.hop(ip("10.9.9.9")), Some(ip("10.9.9.9")));
    site.send("10.9.9.9");
    site.send("fd09::9");
    assert_eq!(site.said(), [packet(OTHER, "10.9.9.9"), packet(OTHER, "fd09::9")]);
    assert!(matches!(
        site.hear(&inbound("10.9.9.9", "10.0.2.5")),
        Received::Packet(_)
    ));
    assert_eq!(
        site.hear(&arp(OTHER, OURS, 1, "10.9.9.9", "10.0.2.5")),
        Received::Done
    );
    let mut tagged = inbound("10.9.9.9", "10.0.2.5");
    tagged[12..14].copy_from_slice(&[0x81, 0]);
    site.hear(&tagged);
    assert_eq!(site.drops(), [DropReason::UnknownProtocol, DropReason::Vlan]);
    assert_eq!(site.uplink.status().addresses, []);
    assert_eq!(site.uplink.address(ip("10.0.0.1")), None);
}

/// A frame that gets past the first look, with bytes of chance behind it.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..200);
    let nd = (133u8..138, bytes(), any::<bool>()).prop_map(|(kind, body, rfc)| {
        // Half of them have options that are whole.
        let body = if rfc {
            let option = [
                &[3, 4, 64, 0xc0, 0, 0, 9, 9, 0, 0, 1, 1, 0, 0, 0, 0, 0x20, 1][..],
                &[7; 14],
            ]
            .concat();
            [
                &[0, 0, 0, 0, 0, 0, 0, 0][..],
                &option,
                &body[..body.len() / 8 * 8],
            ]
            .concat()
        } else {
            body
        };
        Between::v6("fe80::1", LOCAL)
            .macs(ROUTER, OURS)
            .ttl(255)
            .icmp(kind, 0, [64, 0, 7, 7], &body)
    });
    let arp = bytes().prop_map(|body| [&OURS.0[..], &ROUTER.0, &[8, 6, 0, 1, 8, 0, 6, 4, 0], &body].concat());
    let dhcp = bytes().prop_map(|body| {
        Between::v4("192.0.2.1", "255.255.255.255")
            .macs(ROUTER, MacAddr::BROADCAST)
            .udp(67, 68, &body)
    });
    let mld = (bytes(), any::<bool>()).prop_map(|(body, alert)| {
        let between = Between::v6("fe80::1", "ff02::1").macs(ROUTER, OURS).ttl(1);
        let icmp = between.icmp(130, 0, [0, 1, 0, 0], &[&[0; 16][..], &body].concat());
        let options = [58, 0, 5, if alert { 2 } else { 3 }, 0, 0, 1, 0];
        between.ip(0, &[&options[..], &icmp[54..]].concat())
    });
    prop_oneof![bytes(), nd, arp, dhcp, mld]
}

proptest! {
    #[test]
    fn whatever_comes_nothing_panics_or_grows(
        frames in prop::collection::vec((frames(), any::<u16>(), 0u64..3000), 1..60),
        dhcp in any::<bool>(),
    ) {
        let config = if dhcp {
            world(Some(Addressing4::Dhcp), Some(Addressing6::Slaac))
        } else {
            fixed()
        };
        let mut site = Site::new(config);
        for (frame, dst, pause) in frames {
            site.hear(&frame);
            let gso = Gso { kind: GsoKind::Tcp4, size: 1, header_len: 0, ecn: false };
            site.hear_as(&frame, Offload { checksum: Checksum::Valid, gso: Some(gso) });
            let [a, b] = dst.to_be_bytes();
            for dst in [format!("192.0.2.{a}"), format!("203.0.113.{b}"), format!("2001:db8::{dst:x}")] {
                if site.uplink.hop(ip(&dst)).is_some() {
                    site.send(&dst);
                }
            }
            site.run(Duration::from_millis(pause));
            let (known, asked, timers, (frames, bytes)) = site.uplink.neighbours.held();
            prop_assert!(known <= KNOWN.get() && asked <= ASKED.get() && timers <= known + asked);
            prop_assert!(frames <= ALL && bytes <= ALL_BYTES);
            prop_assert!(site.uplink.status().addresses.len() <= 12);
            prop_assert!(site.uplink.listener.held() <= 12);
            site.uplink.status();
        }
        // Time settles everything.
        site.run(Duration::from_secs(60));
        let (_, _, _, (frames, _)) = site.uplink.neighbours.held();
        prop_assert_eq!(frames, 0);
    }
}
