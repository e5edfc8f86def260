mod asking;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use pontoon_fixtures::packet::{Between, Parsed, Payload};
use pontoon_switch::frame::Checksum;
use pontoon_switch::{DropReason, Frame, Instant, MacAddr, Offload};
use proptest::prelude::*;
use smoltcp::iface::{Config as SmolConfig, Interface, SocketSet};
use smoltcp::phy::{DeviceCapabilities, Medium};
use smoltcp::socket::dhcpv4;
use smoltcp::wire::{HardwareAddress, Icmpv6Packet, NdiscRepr};

use super::{Heard, Link, Neighbours, ndp};
use crate::rig::{CONTAINER, GATEWAY, PORT, Rig, config};

const OTHER: MacAddr = MacAddr([2, 0, 0, 0, 0, 0x65]);
const LOCAL: &str = "fe80::ff:fe00:64";
const GATEWAY6: &str = "fd00:2::2";

fn addr(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn from(mac: MacAddr, src: &str, dst: &str) -> Between {
    Between::new(addr(src), addr(dst)).macs(mac, GATEWAY)
}

fn arp(rig: &mut Rig, mut bytes: Vec<u8>) {
    let mut link = Link::new(&rig.config);
    link.arp(&mut rig.cx(), PORT, &mut Frame::whole(&mut bytes, Offload::NONE));
}

fn discovery(rig: &mut Rig, mut bytes: Vec<u8>) -> bool {
    let mut link = Link::new(&rig.config);
    let mut taken = false;
    rig.packet(&mut bytes, |cx, p, f| taken = link.icmpv6_link(cx, p, f));
    taken
}

/// A solicitation for `target` by `mac`, with the option unless `option` is empty.
fn solicit(mac: MacAddr, src: &str, dst: &str, target: &str, option: &[u8]) -> Vec<u8> {
    let IpAddr::V6(target) = addr(target) else {
        panic!()
    };
    let mut body = target.octets().to_vec();
    body.extend(option);
    from(mac, src, dst).ttl(255).icmp(135, 0, [0; 4], &body)
}

fn source_option(mac: MacAddr) -> Vec<u8> {
    let mut o = vec![1, 1];
    o.extend(mac.0);
    o
}

#[test]
fn arp_answers_for_the_gateway_and_learns_the_asker() {
    let mut rig = Rig::new();
    let mut request = from(CONTAINER, "10.0.2.100", "10.0.2.2").arp_request();
    request.resize(60, 0);
    arp(&mut rig, request);
    let sent = rig.sent();
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0][..6], CONTAINER.0);
    assert_eq!(sent[0][6..12], GATEWAY.0);
    assert_eq!(sent[0][20..22], [0, 2], "a reply");
    assert_eq!(sent[0][22..28], GATEWAY.0);
    assert_eq!(sent[0][28..32], [10, 0, 2, 2]);
    assert_eq!(sent[0][32..38], CONTAINER.0);
    assert_eq!(sent[0][38..42], [10, 0, 2, 100]);
    assert_eq!(rig.neighbours.lookup(addr("10.0.2.100")), Some(CONTAINER));
}

#[test]
fn arp_is_silent_about_others_and_answers_probes_without_learning() {
    let mut rig = Rig::new();
    arp(&mut rig, from(CONTAINER, "10.0.2.100", "10.0.2.77").arp_request());
    assert!(rig.sent().is_empty());
    arp(&mut rig, from(CONTAINER, "0.0.0.0", "10.0.2.2").arp_request());
    assert_eq!(
        rig.sent().len(),
        1,
        "RFC 5227: a probe for our address is answered"
    );
    assert_eq!(rig.neighbours.lookup(addr("0.0.0.0")), None);
    assert!(rig.dropped().is_empty());
}

#[test]
fn arp_claims_of_what_is_another_s_are_dropped() {
    let mut rig = Rig::new();
    rig.neighbours.pin(addr("10.0.2.100"), CONTAINER);
    // Another container's address, the gateway's, and a sender that is not who the frame says.
    arp(&mut rig, from(OTHER, "10.0.2.100", "10.0.2.2").arp_request());
    arp(&mut rig, from(OTHER, "10.0.2.2", "10.0.2.2").arp_request());
    let mut forged = from(OTHER, "10.0.2.101", "10.0.2.2").arp_request();
    forged[22..28].copy_from_slice(&CONTAINER.0);
    arp(&mut rig, forged);
    assert!(rig.sent().is_empty());
    assert_eq!(rig.dropped(), [DropReason::BadSourceAddress; 3]);
    assert_eq!(rig.neighbours.lookup(addr("10.0.2.100")), Some(CONTAINER));
    assert_eq!(rig.neighbours.lookup(addr("10.0.2.101")), None);
}

#[test]
fn unknown_neighbours_are_asked_for_once_a_second() {
    let mut rig = Rig::new();
    for _ in 0..3 {
        super::solicit(&mut rig.cx(), addr("10.0.2.9"));
        super::solicit(&mut rig.cx(), addr("fd00:2::9"));
        super::solicit(&mut rig.cx(), addr("192.0.2.9"));
    }
    let sent = rig.sent();
    assert_eq!(sent.len(), 2, "one each, none for an address off the link");
    assert_eq!(sent[0][..6], MacAddr::BROADCAST.0);
    assert_eq!(sent[0][38..42], [10, 0, 2, 9]);
    let p = Parsed::of(&sent[1]).expect("a checksum that is right");
    assert_eq!((p.ttl, p.dst), (255, addr("ff02::1:ff00:9")));
    assert_eq!(sent[1][..6], [0x33, 0x33, 0xff, 0, 0, 9]);
    rig.now += Duration::from_secs(1);
    super::solicit(&mut rig.cx(), addr("10.0.2.9"));
    assert_eq!(rig.sent().len(), 1);
}

#[test]
fn neighbours_age_are_bounded_and_keep_their_holder() {
    let c = config();
    let mut n = Neighbours::default();
    let t = |s: u64| Instant::from_millis(s * 1000);
    let a = addr("10.0.2.50");
    assert_eq!(n.learn(&c, t(0), a, CONTAINER), Heard::Accepted);
    assert_eq!(n.learn(&c, t(60), a, OTHER), Heard::Conflict);
    assert_eq!(
        n.learn(&c, t(130), a, OTHER),
        Heard::Accepted,
        "its holder was silent for long"
    );
    assert_eq!(n.lookup(a), Some(OTHER));
    n.expire(t(729));
    assert_eq!(n.lookup(a), Some(OTHER));
    n.expire(t(730));
    assert_eq!(n.lookup(a), None);
    // Off the link, the network's and broadcast addresses, and the gateway's own.
    for bad in [
        "192.0.2.1",
        "10.0.2.0",
        "10.0.2.255",
        "2001:db8::1",
        "ff02::1",
        "::",
    ] {
        assert_eq!(n.learn(&c, t(0), addr(bad), CONTAINER), Heard::Ignored, "{bad}");
    }
    assert_eq!(n.learn(&c, t(0), addr("10.0.2.2"), CONTAINER), Heard::Conflict);
    // One Ethernet address has a share, all have a bound.
    for i in 0..100u16 {
        n.learn(
            &c,
            t(0),
            Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, i + 1).into(),
            CONTAINER,
        );
    }
    assert_eq!(n.learned_len(), 32);
    for i in 0..10_000u16 {
        let [h, l] = i.to_be_bytes();
        let mac = MacAddr([2, 1, 0, 0, h, l]);
        n.learn(&c, t(0), Ipv6Addr::new(0xfd00, 2, 0, 0, 0, 0, 1, i).into(), mac);
    }
    assert_eq!(n.learned_len(), 4096);
    n.expire(t(600));
    assert_eq!(n.learned_len(), 0);
    assert_eq!(n.deadline(), None);
}

#[test]
fn neighbour_solicitations_are_answered() {
    let mut rig = Rig::new();
    let local = rig.config.link_local6().to_string();
    for target in [GATEWAY6, &local] {
        let group = ndp::solicited_node(target.parse().unwrap()).to_string();
        let frame = solicit(CONTAINER, LOCAL, &group, target, &source_option(CONTAINER));
        assert!(discovery(&mut rig, frame));
        let sent = rig.sent();
        assert_eq!(sent.len(), 1);
        let p = Parsed::of(&sent[0]).expect("a checksum that is right");
        assert_eq!((p.src, p.dst, p.ttl), (addr(target), addr(LOCAL), 255));
        assert_eq!((p.src_mac, p.dst_mac), (GATEWAY, CONTAINER));
        match NdiscRepr::parse(&Icmpv6Packet::new_checked(&sent[0][p.transport_at..]).unwrap()).unwrap() {
            NdiscRepr::NeighborAdvert {
                flags,
                target_addr,
                lladdr,
            } => {
                assert_eq!(flags.bits(), 0xe0, "router, solicited, override");
                assert_eq!(IpAddr::from(target_addr), addr(target));
                assert_eq!(lladdr.unwrap().as_bytes(), GATEWAY.0);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(rig.neighbours.lookup(addr(LOCAL)), Some(CONTAINER));
}

#[test]
fn duplicate_address_detection_of_the_gateway_s_address_is_told_to_all() {
    let mut rig = Rig::new();
    assert!(discovery(
        &mut rig,
        solicit(CONTAINER, "::", "ff02::1:ff00:2", GATEWAY6, &[])
    ));
    let sent = rig.sent();
    let p = Parsed::of(&sent[0]).unwrap();
    assert_eq!(
        (p.dst, p.dst_mac),
        (addr("ff02::1"), MacAddr([0x33, 0x33, 0, 0, 0, 1]))
    );
    assert_eq!(sent[0][p.transport_at + 4] & 0x40, 0, "not solicited");
    // A probe with an option, or to one only, is none (RFC 4861 section 7.1.1).
    discovery(
        &mut rig,
        solicit(
            CONTAINER,
            "::",
            "ff02::1:ff00:2",
            GATEWAY6,
            &source_option(CONTAINER),
        ),
    );
    discovery(&mut rig, solicit(CONTAINER, "::", GATEWAY6, GATEWAY6, &[]));
    assert!(rig.sent().is_empty());
    assert_eq!(rig.dropped(), [DropReason::Malformed; 2]);
}

#[test]
fn discovery_is_validated() {
    let mut rig = Rig::new();
    let ok = || solicit(CONTAINER, LOCAL, GATEWAY6, GATEWAY6, &source_option(CONTAINER));
    let cases: [(Vec<u8>, DropReason); 6] = [
        // Routed: the hop limit shows it.
        (
            from(CONTAINER, LOCAL, GATEWAY6)
                .ttl(254)
                .icmp(135, 0, [0; 4], &ok()[62..]),
            DropReason::Malformed,
        ),
        (
            {
                let mut f = ok();
                f[56] ^= 1;
                f
            },
            DropReason::BadChecksum,
        ),
        (
            solicit(CONTAINER, LOCAL, GATEWAY6, GATEWAY6, &[1, 0, 0, 0, 0, 0, 0, 0]),
            DropReason::Malformed,
        ),
        (
            solicit(CONTAINER, LOCAL, GATEWAY6, "ff02::2", &[]),
            DropReason::Malformed,
        ),
        (
            solicit(CONTAINER, LOCAL, GATEWAY6, GATEWAY6, &source_option(OTHER)),
            DropReason::BadSourceAddress,
        ),
        // A rogue router.
        (
            from(CONTAINER, LOCAL, "ff02::1")
                .ttl(255)
                .icmp(134, 0, [0; 4], &[0; 8]),
            DropReason::Forbidden,
        ),
    ];
    for (frame, reason) in cases {
        assert!(discovery(&mut rig, frame));
        assert!(rig.sent().is_empty(), "{reason:?}");
        assert_eq!(rig.dropped(), [reason]);
    }
    assert_eq!(rig.neighbours.learned_len(), 0);
    assert!(discovery(&mut rig, ok()));
    assert_eq!(rig.sent().len(), 1);
}

#[test]
fn advertisements_of_neighbours_are_learned_unless_they_lie() {
    let mut rig = Rig::new();
    let advert = |mac: MacAddr, target: &str, option: MacAddr| {
        let IpAddr::V6(t) = addr(target) else { panic!() };
        let mut body = t.octets().to_vec();
        body.extend([2, 1]);
        body.extend(option.0);
        from(mac, target, GATEWAY6)
            .ttl(255)
            .icmp(136, 0, [0x60, 0, 0, 0], &body)
    };
    discovery(&mut rig, advert(CONTAINER, "fd00:2::77", CONTAINER));
    assert_eq!(rig.neighbours.lookup(addr("fd00:2::77")), Some(CONTAINER));
    discovery(&mut rig, advert(OTHER, "fd00:2::77", OTHER));
    discovery(&mut rig, advert(OTHER, "fd00:2::78", CONTAINER));
    discovery(&mut rig, advert(OTHER, GATEWAY6, OTHER));
    assert_eq!(rig.dropped(), [DropReason::BadSourceAddress; 3]);
    assert_eq!(rig.neighbours.lookup(addr("fd00:2::77")), Some(CONTAINER));
    assert_eq!(rig.neighbours.lookup(addr("fd00:2::78")), None);
}

#[test]
fn router_solicitations_are_answered_to_the_asker() {
    let mut rig = Rig::new();
    assert!(discovery(
        &mut rig,
        from(CONTAINER, LOCAL, "ff02::2")
            .ttl(255)
            .icmp(133, 0, [0; 4], &source_option(CONTAINER))
    ));
    let sent = rig.sent();
    let p = Parsed::of(&sent[0]).expect("a checksum that is right");
    assert_eq!(p.src, IpAddr::from(rig.config.link_local6()));
    assert_eq!((p.dst, p.dst_mac, p.ttl), (addr(LOCAL), CONTAINER, 255));
    let body = &sent[0][p.transport_at..];
    match NdiscRepr::parse(&Icmpv6Packet::new_checked(body).unwrap()).unwrap() {
        NdiscRepr::RouterAdvert {
            hop_limit,
            flags,
            router_lifetime,
            lladdr,
            mtu,
            prefix_info,
            ..
        } => {
            assert_eq!((hop_limit, flags.bits(), router_lifetime.secs()), (64, 0, 1800));
            assert_eq!(lladdr.unwrap().as_bytes(), GATEWAY.0);
            assert_eq!(mtu, Some(1500));
            let prefix = prefix_info.unwrap();
            assert_eq!(
                (IpAddr::from(prefix.prefix), prefix.prefix_len),
                (addr("fd00:2::"), 64)
            );
            assert_eq!(prefix.flags.bits(), 0xc0, "on-link, autonomous");
        }
        other => panic!("{other:?}"),
    }
    // RFC 8106, by hand: smoltcp knows neither option.
    let rdnss = [
        &[25, 3, 0, 0, 0, 0, 7, 8][..],
        &"fd00:2::2".parse::<Ipv6Addr>().unwrap().octets(),
    ]
    .concat();
    assert!(body.windows(24).any(|w| w == rdnss));
    let dnssl = b"\x1f\x05\x00\x00\x00\x00\x07\x08\x03lab\x07example\x00\x07example\x03org\x00\0\0\0\0\0\0\0";
    let at = body.windows(8).position(|w| w == &dnssl[..8]).unwrap();
    assert_eq!(body[at..], dnssl[..body.len() - at]);
    assert_eq!(body.len() - at, 40, "padded to its length field");

    // A solicitation without an address goes back by Ethernet to the asker alone.
    discovery(
        &mut rig,
        from(CONTAINER, "::", "ff02::2")
            .ttl(255)
            .icmp(133, 0, [0; 4], &[]),
    );
    let sent = rig.sent();
    let p = Parsed::of(&sent[0]).unwrap();
    assert_eq!((p.dst, p.dst_mac), (addr("ff02::1"), CONTAINER));
}

#[test]
fn routers_advertise_soon_and_then_now_and_then() {
    let mut rig = Rig::new();
    let mut link = Link::new(&rig.config);
    let mut times = Vec::new();
    for _ in 0..12 {
        rig.now = rig.now.max(link.deadline().unwrap());
        link.flush(&mut rig.cx());
        times.push(rig.now);
        let sent = rig.sent();
        assert_eq!(sent.len(), 1);
        assert_eq!(sent[0][..6], [0x33, 0x33, 0, 0, 0, 1]);
        link.flush(&mut rig.cx());
        assert!(rig.sent().is_empty(), "not before it is due");
    }
    let gaps: Vec<u64> = times.windows(2).map(|w| w[1].since(w[0]).as_secs()).collect();
    assert!(gaps[..2].iter().all(|&g| g <= 16), "{gaps:?}");
    assert!(gaps[2..].iter().all(|g| (200..=600).contains(g)), "{gaps:?}");

    rig.config.subnet6 = None;
    assert_eq!(Link::new(&rig.config).deadline(), None);
}

#[test]
fn echo_is_answered_in_place_at_any_size() {
    let mut rig = Rig::new();
    let local = rig.config.link_local6().to_string();
    for (src, dst) in [
        ("10.0.2.100", "10.0.2.2"),
        ("fd00:2::100", GATEWAY6),
        (LOCAL, &local),
    ] {
        for size in [0, 1, 56, 1400, 65_000] {
            let data: Vec<u8> = (0..size).map(|i| i as u8).collect();
            let mut frame = from(CONTAINER, src, dst).ttl(3).echo(0x1234, 7, &data);
            let mut link = Link::new(&rig.config);
            rig.packet(&mut frame, |cx, p, f| assert!(link.echo(cx, p, f)));
            let sent = rig.sent();
            let p = Parsed::of(&sent[0]).expect("checksums that are right");
            assert_eq!((p.src, p.dst, p.ttl), (addr(dst), addr(src), 64));
            assert_eq!((p.src_mac, p.dst_mac), (GATEWAY, CONTAINER));
            match p.payload {
                Payload::Icmp {
                    kind,
                    code,
                    rest,
                    body,
                    ..
                } => {
                    assert_eq!((kind, code), (if addr(src).is_ipv4() { 0 } else { 129 }, 0));
                    assert_eq!(rest, [0x12, 0x34, 0, 7]);
                    assert_eq!(body, &data[..]);
                }
                other => panic!("{other:?}"),
            }
        }
    }
    // A wrong checksum, and what is for others.
    let mut wrong = from(CONTAINER, "10.0.2.100", "10.0.2.2").echo(1, 1, b"x");
    *wrong.last_mut().unwrap() ^= 1;
    let mut link = Link::new(&rig.config);
    rig.packet(&mut wrong, |cx, p, f| assert!(link.echo(cx, p, f)));
    assert_eq!(rig.dropped(), [DropReason::BadChecksum]);
    let mut far = from(CONTAINER, "10.0.2.100", "192.0.2.7").echo(1, 1, b"x");
    rig.packet(&mut far, |cx, p, f| assert!(!link.echo(cx, p, f)));
    assert!(rig.sent().is_empty());
}

/// A DHCP message with these options; `ciaddr` zero, flags zero.
fn dhcp_message(mac: MacAddr, options: &[u8]) -> Vec<u8> {
    let mut m = vec![0; 240];
    m[..3].copy_from_slice(&[1, 1, 6]);
    m[4..8].copy_from_slice(b"xid!");
    m[28..34].copy_from_slice(&mac.0);
    m[236..240].copy_from_slice(&[0x63, 0x82, 0x53, 0x63]);
    m.extend(options);
    m.push(255);
    m
}

fn dhcp(rig: &mut Rig, link: &mut Link, mac: MacAddr, message: &[u8]) {
    let mut frame = Between::v4("0.0.0.0", "255.255.255.255")
        .macs(mac, MacAddr::BROADCAST)
        .udp(68, 67, message);
    rig.packet(&mut frame, |cx, p, f| link.dhcp(cx, p, f));
}

/// The message of a DHCP answer, and where it went.
fn dhcp_answer(rig: &mut Rig) -> Option<(Vec<u8>, IpAddr, MacAddr)> {
    let sent = rig.sent();
    assert!(sent.len() <= 1);
    let frame = sent.first()?;
    let p = Parsed::with(frame, Checksum::Complete).expect("whole checksums");
    match p.payload {
        Payload::Udp {
            src: 67,
            dst: 68,
            data,
        } => Some((data.to_vec(), p.dst, p.dst_mac)),
        other => panic!("{other:?}"),
    }
}

fn option_of(message: &[u8], code: u8) -> Option<Vec<u8>> {
    let mut rest = &message[240..];
    while let [c, len, tail @ ..] = rest {
        if *c == 255 {
            break;
        }
        let (data, next) = tail.split_at(usize::from(*len));
        if *c == code {
            return Some(data.to_vec());
        }
        rest = next;
    }
    None
}

#[test]
fn dhcp_tells_a_container_its_own_address_and_everything_else() {
    let mut rig = Rig::new();
    let mut link = Link::new(&rig.config);
    link.assign(CONTAINER, Ipv4Addr::new(10, 0, 2, 100));
    dhcp(
        &mut rig,
        &mut link,
        CONTAINER,
        &dhcp_message(CONTAINER, &[53, 1, 1, 61, 3, 9, 8, 7]),
    );
    let (offer, dst, mac) = dhcp_answer(&mut rig).unwrap();
    assert_eq!(
        (dst, mac),
        (addr("10.0.2.100"), CONTAINER),
        "no broadcast flag, no broadcast"
    );
    assert!(offer.len() >= 300);
    assert_eq!(offer[..8], [&[2, 1, 6, 0], &b"xid!"[..]].concat());
    assert_eq!(offer[16..20], [10, 0, 2, 100]);
    let expected: [(u8, &[u8]); 11] = [
        (53, &[2]),
        (54, &[10, 0, 2, 2]),
        (61, &[9, 8, 7]),
        (1, &[255, 255, 255, 0]),
        (3, &[10, 0, 2, 2]),
        (6, &[10, 0, 2, 2]),
        (28, &[10, 0, 2, 255]),
        (26, &[5, 220]),
        (15, b"lab.example"),
        (119, b"\x03lab\x07example\x00\x07example\x03org\x00"),
        (51, &3600u32.to_be_bytes()),
    ];
    for (code, data) in expected {
        assert_eq!(option_of(&offer, code).as_deref(), Some(data), "option {code}");
    }
    dhcp(
        &mut rig,
        &mut link,
        CONTAINER,
        &dhcp_message(CONTAINER, &[53, 1, 3, 54, 4, 10, 0, 2, 2, 50, 4, 10, 0, 2, 100]),
    );
    let (ack, _, _) = dhcp_answer(&mut rig).unwrap();
    assert_eq!(
        (option_of(&ack, 53).unwrap(), &ack[16..20]),
        (vec![5], &[10, 0, 2, 100][..])
    );
    assert_eq!(link.leases().count(), 0, "an assigned address is no lease");
    // Another's address is refused, to all, as the client has no address to be told at.
    dhcp(
        &mut rig,
        &mut link,
        OTHER,
        &dhcp_message(OTHER, &[53, 1, 3, 50, 4, 10, 0, 2, 100]),
    );
    let (nak, dst, mac) = dhcp_answer(&mut rig).unwrap();
    assert_eq!(
        (option_of(&nak, 53).unwrap(), dst, mac),
        (vec![6], addr("255.255.255.255"), MacAddr::BROADCAST)
    );
    assert_eq!(nak[16..20], [0; 4]);
    // Another network's, too.
    dhcp(
        &mut rig,
        &mut link,
        CONTAINER,
        &dhcp_message(CONTAINER, &[53, 1, 3, 50, 4, 192, 168, 1, 5]),
    );
    assert_eq!(option_of(&dhcp_answer(&mut rig).unwrap().0, 53).unwrap(), [6]);
    // The broadcast flag.
    let mut m = dhcp_message(CONTAINER, &[53, 1, 1]);
    m[10] = 0x80;
    dhcp(&mut rig, &mut link, CONTAINER, &m);
    let (_, dst, mac) = dhcp_answer(&mut rig).unwrap();
    assert_eq!((dst, mac), (addr("255.255.255.255"), MacAddr::BROADCAST));
    // INFORM: configuration without an address.
    let mut m = dhcp_message(CONTAINER, &[53, 1, 8]);
    m[12..16].copy_from_slice(&[10, 0, 2, 100]);
    dhcp(&mut rig, &mut link, CONTAINER, &m);
    let (ack, dst, _) = dhcp_answer(&mut rig).unwrap();
    assert_eq!(
        (dst, option_of(&ack, 51), &ack[16..20]),
        (addr("10.0.2.100"), None, &[0; 4][..])
    );
    assert!(rig.dropped().is_empty());
}

#[test]
fn dhcp_s_range_is_bounded_leases_end_and_come_back() {
    let mut rig = Rig::new();
    let mut link = Link::new(&rig.config);
    let (first, last) = link.dhcp_range().unwrap();
    assert_eq!(
        (first, last),
        (Ipv4Addr::new(10, 0, 2, 192), Ipv4Addr::new(10, 0, 2, 254))
    );
    let size = u32::from(last) - u32::from(first) + 1;
    let mac = |i: u32| MacAddr([2, 9, 0, 0, 0, i as u8]);
    let mut given = std::collections::HashSet::new();
    for i in 0..size {
        dhcp(&mut rig, &mut link, mac(i), &dhcp_message(mac(i), &[53, 1, 1]));
        let offer = dhcp_answer(&mut rig).unwrap().0;
        let a: [u8; 4] = offer[16..20].try_into().unwrap();
        let request = [&[53, 1, 3, 54, 4, 10, 0, 2, 2, 50, 4][..], &a].concat();
        dhcp(&mut rig, &mut link, mac(i), &dhcp_message(mac(i), &request));
        assert_eq!(option_of(&dhcp_answer(&mut rig).unwrap().0, 53).unwrap(), [5]);
        assert!(given.insert(a));
        assert_eq!(rig.neighbours.pinned(Ipv4Addr::from(a).into()), Some(mac(i)));
    }
    assert_eq!(link.leases().count() as u32, size);
    dhcp(&mut rig, &mut link, OTHER, &dhcp_message(OTHER, &[53, 1, 1]));
    assert!(dhcp_answer(&mut rig).is_none(), "nothing left, nothing offered");
    // A release makes room, if it is the holder's.
    let mut release = dhcp_message(mac(0), &[53, 1, 7]);
    release[12..16].copy_from_slice(&first.octets());
    let mut stolen = release.clone();
    stolen[28..34].copy_from_slice(&OTHER.0);
    dhcp(&mut rig, &mut link, OTHER, &stolen);
    assert_eq!(link.leases().count() as u32, size);
    dhcp(&mut rig, &mut link, mac(0), &release);
    assert_eq!(link.leases().count() as u32, size - 1);
    assert_eq!(rig.neighbours.pinned(first.into()), None);
    // All end by time.
    rig.now += Duration::from_secs(3601);
    assert!(link.dhcp.deadline().unwrap() <= rig.now);
    link.flush(&mut rig.cx());
    assert_eq!(link.leases().count(), 0);
    assert_eq!(rig.neighbours.iter().count(), 0);
    rig.sent();
    // An old client keeps its address, if it is still free; a declined one is not offered again soon.
    let want = [&[53, 1, 3, 50, 4][..], &first.octets()].concat();
    dhcp(&mut rig, &mut link, mac(3), &dhcp_message(mac(3), &want));
    assert_eq!(option_of(&dhcp_answer(&mut rig).unwrap().0, 53).unwrap(), [5]);
    let decline = [&[53, 1, 4, 50, 4][..], &first.octets()].concat();
    dhcp(&mut rig, &mut link, mac(3), &dhcp_message(mac(3), &decline));
    dhcp(&mut rig, &mut link, mac(3), &dhcp_message(mac(3), &[53, 1, 1]));
    assert_ne!(dhcp_answer(&mut rig).unwrap().0[16..20], first.octets());
    // A message about somebody else, and one that came through a relay.
    rig.dropped();
    dhcp(&mut rig, &mut link, OTHER, &dhcp_message(mac(3), &[53, 1, 1]));
    let mut relayed = dhcp_message(OTHER, &[53, 1, 1]);
    relayed[24] = 10;
    dhcp(&mut rig, &mut link, OTHER, &relayed);
    assert_eq!(
        rig.dropped(),
        [DropReason::BadSourceAddress, DropReason::Forbidden]
    );
    assert!(rig.sent().is_empty());
}

/// Frames of a smoltcp host, one way and the other.
#[derive(Default)]
struct Queues {
    to: Vec<Vec<u8>>,
    from: Vec<Vec<u8>>,
}

struct Rx(Vec<u8>);
struct Tx<'a>(&'a mut Vec<Vec<u8>>);

impl smoltcp::phy::RxToken for Rx {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl smoltcp::phy::TxToken for Tx<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut b = vec![0; len];
        let r = f(&mut b);
        self.0.push(b);
        r
    }
}

impl smoltcp::phy::Device for Queues {
    type RxToken<'a> = Rx;
    type TxToken<'a> = Tx<'a>;
    fn receive(&mut self, _: smoltcp::time::Instant) -> Option<(Rx, Tx<'_>)> {
        let frame = (!self.to.is_empty()).then(|| self.to.remove(0))?;
        Some((Rx(frame), Tx(&mut self.from)))
    }
    fn transmit(&mut self, _: smoltcp::time::Instant) -> Option<Tx<'_>> {
        Some(Tx(&mut self.from))
    }
    fn capabilities(&self) -> DeviceCapabilities {
        let mut c = DeviceCapabilities::default();
        c.medium = Medium::Ethernet;
        c.max_transmission_unit = 1514;
        c
    }
}

#[test]
fn dhcp_converses_with_smoltcp_s_client() {
    let mut rig = Rig::new();
    let mut link = Link::new(&rig.config);
    let mut queues = Queues::default();
    let mac = HardwareAddress::Ethernet(CONTAINER.into());
    let mut iface = Interface::new(SmolConfig::new(mac), &mut queues, smoltcp::time::Instant::ZERO);
    let mut sockets = SocketSet::new(Vec::new());
    let client = sockets.add(dhcpv4::Socket::new());
    let mut configured = None;
    let mut renewals = 0;
    for _ in 0..5000 {
        iface.poll(rig.now.into(), &mut queues, &mut sockets);
        match sockets.get_mut::<dhcpv4::Socket<'_>>(client).poll() {
            Some(dhcpv4::Event::Configured(c)) => {
                configured = Some((c.address, c.router, c.dns_servers.to_vec()))
            }
            Some(dhcpv4::Event::Deconfigured) => configured = None,
            None => {}
        }
        for mut frame in std::mem::take(&mut queues.from) {
            if frame[12..14] == [8, 6] {
                link.arp(&mut rig.cx(), PORT, &mut Frame::whole(&mut frame, Offload::NONE));
            } else {
                renewals += u32::from(configured.is_some());
                rig.packet(&mut frame, |cx, p, f| link.dhcp(cx, p, f));
            }
        }
        queues.to.extend(rig.sent());
        // Renewals go by unicast, hours of them.
        rig.now += Duration::from_secs(if configured.is_some() { 2 } else { 1 });
        let now = rig.now;
        link.dhcp.expire(now, &mut rig.neighbours);
    }
    let (address, router, dns) = configured.expect("a lease, kept by renewing");
    assert_eq!(address.to_string(), "10.0.2.192/24");
    assert_eq!(router, Some(Ipv4Addr::new(10, 0, 2, 2)));
    assert_eq!(dns, [Ipv4Addr::new(10, 0, 2, 2)]);
    assert!(renewals >= 2, "renewed {renewals} times");
    assert_eq!(link.leases().count(), 1);
    assert!(rig.dropped().is_empty());
}

proptest! {
    #[test]
    fn random_bytes_panic_nobody(bytes in prop::collection::vec(any::<u8>(), 0..400), kind in 133u8..138) {
        let mut rig = Rig::new();
        let mut link = Link::new(&rig.config);
        let mut frame = [&CONTAINER.0[..], &CONTAINER.0, &[8, 6], &bytes].concat();
        link.arp(&mut rig.cx(), PORT, &mut Frame::whole(&mut frame, Offload::NONE));
        let mut short = bytes.clone();
        link.arp(&mut rig.cx(), PORT, &mut Frame::whole(&mut short, Offload::NONE));
        let mut frame = from(CONTAINER, LOCAL, GATEWAY6).ttl(255).icmp(kind, 0, [0; 4], &bytes);
        rig.packet(&mut frame, |cx, p, f| assert!(link.icmpv6_link(cx, p, f)));
        for m in [bytes.clone(), dhcp_message(CONTAINER, &bytes), dhcp_message(CONTAINER, &[&[53, 1, kind - 132], &bytes[..]].concat())] {
            dhcp(&mut rig, &mut link, CONTAINER, &m);
        }
        let mut frame = from(CONTAINER, "10.0.2.100", "10.0.2.2").ip(1, &bytes);
        rig.packet(&mut frame, |cx, p, f| { link.echo(cx, p, f); });
        // Whatever came, no answer went to anybody but the sender or a group.
        for frame in rig.sent() {
            let to = MacAddr::first(&frame).unwrap();
            prop_assert!(to == CONTAINER || to.is_group(), "{to}");
        }
    }
}
