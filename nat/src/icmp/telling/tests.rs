//! What is told by any link, read by the fixtures' own dissection, which verifies every checksum.

use pontoon_fixtures::packet::{Between, ETHERNET, IPV4, IPV6, Parsed, Payload, fragment};

use super::*;

const ROUTER4: &str = "192.0.2.1";
const ROUTER6: &str = "2001:db8::1";

fn nets() -> [Ipv4Net; 1] {
    ["192.0.2.0/24".parse().expect("a network")]
}

fn telling(frame: &[u8], error: IcmpError) -> Option<Telling<'_>> {
    let packet = &frame[ETHERNET..];
    let from = if packet[0] >> 4 == 4 { ROUTER4 } else { ROUTER6 };
    Telling::about(packet, from.parse().expect("an address"), error, &nets())
}

fn between(v6: bool) -> Between {
    if v6 {
        Between::v6("2001:db8:1::5", "2001:db8:2::5")
    } else {
        Between::v4("198.51.100.5", "203.0.113.5")
    }
}

#[test]
fn an_error_is_a_packet_for_its_subjects_sender() {
    for (v6, kind, longest) in [(false, 3, 576), (true, 2, 1280)] {
        for len in [10, 3000] {
            let subject = between(v6).udp(1000, 2000, &vec![7; len]);
            let telling = telling(&subject, IcmpError::PacketTooBig(1400)).expect("may be told");
            let mut buf = [0xff; 1400];
            let n = telling.packet(1500, 99, &mut buf);
            assert!(n <= longest, "{n} bytes");
            let ethertype = if v6 { IPV6 } else { IPV4 };
            let frame = [&[0; 12][..], &ethertype.to_be_bytes(), &buf[..n]].concat();
            let parsed = Parsed::of(&frame).expect("IP");
            assert_eq!(
                (parsed.src.to_string().as_str(), parsed.dst),
                (if v6 { ROUTER6 } else { ROUTER4 }, telling.to())
            );
            assert_eq!((parsed.ip_len, parsed.ttl), (n, 64));
            let Payload::Icmp {
                kind: k, rest, body, ..
            } = parsed.payload
            else {
                panic!("{parsed:?}")
            };
            assert_eq!((k, u32::from_be_bytes(rest)), (kind, 1400));
            assert!(subject[ETHERNET..].starts_with(body));
            assert_eq!(
                body.len(),
                (subject.len() - ETHERNET).min(longest - if v6 { 48 } else { 28 })
            );
        }
    }
}

#[test]
fn a_small_link_gets_a_small_one() {
    let subject = between(false).udp(1000, 2000, &[7; 600]);
    let told = telling(&subject, IcmpError::HopLimitExceeded).expect("may be told");
    assert_eq!(told.packet(68, 0, &mut [0; 1280]), 68);
}

#[test]
fn rfc1122_section_3_2_2_who_is_not_told() {
    let not_told = |frame: &[u8], why: &str| {
        assert!(telling(frame, IcmpError::HopLimitExceeded).is_none(), "{why}");
    };
    let told = |frame: &[u8], why: &str| {
        assert!(telling(frame, IcmpError::HopLimitExceeded).is_some(), "{why}");
    };
    for v6 in [false, true] {
        let inner = between(v6).udp(1, 2, b"");
        let error = if v6 { 1 } else { 3 };
        not_told(
            &between(v6).icmp(error, 0, [0; 4], &inner[ETHERNET..]),
            "about an error",
        );
        told(&between(v6).echo(1, 2, b""), "about a question");
        let pieces = fragment(&between(v6).udp(1, 2, &[0; 3000]), 1500);
        told(&pieces[0], "about a first fragment");
        not_told(&pieces[1], "about a later fragment");
    }
    let v4 = |src, dst| Between::v4(src, dst).udp(1, 2, b"");
    let v6 = |src, dst| Between::v6(src, dst).udp(1, 2, b"");
    not_told(&v4("198.51.100.5", "224.0.0.5"), "to a group");
    not_told(&v4("198.51.100.5", "255.255.255.255"), "to all");
    not_told(&v4("198.51.100.5", "192.0.2.255"), "to all of a link");
    told(&v4("198.51.100.5", "192.0.2.254"), "to one of them");
    not_told(&v4("0.0.0.0", "203.0.113.5"), "from nobody");
    not_told(&v4("127.0.0.1", "203.0.113.5"), "from a loopback");
    not_told(&v4("240.0.0.1", "203.0.113.5"), "from what is no host's");
    not_told(&v4("192.0.2.255", "203.0.113.5"), "from all of a link");
    not_told(&v6("::", "2001:db8:2::5"), "from nobody");
    not_told(&v6("2001:db8:1::5", "ff02::5"), "to a group");
    // RFC 4443 section 2.4 e.3.
    let to_group = v6("2001:db8:1::5", "ff0e::5");
    assert!(
        telling(&to_group, IcmpError::PacketTooBig(1280)).is_some(),
        "a path's MTU"
    );
    // In a name that cannot be.
    let subject = v4("198.51.100.5", "203.0.113.5");
    for from in [ROUTER6, "0.0.0.0", "224.0.0.1"] {
        let from = from.parse().expect("an address");
        assert!(Telling::about(&subject[ETHERNET..], from, IcmpError::Prohibited, &nets()).is_none());
    }
}
