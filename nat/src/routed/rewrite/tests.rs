//! Properties of translation, judged by etherparse: nothing under test checks itself.

use std::net::IpAddr;

use etherparse::checksum::Sum16BitWords;
use etherparse::{IpSlice, TcpSlice, UdpSlice};
use pontoon_fixtures::packet::{self, Between, Parsed, Payload, Tcp, explode, flags};
use pontoon_switch::{Checksum, DropReason, Frame, Gso, GsoKind, Offload, PortId};
use proptest::prelude::*;

use super::*;
use crate::packet::ETHERNET;

mod errors;
mod samples;

use samples::*;

/// What etherparse says of the IP packet in `frame`: source, destination, protocol, transport bytes.
pub(super) fn seen(frame: &[u8]) -> (IpAddr, IpAddr, u8, Vec<u8>) {
    let ip = IpSlice::from_slice(&frame[ETHERNET..]).expect("an IP packet");
    if let IpSlice::Ipv4(ip) = &ip {
        let header = ip.header();
        let right = header.to_header().calc_header_checksum();
        assert_eq!(header.header_checksum(), right, "IPv4 header checksum");
    }
    let payload = ip.payload();
    let transport = payload.payload.to_vec();
    (
        ip.source_addr(),
        ip.destination_addr(),
        payload.ip_number.0,
        transport,
    )
}

/// What is missing in `frame` to a right transport checksum, by etherparse: 0 if it is right.
fn wrong_by(frame: &[u8]) -> u16 {
    let (src, dst, protocol, transport) = seen(frame);
    residue(src, dst, protocol, &transport)
}

fn residue(src: IpAddr, dst: IpAddr, protocol: u8, transport: &[u8]) -> u16 {
    let length = u32::try_from(transport.len()).expect("a packet");
    let pseudo = match (src, dst) {
        (IpAddr::V4(s), IpAddr::V4(d)) if protocol != 1 => Sum16BitWords::new()
            .add_4bytes(s.octets())
            .add_4bytes(d.octets())
            .add_4bytes(length.to_be_bytes())
            .add_2bytes([0, protocol]),
        (IpAddr::V6(s), IpAddr::V6(d)) => Sum16BitWords::new()
            .add_16bytes(s.octets())
            .add_16bytes(d.octets())
            .add_4bytes(length.to_be_bytes())
            .add_2bytes([0, protocol]),
        (IpAddr::V4(_), IpAddr::V4(_)) => Sum16BitWords::new(),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => panic!("one version"),
    };
    // Words are added as they lie in memory.
    pseudo.add_slice(transport).ones_complement().to_be()
}

fn parse(bytes: &mut [u8], offload: Offload) -> (Frame<'_>, Packet) {
    let frame = Frame::whole(bytes, offload);
    let packet = Packet::parse(PortId(1), &frame).expect("a packet");
    (frame, packet)
}

/// `bytes` with `to` in the place of its tuple.
fn translated(bytes: &[u8], offload: Offload, to: &Tuple) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let (mut frame, mut packet) = parse(&mut bytes, offload);
    translate(&mut frame, &mut packet, to);
    assert_eq!(frame.offload, offload, "stays what it is");
    let read = Packet::parse(PortId(1), &frame).expect("still a packet");
    assert_eq!(read, packet, "what is known of it stays true");
    bytes
}

fn tuple_of(bytes: &[u8], offload: Offload) -> Tuple {
    let mut bytes = bytes.to_vec();
    let (frame, packet) = parse(&mut bytes, offload);
    match tuple(&packet, &frame).expect("a tuple") {
        Subject::Flow(tuple) | Subject::Answer(tuple) => tuple,
        Subject::Error => panic!("an error"),
    }
}

proptest! {
    #[test]
    fn there_and_back_is_the_identity(sample in sample(), ends in ends()) {
        let Sample { bytes, offload } = sample;
        let from = tuple_of(&bytes, offload);
        let to = ends.tuple(&bytes, from);
        let there = translated(&bytes, offload, &to);
        prop_assert_eq!(tuple_of(&there, offload), to);
        prop_assert_eq!(translated(&there, offload, &from), bytes);
    }

    #[test]
    fn a_right_checksum_stays_right_and_a_wrong_one_as_wrong(sample in whole_sample(), ends in ends()) {
        let Sample { bytes, offload } = sample;
        prop_assume!(!has_none(&bytes));
        let there = translated(&bytes, offload, &ends.tuple(&bytes, tuple_of(&bytes, offload)));
        let (src, dst, protocol, transport) = seen(&there);
        if sums(protocol) {
            prop_assert_eq!(wrong_by(&there), wrong_by(&bytes));
        }
        if wrong_by(&bytes) == 0 && protocol == 6 {
            let tcp = TcpSlice::from_slice(&transport).expect("TCP");
            let right = match (src, dst) {
                (IpAddr::V4(s), IpAddr::V4(d)) => tcp.calc_checksum_ipv4(s.octets(), d.octets()).expect("short"),
                (IpAddr::V6(s), IpAddr::V6(d)) => tcp.calc_checksum_ipv6(s.octets(), d.octets()).expect("short"),
                _ => unreachable!("one version"),
            };
            prop_assert_eq!(tcp.checksum(), right);
        }
        if wrong_by(&bytes) == 0 && protocol == 17 {
            prop_assert_ne!(UdpSlice::from_slice(&transport).expect("UDP").checksum(), 0, "none");
        }
    }

    #[test]
    fn a_partial_checksum_is_right_once_it_is_filled_in(sample in partial_sample(), ends in ends()) {
        let Sample { bytes, offload } = sample;
        let there = translated(&bytes, offload, &ends.tuple(&bytes, tuple_of(&bytes, offload)));
        let filled = explode(&there, offload).swap_remove(0);
        prop_assert_eq!(wrong_by(&filled), 0);
    }

    #[test]
    fn nothing_else_changes(sample in sample(), ends in ends()) {
        let Sample { bytes, offload } = sample;
        let there = translated(&bytes, offload, &ends.tuple(&bytes, tuple_of(&bytes, offload)));
        prop_assert_eq!(without_what_changes(&there), without_what_changes(&bytes));
        if has_none(&bytes) {
            prop_assert!(has_none(&there), "UDP without a checksum");
        }
    }

    #[test]
    fn a_super_frame_stays_one(v6 in any::<bool>(), ends in ends(), len in 3000usize..60_000, udp in any::<bool>()) {
        let data = vec![0x5a; len];
        let (frame, offload) = super_frame(v6, udp, &data);
        let to = ends.tuple(&frame, tuple_of(&frame, offload));
        let there = translated(&frame, offload, &to);
        let mut whole = 0;
        for segment in explode(&there, offload) {
            let parsed = Parsed::of(&segment).expect("checksums are right");
            prop_assert_eq!((parsed.src, parsed.dst), (to.src.ip(), to.dst.ip()));
            match parsed.payload {
                Payload::Tcp { src, dst, data, .. } | Payload::Udp { src, dst, data } => {
                    prop_assert_eq!((src, dst), (to.src.port(), to.dst.port()));
                    whole += data.len();
                }
                other => prop_assert!(false, "{:?}", other),
            }
        }
        prop_assert_eq!(whole, len);
    }

    #[test]
    fn a_hop_is_one_less_and_nothing_else(sample in sample()) {
        let Sample { bytes, offload } = sample;
        let mut after = bytes.clone();
        let (mut frame, mut packet) = parse(&mut after, offload);
        prop_assert_eq!(hop(&mut frame, &mut packet), Ok(()));
        prop_assert_eq!(Packet::parse(PortId(1), &frame), Ok(packet));
        let at = ETHERNET + if packet.src.is_ipv4() { 8 } else { 7 };
        prop_assert_eq!(after[at], bytes[at] - 1);
        seen(&after);
        after[at] += 1;
        if packet.src.is_ipv4() {
            after[ETHERNET + 10..ETHERNET + 12].copy_from_slice(&bytes[ETHERNET + 10..ETHERNET + 12]);
        }
        prop_assert_eq!(after, bytes);
    }

    #[test]
    fn an_mss_is_lowered_never_raised(
        v6 in any::<bool>(),
        pad in 0usize..4,
        mss in any::<u16>(),
        max in any::<u16>(),
        syn in any::<bool>(),
        wrong in any::<u8>(),
        partial in any::<bool>(),
    ) {
        // Padding before it, so that it stands at odd places too; a timestamp behind.
        let mut options = vec![NOP; pad];
        options.extend([2, 4]);
        options.extend(mss.to_be_bytes());
        options.extend([8, 10, 1, 2, 3, 4, 5, 6, 7, 8]);
        options.resize(options.len().next_multiple_of(4), 0);
        let flags = if syn { flags::SYN } else { flags::ACK };
        let mut bytes = between(v6).tcp(Tcp { src: 1, dst: 2, flags, options: &options, ..Tcp::default() });
        let at = bytes.len() - 20 - options.len();
        let offload = if partial {
            make_partial(&mut bytes, at, 16)
        } else {
            bytes[at + 17] ^= wrong;
            Offload::NONE
        };
        let before = bytes.clone();
        let (mut frame, packet) = parse(&mut bytes, offload);
        clamp_mss(&mut frame, &packet, max);
        let told = u16::from_be_bytes([bytes[at + 20 + pad + 2], bytes[at + 20 + pad + 3]]);
        prop_assert_eq!(told, if syn { mss.min(max) } else { mss });
        if partial {
            prop_assert_eq!(wrong_by(&explode(&bytes, offload)[0]), 0);
        } else {
            prop_assert_eq!(wrong_by(&bytes), wrong_by(&before));
        }
    }

    #[test]
    fn damaged_options_are_looked_at_within_their_bounds(options in proptest::collection::vec(any::<u8>(), 0..40), max in any::<u16>()) {
        let mut options = options;
        options.resize(options.len().next_multiple_of(4), 0);
        let mut bytes = between(false).tcp(Tcp { flags: flags::SYN, options: &options, ..Tcp::default() });
        let (mut frame, packet) = parse(&mut bytes, Offload::NONE);
        clamp_mss(&mut frame, &packet, max);
        prop_assert_eq!(wrong_by(&bytes), 0);
    }

    #[test]
    fn whatever_parses_is_rewritten_without_harm(
        mut sample in sample(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        start in any::<u16>(),
        offset in any::<u16>(),
    ) {
        for (at, value) in damage {
            let at = at.index(sample.bytes.len());
            sample.bytes[at] = value;
        }
        if sample.bytes[ETHERNET] >> 4 == 4 {
            let len = usize::from(sample.bytes[ETHERNET] & 15) * 4;
            set_header_checksum(&mut sample.bytes, len.min(60));
        }
        let offload = Offload { checksum: Checksum::Partial { start, offset }, gso: None };
        let mut frame = Frame::whole(&mut sample.bytes, offload);
        let Ok(mut packet) = Packet::parse(PortId(1), &frame) else { return Ok(()) };
        clamp_mss(&mut frame, &packet, 100);
        if let Ok(Subject::Flow(tuple) | Subject::Answer(tuple)) = tuple(&packet, &frame) {
            translate(&mut frame, &mut packet, &tuple.reversed());
        }
        if let Ok(quoted) = quoted(&packet, &frame) {
            translate_error(&mut frame, &mut packet, &quoted, quoted.tuple.dst.ip(), quoted.tuple.src.ip(), &quoted.tuple.reversed());
        }
    }
}

#[test]
fn an_answers_tuple_is_the_reversed_querys() {
    for (v6, kinds) in [
        (false, &[(8, 0), (13, 14), (15, 16), (17, 18)][..]),
        (true, &[(128, 129)][..]),
    ] {
        for &(query, answer) in kinds {
            let subject = |kind, between: Between| {
                let mut bytes = between.icmp(kind, 0, [0x12, 0x34, 0, 1], b"data");
                let (frame, packet) = parse(&mut bytes, Offload::NONE);
                tuple(&packet, &frame)
            };
            let there = between(v6);
            let (Ok(Subject::Flow(asked)), Ok(Subject::Answer(answered))) =
                (subject(query, there), subject(answer, back(v6)))
            else {
                panic!("{query}, {answer}")
            };
            assert_eq!((asked.src.port(), asked.dst.port()), (0x1234, 0));
            assert_eq!(answered, asked.reversed());
        }
    }
}

/// The one case in which equation 3 gives the wrong zero: a message of ICMP without one bit set.
#[test]
fn rfc1624_section3_the_message_of_zeroes() {
    let bytes = between(false).icmp(0, 0, [0, 7, 0, 0], &[0; 8]);
    let from = tuple_of(&bytes, Offload::NONE);
    let mut to = from;
    to.dst.set_port(0);
    let there = translated(&bytes, Offload::NONE, &to);
    assert_eq!(wrong_by(&there), 0);
    assert_eq!(translated(&there, Offload::NONE, &from), bytes);
}

/// RFC 768: a computed zero is sent as the other zero, as zero means that there is none.
#[test]
fn rfc768_a_computed_zero_is_all_ones() {
    for v6 in [false, true] {
        // Data that make the sum over the others the checksum itself.
        let bare = back(v6).udp(3, 4, &[0, 0]);
        let at = bare.len() - 10;
        let there = back(v6).udp(3, 4, &bare[at + 6..at + 8]);
        assert_eq!(there[at + 6..at + 8], [0xff, 0xff]);
        let to = tuple_of(&there, Offload::NONE);
        let from = tuple_of(&between(v6).udp(1, 2, b""), Offload::NONE);
        let here = translated(&there, Offload::NONE, &from);
        assert_eq!(wrong_by(&here), 0);
        assert_eq!(translated(&here, Offload::NONE, &to), there);
    }
}

#[test]
fn headers_that_cannot_be_are_refused() {
    let refused = |bytes: &mut [u8]| {
        let (frame, packet) = parse(bytes, Offload::NONE);
        tuple(&packet, &frame)
    };
    for v6 in [false, true] {
        let b = between(v6);
        let icmp = if v6 { 58 } else { 1 };
        for (protocol, len) in [(6, 19), (17, 7), (icmp, 7)] {
            assert_eq!(
                refused(&mut b.ip(protocol, &vec![0x50; len])),
                Err(DropReason::Malformed),
                "{protocol}"
            );
        }
        let mut tcp = b.tcp(Tcp::default());
        let at = tcp.len() - 20 + 12;
        for words in [4, 6] {
            tcp[at] = words << 4;
            assert_eq!(
                refused(&mut tcp),
                Err(DropReason::Malformed),
                "a header of {words} words"
            );
        }
        let mut udp = b.udp(1, 2, b"data");
        let at = udp.len() - 12 + 4;
        for len in [7, 13] {
            udp[at + 1] = len;
            assert_eq!(refused(&mut udp), Err(DropReason::Malformed), "a length of {len}");
        }
        let router = if v6 { 133 } else { 10 };
        assert_eq!(
            refused(&mut b.icmp(router, 0, [0; 4], b"")),
            Err(DropReason::UnknownProtocol)
        );
    }
}

#[test]
fn a_hop_limit_is_not_used_up() {
    for v6 in [false, true] {
        for ttl in [0, 1] {
            let mut bytes = between(v6).ttl(ttl).udp(1, 2, b"");
            let before = bytes.clone();
            let (mut frame, mut packet) = parse(&mut bytes, Offload::NONE);
            assert_eq!(hop(&mut frame, &mut packet), Err(DropReason::HopLimit));
            assert_eq!(bytes, before);
        }
    }
}
