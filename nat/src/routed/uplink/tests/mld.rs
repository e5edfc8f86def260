//! Groups: told of before anybody is asked, told to who asks, and no more than that.

use etherparse::{IpNumber, IpSlice, Ipv6RawExtHeaderSlice, SlicedPacket, TransportSlice};
use pontoon_switch::Checksum;

use super::super::mld::{OLDER, PAUSE};
use super::*;

/// The groups of [`LOCAL`] and of the address of [`site`].
const OWN: &str = "ff02::1:ff00:10";
const OTHERS: &str = "ff02::1:ff77:10";

/// What a record says (RFC 3810 section 5.2.12), with no sources: of somebody who listens, who begins to, who ends.
const IS: u8 = 2;
const ENDS: u8 = 3;
const BEGINS: u8 = 4;
/// Reports of version 1.
const OLD_REPORT: u8 = 131;
const OLD_DONE: u8 = 132;

const ALERT: [u8; 8] = [58, 0, 5, 2, 0, 0, 1, 0];

/// An uplink with two addresses of different groups.
fn site() -> Site {
    Site::new(world(
        None,
        Some(Addressing6::Static {
            address: "2001:db8::77:10/64".parse().expect("a net"),
            gateway: Some("2001:db8::1".parse::<Ipv6Addr>().expect("an address")),
        }),
    ))
}

/// The same when it has said what it says of itself.
fn quiet() -> Site {
    let mut site = site();
    site.run(SECOND * 5);
    site.said();
    assert_eq!(site.uplink.deadline(), None);
    site
}

fn says(records: &[(u8, &str)]) -> Said {
    Said::Groups(records.iter().map(|&(kind, group)| (kind, ip(group))).collect())
}

/// Only what was said of groups.
fn reports(site: &mut Site) -> Vec<Said> {
    let mut said = site.said();
    said.retain(|s| matches!(s, Said::Groups(_)));
    said
}

/// A question as `src` sends it to `dst`, with these bytes behind the group; all groups if it is `::`.
fn question(src: &str, dst: &str, code: u16, group: &str, rest: &[u8]) -> Vec<u8> {
    let IpAddr::V6(group) = ip(group) else {
        panic!("IPv6")
    };
    let IpAddr::V6(to) = ip(dst) else { panic!("IPv6") };
    let [.., a, b, c, d] = to.octets();
    let to = if to.is_multicast() {
        MacAddr([0x33, 0x33, a, b, c, d])
    } else {
        OURS
    };
    let [high, low] = code.to_be_bytes();
    let body = [&group.octets()[..], rest].concat();
    let between = Between::v6(src, dst).macs(ROUTER, to).ttl(1);
    let icmp = between.icmp(130, 0, [high, low, 0, 0], &body);
    between.ip(0, &[&ALERT[..], &icmp[54..]].concat())
}

/// Version 2: robustness 2, 125 s between questions, no sources.
const NO_SOURCES: [u8; 4] = [2, 125, 0, 0];

fn general(code: u16) -> Vec<u8> {
    question("fe80::1", "ff02::1", code, "::", &NO_SOURCES)
}

fn old_general(code: u16) -> Vec<u8> {
    question("fe80::1", "ff02::1", code, "::", &[])
}

#[test]
fn groups_are_told_of_before_anything_else_and_once_more() {
    let mut site = site();
    site.run(Duration::ZERO);
    let frames = site.frames();
    let both = says(&[(BEGINS, OWN), (BEGINS, OTHERS)]);
    assert_eq!(read(&frames[0]), both);
    assert!(frames.len() > 1, "announcements come after it");

    // By another reader.
    let packet = SlicedPacket::from_ethernet(&frames[0]).expect("a packet");
    let Some(etherparse::NetSlice::Ipv6(ip6)) = &packet.net else {
        panic!("IPv6")
    };
    let header = ip6.header();
    assert_eq!(
        (header.hop_limit(), header.next_header()),
        (1, IpNumber::IPV6_HEADER_HOP_BY_HOP)
    );
    let options = Ipv6RawExtHeaderSlice::from_slice(ip6.extensions().slice()).expect("options");
    assert_eq!(options.payload(), [5, 2, 0, 0, 1, 0]);
    let Some(TransportSlice::Icmpv6(icmp)) = &packet.transport else {
        panic!("ICMPv6")
    };
    assert!(icmp.is_checksum_valid(header.source(), header.destination()));
    assert_eq!(
        (icmp.type_u8(), icmp.code_u8(), icmp.bytes5to8()),
        (143, 0, [0, 0, 0, 2])
    );
    assert_eq!(icmp.payload().len(), 40);
    assert!(matches!(
        IpSlice::from_slice(&frames[0][14..]),
        Ok(IpSlice::Ipv6(_))
    ));

    site.run(SECOND);
    let again: Vec<Said> = reports(&mut site);
    // Each group by itself, if their times differ.
    let told = |group: &str| {
        let one = |s: &&Said| matches!(s, Said::Groups(r) if r.contains(&(BEGINS, ip(group))));
        again.iter().filter(one).count()
    };
    assert_eq!((told(OWN), told(OTHERS)), (1, 1), "{again:?}");
    site.run(SECOND * 3600);
    assert_eq!(reports(&mut site), []);
    // The link has been down.
    site.uplink.renew(site.now);
    site.run(Duration::ZERO);
    assert_eq!(read(&site.frames()[0]), both);
}

#[test]
fn an_address_of_a_router_is_asked_for_when_its_group_has_been_told_of() {
    let mut site = Site::new(world(None, Some(Addressing6::Slaac)));
    let advert = slaac::Advert::of("fe80::1", ROUTER).prefix("2001:db8:1::/64", 0xc0, 3600, 3600);
    site.hear(&advert.frame());
    let said = site.said();
    assert_eq!(said[0], says(&[(BEGINS, OWN)]));
    let probe = |s: &Said| matches!(s, Said::Solicit { src, .. } if src.is_unspecified());
    assert!(said.iter().any(probe), "{said:?}");
    // Both addresses have one group, which is told of once, and left with neither.
    site.run(SECOND * 4000);
    assert_eq!(reports(&mut site), [says(&[(BEGINS, OWN)])]);
    assert!(site.uplink.status().addresses.len() == 1, "its lifetime is over");
}

#[test]
fn a_group_that_is_left_is_told_of_twice_and_forgotten() {
    let mut site = quiet();
    let IpAddr::V6(own) = ip(OWN) else { panic!("IPv6") };
    site.uplink.listener.listen(site.now, &[own]);
    site.run(Duration::ZERO);
    assert_eq!(reports(&mut site), [says(&[(ENDS, OTHERS)])]);
    assert_eq!(site.uplink.listener.held(), 2);
    // It is no answer to a question any more.
    site.hear(&general(0));
    assert_eq!(reports(&mut site), [says(&[(IS, OWN)])]);
    site.run(SECOND);
    assert_eq!(reports(&mut site), [says(&[(ENDS, OTHERS)])]);
    assert_eq!(site.uplink.listener.held(), 1);
    // Joined again while that is being told.
    let now = site.now;
    site.uplink.listener.listen(now, &[]);
    site.run(Duration::ZERO);
    site.uplink.listener.listen(now, &[own]);
    site.run(SECOND * 2);
    let said = reports(&mut site);
    let begins = says(&[(BEGINS, OWN)]);
    assert_eq!(said, [says(&[(ENDS, OWN)]), begins.clone(), begins]);
}

#[test]
fn a_question_is_answered_once_within_its_time() {
    let mut site = quiet();
    let both = [says(&[(IS, OWN), (IS, OTHERS)])];
    let one = |group| [says(&[(IS, group)])];
    // Ten seconds; and the same as a code with an exponent: (1 << 12) << 3 milliseconds.
    for (code, time) in [(10_000, 10_000), (0x8000, 32_768)] {
        for _ in 0..5 {
            site.hear(&general(code));
        }
        let early = site.said();
        site.run(Duration::from_millis(time));
        assert_eq!([early, reports(&mut site)].concat(), both);
        site.run(SECOND * 100);
        assert_eq!(site.said(), []);
    }
    // One that will not wait brings the answer forward, and there is one still.
    site.hear(&general(0xffff));
    site.run(PAUSE);
    site.hear(&general(1));
    site.run(Duration::from_millis(1));
    assert_eq!(site.said(), both);
    site.run(SECOND * 10_000);
    assert_eq!(site.said(), []);

    // About one group: to itself, to all (as the kernel has it), and to our address.
    for dst in [OTHERS, "ff02::1", LOCAL] {
        site.hear(&question("fe80::1", dst, 1000, OTHERS, &NO_SOURCES));
        site.run(SECOND);
        assert_eq!(site.said(), one(OTHERS), "{dst}");
    }
    // About a source of one.
    let IpAddr::V6(source) = ip("2001:db8::9") else {
        panic!("IPv6")
    };
    let rest = [&[2, 125, 0, 1][..], &source.octets()].concat();
    site.hear(&question("fe80::1", OWN, 1000, OWN, &rest));
    site.run(SECOND);
    assert_eq!(site.said(), one(OWN));
    // An answer for all that is due sooner serves for one as well: this second one has to wait a moment.
    site.hear(&general(1));
    site.hear(&general(1));
    site.hear(&question("fe80::1", OWN, 5000, OWN, &NO_SOURCES));
    site.run(SECOND * 10);
    assert_eq!(site.said(), [&both[..], &both].concat());
    // Of groups that are not ours, and of all nodes, nothing is said.
    for group in ["ff02::1:ff00:99", "ff02::1", "ff02::16"] {
        site.hear(&question("fe80::1", "ff02::1", 1000, group, &NO_SOURCES));
        site.hear(&question("fe80::1", "ff02::1", 1000, group, &[]));
    }
    site.run(SECOND * 10);
    assert_eq!(site.said(), []);
    assert!(site.drops().is_empty());
}

#[test]
fn what_did_not_come_as_a_question_of_this_link_is_dropped() {
    use DropReason::{BadChecksum, BadSourceAddress, Forbidden, Malformed};
    let with = |at: usize, bytes: &[u8]| {
        let mut frame = general(0);
        frame[at..at + bytes.len()].copy_from_slice(bytes);
        frame
    };
    let of = |rest: &[u8]| question("fe80::1", "ff02::1", 0, "::", rest);
    let from = |src: &str| question(src, "ff02::1", 0, "::", &NO_SOURCES);
    let about = |group: &str, dst: &str| question("fe80::1", dst, 0, group, &NO_SOURCES);
    let mut plain = Between::v6("fe80::1", "ff02::1")
        .macs(ROUTER, MacAddr([0x33, 0x33, 0, 0, 0, 1]))
        .ttl(1)
        .icmp(130, 0, [0; 4], &[&[0; 16][..], &NO_SOURCES].concat());
    let mut cases = vec![
        (from("2001:db8::1"), BadSourceAddress),
        (from("::"), BadSourceAddress),
        (from(LOCAL), BadSourceAddress),
        // From beyond the link.
        (with(14 + 7, &[2]), Malformed),
        (with(14 + 7, &[64]), Malformed),
        // Padding, another alert, an option that is none.
        (with(54 + 2, &[1, 4, 0, 0, 0, 0]), Malformed),
        (with(54 + 4, &[0, 1]), Malformed),
        (with(54 + 2, &[5, 9]), Malformed),
        (plain.clone(), Malformed),
        (with(54 + 8 + 5, &[1]), BadChecksum),
        // Neither version's length; more sources than there are.
        (of(&[2]), Malformed),
        (of(&[2, 125, 0]), Malformed),
        (of(&[2, 125, 0, 1]), Malformed),
        (about("2001:db8::9", "ff02::1"), Malformed),
        // To a group of others', or to others.
        (about("::", "ff02::1:ff00:99"), Forbidden),
        (about("::", "2001:db8::9"), Forbidden),
    ];
    // Options to the destination are none of routers'.
    plain = general(0);
    plain[14 + 6] = 60;
    cases.push((plain, Malformed));
    let mut site = quiet();
    for (frame, reason) in cases {
        site.hear(&frame);
        assert_eq!(site.drops(), [reason], "{frame:02x?}");
        site.run(SECOND);
        assert_eq!(site.said(), []);
    }
    // Reports of others are nobody's.
    let mut report = general(0);
    report[62] = 143;
    site.hear(&report);
    assert_eq!(site.drops(), [Forbidden]);
    // A host on this machine leaves the checksum to the card.
    let (start, offset) = (62, 2);
    let checksum = Checksum::Partial { start, offset };
    site.hear_as(&with(64, &[0, 0]), Offload { checksum, gso: None });
    assert_eq!(site.said().len(), 1);
}

#[test]
fn who_asks_in_version_1_is_answered_so_and_all_are_for_some_minutes() {
    let mut site = quiet();
    let olds = [says(&[(OLD_REPORT, OWN)]), says(&[(OLD_REPORT, OTHERS)])];
    let sorted = |site: &mut Site| {
        let mut said = site.said();
        said.sort_by_key(|s| *s != olds[0]);
        said
    };
    site.hear(&old_general(10_000));
    site.run(SECOND * 10);
    assert_eq!(sorted(&mut site), olds);
    // Who speaks version 2 as well.
    site.hear(&general(5000));
    site.run(SECOND * 5);
    assert_eq!(sorted(&mut site), olds);
    site.hear(&question("fe80::1", OTHERS, 1000, OTHERS, &[]));
    site.run(SECOND);
    assert_eq!(site.said(), olds[1..]);
    // An end is said once, a beginning twice within ten seconds.
    let [IpAddr::V6(own), IpAddr::V6(others)] = [ip(OWN), ip(OTHERS)] else {
        panic!("IPv6")
    };
    site.uplink.listener.listen(site.now, &[own]);
    site.run(SECOND * 20);
    assert_eq!(site.said(), [says(&[(OLD_DONE, OTHERS)])]);
    site.uplink.listener.listen(site.now, &[own, others]);
    site.run(SECOND * 10);
    assert_eq!(site.said(), [olds[1].clone(), olds[1].clone()]);
    // The last question of version 1 was 31 s ago.
    let left = OLDER - SECOND * 31;
    site.run(left - Duration::from_millis(1));
    site.hear(&general(0));
    assert_eq!(site.said(), olds);
    site.run(PAUSE);
    site.hear(&general(0));
    assert_eq!(site.said(), [says(&[(IS, OWN), (IS, OTHERS)])]);
    // A change of version forgets what was to be said: another answer follows.
    site.hear(&general(10_000));
    site.hear(&old_general(0));
    site.run(PAUSE);
    assert_eq!(site.said(), olds);
    site.run(OLDER);
    assert_eq!(site.said(), []);
}

#[test]
fn a_flood_of_questions_makes_ten_answers_a_second() {
    for old in [false, true] {
        let mut site = quiet();
        let start = site.now;
        let mut asked = 0;
        while site.now < start + SECOND * 10 {
            for group in 0..20 {
                let group = format!("ff02::1:ff00:{group}");
                for group in ["::", OWN, OTHERS, &group] {
                    let rest = if old { &[][..] } else { &NO_SOURCES };
                    site.hear(&question("fe80::1", "ff02::1", 0, group, rest));
                    asked += 1;
                }
            }
            site.run(Duration::from_millis(7));
        }
        let said = site.said().len();
        // A group more where each has its own report; the first at once.
        let most = if old { 2 * 101 } else { 101 };
        assert!(
            said <= most && said >= most - 10,
            "{said} answers to {asked} questions"
        );
        assert_eq!(site.uplink.listener.held(), 2);
        site.run(SECOND);
        site.said();
        site.run(SECOND * 1000);
        assert_eq!(site.said(), []);
        assert_eq!(site.uplink.deadline(), None);
    }
}

#[test]
fn a_link_without_ipv6_says_nothing_and_takes_no_questions() {
    let address = "192.0.2.10/24".parse().expect("a net");
    let gateway = None;
    let mut site = Site::new(world(Some(Addressing4::Static { address, gateway }), None));
    site.run(SECOND * 10);
    assert_eq!(reports(&mut site), []);
    site.hear(&general(0));
    site.run(SECOND * 10);
    assert_eq!(site.said(), []);
    assert_eq!(site.drops(), [DropReason::UnknownProtocol]);
}
